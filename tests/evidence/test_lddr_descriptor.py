"""The descriptor's page: sizes, fields and shares are those of the forms, and diagrams belong to no kind of faces."""

from dataclasses import replace

import pytest
import torch

from replicate.evidence import claims, manifest, published, tables
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import lddr_descriptor as views
from replicate.methods.lddr import ALEXNET, CONFIGS, FACE, STAGES, Form

pytestmark = pytest.mark.usefixtures("drawing")


@pytest.fixture
def run():
    return Experiment("lddr", device="cpu")


def test_table_1_is_as_printed(run):
    rows = views.stage_rows(run)
    printed = published.load("lddr")
    printed = printed[printed["artefact"] == "LDDR-T1"]
    found = {(row.method, row.metric): row.value for row in rows if row.metric != "output side"}
    assert found == {(one.label, one.metric): one.number for one in printed.itertuples()}
    assert [row.value for row in rows if row.metric == "output side"] == [1, 1, 1, 1]
    assert "92" in tables.compare(rows)["paper"].to_list()


def test_layers_and_sides_of_all_stages():
    table = views.layer_table().set_index("layer")
    assert table.loc["conv2"].to_list() == ["5 × 5", "256", "307,456", "7 (1)", "7 (1)", "12 (1)", "7 (1)"]
    assert table.loc["max2", ["parameters", "stage 3"]].to_list() == ["–", "7 (2)"]
    assert table.loc["input"].to_list()[-4:] == ["92", "68", "42", "21"]
    assert len(table) == 8


def test_only_padded_pooling_that_rounds_up_ends_in_one_pixel_everywhere():
    table = views.rounding_table()
    ends = table.iloc[:4, 2:].to_numpy().tolist()
    assert ends[0] == [1, 1, 1, 1] and ends[1] == [1, "none", "none", 1]
    assert all("none" in line for line in ends[2:])
    assert table.iloc[4, 2:].to_list() == ["87 to 94", "68 to 73", "41 to 44", "21"]


@pytest.mark.parametrize("form", [*STAGES, ALEXNET, Form(60, 2, 1, 2, 1)])
def test_rounded_up_the_last_side_is_that_of_the_form(form):
    assert views.final_side(form, up=True) == form.sides()["conv5"]
    assert views.final_side(replace(form, input=12), up=True) == 0


def test_claims_about_sides_are_judged_by_running_the_networks(run):
    verdict = views.judge_sides(run)
    assert (verdict.claim, verdict.verdict) == ("LDDR-C14", "reproduced")
    assert claims.recorded("lddr", ["smoke"]) == [verdict]


def test_fields_by_arithmetic_are_those_by_gradient():
    table = views.field_table().set_index("unit")
    found = table["by arithmetic, px"].to_list()
    assert found == [163, 195, 115, 89, 51, 25] and table["by gradient, px"].to_list() == found
    assert (
        table.loc["AlexNet, conv5", "paper, px"] == "195" and table.loc["stage 4, conv5", "paper, px"] == "21"
    )
    assert table["patch, px"].to_list() == ["–", "–", 92, 68, 42, 21]


def test_rows_bear_the_names_of_the_printed_numbers(run):
    rows = views.descriptor_rows(run) + views.patch_rows(run)
    table = tables.compare(rows).set_index(["method", "metric"])
    printed = {key: cell for key, cell in table["paper"].items() if cell not in ("–", "")}
    assert list(printed.values()) == ["195", "21", "256", "0.4", "0.3", "0.2", "0.1"]
    shares = [row.value for row in rows if row.artefact == "LDDR-S11"]
    assert shares == pytest.approx([form.input / FACE for form in STAGES], rel=1e-5)
    (features,) = (row.value for row in rows if row.artefact == "LDDR-S10")
    assert features == 17_408


@pytest.mark.parametrize("faces", ["synthetic", "real"])
def test_diagrams_and_patches_belong_to_the_edition_of_generated_faces(faces):
    run = Experiment("lddr", "smoke", faces, device="cpu")
    network = views.base_network(run)
    views.pipeline(run)
    views.patches_figure(run, CONFIGS["smoke"])
    assert "conv5 1 × 1 × 256" in network.get_label() and "max1 11 × 11 × 96" in network.get_label()
    made = {figure.artefact: figure for figure in manifest.load("lddr", ["smoke"])}
    assert set(made) == {"LDDR-F2", "LDDR-F3", "LDDR-S11"}
    assert {figure.faces for figure in made.values()} == {"synthetic"}


def test_crops_are_those_of_the_cascade_with_their_points(run):
    faces = run.source("lfpw", "test").sample(3)
    crops, points = views.crops_of(faces, CONFIGS["smoke"])
    assert crops.shape == (3, 320, 320, 3) and crops.dtype == torch.uint8
    sides = torch.as_tensor(faces.boxes[:, 2:] - faces.boxes[:, :2]).amax(1)
    spread = (points - points[:, :1]).norm(dim=-1).amax(1)
    true = torch.as_tensor(faces.points)
    expected = (true - true[:, :1]).norm(dim=-1).amax(1) * FACE / sides
    torch.testing.assert_close(spread, expected, rtol=0.02, atol=0)
