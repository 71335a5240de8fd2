"""Tweaked CNN, TCNN (Wu, Hassner, Kim, Medioni and Natarajan, "Facial Landmark Detection with Tweaked Convolutional Neural Networks"):
the vanilla network, §2.1; clusters of its features and what they have in common, §2.2; and the tweaked network, §3.1. Training is in
`tcnn_training`, with the augmentation of §3.2 in `tcnn_augmentation` and the tweaking in `tcnn_heads`.

Shapes are (N, 5, 2) in pixels of the crop, 40 a side: (x, y), 0-based, pixel centres at integers. Landmarks 0 and 1 are the eyes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.nn import functional

from replicate.errors import ReplicateError
from replicate.faces.markups import markup
from replicate.faces.perturbations import Frame, UniformPerturbation
from replicate.training import Schedule
from replicate.vocabulary import check_one_of

VERSION = 1  # raise when a change here alters what a training gives
SIDE = 40  # §2.1: of a crop in pixels
MARKUP = "mtfl5"  # §2.1: m = 5 landmarks
LANDMARKS = 5
LEVELS = ("CL1", "CL2", "CL3", "CL4", "FC5")  # §2.2: features are what enters these layers
FRAME = Frame(SIDE, SIDE)  # the box fills the crop
CLUSTERINGS = ("GMM", "k-means")
COVARIANCES = ("spherical", "diag")
SPLITS = ("FC5", "CL4")  # §3.1: first layer that every cluster has for itself
AUGMENTATIONS = ("aligned", "aligned, own labels", "oversampled and mirrored", "none")


@dataclass(frozen=True)
class VanillaConfig:
    """What determines the vanilla network besides training faces and seed."""

    batch: int = 32  # our choice, as are the other fields: §2.1 names Adam and prints no number
    step_size: float = 5e-4
    samples: int = 1_600_000
    shift: float = 0.08  # largest shift of a training crop, in its sides
    rotation: float = 10.0  # largest turn, degrees
    scale: float = 0.12  # largest deviation of the scale from 1
    mirrored: bool = True  # every other training crop is mirrored
    warps: float = 0.0  # §3.2: share of training crops that are warped onto the points of another face
    validate_every: int = 1000
    patience: int = 1000  # validations; the step size falls to zero over the budget, which ends the training
    sanity_gate: bool = True  # stop a network that is no better than the mean shape

    @property
    def perturbation(self) -> UniformPerturbation:
        return UniformPerturbation(self.shift, self.rotation, self.scale)

    @property
    def schedule(self) -> Schedule:
        return Schedule(
            self.batch, self.step_size, self.samples, True, self.validate_every, patience=self.patience
        )


@dataclass(frozen=True)
class TCNNConfig:
    """What determines a tweaked network besides training faces and seed.

    Raises
    ------
    ReplicateError
        For a word that is none of `CLUSTERINGS`, `COVARIANCES`, `SPLITS` or `AUGMENTATIONS`, or a number below one.
    """

    vanilla: VanillaConfig = VanillaConfig()
    clusters: int = 48  # §5.1: K
    clustering: str = "GMM"  # §2.2
    covariance: str = "spherical"  # our choice, by validation; L2 as dissimilarity (§2.2) suggests it
    split: str = "FC5"  # §3.1
    augmentation: str = "aligned"  # §3.2
    images: int = 5000  # §3.2: of each cluster after augmentation
    patience: int = 50  # §3.1: epochs without a lower validation loss
    epochs: int = 1000  # our choice: at most
    batch: int = 100  # our choice: of each head
    step_size: float = 1e-4  # our choice, by validation: Adam's, constant
    validation: int = 10  # our choice: faces that validate a head at least

    def __post_init__(self) -> None:
        check_one_of("clustering", self.clustering, CLUSTERINGS)
        check_one_of("covariance", self.covariance, COVARIANCES)
        check_one_of("split", self.split, SPLITS)
        check_one_of("augmentation", self.augmentation, AUGMENTATIONS)
        for name in ("clusters", "patience", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ReplicateError(f"{name}: got {getattr(self, name)}, expected one or more")

    def with_own_labels(self) -> "TCNNConfig":
        """The same with warped images that keep the warped points of their own face, in place of the other face's: see TCNN-A3 in the register."""
        return replace(self, augmentation="aligned, own labels")


