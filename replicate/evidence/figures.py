"""Figures with the look of the field: cumulative error curves and panels of faces with their landmarks."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython import get_ipython
from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicate.errors import ReplicateError
from replicate.faces.markups import markup
from replicate.metrics import Interval, auc, ced, failure_rate

# Okabe and Ito, told apart by colour-blind readers
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")  # curves differ without colour too
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
TRUTH, FITTED = "#56B4E9", "#F0E442"  # landmarks on a photograph
DPI = 110


def style() -> None:
    """Set fonts, grid and palette for all figures of a notebook."""
    sns.set_theme(context="notebook", style="whitegrid", palette=list(PALETTE))
    plt.rcParams.update(
        {
            "figure.dpi": DPI,
            "savefig.dpi": DPI,
            "savefig.bbox": "tight",
            "axes.titlesize": "medium",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.fontsize": "small",
            "svg.hashsalt": "replicate",  # the same figure has the same bytes
        }
    )


def show(figure: Figure, caption: str = "") -> None:
    """Show a figure in a notebook, its caption above it and its label as alternative text; outside of notebooks do nothing."""
    if get_ipython() is None:
        return
    if caption:
        display(HTML(f'<figure class="evidence"><figcaption>{escape(caption)}</figcaption></figure>'))
    display(figure, metadata={"image/png": {"alt": figure.get_label()}})
    plt.close(figure)  # or it would be shown once more at the end of the cell


def ced_plot(
    curves: Mapping[str, np.ndarray],
    threshold: float,
    normaliser: str,
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Cumulative error curves: the share of images against the error, with AUC and failure rate in the legend.

    Parameters
    ----------
    curves : dict of str to (N,) or (S, N) array
        Errors in per cent by method; several seeds are pooled.
    threshold : float
        Right end of the plot in per cent, also of the area and the failures: 8.0 for the papers' 0.08.
    normaliser : str
        Named on the axis.
    title : str
        Test set and faces.
    ax : Axes, optional
        Where to draw; a new figure unless given.

    Returns
    -------
    Figure
        With the alternative text of `alt_text_ced` as its metadata label.

    Raises
    ------
    ReplicateError
        Without curves.
    """
    if not curves:
        raise ReplicateError("curves: got none, expected at least one method with its errors")
    ax = ax or plt.subplots(figsize=(6.2, 4.2))[1]
    look = zip(cycle(PALETTE), cycle(DASHES), strict=False)
    for (name, errors), (color, dash) in zip(curves.items(), look, strict=False):
        errors = np.ravel(errors)
        thresholds, fraction = ced(errors)
        inside = thresholds <= threshold
        x = np.append(thresholds[inside], threshold)
        y = np.append(fraction[inside], fraction[inside][-1])
        ax.step(
            x,
            y,
            where="post",
            color=color,
            linestyle=dash,
            linewidth=1.8,
            label=_legend(name, errors, threshold),
        )
    ax.set(
        xlim=(0, threshold),
        ylim=(0, 1),
        xlabel=f"error (% of {length_of(normaliser)})",
        ylabel="fraction of images",
    )
    ax.set_title(title)
    _legend_below(ax)
    figure = ax.get_figure()
    figure.set_label(alt_text_ced(curves, threshold, normaliser, title))
    return figure


def length_of(normaliser: str) -> str:
    """What a normaliser is called in a sentence: its distance, or the face's or its box's size."""
    return {"face": "face size", "box": "box side", "diagonal": "face diagonal"}.get(
        normaliser, f"{normaliser} distance"
    )


def alt_text_ced(curves: Mapping[str, np.ndarray], threshold: float, normaliser: str, title: str = "") -> str:
    """What a cumulative error plot shows, in words."""
    parts = [_legend(name, np.ravel(errors), threshold) for name, errors in curves.items()]
    head = f"Cumulative error curves{f' on {title}' if title else ''} up to {threshold:g} % of the {length_of(normaliser)}"
    return f"{head}. " + ". ".join(parts) + "."


def interval_curves(
    ax: Axes,
    curves: Mapping[str, Sequence[Interval]],
    places: Mapping[str, Sequence[float]],
    legend: bool = True,
) -> None:
    """Draw a statistic against a setting, a line with its 95 % band for each method, and perhaps the legend below.

    Parameters
    ----------
    curves : dict of str to sequence of Interval
        By method, one for each of its places.
    places : dict of str to sequence of float
        By method: where on the horizontal axis.
    """
    look = zip(cycle(PALETTE), cycle(DASHES), cycle(MARKERS), strict=False)
    for (name, intervals), (color, dash, marker) in zip(curves.items(), look, strict=False):
        value, low, high = np.array(intervals).T
        line = dict(linestyle=dash, marker=marker, markersize=4.5, linewidth=1.8, label=name)
        ax.fill_between(places[name], low, high, color=color, alpha=0.18, linewidth=0)
        ax.plot(places[name], value, color=color, **line)
    if legend:
        _legend_below(ax)


