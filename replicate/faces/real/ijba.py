"""IJB-A in its official layout: `IJB-A_11_sets/split1/` to `split10/` with `train_k.csv` and `verify_metadata_k.csv`, and `images/{img,frame}/`.

Each line of a table is a sighting, one face in one image, in a template. The tables of the ten splits are mostly the same sightings
in other templates; a face is a `FILE` and a `SIGHTING_ID`, and must have the same numbers wherever it stands. `FILE` is below
`images/`: stills in `img/`, frames of videos in `frame/`. The three points are blank where an annotator could not see them, and the
eyes are named from the person's side: the right eye is on the left of the image.

The release counts 67,183 faces, 13,741 of them in stills (LDDR §4.1). Whether the verification tables name all of those, and whether
pixels count from 0 or 1, is not documented; the points are read as they are. Sightings without a box are left out, and counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from replicate.errors import ReplicateError
from replicate.faces.real.reading import (
    Annotations,
    DataSet,
    Part,
    image_reader,
    listed_file,
    numbers,
    refuse_surplus,
)
from replicate.faces.real.tables import is_present, read_table, whole_number
from replicate.vocabulary import check_one_of

SPLITS = {"stills": 13741, "all": 67183}
PROTOCOL = "IJB-A_11_sets"
IDENTIFIERS = ("TEMPLATE_ID", "SUBJECT_ID", "FILE", "MEDIA_ID", "SIGHTING_ID")
BOX = ("FACE_X", "FACE_Y", "FACE_WIDTH", "FACE_HEIGHT")
POINTS = ("RIGHT_EYE_X", "RIGHT_EYE_Y", "LEFT_EYE_X", "LEFT_EYE_Y", "NOSE_BASE_X", "NOSE_BASE_Y")  # as ijba3
COLUMNS = (*IDENTIFIERS, *BOX, *POINTS)


@dataclass(frozen=True)
class Sighting:
    """One face in one image, and the line of the table that names it first."""

    file: str
    sighting: int
    subject: int
    media: int
    box: tuple[float, ...] | None  # x_min, y_min, x_max, y_max
    points: tuple[float, ...]  # x and y of each point, NaN where blank
    table: Path
    line: int

    @property
    def key(self) -> tuple[str, int]:
        return self.file, self.sighting

    @property
    def still(self) -> bool:
        return not self.file.startswith("frame/")


def read_metadata(path: Path) -> list[tuple[int, Sighting]]:
    """Read one table: each line's template and sighting.

    Raises
    ------
    ReplicateError
        Naming file and line, for a header without the columns above, malformed numbers, half a box or half a point.
    """
    return [_parse(path, line, fields) for line, fields in read_table(path, COLUMNS)]


def _parse(path: Path, line: int, fields: Sequence[str]) -> tuple[int, Sighting]:
    template, subject, file, media, sighting = fields[:5]
    identifiers = {
        name: whole_number(path, line, field, name)
        for name, field in zip(
            ("template", "subject", "media", "sighting"), (template, subject, media, sighting), strict=True
        )
    }
    box = _numbers_or_blank(path, line, BOX, fields[5:9])
    if box and not (box[2] > 0 and box[3] > 0):
        raise ReplicateError(
            f"{path}, line {line}: a face of {box[2]:g}x{box[3]:g} pixels, expected positive sides"
        )
    points = [
        value
        for at in (0, 2, 4)
        for value in _numbers_or_blank(path, line, POINTS[at : at + 2], fields[9 + at : 11 + at])
        or (np.nan, np.nan)
    ]
    return identifiers.pop("template"), Sighting(
        file=file.replace("\\", "/"),
        box=(box[0], box[1], box[0] + box[2], box[1] + box[3]) if box else None,
        points=tuple(points),
        table=path,
        line=line,
        **identifiers,
    )


def _numbers_or_blank(path: Path, line: int, columns: Sequence[str], fields: Sequence[str]) -> list[float]:
    """The numbers of a box or a point, or none where all fields are blank."""
    if not any(fields):
        return []
    if not all(fields):
        raise ReplicateError(
            f"{path}, line {line}: {', '.join(columns)} are {', '.join(fields)}, expected all or none of them"
        )
    return numbers(path, line, fields, len(columns))


def unique_sightings(tables: Iterable[Path]) -> list[Sighting]:
    """The different faces of several tables, in the order in which they come up, those without a box left out.

    Raises
    ------
    ReplicateError
        As `read_metadata`, and if two lines give one face another person, box or point.
    """
    found: dict[tuple[str, int], Sighting] = {}
    seen = set()
    for table in tables:
        for line, fields in read_table(table, COLUMNS):
            if fields[1:] in seen:  # the same line in another template, as most are: parsed once
                continue
            seen.add(fields[1:])
            _, sighting = _parse(table, line, fields)
            first = found.setdefault(sighting.key, sighting)
            if repr(replace(first, table=table, line=line)) != repr(sighting):  # as text NaN equals NaN
                raise ReplicateError(
                    f"{table}, line {line}: face {sighting.sighting} in {sighting.file!r} has other numbers than in "
                    f"{first.table}, line {first.line}; restore the tables"
                )
    return [sighting for sighting in found.values() if sighting.box]


def tables(protocol: Path) -> list[Path]:
    """The tables of sightings of the ten splits that are there."""
    names = [f"split{k}/{kind}_{k}.csv" for k in range(1, 11) for kind in ("train", "verify_metadata")]
    return [protocol / name for name in names if (protocol / name).is_file()]


def all_tables(protocol: Path, what: str) -> list[Path]:
    """The twenty tables of sightings, or an error that names the first missing one."""
    found = tables(protocol)
    if len(found) < 20:
        raise ReplicateError(
            f"{what}: {len(found)} of the 20 tables split<k>/train_<k>.csv and split<k>/verify_metadata_<k>.csv are in {protocol}. "
            "Set REPLICATE_DATA to the folder that holds the data set, or see `replicate data check`."
        )
    return found


def annotations(folder: Path, sightings: Sequence[Sighting], files: Sequence[Path]) -> Annotations:
    """Boxes, three points and people of `sightings`, whose images are below `folder/images`.

    Raises
    ------
    ReplicateError
        If an image is missing; the message names the line that asks for it.
    """
    images: dict[str, Path] = {}
    for each in sightings:
        if each.file not in images:
            images[each.file] = listed_file(folder / "images", each.file, each.table, each.line)
    points = np.array([each.points for each in sightings], np.float32).reshape(-1, 3, 2)
    return Annotations(
        names=tuple(f"{each.file}#{each.sighting}" for each in sightings),
        pixels=image_reader([images[each.file] for each in sightings]),
        points=points,
        visible=np.isfinite(points).all(-1),
        boxes=np.array([each.box for each in sightings], np.float32).reshape(-1, 4),
        attributes={
            "media": np.array([each.media for each in sightings], np.int64),
            "still": np.array([each.still for each in sightings], bool),
        },
        identity=np.array([each.subject for each in sightings], np.int64),
        files=(*files, *images.values()),
    )


def read(folder: Path, split: str) -> Annotations:
    """Read the faces of the stills, or all faces: published boxes, three points (NaN where blank) and people.

    Raises
    ------
    ReplicateError
        If a table or an image is missing or a table is damaged, the message names the file and the line; or if there are more faces
        than in the release.
    """
    check_one_of("split", split, SPLITS)
    files = all_tables(folder / PROTOCOL, "IJB-A")
    sightings = [each for each in unique_sightings(files) if each.still or split == "all"]
    refuse_surplus(folder / PROTOCOL, len(sightings), SPLITS[split])
    return annotations(folder, sightings, files)


def check(folder: Path) -> list[Part]:
    """What this machine has of the faces of the stills, and of all faces."""

    @cache
    def present() -> list[bool]:
        """For each face whose image is there, whether it is in a still."""
        faces = unique_sightings(tables(folder / PROTOCOL))
        return [
            each.still for each in faces if is_present(folder / "images", each.file, each.table, each.line)
        ]

    counts = {"stills": lambda: sum(present()), "all": lambda: len(present())}
    return [Part.counted(name, expected, counts[name]) for name, expected in SPLITS.items()]


DATA_SET = DataSet(
    name="ijb-a",
    folder="ijb-a",
    title="IARPA Janus Benchmark A (IJB-A): 500 people in stills and videos, with three points",
    url="https://www.nist.gov/programs-projects/face-challenges",
    terms="on request from NIST, for research; most photographs are under Creative Commons licences, listed with the release",
    cite="Klare et al., Pushing the Frontiers of Unconstrained Face Detection and Recognition: IARPA Janus Benchmark A, CVPR 2015",
    splits=SPLITS,
    check=check,
    read=read,
)
