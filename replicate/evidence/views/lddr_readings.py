"""What could stand behind LDDR's printed errors of 49 points (Tables 2 and 3): what they imply, and what other readings of that column would give."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from replicate.evidence import published
from replicate.evidence.captions import caption
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE
from replicate.evidence.predictions import Runs, stacked_errors
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.tables import Table
from replicate.evidence.views.ablations import with_interval
from replicate.evidence.views.compared import sets_caption
from replicate.evidence.views.lddr_points import INNER, Estimates, behind_all
from replicate.faces.faceset import FaceSet
from replicate.faces.markups import markup
from replicate.metrics import normalising_distance, relative_change

TABLES = {"lfpw": "LDDR-T2", "helen": "LDDR-T3"}  # with errors of 49 points, by test set
# Per cent: how far a reading may be off. The shares of all other methods but one lie within as much of their median.
TOLERANCE = 10.0
AS_HEADED = "49 points, inter-pupil"
_AGAINST = " in per cent of the error as headed"  # after a reading, in the metric of its row


# What is printed ----------------------------------------------------------------------------------------------------------------------


def printed_shares() -> pd.DataFrame:
    """What Tables 2 and 3 print of methods with both numbers, by method and test set.

    Returns
    -------
    DataFrame
        Columns ``method``, ``set``, ``all`` and ``inner``, the printed errors of 68 and of 49 points; ``share``, the second in per cent of
        the first; ``others``, the mean error of the remaining 19 points that follows from both.
    """
    values = published.load("lddr")
    values = values[values["artefact"].isin(TABLES.values()) & values["number"].notna()]
    table = values.pivot(index=["label", "protocol"], columns="points", values="number").dropna()
    table = table.rename(columns={"68": "all", "49": "inner"}).rename_axis(["method", "set"]).reset_index()
    table["share"] = 100 * table["inner"] / table["all"]
    table["others"] = (68 * table["all"] - 49 * table["inner"]) / 19
    return table[["method", "set", "all", "inner", "share", "others"]]


def printed_table() -> Table:
    """The shares that the paper prints."""
    lines = [
        (one.set, one.method, f"{one.all:.2f}", f"{one.inner:.2f}", f"{one.share:.0f} %", f"{one.others:.1f}", f"{one.others / one.inner:.1f}")
        for one in printed_shares().sort_values(["set", "share"], ascending=[False, False]).itertuples()
    ]  # fmt: skip
    columns = ("test set", "method", "68 points", "49 points", "49 in % of 68", "the other 19", "19 to 49")
    title = "Tables 2 and 3 as printed, in per cent of the inter-pupil distance, and what follows for the 19 points that are not among the 49"
    return Table(pd.DataFrame(lines, columns=columns), f"{title}.")


def missing_factors() -> dict[str, pd.Series]:
    """By test set: LDDR's printed share in per cent of that of each other method, by method.

    This is what a reading has to do to the error as headed, if LDDR's share were as the other method's.
    """
    table = printed_shares().pivot(index="method", columns="set", values="share")
    return {name: 100 * table.loc["LDDR", name] / table[name].drop("LDDR") for name in TABLES}


def method_shares(run: Experiment, by_set: Mapping[str, Runs], title: str) -> Table:
    """The error of 49 points in per cent of that of 68, of each method on each test set, beside the paper's share of the method.

    Parameters
    ----------
    by_set : dict of str to dict
        Runs by test set and method, with both errors.
    """
    printed = printed_shares().set_index(["method", "set"])["share"].to_dict()
    lines = []
    for name, results in by_set.items():
        for method, runs in results.items():
            errors = (stacked_errors(list(runs), key) for key in ("inter-pupil, 49 points", "inter-pupil"))
            share = [100 + change for change in relative_change(*errors)]
            paper = f"{printed[method, name]:.0f} %" if (method, name) in printed else "–"
            lines.append((name, method, paper, f"{with_interval(*share)} %"))
    columns = ["test set", "method", "the paper", "here"]
    return Table(pd.DataFrame(lines, columns=columns), sets_caption(run, by_set, "LDDR", title))


# What it could mean -------------------------------------------------------------------------------------------------------------------


def readings(faces: FaceSet, points: np.ndarray) -> dict[str, np.ndarray]:
    """Errors (N,) in per cent by what the numbers for 49 points could be, of estimates `points` (N, 68, 2)."""
    offset = np.asarray(points, float)[:, INNER] - faces.points[:, INNER]  # (N, 49, 2)
    distance = np.linalg.norm(offset, axis=-1)
    pupils, corners, size, diagonal = (
        normalising_distance(faces.points, name, faces.markup)
        for name in ("inter-pupil", "inter-ocular", "face", "diagonal")
    )
    regions = markup("ibug68").regions
    inside = np.isin(INNER, [*regions["eyes"], *regions["nose"]])
    return {
        name: 100 * value
        for name, value in {
            AS_HEADED: distance.mean(1) / pupils,
            "49 points, inter-ocular": distance.mean(1) / corners,
            "49 points, face size": distance.mean(1) / size,
            "49 points, diagonal of the box": distance.mean(1) / diagonal,
            "sum over 49 points, divided by 68": distance.sum(1) / 68 / pupils,
            "mean over x and y of 49 points": np.abs(offset).mean((1, 2)) / pupils,
            "root mean square over x and y of 49 points": np.sqrt((offset**2).mean((1, 2))) / pupils,
            "eyes and nose alone, inter-pupil": distance[:, inside].mean(1) / pupils,
        }.items()
    }


def reading_rows(run: Experiment, artefact: str, by_set: Mapping[str, Estimates]) -> dict[str, list[Row]]:
    """By test set, each of `readings` in per cent of the error as the column is headed, with its interval over faces."""
    rows = {}
    for name, one in by_set.items():
        found = readings(one.faces, one.points)
        headed = found.pop(AS_HEADED)
        [about] = run.error_rows(artefact, "LDDR", one.source, [one.tested], ["inter-pupil"], rates=None)
        rows[name] = []
        for reading, errors in found.items():
            value, low, high = (100 + change for change in relative_change(errors, headed))
            numbers = dict(value=value, ci_low=low, ci_high=high, normaliser=NO_NORMALISER, points=None)
            rows[name].append(replace(about, metric=f"{reading}{_AGAINST}", **numbers))
    return rows


def reading_table(rows: Mapping[str, Sequence[Row]], title: str) -> Table:
    """Rows of `reading_rows` below what is needed; the last column says how far off each reading is at most."""
    needed, lines = missing_factors(), []
    for name, by_set in _by_reading(rows).items():
        cells = [f"{with_interval(row.value, row.ci_low, row.ci_high)} %" for row in by_set.values()]
        lines.append((name, *cells, f"{_farthest_off(by_set):.0f} %"))
    wanted = [
        f"{needed[name].median():.0f} % ({needed[name].min():.0f} to {needed[name].max():.0f})"
        for name in rows
    ]
    lines.insert(0, ("needed: median over the other methods (range)", *wanted, "–"))
    columns = ["reading of “49-pts”", *rows, "off by"]
    return Table(pd.DataFrame(lines, columns=columns), caption(list(chain(*rows.values())), title))


def explanation(rows: Mapping[str, Sequence[Row]]) -> Markdown:
    """In words, which readings would explain the printed numbers on all test sets, within `TOLERANCE`."""
    off = {name: _farthest_off(by_set) for name, by_set in _by_reading(rows).items()}
    ranked = sorted(off, key=off.get)
    groups = {
        f"**Within {TOLERANCE:g} % of what is needed on {' and '.join(rows)}**": [
            name for name in ranked if off[name] <= TOLERANCE
        ],
        "**Farther off**": [name for name in ranked if off[name] > TOLERANCE],
    }
    lines = [
        f"* {head}: {'; '.join(f'{name} ({off[name]:.0f} %)' for name in names) or 'none'}."
        for head, names in groups.items()
    ]
    return Markdown("\n".join(lines))


def reading_plot(
    run: Experiment, artefact: str, rows: Mapping[str, Sequence[Row]], by_set: Mapping[str, Estimates]
) -> Figure:
    """Every reading with its interval, one panel per test set; what is needed is dashed, its range over the other methods grey."""
    needed, by_reading = missing_factors(), _by_reading(rows)
    places = np.arange(len(by_reading))[::-1]
    size = (3.4 + 2.6 * len(rows), 3.6)
    figure, axes = plt.subplots(1, len(rows), figsize=size, sharey=True, layout="constrained", squeeze=False)
    words = []
    for ax, name in zip(axes[0], rows, strict=True):
        of_set = [one[name] for one in by_reading.values()]
        value, low, high = np.array([(row.value, row.ci_low, row.ci_high) for row in of_set]).T
        ax.axvspan(needed[name].min(), needed[name].max(), color="0.9")
        ax.axvline(needed[name].median(), color=PALETTE[1], linestyle="--", linewidth=1.5)
        look = dict(fmt="o", color=PALETTE[0], markersize=5, capsize=3)
        ax.errorbar(value, places, xerr=(value - low, high - value), **look)
        ax.set(title=name, xlabel="% of the error as headed", xlim=(0, None))
        listed = ", ".join(f"{reading} {one[name].value:.0f} %" for reading, one in by_reading.items())
        words.append(f"{name}: needed {needed[name].median():.0f} %; {listed}")
    axes[0][0].set_yticks(places, by_reading)
    figure.set_label(
        f"What 49 points could mean, in per cent of their inter-pupil error, {run.faces} faces, profile {run.profile}. {'. '.join(words)}."
    )
    return run.record_figure(artefact, "what 49 points could mean", figure, **behind_all(by_set))


def _by_reading(rows: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Row]]:
    """Rows of `reading_rows` by reading and test set."""
    found: dict[str, dict[str, Row]] = {}
    for name, of_set in rows.items():
        for row in of_set:
            found.setdefault(row.metric.removesuffix(_AGAINST), {})[name] = row
    return found


def _farthest_off(by_set: Mapping[str, Row]) -> float:
    """Largest difference of a reading from what is needed over test sets, in per cent of what is needed."""
    needed = missing_factors()
    return max(abs(100 * (row.value / needed[name].median() - 1)) for name, row in by_set.items())
