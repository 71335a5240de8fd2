"""Metrics: closed forms, invariants and independent implementations."""

from functools import partial
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.integrate import simpson

from replicate import metrics
from replicate.errors import ReplicateError
from replicate.faces.markups import MARKUPS, convert, markup

errors_strategy = arrays(float, st.integers(1, 60), elements=st.floats(0, 40))


def five_points() -> np.ndarray:
    """Eyes 40 px apart at (30, 40) and (70, 40), nose tip 30 px below their middle, mouth corners."""
    return np.array([[[30.0, 40], [70, 40], [50, 70], [35, 90], [65, 90]]])


def random_face(seed: int, count: int = 3, size: int = 68) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 200, (count, size, 2))


# --- normalisers ------------------------------------------------


@pytest.mark.parametrize(
    ("normaliser", "expected"),
    [
        ("inter-pupil", 40),
        ("eye-nose", 30),
        ("diagonal", np.hypot(40, 50)),
        ("face", 45),
        ("box", np.sqrt(20 * 45)),
    ],
)
def test_normalising_distances_in_closed_form(normaliser, expected):
    boxes = np.array([[10, 20, 30, 65]])
    distance = metrics.normalising_distance(five_points(), normaliser, "mtfl5", boxes)
    np.testing.assert_allclose(distance, [expected])


def test_inter_ocular_is_the_outer_corners_and_inter_pupil_the_eye_means():
    points = random_face(0)
    outer = np.hypot(*(points[:, 36] - points[:, 45]).T)
    pupil = np.hypot(*(points[:, 36:42].mean(1) - points[:, 42:48].mean(1)).T)
    for target in ("ibug68", "ibug51", "ibug49"):
        subset = convert(points, "ibug68", target)
        np.testing.assert_allclose(metrics.normalising_distance(subset, "inter-ocular", target), outer)
        np.testing.assert_allclose(metrics.normalising_distance(subset, "inter-pupil", target), pupil)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((five_points(), "pupils", "mtfl5"), "normaliser: got 'pupils'.*inter-pupil"),
        ((five_points(), "inter-ocular", "mtfl5"), "mtfl5 has no eye corners.*inter-pupil"),
        ((five_points(), "box", "mtfl5"), "boxes:.*none were given"),
        ((five_points(), "box", "mtfl5", np.zeros((2, 4))), r"boxes: got shape \(2, 4\), expected \(1, 4\)"),
        ((five_points(), "box", "mtfl5", np.array([[9, 9, 1, 1]])), "face 0 has box distance 0"),
        ((five_points()[:, :4], "diagonal", "mtfl5"), r"points: got shape \(1, 4, 2\)"),
        ((np.zeros((2, 5, 2)), "inter-pupil", "mtfl5"), "face 0 has inter-pupil distance 0.*2 bad faces"),
        ((five_points() * np.nan, "diagonal", "mtfl5"), "face 0 has diagonal distance nan"),
    ],
)
def test_bad_normalisers_say_what_is_wrong(arguments, message):
    with pytest.raises(ReplicateError, match=message):
        metrics.normalising_distance(*arguments)


def test_the_normaliser_has_no_default():
    with pytest.raises(TypeError, match="normaliser"):
        metrics.nme(five_points(), five_points(), markup="mtfl5")


# --- errors -----------------------------------------------------


def test_nme_of_a_constant_offset_in_closed_form():
    error = metrics.nme(
        five_points() + np.array([3, 4]), five_points(), normaliser="inter-pupil", markup="mtfl5"
    )
    np.testing.assert_allclose(error, [100 * 5 / 40])


@pytest.mark.parametrize("name", MARKUPS)
@given(seed=st.integers(0, 999), angle=st.floats(-3.2, 3.2), scale=st.floats(0.05, 20))
def test_nme_is_invariant_to_similarity(name, seed, angle, scale):
    rng = np.random.default_rng(seed)
    true = rng.uniform(0, 100, (2, markup(name).size, 2))
    predicted = true + rng.normal(size=true.shape)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for normaliser in ("inter-pupil", "eye-nose"):
        kwargs = {"normaliser": normaliser, "markup": name}
        np.testing.assert_allclose(
            metrics.nme(predicted @ turn.T + 7, true @ turn.T + 7, **kwargs),
            metrics.nme(predicted, true, **kwargs),
            rtol=1e-6,
        )


