"""The texture's fixed geography: where eyes, lips, brows and the rest lie in the surface's own coordinates.

All fields are computed once per process from the template; nothing here depends on a face. The texture has
``TEXELS`` texels per cell of the surface grid; texel (row, column) is grid place (row, column) / TEXELS. Below the head's part
an atlas strip holds the two ears.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from .template import TEXELS, template

EAR_ROWS, EAR_COLUMNS, EAR_STRIP = 10, 9, 11
_SHIFT = 4  # fractional bits of cv2's drawing coordinates
_PER_UNIT = 116.0  # texels per unit of length near the middle of the face


@dataclass(frozen=True)
class Opening:
    """Texels inside an eye or between the lips.

    Attributes
    ----------
    index : ndarray of int, shape (n,)
        Flat texel indices.
    alpha : ndarray, shape (n,)
        Coverage, for smooth edges.
    across : ndarray, shape (n,)
        -0.5 at the image's left corner to 0.5 at the right one.
    down : ndarray, shape (n,)
        0 at the upper edge to 1 at the lower.
    gap : ndarray, shape (n,)
        Height of the opening in this column, relative to the largest.
    """

    index: np.ndarray
    alpha: np.ndarray
    across: np.ndarray
    down: np.ndarray
    gap: np.ndarray


@dataclass(frozen=True)
class Canvas:
    """Fields over the texture, see :func:`canvas`; masks are float32 in [0, 1] of shape (rows, columns)."""

    shape: tuple[int, int]
    azimuth: np.ndarray
    height: np.ndarray
    landmarks: np.ndarray
    eyes: tuple[Opening, Opening]
    mouth: Opening
    lips: np.ndarray
    seam: np.ndarray
    brow_along: np.ndarray
    brow_below: np.ndarray
    masks: dict[str, np.ndarray]


def _curve(points: np.ndarray, steps: int = 12) -> np.ndarray:
    """Catmull-Rom curve through points (n, 2), ends doubled."""
    p = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True)
    ]
    return np.concatenate([*pieces, points[-1:]])


def _filled(shape: tuple[int, int], outline: np.ndarray) -> np.ndarray:
    """Anti-aliased mask of a closed outline (n, 2) in texels."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 2**_SHIFT).astype(np.int32)], 255, cv2.LINE_AA, _SHIFT)
    return mask.astype(np.float32) / 255


def _stroke(shape: tuple[int, int], path: np.ndarray, thickness: int, blur: float) -> np.ndarray:
    """Blurred line along a path (n, 2) in texels, at most 1."""
    mask = np.zeros(shape, np.uint8)
    cv2.polylines(
        mask, [np.round(path * 2**_SHIFT).astype(np.int32)], False, 255, thickness, cv2.LINE_AA, _SHIFT
    )
    soft = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), blur)
    return soft / max(float(soft.max()), 1e-6)


def _opening(shape: tuple[int, int], upper: np.ndarray, lower: np.ndarray) -> Opening:
    """Texels between two arcs that run from left to right and share their ends."""
    mask = _filled(shape, np.concatenate([upper, lower[::-1]]))
    index = np.flatnonzero(mask > 0)
    row, column = np.divmod(index, shape[1])
    top = np.interp(column, upper[:, 0], upper[:, 1])
    height = np.maximum(np.interp(column, lower[:, 0], lower[:, 1]) - top, 0.5)
    left, right = upper[0, 0], upper[-1, 0]
    return Opening(
        index,
        mask.ravel()[index],
        ((column - left) / (right - left) - 0.5).astype(np.float32),
        np.clip((row - top) / height, 0, 1).astype(np.float32),
        (height / height.max()).astype(np.float32),
    )


