"""Crops: where faces come to lie, what perturbations do, and that landmarks follow the pixels through all of it."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_faces import CANONICAL, FRAME, MEAN, toy_faces

from replicate.errors import ReplicateError
from replicate.faces.augment import (
    CANVAS_REACH,
    CORNERS,
    EnlargedSamples,
    Samples,
    align_to,
    alignment,
    canvas_reach,
    cut_canvases,
    mirror_batch,
)
from replicate.faces.markups import MARKUPS
from replicate.faces.perturbations import (
    RNN_ANGLES,
    RNN_VARIANTS,
    BoxJitter,
    Chain,
    CropAndTurn,
    Frame,
    NormalPerturbation,
    Rotation,
    UniformPerturbation,
    Variant,
)
from replicate.geometry import (
    apply_transform,
    compose,
    invert,
    perturb_boxes,
    similarity,
    tight_box,
    warp,
)
from replicate.shapes import fit_in_boxes

MILD = NormalPerturbation(translation=0.08, rotation=20.0, scale=0.12)  # DAN at `smoke` and `cpu`
WIDE = NormalPerturbation(translation=0.2, rotation=20.0, scale=0.25)  # DAN at `gpu`
ZERO = [
    NormalPerturbation(0.0, 0.0, 0.0),
    UniformPerturbation(),
    Rotation(),
    BoxJitter(0.0, 0.0),
    CropAndTurn(kept=1.0, rotation=0.0),
    Chain(()),
]


def smooth_image(height, width):
    """Slow waves, which every good interpolation reproduces to about a grey level."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return (128 + 60 * np.sin(9 * x + 2 * y) + 50 * np.cos(11 * y - 3 * x)).round().astype(np.uint8)


def box_at(x, y, width, height):
    return np.array([[x, y, x + width, y + height]], np.float32)


def seeded(number):
    return torch.Generator().manual_seed(number)


def parts_of(moves):
    """Scale (n,), angle in degrees (n,) and shift of the frame's centre (n, 2)."""
    centre = torch.full((len(moves), 1, 2), 55.5, dtype=moves.dtype)
    scale, angle = moves[:, :, :2].det().sqrt(), torch.rad2deg(torch.atan2(moves[:, 1, 0], moves[:, 0, 0]))
    return scale, angle, (apply_transform(moves, centre) - centre)[:, 0]


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
    moves = (
        NormalPerturbation(0.1, 15.0, 0.2).sample(40_000, FRAME, torch.Generator().manual_seed(0)).double()
    )
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
    moves = NormalPerturbation(0.0, 30.0, 0.3).sample(100, FRAME, torch.Generator().manual_seed(1))
    centre = torch.full((100, 1, 2), 55.5)
    torch.testing.assert_close(apply_transform(moves, centre), centre, atol=1e-3, rtol=0)
    corner = apply_transform(moves, torch.zeros(100, 1, 2))
    assert (corner - corner.mean(0)).norm(dim=-1).min() > 0.5  # while other places move


def test_scales_stay_within_a_half_and_two():
    moves = NormalPerturbation(0.0, 0.0, 2.0).sample(1000, FRAME, torch.Generator().manual_seed(2))
    assert moves[:, 0, 0].min() == 0.5 and moves[:, 0, 0].max() == 2


@pytest.mark.parametrize("perturbation", ZERO, ids=lambda perturbation: type(perturbation).__name__)
def test_no_deviation_is_no_perturbation(perturbation):
    moves = perturbation.sample(3, FRAME, seeded(3))
    torch.testing.assert_close(moves, torch.eye(2, 3).expand(3, 2, 3), atol=1e-5, rtol=0)


def test_uniform_perturbations_fill_their_ranges():
    moves = UniformPerturbation(0.1, 30.0, 0.2).sample(20_000, FRAME, seeded(0)).double()
    scale, angle, shift = parts_of(moves)
    for found, largest in ((scale - 1, 0.2), (angle, 30.0), (shift[:, 0], 5.6), (shift[:, 1], 5.6)):
        assert found.abs().max() == pytest.approx(largest, rel=0.01)
        assert found.std() == pytest.approx(largest / 3**0.5, rel=0.02) and abs(found.mean()) < 0.03 * largest


