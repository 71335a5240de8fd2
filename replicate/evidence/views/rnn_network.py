"""RNN's network, counted: layers of both versions (F2, T7), multiplications beside VGG-19's (S19, C20), how often landmarks share a cell, weights
of the LSTM."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from replicate.errors import ReplicateError
from replicate.evidence import published
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.rows import Row
from replicate.faces.faceset import FaceSet
from replicate.geometry import apply_transform
from replicate.methods import rnn, rnn_training
from replicate.methods.rnn import GATES, LSTM, RNN, ConvDeconv, RNNConfig
from replicate.metrics import Comparison

POINTS = 68
BILLION, MILLION = 1e9, 1e6


# Layers (F2, T7) --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """One layer as it was seen at work.

    Attributes
    ----------
    name : str
        As the paper has it: ``"conv3_1"``, ``"max pool2"``, ``"deconv6"``.
    kernel, stride, padding : int
        In pixels of what goes in.
    inside, outside : (int, int)
        Channels and side of what goes in and comes out.
    parameters, multiplications : int
        Learnt numbers, and multiplications for one image.
    """

    name: str
    kernel: int
    stride: int
    padding: int
    inside: tuple[int, int]
    outside: tuple[int, int]
    parameters: int
    multiplications: int


def layers(config: RNNConfig, points: int = POINTS) -> list[Layer]:
    """The conv-deconv network and conv8 as they are, by sending an image without content through them: nothing is computed."""
    with torch.device("meta"):
        network = RNN(config, torch.empty(1, points, 2), torch.empty(points, 2))
        image = torch.empty(1, 3, config.size, config.size)
    named = {**_block_names(network.features), "conv8": network.conv8}
    found: list[Layer] = []

    def look(name: str, layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, out: Tensor) -> None:
        if found and found[-1].outside[1] > x.shape[-1]:
            found.append(_pooling(found, x.shape[-1]))
        found.append(_seen(name, layer, x, out))

    for name, layer in named.items():
        layer.register_forward_hook(lambda layer, given, out, name=name: look(name, layer, given[0], out))
    with torch.inference_mode():
        network.responses(network.features(image))
    return found


def _block_names(features: ConvDeconv) -> dict[str, nn.Conv2d | nn.ConvTranspose2d]:
    """The layers that learn, by name: those of a block with several are numbered."""
    named = {}
    for number, block in enumerate(features.blocks, start=1):
        several = [layer for layer in block if isinstance(layer, nn.Conv2d)]
        for place, layer in enumerate(several, start=1):
            named[f"conv{number}_{place}" if len(several) > 1 else f"conv{number}"] = layer
    return named | {"deconv6": features.deconv6, "deconv7": features.deconv7}


def _pooling(before: list[Layer], side: int) -> Layer:
    """The max pooling between the last layer and one that gets maps of `side`."""
    channels, larger = before[-1].outside
    name = f"max pool{1 + sum(one.name.startswith('max') for one in before)}"
    factor = larger // side
    return Layer(name, factor, factor, 0, (channels, larger), (channels, side), 0, 0)


def _seen(name: str, layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, out: Tensor) -> Layer:
    kernel, stride, padding = (value[0] for value in (layer.kernel_size, layer.stride, layer.padding))
    # each weight once for every place: where a convolution writes, or from where a deconvolution reads
    places = x[0, 0].numel() if isinstance(layer, nn.ConvTranspose2d) else out[0, 0].numel()
    return Layer(
        name, kernel, stride, padding, (x.shape[1], x.shape[-1]), (out.shape[1], out.shape[-1]),
        sum(one.numel() for one in layer.parameters()), layer.weight.numel() * places,
    )  # fmt: skip


def layer_table(config: RNNConfig) -> pd.DataFrame:
    """All layers of a network: kernel, stride and padding, shapes in and out, parameters and multiplications."""
    lines = [
        (one.name, _words(one), _shape(one.inside), _shape(one.outside), f"{one.parameters:,}", f"{one.multiplications / BILLION:.2f}")
        for one in layers(config)
    ]  # fmt: skip
    columns = ["layer", "filter / stride / padding", "in", "out", "parameters", "multiplications, billions"]
    return pd.DataFrame(lines, columns=columns)


def _words(one: Layer) -> str:
    """As Table VII writes it."""
    return f"{one.kernel} × {one.kernel} / {one.stride} / {one.padding}"


def _shape(shape: tuple[int, int]) -> str:
    return f"{shape[0]} × {shape[1]} × {shape[1]}"


def printed_shapes() -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Table VII: filter, stride and padding, and the shape of the output, by layer."""
    found = published.load("rnn")
    found = found[found["artefact"] == "RNN-T7"]
    lines: dict[str, dict[str, tuple[int, ...]]] = {}
    for one in found.itertuples():
        lines.setdefault(one.setting, {})[one.metric] = tuple(map(int, re.findall(r"\d+", one.value)))
    return {name: tuple(cells.values()) for name, cells in lines.items()}