def test_the_squared_form_that_is_printed_in_one_paper_depends_on_resolution():
    true, predicted = random_face(1), random_face(2)
    kwargs = {"normaliser": "inter-pupil", "markup": 68}

    def squared(predicted, true):
        return ((predicted - true) ** 2).sum((1, 2)) / metrics.normalising_distance(true, "inter-pupil", 68)

    np.testing.assert_allclose(squared(2 * predicted, 2 * true), 2 * squared(predicted, true))
    np.testing.assert_allclose(
        metrics.nme(2 * predicted, 2 * true, **kwargs), metrics.nme(predicted, true, **kwargs)
    )


def test_nme_is_the_mean_of_the_point_errors_and_of_a_plain_loop():
    true, predicted = random_face(3), random_face(4)
    kwargs = {"normaliser": "diagonal", "markup": "ibug68"}
    looped = []
    for s, t in zip(predicted, true, strict=True):
        diagonal = np.hypot(t[:, 0].max() - t[:, 0].min(), t[:, 1].max() - t[:, 1].min())
        looped.append(100 * np.mean([np.hypot(*(a - b)) for a, b in zip(s, t, strict=True)]) / diagonal)
    np.testing.assert_allclose(metrics.nme(predicted, true, **kwargs), looped)
    np.testing.assert_allclose(metrics.per_point_error(predicted, true, **kwargs).mean(1), looped)


def test_only_visible_points_count_and_the_others_may_be_missing():
    true, predicted = five_points(), five_points() + np.array([0, 4])
    predicted[0, 4] += 1000
    true[0, 3] = np.nan
    visible = np.array([[True, True, True, False, False]])
    kwargs = {"normaliser": "inter-pupil", "markup": "mtfl5", "visible": visible}
    np.testing.assert_allclose(metrics.nme(predicted, true, **kwargs), [10])
    np.testing.assert_array_equal(np.isnan(metrics.per_point_error(predicted, true, **kwargs)), ~visible)


@pytest.mark.parametrize(
    ("predicted", "true", "visible", "message"),
    [
        (five_points()[:, :3], five_points(), None, r"shapes \(1, 3, 2\) and \(1, 5, 2\)"),
        (five_points() * np.nan, five_points(), None, "predicted: point 0 of face 0.*5 such points"),
        (five_points(), five_points() * np.inf, None, "true: point 0 of face 0"),
        (five_points(), five_points(), np.ones((1, 4)), r"visible: got shape \(1, 4\), expected \(1, 5\)"),
        (five_points(), five_points(), np.zeros((1, 5)), "face 0 has no visible point"),
    ],
)
def test_bad_landmarks_say_what_is_wrong(predicted, true, visible, message):
    with pytest.raises(ReplicateError, match=message):
        metrics.nme(predicted, true, normaliser="inter-pupil", markup="mtfl5", visible=visible)


def test_mape_is_in_pixels_and_averages_faces():
    true = np.concatenate([five_points(), five_points()])
    predicted = true + np.array([[[3, 4]], [[0, 1]]])
    np.testing.assert_allclose(metrics.pixel_error(predicted, true), [5, 1])
    assert metrics.mape(predicted, true) == pytest.approx(3)


# --- curves -----------------------------------------------------


@given(errors=errors_strategy)
def test_ced_is_the_empirical_distribution(errors):
    thresholds, fraction = metrics.ced(errors)
    assert thresholds[0] == 0 and (np.diff(thresholds) > 0).all() and fraction[-1] == 1
    np.testing.assert_allclose(fraction, [(errors <= t).mean() for t in thresholds])


