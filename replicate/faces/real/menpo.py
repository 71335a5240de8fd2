"""Menpo challenge 2017, semi-frontal faces: `menpo_train_release/` with `.pts` beside each image, and `menpo_test_release/` without (DAN §4).

The training folder also holds profile faces with 39 points; they are another markup and are left out, and counted. The points of the
test faces were never published: theirs are NaN. The release has no boxes. DAN's start in the middle of the test images (caption of
Fig. 5, which does not print their size): in the released code (github.com/MarekKowalski/DeepAlignmentNetwork, `MenpoEval.py`) they are
squares of 0.46 of the image's height, and so they are here. That code runs the network twice, the second time from where the first run
ended; that is for the method to do. The name of the test folder is not documented; put the semi-frontal test images there.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from replicate.errors import ReplicateError
from replicate.faces.images import read_images
from replicate.faces.real.reading import (
    Annotations,
    DataSet,
    Part,
    image_reader,
    image_size,
    read_lines,
    refuse_surplus,
)
from replicate.faces.real.w300 import IMAGE_ENDINGS, POINTS, read_pts, scan
from replicate.vocabulary import check_one_of

PROFILE_POINTS = 39
SPLITS = {"train": 6679, "test": 5335}  # DAN §4
FOLDERS = {"train": "menpo_train_release", "test": "menpo_test_release"}
BOX_SHARE = 0.46  # of the height of a test image; DAN's released code


def read(folder: Path, split: str) -> Annotations:
    """Read the semi-frontal faces of one split, in the order of names.

    Raises
    ------
    ReplicateError
        If the folder is empty or holds more faces than the release, a training face lacks its partner, or a file is damaged.
    """
    check_one_of("split", split, SPLITS)
    annotations = _read_train(folder) if split == "train" else _read_test(folder)
    refuse_surplus(folder / FOLDERS[split], len(annotations), SPLITS[split])
    return annotations


def _read_train(folder: Path) -> Annotations:
    pairs, _ = _training_pairs(folder)
    if not pairs:
        raise _nothing(folder, "train")
    points = np.stack([read_pts(path) for _, path in pairs])
    return Annotations(
        names=tuple(image.relative_to(folder).as_posix() for image, _ in pairs),
        pixels=image_reader([image for image, _ in pairs]),
        points=points,
        visible=np.ones(points.shape[:2], bool),  # Menpo has no visibility
        files=tuple(path for pair in pairs for path in pair),
    )


def _read_test(folder: Path) -> Annotations:
    images = _test_images(folder)
    if not images:
        raise _nothing(folder, "test")
    sizes = np.array(read_images(images, image_size))  # (N, 2) width and height
    centre, half = (sizes - 1) / 2, BOX_SHARE / 2 * sizes[:, 1:]
    return Annotations(
        names=tuple(image.relative_to(folder).as_posix() for image in images),
        pixels=image_reader(images),
        points=np.full((len(images), POINTS, 2), np.nan, np.float32),
        visible=np.zeros((len(images), POINTS), bool),
        boxes=np.concatenate([centre - half, centre + half], axis=1).astype(np.float32),
        files=tuple(images),
    )


def _training_pairs(folder: Path) -> tuple[list[tuple[Path, Path]], int]:
    """Images and points of the semi-frontal faces, and the number of profile faces beside them."""
    listing = scan(folder, FOLDERS["train"])
    if listing.orphans:
        raise ReplicateError(
            f"Menpo: {listing.orphans[0]} lacks its partner ({len(listing.orphans)} such); "
            "restore the missing file or remove this one"
        )
    frontal = [pair for pair in listing.pairs if not is_profile(pair[1])]
    return frontal, len(listing.pairs) - len(frontal)


def is_profile(path: Path) -> bool:
    """Whether a `.pts` file says in its head, before the opening brace, that it has the 39 points of a profile.

    Raises
    ------
    ReplicateError
        If the file cannot be read as text.
    """
    for line in read_lines(path):
        key, _, value = line.partition(":")
        if key.strip() == "n_points":
            return value.strip() == str(PROFILE_POINTS)
        if line.strip() == "{":
            break
    return False


def _test_images(folder: Path) -> list[Path]:
    found = (folder / FOLDERS["test"]).glob("[!.]*")
    return sorted(path for path in found if path.suffix.lower() in IMAGE_ENDINGS)


def _nothing(folder: Path, split: str) -> ReplicateError:
    return ReplicateError(
        f"Menpo: no semi-frontal faces in {folder / FOLDERS[split]} (expected {SPLITS[split]}). "
        "Set REPLICATE_DATA to the folder that holds menpo/, or see `replicate data check`."
    )


def check(folder: Path) -> list[Part]:
    """What this machine has of both splits; the state of the training faces says how many profile faces are left out."""
    profiles = []

    def train() -> int:
        pairs, profile = _training_pairs(folder)
        profiles.append(profile)
        return len(pairs)

    part = Part.counted("train", SPLITS["train"], train)
    if sum(profiles):
        part = replace(part, state=f"{part.state}, {sum(profiles)} profile faces left out")
    return [part, Part.counted("test", SPLITS["test"], lambda: len(_test_images(folder)))]


DATA_SET = DataSet(
    name="menpo",
    folder="menpo",
    title="Menpo facial landmark localisation challenge 2017, semi-frontal faces in the 68-point markup",
    url="https://ibug.doc.ic.ac.uk/resources/2nd-facial-landmark-tracking-competition-menpo-ben/",
    terms="on request, research only, no commercial use (iBUG, Imperial College London); the training photographs are from AFLW and FDDB",
    cite="Zafeiriou et al., The Menpo Facial Landmark Localisation Challenge: A Step Towards the Solution, CVPR Workshops 2017",
    splits=SPLITS,
    check=check,
    read=read,
)
