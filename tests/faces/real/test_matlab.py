"""Matlab files of both kinds read alike; damaged and hostile ones are refused."""

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from made_files import cell, returns_or_refuses, write_hdf5

from replicate.errors import ReplicateError
from replicate.faces.real.matlab import load_matlab, open_cell

MATRIX = np.arange(6.0).reshape(2, 3)
IMAGE = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
BOX = {"name": "é.jpg", "box": np.arange(4.0)[None], "more": cell("a", {"inner": "b"})}
NAMES = cell("é顔.jpg", "", cell("b", MATRIX), MATRIX, shape=(2, 2))


def write(path, kind, **variables):
    if kind == "hdf5":
        return write_hdf5(path, **variables)
    scipy.io.savemat(path, variables, do_compression=True)
    return path


@pytest.fixture(params=["hdf5", "older"])
def path(tmp_path, request):
    return write(tmp_path / "x.mat", request.param, matrix=MATRIX, image=IMAGE, text="a b", names=NAMES, boxes=cell(BOX, BOX), one=BOX)  # fmt: skip


def test_numbers_text_and_cells(path):
    found = load_matlab(path, ["matrix", "image", "text", "names"])
    np.testing.assert_array_equal(found["matrix"], MATRIX)
    np.testing.assert_array_equal(found["image"], IMAGE)
    assert found["image"].dtype == np.uint8 and found["text"] == "a b"
    names = found["names"]
    assert names.shape == (2, 2) and names[0, 0] == "é顔.jpg" and names[0, 1] == ""
    assert names[1, 0].shape == (1, 2) and names[1, 0][0, 0] == "b"
    np.testing.assert_array_equal(names[1, 0][0, 1], MATRIX)
    np.testing.assert_array_equal(names[1, 1], MATRIX)


def test_structures_alone_and_in_cells(path):
    found = load_matlab(path, ["boxes", "one"])
    for box in (*found["boxes"].ravel(), found["one"]):
        assert set(box) == {"name", "box", "more"} and box["name"] == "é.jpg"
        np.testing.assert_array_equal(box["box"], [[0, 1, 2, 3]])
        assert box["more"][0, 0] == "a" and box["more"][0, 1] == {"inner": "b"}


def test_an_array_of_structures_is_refused(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"x": np.array([(1.0,), (2.0,)], [("a", object)])})
    with pytest.raises(ReplicateError, match="x.mat: an array of 2 structures"):
        load_matlab(tmp_path / "x.mat", ["x"])


def test_elements_of_a_cell_one_by_one_in_column_order(path):
    count, read = open_cell(path, "names")
    assert count == 4 and read(0) == "é顔.jpg" and read(1).shape == (1, 2) and read(2) == ""
    np.testing.assert_array_equal(read(3), MATRIX)


def test_a_variable_that_is_absent(path):
    with pytest.raises(
        ReplicateError, match=r"x.mat: no variable anno; it has .*matrix.*, expected matrix, anno"
    ):
        load_matlab(path, ["matrix", "anno"])


def test_an_absent_file(tmp_path):
    with pytest.raises(ReplicateError, match="absent.mat is not there"):
        load_matlab(tmp_path / "absent.mat", ["x"])


@pytest.mark.parametrize("kind", ["hdf5", "older"])
@given(place=st.floats(0, 1), data=st.binary(min_size=1, max_size=4), cut=st.booleans())
def test_damaged_files_are_read_or_refused(tmp_path_factory, kind, place, data, cut):
    path = write(
        tmp_path_factory.mktemp("damaged") / "x.mat", kind, matrix=MATRIX, names=NAMES, boxes=cell(BOX)
    )
    whole = path.read_bytes()
    at = int(place * len(whole))
    path.write_bytes(whole[:at] if cut else whole[:at] + data + whole[at + len(data) :])
    returns_or_refuses(lambda: load_matlab(path, ["matrix", "names", "boxes"]), ["x.mat"])


def test_what_lies_outside_the_file_is_not_read(tmp_path):
    secret = write_hdf5(tmp_path / "secret.mat", x=MATRIX)
    (tmp_path / "raw").write_bytes(MATRIX.tobytes())
    path = tmp_path / "x.mat"
    layout = h5py.VirtualLayout((3, 2), float)
    layout[:] = h5py.VirtualSource(str(secret), "x", (3, 2))
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink(str(secret), "x")
        file.create_dataset("raw", (2, 3), float, external=str(tmp_path / "raw"))
        file.create_virtual_dataset("virtual", layout)
        file.create_group("group")
    for name in ("link", "raw", "virtual", "group"):
        with pytest.raises(
            ReplicateError, match=r"x.mat: (no variable link|/\w+ is no array inside the file)"
        ):
            load_matlab(path, [name])


def test_a_cell_that_holds_itself_is_refused(tmp_path):
    path = tmp_path / "x.mat"
    with h5py.File(path, "w") as file:
        node = file.create_dataset("x", (1, 1), h5py.ref_dtype)
        node[0, 0] = node.ref
    with pytest.raises(ReplicateError, match="x.mat"):
        load_matlab(path, ["x"])


def test_an_array_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "x.mat"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (10**6, 10**6), np.uint8, chunks=(100, 100))  # nothing is stored
    with pytest.raises(ReplicateError, match="x.mat: /x has 1000000000000 elements, expected at most 2 GiB"):
        load_matlab(path, ["x"])


def test_numbers_are_no_cell(tmp_path):
    path = write_hdf5(tmp_path / "x.mat", x=MATRIX)
    with pytest.raises(ReplicateError, match="x.mat: x is no cell array"):
        open_cell(path, "x")
