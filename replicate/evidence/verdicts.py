"""From paired errors to a verdict.

The rule, with d = left - right, its 95 % interval, and e the effect that the paper prints relative to its
right
side (half of it is asked for, because other faces and sizes change effects):

* ``lower`` and ``higher``: ``reproduced`` if d is significant in the claimed direction and at least half of e
  (or if the paper prints no effect); ``direction holds`` if significant but smaller; ``not reproduced`` if
  significant the other way, or if the interval holds zero and excludes half of e; ``inconclusive`` if the
  interval holds both.
  A claim without a printed effect may state a margin ("clearly worse"), which then takes the place of half of e.
* ``equal``: ``reproduced`` if the interval lies inside the margin that is stated with the claim,
  ``not reproduced`` if it lies outside, ``inconclusive`` if it crosses the margin.
* ``not lower``: the same with the lower end of the margin alone; the left side may be higher by any amount.
* ``bound``: the same with the interval of the left side and two limits.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from replicate.errors import ReplicateError
from replicate.evidence.claims import Claim, Quantity, Verdict
from replicate.metrics import (
    Comparison,
    Interval,
    Statistic,
    against_number,
    auc,
    failure_percent,
    failures,
    mcnemar,
    paired_bootstrap,
)
from replicate.vocabulary import check_one_of

SIGNIFICANCE = 0.05
ORDER = ("not reproduced", "inconclusive", "direction holds", "reproduced")


def statistic_of(metric: str) -> Statistic:
    """The statistic that a metric's name stands for.

    Parameters
    ----------
    metric : str
        ``"mean error"``, ``"AUC 0.08"`` or ``"failure rate 0.08"``, with or without ``", inter-ocular"``; the
        threshold is
        a fraction of the normaliser, as the papers write it.

    Returns
    -------
    callable
        ``statistic(errors, axis=-1)`` of errors in per cent, giving per cent.
    """
    name = metric.split(", ")[0]
    if name == "mean error":
        return np.mean
    kind, _, threshold = name.rpartition(" ")
    makers = {"AUC": auc, "failure rate": failure_percent}
    check_one_of("metric", kind, makers)
    try:
        return partial(makers[kind], threshold=100 * float(threshold))
    except ValueError as error:
        raise ReplicateError(f"metric: got {metric!r}, expected a threshold such as 'AUC 0.08'") from error


def judge_paired(
    claim: Claim,
    left: np.ndarray,
    right: np.ndarray,
    *,
    faces: str,
    profile: str,
    metric: str | None = None,
    at: str | None = None,
    note: str = "",
) -> Verdict:
    """Judge a claim of errors by a bootstrap over images and seeds, paired.

    Failure rates of one seed are tested by McNemar's exact test, and the note gives the counts.

    Parameters
    ----------
    claim : Claim
        What is claimed.
    left, right : (N,) or (S, N) arrays
        Errors in per cent of N images, of S seeds, of the claim's two sides.
    faces, profile : str
        What they were measured on.
    metric, at : str, optional
        Which of the claim's quantities; the first unless told otherwise.
    note : str
        Put before the counts.

    Returns
    -------
    Verdict

    Raises
    ------
    ReplicateError
        If the arrays do not fit each other, or for a bound (see `judge_interval`).
    """
    left, right = np.atleast_2d(left), np.atleast_2d(right)
    quantity = claim.quantity(metric, at)
    statistic = statistic_of(quantity.metric)
    comparison = paired_bootstrap(left, right, statistic)
    remarks = [note]
    if quantity.metric.startswith("failure rate"):
        threshold = statistic.keywords["threshold"]
        fails = failures(left, threshold), failures(right, threshold)
        if len(left) == len(right) == 1:
            comparison = comparison._replace(p_value=mcnemar(fails[0][0], fails[1][0]))
        remarks.append(" against ".join(f"{side.sum()} of {side.size}" for side in fails) + " fail")
    return judge_comparison(
        claim,
        comparison,
        faces=faces,
        profile=profile,
        quantity=quantity,
        images=left.shape[1],
        seeds=max(len(left), len(right)),
        note="; ".join(filter(None, remarks)),
    )


def judge_against_number(
    claim: Claim,
    errors: np.ndarray,
    number: float,
    *,
    statistic: Statistic,
    faces: str,
    profile: str,
    quantity: Quantity | None = None,
    number_is_left: bool = False,
    note: str = "",
) -> Verdict:
    """Judge a claim of which one side is a number without an interval.

    Parameters
    ----------
    claim : Claim
        What is claimed.
    errors : (N,) or (S, N) array
        Errors in per cent of N images, of S seeds, of the other side.
    number : float
        In the unit of the statistic.
    statistic : callable
        Of the errors, see `statistic_of`.
    quantity : Quantity, optional
        Which of the claim's; its first.
    number_is_left : bool
        Whether the number is the claim's left side.
    """
    errors = np.atleast_2d(errors)
    comparison = against_number(errors, number, statistic)
    if number_is_left:
        c = comparison
        comparison = Comparison(c.right, c.left, -c.difference, -c.high, -c.low, c.p_value)
    return judge_comparison(
        claim,
        comparison,
        faces=faces,
        profile=profile,
        quantity=quantity,
        images=errors.shape[1],
        seeds=len(errors),
        note=note,
    )


def judge_comparison(
    claim: Claim,
    comparison: Comparison,
    *,
    faces: str,
    profile: str,
    quantity: Quantity | None = None,
    images: int | None = None,
    seeds: int | None = None,
    note: str = "",
) -> Verdict:
    """Judge a claim from a comparison made elsewhere: of variances, times, rates.

    Parameters
    ----------
    claim : Claim
        Of another direction than ``bound``.
    comparison : Comparison
        Both sides and their difference with its interval.
    quantity : Quantity, optional
        Which of the claim's; its first.
    """
    quantity = quantity or claim.quantity()
    if claim.direction == "bound":
        raise ReplicateError(f"{claim.id} is about a range: use judge_interval")
    rule, remark = {"equal": (_equality, _how_unequal), "not lower": (_no_lower, _how_much_lower)}.get(
        claim.direction, (_order, _clearly)
    )
    note = "; ".join(filter(None, [note, remark(claim, quantity, comparison)]))
    return Verdict(
        claim=claim.id,
        faces=faces,
        profile=profile,
        verdict=rule(claim, quantity, comparison),
        left=comparison.left,
        right=comparison.right,
        difference=comparison.difference,
        ci_low=comparison.low,
        ci_high=comparison.high,
        p_value=comparison.p_value,
        images=images,
        seeds=seeds,
        note=note,
    )


def judge_interval(
    claim: Claim,
    interval: Interval,
    *,
    faces: str,
    profile: str,
    images: int | None = None,
    seeds: int | None = None,
    note: str = "",
) -> Verdict:
    """Judge a claim that a number lies between two limits."""
    if claim.direction != "bound":
        raise ReplicateError(f"{claim.id} compares two sides: use judge_paired or judge_comparison")
    margin = claim.quantity().margin
    return Verdict(
        claim=claim.id,
        faces=faces,
        profile=profile,
        verdict=_inside(interval.low, interval.high, margin["low"], margin["high"]),
        left=interval.value,
        ci_low=interval.low,
        ci_high=interval.high,
        images=images,
        seeds=seeds,
        note="; ".join(
            filter(None, [note, f"limits {margin['low']} to {margin['high']}: {margin['reason']}"])
        ),
    )


def combine_quantities(claim: Claim, judged: Sequence[tuple[Quantity, Verdict]], note: str = "") -> Verdict:
    """One verdict of those on several quantities of a claim, each named by metric or condition and with its margin; see `combine`.

    Where they are on different numbers of images, the note has these, and the verdict has none.
    """
    several_metrics = len({quantity.metric for quantity, _ in judged}) > 1
    names = []
    for quantity, verdict in judged:
        margin = quantity.margin_at(verdict.right) if claim.direction == "equal" else None
        name = quantity.metric if several_metrics else quantity.at
        names.append(name if margin is None else f"{name} (margin ±{margin:.3g})")
    parts = [verdict for _, verdict in judged]
    if len({part.images for part in parts}) == 1:
        return combine(parts, names, note)
    names = [f"{name}, {part.images:,} images" for name, part in zip(names, parts, strict=True)]
    return replace(combine(parts, names, note), images=None)


def combine(verdicts: Sequence[Verdict], names: Sequence[str], note: str = "") -> Verdict:
    """One verdict of several on the same claim: the worst; its numbers are the first's, the note has all of them.

    A claim of which one part holds and another is refuted is not reproduced.
    """
    if not verdicts or len({(v.claim, v.faces, v.profile) for v in verdicts}) != 1:
        raise ReplicateError("verdicts: expected at least one, all on the same claim, faces and profile")
    worst = min(verdicts, key=lambda v: ORDER.index(check_one_of("verdict", v.verdict, ORDER)))
    parts = [
        f"{name}: {v.difference:+.3g} [{v.ci_low:+.3g}, {v.ci_high:+.3g}] {v.verdict}"
        + f" ({v.note})" * bool(v.note)
        for name, v in zip(names, verdicts, strict=True)
    ]
    first = verdicts[0].to_dict()
    return Verdict(**first | {"verdict": worst.verdict, "note": "; ".join(filter(None, [note, *parts]))})


def _order(claim: Claim, quantity: Quantity, comparison: Comparison) -> str:
    """Verdict on `lower` or `higher`, with differences turned so that positive is the claimed direction."""
    sign = -1 if claim.direction == "lower" else 1
    low, high = sorted((sign * comparison.low, sign * comparison.high))
    significant = comparison.p_value < SIGNIFICANCE and not low <= 0 <= high
    wanted = _least_effect(quantity, comparison, sign)
    if significant and sign * comparison.difference > 0:
        enough = wanted is None or sign * comparison.difference >= wanted
        return "reproduced" if enough else "direction holds"
    if significant or (wanted is not None and low <= 0 <= high < wanted):
        return "not reproduced"
    return "inconclusive"


def _least_effect(quantity: Quantity, comparison: Comparison, sign: int) -> float | None:
    """Half of the paper's relative effect on our right side, or the margin if it prints none; None if it contradicts the claim."""
    effect = quantity.effect
    if effect is None:
        return quantity.margin_at(comparison.right)
    return sign * effect * abs(comparison.right) / 2 if sign * effect > 0 else None


