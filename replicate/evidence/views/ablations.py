"""What an ablation shows: every variant beside the method it changes, on the same faces and from the same seeds."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from replicate.errors import ReplicateError
from replicate.evidence.captions import caption
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE
from replicate.evidence.predictions import Predictions, Runs, paired_errors, stacked_errors
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table
from replicate.evidence.views.compared import runs_caption, sets_caption
from replicate.faces.sources import FaceSource
from replicate.metrics import Comparison, bootstrap_mean, paired_bootstrap

NORMALISER = "inter-ocular"
PUPILS = "inter-pupil"
BASELINES = ("mean shape", "SDM")  # methods of the suite that are fitted once


def differences(results: Runs, reference: str, normaliser: str = NORMALISER) -> dict[str, Comparison]:
    """Mean error of every method minus that of the reference, paired over faces and over the seeds that both have.

    Baselines are fitted once, without a seed to share: beside them, all seeds of the reference count.

    Raises
    ------
    ReplicateError
        If the reference is not among the methods.
    """
    if reference not in results:
        raise ReplicateError(f"reference: got {reference!r}, expected one of {', '.join(results)}")
    right = results[reference]

    def errors(method: str, runs: Sequence[Predictions]) -> tuple[np.ndarray, np.ndarray]:
        if method in BASELINES:
            return stacked_errors(list(runs), normaliser), stacked_errors(list(right), normaliser)
        return paired_errors(runs, right, normaliser)

    return {
        method: paired_bootstrap(*errors(method, runs))
        for method, runs in results.items()
        if method != reference
    }


def difference_table(
    run: Experiment,
    source: FaceSource,
    results: Runs,
    reference: str,
    title: str,
    normaliser: str = NORMALISER,
) -> Table:
    """Mean error of every method on `source`, and its paired difference to the reference; both with 95 % intervals."""
    compared = differences(results, reference, normaliser)
    lines = []
    for method, runs in results.items():
        error = bootstrap_mean(stacked_errors(list(runs), normaliser))
        difference = compared.get(method)
        lines.append(
            (
                method,
                with_interval(error.value, error.low, error.high),
                with_interval(difference.difference, difference.low, difference.high, "+")
                if difference
                else "–",
            )
        )
    columns = ["method", f"mean error, % {normaliser}", f"difference to {reference}"]
    return Table(
        pd.DataFrame(lines, columns=columns),
        runs_caption(run, source, results[reference], title, results.values()),
    )


def suite_table(run: Experiment, results: Mapping[str, Runs], reference: str, title: str) -> Table:
    """Mean error of every method on each test set, and its paired difference to the reference; both with 95 % intervals.

    Parameters
    ----------
    results : dict of str to dict
        By test set and method: one run per training seed.
    """
    lines = []
    for name, by_method in results.items():
        compared = differences(by_method, reference, PUPILS)
        for method, runs in by_method.items():
            error = bootstrap_mean(stacked_errors(list(runs), PUPILS))
            difference = "–"
            if method in compared:
                _, _, change, low, high, _ = compared[method]
                difference = with_interval(change, low, high, "+")
            lines.append((name, method, with_interval(*error), difference))
    columns = ["test set", "method", f"mean error, % {PUPILS}", f"difference to {reference}"]
    return Table(pd.DataFrame(lines, columns=columns), sets_caption(run, results, reference, title))


def with_interval(value: float, low: float, high: float, sign: str = "") -> str:
    """``"4.67 [4.31, 5.02]"``; a positive value has the `sign` before it."""
    return "{:{s}.2f} [{:{s}.2f}, {:{s}.2f}]".format(value, low, high, s=sign)


def crossed_table(rows: Sequence[Row], head: str, unit: str, title: str) -> Table:
    """Rows of methods that differ in two things, named ``"LDDR with SIFT, 42 pixels"``: a line for each of the first, a column for each of the last.

    Parameters
    ----------
    head : str
        Of the first column.
    unit : str
        Of the values, behind the heads of the other columns.
    """
    found = {tuple(row.method.rsplit(", ", 1)): row for row in rows}
    names, last = (list(dict.fromkeys(key[place] for key in found)) for place in (0, 1))
    cells = {key: with_interval(row.value, row.ci_low, row.ci_high) for key, row in found.items()}
    lines = [(name, *(cells[name, one] for one in last)) for name in names]
    return Table(
        pd.DataFrame(lines, columns=[head, *(f"{one}, {unit}" for one in last)]), caption(rows, title)
    )


def findings(results: Runs, reference: str, normaliser: str = NORMALISER) -> Markdown:
    """In words, which methods differ significantly from the reference in mean error, by the intervals of their paired differences."""
    compared = differences(results, reference, normaliser)
    groups = {
        f"**Significantly lower error than {reference}**": [n for n, c in compared.items() if c.high < 0],
        f"**Significantly higher error than {reference}**": [n for n, c in compared.items() if c.low > 0],
        "**No significant difference**": [n for n, c in compared.items() if c.low <= 0 <= c.high],
    }
    lines = [f"* {head}: {'; '.join(names)}." for head, names in groups.items() if names]
    return Markdown("\n".join(lines))


def difference_plot(
    results: Runs, reference: str, *, title: str = "", normaliser: str = NORMALISER
) -> Figure:
    """How much worse each method is than the reference: paired differences of mean error with 95 % intervals, one line each.

    Returns
    -------
    Figure
        Its label is the alternative text.
    """
    compared = differences(results, reference, normaliser)
    places = np.arange(len(compared))[::-1]
    centres, lows, highs = np.array([(c.difference, c.low, c.high) for c in compared.values()]).T
    figure, ax = plt.subplots(figsize=(6.6, 0.42 * len(compared) + 1.4), layout="constrained")
    ax.axvline(0, color="0.4", linewidth=1)
    ax.errorbar(
        centres,
        places,
        xerr=(centres - lows, highs - centres),
        fmt="o",
        color=PALETTE[0],
        markersize=5,
        capsize=3,
    )
    ax.set_yticks(places, compared)
    ax.set_ylim(-0.6, len(compared) - 0.4)
    ax.set_xlabel(f"mean error minus that of {reference} (% of {normaliser} distance)")
    ax.set_title(title)
    parts = [f"{method}: {with_interval(c.difference, c.low, c.high, '+')}" for method, c in compared.items()]
    figure.set_label(
        f"Difference of mean error to {reference}{f' on {title}' if title else ''}, with 95 % intervals. "
        + ". ".join(parts)
        + "."
    )
    return figure


def learning_curves(steps: Mapping[str, Sequence[Sequence[Predictions]]], *, title: str = "") -> Figure:
    """Validation error against the samples seen, one line per training seed.

    Parameters
    ----------
    steps : dict
        By method: the runs after each step of training, one per seed; they follow one another on the axis.
    title : str
        Faces and profile.

    Returns
    -------
    Figure
        Its label is the alternative text.
    """
    figure, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    parts = []
    for color, marker, (method, by_step) in zip(PALETTE, "os^Dv", steps.items(), strict=False):
        ends = []
        for number_of_seed, runs in enumerate(zip(*by_step, strict=True)):
            samples, errors = _history(runs)
            label = method if number_of_seed == 0 else None
            ax.plot(samples, errors, color=color, marker=marker, markersize=3, linewidth=1.2, label=label)
            ends.append(min(errors))
        parts.append(f"{method}: {max(samples):,} samples, best {min(ends):.2f} to {max(ends):.2f} %")
    ax.set(xlabel="samples seen", ylabel="validation error (% of inter-pupil distance)")
    ax.set_yscale("log")
    ax.set_title(title)
    ax.legend(frameon=False)
    figure.set_label(
        f"Validation error against samples seen{f', {title}' if title else ''}. " + ". ".join(parts) + "."
    )
    return figure


def _history(runs: Sequence[Predictions]) -> tuple[list[int], list[float]]:
    """Samples seen and validation errors of the successive steps of one training.

    Raises
    ------
    ReplicateError
        If a record lacks them.
    """
    samples, errors, before = [], [], 0
    for one in runs:
        if "validation" not in one.provenance:
            raise ReplicateError(
                f"{one.model} on {one.testset}: its record has no validation errors, as those of earlier versions have none; delete the files "
                f"{one.model}.*.npz in the folder `predictions` of the results, or run the notebook with fresh = True"
            )
        pairs = one.provenance["validation"]
        samples += [before + seen for seen, _ in pairs]
        errors += [error for _, error in pairs]
        before = samples[-1]
    return samples, errors
