"""Weights for LDDR (Kumar, Ranjan, Patel and Chellappa, "Face Alignment by Local Deep Descriptor Regression"): the training of the descriptor, §3.1,
and cascades that are kept in the model store. Networks and cascades are those of `lddr`.

The paper's network has learnt to tell the objects of ImageNet apart, and then faces from what is none. ImageNet's weights are read from a
file where a user has one. Otherwise a network learns kinds of fractals first and faces then.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from replicate import paths, store, training
from replicate.devices import choose_device, describe_device
from replicate.errors import AbsentError, ReplicateError
from replicate.faces.patches import FacePatches
from replicate.faces.sources import FaceSource
from replicate.files import sha256
from replicate.fractals import Fractals
from replicate.methods import lddr
from replicate.methods.lddr import (
    ALEXNET,
    CHANNELS,
    FACE,
    LDDR,
    DeepFeatures,
    Descriptor,
    DescriptorConfig,
    Features,
    LDDRConfig,
    centred,
)
from replicate.store import ModelKey, StoredModel
from replicate.training import FitReport


class Pictures(Protocol):
    """Labelled pictures by their number."""

    def take(self, indices: range) -> tuple[np.ndarray, np.ndarray]:
        """Pictures (n, size, size, 3) uint8 and labels (n,)."""


class Classifier(nn.Module):
    """AlexNet: a descriptor in the form in which it is trained, pool5, and the fully connected fc6 to fc8 that the descriptor loses.

    From random weights AlexNet hardly begins to learn in the time that we have. Batch normalisation after each convolution, which the
    original did not know, helps it; `plain` folds it into the weights when the training ends.
    """

    SCALE = 50.0  # of the normalised activations at first: as large as Caffe's are, for whose size the local normalisation is made

    def __init__(self, descriptor: Descriptor, classes: int, width: float) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.norms = nn.ModuleList(nn.BatchNorm2d(layer.out_channels) for layer in descriptor.children())
        for norm in self.norms:
            nn.init.constant_(norm.weight, self.SCALE)
        hidden = round(4096 * width)
        self.head = nn.Sequential(
            *_dense(CHANNELS * 6 * 6, hidden), *_dense(hidden, hidden), nn.Linear(hidden, classes)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Class scores (N, classes) of `centred` pictures (N, 3, 224, 224)."""
        with torch.autocast(pictures.device.type, torch.bfloat16):
            maps = self.descriptor(pictures, ALEXNET, self.norms)
            return self.head(functional.max_pool2d(maps, 3, 2, ceil_mode=True).flatten(1)).float()

    def plain(self) -> Descriptor:
        """The descriptor that computes the same without batch normalisation."""
        found = copy.deepcopy(self.descriptor).eval()
        for layer, norm in zip(list(found.named_children()), self.norms, strict=True):
            setattr(found, layer[0], fuse_conv_bn_eval(layer[1], norm.eval()))
        return found


def _dense(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(0.2)]


@dataclass(frozen=True)
class Step:
    """A classifier that is trained from the descriptor of the step before: what it learns to tell apart, and its budget."""

    name: str
    config: DescriptorConfig
    source: FaceSource | None  # faces; none for objects
    samples: int
    step_size: float

    @property
    def classes(self) -> int:
        return 2 if self.source else self.config.kinds

    @property
    def schedule(self) -> training.Schedule:
        config = self.config
        return training.Schedule(
            config.batch, self.step_size, self.samples, True, config.validate_every, patience=self.samples
        )


def steps(config: LDDRConfig, source: FaceSource) -> list[Step]:
    """The trainings that give a cascade its descriptor; none if its weights are random or read from a file, or it has other features.

    Faces are generated ones of every condition, whatever the cascade learns from.
    """
    network = config.network
    generated = replace(source, protocol="300w", split="wide", faces="synthetic")
    objects = Step("objects", network, None, network.objects, network.step_size)
    faces = Step("faces", network, generated, network.patches, network.step_size)
    tuned = replace(faces, step_size=network.tuning * network.step_size)
    trained = {"objects": [objects], "faces": [faces], "tuned": [objects, tuned], "imagenet tuned": [tuned]}
    return trained.get(config.weights, []) if config.features == "deep" else []


def keys(config: LDDRConfig, source: FaceSource, profile: str, seed: int) -> list[ModelKey]:
    """What names the model of each step, and last the cascade."""
    found: list[ModelKey] = []

    def add(method: str, described: dict, faces: str) -> None:
        parent = found[-1].hash if found else ""
        found.append(ModelKey(method, described, faces, profile, seed, lddr.VERSION, parent))

    if _reads_imagenet(config):
        add("lddr-imagenet", {"width": config.network.width}, imagenet_digest())
    for step in steps(config, source):
        budget = "patches" if step.source else "objects"
        named = ("width", "batch", "validation", "validate_every", budget)
        described = {name: getattr(step.config, name) for name in named}
        described |= {"step_size": step.step_size, "classes": step.classes}
        add(f"lddr-{step.name}", described, step.source.fingerprint if step.source else "")
    add("lddr", _described(config), source.fingerprint)
    return found


