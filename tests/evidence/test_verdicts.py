"""The rule that turns paired errors into a verdict, with each of its outcomes."""

import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.evidence import claims
from replicate.evidence.verdicts import (
    combine,
    judge_against_number,
    judge_comparison,
    judge_interval,
    judge_paired,
    statistic_of,
)
from replicate.metrics import Comparison, Interval, auc, failure_rate, mcnemar

WHERE = dict(faces="synthetic", profile="cpu")


def compare(difference: float, half_width: float, right: float = 10.0) -> Comparison:
    low, high = difference - half_width, difference + half_width
    p_value = 0.001 if low > 0 or high < 0 else 0.4
    return Comparison(right + difference, right, difference, low, high, p_value)


@pytest.mark.parametrize(
    ("claim", "difference", "half_width", "verdict"),
    [
        # DAN-C1: lower by 14.3 % in print, so half of it is 0.717 on a right side of 10
        ("DAN-C1", -1.5, 0.5, "reproduced"),
        ("DAN-C1", -0.73, 0.5, "reproduced"),
        ("DAN-C1", -0.70, 0.5, "direction holds"),
        ("DAN-C1", -1.5, 1.6, "inconclusive"),
        ("DAN-C1", -0.3, 0.35, "not reproduced"),  # holds zero, excludes half of the effect
        ("DAN-C1", +0.3, 1.1, "inconclusive"),
        ("DAN-C1", +0.5, 0.3, "not reproduced"),
        # DAN-C3: higher by 20.4 %
        ("DAN-C3", +1.1, 0.5, "reproduced"),
        ("DAN-C3", +0.9, 0.5, "direction holds"),
        ("DAN-C3", -0.9, 0.5, "not reproduced"),
        ("DAN-C3", +0.1, 0.5, "not reproduced"),
        ("DAN-C3", +0.1, 1.5, "inconclusive"),
        # DAN-C11: the paper prints no effect
        ("DAN-C11", +0.1, 0.05, "reproduced"),
        ("DAN-C11", +0.1, 0.2, "inconclusive"),
        ("DAN-C11", -0.1, 0.05, "not reproduced"),
        # DAN-C12: equal within 3 %, 0.3 on a right side of 10
        ("DAN-C12", +0.1, 0.15, "reproduced"),
        ("DAN-C12", -0.1, 0.15, "reproduced"),
        ("DAN-C12", +0.2, 0.15, "inconclusive"),
        ("DAN-C12", +0.5, 0.15, "not reproduced"),
        ("DAN-C12", -0.5, 0.15, "not reproduced"),
        # DAN-C13: clearly higher, by at least 3 %, and the paper prints no effect
        ("DAN-C13", +0.5, 0.15, "reproduced"),
        ("DAN-C13", +0.2, 0.15, "direction holds"),
        ("DAN-C13", +0.1, 0.15, "not reproduced"),
        ("DAN-C13", +0.2, 0.25, "inconclusive"),
        ("DAN-C13", -0.5, 0.15, "not reproduced"),
        # TCNN-C16: no lower than by 2 %, 0.2 on a right side of 10; however much higher
        ("TCNN-C16", -0.1, 0.05, "reproduced"),
        ("TCNN-C16", +3.0, 0.15, "reproduced"),
        ("TCNN-C16", -0.2, 0.15, "inconclusive"),
        ("TCNN-C16", +0.1, 0.5, "inconclusive"),
        ("TCNN-C16", -0.5, 0.15, "not reproduced"),
        # DAN-C17: equal within 2.6 faces
        ("DAN-C17", 1.0, 0.9, "reproduced"),
        ("DAN-C17", 3.6, 0.9, "not reproduced"),
    ],
)
def test_rule(claim, difference, half_width, verdict):
    assert judge_comparison(claims.get(claim), compare(difference, half_width), **WHERE).verdict == verdict


@pytest.mark.parametrize(
    ("difference", "half_width", "note"),
    [
        (0.2, 0.05, "significant, but inside the margin"),
        (-0.2, 0.05, "significant, but inside the margin"),
        (0.1, 0.15, ""),
        (0.5, 0.15, "DAN, feature image 56 is higher by more than the margin"),
        (-0.5, 0.15, "DAN, feature image 56 is lower by more than the margin"),
    ],
)
def test_an_equality_tells_what_kind_of_difference_is_there(difference, half_width, note):
    judged = judge_comparison(claims.get("DAN-C12"), compare(difference, half_width), **WHERE)
    assert judged.note == note


def test_a_claim_that_something_does_not_help_tells_of_harm():
    verdict = judge_comparison(claims.get("TCNN-C16"), compare(3.0, 0.15), **WHERE)
    assert verdict.note == "lower by less than 0.2; significantly higher"
    verdict = judge_comparison(claims.get("TCNN-C16"), compare(-0.1, 0.05), **WHERE)
    assert verdict.note == "lower by less than 0.2"


def test_an_order_that_is_to_be_clear_says_how_much_it_asks_for():
    assert judge_comparison(claims.get("DAN-C13"), compare(0.5, 0.1), **WHERE).note == "clearly: at least 0.3"
    assert judge_comparison(claims.get("DAN-C11"), compare(0.5, 0.1), **WHERE).note == ""


