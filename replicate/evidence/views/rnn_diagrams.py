"""Diagrams of the RNN chapter: the whole (F1), the network (F2), pooling at work (F5), the unrolled LSTM (F6), a step with and without it (F7), the
two stages of training (F10)."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch.nn import functional

from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE
from replicate.evidence.views.diagrams import arrow, bent, box, diagram, layer_block, record
from replicate.evidence.views.rnn_network import Layer, layers
from replicate.methods.rnn import Pooled, RNNConfig

FEATURES, START, RECURRENT, POOLING, PLAIN = *PALETTE[:4], "0.5"


# Fig. 1 -----------------------------------------------------------------------------------------------------------------------------------


def outline(run: Experiment, config: RNNConfig) -> Figure:
    """Fig. 1: conv-deconv network, initialization network, recurrent regression, and what pooling does."""
    figure, ax = diagram((10.4, 5.4), (0, 14.6), (0, 7.6))
    _part(ax, 0.1, 4.6, 5.0, 2.9, "A  conv-deconv network", FEATURES)
    _part(ax, 5.5, 4.6, 9.0, 2.9, "B  initialization network", START)
    _part(ax, 0.1, 0.1, 10.4, 4.1, "C  deep recurrent regression", RECURRENT)
    _part(ax, 10.9, 0.1, 3.6, 4.1, "D  pooling (SIP)", POOLING)
    box(ax, 0.3, 5.3, 1.2, 1.0, f"image\n{config.size} × {config.size}", PLAIN, size=8)
    box(ax, 1.9, 5.3, 1.4, 1.0, "convolutions,\ndeconvolutions", FEATURES, size=6.8)
    box(ax, 3.7, 5.3, 1.2, 1.0, f"deconv7\n{config.size} × {config.size}", FEATURES, size=8)
    box(ax, 5.8, 5.3, 1.5, 1.0, "conv8: a map\nper landmark", START, size=8)
    box(ax, 7.9, 5.3, 1.8, 1.0, "largest values:\npredicted shape $S$", START, size=7.3)
    box(ax, 10.3, 5.3, 2.2, 1.0, f"nearest of {config.candidates}\ncandidates, Eq. 10", START, size=8)
    for start, end in (((1.5, 5.8), (1.9, 5.8)), ((3.3, 5.8), (3.7, 5.8)), ((4.9, 5.8), (5.8, 5.8)), ((7.3, 5.8), (7.9, 5.8)), ((9.7, 5.8), (10.3, 5.8))):  # fmt: skip
        arrow(ax, start, end)
    arrow(ax, (12.5, 5.8), (13.3, 5.8))
    ax.text(13.4, 5.8, "$S^0$", va="center", fontsize=11)
    _steps(ax, config)
    _pooling_in_words(ax, config)
    figure.set_label(
        "Four groups of boxes. A: convolutions and deconvolutions make maps of the image's size, deconv7. B: conv8 has a map for each landmark; the "
        f"places of its largest values are a shape, and the nearest of {config.candidates} candidate shapes is the start. C: in each of {config.steps} "
        "steps, features are pooled from deconv7 at the current landmarks, an LSTM adds what it remembers of the steps before, and a linear "
        "regression of the sum moves the shape. D: pooling takes the largest value of each channel in a box around each landmark."
    )
    return record(run, "RNN-F1", "the architecture", figure)


def _part(ax: Axes, x: float, y: float, width: float, height: float, words: str, colour: str) -> None:
    ax.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1.2, linestyle=":"))
    ax.text(x + 0.15, y + height - 0.3, words, color=colour, fontsize=9.5, weight="bold", va="center")


def _steps(ax: Axes, config: RNNConfig) -> None:
    """Part C: the first two steps and the last one."""
    ax.text(0.35, 2.0, "$S^0$", va="center", ha="center", fontsize=10)
    for x, k in ((0.95, "0"), (4.05, "1"), (7.15, "K-1")):
        box(ax, x, 0.75, 1.5, 0.7, f"SIP: $F^{{{k}}}$", POOLING, size=8)
        box(ax, x, 1.95, 1.5, 0.7, f"LSTM: $\\tilde{{F}}^{{{k}}}$", RECURRENT, size=8)
        box(ax, x + 1.75, 0.75, 0.75, 1.9, f"$R^{{{k}}}$\n$b^{{{k}}}$", RECURRENT, size=8.5)
        arrow(ax, (x + 0.75, 1.45), (x + 0.75, 1.95))
        arrow(ax, (x + 1.5, 1.1), (x + 1.75, 1.1))
        arrow(ax, (x + 1.5, 2.3), (x + 1.75, 2.3))
    ax.text(6.85, 1.7, "…", ha="center", va="center", fontsize=12)
    arrow(ax, (0.5, 1.85), (0.95, 1.3))
    arrow(ax, (3.45, 1.7), (4.05, 1.2))
    ax.text(3.78, 1.62, "$S^1$", ha="left", va="bottom", fontsize=9)
    arrow(ax, (9.65, 1.7), (10.05, 1.7))
    ax.text(10.25, 1.7, f"$S^{{{config.steps}}}$", ha="center", va="center", fontsize=10)
    bent(ax, [(1.7, 2.65), (1.7, 3.0), (4.8, 3.0), (4.8, 2.65)])
    bent(ax, [(4.8, 2.65), (4.8, 3.0), (6.6, 3.0)])
    bent(ax, [(7.0, 3.0), (7.9, 3.0), (7.9, 2.65)])
    ax.text(6.8, 3.0, "…", ha="center", va="center", fontsize=12)
    ax.text(3.25, 3.05, "memory", ha="center", va="bottom", fontsize=8)
    for x in (1.7, 4.8, 7.9):
        bent(ax, [(x, 0.35), (x, 0.75)])
    ax.plot([1.7, 9.0], [0.35, 0.35], color="0.25", linewidth=1.2)
    ax.text(9.05, 0.35, "deconv7", va="center", fontsize=8)


def _pooling_in_words(ax: Axes, config: RNNConfig) -> None:
    """Part D: a grid with the boxes of two landmarks."""
    ax.add_patch(Rectangle((11.2, 0.9), 2.2, 2.4, facecolor="white", edgecolor=FEATURES, linewidth=1.2))
    ax.add_patch(Rectangle((11.35, 0.75), 2.2, 2.4, facecolor="white", edgecolor=FEATURES, linewidth=1.2))
    for x, y in ((11.9, 2.4), (12.9, 1.6)):
        ax.add_patch(
            Rectangle((x - 0.3, y - 0.3), 0.6, 0.6, facecolor=POOLING, alpha=0.25, edgecolor=POOLING)
        )
        ax.plot(x, y, "o", color=RECURRENT, markersize=3.5)
    ax.text(12.45, 0.95, f"boxes {config.box:g} px wide", ha="center", va="center", fontsize=7.5)
    arrow(ax, (13.55, 2.0), (14.0, 2.0))
    ax.text(14.2, 2.0, "$F$", ha="center", va="center", fontsize=10)
    ax.text(12.7, 0.42, "largest value of each channel", ha="center", va="center", fontsize=7.5)


# Fig. 2 -----------------------------------------------------------------------------------------------------------------------------------


def network_outline(run: Experiment, config: RNNConfig) -> Figure:
    """Fig. 2: blocks of a network of `config`, drawn from `layers`."""
    found = layers(config)
    groups = _groups(found)
    figure, ax = diagram((10.5, 3.4), (-0.2, 1.45 * (len(groups) + 1)), (-0.5, 4.2))
    layer_block(ax, (0, 1.9), _half(config.size), "image", config.size, 3)
    for number, (name, part) in enumerate(groups.items(), start=1):
        last, several = part[-1], f", {len(part)} times" * (len(part) > 1)
        words = [f"{last.kernel} × {last.kernel}{several}"]
        colour = PLAIN if name.startswith("max") else START if name == "conv8" else FEATURES if name.startswith("conv") else RECURRENT  # fmt: skip
        layer_block(ax, (1.45 * number, 1.9), _half(last.outside[1]), name.removeprefix("max "), last.outside[1], last.outside[0], words, colour)  # fmt: skip
        arrow(ax, (1.45 * number - 0.55, 1.9), (1.45 * number, 1.9))
    total = sum(one.parameters for one in found)
    words = "; ".join(
        f"{one} {part[-1].outside[0]} channels, side {part[-1].outside[1]}" for one, part in groups.items()
    )
    figure.set_label(
        f"Blocks in a row, from the image of side {config.size} to conv8: {words}. {total:,} parameters in all. Maps shrink at the two max "
        "pooling layers and grow again at the two deconvolutions."
    )
    return record(run, "RNN-F2", f"the conv-deconv network from {config.backbone}", figure)


def _groups(found: list[Layer]) -> dict[str, list[Layer]]:
    """Layers by block: those of a block that follow one another are drawn as one."""
    groups: dict[str, list[Layer]] = {}
    for one in found:
        groups.setdefault(one.name.split("_")[0], []).append(one)
    return groups


def _half(side: int) -> float:
    """Half the height of a block for maps of a side."""
    return 0.7 + 0.24 * float(np.log2(side / 32))


# Fig. 5 -----------------------------------------------------------------------------------------------------------------------------------

_SIDE = 32  # cells of the map that is drawn


def pooling_at_work(run: Experiment, config: RNNConfig, seed: int = 4) -> Figure:
    """Fig. 5: the layer on random smooth maps: boxes of three landmarks, the largest values in them, and where the gradient goes."""
    maps, points = random_maps(3, seed), torch.tensor([[[8.0, 9.0], [22.0, 12.0], [15.0, 24.0]]])
    radius = config.radius("deconv7")
    values, gradient = pooled_with_gradient(maps, points, radius)
    figure, ax = diagram((10.0, 4.3), (0, 13.4), (-0.3, 5.6))
    for channel in range(3):
        x = 0.2 + 3.4 * channel
        ax.imshow(
            maps[0, channel].numpy(),
            extent=(x, x + 3, 1.6, 4.6),
            origin="upper",
            cmap="gray",
            interpolation="nearest",
        )
        ax.text(
            x + 1.5, 4.7, f"channel {channel + 1} of {len(maps[0])}", ha="center", va="bottom", fontsize=8.5
        )
        for number, (u, v) in enumerate(points[0].tolist()):
            low, high = (
                _place(x, u - radius - 0.5, v + radius + 0.5),
                _place(x, u + radius + 0.5, v - radius - 0.5),
            )
            ax.add_patch(Rectangle(low, high[0] - low[0], high[1] - low[1], fill=False, edgecolor=PALETTE[number], linewidth=1.6))  # fmt: skip
            ax.plot(*_place(x, u, v), "+", color=PALETTE[number], markersize=6)
            row, column = np.argwhere(_box_of(gradient[0, channel], u, v, radius) > 0)[0]
            ax.plot(*_place(x, u - radius + column, v - radius + row), "o", markerfacecolor="none", color=PALETTE[4], markersize=6)  # fmt: skip
            _cell(ax, (x + 0.15 + 0.95 * number, 0.55), f"{values[0, number, channel]:.1f}", PALETTE[number])
        arrow(ax, (x + 1.5, 1.55), (x + 1.5, 1.05))
    _vector(ax, values[0].flatten().tolist())
    side = 2 * radius + 1
    figure.set_label(
        f"Three random maps with the boxes of three landmarks, {side} by {side} cells each; a circle marks the largest value in each box, which is where "
        "the gradient goes. Below each map, these values; on the right, all of them in one vector, landmark after landmark."
    )
    return record(run, "RNN-F5", "shape-indexed pooling", figure)


def random_maps(channels: int, seed: int) -> torch.Tensor:
    """Smooth maps (1, channels, `_SIDE`, `_SIDE`) of values around 0."""
    noise = torch.randn(
        1, channels, _SIDE // 4 + 1, _SIDE // 4 + 1, generator=torch.Generator().manual_seed(seed)
    )
    smooth = functional.interpolate(noise, (_SIDE, _SIDE), mode="bicubic")
    return smooth.contiguous(memory_format=torch.channels_last)


def pooled_with_gradient(
    maps: torch.Tensor, points: torch.Tensor, radius: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the layer gives (N, L, C), and the gradient of the sum of all of it with respect to the maps (N, C, H, W)."""
    maps = maps.clone().requires_grad_()
    pooled = Pooled(maps)
    found = pooled.at(points, radius)
    [gradient] = torch.autograd.grad(found.sum() + 0 * pooled.maps.sum(), maps)
    return found.detach(), gradient


