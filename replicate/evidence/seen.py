"""Whether faces of a test have been seen in training: by what they are made of, by name and pixels, and by looks."""

from collections.abc import Mapping

import cv2
import numpy as np
import pandas as pd
import torch

from replicate.evidence.captions import caption
from replicate.evidence.experiment import Experiment
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table, number
from replicate.faces import protocols
from replicate.faces.faceset import FaceSet
from replicate.faces.images import to_grey
from replicate.faces.markups import convert
from replicate.faces.sources import FaceSource
from replicate.files import sha256
from replicate.geometry import fit_similarity

SIDE = 32  # pixels of a thumbnail
ALIKE = 0.975  # correlation of two thumbnails: copies of a photograph are above, others below
SEEN, LOOKALIKES = "faces of the training set", "faces that look like one of the training set"
_PLACES = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.34, 0.76], [0.66, 0.76]]) * (SIDE - 1)


def identities(source: FaceSource) -> list[set[str]]:
    """What each face can be recognised by: generated ones by their condition and number, photographs by name and by pixels."""
    if source.faces == "real":
        faces = source.load()
        return [
            {name, sha256(np.asarray(image))} for name, image in zip(faces.names, faces.images, strict=True)
        ]
    made = []
    for leaf in source.leaves:  # splits of one condition take their faces from one row, each its own part
        split = protocols.get(leaf.protocol, leaf.split)[1]
        made += [{f"{split.condition}/{split.first + number}"} for number in range(leaf.count)]
    return made


def shared(source: FaceSource, train: FaceSource) -> int:
    """How many faces of a source are among the training faces."""
    known = set().union(*identities(train))
    return sum(bool(one & known) for one in identities(source))


def likeness(faces: FaceSet, others: FaceSet) -> np.ndarray:
    """The highest correlation of each face with any of the others, (N,): of grey thumbnails that are laid on each other by five points."""
    return _highest(faces, _thumbnails(others))


def seen_rows(
    run: Experiment, artefact: str, tests: Mapping[str, FaceSource], trainings: Mapping[str, FaceSource]
) -> list[Row]:
    """How many faces of each test set are among the training faces of each method, and how many photographs look like one of them.

    Parameters
    ----------
    tests, trainings : dict of str to FaceSource
        By the set's name and by method.
    """
    rows = []
    for method, train in trainings.items():
        known = _thumbnails(train.load()) if run.faces == "real" else None
        for name, source in tests.items():
            found = {SEEN: shared(source, train)}
            if known is not None:
                found[LOOKALIKES] = int((_highest(source.load(), known) > ALIKE).sum())
            rows += [
                Row(**row.to_dict() | {"protocol": "300w", "subset": name, "images": source.count})
                for row in run.count_rows(artefact, method, found)
            ]
    return rows


def seen_table(rows: list[Row], title: str) -> Table:
    """Rows of `seen_rows`: a line for each test set, a column for each method and way to recognise a face."""
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        line = lines.setdefault(row.subset, {"faces": number(row.images, "count")})
        line[f"{row.method}: {row.metric}"] = number(row.value, "count")
    table = pd.DataFrame.from_dict(lines, orient="index").rename_axis("test set").reset_index()
    return Table(table, caption(rows, title))


def _highest(faces: FaceSet, known: np.ndarray) -> np.ndarray:
    return (_thumbnails(faces) @ known.T).max(1)


def _thumbnails(faces: FaceSet) -> np.ndarray:
    """(N, SIDE * SIDE) float32, each of mean 0 and norm 1: the face in its place, without what is finer than the thumbnail."""
    five = faces.points if faces.markup == "mtfl5" else convert(faces.points, faces.markup, "mtfl5")
    target = torch.as_tensor(_PLACES).expand(len(five), -1, -1)
    moves = fit_similarity(torch.as_tensor(five, dtype=torch.double), target).numpy()
    made = np.empty((len(five), SIDE * SIDE), np.float32)
    for index, (image, move) in enumerate(zip(faces.images, moves, strict=True)):
        grey, scale = to_grey(np.asarray(image)).astype(np.float32), np.hypot(*move[:, 0])
        if scale < 1:
            grey = cv2.GaussianBlur(grey, (0, 0), 0.5 * np.sqrt(scale**-2 - 1) + 1e-6)
        pixels = cv2.warpAffine(grey, move, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE).ravel()
        pixels -= pixels.mean()
        made[index] = pixels / max(np.linalg.norm(pixels), 1e-6)
    return made
