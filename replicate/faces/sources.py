"""Where the faces of a protocol come from: made by the generator, or read from a data set's official files; kept in the face store.

A `FaceSource` names a set of faces without making or reading it, so that a model or a stored prediction can be looked up by the
fingerprint of its faces at no cost.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from replicate import paths
from replicate.errors import AbsentError, ReplicateError
from replicate.faces import face_store, protocols, real, synthetic
from replicate.faces.face_store import Chunk
from replicate.faces.faceset import FaceSet, concatenate
from replicate.faces.markups import convert, convert_visibility, markup
from replicate.faces.protocols import IN_A_ROW, Split, person_of
from replicate.faces.real.reading import Annotations, DataSet, check_points_belong
from replicate.files import sha256
from replicate.progress import progress_bar
from replicate.vocabulary import FACES, PROFILES, check_one_of

DATA_SEED = 300  # of the synthetic faces; training seeds do not touch it
MARGIN = 1.0  # of a photograph, what is kept on each side of the face, in sides of its box
LARGEST_FACE = 320  # pixels; larger faces are kept at this size
_LAYOUT = 2  # of a stored synthetic split: raise when other labels are stored with the same faces
_CHUNK = 64  # photographs decoded before they are written
_READING = 2  # raised when an adapter or the cut changes, so that kept faces are read again


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
        protocols.get(self.protocol, self.split)
        check_one_of("faces", self.faces, FACES)
        check_one_of("profile", self.profile, PROFILES)

    def _with(self, protocol: str, split: str) -> "FaceSource":
        return FaceSource(protocol, split, self.faces, self.profile)

    @property
    def parts(self) -> tuple["FaceSource", ...]:
        """The disjoint splits of the same protocol that make this one up (itself, if there are none)."""
        union = protocols.get(self.protocol, self.split)[1].union
        if any(protocol != self.protocol for protocol, _ in union):
            union = ()
        return tuple(self._with(*part) for part in union) or (self,)

    @property
    def leaves(self) -> tuple["FaceSource", ...]:
        """The splits, perhaps of other protocols, that hold the faces."""
        return tuple(self._with(*leaf) for leaf in protocols.leaves(self.protocol, self.split))

    @property
    def count(self) -> int:
        """Number of faces; real ones are read to be counted."""
        if self.faces == "real":
            return len(self.load())
        return protocols.synthetic_count(self.protocol, self.split, self.profile)

    @property
    def available(self) -> bool:
        """Whether this machine has, or can make, these faces."""
        return self.faces == "synthetic" or all(_present(leaf) for leaf in self.leaves)

    @cached_property
    def fingerprint(self) -> str:
        """What determines the faces: the recipe of synthetic ones, the content of real ones."""
        if self.faces == "real":
            return self.load().sha256
        recipes = [_recipe(leaf) for leaf in self.leaves]
        return recipes[0] if len(recipes) == 1 else sha256(*recipes)

    def load(self) -> FaceSet:
        """The faces; made or read once a process and source.

        Raises
        ------
        ReplicateError
            If real faces are absent or damaged, or the cache cannot be written.
        """
        if self not in _loaded:
            _loaded[self] = self._joined([_load_leaf(leaf) for leaf in self.leaves])
        return _loaded[self]

    def sample(self, count: int) -> FaceSet:
        """The first `count` faces of each split that holds the faces (all, if it has fewer).

        Synthetic ones are made without making the rest.

        Raises
        ------
        ReplicateError
            If `count` is not positive; otherwise as `load`.
        """
        if count < 1:
            raise ReplicateError(f"count: got {count}, expected at least one face")
        if self.faces == "real":
            return self._joined([_first(_load_leaf(leaf), count) for leaf in self.leaves])
        return self._joined([_made(leaf, range(min(count, leaf.count))) for leaf in self.leaves])

    def _joined(self, parts: list[FaceSet]) -> FaceSet:
        return parts[0] if len(parts) == 1 else concatenate(parts, self.protocol, self.split)


_loaded: dict[FaceSource, FaceSet] = {}


def _first(faces: FaceSet, count: int) -> FaceSet:
    return faces.subset(np.arange(min(count, len(faces))))


def _load_leaf(source: FaceSource) -> FaceSet:
    return _load_real(source) if source.faces == "real" else _load_synthetic(source)


def _face_set(source: FaceSource, images, labels: dict[str, np.ndarray], names: tuple[str, ...]) -> FaceSet:
    """What the store or the generator gave, in the split's markup, with its boxes."""
    rule = protocols.box_rule_of(source.protocol, source.split)
    name = protocols.markup_of(source.protocol, source.split)
    labels = dict(labels)
    points, visible = labels.pop("points"), labels.pop("visible")
    if name != "ibug68" and points.shape[1] == 68:  # photographs of 300-W in a protocol of fewer points
        points, visible = convert(points, "ibug68", name), convert_visibility(visible, "ibug68", name)
    boxes, identity = labels.pop("boxes", None), labels.pop("identity", None)
    simulated = boxes is None or source.faces == "synthetic"
    return FaceSet(
        images=images,
        points=points,
        visible=visible,
        boxes=rule.boxes(points, names) if boxes is None else boxes,
        names=names,
        markup=name,
        protocol=source.protocol,
        split=source.split,
        faces=source.faces,
        box_rule=rule.text if simulated else "as the data set gives them",
        attributes=labels,
        identity=identity,
    )


