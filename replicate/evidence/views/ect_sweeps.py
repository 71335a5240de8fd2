"""What the ECT chapter shows of §IV-C's sweeps: the error by number of shape components and by iteration (Figs 10b and 10c)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from replicate.evidence import captions, claims, tested
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import interval_curves
from replicate.evidence.predictions import Predictions, Runs, stacked_errors, swept, under
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.tables import Table, number
from replicate.evidence.views.compared import behind, on_faces, runs_caption
from replicate.evidence.views.ect_components import NORMALISER, between_pixels, differ
from replicate.faces.sources import FaceSource
from replicate.metrics import Interval, bootstrap_mean, compare_curves, curve_interval, paired_bootstrap

TOLERANCE = 1.0  # per cent of the error after the last iteration: ECT-C6
TOLERANCES = (0.5, TOLERANCE, 2.0)  # what other readings of "converges" would give


# Errors at each setting ------------------------------------------------------------------------------------------------------------


def sweep_rows(run: Experiment, artefact: str, source: FaceSource, results: Runs, what: str) -> list[Row]:
    """Mean error of each method at each setting.

    Parameters
    ----------
    what : str
        ``"components"`` or ``"iterations"``.
    """
    made = []
    for method, runs in results.items():
        keys = [key for key in runs[0].errors if key.startswith(NORMALISER) and key.endswith(f" {what}")]
        made += run.error_rows(artefact, method, source, runs, keys, rates=None)
    return made


def sweep_table(rows: Sequence[Row], what: str, title: str) -> Table:
    """Rows of `sweep_rows` with a line for each test set and setting and a column for each method."""
    found = {(row.subset, row.metric, row.method): row for row in rows}
    methods = list(dict.fromkeys(row.method for row in rows))
    lines = [
        (subset, metric.split()[-2], *(_cell(found.get((subset, metric, method))) for method in methods))
        for subset, metric in dict.fromkeys((row.subset, row.metric) for row in rows)
    ]
    columns = ["subset", what, *(f"{method}, % {NORMALISER}" for method in methods)]
    return Table(pd.DataFrame(lines, columns=columns), captions.caption(rows, title))


def _cell(row: Row | None) -> str:
    return f"{number(row.value, '%')} [{number(row.ci_low, '%')}, {number(row.ci_high, '%')}]" if row else "–"


def sweep_plot(
    run: Experiment,
    artefact: str,
    by_source: Mapping[FaceSource, Runs],
    methods: Sequence[str],
    what: str,
    *,
    label: str,
    level: Sequence[str] = (),
    used: float | None = None,
) -> Figure:
    """Mean error of each method against its settings on each test set, with 95 % bands, recorded for an artefact.

    Faces differ in difficulty far more than settings do. So the bands are those of the errors less what each face has above the others on
    average over all curves of its test set: they tell how certain the differences between curves are.

    Parameters
    ----------
    by_source : dict
        By test set and method: one run per training seed.
    methods : sequence of str
        With settings of `what`, ``"components"`` or ``"iterations"``.
    label : str
        Of the horizontal axis.
    level : sequence of str
        Methods without such settings, drawn at the same height everywhere.
    used : float, optional
        The setting of the methods themselves, marked by a vertical line.
    """
    figure, axes = plt.subplots(1, len(by_source), figsize=(3.8 * len(by_source), 3.8), squeeze=False)
    parts = []
    for ax, (source, results) in zip(axes[0], by_source.items(), strict=True):
        places, errors = _curves(results, methods, what, level)
        bands = {
            name: [bootstrap_mean(one) for one in np.moveaxis(own, -1, 0)]
            for name, own in _levelled(errors).items()
        }
        bands |= {name: 2 * bands[name] for name in level}
        if used is not None:
            ax.axvline(used, color="0.6", linestyle=":", linewidth=1.2)
        interval_curves(ax, bands, places, legend=source is next(iter(by_source)))
        ax.set_xlabel(label)
        ax.set_title(on_faces(run, source, results[methods[0]]), fontsize="small")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        parts.append(f"{source.split}: {_in_words(bands, places)}")
    axes[0, 0].set_ylabel(f"mean error (% of {NORMALISER} distance)")
    figure.suptitle(f"profile {run.profile}; bands: 95 % of the differences between curves", fontsize="small")
    figure.set_label(f"Mean error in per cent by {label}, profile {run.profile}. " + " ".join(parts))
    largest = max(by_source, key=lambda source: len(by_source[source][methods[0]][0].names))
    about = behind(largest, by_source[largest][methods[0]])
    return run.record_figure(artefact, f"mean error by {label}", figure, **about)


def _curves(
    results: Runs, methods: Sequence[str], what: str, level: Sequence[str]
) -> tuple[dict[str, Sequence[float]], dict[str, np.ndarray]]:
    """Settings and errors (S, N, K) by method; of those without settings the two ends, and errors (S, N, 1)."""
    places, errors = {}, {}
    for method in methods:
        places[method], errors[method] = swept(results[method], NORMALISER, what)
    ends = (min(map(min, places.values())), max(map(max, places.values())))
    for method in level:
        places[method], errors[method] = ends, stacked_errors(list(results[method]), NORMALISER)[..., None]
    return places, errors


def _levelled(errors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Errors (S, N, K) less what each face has above the others on average over all curves; their means stay."""
    faces = np.mean([one.mean((0, 2)) for one in errors.values()], axis=0)
    return {name: one - (faces - faces.mean())[:, None] for name, one in errors.items()}


def _in_words(curves: Mapping[str, Sequence[Interval]], places: Mapping[str, Sequence[float]]) -> str:
    parts = []
    for method, intervals in curves.items():
        values = [interval.value for interval in intervals]
        if len(set(values)) == 1:
            parts.append(f"{method} {values[0]:.2f} throughout")
            continue
        least = int(np.argmin(values))
        parts.append(
            f"{method} {values[0]:.2f} at {places[method][0]}, {values[-1]:.2f} at {places[method][-1]}, "
            f"least {values[least]:.2f} at {places[method][least]}"
        )
    return "; ".join(parts) + "."


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
