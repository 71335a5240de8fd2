"""Crops: where faces come to lie, what perturbations do, and that landmarks follow the pixels through all of it."""

import cv2
import numpy as np
import pytest
import torch
from toy_faces import CANONICAL, FRAME, MEAN, toy_faces

from replicate.faces.augment import Frame, Perturbation, Samples, cut_canvases, mirror_batch
from replicate.geometry import apply_transform, compose, similarity
from replicate.shapes import fit_in_boxes

MILD = Perturbation(translation=0.08, rotation=20.0, scale=0.12)


def smooth_image(height, width):
    """Slow waves, which every good interpolation reproduces to about a grey level."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return (128 + 60 * np.sin(9 * x + 2 * y) + 50 * np.cos(11 * y - 3 * x)).round().astype(np.uint8)


def box_at(x, y, width, height):
    return np.array([[x, y, x + width, y + height]], np.float32)


# Frame


@pytest.mark.parametrize(("size", "extent"), [(112, 56.0), (80, 60.0), (39, 20.0)])
def test_the_canonical_shape_is_centred_and_has_the_stated_extent(size, extent):
    canonical = Frame(size, extent).canonical(3.7 * MEAN + torch.tensor([100.0, -40.0]))
    low, high = canonical.amin(0), canonical.amax(0)
    torch.testing.assert_close((low + high) / 2, torch.full((2,), (size - 1) / 2), atol=1e-4, rtol=0)
    assert (high - low).max() == pytest.approx(extent, rel=1e-5)
    width, height = np.ptp(MEAN.numpy(), axis=0)
    assert (high - low)[0] / (high - low)[1] == pytest.approx(width / height, rel=1e-5)


# Canvases and crops


def test_the_mean_shape_in_the_box_comes_to_lie_on_the_canonical_shape():
    boxes = np.concatenate([box_at(10, 20, 60, 70), box_at(300, 5, 250, 200)])
    canvases = cut_canvases([smooth_image(400, 600)] * 2, boxes, MEAN, FRAME)
    placed = fit_in_boxes(MEAN, torch.as_tensor(boxes))
    torch.testing.assert_close(
        apply_transform(canvases.from_image, placed), CANONICAL.expand(2, 68, 2), atol=2e-3, rtol=0
    )


def in_one_step(image, transform, size):
    """The crop as OpenCV makes it from the photograph directly, in [0, 1]."""
    made = cv2.warpAffine(
        image.astype(np.float32),
        transform.numpy(),
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return torch.from_numpy(made) / 255


@pytest.mark.parametrize(
    ("side", "levels"), [(50, 1.5), (120, 1.5), (333, 3.5)]
)  # enlarged, a little reduced, much reduced
@pytest.mark.parametrize("perturbed", [False, True])
def test_crops_agree_with_one_warp_of_the_photograph(side, levels, perturbed):
    image = smooth_image(477, 611)
    canvases = cut_canvases([image], box_at(130, 70, side, 0.9 * side), MEAN, FRAME)
    centre = torch.full((1, 2), 55.5)
    turn = similarity(torch.tensor([1.15]), torch.tensor([0.3]), torch.zeros(1, 2))
    move = (
        torch.cat(
            [turn[..., :2], (centre + 3.0 - apply_transform(turn, centre[:, None])[:, 0])[..., None]], -1
        )
        if perturbed
        else None
    )
    crop = canvases.crops(torch.tensor([0]), move)[0, 0]
    whole = compose(move, canvases.from_image) if perturbed else canvases.from_image
    assert 255 * (crop - in_one_step(image, whole[0], 112)).abs().max() < levels


def displacement(crop, expected):
    """Shift of `crop` against `expected` in pixels (x, y), by least squares over the grey values' slopes."""
    slopes = torch.stack([slope.flatten() for slope in torch.gradient(expected)[::-1]], 1)
    return -torch.linalg.lstsq(slopes, (crop - expected).flatten()[:, None]).solution[:, 0]