def shape_table() -> pd.DataFrame:
    """T7: the VGG-S version at the paper's size beside what Table VII prints.

    Raises
    ------
    ReplicateError
        If a layer is not the printed one, or there are others.
    """
    printed, lines = printed_shapes(), []
    here = [one for one in layers(RNNConfig("VGG-S")) if one.name != "conv8"]
    if [one.name for one in here] != list(printed):
        raise ReplicateError(f"Table VII has the layers {', '.join(printed)}; the network has others")
    for one in here:
        (kernel, _, stride, padding), (channels, side, _) = printed[one.name]
        if (one.kernel, one.stride, one.padding, *one.outside) != (kernel, stride, padding, channels, side):
            raise ReplicateError(f"{one.name}: the network has {one}, Table VII prints {printed[one.name]}")
        lines.append((one.name, _words(one), _shape(one.outside), f"{kernel} × {kernel} / {stride} / {padding}", _shape((channels, side))))  # fmt: skip
    columns = ["layer", "filter / stride / padding", "output", "Table VII", "Table VII, output"]
    return pd.DataFrame(lines, columns=columns)


def shape_rows(run: Experiment) -> list[Row]:
    """T7 as numbers: channels and side of what each layer of the VGG-S version gives, and its parameters."""
    made = []
    for one in layers(RNNConfig("VGG-S")):
        counts = {
            "output channels": one.outside[0],
            "output side": one.outside[1],
            "parameters": one.parameters,
        }
        made += run.count_rows("RNN-T7", f"VGG-S conv-deconv, {one.name}", counts)
    return made


def network_rows(run: Experiment) -> list[Row]:
    """F2 as numbers: convolutions, channels of the deconvolutions and parameters of both versions."""
    made = []
    for backbone in reversed(rnn.BACKBONES):
        found = [one for one in layers(RNNConfig(backbone)) if one.name != "conv8"]
        counts = {
            "conv layers": sum(one.name.startswith("conv") for one in found),
            "max pooling layers": sum(one.name.startswith("max") for one in found),
            "deconv layers": sum(one.name.startswith("deconv") for one in found),
            "deconv channels": found[-1].outside[0],
            "parameters": sum(one.parameters for one in found),
        }
        made += run.count_rows("RNN-F2", f"RNN, {backbone}", counts)
    return made


# What they cost (S19, C20) ----------------------------------------------------------------------------------------------------------------

PLAIN, WITHOUT_POOLS = "VGG-19 without dense layers", "VGG-19 without dense and pooling layers"
PROPOSED, SMALL = "conv-deconv network from VGG-19", "conv-deconv network from VGG-S"
PLAIN_POOLS = 4  # §III-A: those before conv5_4


def operations(size: int) -> dict[str, int]:
    """Multiplications of the convolutions and deconvolutions for one image of `size`, by network."""
    found = {
        PLAIN: sum(one.multiplications for one in plain_layers("VGG-19", PLAIN_POOLS, size)),
        WITHOUT_POOLS: sum(one.multiplications for one in plain_layers("VGG-19", 0, size)),
    }
    for name, backbone in ((PROPOSED, "VGG-19"), (SMALL, "VGG-S")):
        *features, conv8 = layers(RNNConfig(backbone, scale=size / RNNConfig.nominal))
        found[name] = sum(one.multiplications for one in features)
        found[f"{name}, with conv8"] = found[name] + conv8.multiplications
    return found


def plain_layers(backbone: str, pools: int, size: int) -> list[Layer]:
    """The convolutions of a network without deconvolutions whose first `pools` blocks are followed by pooling."""
    with torch.device("meta"):
        features, x = ConvDeconv(RNNConfig(backbone)), torch.empty(1, 3, size, size)
    names = {layer: name for name, layer in _block_names(features).items()}
    found: list[Layer] = []
    for number, block in enumerate(features.blocks):
        for layer in block:
            before, x = x, layer(x)
            if isinstance(layer, nn.Conv2d):
                found.append(_seen(names[layer], layer, before, x))
        if number < pools:
            x = functional.max_pool2d(x, 2)
    return found


def operation_rows(run: Experiment, size: int) -> list[Row]:
    """S19: multiplications of the four networks at an input of `size` pixels, in billions, and as multiples of VGG-19's."""
    counts = operations(size)
    made = []
    for name, count in counts.items():
        made += run.count_rows("RNN-S19", name, {f"multiplications, {size} px": count / BILLION}, "billions")
        made += run.count_rows("RNN-S19", name, {f"times VGG-19, {size} px": count / counts[PLAIN]}, "x")
    return made


def judge_operations(run: Experiment, size: int) -> Verdict:
    """Judge and record C20 on both versions; counts are exact, so their intervals have no width."""
    counts = {name: count / BILLION for name, count in operations(size).items()}
    right = counts[PLAIN]
    exact = {
        name: Comparison(counts[name], right, *[counts[name] - right] * 3, float(counts[name] == right))
        for name in (PROPOSED, SMALL)
    }
    times = ", ".join(f"{name}: {counts[name] / right:.2g} times" for name in exact)
    return run.judge_comparison("RNN-C20", exact, note=f"billions at {size} px; {times}")


