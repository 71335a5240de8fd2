"""Faces as batches of crops: cut once from the photographs, then perturbed and mirrored on the device, as each paper augments.

A `Frame` is the square image that a network sees, with the mean shape in a fixed place. Each photograph is first resampled into
a larger *canvas* around its box; every crop, augmented or not, is one batched bilinear warp from canvas to frame.
Coordinates follow `replicate.geometry`; the papers' perturbations are those of `replicate.faces.perturbations`.

DAN and ECT move each face anew at every step (`Samples`); RNN and LDDR train on a fixed number of variants of each face
(`EnlargedSamples`); TCNN moves one face onto the points of another (`alignment`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from replicate.errors import ReplicateError
from replicate.faces.faceset import FaceSet
from replicate.faces.images import to_grey, to_rgb
from replicate.faces.markups import markup
from replicate.faces.perturbations import Frame, RandomMove, Variant
from replicate.geometry import apply_transform, box_size, compose, fit_similarity, invert, tight_box, warp
from replicate.shapes import fit_in_boxes

# the "mean shape" of methods that crop by the box alone
CORNERS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


# Canvases ----------------------------------------------------------------------------------------------------------------------------

CANVAS_REACH = 1.43  # least side of a canvas in frame sides: a frame turned by 20 degrees stays inside
UNSEEN = 0.14  # share of a crop's pixels that may come from beyond the canvas before it counts as smeared: a seventh
SMEARED = 0.005  # share of crops that may be smeared: well below one in a hundred


def canvas_reach(perturbations: Sequence[RandomMove], frame: Frame) -> float:
    """Side of the canvas, in frame sides, that these perturbations (each as often as the others) need.

    A move carries pixels of the crop out of the canvas; beyond its border the canvas repeats its last pixels. The reach is chosen
    so that in all but a share `SMEARED` of the crops no more than a share `UNSEEN` of the pixels come from there; it is never below
    `CANVAS_REACH`.
    """
    generator = torch.Generator().manual_seed(0)
    draws = -(-4096 // len(perturbations))
    moves = torch.cat([perturbation.sample(draws, frame, generator) for perturbation in perturbations])
    axis = (torch.arange(16) + 0.5) / 16 * frame.size - 0.5
    places = torch.cartesian_prod(axis, axis)  # (256, 2)
    origins = apply_transform(invert(moves), places.expand(len(moves), -1, 2)) - (frame.size - 1) / 2
    travel = origins.abs().amax(-1) / (frame.size / 2)
    needed = travel.quantile(1 - UNSEEN, dim=1).quantile(1 - SMEARED)
    return max(CANVAS_REACH, needed.item())


@dataclass(frozen=True, eq=False)
class Canvases:
    """N faces ready for cropping.

    Attributes
    ----------
    pixels : Tensor
        (N, K, C, C) uint8: K = 1 channel for grey, 3 for RGB.
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

    def to(self, device: torch.device | str) -> "Canvases":
        """The same canvases on another device."""
        return Canvases(
            self.pixels.to(device), self.to_frame.to(device), self.from_image.to(device), self.frame
        )

    def crops(self, index: Tensor, moves: Tensor | None = None) -> Tensor:
        """Crops (n, K, size, size) float32 in [0, 1] of the faces `index`, each moved by its `moves` (n, 2, 3) within the frame."""
        transform = self.to_frame.expand(len(index), 2, 3)
        if moves is not None:
            transform = compose(moves, transform)
        return warp(self.pixels[index].float(), transform, (self.frame.size, self.frame.size)) / 255


