"""The AFW adapter on releases that the tests make, in both forms of Matlab files."""

import numpy as np
import pytest
import scipy.io
from made_files import cell, write_hdf5, write_image

from replicate.errors import ReplicateError
from replicate.faces.real import afw

BOX = np.array([[11.0, 21.0], [41.0, 51.0]])
POINTS = np.array([[16.0, 26], [36, 26], [26, 36], [18, 44], [26, 45], [34, 44]])
HIDDEN = POINTS.copy()
HIDDEN[1] = np.nan
POSE = np.array([[-45.0, 5.0, 10.0]])


def rows(*faces_of_each, names=("a 1.jpg", "é.jpg"), poses=True):
    """`anno`: one row per image with a list of (box, points)."""
    made = []
    for name, faces in zip(names, faces_of_each, strict=True):
        columns = [
            cell(*[box for box, _ in faces]),
            cell(*[POSE for _ in faces]),
            cell(*[shape for _, shape in faces]),
        ]
        made += [name, *(columns if poses else columns[::2])]
    return cell(*made, shape=(len(names), -1))


@pytest.fixture(params=["hdf5", "older"])
def release(tmp_path, request):
    """Write a release with two images and the given `anno`; three faces unless told otherwise."""

    def make(anno=None, folder="testimages"):
        for name in ("a 1.jpg", "é.jpg"):
            write_image(tmp_path / folder / name)
        anno = rows([(BOX, POINTS), (BOX + 2, HIDDEN)], [(BOX + 1, POINTS + 1)]) if anno is None else anno
        if request.param == "hdf5":
            write_hdf5(tmp_path / folder / "anno.mat", anno=anno)
        else:
            scipy.io.savemat(tmp_path / folder / "anno.mat", {"anno": anno})
        return tmp_path

    return make


@pytest.mark.parametrize("folder", ["testimages", "."])
def test_one_entry_per_face_zero_based(release, folder):
    faces = afw.read(release(folder=folder), "test")
    assert faces.names == ("a 1.jpg#1", "a 1.jpg#2", "é.jpg#1")
    np.testing.assert_array_equal(faces.points[0], POINTS - 1)
    np.testing.assert_array_equal(faces.points[2], POINTS)
    np.testing.assert_array_equal(faces.boxes, [[10, 20, 40, 50], [12, 22, 42, 52], [11, 21, 41, 51]])
    assert faces.points.dtype == faces.boxes.dtype == np.float32
    assert faces.visible.sum(1).tolist() == [6, 5, 6] and np.isnan(faces.points[1, 1]).all()
    assert {key: value.tolist() for key, value in faces.attributes.items()} == {
        "yaw": [-45] * 3, "pitch": [5] * 3, "roll": [10] * 3}  # fmt: skip
    assert faces.pixels(1).shape == (50, 60, 3)
    assert [path.name for path in faces.files] == ["anno.mat", "a 1.jpg", "é.jpg"]


def test_images_in_a_folder_of_their_own(release):
    folder = release(folder=".")
    (folder / "images").mkdir()
    for name in ("a 1.jpg", "é.jpg"):
        (folder / name).rename(folder / "images" / name)
    assert afw.read(folder, "test").pixels(2).shape == (50, 60, 3)


def test_without_poses_there_is_no_attribute(release):
    faces = afw.read(release(rows([(BOX, POINTS)], [(BOX, POINTS)], poses=False)), "test")
    assert faces.attributes == {} and len(faces) == 2


def test_check_counts_faces_whose_image_is_there(release):
    folder = release()
    assert [(part.name, part.expected, part.found, part.state) for part in afw.check(folder)] == [
        ("test", 468, 3, "incomplete")]  # fmt: skip
    (folder / "testimages" / "a 1.jpg").unlink()
    assert afw.check(folder)[0].found == 1
    with pytest.raises(ReplicateError, match=r"anno.mat, line 1: .*a 1.jpg is not there \(2 of 3"):
        afw.read(folder, "test")


@pytest.mark.parametrize(
    "anno,message",
    [
        (rows([(BOX, POINTS)], [(BOX, POINTS)], names=("a 1.jpg", "a 1.jpg")), "row 2: a 1.jpg stands in row 1 already"),
        (rows([(BOX, POINTS)], [(BOX, POINTS)], names=("a 1.jpg", "../b.jpg")), r"line 2: got '../b.jpg'"),
        (rows([(BOX, POINTS)], [(BOX, POINTS)], names=("a 1.jpg", MATRIX := np.eye(2))), "row 2: the first column is no text"),
        (rows([(BOX, POINTS)], [(BOX, POINTS[:5])]), r"row 2: points of shape \(5, 2\).*expected \(6, 2\)"),
        (rows([(BOX, POINTS)], [(BOX[:1], POINTS)]), r"row 2: box of shape \(1, 2\)"),
        (rows([(BOX * np.nan, POINTS)], [(BOX, POINTS)]), "row 1: box .*expected finite"),
        (rows([(BOX, POINTS)], [(BOX, POINTS * np.inf)]), "row 2: points .*expected finite"),
        (rows([(BOX, POINTS)], [(BOX, "text")]), "row 2: points"),
        (cell("a 1.jpg", cell(BOX), cell(POSE, POSE), cell(POINTS), shape=(1, 4)), "row 1: 1 boxes, 2 poses and 1 sets"),
        (cell("a 1.jpg", cell(BOX), cell(POSE), POINTS, shape=(1, 4)), "row 1: expected a cell with one element per face"),
        (cell("a 1.jpg", cell(BOX), shape=(1, 2)), "anno is no cell array of 3 or 4 columns"),
        (MATRIX, "anno is no cell array of 3 or 4 columns"),
    ],
)  # fmt: skip
def test_bad_entries_name_file_and_row(release, anno, message):
    folder = release(anno)
    with pytest.raises(ReplicateError, match=rf"anno.mat.*{message}"):
        afw.read(folder, "test")
    assert afw.check(folder)[0].state.startswith("damaged: ")


def test_more_faces_than_the_release_has_are_refused(release, monkeypatch):
    monkeypatch.setitem(afw.COUNTS, "test", 2)
    with pytest.raises(ReplicateError, match="anno.mat: 3 faces, the official release has 2"):
        afw.read(release(), "test")


def test_the_file_is_damaged(tmp_path):
    (tmp_path / "anno.mat").write_bytes(b"MATLAB 5.0 MAT-file, cut short")
    with pytest.raises(ReplicateError, match="anno.mat: cannot be read as a Matlab file"):
        afw.read(tmp_path, "test")
