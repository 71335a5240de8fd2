"""Boxes of a detector: faces missed and errors of boxes as rows, errors of both networks by box, faces missed counted as failures."""

import numpy as np
import pytest

from replicate.evidence import detected
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import tcnn_boxes as views
from replicate.evidence.views.tcnn_300w import Beyond
from replicate.faces import detector

ABOUT = {"device": "test", "training_seconds": 1.0, "faces_sha256": "0", "box_rule": "b", "training_faces": 5}
SETS = {"afw": "afw/train", "helen": "helen/test", "ibug": "300w/challenging", "lfpw": "lfpw/test"}
COUNT = 8  # faces of a set


@pytest.fixture
def run():
    return Experiment("tcnn", "cpu", device="cpu")


def looked_at(names, missed, position=3.0, size=4.0):
    """Detections of which the first ones are missed."""
    lost = np.arange(len(names)) < missed
    values = {detected.BOX: 5.0, detected.POSITION: position, detected.SIZE: size}
    errors = {key: np.where(lost, np.inf, value) for key, value in values.items()}
    return Predictions("d", "t", "synthetic", names, errors, None, {"device": "test"})


def faces_of(begin, count=COUNT):
    return tuple(f"{begin}/{number}" for number in range(count))


def one_run(errors):
    return Predictions(
        "m",
        "t",
        "synthetic",
        faces_of("mtfl/test"),
        {"inter-pupil": np.asarray(errors, float)},
        None,
        ABOUT | {"markup": "mtfl5"},
    )


def test_missed_faces_are_counted_and_boxes_of_the_others_measured(run):
    source = run.source("mtfl", "test")
    position = np.array([9, 9, 1, 2, 3, 4, 5, 6.0])
    one = looked_at(faces_of("mtfl/test"), 2, position, np.full(8, 4.0))
    rows = views.detection_rows(run, "TCNN-S2", {"AFLW": (source, one)})
    found = {row.metric: (row.value, row.count, row.images, row.unit) for row in rows}
    assert found == {
        views.MISSED: (25.0, 2, 8, "%"),
        views.SPREADS[detected.POSITION]: (pytest.approx(np.sqrt(91 / 6 / 2), rel=1e-5), None, 8, "%"),
        views.SPREADS[detected.SIZE]: (4.0, None, 8, "%"),
    }
    assert {(row.method, row.protocol, row.subset) for row in rows} == {(detector.NAME, "mtfl", "test")}
    table = views.detection_table(rows, {"AFLW": (source, one)}, "Missed")
    assert table.data.iloc[0, :3].tolist() == ["AFLW", "8", "2"]
    assert table.data.iloc[0, 5] == "4.00 [4.00, 4.00]"


def test_a_set_without_a_face_found_has_no_errors_of_boxes(run):
    looked = {"iBUG": (run.source("300w", "challenging"), looked_at(faces_of("x"), 8))}
    rows = views.detection_rows(run, "TCNN-S2", looked)
    assert [(row.metric, row.value) for row in rows] == [(views.MISSED, 100.0)]
    assert views.detection_table(rows, looked, "").data.iloc[0, 4:].tolist() == ["–", "–"]


def test_fallbacks_are_the_faces_missed_of_each_set_and_together(run, monkeypatch):
    names = tuple(name for begin in SETS.values() for name in faces_of(begin))
    one = looked_at(names, 11)  # all of AFW, three of HELEN
    monkeypatch.setattr(detected, "detections", lambda run, boxes: one)
    study = Beyond(run)
    looked = views.look_300w(study)
    assert {name: (source.split, len(part.names)) for name, (source, part) in looked.items()} == {
        "AFW": ("train", 8), "HELEN": ("test", 8), "iBUG": ("challenging", 8), "LFPW": ("test", 8)
    }  # fmt: skip
    rows = views.fallback_rows(run, "TCNN-S28", study, looked)
    assert [(row.protocol, row.subset, row.value, row.images) for row in rows] == [
        ("afw", "train", 8, 8),
        ("helen", "test", 3, 8),
        ("300w", "challenging", 0, 8),
        ("lfpw", "test", 0, 8),
        ("300w", "unseen", 11, 32),
    ]
    table = views.fallback_table(rows, {("afw", "train"): "AFW"}, "Fallbacks").data
    assert table.iloc[0].tolist() == ["AFW", "8", "8", "100.0"] and table.iloc[-1].tolist() == [
        "together",
        "32",
        "11",
        "34.4",
    ]


