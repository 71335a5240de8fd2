"""Speed of DAN: both ways give the same landmarks, the verdict is that of the rates, and costs follow from the steps."""

import numpy as np
import pytest
import torch
from toy_faces import CANONICAL, toy_faces

from replicate.errors import ReplicateError
from replicate.evidence import claims, timings
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import dan_speed
from replicate.methods import dan

CONFIG = dan.CONFIGS["smoke", "synthetic"]
ORDERS = {name: CONFIG.changed(order=name) for name in dan.ORDERS}


@pytest.fixture
def network():
    torch.manual_seed(0)
    size = CONFIG.input_size
    made = dan.DAN(CONFIG, 2, CANONICAL, torch.full((size, size), 0.5), torch.full((size, size), 0.25))
    return made.eval()


@pytest.fixture
def rates(monkeypatch):
    """In place of a clock: 73 and 45 faces a second on average, as the paper has them."""
    wave = np.sin(np.arange(12))
    found = np.stack([73 + wave - wave.mean(), 45 + 2 * (wave - wave.mean())])
    monkeypatch.setattr(timings, "alternate", lambda *_: found)
    return found


def experiment(**changes):
    return Experiment(**{"paper": "dan", "profile": "cpu", "device": "cpu", **changes})


@pytest.mark.parametrize("batch", [1, 4, 8])
def test_the_timed_work_is_that_of_prediction_however_it_is_divided(network, batch):
    faces = toy_faces(6)
    timed = dan_speed.predict_in(dan.for_inference(network), faces.images, faces.boxes, batch)
    expected = dan.predict_faces(network, faces)[-1]
    assert expected.shape == (6, 68, 2)
    np.testing.assert_allclose(timed, expected, atol=0.3)  # bfloat16 rounds otherwise in other batches


def test_fewer_faces_than_a_batch_are_refused(network):
    with pytest.raises(ReplicateError, match="faces: got 7, expected at least a batch of 8"):
        dan_speed.measure_prediction(network, toy_faces(7), ("a", "b"), rounds=10)


def test_rates_become_rows_and_a_verdict(network, rates):
    rows, verdict = dan_speed.prediction_speed(experiment(), lambda: network, lambda: toy_faces(16))
    assert [row.method for row in rows] == ["DAN, batches", "DAN, one by one"]
    assert [row.value for row in rows] == [pytest.approx(73), pytest.approx(45)]
    assert "2 stages of width 4" in rows[0].note and rows[0].metric in claims.get("DAN-C18").quantity().metric
    assert verdict.verdict == "reproduced" and verdict.difference == pytest.approx(28)
    assert verdict.ci_low < 28 < verdict.ci_high


def test_what_is_on_record_is_not_measured_again_unless_asked(network, rates, monkeypatch):
    asked = []

    def speed(**changes):
        return dan_speed.prediction_speed(
            experiment(**changes), lambda: asked.append("network") or network, lambda: toy_faces(16)
        )

    rows, verdict = speed()
    monkeypatch.setattr(timings, "alternate", lambda *_: rates / 2)
    assert speed() == (rows, verdict) and asked == ["network"]
    fresh, slower = speed(fresh=True)
    assert (
        len(asked) == 2 and fresh[0].value == pytest.approx(36.5) and slower.difference == pytest.approx(14)
    )
    assert speed() == (fresh, slower)


def test_operations_of_a_stage_are_those_of_its_layers():
    """One stage, forward: 2 K K C_in C_out H W per convolution; the gradient doubles it, but for the first layer's input."""
    w, side = CONFIG.width, CONFIG.input_size
    channels = [
        (1, w),
        (w, w),
        (w, 2 * w),
        (2 * w, 2 * w),
        (2 * w, 4 * w),
        (4 * w, 4 * w),
        (4 * w, 8 * w),
        (8 * w, 8 * w),
    ]
    layers = [2 * 9 * a * b * (side // 2 ** (n // 2)) ** 2 for n, (a, b) in enumerate(channels)]
    layers += [2 * 8 * w * 49 * CONFIG.hidden, 2 * CONFIG.hidden * 136]
    expected = 3 * sum(layers) - layers[0]
    assert dan_speed.training_operations(CONFIG, 1) == pytest.approx(expected * CONFIG.samples[0], rel=1e-6)


def test_a_sample_costs_more_end_to_end():
    apart, after, scratch = (dan_speed.training_operations(config, 2) for config in ORDERS.values())
    assert apart < after < scratch < 2 * apart


def test_minutes_follow_from_samples_and_speeds(monkeypatch):
    speeds = np.stack([np.full(12, 10.0), np.full(12, 5.0), np.full(12, 2.0)])
    monkeypatch.setattr(timings, "alternate", lambda *_: speeds)
    rows = dan_speed.training_speed(experiment(), ORDERS)
    assert [row.method for row in rows] == ["DAN, stage 1", "DAN, stage 2", "DAN, stages 1 to 2 together"]
    table = dan_speed.cost_table(ORDERS, rows, "Cost").data
    one, two = CONFIG.samples[:2]
    minutes = [one / 10 + two / 5, one / 10 + two / 2, (one + two) / 2]
    assert table["minutes"].tolist() == [f"{seconds / 60:.1f}" for seconds in minutes]
    assert table["samples"].tolist()[0] == f"{one:,} + {two:,}"
