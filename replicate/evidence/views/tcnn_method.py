"""What the page on TCNN's networks checks: the list of what §2.1 and §2.2 say (S29 to S36), and the settings."""

import inspect
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from replicate import training
from replicate.evidence import artefacts, published
from replicate.evidence.views.configurations import SAME
from replicate.evidence.views.tcnn_layers import (
    layers,
    paddings_that_fit,
    printed_shapes,
    probe,
    shape_of,
    words_of,
)
from replicate.methods import tcnn, tcnn_heads
from replicate.methods.tcnn import LANDMARKS, SIDE, Heads, Mixture, TCNNConfig, Vanilla

AS_PRINTED, OTHERWISE = "as printed", "not as printed"


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
    sides = shape_of(seen[None, 0])
    size = published.load("tcnn")
    printed = size[(size["artefact"] == "TCNN-S29") & (size["metric"] == "input size")]["value"].iloc[0]
    agrees = "×".join(map(str, sides[:2])) == printed and sides[2] == 3 and max(mean, deviation) < 1e-4
    return Check(
        f"{words_of(sides)}; over training crops mean 0, off by {mean:.0e}, deviation 1, off by {deviation:.0e}",
        agrees,
        "a deviation for each value of the crop, and not one for all",
    )


def _activated(network: Vanilla) -> int:
    """Layers whose outputs pass the activation on their way: those after which a change of sign changes nothing."""
    crops, count = probe(), 0
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
