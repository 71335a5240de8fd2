"""MTFL: `training.txt`, `testing.txt` and the images that they name (`lfw_5590/`, `net_7876/`, `AFLW/`).

One line per face: `path x1..x5 y1..y5 gender smile glasses pose`, with backslashes in the path; points are the eye centres, the tip
of the nose and the corners of the mouth, the left of the image first (markup `mtfl5`). The codes are kept as published:

=========  ====================================================================================
gender     1 male, 2 female
smile      1 smiling, 2 not smiling
glasses    1 wearing glasses, 2 not
pose       1 left profile, 2 left, 3 frontal, 4 right, 5 right profile
=========  ====================================================================================

`male`, `smiling` and `wearing_glasses` say the same as true and false. All points count as visible: MTFL has no visibility. Whether its
coordinates count from 0 or 1 is not documented, and the symmetry of the photographed eyes about the points does not decide it: they
are kept as they are.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from replicate.errors import ReplicateError
from replicate.faces.real.reading import (
    Annotations,
    DataSet,
    Part,
    count_present,
    image_reader,
    inside,
    numbers,
    read_lines,
    refuse_duplicates,
    refuse_surplus,
    require,
    require_listed,
)
from replicate.vocabulary import check_one_of

TITLE = "Multi-Task Facial Landmark (MTFL)"
LISTS = {"train": "training.txt", "test": "testing.txt"}
COUNTS = {"train": 10_000, "test": 2_995}
CODES = {"gender": 2, "smile": 2, "glasses": 2, "pose": 5}  # attribute: codes run from 1 to this
POINTS = 5


@dataclass(frozen=True)
class Row:
    """One line of a list."""

    line: int
    name: str  # the path, with forward slashes
    image: Path
    points: list[float]  # x1..x5 y1..y5
    codes: list[int]


def check(folder: Path) -> list[Part]:
    """What this machine has of each list."""
    return [Part.counted(split, COUNTS[split], partial(_count, folder, split)) for split in LISTS]


def read(folder: Path, split: str) -> Annotations:
    """Read one split, in the order of its list.

    Raises
    ------
    ReplicateError
        Naming list and line, for malformed lines, duplicates, absent images and paths that leave the folder.
    """
    check_one_of("split", split, LISTS)
    path = require(folder / LISTS[split], TITLE)
    rows = read_list(folder, path)
    if not rows:
        raise ReplicateError(f"{path}: no faces, expected {COUNTS[split]} lines; restore the official file")
    refuse_surplus(path, len(rows), COUNTS[split])
    require_listed(path, [(row.line, row.image) for row in rows])
    points = np.array([row.points for row in rows], np.float32)
    attributes = dict(zip(CODES, np.array([row.codes for row in rows]).T, strict=True))
    attributes |= {
        "male": attributes["gender"] == 1,
        "smiling": attributes["smile"] == 1,
        "wearing_glasses": attributes["glasses"] == 1,
    }
    return Annotations(
        names=tuple(row.name for row in rows),
        pixels=image_reader([row.image for row in rows]),
        points=points.reshape(-1, 2, POINTS).swapaxes(1, 2).copy(),  # (N, 5, 2)
        visible=np.ones((len(rows), POINTS), bool),
        attributes=attributes,
        files=(path, *(row.image for row in rows)),
    )


def read_list(folder: Path, path: Path) -> list[Row]:
    """Parse a list; whether the images are there is not looked at.

    Raises
    ------
    ReplicateError
        Naming list and line.
    """
    rows = [
        _parse(folder, path, number, line)
        for number, line in enumerate(read_lines(path), start=1)
        if line.strip()
    ]
    refuse_duplicates(path, [(row.line, row.name) for row in rows])
    return rows


def _parse(folder: Path, path: Path, number: int, line: str) -> Row:
    labels = 2 * POINTS + len(CODES)
    name, *fields = line.strip().rsplit(maxsplit=labels)  # from the right: a path may hold spaces
    values = numbers(path, number, fields, labels)
    codes = values[2 * POINTS :]
    for (attribute, largest), code in zip(CODES.items(), codes, strict=True):
        if code not in range(1, largest + 1):
            raise ReplicateError(
                f"{path}, line {number}: {attribute} is {code:g}, expected 1 to {largest}; restore the official file"
            )
    image = inside(folder, name, path, number)
    return Row(number, name.replace("\\", "/"), image, values[: 2 * POINTS], [int(code) for code in codes])


def _count(folder: Path, split: str) -> int:
    path = folder / LISTS[split]
    return count_present(row.image for row in read_list(folder, path)) if path.exists() else 0


DATA_SET = DataSet(
    name="mtfl",
    folder="mtfl",
    title=TITLE,
    url="http://mmlab.ie.cuhk.edu.hk/projects/TCDCN.html",
    terms="research only, no commercial use (CUHK); the photographs keep their owners' rights, those of AFLW its own terms",
    cite="Zhang et al., Facial Landmark Detection by Deep Multi-task Learning, ECCV 2014",
    splits=COUNTS,
    check=check,
    read=read,
)
