"""Contact sheets: every face of every split, visible and hidden points told apart, and no photograph of a person."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_faces import toy_faces

from replicate.errors import ReplicateError
from replicate.evidence.contact_sheets import MARGIN, contact_sheet, draw_face, window

pytestmark = pytest.mark.usefixtures("drawing")


def faces(count, split="train", hidden=3):
    made = toy_faces(count)
    made.visible[:, :hidden] = False
    return replace(made, split=split)


def marks(ax, shape):
    return [line for line in ax.lines if line.get_marker() == shape]


def test_visible_points_are_dots_and_hidden_ones_crosses_each_in_its_place():
    made = faces(1)
    made.points[0, -1] = np.nan
    ax = plt.subplots()[1]
    draw_face(ax, made, 0)
    (dots,), (crosses,) = marks(ax, "o"), marks(ax, "x")
    np.testing.assert_array_equal(dots.get_xydata(), made.points[0, 3:])
    np.testing.assert_array_equal(crosses.get_xydata(), made.points[0, :3])
    assert dots.get_color() != crosses.get_color()


def test_the_box_is_drawn_and_in_view():
    made = faces(1)
    ax = plt.subplots()[1]
    draw_face(ax, made, 0)
    (box,) = [line for line in ax.lines if len(line.get_xdata()) == 5 and line.get_linestyle() == "--"]
    corners = box.get_xydata()
    np.testing.assert_allclose([*corners.min(0), *corners.max(0)], made.boxes[0], rtol=1e-6)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # rows count downwards
    assert ax.get_xlim()[0] <= made.boxes[0, 0] and made.boxes[0, 2] <= ax.get_xlim()[1]


def test_each_split_has_its_lines_and_its_name():
    figure = contact_sheet([faces(8, "train"), faces(2, "test")], columns=3, lines=2)
    shown = [ax for ax in figure.axes if ax.images]
    assert len(figure.axes) == 9 and len(shown) == 6 + 2
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["train", "test"]
    assert figure.get_label() == (
        "Generated faces of toy with 68 points each: 6 of train, 18 of 408 points hidden; 2 of test, 6 of 136 points hidden."
    )


def test_photographs_of_people_are_refused():
    with pytest.raises(ReplicateError, match="toy/train holds real faces.*faces='synthetic'"):
        contact_sheet([replace(faces(1), faces="real")])
    with pytest.raises(ReplicateError, match="got none"):
        contact_sheet([])


@given(
    st.integers(20, 300),
    st.integers(20, 300),
    st.tuples(st.floats(-50, 300), st.floats(-50, 300)),
    st.tuples(st.floats(1, 400), st.floats(1, 400)),
)
def test_the_window_lies_in_the_image_and_is_a_square_where_it_fits(height, width, start, sides):
    box = np.array([*start, start[0] + sides[0], start[1] + sides[1]])
    left, top, right, bottom = window(box, (height, width))
    assert -0.5 - 1e-9 <= left < right <= width - 0.5 + 1e-9
    assert -0.5 - 1e-9 <= top < bottom <= height - 0.5 + 1e-9
    side = (1 + 2 * MARGIN) * max(sides)
    assert right - left == pytest.approx(min(side, width)) and bottom - top == pytest.approx(
        min(side, height)
    )


def test_the_window_of_a_box_in_the_middle_is_centred_on_it():
    left, top, right, bottom = window(np.array([40.0, 45, 60, 55]), (100, 100))
    assert ((left + right) / 2, (top + bottom) / 2) == (50, 50)
