"""What the page on TCNN's networks draws of them (F2): shapes of all layers, and both networks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from replicate.errors import ReplicateError
from replicate.evidence import published
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE
from replicate.evidence.rows import Row
from replicate.evidence.views.diagrams import arrow, bent, box, diagram, layer_block, record
from replicate.methods import tcnn
from replicate.methods.tcnn import LANDMARKS, LEVELS, SIDE, Heads, TCNNConfig, Vanilla

RED = "#C00000"  # Fig. 2 marks the features that enter FC5 in red
_PROBE = 3  # crops that are sent through a network


# Layers (F2) ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """One layer as it was seen at work.

    Attributes
    ----------
    name, work : str
        ``"CL1"`` and what it does.
    made, leaves : tuple of int
        Shape of what the convolution or product gives, and of what the next layer gets: height, width, channels, or a length.
    parameters : int
    """

    name: str
    work: str
    made: tuple[int, ...]
    leaves: tuple[int, ...]
    parameters: int


def layers() -> list[Layer]:
    """Fig. 2, left, as the network is, by sending crops through it: the input, CL1 to CL4, FC5 and FC6."""
    network = Vanilla().requires_grad_(False)
    made: dict[nn.Module, tuple[int, ...]] = {}
    with _watched(network.layers, lambda layer, out: made.setdefault(layer, shape_of(out))):
        entering = {name: shape_of(maps) for name, maps in network.levels(probe())}
        network(probe())
    names = (*LEVELS, "FC6")
    left = [*list(entering.values())[1:], made[network.fc5], made[network.fc6]]
    found = [Layer("input", "RGB crop, normalised", entering[LEVELS[0]], entering[LEVELS[0]], 0)]
    for name, layer, leaves in zip(names, network.layers, left, strict=True):
        count = sum(parameter.numel() for parameter in layer.parameters())
        found.append(Layer(name, _work(layer, made[layer], leaves), made[layer], leaves, count))
    return found


@contextmanager
def _watched(modules: list[nn.Module], see: Callable[[nn.Module, Tensor], object]) -> Iterator[None]:
    """Show what each module gives to `see`."""

    def look(module: nn.Module, given: object, out: Tensor) -> None:
        see(module, out)

    hooks = [module.register_forward_hook(look) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def probe() -> Tensor:
    return torch.rand(_PROBE, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def shape_of(x: Tensor) -> tuple[int, ...]:
    """As Fig. 2 writes it: height, width, channels; or a length."""
    return (*x.shape[2:], x.shape[1])


def _work(layer: nn.Module, made: tuple[int, ...], leaves: tuple[int, ...]) -> str:
    if isinstance(layer, nn.Linear):
        return "dense" if leaves == (2 * LANDMARKS,) else "dense, |tanh|"
    words = f"conv {layer.kernel_size[0]} × {layer.kernel_size[1]}, |tanh|"
    return words if made == leaves else f"{words}, max pool {made[0] // leaves[0]} × {made[1] // leaves[1]}"


def words_of(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def printed_shapes() -> dict[str, str]:
    """What Fig. 2 prints of each layer."""
    found = published.load("tcnn")
    found = found[found["artefact"] == "TCNN-F2"]
    return dict(zip(found["setting"], found["value"], strict=True))


def shape_table() -> pd.DataFrame:
    """The layers with the shapes that they have and those that Fig. 2 prints.

    Raises
    ------
    ReplicateError
        If a shape is not the printed one.
    """
    printed, lines = printed_shapes(), []
    for one in layers():
        here, there = words_of(one.leaves), printed[one.name]
        if here.removeprefix("1 × ") != there.removeprefix("1 × "):
            raise ReplicateError(f"{one.name}: the network gives {here}, Fig. 2 prints {there}")
        between = "" if one.made == one.leaves else words_of(one.made)
        lines.append((one.name, one.work, between, here, there, f"{one.parameters:,}"))
    columns = ["layer", "what it does", "before pooling", "leaves the layer", "Fig. 2", "parameters"]
    return pd.DataFrame(lines, columns=columns)


def paddings_that_fit(most: int = 2) -> list[tuple[int, ...]]:
    """Paddings of CL1 to CL4, up to `most` pixels, and pooling that rounds down (0) or up (1), with which all sides are those of Fig. 2."""
    network = Vanilla()
    kernels = [layer.kernel_size[0] for layer in network.layers[:4]]
    wanted = [one.leaves[0] for one in layers()[1:5]]
    fitting = []
    for *paddings, up in product(*[range(most + 1)] * 4, range(2)):
        side, sides = SIDE, []
        for number, (kernel, padding) in enumerate(zip(kernels, paddings, strict=True)):
            side += 2 * padding - kernel + 1
            side = (side + up) // 2 if number < 3 else side
            sides.append(side)
        if sides == wanted:
            fitting.append((*paddings, up))
    return fitting


def parameter_rows(run: Experiment) -> list[Row]:
    """How many numbers the vanilla network learns, and each head of a tweaked one."""
    counts = {f"parameters, {one.name}": one.parameters for one in layers()[1:]}
    counts["parameters"] = sum(counts.values())
    made = run.count_rows("TCNN-F2", "vanilla CNN", counts)
    for split in tcnn.SPLITS:
        of_head = sum(value.numel() for value in Heads(Vanilla(), 1, split).parameters())
        made += run.count_rows("TCNN-F2", f"one head from {split} on", {"parameters": of_head})
    return made


# Both networks (F2) -----------------------------------------------------------------------------------------------------------------------


def networks(run: Experiment, config: TCNNConfig) -> Figure:
    """Fig. 2: the vanilla network above, the tweaked one below; shapes and counts are those of the modules."""
    found = {one.name: one for one in layers()}
    figure, ax = diagram((10.4, 6.9), (0, 14.6), (-0.4, 9.5))
    _draw_vanilla(ax, found)
    _draw_tweaked(ax, found, config)
    shapes = ", ".join(f"{one.name} {words_of(one.leaves)}" for one in found.values())
    figure.set_label(
        f"Above, the vanilla network: {shapes}; a red band marks the features that enter FC5. Below, the tweaked network: crops pass the same "
        "layers up to that band, a Gaussian mixture says to which of K clusters the features belong, and the layers FC5 and FC6 of this cluster "
        f"alone, {_of_head(found):,} parameters of its own, give the points."
    )
    return record(run, "TCNN-F2", "vanilla network and tweaked network", figure)


def _of_head(found: dict[str, Layer]) -> int:
    return found["FC5"].parameters + found["FC6"].parameters


def _draw_vanilla(ax: Axes, found: dict[str, Layer]) -> None:
    y, names = 6.9, ["input", *LEVELS[:4]]
    ax.text(0, 9.3, "Vanilla network", fontsize=10, weight="bold", va="center")
    for number, name in enumerate(names):
        one, x = found[name], 1.85 * number
        words = [part.removesuffix(", |tanh|") for part in one.work.split(", max ")]
        layer_block(
            ax, (x, y), _half(one.leaves[0]), name, one.leaves[0], one.leaves[2],
            words if number else ["RGB"], PALETTE[0] if number else "0.5",
        )  # fmt: skip
    for number in range(4):
        arrow(ax, (1.85 * number + 0.9, y), (1.85 * (number + 1), y))
    _band(ax, 9.0, y, found)
    arrow(ax, (8.3, y), (9.0, y))
    for name, x in (("FC5", 9.75), ("FC6", 11.75)):
        one = found[name]
        box(ax, x, y - 0.4, 1.3, 0.8, f"{name}\n{one.leaves[0]}", PALETTE[1], size=8.5)
    arrow(ax, (9.18, y), (9.75, y))
    arrow(ax, (11.05, y), (11.75, y))
    arrow(ax, (13.05, y), (13.75, y))
    ax.text(13.85, y, "$P$", va="center", fontsize=10)
    total = sum(one.parameters for one in found.values())
    ax.text(12.4, y - 0.75, f"{total:,} parameters", ha="center", fontsize=7.5)


def _half(side: int) -> float:
    """Half the height of a block for maps of a side."""
    return 0.45 + 0.18 * float(np.log2(side))


def _band(ax: Axes, x: float, y: float, found: dict[str, Layer]) -> None:
    """The features that enter FC5, in red as in Fig. 2."""
    ax.add_patch(Rectangle((x, y - 0.9), 0.18, 1.8, facecolor=RED, edgecolor="none"))
    length = int(np.prod(found["CL4"].leaves))
    ax.text(x + 0.09, y + 0.98, str(length), ha="center", va="bottom", fontsize=8, color=RED)


def _draw_tweaked(ax: Axes, found: dict[str, Layer], config: TCNNConfig) -> None:
    y = 2.4
    ax.text(0, 4.9, "Tweaked network", fontsize=10, weight="bold", va="center")
    box(ax, 0, y - 0.5, 1.3, 1.0, f"crop\n{SIDE} × {SIDE}", "0.5", size=8.5)
    box(ax, 2.0, y - 0.5, 2.2, 1.0, "CL1 to CL4,\nfrozen", PALETTE[0], size=8.5)
    arrow(ax, (1.3, y), (2.0, y))
    arrow(ax, (4.2, y), (4.9, y))
    _band(ax, 4.9, y, found)
    box(
        ax, 5.5, y - 0.75, 2.45, 1.5, "mixture of $K$ Gaussians\n$\\mathrm{argmax}_k\\;p(C_k\\,|\\,f)$\n(Eq. 2)",
        PALETTE[3], size=8,
    )  # fmt: skip
    arrow(ax, (5.08, y), (5.5, y))
    heights = {"1": 4.3, "2": 3.05, "K": 0.5}
    for k, height in heights.items():
        for name, x in (("FC5", 9.75), ("FC6", 11.75)):
            words = f"{name[:2]}$_{name[2]}^{{\\,{k}}}$"
            box(ax, x, height - 0.4, 1.3, 0.8, f"{words}\n{found[name].leaves[0]}", PALETTE[1], size=8.5)
        bent(ax, [(7.95, y), (9.05, y), (9.05, height), (9.75, height)])
        arrow(ax, (11.05, height), (11.75, height))
        bent(ax, [(13.05, height), (13.4, height), (13.4, y), (13.8, y)])
    ax.text(8.97, y + 0.1, "one of $K$", ha="right", va="bottom", fontsize=7)
    for x in (10.4, 12.4):
        ax.text(x, 1.78, "⋮", ha="center", va="center", fontsize=14)
    ax.text(13.87, y, "$P$", va="center", fontsize=10)
    words = f"$K$ = {config.clusters}; each pair has {_of_head(found):,} parameters of its own"
    ax.text(11.4, -0.15, words, ha="center", fontsize=7.5)
