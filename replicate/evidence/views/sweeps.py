"""Errors of methods at every setting of one quantity that was tried, such as iterations, components, stages or starts: rows, table and curves."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from replicate.evidence import captions
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import interval_curves
from replicate.evidence.predictions import Runs, stacked_errors, swept
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table, number
from replicate.evidence.views.compared import behind, on_faces
from replicate.faces.sources import FaceSource
from replicate.metrics import Interval, bootstrap_mean

NORMALISER = "inter-pupil"  # of all errors here
FEW, SPARSE = 6, 4  # settings that can all be named on an axis, and on a logarithmic one


def sweep_rows(run: Experiment, artefact: str, source: FaceSource, results: Runs, what: str) -> list[Row]:
    """Mean error of each method at each setting.

    Parameters
    ----------
    what : str
        ``"components"``, ``"iterations"``, ``"stages"``, ...
    """
    made = []
    for method, runs in results.items():
        keys = [key for key in runs[0].errors if key.startswith(NORMALISER) and key.endswith(f" {what}")]
        made += run.error_rows(artefact, method, source, runs, keys, rates=None)
    return made


def sweep_table(rows: Sequence[Row], what: str, title: str) -> Table:
    """Rows of `sweep_rows` with a line for each test set and setting and a column for each method."""
    sets = captions.set_names(rows)
    found = {(sets[row.protocol, row.subset], row.metric, row.method): row for row in rows}
    methods = list(dict.fromkeys(row.method for row in rows))
    lines = [
        (name, metric.split()[-2], *(_cell(found.get((name, metric, method))) for method in methods))
        for name, metric in dict.fromkeys((name, metric) for name, metric, _ in found)
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
    log: bool = False,
) -> Figure:
    """Mean error of each method against its settings on each test set, with 95 % bands, recorded for an artefact.

    Faces differ in difficulty far more than settings do. So the bands are those of the errors less what each face has above the others on
    average over all curves of its test set: they tell how certain the differences between curves are.

    Parameters
    ----------
    by_source : dict
        By test set and method: one run per training seed; seeds that not all of them have are left out.
    methods : sequence of str
        With settings of `what`.
    label : str
        Of the horizontal axis.
    level : sequence of str
        Methods without such settings, drawn at the same height everywhere.
    used : float, optional
        The setting of the methods themselves, marked by a vertical line.
    log : bool
        Whether settings double from one to the next.
    """
    shown = (*methods, *level)
    seeds = min(len(results[name]) for results in by_source.values() for name in shown)
    by_source = {
        source: {name: results[name][:seeds] for name in shown} for source, results in by_source.items()
    }
    figure, axes = plt.subplots(1, len(by_source), figsize=(3.8 * len(by_source), 3.8), squeeze=False)
    parts = []
    for ax, (source, results) in zip(axes[0], by_source.items(), strict=True):
        places, errors = _curves(results, methods, what, level)
        bands = {
            name: [bootstrap_mean(one) for one in np.moveaxis(own, -1, 0)]
            for name, own in levelled(errors).items()
        }
        bands |= {name: 2 * bands[name] for name in level}
        if used is not None:
            ax.axvline(used, color="0.6", linestyle=":", linewidth=1.2)
        interval_curves(ax, bands, places, legend=source is next(iter(by_source)))
        ax.set_xlabel(label)
        ax.set_title(on_faces(run, source, results[methods[0]]), fontsize="small")
        settings = sorted({place for one in places.values() for place in one})
        if log:
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter("{x:g}")
        if len(settings) <= (SPARSE if log else FEW):
            ax.set_xticks(settings)
        elif not log:
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        parts.append(f"{source.protocol} {source.split}: {_in_words(bands, places)}")
    axes[0, 0].set_ylabel(f"mean error (% of {NORMALISER} distance)")
    figure.suptitle(
        f"profile {run.profile}; bands: 95 %, less how much harder some faces are than others"
        + "; dotted: in use" * (used is not None),
        fontsize="small",
    )
    figure.set_label(f"Mean error in per cent by {label}, profile {run.profile}. " + " ".join(parts))
    about = [behind(source, results[methods[0]]) for source, results in by_source.items()]
    if len(about) > 1:
        several = ", ".join(
            f"{source.protocol} {source.split} ({one['images']:,} images)"
            for source, one in zip(by_source, about, strict=True)
        )
        about[0] |= dict(subset=several, images=None)
    return run.record_figure(artefact, f"mean error by {label}", figure, **about[0])


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


def levelled(errors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
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