# Synthetic faces


def _recipe(source: FaceSource) -> str:
    """Hash of all that determines the synthetic faces of a split that is no union."""
    which = source.protocol, source.split
    _, split = protocols.get(*which)
    name = protocols.markup_of(*which)
    # the generator gives the 68 points themselves; all others follow from them by the markup's definition
    definition = () if name == "ibug68" else markup(name).definition
    usual = (split.in_a_row, split.first_person) == (IN_A_ROW, 0)
    people = () if usual else (split.in_a_row, split.first_person)
    determines = (
        synthetic.GENERATOR_VERSION, DATA_SEED, *which, source.count, split.condition, split.first, split.size, split.identities,
        name, protocols.box_rule_of(*which).text, *definition, *people,
    )  # fmt: skip
    return sha256(*map(str, determines))


def _identities(split: Split, indices: range) -> list[int] | None:
    return [person_of(split, index) for index in indices] if split.identities else None


def _names(source: FaceSource, which: range) -> tuple[str, ...]:
    return tuple(f"{source.protocol}/{source.split}/{number:05d}" for number in which)


def _generated(source: FaceSource, which: range) -> Iterator[Chunk]:
    """Faces of a split that is no union, chunk by chunk, in its markup."""
    _, split = protocols.get(source.protocol, source.split)
    name = protocols.markup_of(source.protocol, source.split)
    rule = protocols.box_rule_of(source.protocol, source.split)
    indices = range(split.first + which.start, split.first + which.stop)
    names = iter(_names(source, which))
    for batch in synthetic.generate_chunks(
        DATA_SEED, indices, split.condition, size=split.size, identities=_identities(split, indices)
    ):
        points = convert(batch.points, "ibug68", name).astype(np.float32)
        labels = {
            "points": points,
            "boxes": rule.boxes(
                batch.points if rule.whole_face else points, tuple(islice(names, len(points)))
            ),
            "visible": convert_visibility(batch.visible, "ibug68", name),
            **batch.attributes,
        }
        yield batch.images, labels


def _made(source: FaceSource, which: range) -> FaceSet:
    chunks = list(_generated(source, which))
    labels = {name: np.concatenate([part[name] for _, part in chunks]) for name in chunks[0][1]}
    images = np.concatenate([images for images, _ in chunks])
    return _face_set(source, images, labels, _names(source, which))


def _load_synthetic(source: FaceSource) -> FaceSet:
    key = sha256(source.fingerprint, str(_LAYOUT))[:12]
    folder = paths.cache() / "faces" / f"{source.protocol}-{source.split}-{key}"
    if not folder.exists():
        _make_synthetic(folder, source)
    stored = face_store.open_store(folder)
    return _face_set(source, stored.images, stored.labels, _names(source, range(source.count)))


def _make_synthetic(folder: Path, source: FaceSource) -> None:
    with progress_bar() as progress:
        bar = progress.add_task(f"faces, {source.protocol} {source.split}", total=source.count, remark="")

        def chunks(done: int) -> Iterator[Chunk]:
            progress.advance(bar, done)
            for images, labels in _generated(source, range(done, source.count)):
                yield images, labels
                progress.advance(bar, len(images))

        face_store.make(folder, chunks, faces=f"{source.protocol} {source.split}")


# Real faces


def _data_set(source: FaceSource) -> tuple[DataSet, Path, str]:
    """The adapter of a split that is no union, the folder of its data set, and the adapter's name of the split."""
    split = protocols.get(source.protocol, source.split)[1].real
    if not split:
        raise AbsentError(
            f"{source.protocol} {source.split} exists as synthetic faces only (--faces synthetic)."
        )
    found = real.DATA_SETS[protocols.data_set_of(source.protocol, source.split)]
    return found, paths.data_dir() / found.folder, split


def _present(source: FaceSource) -> bool:
    """Whether the annotations are there; damaged ones are, and say so when they are loaded."""
    try:
        data_set, folder, split = _data_set(source)
        if not folder.is_dir():
            return False
        data_set.read(folder, split)
    except AbsentError:
        return False
    except ReplicateError:
        return True
    return True


