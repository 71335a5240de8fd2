"""Orders of methods: best first, and neighbours that cannot be told apart are said to be alike."""

import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import orders

NOISE = np.random.default_rng(0).normal(0, 0.5, 40)


def runs(errors, model="m"):
    about = {"box_rule": "tight boxes"}
    names = tuple(map(str, range(len(errors))))
    found = {"inter-ocular": errors, "inter-ocular, 51 points": errors[::-1]}
    return [
        Predictions(model, "300w-private-synthetic-0123abcd", "synthetic", names, found, provenance=about)
    ]


def results():
    base = np.linspace(2, 10, 40)
    return {"worst": runs(base + 3.5), "alike": runs(base + NOISE - NOISE.mean() + 0.1), "best": runs(base)}


def test_the_best_comes_first_and_differences_that_may_be_none_are_marked():
    assert orders.in_words(results(), "mean error, inter-ocular") == "best ≈ alike < worst"


def test_a_larger_area_is_better():
    assert orders.in_words(results(), "AUC 0.08, inter-ocular, 51 points") == "best ≈ alike > worst"


def test_the_key_is_all_that_follows_the_measure():
    base = np.linspace(2, 10, 40)
    turned = [runs(base)[0], runs(base + 1)[0]]
    found = {"a": turned[:1], "b": turned[1:]}
    assert orders.in_words(found, "failure rate 0.08, inter-ocular, 51 points") == "a < b"


def test_one_method_alone_is_its_own_order_and_none_is_an_error():
    assert orders.in_words({"a": runs(NOISE + 5)}, "mean error, inter-ocular") == "a"
    with pytest.raises(ReplicateError, match="results: got none"):
        orders.in_words({}, "mean error, inter-ocular")


def test_the_table_has_both_orders_and_says_what_they_were_measured_on():
    found = results()
    table = orders.order_table(
        Experiment("ect", "cpu", device="cpu"), {"mean error": ("ECT < SDM", "best ≈ alike")}, found, "Orders"
    )
    assert table.data.iloc[0].tolist() == ["mean error", "ECT < SDM", "best ≈ alike"]
    assert "40 300w private images" in table.caption and "holds zero" in table.caption
