"""FaceSet: what is refused, what a subset keeps, what its hash sees."""

from dataclasses import replace

import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.faces.faceset import FaceSet, concatenate


def make(count=5, first=0, **changes):
    rng = np.random.default_rng(first)
    points = rng.uniform(10, 50, (count, 68, 2)).astype(np.float32)
    about = dict(
        images=rng.integers(0, 256, (count, 60, 60), dtype=np.uint8),
        points=points,
        visible=rng.random((count, 68)) < 0.9,
        boxes=np.concatenate([points.min(1), points.max(1)], 1),
        names=tuple(f"face_{number}" for number in range(first, first + count)),
        attributes={"yaw": np.arange(first, first + count) * 10.0, "glasses": np.arange(count) % 2},
        identity=np.arange(first, first + count),
    )
    where = dict(markup="ibug68", protocol="toy", split="train", faces="synthetic", box_rule="tight")
    return FaceSet(**{**about, **where, **changes})


BOXES = make().boxes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(names=()), "synthetic toy/train: no faces"),
        (dict(names=tuple("abcd")), "5 images and 4 different names for 4 faces"),
        (dict(names=tuple("abcda")), "5 images and 4 different names for 5 faces"),
        (dict(images=[np.zeros((4, 4), np.uint8)] * 4), "4 images"),
        (dict(points=np.zeros((4, 68, 2))), r"points: got shape \(4, 68, 2\), expected \(5, 68, 2\)"),
        (dict(points=np.zeros((5, 68, 3))), r"points: got shape \(5, 68, 3\), expected \(5, 68, 2\)"),
        (dict(points=np.zeros((5, 136))), r"points: got shape \(5, 136\), expected \(5, 'L', 2\)"),
        (dict(visible=np.ones((5, 51), bool)), r"visible: got shape \(5, 51\), expected \(5, 68\)"),
        (dict(boxes=np.zeros((5, 5))), r"boxes: got shape \(5, 5\), expected \(5, 4\)"),
        (dict(boxes=np.zeros(20)), r"boxes: got shape \(20,\)"),
        (dict(attributes={"yaw": np.zeros(3)}), r"attributes\['yaw'\]: got shape \(3,\), expected \(5,\)"),
        (dict(identity=np.zeros(6)), r"identity: got shape \(6,\)"),
        (dict(boxes=BOXES[:, [2, 1, 0, 3]]), "boxes: face_0: got .*, expected finite x_min < x_max"),
        (dict(boxes=BOXES * 0), "boxes: face_0"),
    ],
)
def test_inconsistent_sets_are_refused(changes, message):
    with pytest.raises(ReplicateError, match=message):
        make(**changes)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", range(4))
def test_a_box_that_is_not_finite_is_named(bad, side):
    boxes = BOXES.copy()
    boxes[3, side] = bad
    with pytest.raises(ReplicateError, match="boxes: face_3: got"):
        make(boxes=boxes)


def test_points_that_are_not_annotated_are_allowed():
    points = make().points.copy()
    points[2, 40] = np.nan
    assert len(make(points=points)) == 5


@pytest.mark.parametrize("which", [np.array([3, 0, 4]), [3, 0, 4]])
def test_a_subset_has_everything_of_its_faces_in_the_given_order(which):
    whole, part = make(), make().subset(which, "some")
    assert part.names == ("face_3", "face_0", "face_4") and part.split == "some" and len(part) == 3
    for name in ("points", "visible", "boxes", "identity"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[[3, 0, 4]])
    for name, values in whole.attributes.items():
        np.testing.assert_array_equal(part.attributes[name], values[[3, 0, 4]])
    np.testing.assert_array_equal(part.images, whole.images[[3, 0, 4]])


def test_a_mask_keeps_the_order_of_the_set():
    part = make().subset(np.array([False, True, True, False, True]))
    assert part.names == ("face_1", "face_2", "face_4") and part.split == "train"
    np.testing.assert_array_equal(part.attributes["yaw"], [10, 20, 40])