def test_a_number_takes_either_side_of_a_claim():
    claim, sample = claims.get("DAN-C8"), errors(2)
    about = dict(statistic=np.mean, quantity=claim.quantity(at="full"), **WHERE)
    ahead = judge_against_number(claim, sample, 4.8, number_is_left=True, **about)
    assert (ahead.left, ahead.right) == (4.8, pytest.approx(sample.mean(), rel=1e-5))
    assert ahead.difference == pytest.approx(4.8 - sample.mean(), rel=1e-4)
    assert ahead.ci_low < ahead.difference < ahead.ci_high < 0
    assert (ahead.verdict, ahead.images, ahead.seeds) == ("reproduced", 400, 2)  # half of 1.8 % is less
    behind = judge_against_number(claims.get("DAN-C7"), sample, 4.8, statistic=np.mean, **WHERE)
    assert (behind.left, behind.right) == (ahead.right, 4.8)
    assert (behind.ci_low, behind.ci_high) == (-ahead.ci_high, -ahead.ci_low)
    assert behind.verdict == "not reproduced"


def test_an_effect_printed_against_the_claim_asks_for_no_size():
    judged = judge_comparison(claims.get("LDDR-C17"), compare(-0.01, 0.005), **WHERE)
    assert judged.verdict == "reproduced"


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        (Interval(48, 20, 60), "reproduced"),
        (Interval(48, 10, 60), "inconclusive"),
        (Interval(90, 80, 120), "not reproduced"),
    ],
)
def test_bounds(interval, verdict):
    judged = judge_interval(claims.get("TCNN-C12"), interval, **WHERE)
    assert (judged.verdict, judged.left, judged.ci_low) == (verdict, interval.value, interval.low)
    assert "limits 16 to 64" in judged.note


def test_bounds_and_comparisons_are_not_mixed_up():
    with pytest.raises(ReplicateError, match="use judge_interval"):
        judge_comparison(claims.get("TCNN-C12"), compare(1, 1), **WHERE)
    with pytest.raises(ReplicateError, match="use judge_paired"):
        judge_interval(claims.get("DAN-C1"), Interval(1, 0, 2), **WHERE)


def errors(seeds=1, images=400, scale=1.0, seed=0):
    return scale * np.random.default_rng(seed).gamma(4, 1.3, (seeds, images))


def test_paired_errors_give_the_plain_difference_of_means():
    left, right = errors(scale=0.8), errors()
    judged = judge_paired(claims.get("DAN-C1"), left, right, **WHERE)
    assert judged.verdict == "reproduced"
    assert judged.difference == pytest.approx(left.mean() - right.mean(), rel=1e-5)
    assert judged.ci_low < judged.difference < judged.ci_high < 0
    assert (judged.images, judged.seeds) == (400, 1)


def test_the_same_errors_on_both_sides_are_never_a_direction():
    judged = judge_paired(claims.get("DAN-C1"), errors(), errors(), **WHERE)
    assert (judged.difference, judged.ci_low, judged.ci_high, judged.verdict) == (0, 0, 0, "not reproduced")


def test_failures_of_one_seed_are_counted_and_tested_exactly():
    left, right = errors(scale=0.8), errors()
    judged = judge_paired(claims.get("DAN-C2"), left, right, **WHERE)
    counts = failure_rate(left, 8.0).count, failure_rate(right, 8.0).count
    assert judged.note == f"{counts[0]} of 400 against {counts[1]} of 400 fail"
    assert judged.left == pytest.approx(failure_rate(left, 8.0).percent, rel=1e-5)
    assert judged.p_value == pytest.approx(mcnemar(left[0] > 8, right[0] > 8), rel=1e-5)


def test_failures_of_several_seeds_are_pooled_in_the_note():
    judged = judge_paired(claims.get("DAN-C2"), errors(3, scale=0.8), errors(3), **WHERE)
    assert judged.seeds == 3 and "of 1200 against" in judged.note


def test_few_discordant_failures_are_not_significant_whatever_the_bootstrap_says():
    left = np.ones(600)
    right = left.copy()
    right[:5] = 9.0  # five failures less: p = 0.0625 by the exact test
    assert judge_paired(claims.get("DAN-C2"), left, right, **WHERE).verdict == "inconclusive"
    right[:6] = 9.0  # six: p = 0.031
    assert judge_paired(claims.get("DAN-C2"), left, right, **WHERE).verdict == "reproduced"


def test_the_worst_of_several_verdicts_counts():
    claim = claims.get("DAN-C1")
    parts = [judge_comparison(claim, compare(d, 0.1), **WHERE) for d in (-1.5, -0.5, 0.5)]
    assert combine(parts[:1], ["a"]).verdict == "reproduced"
    assert combine(parts[:2], ["a", "b"]).verdict == "direction holds"
    assert combine(parts, ["a", "b", "c"], "three sets").verdict == "not reproduced"
    assert combine(parts, ["a", "b", "c"], "three sets").note.startswith(
        "three sets; a: -1.5 [-1.6, -1.4] reproduced"
    )
    with pytest.raises(ReplicateError, match="all on the same claim"):
        combine([parts[0], judge_comparison(claims.get("DAN-C3"), compare(1, 0.1), **WHERE)], ["a", "b"])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("mean error, inter-ocular", lambda e: e.mean()),
        ("AUC 0.08, inter-ocular", lambda e: auc(e, 8.0)),
        ("failure rate 0.10", lambda e: 100 * np.mean(e > 10)),
    ],
)
def test_statistics_by_name(metric, expected):
    sample = errors()[0]
    assert statistic_of(metric)(sample, axis=-1) == pytest.approx(expected(sample))


@pytest.mark.parametrize("metric", ["median error", "AUC", "failure rate often"])
def test_unknown_statistics_are_refused(metric):
    with pytest.raises(ReplicateError, match="metric: got"):
        statistic_of(metric)


def test_unequal_numbers_of_images_are_refused():
    with pytest.raises(ReplicateError, match="400 and 300 images"):
        judge_paired(claims.get("DAN-C1"), errors(), errors(images=300), **WHERE)
