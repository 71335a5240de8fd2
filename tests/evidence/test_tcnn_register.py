"""TCNN's register says what the code does: choices that are numbers are those of the configurations."""

import pytest
import torch

from replicate.evidence import ambiguities
from replicate.methods import tcnn, tcnn_augmentation
from replicate.methods.tcnn import CONFIGS, Heads, TCNNConfig, Vanilla

TCNN = {entry.id: entry for entry in ambiguities.load("tcnn")}
PAPER = TCNNConfig()


def test_choices_of_fine_tuning_are_those_of_the_configuration():
    assert "the ten to which its component gives" in TCNN["TCNN-A7"].choice and PAPER.validation == 10
    assert f"batches of {PAPER.batch} images of each head" in TCNN["TCNN-A6"].choice
    assert PAPER.step_size < PAPER.vanilla.step_size  # "below the vanilla network's first one"
    assert f"for {PAPER.epochs:,} epochs at most" in TCNN["TCNN-A8"].choice
    assert f"{PAPER.clusters} as printed" in TCNN["TCNN-A17"].choice


def test_the_papers_numbers_are_the_defaults():
    assert (PAPER.clusters, PAPER.images, PAPER.patience) == (48, 5000, 50)
    assert PAPER.augmentation == "aligned" and PAPER.covariance == "spherical" and PAPER.split == "FC5"
    assert CONFIGS["cpu"].images < PAPER.images == CONFIGS["gpu"].images  # TCNN-A13


def test_the_vanilla_network_alone_sees_moved_images():
    assert "moved, turned, scaled and mirrored at random for the vanilla network" in TCNN["TCNN-A14"].choice
    config = PAPER.vanilla
    assert min(config.shift, config.rotation, config.scale) > 0 and config.mirrored and config.warps == 0


def test_shifted_images_are_shifted_by_a_tenth():
    assert "up to a tenth of the crop" in TCNN["TCNN-A18"].choice and tcnn_augmentation.OVERSAMPLING == 0.1


@pytest.mark.parametrize("split", tcnn.SPLITS)
def test_heads_begin_as_the_vanilla_network_ends(split):
    torch.manual_seed(0)
    network = Vanilla().eval()
    crops = torch.rand(6, 3, 40, 40)
    heads = Heads(network, 3, split)
    with torch.inference_mode():
        found = heads.routed(network.features(crops, split), torch.tensor([0, 1, 2, 2, 1, 0]))
        assert (found - network(crops)).abs().max() < 0.3  # pixels; convolutions are in bfloat16 on one side
