"""Toy faces: bright dots on grey, so that a landmark can be read off the image."""

import math

import numpy as np
import torch

from replicate.faces.augment import Frame
from replicate.faces.faceset import FaceSet
from replicate.geometry import tight_box

FRAME = Frame(size=112, extent=56.0)
ANGLES = torch.linspace(0, 2 * math.pi, 69)[:68]
MEAN = torch.stack([ANGLES.cos(), ANGLES.sin()], -1) * torch.linspace(0.5, 1, 68)[:, None]  # a spiral
CANONICAL = FRAME.canonical(MEAN)


def toy_faces(count=24, seed=0, box_noise=0.0):
    """Faces of 68 dots, scaled and moved at random; `box_noise` is the deviation of the boxes' edges in pixels."""
    rng = np.random.default_rng(seed)
    points = np.stack(
        [CANONICAL.numpy() * rng.uniform(0.9, 1.1) + rng.uniform(0, 20, 2) for _ in range(count)]
    ).astype(np.float32)
    images = np.full((count, 140, 140), 60, np.uint8)
    for image, shape in zip(images, points, strict=True):
        image[tuple(shape.round().astype(int).T[::-1])] = 255
    boxes = tight_box(torch.as_tensor(points)).numpy() + rng.normal(0, box_noise, (count, 4)).astype(
        np.float32
    )
    return FaceSet(
        images, points, np.ones((count, 68), bool), boxes, tuple(map(str, range(count))),
        "ibug68", "toy", "train", "synthetic", "made by the test",
    )  # fmt: skip
