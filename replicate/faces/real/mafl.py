"""MAFL: 20,000 of CelebA's images, named by `training.txt` and `testing.txt`, with CelebA's own annotation files and images.

The lists hold one file name a line. CelebA's annotations lie beside them or in `Anno/`, its images beside them or in `Img/`:

* `list_landmarks_celeba.txt` with the photographs of `img_celeba/`, or else `list_landmarks_align_celeba.txt` with the aligned ones of
  `img_align_celeba/`: a line with the count, a line with the names of the columns, then `name` and ten numbers, x and y of the eyes,
  the tip of the nose and the corners of the mouth, the left of the image first (markup `mtfl5`);
* `list_attr_celeba.txt`, if there: count, names of the attributes, then `name` and 1 or -1 for each; read as true and false, and three
  of them again by the names that other sets give them (`SHARED`);
* `identity_CelebA.txt`, if there: `name` and the number of the person.

Coordinates are whole numbers; whether they count from 0 or 1 is not documented, and they are kept. All points count as visible.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from replicate.errors import AbsentError, ReplicateError
from replicate.faces.real.reading import (
    Annotations,
    DataSet,
    Part,
    count_present,
    image_reader,
    inside,
    numbers,
    read_lines,
    read_rows,
    refuse_duplicates,
    refuse_surplus,
    require,
    require_listed,
)
from replicate.vocabulary import check_one_of

TITLE = "Multi-Attribute Facial Landmark (MAFL), a part of CelebA"
LISTS = {"train": "training.txt", "test": "testing.txt"}
COUNTS = {"train": 19_000, "test": 1_000}
FORMS = (  # landmarks, images; the first pair that is there is read
    ("list_landmarks_celeba.txt", "img_celeba"),
    ("list_landmarks_align_celeba.txt", "img_align_celeba"),
)
POINTS = 5
SHARED = {"male": "Male", "smiling": "Smiling", "wearing_glasses": "Eyeglasses"}  # as in MTFL: CelebA's name
Fields = tuple[int, list[str]]  # number of a line, and what follows the name on it


def check(folder: Path) -> list[Part]:
    """What this machine has of each list; without CelebA's landmarks and images there are no faces."""
    return [Part.counted(split, COUNTS[split], partial(_count, folder, split)) for split in LISTS]


def read(folder: Path, split: str) -> Annotations:
    """Read one split, in the order of its list.

    Raises
    ------
    ReplicateError
        Naming file and line, for malformed lines, duplicates, absent images, names without annotation, and paths that leave the folder.
    """
    check_one_of("split", split, LISTS)
    path = require(folder / LISTS[split], TITLE)
    form = _form(folder)
    if form is None:
        raise AbsentError(
            f"{TITLE}: {folder} has neither {' nor '.join(f'{name} with {images}/' for name, images in FORMS)}; get them from CelebA"
        )
    landmarks, images = form
    listed = read_list(images, path)
    if not listed:
        raise ReplicateError(f"{path}: no names, expected {COUNTS[split]} lines; restore the official file")
    refuse_surplus(path, len(listed), COUNTS[split])
    require_listed(path, [(number, image) for number, _, image in listed])
    lines = {name: number for number, name, _ in listed}
    attributes = _annotation(folder, "list_attr_celeba.txt")
    identity = _annotation(folder, "identity_CelebA.txt")
    return Annotations(
        names=tuple(lines),
        pixels=image_reader([image for _, _, image in listed]),
        points=_points(landmarks, path, lines),
        visible=np.ones((len(lines), POINTS), bool),
        attributes=_attributes(attributes, path, lines) if attributes else {},
        identity=_identity(identity, path, lines) if identity else None,
        files=(*filter(None, (path, landmarks, attributes, identity)), *(image for *_, image in listed)),
    )


def read_list(images: Path, path: Path) -> list[tuple[int, str, Path]]:
    """Parse a list of file names into line, name and path below `images`; whether the images are there is not looked at.

    Raises
    ------
    ReplicateError
        Naming list and line.
    """
    listed = [
        (number, line.strip(), inside(images, line.strip(), path, number))
        for number, line in enumerate(read_lines(path), start=1)
        if line.strip()
    ]
    refuse_duplicates(path, [(number, name) for number, name, _ in listed])
    return listed


