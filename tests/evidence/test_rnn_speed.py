"""Times of RNN: what is timed is the prediction, times become rows and a verdict, and are not measured twice."""

import time

import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate.evidence import claims, tables, timings
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import rnn_speed as views
from replicate.methods.rnn import CONFIGS, RNNConfig

torch.set_num_threads(1)
CPU = torch.device("cpu")
WAVE = np.sin(np.arange(12)) / 50


def experiment(**changes):
    return Experiment(**{"paper": "rnn", "profile": "smoke", "device": "cpu", **changes})


@pytest.fixture
def timed(monkeypatch):
    """In place of a clock: 0.1 s at 128 pixels and 3.8 times as much at 256."""
    asked = []

    def measure(config, faces, device, rounds):
        asked.append((config.backbone, config.width))
        return {128: 0.1 * (1 + WAVE), 256: 0.38 * (1 + WAVE)}

    monkeypatch.setattr(views, "measure", measure)
    return asked


def test_the_papers_networks_are_timed_beside_the_profiles():
    found = views.configs(experiment(profile="cpu"))
    assert list(found) == ["VGG-19", "VGG-S", "VGG-S, width 0.25, 0.5 of the pixels along a side"]
    assert found["VGG-19"] == RNNConfig() and found["VGG-S"].width == 1
    assert list(views.configs(experiment(profile="gpu"))) == ["VGG-19", "VGG-S"]
    assert views.configs(experiment()) == {"VGG-S": CONFIGS["smoke"]}


def test_the_timed_work_is_that_of_prediction(monkeypatch):
    shapes = []

    def alternate(ways, count, rounds, clock):
        shapes.extend(way()["candidates"] for way in ways)
        assert (len(ways), count, rounds, clock) == (2, 3, 10, time.process_time)
        return np.outer([8.0, 2.0], np.ones(rounds))

    monkeypatch.setattr(timings, "alternate", alternate)
    monkeypatch.setattr(views, "synchronised", lambda work, device: work)
    found = views.measure(CONFIGS["smoke"], toy_faces(3), CPU, 10)
    assert found[128][0] == 1 / 8 and found[256][0] == 1 / 2
    assert all(shape.shape == (9, 3, 68, 2) for shape in shapes)


def test_times_stand_beside_the_papers_and_are_judged(timed):
    rows, verdict = views.speed(experiment(profile="cpu"), lambda: toy_faces(2))
    assert timed == [("VGG-19", 1.0), ("VGG-S", 1.0), ("VGG-S", 0.25)] and len(rows) == 9
    shown = tables.compare(rows)
    faster = shown[shown["metric"] == views.FASTER]
    assert faster["paper"].tolist() == ["4", "–", "–"] and faster["ours"].str.startswith("3.8").all()
    assert (verdict.claim, verdict.verdict) == ("RNN-C19", "reproduced")
    assert verdict.left == pytest.approx(3.8) and verdict.right == 4
    assert verdict.note.startswith("of VGG-19, 2 faces at a time; 10 rounds")


def test_what_is_on_record_is_not_timed_again_unless_asked(timed):
    rows, verdict = views.speed(experiment(), lambda: toy_faces(2))
    again, same = views.speed(experiment(), lambda: None)
    assert len(timed) == 1 and same == verdict == claims.recorded("rnn", ["smoke"])[0]
    assert {row.key: row.value for row in again} == {row.key: row.value for row in rows}
    views.speed(experiment(fresh=True), lambda: toy_faces(2))
    assert len(timed) == 2


def test_gates_are_timed_once(monkeypatch):
    asked = []

    def alternate(ways, count, rounds, clock):
        asked.append(len(ways))
        for way in ways:
            way()
        return np.outer(np.arange(1, len(ways) + 1), np.ones(rounds))

    monkeypatch.setattr(timings, "alternate", alternate)
    rows = views.gate_rows(experiment())
    assert [row.value for row in rows] == pytest.approx([1 / n for n in range(1, 6)])
    assert rows[0].method == "LSTM, 5 landmarks, gates full" and "6 channels, 8 steps" in rows[0].note
    assert [row.method for row in views.gate_rows(experiment())] == views.cell_names() and asked == [5]


def test_weights_of_the_timed_gates_are_those_of_the_papers_width():
    rows = {row.method: row.value for row in views.cell_weights(experiment())}
    assert list(rows) == views.cell_names()
    assert rows["LSTM, 5 landmarks, gates full"] == pytest.approx(4 * (2 * 480**2 + 480) / 1e6)
    assert rows["LSTM, 68 landmarks, gates low rank"] == pytest.approx(6528 * 772 / 1e6)


@pytest.mark.parametrize("gates", ["full", "low rank", "per landmark"])
def test_the_timed_gates_run_all_steps_forward_and_backward(gates, monkeypatch):
    seen = []
    plain = views.LSTM.forward

    def forward(self, features, before, cell):
        found = plain(self, features, before, cell)
        seen.append(found[0])
        return found

    monkeypatch.setattr(views.LSTM, "forward", forward)
    views.unrolled(CONFIGS["smoke"], 5, 6, gates, CPU)()
    assert len(seen) == 8 and seen[-1].requires_grad and seen[-1].shape == (8, 5, 6)


def test_a_clock_may_be_given():
    ticks = iter(range(1000))
    rates = timings.alternate([lambda: None, lambda: None], 6, 10, lambda: 2.0 * next(ticks))
    np.testing.assert_allclose(rates, 3.0)  # six things in two seconds
