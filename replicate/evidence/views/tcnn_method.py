"""What the page on TCNN's networks draws and checks: shapes of all layers, both networks (F2), and the list of what §2.1 and §2.2 say (S29 to S36)."""

import inspect
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
from torch.nn import functional

from replicate import training
from replicate.errors import ReplicateError
from replicate.evidence import artefacts, published
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE
from replicate.evidence.rows import Row
from replicate.evidence.views.configurations import SAME
from replicate.evidence.views.diagrams import arrow, bent, box, diagram, layer_block, record
from replicate.methods import tcnn, tcnn_heads
from replicate.methods.tcnn import LANDMARKS, LEVELS, SIDE, Heads, Mixture, TCNNConfig, Vanilla

AS_PRINTED, OTHERWISE = "as printed", "not as printed"
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
    with _watched(network.layers, lambda layer, out: made.setdefault(layer, _shape(out))):
        entering = {name: _shape(maps) for name, maps in network.levels(_probe())}
        network(_probe())
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


def _probe() -> Tensor:
    return torch.rand(_PROBE, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def _shape(x: Tensor) -> tuple[int, ...]:
    """As Fig. 2 writes it: height, width, channels; or a length."""
    return (*x.shape[2:], x.shape[1])


def _work(layer: nn.Module, made: tuple[int, ...], leaves: tuple[int, ...]) -> str:
    if isinstance(layer, nn.Linear):
        return "dense" if leaves == (2 * LANDMARKS,) else "dense, |tanh|"
    words = f"conv {layer.kernel_size[0]} × {layer.kernel_size[1]}, |tanh|"
    return words if made == leaves else f"{words}, max pool {made[0] // leaves[0]} × {made[1] // leaves[1]}"


def _words_of(shape: tuple[int, ...]) -> str:
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
        here, there = _words_of(one.leaves), printed[one.name]
        if here.removeprefix("1 × ") != there.removeprefix("1 × "):
            raise ReplicateError(f"{one.name}: the network gives {here}, Fig. 2 prints {there}")
        between = "" if one.made == one.leaves else _words_of(one.made)
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
    shapes = ", ".join(f"{one.name} {_words_of(one.leaves)}" for one in found.values())
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


# Checks of the code (S29 to S36) ------------------------------------------------------------------------------------------------------------


def check_equations(seed: int = 0) -> dict[str, float]:
    """Largest deviations, in float64, of what is computed here from what the paper says, written out: each is rounding at most."""
    random = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(4, 16, 36, 36, generator=random, dtype=torch.float64)
    network = _random_network(seed)
    crops = torch.rand(8, 3, SIDE, SIDE, generator=random, dtype=torch.float64)
    *_, (_, maps) = network.levels(crops)
    shapes, true = 40 * torch.rand(2, 6, LANDMARKS, 2, generator=random, dtype=torch.float64)
    short = network.fc6(tcnn.absolute_tanh(network.fc5(maps.flatten(1))))
    heads = [_heads_apart(network, split, crops) for split in tcnn.SPLITS]
    return {
        "activation: |tanh x|": _far(tcnn.absolute_tanh(x), torch.tensor(np.abs(np.tanh(x.numpy())))),
        "pooling before the activation, and after it": _far(
            tcnn.pooled(x), functional.max_pool2d(x.tanh().abs(), 2, 2)
        ),
        "the whole network, layer after layer": _far(short, plain_outputs(network, crops)),
        "loss, Eq. 1": _far(tcnn.loss(shapes, true), plain_loss(shapes, true)),
        "posterior, Eq. 2": _posterior_apart(random),
        "heads from FC5 on, before fine-tuning, in sides of the crop": heads[0],
        "heads from CL4 on, before fine-tuning, in sides of the crop": heads[1],
        "mirror image, mirrored back": _far(tcnn.mirror_shapes(tcnn.mirror_shapes(true)), true),
    }


def _far(found: Tensor, expected: Tensor) -> float:
    return (found - expected).abs().max().item()


def _random_network(seed: int) -> Vanilla:
    """In float64, with biases that are not zero."""
    torch.manual_seed(seed)
    network = Vanilla().double().requires_grad_(False)
    for layer in network.layers:
        nn.init.normal_(layer.bias, std=0.1)
    return network


def plain_outputs(network: Vanilla, crops: Tensor) -> Tensor:
    """Outputs (N, 10) of FC6 as §2.1 says it: convolution, tanh, absolute value, pooling."""
    x = (crops - network.mean) / network.std
    for layer in network.layers[:4]:
        x = layer(x).tanh().abs()
        x = functional.max_pool2d(x, 2, 2) if layer is not network.cl4 else x
    return network.fc6(network.fc5(x.flatten(1)).tanh().abs())


def plain_loss(shapes: Tensor, true: Tensor) -> Tensor:
    """Eq. 1 by loops over faces (N,) and landmarks."""
    found = []
    for shape, right in zip(shapes, true, strict=True):
        squares = sum(float((p - q) @ (p - q)) for p, q in zip(shape, right, strict=True))
        eyes = right[0] - right[1]
        found.append(squares / float(eyes @ eyes))
    return torch.tensor(found, dtype=shapes.dtype)


def _heads_apart(network: Vanilla, split: str, crops: Tensor) -> float:
    """How far heads that have not been trained are from the vanilla network."""
    features = dict(network.levels(crops))[split].flatten(1)
    shapes = Heads(network, 3, split)(features.expand(3, -1, -1))
    return _far(shapes, tcnn.to_shapes(plain_outputs(network, crops))) / SIDE


def _posterior_apart(random: torch.Generator) -> float:
    """Posteriors (N, K) of a small mixture against the densities written out."""
    means, features = (torch.randn(size, 4, generator=random, dtype=torch.float64) for size in (3, 50))
    variances = 0.5 + torch.rand(3, 4, generator=random, dtype=torch.float64)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    mixture = Mixture(weights.log(), means, variances)
    squares = (features[:, None] - means).square() / variances
    density = weights * torch.exp(-squares.sum(-1) / 2) / (2 * torch.pi * variances).sqrt().prod(-1)
    return _far(mixture.log_joint(features).softmax(1), density / density.sum(1, keepdim=True))


@dataclass(frozen=True)
class Check:
    """One statement of the paper beside what the code has.

    Attributes
    ----------
    here : str
        Read off the code.
    agrees : bool
        Whether that is what the paper prints.
    ours : str
        What the paper leaves open there, and what is taken.
    """

    here: str
    agrees: bool
    ours: str


def checks(config: TCNNConfig, crops: Tensor) -> dict[str, Check]:
    """S29 to S36, each computed from the code.

    Parameters
    ----------
    crops : Tensor
        (N, 3, 40, 40) training crops in [0, 1], to be normalised.
    """
    found, deviations = {one.name: one for one in layers()}, check_equations()
    network = Vanilla()
    return {
        "TCNN-S29": _normalisation(network, crops),
        "TCNN-S30": Check(
            f"|tanh| after {_activated(network)} layers, off by {deviations['activation: |tanh x|']:.0e}",
            deviations["the whole network, layer after layer"] < 1e-12,
            "it follows each convolution and FC5, none follows FC6",
        ),
        "TCNN-S31": Check(
            f"{_count(network, nn.Conv2d)} convolutions, of {_sides(network)}",
            _count(network, nn.Conv2d) == 4 and len(paddings_that_fit()) == 2,
            "no padding, which follows from Fig. 2's shapes",
        ),
        "TCNN-S32": Check(
            f"{int(np.prod(found['CL4'].leaves))} numbers to {network.fc5.out_features}",
            network.fc5.out_features == int(printed_shapes()["FC5"].split("×")[-1]),
            "nothing",
        ),
        "TCNN-S33": Check(
            f"{network.fc6.out_features} outputs, {LANDMARKS} points",
            network.fc6.out_features == int(printed_shapes()["FC6"]),
            "coordinates from the middle of the crop, in its sides",
        ),
        "TCNN-S34": Check(
            f"Eq. 1, off by {deviations['loss, Eq. 1']:.0e}",
            deviations["loss, Eq. 1"] < 1e-12,
            "the mean over a batch",
        ),
        "TCNN-S35": Check(
            " and ".join(dict.fromkeys(_optimisers())),
            set(_optimisers()) == {"Adam"},
            f"step size {config.vanilla.step_size:g}, batches of {config.vanilla.batch}, {config.vanilla.samples:,} samples; "
            f"heads {config.step_size:g} and {config.batch}",
        ),
        "TCNN-S36": Check(
            f"{tcnn.ANALYSED['cpu']} components",
            tcnn.ANALYSED["cpu"] == published.value("TCNN-S36", metric="K"),
            f"{config.covariance} covariances, k-means++ to begin with",
        ),
    }


def _normalisation(network: Vanilla, crops: Tensor) -> Check:
    """Crops that are normalised by their own statistics have mean 0 and deviation 1 in every value."""
    network.mean, network.std = crops.mean(0), crops.std(0, correction=0)
    seen = network.normalised(crops).double()
    mean, deviation = seen.mean(0).abs().max().item(), (seen.std(0, correction=0) - 1).abs().max().item()
    sides = _shape(seen[None, 0])
    size = published.load("tcnn")
    printed = size[(size["artefact"] == "TCNN-S29") & (size["metric"] == "input size")]["value"].iloc[0]
    agrees = "×".join(map(str, sides[:2])) == printed and sides[2] == 3 and max(mean, deviation) < 1e-4
    return Check(
        f"{_words_of(sides)}; over training crops mean 0, off by {mean:.0e}, deviation 1, off by {deviation:.0e}",
        agrees,
        "a deviation for each value of the crop, and not one for all",
    )


def _activated(network: Vanilla) -> int:
    """Layers whose outputs pass the activation on their way: those after which a change of sign changes nothing."""
    crops, count = _probe(), 0
    before = network(crops)
    for layer in network.layers:
        hook = layer.register_forward_hook(lambda _, given, out: -out)
        count += torch.equal(network(crops), before)
        hook.remove()
    return count


def _count(network: nn.Module, kind: type) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


def _sides(network: Vanilla) -> str:
    return ", ".join(f"{layer.kernel_size[0]} × {layer.kernel_size[1]}" for layer in network.layers[:4])


def _optimisers() -> list[str]:
    """The optimisers of PyTorch that the trainings of the vanilla network and of the heads name."""
    sources = (inspect.getsource(training.fit), inspect.getsource(tcnn_heads))
    return [text.split("torch.optim.")[-1].split("(")[0] for text in sources]


def check_table(config: TCNNConfig, crops: Tensor) -> pd.DataFrame:
    """The eight statements beside the code, with what is ours."""
    titles = {one.id: one.title for one in artefacts.load()}
    lines = [
        (name, titles[name], one.here, AS_PRINTED if one.agrees else OTHERWISE, one.ours)
        for name, one in checks(config, crops).items()
    ]
    return pd.DataFrame(lines, columns=["", "the paper", "the code", "state", "left open, and our choice"])


# Settings -----------------------------------------------------------------------------------------------------------------------------------


def printed_settings() -> dict[str, tuple[float, float]]:
    """Every number of the training that the paper prints: by setting, the paper's and that of `TCNNConfig`."""
    config = TCNNConfig()
    return {
        "clusters": (published.value("TCNN-S18", metric="K used for all reported results"), config.clusters),
        "clusters of the analysis": (published.value("TCNN-S36", metric="K"), tcnn.ANALYSED["gpu"]),
        "images of a cluster": (published.value("TCNN-S15"), config.images),
        "epochs without a lower validation loss": (published.value("TCNN-S10"), config.patience),
    }


def config_table() -> pd.DataFrame:
    """All fields of both configurations at full size, whether the paper prints them, and what profiles change."""
    lines = []
    for prefix, part in (("", lambda config: config), ("vanilla.", lambda config: config.vanilla)):
        for field in vars(part(TCNNConfig())):
            if field not in ("vanilla", "sanity_gate"):
                full, *profiles = (
                    _cell(getattr(part(one), field)) for one in (TCNNConfig(), *tcnn.CONFIGS.values())
                )
                lines.append((prefix + field, full, *(SAME if one == full else one for one in profiles)))
    return pd.DataFrame(lines, columns=["field", "TCNNConfig()", *tcnn.CONFIGS])


def _cell(value: object) -> str:
    return f"{value:,}" if type(value) in (int, float) else str(value)
