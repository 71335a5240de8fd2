"""AFW, Annotated Faces in the Wild: `anno.mat` and its images, as `AFW.zip` unpacks (`testimages/`) or beside one another.

`anno` is a Matlab cell with one row per image: file name, boxes, poses, landmarks; each of the last three is a cell with one element per
face: `[x1 y1; x2 y2]`, `[yaw pitch roll]` in degrees, and six points (eye centres, nose tip, left corner, centre and right corner of
the mouth: markup `afw6`), NaN where hidden. Coordinates are 1-based as Matlab counts; they are moved to the 0-based convention here.

The column of poses is not documented with the release but found in it; it may be absent, and the sign of the angles is kept as published.
A face without any known point is kept: all its points are NaN.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replicate.errors import ReplicateError
from replicate.faces.real.matlab import load_matlab
from replicate.faces.real.reading import (
    LARGEST_NUMBER,
    Annotations,
    DataSet,
    Part,
    count_present,
    image_reader,
    inside,
    require,
    require_listed,
)
from replicate.vocabulary import check_one_of

TITLE = "Annotated Faces in the Wild (AFW)"
COUNTS = {"test": 468}  # faces, in 205 images
POINTS = 6
ANGLES = ("yaw", "pitch", "roll")


@dataclass(frozen=True)
class Face:
    """One annotated face; coordinates are 0-based."""

    row: int  # of `anno`, from 1
    name: str
    image: Path
    box: np.ndarray  # (4,)
    points: np.ndarray  # (6, 2)
    pose: np.ndarray  # (3,) degrees, NaN where the release has none


def check(folder: Path) -> list[Part]:
    """What this machine has of the release."""
    return [Part.counted("test", COUNTS["test"], lambda: _count(folder))]


def read(folder: Path, split: str) -> Annotations:
    """Read all faces, in the order of `anno.mat`; several may share an image.

    Raises
    ------
    ReplicateError
        Naming `anno.mat` and its row, for malformed entries, duplicates, absent images and paths that leave the folder.
    """
    check_one_of("split", split, COUNTS)
    path = _annotation_file(folder)
    faces = read_faces(path)
    if not 0 < len(faces) <= COUNTS[split]:
        raise ReplicateError(
            f"{path}: {len(faces)} faces, the official release has {COUNTS[split]}; restore it"
        )
    require_listed(path, [(face.row, face.image) for face in faces])
    points = np.stack([face.points for face in faces])
    points[~np.isfinite(points).all(axis=2)] = np.nan  # half a point is none
    pose = np.stack([face.pose for face in faces])
    return Annotations(
        names=tuple(face.name for face in faces),
        pixels=image_reader([face.image for face in faces]),
        points=points.astype(np.float32),
        visible=np.isfinite(points).all(axis=2),
        boxes=np.stack([face.box for face in faces]).astype(np.float32),
        attributes=dict(zip(ANGLES, pose.T, strict=True)) if np.isfinite(pose).any() else {},
        files=(path, *dict.fromkeys(face.image for face in faces)),
    )


def read_faces(path: Path) -> list[Face]:
    """Parse `anno.mat`; whether the images are there is not looked at.

    Raises
    ------
    ReplicateError
        Naming the file and the row of `anno`, from 1.
    """
    rows = load_matlab(path, ["anno"])["anno"]
    if (
        not isinstance(rows, np.ndarray)
        or rows.dtype != object
        or rows.ndim != 2
        or rows.shape[1] not in (3, 4)
    ):
        raise ReplicateError(f"{path}: anno is no cell array of 3 or 4 columns; restore the official file")
    first: dict[str, int] = {}
    faces = []
    for number, row in enumerate(rows, start=1):
        name, *columns = row
        if not isinstance(name, str):
            raise ReplicateError(
                f"{path}, row {number}: the first column is no text, expected the name of an image"
            )
        if first.setdefault(name, number) != number:
            raise ReplicateError(
                f"{path}, row {number}: {name} stands in row {first[name]} already; restore the file"
            )
        faces += _faces_of(path, number, name, columns)
    return faces


def _faces_of(path: Path, number: int, name: str, columns: list[np.ndarray]) -> list[Face]:
    image = inside(_image_folder(path), name, path, number)
    boxes, *poses, points = [_elements(path, number, column) for column in columns]
    poses = poses[0] if poses else [np.full(len(ANGLES), np.nan)] * len(boxes)
    if not len(boxes) == len(poses) == len(points):
        raise ReplicateError(
            f"{path}, row {number}: {len(boxes)} boxes, {len(poses)} poses and {len(points)} sets of points, expected as many of each"
        )
    return [
        Face(
            row=number,
            name=f"{name}#{index}",
            image=image,
            box=_numbers(path, number, "box", box, (2, 2)).ravel() - 1,
            points=_numbers(path, number, "points", shape, (POINTS, 2), finite=False) - 1,
            pose=_numbers(path, number, "pose", np.ravel(pose), (len(ANGLES),), finite=False),
        )
        for index, (box, pose, shape) in enumerate(zip(boxes, poses, points, strict=True), start=1)
    ]


def _elements(path: Path, number: int, column: np.ndarray) -> list[np.ndarray]:
    if not isinstance(column, np.ndarray) or column.dtype != object:
        raise ReplicateError(
            f"{path}, row {number}: expected a cell with one element per face; restore the file"
        )
    return list(column.ravel(order="F"))


def _numbers(
    path: Path, number: int, what: str, value: np.ndarray, shape: tuple[int, ...], finite: bool = True
) -> np.ndarray:
    value = np.asarray(value)
    if value.shape != shape or value.dtype.kind not in "fiu":
        raise ReplicateError(
            f"{path}, row {number}: {what} of shape {value.shape} and type {value.dtype}, expected {shape} numbers"
        )
    value = value.astype(float)
    if not ((np.abs(value) <= LARGEST_NUMBER) | (np.isnan(value) & (not finite))).all():
        raise ReplicateError(
            f"{path}, row {number}: {what} {value.tolist()}, expected finite numbers of at most {LARGEST_NUMBER:.0f}"
        )
    return value


def _annotation_file(folder: Path) -> Path:
    inner = folder / "testimages" / "anno.mat"
    return inner if inner.exists() else require(folder / "anno.mat", TITLE)


def _image_folder(path: Path) -> Path:
    """Images lie beside `anno.mat`, or in a folder of their own there."""
    inner = path.parent / "images"
    return inner if inner.is_dir() else path.parent


def _count(folder: Path) -> int:
    try:
        path = _annotation_file(folder)
    except ReplicateError:
        return 0
    return count_present(face.image for face in read_faces(path))


DATA_SET = DataSet(
    name="afw",
    folder="afw",
    title=TITLE,
    url="https://www.ics.uci.edu/~xzhu/face/",
    terms="published by its authors for research; no licence is stated, and the Flickr photographs keep their owners' rights",
    cite="Zhu and Ramanan, Face Detection, Pose Estimation and Landmark Localization in the Wild, CVPR 2012",
    splits=COUNTS,
    check=check,
    read=read,
)