def _described(config: LDDRConfig) -> dict:
    """All that decides a cascade but the model before it."""
    described = asdict(config)
    width = described.pop("network")["width"]
    if config.features == "deep":
        described["width"] = width
    else:
        del described["weights"]
    if config.solver == "ridge":
        del described["tolerance"]
    return described


def _reads_imagenet(config: LDDRConfig) -> bool:
    return config.features == "deep" and config.weights.startswith("imagenet")


def obtain(
    config: LDDRConfig,
    source: FaceSource,
    profile: str,
    seed: int,
    *,
    device: str = "auto",
    fresh: bool = False,
) -> tuple[LDDR, list[StoredModel]]:
    """A cascade from the model store; what is absent of descriptor and cascade is trained now, one after the other.

    Parameters
    ----------
    source : FaceSource
        The training faces, loaded only if needed.
    device : str
        `auto`, `cpu`, `cuda`, ...: where to train, and where the cascade is.
    fresh : bool
        Train everything again.

    Returns
    -------
    LDDR, list of StoredModel
        The cascade, and the stored model of each step, the cascade last.
    """
    steps_before, where = len(keys(config, source, profile, seed)) - 1, choose_device(device)

    def train(before: list[StoredModel], checkpoint: Path) -> store.Training:
        if len(before) < steps_before:
            return _train_before(config, source, before, seed, checkpoint, where)
        faces, started = source.load(), time.perf_counter()
        model = LDDR(config, _features(config, before, seed, where)).fit(faces, seed, where)
        report = FitReport(seconds=time.perf_counter() - started, stopped="solved")
        return model.tensors(), report, describe_device(where)

    models = store.chain(keys(config, source, profile, seed), train, fresh=fresh)
    tensors = {name: value.to(where) for name, value in models[-1].tensors.items()}
    return LDDR(config, _features(config, models[:-1], seed, where)).restore(tensors), models


def obtain_features(
    config: LDDRConfig, source: FaceSource, profile: str, seed: int, *, device: str = "auto"
) -> tuple[Features, list[StoredModel]]:
    """What a cascade computes of patches, without the cascade, and the stored model of each step that leads to it; see `obtain`."""
    where = choose_device(device)

    def train(before: list[StoredModel], checkpoint: Path) -> store.Training:
        return _train_before(config, source, before, seed, checkpoint, where)

    models = store.chain(keys(config, source, profile, seed)[:-1], train)
    return _features(config, models, seed, where), models


def _train_before(
    config: LDDRConfig,
    source: FaceSource,
    before: Sequence[StoredModel],
    seed: int,
    checkpoint: Path,
    device: torch.device,
) -> store.Training:
    """The step after those whose models are `before`, on the way to a descriptor."""
    number = len(before) - _reads_imagenet(config)
    if number < 0:
        read = FitReport(stopped="read from a file")
        return imagenet_tensors(config.network.width), read, describe_device(device)
    return _train_step(steps(config, source)[number], number, before[-1:], seed, checkpoint, device)


def _features(config: LDDRConfig, before: Sequence[StoredModel], seed: int, device: torch.device) -> Features:
    """What the cascade computes of patches; the deep ones with the last of the trained descriptors."""
    if config.features != "deep":
        return lddr.HAND_CRAFTED[config.features]
    return DeepFeatures(_descriptor(config.network.width, before[-1:], seed).to(device))


def _descriptor(width: float, before: Sequence[StoredModel], seed: int) -> Descriptor:
    """A descriptor with the weights of a stored model, or random ones if there is none before it."""
    torch.manual_seed(seed)
    network = Descriptor(width)
    for model in before:
        network.load_state_dict(model.tensors)
    return network


# §3.1 Fine-tuning --------------------------------------------------------------------------------------------------------------------


def _train_step(
    step: Step,
    number: int,
    before: Sequence[StoredModel],
    seed: int,
    checkpoint: Path,
    device: torch.device,
) -> store.Training:
    """Train a step, number `number`, from the weights of the one before, if there was one."""
    width, batch, validation = step.config.width, step.config.batch, step.config.validation
    network = Classifier(_descriptor(width, before, 1_000 * seed + number), step.classes, width)
    network.to(device, memory_format=torch.channels_last)
    learning, held_out = _pictures(step, seed)
    checked = [_batch(held_out, range(start, start + batch), device) for start in range(0, validation, batch)]
    report = training.fit(
        network,
        lambda number: _batch(learning, range(number * batch, (number + 1) * batch), device),
        lambda drawn: functional.cross_entropy(network(drawn[0]), drawn[1]),
        lambda: error_rate(network, checked),
        step.schedule,
        seed=seed,
        checkpoint=checkpoint,
        label=f"LDDR descriptor, {step.name}, width {width:g}, seed {seed}",
    )
    return network.plain().state_dict(), report, describe_device(device)


