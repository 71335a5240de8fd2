"""Pictures of objects without a download: fractals, for networks that would start from photographs of objects (LDDR §3.1: ImageNet).

A kind of object is a system of contracting affine maps; its picture is where a point comes that a random one of them moves again and
again. Networks that have learnt to tell kinds of fractals start nearly as well as those that have learnt from photographs (Kataoka et
al., Pre-training without Natural Images, ACCV 2020); maps are drawn by their singular values, so that they contract
(Anderson and Farrell, Improving Fractal Pre-training, WACV 2022).
"""

from collections.abc import Iterable

import cv2
import numpy as np

from replicate.errors import ReplicateError

MAPS = (2, 5)  # fewest and most maps of a system
SINGULAR_VALUES = (0.3, 0.85)
LEAST_FILLED = 0.15  # share of the cells of a 16 x 16 grid that a picture must touch, or it is a speck
JITTER = 0.15  # the maps of two pictures of a kind differ by as much, relative
_WALKERS, _STEPS, _SETTLING = 4000, 18, 8


class Fractals:
    """An endless sequence of labelled pictures of fractals in random colours; number `index` depends on the seed and the index alone.

    Parameters
    ----------
    kinds : int
        Which of them a picture shows is its label; kind `k` is the same for every seed.
    size : int
        Side of the pictures in pixels.
    seed : int
    """

    def __init__(self, kinds: int, size: int, seed: int = 0) -> None:
        if kinds < 2:
            raise ReplicateError(f"kinds: got {kinds}, expected at least two to tell apart")
        self.systems = [_system(kind) for kind in range(kinds)]
        self.size, self.seed = size, seed

    def take(self, indices: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Pictures (n, size, size, 3) uint8 RGB and labels (n,) of the numbers `indices` of the sequence."""
        drawn = [self._draw(index) for index in indices]
        return np.stack([picture for picture, _ in drawn]), np.array([label for _, label in drawn])

    def _draw(self, index: int) -> tuple[np.ndarray, int]:
        rng = np.random.default_rng((self.seed, index))
        kind = int(rng.integers(len(self.systems)))
        maps = self.systems[kind] * (1 + JITTER * rng.uniform(-1, 1, self.systems[kind].shape))
        side = int(self.size * rng.uniform(0.5, 1))
        density = cv2.GaussianBlur(_density(_walk(maps, rng), side), (0, 0), self.size / 224)
        density = np.rot90(density, rng.integers(4))[:: rng.choice([-1, 1])]
        picture = np.zeros((self.size, self.size), np.float32)
        y, x = rng.integers(0, self.size - side + 1, 2)
        picture[y : y + side, x : x + side] = density
        return _coloured(picture, rng), kind


def _system(kind: int) -> np.ndarray:
    """(n, 2, 3) affine maps of a kind, the first draw whose picture is no speck."""
    rng = np.random.default_rng((kind,))
    while True:
        maps = np.stack([_contraction(rng) for _ in range(rng.integers(*MAPS, endpoint=True))])
        if (_density(_walk(maps, np.random.default_rng(0)), 16) > 0).mean() >= LEAST_FILLED:
            return maps


def _contraction(rng: np.random.Generator) -> np.ndarray:
    """(2, 3): rotations around a diagonal matrix of singular values, and a shift."""
    turns = [
        np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in rng.uniform(0, 2 * np.pi, 2)
    ]
    stretch = np.diag(rng.uniform(*SINGULAR_VALUES, 2) * rng.choice([-1, 1], 2))
    return np.column_stack([turns[0] @ stretch @ turns[1], rng.uniform(-1, 1, 2)])


def _walk(maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points (n, 2) of the fractal of affine maps (m, 2, 3), each of which is taken as often as its area is large."""
    areas = np.abs(np.linalg.det(maps[:, :, :2])) + 1e-3
    taken = rng.choice(len(maps), (_STEPS, _WALKERS), p=areas / areas.sum())
    # the point that the first map leaves in its place belongs to the fractal, and so does whatever comes of it
    x, y = np.linalg.solve(np.eye(2) - maps[0, :, :2], maps[0, :, 2])[:, None]
    path = []
    for step in taken:
        a, b, c, d, e, f = maps.reshape(-1, 6).T[:, step]
        x, y = a * x + b * y + c, d * x + e * y + f
        path.append((x, y))
    return np.concatenate(path[_SETTLING:], 1).T


def _density(points: np.ndarray, side: int) -> np.ndarray:
    """(side, side) float32 in [0, 1]: how often points (n, 2) fall on each pixel of a picture that just holds them, compressed."""
    low, high = points.min(0), points.max(0)
    cells = ((points - low) / max((high - low).max(), 1e-9) * (side - 1)).round().astype(int)
    counts = np.bincount(cells[:, 1] * side + cells[:, 0], minlength=side * side).reshape(side, side)
    return (np.log1p(counts) / np.log1p(counts.max())).astype(np.float32)


def _coloured(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 from shades (H, W): a random background, and two random colours between which the shades go."""
    behind, dark, light = rng.uniform(0, 255, (3, 3)).astype(np.float32)
    shade = picture[..., None]
    inside = dark + shade * (light - dark)
    cover = np.minimum(3 * shade, 1)
    return (behind + cover * (inside - behind)).round().astype(np.uint8)
