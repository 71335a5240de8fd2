"""What the page on ECT's method shows besides its diagrams: Algorithm 1 beside the code, settings, targets, loss, shape model."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from replicate.errors import ReplicateError
from replicate.evidence import published
from replicate.evidence.contact_sheets import draw_face
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE
from replicate.faces import protocols
from replicate.faces.augment import cut_canvases
from replicate.faces.faceset import FaceSet
from replicate.faces.markups import markup
from replicate.faces.sources import FaceSource
from replicate.geometry import apply_transform, similarity
from replicate.methods import ect, ect_fitting, ect_training
from replicate.methods.ect import ECTConfig
from replicate.methods.ect_fitting import PDM
from replicate.shapes import mean_shape

# Algorithm 1 ----------------------------------------------------------------------------------------------------------------------

_STEPS: tuple[tuple[str, str, Callable, str], ...] = (  # line, what it says, the function that does it, its code
    ("1", "Feed I into FCN and get the response maps", ect_fitting.predict, "maps = upsampled(fast(canvases.crops(part))[-1])"),
    ("2", "Locate the landmarks at the peak response positions", ect_fitting.predict, "start = peaks(maps)"),
    ("3", "Confidence of the peaks, as in Eq. 8", ect_fitting.refine, "w = patches.confidence(config)"),
    ("3", "Initial shape by Eq. 14", ect_fitting.refine, "p = pdm.step(torch.zeros_like(p), observed - pdm.mean, w, config.gamma * config.unit**2)"),
    ("4", "for k = 0 to K do", ect_fitting.refine, "for k in range((len(config.patches) if iterations is None else iterations) if steps.tune else 0):"),
    ("5–7", "Patches of all landmarks around the current shape", ect_fitting.refine, "patches = Patches(maps, shapes[-1], config.patch(k))"),
    ("8", "w by Eq. 15", ect_fitting.refine, "w = patches.confidence(config)"),
    ("8", "v by Eq. 9", ect_fitting.refine, "v = patches.mean_shift(config.rho2 * config.unit**2 / weight)"),
    ("10", "Δp by Eq. 8", ect_fitting.refine, "pdm.step(p, v @ pose[..., :2].mT, weight, prior)"),
    ("11", "Update the parameters, p + Δp", ect_fitting.refine, "p = p + pdm.step("),
    ("12", "Update the shape", ect_fitting.refine, "shapes.append(apply_transform(back, pdm.shape(p)))"),
)  # fmt: skip


def algorithm_table() -> pd.DataFrame:
    """Algorithm 1 line by line, beside the code that does it.

    Raises
    ------
    ReplicateError
        If a function no longer holds the line of code that is shown as its own.
    """
    lines = []
    for number, words, function, code in _STEPS:
        if code not in inspect.getsource(function):
            raise ReplicateError(
                f"Algorithm 1, line {number}: `{code}` is not in {function.__name__}; show what is"
            )
        lines.append((number, words, function.__name__, code))
    return pd.DataFrame(lines, columns=["line", "Algorithm 1", "function", "code"])


# §IV Settings ---------------------------------------------------------------------------------------------------------------------


def settings_table(config: ECTConfig, profile: str) -> pd.DataFrame:
    """S18: what the paper prints of the training and of Eq. 15, beside the configuration of full size and that of a profile."""
    lines = []
    for metric, printed in _printed_settings().items():
        full, ours = (_SETTINGS[metric](one) for one in (ECTConfig(), config))
        lines.append((metric, printed, full, ours))
    return pd.DataFrame(lines, columns=["setting", "paper", "ECTConfig()", f"profile {profile}"])


def settings_that_agree() -> dict[str, tuple[float, float]]:
    """The printed numbers that the configuration takes over: by setting, the paper's and that of `ECTConfig`."""
    config = ECTConfig()
    held = {
        "max rotation": config.rotation,
        "sigma": config.sigma,
        "a in Eq.15": config.a,
        "b in Eq.15": config.b,
    }
    return {metric: (published.value("ECT-S18", metric=metric), value) for metric, value in held.items()}


def _printed_settings() -> dict[str, str]:
    """S18 as printed, with units; the learning rate of the fine-tuning under a name of its own."""
    found = published.load("ect")
    found = found[found["artefact"] == "ECT-S18"]
    return {
        f"{line.metric}, {line.setting}" if "fine-tuning" in line.setting else line.metric: (
            f"{line.value} {line.unit}".strip().replace("10−", "10^−")
        )
        for line in found.itertuples()
    }


_SETTINGS: dict[str, Callable[[ECTConfig], str]] = {
    "random crop": lambda c: "{0} × {0} of {1} px".format(round(c.kept * c.input_size), c.input_size),
    "max rotation": lambda c: f"{c.rotation:g} deg",
    "sigma": lambda c: f"{c.sigma * c.unit:g} px",
    "learning rate": lambda c: f"{c.step_size:g}, Adam's, falling" if c.decay else f"{c.step_size:g}, Adam's",
    "momentum": lambda c: "none but Adam's own",
    "a in Eq.15": lambda c: f"{c.a:g}",
    "b in Eq.15": lambda c: f"{c.b:g}, subtracted" if c.confidence != "as printed" else f"{c.b:g}",
    "learning rate, fine-tuning truncated FCN": lambda c: f"{c.finetuning * c.step_size:g}, Adam's",
}


