"""The face recognition of TCNN §5.2 (Wu, Hassner, Kim, Medioni and Natarajan, "Facial Landmark Detection with Tweaked Convolutional Neural
Networks"), in the order of its section: alignment by five points, a network of AlexNet's kind, features, and the similarity of two templates.
`recognition_training` trains the network.

The pipeline is the same whatever finds the points: it is there to measure what an alignment is worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from replicate.errors import ReplicateError
from replicate.faces.augment import CORNERS, Canvases, cut_canvases
from replicate.faces.perturbations import Frame
from replicate.faces.verification import VerificationSplit
from replicate.geometry import apply_transform, fit_similarity
from replicate.metrics import tar_at_far
from replicate.training import Schedule

VERSION = 1  # raise when a change here alters what a training gives
FRAME = Frame(size=64, extent=52.0, zoom=1.0)  # our choice: a box fills 52 of 64 pixels
FARS = (0.01, 0.1)  # §5.2
BETAS = tuple(range(21))  # of the softmax: as in later work of the same group (Masi et al., 2016)
KEPT = 4000 / 4096  # §5.2: share of the numbers that PCA keeps
POWER = 0.5  # [35] of §5.2: the signed square root


@dataclass(frozen=True)
class RecogniserConfig:
    """What determines a recogniser besides faces, aligners and seed. Choices without a section are ours: §5.2 prints no number."""

    width: float = 0.5  # of the convolutions, in units of (48, 128, 192, 192, 128), half of AlexNet's
    features: int = 512  # numbers of fc6 and fc7; §5.2: 4,096
    dropout: float = 0.2  # AlexNet has 0.5, without batch normalisation and in a longer training
    batch: int = 64
    step_size: float = 1e-3  # Adam's; falls to zero over the budget
    samples: int = 500_000
    mirrored: bool = True  # every other training face is mirrored
    validate_every: int = 500
    sanity_gate: bool = True  # stop a network that does no better than chance; `smoke` is too short to ask it

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.batch, self.step_size, self.samples, True, self.validate_every, patience=1000)


_SMOKE = RecogniserConfig(
    width=0.125, features=64, batch=16, samples=1600, validate_every=20, sanity_gate=False
)
CONFIGS = {
    "smoke": _SMOKE,
    "cpu": RecogniserConfig(),
    "gpu": RecogniserConfig(width=2.0, features=4096, batch=128, samples=20_000_000),
}


# Alignment ----------------------------------------------------------------------------------------------------------------------------------


def template(shape: Tensor) -> Tensor:
    """Where five points lie in an aligned face, (5, 2) in pixels of `FRAME`: those of a mean shape in units of the box about its centre."""
    return FRAME.extent * shape + (FRAME.size - 1) / 2


@dataclass(frozen=True, eq=False)
class AlignedFaces:
    """N faces, ready to be cut as any of several aligners lays them.

    Attributes
    ----------
    canvases : Canvases
        The faces and their surroundings.
    moves : dict of str to Tensor
        By aligner (N, 2, 3): from the frame that the box alone gives to the aligned one.
    """

    canvases: Canvases
    moves: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.canvases)

    def crops(self, index: Tensor, aligner: str) -> Tensor:
        """Aligned faces (n, 3, 64, 64) in [0, 1] of the numbers `index` (n,)."""
        return self.canvases.crops(index, self.moves[aligner][index])


def align(
    images: Sequence[np.ndarray], boxes: np.ndarray, points: dict[str, np.ndarray | None], target: Tensor
) -> AlignedFaces:
    """§5.2: the similarity without reflection that brings found points closest to the template.

    Parameters
    ----------
    images, boxes
        N images and (N, 4).
    points : dict of str to array or None
        By aligner (N, 5, 2) in pixels of the images; None for the box alone, which is also what the mean shape in the box gives.
    target : Tensor
        (5, 2), see `template`.

    Raises
    ------
    ReplicateError
        If all points of a face lie in one place.
    """
    canvases = cut_canvases(images, boxes, CORNERS, FRAME, colour=True)
    still = torch.eye(2, 3).expand(len(canvases), 2, 3)
    moves = {}
    for name, found in points.items():
        if found is None:
            moves[name] = still
            continue
        seen = apply_transform(canvases.from_image, torch.as_tensor(found, dtype=torch.float32))
        moves[name] = fit_similarity(seen, target.expand_as(seen))
        lost = ~(torch.linalg.det(moves[name][..., :2]) > 1e-6)  # NaN is lost as well
        if lost.any():
            raise ReplicateError(
                f"{name}: no similarity brings the points of face {int(lost.nonzero()[0])} to the template ({int(lost.sum())} of {len(lost)} such); "
                "expected five points that are not all in one place"
            )
    return AlignedFaces(canvases, moves)


# Network ------------------------------------------------------------------------------------------------------------------------------------


class Recogniser(nn.Module):
    """Five convolutional layers and three dense ones, as AlexNet has them; strides and windows are those that faces of 64 pixels allow.

    Batch normalisation takes the place of AlexNet's local one: from random weights and in a short time, AlexNet hardly learns without.
    """

    def __init__(self, config: RecogniserConfig, people: int) -> None:
        super().__init__()
        channels = [round(config.width * count) for count in (48, 128, 192, 192, 128)]
        inputs = [3, *channels[:-1]]
        windows, strides, pooled = (5, 3, 3, 3, 3), (2, 1, 1, 1, 1), (True, True, False, False, True)
        layers: list[nn.Module] = []
        for before, after, window, stride, pool in zip(
            inputs, channels, windows, strides, pooled, strict=True
        ):
            layers += [
                nn.Conv2d(before, after, window, stride, window // 2, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
            layers += [nn.MaxPool2d(3, 2, 1)] * pool
        self.convolutions = nn.Sequential(*layers)  # (N, 3, 64, 64) to (N, C, 4, 4)
        self.fc6 = nn.Linear(16 * channels[-1], config.features)
        self.fc7 = nn.Linear(config.features, config.features)
        self.fc8 = nn.Linear(config.features, people)
        self.dropout = nn.Dropout(config.dropout)

    def penultimate(self, crops: Tensor) -> Tensor:
        """fc7 (N, D), rectified, of aligned faces (N, 3, 64, 64) in [0, 1]."""
        x = (2 * crops - 1).contiguous(memory_format=torch.channels_last)
        x = self.dropout(self.convolutions(x).flatten(1))
        return self.fc7(self.dropout(self.fc6(x).relu())).relu()

    def forward(self, crops: Tensor) -> Tensor:
        """Scores (N, people); computed in bfloat16."""
        with torch.autocast(crops.device.type, torch.bfloat16):
            return self.fc8(self.dropout(self.penultimate(crops))).float()


@torch.inference_mode()
def features(network: Recogniser, faces: AlignedFaces, aligner: str) -> Tensor:
    """§5.2: raw features (N, D) of all faces as one aligner lays them, in float32."""
    network.eval()
    device, found = network.fc6.weight.device, []
    for index in torch.arange(len(faces)).split(256):
        with torch.autocast(device.type, torch.bfloat16):
            found.append(network.penultimate(faces.crops(index, aligner).to(device)).float())
    return torch.cat(found)


# Features and similarity --------------------------------------------------------------------------------------------------------------------


def power_normalised(x: np.ndarray, power: float = POWER) -> np.ndarray:
    """§5.2 [35]: each number's absolute value raised to a power, with its sign."""
    return np.sign(x) * np.abs(x) ** power


