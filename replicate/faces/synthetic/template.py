"""The head's template: one control cage, a fixed map of its surface, and the matrix that joins them.

Coordinates are those of the image seen frontally: x to the right, y down, z towards the camera. The unit is the
distance between the outer corners of the eyes (about 92 mm in adults), the origin lies between the eyes and the mouth.

Where the numbers come from
    ``INNER`` and ``CONTOUR`` are summary statistics, not a published mean model: the 2,012 training faces of 300-W at hand
    (LFPW and HELEN training parts and AFW; never a test image) were mirrored, and a rigid symmetric shape was factored
    out of their two-dimensional landmarks under scaled orthography; depth of the jaw follows from how far its near side moves
    when yaw grows. Values are rounded to three decimals. Crown, occiput, neck and ears follow adult
    anthropometry: head 152 mm wide, 195 mm long and 225 mm from crown to chin, ear 63 mm high.

The surface
    Each control point has fixed surface coordinates: azimuth about a vertical axis (degrees, 0 in front) and height (the
    template's y, with eyes and mouth held open so that lids and lips enclose an area). A cubic radial basis over these
    coordinates interpolates all control points; evaluated on a fixed grid it is one matrix, so that vertices
    are ``matrix @ controls``. Landmarks are rows of that same matrix, so paint and label cannot drift apart.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

TEXELS = 4  # texels per cell of the surface grid, along both axes
_AXIS_Z = -0.9  # depth of the vertical axis about which azimuth is measured
_RADIUS = 0.9  # metric of azimuth in the radial basis: about the radius of a head

MIRROR = np.array(
    [
        *range(16, -1, -1),
        *range(26, 16, -1),
        *range(27, 31),
        *range(35, 30, -1),
        45,
        44,
        43,
        42,
        47,
        46,
        39,
        38,
        37,
        36,
        41,
        40,
    ]
    + [*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65]
)

# Left half (image left) of the jaw contour, points 0 to 8: (x, y, z).
CONTOUR = np.array(
    [
        (-0.848, -0.297, -0.90), (-0.832, -0.062, -0.91), (-0.800, 0.160, -0.90), (-0.760, 0.375, -0.85), (-0.680, 0.570, -0.735),
        (-0.548, 0.730, -0.555), (-0.378, 0.846, -0.364), (-0.197, 0.934, -0.183), (0.0, 0.953, -0.09),
    ]
)  # fmt: skip
# Points 17 to 67 that lie in the left half or on the midline, by index.
INNER = {
    17: (-0.665, -0.470, -0.238), 18: (-0.562, -0.560, -0.132), 19: (-0.421, -0.587, -0.039), 20: (-0.275, -0.568, 0.035),
    21: (-0.136, -0.517, 0.089), 27: (0.0, -0.351, 0.089), 28: (0.0, -0.212, 0.168), 29: (0.0, -0.075, 0.255),
    30: (0.0, 0.067, 0.340), 31: (-0.150, 0.154, 0.122), 32: (-0.084, 0.186, 0.159), 33: (0.0, 0.211, 0.182),
    36: (-0.499, -0.324, -0.164), 37: (-0.411, -0.386, -0.118), 38: (-0.302, -0.382, -0.100), 39: (-0.215, -0.306, -0.099),
    40: (-0.313, -0.287, -0.101), 41: (-0.418, -0.288, -0.120), 48: (-0.296, 0.424, -0.100), 49: (-0.180, 0.370, 0.024),
    50: (-0.081, 0.349, 0.107), 51: (0.0, 0.368, 0.119), 57: (0.0, 0.600, 0.056), 58: (-0.082, 0.598, 0.046),
    59: (-0.186, 0.543, -0.022), 60: (-0.250, 0.429, -0.080), 61: (-0.083, 0.419, 0.080), 62: (0.0, 0.428, 0.095),
    66: (0.0, 0.487, 0.068), 67: (-0.080, 0.481, 0.055),
}  # fmt: skip
_LIPS_APART = 0.044  # the mean face's lips are this far apart; the neutral template closes them

# Auxiliary control points of the right half and the midline, by anatomical name: (x, y, z).
AUXILIARY = {
    "glabella": (0.0, -0.52, 0.125), "forehead": (0.0, -0.80, 0.085), "forehead_side": (0.30, -0.80, 0.040),
    "forehead_edge": (0.52, -0.78, -0.115), "hairline": (0.0, -1.05, -0.030), "hairline_side": (0.36, -1.04, -0.105),
    "temple": (0.725, -0.42, -0.46), "temple_high": (0.705, -0.72, -0.44), "crease": (0.36, -0.462, -0.058),
    "crease_outer": (0.50, -0.425, -0.155), "socket": (0.130, -0.37, 0.020), "below_eye": (0.36, -0.19, -0.072),
    "tear_trough": (0.215, -0.19, -0.010), "nose_root_side": (0.085, -0.24, 0.090), "nose_wall": (0.105, -0.08, 0.125),
    "ala": (0.158, 0.075, 0.135), "nose_tip_side": (0.075, 0.085, 0.275), "columella": (0.0, 0.155, 0.262),
    "malar": (0.47, -0.08, -0.125), "malar_inner": (0.29, 0.00, 0.000), "zygion": (0.700, -0.12, -0.42),
    "zygion_low": (0.695, 0.12, -0.45), "nasolabial": (0.275, 0.225, -0.005), "cheek": (0.45, 0.22, -0.160),
    "cheek_low": (0.415, 0.48, -0.185), "cheek_side": (0.645, 0.36, -0.46), "jowl": (0.40, 0.66, -0.29), "philtrum": (0.0, 0.285, 0.145),
    "philtrum_side": (0.13, 0.285, 0.105), "mentolabial": (0.0, 0.672, 0.000), "mentolabial_side": (0.20, 0.675, -0.075),
    "pogonion": (0.0, 0.81, 0.010), "pogonion_side": (0.17, 0.80, -0.065),
}  # fmt: skip
# Cranium by height: half width, depth of the front, depth of the back.
_CRANIUM = {
    -1.44: (0.35, -0.52, -1.35), -1.28: (0.62, -0.25, -1.70), -1.05: (0.785, -0.03, -1.93), -0.78: (0.845, 0.08, -2.03),
    -0.45: (0.865, 0.1, -2.05), -0.10: (0.855, 0.1, -2.0), 0.20: (0.815, 0.1, -1.88), 0.50: (0.72, 0.1, -1.72),
}  # fmt: skip
_NECK = {
    1.22: (0.56, -0.54, -1.60),
    1.50: (0.57, -0.62, -1.64),
    1.80: (0.72, -0.60, -1.72),
    2.05: (0.95, -0.45, -1.80),
}


def neutral_landmarks() -> np.ndarray:
    """The neutral template's 68 landmarks, lips closed.

    Returns
    -------
    ndarray of float64, shape (68, 3)
        In units of the distance between the outer corners of the eyes.
    """
    points = np.zeros((68, 3))
    points[:9] = CONTOUR
    points[8:17] = CONTOUR[::-1] * (-1, 1, 1)
    for index, xyz in INNER.items():
        points[MIRROR[index]] = np.multiply(xyz, (-1, 1, 1))
        points[index] = xyz
    points[[56, 57, 58, 65, 66, 67], 1] -= _LIPS_APART
    points[[55, 59], 1] -= 0.5 * _LIPS_APART
    for upper, lower in ((61, 67), (62, 66), (63, 65)):
        points[upper] = points[lower] = (points[upper] + points[lower]) / 2
    return points


def _surface_coordinates(points: np.ndarray) -> np.ndarray:
    """Azimuth in degrees and height of points (n, 3)."""
    azimuth = np.degrees(np.arctan2(points[:, 0], points[:, 2] - _AXIS_Z))
    return np.stack([azimuth, points[:, 1]], axis=1)


def _landmark_coordinates(points: np.ndarray) -> np.ndarray:
    """Surface coordinates of the landmarks, with eyes and mouth held open."""
    coordinates = _surface_coordinates(points)
    coordinates[[37, 38, 43, 44], 1] -= 0.020
    coordinates[[40, 41, 46, 47], 1] += 0.015
    coordinates[[61, 62, 63], 1] -= 0.030
    coordinates[[49, 50, 51, 52, 53], 1] -= 0.018
    coordinates[[65, 66, 67], 1] += 0.055
    coordinates[[55, 56, 57, 58, 59], 1] += 0.055
    coordinates[[30], 1] -= 0.01
    return coordinates


def _ring(
    half_width: float, front: float, back: float, azimuth: np.ndarray, exponent: float = 2.3
) -> np.ndarray:
    """Points of a horizontal superellipse about the head's axis at the given azimuths (degrees): (n, 2) of x and z."""
    sine, cosine = np.sin(np.radians(azimuth)), np.cos(np.radians(azimuth))
    depth = np.where(cosine > 0, front - _AXIS_Z, _AXIS_Z - back)
    radius = (np.abs(sine / half_width) ** exponent + np.abs(cosine / depth) ** exponent) ** (-1 / exponent)
    return np.stack([radius * sine, radius * cosine + _AXIS_Z], axis=1)


