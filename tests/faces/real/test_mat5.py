"""Damaged Matlab files are refused before scipy, which they would crash, sees them."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from replicate.errors import ReplicateError
from replicate.faces.real.mat5 import check_mat5

CELL = np.empty((2, 2), object)
CELL[0, 0], CELL[0, 1], CELL[1, 0], CELL[1, 1] = (
    "text",
    np.eye(3, dtype=np.uint8),
    np.zeros((0, 0)),
    CELL[:0, :0],
)
VARIABLES = {
    "numbers": np.arange(6.0).reshape(2, 3),
    "small": np.array([[7]], np.uint8),
    "imaginary": np.array([[1 + 2j]]),
    "words": "größer",
    "cell": CELL,
    "structure": {"name": "x", "box": np.arange(4.0), "inner": {"deep": CELL}},
    "sparse": scipy.sparse.csc_matrix(np.eye(2)),
}
USED = [name for name in VARIABLES if name != "sparse"]


@pytest.fixture(params=[False, True], ids=["plain", "compressed"])
def file(tmp_path, request):
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, VARIABLES, do_compression=request.param)
    return path


def test_whole_files_pass(file):
    check_mat5(file, USED)


def test_version_4_passes(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"a": np.eye(2)}, format="4")
    check_mat5(tmp_path / "x.mat", ["a"])


def test_variables_of_other_kinds_are_refused_only_if_asked_for(file):
    with pytest.raises(
        ReplicateError,
        match=r"x.mat: damaged Matlab file: .* of class 5 .*expected numbers, text, cells or fields",
    ):
        check_mat5(file, ["sparse"])


def tag(data, name):
    """The first byte of the element after the name of a matrix."""
    return data.index(name) + 8


@pytest.mark.parametrize(
    "offset,value",
    [(0, 14), (0, 200), (0, 8), (4, 49), (5, 255), (-24, 9), (-20, 0), (-16, 3), (-13, 0x80)],
    ids=[
        "matrix",
        "unknown type",
        "reserved type",
        "size",
        "large size",
        "type of dimensions",
        "no dimensions",
        "more values",
        "negative",
    ],
)
def test_types_and_sizes_that_disagree(tmp_path, offset, value):
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"abcdefgh": np.arange(6.0).reshape(2, 3)})
    data = bytearray(path.read_bytes())
    at = tag(data, b"abcdefgh") + (offset if offset >= 0 else offset - 8)
    data[at] = value
    path.write_bytes(data)
    with pytest.raises(ReplicateError, match="x.mat: damaged Matlab file: .*byte"):
        check_mat5(path, ["abcdefgh"])


@pytest.mark.parametrize(
    "old,new,message",
    [
        (b"\x05\0\x04\0\x06", b"\x05\0\x04\0\0", "have names of 0 bytes"),
        (b"\x05\0\x04\0\x06", b"\x05\0\x04\0\x05", "have names of 5 bytes, 12 in all"),
        (b"\x05\0\x04\0\x06", b"\x05\0\x04\0\x0c", "class 2 .*expected numbers, text, cells or fields"),
        (b"\x05\0\x04\0\x06", b"\x06\0\x04\0\x06", "without the names of its fields"),
        (b"first\0", b"other\0", "expected different names"),
        (b"first\0", b"fi st\0", "expected different names"),
    ],
)
def test_a_structure_whose_fields_are_damaged(tmp_path, old, new, message):
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"x": {"first": 1.0, "other": 2.0}})
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    with pytest.raises(ReplicateError, match=f"x.mat: damaged Matlab file: .*{message}"):
        check_mat5(path, ["x"])


def test_a_head_that_hides_a_name_from_the_check(tmp_path):
    """Flags that say they are short: scipy reads on where they would end if they were not, and finds the damaged matrix."""
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"abcdefgh": CELL})
    data = bytearray(path.read_bytes())
    data[128 + 8 + 2] = 2
    path.write_bytes(data)
    with pytest.raises(ReplicateError, match="matrix at byte 128 has no flags, dimensions and name"):
        check_mat5(path, ["abcdefgh"])


def test_a_damaged_compressed_element(tmp_path):
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"a": np.random.default_rng(0).random((20, 20))}, do_compression=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(ReplicateError, match="compressed element at byte 128 cannot be opened"):
        check_mat5(path, ["a"])


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_accepted_or_refused_clearly(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.mat"
    path.write_bytes(b"MATLAB 5.0".ljust(126) + b"IM" + data)
    try:
        check_mat5(path, ["a"])
    except ReplicateError as error:
        assert "fuzz.mat" in str(error)


def test_scipy_survives_what_passes(tmp_path, file):
    """In a process of its own: 300 files with a few bytes changed, read by scipy where the check lets them through."""
    script = """
import sys
from pathlib import Path
import numpy as np, scipy.io
from replicate.errors import ReplicateError
from replicate.faces.real.mat5 import check_mat5
source, path, *names = sys.argv[1:]
rng, whole, passed = np.random.default_rng(0), Path(source).read_bytes(), 0
for _ in range(300):
    data = bytearray(whole)
    for _ in range(rng.integers(1, 6)):
        data[rng.integers(128, len(data))] = rng.integers(256)
    Path(path).write_bytes(data)
    try:
        check_mat5(Path(path), names)
        passed += 1
        scipy.io.loadmat(path, variable_names=names)
    except (ReplicateError, ValueError, TypeError):
        pass
print(passed)
"""
    arguments = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        script,
        str(file),
        str(tmp_path / "damaged.mat"),
        *USED,
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300
