"""What TCNN's vanilla network learns (Wu, Hassner, Kim, Medioni and Natarajan, "Facial Landmark Detection with Tweaked Convolutional Neural
Networks", §2.2): clusters of the features that enter each of its layers, and what is needed to compare them. Mixtures, Eqs 3 and 4 are in `tcnn`.

Clusters are made of the learning faces; the validating ones, which no network and no mixture has seen, are assigned to them. All of it is kept in
the model store: the clusters of each training seed, and once the points and attributes of the faces with the mean images of one seed's
clusters. From these small files every number of §2.2 follows, without faces and without a training.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor

from replicate import store
from replicate.devices import choose_device, describe_device
from replicate.errors import ReplicateError
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.methods import tcnn, tcnn_augmentation, tcnn_training
from replicate.methods.tcnn import LEVELS, Mixture, TCNNConfig, Vanilla, VanillaConfig
from replicate.metrics import nme
from replicate.store import ModelKey, StoredModel
from replicate.training import FitReport
from replicate.vocabulary import check_one_of

VERSION = 1  # raise when a change here alters what is stored
RGB, LAST = LEVELS[0], LEVELS[-1]
UNTRAINED = "untrained"  # control: the features that enter FC5 in a network with random weights
POSITIONS = "positions"  # control: k-means of the true points, about the best that K clusters can do for them
PARTITIONS = (*LEVELS, UNTRAINED, POSITIONS)
PICTURED = (RGB, LAST)  # Fig. 1
LABELS = ("male", "smiling", "wearing_glasses")  # §2.2: the binary attributes
_MOST = 256  # clusters: a face's is kept in a byte
_CHUNK = 1024  # crops that pass the network at a time


@dataclass(frozen=True)
class AnalysisConfig:
    """What determines the clusters besides network, faces and seed.

    Raises
    ------
    ReplicateError
        For a word that is none of `tcnn.CLUSTERINGS` or `tcnn.COVARIANCES`, or more clusters than a byte can number.
    """

    clusters: int = 64  # §2.2: K
    clustering: str = "GMM"  # §2.2
    covariance: str = "spherical"  # our choice, see the page: by validation
    restart: int = 0  # others give EM another start from the same features

    def __post_init__(self) -> None:
        check_one_of("clustering", self.clustering, tcnn.CLUSTERINGS)
        check_one_of("covariance", self.covariance, tcnn.COVARIANCES)
        if not 1 <= self.clusters <= _MOST:
            raise ReplicateError(f"clusters: got {self.clusters}, expected 1 to {_MOST}")


@dataclass(frozen=True, eq=False)
class Partition:
    """How the faces fall into K clusters.

    Attributes
    ----------
    learning, validating : array
        (N,) and (V,) int: the cluster of each face, Eq. 2.
    log_density : array
        (2,) mean over learning and over validating faces of the logarithm of the mixture's density, per number of a feature; of k-means, that
        of equal components with one variance.
    energy, energy_shuffled : array
        (K,) gradient energy of the mean image of each cluster's learning faces, and of as many faces at random, see `gradient_energy`; NaN
        without faces.
    faces_energy, faces_energy_shuffled : array
        (K,) mean gradient energy of these faces themselves.
    """

    learning: np.ndarray
    validating: np.ndarray
    log_density: np.ndarray
    energy: np.ndarray
    faces_energy: np.ndarray
    energy_shuffled: np.ndarray
    faces_energy_shuffled: np.ndarray

    @property
    def clusters(self) -> int:
        """K."""
        return len(self.energy)

    @property
    def sizes(self) -> np.ndarray:
        """(K,) learning faces of each cluster."""
        return np.bincount(self.learning, minlength=self.clusters)

    def tensors(self) -> dict[str, Tensor]:
        """For a model file; numbers of clusters in a byte each."""
        named = {name: torch.from_numpy(np.asarray(value)) for name, value in vars(self).items()}
        return {
            name: value.byte() if name in ("learning", "validating") else value.float()
            for name, value in named.items()
        }

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Self:
        """From `tensors`."""
        arrays = {name: value.numpy() for name, value in tensors.items()}
        return cls(
            **{
                name: a.astype(int) if name in ("learning", "validating") else a.astype(float)
                for name, a in arrays.items()
            }
        )


@dataclass(frozen=True, eq=False)
class Clusters:
    """The clusters of one vanilla network.

    Attributes
    ----------
    partitions : dict of str to Partition
        By `PARTITIONS`.
    validation_error : array
        (V,) error of the network on each validating face, averaged over mirror images, in per cent of the distance of the eyes.
    """

    partitions: dict[str, Partition]
    validation_error: np.ndarray


@dataclass(frozen=True, eq=False)
class ClusteredFaces:
    """What is known of the faces, and the mean images of one network's clusters.

    Attributes
    ----------
    points, validating_points : array
        (N, 5, 2) and (V, 5, 2) true shapes in pixels of the crop.
    labels, validating_labels : array
        (N, 3) and (V, 3) int 0 or 1, by `LABELS`.
    means : dict of str to array
        For each of `PICTURED`, (K, 40, 40, 3) uint8 mean images of the clusters' learning faces; black without faces.
    """

    points: np.ndarray
    validating_points: np.ndarray
    labels: np.ndarray
    validating_labels: np.ndarray
    means: dict[str, np.ndarray]


# Measures -----------------------------------------------------------------------------------------------------------------------------------


def gradient_energy(images: Tensor) -> Tensor:
    """How sharp images (..., C, H, W) in [0, 1] are: (...,) mean square of the steps to the right and to the lower neighbour, both added.

    In squared grey levels, of 255. It is a quadratic form, so that the energy of a mean image is the mean over all pairs of its faces of the
    product of their gradients: what they have in common.
    """
    levels = 255 * images
    return sum(levels.diff(dim=axis).square().mean((-3, -2, -1)) for axis in (-1, -2))


def shared_energy(energy: np.ndarray, faces_energy: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Share of the gradient energy of single faces that two different faces of a cluster have in common, (K,).

    The energy of a mean image holds each face's product with itself too, which makes the means of small clusters sharp whatever is in
    them. Without these products nothing is left of faces that have nothing in common, and one of faces that are alike.

    Parameters
    ----------
    energy, faces_energy : array
        (K,) see `Partition`.
    sizes : array
        (K,) faces; fewer than two have no pair, and give NaN.
    """
    pairs = np.where(sizes > 1, sizes - 1, np.nan)
    return (sizes * energy - faces_energy) / (pairs * faces_energy)


