"""The 300-W adapter on small folders that the tests make, and on real faces where they are at hand."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from made_files import cell, real_folder, returns_or_refuses, write_hdf5

from replicate.errors import AbsentError, ReplicateError
from replicate.faces.images import read_image, to_grey
from replicate.faces.real import DATA_SETS, w300
from replicate.faces.real.reading import check_points_belong
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


def test_read_converts_to_zero_based_points(release):
    faces = w300.read(release, "ibug")
    assert faces.names == ("ibug/image_1", "ibug/image_2")
    np.testing.assert_array_equal(faces.points[0], POINTS.astype(np.float32) - 1)
    assert faces.points.dtype == np.float32 and faces.visible.all() and faces.boxes is None
    assert faces.pixels(0).shape == (100, 110, 3)
    assert sorted(path.name for path in faces.files) == [  # of the boxes too, to notice when they come
        "bounding_boxes_ibug.mat", "image_1.png", "image_1.pts", "image_2.jpg", "image_2.pts"]  # fmt: skip


# Boxes


def box_of(name, box=(11.5, 21, 61, 81.5)):
    return {"imgName": name, "bb_detector": np.array([box]), "bb_ground_truth": np.array([[1.0, 2, 3, 4]])}


def write_boxes(release, *boxes, kind="older", name="bounding_boxes_ibug.mat"):
    path = release / "Bounding Boxes" / name
    path.parent.mkdir(exist_ok=True)
    if kind == "hdf5":
        return write_hdf5(path, bounding_boxes=cell(*boxes))
    scipy.io.savemat(path, {"bounding_boxes": cell(*boxes)}, do_compression=True)
    return path


@pytest.mark.parametrize("kind", ["older", "hdf5"])
def test_the_detectors_boxes_where_the_release_has_them(release, kind):
    path = write_boxes(
        release, box_of("image_2.jpg"), box_of("absent.jpg"), box_of("image_1.png", (1, 2, 30, 41)), kind=kind
    )
    faces = w300.read(release, "ibug")
    assert faces.boxes.dtype == np.float32 and path in faces.files
    np.testing.assert_array_equal(
        faces.boxes, [[0, 1, 29, 40], [10.5, 20, 60, 80.5]]
    )  # in the order of the names


def test_the_private_test_set_has_no_boxes(release):
    write_boxes(release, box_of("image_1.png"))
    path = release / "300W" / "01_Indoor" / "a.png"
    for file in (path, Path(str(path).replace("01_Indoor", "02_Outdoor"))):
        file.parent.mkdir(parents=True)
        cv2.imwrite(str(file), np.zeros((100, 110), np.uint8))
        write_pts(file.with_suffix(".pts"))
    faces = w300.read(release, "private")
    assert faces.boxes is None and len(faces.files) == 4


def test_every_face_has_its_box(release):
    path = write_boxes(release, box_of("image_1.png"))
    with pytest.raises(
        ReplicateError, match=r"boxes_ibug.mat: no box of .*image_2.jpg \(1 of 2 images lack one"
    ):
        w300.read(release, "ibug")
    path.rename(path.with_stem("bounding_boxes_afw"))
    with pytest.raises(ReplicateError, match="boxes_ibug.mat: is not there.*simulate all boxes") as error:
        w300.read(release, "ibug")
    assert not isinstance(error.value, AbsentError)  # the faces are here, and something is wrong with them


@pytest.mark.parametrize(
    "boxes,message",
    [
        ([box_of("image_1.png"), box_of("image_1.png")], "element 2: 'image_1.png' has a box already"),
        ([box_of("image_1.png", (5, 5, 5, 9))], "element 1: expected a structure.*x_min < x_max"),
        ([box_of("image_1.png", (5, 5, 7, np.nan))], "element 1: expected a structure"),
        ([box_of("image_1.png", (5, 5, 7, 1e9))], "element 1: expected a structure"),
        ([box_of("image_1.png", (5, 5, 7))], "element 1: expected a structure"),
        ([box_of(np.eye(2))], "element 1: expected a structure"),
        ([box_of("image_1.png"), {"imgName": "image_2.jpg"}], "element 2: expected a structure"),
        (["image_1.png"], "element 1: expected a structure"),
    ],
)
def test_boxes_of_another_form_name_the_element(release, boxes, message):
    write_boxes(release, *boxes)
    with pytest.raises(ReplicateError, match=f"bounding_boxes_ibug.mat, {message}"):
        w300.read(release, "ibug")


def test_boxes_that_are_no_cell(release):
    scipy.io.savemat(write_boxes(release), {"bounding_boxes": np.eye(4)})
    with pytest.raises(ReplicateError, match="ibug.mat: bounding_boxes is ndarray, expected a cell"):
        w300.read(release, "ibug")


@pytest.mark.parametrize("kind", ["older", "hdf5"])
@given(place=st.floats(0, 1), data=st.binary(min_size=1, max_size=4), cut=st.booleans())
def test_damaged_boxes_are_read_or_refused(tmp_path_factory, kind, place, data, cut):
    path = write_boxes(tmp_path_factory.mktemp("damaged"), box_of("image_1.png"), kind=kind)
    whole = path.read_bytes()
    at = int(place * len(whole))
    path.write_bytes(whole[:at] if cut else whole[:at] + data + whole[at + len(data) :])
    returns_or_refuses(lambda: w300.read_boxes(path), [path.name])


# Splits and points


def test_the_private_test_set_is_indoor_then_outdoor(release):
    for number, name in enumerate(("300W/02_Outdoor/outdoor_001", "300W/01_Indoor/indoor_001")):
        path = release / name
        path.parent.mkdir(parents=True)
        cv2.imwrite(f"{path}.png", np.full((100, 110), number, np.uint8))
        write_pts(path.with_suffix(".pts"), POINTS + number)
    faces = w300.read(release, "private")
    assert faces.names == ("300W/01_Indoor/indoor_001", "300W/02_Outdoor/outdoor_001")
    assert faces.pixels(0).max() == 1 and faces.pixels(1).max() == 0
    np.testing.assert_allclose(faces.points[0], POINTS, atol=1e-5)


def test_splits_have_the_official_counts():
    assert DATA_SETS["300w"].splits == {
        "lfpw/trainset": 811, "lfpw/testset": 224, "helen/trainset": 2000, "helen/testset": 330,
        "afw": 337, "ibug": 135, "private": 600}  # fmt: skip


@pytest.mark.parametrize("encoding,newline", [("utf-8-sig", "\n"), ("utf-8", "\r\n"), ("utf-8", "\r")])
def test_byte_order_mark_and_other_line_ends_are_read(tmp_path, encoding, newline):
    path = write_pts(tmp_path / "a.pts", head=f"version: 1{newline}", encoding=encoding, newline=newline)
    np.testing.assert_allclose(w300.read_pts(path), POINTS - 1, atol=1e-5)


@pytest.mark.parametrize(
    "points,message",
    [
        (POINTS[:67], "67 points, expected 68"),
        (np.vstack([POINTS, [[1, 1]]]), "69 points, expected 68"),
        (np.vstack([POINTS[:67], [[np.nan, 3]]]), r"line 71: got 'nan 3.0', expected finite"),
        (np.vstack([POINTS[:67], [[np.inf, 3]]]), "line 71: .*finite"),
        (np.vstack([POINTS[:67], [[1e30, 3]]]), "line 71: .*at most"),
        (np.hstack([POINTS, POINTS[:, :1]]), "line 4: .*expected 2 numbers"),
    ],
)
def test_bad_points_name_file_and_line(tmp_path, points, message):
    path = tmp_path / "bad.pts"
    rows = "".join(" ".join(map(str, row)) + "\n" for row in points)
    path.write_text(f"version: 1\nn_points: 68\n{{\n{rows}}}\n")
    with pytest.raises(ReplicateError, match=message) as error:
        w300.read_pts(path)
    assert "bad.pts" in str(error.value)


def test_a_stated_number_of_points_that_is_another_is_refused(tmp_path):
    path = write_pts(tmp_path / "bad.pts", head="version: 1\nn_points: 49\n")
    with pytest.raises(ReplicateError, match="bad.pts, line 2: got 'n_points: 49', expected 68 points"):
        w300.read_pts(path)


@given(st.text(max_size=200))
@settings(max_examples=100)
def test_any_text_is_read_or_refused_clearly(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("fuzz") / "x.pts"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ReplicateError, match="x.pts"):
        w300.read_pts(path)


@given(st.integers(0, 1300), st.binary(max_size=8))
def test_a_file_with_any_bytes_replaced_is_read_or_refused(tmp_path_factory, place, data):
    path = write_pts(tmp_path_factory.mktemp("fuzz") / "x.pts")
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + data + whole[place + len(data) :])
    returns_or_refuses(lambda: w300.read_pts(path), ["x.pts"])


def test_missing_part_is_named(release):
    with pytest.raises(ReplicateError, match="300-W: no faces in .*01_Indoor.*expected 300"):
        w300.read(release, "private")


def test_unknown_split_lists_the_known(release):
    with pytest.raises(ReplicateError, match="split: got 'privat'.*Did you mean 'private'"):
        w300.read(release, "privat")


def test_orphan_is_named(release):
    (release / "ibug" / "image_2.pts").unlink()
    with pytest.raises(ReplicateError, match="image_2.jpg lacks its partner"):
        w300.read(release, "ibug")
    assert [part.state for part in w300.check(release) if "lacks its partner" in part.state]


def test_two_images_of_one_stem_are_refused(release):
    cv2.imwrite(str(release / "ibug" / "image_1.jpg"), np.zeros((9, 9), np.uint8))
    with pytest.raises(ReplicateError, match="image_1.* has the same stem"):
        w300.read(release, "ibug")


def test_a_file_name_that_is_no_text_is_refused(release):
    for ending in ("png", "pts"):
        path = release / "ibug" / f"image_1.{ending}"
        path.rename(path.with_stem("caf\udce9"))  # the byte 0xe9 on disk
    with pytest.raises(ReplicateError, match=r"'ibug/caf\\udce9' is not UTF-8 text"):
        w300.read(release, "ibug")


def test_more_faces_than_the_release_has_are_refused(release, monkeypatch):
    monkeypatch.setitem(w300.FOLDERS, "ibug", 1)
    with pytest.raises(ReplicateError, match="ibug: 2 faces, the official release has 1"):
        w300.read(release, "ibug")


def test_hidden_files_of_other_systems_are_passed_over(release):
    (release / "ibug" / "._image_1.png").write_bytes(b"Mac OS X")
    assert len(w300.read(release, "ibug")) == 2


def test_check_lists_every_folder(release):
    found = {part.name: (part.found, part.state) for part in w300.check(release)}
    assert found.pop("ibug") == (2, "incomplete")
    assert set(found.values()) == {(0, "absent")} and len(found) == 7


def test_points_of_another_image_are_refused(release):
    write_pts(release / "ibug" / "image_1.pts", POINTS + [400, 0])
    faces = w300.read(release, "ibug")
    with pytest.raises(ReplicateError, match=r"image_1.*within the 110x100 image"):
        check_points_belong(faces.names[0], (110, 100), faces.points[0])


def test_points_a_little_outside_the_frame_are_kept(release):
    write_pts(release / "ibug" / "image_1.pts", POINTS + [35, 0])
    faces = w300.read(release, "ibug")
    assert faces.points[0, :, 0].max() > 109
    check_points_belong(faces.names[0], (110, 100), faces.points[0])


@pytest.mark.parametrize("name", ["image_1.png", "image_2.jpg"])
def test_truncated_image_is_refused(release, name):
    path = release / "ibug" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    faces = w300.read(release, "ibug")
    with pytest.raises(ReplicateError, match=f"{name}: truncated"):
        faces.pixels(["image_1.png", "image_2.jpg"].index(name))


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


def test_real_folders_have_the_official_test_counts_and_plausible_faces():
    folder = real_folder("300w")
    parts = {part.name: part for part in w300.check(folder)}
    assert {name: parts[name].found for name in ("lfpw/testset", "helen/testset", "ibug", "afw")} == {
        "lfpw/testset": 224, "helen/testset": 330, "ibug": 135, "afw": 337}  # fmt: skip
    assert not [part.state for part in parts.values() if part.state.startswith("damaged")]
    ibug, lfpw = w300.read(folder, "ibug"), w300.read(folder, "lfpw/testset")
    assert lfpw.names[0] == "lfpw/testset/image_0001"
    for faces in (ibug, lfpw):
        for index in range(0, len(faces), 29):
            height, width = faces.pixels(index).shape[:2]
            check_points_belong(faces.names[index], (width, height), faces.points[index])
        assert (
            faces.points[:, 36, 0] < faces.points[:, 45, 0]
        ).mean() > 0.99  # eyes, left of the image first
        assert (
            faces.points[:, 8, 1] > faces.points[:, 27, 1]
        ).mean() > 0.99  # the chin below the nose bridge
    spreads = [_spread(faces.points) for faces in (ibug, lfpw)]
    assert spreads[0] > spreads[1] > 0  # the challenging faces vary more


def _spread(points: np.ndarray) -> float:
    """Mean NME of the mean shape, each face brought to its own centre and size."""
    shapes = points - points.mean(1, keepdims=True)
    shapes /= np.linalg.norm(shapes, axis=(1, 2), keepdims=True)
    mean = np.broadcast_to(shapes.mean(0), shapes.shape)
    return float(nme(mean, shapes, normaliser="inter-ocular", markup="ibug68").mean())
