"""A store of decoded faces: one memory-mapped file of pixels per split, made once, shared by all notebooks and processes.

A stored split is a folder: `pixels.bin` (all images one after the other, uint8), `labels.npz` (where each image lies, and all else
that is known of the faces) and `store.json` (counts and hashes). It is written chunk by chunk into a folder beside it, which a killed
run leaves behind for the next one to continue, and which is renamed when it is whole.
"""

import hashlib
import json
import mmap
import multiprocessing
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replicate.errors import ReplicateError
from replicate.files import atomic_write, lock, sha256, write_json

RESIDENT = 256 * 2**20  # bytes of a store that a process maps before it gives them back
_PIXELS, _LABELS, _ABOUT = "pixels.bin", "labels.npz", "store.json"
_RECORDED = {"count", "bytes", "pixels_sha256", "labels_sha256"}


class StoredImages(Sequence):
    """N images as views of one memory-mapped file; an image is read from the disk when its pixels are.

    Parameters
    ----------
    pixels : array
        (B,) uint8.
    shapes : array
        (N, 3): height, width and channels of each image; 0 channels for grey.
    """

    def __init__(self, pixels: np.ndarray, shapes: np.ndarray) -> None:
        self.pixels, self.shapes, self._touched = pixels, shapes, 0
        self.starts = np.concatenate([[0], np.cumsum(_sizes(shapes))])
        self.alike = len(shapes) > 0 and bool((shapes == shapes[0]).all())

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> np.ndarray:
        index = range(len(self))[index]
        self._release(self.starts[index + 1] - self.starts[index])
        return self.pixels[self.starts[index] : self.starts[index + 1]].reshape(_shape(self.shapes[index]))

    def batch(self, index: np.ndarray) -> np.ndarray:
        """The images `index` (n,) stacked: (n, H, W) or (n, H, W, 3); for images of one size.

        Raises
        ------
        ReplicateError
            If the images differ in size.
        """
        if not self.alike:
            raise ReplicateError(
                "the stored images differ in size; take them one by one, or cut canvases first"
            )
        self._release(self.starts[1] * len(index))
        return self.pixels.reshape(len(self), *_shape(self.shapes[0]))[index]

    def _release(self, size: int) -> None:
        """Give pages back now and then: a walk through a large store would count all of it as this process's memory."""
        self._touched += int(size)
        mapped = getattr(self.pixels, "_mmap", None)
        if self._touched > RESIDENT and hasattr(mapped, "madvise"):
            # the system keeps the file's pages in memory: reading them again is no disk access
            mapped.madvise(mmap.MADV_DONTNEED)
            self._touched = 0


@dataclass(frozen=True, eq=False)
class Stored:
    """A stored split: images and labels, by name."""

    images: StoredImages
    labels: dict[str, np.ndarray]


def _shape(shape: np.ndarray) -> tuple[int, ...]:
    height, width, channels = (int(side) for side in shape)
    return (height, width, channels) if channels else (height, width)


def _sizes(shapes: np.ndarray) -> np.ndarray:
    return shapes[:, 0].astype(np.int64) * shapes[:, 1] * np.maximum(shapes[:, 2], 1)


def about(folder: Path) -> dict:
    """What is recorded of a stored split: counts, hashes, and what `make` was told.

    Raises
    ------
    ReplicateError
        If that file is absent or damaged.
    """
    try:
        recorded = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from error
    if not isinstance(recorded, dict) or not recorded.keys() >= _RECORDED:
        raise _damaged(folder, f"{_ABOUT} lacks some of {', '.join(sorted(_RECORDED))}")
    return recorded


def _damaged(folder: Path, what: object) -> ReplicateError:
    return ReplicateError(f"{folder}: damaged ({what}). Delete this folder; it is made again.")


def open_store(folder: Path) -> Stored:
    """Open a stored split without reading its pixels.

    Raises
    ------
    ReplicateError
        If a file is absent, damaged or shorter than it was.
    """
    recorded = about(folder)
    try:
        size, expected = (folder / _PIXELS).stat().st_size, recorded["bytes"]
        if size != expected:
            raise ValueError(f"{_PIXELS} has {size} bytes, expected {expected}")
        if _hash(folder / _LABELS) != recorded["labels_sha256"]:
            raise ValueError(f"{_LABELS} has changed")
        with np.load(folder / _LABELS, allow_pickle=False) as stored:
            labels = dict(stored)
        pixels = np.memmap(folder / _PIXELS, np.uint8, "r")
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from error
    return Stored(StoredImages(pixels, labels.pop("shapes")), labels)


def verify(folder: Path) -> str:
    """Read all pixels of a stored split and compare them with their recorded hash, which is returned.

    Raises
    ------
    ReplicateError
        If they differ.
    """
    open_store(folder)
    recorded, found = about(folder)["pixels_sha256"], _hash(folder / _PIXELS)
    if found != recorded:
        raise _damaged(folder, f"SHA-256 of {_PIXELS} is {found[:12]}, recorded was {recorded[:12]}")
    return found


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


Chunk = tuple[Sequence[np.ndarray], dict[str, np.ndarray]]