def test_ced_steps_at_ties():
    thresholds, fraction = metrics.ced([2.0, 1.0, 2.0, 4.0])
    np.testing.assert_array_equal(thresholds, [0, 1, 2, 4])
    np.testing.assert_array_equal(fraction, [0, 0.25, 0.75, 1])
    np.testing.assert_array_equal(metrics.ced_at([2.0, 1.0, 2.0, 4.0], [[0.9, 3.9]]), [[0, 0.75]])


@given(threshold=st.floats(1, 100), count=st.integers(1, 50))
def test_a_perfect_predictor_has_exactly_100_and_a_hopeless_one_0(threshold, count):
    assert metrics.auc(np.zeros(count), threshold) == 100
    assert metrics.auc(np.full(count, threshold), threshold) == 0
    assert metrics.auc(np.full(count, np.inf), threshold) == 0


@given(errors=errors_strategy, threshold=st.floats(1, 30))
def test_auc_is_the_area_under_the_steps(errors, threshold):
    thresholds, fraction = metrics.ced(errors)
    inside = thresholds < threshold
    widths = np.diff(np.append(thresholds[inside], threshold))
    area = 100 * np.sum(fraction[inside] * widths) / threshold
    assert metrics.auc(errors, threshold) == pytest.approx(area, abs=1e-9)


@given(errors=errors_strategy)
def test_auc_agrees_with_simpson_on_a_fine_grid(errors):
    grid = np.linspace(0, 8, 20_001)
    area = 100 * simpson(metrics.ced_at(errors, grid), x=grid) / 8
    assert metrics.auc(errors, 8.0) == pytest.approx(area, abs=0.05)


def test_auc_in_closed_form_and_along_an_axis():
    assert metrics.auc([0.0, 4.0, 8.0, 100.0], 8.0) == 37.5
    samples = np.random.default_rng(0).uniform(0, 12, (5, 3, 40))
    expected = [[metrics.auc(images, 8.0) for images in seeds] for seeds in samples]
    np.testing.assert_allclose(metrics.auc(samples, 8.0), expected)


def test_failures_are_errors_above_the_threshold_with_their_count():
    rate = metrics.failure_rate([7.9, 8.0, 8.1, np.inf], 8.0)
    assert rate == (50.0, 2) and rate.percent == 50 and rate.count == 2
    np.testing.assert_array_equal(metrics.failures([7.9, 8.0, 8.1], 8.0), [False, False, True])


@given(errors=errors_strategy, place=st.integers(0, 10**6))
def test_failures_are_what_the_curve_leaves_out_at_errors_too(errors, place):
    """The rule at the threshold itself: an error that equals it is a success on the curve, so it is no failure."""
    threshold = float(np.ravel(errors)[place % np.size(errors)])
    threshold = threshold if 1 <= threshold < np.inf else 8.0
    rate = metrics.failure_rate(errors, threshold)
    assert rate.count == np.size(errors) - round(metrics.ced_at(errors, threshold) * np.size(errors))


def test_failure_percent_is_the_rate_along_the_images():
    errors = np.array([[7.9, 8.0, 8.1, np.inf], [1.0, 2.0, 3.0, 9.0]])
    np.testing.assert_array_equal(metrics.failure_percent(errors, 8.0), [50, 25])
    np.testing.assert_array_equal(metrics.failure_percent(errors.T, 8.0, axis=0), [50, 25])
    assert metrics.failure_percent(errors.ravel(), 8.0) == metrics.failure_rate(errors, 8.0).percent


def test_published_failure_counts_give_the_published_rates():
    errors = np.r_[np.full(681, 3.0), np.full(8, 9.0)]
    assert round(metrics.failure_rate(errors, 8.0).percent, 2) == 1.16  # DAN Table 3: 8 of 689


@pytest.mark.parametrize("threshold", [0.08, 0, -8, np.nan, np.inf])
def test_a_threshold_that_is_not_in_per_cent_is_refused(threshold):
    for rate in (metrics.auc, metrics.failure_rate):
        with pytest.raises(ReplicateError, match=r"per cent.*8\.0"):
            rate([1.0], threshold)


