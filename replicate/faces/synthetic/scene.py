"""From a head to the image plane: pose, camera, the contour that is seen, ears, hair's outline, and light.

Angles are in degrees. Yaw > 0 turns the nose towards the image's right, pitch > 0 towards its bottom, roll > 0 turns the head clockwise
as seen. Rotation is applied in the order yaw, pitch, roll.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np

from .canvas import EAR_COLUMNS, EAR_ROWS, EAR_STRIP
from .raster import grid_triangles
from .template import surface_at, template

_EAR_FREE, _EAR_COVERED = 1.3, 0.05  # an ear shrinks below hair of thickness 0.015 and is gone below 0.065
PIVOT = np.array([0.0, 0.35, -0.95])
# Outward normals of the frontal contour in the image, points 0 to 8.
_OUTWARD = np.array(
    [
        (-1, 0),
        (-1, 0.03),
        (-1, 0.08),
        (-0.97, 0.22),
        (-0.88, 0.47),
        (-0.74, 0.67),
        (-0.52, 0.85),
        (-0.26, 0.97),
        (0, 1),
    ]
)


@dataclass(frozen=True)
class Pose:
    """Angles in degrees, camera distance in units of length, how much the body turns along."""

    yaw: float
    pitch: float
    roll: float
    distance: float
    body: float


@dataclass(frozen=True)
class Frame:
    """The image's side in pixels; the longer side of the landmarks' box and the shift of its middle (x, y), relative to it."""

    side: int
    fill: float = 0.5
    shift: np.ndarray = field(default_factory=lambda: np.zeros(2))


@dataclass(frozen=True)
class Wear:
    """What changes the head's outline: thickness of hair and clothes per vertex (rows, columns), how far hair hangs, and the ears."""

    thickness: np.ndarray
    curtain: float = 0.0
    ear_size: float = 1.0
    ear_out: float = 0.15


@dataclass(frozen=True)
class Placed:
    """A head in front of the camera, and its labels.

    Attributes
    ----------
    grid : ndarray, shape (rows + EAR_STRIP, columns, 3)
        Posed vertices of the head with hair, and of the ears.
    screen : ndarray of float32, shape (rows + EAR_STRIP, columns, 2)
        Their places in the image, pixels.
    points : ndarray, shape (68, 2)
        Landmarks in the image, pixels.
    cells : ndarray, shape (68, 2)
        Landmarks in grid coordinates (column, row).
    depth : ndarray, shape (68,)
        The landmarks' z.
    scale : float
        Pixels per unit of length.
    offset : ndarray, shape (2,)
        Where the head's pivot is seen, pixels.
    side : int
        Of the image, pixels.
    pose : Pose
    """

    grid: np.ndarray
    screen: np.ndarray
    points: np.ndarray
    cells: np.ndarray
    depth: np.ndarray
    scale: float
    offset: np.ndarray
    side: int
    pose: Pose

    def project(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) fixed to the head to pixels (..., 2)."""
        posed = pose_points(points.reshape(-1, 3), self.pose.yaw, self.pose.pitch, self.pose.roll)
        flat = project(posed, self.pose.distance) * self.scale + self.offset
        return flat.reshape(*points.shape[:-1], 2)


@dataclass(frozen=True)
class Light:
    """Key light from a direction (unit vector towards it), fill from the sky and the ground, a rim light from behind; RGB intensities."""

    direction: np.ndarray
    key: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    rim_direction: np.ndarray
    rim: np.ndarray
    gloss: float
    hardness: float


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation matrix (3, 3) for column vectors (x right, y down, z towards the camera)."""
    a, b, c = np.radians([yaw, pitch, roll])
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    tilt = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return tilt @ nod @ turn


