"""What every chapter shows of compared methods: curves of the errors asked for, rows of the right methods, one metric's change."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from replicate.evidence import manifest
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import compared
from replicate.faces.sources import FaceSource

ABOUT = {"device": "test", "training_seconds": 1.0, "faces_sha256": "0", "box_rule": "b", "training_faces": 5}
FULL = FaceSource("300w", "full", "synthetic", "smoke")
NAMES = tuple(f"face {number}" for number in range(12))


@pytest.fixture
def run():
    yield Experiment("ect", device="cpu", seed=3)
    plt.close("all")


def on_record(**errors):
    """A run with constant errors, or given ones, by score; underscores stand for hyphens."""
    found = {score.replace("_", "-"): np.broadcast_to(value, 12) for score, value in errors.items()}
    return Predictions("m", "toy", "synthetic", NAMES, found, None, ABOUT)


def test_cumulative_errors_are_recorded_with_what_they_show(run):
    results = {
        "SDM": [on_record(inter_ocular=9.0)],
        "DAN": [on_record(inter_ocular=4.0), on_record(inter_ocular=2.0)],
    }
    label = compared.cumulative_errors(run, "ECT-F5b", FULL, results).get_label()
    assert "SDM: AUC 0.0, 100.0 % above 8 % (12 of 12)" in label
    assert "DAN: AUC 62.5, 0.0 % above 8 % (0 of 24)" in label  # (4 + 6) / 2 of 8
    (kept,) = manifest.load("ect", ["smoke"])
    assert (kept.artefact, kept.subset, kept.images, kept.seeds) == ("ECT-F5b", "full", 12, 2)


def test_curves_are_of_the_score_and_up_to_the_threshold_asked_for(run):
    one = on_record(**{"inter_ocular": 9.0, "inter_ocular, 51 points": 6.0})
    figure = compared.cumulative_errors(
        run, "ECT-F5a", FULL, {"ECT": [one]}, score="inter-ocular, 51 points", threshold=10.0
    )
    (ax,) = figure.axes
    assert "ECT: AUC 40.0, 0.0 % above 10 %" in figure.get_label()
    assert ax.get_xlim() == (0, 10) and ax.get_xlabel() == "error (% of inter-ocular distance)"
    assert ax.get_title() == "300w full, 12 synthetic faces, 51 points"


def test_rows_of_several_artefacts_hold_the_methods_that_each_shows(run):
    one = on_record(inter_ocular=4.0, inter_pupil=4.0, diagonal=4.0)
    rows = compared.rows_of(
        run, {"ECT-S11": ("a", "b"), "ECT-S12": ("b",)}, FULL, {name: [one] for name in "ab"}
    )
    found = [(row.artefact, row.method) for row in rows if row.metric == "AUC 0.08"]
    assert found == [("ECT-S11", "a"), ("ECT-S11", "b"), ("ECT-S12", "b")]
    assert {row.value for row in rows if row.metric == "mean error"} == {4.0}
    asked = compared.rows_of(run, {"LDDR-T4": ("a",)}, FULL, {"a": [one]}, ["inter-pupil"], None)
    assert [(row.metric, row.normaliser) for row in asked] == [("mean error", "inter-pupil")]
    rates = compared.rows_of(run, {"LDDR-T4": ("a",)}, FULL, {"a": [one]}, [], ("inter-pupil", 0.2))
    assert [(row.metric, row.value) for row in rates] == [("AUC 0.20", 80.0), ("failure rate 0.20", 0.0)]


@pytest.mark.parametrize(
    ("metric", "name", "value"),
    [
        ("mean error, inter-pupil", "mean-error reduction vs CRM", 10.0),
        (
            "AUC 0.08, inter-pupil",
            "AUC increase vs CRM",
            pytest.approx(100 * (0.4375 - 0.375) / 0.375, rel=1e-4),
        ),
    ],
)
def test_a_change_is_of_one_metric_and_names_both_methods(run, metric, name, value):
    results = {"CRM": [on_record(inter_pupil=5.0)], "ECT": [on_record(inter_pupil=4.5)]}
    [row] = compared.metric_change(run, "ECT-S9", FULL, results, after="ECT", before="CRM", metric=metric)
    assert (row.artefact, row.method, row.metric, row.value) == ("ECT-S9", "ECT", name, value)
    assert (row.ci_low, row.ci_high, row.subset) == (row.value, row.value, "full")


def test_a_rate_that_was_zero_before_has_no_change(run):
    results = {"CRM": [on_record(inter_pupil=5.0)], "ECT": [on_record(inter_pupil=4.5)]}
    metric = "failure rate 0.08, inter-pupil"
    assert (
        compared.metric_change(run, "ECT-S9", FULL, results, after="ECT", before="CRM", metric=metric) == []
    )


def test_what_is_behind_a_figure_or_table_is_said_alike(run):
    runs = [on_record(inter_pupil=5.0)] * 2
    assert compared.on_faces(run, FULL, runs) == "300w full, 12 synthetic faces"
    assert compared.behind(FULL, runs) == dict(subset="full", images=12, seeds=2, box_rule="b")
    caption = compared.runs_caption(run, FULL, runs, "Title")
    assert (
        "Title. Synthetic faces; profile smoke; 12 full images; 2 seeds; trained on 5 faces; boxes: b"
        in caption
    )