def test_a_rotation_turns_every_face_by_its_angle_from_x_towards_y():
    moves = Rotation(90.0).sample(2, Frame(101, 50.0), seeded(0))
    right = torch.tensor([[60.0, 50.0]]).expand(2, 1, 2)
    torch.testing.assert_close(apply_transform(moves, right)[:, 0], torch.tensor([[50.0, 60.0]] * 2))


def test_a_jittered_box_gives_the_crop_that_the_move_gives():
    """For square boxes, whose side is the extent of the frame: cutting from the moved box equals moving the cut face."""
    boxes = box_at(120, 90, 100, 100)
    image, frame = smooth_image(400, 420), Frame(64, 40.0)
    move = BoxJitter(shift=0.1, scale=0.1).sample(1, frame, seeded(5))
    drawn = 2 * torch.rand(1, 3, generator=seeded(5)) - 1
    moved = perturb_boxes(torch.as_tensor(boxes), 0.1 * drawn[:, 1:], (1 + 0.1 * drawn[:, 0]).log())
    plain = cut_canvases([image], boxes, CORNERS, frame)
    jittered = cut_canvases([image], moved.numpy(), CORNERS, frame)
    torch.testing.assert_close(compose(move, plain.from_image), jittered.from_image, atol=1e-3, rtol=0)
    crops = plain.crops(torch.tensor([0]), move), jittered.crops(torch.tensor([0]))
    assert 255 * (crops[0] - crops[1]).abs().max() < 3


def test_a_sub_image_fills_the_frame():
    """Without rotation the corners of the sub-image of 248 pixels, at whole offsets, go to the corners of the 256."""
    frame = Frame(256, 180.0)
    back = invert(CropAndTurn(rotation=0.0).sample(500, frame, seeded(0)))
    edges = torch.tensor([[-0.5, -0.5], [255.5, 255.5]]).expand(500, 2, 2)
    origin = apply_transform(back, edges) + 0.5
    torch.testing.assert_close(origin, origin.round(), atol=1e-3, rtol=0)
    torch.testing.assert_close(origin[:, 1] - origin[:, 0], torch.full((500, 2), 248.0), atol=1e-3, rtol=0)
    assert origin[:, 0].round().unique().tolist() == list(range(9))


def test_a_sub_image_turns_about_its_own_centre():
    frame = Frame(256, 180.0)
    moves = CropAndTurn().sample(2000, frame, seeded(1))
    scale, angle, _ = parts_of(moves)
    assert scale.min() == pytest.approx(256 / 248) and scale.max() == pytest.approx(256 / 248)
    assert 29 < angle.abs().max() < 30
    seen = (
        apply_transform(invert(moves), torch.full((2000, 1, 2), 127.5)) - 127.5
    )  # centres of the sub-images
    torch.testing.assert_close(seen, seen.round(), atol=1e-3, rtol=0)
    assert seen.abs().max().round() == 4


def test_a_chain_applies_its_parts_in_order():
    parts = Rotation(30.0), UniformPerturbation(translation=0.2)
    generator = seeded(2)
    first, second = (part.sample(4, FRAME, generator) for part in parts)
    torch.testing.assert_close(Chain(parts).sample(4, FRAME, seeded(2)), compose(second, first))


# How far canvases reach


def test_the_mild_perturbation_keeps_the_canvas_of_the_recorded_models():
    assert canvas_reach([MILD], Frame()) == CANVAS_REACH == 1.43


@pytest.mark.parametrize("perturbation", [WIDE, UniformPerturbation(0.3, 45.0, 0.3)])
def test_hardly_any_crop_sees_the_border_of_its_canvas(perturbation):
    """On photographs without end, fewer than 1 % of crops take a seventh of their pixels or more from beyond the canvas."""
    canvases = endless(canvas_reach([perturbation], FRAME))
    assert seen_border(canvases, perturbation) < 0.01 < seen_border(endless(CANVAS_REACH), perturbation)


