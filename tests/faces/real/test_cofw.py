"""The COFW adapter on files that the tests make: Matlab 7.3 and older, colour and grey."""

import h5py
import numpy as np
import pytest
import scipy.io
from made_files import cell, write_hdf5

from replicate.errors import ReplicateError
from replicate.faces.real import cofw

RNG = np.random.default_rng(3)
COLOUR = [RNG.integers(0, 255, (40, 30 + index, 3), np.uint8) for index in range(3)]
GREY = [image[..., 0] for image in COLOUR]
SHAPES = np.hstack([RNG.uniform(1, 30, (3, 58)), RNG.integers(0, 2, (3, 29))])
BOXES = np.array([[1.0, 2, 20, 30], [3, 4, 10, 12], [5, 6, 7, 8]])


def write(
    folder, kind="hdf5", name="COFW_train_color.mat", images=COLOUR, shapes=SHAPES, boxes=BOXES, suffix="Tr"
):
    content = {f"Is{suffix}": cell(*images, shape=(-1, 1)), f"phis{suffix}": shapes, f"bboxes{suffix}": boxes}
    if kind == "hdf5":
        write_hdf5(folder / name, **content)
    else:
        scipy.io.savemat(folder / name, content, do_compression=True)
    return folder


@pytest.mark.parametrize("kind", ["hdf5", "older"])
@pytest.mark.parametrize("images,name", [(COLOUR, "COFW_train_color.mat"), (GREY, "COFW_train.mat")])
def test_points_occlusion_boxes_and_images(tmp_path, kind, images, name):
    faces = cofw.read(write(tmp_path, kind, name, images), "train")
    assert faces.names == ("train/0001", "train/0002", "train/0003")
    np.testing.assert_allclose(faces.points[..., 0], SHAPES[:, :29] - 1, rtol=1e-6)
    np.testing.assert_allclose(faces.points[..., 1], SHAPES[:, 29:58] - 1, rtol=1e-6)
    np.testing.assert_array_equal(faces.visible, SHAPES[:, 58:] == 0)
    np.testing.assert_array_equal(faces.boxes, [[0, 1, 20, 31], [2, 3, 12, 15], [4, 5, 11, 13]])
    assert faces.points.dtype == faces.boxes.dtype == np.float32
    for index, image in enumerate(images):
        pixels = faces.pixels(index)
        np.testing.assert_array_equal(pixels, image)
        assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert faces.files == (tmp_path / name,)


def test_the_test_split_and_its_variables(tmp_path):
    faces = cofw.read(write(tmp_path, name="COFW_test_color.mat", suffix="T"), "test")
    assert faces.names[0] == "test/0001" and not faces.attributes["lfpw"].any()


def test_the_first_training_faces_are_lfpw(tmp_path, monkeypatch):
    monkeypatch.setattr(cofw, "FROM_LFPW", 2)
    assert cofw.read(write(tmp_path), "train").attributes["lfpw"].tolist() == [True, True, False]
    assert cofw.COUNTS["train"] - 845 == 500  # COFW's own


def test_colour_is_preferred(tmp_path):
    write(tmp_path, name="COFW_train.mat", images=GREY)
    assert cofw.read(tmp_path, "train").pixels(0).ndim == 2
    write(tmp_path)
    assert cofw.read(tmp_path, "train").pixels(0).ndim == 3


def test_check_counts_images(tmp_path):
    write(tmp_path)
    assert [(part.name, part.expected, part.found, part.state) for part in cofw.check(tmp_path)] == [
        ("train", 1345, 3, "incomplete"), ("test", 507, 0, "absent")]  # fmt: skip
    (tmp_path / "COFW_test.mat").write_bytes(b"cut short")
    assert cofw.check(tmp_path)[1].state.startswith("damaged: ")


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"shapes": SHAPES[:2]}, r"phisTr of shape \(2, 87\).*expected \(3, 87\) numbers for 3 images"),
        ({"shapes": SHAPES[:, :58]}, r"phisTr of shape \(3, 58\)"),
        ({"boxes": BOXES[:, :3]}, r"bboxesTr of shape \(3, 3\)"),
        ({"boxes": np.where(BOXES == 3, np.nan, BOXES)}, "bboxesTr, row 2: expected finite"),
        ({"shapes": np.full((3, 87), np.inf)}, "phisTr, row 1: expected finite"),
        ({"shapes": "text"}, "phisTr of shape"),
        ({"suffix": "T"}, "no variable phisTr, bboxesTr; it has .*phisT"),
    ],
)
@pytest.mark.parametrize("kind", ["hdf5", "older"])
def test_variables_that_disagree_are_refused(tmp_path, kind, changes, message):
    write(tmp_path, kind, **changes)
    with pytest.raises(ReplicateError, match=f"COFW_train_color.mat: {message}"):
        cofw.read(tmp_path, "train")


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4)),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((1, 20_001), np.uint8),
        np.zeros((0, 0), np.uint8),
        "text",
    ],
)
def test_what_is_no_image_is_refused_when_decoded(tmp_path, image):
    faces = cofw.read(write(tmp_path, images=[*COLOUR[:2], image]), "train")
    with pytest.raises(ReplicateError, match="COFW_train_color.mat: image 3 of shape"):
        faces.pixels(2)


def test_more_images_than_the_release_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(cofw.COUNTS, "train", 2)
    with pytest.raises(ReplicateError, match="COFW_train_color.mat: 3 images, the official release has 2"):
        cofw.read(write(tmp_path), "train")


def test_images_that_are_no_cell_and_a_file_that_vanished(tmp_path):
    faces = cofw.read(write(tmp_path), "train")
    (tmp_path / "COFW_train_color.mat").unlink()
    with pytest.raises(ReplicateError, match="COFW_train_color.mat is not there"):
        faces.pixels(0)
    with h5py.File(tmp_path / "COFW_train_color.mat", "w") as file:
        file["IsTr"], file["phisTr"], file["bboxesTr"] = np.zeros((1, 3)), SHAPES.T, BOXES.T
    with pytest.raises(ReplicateError, match="IsTr is no cell array"):
        cofw.read(tmp_path, "train")
