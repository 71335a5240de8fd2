"""Intervals of statistics of all faces together: closed forms, and what they share with the bootstrap over images."""

import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.metrics import (
    bootstrap_statistic,
    compare_curves,
    compare_recalls,
    curve_interval,
    paired_bootstrap,
    recall_against_number,
    recall_at_precision,
    recall_interval,
)


def second(means):
    return means[..., 1]


def best(means):
    return means.argmin(-1)


def occlusion(faces=60, points=8, seed=0, noise=0.7):
    """Scores that tell hidden points with some noise; a face has many hidden points or few."""
    rng = np.random.default_rng(seed)
    hidden = rng.random((faces, points)) < rng.beta(0.4, 1.2, (faces, 1))
    return hidden + noise * rng.normal(size=hidden.shape), hidden


# Curves


def test_a_mean_at_one_setting_has_the_interval_of_the_mean():
    errors = np.random.default_rng(0).gamma(4, 1, (150, 3))
    assert curve_interval(errors, second) == pytest.approx(
        bootstrap_statistic(errors[:, 1], np.mean), rel=1e-9
    )
    left, right = errors[:, :2], errors[:, ::-1]
    expected = paired_bootstrap(left[:, 1], right[:, 1])
    assert compare_curves(left, right, second) == pytest.approx(expected, rel=1e-9)


def test_seeds_are_averaged_after_the_statistic():
    rng = np.random.default_rng(1)
    errors = rng.normal(5, 0.01, (2, 40, 4))
    errors[0, :, 1] -= 1  # the first seed is best at setting 1, the second at 3
    errors[1, :, 3] -= 1
    found = curve_interval(errors, best)
    assert found == (2.0, 1.0, 3.0)  # a resample has the first seed twice, the second twice, or both


def test_faces_stay_together_over_settings_and_methods():
    offset = np.random.default_rng(2).normal(0, 10, (50, 1))  # hard and easy faces
    curve = np.array([3.0, 1.0, 2.0])
    left, right = 100 + curve + offset, 100 + curve[::-1] + offset
    assert curve_interval(left, best) == (1, 1, 1)
    gap = compare_curves(left, right, lambda means: means[..., 0] - means[..., 2])
    assert (gap.left, gap.right) == (pytest.approx(1), pytest.approx(-1))
    assert (gap.low, gap.high) == (pytest.approx(2), pytest.approx(2))
    assert gap.p_value == pytest.approx(2 / 2001)


def test_the_same_seed_draws_the_same_faces_and_sides_may_differ_in_settings():
    errors = np.random.default_rng(3).gamma(4, 1, (2, 30, 5))
    assert curve_interval(errors, best) == curve_interval(errors, best)
    assert curve_interval(errors, second, seed=1) != curve_interval(errors, second)
    same = compare_curves(errors, errors[..., :2], second)
    assert same[2:5] == (0, 0, 0) and same.p_value == 1


# Recalls


def test_a_recall_is_that_of_all_landmarks_and_its_interval_that_of_faces():
    scores, hidden = occlusion()
    found = recall_interval(scores, hidden, 80.0)
    assert found.value == recall_at_precision(scores, hidden, 80.0) and 10 < found.value < 90
    assert found.low < found.value < found.high
    # as plain resampling of faces has it, from the same draws
    rng = np.random.default_rng(0).spawn(2)[0]
    drawn = rng.integers(60, size=(200, 60))
    plain = [recall_at_precision(scores[faces], hidden[faces], 80.0) for faces in drawn]
    few = recall_interval(scores, hidden, 80.0, resamples=200)
    assert few[1:] == pytest.approx(np.percentile(plain, (2.5, 97.5)), rel=1e-9)


def test_ties_are_accepted_together_in_every_resample():
    scores, hidden = occlusion()
    coarse = scores.round()
    drawn = np.random.default_rng(0).spawn(2)[0].integers(60, size=(100, 60))
    plain = [recall_at_precision(coarse[faces], hidden[faces], 60.0) for faces in drawn]
    found = recall_interval(coarse, hidden, 60.0, resamples=100)
    assert found[1:] == pytest.approx(np.percentile(plain, (2.5, 97.5)), rel=1e-9)


def test_perfect_scores_recall_all_and_useless_ones_nothing():
    _, hidden = occlusion()
    assert recall_interval(hidden, hidden, 80.0) == (100, 100, 100)
    assert recall_interval(1.0 - hidden, hidden, 80.0) == (0, 0, 0)
    gap = compare_recalls(hidden, 1.0 - hidden, hidden, 80.0)
    assert gap[:5] == (100, 0, 100, 100, 100) and gap.p_value < 0.01


def test_recalls_are_compared_on_the_same_faces():
    scores, hidden = occlusion()
    worse = occlusion(noise=1.2)[0]
    same = compare_recalls(scores, scores, hidden, 80.0)
    assert same[2:5] == (0, 0, 0) and same.p_value == 1
    better = compare_recalls(scores, worse, hidden, 80.0)
    alone = [recall_interval(side, hidden, 80.0) for side in (scores, worse)]
    assert (better.left, better.right) == (alone[0].value, alone[1].value)
    assert 0 < better.low < better.difference < better.high


def test_a_printed_recall_has_no_interval():
    scores, hidden = occlusion()
    ours, gap = recall_interval(scores, hidden, 80.0), recall_against_number(scores, hidden, 80.0, 49.11)
    assert (gap.left, gap.right, gap.difference) == (ours.value, 49.11, ours.value - 49.11)
    assert (gap.low, gap.high) == pytest.approx((ours.low - 49.11, ours.high - 49.11))


def test_recalls_of_several_seeds_are_averaged():
    first, hidden = occlusion()
    second_seed = occlusion(noise=1.2)[0]
    both = recall_interval(np.stack([first, second_seed]), hidden, 80.0)
    alone = [recall_interval(one, hidden, 80.0) for one in (first, second_seed)]
    assert both.value == pytest.approx((alone[0].value + alone[1].value) / 2)
    assert both.low < alone[1].value < alone[0].value < both.high  # seeds are drawn as well


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: curve_interval(np.ones(5), best), r"errors: got shape \(5,\)"),
        (lambda: curve_interval(np.ones((1, 4)), best), "two faces or more"),
        (lambda: curve_interval(np.full((5, 4), np.inf), best), "finite"),
        (lambda: compare_curves(np.ones((5, 4)), np.ones((6, 4)), best), "errors of 5 and 6 faces"),
        (lambda: recall_interval(np.ones((5, 4)), np.ones((5, 3), bool), 80.0), r"shapes \(1, 5, 4\) and \(5, 3\)"),
        (lambda: recall_interval(np.ones((5, 4)), np.zeros((5, 4), bool), 80.0), "expected as many, one positive"),
        (lambda: recall_interval(np.full((5, 4), np.nan), np.ones((5, 4), bool), 80.0), "20 of them NaN"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ReplicateError, match=message):
        call()