_SMOKE = TCNNConfig(
    VanillaConfig(batch=16, step_size=2e-3, samples=1600, validate_every=20, sanity_gate=False),
    clusters=4,
    images=40,
    patience=3,
    epochs=8,
    batch=10,
)
CONFIGS = {
    "smoke": _SMOKE,
    "cpu": TCNNConfig(images=1500),
    "gpu": TCNNConfig(VanillaConfig(samples=20_000_000)),
}
ANALYSED = {"smoke": 6, "cpu": 64, "gpu": 64}  # §2.2: K of the analysis


# §2.1 Vanilla network design --------------------------------------------------------------------------------------------------------------


def absolute_tanh(x: Tensor) -> Tensor:
    """§2.1: the activation function."""
    return x.tanh().abs()


def pooled(x: Tensor) -> Tensor:
    """The activation and then max pooling over 2x2 with stride 2 (Fig. 2), of maps (N, C, H, W).

    The absolute tanh grows with the absolute value, so a quarter of the values has to pass it if pooling comes first.
    """
    return functional.max_pool2d(x.abs(), 2).tanh()


class Vanilla(nn.Module):
    """Four convolutional layers, three of them with max pooling, and two dense ones: Fig. 2, left.

    Convolutions do not pad; only so do all shapes of the figure come out. The weights of the last layer give shapes in sides of the crop.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, SIDE, SIDE))  # §2.1: of the training crops, in [0, 1]
        self.register_buffer("std", torch.ones(3, SIDE, SIDE))
        self.cl1 = nn.Conv2d(3, 16, 5)
        self.cl2 = nn.Conv2d(16, 48, 3)
        self.cl3 = nn.Conv2d(48, 64, 3)
        self.cl4 = nn.Conv2d(64, 64, 2)
        self.fc5 = nn.Linear(2 * 2 * 64, 100)
        self.fc6 = nn.Linear(100, 2 * LANDMARKS)
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def layers(self) -> list[nn.Module]:
        """CL1 to FC6."""
        return [self.cl1, self.cl2, self.cl3, self.cl4, self.fc5, self.fc6]

    def normalised(self, crops: Tensor) -> Tensor:
        """Crops (N, 3, 40, 40) in [0, 1] less the mean image, divided by the standard deviation of each of its values."""
        return (crops - self.mean) / self.std

    def levels(self, crops: Tensor) -> Iterator[tuple[str, Tensor]]:
        """§2.2: what enters each of `LEVELS` of crops (N, 3, 40, 40) in [0, 1], one after the other, as maps (N, C, H, W)."""
        x = self.normalised(crops).contiguous(memory_format=torch.channels_last)
        for name, layer in zip(LEVELS, self.layers[:4], strict=False):
            yield name, x
            x = pooled(layer(x)) if name != "CL4" else absolute_tanh(layer(x))
        yield "FC5", x

    def features(self, crops: Tensor, level: str = "FC5") -> Tensor:
        """What enters one of `LEVELS`, as vectors (N, D) in float32; computed in bfloat16. D is 4,800, 5,184, 3,072, 576 and 256."""
        check_one_of("level", level, LEVELS)
        with torch.autocast(crops.device.type, torch.bfloat16):
            return next(maps for name, maps in self.levels(crops) if name == level).flatten(1).float()

    def forward(self, crops: Tensor) -> Tensor:
        """Shapes (N, 5, 2) of crops (N, 3, 40, 40) in [0, 1]."""
        return to_shapes(self.fc6(absolute_tanh(self.fc5(self.features(crops)))))


def to_shapes(outputs: Tensor) -> Tensor:
    """Outputs (..., 10) of FC6, x1, y1, ..., x5, y5 in sides of the crop from its centre, as shapes (..., 5, 2) in its pixels."""
    outputs = outputs.float() if outputs.dtype == torch.bfloat16 else outputs  # which has eighths of pixels
    return SIDE * outputs.unflatten(-1, (LANDMARKS, 2)) + (SIDE - 1) / 2


def loss(shapes: Tensor, true: Tensor) -> Tensor:
    """Eq. 1 for each face: (...,) of predicted and true shapes (..., 5, 2)."""
    eyes = (true[..., 0, :] - true[..., 1, :]).square().sum(-1)
    return (shapes - true).square().sum((-2, -1)) / eyes


# §2.2 What is the network learning? -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Mixture:
    """K Gaussian components with axis-aligned covariances.

    Attributes
    ----------
    log_weights : Tensor
        (K,).
    means, variances : Tensor
        (K, D).
    """

    log_weights: Tensor
    means: Tensor
    variances: Tensor

    @classmethod
    def fit(
        cls,
        features: Tensor,
        clusters: int,
        seed: int,
        *,
        clustering: str = "GMM",
        covariance: str = "spherical",
    ) -> Self:
        """§2.2: by EM from k-means++ centres, or by k-means (equal weights and variances: the nearest mean has the highest posterior).

        Parameters
        ----------
        features : Tensor
            (N, D).

        Raises
        ------
        ReplicateError
            If there are fewer features than clusters, or one is not finite.
        """
        if len(features) < clusters:
            raise ReplicateError(
                f"clusters: got {clusters} for {len(features)} faces, expected at most one per face"
            )
        if not features.isfinite().all():
            raise ReplicateError("features: some are not finite; check the images and the network's weights")
        x = features.cpu().numpy()
        if covariance == "diag":  # features that hardly vary have variances beyond float32
            x = x.astype(np.float64)
        if clustering == "k-means":
            means = torch.from_numpy(KMeans(clusters, random_state=seed).fit(x).cluster_centers_).float()
            return cls(torch.full((clusters,), -math.log(clusters)), means, torch.ones_like(means))
        model = GaussianMixture(
            clusters, covariance_type=covariance, init_params="k-means++", random_state=seed, max_iter=200
        )
        model.fit(x)
        found = (np.log(model.weights_), model.means_, model.covariances_)
        log_weights, means, variances = (torch.from_numpy(np.asarray(value, np.float32)) for value in found)
        return cls(
            log_weights,
            means,
            (variances[:, None] if variances.ndim == 1 else variances).expand_as(means).contiguous(),
        )

    def __len__(self) -> int:
        return len(self.means)

    def log_joint(self, features: Tensor) -> Tensor:
        """Logarithm of the density of each component times its weight, at features (N, D): (N, K) float64.

        Float32 would lose small variances: the distance is a difference of large numbers.
        """
        features, means, precision = features.double(), self.means.double(), 1 / self.variances.double()
        distance = features.square() @ precision.T - 2 * features @ (means * precision).T
        distance = distance + (means.square() * precision).sum(1)
        norm = means.shape[1] * math.log(2 * math.pi) - precision.log().sum(1)
        return self.log_weights - 0.5 * (distance + norm)

    def assign(self, features: Tensor) -> Tensor:
        """Eq. 2: the component with the highest posterior (N,) for features (N, D)."""
        return self.log_joint(features).argmax(1)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that was learnt, exact in a model file, which rounds large matrices."""
        return {"log_weights": self.log_weights, "means": self.means[None], "variances": self.variances[None]}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Self:
        """Rebuild a mixture from `tensors`."""
        return cls(tensors["log_weights"], tensors["means"][0], tensors["variances"][0])

    def to(self, device: torch.device | str) -> Self:
        """The same mixture on another device."""
        return replace(
            self, **{name: getattr(self, name).to(device) for name in ("log_weights", "means", "variances")}
        )