def _table(path: Path, list_path: Path, lines: dict[str, int]) -> tuple[list[str], dict[str, Fields]]:
    """The columns of one of CelebA's tables, and its rows for the names of a list: a count, the columns, then a row per image."""
    rows = read_rows(path)
    number, fields = next(rows, (1, []))
    if len(fields) != 1 or not fields[0].isdecimal():
        raise ReplicateError(
            f"{path}, line {number}: got {' '.join(fields)[:80]!r}, expected the number of rows"
        )
    _, columns = next(rows, (2, []))
    found, count = _select(path, rows, list_path, lines)
    if fields[0].lstrip("0") != str(count):
        raise ReplicateError(
            f"{path}, line {number}: states {fields[0][:80]} rows, the file has {count}; restore the official file"
        )
    return columns, found


def _select(
    path: Path, rows: Iterator[tuple[int, list[str]]], list_path: Path, lines: dict[str, int]
) -> tuple[dict[str, Fields], int]:
    """Line and fields of each name of a list, in its order, and how many rows there are; each name must come once."""
    found: dict[str, Fields] = {}
    count = 0
    for number, (name, *fields) in rows:
        count += 1
        if name in found:
            raise ReplicateError(
                f"{path}, line {number}: {name} stands on line {found[name][0]} already; remove one of the two"
            )
        if name in lines:
            found[name] = number, fields
    absent = [name for name in lines if name not in found]
    if absent:
        raise ReplicateError(
            f"{list_path}, line {lines[absent[0]]}: {absent[0]} is not in {path} ({len(absent)} such); restore the official files"
        )
    return {name: found[name] for name in lines}, count


def _points(path: Path, list_path: Path, lines: dict[str, int]) -> np.ndarray:
    _, rows = _table(path, list_path, lines)
    values = [numbers(path, number, fields, 2 * POINTS) for number, fields in rows.values()]
    return np.array(values, np.float32).reshape(-1, POINTS, 2)


def _attributes(path: Path, list_path: Path, lines: dict[str, int]) -> dict[str, np.ndarray]:
    columns, rows = _table(path, list_path, lines)
    refuse_duplicates(path, [(2, column) for column in columns])
    values = [numbers(path, number, fields, len(columns)) for number, fields in rows.values()]
    for (number, _), row in zip(rows.values(), values, strict=True):
        for column, value in zip(columns, row, strict=True):
            if value not in (-1, 1):
                raise ReplicateError(f"{path}, line {number}: {column} is {value:g}, expected 1 or -1")
    found = {column: np.array([row[index] == 1 for row in values]) for index, column in enumerate(columns)}
    return found | {name: found[column] for name, column in SHARED.items() if column in found}


def _identity(path: Path, list_path: Path, lines: dict[str, int]) -> np.ndarray:
    rows, _ = _select(path, read_rows(path), list_path, lines)
    people = [numbers(path, number, fields, 1)[0] for number, fields in rows.values()]
    for (number, _), person in zip(rows.values(), people, strict=True):
        if person != int(person) or person < 1:
            raise ReplicateError(f"{path}, line {number}: person {person:g}, expected a whole number from 1")
    return np.array(people, np.int64)


def _form(folder: Path) -> tuple[Path, Path] | None:
    """Landmarks and folder of images, whichever form of CelebA is there."""
    for name, images in FORMS:
        landmarks = _annotation(folder, name)
        found = [place for place in (folder / images, folder / "Img" / images) if place.is_dir()]
        if landmarks and found:
            return landmarks, found[0]
    return None


def _annotation(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / "Anno" / name) if path.is_file()), None)


def _count(folder: Path, split: str) -> int:
    path, form = folder / LISTS[split], _form(folder)
    return count_present(image for *_, image in read_list(form[1], path)) if form and path.exists() else 0


DATA_SET = DataSet(
    name="mafl",
    folder="mafl",
    title=TITLE,
    url="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (images and annotations), "
    "http://mmlab.ie.cuhk.edu.hk/projects/TCDCN.html (lists)",
    terms="research only, no commercial use (CUHK); the photographs keep their owners' rights",
    cite="Zhang et al., Learning Deep Representation for Face Alignment with Auxiliary Attributes, TPAMI 2016; "
    "Liu et al., Deep Learning Face Attributes in the Wild, ICCV 2015",
    splits=COUNTS,
    check=check,
    read=read,
)
