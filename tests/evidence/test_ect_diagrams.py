"""Diagrams of the ECT chapter: what they are drawn from is what the network is, and they belong to no kind of faces."""

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from replicate.evidence import manifest, published
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import ect_diagrams as views
from replicate.methods.ect import CONFIGS, FCN, ECTConfig

PAPER, SMALL = ECTConfig(), CONFIGS["smoke", "synthetic"]


pytestmark = pytest.mark.usefixtures("drawing")


def test_layers_are_those_of_the_published_definition():
    found = {one.name: one for one in views.layers(PAPER)}
    assert list(found)[:6] == ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4"]
    assert list(found)[-2:] == ["conv5_fusion", "bilinear"] and len(found) == 16
    assert found["conv1"].inside == (3, 256) and found["pool2"].outside == (128, 64)
    assert found["conv4"].filters == tuple(f"(3, 1, d{d})" for d in (1, 2, 3, 4))
    assert found["conv2_fusion"].filters[-1] == "(5, 1, d3)" and found["conv6"].filters == ("(1, 1)",)
    assert found["conv1_fusion"].inside == (384, 64) and found["bilinear"].outside == (68, 256)
    assert found["conv1"].parameters == 128 * (3 * 25 + 1)


def test_parameters_are_those_that_are_published_and_those_of_the_network():
    counts = views.parameter_counts(PAPER)
    total = "FCN parameters (68 points)"
    assert counts[total] == published.value("ECT-T7", label="ECT", metric=total)
    small = views.parameter_counts(SMALL, points=5)
    assert small["FCN parameters (5 points)"] == sum(p.numel() for p in FCN(SMALL, 5).parameters())
    assert small["parameters, UpsampleNet"] == 0


def test_a_truncated_network_has_no_fusion_part():
    truncated = replace(SMALL, network="truncated")
    assert views.parameter_counts(truncated)["parameters, FusionNet"] == 0
    table = views.layer_table(truncated)
    assert table["part"].unique().tolist() == ["PrimaryNet", "UpsampleNet"]
    assert table.iloc[0].tolist() == ["PrimaryNet", "conv1", "(5, 1)", "3 @ 64×64", "8 @ 64×64", "608"]


def test_a_footprint_has_the_pixels_that_a_filter_reads():
    read = np.argwhere(views.footprint(nn.Conv2d(1, 1, 3, padding=4, dilation=4)))
    assert {tuple(place) for place in read.tolist()} == {(y, x) for y in (4, 8, 12) for x in (4, 8, 12)}
    assert views.footprint(nn.Conv2d(1, 1, 5, padding=6, dilation=3)).sum() == 25


@pytest.mark.parametrize("faces", ["synthetic", "real"])
def test_diagrams_belong_to_the_edition_of_generated_faces(faces):
    run = Experiment("ect", "cpu", faces, device="cpu")
    views.outline(run)
    views.network_outline(run, SMALL)
    views.inception_outline(run, SMALL)
    made = {figure.artefact: figure for figure in manifest.load("ect")}
    assert set(made) == {"ECT-F1", "ECT-F2a", "ECT-F2b"}
    assert all(figure.faces == "synthetic" for figure in made.values())
    assert "conv5 64" in made["ECT-F2a"].alt  # of the network that is drawn, which is narrow
    assert "3×3, dilation 4" in made["ECT-F2b"].alt
