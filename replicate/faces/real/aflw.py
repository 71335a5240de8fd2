"""AFLW in its official layout, `data/aflw.sqlite` and `data/flickr/`, and the AFLW-PIFA split of it.

**AFLW** (Koestinger et al. 2011). The database is opened read-only. A face has up to 21 points, in the order of the markup aflw21, found
by their names in `FeatureCoordTypes`; a point that was not annotated, because the head hides it, is absent or (-1, -1), and NaN here.
Left and right are sides of the image. Pose is stored in radians and given in degrees; which turn is positive, and whether pixels count
from 0 or 1, is not documented, and both are read as they are. Faces without a rectangle or without any point are left out.

**AFLW-PIFA** (Jourabloo and Liu 2015; ECT §IV): 3,901 training and 1,299 test faces with 34 points and their visibility. The archive
has `TrainImages/1.jpg` to `3901.jpg`, `TestImages/1.jpg` to `1299.jpg`, `BoundingBox.mat` (`bboxesTr`, `bboxesT`: x, y, width, height)
and `Landmark.mat` (`phisTr`, `phisT`: 34 x, 34 y, 34 times 1 for visible or 0). This is how public code that uses the archive reads it;
that pixels count from 1, as in Matlab, is our assumption. The order of the 34 points is published as a figure only, so the reader
of that figure supplies it: `order.txt`, for each point of the markup aflw34 the number (from 1) of the published point. Yaw is not in the
archive; `yaw-train.txt` and `yaw-test.txt`, one number in degrees for each face, add it where they are at hand.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from pathlib import Path

import numpy as np

from replicate.errors import ReplicateError
from replicate.faces.real.matlab import load_matlab
from replicate.faces.real.reading import (
    LARGEST_NUMBER,
    Annotations,
    DataSet,
    Part,
    image_reader,
    listed_file,
    numbers,
    read_rows,
    refuse_surplus,
    require,
)
from replicate.faces.real.tables import is_present, whole_number
from replicate.vocabulary import check_one_of

FACES = 24386  # TCNN §5.1
POINT_NAMES = (  # `descr` in FeatureCoordTypes, in the order of aflw21
    *("LeftBrowLeftCorner", "LeftBrowCenter", "LeftBrowRightCorner"),
    *("RightBrowLeftCorner", "RightBrowCenter", "RightBrowRightCorner"),
    *("LeftEyeLeftCorner", "LeftEyeCenter", "LeftEyeRightCorner"),
    *("RightEyeLeftCorner", "RightEyeCenter", "RightEyeRightCorner"),
    *("LeftEar", "NoseLeft", "NoseCenter", "NoseRight", "RightEar"),
    *("MouthLeftCorner", "MouthCenter", "MouthRightCorner", "ChinCenter"),
)
SPLITS = {"all": FACES}
PIFA_POINTS = 34
PIFA_SPLITS = {"train": 3901, "test": 1299}  # ECT §IV
PIFA_SUFFIX = {"train": "Tr", "test": "T"}  # of the variables
PIFA_FOLDERS = {"train": "TrainImages", "test": "TestImages"}
YAW_BINS = (30, 60, 90)  # degrees; ECT Table IV


def yaw_bins(yaw: np.ndarray) -> np.ndarray:
    """The bin of each face in ECT Table IV: 0 for |yaw| in [0, 30], 1 in (30, 60], 2 in (60, 90] degrees; -1 beyond, or for NaN."""
    size = np.abs(np.asarray(yaw, np.float64))
    bins = np.searchsorted(YAW_BINS, size)
    return np.where(size <= YAW_BINS[-1], bins, -1)


# AFLW


def read(folder: Path, split: str) -> Annotations:
    """Read all faces of the database, in the order of their identifiers: 21 points (NaN where hidden), rectangles, pose and attributes.

    `yaw`, `pitch` and `roll` are in degrees; `male`, `wearing_glasses` and `occluded` are 1 or 0. Each is NaN where the database has none.

    Raises
    ------
    ReplicateError
        If the database or an image is missing, or the database is damaged or contradicts itself.
    """
    check_one_of("split", split, SPLITS)
    database = require(folder / "data" / "aflw.sqlite", "AFLW")
    faces = _faces(database)
    refuse_surplus(database, len(faces), FACES)
    paths = {
        row: _image(folder, database, row, relative)
        for row, relative in {face[:2] for face in faces.values()}
    }
    images = [paths[row] for row, _, _, _ in faces.values()]
    points = np.array([points for *_, points in faces.values()], np.float32).reshape(-1, len(POINT_NAMES), 2)
    return Annotations(
        names=tuple(f"{relative}#{face}" for face, (_, relative, _, _) in faces.items()),
        pixels=image_reader(images),
        points=points,
        visible=np.isfinite(points).all(-1),
        boxes=np.array([box for _, _, box, _ in faces.values()], np.float32).reshape(-1, 4),
        attributes=_attributes(database, list(faces)),
        files=(database, *dict.fromkeys(images)),
    )


def _faces(database: Path) -> dict[int, tuple[int, str, list[float], np.ndarray]]:
    """Face identifier: row of its image, path of that, box, points (21, 2)."""
    images: dict[str, tuple[int, str]] = {}
    for row, file, path in _select(database, "FaceImages", "rowid", "file_id", "filepath"):
        if images.setdefault(file, (row, path))[1] != path:
            raise ReplicateError(
                f"{database}, table FaceImages, line {row}: {file!r} is {images[file][1]!r} on line {images[file][0]} already"
            )
    boxes = _once(database, "FaceRect", "x", "y", "w", "h")
    points = _points(database)
    faces = {}
    for face, file in _select(database, "Faces", "face_id", "file_id"):
        if face in faces or not isinstance(face, int):
            raise ReplicateError(
                f"{database}, table Faces: face_id {face!r}, expected different whole numbers"
            )
        if file not in images or not isinstance(images[file][1], str):
            raise ReplicateError(
                f"{database}, table Faces: face {face} is in image {file!r}, which FaceImages does not have"
            )
        if face in boxes and face in points:
            x, y, width, height = boxes[face]
            if not (width > 0 and height > 0):
                raise ReplicateError(
                    f"{database}, table FaceRect: face {face} has {width:g}x{height:g} pixels"
                )
            faces[face] = (*images[file], [x, y, x + width, y + height], points[face])
    return dict(sorted(faces.items()))


def _points(database: Path) -> dict[int, np.ndarray]:
    """(21, 2) of each face that has any point."""
    names = dict(_select(database, "FeatureCoordTypes", "descr", "feature_id"))
    lacking = [name for name in POINT_NAMES if name not in names]
    if lacking:
        raise ReplicateError(
            f"{database}, table FeatureCoordTypes: no {', '.join(lacking)} among {', '.join(map(str, names))}"
        )
    place = {names[name]: number for number, name in enumerate(POINT_NAMES)}
    found: dict[int, np.ndarray] = {}
    for face, feature, x, y in _select(database, "FeatureCoords", "face_id", "feature_id", "x", "y"):
        if feature not in place or (x, y) == (-1, -1):  # further points, such as the temples; not annotated
            continue
        points = found.setdefault(face, np.full((len(POINT_NAMES), 2), np.nan))
        if np.isfinite(points[place[feature]]).any():
            raise ReplicateError(f"{database}, table FeatureCoords: face {face} has point {feature} twice")
        points[place[feature]] = _numbers(database, "FeatureCoords", face, (x, y))
    return found


def _attributes(database: Path, faces: list[int]) -> dict[str, np.ndarray]:
    pose = _once(database, "FacePose", "yaw", "pitch", "roll")
    unknown = [np.nan] * 3
    degrees = np.degrees(np.array([pose.get(face, unknown) for face in faces]).reshape(-1, 3))
    attributes = dict(zip(("yaw", "pitch", "roll"), degrees.T.astype(np.float32), strict=True))
    told = {}
    for face, sex, *flags in _select(database, "FaceMetaData", "face_id", "sex", "glasses", "occluded"):
        known = [
            np.nan if flag is None else _numbers(database, "FaceMetaData", face, [flag])[0] for flag in flags
        ]
        told[face] = [{"m": 1, "f": 0}.get(sex, np.nan), *known]
    flags = np.array([told.get(face, unknown) for face in faces], np.float32).reshape(-1, 3)
    return attributes | dict(zip(("male", "wearing_glasses", "occluded"), flags.T, strict=True))


def _once(database: Path, table: str, *columns: str) -> dict[int, list[float]]:
    """The numbers of each face in a table that may name a face once, or again with the same numbers."""
    found: dict[int, list[float]] = {}
    for face, *values in _select(database, table, "face_id", *columns):
        parsed = _numbers(database, table, face, values)
        if found.setdefault(face, parsed) != parsed:
            raise ReplicateError(f"{database}, table {table}: face {face} has two entries that differ")
    return found


def _numbers(database: Path, table: str, face: object, values: Sequence[object]) -> list[float]:
    """Numbers of one row; a column of a database may hold anything."""
    if not all(isinstance(value, int | float) and abs(value) <= LARGEST_NUMBER for value in values):
        raise ReplicateError(
            f"{database}, table {table}: face {face} has {list(values)!r}, expected numbers of at most {LARGEST_NUMBER:.0f}"
        )
    return [float(value) for value in values]


def _select(database: Path, table: str, *columns: str) -> list[tuple]:
    """All rows of some columns; the database is never written, nor a journal beside it."""
    try:
        with closing(
            sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        ) as connection:
            return connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY rowid").fetchall()
    except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:  # its messages quote damaged names
        raise ReplicateError(
            f"{database}, table {table}: cannot read {', '.join(columns)} ({error}); restore the database from its source"
        ) from error


def _image(folder: Path, database: Path, row: int, relative: str) -> Path:
    return listed_file(folder / "data" / "flickr", relative, Path(f"{database}, table FaceImages"), row)


def check(folder: Path) -> list[Part]:
    """What this machine has of the faces with a rectangle and a point."""
    database = folder / "data" / "aflw.sqlite"

    @cache
    def present(relative: str, row: int) -> bool:
        return is_present(folder / "data" / "flickr", relative, Path(f"{database}, table FaceImages"), row)

    def faces() -> int:
        found = _faces(database) if database.is_file() else {}
        return sum(present(relative, row) for row, relative, _, _ in found.values())

    return [Part.counted("faces", FACES, faces)]


# AFLW-PIFA


def read_pifa(folder: Path, split: str) -> Annotations:
    """Read one split of AFLW-PIFA: 34 points in the order of aflw34, their visibility, and boxes.

    Raises
    ------
    ReplicateError
        If a file is missing or damaged, its arrays have another shape or meaning than described above, or `order.txt` is not there.
    """
    check_one_of("split", split, PIFA_SPLITS)
    order = _order(folder)
    boxes, points, visible = _pifa_arrays(folder, split)
    relative = [f"{PIFA_FOLDERS[split]}/{number}.jpg" for number in range(1, len(boxes) + 1)]
    matrix = folder / "Landmark.mat"
    images = [listed_file(folder, name, matrix, row) for row, name in enumerate(relative, start=1)]
    yaw = folder / f"yaw-{split}.txt"
    return Annotations(
        names=tuple(relative),
        pixels=image_reader(images),
        points=points[:, order].astype(np.float32),
        visible=visible[:, order],
        boxes=boxes.astype(np.float32),
        attributes={"yaw": _yaw(yaw, len(boxes))} if yaw.is_file() else {},
        files=(
            folder / "BoundingBox.mat",
            matrix,
            folder / "order.txt",
            *([yaw] if yaw.is_file() else []),
            *images,
        ),
    )


def _pifa_arrays(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (N, 4) and points (N, 34, 2), 0-based, and visibility (N, 34), in the published order."""
    suffix = PIFA_SUFFIX[split]
    boxes = _matrix(folder / "BoundingBox.mat", f"bboxes{suffix}", 4)
    path = folder / "Landmark.mat"
    x, y, flags = np.split(_matrix(path, f"phis{suffix}", 3 * PIFA_POINTS), 3, axis=1)
    if len(boxes) != len(x):
        raise ReplicateError(
            f"{path}: {len(x)} faces in phis{suffix}, but {len(boxes)} boxes in BoundingBox.mat"
        )
    refuse_surplus(path, len(x), PIFA_SPLITS[split])
    if (boxes[:, 2:] <= 0).any():
        row = int(np.argmax((boxes[:, 2:] <= 0).any(1))) + 1
        raise ReplicateError(
            f"{folder / 'BoundingBox.mat'}: bboxes{suffix}, row {row}: expected a positive width and height"
        )
    if (
        not np.isin(flags, (0, 1)).all() or flags.mean() <= 0.5
    ):  # most points of a balanced set of poses are visible
        raise ReplicateError(
            f"{path}: the last {PIFA_POINTS} columns of phis{suffix} must be 1 (visible) or 0, most of them 1; "
            f"got values from {flags.min():g} to {flags.max():g} with mean {flags.mean():.2f}"
        )
    corners = boxes[:, :2] - 1
    points = np.stack([x, y], axis=-1) - 1
    return np.concatenate([corners, corners + boxes[:, 2:]], axis=1), points, flags == 1