# §III-B Targets and loss ----------------------------------------------------------------------------------------------------------


def true_maps(faces: FaceSet, config: ECTConfig) -> Tensor:
    """Ideal response maps (N, L, size, size) of training faces in their boxes, as a network without augmentation would see them."""
    seen = ect_training.faces_with_targets(faces)
    mean = mean_shape(torch.as_tensor(faces.points))
    canvases = cut_canvases(faces.images, faces.boxes, mean, config.frame, colour=True)
    points = apply_transform(canvases.from_image, torch.as_tensor(seen.points))
    return ect.target_maps(points.double(), config)


def generated_training_faces(run: Experiment, count: int = 6) -> dict[str, FaceSet]:
    """The first generated training faces of three protocols, by name: for a check that depends on no photograph."""
    run = replace(run, faces="synthetic")
    return {name: run.source(name, "train").sample(count) for name in ("aflw-pifa", "cofw", "300w")}


def target_table(sets: Mapping[str, FaceSet], config: ECTConfig) -> pd.DataFrame:
    """S19: how many ideal maps of visible and of hidden points are empty, by protocol."""
    lines = []
    for protocol, faces in sets.items():
        empty = (true_maps(faces, config) == 0).all(-1).all(-1).numpy()
        marked = "yes" if protocol in ect_training.FLAGGED else "no"
        counts = [f"{empty[which].sum():,} of {which.sum():,}" for which in (~faces.visible, faces.visible)]
        lines.append((protocol, len(faces), marked, *counts))
    columns = ["protocol", "faces", "marks hidden points", "empty maps of hidden points", "empty maps of visible points"]  # fmt: skip
    return pd.DataFrame(lines, columns=columns)


def ideal_maps(run: Experiment, faces: FaceSet, config: ECTConfig, columns: int = 4) -> Figure:
    """S19: generated faces with the fewest visible points, above all ideal response maps of each laid over one another."""
    most_hidden = np.argsort(faces.visible.sum(1), kind="stable")[:columns]
    shown = faces.subset(most_hidden)
    maps = true_maps(shown, config).amax(1)
    figure, axes = plt.subplots(2, columns, figsize=(2.0 * columns, 4.1), layout="constrained", squeeze=False)
    for index, (upper, lower) in enumerate(axes.T):
        draw_face(upper, shown, index)
        lower.imshow(maps[index].numpy(), cmap="magma", vmin=0, vmax=config.peak)
        for ax in (upper, lower):
            ax.set_axis_off()
    figure.set_label(
        f"{columns} generated faces with hidden landmarks. Above, visible points as blue dots, hidden ones as orange crosses; below, the ideal "
        "response maps: a bright spot for each visible point, nothing for a hidden one."
    )
    return replace(run, faces="synthetic").record_figure(
        "ECT-S19", "ideal response maps", figure, images=columns
    )


def check_loss(config: ECTConfig, seed: int = 0) -> dict[str, float]:
    """Deviations of the loss from Eq. 10 written out, on random maps and points of which one is invisible.

    Returns
    -------
    dict
        The loss of the response maps, its gradient, and the whole loss, each relative to what is written out; the largest deviation of
        the enlarged maps from a deconvolution with bilinear weights, inside the border, relative to the largest response; and what
        ideal small maps still cost once they are enlarged, as a share of what empty maps cost there.
    """
    random = torch.Generator().manual_seed(seed)
    low, high = 0.2 * config.input_size, 0.6 * config.input_size
    points = low + high * torch.rand(2, 5, 2, generator=random, dtype=torch.float64)
    points[0, 0] = math.nan
    ideal = ect.target_maps(points, config, ect.STRIDE)
    noise = torch.randn(2, *ideal.shape, generator=random, dtype=torch.float64)
    maps = [(0.5 * ideal + 0.1 * one).requires_grad_() for one in noise]
    short, plain = (how(maps[-1], points, config) for how in (ect.upsampled_error, _written_out))
    slopes = [torch.autograd.grad(one, maps[-1])[0] for one in (short, plain)]
    norm = math.pi * (config.sigma * config.unit * config.peak) ** 2 * points[..., 0].numel()
    squares = sum((one - ideal).square().sum() for one in maps)
    whole = (ect.STRIDE**2 * squares + plain) / norm
    inside = (..., slice(2, -2), slice(2, -2))
    large, slow = ect.upsampled(maps[-1])[inside], _deconvolution(maps[-1])[inside]
    with torch.no_grad():
        return {
            "Eq. 10, response maps": (short / plain - 1).abs().item(),
            "Eq. 10, its gradient": ((slopes[0] - slopes[1]).norm() / slopes[1].norm()).item(),
            "Eq. 10, whole loss": (ect.loss(maps, points, config) / whole - 1).abs().item(),
            "enlarged maps, inside the border": ((large - slow).abs().max() / large.abs().max()).item(),
            "ideal small maps, enlarged": (
                _written_out(ideal, points, config) / _written_out(0 * ideal, points, config)
            ).item(),
        }


