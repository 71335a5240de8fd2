"""The confidence of Eq. 15: its three readings, measured on faces, and on landmarks that are covered, blurred or hidden."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from replicate.evidence.captions import caption_of
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import DASHES, PALETTE
from replicate.evidence.tables import Table
from replicate.faces.augment import Canvases, cut_canvases
from replicate.faces.faceset import FaceSet
from replicate.geometry import apply_transform, invert
from replicate.methods import ect_fitting, ect_training
from replicate.methods.ect import FCN, ECTConfig
from replicate.methods.ect_fitting import PDM, Fitted
from replicate.metrics import Comparison, paired_bootstrap

READINGS = {  # of Eq. 15, as `ECTConfig.confidence` calls them
    "as printed": "as printed: variance, b added",
    "variance": "variance, b subtracted",
    "deviation": "deviation, b subtracted (used here)",
}
RADIUS = 0.15  # of the disc that is covered or blurred, in units of the mean shape's longer side
BLUR = 0.08  # standard deviation of the blur, in the same unit


# Readings of Eq. 15 ---------------------------------------------------------------------------------------------------------------


def fading_curves(run: Experiment, config: ECTConfig, strongest: float = 1.2) -> Figure:
    """Confidence of an ideal response map that is made weaker or stronger, by each reading of Eq. 15; on a plain and on a logistic axis."""
    strengths = torch.linspace(0, strongest, 121)
    curves = ect_fitting.fading(config, strengths)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for ax, scale in zip(axes, ("linear", "logit"), strict=True):
        for reading, colour, dash in zip(READINGS, PALETTE, DASHES, strict=False):
            ax.plot(strengths, curves[reading], color=colour, linestyle=dash, linewidth=1.8, label=READINGS[reading])  # fmt: skip
        ax.set_yscale(scale)
        ax.set(xlabel="strength of the response (1: ideal)", xlim=(0, strongest))
    axes[0].set(ylabel="confidence $w$", ylim=(-0.02, 1.02))
    axes[1].set_ylabel("confidence $w$, logistic axis")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    middle = {reading: curve[int((strengths - 1).abs().argmin())] for reading, curve in curves.items()}
    figure.set_label(
        "Confidence against the strength of a response map. "
        + " ".join(
            f"{READINGS[name]}: {curves[name][0]:.4f} for an empty map, {middle[name]:.4f} for an ideal one."
            for name in READINGS
        )
    )
    return run.record_figure("ECT-F4", "readings of Eq. 15", figure)


def reading_table(config: ECTConfig) -> pd.DataFrame:
    """Confidence of an empty, a half as high and an ideal response map by each reading of Eq. 15."""
    strengths = torch.tensor([0.0, 0.5, 1.0])
    curves = ect_fitting.fading(config, strengths)
    lines = [(READINGS[name], *(f"{value:.4f}" for value in curves[name].tolist())) for name in READINGS]
    return pd.DataFrame(lines, columns=["Eq. 15", "empty map", "half as high", "ideal map"])


def fits_by_reading(network: FCN, pdm: PDM, faces: FaceSet, config: ECTConfig) -> dict[str, Fitted]:
    """What ECT gives with each reading of Eq. 15, from the same response maps."""
    wanted = {
        reading: ect_fitting.fits(pdm, replace(config, confidence=reading), ["ECT"])["ECT"]
        for reading in READINGS
    }
    return ect_training.predict_faces(network, pdm, faces, wanted)


def histograms(run: Experiment, fitted: Mapping[str, Fitted], faces: FaceSet) -> Figure:
    """How the confidences of all landmarks of all faces are spread, by each reading of Eq. 15."""
    figure, axes = plt.subplots(1, len(READINGS), figsize=(9, 2.8), sharey=True, layout="constrained")
    parts = []
    for ax, (reading, words), colour in zip(axes, READINGS.items(), PALETTE, strict=False):
        found = fitted[reading].confidence.numpy().ravel()
        low, middle, high = np.quantile(found, (0.05, 0.5, 0.95))
        ax.hist(
            found, bins=np.linspace(0, 1, 41), weights=np.full(len(found), 100 / len(found)), color=colour
        )
        ax.set_title(f"{words}\n5 to 95 %: {low:.3g} to {high:.3g}", fontsize="small")
        ax.set(xlabel="confidence $w$", xlim=(0, 1))
        parts.append(
            f"{words[0].upper()}{words[1:]}: 5 % below {low:.4f}, half below {middle:.4f}, 95 % below {high:.4f}"
        )
    axes[0].set_ylabel("share of landmarks (%)")
    figure.set_label(f"Histograms of the confidences of all landmarks. {'. '.join(parts)}.")
    return run.record_figure(
        "ECT-F4", "confidences measured", figure, subset=faces.split, images=len(faces), seeds=1, box_rule=faces.box_rule,
    )  # fmt: skip


# Covered and blurred landmarks (C16) ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Hidden:
    """Faces with a disc that is covered or blurred.

    Attributes
    ----------
    canvases : dict of str to Canvases
        `as they are`, `covered`, `blurred`.
    inside : array
        (N, L) bool: landmarks in the disc.
    """

    canvases: dict[str, Canvases]
    inside: np.ndarray


def hide(faces: FaceSet, pdm: PDM, config: ECTConfig, seed: int = 0) -> Hidden:
    """Cover, and blur, a disc around a random landmark of each face; its radius is that of `RADIUS`, its colour is random.

    Discs are drawn into the enlarged crops, so that they are of one size whatever the photograph.
    """
    canvases = cut_canvases(faces.images, faces.boxes, pdm.mean.cpu(), config.frame, colour=True)
    to_canvas = invert(canvases.to_frame)
    in_frame = apply_transform(canvases.from_image, torch.as_tensor(faces.points))
    centres, inside = _discs(in_frame, config, np.random.default_rng(seed))
    radius = RADIUS * config.frame.extent
    covered, blurred = canvases.pixels.numpy().copy(), canvases.pixels.numpy().copy()
    random = np.random.default_rng(seed + 1)
    for number, centre in enumerate(apply_transform(to_canvas, centres[:, None])[:, 0].numpy()):
        disc = _disc(covered.shape[-1], centre, radius * config.frame.zoom)
        covered[number][:, disc] = random.integers(0, 256, (3, 1))
        image = np.moveaxis(blurred[number], 0, -1)
        soft = cv2.GaussianBlur(image, (0, 0), BLUR * config.frame.extent * config.frame.zoom)
        image[disc] = soft[disc]
    made = {"as they are": canvases}
    for name, pixels in (("covered", covered), ("blurred", blurred)):
        made[name] = replace(canvases, pixels=torch.from_numpy(pixels))
    return Hidden(made, inside)


def _discs(points: Tensor, config: ECTConfig, random: np.random.Generator) -> tuple[Tensor, np.ndarray]:
    """A random landmark (N, 2) of each face as the centre of its disc, and which landmarks (N, L) the disc holds."""
    chosen = torch.as_tensor(random.integers(points.shape[1], size=len(points)))
    centres = points[torch.arange(len(points)), chosen]
    near = (points - centres[:, None]).norm(dim=-1) < RADIUS * config.frame.extent
    return centres, near.numpy()


def _disc(side: int, centre: np.ndarray, radius: float) -> np.ndarray:
    """(side, side) bool: the pixels within `radius` of `centre`, (x, y)."""
    y, x = np.ogrid[:side, :side]
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2


def hidden_examples(run: Experiment, hidden: Hidden, faces: FaceSet, columns: int = 6) -> Figure:
    """The first faces as they are, covered and blurred."""
    figure, axes = plt.subplots(3, columns, figsize=(1.5 * columns, 4.7), layout="constrained")
    shown = torch.arange(columns)
    for row, (name, canvases) in zip(axes, hidden.canvases.items(), strict=True):
        crops = canvases.crops(shown).movedim(1, -1).numpy()
        for ax, crop in zip(row, crops, strict=True):
            ax.imshow(crop.clip(0, 1), interpolation="bilinear")
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize="small")
    figure.set_label(
        f"The first {columns} faces in three rows: as they are; with a disc of one colour pasted around a random landmark; with the same disc "
        "blurred."
    )
    return run.record_figure(
        "ECT-F4", "covered and blurred landmarks", figure, subset=faces.split, images=columns, box_rule=faces.box_rule,
    )  # fmt: skip


def hidden_confidences(
    network: FCN, pdm: PDM, hidden: Hidden, config: ECTConfig
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean confidence of landmarks of each face, (N,), when a disc of it is covered or blurred and as it is: of those in the disc, and of those beside it."""
    fit = ect_fitting.fits(pdm, config, ["ECT"])
    found = {
        name: ect_fitting.predict(network, canvases, fit)["ECT"].confidence.numpy()
        for name, canvases in hidden.canvases.items()
    }
    seen = found.pop("as they are")
    places = {"": hidden.inside, "beside the disc, ": ~hidden.inside}
    return {
        f"{words}{name}": (_mean_where(w, where), _mean_where(seen, where))
        for words, where in places.items()
        for name, w in found.items()
    }


