"""Ablations: paired differences to a reference, the order of training on one axis."""

import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import ablations

NAMES = tuple(f"face {n}" for n in range(40))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path))
    return Experiment("lddr", "smoke")


def runs(shift, seeds=3, **provenance):
    rng = np.random.default_rng(0)  # the same faces for every method
    base = rng.uniform(3, 9, (seeds, len(NAMES)))
    return [
        Predictions("m", "t", "synthetic", NAMES, {"inter-ocular": errors + shift}, None, provenance)
        for errors in base
    ]


def test_a_constant_difference_has_an_interval_without_width():
    found = ablations.differences({"a": runs(0.0), "b": runs(0.5), "c": runs(-0.25)}, "a")
    assert list(found) == ["b", "c"]
    assert found["b"][2:5] == pytest.approx((0.5, 0.5, 0.5))
    assert found["c"].difference == pytest.approx(-0.25) and found["c"].p_value < 0.01


def test_methods_with_fewer_seeds_are_paired_with_those_of_the_reference_and_baselines_with_all():
    three = runs(0.0)
    first, others = three[0].errors["inter-ocular"], [one.errors["inter-ocular"] for one in three]
    found = ablations.differences({"a": three, "b": runs(0.5)[:1], "SDM": runs(0.5)[:1]}, "a")
    assert found["b"][2:5] == pytest.approx((0.5, 0.5, 0.5))
    assert found["SDM"].difference == pytest.approx(0.5 + first.mean() - np.mean(others))
    assert found["SDM"].high > found["SDM"].low


def test_an_unknown_reference_is_named():
    with pytest.raises(ReplicateError, match="reference: got 'x', expected one of a, b"):
        ablations.differences({"a": runs(0.0), "b": runs(1.0)}, "x")


def test_the_plot_says_in_words_what_it_shows():
    figure = ablations.difference_plot({"a": runs(0.0), "b": runs(0.5)}, "a", title="faces")
    assert "b: +0.50 [+0.50, +0.50]" in figure.get_label() and "on faces" in figure.get_label()
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["b"]


def test_steps_of_training_follow_one_another_on_the_axis():
    first = runs(0.0, seeds=2, validation=[[100, 12.0], [200, 11.0]])
    second = runs(0.0, seeds=2, validation=[[50, 9.0], [150, 8.0]])
    figure = ablations.learning_curves({"stage by stage": [first, second]})
    lines = figure.axes[0].get_lines()
    assert len(lines) == 2  # one per seed
    np.testing.assert_array_equal(lines[0].get_xdata(), [100, 200, 250, 350])
    np.testing.assert_array_equal(lines[0].get_ydata(), [12, 11, 9, 8])
    assert "350 samples, best 8.00 to 8.00 %" in figure.get_label()


def test_a_record_without_validation_errors_says_what_to_do():
    with pytest.raises(
        ReplicateError, match=r"delete the files m\.\*\.npz .* or run the notebook with fresh = True"
    ):
        ablations.learning_curves({"a": [runs(0.0)]})


def test_findings_sort_methods_by_the_intervals_of_their_differences():
    noisy = [
        Predictions(
            one.model,
            one.testset,
            "synthetic",
            NAMES,
            {"inter-ocular": one.errors["inter-ocular"] + np.tile([1, -1], 20)},
        )
        for one in runs(0.0)
    ]
    text = ablations.findings({"a": runs(0.0), "b": runs(0.5), "c": runs(-0.2), "d": noisy}, "a").data
    assert "lower error than a**: c." in text and "higher error than a**: b." in text
    assert "No significant difference**: d." in text


def test_rows_that_differ_in_two_things_are_crossed(make_row):
    cells = {"A, small": 4.0, "A, large": 5.0, "B, more, small": 6.0, "B, more, large": 7.0}
    made = [
        make_row(method=name, value=value, ci_low=value - 1, ci_high=value + 1)
        for name, value in cells.items()
    ]
    table = ablations.crossed_table(made, "features", "% wrong", "Crossed")
    assert table.data.to_numpy().tolist() == [
        ["A", "4.00 [3.00, 5.00]", "5.00 [4.00, 6.00]"],
        ["B, more", "6.00 [5.00, 7.00]", "7.00 [6.00, 8.00]"],
    ]
    assert table.data.columns.tolist() == ["features", "small, % wrong", "large, % wrong"]
    assert table.caption.startswith("Crossed.")


def test_a_table_of_several_sets_has_every_method_on_each_with_its_seeds_and_training_faces(run):
    def one_run(error, faces=5):
        errors = {"inter-pupil": np.full(len(NAMES), error)}
        about = {"training_faces": faces, "box_rule": "tight boxes"}
        return Predictions("m", "t", "synthetic", NAMES, errors, None, about)

    results = {
        "lfpw": {"LDDR, own set": [one_run(4.0)] * 2, "DAN": [one_run(3.0, faces=9)]},
        "helen": {"LDDR, own set": [one_run(5.0)] * 2, "DAN": [one_run(5.5)]},
    }
    table = ablations.suite_table(run, results, "LDDR, own set", "All")
    assert table.data.to_numpy().tolist() == [
        ["lfpw", "LDDR, own set", "4.00 [4.00, 4.00]", "–"],
        ["lfpw", "DAN", "3.00 [3.00, 3.00]", "-1.00 [-1.00, -1.00]"],
        ["helen", "LDDR, own set", "5.00 [5.00, 5.00]", "–"],
        ["helen", "DAN", "5.50 [5.50, 5.50]", "+0.50 [+0.50, +0.50]"],
    ]
    assert "40 lfpw, 40 helen images; 1 to 2 seeds" in table.caption
    assert "“LDDR, own set”: trained on 5 faces; DAN: trained on 9 faces" in table.caption