def cut_canvases(
    images: Sequence[np.ndarray],
    boxes: np.ndarray,
    mean: Tensor,
    frame: Frame,
    *,
    reach: float = CANVAS_REACH,
    colour: bool = False,
) -> Canvases:
    """Resample each photograph so that the mean shape, fitted into its box, comes to lie on the canonical shape.

    Parameters
    ----------
    images : sequence of uint8 arrays
        N grey or RGB images.
    boxes : array
        (N, 4).
    mean : Tensor
        (L, 2) mean shape of the training faces, or `CORNERS` to crop by the box alone.
    reach : float
        Side of the canvases in frame sides, see `canvas_reach`; less is made where no photograph reaches so far.
    colour : bool
        RGB canvases: grey photographs get three equal channels. Otherwise colours are averaged.
    """
    canonical = frame.canonical(mean)
    placed = fit_in_boxes(mean, torch.as_tensor(boxes, dtype=torch.float32))
    from_image = fit_similarity(placed, canonical.expand_as(placed))
    if reach > CANVAS_REACH:
        reach = min(reach, max(CANVAS_REACH, _farthest(images, from_image, frame)))
    side = round(frame.size * frame.zoom * reach)
    offset = (side - 1) / 2 - frame.zoom * (frame.size - 1) / 2
    to_canvas = torch.tensor([[frame.zoom, 0.0, offset], [0.0, frame.zoom, offset]])
    image_to_canvas = compose(to_canvas, from_image).double().numpy()
    pixels = np.empty((len(images), 3 if colour else 1, side, side), np.uint8)
    for canvas, image, transform in zip(pixels, images, image_to_canvas, strict=True):
        prepared = to_rgb(image) if colour else to_grey(image)
        canvas[:] = np.moveaxis(_resample(prepared, transform, side).reshape(side, side, -1), -1, 0)
    to_frame = torch.tensor([[1.0, 0.0, -offset], [0.0, 1.0, -offset]]) / frame.zoom
    return Canvases(torch.from_numpy(pixels), to_frame, from_image, frame)


def _farthest(images: Sequence[np.ndarray], from_image: Tensor, frame: Frame) -> float:
    """How far the photographs reach at most: side, in frame sides, of the smallest canvas that holds all their pixels."""
    last = torch.tensor([[image.shape[1] - 0.5, image.shape[0] - 0.5] for image in images])
    ends = torch.stack([torch.full_like(last, -0.5), last], 1)  # (N, 2, 2)
    return ((apply_transform(from_image, ends) - (frame.size - 1) / 2).abs().max() / (frame.size / 2)).item()


def _resample(image: np.ndarray, transform: np.ndarray, side: int) -> np.ndarray:
    """One canvas (side, side) or (side, side, 3); reductions average the pixels that fall together."""
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


