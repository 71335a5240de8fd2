"""Noise that is made once and looked up many times: tiles from a fixed seed, read at random offsets."""

from functools import lru_cache

import cv2
import numpy as np

TILE = 512


@lru_cache(maxsize=1)
def white_tile() -> np.ndarray:
    """Gaussian white noise, float32, shape (TILE, TILE, 3), unit variance."""
    return np.random.Generator(np.random.PCG64(20_130_601)).standard_normal((TILE, TILE, 3), np.float32)


@lru_cache(maxsize=8)
def smooth_tile(scale: int) -> np.ndarray:
    """Wrapped Gaussian noise of a given blur radius in pixels, float32, shape (TILE, TILE, 3), unit variance."""
    border = 4 * scale
    padded = np.pad(white_tile(), ((border, border), (border, border), (0, 0)), mode="wrap")
    blurred = cv2.GaussianBlur(padded, (0, 0), scale)[border:-border, border:-border]
    return np.ascontiguousarray((blurred - blurred.mean()) / blurred.std())


@lru_cache(maxsize=1)
def skin_tile() -> np.ndarray:
    """Pores, blemishes and uneven tone together: float32, shape (TILE, TILE), unit variance."""
    mixed = 0.55 * smooth_tile(1)[..., 0] + 0.6 * smooth_tile(3)[..., 1] + 0.9 * smooth_tile(12)[..., 2]
    return np.ascontiguousarray(mixed / mixed.std())


@lru_cache(maxsize=1)
def strand_tile() -> np.ndarray:
    """Noise drawn out along y, like strands of hair: float32, shape (TILE, TILE), unit variance."""
    base = np.ascontiguousarray(white_tile()[..., 0])
    padded = np.pad(base, ((64, 64), (4, 4)), mode="wrap")
    streaks = cv2.GaussianBlur(padded, (0, 0), sigmaX=0.9, sigmaY=14)[64:-64, 4:-4]
    locks = cv2.GaussianBlur(padded, (0, 0), sigmaX=3.5, sigmaY=20)[64:-64, 4:-4]
    mixed = streaks / streaks.std() + 0.8 * locks / locks.std()
    return np.ascontiguousarray(mixed / mixed.std())


def window(tile: np.ndarray, rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A view of a tile at a random offset, mirrored at random; at most TILE on a side."""
    i, j = rng.integers(0, TILE - rows + 1), rng.integers(0, TILE - columns + 1)
    flip_rows, flip_columns = rng.integers(0, 2, 2)
    view = tile[i : i + rows, j : j + columns]
    return view[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def blotches(rng: np.random.Generator, rows: int, columns: int, cells: int, channels: int = 1) -> np.ndarray:
    """Smooth noise in about [-1, 1] with ``cells`` features along a side: float32, shape (rows, columns, channels)."""
    coarse = rng.uniform(-1, 1, (max(cells, 2), max(cells, 2), channels)).astype(np.float32)
    fine = cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)
    return fine.reshape(rows, columns, channels)
