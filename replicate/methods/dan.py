"""Deep Alignment Network (Kowalski, Naruniec and Trzcinski, CVPR Workshops 2017), in the paper's order.

Symbols: ``S_0`` canonical (mean) shape, ``S_t`` shape after stage t, ``T_t`` similarity that brings ``S_{t-1}`` to ``S_0``,
``H_t`` landmark heatmap, ``F_t`` feature image, ``dS_t`` update by stage t. All shapes inside the network are (N, L, 2) in pixels of
the 112 x 112 input frame: (x, y), 0-based, pixel centres at integers.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from replicate.errors import ReplicateError
from replicate.faces.augment import Canvases, cut_canvases
from replicate.faces.faceset import FaceSet
from replicate.faces.markups import markup
from replicate.faces.perturbations import Frame, NormalPerturbation
from replicate.geometry import apply_transform, fit_affine, fit_similarity, invert, warp
from replicate.networks import fold_batch_norm
from replicate.training import Schedule
from replicate.vocabulary import check_one_of

VERSION = 2  # raise when a change here alters what a training gives
TRANSFORMS = ("similarity", "affine", "none")
LOSSES = ("normalised distance", "sum of squares")
ORDERS = ("stage by stage", "end to end after stage 1", "end to end")


@dataclass(frozen=True)
class DANVariant:
    """What an ablation changes; as it stands, the paper's method.

    Raises
    ------
    ReplicateError
        For a word that is none of `TRANSFORMS`, `LOSSES` or `ORDERS`.
    """

    heatmap: bool = True  # §3.3
    feature_image: bool = True  # §3.4
    transform: str = "similarity"  # §3.2
    loss: str = "normalised distance"  # §3.5, Eq. 4
    order: str = "stage by stage"  # §3.5

    def __post_init__(self) -> None:
        for name, words in (("transform", TRANSFORMS), ("loss", LOSSES), ("order", ORDERS)):
            check_one_of(name, getattr(self, name), words)

    @property
    def channels(self) -> int:
        """Images that enter a later stage."""
        return 1 + self.heatmap + self.feature_image


@dataclass(frozen=True)
class DANConfig:
    """What determines a DAN besides its training faces and seed."""

    width: int = 64  # Table 1: channels of conv1a; the other layers are multiples of it
    hidden: int = 256  # Table 1: fc1
    input_size: int = 112  # Table 1
    shape_extent: float = 56.0  # official code: S_0 fills half of the frame
    feature_side: int = 56  # §3.4
    heatmap_radius: float = 16.0  # §3.3
    dropout: float = 0.5  # official code; §3.1 names no rate
    translation: float = 0.2  # official code: sd of augmentation, in shape extents; §4 says only "normal"
    rotation: float = 20.0  # official code: degrees
    scale: float = 0.25  # official code
    batch: int = 64  # §4
    step_size: float = 1e-3  # §4 "initial step size"
    decay: bool = False  # official code never changes it
    samples: tuple[int, ...] = (1_000_000,) * 3  # most samples of each stage; early stopping ends sooner
    validation_faces: int = 100  # §4
    validate_every: int = 40  # official code
    sanity_gate: bool = True  # stop a model that does not beat the mean shape; `smoke` is too short to ask it
    patience: int = 40  # our choice: 40 validations without a new best; §3.5 "until it stops improving"
    narrow: "DANConfig | None" = None  # our choice: a network to train first and to widen (`networks.widen`)
    # our choice: a network trained first on generated faces of every condition, whose weights this one starts from
    pretraining: "DANConfig | None" = None
    variant: DANVariant = DANVariant()

    def __post_init__(self) -> None:
        if self.narrow and self.pretraining:
            raise ReplicateError("narrow, pretraining: got both; expected one network at most to start from")
        if self.narrow and self.narrow.validation_faces != self.validation_faces:
            raise ReplicateError(
                f"narrow: it validates on {self.narrow.validation_faces} faces and the network that grows from it on "
                f"{self.validation_faces}; expected the same, or one trains on what the other validates on"
            )
        for before in filter(None, (self.narrow, self.pretraining)):
            if before.variant.order != self.variant.order:
                raise ReplicateError(
                    f"order: got {self.variant.order!r} on top of a network trained {before.variant.order!r}; expected the same"
                )

    def changed(self, **changes: object) -> "DANConfig":
        """The configuration with other values of its fields or of those of `DANVariant`; the same for what it grows from.

        Raises
        ------
        ReplicateError
            For a name that neither has.
        """
        of_variant, of_config = ([field.name for field in fields(kind)] for kind in (DANVariant, DANConfig))
        for name in changes:
            check_one_of("field", name, [*of_config, *of_variant])
        own = {name: value for name, value in changes.items() if name in of_config}
        inside = {name: value for name, value in changes.items() if name in of_variant}
        origins = {name: getattr(self, name) for name in ("narrow", "pretraining")}
        grown = {name: before.changed(**changes) for name, before in origins.items() if before}
        return replace(self, **grown | own, variant=replace(self.variant, **inside))

    @property
    def frame(self) -> Frame:
        return Frame(self.input_size, self.shape_extent)

    @property
    def perturbation(self) -> NormalPerturbation:
        return NormalPerturbation(self.translation, self.rotation, self.scale)

    @property
    def most_stages(self) -> int:
        """Stages that the budget provides for."""
        return len(self.samples)

    def schedule(self, samples: int) -> Schedule:
        """Schedule of a training step with a budget of so many samples."""
        return Schedule(self.batch, self.step_size, samples, self.decay, self.validate_every, self.patience)


# The `cpu` profile keeps the method and shrinks the work: fewer samples in smaller batches with a step that decays, and milder
# perturbations (close to the error of the boxes at test), because a short training cannot cover wide ones. A full-width network
# would see too few samples in that time, so most of them are seen at half width, at a quarter of the cost; for photographs, that
# half-width network is trained on generated faces before it sees the first real one.
_SHORT = dict(translation=0.08, rotation=20.0, scale=0.12, batch=32, decay=True, patience=1000)
_SMOKE = DANConfig(
    width=4,
    hidden=32,
    samples=(384, 384, 384),
    validation_faces=8,
    validate_every=6,
    sanity_gate=False,
    **_SHORT,
)
# Trained on generated faces of every condition (`300w wide`), for photographs: two stages, twice the width, more samples.
WIDE_CONFIGS = {
    "smoke": _SMOKE,
    "cpu": DANConfig(
        width=32,
        hidden=128,
        samples=(65_000, 70_000),
        validate_every=100,
        **_SHORT | dict(step_size=5e-4),
        narrow=DANConfig(width=16, hidden=128, samples=(130_000, 110_000), validate_every=100, **_SHORT),
    ),
    "gpu": DANConfig(),
}
CONFIGS = {
    ("smoke", "synthetic"): _SMOKE,
    ("smoke", "real"): _SMOKE,
    ("cpu", "synthetic"): DANConfig(
        width=16, hidden=128, samples=(40_000, 24_000, 24_000), validate_every=100, **_SHORT
    ),
    ("cpu", "real"): DANConfig(
        samples=(8_000, 6_000),  # two stages: a third would not fit the budget
        validate_every=50,
        **_SHORT | dict(step_size=3e-4),
        narrow=DANConfig(
            width=32,
            samples=(96_000, 64_000),
            validate_every=100,
            **_SHORT | dict(step_size=5e-4),
            pretraining=WIDE_CONFIGS["cpu"],
        ),
    ),
    ("gpu", "synthetic"): DANConfig(),
    ("gpu", "real"): DANConfig(),
}
# Ablations train a small network several times over, on faces of either kind.
ABLATION_CONFIGS = {profile: CONFIGS[profile, "synthetic"] for profile in ("smoke", "cpu", "gpu")}


# §3.1 Feed-forward neural network -----------------------------------------------------------------------------------------------


class Stage(nn.Module):
    """The feed-forward part of a stage: Table 1."""

    def __init__(self, channels: int, points: int, config: DANConfig) -> None:
        super().__init__()
        w = config.width
        layers: list[nn.Module] = []
        for out in (w, 2 * w, 4 * w, 8 * w):  # conv1a, conv1b, pool1, ..., pool4
            layers += [*_convolution(channels, out), *_convolution(out, out), nn.MaxPool2d(2)]
            channels = out
        self.convolutions = nn.Sequential(*layers)  # (N, c, 112, 112) -> (N, 8w, 7, 7)
        self.dropout = nn.Dropout(config.dropout)
        flat = 8 * w * (config.input_size // 16) ** 2
        self.fc1 = nn.Sequential(
            nn.Linear(flat, config.hidden, bias=False), nn.BatchNorm1d(config.hidden), nn.ReLU()
        )
        self.fc2 = nn.Linear(config.hidden, 2 * points)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(
                    layer.weight, gain=1.0 if layer is self.fc2 else nn.init.calculate_gain("relu")
                )
        nn.init.zeros_(self.fc2.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Stage input (N, c, 112, 112) to the update dS (N, L, 2) and the activations of fc1 (N, hidden)."""
        h = self.convolutions(x.contiguous(memory_format=torch.channels_last))
        h = self.fc1(self.dropout(h.flatten(1)))
        with torch.autocast(x.device.type, enabled=False):  # pixels need more digits than bfloat16 has
            delta = self.fc2(h.float())
        return delta.unflatten(1, (-1, 2)), h