@pytest.mark.parametrize("side", [331, 402, 517, 561])
def test_reductions_keep_every_place_where_the_transform_says(side):
    """Far from the origin a reduction by a factor that is not quite the assumed one shifts the face."""
    y, x = np.mgrid[:1021, :1003] / side
    waves = (128 + 60 * np.sin(25 * x) + 60 * np.cos(22 * y)).round().astype(np.uint8)
    canvases = cut_canvases([waves], box_at(800 - side, 800 - side, side, side), MEAN, FRAME)
    crop = canvases.crops(torch.tensor([0]))[0, 0]
    assert displacement(crop, in_one_step(waves, canvases.from_image[0], 112)).abs().max() < 0.02


def test_reductions_do_not_alias():
    y, x = np.mgrid[:600, :600]
    checkerboard = (255 * ((x + y) % 2)).astype(np.uint8)
    crop = cut_canvases([checkerboard], box_at(120, 120, 360, 360), MEAN, FRAME).crops(torch.tensor([0]))
    assert crop.std() < 0.02 and crop.mean() == pytest.approx(0.5, abs=0.01)


def test_colour_counts_as_the_mean_of_its_channels():
    grey = smooth_image(200, 200)
    colour = np.stack([grey, np.zeros_like(grey), np.full_like(grey, 90)], -1)
    crops = [
        cut_canvases([image], box_at(50, 50, 90, 90), MEAN, FRAME).crops(torch.tensor([0]))
        for image in (grey, colour)
    ]
    torch.testing.assert_close(crops[1], (crops[0] + 90 / 255) / 3, atol=1.5 / 255, rtol=0)


def test_a_box_that_reaches_out_of_the_photograph_repeats_its_border():
    image = np.full((100, 100), 80, np.uint8)
    crop = cut_canvases([image], box_at(-40, -60, 90, 90), MEAN, FRAME).crops(torch.tensor([0]))
    torch.testing.assert_close(crop, torch.full_like(crop, 80 / 255), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(1, 1), (2, 500), (500, 2)])
def test_photographs_of_hardly_any_pixels_are_cut_all_the_same(shape):
    crop = cut_canvases([np.full(shape, 200, np.uint8)], box_at(-100, -100, 700, 700), MEAN, FRAME).crops(
        torch.tensor([0])
    )
    assert crop.shape == (1, 1, 112, 112) and crop.min() == crop.max() == 200 / 255


# Perturbations


def test_perturbations_have_the_stated_deviations():
    moves = Perturbation(0.1, 15.0, 0.2).sample(40_000, FRAME, torch.Generator().manual_seed(0)).double()
    scale = moves[:, :, :2].det().sqrt()
    angle = torch.rad2deg(torch.atan2(moves[:, 1, 0], moves[:, 0, 0]))
    centre = torch.full((1, 2), 55.5, dtype=torch.double)
    shift = apply_transform(moves, centre.expand(len(moves), 1, 2))[:, 0] - centre
    assert angle.std() == pytest.approx(15, rel=0.02) and angle.mean().abs() < 0.3
    assert scale.std() == pytest.approx(0.2, rel=0.02) and scale.mean() == pytest.approx(1, abs=0.01)
    assert (
        shift.std(0).tolist() == pytest.approx([0.1 * 56] * 2, rel=0.02) and shift.mean(0).abs().max() < 0.1
    )
    assert (
        abs(np.corrcoef(torch.cat([shift, angle[:, None], scale[:, None]], 1).T.numpy()) - np.eye(4)).max()
        < 0.03
    )


def test_rotation_and_scale_leave_the_centre_in_place():
    moves = Perturbation(0.0, 30.0, 0.3).sample(100, FRAME, torch.Generator().manual_seed(1))
    centre = torch.full((100, 1, 2), 55.5)
    torch.testing.assert_close(apply_transform(moves, centre), centre, atol=1e-3, rtol=0)
    corner = apply_transform(moves, torch.zeros(100, 1, 2))
    assert (corner - corner.mean(0)).norm(dim=-1).min() > 0.5  # while other places move


def test_scales_stay_within_a_half_and_two():
    moves = Perturbation(0.0, 0.0, 2.0).sample(1000, FRAME, torch.Generator().manual_seed(2))
    assert moves[:, 0, 0].min() == 0.5 and moves[:, 0, 0].max() == 2


