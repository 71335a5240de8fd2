"""Sensitivity of a method to its start: error and failures against the noise of the boxes that a face detector might give."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicate.errors import ReplicateError
from replicate.evidence import claims, verdicts
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import interval_curves
from replicate.evidence.measured import FAILURE_THRESHOLD
from replicate.evidence.predictions import Predictions, stacked_errors
from replicate.evidence.rows import Row
from replicate.evidence.tables import number
from replicate.faces.boxes import BoxRule
from replicate.faces.faceset import FaceSet
from replicate.faces.protocols import box_rule_of
from replicate.faces.sources import FaceSource
from replicate.files import sha256
from replicate.metrics import Interval, bootstrap_mean, bootstrap_statistic, failures, nme, paired_bootstrap

LEVELS = (0.0, 0.025, 0.05, 0.1, 0.15, 0.2)
METRICS = ("mean error", f"failure rate {FAILURE_THRESHOLD / 100:g}")
FAILURE_SLOPE = "slope of failure against box disturbance"  # as DAN-C16 calls it
ERROR_SLOPE = "slope of the mean error against box disturbance"


@dataclass(frozen=True)
class NoisyBoxes:
    """Test faces whose boxes come from a better or worse detector, for `Experiment.test`: its predictions go on record by level.

    The direction in which a box errs depends on the image's name alone: a higher level moves each box further along the same way,
    so levels differ by the size of the noise and by nothing else.

    Attributes
    ----------
    source : FaceSource
        The faces, with true points. Their own boxes are not used.
    level : float
        Standard deviation of the error of position, in shares of the box's sides, and of the logarithm of the error of size.
    """

    source: FaceSource
    level: float

    def __post_init__(self) -> None:
        check_levels([self.level])

    @property
    def protocol(self) -> str:
        return self.source.protocol

    @property
    def split(self) -> str:
        """The split's name with the level."""
        return f"{self.source.split}@{self.level:g}"

    @property
    def parts(self) -> tuple["NoisyBoxes", ...]:
        """The parts of the source, with boxes of this level."""
        return tuple(NoisyBoxes(part, self.level) for part in self.source.parts)

    @property
    def rule(self) -> BoxRule:
        """The protocol's rule with this noise."""
        first = self.source.leaves[0]
        return box_rule_of(first.protocol, first.split).with_noise(self.level, self.level)

    @cached_property
    def fingerprint(self) -> str:
        """What determines the faces and their boxes."""
        return sha256(self.source.fingerprint, self.rule.text)

    def load(self) -> FaceSet:
        """The faces with their new boxes; see `FaceSource.load`."""
        return with_boxes(self.source.load(), self.rule)


def with_boxes(faces: FaceSet, rule: BoxRule) -> FaceSet:
    """The same faces with boxes by a rule."""
    return replace(faces, boxes=rule.boxes(faces.points, faces.names), box_rule=rule.text)


