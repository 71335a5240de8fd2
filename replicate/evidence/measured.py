"""Rows made from errors: a statistic with its 95 % interval, or its change from one method to another in per cent."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from replicate.errors import ReplicateError
from replicate.evidence.predictions import Predictions, stacked_errors
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.scoring import described
from replicate.evidence.verdicts import statistic_of
from replicate.metrics import (
    Interval,
    Statistic,
    auc,
    bootstrap_statistic,
    failure_percent,
    failures,
    relative_change,
)

FAILURE_THRESHOLD = 8.0  # per cent of the inter-ocular distance: 300-W's failure, DAN §4
AUC: Statistic = partial(auc, threshold=FAILURE_THRESHOLD)
FAILURES: Statistic = partial(failure_percent, threshold=FAILURE_THRESHOLD)
_CHANGES: dict[str, tuple[str, int, Statistic]] = {  # what the papers call a change, and its sign
    "mean error": ("mean-error reduction", -1, np.mean),
    "AUC 0.08": ("AUC increase", 1, AUC),
    "failure rate 0.08": ("failure-rate reduction", -1, FAILURES),
}
MakeRow = Callable[..., Row]  # a row of which method, test set and provenance are settled


def failure_count(errors: np.ndarray, axis: int = -1) -> np.ndarray:
    """Number of failures along an axis of errors in per cent: a statistic to resample."""
    return failures(errors, FAILURE_THRESHOLD).sum(axis=axis)


def statistic_row(
    about: MakeRow,
    metric: str,
    normaliser: str,
    errors: np.ndarray,
    statistic: Statistic,
    unit: str = "%",
    **more: int | None,
) -> Row:
    """A statistic of errors (N,) or (S, N) with its interval."""
    interval = bootstrap_statistic(errors, statistic)
    return about(
        metric=metric,
        normaliser=normaliser,
        value=interval.value,
        ci_low=interval.low,
        ci_high=interval.high,
        unit=unit,
        **more,
    )


def exact_rows(
    artefact: str,
    method: str,
    counts: Mapping[str, float],
    unit: str,
    *,
    faces: str,
    profile: str,
    device: str,
) -> list[Row]:
    """Rows of numbers that have no interval, by metric."""
    return [
        Row(
            artefact=artefact, method=method, protocol="", subset="", points=None, metric=metric, normaliser=NO_NORMALISER,
            value=value, ci_low=None, ci_high=None, unit=unit, images=None, seeds=None, faces=faces, profile=profile, device=device,
        )
        for metric, value in counts.items()
    ]  # fmt: skip


def mean_rows(about: MakeRow, runs: Sequence[Predictions], keys: Sequence[str]) -> list[Row]:
    """Mean errors by these keys, named as the papers' values are."""
    made = []
    for key in keys:
        metric, normaliser, points, unit = described(key, runs[0].markup)
        made.append(
            statistic_row(about, metric, normaliser, stacked_errors(runs, key), np.mean, unit, points=points)
        )
    return made


def rate_rows(about: MakeRow, runs: Sequence[Predictions], key: str, threshold: float) -> list[Row]:
    """AUC and failure rate of the errors by a key, up to and above a threshold that is a share of the normaliser."""
    errors, (_, normaliser, points, unit) = stacked_errors(runs, key), described(key, runs[0].markup)
    if unit != "%":
        raise ReplicateError(
            f"rates: got {key!r} with errors in {unit}, expected errors in per cent of a normaliser"
        )
    area, rate = f"AUC {threshold:.2f}", f"failure rate {threshold:.2f}"
    failing = int(failures(errors, 100 * threshold).sum())
    return [
        statistic_row(about, area, normaliser, errors, statistic_of(area), points=points),
        statistic_row(about, rate, normaliser, errors, statistic_of(rate), points=points, count=failing),
    ]


def change_rows(about: MakeRow, after: np.ndarray, before: np.ndarray, against: str = "") -> list[Row]:
    """Changes of all three metrics, paired; one that was zero before has no relative change and gives no row."""
    return [
        _change_row(about, metric, against, relative_change(after, before, statistic))
        for metric, (_, _, statistic) in _CHANGES.items()
        if np.mean(statistic(before, axis=-1)) != 0
    ]


def change_from_number(
    about: MakeRow, metric: str, after: np.ndarray, number: float, against: str, note: str
) -> Row:
    """Change of one metric from a number that has no interval."""
    after = bootstrap_statistic(after, _CHANGES[metric][2])
    change = Interval(*(100 * (value - number) / number for value in after))
    row = _change_row(about, metric, against, change)
    return replace(row, note="; ".join(filter(None, [row.note, note])))


def _change_row(about: MakeRow, metric: str, against: str, change: Interval) -> Row:
    name, sign, _ = _CHANGES[metric]
    low, high = sorted((sign * change.low, sign * change.high))
    return about(
        metric=f"{name} vs {against}" if against else name,
        normaliser=NO_NORMALISER,
        value=sign * change.value,
        ci_low=low,
        ci_high=high,
        unit="% relative",
        points=None,  # as the papers' relative numbers are listed
    )
