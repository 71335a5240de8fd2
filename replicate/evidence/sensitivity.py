"""Sensitivity of a method to its start: error against the noise of the boxes that a face detector might give."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicate.errors import ReplicateError
from replicate.evidence.figures import DASHES, PALETTE
from replicate.faces.boxes import BoxRule
from replicate.faces.faceset import FaceSet
from replicate.metrics import Interval, bootstrap_mean, nme

LEVELS = (0.0, 0.025, 0.05, 0.1, 0.15, 0.2)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Errors of one method at several levels of noise, on the same faces.

    Attributes
    ----------
    levels : array
        (K,) ascending: standard deviations of the error of position, in shares of the box's sides, and of the logarithm of its size.
    errors : array
        (K, N) in per cent of the normaliser.
    normaliser : str
    """

    levels: np.ndarray
    errors: np.ndarray
    normaliser: str

    @property
    def intervals(self) -> list[Interval]:
        """Mean error with its 95 % interval at each level; the resamples of faces are the same at all levels."""
        return [bootstrap_mean(errors) for errors in self.errors]


def sensitivity(
    predict: Callable[[FaceSet], np.ndarray],
    faces: FaceSet,
    rule: BoxRule,
    levels: Sequence[float] = LEVELS,
    *,
    normaliser: str,
) -> Sensitivity:
    """Errors of a method when its boxes come from better and worse detectors.

    The direction in which a box errs depends on the image's name alone: a higher level moves each box further along the same way,
    so levels differ by the size of the noise and by nothing else.

    Parameters
    ----------
    predict : callable
        From faces, of which it uses images and boxes, to landmarks (N, L, 2) in image pixels.
    faces : FaceSet
        With true points; those that are NaN are not evaluated. Its own boxes are not used.
    rule : BoxRule
        The protocol's; its noise is replaced.
    levels : sequence of float
        Ascending, from 0 on; see `Sensitivity`.
    normaliser : str
        See `replicate.metrics.NORMALISERS`; for `box`, the boxes without noise.

    Raises
    ------
    ReplicateError
        For levels that are not ascending numbers from 0 on.
    """
    levels = np.asarray(levels, float)
    if levels.ndim != 1 or not len(levels) or not (levels[0] >= 0 and (np.diff(levels) > 0).all()):
        raise ReplicateError(
            f"levels: got {levels.tolist()}, expected ascending standard deviations, none below 0"
        )
    true_boxes = rule.with_noise(0.0, 0.0).boxes(faces.points, faces.names)
    known = np.isfinite(faces.points).all(-1)
    errors = []
    for level in levels.tolist():
        noisy = rule.with_noise(level, level)
        started = replace(faces, boxes=noisy.boxes(faces.points, faces.names), box_rule=noisy.text)
        errors.append(
            nme(predict(started), faces.points, normaliser=normaliser, markup=faces.markup, boxes=true_boxes, visible=known)
        )  # fmt: skip
    return Sensitivity(levels, np.stack(errors), normaliser)


def sensitivity_plot(curves: Mapping[str, Sensitivity], *, title: str = "", ax: Axes | None = None) -> Figure:
    """Mean error against the noise of the boxes, with 95 % bands, one line per method.

    Parameters
    ----------
    curves : dict of str to Sensitivity
        By method, all with one normaliser.
    title : str
        Test set and faces.
    ax : Axes, optional
        Where to draw; a new figure unless given.

    Returns
    -------
    Figure
        With the alternative text of `alt_text_sensitivity` as its metadata label.

    Raises
    ------
    ReplicateError
        Without curves, or with different normalisers.
    """
    normaliser = _common_normaliser(curves)
    ax = ax or plt.subplots(figsize=(6.2, 4.2))[1]
    look = zip(cycle(PALETTE), cycle(DASHES), cycle(_MARKERS), strict=False)
    for (name, curve), (color, dash, marker) in zip(curves.items(), look, strict=False):
        mean, low, high = np.array(curve.intervals).T
        noise = 100 * curve.levels
        ax.fill_between(noise, low, high, color=color, alpha=0.18, linewidth=0)
        ax.plot(
            noise, mean, color=color, linestyle=dash, marker=marker, markersize=4.5, linewidth=1.8, label=name
        )
    ax.set(
        xlabel="standard deviation of the box's error (% of its sides)",
        ylabel=f"mean error (% of {normaliser} distance)",
    )
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    ax.set_title(title)
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False)  # below: it never hides a line
    figure = ax.get_figure()
    figure.set_label(alt_text_sensitivity(curves, title))
    return figure


def alt_text_sensitivity(curves: Mapping[str, Sensitivity], title: str = "") -> str:
    """What a sensitivity plot shows, in words."""
    head = (
        f"Mean error in per cent of the {_common_normaliser(curves)} distance against the noise of the boxes"
    )
    parts = [f"{name}: from {_at(curve, 0)} to {_at(curve, -1)}" for name, curve in curves.items()]
    return f"{head}{f' on {title}' if title else ''}, with 95 % bands. " + ". ".join(parts) + "."


def _at(curve: Sensitivity, place: int) -> str:
    return f"{curve.errors[place].mean():.1f} % at a noise of {100 * curve.levels[place]:g} %"


def _common_normaliser(curves: Mapping[str, Sensitivity]) -> str:
    found = sorted({curve.normaliser for curve in curves.values()})
    if len(found) != 1:
        raise ReplicateError(
            f"curves: got the normalisers {found or 'of no method'}; expected at least one method, and one normaliser for all"
        )
    return found[0]
