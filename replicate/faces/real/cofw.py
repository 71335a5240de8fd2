"""COFW, Caltech Occluded Faces in the Wild: `COFW_train_color.mat` and `COFW_test_color.mat`, or `COFW_train.mat` and `COFW_test.mat` in grey.

Each file holds the images themselves (`IsTr`, `IsT`: one cell each), boxes (`bboxesTr`, `bboxesT`: x, y, width, height) and points
(`phisTr`, `phisT`: 29 x, 29 y, 29 flags of occlusion; markup `cofw29`), all 1-based as Matlab counts; they are moved to the 0-based
convention here. The files are Matlab 7.3, that is HDF5; older versions are read too. Where both forms are there, colour is read.

The images have no names: a face is called after its place, from 1. The first 845 of the 1345 training faces are LFPW's, which the
attribute `lfpw` tells by that place.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from replicate.errors import ReplicateError
from replicate.faces.images import LARGEST_SIDE
from replicate.faces.real.matlab import load_matlab, open_cell
from replicate.faces.real.reading import LARGEST_NUMBER, Annotations, DataSet, Part, require
from replicate.vocabulary import check_one_of

TITLE = "Caltech Occluded Faces in the Wild (COFW)"
COUNTS = {"train": 1345, "test": 507}
SUFFIXES = {"train": "Tr", "test": "T"}  # of the variables' names
FROM_LFPW = 845
POINTS = 29


def check(folder: Path) -> list[Part]:
    """What this machine has of each file."""
    return [Part.counted(split, COUNTS[split], partial(_count, folder, split)) for split in COUNTS]


def read(folder: Path, split: str) -> Annotations:
    """Read one split; an occluded point is not visible, its position is the annotators' guess.

    Raises
    ------
    ReplicateError
        Naming the file, for variables that are absent, damaged or disagree in number, and numbers that are not finite.
    """
    check_one_of("split", split, COUNTS)
    path = require(_file(folder, split), TITLE)
    suffix = SUFFIXES[split]
    variables = load_matlab(path, [f"phis{suffix}", f"bboxes{suffix}"])
    count, image = open_cell(path, f"Is{suffix}")
    if not 0 < count <= COUNTS[split]:
        raise ReplicateError(
            f"{path}: {count} images, the official release has {COUNTS[split]}; restore the file"
        )
    shapes = _matrix(path, f"phis{suffix}", variables, (count, 3 * POINTS))
    boxes = _matrix(path, f"bboxes{suffix}", variables, (count, 4))
    boxes = np.concatenate([boxes[:, :2] - 1, boxes[:, :2] - 1 + boxes[:, 2:]], axis=1)
    x, y, occluded = shapes.reshape(count, 3, POINTS).swapaxes(0, 1)  # (N, 29) each
    return Annotations(
        names=tuple(f"{split}/{number:04d}" for number in range(1, count + 1)),
        pixels=partial(_pixels, path, image),
        points=np.stack([x - 1, y - 1], axis=2).astype(np.float32),
        visible=occluded == 0,
        boxes=boxes.astype(np.float32),
        attributes={"lfpw": (np.arange(count) < FROM_LFPW) & (split == "train")},
        files=(path,),
    )


def _matrix(path: Path, name: str, variables: dict, shape: tuple[int, int]) -> np.ndarray:
    value = np.asarray(variables[name])
    if value.shape != shape or value.dtype.kind not in "biuf":
        raise ReplicateError(
            f"{path}: {name} of shape {value.shape} and type {value.dtype}, expected {shape} numbers for {shape[0]} images"
        )
    sound = (np.abs(value.astype(float)) <= LARGEST_NUMBER).all(axis=1)  # NaN is not
    if not sound.all():
        raise ReplicateError(
            f"{path}: {name}, row {np.argmin(sound) + 1}: expected finite numbers of at most {LARGEST_NUMBER:.0f}"
        )
    return value.astype(float)


def _pixels(path: Path, image: Callable[[int], np.ndarray], index: int) -> np.ndarray:
    pixels = np.asarray(image(index))
    grey_or_rgb = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not grey_or_rgb or not pixels.size or max(pixels.shape) > LARGEST_SIDE:
        raise ReplicateError(
            f"{path}: image {index + 1} of shape {pixels.shape} and type {pixels.dtype}, "
            f"expected 8 bits, (H, W) or (H, W, 3), sides of 1 to {LARGEST_SIDE}"
        )
    return np.ascontiguousarray(pixels)


def _file(folder: Path, split: str) -> Path:
    colour = folder / f"COFW_{split}_color.mat"
    grey = folder / f"COFW_{split}.mat"
    return grey if grey.exists() and not colour.exists() else colour


def _count(folder: Path, split: str) -> int:
    path = _file(folder, split)
    return open_cell(path, f"Is{SUFFIXES[split]}")[0] if path.exists() else 0


DATA_SET = DataSet(
    name="cofw",
    folder="cofw",
    title=TITLE,
    url="https://data.caltech.edu/records/20099",
    terms="published by Caltech for research; see the record for its licence; the photographs keep their owners' rights",
    cite="Burgos-Artizzu, Perona and Dollár, Robust Face Landmark Estimation under Occlusion, ICCV 2013; "
    "the LFPW part: Belhumeur et al. 2011",
    splits=COUNTS,
    check=check,
    read=read,
)
