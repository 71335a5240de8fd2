"""Sensitivity to boxes: a method whose error is known gives the curve that is known, and the figure shows it."""

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from toy_faces import MEAN, toy_faces

from replicate.errors import ReplicateError
from replicate.evidence import claims
from replicate.evidence.experiment import Experiment
from replicate.evidence.sensitivity import (
    ERROR_SLOPE,
    FAILURE_SLOPE,
    NoisyBoxes,
    Sensitivity,
    judge_slopes,
    sensitivity,
    sensitivity_plot,
    sensitivity_rows,
    sensitivity_table,
)
from replicate.evidence.trained import Predicted, Trained
from replicate.faces.boxes import TIGHT, BoxRule
from replicate.faces.sources import FaceSource
from replicate.metrics import bootstrap_mean, failure_rate, nme, normalising_distance
from replicate.shapes import fit_in_boxes
from replicate.training import FitReport

LEVELS = (0.0, 0.1, 0.2, 0.4)


pytestmark = pytest.mark.usefixtures("drawing")


def squared_faces(count=400):
    """Toy faces with tight boxes that are squares."""
    faces = toy_faces(count)
    low, high = faces.points.min(1, keepdims=True), faces.points.max(1, keepdims=True)
    return replace(faces, points=((faces.points - low) / (high - low) * 60 + 30).astype(np.float32))


def follows_the_centre(faces):
    """The true points, moved by the error of the box's position."""
    true = BoxRule(shift_sd=0.0, log_scale_sd=0.0).boxes(faces.points, faces.names)
    centre = (faces.boxes[:, :2] + faces.boxes[:, 2:] - true[:, :2] - true[:, 2:]) / 2
    return faces.points + centre[:, None]


def test_the_error_of_a_method_that_follows_its_box_is_that_of_the_box():
    """The length of a normal error of deviation s in both directions has the mean s √(π/2)."""
    faces = squared_faces()
    found = sensitivity(follows_the_centre, faces, BoxRule(), LEVELS, normaliser="inter-ocular")
    assert found.errors.shape == (4, 400) and found.errors[0].max() < 1e-4
    distance = normalising_distance(faces.points, "inter-ocular", "ibug68")
    for level, interval in zip(LEVELS[1:], found.intervals()[1:], strict=True):
        expected = (100 * level * 60 * math.sqrt(math.pi / 2) / distance).mean()
        assert interval.low < expected < interval.high


def test_levels_differ_by_the_size_of_the_noise_alone():
    found = sensitivity(follows_the_centre, squared_faces(50), BoxRule(), LEVELS, normaliser="inter-pupil")
    np.testing.assert_allclose(found.errors[2], 2 * found.errors[1], rtol=1e-3)
    np.testing.assert_allclose(found.errors[3], 4 * found.errors[1], rtol=1e-3)


def test_a_method_that_ignores_its_box_has_the_same_error_at_all_levels():
    faces = toy_faces()
    found = sensitivity(lambda f: f.points + [3.0, 4.0], faces, BoxRule(), LEVELS, normaliser="inter-ocular")
    distance = normalising_distance(faces.points, "inter-ocular", "ibug68")
    np.testing.assert_allclose(found.errors, np.tile(500 / distance, (4, 1)), rtol=1e-5)


def test_the_mean_shape_suffers_from_position_and_size():
    def mean_shape(faces):
        return fit_in_boxes(MEAN, torch.as_tensor(faces.boxes)).numpy()

    found = sensitivity(mean_shape, toy_faces(), BoxRule(), LEVELS, normaliser="face")
    means = [interval.value for interval in found.intervals()]
    assert means[0] < 0.01 and means == sorted(means)
    follower = sensitivity(follows_the_centre, toy_faces(), BoxRule(), LEVELS, normaliser="face")
    assert found.errors[3].mean() > follower.errors[3].mean()


def test_the_predictor_sees_boxes_by_the_rule_and_points_that_are_unknown_do_not_count():
    faces, seen = toy_faces(), []
    faces.points[2, 5] = np.nan

    def predict(started):
        seen.append(started)
        return np.nan_to_num(started.points) + [0.0, 1.0]

    rule = BoxRule(growth=0.5, square=True)
    found = sensitivity(predict, faces, rule, (0.05, 0.3), normaliser="inter-ocular")
    assert np.isfinite(found.errors).all()
    for started, level in zip(seen, (0.05, 0.3), strict=True):
        noisy = rule.with_noise(level, level)
        np.testing.assert_array_equal(started.boxes, noisy.boxes(faces.points, faces.names))
        assert started.box_rule == noisy.text


@pytest.mark.parametrize("levels", [(), (0.2, 0.1), (-0.1, 0.2), (0.1, 0.1), (0.0, math.nan)])
def test_levels_must_ascend_from_zero_on(levels):
    with pytest.raises(ReplicateError, match="levels: got .* expected ascending"):
        sensitivity(follows_the_centre, toy_faces(), BoxRule(), levels, normaliser="inter-ocular")


# Slopes


