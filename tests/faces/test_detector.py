"""The detector: geometry of squares and boxes in closed form, coordinates that survive borders and reduction, a generated face found."""

import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.faces import detector
from replicate.faces.patches import iou
from replicate.faces.synthetic import generate


@pytest.fixture(scope="module")
def picture():
    """A generated face that looks ahead, 128 pixels a side."""
    return generate(300, 3, "helen", size=128)


def test_boxes_that_lie_alike_in_their_squares_are_placed_exactly():
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 50, (9, 2)), rng.uniform(20, 60, (9, 1))
    squares = np.concatenate([corner, corner + side], 1)
    where = np.array([0.1, 0.2, 0.9, 1.1])
    boxes = detector.placed(squares, where)
    np.testing.assert_allclose(boxes[0, :2], corner[0] + side[0] * [0.1, 0.2])
    np.testing.assert_allclose(detector.relation(list(squares[:, None]), boxes), where)


def test_a_relation_is_the_mean_over_faces_with_a_square_near():
    square = np.array([[0.0, 0, 10, 10]])
    far = np.array([[100.0, 100, 110, 110]])
    boxes = np.array([[1.0, 1, 9, 9], [0, 2, 10, 12], [0, 0, 10, 10], [0, 0, 10, 10]])
    squares = [np.concatenate([far, square]), square, far, np.empty((0, 4))]  # the last two do not count
    np.testing.assert_allclose(detector.relation(squares, boxes), [0.05, 0.15, 0.95, 1.05])
    with pytest.raises(ReplicateError, match="none of 2 training faces has one near its box"):
        detector.relation([far, far[:0]], boxes[:2])


def test_a_face_gets_the_square_whose_box_overlaps_its_own_most():
    where = np.array([0.0, 0, 1, 1])
    true = np.array([[0.0, 0, 10, 10]] * 3)
    near, half, far = [1.0, 0, 11, 10], [5.0, 0, 15, 10], [50.0, 50, 60, 60]
    matched = detector.match([np.array([far, half, near]), np.array([half]), np.empty((0, 4))], where, true)
    np.testing.assert_array_equal(matched.squares, [near, half, [np.nan] * 4])
    np.testing.assert_allclose(matched.overlap, [9 / 11, 5 / 15, 0])
    assert matched.found.tolist() == [True, False, False]


def test_a_generated_face_is_found_where_it_is(picture):
    found = detector.find_squares(picture.image)
    eyes = picture.points[36:48].mean(0)
    mouth = picture.points[48:60].mean(0)
    x_min, y_min, x_max, y_max = found[0]
    assert x_max - x_min == pytest.approx(y_max - y_min)
    for x, y in (eyes, mouth):
        assert x_min < x < x_max and y_min < y < y_max


def test_squares_are_in_pixels_of_the_image_whatever_the_border_and_the_reduction(picture, monkeypatch):
    [plain] = detector.find_squares(picture.image, padding=0.0)[:1]
    [padded] = detector.find_squares(picture.image, padding=0.5)[:1]
    assert iou(plain, padded) > 0.7
    monkeypatch.setattr(detector, "LARGEST_SIDE", 64)
    [reduced] = detector.find_squares(picture.image, smallest=0.4)[:1]
    assert iou(plain, reduced) > 0.7


def test_a_face_that_fills_its_picture_is_found_with_a_border_alone(picture):
    x_min, y_min, x_max, y_max = detector.find_squares(picture.image)[0].round().astype(int)
    inset = (x_max - x_min) // 6
    cut = picture.image[y_min + inset : y_max - inset, x_min + inset : x_max - inset]
    assert not len(detector.find_squares(cut, padding=0.0, smallest=0.6))
    [square] = detector.find_squares(cut, smallest=0.6)
    assert (square[:2] < 0).all() and (square[2:] > len(cut) - 1).all()


def test_many_pictures_are_answered_in_their_order(picture):
    blank = np.full((128, 128), 90, np.uint8)
    images = [blank, picture.image, blank, np.ascontiguousarray(picture.image[:, ::-1])]
    found = detector.find_all(images)
    assert [len(squares) > 0 for squares in found] == [False, True, False, True]
    assert found[0].shape == (0, 4)
    np.testing.assert_array_equal(found[1], detector.find_squares(picture.image))
