"""Faces as batches of crops: cut once from the photographs, perturbed and mirrored on the device.

A *frame* is the square image that a network sees, with the mean shape in a fixed place. Each photograph is first resampled into
a larger *canvas* around its box; every crop, augmented or not, is one batched bilinear warp from canvas to frame.
Coordinates follow `replicate.geometry`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from replicate.faces.faceset import FaceSet
from replicate.faces.images import to_grey
from replicate.faces.markups import markup
from replicate.geometry import apply_transform, compose, fit_similarity, similarity, tight_box, warp
from replicate.shapes import fit_in_boxes


@dataclass(frozen=True)
class Frame:
    """The square that a network sees: `size` pixels a side, the mean shape centred, `extent` pixels along its longer side."""

    size: int = 112
    extent: float = 56.0

    def canonical(self, mean: Tensor) -> Tensor:
        """The canonical shape S_0 (L, 2) in frame pixels, from any mean shape (L, 2)."""
        low, high = mean.amin(0), mean.amax(0)
        return (mean - (low + high) / 2) * (self.extent / (high - low).max()) + (self.size - 1) / 2


@dataclass(frozen=True)
class Perturbation:
    """Random similarities, all normal: DAN §4 (data augmentation).

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
        """Transforms (count, 2, 3) of frame coordinates that turn and scale about the frame's centre."""
        normal = torch.randn(count, 4, generator=generator)
        scale = (1 + self.scale * normal[:, 0]).clamp(0.5, 2)
        turn = similarity(scale, torch.deg2rad(self.rotation * normal[:, 1]), torch.zeros(count, 2))
        centre = torch.full((count, 2), (frame.size - 1) / 2)
        shift = self.translation * frame.extent * normal[:, 2:]
        translation = centre + shift - apply_transform(turn, centre[:, None])[:, 0]
        return torch.cat([turn[..., :2], translation[..., None]], -1)


CANVAS_ZOOM = 1.5  # canvas pixels per frame pixel: enough that enlarged crops stay sharp
CANVAS_REACH = 1.43  # side of the canvas in frame sides: a frame turned by 20 degrees stays inside


@dataclass(frozen=True, eq=False)
class Canvases:
    """N grey faces ready for cropping.

    Attributes
    ----------
    pixels : Tensor
        (N, 1, C, C) uint8.
    to_frame : Tensor
        (2, 3): the transform from canvas pixels to the unperturbed frame, the same for all.
    from_image : Tensor
        (N, 2, 3): from image pixels to the unperturbed frame.
    """

    pixels: Tensor
    to_frame: Tensor
    from_image: Tensor
    frame: Frame

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device) -> "Canvases":
        """The same canvases on another device."""
        return Canvases(
            self.pixels.to(device), self.to_frame.to(device), self.from_image.to(device), self.frame
        )

    def crops(self, index: Tensor, perturbation: Tensor | None = None) -> Tensor:
        """Crops (n, 1, size, size) float32 in [0, 1] of the faces `index`, moved by `perturbation` (n, 2, 3) within the frame."""
        transform = self.to_frame.expand(len(index), 2, 3)
        if perturbation is not None:
            transform = compose(perturbation, transform)
        return warp(self.pixels[index].float(), transform, (self.frame.size, self.frame.size)) / 255


def cut_canvases(images: Sequence[np.ndarray], boxes: np.ndarray, mean: Tensor, frame: Frame) -> Canvases:
    """Resample each photograph so that the mean shape, fitted into its box, comes to lie on the canonical shape.

    Parameters
    ----------
    images : sequence of uint8 arrays
        N grey or RGB images.
    boxes : array
        (N, 4).
    mean : Tensor
        (L, 2) mean shape of the training faces.
    """
    canonical = frame.canonical(mean)
    side = round(frame.size * CANVAS_ZOOM * CANVAS_REACH)
    offset = (side - 1) / 2 - CANVAS_ZOOM * (frame.size - 1) / 2
    to_canvas = torch.tensor([[CANVAS_ZOOM, 0.0, offset], [0.0, CANVAS_ZOOM, offset]])
    placed = fit_in_boxes(mean, torch.as_tensor(boxes, dtype=torch.float32))
    from_image = fit_similarity(placed, canonical.expand_as(placed))
    image_to_canvas = compose(to_canvas, from_image).double().numpy()
    pixels = np.stack([_resample(to_grey(i), t, side) for i, t in zip(images, image_to_canvas, strict=True)])
    to_frame = torch.tensor([[1.0, 0.0, -offset], [0.0, 1.0, -offset]]) / CANVAS_ZOOM
    return Canvases(torch.from_numpy(pixels)[:, None], to_frame, from_image, frame)


