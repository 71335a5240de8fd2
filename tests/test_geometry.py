"""Transforms and warps against closed forms and an independent implementation (OpenCV)."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from replicate import geometry, shapes

torch.set_num_threads(1)
FLOATS = st.floats(-1, 1)


def random_shapes(seed, *size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 20


@given(st.integers(0, 999), st.floats(0.2, 5), st.floats(-3.1, 3.1), FLOATS, FLOATS)
@settings(max_examples=50, deadline=None)
def test_fit_similarity_recovers_the_transform_that_made_the_target(seed, scale, angle, dx, dy):
    source = random_shapes(seed, 7, 2)
    true = geometry.similarity(
        torch.tensor(scale).double(), torch.tensor(angle).double(), torch.tensor([dx, dy]).double() * 50
    )
    torch.testing.assert_close(
        geometry.fit_similarity(source, geometry.apply_transform(true, source)), true, atol=1e-8, rtol=1e-8
    )


def test_fit_similarity_is_the_least_squares_solution():
    """The residual is orthogonal to every direction in which a similarity can move the shape."""
    source, target = random_shapes(1, 9, 2), random_shapes(2, 9, 2)
    residual = target - geometry.apply_transform(geometry.fit_similarity(source, target), source)
    x, y = source.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    for direction in ((x, y), (-y, x), (one, zero), (zero, one)):
        assert abs((residual * torch.stack(direction, -1)).sum()) < 1e-9


def test_fit_similarity_never_reflects():
    source = random_shapes(3, 6, 2)
    mirrored = source * torch.tensor([-1.0, 1.0], dtype=torch.float64)
    assert torch.linalg.det(geometry.fit_similarity(source, mirrored)[:, :2]) >= 0


def test_fit_similarity_of_one_repeated_point_is_finite():
    assert torch.isfinite(geometry.fit_similarity(torch.ones(5, 2), random_shapes(0, 5, 2).float())).all()


@given(st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_invert_and_compose(seed):
    a, b = random_shapes(seed, 4, 2, 3), random_shapes(seed + 1, 4, 2, 3)
    points = random_shapes(seed + 2, 4, 5, 2)
    both = geometry.apply_transform(geometry.compose(b, a), points)
    torch.testing.assert_close(both, geometry.apply_transform(b, geometry.apply_transform(a, points)))
    torch.testing.assert_close(
        geometry.apply_transform(geometry.invert(a), geometry.apply_transform(a, points)),
        points,
        atol=1e-5,
        rtol=1e-5,
    )


def test_fit_similarity_gradient():
    source, target = random_shapes(4, 2, 5, 2).requires_grad_(), random_shapes(5, 2, 5, 2)
    assert torch.autograd.gradcheck(lambda s: geometry.fit_similarity(s, target), source)


def test_warp_gradient_with_respect_to_image_and_transform():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 6, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    move = torch.tensor([[[1.1, 0.13, 0.31], [-0.07, 0.93, 0.17]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda i, t: geometry.warp(i, t, (5, 5)), (image, move))


def test_warp_agrees_with_opencv():
    image = np.random.default_rng(0).random((40, 50), np.float32)
    move = np.array([[0.9, 0.2, 3.0], [-0.2, 0.9, 9.0]], np.float32)
    expected = cv2.warpAffine(image, move, (45, 35), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    ours = geometry.warp(torch.from_numpy(image)[None, None], torch.from_numpy(move)[None], (35, 45))[
        0, 0
    ].numpy()
    np.testing.assert_allclose(ours, expected, atol=0.05)  # OpenCV rounds positions to 1/32 of a pixel
    assert np.abs(ours - expected).mean() < 0.005


def test_warp_moves_a_pixel_where_the_transform_says():
    image = torch.zeros(1, 1, 20, 30)
    image[0, 0, 5, 7] = 1
    move = geometry.similarity(torch.ones(1), torch.zeros(1), torch.tensor([[4.0, 3.0]]))
    warped = geometry.warp(image, move, (20, 30))[0, 0]
    assert warped[8, 11] == pytest.approx(1, abs=1e-4)
    assert warped.sum() == pytest.approx(1, abs=1e-3)


def test_warp_there_and_back_returns_a_smooth_image():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    image = torch.sin(x / 9)[None, None] * torch.cos(y / 7)
    move = geometry.similarity(torch.tensor([1.2]), torch.tensor([0.3]), torch.tensor([[5.0, -8.0]]))
    back = geometry.warp(geometry.warp(image, move, (64, 64)), geometry.invert(move), (64, 64))
    assert (back - image)[..., 24:40, 24:40].abs().max() < 0.02


def test_boxes():
    box = geometry.tight_box(torch.tensor([[1.0, 5.0], [3.0, 2.0], [2.0, 9.0]]))
    assert box.tolist() == [1, 2, 3, 9]
    assert geometry.box_centre(box).tolist() == [2, 5.5]
    moved = geometry.perturb_boxes(box, torch.tensor([0.5, 0.0]), torch.tensor(2.0).log())
    assert moved.tolist() == pytest.approx([1, -1.5, 5, 12.5])


def test_mean_shape_ignores_similarities():
    base = random_shapes(6, 12, 2)
    moves = geometry.similarity(
        torch.rand(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5,
        torch.linspace(-0.5, 0.5, 8, dtype=torch.float64),
        random_shapes(7, 8, 2),
    )
    mean = shapes.mean_shape(geometry.apply_transform(moves, base.expand(8, 12, 2)))
    torch.testing.assert_close(
        geometry.procrustes_align(shapes.unit_size(base), mean), mean, atol=1e-9, rtol=0
    )


def test_fit_in_boxes_aligns_centres_and_mean_side():
    shape, box = random_shapes(8, 10, 2), torch.tensor([10.0, 20.0, 50.0, 80.0], dtype=torch.float64)
    placed = geometry.tight_box(shapes.fit_in_boxes(shape, box))
    torch.testing.assert_close(geometry.box_centre(placed), geometry.box_centre(box))
    ratios = geometry.box_size(box) / geometry.box_size(geometry.tight_box(shape))
    torch.testing.assert_close(
        geometry.box_size(placed), geometry.box_size(geometry.tight_box(shape)) * ratios.mean()
    )


def test_fit_affine_recovers_an_affine_transform_and_solves_least_squares():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(4, 9, 2, generator=generator, dtype=torch.float64)
    transform = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        geometry.fit_affine(points, geometry.apply_transform(transform, points)), transform
    )
    target = torch.randn(4, 9, 2, generator=generator, dtype=torch.float64)
    homogeneous = torch.cat([points, torch.ones(4, 9, 1, dtype=torch.float64)], -1)
    torch.testing.assert_close(
        geometry.fit_affine(points, target), torch.linalg.lstsq(homogeneous, target)[0].mT
    )


def test_fit_affine_gradient():
    points, target = torch.randn(
        2, 1, 5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ).unbind()
    assert torch.autograd.gradcheck(lambda p: geometry.fit_affine(p, target), points.requires_grad_())