def _place(x: float, u: float, v: float) -> tuple[float, float]:
    """Where cell (u, v) of a map whose left edge is at `x` is drawn."""
    return x + 3 * (u + 0.5) / _SIDE, 4.6 - 3 * (v + 0.5) / _SIDE


def _box_of(values: torch.Tensor, u: float, v: float, radius: int) -> np.ndarray:
    x, y = round(u), round(v)
    return values[y - radius : y + radius + 1, x - radius : x + radius + 1].numpy()


def _cell(ax: Axes, place: tuple[float, float], words: str, colour: str) -> None:
    box(ax, *place, 0.8, 0.42, words, colour, size=8)


def _vector(ax: Axes, values: list[float]) -> None:
    """All features in a column."""
    height = 4.6 / len(values)
    for number, value in enumerate(values):
        top = 5.0 - height * (number + 1)
        box(ax, 11.6, top, 0.9, height, f"{value:.1f}", PALETTE[number // 3], size=7.5)
    arrow(ax, (10.5, 2.7), (11.5, 2.7))
    ax.text(12.05, 5.1, "$F$", ha="center", va="bottom", fontsize=10)


# Figs 6 and 7 -----------------------------------------------------------------------------------------------------------------------------


def unrolled(run: Experiment, config: RNNConfig) -> Figure:
    """Fig. 6: the LSTM at each step, with the same weights."""
    figure, ax = diagram((9.6, 2.9), (-0.4, 13.2), (-0.2, 3.9))
    ax.text(
        -0.2, 2.1, r"$\tilde{F}^{init} = 0$" + "\n" + r"$C^{init} = 0$", va="center", ha="left", fontsize=9
    )
    for number, k in enumerate(("0", "1", "K-2", "K-1")):
        x = 1.9 + 2.9 * number + 0.3 * (number > 1)
        box(ax, x, 1.4, 1.5, 1.4, "LSTM", RECURRENT, size=10)
        arrow(ax, (x + 0.75, 0.7), (x + 0.75, 1.4))
        ax.text(x + 0.75, 0.62, f"$F^{{{k}}}$", ha="center", va="top", fontsize=10)
        arrow(ax, (x + 0.75, 2.8), (x + 0.75, 3.4))
        ax.text(x + 0.75, 3.42, f"$\\tilde{{F}}^{{{k}}}$", ha="center", va="bottom", fontsize=10)
        left = x - (0.9 if number == 0 else 1.4 + 0.3 * (number == 2))
        for y, words in ((2.4, r"\tilde{F}"), (1.75, "C")):
            arrow(ax, (left, y), (x, y))
            if number:
                before = {"1": "0", "K-2": "K-3", "K-1": "K-2"}[k]
                ax.text(
                    (left + x) / 2,
                    y + 0.05,
                    f"${words}^{{{before}}}$",
                    ha="center",
                    va="bottom",
                    fontsize=8.5,
                )
    ax.text(6.45, 1.1, "…", ha="center", va="center", fontsize=14)
    ax.text(
        6.45, 0.05, f"$K$ = {config.steps} steps, the same weights in all of them", ha="center", fontsize=8.5
    )
    figure.set_label(
        f"The LSTM, drawn once for each of K = {config.steps} steps. Each step gets the shape-indexed features F of its shape, and the recurrent features "
        "and the cell of the step before, which are zero at first; it gives recurrent features and the cell to the next step."
    )
    return record(run, "RNN-F6", "the LSTM, unrolled", figure)


def blocks(run: Experiment) -> Figure:
    """Fig. 7: one step without and with recurrent features."""
    figure, ax = diagram((9.6, 4.0), (0, 13.2), (0, 5.5))
    _block(ax, 0.2, "A  without", recurrent=False)
    _block(ax, 6.9, "B  with recurrent features", recurrent=True)
    figure.set_label(
        "Two diagrams. A: the features F that are pooled at the shape S pass a fully connected layer with weights R and b, which gives the step that is "
        "added to S. B: the same, but an LSTM, which also gets what it gave in the step before, makes recurrent features of F, and the layer gets the sum of both."
    )
    return record(run, "RNN-F7", "a step without and with recurrent features", figure)


def _block(ax: Axes, x: float, words: str, *, recurrent: bool) -> None:
    ax.text(x, 5.2, words, fontsize=10, weight="bold", va="center")
    ax.text(x + 0.1, 0.9, "$S^k$", ha="center", va="center", fontsize=11)
    box(ax, x + 0.6, 1.6, 1.2, 0.8, "SIP", POOLING)
    bent(ax, [(x + 0.1, 1.15), (x + 0.1, 2.0), (x + 0.6, 2.0)])
    top = 3.6
    if recurrent:
        box(ax, x + 2.2, top - 0.4, 1.2, 0.8, "LSTM", RECURRENT)
        bent(ax, [(x + 1.8, 2.0), (x + 2.8, 2.0), (x + 2.8, top - 0.4)])
        arrow(ax, (x + 1.3, top + 0.2), (x + 2.2, top + 0.2))
        ax.text(x + 0.55, top, "$\\tilde{F}^{k-1}$\n$C^{k-1}$", ha="left", va="center", fontsize=9)
        arrow(ax, (x + 1.3, top - 0.2), (x + 2.2, top - 0.2))
        bent(ax, [(x + 3.4, top), (x + 3.75, top), (x + 3.75, 2.2)])
        ax.text(x + 3.8, 3.05, r"$\tilde{F}^k$", ha="left", va="center", fontsize=9)
        bent(ax, [(x + 3.4, top + 0.25), (x + 4.4, top + 0.25)])
        ax.text(x + 4.45, top + 0.25, "next step", ha="left", va="center", fontsize=8)
        _sum(ax, x + 3.75, 2.0)
    arrow(ax, (x + 1.8, 2.0), (x + (3.57 if recurrent else 4.3), 2.0))
    ax.text(x + 2.25, 2.05, "$F^k$", ha="center", va="bottom", fontsize=9)
    if recurrent:
        arrow(ax, (x + 3.93, 2.0), (x + 4.3, 2.0))
    box(ax, x + 4.3, 1.6, 1.3, 0.8, "$R^k, b^k$", RECURRENT)
    bent(ax, [(x + 4.95, 1.6), (x + 4.95, 1.08)])
    ax.text(x + 5.05, 1.35, r"$\Delta S^k$", ha="left", va="center", fontsize=9)
    _sum(ax, x + 4.95, 0.9)
    arrow(ax, (x + 0.4, 0.9), (x + 4.77, 0.9))
    arrow(ax, (x + 5.13, 0.9), (x + 5.5, 0.9))
    ax.text(x + 5.85, 0.9, "$S^{k+1}$", ha="center", va="center", fontsize=11)


def _sum(ax: Axes, x: float, y: float) -> None:
    ax.plot(x, y, "o", markerfacecolor="white", color="0.25", markersize=13)
    ax.text(x, y - 0.01, "+", ha="center", va="center", fontsize=10)


# Fig. 10 ----------------------------------------------------------------------------------------------------------------------------------


def two_stages(run: Experiment) -> Figure:
    """Fig. 10: the features with the initialization network first, then the regression on features that stay."""
    figure, ax = diagram((9.6, 3.9), (0, 13.2), (-0.1, 5.2))
    rows = (
        (3.0, "a  first stage: features", False, (("conv8", START), ("softmax loss, Eq. 14", START))),
        (0.3, "b  second stage: regression", True, (("SIP", POOLING), ("LSTM and\n$R^k, b^k$", RECURRENT), ("regression losses, Eq. 16", RECURRENT))),
    )  # fmt: skip
    for y, words, frozen, parts in rows:
        ax.text(0.1, y + 1.75, words, fontsize=10, weight="bold", va="center")
        box(ax, 0.1, y, 1.3, 1.2, "image", PLAIN, size=8.5)
        for x, name in ((2.0, "convolutions,\ndeconvolutions"), (4.3, "deconv7")):
            box(ax, x, y, 1.8, 1.2, name, FEATURES, size=8.5)
            if frozen:
                ax.add_patch(
                    Rectangle((x, y), 1.8, 1.2, fill=False, hatch="///", edgecolor="0.6", linewidth=0)
                )
        left, width = 6.6, 1.6
        for place, (name, colour) in enumerate(parts):
            wide = width if place < len(parts) - 1 else 2.4
            box(ax, left, y, wide, 1.2, name.replace(", Eq", ",\nEq"), colour, size=8.5)
            arrow(ax, (left - 0.5, y + 0.6), (left, y + 0.6))
            left += width + 0.5
        for start, end in (((1.4, y + 0.6), (2.0, y + 0.6)), ((3.8, y + 0.6), (4.3, y + 0.6))):
            arrow(ax, start, end)
    ax.text(4.05, 0.12, "hatched: fixed", ha="center", va="top", fontsize=8)
    figure.set_label(
        "Two rows. a: image, convolutions and deconvolutions, deconv7, conv8 and the softmax loss are trained. b: convolutions and deconv7 are fixed, "
        "drawn hatched; pooling, the LSTM and the linear layers are trained on the regression losses."
    )
    return record(run, "RNN-F10", "training in two stages", figure)
