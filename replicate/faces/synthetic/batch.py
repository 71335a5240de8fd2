"""Many faces at once, over processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
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


def _chunk(job: tuple[int, list[int], str, int]) -> list[Face]:
    seed, indices, condition, size = job
    return [generate(seed, index, condition, size=size) for index in indices]


def generate_many(
    seed: int,
    indices: Sequence[int] | np.ndarray,
    condition: str = "train",
    *,
    size: int = 256,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> FaceBatch:
    """Generate many faces; the result does not depend on ``workers``.

    Parameters
    ----------
    seed : int
    indices : sequence of int
        Which faces of the collection, in any order.
    condition : str
        See :func:`~.generator.generate`.
    size : int
        Side of the images in pixels.
    workers : int, optional
        Processes; by default the cores this process may use, or none besides this one for a few faces. With 0 or 1 no process is
        started.
    progress : callable, optional
        Called with the number of faces done since its last call.

    Returns
    -------
    FaceBatch

    Raises
    ------
    ReplicateError
        If an argument is out of range.
    """
    indices = [int(i) if isinstance(i, np.integer) else i for i in indices]
    for index in indices or [0]:
        check_request(seed, index, condition, size)
    if workers is None and len(indices) < _FEW:
        workers = 1
    elif workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not isinstance(workers, int) or workers < 0:
        raise ReplicateError(
            f"workers is {workers!r}, expected a number of processes from 0; leave it out to use all cores"
        )
    jobs = [(seed, indices[i : i + _CHUNK], condition, size) for i in range(0, len(indices), _CHUNK)]
    n = len(indices)
    images, points = np.empty((n, size, size, 3), np.uint8), np.empty((n, 68, 2), np.float32)
    visible, attributes = np.empty((n, 68), bool), {}
    done = 0
    for faces in _results(jobs, min(workers, len(jobs))):
        for face in faces:
            images[done], points[done], visible[done] = face.image, face.points, face.visible
            for name, value in face.attributes.items():
                attributes.setdefault(name, np.empty(n, np.int64 if isinstance(value, int) else np.float64))[
                    done
                ] = value
            done += 1
        if progress is not None:
            progress(len(faces))
    return FaceBatch(images, points, visible, attributes)


def _results(jobs: list, workers: int):
    """Results of the jobs, in their order."""
    if workers <= 1:
        yield from map(_chunk, jobs)
        return
    with _one_thread_in_new_processes():
        pool = multiprocessing.get_context("spawn").Pool(workers, _start_worker)
    with pool:
        yield from pool.imap(_chunk, jobs)


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