def _load_real(source: FaceSource) -> FaceSet:
    data_set, folder, split = _data_set(source)
    if not folder.is_dir():
        raise AbsentError(
            f"real faces: {folder} is not there. Set REPLICATE_DATA to the folder that holds {data_set.folder}/ (`replicate data "
            "check` says where to obtain it), or use synthetic faces (--faces synthetic)."
        )
    where = sha256(str(folder.resolve()))[:8]
    kept = paths.cache() / "faces" / f"real-{data_set.name}-{split.replace('/', '-')}-{where}"

    def outdated(about: dict) -> bool:
        return about.get("stamp") != _stamp(folder, about.get("files", []))

    if kept.exists() and outdated(face_store.about(kept)):
        face_store.remove(kept, outdated)
    if not kept.exists():
        _keep(kept, data_set.read(folder, split), folder, f"{data_set.title} {split}")
    stored = face_store.open_store(kept)
    names = tuple(stored.labels.pop("names").tolist())
    return _face_set(source, stored.images, stored.labels, names)


def _stamp(folder: Path, files: list[str]) -> str:
    """Size and time of change of each file, and of the folders that hold them, where new files would appear; and how they are read."""
    found = {folder / file for file in files}
    found |= {file.parent for file in found}
    states = [f"{_READING} {MARGIN} {LARGEST_FACE}"]
    for path in sorted(found):
        try:
            state = os.stat(path)
            states.append(f"{path} {state.st_size} {state.st_mtime_ns}")
        except OSError:
            states.append(f"{path} is not there")
    return sha256("\n".join(states))


def _keep(kept: Path, annotations: Annotations, folder: Path, title: str) -> None:
    """Decode the photographs, crop them around the faces, and store them."""
    files = sorted({os.path.relpath(file, folder) for file in annotations.files})
    count = len(annotations.names)
    with progress_bar() as progress, ThreadPoolExecutor(4) as pool:
        bar = progress.add_task(f"reading {title}", total=count, remark="")

        def chunks(done: int) -> Iterator[Chunk]:
            progress.advance(bar, done)
            for start in range(done, count, _CHUNK):
                which = range(start, min(start + _CHUNK, count))
                crops = list(pool.map(lambda index: _crop(annotations, index), which))
                yield [image for image, _ in crops], _real_labels(annotations, which, [t for _, t in crops])
                progress.advance(bar, len(which))

        face_store.make(kept, chunks, stamp=_stamp(folder, files), files=files)


def _crop(annotations: Annotations, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of a photograph around one face, and where it was cut (x, y) and by what reduced in width and height (1 if not)."""
    image = annotations.pixels(index)
    points = annotations.points[index]
    check_points_belong(annotations.names[index], (image.shape[1], image.shape[0]), points)
    known = points[np.isfinite(points).all(1)]
    if annotations.boxes is not None:
        known = np.concatenate([known, annotations.boxes[index].reshape(2, 2)])
    if len(known) < 2:
        raise ReplicateError(
            f"{annotations.names[index]}: {len(known)} known points and no box, expected at least two points; leave this face out"
        )
    low, high = known.min(0), known.max(0)
    side = (high - low).max()
    start = np.maximum(np.floor(low - MARGIN * side), 0).astype(int)
    end = np.minimum(np.ceil(high + MARGIN * side) + 1, image.shape[1::-1]).astype(int)
    if (end <= start).any():
        raise ReplicateError(
            f"{annotations.names[index]}: the box {annotations.boxes[index].tolist()} lies outside the "
            f"{image.shape[1]}x{image.shape[0]} image; it may belong to another image"
        )
    crop = image[start[1] : end[1], start[0] : end[0]]
    if side <= LARGEST_FACE:
        return crop.copy(), np.array([*start, 1.0, 1.0])  # a view would keep the whole photograph in memory
    height, width = (max(1, round(length * LARGEST_FACE / side)) for length in crop.shape[:2])
    reduced = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
    return reduced, np.array([*start, crop.shape[1] / width, crop.shape[0] / height])


def _real_labels(annotations: Annotations, which: range, cuts: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Labels of some faces, in pixels of their crops; `pixel` is the side of one of those in pixels of the photograph."""
    cut = np.stack(cuts)
    offset, scale = cut[:, None, :2], cut[:, None, 2:]
    part = slice(which.start, which.stop)
    labels = {
        "names": np.array(annotations.names[part]),
        "points": ((annotations.points[part] - offset + 0.5) / scale - 0.5).astype(np.float32),
        "visible": annotations.visible[part],
        "pixel": np.sqrt(cut[:, 2] * cut[:, 3]),
        **{name: values[part] for name, values in annotations.attributes.items()},
    }
    if annotations.boxes is not None:
        corners = annotations.boxes[part].reshape(-1, 2, 2)
        labels["boxes"] = ((corners - offset + 0.5) / scale - 0.5).reshape(-1, 4).astype(np.float32)
    if annotations.identity is not None:
        labels["identity"] = annotations.identity[part]
    return labels
