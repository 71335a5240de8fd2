"""What the DAN chapter shows: layers, diagrams, intermediate images, checks of the equations."""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from replicate.evidence import published
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE, draw_landmarks
from replicate.evidence.views.diagrams import arrow, box, diagram
from replicate.faces.augment import cut_canvases
from replicate.faces.faceset import FaceSet
from replicate.geometry import apply_transform
from replicate.methods.dan import DAN, Connection, DANConfig, Stage, landmark_heatmap, normalised_distance

_NAMES = (
    "conv1a",
    "conv1b",
    "pool1",
    "conv2a",
    "conv2b",
    "pool2",
    "conv3a",
    "conv3b",
    "pool3",
    "conv4a",
    "conv4b",
    "pool4",
)


def layer_table(config: DANConfig, points: int = 68) -> pd.DataFrame:
    """Table 1 as the network is: layer, shape in, shape out, kernel, weights; by running one image through it."""
    stage = Stage(1, points, config).eval()
    layers = [layer for layer in stage.convolutions if isinstance(layer, nn.Conv2d | nn.MaxPool2d)]
    lines, x = [], torch.zeros(1, 1, config.input_size, config.input_size)
    with torch.inference_mode():
        for name, layer in zip(_NAMES, layers, strict=True):
            out = layer(x)
            kernel = f"3×3×{x.shape[1]}, 1" if isinstance(layer, nn.Conv2d) else "2×2, 2"
            lines.append((name, _shape(x), _shape(out), kernel, sum(p.numel() for p in layer.parameters())))
            x = out
    for name, layer in (("fc1", stage.fc1[0]), ("fc2", stage.fc2)):
        lines.append(
            (name, _shape(x), f"{layer.out_features}", "dense", sum(p.numel() for p in layer.parameters()))
        )
        x = torch.zeros(1, layer.out_features)
    return pd.DataFrame(lines, columns=["layer", "shape in", "shape out", "kernel, stride", "weights"])


def printed_shapes() -> pd.DataFrame:
    """Shapes of Table 1 as printed: ``layer, shape in, shape out`` in the order of the layers; of dense layers only the depth."""
    table = published.load("dan")
    table = table[(table["artefact"] == "DAN-T1") & table["metric"].isin(("shape in", "shape out"))]
    wide = table.pivot(index="setting", columns="metric", values="value").loc[[*_NAMES, "fc1", "fc2"]]
    wide = wide.apply(lambda column: column.str.removeprefix("1×1×"))
    return wide.rename_axis("layer").rename_axis(None, axis=1).reset_index()


def _shape(x: torch.Tensor) -> str:
    return "×".join(map(str, (*x.shape[2:], x.shape[1]) if x.ndim == 4 else x.shape[1:]))


def parameter_counts(config: DANConfig, points: int = 68) -> dict[str, int]:
    """Learnt numbers of the parts of a network, batch normalisation included."""
    first, second = Stage(1, points, config), Stage(config.variant.channels, points, config)
    connection = Connection(config)
    return {
        "parameters, convolutions of stage 1": _count(first.convolutions),
        "parameters, fc1": _count(first.fc1),
        "parameters, fc2": _count(first.fc2),
        "parameters, stage 1": _count(first),
        "parameters, connection": _count(connection),
        "parameters, two stages": _count(first) + _count(second) + _count(connection),
    }


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def outline(run: Experiment) -> Figure:
    """Fig. 1: three stages, what goes into each and what comes out."""
    figure, ax = diagram((9, 2.6), (0, 9.2), (0, 2.6))
    for number in range(1, 4):
        x = 3.1 * (number - 1) + 0.2
        box(ax, x + 0.6, 1.0, 1.5, 0.9, f"stage {number}\nfeed-forward\nnetwork", PALETTE[0])
        entering = "image $I$" if number == 1 else f"$T_{number}(I)$, $H_{number}$, $F_{number}$"
        arrow(ax, (x + 1.35, 2.4), (x + 1.35, 1.9), entering, above=True)
        arrow(ax, (x + 2.1, 1.45), (x + 3.1 + 0.6 if number < 3 else x + 2.8, 1.45))
        ax.text(x + 2.4, 1.55, f"$S_{number}$", ha="center", va="bottom")
        ax.text(
            x + 1.35,
            0.85,
            rf"$S_{number} = T_{number}^{{-1}}(T_{number}(S_{number - 1}) + \Delta S_{number})$",
            ha="center",
            va="top",
            fontsize=8,
        )
    ax.text(0.25, 1.45, "$S_0$", ha="center", va="center")
    arrow(ax, (0.4, 1.45), (0.8, 1.45))
    figure.set_label(
        "Three boxes in a row, one per stage. The first receives the image and the mean shape; each later one the image in the canonical "
        "pose, the heatmap and the feature image made from the stage before."
    )
    return run.record_figure("DAN-F1", "outline of the stages", figure)


