"""What the DAN chapter shows of its comparisons: the right faces in the right order, and changes against the right numbers."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from toy_faces import CANONICAL, toy_faces

from replicate.errors import ReplicateError
from replicate.evidence import manifest
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import dan_results as views
from replicate.faces.sources import FaceSource
from replicate.methods.dan import CONFIGS, DAN

ABOUT = {"device": "test", "training_seconds": 1.0, "faces_sha256": "0", "box_rule": "b", "training_faces": 5}


@pytest.fixture
def run():
    yield Experiment("dan", device="cpu", seed=3)
    plt.close("all")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    config = CONFIGS["smoke", "synthetic"]
    return DAN(config, 2, CANONICAL, torch.zeros(112, 112), torch.ones(112, 112)).eval()


def on_record(faces, errors, points=None):
    errors = dict.fromkeys(("inter-ocular", "inter-pupil"), np.asarray(errors, float))
    return Predictions("m", "toy", faces.faces, faces.names, errors, points, ABOUT)


@pytest.mark.parametrize("recorded", [True, False])
def test_the_worst_faces_come_in_the_order_of_their_errors(run, network, recorded):
    faces = toy_faces(12)
    errors = np.linspace(1, 12, 12)[::-1].copy()
    errors[[0, 5]] = errors[[5, 0]]
    figure = views.worst_faces(
        run, network, faces, on_record(faces, errors, faces.points if recorded else None)
    )
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == [f"{error:.1f} %" for error in range(12, 3, -1)]
    assert (
        "9 worst of 12 train synthetic faces, profile smoke, seed 3: 4 of 12 above 8 %" in figure.get_label()
    )
    shown = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    assert np.array_equal(shown[0], faces.images[5]) and np.array_equal(shown[1], faces.images[1])
    (kept,) = manifest.load("dan", ["smoke"])
    assert (kept.artefact, kept.images, kept.seeds, kept.box_rule) == ("DAN-F4", 12, 1, "made by the test")


def test_predictions_on_other_faces_are_refused(run, network):
    faces = toy_faces(12)
    other = replace(faces, names=tuple(f"other {name}" for name in faces.names))
    with pytest.raises(ReplicateError, match="got predictions on toy, expected 12 faces of train"):
        views.worst_faces(run, network, faces, on_record(other, np.ones(12)))


def test_menpo_faces_are_those_that_the_second_stage_corrects_most(run, network, monkeypatch):
    faces = toy_faces(15)
    moved = 1.5 ** np.arange(15.0)[::-1, None, None] * np.ones((1, 68, 2))
    monkeypatch.setattr(FaceSource, "sample", lambda source, count: faces)
    monkeypatch.setattr(views, "predict_faces", lambda network, faces: [faces.points, faces.points + moved])
    figure = views.menpo_faces(run, network, run.source("menpo", "test"))
    shown = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    assert len(shown) == 10 and np.array_equal(shown[0], faces.images[0])
    assert "10 of the first 15" in figure.get_label() and "starting boxes" in figure.get_label()
    (kept,) = manifest.load("dan", ["smoke"])
    assert (kept.artefact, kept.subset) == ("DAN-F5", "menpo/test")


@pytest.mark.parametrize("kind", ["synthetic", "real"])
def test_statements_are_relative_to_sdm_and_on_photographs_to_the_printed_number_too(kind):
    run = Experiment("dan", faces=kind, device="cpu")
    faces = replace(toy_faces(20), faces=kind)
    before, after = on_record(faces, [10.0] * 10 + [4.0] * 10), on_record(faces, [9.0] * 2 + [4.0] * 18)
    made = views.change_statement(
        run, "DAN-S3", run.source("300w", "full"), [after], [before],
        metric="failure rate 0.08, inter-ocular", best="MDM", printed_in="DAN-T3",
    )  # fmt: skip
    expected = {"failure-rate reduction vs SDM": 80.0}
    if kind == "real":
        expected["failure-rate reduction vs MDM"] = pytest.approx(100 * (4.21 - 10) / 4.21, rel=1e-4)
    assert {row.metric: row.value for row in made} == expected
    general = views.in_general(made, "DAN-S1")
    assert {(row.artefact, row.protocol, row.subset) for row in general} == {("DAN-S1", "", "")}
    assert [row.value for row in general] == [row.value for row in made]
    assert all(row.note.endswith("; DAN-S1 on the full set") for row in general)


def test_paired_changes_stand_beside_the_papers(run):
    faces = toy_faces(20)
    errors = np.linspace(2, 9, 20)
    after = {"full": [on_record(faces, errors - 0.5)], "common": [on_record(faces, errors - 0.5)]}
    before = {subset: [on_record(faces, errors)] for subset in after}
    table = views.paired_changes(run, ("DAN-Menpo", "DAN"), after, before, "More faces")
    lines = {(line[0], line[1].split(",")[0]): line[2:] for line in table.data.to_numpy().tolist()}
    assert lines["full", "mean error"] == ["5.50", "5.00", "-0.50 [-0.50, -0.50]", "-0.15"]
    assert lines["common", "mean error"][3] == "-0.10"
    assert lines["full", "failure rate 0.08"][3] == "-0.58" and lines["common", "AUC 0.08"][3] == "–"
    assert "20 full, 20 common images; 1 seed" in table.caption