class Samples:
    """Augmented batches: the faces and perturbations of a step depend on (seed, step) alone.

    Parameters
    ----------
    faces : FaceSet
        With all points known; crops start from the tight boxes of the true points.
    mean : Tensor
        (L, 2) mean shape.
    """

    def __init__(
        self,
        faces: FaceSet,
        mean: Tensor,
        frame: Frame,
        perturbation: Perturbation,
        batch: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        true = torch.as_tensor(faces.points, dtype=torch.float32)
        self.canvases = cut_canvases(faces.images, tight_box(true).numpy(), mean, frame).to(device)
        self.points = apply_transform(self.canvases.from_image, true.to(device))
        self.perturbation, self.batch, self.seed, self.markup = perturbation, batch, seed, faces.markup

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Crops (batch, 1, size, size) and true shapes (batch, L, 2) in frame pixels of a step; half of them mirrored."""
        index = self.order_at(torch.arange(step * self.batch, (step + 1) * self.batch))
        generator = _generator(self.seed, step, 0)
        moves = self.perturbation.sample(self.batch, self.canvases.frame, generator)
        mirrored = torch.rand(self.batch, generator=generator) < 0.5
        index, moves, mirrored = (drawn.to(self.points.device) for drawn in (index, moves, mirrored))
        crops, shapes = self.canvases.crops(index, moves), apply_transform(moves, self.points[index])
        return mirror_batch(crops, shapes, mirrored, self.markup)

    def order_at(self, positions: Tensor) -> Tensor:
        """Which face comes at each position (n,) of the endless sequence of shuffled epochs."""
        count = len(self.canvases)
        epochs = {int(epoch): self._epoch(int(epoch)) for epoch in (positions // count).unique()}
        return torch.stack([epochs[position // count][position % count] for position in positions.tolist()])

    def _epoch(self, epoch: int) -> Tensor:
        generator = _generator(self.seed, epoch, 1)
        return torch.randperm(len(self.canvases), generator=generator)


def _generator(*numbers: int) -> torch.Generator:
    """Random numbers that these numbers determine, unrelated to those of any others."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def mirror_batch(crops: Tensor, points: Tensor, which: Tensor, markup_name: str) -> tuple[Tensor, Tensor]:
    """Mirror the faces `which` (n,) bool: crops (n, C, H, W) and points (n, L, 2), with left and right landmarks exchanged."""
    permutation = torch.tensor(markup(markup_name).mirror, device=points.device)
    flipped = points[:, permutation] * points.new_tensor([-1, 1]) + points.new_tensor(
        [crops.shape[-1] - 1, 0]
    )
    where = which[:, None, None]
    return torch.where(where[..., None], crops.flip(-1), crops), torch.where(where, flipped, points)


def _resample(image: np.ndarray, transform: np.ndarray, side: int) -> np.ndarray:
    """One canvas (side, side); reductions average the pixels that fall together."""
    scale = np.sqrt(np.linalg.det(transform[:, :2]))
    if scale < 1:
        size = [
            max(1, round(side * scale)) for side in image.shape[1::-1]
        ]  # whole pixels: the ratio is known exactly
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        ratio = np.array([small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]])
        # resize keeps the outer edges of the image: (x + 1/2) * ratio - 1/2
        shrink_inverse = np.array(
            [[1 / ratio[0], 0, 0.5 / ratio[0] - 0.5], [0, 1 / ratio[1], 0.5 / ratio[1] - 0.5], [0, 0, 1]]
        )
        image, transform = small, transform @ shrink_inverse
    return cv2.warpAffine(
        image, transform, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