def connection_outline(run: Experiment) -> Figure:
    """Fig. 2: the layers between stage t and stage t + 1."""
    figure, ax = diagram((8, 3.3), (0, 8.2), (0, 3.4))
    box(ax, 0.1, 2.3, 1.2, 0.7, "image $I$", PALETTE[2])
    box(ax, 0.1, 1.3, 1.2, 0.7, "shape $S_t$", PALETTE[2])
    box(ax, 0.1, 0.3, 1.2, 0.7, "fc1 of\nstage $t$", PALETTE[2])
    box(ax, 2.2, 1.3, 1.5, 0.7, "transform\nestimation", PALETTE[0])
    box(ax, 4.4, 2.3, 1.5, 0.7, "image\ntransform", PALETTE[0])
    box(ax, 4.4, 1.3, 1.5, 0.7, "landmark\ntransform", PALETTE[0])
    box(ax, 2.2, 0.3, 1.5, 0.7, "dense layer,\n3136 units", PALETTE[0])
    box(ax, 6.6, 2.3, 1.5, 0.7, "$T_{t+1}(I)$", PALETTE[1])
    box(ax, 6.6, 1.3, 1.5, 0.7, "heatmap\n$H_{t+1}$", PALETTE[1])
    box(ax, 6.6, 0.3, 1.5, 0.7, "feature image\n$F_{t+1}$", PALETTE[1])
    for start, end, words in (
        ((1.3, 1.65), (2.2, 1.65), ""), ((3.7, 1.65), (4.4, 1.65), "$T_{t+1}$"), ((3.7, 1.85), (4.4, 2.45), ""), ((1.3, 2.75), (4.4, 2.75), ""),
        ((5.9, 2.65), (6.6, 2.65), ""), ((5.9, 1.65), (6.6, 1.65), ""), ((1.3, 0.65), (2.2, 0.65), ""), ((3.7, 0.65), (6.6, 0.65), "56×56, doubled"),
    ):  # fmt: skip
        arrow(ax, start, end, words)
    figure.set_label(
        "The shape of stage t gives a similarity transform, which moves the image and the landmarks to the canonical pose; the moved "
        "landmarks give the heatmap, and the first dense layer gives the feature image. The three images enter the next stage."
    )
    return run.record_figure("DAN-F2", "connection layers", figure)