def _arcs(points: np.ndarray, upper: list[int], lower: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return _curve(points[upper]), _curve(points[lower])


def _brow_fields(shape: tuple[int, int], points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For texels near the brows: position along (0 outer end to 1 inner end) and signed distance below, in units of length."""
    along = np.full(shape, -1, np.float32)
    below = np.full(shape, 9, np.float32)
    row, column = np.mgrid[: shape[0], : shape[1]]
    for brow in (points[17:22], points[26:21:-1]):
        path = _curve(brow)
        low, high = path[:, 0].min() - 10, path[:, 0].max() + 10
        near = (column > low) & (column < high) & (np.abs(row - path[:, 1].mean()) < 45)
        order = np.argsort(path[:, 0])
        line = np.interp(column[near], path[order, 0], path[order, 1])
        tau = (column[near] - brow[0, 0]) / (brow[-1, 0] - brow[0, 0])
        along[near] = tau
        slope = np.gradient(path[order, 1], path[order, 0])
        steep = np.interp(column[near], path[order, 0], slope)
        below[near] = (row[near] - line) / np.sqrt(1 + steep**2) / _PER_UNIT
    return along, below


def _place(azimuth: float, height: float) -> np.ndarray:
    return template().cells(np.array([azimuth, height])) * TEXELS


def _path(*coordinates: tuple[float, float], mirrored: bool = False) -> np.ndarray:
    sign = -1 if mirrored else 1
    return _curve(np.array([_place(sign * a, h) for a, h in coordinates]))


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((values - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _line_masks(shape: tuple[int, int], points: np.ndarray) -> dict[str, np.ndarray]:
    """Creases, lashes and lines of age, both sides together."""
    both = {}
    paths = {
        "nasolabial": [((9.5, 0.10), (13, 0.22), (17.5, 0.36), (20, 0.50))],
        "forehead_lines": [((2, -0.74), (18, -0.76), (32, -0.72)), ((2, -0.84), (18, -0.86), (30, -0.83)), ((2, -0.94), (16, -0.95), (27, -0.92))],
        "crow_feet": [((36, -0.33), (43, -0.38)), ((36, -0.31), (44, -0.31)), ((36, -0.29), (43, -0.25))],
        "eye_bag": [((14, -0.235), (22, -0.185), (31, -0.225))],
        "frown_lines": [((2.4, -0.57), (2.8, -0.45))],
        "alar_crease": [((6.6, 0.02), (9.6, 0.06), (10.2, 0.13), (8.8, 0.185))],
        "chin_crease": [((0, 0.665), (7, 0.668), (12, 0.70))],
    }  # fmt: skip
    blur = {
        "nasolabial": 2.5,
        "forehead_lines": 1.2,
        "crow_feet": 1.0,
        "eye_bag": 2.2,
        "frown_lines": 1.2,
        "alar_crease": 2.0,
        "chin_crease": 4,
    }
    for name, lines in paths.items():
        strokes = [
            _stroke(shape, _path(*line, mirrored=m), 2, blur[name]) for line in lines for m in (False, True)
        ]
        both[name] = np.max(strokes, axis=0)
    upper = [_curve(points[[36, 37, 38, 39]]), _curve(points[[42, 43, 44, 45]])]
    lower = [_curve(points[[36, 41, 40, 39]]), _curve(points[[42, 47, 46, 45]])]
    both["lashes"] = np.max([_stroke(shape, u - (0, 0.5), 1, 0.8) for u in upper], axis=0)
    both["lower_lashes"] = np.max([_stroke(shape, u + (0, 0.7), 1, 0.9) for u in lower], axis=0)
    both["lid_crease"] = np.max([_stroke(shape, u - (0, 6.5), 1, 1.1) for u in upper], axis=0)
    both["lid"] = np.max([_stroke(shape, u - (0, 4), 9, 2.5) for u in upper], axis=0)
    return both


def _area_masks(
    shape: tuple[int, int], points: np.ndarray, azimuth: np.ndarray, height: np.ndarray
) -> dict[str, np.ndarray]:
    """Occlusion of the sky, nostrils, areas of blush and of facial hair."""
    a, h = azimuth[None], height[:, None]
    far = np.abs(a)

    def blob(at: float, up: float, sa: float, sh: float) -> np.ndarray:
        return np.exp(-(((far - at) / sa) ** 2 + ((h - up) / sh) ** 2) / 2).astype(np.float32)

    jaw = np.interp(
        far, [0, 15.5, 35, 58, 79, 86, 95, 130, 180], [0.93, 0.895, 0.80, 0.673, 0.50, 0.32, 0.45, 0.6, 0.7]
    )
    under = _ramp(h - jaw, 0.02, 0.18)
    dark = (
        0.16 * blob(10, -0.36, 4.5, 0.07)
        + 0.20 * blob(22, -0.38, 10, 0.08)
        + 0.06 * blob(3.5, 0.20, 4.0, 0.035)
    )
    dark = dark + 0.26 * blob(0, 0.63, 9, 0.04) + 0.12 * blob(18.5, 0.43, 2.5, 0.04) + 0.30 * under
    nostrils = np.zeros(shape, np.uint8)
    for trio in ((31, 32, 33), (35, 34, 33)):
        centre = 0.52 * points[trio[0]] + 0.48 * points[trio[1]] - (0, 4.0)
        tilt = -18 if trio[0] == 31 else 18
        place = tuple(int(c) for c in np.round(centre * 2**_SHIFT))
        cv2.ellipse(
            nostrils,
            place,
            (int(5.5 * 2**_SHIFT), int(2.6 * 2**_SHIFT)),
            tilt,
            0,
            360,
            255,
            -1,
            cv2.LINE_AA,
            _SHIFT,
        )
    lower_line = np.interp(far, [0, 13, 20, 36, 60, 78, 92], [0.28, 0.33, 0.40, 0.42, 0.34, -0.05, -0.30])
    beard = _ramp(h - lower_line, 0.0, 0.14) * (1 - _ramp(far, 90, 97)) * (1 - _ramp(h - jaw, 0.06, 0.24))
    lip = np.maximum(_ramp(far, 15, 22), _ramp(np.abs(h - 0.47), 0.16, 0.21))
    moustache = 0.8 * _ramp(h, 0.225, 0.29) * (1 - _ramp(h, 0.36, 0.43)) * (1 - _ramp(far, 10, 23))
    goatee = (1 - _ramp(far, 8, 24)) * _ramp(h, 0.40, 0.50) * (1 - _ramp(h - jaw, 0.02, 0.16)) * lip
    soft = cv2.GaussianBlur(nostrils.astype(np.float32) / 255, (0, 0), 1.0)
    return {
        "dark": np.broadcast_to(dark, shape).astype(np.float32), "nostrils": soft, "cheeks": blob(27, 0.06, 9, 0.14),
        "apples": np.maximum(blob(20, -0.02, 8, 0.14), blob(31, 0.12, 9, 0.15)), "mouth_side": blob(16, 0.36, 7, 0.16),
        "jaw_edge": _ramp(h - jaw, -0.22, -0.02) * (1 - under), "sockets": np.maximum(blob(20, -0.40, 11, 0.075), blob(40, -0.33, 6, 0.09)),
        "neck": np.broadcast_to(under, shape).astype(np.float32),
        "beard": (beard * lip).astype(np.float32), "moustache": moustache.astype(np.float32), "goatee": goatee.astype(np.float32),
        "lids": blob(20, -0.42, 8, 0.045), "nose": blob(0, 0.06, 6, 0.10), "under": np.broadcast_to(under, shape).astype(np.float32),
    }  # fmt: skip


@lru_cache(maxsize=1)
def canvas() -> Canvas:
    """The one canvas, built on first use (about 0.2 s)."""
    base = template()
    rows, columns = base.shape
    shape = ((rows - 1 + EAR_STRIP) * TEXELS + 1, (columns - 1) * TEXELS + 1)
    points = base.landmark_cells * TEXELS
    azimuth = np.interp(np.arange(shape[1]) / TEXELS, np.arange(columns), base.azimuth)
    height = np.interp(np.arange(shape[0]) / TEXELS, np.arange(rows), base.height)
    eyes = (
        _opening(shape, *_arcs(points, [36, 37, 38, 39], [36, 41, 40, 39])),
        _opening(shape, *_arcs(points, [42, 43, 44, 45], [42, 47, 46, 45])),
    )
    inner = _arcs(points, [60, 61, 62, 63, 64], [60, 67, 66, 65, 64])
    outer = _arcs(points, [48, 49, 50, 51, 52, 53, 54], [48, 59, 58, 57, 56, 55, 54])
    mouth = _opening(shape, *inner)
    lips = cv2.GaussianBlur(_filled(shape, np.concatenate([outer[0], outer[1][::-1]])), (0, 0), 1.0)
    seam = np.maximum(_stroke(shape, inner[0], 2, 1.1), _stroke(shape, inner[1], 2, 1.1))
    along, below = _brow_fields(shape, points)
    masks = _line_masks(shape, points) | _area_masks(shape, points, azimuth, height)
    strip = (rows - 1) * TEXELS + 1
    for mask in masks.values():
        mask[strip:] = 0
    return Canvas(shape, azimuth, height, points, eyes, mouth, lips, seam, along, below, masks)