def _pictures(step: Step, seed: int) -> tuple[Pictures, Pictures]:
    """Pictures to learn from, and others to validate with: other drawings of the same kinds, or other people."""
    if step.source is None:
        return Fractals(step.classes, FACE, 2 * seed), Fractals(step.classes, FACE, 2 * seed + 1)
    faces = step.source.load()
    held_out = np.arange(len(faces)) % 20 == 0
    learning, checked = faces.subset(~held_out), faces.subset(held_out)
    return FacePatches.of(learning, FACE, seed), FacePatches.of(checked, FACE, seed)


def _batch(pictures: Pictures, indices: range, device: torch.device) -> tuple[Tensor, Tensor]:
    """What the network takes, (n, 3, S, S), and labels (n,)."""
    images, labels = pictures.take(indices)
    x = centred(torch.from_numpy(images).to(device)).movedim(-1, 1)
    return x, torch.from_numpy(labels.astype(np.int64)).to(device)


@torch.inference_mode()
def error_rate(network: Classifier, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Share of pictures that a network takes for what they are not, in per cent."""
    network.eval()
    wrong = [network(x).argmax(1) != labels for x, labels in batches]
    return 100 * torch.cat(wrong).float().mean().item()


# §3.1 ImageNet -----------------------------------------------------------------------------------------------------------------------

_LAYER = (
    'layer {{ name: "conv{0}" type: "Convolution" bottom: "{1}" top: "conv{0}" convolution_param {{ {2} }} }}'
)
# the layers that Caffe's AlexNet and this descriptor share, as OpenCV wants them described; what is between them does not matter to it
_PROTOTXT = "\n".join(
    [
        'input: "data" input_dim: 1 input_dim: 3 input_dim: 224 input_dim: 224',
        _LAYER.format(1, "data", "num_output: 96 kernel_size: 11 stride: 4"),
        _LAYER.format(2, "conv1", "num_output: 256 kernel_size: 5 pad: 2 group: 2"),
        _LAYER.format(3, "conv2", "num_output: 384 kernel_size: 3 pad: 1"),
        _LAYER.format(4, "conv3", "num_output: 384 kernel_size: 3 pad: 1 group: 2"),
        _LAYER.format(5, "conv4", "num_output: 256 kernel_size: 3 pad: 1 group: 2"),
    ]
)


def imagenet_file() -> Path | None:
    """A user's copy of AlexNet's weights: the first `.caffemodel` or `.safetensors` in the folder `imagenet` beside the real faces, if any."""
    found = sorted((paths.data_dir() / "imagenet").glob("*"))
    return next((path for path in found if path.suffix in (".caffemodel", ".safetensors")), None)


def imagenet_digest() -> str:
    """Hash of that file.

    Raises
    ------
    AbsentError
        If there is none.
    """
    path = imagenet_file()
    if path is None:
        raise AbsentError(
            f"ImageNet's weights: no .caffemodel or .safetensors in {paths.data_dir() / 'imagenet'}; put Caffe's "
            "bvlc_reference_caffenet.caffemodel there, or use the weights 'tuned'"
        )
    return sha256(path.read_bytes())


def imagenet_tensors(width: float) -> dict[str, Tensor]:
    """Weights of a full-width `Descriptor` from `imagenet_file`, for images in red, green and blue.

    Caffe's are for blue, green and red, and are turned round; a `.safetensors` file must be in our order.

    Raises
    ------
    ReplicateError
        If there is no such file; for another width, a damaged file, or one of another network, such as torchvision's AlexNet, whose
        convolutions have no groups.
    """
    imagenet_digest()
    path = imagenet_file()
    if width != 1:
        raise ReplicateError(f"width: got {width:g}, but ImageNet's weights are of the full width, 1")
    try:
        found = load_file(path) if path.suffix == ".safetensors" else _caffe_tensors(path)
    except (SafetensorError, cv2.error, OSError) as error:
        raise ReplicateError(f"{path}: cannot be read ({error}); restore it from its source") from error
    wanted = Descriptor().state_dict()
    for name, value in wanted.items():
        got = tuple(found[name].shape) if name in found else "nothing"
        if got != tuple(value.shape):
            raise ReplicateError(
                f"{path}: {name} has {got}, expected {tuple(value.shape)}; this is not Caffe's AlexNet, in whose conv2, conv4 and conv5 "
                "each output reads half of the channels"
            )
    return {name: found[name].float() for name in wanted}


def _caffe_tensors(path: Path) -> dict[str, Tensor]:
    texts = (_PROTOTXT.encode(), path.read_bytes())
    network, found = cv2.dnn.readNetFromCaffe(*(np.frombuffer(text, np.uint8) for text in texts)), {}
    for layer in (f"conv{number}" for number in range(1, 6)):
        weight, bias = (torch.from_numpy(network.getParam(layer, place).copy()) for place in (0, 1))
        found |= {f"{layer}.weight": weight, f"{layer}.bias": bias.flatten()}
    found["conv1.weight"] = found["conv1.weight"].flip(1)
    return found
