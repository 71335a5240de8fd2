"""Patches: overlaps in closed form, labels that are true of the regions, the same patches again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_faces import toy_faces

from replicate.errors import ReplicateError
from replicate.faces.patches import NEGATIVE, POSITIVE, FacePatches, iou
from replicate.faces.real import Annotations

FACES = [np.array([[40.0, 30, 90, 95]]), np.zeros((0, 4)), np.array([[5.0, 5, 25, 30], [100, 60, 180, 118]])]


def photographs():
    rng = np.random.default_rng(0)
    shapes = (140, 160, 3), (90, 120), (120, 200, 3)
    return [rng.integers(0, 256, shape, np.uint8) for shape in shapes]


def patches(**options):
    return FacePatches(photographs(), FACES, **{"size": 32, **options})


# Overlap


@given(st.floats(0, 2), st.floats(0.1, 50))
def test_the_overlap_of_shifted_squares(shift, side):
    """Two squares of side a, one shifted by d of its side: (1 - d) / (1 + d), or nothing."""
    one, other = (
        np.array([3.0, 4, 3 + side, 4 + side]),
        np.array([3 + shift * side, 4, 3 + (1 + shift) * side, 4 + side]),
    )
    assert iou(one, other) == pytest.approx(max(0, (1 - shift) / (1 + shift)), abs=1e-9)
    assert iou(other, one) == iou(one, other)


@given(st.floats(0.01, 1), st.floats(0.01, 1))
def test_the_overlap_of_a_box_inside_another_is_the_ratio_of_areas(width, height):
    assert iou([0, 0, 1, 1], [0, 0, width, height]) == pytest.approx(width * height)


def test_overlaps_broadcast_and_empty_boxes_have_none():
    boxes = np.array([[0.0, 0, 2, 2], [1, 1, 1, 1], [9, 9, 10, 10]])
    np.testing.assert_allclose(iou(boxes[:, None], boxes), np.diag([1.0, 0, 1]))


# Regions and labels


def test_one_patch_in_four_shows_a_face():
    images, labels = patches().take(range(16))
    assert images.shape == (16, 32, 32, 3) and images.dtype == np.uint8
    assert labels.tolist() == [True, False, False, False] * 4


def test_labels_are_true_of_the_regions():
    made, numbers = patches(), []
    for index in range(400):
        number, box = made.region(index)
        overlap = iou(box, FACES[number]).max(initial=0)
        assert overlap >= POSITIVE if index % 4 == 0 else overlap < NEGATIVE
        height, width = made.images[number].shape[:2]
        assert (
            (box[:2] >= -0.5).all()
            and (box[2:] <= (width - 0.5, height - 0.5)).all()
            and (box[2:] > box[:2]).all()
        )
        numbers.append(number)
    assert set(numbers[::4]) == {0, 2} and set(numbers) == {0, 1, 2}


def test_positives_differ_and_negatives_touch_faces_too():
    made = patches()
    found = [made.region(index) for index in range(400)]
    overlaps = np.array([iou(box, FACES[number]).max(initial=0) for number, box in found])
    assert 0.6 < overlaps[::4].mean() < 0.95 and len(np.unique(overlaps[::4])) > 80
    negatives = np.delete(overlaps, np.s_[::4])
    assert 0.2 < (negatives > 0.02).mean() < 0.8  # parts of faces, and background


def test_a_patch_depends_on_seed_and_index_alone():
    images, labels = patches().take(range(10))
    again = patches().take([7, 2, 4])
    np.testing.assert_array_equal(again[0], images[[7, 2, 4]])
    np.testing.assert_array_equal(again[1], labels[[7, 2, 4]])
    assert (patches(seed=1).take(range(10))[0] != images).any()


def test_a_patch_is_its_region_resized():
    """Grey levels that grow by one a pixel, so the mean of a patch is the mean of the region's centres."""
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8), (150, 200))
    made = FacePatches([ramp], [np.array([[60, 40, 120, 110]])], size=24)
    for index in range(12):
        _, (left, _, right, _) = made.region(index)
        patch = made.take([index])[0][0]
        assert (patch == patch[..., :1]).all()  # grey in three channels
        assert patch.mean() == pytest.approx((left + right) / 2, abs=1.0)


