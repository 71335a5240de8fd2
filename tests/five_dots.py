"""Faces of five coloured dots, so that landmarks can be read off a crop: eyes, nose and corners of the mouth."""

import numpy as np
import torch
from torch import Tensor

from replicate.faces.faceset import FaceSet
from replicate.geometry import apply_transform, similarity

SHAPE = np.array([[-8.0, -7.0], [8, -7], [0, 1], [-6, 9], [6, 9]])  # in a box of 40 pixels
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]])
MIDDLE = 39.5  # of the images of 80 pixels, and of their boxes


def five_dots(count: int = 24, seed: int = 0, *, jitter: float = 1.5, turn: float = 10.0) -> FaceSet:
    """Faces in boxes of 40 pixels: `SHAPE` turned by up to `turn` degrees, scaled and moved; `jitter` is the deviation of each point besides."""
    rng = np.random.default_rng(seed)
    angle, scale = np.deg2rad(rng.uniform(-turn, turn, count)), rng.uniform(0.8, 1.15, count)
    place = MIDDLE + rng.uniform(-2, 2, (count, 2))
    moves = similarity(*(torch.from_numpy(one) for one in (scale, angle, place)))
    shapes = SHAPE + rng.normal(0, jitter, (count, 5, 2)) if jitter else np.tile(SHAPE, (count, 1, 1))
    points = apply_transform(moves, torch.from_numpy(shapes)).numpy().astype(np.float32)
    images = np.stack([_drawn(shape) for shape in points])
    boxes = np.tile(np.float32([MIDDLE - 20, MIDDLE - 20, MIDDLE + 20, MIDDLE + 20]), (count, 1))
    names = tuple(map(str, range(count)))
    visible = np.ones((count, 5), bool)
    return FaceSet(
        images, points, visible, boxes, names, "mtfl5", "drawn", "train", "synthetic", "made by the test"
    )


def _drawn(shape: np.ndarray) -> np.ndarray:
    """A dark image with a soft dot of each colour."""
    y, x = np.mgrid[:80, :80]
    image = np.full((80, 80, 3), 30.0)
    for (px, py), colour in zip(shape, COLOURS, strict=True):
        weight = np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 1.5**2))[..., None]
        image = image * (1 - weight) + colour * weight
    return image.round().astype(np.uint8)


def read_off(crops: Tensor) -> Tensor:
    """Where the five dots of crops (n, 3, H, W) are, (n, 5, 2): the middle of what has the dot's colour."""
    tints = torch.tensor(COLOURS) / 255
    distance = (crops[:, None] - tints[:, :, None, None]).square().sum(2)  # (n, 5, H, W)
    weight = torch.exp(-distance / 0.08)
    x, y = (torch.arange(size, dtype=crops.dtype) for size in (crops.shape[-1], crops.shape[-2]))
    total = weight.sum((-2, -1))
    return torch.stack([(weight.sum(-2) * x).sum(-1) / total, (weight.sum(-1) * y).sum(-1) / total], -1)