def _clearly(claim: Claim, quantity: Quantity, comparison: Comparison) -> str:
    """What the note of an order claim says of the least difference that was asked for beforehand; otherwise nothing."""
    least = quantity.margin_at(comparison.right) if quantity.effect is None else None
    return "" if least is None else f"clearly: at least {least:.3g}"


def _equality(claim: Claim, quantity: Quantity, comparison: Comparison) -> str:
    width = _margin(claim, quantity, comparison)
    return _inside(comparison.low, comparison.high, -width, width)


def _how_unequal(claim: Claim, quantity: Quantity, comparison: Comparison) -> str:
    """What an equality's note says of a difference: that it is significant but too small to count, or which way it is too large."""
    low, high = comparison.low, comparison.high
    found = _equality(claim, quantity, comparison)
    if found == "not reproduced":
        return f"{claim.left} is {'lower' if high < 0 else 'higher'} by more than the margin"
    return "significant, but inside the margin" if found == "reproduced" and not low <= 0 <= high else ""


def _no_lower(claim: Claim, quantity: Quantity, comparison: Comparison) -> str:
    return _inside(comparison.low, comparison.high, -_margin(claim, quantity, comparison), np.inf)


def _how_much_lower(claim: Claim, quantity: Quantity, comparison: Comparison) -> str:
    """What the note of a claim that something does not help says of the least help that counts, and of harm."""
    if _no_lower(claim, quantity, comparison) != "reproduced":
        return ""
    harm = "; significantly higher" if comparison.low > 0 else ""
    return f"lower by less than {_margin(claim, quantity, comparison):.3g}{harm}"


def _margin(claim: Claim, quantity: Quantity, comparison: Comparison) -> float:
    width = quantity.margin_at(comparison.right)
    if width is None:
        raise ReplicateError(
            f"{claim.id}: a claim of {claim.direction!r} needs a margin in data/published/claims.yaml"
        )
    return width


def _inside(low: float, high: float, lower_limit: float, upper_limit: float) -> str:
    if lower_limit <= low and high <= upper_limit:
        return "reproduced"
    return "not reproduced" if high < lower_limit or low > upper_limit else "inconclusive"
