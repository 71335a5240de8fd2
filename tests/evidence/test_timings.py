"""Timings: every way is timed in turn, and what is on record is not measured again."""

import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.evidence import timings
from replicate.evidence.experiment import Experiment
from replicate.evidence.timings import Rates
from replicate.metrics import Comparison

NAME = ("DAN-S7", "faces per second")


def experiment(**changes):
    return Experiment(**{"paper": "dan", "profile": "cpu", "device": "cpu", **changes})


def rates(factor=1.0):
    wave = np.sin(np.arange(12))
    return Rates({"DAN, batches": factor * (73 + wave - wave.mean())}, 16, "a device", "width 4")


def test_every_round_times_all_ways_after_one_that_warms_up():
    asked = []
    found = timings.alternate([lambda way=way: asked.append(way) for way in "abc"], count=5, rounds=10)
    assert found.shape == (3, 10) and (found > 0).all()
    assert "".join(asked) == "abc" + 5 * "cbaabc"


def test_rates_are_counted_in_the_time_that_a_call_took(monkeypatch):
    clock = iter(np.cumsum([0, *[0.25, 1.0] * 10]).tolist())  # a call takes a quarter of a second
    monkeypatch.setattr(timings.time, "perf_counter", lambda: next(clock))
    found = timings.alternate([lambda: None], count=5, rounds=10)
    np.testing.assert_allclose(found, 20.0)


def test_too_few_rounds_are_refused():
    with pytest.raises(ReplicateError, match="rounds: got 9, expected at least 10"):
        timings.alternate([lambda: None], count=1, rounds=9)


def test_rows_hold_the_mean_rate_and_its_interval():
    (row,) = timings.rate_rows(experiment(), *NAME, "fps", rates())
    assert row.value == pytest.approx(73) and row.ci_low < 73 < row.ci_high
    assert (row.images, row.unit, row.note) == (16, "fps", "width 4; 12 rounds; a device")
    assert row.seconds == pytest.approx((16 / rates().by_way["DAN, batches"]).sum(), abs=0.1)


def test_what_is_on_record_is_found_unless_everything_is_asked_afresh():
    run = experiment()
    assert timings.on_record(run, *NAME, ["DAN, batches"]) is None
    rows = timings.rate_rows(run, *NAME, "fps", rates())
    run.record(rows)
    assert timings.on_record(run, *NAME, ["DAN, batches"]) == rows
    assert timings.on_record(run, *NAME, ["DAN, batches", "DAN, one by one"]) is None
    assert timings.on_record(experiment(fresh=True), *NAME, ["DAN, batches"]) is None
    assert timings.on_record(experiment(profile="gpu"), *NAME, ["DAN, batches"]) is None


def test_a_row_is_the_mean_of_its_rounds():
    row = timings.round_row(
        experiment(), "ECT-T7", "ECT", "time", "ms", np.arange(12.0), device="a device", note="width 1"
    )
    assert row.value == pytest.approx(5.5) and row.ci_low < 5.5 < row.ci_high
    assert (row.unit, row.note, row.images) == ("ms", "width 1; 12 rounds; a device", None)


def test_a_verdict_on_record_is_found_unless_everything_is_asked_afresh():
    run = experiment()
    assert timings.verdict_on_record(run, "DAN-C18") is None
    verdict = run.judge_comparison("DAN-C18", Comparison(73.0, 45.0, 28.0, 27.0, 29.0, 0.001))
    assert timings.verdict_on_record(run, "DAN-C18") == verdict
    assert timings.verdict_on_record(experiment(fresh=True), "DAN-C18") is None
    assert timings.verdict_on_record(experiment(profile="gpu"), "DAN-C18") is None
    assert timings.verdict_on_record(run, "DAN-C1") is None


def test_a_measurement_is_known_if_all_of_it_is_on_record():
    run, wanted = experiment(), [(*NAME, ["DAN, batches"])]
    rows = timings.rate_rows(run, *NAME, "fps", rates())
    run.record(rows)
    assert timings.known(run, wanted, "DAN-C18") is None
    verdict = run.judge_comparison("DAN-C18", Comparison(73.0, 45.0, 28.0, 27.0, 29.0, 0.001))
    assert timings.known(run, wanted, "DAN-C18") == (rows, verdict)
    assert timings.known(run, [*wanted, ("DAN-S7", "another metric", ["DAN"])], "DAN-C18") is None
    assert timings.known(experiment(fresh=True), wanted, "DAN-C18") is None
