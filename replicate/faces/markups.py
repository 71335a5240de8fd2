"""Landmark markups: what each point of a data set means, and how markups relate.

The iBUG 68-point markup (Sagonas et al., 2013; after Multi-PIE) is the reference. Every other markup is
*defined* here by the iBUG points it is built from: a point is the mean of a few of the 68. From that one
table follow the mirror permutation, the eye groups, the regions, the lines that are drawn, and the maps
between markups, so they cannot contradict one another.

Convention: "left" and "right" are sides of the IMAGE (the person's right eye is the left eye here); indices
are 0-based; points are ``(..., L, 2)`` arrays of (x, y) in pixels, with the centre of the top-left pixel at
(0, 0).

========  ===  =====================================================================================
name       L   points
========  ===  =====================================================================================
ibug68     68  0-16 jaw, 17-21 and 22-26 brows, 27-30 nose bridge, 31-35 nostrils, 36-41 and 42-47
               eyes (outer corner first on the left, inner corner first on the right), 48-59 outer
               lips, 60-67 inner lips
ibug51     51  68 without the jaw (300-W challenge, ECT §IV)
ibug49     49  51 without the inner mouth corners 60 and 64 (LDDR Tables 2 and 3)
aflw34     34  the 21 AFLW points, then 13 more, as AFLW-PIFA has (ECT Table III). The order and the
               exact meaning of the 13 are published as a figure only; ours are the eyelids, the nose
               root, both lips and three contour points a side
cofw29     29  COFW and LFPW order (Burgos-Artizzu et al., 2013): brows, eyes, pupils, nose, mouth, chin
aflw21     21  AFLW order (Koestinger et al., 2011): brows, eyes with centres, ears, nose, mouth, chin
afw6        6  eye centres, nose tip, left mouth corner, mouth centre, right mouth corner (Zhu and
               Ramanan, 2012)
mtfl5       5  eye centres, nose tip, mouth corners (MTFL; TCNN §3)
ijba3       3  eye centres, base of the nose (IJB-A; LDDR §4.1)
========  ===  =====================================================================================

Where a markup has points without an iBUG counterpart, the nearest construction stands in: an ear lobe is the
second contour point, the lower edge of a brow lies a quarter of the way from the brow to the upper eyelid.
These serve faces that are labelled with 68 points; a data set's own annotations are read as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Union

import numpy as np

from replicate.errors import ReplicateError

Definition = tuple[int, ...]
MarkupLike = Union[str, int, "Markup"]

_MIRROR_68 = np.array([
    *range(16, -1, -1),  # jaw
    *range(26, 16, -1),  # brows
    *range(27, 31), *range(35, 30, -1),  # nose
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,  # eyes
    *range(54, 47, -1), *range(59, 54, -1),  # outer lips
    *range(64, 59, -1), 67, 66, 65,  # inner lips
])  # fmt: skip
_REGIONS_68 = {
    "jaw": range(0, 17),
    "brows": range(17, 27),
    "nose": range(27, 36),
    "eyes": range(36, 48),
    "mouth": range(48, 68),
}
_LINES_68 = (  # the points of a line, and whether it closes
    (range(0, 17), False),
    (range(17, 22), False),
    (range(22, 27), False),
    (range(27, 31), False),
    (range(31, 36), False),
    (range(36, 42), True),
    (range(42, 48), True),
    (range(48, 60), True),
    (range(60, 68), True),
)
_LEFT_EYE, _RIGHT_EYE = tuple(range(36, 42)), tuple(range(42, 48))


@dataclass(frozen=True, eq=False)
class Markup:
    """One landmark markup, defined by its construction from the iBUG 68 points.

    Parameters
    ----------
    name : str
        Its name in this project, for example ``"ibug68"``.
    definition : tuple of tuples of int
        For each of the L points, the iBUG indices whose mean it is; a repeated index counts repeatedly.

    Attributes
    ----------
    size : int
        L, the number of points.
    matrix : (L, 68) float array
        Rows sum to one: ``matrix @ points68`` are the points of this markup.
    mirror : (L,) int array
        ``points[mirror]`` puts the points of a mirrored face back in order.
    left_eye, right_eye : tuple of int
        The points whose mean is the centre of the eye on the left and on the right side of the image:
        the annotated centre where the markup has one, all points of the eye otherwise.
    outer_corners : (int, int) or None
        Outer eye corners, left then right side of the image; None where the markup has none.
    nose_tip : int
        The tip of the nose (its base in ``ijba3``).
    regions : dict of str to tuple of int
        Points of ``jaw``, ``brows``, ``nose``, ``eyes`` and ``mouth``; regions without points are left out.
    polylines : tuple of tuples of int
        Lines to draw; a closed line ends with its first point.
    """

    name: str
    definition: tuple[Definition, ...]
    size: int = field(init=False)
    matrix: np.ndarray = field(init=False, repr=False)
    mirror: np.ndarray = field(init=False, repr=False)
    left_eye: tuple[int, ...] = field(init=False)
    right_eye: tuple[int, ...] = field(init=False)
    outer_corners: tuple[int, int] | None = field(init=False)
    nose_tip: int = field(init=False)
    regions: dict[str, tuple[int, ...]] = field(init=False, repr=False)
    polylines: tuple[tuple[int, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        derived = {
            "size": len(self.definition),
            "matrix": _matrix(self.definition),
            "mirror": _mirror(self.definition),
            "left_eye": _eye(self.definition, _LEFT_EYE),
            "right_eye": _eye(self.definition, _RIGHT_EYE),
            "outer_corners": _outer_corners(self.definition),
            "nose_tip": self.definition.index((30,) if (30,) in self.definition else (33,)),
            "regions": _regions(self.definition),
            "polylines": _polylines(self.definition),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)


def _matrix(definition: Sequence[Definition]) -> np.ndarray:
    matrix = np.array([np.bincount(indices, minlength=68) / len(indices) for indices in definition])
    matrix.setflags(write=False)
    return matrix


def _mirror(definition: Sequence[Definition]) -> np.ndarray:
    """Find for each point the one that is built from the mirrored iBUG points."""
    place = {tuple(sorted(indices)): point for point, indices in enumerate(definition)}
    mirror = np.array([place[tuple(sorted(_MIRROR_68[list(indices)]))] for indices in definition])
    mirror.setflags(write=False)
    return mirror


def _eye(definition: Sequence[Definition], eye: Definition) -> tuple[int, ...]:
    if eye in definition:
        return (definition.index(eye),)
    return tuple(point for point, indices in enumerate(definition) if set(indices) <= set(eye))


def _outer_corners(definition: Sequence[Definition]) -> tuple[int, int] | None:
    if (36,) not in definition or (45,) not in definition:
        return None
    return definition.index((36,)), definition.index((45,))


def _regions(definition: Sequence[Definition]) -> dict[str, tuple[int, ...]]:
    """Put each point into the region of the first iBUG point it is built from."""
    members = {
        region: tuple(point for point, indices in enumerate(definition) if indices[0] in points)
        for region, points in _REGIONS_68.items()
    }
    return {region: points for region, points in members.items() if points}


def _polylines(definition: Sequence[Definition]) -> tuple[tuple[int, ...], ...]:
    """Follow each iBUG line through the points that lie on it; eye centres lie on none."""
    lines = []
    for line, closed in _LINES_68:
        on_line = [
            (np.mean(indices), point)
            for point, indices in enumerate(definition)
            if set(indices) <= set(line) and len(indices) < 6
        ]
        points = [point for _, point in sorted(on_line)]
        if len(points) > 1:
            lines.append(tuple(points + points[:1] if closed and len(points) > 2 else points))
    return tuple(lines)


def _each(*indices: int) -> tuple[Definition, ...]:
    return tuple((index,) for index in indices)


_IBUG51 = tuple(range(17, 68))
_AFLW21 = (
    *_each(17, 19, 21, 22, 24, 26),  # brows: left end, centre, right end of each
    (36,), _LEFT_EYE, (39,), (42,), _RIGHT_EYE, (45,),  # eyes: left corner, centre, right corner of each
    (1,), *_each(31, 30, 35), (15,),  # ear lobe, nose left, centre, right, ear lobe
    (48,), (62, 66), (54,),  # mouth: left corner, centre, right corner
    (8,),  # chin
)  # fmt: skip
_AFLW34_EXTRA = (
    *((37, 38), (40, 41), (43, 44), (46, 47)),  # upper and lower eyelids
    *_each(27, 51, 57),  # nose root, top of the upper lip, bottom of the lower lip
    *_each(3, 5, 7, 9, 11, 13),  # contour
)
_COFW29 = (
    *_each(17, 26, 21, 22),  # brows: outer ends, inner ends
    (19,), (19,) * 6 + (37, 38), (24,), (24,) * 6 + (43, 44),  # brows: upper and lower edge, left then right
    *_each(36, 45, 39, 42),  # eyes: outer corners, inner corners
    (37, 38), (40, 41), (43, 44), (46, 47),  # eyes: upper and lower eyelid, left then right
    _LEFT_EYE, _RIGHT_EYE,  # pupils
    *_each(31, 35, 30, 33),  # nose: sides, tip, base
    *_each(48, 54, 51, 62, 66, 57),  # mouth: corners, upper lip top and bottom, lower lip top and bottom
    (8,),  # chin
)  # fmt: skip

MARKUPS: dict[str, Markup] = {
    name: Markup(name, definition)
    for name, definition in {
        "ibug68": _each(*range(68)),
        "ibug51": _each(*_IBUG51),
        "ibug49": _each(*(index for index in _IBUG51 if index not in (60, 64))),
        "aflw34": _AFLW21 + _AFLW34_EXTRA,
        "cofw29": _COFW29,
        "aflw21": _AFLW21,
        "afw6": (_LEFT_EYE, _RIGHT_EYE, (30,), (48,), (62, 66), (54,)),
        "mtfl5": (_LEFT_EYE, _RIGHT_EYE, *_each(30, 48, 54)),
        "ijba3": (_LEFT_EYE, _RIGHT_EYE, (33,)),
    }.items()
}
_BY_SIZE = {entry.size: entry for entry in MARKUPS.values()}


def markup(name: MarkupLike) -> Markup:
    """Look up a markup by name or by its number of points.

    Parameters
    ----------
    name : str, int or Markup
        ``"ibug68"``, ``68`` or the markup itself.

    Raises
    ------
    ReplicateError
        If there is no such markup.
    """
    if isinstance(name, Markup):
        return name
    found = MARKUPS.get(name) if isinstance(name, str) else _BY_SIZE.get(name)
    if found is None:
        raise ReplicateError(
            f"markup: {name!r} is unknown; expected one of {', '.join(MARKUPS)} "
            f"or a number of points among {', '.join(map(str, _BY_SIZE))}"
        )
    return found


def subset_map(source: MarkupLike, target: MarkupLike) -> np.ndarray:
    """Build the linear map from the points of one markup to those of another.

    Parameters
    ----------
    source, target : str, int or Markup
        The markup at hand and the one wanted.

    Returns
    -------
    (L_target, L_source) float array
        Non-negative, with rows that sum to one, so it commutes with similarity and affine transforms.

    Raises
    ------
    ReplicateError
        If a target point cannot be built from the source points.
    """
    source, target = markup(source), markup(target)
    place = {indices: point for point, indices in enumerate(source.definition)}
    matrix = np.zeros((target.size, source.size))
    for point, indices in enumerate(target.definition):
        if indices in place:
            matrix[point, place[indices]] = 1
        elif all((index,) in place for index in indices):
            np.add.at(matrix[point], [place[(index,)] for index in indices], 1 / len(indices))
        else:
            raise ReplicateError(
                f"target: point {point} of {target.name} is built from iBUG points {sorted(set(indices))}, "
                f"which {source.name} does not have; convert from ibug68 instead"
            )
    return matrix


def convert(points: np.ndarray, source: MarkupLike, target: MarkupLike) -> np.ndarray:
    """Express landmarks in another markup.

    Parameters
    ----------
    points : (..., L_source, 2) array
        Landmarks in the source markup.
    source, target : str, int or Markup
        The two markups, see `subset_map`.

    Returns
    -------
    (..., L_target, 2) array
        In the floating-point type of ``points``.

    Raises
    ------
    ReplicateError
        If ``points`` is not in the source markup or the target cannot be built from it.
    """
    source, matrix = markup(source), subset_map(source, target)
    points = _checked(points, source)
    return (matrix @ points).astype(np.result_type(points.dtype, np.float16), copy=False)


def convert_visibility(visible: np.ndarray, source: MarkupLike, target: MarkupLike) -> np.ndarray:
    """Express visibility in another markup: a point is visible if all that it is built from is.

    Parameters
    ----------
    visible : (..., L_source) bool array
        Visibility in the source markup.
    source, target : str, int or Markup
        The two markups, see `subset_map`.

    Returns
    -------
    (..., L_target) bool array
    """
    source, hidden = markup(source), ~np.asarray(visible, dtype=bool)
    if hidden.shape[-1:] != (source.size,):
        raise ReplicateError(
            f"visible: got shape {hidden.shape}, expected (..., {source.size}) for {source.name}"
        )
    return (hidden.astype(float) @ subset_map(source, target).T) == 0


def mirror_points(points: np.ndarray, source: MarkupLike, width: float | np.ndarray) -> np.ndarray:
    """Landmarks of the face after its image was mirrored left to right.

    Convention: x becomes ``width - 1 - x`` (pixel centres at integers), then the points are put back in the
    order of the markup, so that the left eye is again on the left side of the image.

    Parameters
    ----------
    points : (..., L, 2) array
        Landmarks in pixels.
    source : str, int or Markup
        Their markup.
    width : float or array that broadcasts to ``(...)``
        Width of the image in pixels.

    Returns
    -------
    (..., L, 2) array
    """
    source = markup(source)
    mirrored = _checked(points, source)[..., source.mirror, :]
    mirrored[..., 0] = np.asarray(width)[..., None] - 1 - mirrored[..., 0]
    return mirrored


def _checked(points: np.ndarray, source: Markup) -> np.ndarray:
    points = np.asarray(points)
    if points.shape[-2:] != (source.size, 2):
        raise ReplicateError(
            f"points: got shape {points.shape}, expected (..., {source.size}, 2) for {source.name}"
        )
    return points
