"""What RNN's initialization network does on a face: true and predicted probability maps (F3), candidate shapes (F4)."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.nn import functional

from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE, draw_landmarks
from replicate.evidence.views.rnn_method import full_probabilities
from replicate.faces.faceset import FaceSet
from replicate.faces.markups import markup
from replicate.geometry import apply_transform
from replicate.methods import rnn, rnn_training
from replicate.methods.rnn import RNN

HALVINGS = 14  # down from a map's largest probability, below which it is black
SHOWN = (8, 33, 36)  # the 9th, 34th and 37th landmarks, as in Fig. 3
COLUMNS = 12  # maps in a row
TILE = 64  # pixels of a map as drawn among others
WINDOW = 16  # pixels to each side of a landmark, of an enlarged map


@dataclass(frozen=True, eq=False)
class Maps:
    """One face with its maps, in pixels of the input.

    Attributes
    ----------
    crop : array
        (size, size, 3) in [0, 1].
    truth, peaks, start : array
        (L, 2): true shape, largest values of conv8, and the candidate nearest to these.
    wanted, found : array
        (L, size, size) probabilities: Q, and the softmax of conv8.
    """

    crop: np.ndarray
    truth: np.ndarray
    peaks: np.ndarray
    start: np.ndarray
    wanted: np.ndarray
    found: np.ndarray


@torch.inference_mode()
def maps_of(network: RNN, face: FaceSet) -> Maps:
    """What the initialization network makes of the first face of a set."""
    face = face.subset(np.arange(1))
    canvases = rnn_training.framed(face.images, face.boxes, network.config)
    crops = canvases.crops(torch.arange(1)).to(network.mean.device)
    fast = rnn.for_inference(network)
    responses = fast.responses(fast.maps(crops))
    peaks = rnn.peaks(responses)
    truth = apply_transform(canvases.from_image, torch.as_tensor(face.points))
    return Maps(
        crops[0].movedim(0, -1).cpu().numpy().clip(0, 1),
        truth[0].numpy(),
        peaks[0].cpu().numpy(),
        fast.start(peaks)[0].cpu().numpy(),
        full_probabilities(truth[0], network.config.size).numpy(),
        responses[0].flatten(1).softmax(-1).view_as(responses[0]).cpu().numpy(),
    )


def probability_maps(run: Experiment, maps: Maps, markup_name: str) -> Figure:
    """F3: all maps Q above, all maps of conv8 below, beside them the face; on the right three landmarks' maps, enlarged.

    Parameters
    ----------
    run : Experiment
        Says what the network was trained on.
    maps : Maps
        Of a generated face.
    """
    figure = plt.figure(figsize=(11.0, 8.2), layout="constrained")
    grid = figure.add_gridspec(2, 3, width_ratios=(5.2, 1.3, 1.3))
    for line, (name, found) in enumerate((("true, $Q$", maps.wanted), ("conv8, $\\hat{A}$", maps.found))):
        ax = figure.add_subplot(grid[line, 0])
        ax.imshow(montage(found), cmap="gray", vmin=-HALVINGS, vmax=0, interpolation="nearest")
        ax.set_title(f"all landmarks: {name}", fontsize="small")
        ax.set_axis_off()
        inner = grid[line, 2].subgridspec(len(SHOWN), 1)
        for place, landmark in enumerate(SHOWN):
            ax = figure.add_subplot(inner[place])
            _enlarged(ax, found[landmark], maps.truth[landmark], maps.peaks[landmark] if line else None)
            ax.set_title(f"{name.split(', ')[1]} of landmark {landmark + 1}", fontsize="x-small")
    inner = grid[:, 1].subgridspec(3, 1)
    shapes = {"truth": maps.truth, "largest values of conv8": maps.peaks, "nearest candidate": maps.start}
    for place, (name, shape) in enumerate(shapes.items()):
        _face(figure.add_subplot(inner[place]), maps, shape, name, markup_name)
    numbers = ", ".join(str(landmark + 1) for landmark in SHOWN)
    figure.set_label(
        f"Maps of all {len(maps.wanted)} landmarks of one generated face. Above, true probabilities, a small pyramid at each landmark; below, what conv8 "
        f"of a network gives that was trained on {run.faces} faces. In the middle the face with its true shape, the places of the largest values, and the "
        f"candidate that is nearest to these, with landmarks {numbers} in orange; on the right the maps of these three around the true landmark, enlarged, with a cross at the true landmark and a circle at the largest value."
    )
    title = "true and predicted probability maps of one generated face"
    return run.record_figure("RNN-F3", title, figure, seeds=1)


def montage(maps: np.ndarray) -> np.ndarray:
    """Maps (L, size, size) of probabilities side by side, as logarithms to base 2 with 0 for the largest of each.

    A pixel is the largest of those that it stands for, so that a peak is not lost; white lines divide the maps.
    """
    halvings = torch.as_tensor(halvings_below(maps))
    tiles = functional.adaptive_max_pool2d(halvings[None], min(TILE, maps.shape[-1]))[0]
    tiles = functional.pad(tiles, (0, 2, 0, 2), value=0.0)  # white lines
    tiles = functional.pad(tiles, (0, 0, 0, 0, 0, -len(tiles) % COLUMNS), value=0.0)
    rows = tiles.unflatten(0, (-1, COLUMNS)).permute(0, 2, 1, 3)
    return rows.flatten(2).flatten(0, 1).numpy()


def halvings_below(maps: np.ndarray) -> np.ndarray:
    """How often the largest of each map (L, H, W) has to be halved to give its values, negative, `HALVINGS` at most."""
    relative = maps / maps.max((1, 2), keepdims=True)
    return np.log2(np.maximum(relative, 2.0**-HALVINGS))


def _enlarged(ax: Axes, one: np.ndarray, truth: np.ndarray, peak: np.ndarray | None) -> None:
    """A map around its landmark; the cross is the truth, the circle the largest value."""
    ax.imshow(halvings_below(one[None])[0], cmap="gray", vmin=-HALVINGS, vmax=0, interpolation="nearest")
    ax.plot(*truth, "+", color=PALETTE[5], markersize=7)
    if peak is not None:
        ax.plot(*peak, "o", markerfacecolor="none", color=PALETTE[1], markersize=7)
    x, y = truth.round()
    ax.set(
        xlim=(x - WINDOW - 0.5, x + WINDOW + 0.5),
        ylim=(y + WINDOW + 0.5, y - WINDOW - 0.5),
        facecolor="black",
    )
    ax.set(xticks=[], yticks=[])


def _face(ax: Axes, maps: Maps, shape: np.ndarray, name: str, markup_name: str) -> None:
    ax.imshow(maps.crop, interpolation="bilinear")
    draw_landmarks(ax, shape, markup_name, "white")
    ax.plot(*shape[list(SHOWN)].T, "o", color=PALETTE[1], markersize=4)
    ax.set_title(name, fontsize="small")
    ax.set(xlim=(-0.5, len(maps.crop) - 0.5), ylim=(len(maps.crop) - 0.5, -0.5))
    ax.set_axis_off()


def in_order(shapes: np.ndarray) -> np.ndarray:
    """Shapes (M, L, 2) in the order of their first principal component: the way in which they differ most."""
    flat = (shapes - shapes.mean(0)).reshape(len(shapes), -1)
    along = np.linalg.svd(flat, full_matrices=False)[2][0]
    along = along * (1 if along.sum() >= 0 else -1)  # a component has no sign of its own
    return shapes[np.argsort(flat @ along, kind="stable")]


def candidate_shapes(run: Experiment, network: RNN, markup_name: str, columns: int = 10) -> Figure:
    """F4: all candidates of a network, in the order of what they differ in most, each over the mean shape."""
    shapes, mean = in_order(network.candidates.cpu().numpy()), network.mean.cpu().numpy()
    lines = -(-len(shapes) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(0.95 * columns, 1.0 * lines), layout="constrained", squeeze=False
    )
    (left, top), (right, bottom) = shapes.min((0, 1)), shapes.max((0, 1))
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, shape in zip(axes.flat, shapes, strict=False):
        for line in markup(markup_name).polylines:
            ax.plot(*mean[list(line)].T, color="0.8", linewidth=0.8)
            ax.plot(*shape[list(line)].T, color=PALETTE[0], linewidth=0.9)
        ax.set(xlim=(left - 2, right + 2), ylim=(bottom + 2, top - 2), aspect="equal")
    figure.set_label(
        f"{len(shapes)} candidate shapes in blue, each over the mean shape in grey, from one end of what they differ in most to the other."
    )
    return run.record_figure("RNN-F4", "candidate shapes", figure, subset="train", seeds=1)