def projection(training: np.ndarray, kept: float = KEPT) -> PCA:
    """§5.2: PCA of training features (N, D) to the share `kept` of their numbers, or to as many as N faces determine."""
    count, numbers = training.shape
    return PCA(min(round(kept * numbers), count - 1), svd_solver="full").fit(training)


def correlations(x: np.ndarray) -> np.ndarray:
    """§5.2: Pearson's correlation of the features of every two of N faces, (N, D) to (N, N) float32."""
    x = np.asarray(x, np.float32)
    x = x - x.mean(1, keepdims=True)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return x @ x.T


def fused(scores: np.ndarray, sizes: Sequence[int], betas: Sequence[float] = BETAS) -> np.ndarray:
    """§5.2: similarity of every two of T templates, (T, T): the softmax of the scores of their pairs of images, averaged over `betas`.

    For one beta it is the mean of the scores s, weighted by exp(beta s): from their plain mean at 0 to their maximum as beta grows.

    Parameters
    ----------
    scores : array
        (M, M) of the M faces of all templates, one template after the other.
    sizes : sequence of int
        (T,) faces of each template, none of them empty.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(int)

    def summed(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.add.reduceat(values, starts, axis=0), starts, axis=1)

    scores = np.asarray(scores, np.float64)
    total = np.zeros((len(starts), len(starts)))
    for beta in betas:
        weights = np.exp(beta * (scores - scores.max()))
        total += summed(weights * scores) / summed(weights)
    return total / len(betas)


class Compared(NamedTuple):
    """Similarities of the pairs of templates of one split, in its order, and whether they show one person."""

    similarity: np.ndarray
    same: np.ndarray

    def accepted(self, far: float) -> float:
        """§5.2: true accept rate at a false accept rate, both as fractions."""
        return tar_at_far(self.similarity[self.same], self.similarity[~self.same], far)


def compare(split: VerificationSplit, raw: np.ndarray) -> Compared:
    """§5.2, from raw features to similarities: power normalisation, PCA of the split's training faces, correlation, fusion.

    Parameters
    ----------
    raw : array
        (N, D) of all faces, in the split's numbering.
    """
    normalised = power_normalised(np.asarray(raw, np.float32))
    reduced = projection(normalised[split.train])
    of_templates = reduced.transform(normalised[np.concatenate(split.templates)])
    similarity = fused(correlations(of_templates), [len(faces) for faces in split.templates])
    return Compared(similarity[split.pairs[:, 0], split.pairs[:, 1]], split.same)
