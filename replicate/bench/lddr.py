"""Speed of LDDR: the descriptors of its cascade beside one patch at a time, and its regression beside LIBLINEAR's one output at a time."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional

from replicate import regression
from replicate.bench import Measurement
from replicate.bench.dan import faces
from replicate.bench.machine import operations, peak, rate, synchronised
from replicate.devices import choose_device, describe_device
from replicate.methods import lddr
from replicate.methods.lddr import CONFIGS, STAGES, DeepFeatures, Descriptor, Features, Form, LDDRConfig

FACES = 4  # whose patches enter the network in one pass
PLAIN_FACES = 1  # of them, for the slow form
FITTED_FACES = 203  # mirrored, with four starts: as many samples as LFPW's 811 faces mirrored
STARTS = 4
TIGHT = 1e-9  # LIBLINEAR's tolerance where its weights are compared


# Descriptors -------------------------------------------------------------------------------------------------------------------------


class PlainFeatures:
    """`Features` as one writes them down first: one patch after the other, in float32, with PyTorch's local response normalisation."""

    def __init__(self, network: Descriptor) -> None:
        self.network = network

    @torch.inference_mode()
    def __call__(self, crops: Tensor, points: Tensor, form: Form) -> Tensor:
        patches = [
            [plain_patch(crop, point, form.input) for point in places]
            for crop, places in zip(crops, points, strict=True)
        ]
        return torch.stack(
            [torch.cat([plain_descriptor(self.network, x, form) for x in face]) for face in patches]
        )


def plain_patch(crop: Tensor, point: Tensor, side: int) -> Tensor:
    """The patch (3, side, side) of a crop (S, S, 3) around a point (2,), centred as the network takes it."""
    corner = (point - (side - 1) / 2).round().long()
    columns, rows = ((low + torch.arange(side, device=crop.device)).clamp(0, len(crop) - 1) for low in corner)
    return (crop[rows][:, columns].float() - torch.tensor(lddr.MEAN, device=crop.device)).permute(2, 0, 1)


def plain_descriptor(network: Descriptor, patch: Tensor, form: Form) -> Tensor:
    """The descriptor (256,) of a patch (3, side, side), layer after layer: Table 1 and Fig. 3."""
    x, strides = patch[None], {"conv1": form.conv1, "conv2": form.conv2}
    pools = {"conv1": form.max1, "conv2": form.max2}
    for name, layer in network.named_children():
        x = functional.conv2d(x, layer.weight, layer.bias, strides.get(name, 1), groups=layer.groups)
        x = functional.relu(x)
        if name in pools:
            x = functional.max_pool2d(x, 3, pools[name], form.pool_padding, ceil_mode=True)
            x = functional.local_response_norm(x, 5, alpha=1e-4)
    return x.flatten()


class Patches(NamedTuple):
    """Crops (N, S, S, 3) uint8, and P shapes on each, (N, P * 68, 2), around whose landmarks patches are cut."""

    crops: Tensor
    points: Tensor


def patches_of(config: LDDRConfig, count: int, starts: int, device: torch.device) -> tuple[Patches, Tensor]:
    """Training crops of generated faces with shapes of other faces to start from, and what these lack to the true ones.

    Returns
    -------
    Patches, Tensor
        N is count x variants of each face, P the number of starts; the second is (N * P, 136), in box sides.
    """
    crops, truth = lddr.training_crops(faces(count), config, 0, device)
    others = torch.stack([truth.roll(step + 1, 0) for step in range(starts)], 1)  # (N, P, 68, 2)
    points = others * lddr.FACE + (config.crop - 1) / 2
    return Patches(crops, points.flatten(1, 2)), (truth[:, None] - others).flatten(0, 1).flatten(1)


def cascade(features: Features, patches: Patches) -> list[Tensor]:
    """The features (N, L * 256) of each stage; all at the same points, which costs what others would."""
    return [features(*patches, form) for form in STAGES]


def build(weights: bytes, width: float, device: torch.device) -> Descriptor:
    """A network that is set up and reads its weights, as §4.3 says it was done at each stage at first."""
    network = Descriptor(width)
    network.load_state_dict(load(weights))
    return network.eval().requires_grad_(False).to(device)


