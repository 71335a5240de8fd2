"""What ``replicate data`` tells and makes: which real faces are there, what a split holds, synthetic faces as files."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from replicate.errors import ReplicateError
from replicate.faces import synthetic, w300
from replicate.faces.protocols import SPLITS, FaceSource
from replicate.files import atomic_write
from replicate.paths import data_dir


def check() -> list[dict]:
    """One row per part of each real data set: how many faces are expected and found, and what is wrong."""
    folder = data_dir() / w300.FOLDER
    rows = []
    for name in w300.PART_COUNTS:
        part = w300.scan(folder, name)
        if part.orphans:
            state = f"{part.orphans[0].name} lacks its partner" + (
                f" (and {len(part.orphans) - 1} more)" if part.orphans[1:] else ""
            )
        else:
            state = (
                "complete" if part.found >= part.expected else "absent" if not part.found else "incomplete"
            )
        rows.append(
            {
                "data set": w300.FOLDER,
                "part": name,
                "expected": part.expected,
                "found": part.found,
                "state": state,
            }
        )
    return rows


def describe(protocol: str, faces: str, profile: str) -> list[dict]:
    """One row per split: faces, image sizes, face sizes, visible points and the box rule; splits that are absent say so."""
    return [_describe_split(FaceSource(protocol, split, faces, profile)) for split in SPLITS[protocol]]


def _describe_split(source: FaceSource) -> dict:
    row = {"split": source.split, "faces": source.faces}
    try:
        loaded = source.load()
    except ReplicateError as error:
        nothing = dict.fromkeys(("points", "image size", "face size", "visible", "box rule"))
        return row | {"images": 0, **nothing, "state": str(error)}
    sides = np.array([image.shape[:2] for image in loaded.images])
    extent = np.nanmax(loaded.points, 1) - np.nanmin(loaded.points, 1)
    return row | {
        "images": len(loaded),
        "points": loaded.points.shape[1],
        "image size": f"{sides[:, 1].min()}-{sides[:, 1].max()} x {sides[:, 0].min()}-{sides[:, 0].max()}",
        "face size": round(float(extent.mean()), 1),
        "visible": round(float(loaded.visible.mean()), 3),
        "box rule": loaded.box_rule,
        "state": "read",
    }


def prepare(profile: str) -> list[dict]:
    """Make the synthetic faces of every split that a profile uses, so that later runs find them in the cache."""
    sources = [
        FaceSource(protocol, split, "synthetic", profile)
        for protocol, splits in SPLITS.items()
        for split in splits
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