def principal_variances(shapes: np.ndarray, cluster: np.ndarray, clusters: int) -> np.ndarray:
    """lambda of Eq. 3: variance of each landmark along its principal axis in each cluster.

    Parameters
    ----------
    shapes : array
        (N, L, 2) true shapes.
    cluster : array
        (N,) int.

    Returns
    -------
    array
        (K, L) in squared units of the shapes; NaN for clusters of fewer than two faces, which have no variance.
    """
    found = np.full((clusters, shapes.shape[1]), np.nan)
    for k in range(clusters):
        own = shapes[cluster == k]
        if len(own) > 1:
            centred = own - own.mean(0)
            covariance = np.einsum("nla,nlb->lab", centred, centred) / len(own)
            found[k] = np.linalg.eigvalsh(covariance)[:, -1]
    return found


def attribute_variances(labels: np.ndarray, cluster: np.ndarray, clusters: int) -> np.ndarray:
    """sigma^2 of Eq. 4: variance of 0/1 labels (N, A) in each cluster, (K, A); NaN for empty clusters."""
    sizes = np.bincount(cluster, minlength=clusters)[:, None]
    positive = np.stack([np.bincount(cluster, one, clusters) for one in labels.T.astype(float)], 1)
    with np.errstate(invalid="ignore"):
        share = positive / np.where(sizes, sizes, np.nan)
    return share * (1 - share)


