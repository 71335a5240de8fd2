"""Perturbations: what each paper does to its training faces.

A *move* is a transform (2, 3) of the coordinates of a `Frame`; a perturbation draws moves. DAN and ECT draw new ones at every step;
RNN and LDDR enlarge the training set by a fixed number of variants of each face. `replicate.faces.augment` applies them.
"""

from dataclasses import dataclass
from itertools import product
from typing import Protocol

import torch
from torch import Tensor

from replicate.geometry import apply_transform, compose, similarity


@dataclass(frozen=True)
class Frame:
    """The square that a network sees: `size` pixels a side, the mean shape centred, `extent` pixels along its longer side.

    `zoom` is the number of canvas pixels per frame pixel: at 1.5 enlarged crops stay sharp; frames about as large as the photographs
    need no more than 1.
    """

    size: int = 112
    extent: float = 56.0
    zoom: float = 1.5

    def canonical(self, shape: Tensor) -> Tensor:
        """Shapes (..., L, 2) moved to the frame's centre and scaled to its extent; of the mean shape, the canonical shape S_0."""
        low, high = shape.amin(-2, keepdim=True), shape.amax(-2, keepdim=True)
        scale = self.extent / (high - low).amax(-1, keepdim=True)
        return (shape - (low + high) / 2) * scale + (self.size - 1) / 2


class RandomMove(Protocol):
    """Anything that draws moves."""

    def sample(self, count: int, frame: Frame, generator: torch.Generator) -> Tensor:
        """Moves (count, 2, 3) of frame coordinates."""


@dataclass(frozen=True)
class NormalPerturbation:
    """Random similarities about the frame's centre, all normal: DAN §4 (data augmentation).

    Attributes
    ----------
    translation : float
        Standard deviation of each shift, in units of the canonical shape's longer side.
    rotation : float
        Standard deviation in degrees.
    scale : float
        Standard deviation of the scale factor, whose mean is 1; kept within [0.5, 2].
    """

    translation: float
    rotation: float
    scale: float

    def sample(self, count: int, frame: Frame, generator: torch.Generator) -> Tensor:
        """Moves (count, 2, 3)."""
        normal = torch.randn(count, 4, generator=generator)
        scale = (1 + self.scale * normal[:, 0]).clamp(0.5, 2)
        shift = self.translation * frame.extent * normal[:, 2:]
        return _about_centre(scale, torch.deg2rad(self.rotation * normal[:, 1]), shift, frame)


@dataclass(frozen=True)
class UniformPerturbation:
    """Random similarities about the frame's centre, all uniform.

    Attributes
    ----------
    translation : float
        Largest shift along each axis, in units of the canonical shape's longer side.
    rotation : float
        Largest angle in degrees.
    scale : float
        Largest deviation of the scale factor from 1; below 1.
    """

    translation: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0

    def sample(self, count: int, frame: Frame, generator: torch.Generator) -> Tensor:
        """Moves (count, 2, 3)."""
        uniform = 2 * torch.rand(count, 4, generator=generator) - 1
        shift = self.translation * frame.extent * uniform[:, 2:]
        angle = torch.deg2rad(self.rotation * uniform[:, 1])
        return _about_centre(1 + self.scale * uniform[:, 0], angle, shift, frame)


@dataclass(frozen=True)
class Rotation:
    """One angle for all faces, in degrees (x axis towards y axis): RNN §IV-A, one of 13; an angle of 0 leaves the face as it is."""

    degrees: float = 0.0

    def sample(self, count: int, frame: Frame, generator: torch.Generator) -> Tensor:
        """Moves (count, 2, 3); nothing is drawn."""
        angle = torch.full((count,), self.degrees).deg2rad()
        return _about_centre(torch.ones(count), angle, torch.zeros(count, 2), frame)


@dataclass(frozen=True)
class BoxJitter:
    """The face as it is seen from a box that was moved and scaled at random, both uniform: RNN §IV-A.

    Attributes
    ----------
    shift : float
        Largest shift of the box along each axis, in units of the canonical shape's longer side, which is the side of square boxes.
    scale : float
        Largest deviation of the box's scale factor from 1; below 1.
    """

    shift: float
    scale: float

    def sample(self, count: int, frame: Frame, generator: torch.Generator) -> Tensor:
        """Moves (count, 2, 3): a box that grows by a factor makes its face smaller by it."""
        uniform = 2 * torch.rand(count, 3, generator=generator) - 1
        scale = 1 / (1 + self.scale * uniform[:, 0])
        shift = -self.shift * frame.extent * uniform[:, 1:] * scale[:, None]
        return _about_centre(scale, torch.zeros(count), shift, frame)


@dataclass(frozen=True)
class CropAndTurn:
    """A random sub-image, turned about its own centre and enlarged to the whole frame: ECT §IV (implementation details).

    What comes into view at the corners is the photograph's, not a border.

    Attributes
    ----------
    kept : float
        Side of the sub-image as a share of the frame's side; whole pixels are cut.
    rotation : float
        Largest angle in degrees, uniform.
    """

    kept: float = 248 / 256
    rotation: float = 30.0

    def sample(self, count: int, frame: Frame, generator: torch.Generator) -> Tensor:
        """Moves (count, 2, 3)."""
        side = round(self.kept * frame.size)
        corner = torch.randint(0, frame.size - side + 1, (count, 2), generator=generator)
        angle = torch.deg2rad(self.rotation * (2 * torch.rand(count, generator=generator) - 1))
        scale = torch.full((count,), frame.size / side)
        to_centre = (frame.size - side) / 2 - corner
        turn = similarity(scale, angle, torch.zeros(count, 2))
        return _about_centre(scale, angle, apply_transform(turn, to_centre[:, None])[:, 0], frame)


@dataclass(frozen=True)
class Chain:
    """Several perturbations, one after the other."""

    parts: tuple[RandomMove, ...]

    def sample(self, count: int, frame: Frame, generator: torch.Generator) -> Tensor:
        """Moves (count, 2, 3)."""
        moves = Rotation().sample(count, frame, generator)
        for part in self.parts:
            moves = compose(part.sample(count, frame, generator), moves)
        return moves


@dataclass(frozen=True)
class Variant:
    """One of the images that an enlarged training set has of each face: moved, then mirrored if so."""

    perturbation: RandomMove = Rotation()
    mirrored: bool = False


RNN_ANGLES = tuple(float(angle) for angle in range(-30, 31, 5))  # §IV-A
RNN_JITTER = BoxJitter(shift=0.1, scale=0.1)  # our choice: the paper prints no range
RNN_VARIANTS = tuple(  # 13 angles, box given or disturbed, plain or mirrored: the factor 52 of Table I
    Variant(Chain((Rotation(angle), *jitter)), mirrored)
    for angle, jitter, mirrored in product(RNN_ANGLES, ((), (RNN_JITTER,)), (False, True))
)


def _about_centre(scale: Tensor, angle: Tensor, shift: Tensor, frame: Frame) -> Tensor:
    """Moves (n, 2, 3) that scale (n,) and turn (n,) about the frame's centre, then shift (n, 2)."""
    turn = similarity(scale, angle, torch.zeros(len(shift), 2))
    centre = torch.full((len(shift), 2), (frame.size - 1) / 2)
    translation = centre + shift - apply_transform(turn, centre[:, None])[:, 0]
    return torch.cat([turn[..., :2], translation[..., None]], -1)