def test_a_face_set_gives_patches():
    images, labels = FacePatches.of(toy_faces(4), size=224).take(range(4))
    assert images.shape == (4, 224, 224, 3) and labels.sum() == 1


def annotations(boxes, owner, pixels, **options):
    """One face for each box, in the photograph `owner` says."""
    names = [f"p{photograph}.jpg#{face}" for face, photograph in enumerate(owner)]
    fields = {
        "points": np.empty((len(names), 0, 2)),
        "visible": np.empty((len(names), 0), bool),
        "boxes": boxes,
    }
    return Annotations(tuple(names), lambda face: pixels(owner[face]), **{**fields, **options})


def test_every_face_of_a_photograph_is_known():
    """Face 2 lies in the photograph of face 0, and no negative shows it."""
    boxes, owner = np.array([[5.0, 5, 45, 55], [40, 30, 90, 95], [100, 60, 180, 118]]), [0, 1, 0]
    made = FacePatches.of_photographs(
        annotations(boxes, owner, lambda number: photographs()[2 - 2 * number]), size=16
    )
    assert len(made.images) == 2
    np.testing.assert_array_equal(made.boxes[0], boxes[[0, 2]])
    np.testing.assert_array_equal(made.boxes[1], boxes[[1]])
    for index in range(200):
        number, box = made.region(index)
        overlap = iou(box, boxes[np.array(owner) == number]).max()
        assert overlap >= POSITIVE if index % 4 == 0 else overlap < NEGATIVE
    images, labels = made.take(range(8))
    assert images.shape == (8, 16, 16, 3) and labels.sum() == 2


def test_a_photograph_is_decoded_when_a_patch_is_cut_and_once_for_it():
    decoded = []

    def pixels(number):
        decoded.append(number)
        return photographs()[0]

    made = FacePatches.of_photographs(
        annotations(np.array([[40.0, 30, 90, 95]] * 5), [0, 1, 2, 3, 4], pixels)
    )
    assert decoded == []
    made.take([0])
    assert len(decoded) == 1


def test_photographs_without_boxes_are_an_error():
    with pytest.raises(ReplicateError, match="boxes: the data set publishes none"):
        FacePatches.of_photographs(annotations(None, [0], lambda number: photographs()[0]))


def test_boxes_may_reach_out_of_the_photograph():
    made = FacePatches(photographs()[:1], [np.array([[-30.0, -20, 60, 70]])], size=16)
    for index in range(0, 40, 4):
        assert iou(made.region(index)[1], [-0.5, -0.5, 60, 70]) >= 0.49  # the part that is in the photograph


# Bad input


def test_there_must_be_a_face_and_boxes_for_every_photograph():
    with pytest.raises(ReplicateError, match="boxes: none in 1 photographs"):
        FacePatches(photographs()[:1], [np.zeros((0, 4))])
    with pytest.raises(ReplicateError, match="those of 1 photographs for 3"):
        FacePatches(photographs(), FACES[:1])


def test_a_face_outside_its_photograph_is_an_error():
    made = FacePatches(photographs()[:1], [np.array([[500.0, 500, 600, 600]])])
    with pytest.raises(ReplicateError, match="photograph 0 .160x140 pixels.: found no box of a face"):
        made.take([0])
    assert not made.take([1])[1].any()


def test_a_photograph_without_room_for_a_negative_is_an_error():
    made = FacePatches([np.zeros((1, 1), np.uint8)], [np.array([[-0.5, -0.5, 0.5, 0.5]])])
    assert made.take([0])[1].all()
    with pytest.raises(ReplicateError, match="no box free of a face"):
        made.take([1])
