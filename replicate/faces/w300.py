"""The 300-W faces in their official layout: `afw/`, `helen/{trainset,testset}/`, `lfpw/{trainset,testset}/`, `ibug/`, `300W/{01_Indoor,02_Outdoor}/`.

Each image (png or jpg) lies beside a `.pts` file of the same stem with 68 points, 1-based as Matlab counts; they are moved to
the 0-based convention of the library here. Distributed for research by iBUG, Imperial College London
(https://ibug.doc.ic.ac.uk/resources/300-W/); cite Sagonas et al. 2013 and 2016.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replicate.errors import ReplicateError
from replicate.faces.boxes import BOX_RULE, simulated_detector_boxes
from replicate.faces.faceset import FaceSet
from replicate.faces.images import read_image, read_images
from replicate.vocabulary import check_one_of

FOLDER = "300w"
POINTS = 68
IMAGE_ENDINGS = (".jpg", ".png", ".jpeg")
PART_COUNTS = {  # folder: images of the official release
    "lfpw/trainset": 811,
    "lfpw/testset": 224,
    "helen/trainset": 2000,
    "helen/testset": 330,
    "afw": 337,
    "ibug": 135,
    "300W/01_Indoor": 300,
    "300W/02_Outdoor": 300,
}
SPLITS = {  # DAN §4, data sets
    "train": ("lfpw/trainset", "helen/trainset", "afw"),
    "common": ("lfpw/testset", "helen/testset"),
    "challenging": ("ibug",),
    "full": ("lfpw/testset", "helen/testset", "ibug"),
    "private": ("300W/01_Indoor", "300W/02_Outdoor"),
}


@dataclass(frozen=True)
class Part:
    """What a machine has of one folder of the release."""

    name: str
    expected: int
    pairs: tuple[tuple[Path, Path], ...]  # (image, annotation)
    orphans: tuple[Path, ...]  # an image without points, or points without an image

    @property
    def found(self) -> int:
        return len(self.pairs)


def scan(folder: Path, name: str) -> Part:
    """List the complete pairs and the orphans of one part.

    Raises
    ------
    ReplicateError
        If one stem has two images: which of them the points belong to cannot be told.
    """
    images: dict[str, Path] = {}
    annotations: dict[str, Path] = {}
    for path in sorted((folder / name).glob("*")):
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
    return Part(name, PART_COUNTS[name], tuple((images[s], annotations[s]) for s in both), tuple(orphans))


def load(folder: Path, split: str) -> FaceSet:
    """Read one split; `$REPLICATE_DATA/300w` is the usual folder.

    Raises
    ------
    ReplicateError
        If a part of the split is absent or holds an orphan, or a file is damaged; the message names the part or the file.
    """
    check_one_of("split", split, SPLITS)
    parts = [scan(folder, name) for name in SPLITS[split]]
    for part in parts:
        if not part.pairs:
            raise ReplicateError(
                f"300-W {split}: no faces in {folder / part.name} (expected {part.expected} images with .pts). "
                "Set REPLICATE_DATA to the folder that holds 300w/, or see `replicate data check`."
            )
        if part.orphans:
            raise ReplicateError(
                f"300-W {split}: {part.orphans[0]} lacks its partner ({len(part.orphans)} such in {part.name}); "
                "restore the missing file or remove this one"
            )
    pairs = [pair for part in parts for pair in part.pairs]
    images = read_images([image for image, _ in pairs], read_image)
    points = np.stack([read_pts(path) for _, path in pairs])
    for (image_path, _), image, shape in zip(pairs, images, points, strict=True):
        _check_points_belong(image_path, image, shape)
    names = tuple(path.relative_to(folder).with_suffix("").as_posix() for path, _ in pairs)
    return FaceSet(
        images=images,
        points=points,
        visible=np.ones(points.shape[:2], bool),  # 300-W has no visibility
        boxes=simulated_detector_boxes(points, names),
        names=names,
        markup="ibug68",
        protocol="300w",
        split=split,
        faces="real",
        box_rule=BOX_RULE,
    )


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
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ReplicateError(f"{path}: cannot be read as text ({error})") from error
    opened = [number for number, line in enumerate(lines) if line.strip() == "{"]
    closed = [number for number, line in enumerate(lines) if line.strip() == "}"]
    if len(opened) != 1 or len(closed) != 1 or closed[0] < opened[0]:
        raise ReplicateError(f"{path}: expected the points between one line '{{' and one line '}}'")
    rows = [
        (n + 1, line.split()) for n, line in enumerate(lines) if opened[0] < n < closed[0] and line.strip()
    ]
    points = [_parse_point(path, number, fields) for number, fields in rows]
    if len(points) != POINTS:
        raise ReplicateError(f"{path}: {len(points)} points, expected {POINTS}")
    return np.array(points, np.float32) - 1


def _parse_point(path: Path, number: int, fields: list[str]) -> tuple[float, float]:
    try:
        x, y = (float(field) for field in fields)
    except ValueError:
        raise ReplicateError(
            f"{path}, line {number}: got {' '.join(fields)!r}, expected two numbers x y"
        ) from None
    if not np.isfinite([x, y]).all():
        raise ReplicateError(f"{path}, line {number}: got {' '.join(fields)!r}, expected finite numbers")
    return x, y


def _check_points_belong(path: Path, image: np.ndarray, points: np.ndarray) -> None:
    """Annotators place hidden points a little outside the frame; half a face outside means another image's points."""
    slack = np.ptp(points, axis=0).mean() / 2
    size = np.array([image.shape[1], image.shape[0]])
    if slack == 0 or (points < -slack).any() or (points > size - 1 + slack).any():
        low, high = points.min(0), points.max(0)
        raise ReplicateError(
            f"{path}: the points span x {low[0]:.0f} to {high[0]:.0f} and y {low[1]:.0f} to {high[1]:.0f}, "
            f"expected them within the {size[0]}x{size[1]} image; the .pts file may belong to another image"
        )
