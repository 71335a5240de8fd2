"""Occlusion from appearance: regressions find what hides a landmark, are kept without pickling, and name what they were fitted to."""

import numpy as np
import pytest

from replicate.evidence import occlusion
from replicate.evidence.experiment import Experiment
from replicate.evidence.occlusion import Occlusion
from replicate.methods import baselines
from replicate.metrics import recall_at_precision

RNG = np.random.default_rng(0)


def descriptors(hidden):
    """Of which one number tells whether a landmark is hidden, on a different scale for each."""
    noise = RNG.normal(100, 20, (*hidden.shape, 128))
    noise[..., 0] = 50 + 100 * hidden + RNG.normal(0, 10, hidden.shape)
    return noise.astype(np.uint8)


def test_a_landmark_is_hidden_where_its_appearance_says_so():
    hidden = RNG.random((300, 3)) < 0.3
    model = Occlusion().fit(descriptors(hidden), hidden)
    others = RNG.random((200, 3)) < 0.3
    found = model.probability(descriptors(others))
    assert found.shape == (200, 3) and ((found > 0) & (found < 1)).all()
    assert recall_at_precision(found, others, 80.0) > 95
    assert model.weights_.shape == (3, 128) and model.biases_.shape == (3,)


def test_probabilities_are_shares():
    """Where appearance says nothing, about as many are hidden as in training."""
    hidden = RNG.random((400, 1)) < 0.25
    silent = RNG.normal(100, 20, (400, 1, 128)).astype(np.uint8)
    found = Occlusion().fit(silent, hidden).probability(silent)
    assert found.mean() == pytest.approx(hidden.mean(), abs=0.01)


def test_a_landmark_that_is_hardly_ever_hidden_gets_its_share():
    hidden = np.zeros((99, 2), bool)
    hidden[:4, 1] = True
    found = Occlusion().fit(descriptors(hidden), hidden).probability(descriptors(hidden))
    np.testing.assert_allclose(found[:, 0], 0.5 / 100, rtol=1e-4)
    np.testing.assert_allclose(found[:, 1], 4.5 / 100, rtol=1e-4)


def test_it_is_kept_and_named_by_its_cascade():
    run = Experiment("ect", "smoke", device="cpu")
    train, test = run.source("cofw", "train"), run.source("cofw", "test")
    (one,) = occlusion.test_occlusion(run, train, test)
    assert one.confidence.shape == (test.count, 29) and 0 <= one.confidence.min() < one.confidence.max() <= 1
    sdm = baselines.SDM(baselines.SDM_CONFIGS["smoke"])
    assert one.model == occlusion.key(sdm, train, "smoke", 0).hash
    assert one.model != occlusion.key(baselines.SDM(), train, "smoke", 0).hash
    cascade, model, stored = occlusion.obtain(run, sdm, train)
    assert [found.key.method for found in stored] == ["sdm", "sdm-occlusion"]
    again = occlusion.predict(cascade, model, test.load())
    np.testing.assert_allclose(again.confidence, one.confidence, atol=2e-3)  # three digits on record
    assert one.errors["inter-pupil"].mean() > 0
