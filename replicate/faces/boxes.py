"""Boxes that start a method, where a data set ships none from a detector."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch

from replicate.errors import ReplicateError
from replicate.geometry import perturb_boxes


@dataclass(frozen=True)
class BoxRule:
    """How the box that a face detector might give follows from the true points of a face.

    The detector's error depends on the image's name alone, so that every method, process and run starts from the same boxes, and
    a rule with a larger error moves each box further along the same way.

    Attributes
    ----------
    growth : float
        What is added on each side of the tight box of the points, in shares of its sides.
    square : bool
        Whether the box is a square of the longer side about the same centre.
    shift_sd : float
        Standard deviation of the error of position, in shares of the box's sides.
    log_scale_sd : float
        Standard deviation of the logarithm of the error of size.
    whole_face : bool
        Whether the box is that of all 68 points of a generated face, whatever the markup: for the few points of which no box can be
        made that covers a face from every side.
    """

    growth: float = 0.0
    square: bool = False
    shift_sd: float = 0.05
    log_scale_sd: float = 0.05
    whole_face: bool = False

    @property
    def text(self) -> str:
        """The rule in words, for captions."""
        shape = "square around" if self.square else "tight box of"
        points = "all 68 points of the generated face" if self.whole_face else "the true points"
        grown = f", grown by {100 * self.growth:g} % on each side" if self.growth else ""
        return (
            f"{shape} {points}{grown}, moved by a normal error of {100 * self.shift_sd:g} % of its sides and scaled by a "
            f"log-normal one of {100 * self.log_scale_sd:g} %, fixed per image name"
        )

    def with_noise(self, shift_sd: float, log_scale_sd: float) -> "BoxRule":
        """The same rule for a detector with another error."""
        return replace(self, shift_sd=shift_sd, log_scale_sd=log_scale_sd)

    def boxes(self, points: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
        """Boxes (N, 4) float32 by this rule.

        Parameters
        ----------
        points : array
            (N, L, 2) in pixels; points that are NaN do not count.
        names : tuple of str
            N image names.

        Raises
        ------
        ReplicateError
            If there is not one name per face, or if the known points of a face lie in one place (on one vertical or horizontal line, unless
            the box is square).
        """
        if len(points) != len(names):
            raise ReplicateError(f"names: got {len(names)} for {len(points)} faces, expected one per face")
        error = np.stack([_normal_from_name(name) for name in names])
        moved = perturb_boxes(
            torch.as_tensor(self._true_boxes(np.asarray(points, np.float64), names)),
            torch.as_tensor(error[:, :2] * self.shift_sd),
            torch.as_tensor(error[:, 2] * self.log_scale_sd),
        )
        return moved.numpy().astype(np.float32)

    def _true_boxes(self, points: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
        known = np.isfinite(points).all(-1, keepdims=True)
        low = np.where(known, points, np.inf).min(1)
        high = np.where(known, points, -np.inf).max(1)
        sides = high - low
        if self.square:
            sides = np.broadcast_to(sides.max(1, keepdims=True), sides.shape)
        flat = ~(sides > 0).all(1)
        if flat.any():
            first = int(np.argmax(flat))
            raise ReplicateError(
                f"{names[first]}: {int(known[first].sum())} known points do not span a box; leave this face out or give its box"
            )
        centre, half = (low + high) / 2, (0.5 + self.growth) * sides
        return np.concatenate([centre - half, centre + half], axis=1)


TIGHT = BoxRule()
WHOLE_FACE = BoxRule(whole_face=True)
SQUARE = BoxRule(growth=0.5, square=True)  # five points or fewer lie well inside the face


def _normal_from_name(name: str) -> np.ndarray:
    """Three standard normal numbers that the name determines."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(3)
