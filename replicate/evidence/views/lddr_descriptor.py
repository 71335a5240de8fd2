"""What the page on LDDR's descriptor draws and computes of the network: pipeline (F2), layers (F3, T1, C14), receptive fields (S9), patches (S10, S11)."""

from dataclasses import replace
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from replicate.evidence import published
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE, draw_box
from replicate.evidence.rows import Row
from replicate.evidence.views.diagrams import arrow, bent, box, diagram, layer_block, record
from replicate.faces.faceset import FaceSet
from replicate.methods import lddr
from replicate.methods.lddr import ALEXNET, CHANNELS, FACE, STAGES, Descriptor, Form, LDDRConfig
from replicate.metrics import Comparison

POINTS = 68
POOL5 = 3  # its kernel: the layer that §3.1 removes first
SHOWN = (36, 54, 8)  # an eye's corner, a corner of the mouth and the chin, of the 68 points
_SMALL = 1 / 16  # width of a network whose fields are measured: they are alike at every width


# Pipeline (F2) ------------------------------------------------------------------------------------------------------------------------


def pipeline(run: Experiment) -> Figure:
    """Fig. 2: patches, descriptors, their row, one linear regression, again and again."""
    figure, ax = diagram((10.2, 3.6), (0, 13.8), (0.4, 4.7))
    features = f"{POINTS} × {CHANNELS} = {POINTS * CHANNELS:,} numbers"
    steps = (
        (0.1, 1.9, "image $I$,\nshape $S^{t-1}$", PALETTE[6]),
        (2.5, 2.1, f"{POINTS} patches of\n$r_t$ pixels", PALETTE[5]),
        (5.1, 2.2, "network in the\nform of stage $t$\n(Table 1)", PALETTE[0]),
        (7.8, 3.2, f"$\\Phi^t(I, S^{{t-1}})$\n{features}", PALETTE[2]),
        (11.5, 2.2, "$S^t = S^{t-1} + W^t\\Phi^t$\n(Eq. 1)", PALETTE[1]),
    )
    for x, width, words, colour in steps:
        box(ax, x, 2.7, width, 1.1, words, colour, size=8.5)
    for (x, width, *_), (following, *_) in pairwise(steps):
        arrow(ax, (x + width, 3.25), (following, 3.25))
    bent(ax, [(12.6, 3.8), (12.6, 4.3), (1.05, 4.3), (1.05, 3.8)])
    ax.text(6.8, 4.34, "next stage, $t + 1$", ha="center", va="bottom", fontsize=8.5)
    lacking = "training: what the shapes\nlack to the true ones, $\\Delta\\tilde{S}^t_i$"
    box(ax, 3.8, 0.5, 3.5, 1.1, lacking, PALETTE[3], size=8.5)
    box(ax, 7.8, 0.5, 3.2, 1.1, "minimise Eq. 2:\n$W^t$", PALETTE[3], size=8.5)
    arrow(ax, (7.3, 1.05), (7.8, 1.05))
    arrow(ax, (9.4, 2.7), (9.4, 1.6))
    bent(ax, [(11.0, 1.05), (12.6, 1.05), (12.6, 2.7)])
    figure.set_label(
        f"Boxes joined by arrows. From an image and a shape, {POINTS} patches; the network in the form of the stage makes {CHANNELS} numbers of "
        f"each; all {POINTS * CHANNELS:,} numbers, times a matrix, are the step to the next shape, with which the next stage begins. In "
        "training, the matrix is found from these numbers and from what the shapes lack to the true ones."
    )
    return record(run, "LDDR-F2", "one stage of the cascade", figure)


# Layers (F3, T1, C14) -----------------------------------------------------------------------------------------------------------------


def stage_rows(run: Experiment) -> list[Row]:
    """Table 1: input side and strides of each stage, and the side of its output, which the paper does not print."""
    made = []
    for stage, form in enumerate(STAGES, start=1):
        name = f"LDDR, stage {stage}"
        made += run.count_rows("LDDR-T1", f"{name}, network input side", {"input size": form.input}, "px")
        for layer in ("conv1", "max1", "conv2", "max2"):
            made += run.count_rows("LDDR-T1", f"{name}, {layer}", {"stride": getattr(form, layer)}, "px")
        made += run.count_rows("LDDR-T1", f"{name}, conv5", {"output side": output_side(form)}, "px")
    return made


def output_side(form: Form, network: Descriptor | None = None) -> int:
    """Side of what a network makes of an image of the form's own size.

    Parameters
    ----------
    network : Descriptor, optional
        That runs; a narrow one unless given.
    """
    network = network or Descriptor(_SMALL)
    with torch.inference_mode():
        return network(torch.zeros(1, 3, form.input, form.input), form).shape[-1]