@pytest.mark.parametrize("errors", [[], [1.0, np.nan], [-1.0]])
def test_bad_errors_are_refused(errors):
    for curve in (metrics.ced, partial(metrics.auc, threshold=8.0)):
        with pytest.raises(ReplicateError, match="errors"):
            curve(errors)


# --- scores -----------------------------------------------------


def brute_force_recall(scores, positive, precision):
    best = 0.0
    for threshold in np.unique(scores):
        accepted = scores >= threshold
        if 100 * positive[accepted].mean() >= precision:
            best = max(best, 100 * positive[accepted].sum() / positive.sum())
    return best


@given(seed=st.integers(0, 9999), precision=st.sampled_from([10.0, 50.0, 80.0, 100.0]))
def test_recall_at_precision_agrees_with_all_thresholds(seed, precision):
    rng = np.random.default_rng(seed)
    positive = rng.random(30) < 0.4
    positive[0] = True
    scores = np.round(rng.normal(size=30) + positive, 1)  # rounding makes ties
    found = metrics.recall_at_precision(scores.reshape(5, 6), positive.reshape(5, 6), precision)
    assert found == pytest.approx(brute_force_recall(scores, positive, precision))


def test_recall_at_precision_by_hand():
    scores, positive = np.array([9, 8, 7, 6, 5]), np.array([1, 1, 0, 1, 1])
    assert metrics.recall_at_precision(scores, positive, 80.0) == 100  # all five: precision 4/5
    assert metrics.recall_at_precision(scores, positive, 81.0) == 50  # the first two
    assert metrics.recall_at_precision(-scores, ~positive.astype(bool), 80.0) == 0
    with pytest.raises(ReplicateError, match="positive"):
        metrics.recall_at_precision(scores, np.zeros(5), 80.0)


@given(seed=st.integers(0, 9999), far=st.sampled_from([0.01, 0.07, 0.1, 0.29]))
def test_tar_is_the_best_among_all_thresholds_that_keep_the_far(seed, far):
    rng = np.random.default_rng(seed)
    impostor, genuine = np.round(rng.normal(size=100), 1), np.round(rng.normal(1, 1, 80), 1)
    thresholds = np.unique(np.r_[impostor, genuine, -np.inf])
    best = max(np.mean(genuine > t) for t in thresholds if (impostor > t).sum() <= round(100 * far))
    assert metrics.tar_at_far(genuine, impostor, far) == pytest.approx(best)


def test_tar_at_far_by_hand():
    impostor = np.arange(10)
    assert metrics.tar_at_far([8.5, 9.5, 7.0, 20], impostor, 0.1) == 0.75  # one impostor, 9, may pass
    assert metrics.tar_at_far([8.5, 9.5, 7.0, 20], impostor, 0.05) == 0.5  # none may
    for bad in (0, 1, 80):
        with pytest.raises(ReplicateError, match="far"):
            metrics.tar_at_far([1.0], impostor, bad)
    with pytest.raises(ReplicateError, match="genuine"):
        metrics.tar_at_far([np.nan], impostor, 0.1)


# --- statistics -------------------------------------------------


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval():
    errors = np.random.default_rng(0).gamma(4, 1, 400)
    value, low, high = metrics.bootstrap_mean(errors, resamples=4000)
    half = 1.96 * errors.std(ddof=1) / np.sqrt(400)
    assert value == pytest.approx(errors.mean())
    assert low == pytest.approx(value - half, abs=0.1 * half)
    assert high == pytest.approx(value + half, abs=0.1 * half)


def test_bootstrap_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(1)
    intervals = [metrics.bootstrap_mean(rng.normal(5, 1, 50), resamples=300, seed=i) for i in range(400)]
    coverage = np.mean([low <= 5 <= high for _, low, high in intervals])
    assert 0.90 < coverage < 0.98


