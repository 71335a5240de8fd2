"""RNN's method and setting: checks that notice an error, the 52 images of a face, the printed crop, settings, the printed error's unit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate.evidence import manifest, published, tables
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import rnn_method as views
from replicate.faces.sources import FaceSource
from replicate.methods import rnn, rnn_training
from replicate.methods.rnn import CONFIGS, RNNConfig

SMALL = CONFIGS["smoke"]


def experiment(**changes):
    return Experiment(**{"paper": "rnn", "profile": "smoke", "device": "cpu", **changes})


# Equations


def test_short_forms_are_the_long_ones():
    *exact, steps = views.check_equations(seed=1).values()
    assert max(exact) < 1e-9 and steps < 0.03


@pytest.mark.parametrize(
    ("name", "broken", "failing"),
    [
        ("probabilities", lambda points, size: original_probabilities(points + 0.5, size), "probabilities Q"),
        ("peaks", lambda maps: original_peaks(maps).flip(-1), "softmax loss"),
    ],
)
def test_a_wrong_form_is_noticed(monkeypatch, name, broken, failing):
    monkeypatch.setattr(rnn, name, broken)
    found = next(value for key, value in views.check_equations().items() if key.startswith(failing))
    assert found > 0.01


original_probabilities, original_peaks = rnn.probabilities, rnn.peaks


def test_a_hyperbolic_tangent_of_the_cell_is_noticed(monkeypatch):
    plain = rnn.LSTM.forward

    def usual(self, features, before, cell):
        shown, kept = plain(self, features, before, cell)
        return shown / kept * kept.tanh(), kept

    monkeypatch.setattr(rnn.LSTM, "forward", usual)
    assert views.check_equations()["recurrent features (Eq. 11)"] > 1e-3


def test_pooling_by_loop_has_the_closed_form_of_a_ramp():
    """On a map that grows to the right and down, the largest value is that of the lower right corner."""
    ramp = torch.arange(20.0)[:, None] * 100 + torch.arange(20.0)
    found, gradient = views.plain_pooling(ramp[None, None], torch.tensor([[[5.0, 8.0], [19.0, 19.0]]]), 3)
    assert found.flatten().tolist() == [1108.0, 1919.0]
    assert gradient.sum() == 2 and gradient[0, 0, 11, 8] == gradient[0, 0, 19, 19] == 1


def test_the_whole_map_of_probabilities_is_the_printed_one():
    points = torch.tensor([[10.0, 4.25], [0.0, 23.0]], dtype=torch.float64)
    found = views.full_probabilities(points, 24)
    np.testing.assert_allclose(found[0], views.plain_probabilities(points[0].numpy(), 24), atol=1e-12)
    assert found.sum((1, 2)).tolist() == pytest.approx([1, 1])
    assert found[1, 23, 0] == found[1].max()  # row y, column x


# Augmentation


def test_the_images_of_a_face_are_those_of_thirteen_angles():
    samples = rnn_training.enlarged(toy_faces(2), SMALL, 0)
    table = views.variant_table(samples)
    assert table["turn, degrees"].tolist() == [f"{a:+d}" if a else "0" for a in range(-30, 31, 5)]
    for column, each in (("images", 4), ("mirrored", 2), ("from moved boxes", 2), ("both", 1)):
        assert (table[column] == 2 * each).all()  # of two faces
    low, high = np.array([words.split(" to ") for words in table["size of the face"]], float).T
    assert low.min() > 1 / 1.1 - 0.01 and high.max() < 1 / 0.9 + 0.01
    assert table["largest shift, % of the box"].astype(float).max() < 10 / 0.9 + 0.1


def test_fifty_two_images_stand_beside_the_papers():
    rows = views.variant_rows(experiment(), rnn_training.enlarged(toy_faces(3), SMALL, 0))
    assert [row.value for row in rows] == [52, 13, 2, 2]
    assert tables.compare(rows).loc[0, "paper"] == "52"


def test_all_images_of_a_face_are_drawn(monkeypatch, drawing):
    monkeypatch.setattr(FaceSource, "sample", lambda source, count: toy_faces(2))
    figure = views.variants_figure(experiment(faces="real"), SMALL)
    assert len(figure.axes) == 52 and all(len(ax.images) == 1 for ax in figure.axes)
    first, mirrored = (figure.axes[number].images[0].get_array() for number in (6, 19))
    np.testing.assert_allclose(first, mirrored[:, ::-1], atol=1e-6)  # of the face that is not turned
    [made] = manifest.load("rnn")
    assert (made.artefact, made.faces, made.images) == ("RNN-S2", "synthetic", 1)


# Crop


def test_the_printed_crop_in_closed_form():
    transform, filled = views.printed_crop(np.array([10.0, 20, 110, 120]), 280)
    np.testing.assert_allclose(transform[:, :2], 2 * np.eye(2))  # 140 pixels become 280
    np.testing.assert_allclose(transform @ [60, 70, 1], [139.5, 139.5])
    assert filled == (280, 280)
    _, filled = views.printed_crop(np.array([0.0, 0, 100, 240]), 280)  # 140 x 280
    assert filled == (140, 280)


def test_our_crop_lies_where_the_printed_one_does():
    table = views.crop_table(RNNConfig())
    assert table["box"].tolist() == list(views.BOXES) and table["corners apart, px"].max() < 1e-3
    assert table["filled with zeros"].tolist()[0] == "0 %"


@pytest.mark.parametrize("padding", [0.2, 0.3])
def test_the_padding_is_measured_on_the_crop(monkeypatch, padding):
    monkeypatch.setattr(rnn, "PADDING", padding)
    monkeypatch.setattr(rnn_training, "PADDING", padding)
    row, side = views.crop_rows(experiment(), RNNConfig())
    assert row.value == pytest.approx(padding) and side.value == 256
    shown = tables.compare([row, side])
    assert shown["paper"].tolist() == ["0.2", "256"]


# Settings


def test_printed_settings_are_those_of_the_configuration():
    agree = views.settings_that_agree()
    assert len(agree) == 6 and all(paper == ours for paper, ours in agree.values())
    table = views.settings_table(SMALL, "smoke").set_index("setting")
    assert table.loc["b SIP box width"].tolist() == ["6", "6", "1.5"]
    assert table.loc["momentum", "paper"] == "0.9" and table.loc["weight decay", "paper"] == "0.0001"
    printed = published.load("rnn")
    assert set(printed[printed["artefact"] == "RNN-S4"]["metric"]) <= set(table.index)


# The error


def test_the_printed_error_of_equal_distances_in_closed_form():
    truth = np.zeros((1, 68, 2))
    found = views.literal_errors(truth + [3.0, 4.0], truth, np.array([50.0]))
    assert found == pytest.approx([25 / 50])  # pixels
    assert views.literal_errors(2 * (truth + [3.0, 4.0]), truth, np.array([100.0])) == pytest.approx([1.0])


def test_the_printed_error_follows_the_scale_and_the_usual_one_does_not():
    faces = toy_faces(9)
    table = views.metric_table(replace(faces, points=faces.points.astype(np.float64)))
    usual, printed = (table[name].astype(float) for name in ("mean of distances, %", "Eq. 17 as printed, px"))
    assert usual.nunique() == 1 and usual[0] == pytest.approx(100 * 0.05 * np.sqrt(np.pi / 2), rel=0.05)
    assert printed[1] / printed[0] == pytest.approx(2, abs=0.05) and printed[2] / printed[1] == pytest.approx(2, abs=0.05)  # fmt: skip
    assert table["Eq. 18 as printed, at the median of scale 1"].tolist()[::2] == ["100 %", "0 %"]


def test_both_forms_agree_at_one_distance_of_the_eyes():
    distance = views.agreeing_distance(5.0)
    off = 0.05 * distance
    truth = np.zeros((1, 68, 2))
    assert views.literal_errors(truth + [off, 0], truth, np.array([distance])) == pytest.approx([5.0])