def _convolution(channels: int, out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)


# §3.2 to §3.4 Connection layers -------------------------------------------------------------------------------------------------


def landmark_heatmap(shape: Tensor, size: int, radius: float) -> Tensor:
    """Eq. 3: ``H(x, y) = 1 / (1 + min_i |(x, y) - s_i|)`` within `radius` of a landmark, 0 elsewhere.

    Parameters
    ----------
    shape : Tensor
        (N, L, 2) landmarks in pixels of the heatmap.
    size : int
        Side of the heatmap in pixels.

    Returns
    -------
    Tensor
        (N, 1, size, size).
    """
    axis = torch.arange(size, dtype=shape.dtype, device=shape.device)
    squared = (axis - shape[..., None]).square()  # (N, L, 2, size): squared distances are sums over x and y
    nearest = _nearest(squared)
    distance = (nearest + 1e-12).sqrt()  # keeps the gradient finite on a landmark
    return torch.where(nearest <= radius**2, 1 / (1 + distance), 0)[:, None]


def _nearest(squared: Tensor) -> Tensor:
    """Smallest sum over x and y of the squared distances (N, L, 2, size) to any landmark, at each pixel: (N, size, size)."""
    with torch.no_grad():
        # one landmark of all faces at a time: less memory than all at once
        distances = (landmark[:, 1, :, None] + landmark[:, 0, None, :] for landmark in squared.unbind(1))
        nearest = next(distances)
        which = torch.zeros_like(nearest, dtype=torch.long) if squared.requires_grad else None
        for number, distance in enumerate(distances, start=1):
            if which is not None:
                which.masked_fill_(distance < nearest, number)
            torch.minimum(nearest, distance, out=nearest)
    if which is None:
        return nearest
    x, y = squared.unbind(2)  # end-to-end training: only the nearest landmark of a pixel has a gradient
    return x.gather(1, which) + y.mT.gather(2, which)


