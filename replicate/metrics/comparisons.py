"""Intervals of a statistic and paired comparisons of two methods."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from replicate.errors import ReplicateError

Statistic = Callable[
    ..., np.ndarray
]  # statistic(samples, axis=-1), such as np.mean; see `bootstrap_statistic`
_BLOCK = 2_000_000  # resampled errors held in memory at a time


class Interval(NamedTuple):
    """A statistic with its 95 % interval."""

    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """A paired comparison of two methods; ``difference`` is left minus right, with its 95 % interval."""

    left: float
    right: float
    difference: float
    low: float
    high: float
    p_value: float


def bootstrap_mean(errors: np.ndarray, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean error with its bootstrap interval, see `bootstrap_statistic`."""
    return bootstrap_statistic(errors, np.mean, resamples, seed)


def bootstrap_statistic(
    errors: np.ndarray, statistic: Statistic, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap over images, and over seeds where there are several.

    Parameters
    ----------
    errors : (N,) or (S, N) array
        Errors of N images, or of S seeds on the same images; the seeds of a resample share its images.
    statistic : callable
        ``statistic(samples, axis=-1)`` reduces the axis of images: ``np.mean``, ``np.median``,
        ``functools.partial(auc, threshold=8.0)``. Over seeds it is averaged.
    resamples : int
        Number of resamples.
    seed : int
        Seed of the resampling.

    Returns
    -------
    Interval
        The statistic and its 2.5 and 97.5 percentiles.

    Raises
    ------
    ReplicateError
        For values that are not finite or fewer than two images.
    """
    errors = _by_seed(errors)
    samples = _resampled([errors], statistic, resamples, seed)[0]
    return Interval(_value(errors, statistic), *np.percentile(samples, (2.5, 97.5)).tolist())


def paired_bootstrap(
    left: np.ndarray, right: np.ndarray, statistic: Statistic = np.mean, resamples: int = 2000, seed: int = 0
) -> Comparison:
    """Compare two methods on the same images.

    Both sides of a resample see the same images, and the same seeds where both have as many: a model and its
    extension from the same seed stay together.

    Parameters
    ----------
    left, right : (N,) or (S, N) arrays
        Errors of the two methods; N must agree.
    statistic, resamples, seed
        See `bootstrap_statistic`.

    Returns
    -------
    Comparison
        ``p_value`` is two-sided, from the share of resampled differences on the far side of zero; it is never
        below ``2 / (resamples + 1)``.
    """
    left, right = _by_seed(left), _by_seed(right)
    if left.shape[1] != right.shape[1]:
        raise ReplicateError(
            f"left, right: got errors of {left.shape[1]} and {right.shape[1]} images; expected the same"
        )
    samples = _resampled([left, right], statistic, resamples, seed)
    return compared((_value(left, statistic), samples[0]), (_value(right, statistic), samples[1]))


def against_number(
    errors: np.ndarray, number: float, statistic: Statistic = np.mean, resamples: int = 2000, seed: int = 0
) -> Comparison:
    """Compare a statistic with a number that has no interval, such as one printed in a paper.

    Parameters
    ----------
    errors : (N,) or (S, N) array
        Errors of the left side.
    number : float
        The right side.
    statistic, resamples, seed
        See `bootstrap_statistic`.

    Returns
    -------
    Comparison
        Its interval holds the uncertainty of the left side alone; for ``p_value`` see `paired_bootstrap`.
    """
    errors = _by_seed(errors)
    samples = _resampled([errors], statistic, resamples, seed)[0]
    return compared((_value(errors, statistic), samples), (number, number))


def relative_change(
    after: np.ndarray,
    before: np.ndarray,
    statistic: Statistic = np.mean,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Change from `before` to `after` in per cent of `before`, with its interval; images and seeds are resampled together.

    Resamples in which the statistic of `before` is zero have no relative change and are left out of the interval.

    Parameters
    ----------
    after, before : (N,) or (S, N) arrays
        Errors of two methods on the same images.
    statistic, resamples, seed
        See `bootstrap_statistic`.

    Raises
    ------
    ReplicateError
        If the statistic of `before` is zero: nothing is a per cent of nothing.
    """
    after, before = _by_seed(after), _by_seed(before)
    base = _value(before, statistic)
    if base == 0:
        raise ReplicateError(
            "before: the statistic is zero; a relative change needs something to be relative to"
        )
    sides = _resampled([after, before], statistic, resamples, seed)
    sides = sides[:, sides[1] != 0]
    changes = 100 * (sides[0] - sides[1]) / sides[1]
    return Interval(
        100 * (_value(after, statistic) - base) / base, *np.percentile(changes, (2.5, 97.5)).tolist()
    )


def is_equivalent(comparison: Comparison, margin: float) -> bool:
    """Equivalence test: the 95 % interval of the difference lies inside ``(-margin, margin)``."""
    if not margin > 0:
        raise ReplicateError(f"margin: got {margin}, expected a positive difference")
    return -margin < comparison.low and comparison.high < margin


def mcnemar(left_fails: np.ndarray, right_fails: np.ndarray) -> float:
    """Exact two-sided McNemar test of two failure rates on the same images.

    Parameters
    ----------
    left_fails, right_fails : (N,) bool arrays
        Whether each method fails on each image.

    Returns
    -------
    float
        Binomial p-value of the images on which exactly one method fails; 1 where there are none.
    """
    left_fails, right_fails = np.asarray(left_fails, dtype=bool), np.asarray(right_fails, dtype=bool)
    if left_fails.shape != right_fails.shape:
        raise ReplicateError(
            f"left_fails, right_fails: got shapes {left_fails.shape} and {right_fails.shape}; "
            "expected the same images"
        )
    only_left = np.count_nonzero(left_fails & ~right_fails)
    only_one = np.count_nonzero(left_fails ^ right_fails)
    return float(binomtest(only_left, only_one, 0.5).pvalue) if only_one else 1.0


def compared(left: tuple[float, np.ndarray], right: tuple[float, np.ndarray | float]) -> Comparison:
    """A comparison from the statistic of each side and its values (R,) in the same resamples; a number's value is that number in all of them."""
    differences = np.subtract(left[1], right[1])
    low, high = np.percentile(differences, (2.5, 97.5)).tolist()
    return Comparison(left[0], right[0], left[0] - right[0], low, high, _two_sided(differences))


def streams(seed: int) -> list[np.random.Generator]:
    """The random numbers that draw images and seeds, apart from each other."""
    return np.random.default_rng(seed).spawn(2)


def _two_sided(differences: np.ndarray) -> float:
    """Two-sided p-value of resampled differences: twice the share on the far side of zero."""
    tails = (np.count_nonzero(differences <= 0) + 1, np.count_nonzero(differences >= 0) + 1)
    return min(1.0, 2 * min(tails) / (len(differences) + 1))


def _value(errors: np.ndarray, statistic: Statistic) -> float:
    return float(np.mean(statistic(errors, axis=-1)))


def _resampled(sides: list[np.ndarray], statistic: Statistic, resamples: int, seed: int) -> np.ndarray:
    """Statistics ``(len(sides), resamples)`` of (S, N) errors that share images, and seeds if as many."""
    image_rng, seed_rng = streams(seed)
    images = sides[0].shape[1]
    block = max(1, _BLOCK // max(side.size for side in sides))
    results = []
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn_images = image_rng.integers(images, size=(count, 1, images))
        drawn_seeds = {len(side): seed_rng.integers(len(side), size=(count, len(side), 1)) for side in sides}
        results.append(
            [
                np.mean(statistic(side[drawn_seeds[len(side)], drawn_images], axis=-1), axis=-1)
                for side in sides
            ]
        )
    return np.concatenate(results, axis=1)


def _by_seed(errors: np.ndarray) -> np.ndarray:
    errors = np.atleast_2d(np.asarray(errors, dtype=float))
    if errors.ndim != 2 or errors.shape[1] < 2 or not np.isfinite(errors).all():
        raise ReplicateError(
            f"errors: got shape {errors.shape} with {(~np.isfinite(errors)).sum()} infinite or NaN; "
            "expected (N,) or (S, N) with at least two images and finite values"
        )
    return errors