def layer_table() -> pd.DataFrame:
    """Every layer with its kernel, channels and parameters at the paper's width, and the side of its output in each stage."""
    network = Descriptor()
    lines = []
    for name, kernel, _, _ in ALEXNET.layers:
        layer = getattr(network, name, None)  # none of a pooling layer
        size = (
            (f"{layer.out_channels}", f"{sum(p.numel() for p in layer.parameters()):,}")
            if layer
            else ("", "–")
        )
        sides = [f"{form.sides()[name]} ({_stride(form, name)})" for form in STAGES]
        lines.append((name, f"{kernel} × {kernel}", *size, *sides))
    inputs = ("input", "", "3", "–", *(str(form.input) for form in STAGES))
    columns = [
        "layer",
        "kernel",
        "channels",
        "parameters",
        *(f"stage {n}" for n in range(1, len(STAGES) + 1)),
    ]
    return pd.DataFrame([inputs, *lines], columns=columns)


def _stride(form: Form, name: str) -> int:
    return next(stride for layer, _, stride, _ in form.layers if layer == name)


def base_network(run: Experiment) -> Figure:
    """Fig. 3: the layers of the fourth stage, drawn from the form and the modules."""
    network, form = Descriptor(), STAGES[-1]
    figure, ax = diagram((10.2, 3.0), (-0.2, 13.4), (0, 4.0))
    layers = [("patch", form.input, 3, ())]
    for name, kernel, stride, padding in form.layers:
        channels = getattr(network, name).out_channels if name.startswith("conv") else layers[-1][2]
        words = f"{kernel} × {kernel}, stride {stride}" + f", pad {padding}" * (padding > 0)
        layers.append((name, form.sides()[name], channels, (words,)))
    for number, (name, side, channels, filters) in enumerate(layers):
        colour = "0.5" if not filters else PALETTE[name.startswith("max")]
        layer_block(ax, (1.72 * number, 2.0), 0.75 + 0.03 * side, name, side, channels, filters, colour)
    for number in range(len(layers) - 1):
        arrow(ax, (1.72 * number + 0.9, 2.0), (1.72 * (number + 1), 2.0))
    words = "; ".join(f"{name} {side} × {side} × {channels}" for name, side, channels, _ in layers)
    figure.set_label(f"Blocks in a row, the height for the side of the feature maps: {words}.")
    return record(run, "LDDR-F3", "the descriptor network", figure)


def judge_sides(run: Experiment) -> Verdict:
    """Judge and record LDDR-C14: that each stage ends in one position; numbers are exact, so their intervals have no width."""
    sides = {f"stage {stage}": output_side(form) for stage, form in enumerate(STAGES, start=1)}
    exact = {
        name: Comparison(side, 1, side - 1, side - 1, side - 1, float(side == 1))
        for name, side in sides.items()
    }
    return run.judge_comparison("LDDR-C14", exact)


def rounding_table() -> pd.DataFrame:
    """The side of each stage's output by padding and rounding of the pooling layers, and the sides of patches that would be legal."""
    lines = []
    for padding in (1, 0):
        for up in (True, False):
            words = (f"{padding} pixel" + "s" * (padding != 1), "up, as Caffe" if up else "down")
            ends = [final_side(replace(form, pool_padding=padding), up) for form in STAGES]
            lines.append((*words, *(end or "none" for end in ends)))
    legal = [[side for side in range(15, 130) if form.sides(side)["conv5"] == 1] for form in STAGES]
    spans = [f"{found[0]} to {found[-1]}" if found[1:] else str(found[0]) for found in legal]
    lines.append(("1 pixel", "up: legal patches", *spans))
    return pd.DataFrame(lines, columns=["padding of pools", "rounded", *(f"stage {n}" for n in range(1, 5))])


def final_side(form: Form, up: bool) -> int:
    """Side of the output with pooling rounded up or down; 0 if a kernel finds no place."""
    x = torch.zeros(1, 1, form.input, form.input)
    for name, kernel, stride, padding in form.layers:
        if x.shape[-1] + 2 * padding < kernel:
            return 0
        if name.startswith("conv"):
            x = functional.conv2d(x, torch.zeros(1, 1, kernel, kernel), None, stride, padding)
        else:
            x = functional.max_pool2d(x, kernel, stride, padding, ceil_mode=up)
    return x.shape[-1]


# Receptive fields (S9) ----------------------------------------------------------------------------------------------------------------


def field_by_gradient(form: Form, *, pooled: bool = False, images: int = 4) -> int:
    """Side, in pixels, of what one output of conv5, or of pool5 after it, depends on: where its gradient is not zero.

    The image is so large that no padding cuts the field short.
    """
    torch.manual_seed(0)
    network, field, step = Descriptor(_SMALL), form.receptive_field(), _step(form)
    if pooled:
        field += (POOL5 - 1) * step
    image = (60 * torch.randn(images, 3, *[field + 8 * step] * 2)).requires_grad_()
    maps = network(image, form)
    if pooled:
        maps = functional.max_pool2d(maps, POOL5, 2)
    middle = maps.shape[-1] // 2
    maps[..., middle, middle].sum().backward()
    rows = image.grad.abs().sum((0, 1, 3)).nonzero()
    return int(rows.max() - rows.min()) + 1


