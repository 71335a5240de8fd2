"""LFW in folders of people, with identity-disjoint folds (stands in for Janus in TCNN Table 2).

`Name/Name_0001.jpg`, 160x160 pixels, the middle of the deep-funneled 250x250; `manifest.csv` (`file, identity, fold`, further
columns are passed over) and `pairs_pack.csv` (`fold, same, a, b`; `same` is 1 or 0). No person is in two folds. There are no
landmarks: `points` has the shape (N, 0, 2). LFW's photographs are detections of the Viola-Jones detector grown by 2.2 in each
direction (Huang et al. 2007, §IV), so the box of a face is the middle 1/2.2 of the 250 pixels.
"""

from pathlib import Path

import numpy as np

from replicate.errors import ReplicateError
from replicate.faces.images import read_image
from replicate.faces.real.reading import (
    Annotations,
    DataSet,
    Part,
    listed_file,
    refuse_duplicates,
    refuse_surplus,
    require,
)
from replicate.faces.real.tables import is_present, read_table, whole_number
from replicate.faces.verification import VerificationSplit, from_folds
from replicate.vocabulary import check_one_of

IMAGES, PAIRS, FOLDS = 4633, 6000, 10
SIDE = 160  # pixels
DETECTION = 250 / 2.2  # pixels, side of the detector's box (Huang et al. 2007)
SPLITS = {"all": IMAGES}


def read(folder: Path, split: str) -> Annotations:
    """Read all images, in the order of the manifest: box, `fold` from 0 to 9, and the person.

    People are numbered in the order of their names.

    Raises
    ------
    ReplicateError
        If the manifest is damaged, names an image twice or one that is missing, or puts a person into two folds.
    """
    check_one_of("split", split, SPLITS)
    manifest = require(folder / "manifest.csv", "LFW")
    rows = _manifest(manifest)
    refuse_surplus(manifest, len(rows), IMAGES)
    paths = [listed_file(folder, file, manifest, line) for line, file, _, _ in rows]
    people = [person for _, _, person, _ in rows]
    middle = [(SIDE - 1) / 2 - DETECTION / 2] * 2 + [(SIDE - 1) / 2 + DETECTION / 2] * 2
    return Annotations(
        names=tuple(file for _, file, _, _ in rows),
        pixels=lambda index: _read_square(paths[index]),
        points=np.empty((len(rows), 0, 2), np.float32),
        visible=np.empty((len(rows), 0), bool),
        boxes=np.tile(np.array(middle, np.float32), (len(rows), 1)),
        attributes={"fold": np.array([fold for *_, fold in rows], np.int64)},
        identity=np.unique(people, return_inverse=True)[1].astype(np.int64),
        files=(manifest, *paths),
    )


def verification(folder: Path) -> tuple[VerificationSplit, ...]:
    """Ten splits of the faces that `read` returns: each fold is tested by its pairs, and trained on all others.

    Raises
    ------
    ReplicateError
        If a file is damaged, or a pair names an image that the manifest lacks, lies in another fold or says `same` of two people.
    """
    manifest = _manifest(require(folder / "manifest.csv", "LFW"))
    place = {file: number for number, (_, file, _, _) in enumerate(manifest)}
    path = require(folder / "pairs_pack.csv", "LFW")
    pairs, same, folds = [], [], []
    for line, (fold, is_same, *files) in read_table(path, ("fold", "same", "a", "b")):
        where = f"{path}, line {line}"
        unknown = [file for file in files if file not in place]
        if unknown:
            raise ReplicateError(f"{where}: {unknown[0][:120]!r} is not in manifest.csv; restore both files")
        same.append(whole_number(path, line, is_same, "same", most=1) == 1)
        folds.append(whole_number(path, line, fold, "fold", most=FOLDS - 1))
        pairs.append([place[file] for file in files])
        (_, _, a, fold_a), (_, _, b, fold_b) = (manifest[face] for face in pairs[-1])
        if (a == b) != same[-1] or {fold_a, fold_b} != {folds[-1]}:
            raise ReplicateError(
                f"{where}: got fold {fold} and same {is_same}, but the manifest has {a!r} in fold {fold_a} and {b!r} in fold {fold_b}"
            )
    fold_of_face = np.array([fold for *_, fold in manifest])
    return from_folds(fold_of_face, np.array(pairs).reshape(-1, 2), np.array(same), np.array(folds))


def _manifest(path: Path) -> list[tuple[int, str, str, int]]:
    """(line, file, person, fold) of each image."""
    rows, fold_of = [], {}
    for line, (file, person, fold) in read_table(path, ("file", "identity", "fold")):
        rows.append((line, file, person, whole_number(path, line, fold, "fold", most=FOLDS - 1)))
        if not person or fold_of.setdefault(person, rows[-1][-1]) != rows[-1][-1]:
            raise ReplicateError(
                f"{path}, line {line}: person {person[:80]!r} must have a name and be in one fold only"
            )
    refuse_duplicates(path, [(line, file) for line, file, _, _ in rows])
    return rows


def _read_square(path: Path) -> np.ndarray:
    image = read_image(path)
    if image.shape[:2] != (SIDE, SIDE):
        raise ReplicateError(
            f"{path}: {image.shape[1]}x{image.shape[0]} pixels, expected {SIDE}x{SIDE}; the boxes are for that crop"
        )
    return image


def check(folder: Path) -> list[Part]:
    """What this machine has of the images and of the pairs."""

    def images() -> int:
        path = folder / "manifest.csv"
        rows = _manifest(path) if path.is_file() else []
        return sum(is_present(folder, file, path, line) for line, file, _, _ in rows)

    def pairs() -> int:
        present = (folder / "pairs_pack.csv").is_file()
        return sum(len(split.pairs) for split in verification(folder)) if present else 0

    return [Part.counted("images", IMAGES, images), Part.counted("pairs", PAIRS, pairs)]


DATA_SET = DataSet(
    name="lfw",
    folder="lfw",
    title="Labeled Faces in the Wild, deep-funneled: 423 people with five images or more, in ten folds of 300 same and 300 different pairs",
    url="http://vis-www.cs.umass.edu/lfw/",
    terms="research only; no licence to the photographs is granted by the distributor",
    cite="Huang et al., Labeled Faces in the Wild, University of Massachusetts, 07-49, 2007; "
    "Huang et al., Learning to Align from Scratch, NIPS 2012",
    splits=SPLITS,
    check=check,
    read=read,
)
