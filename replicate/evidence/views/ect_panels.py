"""Panels of faces in the ECT chapter: correction (Fig. 3), confidence (Fig. 4), and all steps side by side (Fig. 11)."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import FITTED, TRUTH, draw_landmarks
from replicate.faces.augment import cut_canvases
from replicate.faces.faceset import FaceSet
from replicate.geometry import apply_transform
from replicate.methods import ect_fitting
from replicate.methods.ect import FCN, ECTConfig, for_inference, upsampled
from replicate.methods.ect_fitting import PDM

PEAKS, PROJECTION, CORRECTION, TUNED = "CRM", "CRM-PDM", "weighted correction", "ECT"
LEAST_SHOWN = 0.12  # confidences below it are drawn with the radius of this one


@dataclass(frozen=True, eq=False)
class Steps:
    """Faces with what each step of ECT makes of them, in pixels of the frame.

    Attributes
    ----------
    faces : FaceSet
    crops : array
        (n, size, size, 3) in [0, 1].
    maps : array
        (n, size, size): the highest response of all landmarks at each pixel, from 0 on.
    shapes : dict of str to array
        (n, L, 2) by step: `PEAKS`, `PROJECTION`, `CORRECTION`, `TUNED`.
    truth : array
        (n, L, 2).
    confidence : array
        (n, L): of Eq. 15, in the last patches.
    """

    faces: FaceSet
    crops: np.ndarray
    maps: np.ndarray
    shapes: dict[str, np.ndarray]
    truth: np.ndarray
    confidence: np.ndarray


@torch.inference_mode()
def steps_of(network: FCN, pdm: PDM, faces: FaceSet, config: ECTConfig) -> Steps:
    """Fit a few faces, keeping what each step gives."""
    device = network.conv8.weight.device
    canvases = cut_canvases(faces.images, faces.boxes, pdm.mean.cpu(), config.frame, colour=True)
    crops = canvases.crops(torch.arange(len(faces)))
    maps = upsampled(for_inference(network)(crops.to(device))[-1])
    start = ect_fitting.peaks(maps)
    fits = ect_fitting.fits(pdm, config, [PROJECTION, TUNED])
    fitted = fits[TUNED](maps, start)
    shapes = {
        PEAKS: start,
        PROJECTION: fits[PROJECTION](maps, start).shapes[0],
        CORRECTION: fitted.shapes[0],
        TUNED: fitted.shapes[-1],
    }
    return Steps(
        faces,
        crops.movedim(1, -1).numpy().clip(0, 1),
        maps.amax(1).clamp_min(0).cpu().numpy(),
        {name: shape.cpu().numpy() for name, shape in shapes.items()},
        apply_transform(canvases.from_image, torch.as_tensor(faces.points)).numpy(),
        fitted.confidence.cpu().numpy(),
    )


# Which faces are shown ------------------------------------------------------------------------------------------------------------


def ranked(values: np.ndarray, places: Sequence[float]) -> np.ndarray:
    """Indices of the faces at some places, from 0 to 1, of the order by rising `values` (N,)."""
    order = np.argsort(values, kind="stable")
    return order[np.rint(np.asarray(places) * (len(order) - 1)).astype(int)]


# The panels -----------------------------------------------------------------------------------------------------------------------


def correction_panel(run: Experiment, steps: Steps, gains: np.ndarray, markup: str = "ibug68") -> Figure:
    """Fig. 3: peaks, projection and weighted correction over the response maps, and the initial shape with the truth over the face.

    Parameters
    ----------
    gains : array
        (n,): by how much the weighted correction lowers the error of the projection, in per cent of the diagonal of the face's box.
    """
    titles = ("(a) peaks", "(b) projection", "(c) weighted correction", "(d) initial shape, truth")
    figure, axes = _grid(len(gains), titles, size=2.1)
    for index, row in enumerate(axes):
        for ax, name in zip(row, (PEAKS, PROJECTION, CORRECTION), strict=False):
            _show(ax, _heat(steps, index))
            draw_landmarks(ax, steps.shapes[name][index], markup, "white")
        _show(row[3], steps.crops[index])
        draw_landmarks(row[3], steps.truth[index], markup, TRUTH)
        draw_landmarks(row[3], steps.shapes[CORRECTION][index], markup, FITTED)
        row[0].set_ylabel(f"gain of (c) over (b):\n{gains[index]:+.2f} % of the diagonal", fontsize="x-small")
    words = ", ".join(f"{gain:+.2f} %" for gain in gains)
    figure.set_label(
        f"{len(gains)} faces in rows; columns: the peaks over all response maps, their projection on the shape model, the weighted correction, "
        f"and on the face the true shape in blue with the corrected one in yellow. The correction lowers the error of the projection by {words} of the box's diagonal."
    )
    return _recorded(run, "ECT-F3", "weighted correction", figure, steps)


def confidence_panel(run: Experiment, steps: Steps) -> Figure:
    """Fig. 4: all response maps of a face above, below its landmarks as circles whose radius is inversely proportional to the confidence."""
    count = len(steps.crops)
    figure, axes = plt.subplots(
        2, count, figsize=(1.6 * count + 0.9, 3.25), layout="constrained", squeeze=False
    )
    colours = plt.get_cmap("viridis")
    for index, (upper, lower) in enumerate(axes.T):
        _show(upper, _heat(steps, index))
        _show(lower, steps.crops[index])
        w = steps.confidence[index]
        diameter = steps.crops.shape[1] / 50 / np.maximum(w, LEAST_SHOWN)
        lower.add_collection(
            EllipseCollection(
                diameter, diameter, 0 * diameter, units="xy", offsets=steps.shapes[TUNED][index], offset_transform=lower.transData,
                facecolors="none", edgecolors=colours(w), linewidths=0.9,
            )
        )  # fmt: skip
    scale = plt.cm.ScalarMappable(plt.Normalize(0, 1), colours)
    figure.colorbar(scale, ax=axes, label="confidence $w$", shrink=0.6, aspect=30)
    low = ", ".join(f"{w.min():.2f} to {w.max():.2f}" for w in steps.confidence)
    figure.set_label(
        f"{count} faces. Above, the response maps of all landmarks laid over one another; below, the fitted landmarks as circles, the smaller "
        f"the higher their confidence, which ranges from face to face: {low}."
    )
    return _recorded(run, "ECT-F4", "confidence of each landmark", figure, steps)


def all_steps_panel(run: Experiment, steps: Steps, errors: np.ndarray, markup: str = "ibug68") -> Figure:
    """Fig. 11: input, response maps over it, peaks, projection, weighted correction, ECT.

    Parameters
    ----------
    errors : array
        (n,): of the peaks, in per cent of the diagonal of the face's box.
    """
    titles = ("input", "response maps", *(name for name in steps.shapes))
    figure, axes = _grid(len(errors), titles, size=1.65)
    for index, row in enumerate(axes):
        _show(row[0], steps.crops[index])
        _show(row[1], _overlaid(steps, index))
        for ax, shape in zip(row[2:], steps.shapes.values(), strict=True):
            _show(ax, steps.crops[index])
            draw_landmarks(ax, shape[index], markup, FITTED)
        row[0].set_ylabel(f"peaks: {errors[index]:.1f} %\nof the diagonal", fontsize="x-small")
    words = ", ".join(f"{error:.1f} %" for error in errors)
    figure.set_label(
        f"{len(errors)} faces in rows; columns: input, response maps over the input, and the landmarks of CRM (the peaks), CRM-PDM, the "
        f"weighted correction and ECT. Errors of the peaks: {words} of the box's diagonal."
    )
    return _recorded(run, "ECT-F11", "from response maps to the fitted shape", figure, steps)


def _recorded(run: Experiment, artefact: str, title: str, figure: Figure, steps: Steps) -> Figure:
    faces = steps.faces
    return run.record_figure(
        artefact, title, figure, subset=faces.split, images=len(faces), seeds=1, box_rule=faces.box_rule
    )


def _grid(rows: int, titles: Sequence[str], size: float) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(
        rows,
        len(titles),
        figsize=(size * len(titles), size * rows + 0.3),
        layout="constrained",
        squeeze=False,
    )
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize="small")
    return figure, axes


def _show(ax: Axes, image: np.ndarray) -> None:
    """An image with its edges as limits: landmarks beyond them do not shrink it."""
    ax.imshow(image, interpolation="bilinear")
    ax.set(xticks=[], yticks=[], xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))


def _heat(steps: Steps, index: int) -> np.ndarray:
    """The highest responses as colours."""
    return plt.get_cmap("inferno")(steps.maps[index] / max(steps.maps[index].max(), 1e-6))[..., :3]


def _overlaid(steps: Steps, index: int) -> np.ndarray:
    """The highest responses as colours over the darkened face."""
    return (0.5 * steps.crops[index] + _heat(steps, index)).clip(0, 1)
