"""How many images the papers say there are, and how many are made or read here."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from replicate.devices import choose_device, describe_device
from replicate.errors import ReplicateError
from replicate.evidence import data_card, published
from replicate.evidence.records import paper_of
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.tables import Table, number
from replicate.faces import real
from replicate.faces.protocols import PROTOCOLS, person_of
from replicate.faces.sources import FaceSource
from replicate.faces.synthetic.conditions import CS2_STILLS
from replicate.faces.verification import synthetic_templates
from replicate.paths import data_dir

COUNT_ARTEFACTS = ("LDDR-S17", "TCNN-S17", "TCNN-S23", "DAN-S18", "RNN-S18", "ECT-S17")

Counter = Callable[[str, str], int | None]  # from faces and profile; None where these faces are absent


def _faces_of(*splits: tuple[str, str]) -> Counter:
    def count(faces: str, profile: str) -> int | None:
        sources = [FaceSource(protocol, split, faces, profile) for protocol, split in splits]
        return (
            sum(source.count for source in sources) if all(source.available for source in sources) else None
        )

    return count


def _part_of(data_set: str, part: str) -> Counter:
    """What this machine has of a part of a real data set that no protocol uses as a whole."""

    def count(faces: str, profile: str) -> int | None:
        if faces == "synthetic":
            return None
        found = real.DATA_SETS[data_set]
        return {one.name: one.found for one in found.check(data_dir() / found.folder)}[part] or None

    return count


def _images_of(protocol: str, split: str) -> Counter:
    """A generated face has an image of its own; photographs of several people are not counted here."""
    return lambda faces, profile: (
        FaceSource(protocol, split, faces, profile).count if faces == "synthetic" else None
    )


def _identity(protocol: str, split: str, faces: str, profile: str) -> np.ndarray | None:
    source = FaceSource(protocol, split, faces, profile)
    if faces == "synthetic":  # people take turns; nothing has to be made to know whose turn it is
        which = PROTOCOLS[protocol].splits[split]
        return np.array([person_of(which, index) for index in range(source.count)])
    return source.load().identity if source.available else None


def _people_of(protocol: str, split: str) -> Counter:
    def count(faces: str, profile: str) -> int | None:
        identity = _identity(protocol, split, faces, profile)
        return None if identity is None else len(np.unique(identity))

    return count


def _training_people(faces: str, profile: str) -> int | None:
    """People for training in one of the generated verification splits; each is one training template (TCNN §5.2)."""
    if faces == "real":
        return None
    identity = _identity("janus", "all", faces, profile)
    (split,) = synthetic_templates(identity, seed=0, splits=1)
    return len(np.unique(identity[split.train]))


def _smallest_yaw_bin(faces: str, profile: str) -> int | None:
    source = FaceSource("aflw-pifa", "test", faces, profile)
    if not source.available:
        return None
    attributes = data_card.draw(source, source.count) if faces == "synthetic" else source.load().attributes
    if "yaw" not in attributes:
        return None
    return min(int(data_card.yaw_within(attributes["yaw"], *edges).sum()) for edges in data_card.YAW_BINS)


def _janus(part: str, stills: bool) -> Counter:
    """Stills come before frames of videos in the generated split."""

    def count(faces: str, profile: str) -> int | None:
        if faces == "real":
            return _part_of("janus", part)(faces, profile)
        made = FaceSource("janus", "all", faces, profile).count
        first = min(made, CS2_STILLS)
        return first if stills else made - first or None

    return count


_UNUSED = (("aflw", "", "faces"), ("ijb-a", "", "faces"))  # whole releases that no experiment uses
_COUNTERS: dict[tuple[str, str, str], Counter] = {  # published protocol, subset and metric
    ("afw", "all", "faces"): _faces_of(("afw", "train")),  # LDDR tests on those with 68 points
    ("afw", "", "faces"): _faces_of(("afw", "test")),
    ("afw", "", "images"): _images_of("afw", "test"),
    **{("helen", s, "images"): _faces_of(("helen", "train"), ("helen", "test")) for s in ("", "all")},
    ("mafl", "", "images"): _faces_of(("mafl", "train"), ("mafl", "test")),
    ("aflw", "", "faces"): _part_of("aflw", "faces"),
    ("ijb-a", "", "faces"): _part_of("ijb-a", "all"),
    ("ijb-a", "", "faces from still images"): _faces_of(("ijb-a", "test")),
    ("ijb-a", "", "subjects"): _people_of("ijb-a", "test"),
    ("janus", "", "images"): _janus("images", stills=True),
    ("janus", "", "frames"): _janus("frames", stills=False),
    ("janus", "", "subjects"): _people_of("janus", "all"),
    ("janus", "", "training templates"): _training_people,
    ("aflw-pifa", "yaw subsets", "images each"): _smallest_yaw_bin,
    **{(p, s, "images"): _faces_of((p, s)) for p, protocol in PROTOCOLS.items() for s in protocol.splits},
}


def _printed(artefact: str) -> list[dict]:
    """The published counts of an artefact."""
    values = published.load(paper_of(artefact))
    found = values[(values["artefact"] == artefact) & (values["unit"] == "count")]
    lines = [
        {"method": line.label or paper_of(artefact).upper(), "protocol": line.protocol, "subset": line.subset, "metric": line.metric, "printed": line.number}
        for line in found.itertuples()
    ]  # fmt: skip
    return lines


def manifest_rows(artefact: str, faces: str, profile: str, device: str = "auto") -> list[Row]:
    """Rows of an artefact that lists how many images there are: one per count that these faces have.

    Parameters
    ----------
    artefact : str
        One of `COUNT_ARTEFACTS`.
    faces, profile : str
        Which faces are counted. Counts of generated faces follow from the table of protocols, without making them, but for
        the yaw subsets; real faces are read.
    device : str
        As everywhere; recorded with the row.

    Raises
    ------
    ReplicateError
        If the artefact has no published counts.
    """
    lines = _printed(artefact)
    if not lines:
        raise ReplicateError(
            f"artefact: {artefact} has no published counts; expected one of {', '.join(COUNT_ARTEFACTS)}"
        )
    return [
        Row(
            artefact=artefact, method=line["method"], protocol=line["protocol"], subset=line["subset"], points=None, metric=line["metric"],
            normaliser=NO_NORMALISER, value=count, ci_low=None, ci_high=None, unit="count", images=None, seeds=None, faces=faces,
            profile=profile, device=describe_device(choose_device(device)),
        )
        for line in lines
        if (count := _counted(line, faces, profile)) is not None
    ]  # fmt: skip


def _counted(line: Mapping, faces: str, profile: str) -> int | None:
    counter = _COUNTERS.get((line["protocol"], line["subset"], line["metric"]))
    return None if counter is None else counter(faces, profile)


def manifest(artefacts: Mapping[str, Sequence[Row]], faces: str, profile: str) -> Table:
    """Published counts beside the rows of each artefact; a count that these faces do not have is a dash, or said to be used by no experiment."""
    lines = []
    for artefact, rows in artefacts.items():
        counted = {(row.protocol, row.subset, row.metric): row.value for row in rows}
        for line in _printed(artefact):
            which = line["protocol"], line["subset"], line["metric"]
            here, absent = counted.get(which), "used by no experiment" if which in _UNUSED else "–"
            lines.append(
                {
                    "artefact": artefact,
                    "protocol": line["protocol"],
                    "subset": line["subset"],
                    "what": line["metric"],
                    "published": "–" if line["printed"] is None else number(line["printed"], "count"),
                    "here": absent if here is None else number(here, "count"),
                }
            )
    return Table(
        pd.DataFrame(lines), data_card.caption(faces, profile, "counts beside those that the papers print")
    )
