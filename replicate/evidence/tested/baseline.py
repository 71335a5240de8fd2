"""Predictions of the baselines, and what the tests of all methods share."""

from collections.abc import Sequence

import numpy as np

from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.scoring import Score
from replicate.evidence.trained import Predicted, Trained
from replicate.faces import protocols
from replicate.faces.faceset import FaceSet
from replicate.faces.markups import convert
from replicate.faces.sources import FaceSource
from replicate.methods import baselines
from replicate.methods.baselines import SDM, MeanShape


def test_baseline(
    run: Experiment,
    model: MeanShape | SDM,
    train: FaceSource,
    source: FaceSource,
    *,
    points: bool = True,
    more: Sequence[Score] = (),
) -> list[Predictions]:
    """One run of a baseline, fitted to `train`, on `source`; see `test_dan`.

    Faces of another markup than the training faces are judged by those of their points that follow from the fitted ones.

    Parameters
    ----------
    more : sequence of Score
        What it is judged by besides, see `Experiment.test`.
    """

    def obtain() -> Trained:
        fitted, stored = baselines.obtain(model, train, run.profile, run.seed, fresh=run.fresh)

        def predict(faces: FaceSet) -> list[Predicted]:
            return [Predicted(as_annotated(fitted.predict(faces.images, faces.boxes), train, faces))]

        return Trained(predict, [stored.report], train)

    return run.test([baselines.key(model, train, run.profile, run.seed).hash], source, obtain, points, more)


def markup_of(source: FaceSource) -> str:
    """The markup of the faces of a source."""
    return protocols.markup_of(source.protocol, source.split)


def as_annotated(points: np.ndarray, train: FaceSource, faces: FaceSet) -> np.ndarray:
    """Points in the markup of the training faces, (N, L, 2), as points in that of the test faces."""
    return points if markup_of(train) == faces.markup else convert(points, markup_of(train), faces.markup)


def swept_key(setting: int | str, what: str) -> str:
    """Key of the error with one of several settings, see `predictions.swept`."""
    return f"inter-pupil, {setting} {what}"
