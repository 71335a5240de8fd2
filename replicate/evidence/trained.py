"""Models that are ready to be tested, and what they say of test faces."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from replicate.devices import choose_device, describe_device
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.training import FitReport


class Predicted(NamedTuple):
    """What one model says of N faces.

    Attributes
    ----------
    points : array
        (N, L, 2) in image pixels, in the markup of the faces.
    confidence : array or None
        (N, L), higher where a landmark is surer.
    more : mapping of str to array
        Further points (N, L, 2), such as those of other settings of the same model, by the key of their error:
        ``"inter-pupil, 3 iterations"``.
    """

    points: np.ndarray
    confidence: np.ndarray | None = None
    more: Mapping[str, np.ndarray] = {}


@dataclass(frozen=True)
class Trained:
    """Models that are ready to be tested.

    Attributes
    ----------
    predict : callable
        From faces to one `Predicted` per model.
    reports : sequence of FitReport
        What the training of each model did, with the seconds of all that it took.
    on : FaceSource
        The training faces.
    after : FaceSource, optional
        Those that the models were trained on before, if any.
    about : mapping
        What else goes on record of the models, as JSON values.
    """

    predict: Callable[[FaceSet], Sequence[Predicted]]
    reports: Sequence[FitReport]
    on: FaceSource
    after: FaceSource | None = None
    about: Mapping[str, float | str | list[float]] = field(default_factory=dict)

    def provenance(self, faces: FaceSet, device: str) -> list[dict]:
        """What goes on record of a test of each model on some faces, as JSON values."""
        shared = {
            "device": describe_device(choose_device(device)),
            "faces_sha256": faces.sha256,
            "box_rule": faces.box_rule,
            "markup": faces.markup,
            "training_faces": self.on.count,
            **({"trained_before_on": self.after.count} if self.after else {}),
            **self.about,
        }
        return [shared | _training(report) for report in self.reports]


def _training(report: FitReport) -> dict:
    """Seconds of a training, and [samples, validation error] pairs where there was a validation."""
    about = {"training_seconds": round(report.seconds, 1)}
    if report.history:
        batch = report.samples / report.steps
        about["validation"] = [[round(step * batch), round(error, 3)] for step, error in report.history]
    return about
