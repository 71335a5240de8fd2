"""Faces of known people with the splits that compare them (TCNN §5.2): generated ones in the place of Janus CS2, or the photographs of LFW.

LFW's photographs have been turned and scaled alike ("deep funneling"), which is the work of an alignment. So each is turned again, and its box is
moved, both by its name alone: every method meets the same pictures.
"""

import hashlib
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from replicate import paths
from replicate.errors import AbsentError
from replicate.faces import real
from replicate.faces.boxes import SQUARE
from replicate.faces.faceset import FaceSet
from replicate.faces.images import to_rgb
from replicate.faces.real import lfw
from replicate.faces.sources import FaceSource
from replicate.faces.verification import VerificationSplit, synthetic_templates
from replicate.files import sha256
from replicate.geometry import box_centre, perturb_boxes
from replicate.vocabulary import FACES, PROFILES, check_one_of

TURN = 10.0  # degrees, standard deviation of the turn of an LFW photograph; our choice: about the roll of MTFL's faces
# Sides of the square box of five points (`boxes.SQUARE`) within the square of the Viola-Jones detector, in fractions of the latter: from the
# place of 68 points in it (`detection.LANDMARKS_IN_SQUARE`) and the median place of such boxes in those of the 68 points of 300-W's training faces.
FIVE_IN_SQUARE = np.array([0.07, 0.16, 0.93, 1.02])
SMOKE_PAIRS = 6  # same and as many different pairs of each fold of LFW at `smoke`


@dataclass(frozen=True, eq=False)
class People:
    """Faces of known people.

    Attributes
    ----------
    faces : FaceSet
        N faces with `identity`; boxes are those that methods for five points start from.
    splits : tuple of VerificationSplit
        Numbers of their faces are those of `faces`.
    fingerprint : str
        What determines all of it.
    """

    faces: FaceSet
    splits: tuple[VerificationSplit, ...]
    fingerprint: str


def people(faces: str, profile: str) -> People:
    """The people that are told apart.

    Parameters
    ----------
    faces : str
        `synthetic`: those of Janus; `real`: those of LFW.
    profile : str
        See `replicate.vocabulary`; real ones are fewer at `smoke` alone.

    Raises
    ------
    ReplicateError
        If LFW is absent or damaged.
    """
    check_one_of("faces", faces, FACES)
    check_one_of("profile", profile, PROFILES)
    return _of_janus(profile) if faces == "synthetic" else _of_lfw(profile)


def _of_janus(profile: str) -> People:
    source = FaceSource("janus", "five", "synthetic", profile)
    found = source.load()
    return People(found, synthetic_templates(found.identity, seed=0), source.fingerprint)


def _of_lfw(profile: str) -> People:
    data_set = real.DATA_SETS["lfw"]
    folder = paths.data_dir() / data_set.folder
    if not folder.is_dir():
        raise AbsentError(
            f"real faces: {folder} is not there. Set REPLICATE_DATA to the folder that holds {data_set.folder}/ (`replicate data check` "
            "says where to obtain it), or use synthetic faces (--faces synthetic)."
        )
    annotations, splits = data_set.read(folder, "all"), lfw.verification(folder)
    kept = np.arange(len(annotations))
    if profile == "smoke":
        splits, kept = _few(splits)
    names = tuple(annotations.names[index] for index in kept)
    boxes, count = five_point_boxes(annotations.boxes[kept]), len(kept)
    centres = box_centre(torch.as_tensor(boxes)).numpy()
    turned = [
        _turned(to_rgb(annotations.pixels(index)), centre, name)
        for index, centre, name in zip(kept, centres, names, strict=True)
    ]
    found = FaceSet(
        images=turned,
        points=np.full((count, 5, 2), np.nan, np.float32),
        visible=np.zeros((count, 5), bool),
        boxes=_moved(boxes, names),
        names=names,
        markup="mtfl5",
        protocol="lfw",
        split="all",
        faces="real",
        box_rule=f"the detector's, reshaped to those of five points; photographs turned by a normal angle of {TURN:g}°, boxes moved by a normal "
        f"error of {100 * SQUARE.shift_sd:g} % of their sides and scaled by a log-normal one of {100 * SQUARE.log_scale_sd:g} %, fixed per image name",
        attributes={"fold": annotations.attributes["fold"][kept]},
        identity=annotations.identity[kept],
    )
    pairs = [np.concatenate([split.pairs.ravel(), split.train]) for split in splits]
    return People(found, splits, sha256(found.sha256, *pairs))


def five_point_boxes(squares: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) as they lie about five points, from squares (N, 4) of the Viola-Jones detector; see `FIVE_IN_SQUARE`."""
    corner, side = squares[:, [0, 1, 0, 1]], squares[:, [2, 3, 2, 3]] - squares[:, [0, 1, 0, 1]]
    return (corner + side * FIVE_IN_SQUARE).astype(np.float32)


def _few(splits: tuple[VerificationSplit, ...]) -> tuple[tuple[VerificationSplit, ...], np.ndarray]:
    """The first pairs of each split with the faces that they show, renumbered, and which faces these are."""
    chosen = [
        np.concatenate([np.flatnonzero(split.same == same)[:SMOKE_PAIRS] for same in (True, False)])
        for split in splits
    ]
    shown = [
        np.concatenate([split.templates[one] for one in split.pairs[which].ravel()])
        for split, which in zip(splits, chosen, strict=True)
    ]
    kept = np.unique(np.concatenate(shown))
    few = []
    for split, which in zip(splits, chosen, strict=True):
        numbers, pairs = np.unique(split.pairs[which], return_inverse=True)
        templates = tuple(np.searchsorted(kept, split.templates[number]) for number in numbers)
        train = np.flatnonzero(np.isin(kept, split.train))
        few.append(
            replace(
                split, train=train, templates=templates, pairs=pairs.reshape(-1, 2), same=split.same[which]
            )
        )
    return tuple(few), kept


def _normal(name: str) -> np.ndarray:
    """Four standard normal numbers that the name determines."""
    seed = int.from_bytes(hashlib.sha256(f"turned {name}".encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(4)


def _turned(image: np.ndarray, centre: np.ndarray, name: str) -> np.ndarray:
    """An image (H, W, 3) turned about a point (x, y); what comes into view at the corners repeats the border."""
    angle = np.radians(TURN * _normal(name)[0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    transform = np.column_stack([turn, centre - turn @ centre])
    return cv2.warpAffine(image, transform, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def _moved(boxes: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Boxes (N, 4) with the error that `boxes.SQUARE` gives to those of other faces."""
    error = np.stack([_normal(name) for name in names])
    shift, log_scale = SQUARE.shift_sd * error[:, 1:3], SQUARE.log_scale_sd * error[:, 3]
    moved = perturb_boxes(torch.as_tensor(boxes).double(), torch.as_tensor(shift), torch.as_tensor(log_scale))
    return moved.numpy().astype(np.float32)