def test_slopes_are_those_of_the_line_that_the_errors_follow():
    rise = np.array([0.5, 2.0, 0.0])  # per cent of error per 1 % of noise
    levels = np.array([0.0, 0.05, 0.2])
    errors = 3 + 100 * levels[:, None] * rise
    np.testing.assert_allclose(Sensitivity(levels, errors, "inter-ocular").error_slopes, rise, atol=1e-12)
    by_seed = np.stack([errors, 2 * errors], 1)  # (K, S, N)
    np.testing.assert_allclose(
        Sensitivity(levels, by_seed, "inter-ocular").error_slopes, [rise, 2 * rise], atol=1e-12
    )


def test_the_mean_slope_of_the_failures_is_the_slope_of_the_failure_rate():
    rng = np.random.default_rng(0)
    levels = np.array([0.0, 0.05, 0.1, 0.2])
    errors = rng.gamma(4, 1, (4, 2, 50)) + 30 * levels[:, None, None]
    rates = [failure_rate(at, 8.0).percent for at in errors]
    slopes = Sensitivity(levels, errors, "inter-ocular").failure_slopes
    assert slopes.shape == (2, 50) and rates[-1] > rates[0]
    assert slopes.mean() == pytest.approx(np.polyfit(100 * levels, rates, 1)[0])


def test_one_level_has_no_slope():
    with pytest.raises(ReplicateError, match="a slope needs at least two"):
        _ = Sensitivity(np.array([0.1]), np.ones((1, 5)), "inter-ocular").error_slopes


# Predictions on record


@pytest.fixture
def run(monkeypatch):
    """An experiment whose faces are toys."""
    monkeypatch.setattr(FaceSource, "load", lambda source: replace(squared_faces(30), split=source.split))
    return Experiment("dan", "cpu", "synthetic", device="cpu")


def recorded(run, source, levels, asked=None):
    """Predictions of a method that follows the centre of its box, by level."""

    def predict(faces):
        if asked is not None:
            asked.append(faces)
        return [Predicted(follows_the_centre(faces))]

    report = FitReport(seconds=1.0)
    trained = Trained(predict, [report], FaceSource("300w", "train", "synthetic", "cpu"))
    tested = (run.test(["follower"], NoisyBoxes(source, level), lambda: trained, False) for level in levels)
    return dict(zip(levels, tested, strict=True))


def test_each_level_is_predicted_once_and_recorded_with_errors_alone(run, places):
    asked, source = [], run.source("300w", "challenging")
    runs = recorded(run, source, LEVELS, asked)
    for level, faces in zip(LEVELS, asked, strict=True):
        rule = TIGHT.with_noise(level, level)
        np.testing.assert_array_equal(faces.boxes, rule.boxes(faces.points, faces.names))
        made = runs[level][0]
        expected = nme(
            follows_the_centre(faces), faces.points, normaliser="inter-ocular", markup=faces.markup
        )
        np.testing.assert_allclose(made.errors["inter-ocular"], expected)
        assert made.points is None and made.provenance["box_rule"] == rule.text
    assert len(asked) == 4 and recorded(run, source, LEVELS, asked)[0.2][0].names == faces.names
    assert len(asked) == 4  # the second time they come from the record
    stored = sorted(path.name for path in places.rglob("*.npz"))
    assert [name.split(".300w-")[1].rsplit("-", 1)[0] for name in stored] == [
        f"challenging@{level:g}-synthetic" for level in LEVELS
    ]


def test_the_parts_of_a_union_and_the_levels_have_fingerprints_of_their_own():
    full = NoisyBoxes(FaceSource("300w", "full", "synthetic", "smoke"), 0.1)
    assert [part.split for part in full.parts] == ["common@0.1", "challenging@0.1"]
    assert full.protocol == "300w" and full.split == "full@0.1"
    prints = {NoisyBoxes(full.source, level).fingerprint for level in LEVELS}
    assert len(prints | {part.fingerprint for part in full.parts}) == len(LEVELS) + 2
    assert full.fingerprint == NoisyBoxes(full.source, 0.1).fingerprint


def test_rows_say_error_and_failures_at_each_level_and_their_slopes(run):
    source = run.source("300w", "challenging")
    runs = recorded(run, source, LEVELS)
    rows = {row.metric: row for row in sensitivity_rows(run, "DAN-S17", "DAN", source, runs)}
    curve = Sensitivity.of(runs)
    assert curve.errors.shape == (4, 1, 30) and len(rows) == 2 * 4 + 2
    worst = rows["failure rate 0.08, box noise 40 %"]
    assert worst.value == pytest.approx(failure_rate(curve.errors[3], 8.0).percent, rel=1e-4)
    assert worst.count == failure_rate(curve.errors[3], 8.0).count > 0
    assert rows["mean error, box noise 10 %"].value == pytest.approx(curve.errors[1].mean(), rel=1e-4)
    # the error of a box is proportional to the noise
    slope = curve.errors[3].mean() / 40
    assert rows[ERROR_SLOPE].value == pytest.approx(slope, rel=1e-3)
    assert rows[FAILURE_SLOPE].value == pytest.approx(curve.failure_slopes.mean(), rel=1e-4)
    assert rows[FAILURE_SLOPE].count is None
    assert len({row.box_rule for row in rows.values()}) == 1 and "0, 10, 20, 40 %" in worst.box_rule
    table = sensitivity_table(list(rows.values()), LEVELS)
    assert table.shape == (2, 2 + 4) and table["noise 0 %"][0] == "0.00 [0.00, 0.00]"
    assert table["noise 40 %"][1].startswith(f"{worst.value:.2f} [")
    assert (sensitivity_table(list(rows.values()), (0.3,))["noise 30 %"] == "").all()