class Writer:
    """Appends chunks of faces to a folder; those that an earlier, killed run completed are there already.

    Attributes
    ----------
    count : int
        Faces written so far.

    Raises
    ------
    ReplicateError
        If what an earlier run left there is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._chunks = sorted(folder.glob("chunk-*.npz"))
        done = [self._read(path)["shapes"] for path in self._chunks]
        self.count = sum(map(len, done))
        (folder / _PIXELS).touch()
        complete = sum(int(_sizes(shapes).sum()) for shapes in done)
        size = (folder / _PIXELS).stat().st_size
        if size < complete:
            raise _damaged(folder, f"{_PIXELS} has {size} bytes, expected at least {complete}")
        os.truncate(folder / _PIXELS, complete)  # a chunk counts when its labels are written

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        try:
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise _damaged(self.folder, f"{path.name}: {error}") from error

    def append(self, images: Sequence[np.ndarray], labels: dict[str, np.ndarray]) -> None:
        """Write n images and their labels, each an array of n rows.

        Raises
        ------
        ReplicateError
            If the labels are not those of the chunks before.
        """
        if self._chunks and self._read(self._chunks[-1]).keys() != {"shapes", *labels}:
            raise _damaged(
                self.folder, f"{self._chunks[-1].name} holds other labels than {', '.join(labels)}"
            )
        shapes = np.array(
            [image.shape if image.ndim == 3 else (*image.shape, 0) for image in images], np.int32
        )
        with (self.folder / _PIXELS).open("ab") as pixels:
            for image in images:
                pixels.write(np.ascontiguousarray(image, np.uint8))
            pixels.flush()
            os.fsync(pixels.fileno())  # the labels must not outlive a power cut that the pixels do not
        path = self.folder / f"chunk-{len(self._chunks):06d}.npz"
        with atomic_write(path) as temporary:
            np.savez(temporary, shapes=shapes, **labels)
        self._chunks.append(path)
        self.count += len(shapes)

    def finish(self, **about: object) -> None:
        """Join the chunks' labels and record the hashes; the folder is whole then.

        Raises
        ------
        ReplicateError
            If no face was written.
        """
        if not self._chunks:
            raise ReplicateError(f"{self.folder}: no faces; a stored split needs at least one")
        parts = [self._read(path) for path in self._chunks]
        with atomic_write(self.folder / _LABELS) as temporary:
            np.savez(temporary, **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
        hashes = {
            "pixels_sha256": _hash(self.folder / _PIXELS),
            "labels_sha256": _hash(self.folder / _LABELS),
        }
        size = (self.folder / _PIXELS).stat().st_size
        write_json(self.folder / _ABOUT, {"count": self.count, "bytes": size, **hashes, **about})


@contextmanager
def _no_space(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ReplicateError) as error:
        cause = error.__cause__ if isinstance(error, ReplicateError) else error  # of `atomic_write`
        if not isinstance(cause, OSError):
            raise
        raise ReplicateError(
            f"cannot write {folder}: {cause}. Free space or set REPLICATE_CACHE to another disk; what is written so far is kept."
        ) from error


def _refuse_in_a_starting_process() -> None:
    """A script without `if __name__ == "__main__":` runs again in each worker, where it would wait for its parent for ever."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ReplicateError(
            'faces are made by several processes, each of which imports the script that is run: put its calls under `if __name__ == "__main__":`'
        )


def make(folder: Path, chunks_from: Callable[[int], Iterable[Chunk]], **about: object) -> None:
    """Make a stored split once, for all processes: under a lock, continued where a killed run stopped, renamed when whole.

    Parameters
    ----------
    folder : Path
        Where it goes.
    chunks_from : callable
        From the number of faces that are there already to the chunks that follow: images and labels.
    **about
        Recorded in `store.json`; a run that was told something else is not continued.

    Raises
    ------
    ReplicateError
        If there are no faces, the disk is full or cannot be written, or what a killed run left is damaged.
    """
    _refuse_in_a_starting_process()
    with lock(folder.with_name(f"{folder.name}.lock")):
        if folder.exists():  # another process made it while this one waited
            return
        partial = folder.with_name(f".{folder.name}.{sha256(str(about))[:8]}.partial")
        for left in folder.parent.glob(f".{folder.name}.*.partial"):
            if left != partial:  # of a source that has changed since
                shutil.rmtree(left, ignore_errors=True)
        if not (partial / _ABOUT).exists():
            _write(partial, folder, chunks_from, about)
        with _no_space(folder):
            for path in partial.iterdir():  # chunks, now that the record is written, and what kills left
                if path.name not in (_PIXELS, _LABELS, _ABOUT):
                    path.unlink()
            partial.rename(folder)


def _write(partial: Path, folder: Path, chunks_from: Callable[[int], Iterable[Chunk]], about: dict) -> None:
    with _no_space(folder):
        writer = Writer(partial)
    for images, labels in chunks_from(writer.count):
        with _no_space(folder):
            writer.append(images, labels)
    with _no_space(folder):
        writer.finish(**about)


def remove(folder: Path, outdated: Callable[[dict], bool]) -> None:
    """Delete a stored split if it no longer stands for its source.

    Parameters
    ----------
    folder : Path
    outdated : callable
        Judges what `about` returns; asked under the lock, because another process may have made the split again by then.

    Raises
    ------
    ReplicateError
        If it cannot be deleted.
    """
    with lock(folder.with_name(f"{folder.name}.lock")):
        if folder.exists() and outdated(about(folder)):
            with _no_space(folder):
                old = folder.with_name(f".{folder.name}.old.partial")  # the next `make` removes what is left
                shutil.rmtree(old, ignore_errors=True)
                folder.rename(old)
            shutil.rmtree(old, ignore_errors=True)