def _written_out(small: Tensor, points: Tensor, config: ECTConfig) -> Tensor:
    """Eq. 10 as it stands: every pixel of the response maps against the ideal ones."""
    return (ect.upsampled(small) - ect.target_maps(points, config)).square().sum()


def _deconvolution(small: Tensor) -> Tensor:
    """UpsampleNet as Fig. 2a has it: a deconvolution of 8 × 8 with bilinear weights and a stride of 4."""
    weights = 1 - (torch.arange(2 * ect.STRIDE, dtype=small.dtype) - ect.STRIDE + 0.5).abs() / ect.STRIDE
    kernel = (weights[:, None] * weights).expand(small.shape[1], 1, -1, -1)
    padding = ect.STRIDE // 2
    return functional.conv_transpose2d(
        small, kernel, stride=ect.STRIDE, padding=padding, groups=small.shape[1]
    )


# §III-A Shape model ---------------------------------------------------------------------------------------------------------------


_MOVES = torch.tensor([-2.0, 2.0, 0.0])  # standard deviations


def check_bases(pdm: PDM, seed: int = 0) -> dict[str, float]:
    """Deviations of the bases of Eq. 13 from what they must be: orthonormality, and in pixels what is lost of moved mean shapes and of shapes of the model."""
    random = torch.Generator().manual_seed(seed)
    flat = pdm.bases.flatten(0, 1)
    scale, angle = 0.5 + torch.rand(20, generator=random), 2 * math.pi * torch.rand(20, generator=random)
    moved = apply_transform(similarity(scale, angle, 20 * torch.randn(20, 2, generator=random)), pdm.mean)
    p = 5 * torch.randn(20, flat.shape[1], generator=random)
    return {
        "orthonormality": (flat.T @ flat - torch.eye(flat.shape[1])).abs().max().item(),
        "turned, scaled and shifted mean shapes, px": _farthest(pdm.shape(pdm.project(moved)), moved),
        "shapes of the model, px": _farthest(pdm.shape(pdm.project(pdm.shape(p))), pdm.shape(p)),
    }


def _farthest(shapes: Tensor, others: Tensor) -> float:
    return (shapes - others).norm(dim=-1).max().item()


def retained_variance(pdm: PDM, counts: tuple[int, ...] = (5, 10, 20, 30, 60)) -> dict[str, float]:
    """Share of the variance, in per cent, that the first components hold: metric to number."""
    wanted = sorted({*counts, pdm.active})
    return {
        f"variance in {m} components": 100 * pdm.retained[m - 1].item()
        for m in wanted
        if m <= len(pdm.retained)
    }


def shape_model(run: Experiment, pdm: PDM, train: FaceSource, components: int = 4) -> Figure:
    """The mean shape moved along its first components, and the variance that the first components retain.

    Parameters
    ----------
    train : FaceSource
        The training faces that the model was learnt from.
    """
    widths = [1] * components + [1.5]
    figure, axes = plt.subplots(
        1, components + 1, figsize=(10, 2.6), layout="constrained", width_ratios=widths
    )
    ways = (pdm.eigenvalues.sqrt() * pdm.components)[..., :components]
    moved = pdm.mean + _MOVES[:, None, None] * ways.movedim(-1, 0)[:, None]  # (components, 3, L, 2)
    places = moved.flatten(0, 2)
    (left, top), (right, bottom) = places.amin(0).tolist(), places.amax(0).tolist()
    for number, (ax, shapes) in enumerate(zip(axes, moved.numpy(), strict=False), start=1):
        for shape, colour in zip(shapes, (PALETTE[0], PALETTE[1], "0.35"), strict=True):
            for line in markup(protocols.markup_of(train.protocol, train.split)).polylines:
                ax.plot(*shape[list(line)].T, color=colour, linewidth=1.0)
        ax.set(xlim=(left - 1, right + 1), ylim=(bottom + 1, top - 1), aspect="equal")
        ax.set_title(f"component {number}", fontsize="small")
        ax.set_axis_off()
    _draw_retained(axes[-1], pdm)
    shares = ", ".join(f"{name} {share:.0f} %" for name, share in retained_variance(pdm).items())
    figure.set_label(
        f"The mean shape in grey, moved by two standard deviations to either side, blue and orange, along each of the first {components} "
        f"components; and the share of variance that the first components retain: {shares}."
    )
    return run.record_figure("ECT-S14", "shape model", figure, subset=train.split, images=train.count)


def _draw_retained(ax: Axes, pdm: PDM) -> None:
    count = np.arange(1, len(pdm.retained) + 1)
    ax.plot(count, 100 * pdm.retained.numpy(), color=PALETTE[0])
    ax.axvline(pdm.active, color=PALETTE[1], linestyle="--", linewidth=1.2)
    ax.annotate(f"m = {pdm.active}", (pdm.active, 20), color=PALETTE[1], xytext=(4, 0), textcoords="offset points")  # fmt: skip
    ax.set(xlabel="components", ylabel="variance retained (%)", ylim=(0, 101), xlim=(1, None))