def test_a_claim_about_slopes_is_judged_on_the_failures_of_the_same_faces(run):
    rng, levels = np.random.default_rng(1), np.array([0.0, 0.1, 0.2])
    start = rng.uniform(4, 7, (1, 60))
    steady = Sensitivity(levels, np.stack([start + 0 * level for level in levels]), "inter-ocular")
    steep = Sensitivity(levels, np.stack([start + 40 * level for level in levels]), "inter-ocular")
    verdict = judge_slopes(run, "DAN-C16", steady, steep, "generated faces")
    assert verdict.verdict == "reproduced" and verdict.left == 0
    assert verdict.right == pytest.approx(steep.failure_slopes.mean(), rel=1e-4)
    assert (verdict.images, verdict.seeds) == (60, 1)
    last = failure_rate(steep.errors[-1], 8.0).percent
    assert verdict.note == (
        f"generated faces; 0.0 to 0.0 % fail against 0.0 to {last:.1f} %; "
        "the mean error rises by 0.000 against 0.400 % per 1 % of noise"
    )
    assert claims.recorded("dan", ["cpu"]) == [verdict]
    assert judge_slopes(run, "DAN-C16", steep, steady).verdict == "not reproduced"


# The figure


def made(scale, normaliser="inter-ocular"):
    levels = np.array([0.0, 0.1, 0.2])
    errors = scale * (1 + 10 * levels[:, None]) * np.random.default_rng(0).gamma(4, 1, 60)
    return Sensitivity(levels, errors, normaliser)


def test_lines_are_the_means_and_bands_their_intervals():
    curves = {"DAN": made(1.0), "SDM": made(1.5)}
    figure = sensitivity_plot(curves, title="300w common, synthetic")
    ax = figure.axes[0]
    for line, band, curve in zip(ax.lines, ax.collections, curves.values(), strict=True):
        x, y = line.get_data()
        np.testing.assert_allclose(x, [0, 10, 20])
        np.testing.assert_allclose(y, curve.errors.mean(1))
        heights = band.get_paths()[0].vertices[:, 1]
        last = bootstrap_mean(curve.errors[-1])
        assert heights.max() == pytest.approx(last.high) and heights.min() < y[0]
        assert last.low in heights
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["DAN", "SDM"]
    assert ax.get_ylim()[0] == 0 and "inter-ocular" in ax.get_ylabel() and "%" in ax.get_xlabel()


def test_lines_differ_without_colour_and_words_say_what_they_show():
    curves = {"DAN": made(1.0), "SDM": made(1.5)}
    figure = sensitivity_plot(curves, title="300w common")
    lines = figure.axes[0].lines
    assert (
        len({(line.get_linestyle(), line.get_marker()) for line in lines})
        == len({line.get_color() for line in lines})
        == 2
    )
    first, last = (curves["DAN"].errors[place].mean() for place in (0, -1))
    words = figure.get_label()
    assert words.startswith(
        "Mean error in per cent of the inter-ocular distance against the noise of the boxes on 300w common"
    )
    assert f"DAN: from {first:.1f} % at a noise of 0 % to {last:.1f} % at a noise of 20 %" in words


def test_a_plot_can_join_a_given_axis():
    ax = plt.subplots()[1]
    assert sensitivity_plot({"DAN": made(1.0)}, ax=ax) is ax.get_figure() and len(ax.lines) == 1


def test_curves_of_different_normalisers_or_none_are_refused():
    with pytest.raises(ReplicateError, match="normalisers .'inter-ocular', 'inter-pupil'."):
        sensitivity_plot({"a": made(1.0), "b": made(1.0, "inter-pupil")})
    with pytest.raises(ReplicateError, match="of no method"):
        sensitivity_plot({})


def test_failures_are_drawn_by_the_same_figure():
    curve = made(2.0)
    figure = sensitivity_plot({"DAN": curve}, metric="failure rate 0.08")
    _, y = figure.axes[0].lines[0].get_data()
    rates = [failure_rate(errors, 8.0).percent for errors in curve.errors]
    np.testing.assert_allclose(y, rates)
    assert figure.axes[0].get_ylabel() == "failure rate 0.08 (% of faces)"
    assert figure.get_label().startswith("Failure rate 0.08 in per cent of the faces against the noise")
    assert f"to {rates[-1]:.1f} % at a noise of 20 %" in figure.get_label()