def endless(reach):
    """A canvas of one huge photograph: white, and black along the canvas's border alone."""
    canvases = cut_canvases(
        [np.zeros((2000, 2000), np.uint8)], box_at(950, 950, 100, 100), MEAN, FRAME, reach=reach
    )
    canvases.pixels[:] = 0
    canvases.pixels[..., 1:-1, 1:-1] = 255
    return canvases


def seen_border(canvases, perturbation):
    """Share of 2000 crops with a seventh of their pixels or more from the canvas's border; repeated pixels are black."""
    parts = [canvases.crops(torch.zeros(len(moves), dtype=torch.long), moves)
             for moves in perturbation.sample(2000, FRAME, seeded(9)).split(100)]  # fmt: skip
    return ((torch.cat(parts) < 0.5).float().mean((1, 2, 3)) > 0.14).float().mean()


def test_canvases_reach_no_further_than_the_photographs():
    small = cut_canvases([smooth_image(150, 150)], box_at(25, 25, 100, 100), MEAN, FRAME, reach=3.0)
    large = cut_canvases([smooth_image(900, 900)], box_at(400, 400, 100, 100), MEAN, FRAME, reach=3.0)
    assert (
        small.pixels.shape[-1] == round(112 * 1.5 * CANVAS_REACH) and large.pixels.shape[-1] == 112 * 1.5 * 3
    )
    between = cut_canvases([smooth_image(300, 420)], box_at(160, 100, 100, 100), MEAN, FRAME, reach=3.0)
    corners = apply_transform(between.from_image, torch.tensor([[[-0.5, -0.5], [419.5, 299.5]]]))
    assert between.pixels.shape[-1] == round(1.5 * 2 * (corners - 55.5).abs().max().item())
    assert_same_crops(
        between, cut_canvases([smooth_image(300, 420)], box_at(160, 100, 100, 100), MEAN, FRAME, reach=2.9)
    )


def assert_same_crops(one, other):
    """Where the photograph ends, both repeat its border."""
    moves = WIDE.sample(20, FRAME, seeded(0))
    crops = [canvases.crops(torch.zeros(20, dtype=torch.long), moves) for canvases in (one, other)]
    assert 255 * (crops[0] - crops[1]).abs().mean() < 0.3


# Colour


def test_colour_canvases_are_the_grey_ones_of_each_channel():
    channels = [smooth_image(300, 260), smooth_image(260, 300).T, 255 - smooth_image(300, 260)]
    boxes, moves = box_at(60, 50, 170, 190), MILD.sample(1, FRAME, seeded(0))
    colour = cut_canvases([np.stack(channels, -1)], boxes, MEAN, FRAME, colour=True)
    assert colour.pixels.shape[:2] == (1, 3)
    for number, channel in enumerate(channels):
        grey = cut_canvases([channel], boxes, MEAN, FRAME)
        assert (
            grey.pixels[:, 0].int() - colour.pixels[:, number].int()
        ).abs().max() <= 1  # rounding of a reduction
        both = grey.crops(torch.tensor([0]), moves)[:, 0], colour.crops(torch.tensor([0]), moves)[:, number]
        torch.testing.assert_close(*both, atol=1.01 / 255, rtol=0)


def test_grey_photographs_have_three_equal_channels_in_colour():
    pixels = cut_canvases([smooth_image(200, 200)], box_at(50, 50, 90, 90), MEAN, FRAME, colour=True).pixels
    grey = cut_canvases([smooth_image(200, 200)], box_at(50, 50, 90, 90), MEAN, FRAME).pixels
    assert torch.equal(pixels, grey.expand(1, 3, -1, -1))


# Mirroring


@pytest.mark.parametrize("name", MARKUPS)
def test_mirroring_twice_changes_nothing(name):
    crops, points = torch.rand(4, 3, 112, 112), 111 * torch.rand(4, MARKUPS[name].size, 2)
    which = torch.tensor([True, False, True, True])
    twice = mirror_batch(*mirror_batch(crops, points, which, name), which, name)
    assert torch.equal(twice[0], crops)
    torch.testing.assert_close(twice[1], points)


