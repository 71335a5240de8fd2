"""300-W in its official layout: `afw/`, `helen/{trainset,testset}/`, `lfpw/{trainset,testset}/`, `ibug/`, `300W/{01_Indoor,02_Outdoor}/`.

Each image (png or jpg) lies beside a `.pts` file of the same stem with 68 points, 1-based as Matlab counts; they are moved to
the 0-based convention of the library here. Files whose names start with a dot are none of the release.

The boxes of a face detector come apart from the faces, as `Bounding Boxes/bounding_boxes_<part>.mat` of the six parts in `BOX_FILES`;
where that folder lies beside the others, a part has them, and without it none (DAN §4 starts from them). There are none for the private
test set. A file holds a Matlab cell `bounding_boxes` of structures with the file name of an image, `imgName`, and two boxes (x_min,
y_min, x_max, y_max): `bb_detector`, and `bb_ground_truth`, the tight box of the points, which is not read. That is how public code reads
them; no publication describes the format, and that pixels count from 1, as those of the points do, is our assumption.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replicate.errors import AbsentError, ReplicateError
from replicate.faces.real.matlab import load_matlab
from replicate.faces.real.reading import (
    LARGEST_NUMBER,
    Annotations,
    DataSet,
    Part,
    image_reader,
    numbers,
    read_lines,
    refuse_surplus,
)
from replicate.vocabulary import check_one_of

POINTS = 68
IMAGE_ENDINGS = (".jpg", ".png", ".jpeg")
FOLDERS = {  # folder: images of the official release
    "lfpw/trainset": 811,
    "lfpw/testset": 224,
    "helen/trainset": 2000,
    "helen/testset": 330,
    "afw": 337,
    "ibug": 135,
    "300W/01_Indoor": 300,
    "300W/02_Outdoor": 300,
}
SPLITS = {  # split: its folders
    "lfpw/trainset": ("lfpw/trainset",),
    "lfpw/testset": ("lfpw/testset",),
    "helen/trainset": ("helen/trainset",),
    "helen/testset": ("helen/testset",),
    "afw": ("afw",),
    "ibug": ("ibug",),
    "private": ("300W/01_Indoor", "300W/02_Outdoor"),
}

BOX_FOLDER = "Bounding Boxes"
BOX_FILES = {  # split: its boxes
    "lfpw/trainset": "bounding_boxes_lfpw_trainset.mat",
    "lfpw/testset": "bounding_boxes_lfpw_testset.mat",
    "helen/trainset": "bounding_boxes_helen_trainset.mat",
    "helen/testset": "bounding_boxes_helen_testset.mat",
    "afw": "bounding_boxes_afw.mat",
    "ibug": "bounding_boxes_ibug.mat",
}


@dataclass(frozen=True)
class Listing:
    """What one folder of the release holds."""

    pairs: tuple[tuple[Path, Path], ...]  # (image, annotation)
    orphans: tuple[Path, ...]  # an image without points, or points without an image


def scan(folder: Path, name: str) -> Listing:
    """List the complete pairs and the orphans of one folder of the release.

    Raises
    ------
    ReplicateError
        If one stem has two images: which of them the points belong to cannot be told.
    """
    images: dict[str, Path] = {}
    annotations: dict[str, Path] = {}
    for path in sorted((folder / name).glob("[!.]*")):
        if path.suffix.lower() in IMAGE_ENDINGS:
            if path.stem in images:
                raise ReplicateError(
                    f"{path}: {images[path.stem].name} has the same stem; keep the image that the points belong to"
                )
            images[path.stem] = path
        elif path.suffix.lower() == ".pts":
            annotations[path.stem] = path
    both = sorted(images.keys() & annotations.keys())
    orphans = [(images | annotations)[stem] for stem in sorted(images.keys() ^ annotations.keys())]
    return Listing(tuple((images[stem], annotations[stem]) for stem in both), tuple(orphans))


def check(folder: Path) -> list[Part]:
    """What this machine has of each folder of the release."""
    return [
        Part.counted(name, expected, lambda name=name: len(_pairs(folder, name)))
        for name, expected in FOLDERS.items()
    ]


def read(folder: Path, split: str) -> Annotations:
    """Read one split: 68 points, all visible (300-W has no visibility), in the order of folders and of names; the detector's boxes, if any.

    Raises
    ------
    ReplicateError
        If a folder of the split is empty, holds an orphan or more faces than the release, or a file is damaged; if the folder of the
        boxes is there, but not the box of every face.
    """
    check_one_of("split", split, SPLITS)
    pairs = [pair for name in SPLITS[split] for pair in _require_pairs(folder, name)]
    points = np.stack([read_pts(path) for _, path in pairs])
    box_file = folder / BOX_FOLDER / BOX_FILES[split] if split in BOX_FILES else None
    return Annotations(
        names=tuple(path.relative_to(folder).with_suffix("").as_posix() for path, _ in pairs),
        pixels=image_reader([image for image, _ in pairs]),
        points=points,
        visible=np.ones(points.shape[:2], bool),
        boxes=_boxes(box_file, [image for image, _ in pairs]) if box_file else None,
        # that of absent boxes too: once it comes, kept faces are out of date
        files=(*(path for pair in pairs for path in pair), *filter(None, [box_file])),
    )


def _boxes(path: Path, images: Sequence[Path]) -> np.ndarray | None:
    """The detector's boxes (N, 4) float32 of images, or None where the folder of boxes is not there."""
    if not path.parent.is_dir():
        return None
    listed = read_boxes(path)
    absent = [image for image in images if image.name not in listed]
    if absent:
        raise ReplicateError(
            f"{path}: no box of {absent[0]} ({len(absent)} of {len(images)} images lack one); restore the official "
            f"file, or move the folder {BOX_FOLDER} away to simulate all boxes"
        )
    return np.array([listed[image.name] for image in images], np.float32)