def flagged_confidences(confidence: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean confidence of hidden and of visible landmarks, (K,) each, on the K faces that have both.

    Parameters
    ----------
    confidence : array
        (N, L).
    visible : array
        (N, L) bool: marks of the faces.
    """
    both = visible.any(1) & ~visible.all(1)
    return _mean_where(confidence[both], ~visible[both]), _mean_where(confidence[both], visible[both])


def _mean_where(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Mean (N,) of the values (N, L) of each face where (N, L) is true."""
    return np.where(where, values, 0).sum(1) / where.sum(1)


def comparisons(sides: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Comparison]:
    """Hidden against visible confidences by name, paired over faces."""
    return {name: paired_bootstrap(hidden, seen) for name, (hidden, seen) in sides.items()}


def comparison_table(
    run: Experiment,
    sides: Mapping[str, tuple[np.ndarray, np.ndarray]],
    compared: Mapping[str, Comparison],
    faces: FaceSet,
) -> Table:
    """Mean confidences of hidden and of visible landmarks with the interval of their difference; `faces` are those with the discs."""
    lines = [
        (name, f"{len(sides[name][0]):,}", f"{c.left:.3f}", f"{c.right:.3f}", f"{c.difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}]")
        for name, c in compared.items()
    ]  # fmt: skip
    columns = ["landmarks", "faces", "confidence", "as visible", "difference"]
    about = caption_of(
        faces=run.faces,
        profile=run.profile,
        images={faces.split: len(faces)},
        seeds=1,
        box_rule=faces.box_rule,
        title="Mean confidence of hidden and of visible landmarks",
    )
    return Table(pd.DataFrame(lines, columns=columns), about)
