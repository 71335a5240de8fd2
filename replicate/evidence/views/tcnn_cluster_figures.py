"""Tables and figures of what TCNN's vanilla network learns (§2.2), drawn from `tcnn_measures`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicate.evidence import captions, published
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import DASHES, MARKERS, PALETTE
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table, number
from replicate.evidence.tested.tcnn_clusters import test_clusters
from replicate.evidence.views.tcnn_clusters import ATTRIBUTES, LANDMARKS
from replicate.evidence.views.tcnn_measures import LEARNING, NAMES, VALIDATING, Measured, Study, controlled
from replicate.evidence.views.tcnn_tweaking import cluster_means
from replicate.faces.sources import FaceSource
from replicate.methods import tcnn
from replicate.methods.tcnn import LEVELS, TCNNConfig
from replicate.methods.tcnn_analysis import LAST, PICTURED, POSITIONS, RGB

_SHOWN = 15  # faces of a scatter plot: Fig. 3
_AXIS = ("RGB", *LEVELS[1:])  # the levels below a plot


# Tables ---------------------------------------------------------------------------------------------------------------------------------------


def _cell(row: Row) -> str:
    return f"{number(row.value, row.unit)} [{number(row.ci_low, row.unit)}, {number(row.ci_high, row.unit)}]"


def size_table(rows: Sequence[Row]) -> Table:
    """Rows of `size_rows` as the paper's Table 1 has them, its own numbers beside them."""
    printed = published.load("tcnn")
    printed = printed[printed["artefact"] == "TCNN-T1"].set_index("label")
    found = {(row.method, row.metric): row for row in rows}
    lines = [
        (
            f"input of {method.split()[-1]}",
            f"{printed.loc[method, 'value']} ± {printed.loc[method, 'plus_minus']}",
            _cell(found[method, "median cluster size"]),
            _cell(found[method, "SD of cluster sizes"]),
        )
        for method in dict.fromkeys(row.method for row in rows)
    ]
    columns = ["features", "paper: median ± SD", "median here", "SD here"]
    return Table(pd.DataFrame(lines, columns=columns), captions.caption(rows, "Sizes of clusters (Table 1)"))


def spread_table(rows: Sequence[Row], title: str) -> Table:
    """Rows with one line for each kind of cluster and one column for each part of the faces and metric."""
    found = {(row.method, row.subset, row.metric): row for row in rows}
    columns = list(dict.fromkeys((row.subset, row.metric) for row in rows))
    several = len({metric for _, metric in columns}) > 1
    heads = [metric if several else f"{subset} faces" for subset, metric in columns]
    lines = [
        (method, *(_cell(row) if (row := found.get((method, *which))) else "–" for which in columns))
        for method in dict.fromkeys(row.method for row in rows)
    ]
    unit = "" if several else f", {rows[0].unit}" * bool(rows[0].unit)
    return Table(pd.DataFrame(lines, columns=["clusters", *heads]), captions.caption(rows, f"{title}{unit}"))


def attribute_table(studied: Study, rows: Sequence[Row]) -> Table:
    """Eq. 4 of every label with 95 % intervals, for all levels and controls, in learning faces and, after a stroke, the mean alone in validating ones.

    Parameters
    ----------
    rows : sequence of Row
        Those of `attribute_rows`, for the caption.
    """
    parts = [controlled(partial(studied.label_variances, part=part)) for part in (LEARNING, VALIDATING)]
    lines = []
    for name, measured in parts[0].items():
        cells = []
        for place in range(len(ATTRIBUTES)):
            value, low, high = measured.of(place).interval()
            held = parts[1][name].of(place).interval().value
            cells.append(f"{value:.3f} [{low:.3f}, {high:.3f}] / {held:.3f}")
        lines.append((name, *cells))
    title = "Eq. 4 by label and kind of clusters: training faces / validating faces"
    return Table(pd.DataFrame(lines, columns=["clusters", *ATTRIBUTES]), captions.caption(rows, title))


def landmark_table(studied: Study, rows: Sequence[Row]) -> Table:
    """Fig. 3 in numbers: mean over clusters ± standard error, in squared pixels and in per cent of the squared distance of the eyes."""
    lines = []
    for place, landmark in enumerate(LANDMARKS):
        cells = []
        for level in LEVELS:
            measured = studied.variances(level).of(place)
            mean = measured.interval().value
            relative = 100 * mean / studied.eye_distance
            cells.append(f"{mean:.2f} ± {measured.standard_error():.2f} ({relative:.2f} %)")
        lines.append((landmark, *cells))
    columns = ["landmark", *(f"input of {level}" for level in LEVELS)]
    title = "Eq. 3 by landmark and level, px² ± standard error over clusters (per cent of the squared distance of the eyes)"
    return Table(pd.DataFrame(lines, columns=columns), captions.caption(rows, title))