def _auxiliary_points() -> tuple[np.ndarray, tuple[str, ...]]:
    """Auxiliary control points (n, 3) and their names; the right half is mirrored to the left."""
    points, names = [], []
    for name, (x, y, z) in AUXILIARY.items():
        for sign in (1, -1) if x else (1,):
            points.append((sign * x, y, z))
            names.append(name if sign > 0 else f"{name}_left")
    rings = [("crown", (0.0, -1.51, -0.93))]
    for height, profile in _CRANIUM.items():
        reach = 25 if height < -1.2 else 45 if height < -1.1 else 62 if height < -0.7 else 104
        azimuth = np.array([a for a in (0, 30, 60, 80, 105, 130, 155, 180) if a >= reach or height < -1.2])
        rings += [("cranium", (x, height, z)) for x, z in _ring(*profile, azimuth)]
    for height, profile in _NECK.items():
        azimuth = np.array([0, 30, 60, 90, 120, 150, 180])
        rings += [("neck", (x, height, z)) for x, z in _ring(*profile, azimuth, 2.0)]
    for azimuth, height, scale in ((60, 0.88, 0.84), (84, 0.78, 0.86), (30, 1.00, 0.84), (0, 1.04, 0.80)):
        (x, z), = _ring(0.72, -0.10, -1.6, np.array([azimuth]), 2.0)  # fmt: skip
        rings.append(("under_jaw", (x * scale, height, (z - _AXIS_Z) * scale + _AXIS_Z)))
    for name, (x, y, z) in rings:
        x = 0.0 if abs(x) < 1e-9 else x
        for sign in (1, -1) if x else (1,):
            points.append((sign * x, y, z))
            names.append(name)
    return np.array(points), tuple(names)


