"""Diagrams of boxes and arrows, for figures of the papers that are drawn again."""

from collections.abc import Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicate.evidence.experiment import Experiment

Place = tuple[float, float]


def diagram(size: Place, x: Place, y: Place) -> tuple[Figure, Axes]:
    """An empty drawing of `size` inches with the coordinates that `x` and `y` span, of one scale."""
    figure, ax = plt.subplots(figsize=size)
    ax.set(xlim=x, ylim=y, aspect="equal")
    ax.set_axis_off()
    return figure, ax


def box(
    ax: Axes, x: float, y: float, width: float, height: float, words: str, colour: str, *, size: float = 9
) -> None:
    """A box with its lower left corner at (x, y) and words of `size` points in its middle."""
    ax.add_patch(
        plt.Rectangle((x, y), width, height, facecolor=colour, alpha=0.18, edgecolor=colour, linewidth=1.2)
    )
    ax.text(x + width / 2, y + height / 2, words, ha="center", va="center", fontsize=size)


def arrow(ax: Axes, start: Place, end: Place, words: str = "", *, above: bool = False) -> None:
    """An arrow with words over its middle, or above its start."""
    bent(ax, [start, end])
    x, y = (start[0], start[1] + 0.02) if above else ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.05)
    ax.text(x, y, words, ha="center", va="bottom", fontsize=9)


def bent(ax: Axes, places: list[Place]) -> None:
    """An arrow through several places, in straight lines."""
    look = dict(color="0.25", linewidth=1.2)
    ax.plot(*zip(*places[:-1], strict=True), **look, solid_joinstyle="miter")
    ax.annotate("", places[-1], places[-2], arrowprops=dict(arrowstyle="->", **look, shrinkA=0, shrinkB=0))


def layer_block(
    ax: Axes,
    place: Place,
    half: float,
    name: str,
    side: int,
    channels: int,
    filters: Sequence[str] = (),
    colour: str = "0.5",
) -> None:
    """A layer as a block of twice the height `half`, its left edge in the middle at `place`: filters inside, name and side above, channels below."""
    x, y = place
    box(ax, x, y - half, 0.9, 2 * half, "", colour)
    ax.text(
        x + 0.45, y, "\n".join(filters), rotation=90, ha="center", va="center", fontsize=6.5, linespacing=1.05
    )
    ax.text(x + 0.45, y + half + 0.06, f"{name}\n{side}×{side}", ha="center", va="bottom", fontsize=7.5)
    ax.text(x + 0.45, y - half - 0.06, channels, ha="center", va="top", fontsize=8)


def record(run: Experiment, artefact: str, title: str, figure: Figure) -> Figure:
    """Record and show a diagram; as no face is in it, it belongs to the edition of generated faces whatever the run's are."""
    return replace(run, faces="synthetic").record_figure(artefact, title, figure)