def test_selections_that_do_not_fit_are_refused():
    with pytest.raises(ReplicateError, match=r"which: got a mask of shape \(4,\), expected \(5,\)"):
        make().subset(np.array([True] * 4))
    with pytest.raises(ReplicateError, match="no faces"):
        make().subset(np.zeros(5, bool))
    with pytest.raises(ReplicateError, match="4 images and 3 different names"):
        make().subset(np.array([0, 1, 1, 2]))


def test_images_of_a_subset_are_not_copied():
    whole = make()
    part = whole.subset(np.array([2]))
    assert np.shares_memory(part.images[0], whole.images)


def changed(name):
    """The set with one number, letter or pixel of `name` altered."""
    whole = make()
    if name == "names":
        return replace(whole, names=(*whole.names[:4], "other"))
    if name == "order":
        return whole.subset(np.array([1, 0, 2, 3, 4]))
    value = np.array(getattr(whole, name))
    value[(2, *[1] * (value.ndim - 1))] = (
        ~value[2, 1] if value.dtype == bool else value[(2, *[1] * (value.ndim - 1))] - 1
    )
    return replace(whole, **{name: value})


@pytest.mark.parametrize("name", ["names", "points", "visible", "boxes", "images", "order"])
def test_the_hash_sees_whatever_a_method_sees(name):
    assert changed(name).sha256 != make().sha256


def test_the_hash_depends_on_content_alone():
    whole = make()
    assert make().sha256 == whole.sha256
    turned = dict(reversed(whole.attributes.items()))
    assert replace(whole, attributes=turned).sha256 == whole.sha256
    assert replace(whole, images=list(whole.images)).sha256 == whole.sha256  # however the pixels are held


def test_the_hash_tells_images_of_different_shape_apart():
    flat = [np.zeros((6, 4), np.uint8)] * 5
    assert make(images=flat).sha256 != make(images=[image.reshape(4, 6) for image in flat]).sha256


def test_parts_are_joined_in_order():
    one, two = make(3), make(2, first=10)
    both = concatenate([one, two], "all", "full")
    assert both.names == one.names + two.names and len(both) == 5
    assert (both.protocol, both.split, one.protocol, one.split) == ("all", "full", "toy", "train")
    assert (both.markup, both.faces, both.box_rule) == ("ibug68", "synthetic", "tight")
    for name in ("points", "visible", "boxes", "identity"):
        np.testing.assert_array_equal(
            getattr(both, name), np.concatenate([getattr(one, name), getattr(two, name)])
        )
    np.testing.assert_array_equal(both.attributes["yaw"], [0, 10, 20, 100, 110])
    np.testing.assert_array_equal(both.images[3], two.images[0])
    np.testing.assert_array_equal(both.subset(np.arange(3)).points, one.points)


def test_only_what_all_parts_know_is_kept():
    both = concatenate(
        [make(3), make(2, first=10, attributes={"yaw": np.zeros(2), "roll": np.zeros(2)}, identity=None)],
        "all",
        "full",
    )
    assert set(both.attributes) == {"yaw"} and both.identity is None


def test_images_of_joined_parts_are_not_copied():
    parts = [make(3), make(2, first=10)]
    both = concatenate(parts, "all", "full")
    for image, own in zip(both.images, (image for part in parts for image in part.images), strict=True):
        assert np.shares_memory(image, own)


def test_a_join_has_the_hash_of_its_faces():
    one, two, other = make(3), make(2, first=10), make(2, first=20)
    assert concatenate([one, two], "a", "b").sha256 == concatenate([one, two], "c", "d").sha256
    assert len({concatenate(parts, "a", "b").sha256 for parts in ([one, two], [two, one], [one, other])}) == 3


def test_parts_that_share_a_face_are_refused():
    with pytest.raises(ReplicateError, match="5 images and 3 different names"):
        concatenate([make(3), make(2)], "all", "full")


def test_hidden_points_become_unknown():
    faces = make(3)
    visible = np.ones_like(faces.visible)
    visible[1, 5] = False
    seen = replace(faces, visible=visible).without_hidden()
    assert np.isnan(seen.points[1, 5]).all() and np.isnan(seen.points).sum() == 2
    np.testing.assert_array_equal(seen.points[[0, 2]], faces.points[[0, 2]])