def repetition_table(studied: Study, rows: Sequence[Row]) -> Table:
    """Eq. 3 on average over landmarks in each repetition, beside two ideas of how sure it is: our interval, and the standard error over clusters.

    Parameters
    ----------
    rows : sequence of Row
        Those of `variance_rows`, for the caption.
    """
    lines = []
    for level in LEVELS:
        measured = studied.variances(level).overall()
        means, (_, low, high) = measured.repetitions, measured.interval()
        spread = f"{np.std(means, ddof=1):.3f}" if len(means) > 1 else "–"
        cells = (*(f"{mean:.3f}" for mean in means), spread, f"{low:.3f} to {high:.3f}")
        lines.append((f"input of {level}", *cells, f"{measured.standard_error():.3f}"))
    what = "network" if studied.networks > 1 else "start"
    each = [f"{what} {number}" for number in range(1, len(studied.clusters) + 1)]
    columns = ["features", *each, "standard deviation", "95 % interval", "standard error over clusters"]
    title = "Eq. 3 on average over landmarks, px², in each repetition"
    return Table(pd.DataFrame(lines, columns=columns), captions.caption(rows, title))


def choice_table(studies: Mapping[str, Study], rows: Sequence[Row]) -> Table:
    """Kinds of clusterings compared on validating faces: the density of their features, and the variance of their landmarks (Eq. 3).

    Parameters
    ----------
    studies : dict of str to Study
        By what a clustering is called.
    rows : sequence of Row
        Behind them, for the caption.
    """
    lines = []
    for level in LEVELS:
        for name, studied in studies.items():
            density = np.mean([one.log_density for one in studied.partitions(level)], axis=0)
            value, low, high = studied.variances(level, VALIDATING).overall().interval()
            sizes = np.concatenate([one.sizes for one in studied.partitions(level)])
            unequal = f"{np.median(sizes):.0f} ± {sizes.std():.0f}, {sizes.min()} to {sizes.max()}"
            spread = f"{value:.3f} [{low:.3f}, {high:.3f}]"
            densities = (f"{density[0]:.3f}", f"{density[1]:.3f}")
            lines.append((f"input of {level}", name, *densities, spread, unequal))
    columns = ["features", "clustering", "log density, train", "log density, validation"]
    columns += ["variance, validation, px²", "sizes: median ± SD, range"]
    caption = captions.caption(rows, "Kinds of clusters (log densities per number of a feature, in nats)")
    return Table(pd.DataFrame(lines, columns=columns), caption)


# Fig. 1 ---------------------------------------------------------------------------------------------------------------------------------------


