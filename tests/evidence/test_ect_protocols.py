"""Other benchmarks of ECT: ranges of yaw as the paper has them, and rows that stand for the faces of a range."""

import numpy as np
import pytest

from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import ect_protocols as views
from replicate.faces.faceset import FaceSet

YAW = np.array([-5.0, 30.0, -31.0, 60.0, -90.0, 75.0, 10.0, 45.0])
SIDES = np.array([0, 0, 1, 1, 2, 2, 0, 1])


def faces(**changes):
    count = len(YAW)
    about = dict(
        images=np.zeros((count, 8, 8), np.uint8),
        points=np.zeros((count, 34, 2), np.float32),
        visible=np.ones((count, 34), bool),
        boxes=np.tile(np.float32([0, 0, 7, 7]), (count, 1)),
        names=tuple(f"face{n}" for n in range(count)),
        markup="aflw34",
        protocol="aflw-pifa",
        split="test",
        faces="synthetic",
        box_rule="tight",
        attributes={"yaw": YAW},
    )
    return FaceSet(**about | changes)


def runs(errors, model="m"):
    about = dict(
        device="test", training_seconds=1.0, training_faces=10, faces_sha256="0", box_rule="tight", markup="aflw34"
    )  # fmt: skip
    found = {"box": errors + 1, "box, 21 points": errors}
    return [Predictions(model, "aflw-pifa-test", "synthetic", faces().names, found, provenance=about)]


def test_ranges_are_those_of_the_paper_and_hold_their_bounds():
    ranges = views.by_yaw(faces())
    assert list(ranges) == ["|yaw| 0-30", "|yaw| 30-60", "|yaw| 60-90", "|yaw| mean"]
    for number, name in enumerate(list(ranges)[:3]):
        assert (ranges[name] == (number == SIDES)).all()
    assert ranges["|yaw| mean"].all()


def test_faces_beyond_the_ranges_or_of_unknown_yaw_are_in_none():
    ranges = views.by_yaw(faces(attributes={"yaw": np.array([95, np.nan, 1, 2, 3, 4, 40, 50.0])}))
    assert ranges["|yaw| mean"].tolist() == [False, False] + [True] * 6
    assert "|yaw| 60-90" not in ranges
    assert views.by_yaw(faces(attributes={})) == {}


def test_runs_are_cut_to_the_faces_of_a_range():
    one = runs(np.arange(8.0))[0]
    kept = views.among({"ECT": [one]}, SIDES == 2)["ECT"][0]
    assert kept.names == ("face4", "face5") and kept.errors["box"].tolist() == [5.0, 6.0]
    assert kept.provenance == one.provenance


def test_rows_by_yaw_have_21_points_and_the_number_of_faces():
    run = Experiment("ect", "cpu", device="cpu")
    results = {"ECT": runs(1.0 + SIDES)}
    rows = views.yaw_rows(run, "ECT-T4", run.source("aflw-pifa", "test"), results, views.by_yaw(faces()))
    found = {row.subset: (row.value, row.images, row.points) for row in rows}
    assert found["|yaw| 0-30"] == (1.0, 3, 21) and found["|yaw| 60-90"] == (3.0, 2, 21)
    assert found["|yaw| mean"] == (pytest.approx(15 / 8), 8, 21)
    assert {row.metric for row in rows} == {"mean error, visible points"}
    stated = views.for_statement(rows, "ECT-S5")
    assert {row.artefact for row in stated} == {"ECT-S5"} and stated[0].value == rows[0].value


def test_all_methods_are_tested_on_the_same_faces_at_smoke():
    """AFW is fitted by what was trained on AFLW-PIFA: 34 points give the six."""
    run = Experiment("ect", "smoke", device="cpu")
    results = views.compared_methods(run, run.source("aflw-pifa", "train"), run.source("afw", "test"))
    assert list(results) == ["mean shape", "SDM", "CRM between pixels", "ECT"]
    for found in results.values():
        assert len(found) == 1 and found[0].markup == "afw6" and set(found[0].errors) == {"box", "pixel"}
    rows = views.error_rows(run, "ECT-T5", run.source("afw", "test"), results)
    assert {(row.metric, row.unit, row.points) for row in rows} == {
        ("mean error, visible points", "%", 6),
        ("MAPE", "px", 6),
    }