@torch.inference_mode()
def descriptors() -> Measurement:
    """The descriptors of all stages and landmarks of a face, at the paper's width."""
    config, device = LDDRConfig(augmentation="none"), choose_device("auto")
    patches, _ = patches_of(config, FACES, 1, device)
    few = Patches(*(part[:PLAIN_FACES] for part in patches))
    network, weights = _network(config.network.width, device)
    ours, plain = DeepFeatures(network), PlainFeatures(network)
    expected = torch.stack(cascade(plain, few))
    moved = torch.stack(cascade(ours, few)).float() - expected
    per_face = operations(partial(cascade, plain, few)) / len(few.crops)
    slow = rate(synchronised(partial(cascade, plain, few), device), len(few.crops))
    building = 1 / rate(synchronised(partial(build, weights, config.network.width, device), device), 1)
    anew = 1 / (1 / slow + len(STAGES) * building)
    return Measurement(
        f"descriptors of a cascade, {len(STAGES)} stages, {patches.points.shape[1]} landmarks, width {config.network.width:g}, {FACES} faces in one "
        f"pass, bfloat16; they move by {(moved.abs().mean() / expected.std()).item():.1%} of their deviation on average; with a network built anew "
        f"for each stage the slow form makes {anew:.3g} faces/s; limit: {per_face / 1e9:.1f} GFLOP a face at the speed of the bfloat16 matrix product",
        value=rate(synchronised(partial(cascade, ours, patches), device), FACES),
        unit="faces/s",
        peer="patch by patch in eager float32",
        peer_value=slow,
        limit=peak(torch.bfloat16, device) / per_face,
        device=describe_device(device),
        threads=torch.get_num_threads(),
    )


def _network(width: float, device: torch.device) -> tuple[Descriptor, bytes]:
    """A network with random weights, which take as long as trained ones, and its weights as a file has them."""
    torch.manual_seed(0)
    network = Descriptor(width).eval().requires_grad_(False)
    return network.to(device), save(network.state_dict())


# Regression --------------------------------------------------------------------------------------------------------------------------


def ridge() -> Measurement:
    """The regression of a stage, all 136 outputs."""
    config, device = CONFIGS["cpu"], choose_device("auto")
    patches, targets = patches_of(config, FITTED_FACES, STARTS, device)
    network, _ = _network(config.network.width, device)
    features = _features(DeepFeatures(network), patches).view(len(targets), -1)
    penalty = config.penalty * regression.mean_square(features)
    fit = partial(regression.ridge, features, targets, penalty, bias=False)
    outputs = targets.shape[1]
    usual, tight = (one_output(features, targets, penalty, tolerance) for tolerance in (1e-3, TIGHT))
    expected = tight()
    double = regression.ridge(features.double(), targets[:, :1].double(), penalty, bias=False).weights[:, 0]
    single = fit().weights[:, 0]
    return Measurement(
        f"regression of a stage, {features.shape[0]} samples, {features.shape[1]} features, {outputs} outputs, in closed form, float32; its weights "
        f"differ from LIBLINEAR's at tolerance {TIGHT:g} by {distance(single, expected):.1e} of their length, those of float64 by "
        f"{distance(double, expected):.1e}, LIBLINEAR's at its own tolerance by {distance(usual(), expected):.1e}; "
        "limit: its operations, with half of the symmetric matrix, at the speed of the float32 matrix product",
        value=rate(synchronised(fit, device), outputs),
        unit="outputs/s",
        peer="LIBLINEAR, -s 11 -p 0, one output after the other",
        peer_value=rate(usual, 1),
        limit=outputs * peak(torch.float32, device) / _operations(*features.shape, outputs),
        device=describe_device(device),
        threads=torch.get_num_threads(),
    )


def one_output(
    features: Tensor, targets: Tensor, penalty: float, tolerance: float
) -> Callable[[], np.ndarray]:
    """A function that fits the first output by LIBLINEAR; the samples have its form before."""
    solver = regression.Liblinear(features.double().cpu().numpy(), 1 / (2 * penalty), tolerance)
    return partial(solver.weights, targets[:, 0].double().cpu().numpy())


def distance(weights: Tensor | np.ndarray, expected: np.ndarray) -> float:
    """Of weights from those that are expected, as a share of their length."""
    difference = np.asarray(torch.as_tensor(weights).cpu(), np.float64) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected))


def _features(features: Features, patches: Patches) -> Tensor:
    """Those of the last stage, some crops at a time."""
    parts = zip(*(part.split(FACES) for part in patches), strict=True)
    return torch.cat([features(*part, STAGES[-1]) for part in parts])


def _operations(samples: int, dimension: int, outputs: int) -> float:
    """Of the normal matrix of the samples, half of which follows from the other, its factor, and the weights."""
    return (
        dimension * samples**2 + samples**3 / 3 + 2 * samples**2 * outputs + 2 * dimension * samples * outputs
    )
