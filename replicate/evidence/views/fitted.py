"""Panels of fitted faces: a row for each kind of faces, points from the record where they are there."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure

from replicate.errors import ReplicateError
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import faces_grid
from replicate.evidence.predictions import Predictions
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.methods import ect_training
from replicate.methods.ect import ECTConfig
from replicate.methods.ect_fitting import fits

COLUMNS = 6  # faces in a row


def example_faces(
    run: Experiment,
    artefact: str,
    rows: Mapping[str, tuple[FaceSet, Predictions]],
    predict: Callable[[FaceSet], np.ndarray],
    *,
    method: str,
    score: str,
    columns: int = COLUMNS,
    lines: int = 1,
    markup: str | None = None,
) -> Figure:
    """The first faces of each kind with their fitted landmarks, recorded for an artefact: none is picked.

    Parameters
    ----------
    rows : dict of str to (FaceSet, Predictions)
        By what the faces are, in words: faces, all in one markup, and predictions on these and perhaps other faces.
    predict : callable
        From faces to landmarks (N, L, 2), asked where their points are not on record.
    method : str
        What fitted them.
    score : str
        Which error stands above each face, ``"inter-pupil"``.
    columns, lines : int
        Faces in a row, and rows of each kind.
    markup : str, optional
        Of the fitted landmarks, if it is not that of the faces.

    Raises
    ------
    ReplicateError
        If a kind has fewer faces than are shown, or faces that were not predicted.
    """
    images, points, errors, count = [], [], [], columns * lines
    for kind, (faces, tested) in rows.items():
        if len(faces) < count:
            raise ReplicateError(f"rows[{kind!r}]: got {len(faces)} faces, expected {count} or more")
        shown = faces.subset(np.arange(count))
        places = _places(shown, tested)
        images += list(shown.images)
        points += list(predict(shown) if tested.points is None else tested.points[places])
        errors += tested.errors[score][places].tolist()
    first = next(iter(rows.values()))[0]
    titles = [f"{error:.1f} %" for error in errors]
    figure = faces_grid(images, points, titles=titles, markup_name=markup or first.markup, columns=columns)
    what = f"The first {count} {run.faces} faces of each set ({', '.join(rows)}), profile {run.profile}, seed {run.seed}"
    figure.suptitle(what, fontsize="small")
    figure.set_label(f"{what}. Landmarks fitted by {method} in yellow; {score} errors: {', '.join(titles)}.")
    return run.record_figure(
        artefact,
        "fitted faces",
        figure,
        subset=", ".join(rows),
        images=len(images),
        seeds=1,
        box_rule=first.box_rule,
    )


def by_ect(run: Experiment, config: ECTConfig, train: FaceSource) -> Callable[[FaceSet], np.ndarray]:
    """Landmarks (N, L, 2) of faces by ECT, of the run's first seed; the network is obtained at the first call."""

    def predict(faces: FaceSet) -> np.ndarray:
        network, pdm, _ = ect_training.obtain(config, train, run.profile, run.seed, device=run.device)
        found = ect_training.predict_faces(network, pdm, faces, fits(pdm, config, ["ECT"]))
        return found["ECT"].shapes[-1].numpy()

    return predict


def _places(faces: FaceSet, tested: Predictions) -> list[int]:
    """Where these faces are among those that were predicted."""
    known = {name: place for place, name in enumerate(tested.names)}
    absent = [name for name in faces.names if name not in known]
    if absent:
        raise ReplicateError(
            f"{absent[0]}: its landmarks were not predicted on {tested.testset} ({len(absent)} such faces)"
        )
    return [known[name] for name in faces.names]
