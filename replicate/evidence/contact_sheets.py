"""Contact sheets: generated faces of a protocol with their points, visible and hidden ones told apart, and their boxes.

Convention: points are (x, y) in pixels, 0-based, the centre of the top-left pixel at (0, 0).
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicate.errors import ReplicateError
from replicate.evidence.figures import PALETTE, TRUTH
from replicate.faces.faceset import FaceSet
from replicate.faces.markups import markup

VISIBLE, HIDDEN = TRUTH, PALETTE[1]  # blue dots, vermilion crosses: mark and colour differ
MARGIN = 0.35  # of the box's longer side, shown around the box
_INCHES = 1.45  # side of one face


def contact_sheet(splits: Sequence[FaceSet], *, columns: int = 6, lines: int = 2) -> Figure:
    """The first faces of each split, split below split, with points and starting boxes.

    Parameters
    ----------
    splits : sequence of FaceSet
        Generated faces; each set's name stands at its left.
    columns, lines : int
        At most this many faces side by side, and lines of them for each set.

    Returns
    -------
    Figure
        Its label is the alternative text.

    Raises
    ------
    ReplicateError
        Without sets, or for faces that are not generated: photographs of people are nobody's to publish.
    """
    if not splits:
        raise ReplicateError("splits: got none, expected at least one set of faces")
    for faces in splits:
        if faces.faces != "synthetic":
            raise ReplicateError(
                f"splits: {faces.protocol}/{faces.split} holds {faces.faces} faces; a contact sheet shows generated ones only, "
                "because photographs of people may not be published. Ask for faces='synthetic'."
            )
    heights = [min(lines, -(-len(faces) // columns)) for faces in splits]
    figure, axes = plt.subplots(
        sum(heights),
        columns,
        figsize=(_INCHES * columns, _INCHES * sum(heights)),
        squeeze=False,
        layout="constrained",
        gridspec_kw={"wspace": 0.02, "hspace": 0.02},
    )
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
    for faces, block in zip(splits, np.split(axes, np.cumsum(heights)[:-1]), strict=True):
        block[0, 0].set_ylabel(faces.split, fontsize="small")
        for index, ax in zip(range(len(faces)), block.flat, strict=False):
            draw_face(ax, faces, index)
    figure.set_label(alt_text(splits, columns * lines))
    return figure


def alt_text(splits: Sequence[FaceSet], most: int) -> str:
    """What a contact sheet shows, in words; `most` faces of a set are shown."""
    parts = []
    for faces in splits:
        shown = min(len(faces), most)
        points, visible = faces.points[:shown], faces.visible[:shown]
        known = np.isfinite(points).all(-1)
        hidden = int((known & ~visible).sum())
        parts.append(f"{shown} of {faces.split}, {hidden} of {int(known.sum())} points hidden")
    head = f"Generated faces of {splits[0].protocol} with {markup(splits[0].markup).size} points each"
    return f"{head}: {'; '.join(parts)}."


def draw_face(ax: Axes, faces: FaceSet, index: int) -> None:
    """One face as far as its surroundings matter: lines of the markup, visible points as dots, hidden ones as crosses, its box."""
    image, points, visible = np.asarray(faces.images[index]), faces.points[index], faces.visible[index]
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
    for line in markup(faces.markup).polylines:
        ax.plot(*points[list(line)].T, color="white", linewidth=0.6, alpha=0.55)
    for which, mark, size, color in ((visible, "o", 1.9, VISIBLE), (~visible, "x", 2.9, HIDDEN)):
        ax.plot(
            *points[which].T, linestyle="none", marker=mark, markersize=size, color=color, markeredgewidth=0.7
        )
    x_min, y_min, x_max, y_max = faces.boxes[index]
    corners = np.array([(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max), (x_min, y_min)])
    ax.plot(*corners.T, color="white", linewidth=0.6, linestyle=(0, (3, 3)))
    left, top, right, bottom = window(faces.boxes[index], image.shape[:2])
    ax.set(xlim=(left, right), ylim=(bottom, top))


def window(box: np.ndarray, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """The square part of an image of (height, width) to show around a box: x_min, y_min, x_max, y_max in pixels.

    It is moved, and where it must be cut, so that it lies inside the image.
    """
    x_min, y_min, x_max, y_max = np.asarray(box, float)
    side = (1 + 2 * MARGIN) * max(x_max - x_min, y_max - y_min)
    edges = []
    for low, high, length in ((x_min, x_max, shape[1]), (y_min, y_max, shape[0])):
        side_here = min(side, length)
        start = np.clip((low + high - side_here) / 2, -0.5, length - 0.5 - side_here)
        edges.append((float(start), float(start + side_here)))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom
