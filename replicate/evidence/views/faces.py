"""What the chapter about the faces shows: contact sheets and the spread of poses."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicate.errors import ReplicateError
from replicate.evidence import data_card
from replicate.evidence.contact_sheets import contact_sheet
from replicate.evidence.data_card import Look
from replicate.evidence.figures import PALETTE
from replicate.faces.protocols import IN_A_ROW
from replicate.faces.sources import FaceSource

SHEET = {"smoke": 2, "cpu": 12, "gpu": 12}  # faces of each split on a contact sheet
PEOPLE = {"smoke": 1, "cpu": 4, "gpu": 4}
_RANGES = ((0.05, 0.95, 1.2), (0.25, 0.75, 4.0))  # quantiles and the width of their line


def sheet(protocol: str, profile: str) -> Figure:
    """The contact sheet of a protocol: the first generated faces of each of its own splits."""
    sources = [FaceSource(*split, "synthetic", profile) for split in data_card.own_splits([protocol])]
    return contact_sheet([source.sample(SHEET[profile]) for source in sources])


def people(profile: str, pictures: int = IN_A_ROW) -> Figure:
    """Pictures of the same people in Janus, one line each."""
    made = FaceSource("janus", "all", "synthetic", profile).sample(PEOPLE[profile] * IN_A_ROW)
    sets = [
        made.subset(np.flatnonzero(made.identity == person)[:pictures], f"person {person + 1}")
        for person in np.unique(made.identity)
    ]
    return contact_sheet(sets, columns=pictures, lines=1)


def look_at_all(faces: str, profile: str) -> list[Look]:
    """A look at every split that is no union of others; of real ones, at those that this machine has.

    Raises
    ------
    ReplicateError
        If there are none.
    """
    sources = [FaceSource(*split, faces, profile) for split in data_card.own_splits()]
    present = [source for source in sources if source.available]
    if not present:
        raise ReplicateError(
            f"faces: got {faces!r}, and none are on this machine. `replicate data check` says where to obtain them."
        )
    rendered, drawn = data_card.RENDERED[profile], data_card.DRAWN[profile]
    return [data_card.look(source, rendered, drawn) for source in present]


def pose_ranges(looks: Sequence[Look]) -> Figure | None:
    """Yaw, pitch and roll of each split: median, middle half, and the range of nine faces in ten; None without any pose."""
    posed = [looked for looked in looks if all(name in looked.attributes for name in data_card.POSE)]
    if not posed:
        return None
    figure, axes = plt.subplots(1, 3, figsize=(9, 0.24 * len(posed) + 0.9), sharey=True, layout="constrained")
    for ax, name in zip(axes, data_card.POSE, strict=True):
        for line, looked in enumerate(posed):
            _range(ax, line, looked.attributes[name])
        ax.set(xlabel=f"{name}, °", xlim=(-92, 92), xticks=range(-90, 91, 45))
    names = [f"{looked.faces.protocol} {looked.faces.split}" for looked in posed]
    axes[0].set_yticks(range(len(posed)), names, fontsize="small")
    axes[0].invert_yaxis()
    figure.set_label(alt_text_pose(names, [looked.attributes["yaw"] for looked in posed]))
    return figure


def _range(ax: Axes, line: int, angles: np.ndarray) -> None:
    for low, high, width in _RANGES:
        ends = np.nanquantile(angles, (low, high))
        ax.plot(ends, (line, line), color=PALETTE[0], linewidth=width, solid_capstyle="butt")
    ax.plot(np.nanmedian(angles), line, "o", color="white", markeredgecolor="black", markersize=4)


def alt_text_pose(names: Sequence[str], yaw: Sequence[np.ndarray]) -> str:
    """What the figure of poses shows, in words."""
    ranges = []
    for name, angles in zip(names, yaw, strict=True):
        low, high = np.nanquantile(angles, (0.05, 0.95))
        ranges.append(f"{name} {low:+.0f} to {high:+.0f}")
    return f"Ranges of yaw, pitch and roll in each split. Nine faces in ten have a yaw in degrees of: {'; '.join(ranges)}."
