"""Ridge regression in closed form and by LIBLINEAR: the same minimum, against scikit-learn and against its own gradient."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from replicate import regression
from replicate.errors import ReplicateError
from replicate.regression import linear, mean_square, ridge, support_vector_regression

SIZES = pytest.mark.parametrize("size", [(40, 7), (12, 30)], ids=["primal", "dual"])


def problem(samples, dimension, targets=3, seed=0):
    """Positive features, as those after a rectifier, and targets that depend on them up to noise."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(samples, dimension, generator=generator)
    weights = torch.randn(dimension, targets, generator=generator)
    return features, features @ weights + 2 + 0.1 * torch.randn(samples, targets, generator=generator)


def objective(features, targets, weights, penalty):
    """Eq. 2 of LDDR."""
    return (targets - features @ weights).square().sum() + penalty * weights.square().sum()


@SIZES
@pytest.mark.parametrize("bias", [True, False])
def test_ridge_is_that_of_scikit_learn(size, bias):
    features, targets = problem(*size)
    found = ridge(features, targets, 0.4, bias=bias)
    expected = Ridge(alpha=0.4, fit_intercept=bias, solver="svd").fit(
        features.double().numpy(), targets.double().numpy()
    )
    np.testing.assert_allclose(found.weights.T, expected.coef_, atol=1e-4)
    np.testing.assert_allclose(found.bias, expected.intercept_ * np.ones(3), atol=1e-4)
    np.testing.assert_allclose(linear(features, found), expected.predict(features.numpy()), atol=1e-4)


@SIZES
def test_at_the_minimum_the_gradient_vanishes_and_every_other_point_is_higher(size):
    features, targets = (x.double() for x in problem(*size))
    found = ridge(features, targets, 0.1, bias=False)
    weights = found.weights.double().requires_grad_()
    least = objective(features, targets, weights, found.penalty)
    least.backward()
    assert weights.grad.abs().max() < 1e-4 * (features.T @ targets).abs().max()
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        other = weights.detach() + 0.01 * torch.randn(weights.shape, generator=generator).double()
        assert objective(features, targets, other, found.penalty) > least


def test_the_normal_matrices_of_features_and_of_samples_give_the_same():
    """Features that are always zero change nothing but their number, and with it which matrix is taken."""
    features, targets = problem(20, 12)
    primal = ridge(features, targets, 0.5)
    padded = torch.cat([features, torch.zeros(20, 12)], 1)
    dual = ridge(padded, targets, 0.5)
    torch.testing.assert_close(dual.weights[:12], primal.weights, atol=1e-4, rtol=1e-4)
    assert (dual.weights[12:] == 0).all()
    torch.testing.assert_close(dual.bias, primal.bias, atol=1e-4, rtol=1e-4)


def test_the_mean_of_the_squares():
    features = torch.arange(6, dtype=torch.uint8).view(2, 3) * 40
    assert mean_square(features) == pytest.approx(1600 * 55 / 6)
    many = torch.full((3 * regression.ROWS, 2), 3.0, dtype=torch.bfloat16)
    assert mean_square(many) == 9.0


def test_a_penalty_in_mean_squares_goes_with_the_unit_of_the_features():
    features, targets = problem(12, 30)
    plain, scaled = (ridge(x, targets, 5 * mean_square(x)) for x in (features, 1000 * features))
    torch.testing.assert_close(1000 * scaled.weights, plain.weights, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(scaled.bias, plain.bias, atol=1e-4, rtol=1e-3)


def test_a_heavier_penalty_makes_smaller_weights_and_none_leaves_the_true_ones():
    features, _ = problem(60, 5)
    true = torch.arange(10.0).view(5, 2) - 4
    sizes = [ridge(features, features @ true, penalty, bias=False).weights for penalty in (1e-4, 10.0, 1e5)]
    torch.testing.assert_close(sizes[0], true, atol=2e-3, rtol=1e-3)
    assert sizes[0].norm() > sizes[1].norm() > sizes[2].norm() and sizes[2].norm() < 0.01


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.uint8])
def test_features_of_any_kind_are_computed_with_as_float32(kind):
    features = (100 * problem(12, 30)[0]).to(kind)
    targets = problem(12, 30)[1]
    found, expected = ridge(features, targets, 0.1), ridge(features.float(), targets, 0.1)
    assert torch.equal(found.weights, expected.weights) and found.weights.dtype == torch.float32
    exact = ridge(features.double(), targets.double(), 0.1)
    assert exact.weights.dtype == torch.float64
    torch.testing.assert_close(exact.weights.float(), found.weights, atol=1e-3, rtol=1e-3)
    assert torch.equal(linear(features, found), linear(features.float(), expected))


def test_rows_are_taken_in_parts(monkeypatch):
    features, targets = problem(12, 30)
    fitted = ridge(features, targets, 0.1)
    whole, mean = linear(features, fitted), mean_square(features)
    monkeypatch.setattr(regression, "ROWS", 5)
    torch.testing.assert_close(linear(features, fitted), whole)
    assert mean_square(features) == pytest.approx(mean, rel=1e-12)


@SIZES
def test_liblinear_goes_to_the_same_minimum(size):
    features, targets = problem(*size)
    closed = ridge(features.double(), targets.double(), 0.1, bias=False).weights
    found = support_vector_regression(features, targets, 0.1, tolerance=1e-8)
    assert (found.weights - closed).norm() < 1e-6 * closed.norm()
    assert (found.bias == 0).all() and found.penalty == 0.1


def test_a_loose_tolerance_stops_before_the_minimum():
    features, targets = problem(12, 30)
    closed = ridge(features, targets, 1e-3, bias=False)
    distances = [
        (
            support_vector_regression(features, targets, closed.penalty, tolerance=t).weights - closed.weights
        ).norm()
        for t in (1e-1, 1e-8)
    ]
    assert distances[0] > 100 * distances[1]


def test_several_processes_share_the_targets():
    features, targets = problem(12, 30)
    one, two = (support_vector_regression(features, targets, 0.5, processes=p).weights for p in (1, 2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("solve", [ridge, support_vector_regression])
def test_what_cannot_be_fitted_is_said(solve):
    features, targets = problem(6, 4)
    with pytest.raises(ReplicateError, match=r"got shapes \(5, 4\) and \(6, 3\)"):
        solve(features[1:], targets, 1.0)
    with pytest.raises(ReplicateError, match=r"got shapes \(6, 4\) and \(6,\)"):
        solve(features, targets[:, 0], 1.0)
    for penalty in (0.0, -1.0, float("nan")):
        with pytest.raises(ReplicateError, match="penalty: got"):
            solve(features, targets, penalty)
    features[2, 1] = torch.inf
    with pytest.raises(ReplicateError, match="features: some are NaN or infinite"):
        solve(features, targets, 1.0)
    targets[0, 0] = torch.nan
    with pytest.raises(ReplicateError, match="targets: some are NaN"):
        solve(torch.ones(6, 4), targets, 1.0)


@SIZES
def test_features_that_are_never_seen_get_no_weight(size):
    """Not even the last ones, of which LIBLINEAR does not know."""
    features, targets = problem(*size)
    unseen = torch.cat([features, torch.zeros(len(features), 500)], 1)
    plain, padded = (
        support_vector_regression(x, targets, 0.5, tolerance=1e-8).weights for x in (features, unseen)
    )
    assert (padded[features.shape[1] :] == 0).all()
    torch.testing.assert_close(padded[: features.shape[1]], plain)
