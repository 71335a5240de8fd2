"""What the ECT chapter reads off the sweeps of §IV-C, by number of shape components and by iteration (Figs 10b and 10c)."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from replicate.evidence import claims, tested
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions, Runs, stacked_errors, swept, under
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.tables import Table
from replicate.evidence.views.compared import runs_caption
from replicate.evidence.views.ect_components import NORMALISER, between_pixels, differ
from replicate.faces.sources import FaceSource
from replicate.metrics import Interval, compare_curves, curve_interval, paired_bootstrap

TOLERANCE = 1.0  # per cent of the error after the last iteration: ECT-C6
TOLERANCES = (0.5, TOLERANCE, 2.0)  # what other readings of "converges" would give


# Numbers that follow from the errors at all settings ----------------------------------------------------------------------------------


def iterations_to_converge(means: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """From mean errors (..., K) after 0 to K - 1 iterations: the first one from which on they stay within `tolerance` per cent of the last."""
    last = means[..., -1:]
    away = np.abs(means - last) > tolerance / 100 * last
    return (away * np.arange(1, means.shape[-1] + 1)).max(-1)  # one more than the last that is away


def best_setting(means: np.ndarray, settings: Sequence[int]) -> np.ndarray:
    """From mean errors (..., K): the setting with the least."""
    return np.asarray(settings)[means.argmin(-1)]


# Iterations (S15, C6) -----------------------------------------------------------------------------------------------------------------


def convergence_rows(run: Experiment, artefact: str, source: FaceSource, results: Runs) -> list[Row]:
    """Iterations to converge of each method."""
    made = []
    for method, runs in results.items():
        found = curve_interval(swept(runs, NORMALISER, "iterations")[1], iterations_to_converge)
        [row] = run.error_rows(artefact, method, source, runs, [NORMALISER], rates=None)
        made.append(_with_number(row, "iterations to converge", found, "iterations"))
    return made


def convergence_table(run: Experiment, source: FaceSource, results: Runs, title: str) -> Table:
    """Iterations to converge of each method by several tolerances: what the definition decides."""
    lines = []
    for method, runs in results.items():
        errors = swept(runs, NORMALISER, "iterations")[1]
        found = [curve_interval(errors, partial(iterations_to_converge, tolerance=one)) for one in TOLERANCES]
        lines.append((method, *(f"{one.value:.3g} [{one.low:.3g}, {one.high:.3g}]" for one in found)))
    columns = ["method", *(f"within {tolerance:g} %" for tolerance in TOLERANCES)]
    about = runs_caption(run, source, next(iter(results.values())), title)
    return Table(pd.DataFrame(lines, columns=columns), about)


def judge_convergence(run: Experiment, left: Sequence[Predictions], right: Sequence[Predictions]) -> Verdict:
    """Judge and record ECT-C6: that the left method converges in fewer iterations than the right one."""
    sides = [swept(runs, NORMALISER, "iterations")[1] for runs in (left, right)]
    compared = compare_curves(*sides, iterations_to_converge)
    seeds, images, _ = sides[0].shape
    return run.judge_comparison("ECT-C6", compared, images, seeds)


# Components (S14, C7, C8) -------------------------------------------------------------------------------------------------------------


def best_rows(run: Experiment, artefact: str, source: FaceSource, results: Runs) -> list[Row]:
    """The number of components with the least mean error, of each method."""
    made = []
    for method, runs in results.items():
        settings, errors = swept(runs, NORMALISER, "components")
        found = curve_interval(errors, partial(best_setting, settings=settings))
        [row] = run.error_rows(artefact, method, source, runs, [NORMALISER], rates=None)
        made.append(_with_number(row, "best number of components", found, "components"))
    return made


def judge_best(run: Experiment, left: Sequence[Predictions], others: Runs) -> Verdict:
    """Judge and record ECT-C8: that the left method is best with more components than each of the others."""
    settings, errors = swept(left, NORMALISER, "components")
    statistic = partial(best_setting, settings=settings)
    compared = {
        method: compare_curves(errors, swept(runs, NORMALISER, "components")[1], statistic)
        for method, runs in others.items()
    }
    return run.judge_comparison("ECT-C8", compared, errors.shape[1], errors.shape[0])


def judge_few(run: Experiment, results: Runs) -> Verdict:
    """Judge and record ECT-C7: a clear gain with ten components; the note has the same with peaks between pixels."""
    few = under(results["ECT"], "10 components")
    finer = between_pixels({"challenging": differ(few, results[tested.CLIMBED])})
    return run.judge_on("ECT-C7", {"challenging": few}, {"challenging": results["CRM"]}, finer)


def fewest_components(runs: Sequence[Predictions], raw: Sequence[Predictions]) -> int | None:
    """The least number of components with a clear gain over the raw peaks: significant, and at least the margin of ECT-C7; None if none has."""
    peaks = stacked_errors(list(raw), NORMALISER)
    least = claims.get("ECT-C7").quantity().margin_at(peaks.mean())
    settings, errors = swept(runs, NORMALISER, "components")
    for setting, one in zip(settings, np.moveaxis(errors, -1, 0), strict=True):
        compared = paired_bootstrap(one, peaks)
        if compared.high < 0 and compared.difference <= -least:
            return setting
    return None


def clear_gain_rows(run: Experiment, artefact: str, results: Runs, raw: Sequence[Predictions]) -> list[Row]:
    """Within how many components each method has a clear gain, and all of them, as the paper puts it; one that never has gives no row."""
    found = {method: fewest_components(runs, raw) for method, runs in results.items()}
    numbers = [(method, count) for method, count in found.items() if count is not None]
    if None not in found.values():
        numbers.append((", ".join(found), max(found.values())))
    metric = "components within which clear gain over CRM appears"
    return [row for method, count in numbers for row in run.count_rows(artefact, method, {metric: count})]


def _with_number(row: Row, metric: str, found: Interval, unit: str) -> Row:
    """A row for a number that follows from the errors at all settings."""
    about = dict(metric=metric, normaliser=NO_NORMALISER, points=None, unit=unit)
    return replace(row, value=found.value, ci_low=found.low, ci_high=found.high, **about)
