"""Sweeps of ECT's fit: the right errors at the right settings, and the numbers that are read off them."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from swept_runs import FACES, HARD, one_run

from replicate.evidence import tested
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import ect_sweeps as views


@pytest.fixture
def run():
    yield Experiment("ect", device="cpu")
    plt.close("all")


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ([9.0, 6.0, 5.02, 5.0, 5.0], 2),
        ([5.0, 5.0, 5.0], 0),
        ([5.04, 5.2, 5.03, 5.0], 2),  # it comes near, leaves, and comes back
        ([4.0, 5.1, 5.0], 2),  # from below
    ],
)
def test_a_method_has_converged_where_it_stays_near_its_last_error(means, expected):
    assert views.iterations_to_converge(np.array(means)) == expected
    assert views.iterations_to_converge(np.tile(means, (3, 2, 1))).tolist() == [[expected] * 2] * 3


def test_the_tolerance_is_relative():
    means = np.array([100.0, 10.15, 10.0])
    assert [int(views.iterations_to_converge(means, tolerance)) for tolerance in (1.0, 2.0)] == [2, 1]


def test_the_best_setting_is_that_of_the_least_error():
    assert views.best_setting(np.array([[3.0, 2.0, 2.5], [1.0, 2.0, 3.0]]), (5, 10, 30)).tolist() == [10, 5]


def test_ect_converges_sooner_and_the_claim_is_judged_by_it(run):
    results = {
        "CRM-CLM": [one_run(iterations=(9.0, 8.0, 7.0, 6.0, 5.0))],
        "ECT": [one_run(iterations=(9.0, 5.0, 5.0, 5.0, 5.0))],
    }
    rows = views.convergence_rows(run, "ECT-F10c", HARD, results)
    assert [(row.method, row.value, row.unit, row.images) for row in rows] == [
        ("CRM-CLM", 4.0, "iterations", FACES), ("ECT", 1.0, "iterations", FACES),
    ]  # fmt: skip
    table = views.convergence_table(run, HARD, results, "Converging")
    assert table.data["within 1 %"].to_list() == ["4 [4, 4]", "1 [1, 1]"]
    verdict = views.judge_convergence(run, results["ECT"], results["CRM-CLM"])
    assert (verdict.verdict, verdict.left, verdict.right) == ("reproduced", 1.0, 4.0)
    assert (verdict.images, verdict.seeds) == (FACES, 1)


@pytest.mark.parametrize(("best_of_pdm", "expected"), [(10, "reproduced"), ("all", "not reproduced")])
def test_ect_must_use_more_components_than_both_others(run, best_of_pdm, expected):
    def best_at(setting):
        return [one_run(components={one: 4.0 if one == setting else 5.0 for one in (5, 10, 30, "all")})]

    results = {"CRM-PDM": best_at(best_of_pdm), "CRM-CLM": best_at(5), "ECT": best_at(30)}
    rows = views.best_rows(run, "ECT-F10b", HARD, results)
    assert [row.value for row in rows] == [{10: 10, "all": 60}[best_of_pdm], 5, 30]
    others = {name: results[name] for name in ("CRM-PDM", "CRM-CLM")}
    verdict = views.judge_best(run, results["ECT"], others)
    assert verdict.verdict == expected and "CRM-CLM: +25" in verdict.note


def test_a_clear_gain_is_significant_and_no_less_than_the_margin(run):
    raw = [one_run(10.0)]
    small, clear = one_run(components={5: 9.9, 10: 9.8, 30: 9.0}), one_run(components={5: 9.5})
    assert views.fewest_components([small], raw) == 30  # the margin is 3 per cent of the error of the peaks
    rows = views.clear_gain_rows(run, "ECT-F10b", {"CRM-PDM": [small], "ECT": [clear]}, raw)
    assert {row.method: row.value for row in rows} == {"CRM-PDM": 30, "ECT": 5, "CRM-PDM, ECT": 30}
    never = one_run(components={5: 11.0})
    rows = views.clear_gain_rows(run, "ECT-F10b", {"CRM-PDM": [never], "ECT": [clear]}, raw)
    assert {row.method: row.value for row in rows} == {"ECT": 5}


@pytest.mark.parametrize(
    ("mean", "expected"), [(9.0, "reproduced"), (9.9, "direction holds"), (10.5, "not reproduced")]
)
def test_the_gain_with_ten_components_has_to_be_clear(run, mean, expected):
    results = {
        "CRM": [one_run(10.0)], tested.CLIMBED: [one_run(9.5)], "ECT": [one_run(components={10: mean, 30: 1.0})]
    }  # fmt: skip
    verdict = views.judge_few(run, results)
    assert (verdict.claim, verdict.verdict) == ("ECT-C7", expected)
    assert f"challenging {mean - 9.5:+.2f}" in verdict.note
