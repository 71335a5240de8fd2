"""Drawing a triangle mesh into a map of surface coordinates, vectorised over triangles.

Every visible triangle is tested against a small window of pixels; windows of similar size are done together. The result says for
each pixel which place of the surface it shows, so that textures and light are looked up by ``cv2.remap``.
"""

from functools import lru_cache

import numpy as np

_WINDOWS = (2, 3, 5, 9, 17, 33, 65)  # pixels along a side; larger triangles are cut to the last


@lru_cache(maxsize=4)
def grid_triangles(rows: int, columns: int) -> np.ndarray:
    """Two triangles per cell of a vertex grid, split along the falling diagonal: (T, 3) vertex indices, clockwise on the image."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij")
    a = (i * columns + j).ravel()
    b, c, d = a + 1, a + columns, a + columns + 1
    return np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)]).astype(np.int32)


def rasterise(screen: np.ndarray, depth: np.ndarray, values: np.ndarray, triangles: np.ndarray, size: int):
    """Draw the front faces of a mesh with a depth buffer.

    Parameters
    ----------
    screen : ndarray of float32, shape (V, 2)
        Vertices in pixels, pixel centres at integers.
    depth : ndarray of float32, shape (V,)
        Larger is nearer.
    values : ndarray of float32, shape (V, 2)
        What is interpolated, here texture coordinates.
    triangles : ndarray of int, shape (T, 3)
    size : int
        Side of the square image.

    Returns
    -------
    mapped : ndarray of float32, shape (size, size, 2)
        Interpolated values, -1 where nothing was drawn.
    nearest : ndarray of float32, shape (size, size)
        Depth, -inf where nothing was drawn.
    """
    mapped = np.full((size * size, 2), -1, np.float32)
    nearest = np.full(size * size, -np.inf, np.float32)
    triangles = np.ascontiguousarray(triangles[_facing(screen, triangles)].T)
    weights, left, top, span = _planes(screen, triangles, size)
    samples = []
    smallest = 0
    for window in _WINDOWS:
        chosen = np.flatnonzero((span > smallest) & ((span <= window) | (window == _WINDOWS[-1])))
        smallest = window
        if len(chosen):
            samples.append(_cover(chosen, weights[:, chosen], left[chosen], top[chosen], window, size))
    if not samples:
        return mapped.reshape(size, size, 2), nearest.reshape(size, size)
    pixel, second, third, owner = (np.concatenate(parts) for parts in zip(*samples, strict=True))
    z = _interpolated(depth, triangles, second, third, owner)
    np.maximum.at(nearest, pixel, z)
    front = np.flatnonzero(z >= nearest[pixel])
    pixel, second, third, owner = pixel[front], second[front], third[front], owner[front]
    for axis in range(2):
        mapped[pixel, axis] = _interpolated(
            np.ascontiguousarray(values[:, axis]), triangles, second, third, owner
        )
    return mapped.reshape(size, size, 2), nearest.reshape(size, size)


def _planes(screen: np.ndarray, triangles: np.ndarray, size: int):
    """What is affine over each triangle of ``triangles`` (3, T), and the pixels it may touch.

    Returns
    -------
    weights : ndarray of float32, shape (6, T)
        Weights of the second and of the third corner: at the pixel (left, top), and their slopes along x and along y.
    left, top, span : ndarray of int, shape (T,)
        First column and row, and the longer side of the box of pixels; 0 where it holds none.
    """
    x, y = (np.ascontiguousarray(screen[:, axis])[triangles] for axis in (0, 1))
    x1, y1, x2, y2 = x[1] - x[0], y[1] - y[0], x[2] - x[0], y[2] - y[0]
    inverse = 1 / (x1 * y2 - y1 * x2)
    left, top = (np.maximum(np.ceil(v.min(0)), 0).astype(np.int32) for v in (x, y))
    right, bottom = (np.minimum(np.floor(v.max(0)), size - 1).astype(np.int32) for v in (x, y))
    span = np.maximum(right - left, bottom - top) + 1
    span[(right < left) | (bottom < top)] = 0
    from_x, from_y = left - x[0], top - y[0]
    weights = np.stack(
        [
            (from_x * y2 - from_y * x2) * inverse, y2 * inverse, -x2 * inverse,
            (from_y * x1 - from_x * y1) * inverse, -y1 * inverse, x1 * inverse,
        ]
    ).astype(np.float32)  # fmt: skip
    return weights, left, top, span


def _interpolated(values: np.ndarray, triangles: np.ndarray, second, third, owner: np.ndarray) -> np.ndarray:
    """Values (V,) of the vertices at samples (n,) of the triangles ``owner``, by the weights of their second and third corners."""
    corner, *others = (values[corners] for corners in triangles)
    along, below = (other - corner for other in others)
    return corner[owner] + second * along[owner] + third * below[owner]


def _facing(screen: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Indices of the triangles that face the camera."""
    x, y = np.ascontiguousarray(screen[:, 0]), np.ascontiguousarray(screen[:, 1])
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    xa, ya = x[a], y[a]
    return np.flatnonzero((x[b] - xa) * (y[c] - ya) - (y[b] - ya) * (x[c] - xa) > 1e-6)


def _cover(
    triangles: np.ndarray, weights: np.ndarray, left: np.ndarray, top: np.ndarray, window: int, size: int
):
    """Pixels inside some triangles: flat pixel indices, weights of the second and the third corner, the triangle; each (n,)."""
    down, right = np.divmod(np.arange(window * window, dtype=np.int32), np.int32(window))
    oy, ox = down.astype(np.float32), right.astype(np.float32)
    second, third = (
        start[:, None] + along[:, None] * ox + below[:, None] * oy
        for start, along, below in (weights[:3], weights[3:])
    )
    inside = 1 - second
    inside -= third
    np.minimum(inside, second, out=inside)
    np.minimum(inside, third, out=inside)
    place = np.flatnonzero(inside >= -1e-4)
    owner = place // (window * window)
    offset = place - owner * (window * window)
    x, y = left[owner] + right[offset], top[owner] + down[offset]
    within = (x < size) & (y < size)
    if not within.all():
        x, y, place, owner = x[within], y[within], place[within], owner[within]
    return y * size + x, second.ravel()[place], third.ravel()[place], triangles[owner]