def _matrix(path: Path, name: str, columns: int) -> np.ndarray:
    """A finite (N, columns) array of a Matlab file."""
    array = load_matlab(path, [name])[name]
    numeric = isinstance(array, np.ndarray) and array.dtype.kind in "fiu"  # not text
    if not numeric or array.ndim != 2 or array.shape[0] == 0 or array.shape[1] != columns:
        raise ReplicateError(
            f"{path}: {name} is {type(array).__name__} of shape {np.shape(array)}, expected numbers (N, {columns})"
        )
    array = array.astype(np.float64)
    sound = (np.abs(array) <= LARGEST_NUMBER).all(axis=1)
    if not sound.all():
        row = int(np.argmin(sound)) + 1
        raise ReplicateError(
            f"{path}: {name}, row {row}: expected finite numbers of at most {LARGEST_NUMBER:.0f}"
        )
    return array


def _order(folder: Path) -> np.ndarray:
    """For each point of aflw34, the published column (from 0)."""
    path = folder / "order.txt"
    if not path.is_file():
        raise ReplicateError(
            f"AFLW-PIFA: {path} is not there. The order of the 34 points is published as a figure only, so no program can know it: "
            f"write {PIFA_POINTS} numbers there, for each point of the markup aflw34 (replicate/faces/markups.py) the number of the "
            "published point, counted from 1"
        )
    order = [
        whole_number(path, line, field, "point", most=PIFA_POINTS)
        for line, fields in read_rows(path)
        for field in fields
    ]
    if sorted(order) != list(range(1, PIFA_POINTS + 1)):
        raise ReplicateError(f"{path}: got {len(order)} numbers, expected each of 1 to {PIFA_POINTS} once")
    return np.array(order) - 1