def _legend_below(ax: Axes) -> None:
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False)  # it never hides a curve there


def faces_grid(
    images: Sequence[np.ndarray],
    fitted: Sequence[np.ndarray] | None = None,
    truth: Sequence[np.ndarray] | None = None,
    *,
    markup_name: str = "ibug68",
    titles: Sequence[str] = (),
    columns: int = 6,
    boxes: Sequence[np.ndarray] | None = None,
    size: float = 1.7,
) -> Figure:
    """Faces with landmarks: fitted ones bright, true ones behind them.

    Convention: points are (x, y) in pixels, the centre of the top-left pixel at (0, 0).

    Parameters
    ----------
    images : sequence of (H, W) or (H, W, 3) uint8 arrays
        Grey or RGB.
    fitted, truth : sequence of (L, 2) arrays, optional
        Landmarks of each image.
    markup_name : str
        Tells which landmarks are joined by lines.
    titles : sequence of str
        One above each image.
    columns : int
        Images in a row.
    boxes : sequence of (4,) arrays, optional
        (x_min, y_min, x_max, y_max) to draw.
    size : float
        Side of one image in inches.

    Raises
    ------
    ReplicateError
        Without images, or if a list has another length.
    """
    for name, given in (("fitted", fitted), ("truth", truth), ("boxes", boxes), ("titles", titles or None)):
        if given is not None and len(given) != len(images):
            raise ReplicateError(f"{name}: got {len(given)} for {len(images)} images; expected as many")
    if not len(images):
        raise ReplicateError("images: got none, expected at least one")
    columns = min(columns, len(images))
    lines = -(-len(images) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(size * columns, (size + 0.25 * bool(titles)) * lines),
        squeeze=False,
        layout="constrained",
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for index, (ax, image) in enumerate(zip(axes.flat, images, strict=False)):
        ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
        ax.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
        if truth is not None:
            draw_landmarks(ax, truth[index], markup_name, TRUTH)
        if fitted is not None:
            draw_landmarks(ax, fitted[index], markup_name, FITTED)
        if boxes is not None:
            draw_box(ax, boxes[index])
        if titles:
            ax.set_title(titles[index], fontsize="x-small")
    figure.set_label(alt_text_faces(len(images), fitted is not None, truth is not None, titles))
    return figure


def alt_text_faces(count: int, fitted: bool, truth: bool, titles: Sequence[str] = ()) -> str:
    """What a panel of faces shows, in words."""
    drawn = [
        name
        for name, shown in (("fitted landmarks in yellow", fitted), ("true landmarks in blue", truth))
        if shown
    ]
    text = f"{count} face{'s' * (count != 1)}" + (f" with {' and '.join(drawn)}" if drawn else "")
    return f"{text}: {'; '.join(titles)}." if titles else f"{text}."


def draw_landmarks(ax: Axes, points: np.ndarray, markup_name: str, color: str) -> None:
    """Draw (L, 2) landmarks as dots joined by the lines of their markup; the dark edge shows on any skin."""
    points = np.asarray(points, float)
    for line in markup(markup_name).polylines:
        ax.plot(*points[list(line)].T, color="black", linewidth=1.6, alpha=0.5, solid_capstyle="round")
        ax.plot(*points[list(line)].T, color=color, linewidth=0.8, solid_capstyle="round")
    ax.plot(
        *points.T,
        linestyle="none",
        marker="o",
        markersize=1.6,
        color=color,
        markeredgecolor="black",
        markeredgewidth=0.2,
    )


def draw_box(ax: Axes, box: np.ndarray, color: str = PALETTE[1]) -> None:
    """Draw a box (x_min, y_min, x_max, y_max)."""
    x_min, y_min, x_max, y_max = np.asarray(box, float)
    ax.plot(
        [x_min, x_max, x_max, x_min, x_min],
        [y_min, y_min, y_max, y_max, y_min],
        color=color,
        linewidth=1.0,
    )


def _legend(name: str, errors: np.ndarray, threshold: float) -> str:
    rate = failure_rate(errors, threshold)
    return f"{name}: AUC {float(auc(errors, threshold)):.1f}, {rate.percent:.1f} % above {threshold:g} % ({rate.count} of {errors.size})"
