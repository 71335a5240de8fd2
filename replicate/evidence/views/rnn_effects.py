"""What a change is worth that the RNN chapter makes, here and by the paper's own numbers: points and per cent of the mean error, on several test sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from replicate.evidence import published
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import MARKERS, PALETTE
from replicate.evidence.predictions import Runs, paired_errors
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table
from replicate.evidence.views.ablations import with_interval
from replicate.evidence.views.compared import behind, metric_change, sets_caption
from replicate.faces.sources import FaceSource
from replicate.metrics import Comparison, Interval, paired_bootstrap, relative_change

NORMALISER = "inter-pupil"


@dataclass(frozen=True)
class Change:
    """From one method to another.

    Attributes
    ----------
    words : str
        What is changed.
    after, before : str
        The methods, as rows and the paper's values name them.
    """

    words: str
    after: str
    before: str


def reduction_rows(
    run: Experiment,
    artefact: str,
    sources: Mapping[str, FaceSource],
    results: Mapping[str, Runs],
    changes: Sequence[Change],
) -> list[Row]:
    """By how many per cent each change lowers the mean error on each test set, paired."""
    metric = f"mean error, {NORMALISER}"
    return [
        row
        for change in changes
        for name, source in sources.items()
        for row in metric_change(
            run, artefact, source, results[name], after=change.after, before=change.before, metric=metric
        )
    ]


def effect(results: Runs, change: Change) -> tuple[Comparison, Interval]:
    """What a change does to the mean error, paired: in points of it, after minus before, and in per cent of that before."""
    sides = paired_errors(results[change.after], results[change.before], NORMALISER)
    return paired_bootstrap(*sides), relative_change(*sides)


def printed_effect(artefact: str, change: Change, subset: str) -> tuple[float, float] | None:
    """The same by the paper's numbers: points, and per cent; None if it has no number of one of the two."""
    values = published.load("rnn")
    found = values[(values["artefact"] == artefact) & (values["subset"] == subset)]
    numbers = found.set_index("label")["number"]
    if not {change.after, change.before} <= set(numbers.index):
        return None
    points = numbers[change.after] - numbers[change.before]
    return points, 100 * points / numbers[change.before]


def table(
    run: Experiment, artefact: str, results: Mapping[str, Runs], changes: Sequence[Change], title: str
) -> Table:
    """What each change does to the mean error on each test set, in points and in per cent, here and by the paper's numbers."""
    lines = []
    for change in changes:
        for name, by_method in results.items():
            points, percent = effect(by_method, change)
            paper = printed_effect(artefact, change, name)
            theirs = ("–", "–") if paper is None else (f"{paper[0]:+.2f}", f"{paper[1]:+.1f}")
            lines.append(
                (
                    change.words,
                    name,
                    theirs[0],
                    with_interval(points.difference, points.low, points.high, "+"),
                    theirs[1],
                    f"{percent.value:+.1f} [{percent.low:+.1f}, {percent.high:+.1f}]",
                )
            )
    columns = ["change", "test set", *(f"{who}, {unit}" for unit in ("points", "%") for who in ("the paper", "here"))]  # fmt: skip
    return Table(
        pd.DataFrame(lines, columns=columns),
        sets_caption(run, results, changes[-1].after, f"{title}: below nought where it lowers the error"),
    )


def plot(
    run: Experiment,
    artefact: str,
    sources: Mapping[str, FaceSource],
    results: Mapping[str, Runs],
    changes: Sequence[Change],
) -> Figure:
    """What each change does to the mean error, in per cent of it, a panel for each test set: ours with 95 % intervals, the paper's hollow."""
    places, parts = np.arange(len(changes))[::-1], []
    figure, axes = plt.subplots(
        1,
        len(sources),
        sharey=True,
        squeeze=False,
        figsize=(3.2 * len(sources) + 1.2, 0.45 * len(changes) + 1.9),
        layout="constrained",
    )
    for ax, (name, by_method) in zip(axes[0], results.items(), strict=True):
        ours = np.array([effect(by_method, change)[1] for change in changes])
        paper = [(printed_effect(artefact, change, name) or (np.nan, np.nan))[1] for change in changes]
        centres, lows, highs = ours.T
        ax.axvline(0, color="0.4", linewidth=1)
        bars = (centres - lows, highs - centres)
        ax.errorbar(centres, places, xerr=bars, fmt=MARKERS[0], color=PALETTE[0], capsize=3, label="here")
        ax.plot(paper, places, MARKERS[3], color=PALETTE[1], markerfacecolor="none", label="the paper")
        ax.set_title(f"{name}, {behind(sources[name], by_method[changes[0].after])['images']} {run.faces} faces", fontsize="small")  # fmt: skip
        ax.set_xlabel("change of mean error, %")
        told = (
            f"{change.words} {with_interval(*one, '+')}"
            + f", the paper {theirs:+.2f}" * bool(np.isfinite(theirs))
            for change, one, theirs in zip(changes, ours, paper, strict=True)
        )
        parts.append(f"{name}: {'; '.join(told)}")
    axes[0, 0].set_yticks(places, [change.words for change in changes])
    axes[0, 0].set_ylim(-0.6, len(changes) - 0.4)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"profile {run.profile}", fontsize="small")
    figure.set_label(
        f"Change of the mean error in per cent, profile {run.profile}, with 95 % intervals. {'. '.join(parts)}."
    )
    what = f"change of mean error by {', '.join(change.words for change in changes)}"
    return run.record_figure(
        artefact, what, figure, **about_sets(sources, {n: r[changes[0].after] for n, r in results.items()})
    )


def about_sets(sources: Mapping[str, FaceSource], runs: Runs) -> dict:
    """What `Experiment.record_figure` puts on record of runs on several test sets, by name."""
    about = {name: behind(source, runs[name]) for name, source in sources.items()}
    first = next(iter(about.values()))
    if len(about) == 1:
        return first
    several = ", ".join(
        f"{source.protocol} {source.split} ({about[name]['images']:,} images)"
        for name, source in sources.items()
    )
    return first | dict(subset=several, images=None)
