"""Scores: which errors a test of landmarks has, by markup, and the names that these errors have on record and in rows.

The key of an error is its normaliser, with the part of the face or the condition after a comma: ``"inter-pupil"``,
``"inter-ocular, 51 points"``, ``"inter-pupil, 3 iterations"``. The normaliser ``"pixel"`` stands for none: such an error is in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from replicate.errors import ReplicateError
from replicate.evidence.rows import NO_NORMALISER
from replicate.evidence.trained import Predicted
from replicate.faces.faceset import FaceSet
from replicate.faces.markups import markup as find_markup
from replicate.metrics import PIXEL, nme, pixel_error
from replicate.vocabulary import check_one_of

# Points of a part, by markup. The 68 points begin with the jaw line, the 34 with the 21 of AFLW.
PARTS: dict[tuple[str, str], Sequence[int]] = {
    ("ibug68", "51 points"): range(17, 68),  # §IV of ECT
    ("ibug68", "49 points"): [point for (point,) in find_markup("ibug49").definition],  # LDDR, Tables 2 and 3
    ("aflw34", "21 points"): range(21),  # §IV of ECT
}


@dataclass(frozen=True)
class Score:
    """One way to judge the landmarks of a face by their mean distance from the true ones.

    Attributes
    ----------
    normaliser : str
        One of `replicate.metrics.NORMALISERS`, always taken from the whole face; or ``"pixel"``, for pixels of the photograph.
    part : str
        A name in `PARTS`, or empty for all points.
    visible : bool
        Whether points that are hidden or not annotated are left out.
    """

    normaliser: str
    part: str = ""
    visible: bool = False

    @property
    def key(self) -> str:
        """Its name among the errors of `Predictions` and in the metrics of claims."""
        return ", ".join(filter(None, [self.normaliser, self.part]))

    def __str__(self) -> str:
        return self.key


INNER = Score("inter-ocular", "51 points")  # without the jaw line
_VISIBLE = Score("box", visible=True)
SCORES: dict[str, tuple[Score, ...]] = {  # what every test has, by the markup of its faces
    "ibug68": (Score("inter-ocular"), Score("inter-pupil"), Score("diagonal")),
    "aflw34": (_VISIBLE, Score("box", "21 points", visible=True)),
    "cofw29": (Score("inter-pupil"),),
    "afw6": (_VISIBLE, Score(PIXEL, visible=True)),
    "ijba3": (Score("eye-nose"),),
    "mtfl5": (Score("inter-pupil"),),
}
LDDR_SCORES: dict[
    str, tuple[Score, ...]
] = {  # what tests for LDDR have besides, by the markup of their faces
    "ibug68": (  # its curves are by face size; by which length its 49 points are judged, one can doubt
        Score("face"),
        *(Score(name, "49 points") for name in ("inter-pupil", "inter-ocular", "face", "diagonal")),
    ),
    "ijba3": (),
}


def scores_of(markup: str) -> tuple[Score, ...]:
    """The scores that a test on faces of this markup has."""
    check_one_of("markup with scores", markup, SCORES)
    return SCORES[markup]


def errors_of(predicted: Predicted, faces: FaceSet, scores: Sequence[Score]) -> dict[str, np.ndarray]:
    """Errors (N,) by key, in per cent of the normaliser or in pixels.

    Parameters
    ----------
    predicted : Predicted
        On these faces. Its further points are judged by the score on the whole face with the normaliser that their key begins with.

    Raises
    ------
    ReplicateError
        If a face has no point to evaluate, or a point that is evaluated is not annotated; if further points have no score.
    """
    errors = {score.key: _errors(predicted.points, faces, score) for score in scores}
    whole = {score.normaliser: score for score in scores if not score.part}
    for key, points in predicted.more.items():
        normaliser = check_one_of("normaliser of further points", key.partition(", ")[0], whole)
        errors[key] = _errors(points, faces, whole[normaliser])
    return errors


def _errors(points: np.ndarray, faces: FaceSet, score: Score) -> np.ndarray:
    evaluated = _evaluated(faces, score)
    if score.normaliser == PIXEL:
        enlarged = faces.attributes.get("pixel", 1.0)  # of a reduced photograph, in its own pixels
        return pixel_error(points, faces.points, evaluated) * enlarged
    return nme(
        points,
        faces.points,
        normaliser=score.normaliser,
        markup=faces.markup,
        boxes=faces.boxes,
        visible=evaluated,
    )


def _evaluated(faces: FaceSet, score: Score) -> np.ndarray:
    """(N, L) bool: the points that a score is the mean of."""
    evaluated = np.ones(faces.points.shape[:2], bool)
    if score.part:
        evaluated[:] = np.isin(np.arange(evaluated.shape[1]), _part(faces.markup, score.part))
    if score.visible:
        evaluated &= faces.visible & np.isfinite(faces.points).all(-1)
    return evaluated


def _part(markup: str, part: str) -> Sequence[int]:
    if (markup, part) not in PARTS:
        known = ", ".join(f"{name} of {of}" for of, name in PARTS)
        raise ReplicateError(f"part: got {part!r} of {markup}, expected one of {known}")
    return PARTS[markup, part]


class Described(NamedTuple):
    """What a row says of a mean error."""

    metric: str
    normaliser: str
    points: int
    unit: str


def described(key: str, markup: str) -> Described:
    """Name, normaliser, number of points and unit that the mean of an error has in rows, as the papers' values are listed.

    Examples
    --------
    >>> described("box, 21 points", "aflw34")
    Described(metric='mean error, visible points', normaliser='box', points=21, unit='%')
    >>> described("inter-pupil, 3 iterations", "ibug68")
    Described(metric='mean error, 3 iterations', normaliser='inter-pupil', points=68, unit='%')
    """
    normaliser, _, condition = key.partition(", ")
    part = condition if (markup, condition) in PARTS else ""
    points = len(PARTS[markup, part]) if part else find_markup(markup).size
    if normaliser == PIXEL:
        return Described("MAPE", NO_NORMALISER, points, "px")
    visible = any(score.visible for score in SCORES.get(markup, ()) if score.normaliser == normaliser)
    more = ["visible points" if visible else "", "" if part else condition]
    return Described(", ".join(filter(None, ["mean error", *more])), normaliser, points, "%")
