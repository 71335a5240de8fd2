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
    triangles = triangles[_facing(screen, triangles)]
    corners = screen[triangles]  # (T, 3, 2)
    origin = corners[:, 0]
    edge1, edge2 = corners[:, 1] - origin, corners[:, 2] - origin
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    left_top = np.minimum(np.minimum(origin, corners[:, 1]), corners[:, 2])
    right_bottom = np.maximum(np.maximum(origin, corners[:, 1]), corners[:, 2])
    low = np.maximum(np.ceil(left_top), 0).astype(np.int32)
    high = np.minimum(np.floor(right_bottom), size - 1).astype(np.int32)
    sides = high - low
    span = np.maximum(sides[:, 0], sides[:, 1]) + 1
    drawn = np.minimum(sides[:, 0], sides[:, 1]) >= 0
    pixels, weights, owners = [], [], []
    smallest = 0
    for window in _WINDOWS:
        chosen = np.flatnonzero(drawn & (span > smallest) & ((span <= window) | (window == _WINDOWS[-1])))
        smallest = window
        if len(chosen):
            pixel, weight, owner = _cover(
                origin[chosen], edge1[chosen], edge2[chosen], area[chosen], low[chosen], window, size
            )
            pixels.append(pixel)
            weights.append(weight)
            owners.append(chosen[owner])
    if not pixels:
        return mapped.reshape(size, size, 2), nearest.reshape(size, size)
    pixel, weight, owner = np.concatenate(pixels), np.concatenate(weights, axis=1), np.concatenate(owners)
    corner = np.ascontiguousarray(triangles[owner].T)  # (3, n)
    z = _interpolated(depth, corner, weight)
    np.maximum.at(nearest, pixel, z)
    front = np.flatnonzero(z >= nearest[pixel])
    pixel, weight, corner = pixel[front], weight[:, front], corner[:, front]
    for axis in range(2):
        mapped[pixel, axis] = _interpolated(np.ascontiguousarray(values[:, axis]), corner, weight)
    return mapped.reshape(size, size, 2), nearest.reshape(size, size)


def _interpolated(values: np.ndarray, corner: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Barycentric interpolation of values (V,) at corners (3, n) with weights (3, n)."""
    return values[corner[0]] * weight[0] + values[corner[1]] * weight[1] + values[corner[2]] * weight[2]


def _facing(screen: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Indices of the triangles that face the camera."""
    x, y = np.ascontiguousarray(screen[:, 0]), np.ascontiguousarray(screen[:, 1])
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    xa, ya = x[a], y[a]
    return np.flatnonzero((x[b] - xa) * (y[c] - ya) - (y[b] - ya) * (x[c] - xa) > 1e-6)


def _cover(origin, edge1, edge2, area, low, window: int, size: int):
    """Pixels inside each triangle: flat pixel indices (n,), barycentric weights (3, n), index of the triangle (n,)."""
    oy, ox = (o.astype(np.float32) for o in np.divmod(np.arange(window * window), window))
    inverse = 1 / area
    start = low.astype(np.float32) - origin
    by_x2, by_y2 = edge2[:, 1] * inverse, edge2[:, 0] * inverse
    by_x3, by_y3 = edge1[:, 1] * inverse, edge1[:, 0] * inverse
    second = (start[:, 0] * by_x2 - start[:, 1] * by_y2)[:, None] + by_x2[:, None] * ox
    second -= by_y2[:, None] * oy
    third = (start[:, 1] * by_y3 - start[:, 0] * by_x3)[:, None] + by_y3[:, None] * oy
    third -= by_x3[:, None] * ox
    first = 1 - second
    first -= third
    inside = np.minimum(np.minimum(second, third), first) >= -1e-4
    place = np.flatnonzero(inside)
    owner, offset = np.divmod(place, window * window)
    x, y = low[owner, 0] + offset % window, low[owner, 1] + offset // window
    weight = np.stack([first.ravel()[place], second.ravel()[place], third.ravel()[place]])
    within = (x < size) & (y < size)
    if not within.all():
        x, y, weight, owner = x[within], y[within], weight[:, within], owner[within]
    return y * size + x, weight, owner