class Connection(nn.Module):
    """Layers between stage t and stage t + 1 (Fig. 2)."""

    def __init__(self, config: DANConfig) -> None:
        super().__init__()
        self.size, self.radius, self.side = config.input_size, config.heatmap_radius, config.feature_side
        self.variant = config.variant
        if self.variant.feature_image:
            self.feature = nn.Linear(config.hidden, self.side**2)  # §3.4
            nn.init.xavier_uniform_(self.feature.weight, gain=nn.init.calculate_gain("relu"))
            nn.init.zeros_(self.feature.bias)
        self.norm = nn.BatchNorm2d(self.variant.channels)  # official code

    def forward(
        self, image: Tensor, shape: Tensor, hidden: Tensor, canonical: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Input of the next stage.

        Parameters
        ----------
        image : Tensor
            (N, 1, 112, 112) input image I.
        shape : Tensor
            (N, L, 2), S_t.
        hidden : Tensor
            (N, hidden), activations of fc1 of stage t.
        canonical : Tensor
            (L, 2), S_0.

        Returns
        -------
        Tensor, Tensor
            (N, 3, 112, 112): T(I), H, F, or as many of them as the variant has; and the transform T_{t+1} (N, 2, 3).
        """
        images, transform = self.parts(image, shape, hidden, canonical)
        return self.norm(torch.cat(list(images.values()), 1)), transform

    def parts(
        self, image: Tensor, shape: Tensor, hidden: Tensor, canonical: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The columns of Fig. 3: ``image``, ``heatmap`` and ``feature image``, each (N, 1, 112, 112), and T_{t+1} (N, 2, 3)."""
        with torch.autocast(image.device.type, enabled=False):  # geometry needs full precision
            transform = self.to_canonical(shape, canonical)
            moved = self.variant.transform != "none"
            images = {"image": warp(image, transform, (self.size, self.size)) if moved else image}
            if self.variant.heatmap:
                in_pose = apply_transform(transform, shape)
                images["heatmap"] = landmark_heatmap(in_pose, self.size, self.radius)
        if self.variant.feature_image:
            feature = functional.relu(self.feature(hidden)).unflatten(1, (1, self.side, self.side))
            images["feature image"] = functional.interpolate(feature.float(), size=self.size, mode="nearest")
        return images, transform

    def to_canonical(self, shape: Tensor, canonical: Tensor) -> Tensor:
        """§3.2: T_{t+1} (N, 2, 3), the member of the variant's family of transforms by which S_t comes closest to S_0."""
        if self.variant.transform == "none":
            return shape.new_tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).expand(len(shape), 2, 3)
        fit = fit_affine if self.variant.transform == "affine" else fit_similarity
        return fit(shape, canonical.expand_as(shape))


