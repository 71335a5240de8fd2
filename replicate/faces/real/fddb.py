"""FDDB in its official layout: `FDDB-folds/FDDB-fold-01-ellipseList.txt` to `-10-`, and `originalPics/` (LDDR §3 trains a descriptor on it).

A list names an image without its ending, the number of its faces, and one ellipse a line: `major_axis_radius minor_axis_radius
angle center_x center_y 1`, the angle in radians from the horizontal axis to the major one. There are no landmarks: `points` has
the shape (N, 0, 2), and a face's box is the upright box of its ellipse. Whether pixels count from 0 or 1 is not documented; the
centres are read as they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
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
    read_lines,
    refuse_duplicates,
    refuse_surplus,
    require,
)
from replicate.faces.real.tables import is_present, whole_number
from replicate.vocabulary import check_one_of

FOLDS = range(1, 11)
FACES, IMAGES = 5171, 2845
SPLITS = {"all": FACES}
MOST_FACES = 1000  # of one image; beyond it a list is damaged


@dataclass(frozen=True)
class Image:
    """One image of a list: its name there, the line that names it, and its ellipses (n, 5)."""

    name: str
    line: int
    ellipses: np.ndarray


def ellipse_boxes(ellipses: np.ndarray) -> np.ndarray:
    """Upright boxes (N, 4) that touch ellipses (N, 5): major radius a, minor radius b, angle t in radians, centre x and y.

    A point of the ellipse has x = a cos t cos u - b sin t sin u, whose maximum over u is √(a² cos² t + b² sin² t), and y likewise.
    """
    a, b, angle, x, y = np.asarray(ellipses, np.float64).T
    half_width = np.hypot(a * np.cos(angle), b * np.sin(angle))
    half_height = np.hypot(a * np.sin(angle), b * np.cos(angle))
    return np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=1)


def read_ellipses(path: Path) -> list[Image]:
    """Read one list; blank lines do not count.

    Raises
    ------
    ReplicateError
        Naming file and line, for a list that ends early, a wrong count, a malformed ellipse or an image that is listed twice.
    """
    rows = ((number, line.strip()) for number, line in enumerate(read_lines(path), start=1) if line.strip())
    images = [Image(name, line, _ellipses(path, line, rows)) for line, name in rows]
    refuse_duplicates(path, [(image.line, image.name) for image in images])
    return images


def _ellipses(path: Path, line: int, rows: Iterator[tuple[int, str]]) -> np.ndarray:
    """The count and the ellipses that follow the name of an image on `line`."""
    number, field = next(rows, (line, ""))
    count = whole_number(path, number, field, "number of faces", MOST_FACES)
    ellipses = [_ellipse(path, *next(rows, (number, ""))) for _ in range(count)]
    return np.array(ellipses, np.float64).reshape(count, 5)


def _ellipse(path: Path, number: int, line: str) -> list[float]:
    *ellipse, label = numbers(path, number, line.split(), 6)
    if min(ellipse[:2]) <= 0 or label != 1:
        raise ReplicateError(
            f"{path}, line {number}: got {line[:120]!r}, expected positive radii and 1 at the end"
        )
    return ellipse


def check(folder: Path) -> list[Part]:
    """What this machine has of the faces and of the images."""
    return [
        Part.counted("faces", FACES, lambda: sum(len(image.ellipses) for image in _present(folder))),
        Part.counted("images", IMAGES, lambda: len(_present(folder))),
    ]


def _present(folder: Path) -> list[Image]:
    """The images that are there; those of a missing list are absent."""
    paths = [_list(folder, fold) for fold in FOLDS]
    return [
        image
        for path in paths
        if path.is_file()
        for image in read_ellipses(path)
        if is_present(folder / "originalPics", f"{image.name}.jpg", path, image.line)
    ]


def read(folder: Path, split: str) -> Annotations:
    """Read all faces, in the order of the lists: boxes, `fold` from 1 to 10, no points.

    Raises
    ------
    ReplicateError
        If a list or an image is missing, a list is damaged, or an image stands in two lists.
    """
    check_one_of("split", split, SPLITS)
    names, paths, ellipses, folds, seen = [], [], [], [], {}
    lists = [require(_list(folder, fold), "FDDB") for fold in FOLDS]
    for fold, path in zip(FOLDS, lists, strict=True):
        for image in read_ellipses(path):
            if image.name in seen:
                raise ReplicateError(
                    f"{path}, line {image.line}: {image.name!r} is in {seen[image.name].name} already; restore the lists"
                )
            seen[image.name] = path
            file = listed_file(folder / "originalPics", f"{image.name}.jpg", path, image.line)
            count = len(image.ellipses)
            names += [f"{image.name}#{face}" for face in range(count)]
            paths += [file] * count
            folds += [fold] * count
            ellipses.append(image.ellipses)
    refuse_surplus(folder / "FDDB-folds", len(names), FACES)
    boxes = ellipse_boxes(np.concatenate([np.empty((0, 5)), *ellipses]))
    return Annotations(
        names=tuple(names),
        pixels=image_reader(paths),
        points=np.empty((len(names), 0, 2), np.float32),
        visible=np.empty((len(names), 0), bool),
        boxes=boxes.astype(np.float32),
        attributes={"fold": np.array(folds, np.int64)},
        files=(*lists, *dict.fromkeys(paths)),
    )


def _list(folder: Path, fold: int) -> Path:
    return folder / "FDDB-folds" / f"FDDB-fold-{fold:02d}-ellipseList.txt"


DATA_SET = DataSet(
    name="fddb",
    folder="fddb",
    title="Face Detection Data Set and Benchmark (FDDB): 5,171 faces in 2,845 photographs, as ellipses",
    url="http://vis-www.cs.umass.edu/fddb/",
    terms="research; the photographs come from news services and keep their owners' rights",
    cite="Jain and Learned-Miller, FDDB: A Benchmark for Face Detection in Unconstrained Settings, "
    "University of Massachusetts, UM-CS-2010-009, 2010",
    splits=SPLITS,
    check=check,
    read=read,
)