def test_bootstrap_is_repeatable_and_independent_of_the_block_size(monkeypatch):
    errors = np.random.default_rng(2).uniform(0, 9, (2, 50))
    whole = metrics.bootstrap_mean(errors, seed=3)
    assert whole == metrics.bootstrap_mean(errors, seed=3) != metrics.bootstrap_mean(errors, seed=4)
    monkeypatch.setattr("replicate.metrics.comparisons._BLOCK", 5_000)
    blocks = metrics.bootstrap_mean(errors, seed=3)
    np.testing.assert_allclose(blocks, whole, rtol=1e-12)


def test_bootstrap_takes_any_statistic_of_the_images():
    errors = np.random.default_rng(3).uniform(0, 16, 300)
    for statistic in (np.median, partial(metrics.auc, threshold=8.0)):
        value, low, high = metrics.bootstrap_statistic(errors, statistic)
        assert value == statistic(errors, axis=-1) and low < value < high


def test_variation_between_seeds_widens_the_interval():
    images = np.random.default_rng(4).uniform(0, 1, 500)
    steady = metrics.bootstrap_mean(np.stack([images + 5] * 3))
    shifting = metrics.bootstrap_mean(np.stack([images + 4, images + 5, images + 6]))
    assert steady.value == pytest.approx(shifting.value)
    assert shifting.high - shifting.low > 10 * (steady.high - steady.low)


def test_a_constant_difference_is_certain_however_much_the_images_vary():
    images = np.random.default_rng(5).gamma(2, 3, 200)
    comparison = metrics.paired_bootstrap(images, images + 0.5, resamples=999)
    assert comparison.left == pytest.approx(images.mean())
    np.testing.assert_allclose([comparison.difference, comparison.low, comparison.high], -0.5)
    assert comparison.p_value == 2 / 1000


def test_seeds_stay_paired_where_both_sides_have_as_many():
    base = np.random.default_rng(6).gamma(2, 3, (3, 200)) + np.array([[0], [5], [10]])
    paired = metrics.paired_bootstrap(base, base + 0.5)
    np.testing.assert_allclose([paired.low, paired.high], -0.5)
    unpaired = metrics.paired_bootstrap(base, base[:2] + 0.5)
    assert unpaired.high - unpaired.low > 1


def test_a_comparison_with_a_number_is_the_interval_of_the_errors_moved_by_it():
    errors = np.random.default_rng(3).gamma(4, 1.3, (2, 300))
    interval = metrics.bootstrap_mean(errors, resamples=500)
    compared = metrics.against_number(errors, 4.0, resamples=500)
    assert (compared.left, compared.right) == (interval.value, 4.0)
    moved = compared.difference + 4, compared.low + 4, compared.high + 4
    assert moved == pytest.approx(interval)
    assert compared.p_value == 2 / 501  # a mean near 5.2 is never below 4 in a resample
    assert metrics.against_number(errors, interval.value, resamples=500).p_value > 0.5


def test_relative_change_in_closed_form():
    before = np.random.default_rng(9).gamma(2, 3, 80)
    for factor in (0.5, 1.0, 1.25):
        change = metrics.relative_change(factor * before, before, resamples=200)
        np.testing.assert_allclose(
            change, 100 * (factor - 1), atol=1e-9
        )  # of every resample alike, so no width


@settings(max_examples=20)
@given(seed=st.integers(0, 50), seeds=st.integers(1, 3))
def test_relative_change_is_that_of_the_statistics_and_lies_in_its_interval(seed, seeds):
    rng = np.random.default_rng(seed)
    before = rng.gamma(4, 1.5, (seeds, 60))
    after = before * rng.uniform(0.6, 0.9, (seeds, 60))  # every image improves
    for statistic in (np.mean, partial(metrics.auc, threshold=8.0)):
        change = metrics.relative_change(after, before, statistic, resamples=300)
        base = np.mean(statistic(before, axis=-1))
        assert change.value == pytest.approx(100 * (np.mean(statistic(after, axis=-1)) - base) / base)
        assert change.low < change.value < change.high
        assert (change.high < 0) if statistic is np.mean else (change.low > 0)