def _step(form: Form) -> int:
    """Pixels of the image between neighbouring outputs."""
    return form.conv1 * form.max1 * form.conv2 * form.max2


def field_table() -> pd.DataFrame:
    """S9: receptive fields as printed, by arithmetic and by gradient, and the side of the patch that a stage has."""
    pool5 = ALEXNET.receptive_field() + (POOL5 - 1) * _step(ALEXNET)
    lines = [
        (
            "AlexNet, conv5",
            _printed_field("AlexNet"),
            ALEXNET.receptive_field(),
            field_by_gradient(ALEXNET),
            "–",
        ),
        ("AlexNet, pool5", "–", pool5, field_by_gradient(ALEXNET, pooled=True), "–"),
    ]
    for stage, form in enumerate(STAGES, start=1):
        printed = _printed_field("LDDR base descriptor") if form is STAGES[-1] else "–"
        lines.append(
            (f"stage {stage}, conv5", printed, form.receptive_field(), field_by_gradient(form), form.input)
        )
    return pd.DataFrame(
        lines, columns=["unit", "paper, px", "by arithmetic, px", "by gradient, px", "patch, px"]
    )


def _printed_field(method: str) -> str:
    return f"{published.value('LDDR-S9', method=method, unit='px'):g}"


def descriptor_rows(run: Experiment) -> list[Row]:
    """S9 and S10 in numbers, under the names of the paper's."""
    base = "LDDR base descriptor, all strides 1, conv pad 0, pool pad 1"
    fields = [
        ("AlexNet, conv5 unit of standard net", "receptive field side", ALEXNET.receptive_field()),
        (base, "receptive field / input side", STAGES[-1].input),
        (base, "receptive field without padding", STAGES[-1].receptive_field()),
    ]
    made = [
        row for method, *number in fields for row in run.count_rows("LDDR-S9", method, dict([number]), "px")
    ]
    made += run.count_rows("LDDR-S9", "LDDR", {"descriptor dimension": CHANNELS})
    return made + run.count_rows("LDDR-S10", "LDDR", {"shape-indexed feature dimension": POINTS * CHANNELS})


# Patches (S11) ------------------------------------------------------------------------------------------------------------------------


def patch_rows(run: Experiment) -> list[Row]:
    """S11: sides of the patches as shares of the face."""
    return [
        row
        for stage, form in enumerate(STAGES, start=1)
        for row in run.count_rows(
            "LDDR-S11", f"LDDR, stage {stage}", {"patch side / face side": form.input / FACE}, "ratio"
        )
    ]


def crops_of(faces: FaceSet, config: LDDRConfig) -> tuple[Tensor, Tensor]:
    """Faces as the cascade sees them, without augmentation: crops (N, S, S, 3) uint8 and true points (N, L, 2) in their pixels."""
    crops, shapes = lddr.training_crops(faces, replace(config, augmentation="none"), seed=0)
    return crops, shapes * FACE + (config.crop - 1) / 2


def patches_figure(run: Experiment, config: LDDRConfig) -> Figure:
    """S11: the patches of some landmarks in each stage, on a generated face and as the network sees them."""
    run = replace(run, faces="synthetic")
    crops, points = crops_of(run.source("lfpw", "test").sample(2), config)
    shown = points[:1, list(SHOWN)]
    figure = plt.figure(figsize=(9.6, 4.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.1))
    ax = left.subplots()
    ax.imshow(crops[0].numpy())
    ax.plot(*points[0].T.numpy(), ".", color="white", markersize=2)
    for form, colour in zip(STAGES, PALETTE, strict=False):
        for point in shown[0].numpy():
            draw_box(ax, np.concatenate([point - form.input / 2, point + form.input / 2]), colour)
    ax.set(xlim=(0, config.crop - 1), ylim=(config.crop - 1, 0))
    ax.set_axis_off()
    axes = right.subplots(len(STAGES), len(SHOWN), squeeze=False)
    for line, form, colour in zip(axes, STAGES, PALETTE, strict=False):
        for ax, patch in zip(line, lddr.cut_patches(crops[:1], shown, form.input), strict=True):
            ax.imshow(patch.movedim(0, -1).numpy())
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set(visible=True, color=colour, linewidth=2)
        line[0].set_ylabel(f"{form.input} px", fontsize=8)
    sides = ", ".join(str(form.input) for form in STAGES)
    figure.set_label(
        f"A generated face with squares of {sides} pixels around a corner of the eye, a corner of the mouth and the chin, and beside it these "
        "patches, a row for each side: from an eye with its surroundings down to the corner of the eye alone."
    )
    return run.record_figure("LDDR-S11", "patches of three landmarks", figure, images=1)