def test_no_deviation_is_no_perturbation():
    moves = Perturbation(0.0, 0.0, 0.0).sample(3, FRAME, torch.Generator().manual_seed(3))
    torch.testing.assert_close(moves, torch.eye(2, 3).expand(3, 2, 3), atol=1e-5, rtol=0)


# Mirroring


def test_mirroring_twice_changes_nothing():
    crops, points = torch.rand(4, 1, 112, 112), 111 * torch.rand(4, 68, 2)
    which = torch.tensor([True, False, True, True])
    twice = mirror_batch(*mirror_batch(crops, points, which, "ibug68"), which, "ibug68")
    assert torch.equal(twice[0], crops)
    torch.testing.assert_close(twice[1], points)


def test_only_the_chosen_faces_are_mirrored_and_left_and_right_change_places():
    crops, points = torch.rand(2, 1, 20, 30), torch.rand(2, 68, 2) * torch.tensor([29.0, 19.0])
    mirrored, moved = mirror_batch(crops, points, torch.tensor([True, False]), "ibug68")
    assert torch.equal(mirrored[1], crops[1]) and torch.equal(moved[1], points[1])
    assert torch.equal(mirrored[0, :, :, 3], crops[0, :, :, 26])
    jaw = moved[0, 0]  # the first point of the jaw is now where the last one was, seen in the mirror
    torch.testing.assert_close(jaw, torch.stack([29 - points[0, 16, 0], points[0, 16, 1]]))
    torch.testing.assert_close(
        moved[0, 30], torch.stack([29 - points[0, 30, 0], points[0, 30, 1]])
    )  # the tip of the nose


def test_mirrored_landmarks_lie_on_the_pixels_they_lay_on():
    y, x = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    crops = (x + 200 * y).expand(1, 1, 112, 112)
    points = torch.randint(0, 112, (1, 68, 2), generator=torch.Generator().manual_seed(4)).float()
    mirrored, moved = mirror_batch(crops, points, torch.tensor([True]), "ibug68")
    before, after = (
        image[0, 0, at[0, :, 1].long(), at[0, :, 0].long()]
        for image, at in ((crops, points), (mirrored, moved))
    )
    assert sorted(after.tolist()) == sorted(before.tolist())


# Samples


def test_a_step_always_draws_the_same_samples():
    faces = toy_faces()
    first, second = (Samples(faces, MEAN, FRAME, MILD, batch=8, seed=3) for _ in range(2))
    first(0)
    for a, b in zip(first(5), second(5), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first(5)[1], first(6)[1])
    assert not torch.equal(first(5)[1], Samples(faces, MEAN, FRAME, MILD, batch=8, seed=4)(5)[1])


def test_an_epoch_visits_every_face_once():
    samples = Samples(toy_faces(), MEAN, FRAME, MILD, batch=10, seed=0)
    order = samples.order_at(torch.arange(72))
    for epoch in order.split(24):
        assert sorted(epoch.tolist()) == list(range(24))
    assert not torch.equal(order[:24], order[24:48])
    assert torch.equal(
        samples.order_at(torch.arange(20, 30)), order[20:30]
    )  # across the border of two epochs


def test_augmented_points_follow_the_pixels():
    """The bright dots of the toy faces lie under the augmented landmarks, mirrored or not."""
    crops, points = Samples(toy_faces(), MEAN, FRAME, MILD, batch=16, seed=0)(0)
    for crop, shape in zip(crops[:, 0], points, strict=True):
        inside = shape[(shape > 2).all(1) & (shape < 109).all(1)].round().long()
        near = torch.stack([crop[y - 1 : y + 2, x - 1 : x + 2].amax() for x, y in inside])
        assert len(inside) > 30 and near.median() > 0.3 > 60 / 255


def test_half_of_the_samples_are_mirrored():
    samples = Samples(toy_faces(), MEAN, FRAME, Perturbation(0.0, 0.0, 0.0), batch=100, seed=1)
    _, points = samples(0)
    plain = samples.points[samples.order_at(torch.arange(100))]
    mirrored = (points - plain).abs().amax((1, 2)) > 1e-3
    assert 35 < mirrored.sum() < 65
    torch.testing.assert_close(
        points[mirrored][:, 30, 0], 111 - plain[mirrored][:, 30, 0], atol=1e-3, rtol=0
    )  # tip of the nose