def shuffled(cluster: np.ndarray, seed: int) -> np.ndarray:
    """Control: random clusters of the same sizes."""
    return np.random.default_rng(seed).permutation(cluster)


def mean_images(crops: Tensor, cluster: np.ndarray, clusters: int) -> Tensor:
    """Mean of the crops (N, 3, 40, 40) of each cluster: (K, 3, 40, 40); NaN without faces."""
    where = torch.from_numpy(cluster).to(crops.device)
    total = crops.new_zeros(clusters, *crops.shape[1:]).index_add_(0, where, crops)
    return total / where.bincount(minlength=clusters).view(-1, 1, 1, 1)


# The model store ----------------------------------------------------------------------------------------------------------------------------


def keys(
    config: AnalysisConfig, vanilla: VanillaConfig, source: FaceSource, profile: str, seed: int
) -> list[ModelKey]:
    """What names the network, its clusters, and the faces with the mean images of these clusters."""
    first = tcnn_training.keys(TCNNConfig(vanilla), source, profile, seed)[0]
    about = dict(config=asdict(config), version=VERSION)
    second = replace(first, method="tcnn-clusters", parent=first.hash, **about)
    return [first, second, replace(second, method="tcnn-clustered", parent=second.hash)]


def obtain(
    config: AnalysisConfig,
    vanilla: VanillaConfig,
    source: FaceSource,
    profile: str,
    seed: int,
    *,
    device: str = "auto",
    fresh: bool = False,
) -> tuple[Clusters, StoredModel]:
    """Clusters of a vanilla network's features from the model store; network and clusters are made now where they are absent.

    Parameters
    ----------
    source : FaceSource
        The training faces with those that validate, loaded only if needed.
    device, fresh
        See `tcnn_training.obtain_vanilla`.
    """
    where = choose_device(device)
    network, parent = tcnn_training.obtain_vanilla(vanilla, source, profile, seed, device=device, fresh=fresh)
    key = keys(config, vanilla, source, profile, seed)[1]
    train = partial(_cluster, network, config, source, seed, where)
    stored = store.get(key, lambda _: train(), parent=parent, fresh=fresh)
    names = dict.fromkeys(name.partition(".")[0] for name in stored.tensors if "." in name)
    partitions = {
        name: Partition.of(
            {key.partition(".")[2]: t for key, t in stored.tensors.items() if key.startswith(f"{name}.")}
        )
        for name in sorted(names, key=PARTITIONS.index)
    }
    return Clusters(partitions, stored.tensors["validation_error"].double().numpy()), stored


