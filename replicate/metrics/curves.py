"""Curves and rates made from errors and scores."""

from typing import NamedTuple

import numpy as np

from replicate.errors import ReplicateError


def ced(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative error distribution, exact: a step function that jumps at each distinct error.

    Parameters
    ----------
    errors : (N,) array
        One error per image.

    Returns
    -------
    thresholds : (M,) array
        Zero and the distinct errors, ascending.
    fraction : (M,) array
        Share of images, 0 to 1, whose error is at most the threshold. Draw with ``step(..., where="post")``.
    """
    errors = _checked_errors(errors).ravel()
    thresholds = np.union1d(0.0, errors)
    return thresholds, ced_at(errors, thresholds)


def ced_at(errors: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """Share of images, 0 to 1, whose error is at most ``threshold`` (any shape)."""
    errors = np.sort(_checked_errors(errors), axis=None)
    return np.searchsorted(errors, threshold, side="right") / errors.size


def auc(errors: np.ndarray, threshold: float, axis: int = -1) -> np.ndarray:
    """Area under the cumulative error distribution up to a threshold, divided by it, times 100 (DAN §4).

    The integral of the step function is exact: an image with error e contributes ``max(0, threshold - e)``. A
    perfect predictor therefore has exactly 100, which a quadrature rule on a grid can miss.

    Parameters
    ----------
    errors : array
        Errors in per cent; images along ``axis``.
    threshold : float
        In per cent: 8.0 for the papers' AUC_0.08.
    axis : int
        The axis of the images.

    Returns
    -------
    float or array
        In [0, 100]; ``errors`` without ``axis``.
    """
    errors, threshold = _checked_errors(errors), _checked_threshold(threshold)
    return 100 * np.clip(1 - errors / threshold, 0, 1).mean(axis=axis)


class FailureRate(NamedTuple):
    """A failure rate with its count."""

    percent: float
    count: int


def failure_rate(errors: np.ndarray, threshold: float) -> FailureRate:
    """Share and number of images whose error is above ``threshold`` (both in per cent)."""
    count = int(np.count_nonzero(failures(errors, threshold)))
    return FailureRate(100 * count / np.size(errors), count)


def failure_percent(errors: np.ndarray, threshold: float, axis: int = -1) -> np.ndarray:
    """Share of images in per cent, along ``axis``, whose error is above ``threshold``: a statistic to resample."""
    return 100 * failures(errors, threshold).mean(axis=axis)


def failures(errors: np.ndarray, threshold: float) -> np.ndarray:
    """Mark the images whose error is above ``threshold`` (both in per cent): what `mcnemar` compares.

    An error that equals the threshold is no failure: RNN §IV-B counts errors "larger than" it, and its Eq. 18 those "no higher" as
    successes; ECT §IV names the threshold alone. DAN says both: "0.08 or greater" (§4) and "more than 0.08" (caption of Fig. 4). Only so do
    the curve at the threshold (`ced_at`) and the failures add up to all images.
    """
    return _checked_errors(errors) > _checked_threshold(threshold)


def recall_at_precision(scores: np.ndarray, positive: np.ndarray, precision: float) -> float:
    """Largest recall among the thresholds whose precision is at least the one asked for (ECT Table VI, COFW).

    Parameters
    ----------
    scores : array
        Higher means more likely positive (occluded); any shape.
    positive : bool array
        The truth, in the same shape.
    precision : float
        In per cent, 80.0 for COFW.

    Returns
    -------
    float
        Recall in per cent; 0 if no threshold is that precise. Equal scores are accepted together.
    """
    scores, positive = np.ravel(scores).astype(float), np.ravel(positive).astype(bool)
    if scores.shape != positive.shape or not positive.any() or np.isnan(scores).any():
        raise ReplicateError(
            f"scores, positive: got {scores.size} scores, {np.isnan(scores).sum()} of them NaN, and "
            f"{positive.sum()} positives among {positive.size} labels; expected as many, one positive"
        )
    order = np.argsort(-scores, kind="stable")
    hits, accepted = np.cumsum(positive[order]), np.arange(1, scores.size + 1)
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    precise = last_of_ties & (100 * hits >= precision * accepted)
    return float(100 * hits[precise].max(initial=0) / positive.sum())


def tar_at_far(genuine: np.ndarray, impostor: np.ndarray, far: float) -> float:
    """True accept rate at a false accept rate (TCNN Table 2), both as fractions.

    Pairs are accepted above the lowest threshold that lets at most ``far`` of the impostor pairs pass.

    Parameters
    ----------
    genuine, impostor : arrays
        Similarities of same-person and of different-person pairs.
    far : float
        In (0, 1), for example 1e-2.
    """
    genuine, impostor = np.ravel(genuine).astype(float), np.ravel(impostor).astype(float)
    if not (genuine.size and impostor.size) or np.isnan(genuine).any() or np.isnan(impostor).any():
        raise ReplicateError("genuine, impostor: expected at least one similarity each and no NaN")
    if not 0 < far < 1:
        raise ReplicateError(f"far: got {far}, expected a fraction in (0, 1), for example 0.01")
    allowed = int(far * impostor.size + 1e-9)  # the sliver keeps 0.29 * 100 from becoming 28
    threshold = np.sort(impostor)[-1 - allowed]
    return float(np.mean(genuine > threshold))


def _checked_errors(errors: np.ndarray) -> np.ndarray:
    errors = np.asarray(errors, dtype=float)
    if not errors.size or not (errors >= 0).all():
        raise ReplicateError(
            f"errors: got {errors.size}, {np.isnan(errors).sum()} NaN and {(errors < 0).sum()} negative; "
            "expected at least one and none of those (a face without prediction has an infinite error)"
        )
    return errors


def _checked_threshold(threshold: float) -> float:
    if not 1 <= threshold < np.inf:
        raise ReplicateError(
            f"threshold: got {threshold}, expected per cent of the normaliser (8.0 for a paper's 0.08)"
        )
    return float(threshold)
