"""Fits from five points: shapes placed exactly, a start that decides where the cascade looks, starts checked."""

import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate.errors import ReplicateError
from replicate.faces.markups import convert
from replicate.geometry import apply_transform, similarity, tight_box
from replicate.methods import started
from replicate.methods.baselines import SDM, MeanShape, SDMConfig

TINY = SDMConfig(
    stages=2, perturbations=2, box_side=48, patch=16.0, mirror=False
)  # toy faces are no mirror images


@pytest.fixture(scope="module")
def faces():
    return toy_faces(24, seed=1)


@pytest.fixture(scope="module")
def fitted(faces):
    return SDM(TINY).fit(faces)


def moves(count, seed=0):
    rng = np.random.default_rng(seed)
    parts = rng.uniform(0.5, 2, count), rng.uniform(-1, 1, count), rng.uniform(-30, 30, (count, 2))
    return similarity(*map(torch.as_tensor, parts))


def test_a_shape_lands_where_a_similarity_of_it_has_its_five_points(faces):
    shape = torch.as_tensor(faces.points[0], dtype=torch.double)
    moved = apply_transform(moves(6), shape.expand(6, -1, -1)).numpy()
    np.testing.assert_allclose(
        started.place(faces.points[0], convert(moved, "ibug68", "mtfl5")), moved, atol=1e-9
    )


def test_no_other_similarity_comes_nearer_to_the_five_points(faces):
    rng = np.random.default_rng(3)
    five = convert(faces.points[:4], "ibug68", "mtfl5") + rng.normal(0, 2, (4, 5, 2))
    placed = started.place(faces.points[5], five)

    def distance(shapes):
        return np.square(convert(shapes, "ibug68", "mtfl5") - five).sum((1, 2))

    best = distance(placed)
    for angle, scale, step in ((0.01, 1, 0), (0, 1.01, 0), (0, 1, 0.3)):
        parts = torch.tensor(scale), torch.tensor(angle), torch.tensor([step, 0.0])
        nudge = similarity(*(part.double() for part in parts))
        assert (distance(apply_transform(nudge, torch.as_tensor(placed)).numpy()) > best).all()


def test_the_mean_shape_in_the_box_is_the_start_without_points(fitted, faces):
    begun = started.from_boxes(fitted, faces.images, faces.boxes)
    np.testing.assert_array_equal(begun.end, fitted.predict(faces.images, faces.boxes))
    mean = MeanShape.from_arrays({"shape": fitted.initial_}).predict(faces.images, faces.boxes)
    np.testing.assert_array_equal(begun.start, mean)
    again = fitted.predict(faces.images, faces.boxes, mean)  # the same start, given in pixels
    np.testing.assert_allclose(again, begun.end, atol=0.2)


def test_five_points_of_the_mean_shape_in_a_tight_box_give_the_fit_from_this_box(fitted, faces):
    mean = MeanShape.from_arrays({"shape": fitted.initial_}).predict(faces.images, faces.boxes)
    five = convert(mean, "ibug68", "mtfl5")
    begun = started.from_five(fitted, faces.images, five)
    np.testing.assert_allclose(begun.start, mean, atol=1e-3)
    own = tight_box(torch.as_tensor(mean)).numpy()
    np.testing.assert_allclose(begun.end, fitted.predict(faces.images, own, mean), atol=0.2)


def test_a_start_from_true_points_needs_no_box_and_ends_nearer_than_one_from_a_bad_box(fitted, faces):
    shifted = faces.boxes + 0.5 * (faces.boxes[:, 2] - faces.boxes[:, 0])[:, None]
    five = convert(faces.points, "ibug68", "mtfl5")
    lost = started.from_boxes(fitted, faces.images, shifted).end
    good = started.from_five(fitted, faces.images, five).end
    errors = [np.linalg.norm(points - faces.points, axis=-1).mean() for points in (good, lost)]
    assert errors[0] < 1 < 20 < errors[1]


@pytest.mark.parametrize("bad", [lambda s: s[:-1], lambda s: s[:, :5], lambda s: s * np.nan])
def test_starts_that_are_no_shapes_are_refused(fitted, faces, bad):
    with pytest.raises(ReplicateError, match=r"starts: got shape .*expected \(24, 68, 2\)"):
        fitted.predict(faces.images, faces.boxes, bad(faces.points))
