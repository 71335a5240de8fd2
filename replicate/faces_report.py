"""What ``replicate data`` tells and makes: which real faces are there, what a split holds, synthetic faces as files."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from replicate.errors import AbsentError, ReplicateError
from replicate.evidence import data_card
from replicate.faces import real, synthetic
from replicate.faces.protocols import PROTOCOLS, get, markup_of
from replicate.faces.real import DataSet, Part
from replicate.faces.sources import FaceSource
from replicate.files import atomic_write
from replicate.paths import data_dir

SAMPLE = 4  # generated faces of each part whose sizes and visibility a description looks at: all protocols in seconds
DRAWN = 200  # and those whose pose it looks at


def check() -> list[dict]:
    """One row per part of each real data set: how many faces are expected and found, what is wrong, where it is obtained on what terms."""
    return [
        {
            "data set": name,
            "part": part.name,
            "expected": part.expected,
            "found": part.found,
            "state": part.state,
            "folder": str(data_dir() / data_set.folder),
            "title": data_set.title,
            "url": data_set.url,
            "terms": data_set.terms,
            "cite": data_set.cite,
        }
        for name, data_set in real.DATA_SETS.items()
        for part in _parts(data_set, data_dir() / data_set.folder)
    ]


def _parts(data_set: DataSet, folder: Path) -> list[Part]:
    """What is there, and what reading the annotations of each split says beyond that."""
    parts = data_set.check(folder)
    if not any(part.found for part in parts) or any(part.state.startswith("damaged") for part in parts):
        return parts
    for split, expected in data_set.splits.items():
        try:
            data_set.read(folder, split)
        except AbsentError:
            continue
        except ReplicateError as error:
            parts.append(Part(f"{split}, read", expected, 0, f"damaged: {error}"))
    return parts


def describe(protocol: str | None, faces: str, profile: str, sample: int = SAMPLE) -> list[dict]:
    """One row per split of a protocol, or of all: what its faces are like; splits that are absent say so.

    Parameters
    ----------
    protocol : str or None
        None describes all protocols.
    faces, profile : str
        See `replicate.vocabulary`.
    sample : int
        Generated faces of each part that sizes, visibility and pose are taken of; real faces are read whole.
    """
    names = PROTOCOLS if protocol is None else [protocol]
    sources = [FaceSource(name, split, faces, profile) for name in names for split in PROTOCOLS[name].splits]
    return [_describe_split(source, sample) for source in sources]


def _describe_split(source: FaceSource, sample: int) -> dict:
    protocol, split = get(source.protocol, source.split)
    row = {
        "protocol": source.protocol,
        "split": source.split,
        "faces": source.faces,
        "images": 0,
        "official": data_card.official(source.protocol, source.split),
        "looked at": 0,
        "markup": markup_of(source.protocol, source.split),
        "normalisers": list(split.normalisers or protocol.normalisers),
    }
    try:
        looked = data_card.look(source, sample, DRAWN)
    except ReplicateError as error:
        return row | dict.fromkeys((*data_card.SUMMARY, "box rule")) | {"state": str(error)}
    told = {"images": source.count, "looked at": len(looked.faces)} | data_card.summary(looked)
    state = "made" if source.faces == "synthetic" else "read"
    return row | told | {"box rule": looked.faces.box_rule, "state": state}


def prepare(profile: str) -> list[dict]:
    """Make the synthetic faces of every split that a profile uses, so that later runs find them in the cache."""
    sources = [
        FaceSource(p, s, "synthetic", profile) for p, protocol in PROTOCOLS.items() for s in protocol.splits
    ]
    return [
        {"protocol": s.protocol, "split": s.split, "images": len(s.load()), "sha256": s.fingerprint}
        for s in sources
    ]


def export(folder: Path, count: int, condition: str, seed: int) -> list[dict]:
    """Write synthetic faces as PNG images with ``.pts`` files, in the layout of 300-W (1-based points)."""
    made = synthetic.generate_many(seed, range(count), condition)
    for number, (image, points) in enumerate(zip(made.images, made.points, strict=True)):
        stem = folder / f"{condition}_{seed}_{number:05d}"
        with atomic_write(stem.with_suffix(".png")) as temporary:
            if not cv2.imwrite(str(temporary), image[..., ::-1]):
                raise ReplicateError(f"cannot write {stem}.png; check the free space of {folder}.")
        with atomic_write(stem.with_suffix(".pts")) as temporary:
            temporary.write_text(pts_text(points), encoding="ascii")
    return [{"folder": str(folder), "images": count, "condition": condition, "seed": seed}]


def pts_text(points: Sequence) -> str:
    """Landmarks (L, 2), 0-based, as a ``.pts`` file, 1-based."""
    lines = [f"{x + 1:.3f} {y + 1:.3f}" for x, y in np.asarray(points, float)]
    return "\n".join(["version: 1", f"n_points: {len(lines)}", "{", *lines, "}", ""])