# Batches -----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FramedFaces:
    """Training faces on a device.

    Attributes
    ----------
    canvases : Canvases
        Of N faces.
    points : Tensor
        (N, L, 2) true shapes in pixels of the unperturbed frame; a point that is NaN stays NaN through every augmentation, also
        where mirroring gives it another place.
    markup : str
    """

    canvases: Canvases
    points: Tensor
    markup: str

    def augmented(self, index: Tensor, moves: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        """Crops (n, K, size, size) and shapes (n, L, 2) of the faces `index` (n,), moved by (n, 2, 3), mirrored where (n,) is true."""
        index, moves, mirrored = (drawn.to(self.points.device) for drawn in (index, moves, mirrored))
        crops, shapes = self.canvases.crops(index, moves), apply_transform(moves, self.points[index])
        return mirror_batch(crops, shapes, mirrored, self.markup)


def frame_faces(
    faces: FaceSet,
    mean: Tensor,
    frame: Frame,
    perturbations: Sequence[RandomMove],
    device: torch.device | str = "cpu",
    *,
    boxes: np.ndarray | None = None,
    colour: bool = False,
) -> FramedFaces:
    """Cut canvases that are wide enough for the perturbations.

    Parameters
    ----------
    mean : Tensor
        (L, 2) mean shape, or `CORNERS`.
    boxes : array, optional
        (N, 4) from which the crops start; by default the tight boxes of the true points, which must all be known.

    Raises
    ------
    ReplicateError
        Without boxes, if a point is not annotated.
    """
    true = torch.as_tensor(faces.points, dtype=torch.float32)
    if boxes is None:
        if true.isnan().any():
            raise ReplicateError(
                f"{faces.protocol}/{faces.split}: some points are not annotated, so there is no tight box; pass `boxes`"
            )
        boxes = tight_box(true).numpy()
    reach = canvas_reach(perturbations, frame)
    canvases = cut_canvases(faces.images, boxes, mean, frame, reach=reach, colour=colour).to(device)
    return FramedFaces(canvases, apply_transform(canvases.from_image, true.to(device)), faces.markup)


class Samples:
    """Batches with new moves at every step: its faces and moves depend on (seed, step) alone. DAN §4, ECT §IV.

    Parameters
    ----------
    faces : FaceSet
    mean, device, boxes, colour
        See `frame_faces`.
    perturbation : RandomMove
        What moves each face; half of them are mirrored besides.
    """

    def __init__(
        self,
        faces: FaceSet,
        mean: Tensor,
        frame: Frame,
        perturbation: RandomMove,
        batch: int,
        seed: int,
        device: torch.device | str = "cpu",
        *,
        boxes: np.ndarray | None = None,
        colour: bool = False,
    ) -> None:
        self.framed = frame_faces(faces, mean, frame, [perturbation], device, boxes=boxes, colour=colour)
        self.canvases, self.points, self.markup = (
            self.framed.canvases,
            self.framed.points,
            self.framed.markup,
        )
        self.perturbation, self.batch, self.seed = perturbation, batch, seed

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Crops (batch, K, size, size) and true shapes (batch, L, 2) in frame pixels of a step; half of them mirrored."""
        index = self.order_at(torch.arange(step * self.batch, (step + 1) * self.batch))
        generator = seeded(self.seed, step, 0)
        moves = self.perturbation.sample(self.batch, self.canvases.frame, generator)
        mirrored = torch.rand(self.batch, generator=generator) < 0.5
        return self.framed.augmented(index, moves, mirrored)

    def order_at(self, positions: Tensor) -> Tensor:
        """Which face comes at each position (n,) of the endless sequence of shuffled epochs."""
        return _order_at(positions, len(self.canvases), self.seed)


class EnlargedSamples:
    """A training set with a fixed number of variants of each face: RNN §IV-A (52), LDDR §4.2 (2).

    Image number ``variant * N + face`` of the enlarged set is a variant of a face; what is random in it depends on the seed, the
    variant and the number of faces alone, so the set is the same in every epoch.

    Parameters
    ----------
    faces : FaceSet
        N faces.
    mean, device, boxes, colour
        See `frame_faces`.
    variants : sequence of Variant
        `RNN_VARIANTS` or others, such as those of `lddr.LDDRConfig`.
    """

    def __init__(
        self,
        faces: FaceSet,
        mean: Tensor,
        frame: Frame,
        variants: Sequence[Variant],
        batch: int,
        seed: int,
        device: torch.device | str = "cpu",
        *,
        boxes: np.ndarray | None = None,
        colour: bool = False,
    ) -> None:
        perturbations = [variant.perturbation for variant in variants]
        self.framed = frame_faces(faces, mean, frame, perturbations, device, boxes=boxes, colour=colour)
        self.batch, self.seed = batch, seed
        self.moves = torch.cat([
            perturbation.sample(len(faces), frame, seeded(seed, number, 2))
            for number, perturbation in enumerate(perturbations)
        ])  # fmt: skip
        self.mirrored = torch.tensor([variant.mirrored for variant in variants]).repeat_interleave(len(faces))

    def __len__(self) -> int:
        return len(self.moves)

    def take(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Crops (n, K, size, size) and true shapes (n, L, 2) of the images number `positions` (n,) of the enlarged set."""
        face = positions % len(self.framed.canvases)
        return self.framed.augmented(face, self.moves[positions], self.mirrored[positions])

    def shapes(self, positions: Tensor) -> Tensor:
        """The true shapes (n, L, 2) that `take` gives, without their images."""
        points = self.framed.points[positions % len(self.framed.canvases)].cpu()
        moved = apply_transform(self.moves[positions], points)
        return mirror_shapes(
            moved, self.mirrored[positions], self.framed.canvases.frame.size, self.framed.markup
        )

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step: the enlarged set in shuffled epochs."""
        wanted = torch.arange(step * self.batch, (step + 1) * self.batch)
        return self.take(_order_at(wanted, len(self), self.seed))


def _order_at(positions: Tensor, count: int, seed: int) -> Tensor:
    """Which of `count` images comes at each position (n,) of the endless sequence of shuffled epochs."""
    epochs = {epoch: _epoch_order(count, seed, epoch) for epoch in (positions // count).unique().tolist()}
    return torch.stack([epochs[position // count][position % count] for position in positions.tolist()])


# consecutive steps are of the same epoch, and to order a million images takes longer than to make a batch
@lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The images in the order of one epoch; for reading only."""
    return torch.randperm(count, generator=seeded(seed, epoch, 1))


def seeded(*numbers: int) -> torch.Generator:
    """Random numbers that these numbers determine, unrelated to those of any others."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def mirror_batch(crops: Tensor, points: Tensor, which: Tensor, markup_name: str) -> tuple[Tensor, Tensor]:
    """Mirror the faces `which` (n,) bool: crops (n, C, H, W) and points (n, L, 2), with left and right landmarks exchanged."""
    where = which[:, None, None, None]
    return torch.where(where, crops.flip(-1), crops), mirror_shapes(
        points, which, crops.shape[-1], markup_name
    )


def mirror_shapes(points: Tensor, which: Tensor, width: int, markup_name: str) -> Tensor:
    """Points (n, L, 2) in images of some width, mirrored for those faces `which` (n,) bool, with left and right landmarks exchanged."""
    permutation = torch.tensor(markup(markup_name).mirror, device=points.device)
    flipped = points[:, permutation] * points.new_tensor([-1, 1]) + points.new_tensor([width - 1, 0])
    return torch.where(which[:, None, None], flipped, points)


# One face in the place of another ----------------------------------------------------------------------------------------------------


def alignment(points: Tensor, target: Tensor) -> Tensor:
    """Moves (n, 2, 3) that bring faces with `points` (n, L, 2) to where the points of other faces, `target` (n, L, 2), lie.

    The least-squares similarity H without reflection goes from the target's points to the face's, and pixels are fetched through it.
    Eq. 5 as printed fetches through H^-1, against its own text; only this way do the pixels come to lie under the target's points.

    Raises
    ------
    ReplicateError
        If there is no such similarity: a point of either face is unknown, all points of one lie in one place, or none turns and scales
        one into the other.

    References
    ----------
    TCNN §3.2 (alignment-sensitive data augmentation).
    """
    moves = invert(fit_similarity(target, points))
    found = moves.isfinite().all(-1).all(-1)
    for shape in (points, target):  # rounding gives coinciding points a similarity, but a senseless one
        found &= (box_size(tight_box(shape)) > 0).any(-1)
    lost = ~found
    if lost.any():
        first = int(lost.nonzero()[0])
        raise ReplicateError(
            f"alignment: no similarity brings face {first} to its target ({int(lost.sum())} of {len(lost)} such); expected points that "
            "are all known and do not coincide; leave these faces out"
        )
    return moves


def align_to(crops: Tensor, points: Tensor, target: Tensor) -> Tensor:
    """TCNN Eq. 5: crops (n, C, H, W) of faces with `points` (n, L, 2), warped so that the labels `target` (n, L, 2) hold for them.

    Beyond the border of a crop its last pixels repeat; where canvases are at hand, ``canvases.crops(index, alignment(...))`` has more.
    """
    return warp(crops, alignment(points, target), tuple(crops.shape[-2:]))
