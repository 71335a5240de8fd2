"""Distances between predicted and true landmarks, normalised."""

import numpy as np

from replicate.errors import ReplicateError
from replicate.faces.markups import MarkupLike
from replicate.faces.markups import markup as find_markup

NORMALISERS = {
    "inter-pupil": "distance between the eye centres (annotated, or the mean of each eye's points)",
    "inter-ocular": "distance between the outer eye corners",
    "diagonal": "diagonal of the tight box of the true points",
    "box": "square root of the area of the given box",
    "eye-nose": "distance from the nose tip to the middle of the eye centres",
    "face": "mean of width and height of the tight box of the true points",
}
PIXEL = "pixel"  # takes the place of a normaliser in the names of errors that are in pixels of the photograph


def normalising_distance(
    points: np.ndarray, normaliser: str, markup: MarkupLike, boxes: np.ndarray | None = None
) -> np.ndarray:
    """Measure each face's normalising distance on its true points.

    Parameters
    ----------
    points : (N, L, 2) array
        True landmarks in pixels.
    normaliser : str
        One of `NORMALISERS`. ``"face"`` follows the face size of Zhu and Ramanan (2012), whose curves
        LDDR Fig. 4 repeats; LDDR itself does not define it.
    markup : str, int or Markup
        The markup of the points.
    boxes : (N, 4) array, optional
        Needed for ``"box"``, ignored otherwise.

    Returns
    -------
    (N,) float array
        Pixels, positive.

    Raises
    ------
    ReplicateError
        For an unknown normaliser, one that the markup cannot give, missing boxes, or a distance that is not
        positive and finite.
    """
    points, markup = np.asarray(points, dtype=float), find_markup(markup)
    if points.ndim != 3 or points.shape[1:] != (markup.size, 2):
        raise ReplicateError(
            f"points: got shape {points.shape}, expected (N, {markup.size}, 2) for {markup.name}"
        )
    if normaliser not in NORMALISERS:
        raise ReplicateError(f"normaliser: got {normaliser!r}, expected one of {', '.join(NORMALISERS)}")
    left_eye, right_eye = points[:, markup.left_eye].mean(axis=1), points[:, markup.right_eye].mean(axis=1)
    if normaliser == "inter-pupil":
        distance = _norm(left_eye - right_eye)
    elif normaliser == "eye-nose":
        distance = _norm(points[:, markup.nose_tip] - (left_eye + right_eye) / 2)
    elif normaliser == "inter-ocular":
        if markup.outer_corners is None:
            raise ReplicateError(
                f"normaliser: {markup.name} has no eye corners for 'inter-ocular'; use 'inter-pupil'"
            )
        left, right = markup.outer_corners
        distance = _norm(points[:, left] - points[:, right])
    elif normaliser == "box":
        distance = np.sqrt(np.prod(_box_sides(boxes, len(points)), axis=1))
    else:
        sides = np.ptp(points, axis=1)
        distance = _norm(sides) if normaliser == "diagonal" else sides.mean(axis=1)
    bad = np.flatnonzero(~(np.isfinite(distance) & (distance > 0)))
    if bad.size:
        raise ReplicateError(
            f"points: face {bad[0]} has {normaliser} distance {distance[bad[0]]} ({bad.size} bad faces); "
            "leave them out or use another normaliser"
        )
    return distance


def per_point_error(
    predicted: np.ndarray,
    true: np.ndarray,
    *,
    normaliser: str,
    markup: MarkupLike,
    boxes: np.ndarray | None = None,
    visible: np.ndarray | None = None,
) -> np.ndarray:
    """Distance of each predicted point from the true one, in per cent of the normaliser.

    Parameters
    ----------
    predicted, true : (N, L, 2) arrays
        Landmarks in pixels, in the same markup.
    normaliser, markup, boxes
        See `normalising_distance`.
    visible : (N, L) bool array, optional
        Points to evaluate; the others become NaN and may be NaN in the input, as long as the normaliser does
        not need them.

    Returns
    -------
    (N, L) float array

    Raises
    ------
    ReplicateError
        For shapes that differ, NaN among the evaluated points, a face without any, or a bad normaliser.
    """
    distance = _point_distance(predicted, true, visible)
    return 100 * distance / normalising_distance(true, normaliser, markup, boxes)[:, None]


def nme(
    predicted: np.ndarray,
    true: np.ndarray,
    *,
    normaliser: str,
    markup: MarkupLike,
    boxes: np.ndarray | None = None,
    visible: np.ndarray | None = None,
) -> np.ndarray:
    """Normalised mean error of each face: the mean of `per_point_error` over the evaluated points.

    This is the standard form. RNN Eq. 17 prints a squared norm over a length, which would depend on the
    resolution of the image.

    Returns
    -------
    (N,) float array
        In per cent of the normaliser.
    """
    errors = per_point_error(
        predicted, true, normaliser=normaliser, markup=markup, boxes=boxes, visible=visible
    )
    return np.nanmean(errors, axis=1)


def pixel_error(predicted: np.ndarray, true: np.ndarray, visible: np.ndarray | None = None) -> np.ndarray:
    """Mean distance of the evaluated points of each face, ``(N,)``, in pixels of the image as given."""
    return np.nanmean(_point_distance(predicted, true, visible), axis=1)


def mape(predicted: np.ndarray, true: np.ndarray, visible: np.ndarray | None = None) -> float:
    """Mean average pixel error over faces (ECT §IV, Table V), in pixels of the original images."""
    return float(pixel_error(predicted, true, visible).mean())


def _norm(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=-1)


def _point_distance(predicted: np.ndarray, true: np.ndarray, visible: np.ndarray | None) -> np.ndarray:
    """Distances ``(N, L)`` in pixels, NaN at the points that are not evaluated."""
    predicted, true = np.asarray(predicted, dtype=float), np.asarray(true, dtype=float)
    if predicted.shape != true.shape or true.ndim != 3 or true.shape[2] != 2:
        raise ReplicateError(
            f"predicted, true: got shapes {predicted.shape} and {true.shape}; expected (N, L, 2) twice"
        )
    evaluated = np.ones(true.shape[:2], dtype=bool) if visible is None else np.asarray(visible, dtype=bool)
    if evaluated.shape != true.shape[:2]:
        raise ReplicateError(f"visible: got shape {evaluated.shape}, expected {true.shape[:2]}")
    if not evaluated.any(axis=1).all():
        raise ReplicateError(
            f"visible: face {np.argmin(evaluated.any(axis=1))} has no visible point; leave such faces out"
        )
    for name, points in (("predicted", predicted), ("true", true)):
        bad = np.argwhere(evaluated & ~np.isfinite(points).all(axis=2))
        if len(bad):
            raise ReplicateError(
                f"{name}: point {bad[0, 1]} of face {bad[0, 0]} is not finite ({len(bad)} such points); "
                "mark points without annotation as not visible"
            )
    return np.where(evaluated, _norm(predicted - true), np.nan)


def _box_sides(boxes: np.ndarray | None, count: int) -> np.ndarray:
    if boxes is None:
        raise ReplicateError("boxes: normaliser 'box' needs the (N, 4) boxes of the faces; none were given")
    boxes = np.asarray(boxes, dtype=float)
    if boxes.shape != (count, 4):
        raise ReplicateError(f"boxes: got shape {boxes.shape}, expected ({count}, 4)")
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