# §3.1 Tweaking by fine-tuning ---------------------------------------------------------------------------------------------------------------


class Heads(nn.Module):
    """K copies of the last layers, FC5^k and FC6^k (Fig. 2, right), or from CL4^k on, as one batched computation.

    Parameters
    ----------
    network : Vanilla
        Whose weights all heads begin with.
    """

    def __init__(self, network: Vanilla, clusters: int, split: str = "FC5") -> None:
        super().__init__()
        self.split = check_one_of("split", split, SPLITS)

        def copies(weight: Tensor) -> nn.Parameter:
            whole = weight.detach().expand(clusters, *weight.shape)
            return nn.Parameter(whole.clone(memory_format=torch.contiguous_format))

        layers = {"fc5": network.fc5, "fc6": network.fc6}
        if split == "CL4":
            layers = {"cl4": network.cl4} | layers
        self.weights = nn.ParameterDict(
            {name: copies(layer.weight.flatten(1).T) for name, layer in layers.items()}
        )
        self.biases = nn.ParameterDict({name: copies(layer.bias[None]) for name, layer in layers.items()})

    def __len__(self) -> int:
        return len(self.weights["fc5"])

    def forward(self, features: Tensor, which: slice | Tensor = slice(None)) -> Tensor:
        """Shapes (k, n, 5, 2) that the heads `which`, all unless told otherwise, make of features (k, n, D)."""

        def layer(name: str, x: Tensor) -> Tensor:
            return torch.baddbmm(self.biases[name][which], x, self.weights[name][which])

        x = features
        if self.split == "CL4":
            x = self._convolved(layer, x)
        return to_shapes(layer("fc6", absolute_tanh(layer("fc5", x))))

    @staticmethod
    def _convolved(layer, features: Tensor) -> Tensor:
        """CL4^k: its four windows of 2x2 are rows of one product; (k, n, 576) to (k, n, 256)."""
        heads, count = features.shape[:2]
        windows = functional.unfold(features.reshape(-1, 64, 3, 3), 2).view(heads, count, 256, 4).mT
        maps = absolute_tanh(layer("cl4", windows.reshape(heads, 4 * count, 256)))
        return maps.view(heads, count, 4, 64).mT.reshape(heads, count, 256)

    def routed(self, features: Tensor, cluster: Tensor) -> Tensor:
        """Shapes (N, 5, 2) of features (N, D), each by the head of its cluster (N,)."""
        order = cluster.argsort(stable=True)
        present, counts = cluster[order].unique_consecutive(return_counts=True)
        shapes = features.new_empty(len(features), LANDMARKS, 2)
        for k, rows in zip(present.tolist(), order.split(counts.tolist()), strict=True):
            shapes[rows] = self(features[rows][None], slice(k, k + 1))[0]
        return shapes


class Tweaked(NamedTuple):
    """A tweaked network: the vanilla one, the clusters of its FC5 features, and a head for each."""

    network: Vanilla
    mixture: Mixture
    heads: Heads

    def __call__(self, crops: Tensor) -> Tensor:
        """§3.1: shapes (N, 5, 2) of crops (N, 3, 40, 40) in [0, 1], without their mirror images."""
        features = self.network.features(crops, self.heads.split)
        return self.heads.routed(features, self.mixture.assign(features))


Model = Vanilla | Tweaked


def mirrored_average(model: Model, crops: Tensor) -> Tensor:
    """§3.1: the mean of what a model says of crops (N, 3, 40, 40) and of their mirror images, (N, 5, 2)."""
    return (model(crops) + mirror_shapes(model(crops.flip(-1)))) / 2


def mirror_shapes(shapes: Tensor) -> Tensor:
    """Shapes (N, 5, 2) of mirrored crops, mirrored back."""
    permutation = torch.tensor(markup(MARKUP).mirror, device=shapes.device)
    return shapes[:, permutation] * shapes.new_tensor([-1, 1]) + shapes.new_tensor([SIDE - 1, 0])


@torch.inference_mode()
def predict(model: Model, crops: Sequence[Tensor] | Tensor, *, mirror: bool = True) -> Tensor:
    """Shapes (N, 5, 2) of batches of crops (n, 3, 40, 40) in [0, 1]."""
    batches = crops.split(512) if isinstance(crops, Tensor) else crops
    return torch.cat([mirrored_average(model, batch) if mirror else model(batch) for batch in batches])