def obtain_faces(
    config: AnalysisConfig,
    vanilla: VanillaConfig,
    source: FaceSource,
    profile: str,
    seed: int,
    *,
    device: str = "auto",
    fresh: bool = False,
) -> ClusteredFaces:
    """Points and attributes of the faces, and mean images of the clusters that `obtain` gives, from the model store; see there."""
    clusters, parent = obtain(config, vanilla, source, profile, seed, device=device, fresh=fresh)
    key = keys(config, vanilla, source, profile, seed)[2]
    where = choose_device(device)
    stored = store.get(key, lambda _: _describe(clusters, source, where), parent=parent, fresh=fresh)

    def array(name: str, *shape: int) -> np.ndarray:
        return stored.tensors[name].numpy().reshape(-1, *shape)

    shape = tcnn.LANDMARKS, 2
    return ClusteredFaces(
        array("points", *shape),
        array("validating_points", *shape),
        array("labels", len(LABELS)).astype(int),
        array("validating_labels", len(LABELS)).astype(int),
        {level: array(f"means.{level}", tcnn.SIDE, tcnn.SIDE, 3) for level in PICTURED},
    )


# §2.2 Clustering intermediate features ------------------------------------------------------------------------------------------------------


def _parts(source: FaceSource) -> tuple[FaceSet, FaceSet]:
    """The faces that a network learns from, and those that validate it."""
    faces = source.load()
    out = tcnn_training.held_out(len(faces))
    return faces.subset(~out), faces.subset(out)


