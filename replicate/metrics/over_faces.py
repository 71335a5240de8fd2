"""Statistics of all faces together, such as a recall or the best of several settings, with intervals from faces drawn again.

Faces are drawn with replacement, all landmarks of a face and all settings together, and seeds where there are several; the faces of a resample are
those of `replicate.metrics.paired_bootstrap`.
"""

from collections.abc import Callable

import numpy as np

from replicate.errors import ReplicateError
from replicate.metrics.comparisons import Comparison, Interval, compared, streams
from replicate.metrics.curves import recall_at_precision

CurveStatistic = Callable[
    [np.ndarray], np.ndarray
]  # from mean errors (..., K) at K settings to one number (...)


def recall_interval(
    scores: np.ndarray, positive: np.ndarray, precision: float, resamples: int = 2000, seed: int = 0
) -> Interval:
    """`recall_at_precision` in per cent, with its 95 % interval.

    Parameters
    ----------
    scores : (N, L) or (S, N, L) array
        Of the landmarks of N faces, by S models: higher where they are more likely positive (occluded).
    positive : (N, L) bool array
        The truth.
    precision : float
        In per cent.
    resamples, seed
        See `replicate.metrics.bootstrap_statistic`. A resample without any positive has a recall of 0.
    """
    value, samples = _recalls(scores, positive, precision, resamples, seed)
    return Interval(value, *np.percentile(samples, (2.5, 97.5)).tolist())


def compare_recalls(
    left: np.ndarray,
    right: np.ndarray,
    positive: np.ndarray,
    precision: float,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare the recalls of two methods on the same faces; see `recall_interval` and `replicate.metrics.paired_bootstrap`."""
    sides = [_recalls(scores, positive, precision, resamples, seed) for scores in (left, right)]
    return compared(*sides)


def recall_against_number(
    scores: np.ndarray,
    positive: np.ndarray,
    precision: float,
    number: float,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare a recall with a printed one, which has no interval; see `recall_interval`."""
    return compared(_recalls(scores, positive, precision, resamples, seed), (number, number))


def curve_interval(
    errors: np.ndarray, statistic: CurveStatistic, resamples: int = 2000, seed: int = 0
) -> Interval:
    """A number that follows from the mean errors at several settings, with its 95 % interval.

    Parameters
    ----------
    errors : (N, K) or (S, N, K) array
        Of N faces at K settings, by S models.
    statistic : callable
        Of the mean errors (..., K) over faces, for example ``lambda means: settings[means.argmin(-1)]``. Over seeds it is averaged.
    resamples, seed
        See `replicate.metrics.bootstrap_statistic`.
    """
    value, samples = _of_curves(errors, statistic, resamples, seed)
    return Interval(value, *np.percentile(samples, (2.5, 97.5)).tolist())


def compare_curves(
    left: np.ndarray, right: np.ndarray, statistic: CurveStatistic, resamples: int = 2000, seed: int = 0
) -> Comparison:
    """Compare a number that follows from the mean errors of two methods on the same faces; see `curve_interval`.

    The settings of the two sides may differ in number.
    """
    if np.shape(left)[-2] != np.shape(right)[-2]:
        raise ReplicateError(
            f"left, right: got errors of {np.shape(left)[-2]} and {np.shape(right)[-2]} faces; expected the same"
        )
    return compared(*(_of_curves(errors, statistic, resamples, seed) for errors in (left, right)))


def _of_curves(
    errors: np.ndarray, statistic: CurveStatistic, resamples: int, seed: int
) -> tuple[float, np.ndarray]:
    """The statistic, and that of each resample (R,)."""
    errors = np.asarray(errors, float)
    errors = errors[None] if errors.ndim == 2 else errors
    if errors.ndim != 3 or errors.shape[1] < 2 or not np.isfinite(errors).all():
        raise ReplicateError(
            f"errors: got shape {errors.shape}, expected (N, K) or (S, N, K), finite, of two faces or more"
        )
    seeds, images = errors.shape[:2]
    face_counts, seed_counts = _counts(images, seeds, resamples, seed)
    found = statistic(np.tensordot(face_counts, errors, (1, 1)) / images)  # (R, S)
    return float(np.mean(statistic(errors.mean(1)))), (seed_counts * found).sum(1) / seeds


def _recalls(
    scores: np.ndarray, positive: np.ndarray, precision: float, resamples: int, seed: int
) -> tuple[float, np.ndarray]:
    """Mean recall over seeds, and that of each resample (R,)."""
    scores, positive = np.asarray(scores, float), np.asarray(positive, bool)
    scores = scores[None] if scores.ndim == 2 else scores
    if scores.ndim != 3 or scores.shape[1:] != positive.shape or len(positive) < 2:
        raise ReplicateError(
            f"scores, positive: got shapes {scores.shape} and {positive.shape}; expected (N, L) or (S, N, L) and (N, L), two faces or more"
        )
    faces, seeds = _counts(len(positive), len(scores), resamples, seed)
    value = np.mean([recall_at_precision(one, positive, precision) for one in scores])
    by_seed = np.stack([_recalls_of(one, positive, precision, faces) for one in scores], 1)
    return float(value), (seeds * by_seed).sum(1) / len(scores)


def _recalls_of(scores: np.ndarray, positive: np.ndarray, precision: float, counts: np.ndarray) -> np.ndarray:
    """`recall_at_precision` (R,) where resamples have each face so many times (R, N): sorted only once."""
    order = np.argsort(-scores, axis=None, kind="stable")
    ranked, true = scores.ravel()[order], positive.ravel()[order]
    last_of_ties = np.append(np.diff(ranked) != 0, True)
    face = order // scores.shape[1]
    recalls = np.empty(len(counts))
    for number, count in enumerate(counts):  # one at a time: all together would not fit into memory
        times = count[face]
        hits, accepted = np.cumsum(times * true), np.cumsum(times)
        precise = last_of_ties & (100 * hits >= precision * accepted)
        recalls[number] = 100 * hits[precise].max(initial=0) / max(hits[-1], 1)
    return recalls


def _counts(faces: int, seeds: int, resamples: int, seed: int) -> list[np.ndarray]:
    """How many times each resample has each face and each seed: (R, N) and (R, S)."""
    counts = []
    for generator, things in zip(streams(seed), (faces, seeds), strict=True):
        drawn = generator.integers(things, size=(resamples, things))
        places = drawn + things * np.arange(resamples)[:, None]
        counts.append(np.bincount(places.ravel(), minlength=drawn.size).reshape(drawn.shape))
    return counts
