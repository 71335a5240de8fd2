"""Sensitivity to boxes: a method whose error is known gives the curve that is known, and the figure shows it."""

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from toy_faces import MEAN, toy_faces

from replicate.errors import ReplicateError
from replicate.evidence import figures
from replicate.evidence.sensitivity import Sensitivity, sensitivity, sensitivity_plot
from replicate.faces.boxes import BoxRule
from replicate.metrics import bootstrap_mean, normalising_distance
from replicate.shapes import fit_in_boxes

LEVELS = (0.0, 0.1, 0.2, 0.4)


@pytest.fixture(autouse=True)
def closed():
    figures.style()
    yield
    plt.close("all")


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
    for level, interval in zip(LEVELS[1:], found.intervals[1:], strict=True):
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
    means = [interval.value for interval in found.intervals]
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
