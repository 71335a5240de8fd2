"""What the pages on RNN's method and setting check: equations beside plain forms, the 52 images of a face (S2), the crop (S3), settings (S4), the
formulas of the error (S20)."""

from collections.abc import Callable
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from replicate.evidence import published
from replicate.evidence.experiment import Experiment
from replicate.evidence.rows import Row
from replicate.faces.augment import EnlargedSamples
from replicate.faces.faceset import FaceSet
from replicate.faces.perturbations import RNN_ANGLES, RNN_VARIANTS
from replicate.geometry import apply_transform
from replicate.methods import rnn, rnn_training
from replicate.methods.rnn import LSTM, RNN, MappingLoss, Pooled, RNNConfig
from replicate.metrics import nme, normalising_distance

# Equations --------------------------------------------------------------------------------------------------------------------------------


def check_equations(seed: int = 0) -> dict[str, float]:
    """Largest deviations of what is computed from what the paper says, written out, on random numbers; of all but the last, in float64."""
    torch.manual_seed(seed)  # of the weights of networks
    random = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 4, 24, 24, generator=random, dtype=torch.float64)
    points = 23 * torch.rand(2, 5, 2, generator=random, dtype=torch.float64)
    weight = torch.randn(5, 4, generator=random, dtype=torch.float64)
    bias = torch.randn(5, generator=random, dtype=torch.float64)
    return {
        "probabilities Q (§III-B)": _probabilities_apart(points),
        "softmax loss, its gradient and the peaks, in one pass (Eqs 9, 14)": _loss_apart(maps, weight, bias, points),
        "pooling, against a loop over landmarks (Fig. 5)": _pooling_apart(maps, points)[0],
        "where its gradient goes": _pooling_apart(maps, points)[1],
        "recurrent features (Eq. 11)": _lstm_apart(random),
        "steps (Eqs 7 and 16), relative to the farthest move": _steps_apart(random),
    }  # fmt: skip


def plain_probabilities(point: np.ndarray, size: int) -> np.ndarray:
    """Q (size, size) of one landmark (x, y) over the whole input, as §III-B prints it."""
    y, x = np.mgrid[:size, :size]
    found = 0.5 ** np.maximum(abs(point[0] - x), abs(point[1] - y))
    return found / found.sum()


def full_probabilities(points: Tensor, size: int) -> Tensor:
    """Q (L, size, size) of one face (L, 2), as the loss takes it."""
    places, values = rnn.probabilities(points[None], size)
    flat = torch.zeros(len(points), size * size, dtype=values.dtype)
    return flat.scatter_add_(1, places[0], values[0]).view(-1, size, size)


def _probabilities_apart(points: Tensor, size: int = 24) -> float:
    plain = np.stack([[plain_probabilities(point, size) for point in face] for face in points.numpy()])
    return max(_far(full_probabilities(face, size), one) for face, one in zip(points, plain, strict=True))


def _far(found: Tensor, expected: Tensor | np.ndarray) -> float:
    return (found - torch.as_tensor(expected)).abs().max().item()


def _loss_apart(maps: Tensor, weight: Tensor, bias: Tensor, points: Tensor) -> float:
    """The loss of conv8 in one pass against all maps A with a softmax of each; the gradient against A^ - Q as the paper derives it."""
    maps = maps.clone().requires_grad_()
    value, found = MappingLoss.apply(maps, weight, bias, points)
    [gradient] = torch.autograd.grad(value, maps)
    a = torch.einsum("lc,nchw->nlhw", weight, maps.detach()) + bias[:, None, None]
    probability = a.flatten(2).softmax(-1).view_as(a)
    wanted = torch.stack([full_probabilities(face, a.shape[-1]) for face in points])
    plain = -(wanted * probability.log()).sum((2, 3)).mean()
    slope = torch.einsum("lc,nlhw->nchw", weight, probability - wanted) / points[..., 0].numel()
    places = np.array([[divmod(int(one.argmax()), a.shape[-1])[::-1] for one in face] for face in a])
    return max(abs((value - plain).item()), _far(gradient, slope), _far(found, places.astype(float)))