def _yaw(path: Path, count: int) -> np.ndarray:
    yaw = [numbers(path, line, fields, 1)[0] for line, fields in read_rows(path)]
    if len(yaw) != count:
        raise ReplicateError(f"{path}: {len(yaw)} numbers, expected {count}, one for each face")
    return np.array(yaw, np.float32)


def check_pifa(folder: Path) -> list[Part]:
    """What this machine has of both splits."""

    def faces(split: str) -> int:
        if not (folder / "Landmark.mat").is_file():
            return 0
        _order(folder)
        boxes, _, _ = _pifa_arrays(folder, split)
        return sum(
            (folder / PIFA_FOLDERS[split] / f"{number}.jpg").is_file() for number in range(1, len(boxes) + 1)
        )

    return [
        Part.counted(split, expected, lambda split=split: faces(split))
        for split, expected in PIFA_SPLITS.items()
    ]


DATA_SET = DataSet(
    name="aflw",
    folder="aflw",
    title="Annotated Facial Landmarks in the Wild (AFLW): 24,386 faces with up to 21 points and their pose",
    url="https://www.tugraz.at/institute/icg/research/team-bischof/learning-recognition-surveillance/downloads/aflw/",
    terms="on request, research only, no commercial use (Graz University of Technology); the photographs are Flickr users'",
    cite="Koestinger et al., Annotated Facial Landmarks in the Wild, ICCV Workshops 2011",
    splits=SPLITS,
    check=check,
    read=read,
)
PIFA_DATA_SET = DataSet(
    name="aflw-pifa",
    folder="aflw-pifa",
    title="AFLW-PIFA: 5,200 faces of AFLW with a balanced yaw, 34 points and their visibility",
    url="https://www.cse.msu.edu/computervision/AFLW.zip",
    terms="as AFLW: research only, no commercial use",
    cite="Jourabloo and Liu, Pose-Invariant 3D Face Alignment, ICCV 2015; Koestinger et al. 2011 (AFLW)",
    splits=PIFA_SPLITS,
    check=check_pifa,
    read=read_pifa,
)
