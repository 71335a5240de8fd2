"""Boxes that start a method, where a data set ships none from a detector."""

import hashlib

import numpy as np
import torch

from replicate.geometry import perturb_boxes, tight_box

SHIFT_SD = 0.05  # of the box width and height
LOG_SCALE_SD = 0.05
BOX_RULE = (
    f"tight box of the true points, moved by a normal error of {100 * SHIFT_SD:g} % of its sides and scaled by a log-normal one of "
    f"{100 * LOG_SCALE_SD:g} %, fixed per image name"
)


def simulated_detector_boxes(points: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Boxes (N, 4) as a face detector might give them, by `BOX_RULE`.

    The error depends on the image's name alone, so that every method, process and run starts from the same boxes.

    Parameters
    ----------
    points : array
        (N, L, 2) in pixels, without NaN.
    names : tuple of str
        N image names.
    """
    error = np.stack([_normal_from_name(name) for name in names])
    boxes = tight_box(torch.as_tensor(np.asarray(points, np.float64)))
    boxes = perturb_boxes(
        boxes, torch.as_tensor(error[:, :2] * SHIFT_SD), torch.as_tensor(error[:, 2] * LOG_SCALE_SD)
    )
    return boxes.numpy().astype(np.float32)


def _normal_from_name(name: str) -> np.ndarray:
    """Three standard normal numbers that the name determines."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(3)