@pytest.mark.parametrize("name", MARKUPS)
def test_mirroring_exchanges_left_and_right(name):
    """A face that is its own mirror image keeps all its points; what is not annotated changes sides."""
    found = MARKUPS[name]
    upright = MARKUPS["ibug68"].mirror.tolist()
    face = 100 * torch.rand(1, 68, 2, generator=seeded(0), dtype=torch.double)
    face = (
        face + face[:, upright] * torch.tensor([-1, 1]) + torch.tensor([111, 0])
    ) / 2  # symmetric about 55.5
    points = torch.tensor(found.matrix) @ face
    mirrored = mirror_batch(torch.rand(1, 1, 112, 112), points, torch.tensor([True]), name)[1]
    torch.testing.assert_close(mirrored, points)
    points[0, 0] = torch.nan
    gone = mirror_batch(torch.rand(1, 1, 112, 112), points, torch.tensor([True]), name)[1].isnan().all(-1)[0]
    assert gone.nonzero().flatten().tolist() == [found.mirror[0]]


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


def test_an_epoch_is_ordered_once(monkeypatch):
    ordered, randperm = [], torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda *a, **k: ordered.append(1) or randperm(*a, **k))
    samples = Samples(toy_faces(), MEAN, FRAME, MILD, batch=4, seed=987)
    for step in range(7):  # 24 faces: the last step is of the second epoch
        samples(step)
    assert len(ordered) == 2


def test_augmented_points_follow_the_pixels():
    """The bright dots of the toy faces lie under the augmented landmarks, mirrored or not."""
    crops, points = Samples(toy_faces(), MEAN, FRAME, MILD, batch=16, seed=0)(0)
    for crop, shape in zip(crops[:, 0], points, strict=True):
        inside = shape[(shape > 2).all(1) & (shape < 109).all(1)].round().long()
        near = torch.stack([crop[y - 1 : y + 2, x - 1 : x + 2].amax() for x, y in inside])
        assert len(inside) > 30 and near.median() > 0.3 > 60 / 255


def test_half_of_the_samples_are_mirrored():
    samples = Samples(toy_faces(), MEAN, FRAME, NormalPerturbation(0.0, 0.0, 0.0), batch=100, seed=1)
    _, points = samples(0)
    plain = samples.points[samples.order_at(torch.arange(100))]
    mirrored = (points - plain).abs().amax((1, 2)) > 1e-3
    assert 35 < mirrored.sum() < 65
    torch.testing.assert_close(
        points[mirrored][:, 30, 0], 111 - plain[mirrored][:, 30, 0], atol=1e-3, rtol=0
    )  # tip of the nose


def test_a_step_draws_what_recorded_models_were_trained_on():
    """DAN's samples, from the same random numbers written out: a change here makes every recorded model another one."""
    faces, step, seed, batch = toy_faces(), 7, 5, 8
    samples = Samples(faces, MEAN, FRAME, MILD, batch=batch, seed=seed)
    true = torch.as_tensor(faces.points)
    canvases = cut_canvases(faces.images, tight_box(true).numpy(), MEAN, FRAME)
    assert torch.equal(samples.canvases.pixels, canvases.pixels) and canvases.pixels.shape == (
        24,
        1,
        240,
        240,
    )

    def generator(*numbers):
        state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
        return seeded(int(state) >> 1)

    epochs = torch.cat([torch.randperm(24, generator=generator(seed, epoch, 1)) for epoch in range(3)])
    index, drawn = epochs[step * batch : (step + 1) * batch], generator(seed, step, 0)
    normal = torch.randn(batch, 4, generator=drawn)
    scale, angle = (1 + 0.12 * normal[:, 0]).clamp(0.5, 2), torch.deg2rad(20.0 * normal[:, 1])
    turn = similarity(scale, angle, torch.zeros(batch, 2))
    centre = torch.full((batch, 1, 2), 55.5)
    shift = centre[:, 0] + 0.08 * 56 * normal[:, 2:] - apply_transform(turn, centre)[:, 0]
    moves = torch.cat([turn[..., :2], shift[..., None]], -1)
    mirrored = torch.rand(batch, generator=drawn) < 0.5
    points = apply_transform(moves, apply_transform(canvases.from_image, true)[index])
    crops = (
        warp(
            canvases.pixels[index].float(), compose(moves, canvases.to_frame.expand(batch, 2, 3)), (112, 112)
        )
        / 255
    )
    for found, expected in zip(samples(step), mirror_batch(crops, points, mirrored, "ibug68"), strict=True):
        assert torch.equal(found, expected)