def test_relative_change_agrees_with_a_bootstrap_written_out():
    rng = np.random.default_rng(10)
    before = rng.gamma(2, 3, 200)
    after = 0.8 * before + rng.normal(0, 0.3, 200)
    draws = rng.integers(200, size=(4000, 200))
    by_hand = np.percentile([100 * (after[i].mean() / before[i].mean() - 1) for i in draws], (2.5, 97.5))
    change = metrics.relative_change(after, before, resamples=4000)
    np.testing.assert_allclose([change.low, change.high], by_hand, atol=0.15)
    unpaired = [
        100 * (after[i].mean() / before[j].mean() - 1) for i, j in zip(draws, draws[::-1], strict=True)
    ]
    assert change.high - change.low < 0.3 * np.subtract(*np.percentile(unpaired, (97.5, 2.5)))


def test_nothing_is_a_per_cent_of_nothing():
    fails = partial(metrics.failure_percent, threshold=8.0)
    with pytest.raises(ReplicateError, match="before: the statistic is zero"):
        metrics.relative_change(np.full(10, 9.0), np.ones(10), fails)
    rare = np.where(np.arange(10) == 0, 9.0, 1.0)  # a third of the resamples have no failure before
    change = metrics.relative_change(np.ones(10), rare, fails)
    assert change == (-100, -100, -100)


@given(seed=st.integers(0, 50))
def test_exchanging_the_sides_changes_the_sign_only(seed):
    left, right = np.random.default_rng(seed).uniform(0, 9, (2, 40))
    a, b = (metrics.paired_bootstrap(*pair, resamples=200) for pair in ((left, right), (right, left)))
    np.testing.assert_allclose([a.difference, a.low, a.high], [-b.difference, -b.high, -b.low])
    assert a.p_value == b.p_value
    assert (a.low > 0 or a.high < 0) == (a.p_value < 0.05) or 0.03 < a.p_value < 0.07


def test_equal_methods_are_not_told_apart():
    errors = np.random.default_rng(7).uniform(0, 9, 100)
    assert metrics.paired_bootstrap(errors, errors).p_value == 1
    rng = np.random.default_rng(8)
    p_values = [
        metrics.paired_bootstrap(*rng.normal(5, 1, (2, 60)), resamples=300).p_value for _ in range(300)
    ]
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.10


def test_equivalence_needs_the_whole_interval_inside_the_margin():
    comparison = metrics.Comparison(3.0, 3.1, -0.1, -0.3, 0.1, 0.3)
    assert metrics.is_equivalent(comparison, 0.31)
    assert not metrics.is_equivalent(comparison, 0.3)
    assert not metrics.is_equivalent(comparison._replace(high=0.4), 0.31)
    with pytest.raises(ReplicateError, match="margin"):
        metrics.is_equivalent(comparison, 0)


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (np.ones(5), np.ones(4), "images of 5 and 4|5 and 4 images"),
        (np.ones(1), np.ones(1), "at least two images"),
        (np.array([1, np.nan]), np.ones(2), "1 infinite or NaN"),
        (np.ones((2, 2, 2)), np.ones(2), r"expected \(N,\) or \(S, N\)"),
    ],
)
def test_bad_samples_are_refused(left, right, message):
    with pytest.raises(ReplicateError, match=message):
        metrics.paired_bootstrap(left, right)


@given(only_left=st.integers(0, 12), only_right=st.integers(0, 12), both=st.integers(0, 5))
def test_mcnemar_is_the_exact_binomial_test_of_the_discordant_images(only_left, only_right, both):
    left = np.repeat([True, False, True, False], [only_left, only_right, both, 7])
    right = np.repeat([False, True, True, False], [only_left, only_right, both, 7])
    discordant = only_left + only_right
    tail = sum(comb(discordant, k) for k in range(min(only_left, only_right) + 1)) / 2**discordant
    assert metrics.mcnemar(left, right) == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_by_hand_and_on_different_images():
    assert metrics.mcnemar([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]) == pytest.approx(2 * 7 / 64)
    assert metrics.mcnemar([1, 0], [1, 0]) == 1
    with pytest.raises(ReplicateError, match="same images"):
        metrics.mcnemar([1, 0], [1])