class DAN(nn.Module):
    """Any number of stages; `forward` returns the shape after each."""

    def __init__(
        self, config: DANConfig, stages: int, canonical: Tensor, pixel_mean: Tensor, pixel_std: Tensor
    ) -> None:
        """`canonical` (L, 2) is S_0; `pixel_mean` and `pixel_std` (112, 112) standardise the input, as in the official code."""
        super().__init__()
        self.config = config
        entering = [1] + [config.variant.channels] * (stages - 1)
        self.stages = nn.ModuleList(Stage(channels, len(canonical), config) for channels in entering)
        self.connections = nn.ModuleList(Connection(config) for _ in range(stages - 1))
        self.register_buffer("canonical", canonical.clone())
        self.register_buffer("pixel_mean", pixel_mean.clone())
        self.register_buffer("pixel_std", pixel_std.clone())

    def forward(self, crops: Tensor) -> list[Tensor]:
        """Crops (N, 1, 112, 112) in [0, 1] to S_1, ..., S_T, each (N, L, 2) in frame pixels."""
        image = (crops - self.pixel_mean) / self.pixel_std
        with torch.autocast(crops.device.type, torch.bfloat16):
            delta, hidden = self.stages[0](image)
            shapes = [self.canonical + delta]  # T_1 is the identity
            for connection, stage in zip(self.connections, self.stages[1:], strict=True):
                joined, transform = connection(image, shapes[-1], hidden, self.canonical)
                delta, hidden = stage(joined)
                with torch.autocast(crops.device.type, enabled=False):  # Eq. 2
                    in_pose = apply_transform(transform, shapes[-1]) + delta
                    shapes.append(apply_transform(invert(transform), in_pose))
        return shapes

    def train(self, mode: bool = True) -> "DAN":
        """Earlier stages are frozen while a later one trains: parts without a gradient stay in evaluation mode."""
        super().train(mode)
        for part in (*self.stages, *self.connections):
            if not any(parameter.requires_grad for parameter in part.parameters()):
                part.eval()
        return self


# §3.5 Training: the losses; the procedure is in `dan_training` ---------------------------------------------------------------------


def normalised_distance(shape: Tensor, true: Tensor, markup_name: str) -> Tensor:
    """Eq. 4: mean distance of the points to their true places, divided by the true inter-pupil distance; (N,)."""
    eyes = markup(markup_name)
    left, right = true[:, list(eyes.left_eye)].mean(1), true[:, list(eyes.right_eye)].mean(1)
    return (shape - true).norm(dim=-1).mean(-1) / (left - right).norm(dim=-1)


def sum_of_squares(shape: Tensor, true: Tensor, extent: float) -> Tensor:
    """What §3.5 says others minimise: the sum of squared errors of the points (N, L, 2), in units of `extent`; (N,)."""
    return ((shape - true) / extent).square().sum((-2, -1))


def loss_of(config: DANConfig, markup_name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that a configuration asks for: from shapes and true shapes, (N, L, 2) in frame pixels, to (N,)."""
    if config.variant.loss == "sum of squares":
        return lambda shape, true: sum_of_squares(shape, true, config.shape_extent)
    return lambda shape, true: normalised_distance(shape, true, markup_name)


# Inference ----------------------------------------------------------------------------------------------------------------------


def for_inference(network: DAN) -> DAN:
    """A copy that computes the same faster: batch normalisation folded into the layer before it, matrices kept in bfloat16."""
    network = copy.deepcopy(network).eval()
    for stage in network.stages:
        stage.convolutions, stage.fc1 = fold_batch_norm(stage.convolutions), fold_batch_norm(stage.fc1)
    exact = {stage.fc2 for stage in network.stages}
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module not in exact:
            module.to(torch.bfloat16)
    return network.requires_grad_(False).to(memory_format=torch.channels_last)


@torch.inference_mode()
def predict(network: DAN, canvases: Canvases, batch: int = 8) -> list[Tensor]:
    """Shapes after each stage, each (N, L, 2) in pixels of the original images, on the CPU; computed where the network is."""
    fast, canvases = for_inference(network), canvases.to(network.canonical.device)
    parts = torch.arange(len(canvases), device=network.canonical.device).split(batch)
    shapes = [fast(canvases.crops(part)) for part in parts]
    back = invert(canvases.from_image)
    return [apply_transform(back, torch.cat(per_stage)).cpu() for per_stage in zip(*shapes, strict=True)]


def predict_boxes(network: DAN, images: Sequence[np.ndarray], boxes: np.ndarray) -> list[np.ndarray]:
    """Shapes after each stage for N images, started from their boxes (N, 4): per stage (N, L, 2) in pixels of each image."""
    canvases = cut_canvases(images, boxes, network.canonical.cpu(), network.config.frame)
    return [shapes.numpy() for shapes in predict(network, canvases)]


def predict_faces(network: DAN, faces: FaceSet) -> list[np.ndarray]:
    """`predict_boxes` for a face set and its boxes."""
    return predict_boxes(network, faces.images, faces.boxes)