def test_crops_may_start_from_given_boxes_where_points_are_unknown():
    faces = toy_faces()
    boxes = faces.boxes.copy()
    faces.points[3, 10] = np.nan
    with pytest.raises(ReplicateError, match="not annotated.*pass `boxes`"):
        Samples(faces, MEAN, FRAME, MILD, batch=24, seed=0)
    samples = Samples(faces, MEAN, FRAME, Rotation(), batch=24, seed=0, boxes=boxes, colour=True)
    crops, points = samples(0)
    assert crops.shape == (24, 3, 112, 112) and points.isnan().all(-1).sum() == 1
    assert points.isnan().all(-1).any(1).nonzero().item() == samples.order_at(
        torch.arange(24)
    ).tolist().index(3)


# Enlarged training sets


def test_the_grid_of_angles_boxes_and_mirrors_has_52_variants():
    assert RNN_ANGLES == (-30, -25, -20, -15, -10, -5, 0, 5, 10, 15, 20, 25, 30)
    assert len(RNN_VARIANTS) == len(set(RNN_VARIANTS)) == 52 and sum(v.mirrored for v in RNN_VARIANTS) == 26
    assert Variant(Chain((Rotation(0.0),))) in RNN_VARIANTS  # the photograph as it is
    # Table I: images before and after
    assert [len(RNN_VARIANTS) * count for count in (811, 2330, 3148)] == [42172, 121160, 163696]


def test_an_enlarged_set_holds_every_face_in_every_variant():
    faces = toy_faces(6)
    variants = [Variant(), Variant(Rotation(90.0)), Variant(MILD, mirrored=True)]
    samples = EnlargedSamples(faces, MEAN, FRAME, variants, batch=9, seed=1)
    assert len(samples) == 18
    crops, points = samples.take(torch.arange(18))
    plain = samples.framed.points
    torch.testing.assert_close(points[:6], plain, atol=1e-3, rtol=0)
    quarter = (plain - 55.5).flip(-1) * torch.tensor([-1, 1]) + 55.5
    torch.testing.assert_close(points[6:12], quarter, atol=1e-2, rtol=0)
    moved = apply_transform(samples.moves[12:], plain)
    expected = mirror_batch(crops[12:], moved, torch.ones(6, dtype=torch.bool), "ibug68")[1]
    torch.testing.assert_close(points[12:], expected)
    again = EnlargedSamples(faces, MEAN, FRAME, variants, batch=9, seed=1)
    assert torch.equal(again.take(torch.arange(18))[0], crops)  # what is random in it stays
    other = EnlargedSamples(faces, MEAN, FRAME, variants, batch=9, seed=2)
    assert not torch.equal(other.moves[12:], samples.moves[12:])


def test_an_epoch_visits_every_image_of_an_enlarged_set_once():
    samples = EnlargedSamples(
        toy_faces(4), MEAN, FRAME, [Variant(), Variant(MILD, mirrored=True)], batch=4, seed=0
    )
    whole = samples.take(torch.arange(8))[1]
    drawn = torch.cat([samples(step)[1] for step in (0, 1)])
    distance = torch.cdist(drawn.flatten(1), whole.flatten(1))
    assert sorted(distance.argmin(1).tolist()) == list(range(8)) and distance.amin(1).max() < 1e-2
    assert all(torch.equal(a, b) for a, b in zip(samples(3), samples(3), strict=True))


# One face in the place of another


