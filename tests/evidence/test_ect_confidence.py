"""The confidence of Eq. 15: its readings, and landmarks that are covered, blurred or marked as hidden."""

import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate.evidence import manifest
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import ect_confidence as views
from replicate.methods import ect_fitting
from replicate.methods.ect import CONFIGS, FCN, ECTConfig
from replicate.methods.ect_fitting import PDM, Fitted

SMALL = CONFIGS["smoke", "synthetic"]
RUN = Experiment("ect", "cpu", device="cpu")


pytestmark = pytest.mark.usefixtures("drawing")


def model():
    torch.manual_seed(0)
    true = torch.as_tensor(toy_faces(20).points)
    return PDM.fit(true + torch.randn(true.shape), SMALL.frame, 5)


def toy_fits(faces):
    """Confidences from 0 to 1 on every face, by reading."""
    w = torch.linspace(0, 1, 68).expand(len(faces), 68)
    return {reading: Fitted((), w) for reading in views.READINGS}


# Readings of Eq. 15


def test_the_printed_form_saturates_and_only_the_deviation_tells_maps_apart():
    table = views.reading_table(ECTConfig()).set_index("Eq. 15").astype(float)
    printed, variance, deviation = (table.loc[words] for words in views.READINGS.values())
    assert printed.min() > 0.998 and variance.max() < 0.02
    assert deviation["empty map"] < 0.01 and deviation["ideal map"] > 0.97


def test_fading_curves_are_drawn_twice_and_described():
    figure = views.fading_curves(RUN, SMALL)
    assert [ax.get_yscale() for ax in figure.axes] == ["linear", "logit"]
    [made] = manifest.load("ect")
    assert made.artefact == "ECT-F4" and "as printed: variance, b added: 0.998" in made.alt


def test_readings_are_of_one_network_and_differ():
    faces, pdm = toy_faces(3), model()
    found = views.fits_by_reading(FCN(SMALL, 68).eval(), pdm, faces, SMALL)
    assert list(found) == list(views.READINGS)
    assert all(fitted.confidence.shape == (3, 68) for fitted in found.values())
    assert found["as printed"].confidence.min() > 0.998 > found["deviation"].confidence.max()


def test_histograms_tell_the_range_of_confidences():
    faces = toy_faces(2)
    figure = views.histograms(RUN, toy_fits(faces), faces)
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    assert sum(heights) == pytest.approx(100) and "0.0448 to 0.955" in figure.axes[0].get_title()
    [made] = manifest.load("ect")
    assert "half below 0.5000" in made.alt and made.images == 2


# Covered and blurred landmarks


def test_only_the_disc_is_changed_and_it_holds_the_landmarks_it_should():
    faces, pdm = toy_faces(4), model()
    hidden = views.hide(faces, pdm, SMALL, seed=3)
    plain, covered, blurred = (canvases.pixels.numpy() for canvases in hidden.canvases.values())
    radius = views.RADIUS * SMALL.frame.extent
    for number in range(4):
        changed = (covered[number] != plain[number]).any(0)
        assert 0.8 * np.pi * radius**2 < changed.sum() < 1.2 * np.pi * radius**2
        assert len(np.unique(covered[number][:, changed], axis=1).T) == 1  # of one colour
        assert not ((blurred[number] != plain[number]).any(0) & ~changed).any()
        assert (blurred[number] != plain[number]).any()
        assert 1 <= hidden.inside[number].sum() < 68
    again = views.hide(faces, pdm, SMALL, seed=3)
    assert torch.equal(again.canvases["covered"].pixels, hidden.canvases["covered"].pixels)
    assert not np.array_equal(views.hide(faces, pdm, SMALL, seed=4).inside, hidden.inside)


def test_the_covered_landmarks_are_those_near_the_centre():
    points = torch.tensor([[[10.0, 10.0], [12.0, 10.0], [50.0, 50.0]]])
    centres, inside = views._discs(points, SMALL, np.random.default_rng(0))
    chosen = [torch.equal(centres[0], point) for point in points[0]].index(True)
    assert inside[0].tolist() == ([False, False, True] if chosen == 2 else [True, True, False])


def test_confidences_are_averaged_over_the_disc_and_over_the_rest(monkeypatch):
    inside = np.array([[True, True, False], [False, True, False]])
    hidden = views.Hidden({"as they are": 1.0, "covered": 0.25, "blurred": 0.5}, inside)

    def predict(network, canvases, wanted):
        w = torch.tensor([[0.2, 0.4, 1.0], [0.8, 0.6, 0.0]])
        return {"ECT": Fitted((), torch.where(torch.as_tensor(inside), canvases * w, w))}

    monkeypatch.setattr(ect_fitting, "predict", predict)
    sides = views.hidden_confidences(None, model(), hidden, SMALL)
    assert list(sides) == ["covered", "blurred", "beside the disc, covered", "beside the disc, blurred"]
    np.testing.assert_allclose(sides["covered"], [[0.075, 0.15], [0.3, 0.6]], rtol=1e-6)
    np.testing.assert_allclose(sides["beside the disc, blurred"], [[1.0, 0.4], [1.0, 0.4]], rtol=1e-6)


def test_marked_landmarks_are_compared_on_faces_that_have_both_kinds():
    w = np.array([[0.1, 0.3, 0.8], [0.5, 0.5, 0.5], [0.2, 0.9, 0.7]])
    visible = np.array([[False, False, True], [True, True, True], [False, True, True]])
    hidden, seen = views.flagged_confidences(w, visible)
    np.testing.assert_allclose(hidden, [0.2, 0.2])
    np.testing.assert_allclose(seen, [0.8, 0.8])


def test_comparisons_are_paired_and_shown_with_their_faces():
    seen = np.linspace(0.4, 0.9, 20)
    sides = {"covered": (seen - 0.25, seen), "hidden": (seen[:12] - 0.1, seen[:12])}
    compared = views.comparisons(sides)
    assert compared["covered"].difference == pytest.approx(-0.25) and compared["covered"].p_value < 0.05
    table = views.comparison_table(RUN, sides, compared, toy_faces(20))
    assert table.data["faces"].tolist() == ["20", "12"]
    assert table.data.loc[0, "difference"] == "-0.250 [-0.250, -0.250]"
    assert "20 train" in table.caption


def test_examples_show_the_three_kinds_of_the_same_faces():
    faces = toy_faces(3)
    hidden = views.hide(faces, model(), SMALL)
    figure = views.hidden_examples(RUN, hidden, faces, columns=2)
    shown = [ax.images[0].get_array() for ax in figure.axes]
    assert len(shown) == 6 and not np.array_equal(shown[0], shown[2])
    [made] = manifest.load("ect")
    assert made.title == "covered and blurred landmarks" and made.images == 2