def _seen(faces: FaceSet, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Crops (n, 3, 40, 40) and points (n, 5, 2); the canvases, which fill as much again, are let go."""
    framed = tcnn_training.framed(faces, device)
    return torch.cat(list(tcnn_augmentation.plain_crops(framed))), framed.points


def _cluster(
    network: Vanilla, config: AnalysisConfig, source: FaceSource, seed: int, device: torch.device
) -> store.Training:
    """Clusters of every level and both controls, as a model file holds them."""
    began = time.perf_counter()
    crops, points = zip(*(_seen(part, device) for part in _parts(source)), strict=True)
    learning, validating = crops
    energy = torch.cat([gradient_energy(part) for part in learning.split(_CHUNK)])
    tensors: dict[str, Tensor] = {}
    for name, features in _features(network, seed, crops, points):
        partition = _partition(config, seed, name, features, learning, energy)
        tensors |= {f"{name}.{key}": value for key, value in partition.tensors().items()}
    shapes = tcnn.predict(network, validating).cpu().numpy()
    error = nme(shapes, points[1].cpu().numpy(), normaliser="inter-pupil", markup=tcnn.MARKUP)
    tensors["validation_error"] = torch.from_numpy(error).float()
    report = FitReport(seconds=time.perf_counter() - began, stopped="all levels clustered")
    return tensors, report, describe_device(device)


Lazy = Callable[[], tuple[Tensor, Tensor]]  # features of learning and of validating faces


def _features(
    network: Vanilla, seed: int, crops: Sequence[Tensor], points: Sequence[Tensor]
) -> Iterator[tuple[str, Lazy]]:
    """What is clustered, by name; computed when asked for, since one level of all faces fills 200 MB."""

    def of(net: Vanilla, level: str) -> Lazy:
        return lambda: tuple(
            torch.cat([net.features(x, level) for x in part.split(_CHUNK)]) for part in crops
        )

    torch.manual_seed(seed)
    untrained = Vanilla().to(network.mean.device)
    untrained.mean, untrained.std = network.mean, network.std
    for level in LEVELS:
        yield level, of(network, level)
    yield UNTRAINED, of(untrained.requires_grad_(False), LAST)
    yield POSITIONS, lambda: tuple(part.flatten(1) for part in points)


@torch.inference_mode()
def _partition(
    config: AnalysisConfig, seed: int, name: str, features: Lazy, crops: Tensor, energy: Tensor
) -> Partition:
    learning, validating = features()
    by_means = name == POSITIONS or config.clustering == "k-means"
    if (
        config.covariance == "diag" and not by_means
    ):  # single precision is too coarse for units that hardly move
        learning, validating = learning.double(), validating.double()
    mixture = Mixture.fit(
        learning,
        config.clusters,
        seed + 1000 * config.restart,
        clustering="k-means" if by_means else config.clustering,
        covariance=config.covariance,
    ).to(learning.device)
    if learning.dtype == torch.float64:
        mixture = Mixture(*(value.double() for value in vars(mixture).values()))
    cluster = mixture.assign(learning)
    if by_means:
        pooled = (learning - mixture.means[cluster]).square().mean()
        mixture = replace(mixture, variances=pooled.clamp_min(1e-6).expand_as(mixture.means).contiguous())
    density = [mixture.log_joint(x).logsumexp(1).mean().item() / x.shape[1] for x in (learning, validating)]
    own = cluster.cpu().numpy()
    energies = [
        part for c in (own, shuffled(own, seed)) for part in _energies(crops, energy, c, config.clusters)
    ]
    return Partition(own, mixture.assign(validating).cpu().numpy(), np.array(density), *energies)


def _energies(
    crops: Tensor, energy: Tensor, cluster: np.ndarray, clusters: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient energy of the mean image, and mean energy of its faces, of each cluster."""
    sizes = np.bincount(cluster, minlength=clusters)
    faces = np.bincount(cluster, energy.double().cpu().numpy(), clusters)
    mean = gradient_energy(mean_images(crops, cluster, clusters)).double().cpu().numpy()
    return mean, np.where(sizes, faces, np.nan) / np.maximum(sizes, 1)


def _describe(clusters: Clusters, source: FaceSource, device: torch.device) -> store.Training:
    """Points, labels and mean images, as a model file holds them: points as one vector, which stays exact."""
    began = time.perf_counter()
    parts = _parts(source)
    tensors: dict[str, Tensor] = {}
    for prefix, part in zip(("", "validating_"), parts, strict=True):
        tensors[f"{prefix}points"] = tcnn_training.framed(part).points.flatten()
        labels = np.stack([np.asarray(part.attributes[name]) for name in LABELS], 1)
        tensors[f"{prefix}labels"] = torch.from_numpy(labels.astype(np.uint8)).flatten()
    crops, _ = _seen(parts[0], device)
    for level in PICTURED:
        partition = clusters.partitions[level]
        means = mean_images(crops, partition.learning, partition.clusters).nan_to_num()
        tensors[f"means.{level}"] = (255 * means).round().byte().permute(0, 2, 3, 1).flatten()
    report = FitReport(seconds=time.perf_counter() - began, stopped="all faces described")
    return tensors, report, describe_device(device)