def montage(images: np.ndarray) -> np.ndarray:
    """Images (K, H, W, 3) in as square a grid as holds them, row by row; white where there are none."""
    count, height, width, _ = images.shape
    columns = int(np.ceil(np.sqrt(count)))
    lines = -(-count // columns)
    grid = np.full((lines * columns, height, width, 3), 255, np.uint8)
    grid[:count] = images
    return grid.reshape(lines, columns, height, width, 3).swapaxes(1, 2).reshape(lines * height, -1, 3)


def errors_to_sort_by(run: Experiment, config: TCNNConfig, train: FaceSource) -> tuple[np.ndarray, str]:
    """Error (V,) of TCNN with as many clusters on each validating face, as in Fig. 6, and whose it is."""
    config = replace(config, clusters=tcnn.ANALYSED[run.profile])
    [found] = test_clusters(run, config, train, train, [run.seed])
    return found.run.errors["inter-pupil"], "error of TCNN"


def means_figure(run: Experiment, studied: Study, errors: np.ndarray, what: str) -> Figure:
    """Fig. 1: mean images of the clusters of RGB, by brightness, above those of FC5's input, by error from the upper left on.

    Parameters
    ----------
    errors : array
        (V,) of each validating face, which sort the lower grid.
    what : str
        Whose errors they are.
    """
    first, means = studied.clusters[0].partitions, studied.faces.means
    by_error = cluster_means(errors, first[LAST].validating, first[LAST].clusters)
    orders = {RGB: means[RGB].mean((1, 2, 3)).argsort(), LAST: by_error.argsort()}  # NaN come last
    figure, axes = plt.subplots(2, 1, figsize=(6.4, 13.2), layout="constrained")
    for ax, level in zip(axes, PICTURED, strict=True):
        ax.imshow(montage(means[level][orders[level]]), interpolation="bilinear")
        ax.set_title(f"{NAMES[level]}, from {'dark to bright' if level == RGB else f'low to high {what}'}")
        ax.set_axis_off()
    sharp = {level: studied.energy(level).repetitions[0] for level in PICTURED}
    figure.set_label(
        f"Mean images of {first[RGB].clusters} clusters of RGB values above those of {first[LAST].clusters} clusters of the features that enter FC5. "
        f"Mean gradient energy {sharp[RGB]:.0f} above and {sharp[LAST]:.0f} squared grey levels below."
    )
    about = dict(subset=LEARNING, images=studied.images(), seeds=1)
    return run.record_figure("TCNN-F1", "mean images of clusters", figure, **about)


# Figs 3 and 4 ---------------------------------------------------------------------------------------------------------------------------------


def _levels_plot(
    ax: Axes, by_level: Mapping[str, Measured], names: Sequence[str], control: Measured, dotted: str
) -> None:
    """Means over clusters ± standard errors by level, a line for each of the n things measured; dotted, the mean of a control that is called `dotted`."""
    places = np.arange(len(by_level))
    for index, name in enumerate(names):
        measured = [one.of(index) for one in by_level.values()]
        look = dict(
            color=PALETTE[index % 7], linestyle=DASHES[index % 4], marker=MARKERS[index], markersize=5
        )
        mean, error = ([one.interval().value for one in measured], [one.standard_error() for one in measured])
        ax.errorbar(places, mean, error, capsize=3, label=name, **look)
        limit = control.of(index).interval().value
        ax.axhline(limit, color=look["color"], linestyle=":", linewidth=0.9)
    ax.plot([], [], color="0.4", linestyle=":", linewidth=0.9, label=dotted)
    ax.set_xticks(places, _AXIS)
    ax.set(xlabel="features at the input of", ylim=(0, None))


def landmarks_figure(run: Experiment, studied: Study) -> Figure:
    """Fig. 3: Eq. 3 of each landmark by level, dotted below it that of clusters of the points; beside it the points of faces of two clusters."""
    figure = plt.figure(figsize=(11.0, 4.2), layout="constrained")
    grid = figure.add_gridspec(1, 4)
    by_level = {level: studied.variances(level) for level in LEVELS}
    main = figure.add_subplot(grid[:2])
    _levels_plot(main, by_level, LANDMARKS, studied.variances(POSITIONS), "clusters of the true points")
    main.set_ylabel("variance along the principal axis (px²)")
    for place, level in enumerate(PICTURED):
        _scatter(figure.add_subplot(grid[2 + place]), studied, level)
    figure.legend(*main.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    mean = {level: by_level[level].overall().interval().value for level in LEVELS}
    words = ", ".join(f"{level} {value:.2f}" for level, value in mean.items())
    figure.set_label(
        f"Variance of the five landmarks along their principal axes in clusters, against the level of the features; on average over landmarks, in "
        f"squared pixels: {words}. Beside it the landmarks of {_SHOWN} faces of the most variable cluster of RGB and of FC5's input."
    )
    return _record(run, studied, "TCNN-F3", "variance of landmarks by level", figure)


def most_variable(studied: Study, level: str) -> int:
    """Number of the first network's cluster with at least `_SHOWN` faces in which landmarks vary most."""
    [first, *_], spread = studied.partitions(level), studied.variances(level).values[0].mean(1)
    enough = first.sizes >= min(_SHOWN, first.sizes.max())
    return int(np.nanargmax(np.where(enough, spread, np.nan)))


def _scatter(ax: Axes, studied: Study, level: str) -> None:
    """The points of some faces of the most variable cluster of a level in the frame of the crop."""
    [first, *_] = studied.partitions(level)
    members = np.flatnonzero(first.learning == most_variable(studied, level))
    chosen = np.random.default_rng(0).permutation(members)[:_SHOWN]
    for place, name in enumerate(LANDMARKS):
        x, y = studied.faces.points[chosen, place].T
        ax.plot(x, y, linestyle="none", marker=MARKERS[place], color=PALETTE[place], markersize=5, label=name)
    ax.set(xlim=(-0.5, tcnn.SIDE - 0.5), ylim=(tcnn.SIDE - 0.5, -0.5), aspect="equal", xticks=(), yticks=())
    ax.spines[:].set_visible(True)
    spread = studied.variances(level).values[0][most_variable(studied, level)].mean()
    ax.set_title(f"most variable of the {NAMES[level]}:\n{spread:.1f} px²", fontsize="small")


def attributes_figure(run: Experiment, studied: Study) -> Figure:
    """Fig. 4: Eq. 4 of each attribute by level, dotted above it that of random clusters."""
    figure, ax = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    by_level = {level: studied.label_variances(level) for level in LEVELS}
    _levels_plot(ax, by_level, ATTRIBUTES, studied.label_variances(LAST, random=True), "random clusters")
    ax.set_ylabel("variance of the label")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    ends = {
        name: [by_level[level].of(index).interval().value for level in PICTURED]
        for index, name in enumerate(ATTRIBUTES)
    }
    words = "; ".join(f"{name} {first:.3f} to {last:.3f}" for name, (first, last) in ends.items())
    figure.set_label(
        f"Variance of three labels in clusters against the level of the features, from RGB to FC5's input: {words}."
    )
    return _record(run, studied, "TCNN-F4", "variance of labels by level", figure)


def _record(run: Experiment, studied: Study, artefact: str, title: str, figure: Figure) -> Figure:
    about = dict(subset=LEARNING, images=studied.images(), seeds=studied.networks)
    return run.record_figure(artefact, title, figure, **about)