def test_training_faces_are_sampled_where_they_would_have_to_be_made(monkeypatch):
    asked = []

    def detections(run, boxes):
        asked.append((boxes.protocol, boxes.split, boxes.train.protocol))
        return looked_at(tuple(name for begin in SETS.values() for name in faces_of(begin)), 1)

    monkeypatch.setattr(detected, "detections", detections)
    for faces in ("synthetic", "real"):
        run = Experiment("tcnn", "cpu", faces, device="cpu")
        assert list(views.look(run, run.source("mtfl", "train"), run.source("mtfl", "test")))[:2] == [
            "training",
            "AFLW",
        ]
    assert [split for _, split, _ in asked[:4]] == [
        "train-first500@detector",
        "test@detector",
        "unseen@detector",
        "train@detector",
    ]
    assert [train for *_, train in asked[:3]] == ["mtfl", "mtfl", "300w"]


def kinds():
    vanilla = {level: [one_run(np.full(8, 6 + 20 * level))] for level in views.LEVELS}
    tweaked = {level: [one_run(np.full(8, 5 + 20 * level))] for level in views.LEVELS}
    by_boxes = {level: {views.VANILLA: vanilla[level], views.TCNN: tweaked[level]} for level in views.LEVELS}
    errors = np.array([40.0, 30, 12, 4, 4, 4, 4, 4])
    by_boxes[views.BY_DETECTOR] = {views.VANILLA: [one_run(errors + 2)], views.TCNN: [one_run(errors)] * 2}
    return by_boxes, looked_at(faces_of("mtfl/test"), 2)


def test_errors_by_box_and_of_faces_found(run):
    by_boxes, looked = kinds()
    rows = views.box_rows(run, "TCNN-S2", run.source("mtfl", "test"), by_boxes, looked)
    found = {(row.method, row.metric): (row.value, row.images) for row in rows}
    assert found["vanilla CNN", "mean error, box noise 2.5 %"] == (6.5, 8)
    assert found["TCNN", "mean error, box noise 10 %"] == (7.0, 8)
    assert found["TCNN", f"mean error, {views.BY_DETECTOR}"] == (102 / 8, 8)
    assert found["TCNN", f"mean error, {views.FOUND}"] == (pytest.approx(32 / 6, rel=1e-5), 6)
    table = views.box_table(run, by_boxes, looked, "By box").data
    assert table["boxes"].tolist() == [
        *(f"box noise {level} %" for level in ("0", "2.5", "5", "10")),
        views.BY_DETECTOR,
        views.FOUND,
    ]
    assert table.iloc[2].tolist() == [
        "box noise 5 %",
        8,
        "7.00 [7.00, 7.00]",
        "6.00 [6.00, 6.00]",
        "-1.00 [-1.00, -1.00]",
    ]
    assert table["faces"].tolist() == [8, 8, 8, 8, 8, 6]


def test_faces_missed_are_failures_whatever_their_error(run):
    by_boxes, looked = kinds()
    looked.errors[detected.BOX][5] = np.inf  # missed, with a small error from its true box
    rows = views.box_rows(run, "TCNN-S2", run.source("mtfl", "test"), by_boxes, looked)
    failed = {row.method: (row.value, row.count, row.seeds) for row in rows if row.metric == views.FAILED}
    assert failed == {"vanilla CNN": (50.0, 4, 1), "TCNN": (50.0, 8, 2)}


def test_the_boxes_that_the_faces_have_are_not_made_again(run, monkeypatch):
    asked = []
    monkeypatch.setattr(
        views.tested,
        "test_vanilla",
        lambda run, config, train, source, seeds: asked.append((source.split, len(seeds))),
    )
    monkeypatch.setattr(views.tested, "test_tcnn", lambda run, config, train, source, seeds: None)
    found = views.test_boxes(run, run.source("mtfl", "train"), run.source("mtfl", "test"))
    assert list(found) == [*views.LEVELS, views.BY_DETECTOR]
    assert asked == [("test@0", 3), ("test@0.025", 3), ("test", 3), ("test@0.1", 3), ("test@detector", 3)]


def test_the_plot_has_both_networks_at_every_level(run, drawing):
    by_boxes, _ = kinds()
    figure = views.noise_plot(run, "TCNN-S2", run.source("mtfl", "test"), by_boxes)
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(lines["TCNN"], [[0, 5], [2.5, 5.5], [5, 6], [10, 7]])
    assert "vanilla CNN: from 6.0 % at a noise of 0 % to 8.0 % at a noise of 10 %" in figure.get_label()