def intermediate_images(run: Experiment, network: DAN, faces: FaceSet, count: int) -> Figure:
    """Fig. 3: for the first `count` faces the input with S_1, T_2(I) with T_2(S_1), H_2 and F_2."""
    first, network = faces.subset(np.arange(count)), copy.deepcopy(network).cpu()
    canvases = cut_canvases(first.images, first.boxes, network.canonical, network.config.frame)
    crops = canvases.crops(torch.arange(count))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        image = (crops - network.pixel_mean) / network.pixel_std
        delta, hidden = network.stages[0](image)
        shapes = network.canonical + delta
        images, transform = network.connections[0].parts(image, shapes, hidden, network.canonical)
    warped, heatmap, feature = images.values()
    in_pose = apply_transform(transform, shapes)
    warped = (
        warped * network.pixel_std.mean() + network.pixel_mean.mean()
    )  # back to grey values, near enough to look at
    titles = ("input $I$, $S_1$", "$T_2(I)$, $T_2(S_1)$", "heatmap $H_2$", "feature image $F_2$")
    figure, axes = plt.subplots(count, 4, figsize=(6.4, 1.65 * count), layout="constrained", squeeze=False)
    for row, ax in enumerate(axes):
        panels = (crops[row, 0], warped[row, 0], heatmap[row, 0], feature[row, 0])
        for column, (cell, panel) in enumerate(zip(ax, panels, strict=True)):
            limits = dict(vmin=0, vmax=1) if column < 3 else {}
            cell.imshow(panel.float().numpy(), cmap="gray" if column < 2 else "magma", **limits)
            cell.set_axis_off()
            if row == 0:
                cell.set_title(titles[column], fontsize="small")
        draw_landmarks(ax[0], shapes[row].numpy(), faces.markup, PALETTE[1])
        draw_landmarks(ax[1], in_pose[row].numpy(), faces.markup, PALETTE[1])
    figure.set_label(
        f"{count} challenging faces in rows; columns: input with the shape after stage 1, canonical pose, heatmap, feature image."
    )
    return run.record_figure(
        "DAN-F3", "intermediate images", figure, subset=faces.split, images=count, box_rule=faces.box_rule
    )


def check_equations(network: DAN, seed: int = 0) -> dict[str, float]:
    """Largest deviations of the network from the equations written out plainly, on a random image.

    Returns
    -------
    dict
        Eq. 2 in pixels of the frame (the network computes in bfloat16), Eq. 3 in values of the heatmap, Eq. 4 in its own unit, and the
        distance in pixels of the farthest lit pixel of the heatmap from a landmark.
    """
    network, config = copy.deepcopy(network).cpu().eval(), network.config
    crops = torch.rand(
        1, 1, config.input_size, config.input_size, generator=torch.Generator().manual_seed(seed)
    )
    with torch.inference_mode():
        first, second = network(crops)[:2]
        by_hand = _second_stage_by_hand(network, crops, first)
        heat, expected, nearest = _heatmap_by_hand(first, config)
        loss = normalised_distance(second, first, "ibug68").item()
    eyes = [first[0, start : start + 6].mean(0) for start in (36, 42)]
    loss_by_hand = (
        np.mean([torch.dist(a, b).item() for a, b in zip(first[0], second[0], strict=True)])
        / torch.dist(*eyes).item()
    )
    return {
        "Eq. 2: largest deviation": (second - by_hand).abs().max().item(),
        "Eq. 3: largest deviation": (heat - expected).abs().max().item(),
        "Eq. 3: farthest lit pixel": nearest[heat > 0].max().item(),
        "Eq. 4: deviation": abs(loss - loss_by_hand),
    }


def _second_stage_by_hand(network: DAN, crops: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    """Eq. 2 for the second stage, in single precision, with the transform fitted by complex numbers instead of matrices."""
    image = (crops - network.pixel_mean) / network.pixel_std
    hidden = network.stages[0](image)[1]
    delta, _ = network.stages[1](network.connections[0](image, shape, hidden, network.canonical)[0])
    s, c = (torch.view_as_complex(points.contiguous()) for points in (shape[0], network.canonical))
    turn = ((s - s.mean()).conj() * (c - c.mean())).sum() / (s - s.mean()).abs().square().sum()
    in_pose = turn * (s - s.mean()) + c.mean() + torch.view_as_complex(delta[0].contiguous())
    return torch.view_as_real((in_pose - c.mean()) / turn + s.mean())[None]


def _heatmap_by_hand(
    shape: torch.Tensor, config: DANConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The heatmap, what Eq. 3 says pixel by pixel, and each pixel's distance to the nearest landmark."""
    size, radius = config.input_size, config.heatmap_radius
    y, x = torch.meshgrid(*[torch.arange(float(size))] * 2, indexing="ij")
    pixels = torch.stack([x, y], -1).reshape(-1, 1, 2)
    nearest = (pixels - shape[0]).norm(dim=-1).amin(1).reshape(size, size)
    expected = torch.where(nearest <= radius, 1 / (1 + nearest), 0)
    return landmark_heatmap(shape, size, radius)[0, 0], expected, nearest
