"""Maps and candidates of RNN's initialization network: what is drawn is what the network says."""

import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate.evidence import manifest
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import rnn_maps as views
from replicate.methods import rnn_training
from replicate.methods.rnn import CONFIGS, RNN
from replicate.methods.rnn_training import PEAKS

CONFIG = CONFIGS["smoke"]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    shapes = CONFIG.size * torch.rand(12, 68, 2)
    return RNN(CONFIG, shapes, shapes.mean(0)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def maps(network):
    return views.maps_of(network, toy_faces(3))


def test_maps_are_probabilities_of_the_first_face(network, maps):
    faces = toy_faces(3).subset(np.arange(1))
    canvases = rnn_training.framed(faces.images, faces.boxes, CONFIG)
    [[expected]] = rnn_training.predict(network, canvases, {PEAKS: PEAKS})[PEAKS]
    np.testing.assert_array_equal(maps.peaks, expected)
    for one in (maps.wanted, maps.found):
        assert one.shape == (68, CONFIG.size, CONFIG.size)
        np.testing.assert_allclose(one.sum((1, 2)), 1, rtol=1e-4)
    places = np.array([np.unravel_index(one.argmax(), one.shape)[::-1] for one in maps.found])
    np.testing.assert_array_equal(places, maps.peaks)


def test_true_maps_are_largest_next_to_the_landmarks(maps):
    places = np.array([np.unravel_index(one.argmax(), one.shape)[::-1] for one in maps.wanted])
    assert abs(places - maps.truth.clip(0, CONFIG.size - 1)).max() <= 0.5


def test_the_start_is_the_nearest_candidate(network, maps):
    candidates = network.candidates.numpy()
    distances = np.square(candidates - maps.peaks).sum((1, 2))
    np.testing.assert_array_equal(maps.start, candidates[distances.argmin()])


def test_a_montage_keeps_every_peak():
    found = np.full((3, 100, 100), 2.0**-30)
    for number, one in enumerate(found):
        one[10 + number, 37] = 1.0
    shown = views.montage(found)
    assert shown.shape == (66, 66 * views.COLUMNS)
    tiles = [shown[:64, 66 * number : 66 * number + 64] for number in range(3)]
    assert all(tile.max() == 0 and (tile == 0).sum() <= 4 and tile.min() == -views.HALVINGS for tile in tiles)
    assert (shown[64:] == 0).all()


def test_halvings_are_logarithms_relative_to_the_largest():
    found = views.halvings_below(np.array([[[0.5, 0.25, 0.125, 0.0]]]))
    assert found.tolist() == [[[0, -1, -2, -views.HALVINGS]]]


def test_candidates_come_in_the_order_of_what_they_differ_in():
    """Shapes moved to the right by amounts in disorder."""
    base = np.random.default_rng(0).uniform(0, 50, (68, 2))
    shapes = np.stack([base + [shift, 0] for shift in (3.0, -5, 12, 0, 7)])
    shifts = (views.in_order(shapes) - base)[:, 0, 0]
    np.testing.assert_allclose(shifts, [-5, 0, 3, 7, 12])


def test_figures_say_what_they_show(network, maps, drawing):
    run = Experiment("rnn", "smoke", device="cpu")
    views.probability_maps(run, maps, "ibug68")
    figure = views.candidate_shapes(run, network, "ibug68", columns=5)
    assert sum(bool(ax.lines) for ax in figure.axes) == 12
    made = {one.artefact: one for one in manifest.load("rnn")}
    assert set(made) == {"RNN-F3", "RNN-F4"}
    assert (
        "landmarks 9, 34, 37 in orange" in made["RNN-F3"].alt
        and "of one generated face" in made["RNN-F3"].alt
    )
    assert made["RNN-F4"].alt.startswith("12 candidate shapes in blue")