def read_boxes(path: Path) -> dict[str, np.ndarray]:
    """Read one file of the detector's boxes.

    Returns
    -------
    dict of str to array
        File name of each image, and its box (4,): x_min, y_min, x_max, y_max in pixels, 0-based.

    Raises
    ------
    ReplicateError
        Naming the file, and the element of the cell, if it is absent, damaged, of another form or names an image twice.
    """
    if not path.is_file():
        raise ReplicateError(
            f"{path}: is not there; restore it from the official release, or move its folder away to simulate all boxes"
        )
    cell = load_matlab(path, ["bounding_boxes"])["bounding_boxes"]
    if not isinstance(cell, np.ndarray) or cell.dtype != object:
        raise ReplicateError(
            f"{path}: bounding_boxes is {type(cell).__name__}, expected a cell of structures"
        )
    boxes: dict[str, np.ndarray] = {}
    for number, element in enumerate(cell.ravel(order="F"), start=1):
        fields = element if isinstance(element, dict) else {}
        name, box = fields.get("imgName"), fields.get("bb_detector")
        if not isinstance(name, str) or not _is_box(box):
            raise ReplicateError(
                f"{path}, element {number}: expected a structure with the text imgName and bb_detector, four numbers with x_min < x_max "
                "and y_min < y_max; restore the official file"
            )
        if name in boxes:
            raise ReplicateError(
                f"{path}, element {number}: {name!r} has a box already; restore the official file"
            )
        boxes[name] = box.ravel().astype(np.float64) - 1
    return boxes


def _is_box(value: object) -> bool:
    """Whether a value of a Matlab file is a box: finite numbers, with an extent."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or value.size != 4:
        return False
    x_min, y_min, x_max, y_max = box = value.ravel().astype(np.float64)
    return bool((np.abs(box) <= LARGEST_NUMBER).all() and x_min < x_max and y_min < y_max)


def _require_pairs(folder: Path, name: str) -> tuple[tuple[Path, Path], ...]:
    pairs = _pairs(folder, name)
    if not pairs:
        raise AbsentError(
            f"300-W: no faces in {folder / name} (expected {FOLDERS[name]} images with .pts). "
            "Set REPLICATE_DATA to the folder that holds 300w/, or see `replicate data check`."
        )
    refuse_surplus(folder / name, len(pairs), FOLDERS[name])
    return pairs


def _pairs(folder: Path, name: str) -> tuple[tuple[Path, Path], ...]:
    listing = scan(folder, name)
    if listing.orphans:
        raise ReplicateError(
            f"300-W: {listing.orphans[0]} lacks its partner ({len(listing.orphans)} such in {name}); "
            "restore the missing file or remove this one"
        )
    return listing.pairs


def read_pts(path: Path) -> np.ndarray:
    """Read a `.pts` file.

    Returns
    -------
    array
        (68, 2) float32, 0-based pixels (the file counts from 1).

    Raises
    ------
    ReplicateError
        Naming file and line, for a wrong number of points, a malformed line or a number that is not finite.
    """
    lines = [line.strip() for line in read_lines(path)]
    opened = [number for number, line in enumerate(lines, start=1) if line == "{"]
    closed = [number for number, line in enumerate(lines, start=1) if line == "}"]
    if len(opened) != 1 or len(closed) != 1 or closed[0] < opened[0]:
        raise ReplicateError(f"{path}: expected the points between one line '{{' and one line '}}'")
    for number, line in enumerate(lines[: opened[0] - 1], start=1):
        key, _, value = line.partition(":")
        if key == "n_points" and value.strip() != str(POINTS):
            raise ReplicateError(f"{path}, line {number}: got {line[:80]!r}, expected {POINTS} points")
    inner = enumerate(lines[opened[0] : closed[0] - 1], start=opened[0] + 1)
    points = [numbers(path, number, line.split(), 2) for number, line in inner if line]
    if len(points) != POINTS:
        raise ReplicateError(f"{path}: {len(points)} points, expected {POINTS}")
    return np.array(points, np.float32) - 1


DATA_SET = DataSet(
    name="300w",
    folder="300w",
    title="300 Faces in the Wild (300-W): LFPW, HELEN, AFW and iBUG in the 68-point markup, and the private test set",
    url="https://ibug.doc.ic.ac.uk/resources/300-W/",
    terms="research only, no commercial use (iBUG, Imperial College London); the photographs keep their owners' rights",
    cite="Sagonas et al., 300 Faces In-The-Wild Challenge, ICCV Workshops 2013, and Image and Vision Computing 47, 2016; "
    "the parts: Belhumeur et al. 2011 (LFPW), Le et al. 2012 (HELEN), Zhu and Ramanan 2012 (AFW)",
    splits={split: sum(FOLDERS[name] for name in folders) for split, folders in SPLITS.items()},
    check=check,
    read=read,
)
