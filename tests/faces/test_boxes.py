"""BoxRule: the boxes that a face detector might give, in closed form without noise, and the same for ever with it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate.errors import ReplicateError
from replicate.faces.boxes import SQUARE, TIGHT, BoxRule

POINTS = np.array([[[10.0, 20.0], [40.0, 30.0], [30.0, 80.0]]])  # 30 wide and 60 high about (25, 50)
MANY = 4000
NAMES = tuple(map(str, range(MANY)))


def exact(points=POINTS, names=("a",), **shape):
    """Boxes of a detector without error."""
    return BoxRule(shift_sd=0, log_scale_sd=0, **shape).boxes(points, names)


def centres_and_sides(boxes):
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]


# Without noise


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({}, [10, 20, 40, 80]),
        ({"square": True}, [-5, 20, 55, 80]),
        ({"growth": 0.1}, [7, 14, 43, 86]),
        ({"growth": 0.5, "square": True}, [-35, -10, 85, 110]),
    ],
)
def test_boxes_of_a_detector_without_error(shape, expected):
    boxes = exact(**shape)
    assert boxes.dtype == np.float32 and boxes.tolist() == [expected]


def test_the_rules_of_the_protocols():
    assert BoxRule(0.0, False, 0.05, 0.05) == TIGHT and BoxRule(0.5, True, 0.05, 0.05) == SQUARE


def test_points_that_are_not_annotated_do_not_count():
    points = np.concatenate([POINTS, [[[np.nan, np.nan]]], [[[999.0, np.nan]]]], axis=1)
    assert exact(points).tolist() == [[10, 20, 40, 80]]
    np.testing.assert_array_equal(TIGHT.boxes(points, ("a",)), TIGHT.boxes(POINTS, ("a",)))


# With noise


@pytest.mark.parametrize("rule", [TIGHT, SQUARE])
def test_errors_have_the_stated_spread_and_no_bias(rule):
    centres, sides = centres_and_sides(rule.boxes(np.repeat(POINTS, MANY, 0), NAMES))
    true_centre, true_sides = centres_and_sides(exact(growth=rule.growth, square=rule.square))
    shifts, scales = (centres - true_centre) / true_sides, np.log(sides / true_sides)
    np.testing.assert_allclose(shifts.std(0), 0.05, rtol=0.05)
    np.testing.assert_allclose(scales.std(0), 0.05, rtol=0.05)
    np.testing.assert_allclose(shifts.mean(0), 0, atol=0.003)  # four standard errors
    np.testing.assert_allclose(scales[:, 0], scales[:, 1], atol=1e-5)  # the shape of the box is kept
    correlations = np.corrcoef(np.column_stack([shifts, scales[:, :1]]).T)
    np.testing.assert_allclose(correlations, np.eye(3), atol=0.07)


def test_the_error_of_a_box_depends_on_its_name_alone():
    points = np.repeat(POINTS, 5, 0)
    boxes = TIGHT.boxes(points, NAMES[:5])
    np.testing.assert_array_equal(TIGHT.boxes(points[:2], ("3", "1")), boxes[[3, 1]])
    assert len(np.unique(boxes, axis=0)) == 5
    # recorded: boxes must be the same in every version, process and on every machine
    np.testing.assert_allclose(
        TIGHT.boxes(POINTS, ("lfpw/test/00000",)), [[12.61259, 21.829538, 39.049393, 74.703148]], rtol=1e-6
    )


def test_another_error_scales_the_same_draws():
    points = np.repeat(POINTS, 50, 0)
    centres, sides = centres_and_sides(TIGHT.boxes(points, NAMES[:50]).astype(float))
    far_centres, far_sides = centres_and_sides(
        TIGHT.with_noise(0.1, 0.15).boxes(points, NAMES[:50]).astype(float)
    )
    np.testing.assert_allclose(far_centres - [25, 50], 2 * (centres - [25, 50]), atol=1e-4)
    np.testing.assert_allclose(np.log(far_sides / [30, 60]), 3 * np.log(sides / [30, 60]), atol=1e-5)


def test_with_noise_changes_nothing_else():
    rule = SQUARE.with_noise(0.2, 0.3)
    assert rule == BoxRule(SQUARE.growth, SQUARE.square, 0.2, 0.3) and SQUARE.shift_sd == 0.05
    np.testing.assert_array_equal(
        TIGHT.with_noise(0, 0).boxes(POINTS, ("a",)), TIGHT.with_noise(0, 0).boxes(POINTS, ("b",))
    )


coordinates = st.floats(-500, 500)
shapes = st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=8).map(
    lambda found: np.array([[[-20.0, -30.0], [30.0, 50.0], *found]])  # no smaller than 50 by 80
)
rules = st.builds(BoxRule, st.floats(0, 1), st.booleans(), st.floats(0, 0.2), st.floats(0, 0.2))


@given(rules, shapes, st.text(max_size=10), coordinates, coordinates, st.floats(0.1, 10))
def test_boxes_move_and_grow_with_the_face(rule, points, name, x, y, scale):
    box = rule.boxes(points, (name,)).astype(float)
    moved = rule.boxes(scale * points + [x, y], (name,))
    np.testing.assert_allclose(moved, scale * box + [x, y, x, y], rtol=1e-5, atol=1e-4 * max(1, scale) * 10)


@given(rules, shapes, st.text(max_size=10), st.randoms())
def test_the_order_of_points_does_not_matter(rule, points, name, random):
    order = list(range(points.shape[1]))
    random.shuffle(order)
    np.testing.assert_array_equal(rule.boxes(points[:, order], (name,)), rule.boxes(points, (name,)))


@given(rules, shapes, st.text(max_size=10))
def test_boxes_are_finite_and_span_an_area(rule, points, name):
    ((x_min, y_min, x_max, y_max),) = rule.boxes(points, (name,))
    assert np.isfinite([x_min, y_min, x_max, y_max]).all() and x_min < x_max and y_min < y_max
    assert not rule.square or x_max - x_min == pytest.approx(y_max - y_min, rel=1e-4)


# In words


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (
            TIGHT,
            "tight box of the true points, moved by a normal error of 5 % of its sides and scaled by a log-normal one of 5 %, "
            "fixed per image name",
        ),
        (
            BoxRule(0.125, True, 0.1, 0.025),
            "square around the true points, grown by 12.5 % on each side, moved by a normal error of 10 % of its sides and scaled by "
            "a log-normal one of 2.5 %, fixed per image name",
        ),
    ],
)
def test_the_text_says_all(rule, text):
    assert rule.text == text


@given(rules, rules)
def test_rules_that_differ_read_differently(one, other):
    """The text goes into fingerprints; numbers that agree in six digits are one rule."""
    told = [
        (f"{r.growth * 100:g}", r.square, f"{r.shift_sd * 100:g}", f"{r.log_scale_sd * 100:g}")
        for r in (one, other)
    ]
    assert (one.text == other.text) == (told[0] == told[1])


# What goes wrong


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize(
    ("points", "known"),
    [
        ([[np.nan, np.nan]] * 3, 0),
        ([[10, 20], [np.nan, np.nan], [np.nan, 5]], 1),
        ([[10, 20]] * 3, 3),
        ([[np.inf, 1], [10, 20], [-np.inf, 3]], 1),
    ],
)
def test_faces_without_extent_are_named(points, known, square):
    shapes = np.array([POINTS[0], points, points])
    with pytest.raises(
        ReplicateError, match=f"^b: {known} known points do not span a box; leave this face out"
    ):
        BoxRule(square=square).boxes(shapes, ("a", "b", "c"))


def test_points_on_one_line_span_a_square_alone():
    level = np.array([[[0.0, 5.0], [10.0, 5.0]]])
    with pytest.raises(ReplicateError, match="a: 2 known points do not span a box"):
        exact(level)
    assert exact(level, square=True).tolist() == [[0, 0, 10, 10]]


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c"), ()])
def test_one_name_per_face_is_needed(names):
    with pytest.raises(ReplicateError, match=f"names: got {len(names)} for 2 faces, expected one per face"):
        TIGHT.boxes(np.repeat(POINTS, 2, 0), names)
