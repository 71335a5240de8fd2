"""Many faces at once, over processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

from replicate.errors import ReplicateError

from .generator import Face, check_request, generate

_CHUNK = 16
_FEW = 96  # below this, starting processes takes longer than the faces


@dataclass(frozen=True)
class FaceBatch:
    """Faces stacked in the order that was asked for; see :class:`~.generator.Face` for units.

    Attributes
    ----------
    images : ndarray of uint8, shape (N, size, size, 3)
    points : ndarray of float32, shape (N, 68, 2)
    visible : ndarray of bool, shape (N, 68)
    attributes : dict of ndarray, shape (N,)
    """

    images: np.ndarray
    points: np.ndarray
    visible: np.ndarray
    attributes: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.images)


def _start_worker() -> None:
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this, workers would outlive a parent that was killed, waiting for work that never comes."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _stacked(faces: list[Face], size: int) -> FaceBatch:
    n = len(faces)
    batch = _empty(n, size)
    for name in faces[0].attributes if faces else ():
        batch.attributes[name] = np.array([face.attributes[name] for face in faces])
    for i, face in enumerate(faces):
        batch.images[i], batch.points[i], batch.visible[i] = face.image, face.points, face.visible
    return batch


def _empty(n: int, size: int) -> FaceBatch:
    return FaceBatch(
        np.empty((n, size, size, 3), np.uint8), np.empty((n, 68, 2), np.float32), np.empty((n, 68), bool), {}
    )


@dataclass(frozen=True)
class _Job:
    seed: int
    indices: list[int]
    identities: list[int | None]
    condition: str
    size: int

    def __call__(self) -> FaceBatch:
        return _stacked(
            [
                generate(self.seed, index, self.condition, size=self.size, identity=identity)
                for index, identity in zip(self.indices, self.identities, strict=True)
            ],
            self.size,
        )


def generate_chunks(
    seed: int,
    indices: Sequence[int] | np.ndarray,
    condition: str = "train",
    *,
    size: int = 256,
    identities: Sequence[int] | np.ndarray | None = None,
    workers: int | None = None,
) -> Iterator[FaceBatch]:
    """Generate many faces, a few at a time, in the order that was asked for; neither that nor ``workers`` changes a face.

    At most a few batches a process are held, so that a consumer can write any number of faces to a disk.

    Parameters
    ----------
    seed : int
    indices : sequence of int
        Which faces of the collection, in any order.
    condition : str
        See :func:`~.generator.generate`.
    size : int
        Side of the images in pixels.
    identities : sequence of int, optional
        The person in each face; by default each shows somebody else.
    workers : int, optional
        Processes; by default the cores this process may use, or none besides this one for a few faces. With 0 or 1 no process is
        started.

    Returns
    -------
    iterator of FaceBatch

    Raises
    ------
    ReplicateError
        If an argument is out of range (at once), or if a process that generates faces dies.
    """
    indices = [int(i) if isinstance(i, np.integer) else i for i in indices]
    persons = [None] * len(indices) if identities is None else list(identities)
    if len(persons) != len(indices):
        raise ReplicateError(
            f"identities has {len(persons)} entries, expected one for each of {len(indices)} indices; leave it out for one "
            "person a face"
        )
    check_request(seed, 0, condition, size)
    for index, person in zip(indices, persons, strict=True):
        check_request(seed, index, condition, size, person)
    jobs = [
        _Job(seed, indices[i : i + _CHUNK], persons[i : i + _CHUNK], condition, size)
        for i in range(0, len(indices), _CHUNK)
    ]
    return _results(jobs, min(_processes(workers, len(indices)), len(jobs)))


def generate_many(
    seed: int,
    indices: Sequence[int] | np.ndarray,
    condition: str = "train",
    *,
    size: int = 256,
    identities: Sequence[int] | np.ndarray | None = None,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> FaceBatch:
    """Generate many faces into one batch; parameters and errors as in :func:`generate_chunks`.

    Parameters
    ----------
    progress : callable, optional
        Called with the number of faces done since its last call.

    Returns
    -------
    FaceBatch
    """
    chunks = generate_chunks(seed, indices, condition, size=size, identities=identities, workers=workers)
    n, done = len(indices), 0
    whole = _empty(n, size)
    for chunk in chunks:
        place = slice(done, done + len(chunk))
        whole.images[place], whole.points[place], whole.visible[place] = (
            chunk.images, chunk.points, chunk.visible,
        )  # fmt: skip
        for name, values in chunk.attributes.items():
            whole.attributes.setdefault(name, np.empty(n, values.dtype))[place] = values
        done += len(chunk)
        if progress is not None:
            progress(len(chunk))
    return whole


def _processes(workers: int | None, faces: int) -> int:
    """How many processes to use, checked."""
    if workers is None and faces < _FEW:
        return 1
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not isinstance(workers, int) or workers < 0:
        raise ReplicateError(
            f"workers is {workers!r}, expected a number of processes from 0; leave it out to use all cores"
        )
    return workers


def _results(jobs: list[_Job], workers: int) -> Iterator[FaceBatch]:
    """Results of the jobs, in their order; no more than two a process are under way or waiting."""
    if workers <= 1:
        for job in jobs:
            yield job()
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)
    waiting: deque[Future[FaceBatch]] = deque()
    try:
        for job in jobs:
            if len(waiting) == 2 * workers:
                yield waiting.popleft().result()
            with _one_thread_in_new_processes():
                waiting.append(pool.submit(job))
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ReplicateError(
            f"a process that generates faces died ({error}); if memory ran out, pass fewer workers, and run a script that starts "
            "processes under `if __name__ == '__main__':`"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread_in_new_processes() -> Iterator[None]:
    """Processes started within use one thread for linear algebra: theirs would wait for each other half of the time."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
