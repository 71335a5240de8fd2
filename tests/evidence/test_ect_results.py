"""300-W beside ECT: claims about photographs, and errors that follow from points on record."""

from dataclasses import replace

import numpy as np
import pytest
from toy_faces import toy_faces

from replicate.evidence import claims
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.scoring import INNER
from replicate.evidence.views import ect_results as views

ABOUT = {"device": "test", "training_seconds": 1.0, "faces_sha256": "0", "box_rule": "b", "training_faces": 5}
NAMES = tuple(f"face {number}" for number in range(20))


@pytest.fixture
def run():
    return Experiment("ect", device="cpu")


def one_run(error, faces="synthetic"):
    errors = {"inter-pupil": error + np.linspace(-0.5, 0.5, len(NAMES))}
    return Predictions("m", "toy", faces, NAMES, errors, None, ABOUT)


def test_claims_about_photographs_are_not_testable_on_synthetic_faces(run):
    runs = {"full": [one_run(5.0)]}
    assert views.judge_on_photographs(run, "ECT-C14", runs, runs).verdict == "not testable"
    assert claims.recorded("ect", ["smoke"]) == []
    real = Experiment("ect", faces="real", device="cpu")
    runs = {"full": [one_run(5.0, "real")]}
    assert views.judge_on_photographs(real, "ECT-C14", runs, runs).verdict == "reproduced"


def test_errors_without_the_jaw_line_follow_from_points_on_record():
    faces = toy_faces(4)
    moved = faces.points.copy()
    moved[:, :17] += 30  # the jaw alone
    with_points = Predictions("m", "toy", "synthetic", faces.names, {"inter-ocular": np.ones(4)}, moved)
    without = replace(with_points, points=None)
    known = replace(without, errors={INNER.key: np.full(4, 7.0)})
    results = {"DAN": [with_points, without], "SDM": [without], "ECT": [known]}
    found = views.scored(results, faces, INNER)
    assert {method: len(runs) for method, runs in found.items()} == {"DAN": 1, "ECT": 1}
    np.testing.assert_allclose(found["DAN"][0].errors[INNER.key], 0, atol=1e-6)
    assert found["DAN"][0].errors["inter-ocular"].tolist() == [1.0] * 4 and found["ECT"] == [known]
