"""Markups: permutations, groups and maps against hand-written facts and invariants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate.errors import ReplicateError
from replicate.faces.markups import (
    MARKUPS,
    convert,
    convert_visibility,
    markup,
    mirror_points,
    subset_map,
)

names = pytest.mark.parametrize("name", MARKUPS)

# Pairs of points that a mirrored face swaps, typed from the data sets' documentation (0-based).
MIRROR_PAIRS = {
    "ibug68": "0-16 1-15 2-14 3-13 4-12 5-11 6-10 7-9 17-26 18-25 19-24 20-23 21-22 31-35 32-34 36-45 37-44 "
    "38-43 39-42 40-47 41-46 48-54 49-53 50-52 55-59 56-58 60-64 61-63 65-67",
    "cofw29": "0-1 4-6 2-3 5-7 8-9 10-11 12-14 16-17 13-15 18-19 22-23",
    "aflw21": "0-5 1-4 2-3 6-11 7-10 8-9 12-16 13-15 17-19",
    "afw6": "0-1 3-5",
    "mtfl5": "0-1 3-4",
    "ijba3": "0-1",
}


def frontal_face() -> np.ndarray:
    """A symmetric 68-point face in a 201 px wide image, x rising with the iBUG order within each region."""
    mirror, rng = markup("ibug68").mirror, np.random.default_rng(0)
    points = rng.uniform(0, 90, (68, 2))
    mid = mirror == np.arange(68)
    points[mid, 0] = 100
    right = np.flatnonzero(np.arange(68) > mirror)
    points[right] = points[mirror[right]] * (-1, 1) + (200, 0)
    return points


def test_the_nine_markups_have_their_published_sizes():
    assert {name: entry.size for name, entry in MARKUPS.items()} == {
        "ibug68": 68, "ibug51": 51, "ibug49": 49, "aflw34": 34, "cofw29": 29, "aflw21": 21,
        "afw6": 6, "mtfl5": 5, "ijba3": 3,
    }  # fmt: skip


@names
def test_lookup_by_name_size_and_identity(name):
    entry = MARKUPS[name]
    assert markup(name) is markup(entry.size) is markup(entry) is entry


@pytest.mark.parametrize("unknown", ["ibug", 70, None])
def test_an_unknown_markup_is_named(unknown):
    with pytest.raises(ReplicateError, match="ibug68"):
        markup(unknown)


@pytest.mark.parametrize("name", MIRROR_PAIRS)
def test_mirror_swaps_the_documented_pairs_only(name):
    expected = np.arange(markup(name).size)
    for pair in MIRROR_PAIRS[name].split():
        left, right = map(int, pair.split("-"))
        expected[[left, right]] = right, left
    np.testing.assert_array_equal(markup(name).mirror, expected)


@names
def test_the_mirror_exchanges_the_eyes_and_keeps_the_regions(name):
    entry = markup(name)
    assert set(entry.mirror[list(entry.left_eye)]) == set(entry.right_eye)
    assert entry.mirror[entry.nose_tip] == entry.nose_tip
    for points in entry.regions.values():
        assert set(entry.mirror[list(points)]) == set(points)
    if entry.outer_corners:
        left, right = entry.outer_corners
        assert entry.mirror[left] == right


@names
def test_regions_partition_the_points(name):
    points = [point for region in markup(name).regions.values() for point in region]
    assert sorted(points) == list(range(markup(name).size))


@names
@given(seed=st.integers(0, 2**16), width=st.integers(1, 4000))
def test_mirror_twice_is_the_identity(name, seed, width):
    points = np.random.default_rng(seed).uniform(-50, 4000, (2, markup(name).size, 2))
    twice = mirror_points(mirror_points(points, name, width), name, width)
    np.testing.assert_allclose(twice, points, atol=1e-9)


@names
def test_a_symmetric_face_is_its_own_mirror_image(name):
    points = convert(frontal_face(), "ibug68", name)
    np.testing.assert_allclose(mirror_points(points, name, 201), points, atol=1e-12)


def test_mirror_moves_pixel_centres_and_leaves_its_input_alone():
    points = np.zeros((2, 5, 2), dtype=np.float32)
    mirrored = mirror_points(points, "mtfl5", np.array([10, 20]))
    assert (mirrored[0, :, 0] == 9).all() and (
        mirrored[1, :, 0] == 19
    ).all()  # pixel 0 becomes the last pixel
    assert (mirrored[..., 1] == 0).all() and (points == 0).all() and mirrored.dtype == np.float32


@names
def test_maps_from_68_average_and_commute_with_affine_transforms(name):
    rng = np.random.default_rng(1)
    points, linear, shift = rng.normal(size=(68, 2)), rng.normal(size=(2, 2)), rng.normal(size=2)
    matrix = subset_map("ibug68", name)
    assert matrix.shape == (markup(name).size, 68) and (matrix >= 0).all()
    np.testing.assert_allclose(
        convert(points @ linear.T + shift, 68, name), convert(points, 68, name) @ linear.T + shift, atol=1e-12
    )


def test_five_points_are_eye_centres_nose_tip_and_mouth_corners():
    points = np.random.default_rng(2).normal(size=(3, 68, 2))
    five = convert(points, "ibug68", "mtfl5")
    np.testing.assert_allclose(five[:, 0], points[:, 36:42].mean(1))
    np.testing.assert_allclose(five[:, 1], points[:, 42:48].mean(1))
    np.testing.assert_allclose(five[:, 2:], points[:, [30, 48, 54]])


def test_51_and_49_points_drop_the_jaw_and_the_inner_mouth_corners():
    points = np.random.default_rng(3).normal(size=(68, 2))
    np.testing.assert_array_equal(convert(points, 68, 51), points[17:])
    np.testing.assert_array_equal(convert(points, 68, 49), np.delete(points, [*range(17), 60, 64], axis=0))
    np.testing.assert_array_equal(convert(points[17:], 51, 49), convert(points, 68, 49))


def test_aflw_21_points_are_the_first_of_34():
    points = np.random.default_rng(4).normal(size=(34, 2))
    np.testing.assert_array_equal(convert(points, "aflw34", "aflw21"), points[:21])


@pytest.mark.parametrize("source", ["ibug51", "ibug49", "cofw29", "aflw34"])
@pytest.mark.parametrize("target", ["mtfl5", "ibug49", "afw6"])
def test_a_detour_over_another_markup_changes_nothing_where_it_is_possible(source, target):
    points = np.random.default_rng(5).normal(size=(68, 2))
    direct, detour = convert(points, 68, target), convert(points, 68, source)
    try:
        arrived = convert(detour, source, target)
    except ReplicateError as error:  # the source lacks what the target needs
        assert source in ("cofw29", "aflw34") and target == "ibug49" and "convert from ibug68" in str(error)
    else:
        np.testing.assert_allclose(arrived, direct, atol=1e-12)


def test_conversion_keeps_single_precision_and_checks_the_shape():
    assert convert(np.zeros((4, 68, 2), np.float32), 68, 29).dtype == np.float32
    with pytest.raises(ReplicateError, match=r"\(4, 51, 2\).*68"):
        convert(np.zeros((4, 51, 2)), 68, 29)
    with pytest.raises(ReplicateError, match=r"expected \(\.\.\., 5, 2\)"):
        mirror_points(np.zeros((4, 2)), "mtfl5", 10)


def test_a_mean_point_is_visible_only_if_all_its_parts_are():
    visible = np.ones((2, 68), dtype=bool)
    visible[0, 40] = False  # one point of the left eye
    np.testing.assert_array_equal(
        convert_visibility(visible, "ibug68", "mtfl5"), [[False, True, True, True, True], [True] * 5]
    )
    with pytest.raises(ReplicateError, match="visible"):
        convert_visibility(visible, "mtfl5", "ijba3")


def test_eye_groups_use_the_annotated_centre_where_there_is_one():
    assert markup("ibug68").left_eye == (36, 37, 38, 39, 40, 41)
    assert markup("cofw29").left_eye == (16,) and markup("cofw29").right_eye == (17,)
    assert markup("aflw21").left_eye == (7,) and markup("mtfl5").right_eye == (1,)


def test_outer_eye_corners_and_nose_tips():
    corners = {name: entry.outer_corners for name, entry in MARKUPS.items()}
    assert corners == {
        "ibug68": (36, 45), "ibug51": (19, 28), "ibug49": (19, 28), "aflw34": (6, 11), "cofw29": (8, 9),
        "aflw21": (6, 11), "afw6": None, "mtfl5": None, "ijba3": None,
    }  # fmt: skip
    assert [MARKUPS[name].nose_tip for name in ("ibug68", "ibug51", "cofw29", "aflw21", "mtfl5")] == [
        30,
        13,
        20,
        14,
        2,
    ]


def test_lines_follow_the_regions():
    lines = markup("ibug68").polylines
    assert lines[0] == tuple(range(17)) and (*range(36, 42), 36) in lines and (*range(60, 68), 60) in lines
    assert markup("ibug51").polylines == tuple(tuple(p - 17 for p in line) for line in lines[1:])
    assert (8, 12, 10, 13, 8) in markup("cofw29").polylines  # an eye: corner, upper lid, corner, lower lid
