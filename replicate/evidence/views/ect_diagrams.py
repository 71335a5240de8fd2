"""Diagrams of the ECT chapter: the three steps, the layers of the network with their counts, the Inception module; read off the modules."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn
from torch.nn import functional

from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE
from replicate.evidence.views.diagrams import arrow, bent, box, diagram, layer_block, record
from replicate.methods.ect import FCN, ECTConfig, Inception, upsampled

PRIMARY, FUSION, UPSAMPLE = "PrimaryNet", "FusionNet", "UpsampleNet"
COLOURS = {PRIMARY: PALETTE[0], FUSION: PALETTE[1], UPSAMPLE: PALETTE[2]}
_PROBE = 32  # side of the image that is sent through the network: layers are alike at every side


# Fig. 1 ---------------------------------------------------------------------------------------------------------------------------


def outline(run: Experiment) -> Figure:
    """Fig. 1: estimation, correction, tuning."""
    figure, ax = diagram((9.6, 4.6), (0, 11.5), (0, 5.4))
    for x, width, words, colour in (
        (0.1, 2.9, "1  Estimation", PALETTE[0]),
        (3.7, 2.9, "2  Correction", PALETTE[1]),
        (7.3, 3.8, "3  Tuning", PALETTE[2]),
    ):
        ax.add_patch(
            Rectangle((x, 1.15), width, 4.15, fill=False, edgecolor=colour, linewidth=1.2, linestyle=":")
        )
        ax.text(x + 0.12, 5.08, words, color=colour, fontsize=10, weight="bold", va="center")
    for x, y, words, colour in (
        (0.3, 4.1, "image $I$", PALETTE[6]), (0.3, 3.2, "FCN (Fig. 2)", PALETTE[0]), (0.3, 2.3, r"response maps $\{M_i\}$", PALETTE[0]),
        (0.3, 1.4, "peaks: coarse shape $s$", PALETTE[0]), (3.9, 4.1, "patches around the peaks", PALETTE[1]),
        (3.9, 3.2, "confidence $w_i$, Eq. 15", PALETTE[1]), (3.9, 2.3, "weighted fit $p_0$, Eq. 14", PALETTE[1]),
        (3.9, 1.4, "initial shape $s_0$", PALETTE[1]), (7.9, 4.1, "patches around $s_k$", PALETTE[2]),
        (7.9, 3.2, "$w_i$, Eq. 15; shift $v_i$, Eq. 9", PALETTE[2]), (7.9, 2.3, r"update $\Delta p$, Eq. 8", PALETTE[2]),
        (7.9, 1.4, r"$s_{k+1} = \bar{s} + S\,p_{k+1}$", PALETTE[2]),
    ):  # fmt: skip
        box(ax, x, y, 2.5, 0.6, words, colour, size=8.5)
        if y > 2:
            arrow(ax, (x + 1.25, y), (x + 1.25, y - 0.3))
    box(ax, 3.9, 0.15, 6.5, 0.6, r"point distribution model: mean $\bar{s}$, bases $S$, variances $\Lambda$", PALETTE[3])  # fmt: skip
    bent(ax, [(5.15, 0.75), (5.15, 1.02), (3.55, 1.02), (3.55, 2.6), (3.9, 2.6)])
    bent(ax, [(7.55, 0.75), (7.55, 2.6), (7.9, 2.6)])
    bent(ax, [(2.8, 1.7), (3.2, 1.7), (3.2, 4.25), (3.9, 4.25)])  # peaks
    bent(ax, [(2.8, 2.6), (3.35, 2.6), (3.35, 4.55), (3.9, 4.55)])  # maps
    bent(ax, [(6.4, 1.7), (6.95, 1.7), (6.95, 4.25), (7.9, 4.25)])  # the initial shape
    bent(ax, [(3.35, 4.55), (3.35, 4.85), (7.1, 4.85), (7.1, 4.55), (7.9, 4.55)])  # maps
    bent(ax, [(10.4, 1.7), (10.75, 1.7), (10.75, 4.4), (10.4, 4.4)])  # the loop
    ax.text(10.8, 3.0, "$k + 1$", rotation=90, ha="left", va="center", fontsize=8)
    arrow(ax, (10.75, 1.7), (11.45, 1.7))
    ax.text(11.3, 1.78, "$s$", ha="center", va="bottom", fontsize=10)
    figure.set_label(
        "Three groups of boxes. Estimation: the network makes response maps of the image, their peaks are the coarse shape. Correction: "
        "patches around the peaks give a confidence for each landmark, and the point distribution model is fitted with these weights. "
        "Tuning: patches around the current shape give confidences and mean shifts, which update the model's parameters, again and again."
    )
    return record(run, "ECT-F1", "the three steps", figure)


# Fig. 2a --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """One layer as it was seen at work: channels and side of what goes in and comes out, filters, number of parameters."""

    part: str
    name: str
    filters: tuple[str, ...]
    inside: tuple[int, int]
    outside: tuple[int, int]
    parameters: int


def layers(config: ECTConfig, points: int = 68) -> list[Layer]:
    """Fig. 2a as the network is, by sending an image through it."""
    network = FCN(config, points).eval()
    named = [
        (f"conv{n}", layer) for n, layer in enumerate((*network.stem, *network.context, network.conv8), 1)
    ]
    fusion = [layer for layer in (*network.fusion, network.conv5_fusion) if layer is not None]
    named += [(f"conv{n}_fusion", layer) for n, layer in enumerate(fusion, 1)]
    found: list[Layer] = []

    def look(name: str, layer: nn.Module, x: torch.Tensor, out: torch.Tensor) -> None:
        shape_in, shape_out = _shape(x, config), _shape(out, config)
        if found and found[-1].outside[1] > shape_in[1]:
            number = 1 + sum(one.name.startswith("pool") for one in found)
            found.append(Layer(PRIMARY, f"pool{number}", ("max (2, 2)",), found[-1].outside, shape_in, 0))
        part = FUSION if name.endswith("fusion") else PRIMARY
        found.append(Layer(part, name, _filters(layer), shape_in, shape_out, _count(layer)))

    for name, layer in named:
        layer.register_forward_hook(lambda module, given, out, name=name: look(name, module, given[0], out))
    with torch.inference_mode():
        small = network(torch.zeros(1, 3, _PROBE, _PROBE))[-1]
        large = upsampled(small)
    found.append(Layer(UPSAMPLE, "bilinear", ("× 4",), _shape(small, config), _shape(large, config), 0))
    return found


def layer_table(config: ECTConfig, points: int = 68) -> pd.DataFrame:
    """The layers as a table: part, layer, filters as Fig. 2 writes them, shape in, shape out, parameters."""
    lines = [
        (one.part, one.name, " ".join(one.filters), _words(one.inside), _words(one.outside), f"{one.parameters:,}")
        for one in layers(config, points)
    ]  # fmt: skip
    columns = ["part", "layer", "filters (kernel, stride, dilation)", "in", "out", "parameters"]
    return pd.DataFrame(lines, columns=columns)


def parameter_counts(config: ECTConfig, points: int = 68) -> dict[str, int]:
    """Learnt numbers of each part and of all: metric to count."""
    found = layers(config, points)
    parts = {part: sum(one.parameters for one in found if one.part == part) for part in COLOURS}
    return {f"parameters, {part}": count for part, count in parts.items()} | {
        f"FCN parameters ({points} points)": sum(parts.values())
    }


def network_outline(run: Experiment, config: ECTConfig) -> Figure:
    """Fig. 2a: the layers of a network of `config`, drawn from `layers`."""
    found = {one.name: one for one in layers(config)}
    figure, ax = diagram((10.5, 4.9), (-0.2, 13.8), (-0.1, 6.4))
    places = {f"conv{n}": (1.5 * n, 4.6) for n in range(1, 9)}
    places |= {f"conv{n}_fusion": (1.5 * n + 3, 1.55) for n in range(1, 6)} | {"bilinear": (12, 1.55)}
    joined, size = found["conv1_fusion"].inside, config.input_size
    layer_block(ax, (0, 4.6), _half(size), "image", size, 3)
    layer_block(ax, (3, 1.55), _half(joined[1]), "concat", joined[1], joined[0])
    for name, place in places.items():
        one = found[name]
        channels, side = one.outside
        layer_block(ax, place, _half(side), name, side, channels, one.filters, COLOURS[one.part])
    _connect(ax, places)
    for number, part in enumerate(COLOURS):
        total = sum(one.parameters for one in found.values() if one.part == part)
        words = f"{part}\n{total:,} parameters"
        ax.text(0, 2.4 - 0.7 * number, words, color=COLOURS[part], fontsize=8, va="center")
    for name in ("conv8", "conv5_fusion", "bilinear"):
        x, y = places[name]
        low = y - _half(found[name].outside[1]) - 0.45
        ax.text(x + 0.45, low, "loss, Eq. 10", ha="center", va="top", fontsize=7.5, style="italic")
    figure.set_label(_network_in_words(found))
    return record(run, "ECT-F2a", "the network in three parts", figure)


def _half(side: int) -> float:
    """Half the height of a block for maps of a side."""
    return 0.6 + 0.17 * float(np.log2(side / 32))


def _connect(ax: Axes, places: dict[str, tuple[float, float]]) -> None:
    """The arrows of Fig. 2a."""
    for row in (
        [(0, 4.6), *(places[f"conv{n}"] for n in range(1, 9))],
        [(3, 1.55), *(places[f"conv{n}_fusion"] for n in range(1, 6)), places["bilinear"]],
    ):
        for (x, y), (following, _) in pairwise(row):
            arrow(ax, (x + 0.9, y), (following, y))
    x3, x7 = places["conv3"][0] + 1.15, places["conv7"][0] + 1.15
    ax.plot([x3, x3], [4.6, 3.15], color="0.25", linewidth=1.2)
    bent(ax, [(x7, 4.6), (x7, 3.15), (2.7, 3.15), (2.7, 1.55), (3, 1.55)])
    for x in (places["conv1"][0], places["conv2"][0]):
        ax.text(x + 1.2, 4.66, "pool", ha="center", va="bottom", fontsize=6.5)


def _network_in_words(found: dict[str, Layer]) -> str:
    parts = {
        part: [
            f"{one.name} {one.outside[0]}" for one in found.values() if one.part == part and one.parameters
        ]
        for part in (PRIMARY, FUSION)
    }
    return (
        f"Blocks in two rows, joined by arrows. PrimaryNet, layers with their output channels: {', '.join(parts[PRIMARY])}. FusionNet reads "
        f"conv3 and conv7 together: {', '.join(parts[FUSION])}. UpsampleNet enlarges the last maps four times. Losses are taken after each part."
    )


def _shape(x: torch.Tensor, config: ECTConfig) -> tuple[int, int]:
    return x.shape[1], x.shape[-1] * config.input_size // _PROBE


def _words(shape: tuple[int, int]) -> str:
    return f"{shape[0]} @ {shape[1]}×{shape[1]}"


def _filters(layer: nn.Module) -> tuple[str, ...]:
    """As Fig. 2 writes them: kernel, stride, and d with the dilation where there is any."""
    convolutions = layer.branches if isinstance(layer, Inception) else [layer]
    several = len(convolutions) > 1
    return tuple(
        f"({one.kernel_size[0]}, {one.stride[0]}{f', d{one.dilation[0]}' * several})" for one in convolutions
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# Fig. 2b --------------------------------------------------------------------------------------------------------------------------


def inception_outline(run: Experiment, config: ECTConfig) -> Figure:
    """Fig. 2b: what each branch of the first Inception module, and of one with mixed kernels, reads around a pixel."""
    network = FCN(config, 68)
    shown = {"conv4": network.context[0], "conv2_fusion": network.fusion[1]}
    figure, ax = diagram((9.6, 4.8), (0, 12.8), (0, 6.2))
    for (name, module), y in zip(shown.items(), (3.4, 0.2), strict=True):
        channels = module.branches[0].in_channels
        box(ax, 0.05, y + 0.75, 1.5, 1.0, f"input of\n{name}\n{channels} channels", "0.5", size=8)
        out = 0
        for number, branch in enumerate(module.branches):
            x = 2.35 + 1.95 * number
            _taps(ax, x, y + 0.5, branch, PALETTE[number])
            bent(ax, [(1.55, y + 1.25), (1.95, y + 1.25), (1.95, y + 2.62), (x + 0.75, y + 2.62), (x + 0.75, y + 2.4)])  # fmt: skip
            bent(ax, [(x + 0.75, y + 0.05), (x + 0.75, y - 0.08), (10.2, y - 0.08), (10.2, y + 1.25), (10.6, y + 1.25)])  # fmt: skip
            out += branch.out_channels
        box(ax, 10.6, y + 0.75, 2.1, 1.0, f"concatenated, ReLU\n{out} channels", "0.5", size=8)
    figure.set_label(
        "Two Inception modules. Every branch reads the same input; a grid of 17 by 17 pixels shows which pixels its filter reads around "
        "the middle one. "
        + " ".join(f"{name}: {'; '.join(_branch_words(b) for b in m.branches)}." for name, m in shown.items())
        + " Their outputs are concatenated."
    )
    return record(run, "ECT-F2b", "Inception module", figure)


def footprint(branch: nn.Conv2d, side: int = 17) -> np.ndarray:
    """(side, side) bool: the pixels that a convolution reads for the middle one."""
    dot = torch.zeros(1, 1, side, side)
    dot[0, 0, side // 2, side // 2] = 1
    ones = torch.ones(1, 1, *branch.kernel_size)
    return functional.conv2d(dot, ones, padding=branch.padding, dilation=branch.dilation)[0, 0].numpy() > 0


def _taps(ax: Axes, x: float, y: float, branch: nn.Conv2d, colour: str) -> None:
    read = footprint(branch)
    size = 1.5 / len(read)
    ax.add_patch(Rectangle((x, y), 1.5, 1.5, facecolor="white", edgecolor="0.6", linewidth=0.8))
    for row, column in np.argwhere(read):
        ax.add_patch(Rectangle((x + column * size, y + row * size), size, size, facecolor=colour))
    ax.text(x + 0.75, y + 1.54, _branch_words(branch), ha="center", va="bottom", fontsize=7.5)
    ax.text(
        x + 0.75, y - 0.06, f"{branch.out_channels} channels,\n{_count(branch):,} parameters",
        ha="center", va="top", fontsize=7,
    )  # fmt: skip


def _branch_words(branch: nn.Conv2d) -> str:
    return f"{branch.kernel_size[0]}×{branch.kernel_size[1]}, dilation {branch.dilation[0]}"
