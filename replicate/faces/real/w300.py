"""300-W in its official layout: `afw/`, `helen/{trainset,testset}/`, `lfpw/{trainset,testset}/`, `ibug/`, `300W/{01_Indoor,02_Outdoor}/`.

Each image (png or jpg) lies beside a `.pts` file of the same stem with 68 points, 1-based as Matlab counts; they are moved to
the 0-based convention of the library here. Files whose names start with a dot are none of the release.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replicate.errors import AbsentError, ReplicateError
from replicate.faces.real.reading import (
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
    """Read one split: 68 points, all visible (300-W has no visibility), in the order of folders and of names.

    Raises
    ------
    ReplicateError
        If a folder of the split is empty, holds an orphan or more faces than the release, or a file is damaged.
    """
    check_one_of("split", split, SPLITS)
    pairs = [pair for name in SPLITS[split] for pair in _require_pairs(folder, name)]
    points = np.stack([read_pts(path) for _, path in pairs])
    return Annotations(
        names=tuple(path.relative_to(folder).with_suffix("").as_posix() for path, _ in pairs),
        pixels=image_reader([image for image, _ in pairs]),
        points=points,
        visible=np.ones(points.shape[:2], bool),
        files=tuple(path for pair in pairs for path in pair),
    )


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
