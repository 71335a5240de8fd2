"""Diagrams of the RNN chapter: what is drawn is what the modules are and do, and belongs to no kind of faces."""

import pytest
import torch

from replicate.evidence import manifest
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import rnn_diagrams as views
from replicate.methods.rnn import RNNConfig

PAPER = RNNConfig()
SMALL = RNNConfig("VGG-S", width=1 / 16, scale=1 / 4)

pytestmark = pytest.mark.usefixtures("drawing")


@pytest.mark.parametrize("faces", ["synthetic", "real"])
def test_diagrams_belong_to_the_edition_of_generated_faces(faces):
    run = Experiment("rnn", "cpu", faces, device="cpu")
    for draw in (views.outline, views.network_outline, views.pooling_at_work, views.unrolled):
        draw(run, PAPER)
    views.blocks(run)
    views.two_stages(run)
    made = {figure.artefact: figure for figure in manifest.load("rnn")}
    assert set(made) == {f"RNN-F{number}" for number in (1, 2, 5, 6, 7, 10)}
    assert all(figure.faces == "synthetic" for figure in made.values())
    assert "nearest of 50 candidate shapes" in made["RNN-F1"].alt and "8 steps" in made["RNN-F1"].alt
    assert "conv5 512 channels, side 64" in made["RNN-F2"].alt
    assert "7 by 7 cells" in made["RNN-F5"].alt and "K = 8 steps" in made["RNN-F6"].alt


def test_both_versions_of_the_network_have_a_figure_of_their_own():
    run = Experiment("rnn", "cpu", device="cpu")
    views.network_outline(run, SMALL)
    views.network_outline(run, PAPER)
    titles = [figure.title for figure in manifest.load("rnn")]
    assert sorted(titles) == ["the conv-deconv network from VGG-19", "the conv-deconv network from VGG-S"]


def test_what_is_drawn_of_pooling_is_the_largest_value_and_its_place():
    maps, points = torch.zeros(1, 2, 32, 32), torch.tensor([[[8.0, 9.0], [20.0, 20.0]]])
    maps[0, 0, 11, 6], maps[0, 1, 6, 11], maps[0, 0, 13, 8] = 3.0, 2.0, 9.0  # the last lies beyond the box
    maps[0, :, 20, 20] = 1.0
    values, gradient = views.pooled_with_gradient(maps, points, 3)
    assert values.tolist() == [[[3.0, 2.0], [1.0, 1.0]]]
    assert gradient.sum() == 4 and gradient[0, 0, 11, 6] == gradient[0, 1, 6, 11] == 1
    assert gradient[0, 0, 20, 20] == gradient[0, 1, 20, 20] == 1


def test_maps_that_are_drawn_are_the_same_for_the_same_seed():
    first, again, other = (views.random_maps(3, seed) for seed in (4, 4, 5))
    assert torch.equal(first, again) and not torch.equal(first, other) and first.shape == (1, 3, 32, 32)