def test_alignment_recovers_a_known_similarity():
    points = 39 * torch.rand(3, 5, 2, generator=seeded(0))
    known = similarity(torch.tensor([0.8, 1.0, 1.3]), torch.tensor([0.4, 0.0, -0.9]), torch.rand(3, 2) * 9)
    torch.testing.assert_close(alignment(points, apply_transform(known, points)), known, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "points,target",
    [
        ([[1.1, 2.3], [30, 4], [9, 21]], [[13.37, 0.1]] * 3),
        ([[13.37, 0.1]] * 3, [[1.1, 2.3], [30, 4], [9, 21]]),
        ([[1.1, 2.3], [30, 4], [9, 21]], [[1.0, 2], [float("nan"), float("nan")], [9, 21]]),
        (
            [[0.0, 0], [1, 0], [0, 1], [1, 1]],
            [[1.0, 0], [0, 0], [1, 1], [0, 1]],
        ),  # a square and its mirror image
    ],
    ids=["target in one place", "face in one place", "unknown point", "no similarity"],
)
def test_alignment_to_what_gives_no_place_is_refused(points, target):
    good = torch.tensor([[5.0, 5], [20, 7], [9, 30], [2, 2]])[: len(points)]
    faces, targets = torch.stack([good, torch.tensor(points)]), torch.stack([good + 1, torch.tensor(target)])
    with pytest.raises(ReplicateError, match=r"alignment: .* face 1 to its target \(1 of 2 such\)"):
        align_to(torch.rand(2, 1, 40, 40), faces, targets)
    assert alignment(faces[:1], targets[:1]).isfinite().all()


def test_an_aligned_crop_is_the_image_fetched_through_the_similarity():
    """I'(q) = I(H q), where the least squares for H go from the target's points to the face's."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    crop = torch.stack([x, y])[None] / 40  # linear: bilinear fetching is exact
    points = torch.tensor([[[14.0, 15], [25, 15], [20, 21], [15, 26], [25, 27]]])
    target = points * 0.9 + torch.tensor([3.0, 1.0]) + torch.rand(1, 5, 2, generator=seeded(1))
    s, t = (shape[0] - shape[0].mean(0) for shape in (target, points))
    a, b = (s * t).sum() / s.square().sum(), (s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum() / s.square().sum()
    q = torch.tensor([[18.0, 20.0], [22.0, 17.0]])
    fetched = (q - target[0].mean(0)) @ torch.tensor([[a, b], [-b, a]]) + points[0].mean(0)
    found = 40 * align_to(crop, points, target)[0, :, q[:, 1].long(), q[:, 0].long()].T
    torch.testing.assert_close(found, fetched, atol=1e-3, rtol=0)


def test_a_face_aligned_to_itself_stays():
    crops, points = torch.rand(2, 3, 40, 40), 39 * torch.rand(2, 5, 2)
    torch.testing.assert_close(align_to(crops, points, points), crops, atol=1e-3, rtol=0)


@given(st.integers(0, 2**31), st.integers(1, 80))
def test_many_shapes_are_framed_as_each_alone(seed, landmarks):
    shapes = 300 * torch.rand(3, landmarks + 1, 2, generator=seeded(seed))
    low, high = shapes.amin(1), shapes.amax(1)
    framed = FRAME.canonical(shapes)
    for shape, a, b, found in zip(shapes, low, high, framed, strict=True):
        # what recorded models were trained with, to the last bit
        expected = (shape - (a + b) / 2) * (FRAME.extent / (b - a).max()) + (FRAME.size - 1) / 2
        assert torch.equal(found, expected) and torch.equal(FRAME.canonical(shape), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_another_device_gives_the_same_batch():
    here, there = (
        Samples(toy_faces(), MEAN, FRAME, MILD, batch=8, seed=3, device=d) for d in ("cpu", "cuda")
    )
    for one, other in zip(here(2), there(2), strict=True):
        assert other.is_cuda
        torch.testing.assert_close(one, other.cpu(), atol=1e-3, rtol=1e-4)


def test_the_zoom_of_a_frame_changes_its_canvases_alone():
    boxes = box_at(60, 50, 170, 190)
    fine, coarse = (
        cut_canvases([smooth_image(300, 260)], boxes, MEAN, Frame(112, 56.0, zoom)) for zoom in (1.5, 1.0)
    )
    assert (fine.pixels.shape[-1], coarse.pixels.shape[-1]) == (240, 160)
    crops = [
        canvases.crops(torch.tensor([0]), MILD.sample(1, FRAME, seeded(0))) for canvases in (fine, coarse)
    ]
    assert 255 * (crops[0] - crops[1]).abs().max() < 4
