"""A fitter of 68 points that begins from five (TCNN §5.3): the five points say where a face is and how it is turned, the fitter does the rest.

The paper begins CLNF from TCNN's points. CLNF is not part of this suite; any fitter that refines a shape step by step can be begun in this way, and
here it is SDM. Its regressions stay as they were learnt, from starts in boxes.

Convention: landmarks are ``(N, L, 2)`` arrays of (x, y) in pixels, the centre of the top-left pixel at (0, 0).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from replicate.faces.markups import convert
from replicate.geometry import apply_transform, fit_similarity, tight_box
from replicate.methods.baselines import SDM, MeanShape

FIVE, ALL = "mtfl5", "ibug68"


class Begun(NamedTuple):
    """Shapes (N, 68, 2) in pixels: where a fit began, and where it ended."""

    start: np.ndarray
    end: np.ndarray


def place(shape: np.ndarray, five: np.ndarray) -> np.ndarray:
    """One shape of 68 points (68, 2) placed on N faces by their five points (N, 5, 2): (N, 68, 2).

    The similarity is the one that brings the shape's own five points nearest to those of the face, by least squares.
    """
    five = torch.as_tensor(five, dtype=torch.double)
    shapes = torch.as_tensor(np.asarray(shape), dtype=torch.double).expand(len(five), -1, -1)
    own = torch.as_tensor(convert(shapes.numpy(), ALL, FIVE))
    return apply_transform(fit_similarity(own, five), shapes).numpy()


def from_boxes(model: SDM, images: Sequence[np.ndarray], boxes: np.ndarray) -> Begun:
    """The fit from the mean shape in each box (N, 4)."""
    mean = MeanShape.from_arrays({"shape": model.initial_})
    return Begun(mean.predict(images, boxes), model.predict(images, boxes))


def from_five(model: SDM, images: Sequence[np.ndarray], five: np.ndarray) -> Begun:
    """The fit from the mean shape placed on five points (N, 5, 2) of each face.

    The tight box of the placed shape takes the place of the face's box, so that nothing but the five points decides where the fitter looks.
    """
    start = place(model.initial_, five)
    boxes = tight_box(torch.as_tensor(start)).numpy()
    return Begun(start, model.predict(images, boxes, start))
