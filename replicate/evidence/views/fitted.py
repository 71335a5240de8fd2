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
from replicate.methods import ect_training, lddr_training, rnn_training
from replicate.methods.ect import ECTConfig
from replicate.methods.ect_fitting import fits
from replicate.methods.lddr import LDDRConfig
from replicate.methods.rnn import RNNConfig

COLUMNS = 6  # faces in a row
Predict = Callable[[FaceSet], np.ndarray]  # from faces to landmarks (N, L, 2)


def example_faces(
    run: Experiment,
    artefact: str,
    rows: Mapping[str, tuple[FaceSet, Predictions]],
    predict: Predict | Mapping[str, Predict],
    *,
    method: str,
    score: str | Mapping[str, str],
    columns: int = COLUMNS,
    lines: int = 1,
    markup: str | None = None,
) -> Figure:
    """The first faces of each kind with their fitted landmarks, recorded for an artefact: none is picked.

    Parameters
    ----------
    rows : dict of str to (FaceSet, Predictions)
        By what the faces are, in words: faces, all in one markup, and predictions on these and perhaps other faces.
    predict : callable, or dict of str to callable
        From faces to landmarks (N, L, 2), asked where their points are not on record; by kind, if not the same for all.
    method : str
        What fitted them.
    score : str, or dict of str to str
        Which error stands above each face, ``"inter-pupil"``; by kind, if not the same for all.
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
        fit = predict[kind] if isinstance(predict, Mapping) else predict
        points += list(fit(shown) if tested.points is None else tested.points[places])
        errors += tested.errors[score if isinstance(score, str) else score[kind]][places].tolist()
    first = next(iter(rows.values()))[0]
    titles = [f"{error:.1f} %" for error in errors]
    figure = faces_grid(images, points, titles=titles, markup_name=markup or first.markup, columns=columns)
    what = f"The first {count} {run.faces} faces of each set ({', '.join(rows)}), profile {run.profile}, seed {run.seed}"
    figure.suptitle(what, fontsize="small")
    measures = dict.fromkeys([score] if isinstance(score, str) else map(score.__getitem__, rows))
    figure.set_label(
        f"{what}. Landmarks fitted by {method} in yellow; {', '.join(measures)} errors: {', '.join(titles)}."
    )
    return run.record_figure(
        artefact,
        "fitted faces",
        figure,
        subset=", ".join(rows),
        images=len(images),
        seeds=1,
        box_rule=first.box_rule,
    )


def by_ect(run: Experiment, config: ECTConfig, train: FaceSource) -> Predict:
    """Landmarks (N, L, 2) of faces by ECT, of the run's first seed; the network is obtained at the first call."""

    def predict(faces: FaceSet) -> np.ndarray:
        network, pdm, _ = ect_training.obtain(config, train, run.profile, run.seed, device=run.device)
        found = ect_training.predict_faces(network, pdm, faces, fits(pdm, config, ["ECT"]))
        return found["ECT"].shapes[-1].numpy()

    return predict


def by_lddr(run: Experiment, config: LDDRConfig, train: FaceSource) -> Predict:
    """Landmarks (N, L, 2) of faces by LDDR, of the run's first seed; the cascade is obtained at the first call."""

    def predict(faces: FaceSet) -> np.ndarray:
        model, _ = lddr_training.obtain(config, train, run.profile, run.seed, device=run.device)
        return model.predict(faces.images, faces.boxes)[-1, 0].numpy()

    return predict


def by_rnn(run: Experiment, config: RNNConfig, train: FaceSource) -> Predict:
    """Landmarks (N, L, 2) of faces by RNN, of the run's first seed; the network is obtained at the first call."""

    def predict(faces: FaceSet) -> np.ndarray:
        network, _ = rnn_training.obtain(config, train, run.profile, run.seed, device=run.device)
        start = rnn_training.LAST
        return rnn_training.predict_boxes(network, faces.images, faces.boxes, {start: start})[start][-1]

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