def pose_controls(controls: np.ndarray, yaw: float, pitch: float, roll: float, body: float) -> np.ndarray:
    """Rotate the cage; the neck follows the head less and less towards the body, which turns by the fraction ``body``."""
    height = template().controls[:, 1]
    neck = np.array([name == "neck" for name in ("",) * 68 + template().names])
    follow = np.where(neck, np.interp(height, [1.2, 1.5, 2.05], [0.85, 0.55, body]), 1.0)
    posed = np.empty_like(controls)
    for fraction in np.unique(follow):
        chosen = follow == fraction
        matrix = rotation(yaw * fraction, pitch * fraction, roll * fraction)
        posed[chosen] = (controls[chosen] - PIVOT) @ matrix.T
    return posed


def pose_points(points: np.ndarray, yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Points (n, 3) fixed to the head, in the same frame as :func:`pose_controls`."""
    return (points - PIVOT) @ rotation(yaw, pitch, roll).T


def project(points: np.ndarray, distance: float) -> np.ndarray:
    """Perspective projection (..., 3) to (..., 2) in units of length at the depth of the pivot, camera at ``distance`` in front of it."""
    return points[..., :2] * (distance / (distance - points[..., 2:]))


def ears(
    vertices: np.ndarray, head: np.ndarray, size: float, stick_out: float, thickness: np.ndarray
) -> np.ndarray:
    """Vertices of both ears: (2, EAR_ROWS, EAR_COLUMNS, 3), image-left ear first.

    Parameters
    ----------
    vertices : ndarray, shape (rows, columns, 3)
        The posed head, for the place where the ears are attached.
    head : ndarray, shape (3, 3)
        The head's rotation.
    size, stick_out : float
        Height relative to the mean, and how far the rim leaves the head, in units of length.
    thickness : ndarray, shape (rows, columns)
        Of hair and clothes, under which ears are pressed to the head.
    """
    base = template()
    down = np.linspace(-1, 1, EAR_ROWS)[:, None]
    out = np.linspace(0, 1, EAR_COLUMNS)[None]
    outline = np.sqrt(np.maximum(1 - down**2, 0)) * (1 - 0.22 * down)
    back = -0.36 * out * outline * size
    lift = (0.03 + stick_out * (0.75 * out + 0.25 * np.sin(np.pi * out))) * outline
    high = 0.345 * down * size - 0.05 * out
    result = []
    for sign in (-1, 1):
        row, column = base.cells(np.array([sign * 97.0, -0.06]))[::-1]
        anchor = surface_at(vertices, np.array([column, row]))
        free = np.clip(_EAR_FREE - thickness[round(row), round(column)] / _EAR_COVERED, 0, 1)
        local = free * np.stack([sign * (lift - 0.05), high + 0 * out, back + 0.03 + 0 * down], axis=-1)
        ear = anchor + local @ head.T
        result.append(ear if sign > 0 else ear[:, ::-1])
    return np.stack(result)


def with_ears(head: np.ndarray, ear: np.ndarray) -> np.ndarray:
    """One grid of values per vertex: the head's (rows, columns, D), and a strip below it that holds both ears (2, EAR_ROWS, EAR_COLUMNS, D)."""
    rows, columns, depth = head.shape
    grid = np.zeros((rows + EAR_STRIP, columns, depth), head.dtype)
    grid[:rows] = head
    grid[rows : rows + EAR_ROWS, 1 : 1 + EAR_COLUMNS] = ear[0]
    grid[rows : rows + EAR_ROWS, 2 + EAR_COLUMNS : 2 + 2 * EAR_COLUMNS] = ear[1]
    return grid


def normals(grid: np.ndarray) -> np.ndarray:
    """Outward unit normals of a vertex grid (rows, columns, 3)."""
    across, down = np.empty_like(grid), np.empty_like(grid)
    across[:, 1:-1] = grid[:, 2:] - grid[:, :-2]
    across[:, [0, -1]] = grid[:, [1, -1]] - grid[:, [0, -2]]
    down[1:-1] = grid[2:] - grid[:-2]
    down[[0, -1]] = grid[[1, -1]] - grid[[0, -2]]
    a, b, c = across[..., 0], across[..., 1], across[..., 2]
    d, e, f = down[..., 0], down[..., 1], down[..., 2]
    normal = np.stack([b * f - c * e, c * d - a * f, a * e - b * d], axis=-1)
    return normal / (np.sqrt((normal**2).sum(-1, keepdims=True)) + 1e-9)


def seen_contour(screen: np.ndarray, roll: float) -> np.ndarray:
    """Where an annotator marks the jaw contour: each point marches from the jaw line to the silhouette that is seen.

    Parameters
    ----------
    screen : ndarray, shape (rows, columns, 2)
        Vertices of the head in the image.
    roll : float

    Returns
    -------
    ndarray, shape (17, 2)
        Grid coordinates (column, row).
    """
    cells = template().contour_cells  # (17, K, 2)
    outward = np.concatenate([_OUTWARD, _OUTWARD[7::-1] * (-1, 1)])
    outward = outward @ rotation(0, 0, roll)[:2, :2].T
    reach = np.einsum("ikd,id->ik", surface_at(screen, cells), outward)
    best = reach.argmax(1)
    inner = np.clip(best, 1, reach.shape[1] - 2)
    here = np.arange(17)
    before, at, after = reach[here, inner - 1], reach[here, inner], reach[here, inner + 1]
    bend = before - 2 * at + after
    shift = np.where(
        (best == inner) & (bend < -1e-9), 0.5 * (before - after) / np.where(bend < -1e-9, bend, -1), 0
    )
    place = np.clip(best + np.clip(shift, -0.5, 0.5), 0, reach.shape[1] - 1)
    low = np.minimum(place.astype(int), reach.shape[1] - 2)
    return cells[here, low] + (place - low)[:, None] * (cells[here, low + 1] - cells[here, low])


def place_head(
    controls: np.ndarray, pose: Pose, frame: Frame, wear: Wear, follow_silhouette: bool = True
) -> Placed:
    """Pose a head, frame it, and read its landmarks.

    Parameters
    ----------
    controls : ndarray, shape (C, 3)
        The cage with its expression.
    pose : Pose
    frame : Frame
    wear : Wear
    follow_silhouette : bool
        Whether contour points lie on the silhouette that is seen, or at their place on the head.
    """
    base = template()
    posed = pose_controls(controls, pose.yaw, pose.pitch, pose.roll, pose.body)
    bare = base.vertices(posed)
    turn = rotation(pose.yaw, pose.pitch, pose.roll)
    grid = with_ears(
        _grown(bare, wear.thickness, wear.curtain, turn),
        ears(bare, turn, wear.ear_size, wear.ear_out, wear.thickness),
    )
    flat = project(bare, pose.distance)
    cells = base.landmark_cells
    if follow_silhouette:
        cells = np.concatenate([seen_contour(flat, pose.roll), cells[17:]])
    points = surface_at(flat, cells)
    low, high = points.min(0), points.max(0)
    scale = float(frame.side * frame.fill / max(high - low))
    offset = (frame.side - 1) / 2 + frame.shift * frame.side - scale * (low + high) / 2
    screen = (project(grid, pose.distance) * scale + offset).astype(np.float32)
    depth = surface_at(bare, cells)[:, 2]
    return Placed(grid, screen, points * scale + offset, cells, depth, scale, offset, frame.side, pose)


def _grown(bare: np.ndarray, thickness: np.ndarray, curtain: float, turn: np.ndarray) -> np.ndarray:
    """Move covered vertices outwards, and let long hair hang beside the neck."""
    middle = (np.array([0.0, -0.45, -0.9]) - PIVOT) @ turn.T
    outward = bare - middle
    up = turn[:, 1]
    level = np.clip(along(outward, up), 0, None)[..., None]
    radial = outward - level * up  # below the middle of the skull hair hangs: only sideways
    radius = np.sqrt((radial**2).sum(-1, keepdims=True)) + 1e-6
    amount = thickness[..., None]
    if curtain > 0:
        covered = np.clip(thickness / max(float(thickness.max()), 1e-6) * 3, 0, 1)[..., None]
        hanging = np.clip(0.93 - 0.06 * level - radius, 0, 0.6) * np.clip((level - 0.1) / 0.4, 0, 1)
        amount = amount + covered * hanging
    return bare + radial / radius * amount


@lru_cache(maxsize=1)
def mesh() -> tuple[np.ndarray, np.ndarray]:
    """Grid coordinates of all vertices (V, 2), and triangles (T, 3) of the head and of both ears in the strip below it."""
    rows, columns = template().shape
    y, x = np.mgrid[: rows + EAR_STRIP, :columns].astype(np.float32)
    heads = grid_triangles(rows, columns)
    ear = grid_triangles(EAR_ROWS, EAR_COLUMNS)
    row, column = np.divmod(ear, EAR_COLUMNS)
    both = ((rows + row) * columns + column + start for start in (1, 2 + EAR_COLUMNS))
    return np.stack([x, y], axis=-1).reshape(-1, 2), np.concatenate([heads, *both]).astype(np.int32)


def along(vectors: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Dot products of vectors (..., 3) with one direction (3,), the same bits for any number of threads."""
    return vectors[..., 0] * direction[0] + vectors[..., 1] * direction[1] + vectors[..., 2] * direction[2]


def cast_shadow(vertices: np.ndarray, direction: np.ndarray, hardness: float) -> np.ndarray:
    """Share of the key light that reaches each vertex (n, 3): a shadow map of the vertices themselves, coarse and soft."""
    side = np.cross(direction, (0.0, 1.0, 0.13))
    side /= np.linalg.norm(side)
    up = np.cross(side, direction)
    depth = along(vertices, direction)
    column = np.clip((along(vertices, side) + 2.4) * 15, 0, 71).astype(np.int32)
    row = np.clip((along(vertices, up) + 2.4) * 15, 0, 71).astype(np.int32)
    cell = row * 72 + column
    nearest = np.full(72 * 72, -np.inf)
    np.maximum.at(nearest, cell, depth)
    behind = nearest[cell] - depth
    return np.clip(1 - (behind - 0.10) / (0.10 + 0.15 * (1 - hardness)), 0.0, 1)


def shade(
    normal: np.ndarray, vertices: np.ndarray, dark: np.ndarray, light: Light, columns: int
) -> np.ndarray:
    """Light on each vertex.

    Parameters
    ----------
    normal, vertices : ndarray, shape (n, 3)
    dark : ndarray, shape (n,)
        Share of the sky that does not reach the vertex.
    light : Light
    columns : int
        Of the vertex grid, along which shadows are softened.

    Returns
    -------
    ndarray of float32, shape (n, 4)
        RGB that multiplies the surface's colour, and the strength of the highlight that is added to it.
    """
    reach = cast_shadow(vertices, light.direction, light.hardness).reshape(-1, columns)
    reach = cv2.blur(cv2.blur(reach, (3, 3)), (3, 3) if light.hardness > 0.5 else (5, 5)).ravel()
    wrap = 0.12 * (1 - light.hardness)
    towards = np.clip((along(normal, light.direction) + wrap) / (1 + wrap), 0, 1) * reach
    above = (0.5 - 0.5 * normal[:, 1])[:, None]
    open_sky = (1 - dark)[:, None]
    fill = (light.sky * above + light.ground * (1 - above)) * (0.38 + 0.62 * normal[:, 2:].clip(0, 1))
    rim = np.clip(along(normal, light.rim_direction), 0, 1)[:, None] * light.rim
    diffuse = towards[:, None] * light.key * (0.6 + 0.4 * open_sky) + fill * open_sky + rim
    half = light.direction + (0, 0, 1)
    half = half / np.linalg.norm(half)
    spark = np.clip(along(normal, half), 0, 1) ** 14 * reach
    return np.concatenate([diffuse, light.gloss * spark[:, None]], axis=1).astype(np.float32)
