"""Protocols: what a benchmark fixes (markup, splits, counts, boxes), with synthetic or real faces behind it.

A `FaceSource` names a set of faces without making or reading it, so that a model or a stored prediction can be looked up by the
fingerprint of its faces at no cost.
"""

import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from replicate import paths
from replicate.errors import ReplicateError
from replicate.faces import synthetic, w300
from replicate.faces.boxes import BOX_RULE, simulated_detector_boxes
from replicate.faces.faceset import FaceSet, concatenate
from replicate.files import lock, sha256
from replicate.progress import progress_bar
from replicate.vocabulary import FACES, PROFILES, check_one_of

DATA_SEED = 300  # of the synthetic faces; training seeds do not touch it

SPLITS = {"300w": tuple(w300.SPLITS)}
UNIONS = {("300w", "full"): ("common", "challenging")}
SYNTHETIC_COUNTS = {  # `cpu` and `gpu` have the official counts
    "300w": {"train": 3148, "common": 554, "challenging": 135, "private": 600},
}
SMOKE_COUNTS = {
    "300w": {"train": 64, "common": 24, "challenging": 12, "private": 24},
}


@dataclass(frozen=True)
class FaceSource:
    """One split of a protocol, not yet loaded.

    Attributes
    ----------
    protocol, split : str
        For example `300w`, `common`.
    faces : str
        `synthetic` or `real`.
    profile : str
        Decides how many synthetic faces there are; real sets are always whole.
    """

    protocol: str
    split: str
    faces: str
    profile: str

    def __post_init__(self) -> None:
        check_one_of("protocol", self.protocol, SPLITS)
        check_one_of("split", self.split, SPLITS[self.protocol])
        check_one_of("faces", self.faces, FACES)
        check_one_of("profile", self.profile, PROFILES)

    @property
    def parts(self) -> tuple["FaceSource", ...]:
        """The disjoint splits that make this one up (itself, if it is no union)."""
        names = UNIONS.get((self.protocol, self.split), (self.split,))
        return tuple(FaceSource(self.protocol, name, self.faces, self.profile) for name in names)

    @property
    def count(self) -> int:
        """Number of faces; real ones are read to be counted."""
        if self.faces == "real":
            return len(self.load())
        counts = SMOKE_COUNTS if self.profile == "smoke" else SYNTHETIC_COUNTS
        return sum(counts[self.protocol][part.split] for part in self.parts)

    @property
    def available(self) -> bool:
        """Whether this machine has, or can make, these faces."""
        folder = paths.data_dir() / w300.FOLDER
        return self.faces == "synthetic" or all(
            w300.scan(folder, name).pairs for name in w300.SPLITS[self.split]
        )

    @cached_property
    def fingerprint(self) -> str:
        """What determines the faces: the recipe of synthetic ones, the content of real ones."""
        if self.faces == "real":
            return self.load().sha256
        recipe = (
            f"{synthetic.GENERATOR_VERSION} {DATA_SEED} {self.protocol} {self.split} {self.count} {BOX_RULE}"
        )
        return sha256(recipe)

    def load(self) -> FaceSet:
        """The faces; made or read once a process and source.

        Raises
        ------
        ReplicateError
            If real faces are absent or damaged, or the cache cannot be written.
        """
        if self not in _loaded:
            _loaded[self] = _read_real(self) if self.faces == "real" else _load_synthetic(self)
        return _loaded[self]


_loaded: dict[FaceSource, FaceSet] = {}


def _read_real(source: FaceSource) -> FaceSet:
    folder = paths.data_dir() / w300.FOLDER
    if not folder.is_dir():
        raise ReplicateError(
            f"real faces: {folder} is not there. Set REPLICATE_DATA to the folder that holds {w300.FOLDER}/, "
            "or use synthetic faces (--faces synthetic)."
        )
    return w300.load(folder, source.split)


def _load_synthetic(source: FaceSource) -> FaceSet:
    if len(source.parts) > 1:
        return concatenate([part.load() for part in source.parts], source.split)
    folder = paths.cache() / "faces" / f"{source.protocol}-{source.split}-{source.fingerprint[:12]}"
    if not folder.exists():
        _make(folder, source)
    with np.load(folder / "labels.npz", allow_pickle=False) as stored:
        labels = dict(stored)
    names = tuple(f"{source.protocol}/{source.split}/{number:05d}" for number in range(source.count))
    points = labels.pop("points")
    return FaceSet(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        points=points,
        visible=labels.pop("visible"),
        boxes=simulated_detector_boxes(points, names),
        names=names,
        markup="ibug68",
        protocol=source.protocol,
        split=source.split,
        faces="synthetic",
        box_rule=BOX_RULE,
        attributes=labels,
    )


def _make(folder: Path, source: FaceSource) -> None:
    """Generate a split once, for all processes: under a lock, into a temporary folder that is renamed when whole."""
    with lock(folder.with_suffix(".lock")):
        if folder.exists():  # another process made it while this one waited
            return
        for left in folder.parent.glob(
            f".{folder.name}.*"
        ):  # by a process that was killed; nobody else holds the lock
            shutil.rmtree(left, ignore_errors=True)
        with progress_bar() as progress:
            bar = progress.add_task(f"faces, {source.protocol} {source.split}", total=source.count, remark="")
            made = partial(progress.advance, bar)
            batch = synthetic.generate_many(DATA_SEED, range(source.count), source.split, progress=made)
        try:
            with tempfile.TemporaryDirectory(
                prefix=f".{folder.name}.", dir=folder.parent, ignore_cleanup_errors=True
            ) as temporary:
                made = Path(temporary) / "faces"
                made.mkdir()
                np.save(made / "images.npy", batch.images)
                np.savez(made / "labels.npz", points=batch.points, visible=batch.visible, **batch.attributes)
                made.rename(folder)
        except OSError as error:
            raise ReplicateError(
                f"cannot write {folder}: {error}. Free space or set REPLICATE_CACHE to another disk."
            ) from error
