"""LDDR's tables and curves: rows under the right names, curves read at the right places, the error of IJB-A in closed form."""

import numpy as np
import pytest

from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import lddr_results as views
from replicate.faces.faceset import FaceSet

ABOUT = {"device": "test", "training_seconds": 1.0, "faces_sha256": "0", "box_rule": "b", "training_faces": 5}
NAMES = tuple(f"face {number}" for number in range(20))


@pytest.fixture
def run():
    return Experiment("lddr", device="cpu", seed=2)


def one_run(error, score="inter-pupil", **about):
    errors = np.broadcast_to(np.asarray(error, float), len(NAMES))
    return Predictions("m", "toy", "synthetic", NAMES, {score: errors}, None, ABOUT | about)


def press_faces(yaw=(0.0, 10.0, 45.0, 80.0)):
    """Faces of three points whose eyes come together as they turn, and whose nose moves out; box sides are 100 pixels."""
    yaw = np.asarray(yaw)
    turn = np.deg2rad(yaw)[:, None]
    x = np.concatenate([-20 * np.cos(turn), 20 * np.cos(turn), 15 * np.sin(turn)], 1)
    y = np.broadcast_to([0.0, 0.0, 25.0], x.shape)
    points = (np.stack([x, y], -1) + 60).astype(np.float32)
    count = len(yaw)
    return FaceSet(
        [np.zeros((120, 120), np.uint8)] * count, points, np.ones((count, 3), bool), np.tile(np.float32([10, 10, 110, 110]), (count, 1)),
        NAMES[:count], "ijba3", "ijb-a", "test", "synthetic", "b", {"yaw": yaw},
    )  # fmt: skip


def test_the_test_sets_are_those_of_the_claims(run):
    sets = {name: (source.protocol, source.split) for name, source in views.test_sets(run).items()}
    assert sets == {
        "lfpw": ("lfpw", "test"),
        "helen": ("helen", "test"),
        "challenging": ("300w", "challenging"),
    }


def test_own_and_cumulative_training_stand_under_the_papers_names(run):
    own, together = {"lfpw": [one_run(5.0)], "helen": [one_run(8.0)]}, {}
    together = {"lfpw": [one_run(4.5)], "helen": [one_run(4.0)]}
    errors, changes = views.training_rows(run, views.test_sets(run), own, together)
    found = {(row.artefact, row.method, row.protocol): row.value for row in errors}
    assert found == {
        ("LDDR-S1", "LDDR, trained on LFPW train only", "lfpw"): 5.0,
        ("LDDR-S1", "LDDR, trained on Helen train only", "helen"): 8.0,
        ("LDDR-S2", "LDDR, trained on the cumulative set", "lfpw"): 4.5,
        ("LDDR-S2", "LDDR, trained on the cumulative set", "helen"): 4.0,
    }
    gains = {row.protocol: (row.artefact, row.value, row.ci_low, row.metric) for row in changes}
    assert gains["lfpw"] == (
        "LDDR-S2",
        10.0,
        10.0,
        "mean-error reduction vs LDDR, trained on LFPW train only",
    )
    assert gains["helen"][1] == 50.0


def test_more_training_faces_are_judged_on_their_set_and_named(run):
    own, together = (
        {"helen": [one_run(5.0, training_faces=9)]},
        {"helen": [one_run(4.0)], "lfpw": [one_run(9.0)]},
    )
    verdict = views.judge_training(run, "LDDR-C1", "helen", own, together)
    assert (verdict.left, verdict.right, verdict.difference) == (4.0, 5.0, -1.0)
    assert verdict.verdict == "reproduced" and verdict.note == "trained on 5 faces against trained on 9 faces"


def test_methods_of_other_chapters_are_those_on_their_record(run, monkeypatch):
    asked = []

    def compared_methods(of_ect, source):
        asked.append((of_ect.paper, of_ect.profile, of_ect.seed, of_ect.fresh, source.protocol))
        return {name: [one_run(1.0)] for name in ("mean shape", "SDM", "DAN", "ECT")}

    monkeypatch.setattr(views.ect_results, "compared_methods", compared_methods)
    assert list(views.of_other_chapters(run, run.source("lfpw", "test"))) == ["DAN", "ECT"]
    assert asked == [("ect", "smoke", 2, False, "lfpw")]


def test_samples_are_the_curve_at_its_places(run):
    results = {
        "SDM": [one_run(9.0, "face")],
        "LDDR": [one_run(np.arange(1.0, 21), "face"), one_run(2.0, "face")],
    }
    rows = views.curve_samples(run, "LDDR-F4a", run.source("lfpw", "test"), results, "face", (2, 10))
    found = {(row.method, row.metric): row.value for row in rows}
    assert found == {
        ("SDM", "images with an error up to 2 %"): 0.0,
        ("SDM", "images with an error up to 10 %"): 100.0,
        ("LDDR", "images with an error up to 2 %"): 55.0,  # 2 of 20, and all
        ("LDDR", "images with an error up to 10 %"): 75.0,
    }
    assert all((row.normaliser, row.points, row.unit) == ("face", 68, "%") for row in rows)
    assert rows[2].ci_low < 55.0 < rows[2].ci_high
    table = views.samples_table(rows, "Samples")
    assert list(table.data.columns) == ["method", "up to 2 % of the face size", "up to 10 % of the face size"]
    assert table.data.loc[0].tolist() == ["SDM", "0.0 [0.0, 0.0]", "100.0 [100.0, 100.0]"]
    assert (
        table.caption.startswith("SMOKE PROFILE")
        and "Samples: per cent of the images with an error. Synthetic faces" in table.caption
    )


def test_the_error_of_three_points_is_divided_by_the_distance_from_nose_to_eyes(monkeypatch):
    faces = press_faces()
    assert max(views.check_eye_nose(faces).values()) < 1e-9
    exact = views.nme
    monkeypatch.setattr(
        views, "nme", lambda *points, **how: exact(*points, **how | {"normaliser": "inter-pupil"})
    )
    assert min(views.check_eye_nose(faces).values()) > 1


def test_eyes_come_together_as_faces_turn_and_the_nose_does_not(run):
    table = views.distance_table(run, press_faces())
    assert table.data.to_numpy().tolist() == [
        ["0-30", 2, "40, 39", "25, 25"],
        ["30-60", 1, "28, 28", "27, 27"],
        ["60-90", 1, "7, 7", "29, 29"],
        ["any", 4, "34, 7", "26, 25"],
    ]
    assert "4 ijb-a test images" in table.caption and "seed" not in table.caption