# Landmarks that share a cell (S19) --------------------------------------------------------------------------------------------------------

INPUT = 224  # pixels: §III-A's example
NEAR = 10.0  # pixels: "a distance less than 10 pixel"


def sharing_probability(distance: float, cell: float, within: bool = False) -> float:
    """Probability that two points a `distance` apart, which way and where being left to chance, lie in one square cell.

    Of points ``(d cos t, d sin t)`` apart, the share ``(1 - a |cos t|) (1 - a |sin t|)`` lies in one cell, ``a = d / cell``; its mean over t is
    ``1 - 4 a / pi + a^2 / pi``.

    Parameters
    ----------
    within : bool
        Of a point drawn anywhere within the distance, not exactly at it.

    Raises
    ------
    ReplicateError
        For a distance larger than a cell.
    """
    if distance > cell:
        raise ReplicateError(f"distance: got {distance:g}, expected no more than the cell's side, {cell:g}")
    a = distance / cell
    return 1 - 4 * a / math.pi * (2 / 3 if within else 1) + a**2 / math.pi * (1 / 2 if within else 1)


def framed_points(faces: FaceSet, size: int = INPUT) -> np.ndarray:
    """True points (N, L, 2) of faces in an input of `size` pixels, cropped as RNN crops."""
    config = RNNConfig(scale=size / RNNConfig.nominal)
    canvases = rnn_training.framed(faces.images, faces.boxes, config)
    return apply_transform(canvases.from_image, torch.as_tensor(faces.points, dtype=torch.float32)).numpy()


def sharing(points: np.ndarray, cell: int) -> dict[str, float]:
    """How often landmarks (N, L, 2) share a cell, in per cent: of pairs that lie nearer than `NEAR`, and of landmarks with any other one."""
    cells = np.floor(
        (points + 0.5) / cell
    )  # the first cell begins half a pixel before the middle of the first pixel
    same = (cells[:, :, None] == cells[:, None]).all(-1)
    near = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1) < NEAR
    upper = np.triu(np.ones(same.shape[1:], bool), 1)
    pairs = near & upper
    shared = (same & ~np.eye(same.shape[1], dtype=bool)).any(2)
    return {
        f"pairs within {NEAR:g} px in one cell": 100 * (same & pairs).sum() / pairs.sum(),
        "landmarks that share their cell": 100 * shared.mean(),
    }


def sharing_rows(run: Experiment, points: np.ndarray) -> list[Row]:
    """S19: `sharing` on the last maps of VGG-19, of the conv-deconv network before its deconvolutions and after them."""
    made = []
    for name, cell in (
        (f"conv5_4 of VGG-19, {INPUT // 16} × {INPUT // 16}", 16),
        (f"conv5_4 of the conv-deconv network, {INPUT // 4} × {INPUT // 4}", 4),
        (f"deconv7, {INPUT} × {INPUT}", 1),
    ):
        found = run.count_rows("RNN-S19", name, sharing(points, cell), "%")
        made += [replace(row, images=len(points)) for row in found]
    return made


def sharing_by_distance(cell: int = 16) -> dict[str, float]:
    """The same by the closed form, in per cent: for points `NEAR` apart, and nearer."""
    exactly, nearer = (100 * sharing_probability(NEAR, cell, within) for within in (False, True))
    return {f"at {NEAR:g} px": exactly, f"anywhere within {NEAR:g} px": nearer}


# Weights of the LSTM (F6) -----------------------------------------------------------------------------------------------------------------

WEIGHTS = "weights of the LSTM"


def pooled_channels(pooled: tuple[str, ...]) -> int:
    """Channels of the features of a landmark, at full width."""
    with torch.device("meta"):
        channels = ConvDeconv(RNNConfig()).channels
    return sum(channels[name] for name in pooled)


def lstm_weights(points: int, channels: int, gates: str, rank: int = RNNConfig.rank) -> int:
    """How many numbers the recurrent features learn; nothing is allocated."""
    with torch.device("meta"):
        return sum(one.numel() for one in LSTM(points, channels, gates, rank).parameters())


def weight_rows(run: Experiment, pooled: Mapping[str, tuple[str, ...]]) -> list[Row]:
    """Millions of weights of each kind of gates, for each set of pooled maps (by label) at full width and 68 landmarks."""
    return [
        weights_row(run, f"{label}, gates {gates}", lstm_weights(POINTS, pooled_channels(names), gates))
        for label, names in pooled.items()
        for gates in GATES
    ]


def weights_row(run: Experiment, method: str, weights: int) -> Row:
    """One count, in millions."""
    [row] = run.count_rows("RNN-F6", method, {WEIGHTS: weights / MILLION}, "millions")
    return row


def weight_table(rows: list[Row]) -> pd.DataFrame:
    """`weight_rows` with a column for each kind of gates."""
    lines: dict[str, list[str]] = {}
    for row in rows:
        lines.setdefault(row.method.rpartition(", gates ")[0], []).append(f"{row.value:,.1f}")
    return pd.DataFrame([(label, *cells) for label, cells in lines.items()], columns=["pooled from", *GATES])
