"""Janus CS2: `split1/` to `split10/` with `train_k.csv`, `verify_metadata_k.csv` and `verify_comparisons_k.csv`, and `images/{img,frame}/`.

The verification protocol of TCNN §5.2: 500 people in 5,712 images and 2,042 videos (20,412 frames); in each split 333 people are for
training, and templates of the others are compared in pairs. The tables have the columns of IJB-A (:mod:`.ijba`), whose faces these
are; `verify_comparisons_k.csv` has two template identifiers on each line, without a header. The layout is that of the released
IJB-A verification sets; CS2 itself was given to participants only.
"""

from functools import cache
from pathlib import Path

import numpy as np

from replicate.errors import ReplicateError
from replicate.faces.real.ijba import (
    Sighting,
    all_tables,
    annotations,
    read_metadata,
    tables,
    unique_sightings,
)
from replicate.faces.real.reading import Annotations, DataSet, Part, refuse_surplus, require
from replicate.faces.real.tables import is_present, read_csv, whole_number
from replicate.faces.verification import VerificationSplit, from_comparisons
from replicate.vocabulary import check_one_of

IMAGES, FRAMES, PEOPLE, TRAINING_PEOPLE = 5712, 20412, 500, 333  # TCNN §5.2
SPLITS = {"all": IMAGES + FRAMES}


def read(folder: Path, split: str) -> Annotations:
    """Read all faces of the ten splits: published boxes, three points (NaN where blank) and people.

    Raises
    ------
    ReplicateError
        If a table or an image is missing or a table is damaged, the message names the file and the line; or if there are more images or
        frames than in the release.
    """
    check_one_of("split", split, SPLITS)
    files = all_tables(folder, "Janus CS2")
    sightings = unique_sightings(files)
    for still, expected, what in ((True, IMAGES, "images"), (False, FRAMES, "frames")):
        refuse_surplus(folder, len({each.file for each in sightings if each.still == still}), expected, what)
    return annotations(folder, sightings, files)


def verification(folder: Path) -> tuple[VerificationSplit, ...]:
    """The ten splits, as indices into the faces that `read` returns.

    Raises
    ------
    ReplicateError
        If a table is missing or damaged, a comparison names an unknown template, or a person is in training and in test.
    """
    sightings = unique_sightings(all_tables(folder, "Janus CS2"))
    place = {each.key: number for number, each in enumerate(sightings)}
    identity = np.array([each.subject for each in sightings])
    return tuple(_split(folder / f"split{k}", str(k), place, identity) for k in range(1, 11))


def _split(
    folder: Path, k: str, place: dict[tuple[str, int], int], identity: np.ndarray
) -> VerificationSplit:
    train = read_metadata(folder / f"train_{k}.csv")
    test = [
        (template, place[each.key])
        for template, each in read_metadata(folder / f"verify_metadata_{k}.csv")
        if each.key in place  # without a box it is no face that can be shown to a network
    ]
    return from_comparisons(
        k,
        np.unique([place[each.key] for _, each in train if each.key in place]).astype(np.int64),
        np.array(test, np.int64).reshape(-1, 2),
        read_comparisons(folder / f"verify_comparisons_{k}.csv"),
        identity,
    )


def read_comparisons(path: Path) -> np.ndarray:
    """Read pairs of templates (P, 2).

    Raises
    ------
    ReplicateError
        Naming file and line, unless each line has two identifiers.
    """
    pairs = []
    for line, fields in read_csv(require(path, "Janus CS2")):
        if len(fields) != 2:
            raise ReplicateError(
                f"{path}, line {line}: {len(fields)} fields, expected two template identifiers"
            )
        pairs.append([whole_number(path, line, field, "template") for field in fields])
    return np.array(pairs, np.int64).reshape(-1, 2)


def check(folder: Path) -> list[Part]:
    """What this machine has of the images, the frames of videos, the people, and the training people of its smallest split."""

    @cache
    def present() -> list[Sighting]:
        faces = unique_sightings(tables(folder))
        return [each for each in faces if is_present(folder / "images", each.file, each.table, each.line)]

    def training() -> int:
        trains = [path for path in tables(folder) if path.name.startswith("train_")]
        return min((len({each.subject for _, each in read_metadata(path)}) for path in trains), default=0)

    return [
        Part.counted("images", IMAGES, lambda: len({each.file for each in present() if each.still})),
        Part.counted("frames", FRAMES, lambda: len({each.file for each in present() if not each.still})),
        Part.counted("people", PEOPLE, lambda: len({each.subject for each in present()})),
        Part.counted("training people of a split", TRAINING_PEOPLE, training),
    ]


DATA_SET = DataSet(
    name="janus",
    folder="janus",
    title="Janus CS2: face verification between templates of 500 people, ten splits",
    url="https://www.nist.gov/programs-projects/face-challenges",
    terms="on request from NIST, for research; CS2 was given to participants of the Janus programme, IJB-A has its images",
    cite="Klare et al., Pushing the Frontiers of Unconstrained Face Detection and Recognition: IARPA Janus Benchmark A, CVPR 2015",
    splits=SPLITS,
    check=check,
    read=read,
)
