"""Speed of ECT: times become rows and a verdict, what is on record is not measured again, and the paper's numbers disagree by themselves."""

import numpy as np
import pytest
import torch

from replicate.evidence import claims, timings
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import ect_speed
from replicate.methods.ect import ECTConfig

torch.set_num_threads(1)
WAVE = np.sin(np.arange(12)) / 10


def experiment(**changes):
    return Experiment(**{"paper": "ect", "profile": "cpu", "device": "cpu", **changes})


def steps(maps=0.03, tuning=0.075):
    taken = {"maps": maps, "peaks": 0.005, "correction": 0.01, "tuning": tuning}
    return {name: seconds * (1 + WAVE - WAVE.mean()) for name, seconds in taken.items()}


def timed(**changes):
    """A machine on which the maps take as long as the paper says, and so does an iteration."""
    notes = dict.fromkeys(["ECT", "ECT, width 0.25, 128 pixels", "DAN"], "a note")
    own = {"ECT": steps(**changes), "ECT, width 0.25, 128 pixels": steps(0.01, 0.02)}
    return ect_speed.Timed(own, np.full(12, 0.02), np.full(12, 60.0), "a device", notes)


def by_name(rows):
    return {(row.method, row.metric): row.value for row in rows}


def test_parameters_are_those_of_the_public_definition_and_of_the_statements():
    found = by_name(ect_speed.parameter_rows(experiment()))
    assert found["ECT", "FCN parameters (68 points)"] == 9_968_968
    assert found["ECT, spatial fusion network", "parameters"] == 17_647_240
    assert found["ECT, truncated network", "parameters"] == 6_812_740
    assert found["DAN", "parameters"] > 10_000_000


def test_the_papers_network_is_timed_beside_the_profiles():
    found = ect_speed.configs(experiment())
    assert found["ECT"] == ECTConfig()
    assert list(found) == ["ECT", "ECT, width 0.25, 128 pixels"]
    assert list(ect_speed.configs(experiment(profile="gpu"))) == ["ECT"]
    small = ect_speed.configs(experiment(profile="smoke"))["ECT"]
    assert (small.width, small.input_size) == (1.0, 64)


def test_rows_are_milliseconds_of_a_face_and_shares_of_them():
    found = by_name(ect_speed.time_rows(experiment(), timed()))
    assert found["ECT", "FCN forward time"] == pytest.approx(30)
    assert found["ECT", "one tuning iteration"] == pytest.approx(15)
    assert found["ECT", "speed"] == pytest.approx(1 / 0.12, rel=0.01)
    assert found["ECT", "tuning, % of the time"] == pytest.approx(100 * 75 / 120)
    shares = [found["ECT", f"{step}, % of the time"] for step in ect_speed.STEPS]
    assert sum(shares) == pytest.approx(100)
    assert found["DAN", "time of the network"] == pytest.approx(20)
    assert found["ECT", "speed of the maps, % of the matrix product's"] == 60


def test_what_was_measured_is_recorded_and_judged_once(monkeypatch):
    monkeypatch.setattr(ect_speed, "measure", lambda run, rounds: timed())
    rows, verdict = ect_speed.speed(experiment())
    assert verdict.claim == "ECT-C18" and verdict.verdict == "reproduced"
    assert (verdict.left, verdict.right) == (pytest.approx(30), pytest.approx(15))
    assert "25 % of the time of a face" in verdict.note
    monkeypatch.setattr(ect_speed, "measure", lambda run, rounds: timed(maps=0.012))
    again, same = ect_speed.speed(experiment())
    assert same == verdict and by_name(again) == by_name(rows)
    fresh, other = ect_speed.speed(experiment(fresh=True))
    assert other.verdict == "not reproduced" and other.left == pytest.approx(12)
    assert by_name(fresh)["ECT", "FCN forward time"] == pytest.approx(12)


def test_a_missing_verdict_has_everything_measured_again(monkeypatch):
    monkeypatch.setattr(ect_speed, "measure", lambda run, rounds: timed())
    run = experiment()
    run.record(ect_speed.time_rows(run, timed()))
    assert ect_speed.speed(run)[1] == claims.recorded("ect", ["cpu"])[0]


def test_printed_times_do_not_allow_its_speed():
    found = ect_speed.printed_budget().set_index("by the printed numbers")["value"]
    assert found["milliseconds of a face, 5 iterations"] == "105"
    assert found["faces per second that this allows"] == "9.52"
    assert found["iterations for which they leave time"] == "3.56"


def test_the_budget_has_a_line_for_each_number_of_iterations():
    table = ect_speed.budget_table(ect_speed.time_rows(experiment(), timed()))
    lines = table.data.set_index("iterations")
    assert lines.loc[5, "paper, ms"] == "105" and lines.loc[5, "here, ms"] == "120"
    assert lines.loc[0, "paper, faces/s"] == "33.3" and lines.loc[0, "here, ms"] == "45"
    assert lines.loc[5, "paper, % tuning"] == "71"


def test_a_measurement_times_every_step_of_both_networks(monkeypatch):
    asked = {}

    def alternate(ways, count, rounds):
        for way in ways:
            way()
        asked["ways"] = len(ways)
        return np.outer(1 / np.arange(1, len(ways) + 1), np.ones(rounds))

    small = {"ECT": ECTConfig(width=1 / 16, input_size=64), "own": ECTConfig(width=1 / 16, input_size=32)}
    monkeypatch.setattr(timings, "alternate", alternate)
    monkeypatch.setattr(ect_speed, "configs", lambda run: small)
    found = ect_speed.measure(experiment(profile="smoke"), 10)
    assert asked["ways"] == 2 + 2 * 4 and list(found.steps) == ["ECT", "own"]
    assert found.dan.tolist() == [1.0] * 10  # the first way takes a second, the next two, ...
    assert found.steps["ECT"]["maps"][0] == pytest.approx(3)
    assert found.steps["ECT"]["peaks"][0] == pytest.approx(4 / 10)  # done ten times in a round
    assert found.steps["ECT"]["tuning"][0] == pytest.approx((6 - 5) / 10)
    assert found.of_product[0] > 0