def check_levels(levels: Sequence[float]) -> np.ndarray:
    """Levels of noise (K,) as an array.

    Raises
    ------
    ReplicateError
        If they are not ascending numbers from 0 on.
    """
    levels = np.asarray(levels, float)
    if levels.ndim != 1 or not len(levels) or not (levels[0] >= 0 and (np.diff(levels) > 0).all()):
        raise ReplicateError(
            f"levels: got {levels.tolist()}, expected ascending standard deviations, none below 0"
        )
    return levels


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Errors of one method at several levels of noise, on the same faces.

    Attributes
    ----------
    levels : array
        (K,) ascending: see `NoisyBoxes`.
    errors : array
        (K, N), or (K, S, N) of S seeds, in per cent of the normaliser.
    normaliser : str
    """

    levels: np.ndarray
    errors: np.ndarray
    normaliser: str

    @classmethod
    def of(
        cls, runs: Mapping[float, Sequence[Predictions]], normaliser: str = "inter-ocular"
    ) -> "Sensitivity":
        """From predictions by level, one per seed."""
        errors = np.stack([stacked_errors(list(seeds), normaliser) for seeds in runs.values()])
        return cls(check_levels(list(runs)), errors, normaliser)

    def intervals(self, metric: str = METRICS[0]) -> list[Interval]:
        """A metric with its 95 % interval at each level; the resamples of faces are the same at all levels."""
        return [bootstrap_statistic(errors, verdicts.statistic_of(metric)) for errors in self.errors]

    @property
    def error_slopes(self) -> np.ndarray:
        """By how much the error of each face rises, in per cent of the normaliser per 1 % of noise: (N,) or (S, N)."""
        return self._slopes(self.errors)

    @property
    def failure_slopes(self) -> np.ndarray:
        """The same for failures, 0 or 100 % of a face: the mean over faces is the slope of the failure rate."""
        return self._slopes(100.0 * failures(self.errors, FAILURE_THRESHOLD))

    def _slopes(self, values: np.ndarray) -> np.ndarray:
        """Least-squares slopes of (K, ...) against the levels in per cent.

        Raises
        ------
        ReplicateError
            If there is only one level.
        """
        if len(self.levels) < 2:
            raise ReplicateError(f"levels: got {self.levels.tolist()}; a slope needs at least two")
        deviation = 100 * (self.levels - self.levels.mean())
        return np.tensordot(deviation / np.square(deviation).sum(), values, 1)


def sensitivity(
    predict: Callable[[FaceSet], np.ndarray],
    faces: FaceSet,
    rule: BoxRule,
    levels: Sequence[float] = LEVELS,
    *,
    normaliser: str,
) -> Sensitivity:
    """Errors of a method at several levels of noise, predicted now; for numbers on record, test it on `NoisyBoxes`.

    Parameters
    ----------
    predict : callable
        From faces, of which it uses images and boxes, to landmarks (N, L, 2) in image pixels.
    faces : FaceSet
        With true points; those that are NaN are not evaluated. Its own boxes are not used.
    rule : BoxRule
        The protocol's; its noise is replaced.
    levels : sequence of float
        Ascending, from 0 on; see `NoisyBoxes`.
    normaliser : str
        See `replicate.metrics.NORMALISERS`; for `box`, the boxes without noise.

    Raises
    ------
    ReplicateError
        For levels that are not ascending numbers from 0 on.
    """
    levels = check_levels(levels)
    true_boxes = rule.with_noise(0.0, 0.0).boxes(faces.points, faces.names)
    known = np.isfinite(faces.points).all(-1)
    predicted = (predict(with_boxes(faces, rule.with_noise(level, level))) for level in levels.tolist())
    errors = [
        nme(points, faces.points, normaliser=normaliser, markup=faces.markup, boxes=true_boxes, visible=known)
        for points in predicted
    ]
    return Sensitivity(levels, np.stack(errors), normaliser)


# Records and tables


def sensitivity_rows(
    run: Experiment,
    artefact: str,
    method: str,
    source: FaceSource,
    runs: Mapping[float, Sequence[Predictions]],
) -> list[Row]:
    """Mean error and failure rate at each level, and by how much both rise per 1 % of noise.

    Parameters
    ----------
    source : FaceSource
        The test faces.
    runs : mapping of float to sequence of Predictions
        By level, one per training seed.
    """
    made = [
        replace(row, metric=at_level(row.metric, level))
        for level, seeds in runs.items()
        for row in run.error_rows(artefact, method, source, seeds, ["inter-ocular"])
        if row.metric in METRICS
    ]
    noise = [f"{100 * level:g}" for level in runs]
    rule = f"the protocol's rule with a normal error of {', '.join(noise)} % instead"
    curve = Sensitivity.of(runs)
    for metric, slopes in ((ERROR_SLOPE, curve.error_slopes), (FAILURE_SLOPE, curve.failure_slopes)):
        value, low, high = bootstrap_mean(slopes)
        numbers = dict(value=value, ci_low=low, ci_high=high, unit="% per % of noise", count=None)
        made.append(replace(made[0], metric=metric, **numbers))
    return [replace(row, box_rule=rule) for row in made]


def judge_slopes(
    run: Experiment, claim_id: str, left: Sensitivity, right: Sensitivity, note: str = ""
) -> Verdict:
    """Judge and record a claim that failures rise differently with the noise.

    The note has the failure rates at both ends, since a method that always fails has no slope, and the slopes of the mean error.
    """
    seeds, images = np.atleast_2d(left.failure_slopes).shape
    ends = [[side.intervals(METRICS[1])[place].value for place in (0, -1)] for side in (left, right)]
    slopes = [round(float(side.error_slopes.mean()), 3) + 0.0 for side in (left, right)]
    remarks = [
        note,
        "{:.1f} to {:.1f} % fail against {:.1f} to {:.1f} %".format(*ends[0], *ends[1]),
        "the mean error rises by {:.3f} against {:.3f} % per 1 % of noise".format(*slopes),
    ]
    verdict = verdicts.judge_comparison(
        claims.get(claim_id),
        paired_bootstrap(left.failure_slopes, right.failure_slopes),
        faces=run.faces,
        profile=run.profile,
        images=images,
        seeds=seeds,
        note="; ".join(filter(None, remarks)),
    )
    claims.record([verdict])
    return verdict


def at_level(metric: str, level: float) -> str:
    """Name in rows of a metric at a level of noise."""
    return f"{metric}, box noise {100 * level:g} %"


def sensitivity_table(rows: Sequence[Row], levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """Rows of `sensitivity_rows` with a line for each method and metric and a column for each level.

    Levels without a row leave their cells empty.
    """
    found = {(row.method, row.metric): row for row in rows}
    lines = []
    for method in dict.fromkeys(row.method for row in rows):
        for metric in METRICS:
            cells = (_cell(found.get((method, at_level(metric, level)))) for level in levels)
            lines.append((method, metric, *cells))
    return pd.DataFrame(
        lines, columns=["method", "metric", *(f"noise {100 * level:g} %" for level in levels)]
    )


def _cell(row: Row | None) -> str:
    return (
        ""
        if row is None
        else f"{number(row.value, '%')} [{number(row.ci_low, '%')}, {number(row.ci_high, '%')}]"
    )


# Figures


def sensitivity_plot(
    curves: Mapping[str, Sensitivity], *, metric: str = METRICS[0], title: str = "", ax: Axes | None = None
) -> Figure:
    """A metric against the noise of the boxes, with 95 % bands, one line per method.

    Parameters
    ----------
    curves : dict of str to Sensitivity
        By method, all with one normaliser.
    metric : str
        See `replicate.evidence.verdicts.statistic_of`.
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
    intervals = {name: curve.intervals(metric) for name, curve in curves.items()}
    interval_curves(ax, intervals, {name: 100 * curve.levels for name, curve in curves.items()})
    of = f"of {normaliser} distance" if metric == METRICS[0] else "of faces"
    ax.set(xlabel="standard deviation of the box's error (% of its sides)", ylabel=f"{metric} (% {of})")
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    ax.set_title(title)
    figure = ax.get_figure()
    figure.set_label(alt_text_sensitivity(curves, metric, title))
    return figure


def alt_text_sensitivity(curves: Mapping[str, Sensitivity], metric: str = METRICS[0], title: str = "") -> str:
    """What a sensitivity plot shows, in words."""
    normaliser = _common_normaliser(curves)
    of = f"in per cent of the {normaliser} distance" if metric == METRICS[0] else "in per cent of the faces"
    parts = [
        f"{name}: from {_at(curve, metric, 0)} to {_at(curve, metric, -1)}" for name, curve in curves.items()
    ]
    head = f"{metric[0].upper()}{metric[1:]} {of} against the noise of the boxes"
    return f"{head}{f' on {title}' if title else ''}, with 95 % bands. " + ". ".join(parts) + "."


def _at(curve: Sensitivity, metric: str, place: int) -> str:
    value = np.mean(verdicts.statistic_of(metric)(curve.errors[place], axis=-1))
    return f"{value:.1f} % at a noise of {100 * curve.levels[place]:g} %"


def _common_normaliser(curves: Mapping[str, Sensitivity]) -> str:
    found = sorted({curve.normaliser for curve in curves.values()})
    if len(found) != 1:
        raise ReplicateError(
            f"curves: got the normalisers {found or 'of no method'}; expected at least one method, and one normaliser for all"
        )
    return found[0]