def plain_pooling(maps: Tensor, points: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """SIP landmark by landmark, (N, L, C), and the gradient of its sum, of the maps' shape (N, C, H, W), put where each value came from."""
    found, gradient = torch.empty(*points.shape[:2], maps.shape[1], dtype=maps.dtype), torch.zeros_like(maps)
    for n, shape in enumerate(points.round().long().tolist()):
        for number, (x, y) in enumerate(shape):
            top, left = max(0, y - radius), max(0, x - radius)
            for channel, one in enumerate(maps[n]):
                region = one[top : y + radius + 1, left : x + radius + 1]
                row, column = divmod(int(region.argmax()), region.shape[1])
                found[n, number, channel] = region[row, column]
                gradient[n, channel, top + row, left + column] += 1
    return found, gradient


def _pooling_apart(maps: Tensor, points: Tensor, radius: int = 3) -> tuple[float, float]:
    maps = maps.contiguous(memory_format=torch.channels_last).requires_grad_()
    pooled = Pooled(maps)
    found = pooled.at(points, radius)
    [gradient] = torch.autograd.grad(found.sum() + 0 * pooled.maps.sum(), maps)
    plain, places = plain_pooling(maps.detach(), points, radius)
    return _far(found.detach(), plain), _far(gradient, places)


def _lstm_apart(random: torch.Generator) -> float:
    """Eq. 11 with numpy: no tanh on the cell in the output."""
    features, before, cell = torch.randn(3, 2, 3, 4, generator=random, dtype=torch.float64)
    lstm = LSTM(3, 4, "full", 0).double().requires_grad_(False)
    both = np.concatenate([features.flatten(1), before.flatten(1)], 1)
    weights = lstm.matrix.weight.numpy().T / both.shape[1] ** 0.5  # of Eq. 11, see `LSTM`
    i, f, o, g = np.split(both @ weights + lstm.matrix.bias.numpy(), 4, axis=1)
    i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
    memory = f * cell.flatten(1).numpy() + i * np.tanh(g)
    shown, kept = lstm(features, before, cell)
    return max(_far(kept.flatten(1), memory), _far(shown.flatten(1), o * memory))


def _steps_apart(random: torch.Generator) -> float:
    """Two steps by Eq. 7 against `RNN.refine`, which computes in bfloat16."""
    config = RNNConfig("VGG-S", width=1 / 16, scale=1 / 8, rank=6, steps=2)
    network = RNN(config, torch.zeros(1, 5, 2), torch.zeros(5, 2)).requires_grad_(False)
    for layer in network.regressors:
        layer.weight.mul_(100)  # so that a step is of the size of those of a trained network
    maps = {"deconv7": Pooled(torch.rand(1, 6, config.size, config.size, generator=random))}
    expected = [config.size * torch.rand(1, 5, 2, generator=random)]
    found, state = network.refine(maps, expected[0]), 2 * [torch.zeros(1, 5, 6)]
    for number, layer in enumerate(network.regressors, start=1):
        features = network.indexed(maps, expected[-1])
        state = network.lstm(features, *state)
        change = layer((features + state[0]).flatten(1)).view(1, 5, 2)
        expected.append(expected[-1] + rnn.CHANGE / number * config.size * change)
    apart = max(_far(one, other) for one, other in zip(found, expected, strict=True))
    return apart / _far(expected[-1], expected[0])


# Augmentation (S2) ------------------------------------------------------------------------------------------------------------------------


def variant_table(samples: EnlargedSamples) -> pd.DataFrame:
    """S2: the images of an enlarged set by the angle of their move, measured from the moves themselves.

    A box has moved if the middle of the frame has, or the face has another size.
    """
    turn, centre = samples.moves[:, :, :2], samples.framed.canvases.frame.size / 2 - 0.5
    angles = torch.rad2deg(torch.atan2(turn[:, 1, 0], turn[:, 0, 0])).round().int().numpy()
    scales = turn[:, :, 0].norm(dim=-1).numpy()
    shifts = (apply_transform(samples.moves, torch.full((1, 2), centre)) - centre).squeeze(1).abs().amax(-1)
    shifts = (shifts / samples.framed.canvases.frame.extent).numpy()
    moved, mirrored = (shifts > 1e-4) | (abs(scales - 1) > 1e-4), samples.mirrored.numpy()
    lines = []
    for angle in np.unique(angles):
        of = angles == angle
        sizes = f"{scales[of].min():.2f} to {scales[of].max():.2f}"
        counts = (of.sum(), (of & mirrored).sum(), (of & moved).sum(), (of & mirrored & moved).sum())
        lines.append((f"{angle:+d}" if angle else "0", *counts, sizes, f"{100 * shifts[of].max():.1f}"))
    columns = ["turn, degrees", "images", "mirrored", "from moved boxes", "both", "size of the face", "largest shift, % of the box"]  # fmt: skip
    return pd.DataFrame(lines, columns=columns)


def variant_rows(run: Experiment, samples: EnlargedSamples) -> list[Row]:
    """S2: how many images are made of each face, and the factors of this number."""
    faces = len(samples.framed.canvases)
    factors = {
        "rotations": len({variant.perturbation.parts[0] for variant in RNN_VARIANTS}),
        "boxes": len({len(variant.perturbation.parts) for variant in RNN_VARIANTS}),
        "mirror images": len({variant.mirrored for variant in RNN_VARIANTS}),
    }
    made = run.count_rows("RNN-S2", "RNN, augmentation", {"enlargement factor": len(samples) / faces}, "x")
    return made + run.count_rows("RNN-S2", "RNN, augmentation", factors)


def variants_figure(run: Experiment, config: RNNConfig) -> Figure:
    """S2: all images that are made of one generated face."""
    run = replace(run, faces="synthetic")
    face = run.source("300w", "train").sample(1).subset(np.arange(1))
    samples = rnn_training.enlarged(face, config, run.seed)
    crops, _ = samples.take(torch.arange(len(samples)))
    columns = len(RNN_ANGLES)
    figure, axes = plt.subplots(4, columns, figsize=(0.8 * columns, 3.5), layout="constrained")
    names = ("the box given", "mirrored", "a moved box", "moved, mirrored")
    for line, (axes_of_line, name) in enumerate(zip(axes, names, strict=True)):
        for ax, crop in zip(axes_of_line, crops[line :: len(names)], strict=True):
            ax.imshow(crop.movedim(0, -1).clip(0, 1).numpy())
            ax.set(xticks=[], yticks=[])
        axes_of_line[0].set_ylabel(name, fontsize=6.5)
    for ax, angle in zip(axes[0], RNN_ANGLES, strict=True):
        ax.set_title(f"{angle:+.0f}°" if angle else "0°", fontsize=7.5)
    figure.set_label(
        f"{len(samples)} images of one generated face in {len(names)} rows ({', '.join(names)}) and {columns} columns, turned from "
        f"{RNN_ANGLES[0]:.0f} to {RNN_ANGLES[-1]:.0f} degrees."
    )
    return run.record_figure("RNN-S2", "all images of one face", figure, subset="train", images=1, seeds=1)


# Crop (S3) --------------------------------------------------------------------------------------------------------------------------------

BOXES = {"square": (100.0, 100.0), "tall": (100.0, 130.0), "wide": (130.0, 100.0)}  # width and height, px


def printed_crop(box: np.ndarray, size: int) -> tuple[np.ndarray, tuple[float, float]]:
    """§IV-B, step by step: a transform (2, 3) from the photograph to the input, and width and height that the crop fills before zeros are added.

    Zeros are added alike on both sides.
    """
    x_min, y_min, x_max, y_max = box
    pad = 0.2 * (x_max - x_min)
    width, height = x_max - x_min + 2 * pad, y_max - y_min + 2 * pad
    scale = size / max(width, height)
    offset = [(size - 1) / 2 - scale * (x_min + x_max) / 2, (size - 1) / 2 - scale * (y_min + y_max) / 2]
    return np.array([[scale, 0, offset[0]], [0, scale, offset[1]]]), (scale * width, scale * height)


def crop_table(config: RNNConfig) -> pd.DataFrame:
    """S3: boxes of three forms, what the printed crop makes of them, and how far the corners of the box lie from there in ours."""
    lines = []
    for name, (width, height) in BOXES.items():
        box = np.array([60.0, 70.0, 60 + width, 70 + height])
        canvases = rnn_training.framed([np.zeros((300, 300, 3), np.uint8)], box[None], config)
        corners = torch.tensor(box, dtype=torch.float32).view(2, 2)
        ours = apply_transform(canvases.from_image, corners[None])[0].numpy()
        printed, filled = printed_crop(box, config.size)
        apart = abs(corners.numpy() @ printed[:, :2].T + printed[:, 2] - ours).max()
        zeros = 100 * (1 - filled[0] * filled[1] / config.size**2)
        scaled = " × ".join(f"{side:.0f}" for side in filled)
        lines.append(
            (name, f"{width:g} × {height:g}", scaled, f"{zeros:.0f} %", f"{printed[0, 0]:.3f}", apart)
        )
    columns = ["box", "pixels", "padded and scaled", "filled with zeros", "scale", "corners apart, px"]
    return pd.DataFrame(lines, columns=columns)


def crop_rows(run: Experiment, config: RNNConfig) -> list[Row]:
    """S3: the padding and the side of the input of the paper's size, both measured on a crop."""
    width = 100.0
    canvases = rnn_training.framed([np.zeros((300, 300, 3), np.uint8)], np.array([[90.0, 90, 190, 190]]), config)  # fmt: skip
    scale = canvases.from_image[0, 0, 0].item()
    padding = (config.size / scale - width) / 2 / width
    made = run.count_rows("RNN-S3", "RNN, crop", {"padding / box width": padding}, "ratio")
    return made + run.count_rows("RNN-S3", "RNN, input", {"side": canvases.crops(torch.arange(1)).shape[-1]}, "px")  # fmt: skip


# Settings (S4) ----------------------------------------------------------------------------------------------------------------------------

_SETTINGS: dict[tuple[str, str], Callable[[RNNConfig], float]] = {
    ("RNN-S4", "N candidate shapes"): lambda c: c.candidates,
    ("RNN-S4", "K regressions"): lambda c: c.steps,
    ("RNN-S4", "b SIP box width"): lambda c: c.box * c.scale,
    ("RNN-S3", "padding / box width"): lambda c: rnn.PADDING,
    ("RNN-S3", "side"): lambda c: c.size,
    ("RNN-S2", "enlargement factor"): lambda c: len(RNN_VARIANTS),
}
_TRAINING = {"momentum": "none but Adam's own", "weight decay": "none"}


def settings_that_agree() -> dict[str, tuple[float, float]]:
    """The printed numbers that the configuration takes over: by setting, the paper's and that of `RNNConfig`."""
    return {
        metric: (published.value(artefact, metric=metric), held(RNNConfig()))
        for (artefact, metric), held in _SETTINGS.items()
    }


def settings_table(config: RNNConfig, profile: str) -> pd.DataFrame:
    """S4: all printed settings beside the configuration of full size and that of a profile."""
    lines = [
        (metric, f"{published.value(artefact, metric=metric):g}", *(f"{held(one):g}" for one in (RNNConfig(), config)))
        for (artefact, metric), held in _SETTINGS.items()
    ]  # fmt: skip
    lines += [(name, f"{published.value('RNN-S4', metric=name):g}", words, words) for name, words in _TRAINING.items()]  # fmt: skip
    return pd.DataFrame(lines, columns=["setting", "paper", "RNNConfig()", f"profile {profile}"])


# The error (S20) --------------------------------------------------------------------------------------------------------------------------


def literal_errors(shapes: np.ndarray, truth: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Eq. 17 as printed, without its mean over images: squared norms of the differences of shapes (N, L, 2) over p times the lengths (N,)."""
    return np.square(shapes - truth).sum((1, 2)) / (truth.shape[1] * lengths)


def metric_table(faces: FaceSet, noise: float = 0.05, seed: int = 0) -> pd.DataFrame:
    """S20: the error of the same shapes on the same photographs at several scales, in both readings.

    Shapes are the true ones with a normal error whose deviation is `noise` of the inter-pupil distance along each axis.
    """
    truth = faces.points.astype(np.float64)
    lengths = normalising_distance(truth, "inter-pupil", faces.markup)
    off = noise * lengths[:, None, None] * np.random.default_rng(seed).standard_normal(truth.shape)
    level = np.median(literal_errors(truth + off, truth, lengths))
    lines = []
    for scale in (0.5, 1.0, 2.0):
        shapes, right = scale * (truth + off), scale * truth
        plain = nme(shapes, right, normaliser="inter-pupil", markup=faces.markup)
        literal = literal_errors(shapes, right, scale * lengths)
        below = 100 * (literal <= level).mean()
        lines.append((f"{scale:g}", f"{scale * lengths.mean():.1f}", f"{plain.mean():.3f}", f"{literal.mean():.3f}", f"{below:.0f} %"))  # fmt: skip
    columns = ["scale of the photographs", "mean inter-pupil distance, px", "mean of distances, %", "Eq. 17 as printed, px", "Eq. 18 as printed, at the median of scale 1"]  # fmt: skip
    return pd.DataFrame(lines, columns=columns)


def agreeing_distance(error: float) -> float:
    """Inter-pupil distance in pixels at which Eq. 17 as printed gives the number that the usual error in per cent has, for points equally far off."""
    return 100**2 / error