def _basis(at: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Cubic radial basis between surface coordinates (n, 2) and (m, 2): (n, m), distances taken on a cylinder."""

    def embed(c: np.ndarray) -> np.ndarray:
        angle = np.radians(c[:, 0])
        return np.stack([_RADIUS * np.sin(angle), _RADIUS * np.cos(angle), c[:, 1]], axis=1)

    distance = np.linalg.norm(embed(at)[:, None] - embed(centres)[None], axis=2)
    return distance**3


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverse by Gauss-Jordan elimination with pivoting: unlike LAPACK's, its bits do not depend on the number of threads."""
    n = len(matrix)
    work = np.concatenate([matrix, np.eye(n)], axis=1)
    for column in range(n):
        pivot = column + int(np.abs(work[column:, column]).argmax())
        work[[column, pivot]] = work[[pivot, column]]
        work[column] /= work[column, column]
        factors = work[:, column].copy()
        factors[column] = 0
        work -= factors[:, None] * work[column]
    return work[:, n:]


def _interpolator(centres: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Matrix (n, m) that takes values at ``centres`` (m, 2) to values at ``at`` (n, 2), exact for linear functions."""

    def linear(c: np.ndarray) -> np.ndarray:
        angle = np.radians(c[:, 0])
        return np.stack([np.ones(len(c)), np.sin(angle), np.cos(angle), c[:, 1]], axis=1)

    m = len(centres)
    system = np.zeros((m + 4, m + 4))
    system[:m, :m] = _basis(centres, centres)
    system[:m, m:] = linear(centres)
    system[m:, :m] = linear(centres).T
    inverse = _inverse(system)[:, :m]
    return np.einsum("ij,jk->ik", np.concatenate([_basis(at, centres), linear(at)], axis=1), inverse)


def _spaced(*segments: tuple[float, float, int]) -> np.ndarray:
    """Grid lines: (start, stop, count) segments joined, each without its stop, and the last stop added."""
    lines = [np.linspace(start, stop, count, endpoint=False) for start, stop, count in segments]
    return np.concatenate([*lines, [segments[-1][1]]])


@dataclass(frozen=True)
class Template:
    """The cage, its surface grid and the matrix between them (see the module's docstring).

    Attributes
    ----------
    controls : ndarray, shape (C, 3)
        Neutral control points; the first 68 are the landmarks.
    names : tuple of str
        Name of each auxiliary control point, ``controls[68:]``.
    matrix : ndarray of float64, shape (V, C)
        Vertices of the surface grid are ``matrix @ controls``, row-major over (rows, columns); multiples of 2**-16.
    azimuth, height : ndarray, shape (columns,) and (rows,)
        Grid lines; the first and the last azimuth are the same line at the back of the head.
    landmark_cells : ndarray, shape (68, 2)
        Landmarks in grid coordinates (column, row), fractional.
    contour_cells : ndarray, shape (17, K, 2)
        Per contour landmark, the surface path from the jaw line towards the face's middle along which it may move.
    """

    controls: np.ndarray
    names: tuple[str, ...]
    matrix: np.ndarray
    azimuth: np.ndarray
    height: np.ndarray
    landmark_cells: np.ndarray
    contour_cells: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the surface grid."""
        return len(self.height), len(self.azimuth)

    def vertices(self, controls: np.ndarray) -> np.ndarray:
        """Vertices (rows, columns, 3) that control points (C, 3), each below 8 units, span.

        Both factors are multiples of a power of two, so that the product is exact in float64 and its bits do not depend on
        the order of summation, which changes with the number of threads.
        """
        axes = np.ascontiguousarray((np.round(controls * 2**20) / 2**20).T)
        products = [self.matrix @ axis for axis in axes]  # twice as fast as one product with three columns
        return np.stack(products, axis=-1).reshape(*self.shape, 3)

    def cells(self, coordinates: np.ndarray) -> np.ndarray:
        """Surface coordinates (..., 2) of azimuth and height to grid coordinates (column, row)."""
        column = np.interp(coordinates[..., 0], self.azimuth, np.arange(len(self.azimuth)))
        row = np.interp(coordinates[..., 1], self.height, np.arange(len(self.height)))
        return np.stack([column, row], axis=-1)


def _contour_paths(coordinates: np.ndarray, steps: int = 14) -> np.ndarray:
    """Surface coordinates (17, steps, 2) of the paths on which the contour landmarks march."""
    goals = np.stack(
        [
            np.linspace(-36, 36, 17),
            np.interp(np.arange(17), [0, 4, 8, 12, 16], [-0.30, 0.40, 0.74, 0.40, -0.30]),
        ],
        1,
    )
    fraction = np.linspace(0, 1, steps)[None, :, None]
    return coordinates[:17, None] * (1 - fraction) + goals[:, None] * fraction


@lru_cache(maxsize=1)
def template() -> Template:
    """The one template, built on first use (about 0.1 s)."""
    landmarks = neutral_landmarks()
    auxiliary, names = _auxiliary_points()
    controls = np.concatenate([landmarks, auxiliary])
    landmark_coordinates = _landmark_coordinates(landmarks)
    coordinates = np.concatenate([landmark_coordinates, _surface_coordinates(auxiliary)])
    half = _spaced((0, 40, 20), (40, 96, 13), (96, 180, 7))
    azimuth = np.concatenate([-half[:0:-1], half])
    height = _spaced((-1.495, -1.2, 6), (-1.2, -0.64, 8), (-0.64, 1.0, 46), (1.0, 2.05, 9))
    grid = np.stack(np.meshgrid(azimuth, height), axis=-1).reshape(-1, 2)
    matrix = _interpolator(coordinates, grid)
    matrix[: len(azimuth)] = matrix[: len(azimuth)].mean(0)  # the crown is one point
    matrix = np.round(matrix * 2**16) / 2**16
    result = Template(controls, names, matrix, azimuth, height, np.zeros((68, 2)), np.zeros((17, 1, 2)))
    cells, paths = result.cells(landmark_coordinates), result.cells(_contour_paths(landmark_coordinates))
    return Template(controls, names, matrix, azimuth, height, cells, paths)


def surface_at(vertices: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Values of a triangulated vertex grid at fractional grid coordinates.

    Each cell is split along the diagonal from its top-left to its bottom-right vertex, exactly as it is drawn.

    Parameters
    ----------
    vertices : ndarray, shape (rows, columns, D)
    cells : ndarray, shape (..., 2)
        Grid coordinates (column, row).

    Returns
    -------
    ndarray, shape (..., D)
    """
    rows, columns = vertices.shape[:2]
    j = np.clip(np.floor(cells[..., 0]).astype(int), 0, columns - 2)
    i = np.clip(np.floor(cells[..., 1]).astype(int), 0, rows - 2)
    s, t = (cells[..., 0] - j)[..., None], (cells[..., 1] - i)[..., None]
    corner, opposite = vertices[i, j], vertices[i + 1, j + 1]
    upper = corner + s * (vertices[i, j + 1] - corner) + t * (opposite - vertices[i, j + 1])
    lower = corner + t * (vertices[i + 1, j] - corner) + s * (opposite - vertices[i + 1, j])
    return np.where(s >= t, upper, lower)
