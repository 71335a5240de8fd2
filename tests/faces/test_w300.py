"""The 300-W adapter on small folders that the tests make, and on real faces where they are at hand."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicate import paths
from replicate.errors import ReplicateError
from replicate.faces import w300
from replicate.faces.boxes import simulated_detector_boxes
from replicate.faces.images import read_image, to_grey
from replicate.metrics import nme

POINTS = np.random.default_rng(0).uniform(20, 80, (68, 2)).round(3)


def write_pts(path: Path, points=POINTS, head="version: 1\nn_points: 68\n", newline="\n", encoding="utf-8"):
    body = "".join(f"{x} {y}{newline}" for x, y in points)
    path.write_text(f"{head}{{{newline}{body}}}{newline}", encoding=encoding, newline="")
    return path


@pytest.fixture
def release(tmp_path):
    """A small release: two faces in ibug, one as png and one as jpg."""
    folder = tmp_path / "300w" / "ibug"
    folder.mkdir(parents=True)
    image = np.random.default_rng(1).integers(0, 255, (100, 110, 3), np.uint8)
    for name in ("image_1.png", "image_2.jpg"):
        cv2.imwrite(str(folder / name), image)
        write_pts(folder / f"{Path(name).stem}.pts")
    return tmp_path / "300w"


def test_load_converts_to_zero_based_points(release):
    faces = w300.load(release, "challenging")
    assert faces.names == ("ibug/image_1", "ibug/image_2")
    np.testing.assert_allclose(faces.points[0], POINTS - 1, atol=1e-5)
    assert faces.markup == "ibug68" and faces.images[0].shape == (100, 110, 3)


def test_boxes_depend_on_the_name_alone(release):
    faces = w300.load(release, "challenging")
    again = simulated_detector_boxes(faces.points[1:], faces.names[1:])
    np.testing.assert_array_equal(faces.boxes[1:], again)
    assert not np.allclose(faces.boxes[0], faces.boxes[1])  # same points, other name


def test_box_errors_have_the_stated_spread():
    points = np.repeat(np.array([[[0.0, 0.0], [100.0, 200.0]]]), 4000, 0)
    boxes = simulated_detector_boxes(points, tuple(map(str, range(4000))))
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    np.testing.assert_allclose(centres.std(0) / [100, 200], 0.05, rtol=0.05)
    np.testing.assert_allclose(np.log(sides[:, 0] / 100).std(), 0.05, rtol=0.05)


@pytest.mark.parametrize("encoding,newline", [("utf-8-sig", "\n"), ("utf-8", "\r\n")])
def test_byte_order_mark_and_crlf_are_read(tmp_path, encoding, newline):
    path = write_pts(tmp_path / "a.pts", encoding=encoding, newline=newline)
    np.testing.assert_allclose(w300.read_pts(path), POINTS - 1, atol=1e-5)


@pytest.mark.parametrize(
    "points,message",
    [
        (POINTS[:67], "67 points, expected 68"),
        (np.vstack([POINTS, [[1, 1]]]), "69 points, expected 68"),
        (np.vstack([POINTS[:67], [[np.nan, 3]]]), r"line 71: got 'nan 3.0', expected finite"),
        (np.vstack([POINTS[:67], [[np.inf, 3]]]), "finite"),
    ],
)
def test_bad_points_name_file_and_line(tmp_path, points, message):
    path = write_pts(tmp_path / "bad.pts", points)
    with pytest.raises(ReplicateError, match=message) as error:
        w300.read_pts(path)
    assert "bad.pts" in str(error.value)


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_text_is_read_or_refused_clearly(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("fuzz") / "x.pts"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ReplicateError, match="x.pts"):
        w300.read_pts(path)


def test_missing_part_is_named(release):
    with pytest.raises(ReplicateError, match="300-W private: no faces in .*01_Indoor.*expected 300"):
        w300.load(release, "private")


def test_unknown_split_lists_the_known(release):
    with pytest.raises(ReplicateError, match="split: got 'chalenging'.*Did you mean 'challenging'"):
        w300.load(release, "chalenging")


def test_orphan_is_named(release):
    (release / "ibug" / "image_2.pts").unlink()
    with pytest.raises(ReplicateError, match="image_2.jpg lacks its partner"):
        w300.load(release, "challenging")


def test_two_images_of_one_stem_are_refused(release):
    cv2.imwrite(str(release / "ibug" / "image_1.jpg"), np.zeros((9, 9), np.uint8))
    with pytest.raises(ReplicateError, match="image_1.* has the same stem"):
        w300.load(release, "challenging")


def test_points_of_another_image_are_refused(release):
    write_pts(release / "ibug" / "image_1.pts", POINTS + [400, 0])
    with pytest.raises(ReplicateError, match=r"image_1.*within the 110x100 image"):
        w300.load(release, "challenging")


def test_points_a_little_outside_the_frame_are_kept(release):
    write_pts(release / "ibug" / "image_1.pts", POINTS + [35, 0])
    assert w300.load(release, "challenging").points[0, :, 0].max() > 109


@pytest.mark.parametrize("name", ["image_1.png", "image_2.jpg"])
def test_truncated_image_is_refused(release, name):
    path = release / "ibug" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ReplicateError, match=f"{name}: truncated"):
        w300.load(release, "challenging")


@pytest.mark.parametrize("data", [b"", b"not an image", b"GIF89a"])
def test_what_is_no_image_is_refused(tmp_path, data):
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    with pytest.raises(ReplicateError, match="not a readable image"):
        read_image(path)


def test_grey_and_16_bit_and_transparent_images(tmp_path):
    deep = np.array([[0, 257, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    assert read_image(tmp_path / "deep.png").tolist() == [[0, 1, 255]]
    cv2.imwrite(str(tmp_path / "clear.png"), np.array([[[10, 20, 30, 0]]], np.uint8))  # BGRA
    assert read_image(tmp_path / "clear.png").tolist() == [[[30, 20, 10]]]
    assert to_grey(np.array([[[30, 20, 10]]], np.uint8)).tolist() == [[20]]


@pytest.mark.skipif(
    not (os.environ.get("REPLICATE_DATA") and (paths.data_dir() / "300w").is_dir()),
    reason="REPLICATE_DATA has no 300w/",
)
def test_real_splits_have_the_official_test_counts():
    folder = paths.data_dir() / "300w"
    full = w300.load(folder, "full")
    assert len(full) == 689
    mean = np.repeat(full.points.mean(0, keepdims=True), 689, 0)
    assert (nme(mean, full.points, normaliser="inter-ocular", markup="ibug68") > 0).all()
