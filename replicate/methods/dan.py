"""Deep Alignment Network (Kowalski, Naruniec and Trzcinski, CVPR Workshops 2017), in the paper's order.

Symbols: ``S_0`` canonical (mean) shape, ``S_t`` shape after stage t, ``T_t`` similarity that brings ``S_{t-1}`` to ``S_0``,
``H_t`` landmark heatmap, ``F_t`` feature image, ``dS_t`` update by stage t. All shapes inside the network are (N, L, 2) in pixels of
the 112 x 112 input frame: (x, y), 0-based, pixel centres at integers.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from replicate import store, training
from replicate.devices import choose_device, describe_device
from replicate.faces.augment import Canvases, Samples, cut_canvases
from replicate.faces.faceset import FaceSet
from replicate.faces.markups import markup
from replicate.faces.perturbations import Frame, NormalPerturbation
from replicate.faces.sources import FaceSource
from replicate.geometry import apply_transform, fit_similarity, invert, warp
from replicate.networks import fold_batch_norm, widen
from replicate.shapes import mean_shape
from replicate.store import ModelKey, StoredModel
from replicate.training import FitReport, Schedule

VERSION = 2  # raise when a change here alters what a training gives


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

    def schedule(self, stage: int) -> Schedule:
        """Schedule of stage 1, 2, ..."""
        return Schedule(
            self.batch,
            self.step_size,
            self.samples[stage - 1],
            self.decay,
            self.validate_every,
            self.patience,
        )


# The `cpu` profile keeps the method and shrinks the work: fewer samples in smaller batches with a step that decays, and milder
# perturbations (close to the error of the boxes at test), because a short training cannot cover wide ones. A full-width network
# would see too few samples in that time, so most of them are seen at half width, at a quarter of the cost.
_SHORT = dict(translation=0.08, rotation=20.0, scale=0.12, batch=32, decay=True, patience=1000)
CONFIGS = {
    ("smoke", "synthetic"): DANConfig(
        width=4,
        hidden=32,
        samples=(384, 384, 384),
        validation_faces=8,
        validate_every=6,
        sanity_gate=False,
        **_SHORT,
    ),
    ("cpu", "synthetic"): DANConfig(
        width=16, hidden=128, samples=(40_000, 24_000, 24_000), validate_every=100, **_SHORT
    ),
    ("cpu", "real"): DANConfig(
        samples=(5_000, 4_000),  # two stages: a third would not fit the budget
        validate_every=50,
        **_SHORT | dict(step_size=3e-4),
        narrow=DANConfig(width=32, samples=(64_000, 28_000), validate_every=100, **_SHORT),
    ),
    ("gpu", "synthetic"): DANConfig(),
    ("gpu", "real"): DANConfig(),
}
CONFIGS["smoke", "real"] = CONFIGS["smoke", "synthetic"]
# Trained on generated faces of every condition (`300w wide`), for photographs: two stages, twice the width, more samples.
WIDE_CONFIGS = {
    "smoke": CONFIGS["smoke", "synthetic"],
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
    nearest = torch.full((len(shape), size, size), torch.inf, dtype=shape.dtype, device=shape.device)
    for landmark in squared.unbind(1):  # one landmark of all faces at a time: less memory than all at once
        nearest = torch.minimum(nearest, landmark[:, 1, :, None] + landmark[:, 0, None, :])
    distance = (nearest + 1e-12).sqrt()  # keeps the gradient finite on a landmark
    return torch.where(nearest <= radius**2, 1 / (1 + distance), 0)[:, None]


class Connection(nn.Module):
    """Layers between stage t and stage t + 1 (Fig. 2)."""

    def __init__(self, config: DANConfig) -> None:
        super().__init__()
        self.size, self.radius, self.side = config.input_size, config.heatmap_radius, config.feature_side
        self.feature = nn.Linear(config.hidden, self.side**2)  # §3.4
        nn.init.xavier_uniform_(self.feature.weight, gain=nn.init.calculate_gain("relu"))
        nn.init.zeros_(self.feature.bias)
        self.norm = nn.BatchNorm2d(3)  # official code

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
            (N, 3, 112, 112): T(I), H, F; and the transform T_{t+1} (N, 2, 3).
        """
        image_in_pose, heatmap, feature, transform = self.parts(image, shape, hidden, canonical)
        return self.norm(torch.cat([image_in_pose, heatmap, feature], 1)), transform

    def parts(
        self, image: Tensor, shape: Tensor, hidden: Tensor, canonical: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """T_{t+1}(I), H_{t+1}, F_{t+1} (each (N, 1, 112, 112)) and T_{t+1} (N, 2, 3): the columns of Fig. 3."""
        with torch.autocast(image.device.type, enabled=False):  # geometry needs full precision
            transform = fit_similarity(shape, canonical.expand_as(shape))
            image_in_pose = warp(image, transform, (self.size, self.size))
            heatmap = landmark_heatmap(apply_transform(transform, shape), self.size, self.radius)
        feature = functional.relu(self.feature(hidden)).unflatten(1, (1, self.side, self.side))
        return (
            image_in_pose,
            heatmap,
            functional.interpolate(feature.float(), size=self.size, mode="nearest"),
            transform,
        )


class DAN(nn.Module):
    """Any number of stages; `forward` returns the shape after each."""

    def __init__(
        self, config: DANConfig, stages: int, canonical: Tensor, pixel_mean: Tensor, pixel_std: Tensor
    ) -> None:
        """`canonical` (L, 2) is S_0; `pixel_mean` and `pixel_std` (112, 112) standardise the input, as in the official code."""
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(Stage(1 if t == 0 else 3, len(canonical), config) for t in range(stages))
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
        """Earlier stages are frozen while a later one trains: they stay in evaluation mode."""
        super().train(mode)
        for part in (*self.stages[:-1], *self.connections[:-1]):
            part.eval()
        return self


# §3.5 Training ------------------------------------------------------------------------------------------------------------------


def normalised_distance(shape: Tensor, true: Tensor, markup_name: str) -> Tensor:
    """Eq. 4: mean distance of the points to their true places, divided by the true inter-pupil distance; (N,)."""
    eyes = markup(markup_name)
    left, right = true[:, list(eyes.left_eye)].mean(1), true[:, list(eyes.right_eye)].mean(1)
    return (shape - true).norm(dim=-1).mean(-1) / (left - right).norm(dim=-1)


def keys(config: DANConfig, stages: int, source: FaceSource, profile: str, seed: int) -> list[ModelKey]:
    """What names each stage in the model store: its own budget and all that came before, but nothing of later stages."""
    found: list[ModelKey] = []
    for stage in range(1, stages + 1):
        described = asdict(config) | {"stage": stage, "samples": config.samples[stage - 1]}
        if config.narrow:
            described["narrow"] = keys(config.narrow, stage, source, profile, seed)[-1].hash
        parent = found[-1].hash if found else ""
        found.append(
            ModelKey(f"dan-stage{stage}", described, source.fingerprint, profile, seed, VERSION, parent)
        )
    return found


def obtain(
    config: DANConfig,
    stages: int,
    source: FaceSource,
    profile: str,
    seed: int,
    *,
    device: str = "auto",
    fresh: bool = False,
) -> tuple[DAN, list[StoredModel]]:
    """A trained DAN from the model store; stages that are absent are trained one after the other (§3.5).

    Parameters
    ----------
    source : FaceSource
        The training faces, loaded only if a stage must be trained.
    device : str
        `auto`, `cpu`, `cuda`, ...: where to train, and where the returned network is.
    fresh : bool
        Train all stages again.

    Returns
    -------
    DAN, list of StoredModel
        The network in evaluation mode, and the stored model of each stage.
    """
    models: list[StoredModel] = []
    if config.narrow and fresh:
        obtain(config.narrow, stages, source, profile, seed, device=device, fresh=True)
    for stage, key in enumerate(keys(config, stages, source, profile, seed), start=1):

        def train(checkpoint: Path, stage: int = stage) -> tuple[dict[str, Tensor], FitReport, str]:
            if not config.narrow:
                return _train_stage(config, stage, models, None, source.load(), seed, checkpoint, device)
            narrow = obtain(config.narrow, stage, source, profile, seed, device=device)[1][-1]
            tensors, report, trained_on = _train_stage(
                config, stage, models, narrow.tensors, source.load(), seed, checkpoint, device
            )
            report.seconds += narrow.report.seconds
            return tensors, report, trained_on

        models.append(store.get(key, train, parent=models[-1] if models else None, fresh=fresh))
    return assemble(config, models).eval().to(choose_device(device)), models


def training_seconds(models: list[StoredModel]) -> list[float]:
    """What it took to train the network up to each stage, the narrower networks that they grew from included."""
    return np.cumsum([model.report.seconds for model in models]).tolist()


def assemble(config: DANConfig, models: list[StoredModel], stages: int | None = None) -> DAN:
    """The network that stored stages make up; further stages, up to `stages`, are new."""
    first = models[0].tensors
    network = DAN(config, stages or len(models), first["canonical"], first["pixel_mean"], first["pixel_std"])
    state = {name: value for model in models for name, value in model.tensors.items()}
    network.load_state_dict(state, strict=stages is None)
    return network.to(memory_format=torch.channels_last)


def _train_stage(
    config: DANConfig,
    stage: int,
    models: list[StoredModel],
    narrow: dict[str, Tensor] | None,
    faces: FaceSet,
    seed: int,
    checkpoint: Path,
    device: str = "cpu",
) -> tuple[dict[str, Tensor], FitReport, str]:
    """Train the connection to and the network of one stage on top of finished ones, from a narrower stage's weights if given."""
    where = choose_device(device)
    torch.manual_seed(seed * 1_000 + stage)
    held_out = np.zeros(len(faces), bool)
    # §4: a random subset of 100 training faces
    held_out[np.random.default_rng(seed).permutation(len(faces))[: config.validation_faces]] = True
    mean = mean_shape(torch.as_tensor(faces.points[~held_out], dtype=torch.float32))
    stream = 20 * seed + 2 * stage + bool(narrow)  # a widened network sees other samples than the narrow one
    samples = Samples(
        faces.subset(~held_out), mean, config.frame, config.perturbation, config.batch, stream, where
    )
    if models:
        network = assemble(config, models, stage)
    else:
        network = DAN(config, 1, config.frame.canonical(mean), *_pixel_statistics(samples))
    if narrow:
        network.load_state_dict(widen(narrow, network.state_dict(), seed * 10 + stage), strict=False)
    network.to(where, memory_format=torch.channels_last)
    own = (f"stages.{stage - 1}.", f"connections.{stage - 2}.") + (() if models else ("canonical", "pixel_"))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(own))

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        crops, true = batch
        return normalised_distance(network(crops)[-1], true, faces.markup).mean()

    validation = faces.subset(held_out)
    canvases = cut_canvases(validation.images, validation.boxes, mean, config.frame)
    true = torch.as_tensor(validation.points, dtype=torch.float32)

    def validate() -> float:
        shapes = predict(network.eval(), canvases)[-1]
        return 100 * normalised_distance(shapes, true, faces.markup).mean().item()

    start = apply_transform(invert(canvases.from_image), network.canonical.cpu().expand_as(true))
    gate = 100 * normalised_distance(start, true, faces.markup).mean().item() if config.sanity_gate else None
    label = f"DAN stage {stage}, {faces.faces} {faces.protocol}, seed {seed}"
    schedule = config.schedule(stage)
    report = training.fit(
        network,
        samples,
        loss,
        validate,
        schedule,
        seed=seed,
        checkpoint=checkpoint,
        label=label,
        must_beat=gate,
    )
    tensors = {name: value for name, value in network.state_dict().items() if name.startswith(own)}
    return tensors, report, describe_device(where)


def _pixel_statistics(samples: Samples, steps: int = 32) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each pixel over augmented crops: two (112, 112)."""
    crops = torch.cat([samples(step)[0] for step in range(steps)])[:, 0].cpu()
    std = crops.std(0).clamp_min(0.01)  # a pixel that never changes must not be divided by zero
    return crops.mean(0), std


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
