"""Occlusion from confidences: the threshold gives the precision that was asked for, and rows, verdict and figures follow from it."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.evidence import claims
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import ect_occlusion as views
from replicate.faces.faceset import FaceSet
from replicate.metrics import recall_at_precision

FACES = 40
RNG = np.random.default_rng(0)
HIDDEN = RNG.random((FACES, 29)) < 0.25
CLEAR = np.clip(0.9 - 0.4 * HIDDEN + RNG.normal(0, 0.15, HIDDEN.shape), 0, 1)
BLURRED = np.clip(0.6 - 0.1 * HIDDEN + RNG.normal(0, 0.2, HIDDEN.shape), 0, 1)
POINTS = np.float32(RNG.uniform(5, 60, (FACES, 29, 2)))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def run_of(confidence, model="m"):
    about = dict(
        device="test", training_seconds=1.0, training_faces=10, faces_sha256="0", box_rule="tight", markup="cofw29"
    )  # fmt: skip
    names = tuple(f"face{n}" for n in range(FACES))
    errors = {"inter-pupil": np.linspace(2, 12, FACES)}
    return Predictions(model, "cofw-test", "synthetic", names, errors, None, about, confidence)


def results():
    found = {"mean shape": [], "SDM": [run_of(BLURRED, "s")], "ECT": [run_of(CLEAR, "e")]}
    return views.with_confidence(found)


def experiment(**changes):
    return Experiment(**{"paper": "ect", "profile": "cpu", "device": "cpu", **changes})


def source():
    return experiment().source("cofw", "test")


def test_the_threshold_gives_the_highest_recall_at_the_precision():
    scores = views.scores_of([run_of(CLEAR)])[0]
    called = scores >= views.threshold(scores, HIDDEN)
    precision = 100 * (called & HIDDEN).sum() / called.sum()
    assert precision >= 80
    recall = 100 * (called & HIDDEN).sum() / HIDDEN.sum()
    assert recall == pytest.approx(recall_at_precision(scores, HIDDEN, 80.0)) and recall > 80


def test_nothing_is_called_hidden_if_no_threshold_is_that_precise():
    scores = np.tile(np.linspace(0, 1, 29), (FACES, 1))
    hidden = np.zeros_like(scores, bool)
    hidden[0] = True
    assert views.threshold(scores, hidden) == np.inf
    rows = views.rule_rows(experiment(), scores, hidden)
    assert {row.metric: row.value for row in rows}["landmarks called hidden"] == 0 and len(rows) == 4


def test_a_run_without_confidences_is_an_error():
    with pytest.raises(ReplicateError, match="confidences on cofw-test are not on record"):
        views.scores_of([run_of(None)])


def test_recall_stands_beside_the_papers_with_its_interval():
    ours = views.recall_rows(experiment(), "ECT-T6", source(), results(), HIDDEN)
    assert [row.method for row in ours] == ["SDM and logistic regression", "ECT"]
    row = ours[1]
    assert row.value == pytest.approx(recall_at_precision(1 - CLEAR, HIDDEN, 80.0), abs=0.3)
    assert row.ci_low < row.value < row.ci_high
    assert (row.metric, row.normaliser, row.unit, row.points) == (views.RECALL, "none", "%", 29)
    assert ours[0].value < 30 < row.value


def test_the_rule_counts_what_it_calls_hidden():
    rows = {row.metric: row.value for row in views.rule_rows(experiment(), 1 - CLEAR, HIDDEN)}
    assert rows["landmarks"] == HIDDEN.size and rows["hidden landmarks"] == HIDDEN.sum()
    found = rows["hidden landmarks called hidden"]
    assert rows["precision"] == pytest.approx(100 * found / rows["landmarks called hidden"], rel=1e-4)
    assert rows["recall"] == pytest.approx(100 * found / HIDDEN.sum(), rel=1e-4)
    assert 0 < rows["highest confidence that is called hidden"] < 1


def test_generated_faces_judge_the_claim_against_the_method_that_is_run_here():
    verdict = views.judge_occlusion(experiment(), results(), HIDDEN)
    assert verdict.claim == "ECT-C15" and verdict.verdict == "reproduced" and verdict.left > verdict.right
    assert "SDM" in verdict.note and verdict.images == FACES
    assert claims.recorded("ect", ["cpu"]) == [verdict]


def test_photographs_judge_it_against_the_printed_number():
    verdict = views.judge_occlusion(experiment(faces="real"), {"ECT": results()["ECT"]}, HIDDEN)
    assert verdict.right == 49.11 and "best previous" in verdict.note


def test_the_figure_tells_the_recalls_in_words():
    figure = views.occlusion_figure(experiment(), source(), results(), HIDDEN)
    recall = recall_at_precision(1 - CLEAR.astype(np.float32), HIDDEN, 80.0)
    assert f"ECT: recall {recall:.1f} % at precision 80 %" in figure.get_label()
    left, right = figure.axes
    assert len(right.lines) == 2 + 2 and len(left.patches) == 80


def test_landmarks_that_are_called_hidden_have_another_form():
    visible = ~HIDDEN.copy()
    visible[:3] = True  # faces without hidden landmarks are not shown
    faces = FaceSet(
        np.full((FACES, 64, 64, 3), 100, np.uint8), POINTS, visible, np.tile(np.float32([0, 0, 63, 63]), (FACES, 1)),
        run_of(CLEAR).names, "cofw29", "cofw", "test", "synthetic", "tight",
    )  # fmt: skip
    asked = []

    def predict(shown):
        asked.extend(shown.names)
        return shown.points

    figure = views.occluded_faces(experiment(), faces, run_of(CLEAR), predict, count=6)
    assert asked == [f"face{n}" for n in range(3, 9)]
    dots, crosses = figure.axes[0].lines
    scores = 1 - run_of(CLEAR).confidence
    called = scores[3] >= views.threshold(scores, ~visible)
    np.testing.assert_allclose(crosses.get_xydata(), POINTS[3][called])
    assert len(dots.get_xdata()) == (~called).sum()
    found, false = (called & HIDDEN[3]).sum(), (called & ~HIDDEN[3]).sum()
    assert figure.axes[0].get_title() == f"{found} of {HIDDEN[3].sum()} hidden, {false} false"
