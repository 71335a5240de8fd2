"""What the LDDR chapter shows of single landmarks (§4.2): errors by part of the face, and of every landmark."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from replicate.errors import ReplicateError
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE, draw_landmarks
from replicate.evidence.predictions import Predictions
from replicate.evidence.rows import Row
from replicate.evidence.views.fitted import Predict
from replicate.faces.faceset import FaceSet
from replicate.faces.markups import markup
from replicate.faces.sources import FaceSource
from replicate.metrics import normalising_distance, per_point_error

INNER = np.array([point for (point,) in markup("ibug49").definition])  # of the 68
OUTER = np.setdiff1d(np.arange(68), INNER)  # contour and inner corners of the mouth
GROUPS = {
    **markup("ibug68").regions,
    "the 49 points": tuple(INNER),
    "the other 19 points": tuple(OUTER),
    "all 68 points": tuple(range(68)),
}


@dataclass(frozen=True, eq=False)
class Estimates:
    """One run on a test set, with what is behind its errors.

    Attributes
    ----------
    points : array
        (N, 68, 2), in pixels of the images of `faces`.
    """

    source: FaceSource
    tested: Predictions
    faces: FaceSet
    points: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """Of each landmark, (N, 68), in per cent of the inter-pupil distance."""
        faces = self.faces
        return per_point_error(self.points, faces.points, normaliser="inter-pupil", markup=faces.markup)


def estimates(source: FaceSource, tested: Predictions, predict: Predict) -> Estimates:
    """The landmarks behind a run on `source`: those on record, otherwise predicted again.

    Raises
    ------
    ReplicateError
        If the run is of other faces.
    """
    faces = source.load()
    if tested.names != faces.names:
        raise ReplicateError(
            f"tested: got predictions on {tested.testset}, expected the {len(faces)} faces of {source.protocol} {source.split}"
        )
    return Estimates(source, tested, faces, predict(faces) if tested.points is None else tested.points)


# Parts of the face (S4) ---------------------------------------------------------------------------------------------------------------


def group_rows(run: Experiment, artefact: str, by_set: Mapping[str, Estimates]) -> list[Row]:
    """Mean inter-pupil error of each part of the face, on each test set."""
    rows = []
    for one in by_set.values():
        errors = one.errors
        for name, group in GROUPS.items():
            key = f"inter-pupil, {name}"
            of_group = replace(one.tested, errors={key: errors[:, group].mean(1)}, points=None)
            [row] = run.error_rows(artefact, "LDDR", one.source, [of_group], [key], rates=None)
            rows.append(replace(row, points=len(group)))
    return rows


def point_map(run: Experiment, artefact: str, by_set: Mapping[str, Estimates]) -> Figure:
    """The error of every landmark as a circle around its place on the mean shape, whose radius is the mean distance from the truth."""
    size = (3.4 * len(by_set), 3.7)
    figure, axes = plt.subplots(1, len(by_set), figsize=size, layout="constrained", squeeze=False)
    colours = np.where(np.isin(np.arange(68), INNER), PALETTE[0], PALETTE[1])
    worst = []
    for ax, (name, one) in zip(axes[0], by_set.items(), strict=True):
        mean, errors = _mean_shape(one.faces), one.errors.mean(0)
        draw_landmarks(ax, mean, one.faces.markup, "0.75")
        width = 2 * errors / 100  # the shape is in inter-pupil distances
        look = dict(units="xy", facecolors="none", edgecolors=colours)
        ax.add_collection(
            EllipseCollection(width, width, 0 * width, offsets=mean, offset_transform=ax.transData, **look)
        )
        left, top = (mean - width[:, None] / 2).min(0)
        right, bottom = (mean + width[:, None] / 2).max(0)
        ax.set(aspect="equal", title=name, xlim=(left, right), ylim=(bottom, top))
        ax.set_axis_off()
        least, most = errors.argmin(), errors.argmax()
        worst.append(
            f"{name}: from {errors[least]:.1f} % (point {least}) to {errors[most]:.1f} % (point {most})"
        )
    figure.set_label(
        f"Mean distance of each landmark from the truth as the radius of a circle on the mean shape, {run.faces} faces, profile {run.profile}; "
        f"the 49 inner points blue, the others orange. In per cent of the inter-pupil distance, {'; '.join(worst)}."
    )
    return run.record_figure(artefact, "error of every landmark", figure, **behind_all(by_set))


def behind_all(by_set: Mapping[str, Estimates]) -> dict:
    """What a figure of several test sets puts on record."""
    first = next(iter(by_set.values()))
    return dict(
        subset=", ".join(f"{one.source.protocol} {one.source.split}" for one in by_set.values()),
        images=sum(len(one.faces) for one in by_set.values()),
        seeds=1,
        box_rule=first.tested.provenance["box_rule"],
    )


def _mean_shape(faces: FaceSet) -> np.ndarray:
    """Mean of the true shapes (68, 2), each about its middle and in its own inter-pupil distance."""
    length = normalising_distance(faces.points, "inter-pupil", faces.markup)[:, None, None]
    return ((faces.points - faces.points.mean(1, keepdims=True)) / length).mean(0)
