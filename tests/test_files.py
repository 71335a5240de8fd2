"""Atomic writing: the old file or the new one, and nothing else, whatever happens."""

import errno
import os
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest
from filelock import FileLock, Timeout
from hypothesis import given
from hypothesis import strategies as st

from replicate import files
from replicate.errors import ReplicateError
from replicate.files import atomic_write, lock, read_json, sha256, write_json


@pytest.fixture
def old(tmp_path):
    """A file that must survive."""
    path = tmp_path / "numbers.json"
    path.write_text("old")
    return path


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_appears_when_the_block_has_ended(tmp_path):
    path = tmp_path / "new" / "folder" / "numbers.npz"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert not path.exists() and temporary.parent == path.parent and temporary.suffix == ".npz"
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_written_files_have_ordinary_permissions(tmp_path):
    previous = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", 1)
        assert os.umask(0o027) == 0o027  # left as it was
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_exception_leaves_the_old_file_and_no_other(old, stop):
    with pytest.raises(stop), atomic_write(old) as temporary:
        temporary.write_text("half")
        raise stop
    assert old.read_text() == "old" and list(old.parent.iterdir()) == [old]


def test_a_full_disk_leaves_the_old_file_and_is_named(old, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(
        ReplicateError,
        match=r"cannot write .*numbers\.json: .*No space left.*previous file, if any, is unchanged",
    ):
        write_json(old, {"new": 1})
    assert old.read_text() == "old" and list(old.parent.iterdir()) == [old]


def test_a_disk_that_is_full_from_the_start_is_named(old, monkeypatch):
    monkeypatch.setattr(files.tempfile, "mkstemp", full)
    with pytest.raises(ReplicateError, match=r"cannot write .*No space left.*free space"):
        write_json(old, 1)
    assert old.read_text() == "old"


def test_a_folder_that_cannot_be_made_is_named(old):
    with pytest.raises(ReplicateError, match=r"cannot write .*numbers\.json/inside\.json: .*permissions"):
        write_json(old / "inside.json", 1)
    assert old.read_text() == "old"


def test_a_killed_writer_leaves_the_old_file(old):
    """kill -9 between writing and renaming; the temporary file stays, hidden, and the next write is not disturbed."""
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom replicate.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as temporary:\n    temporary.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, old], check=False)
    assert done.returncode == -signal.SIGKILL and old.read_text() == "old"
    assert all(path == old or path.name.startswith(".") for path in old.parent.iterdir())
    write_json(old, "new")
    assert read_json(old) == "new"


def test_a_lock_keeps_others_out_and_is_made_with_its_folder(tmp_path):
    path = tmp_path / "new" / "faces.lock"
    with lock(path), pytest.raises(Timeout), FileLock(path, timeout=0):
        pass
    with lock(path):
        assert path.exists()


def test_a_lock_that_cannot_be_made_is_named(old):
    with pytest.raises(ReplicateError, match=r"cannot write .*numbers\.json/a\.lock.*REPLICATE_CACHE"):
        lock(old / "a.lock")


def test_json_comes_back_as_it_went(tmp_path):
    value = {"name": "Trzciński × 2", "numbers": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "Trzciński" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_json_cannot_say_is_not_written(old, value):
    with pytest.raises((ValueError, TypeError)):
        write_json(old, {"value": value})
    assert old.read_text() == "old" and list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe"])
def test_damaged_json_is_named(old, content):
    old.write_bytes(content)
    with pytest.raises(ReplicateError, match=r"numbers\.json is not valid JSON .*Delete it or restore"):
        read_json(old)


# Hashes

A = np.arange(6, dtype=np.int32)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((A,), (A.reshape(2, 3),)),
        ((A.reshape(2, 3),), (A.reshape(3, 2),)),
        ((A,), (A.astype(np.uint32),)),
        ((A,), (A.astype(">i4"),)),
        ((A,), (A[::-1],)),
        ((A, "a"), ("a", A)),
        (("ab", "c"), ("a", "bc")),
        ((A[:3], A[3:]), (A,)),
        ((), ("",)),
    ],
)
def test_hashes_tell_apart_what_differs(left, right):
    assert sha256(*left) != sha256(*right)


def test_hashes_do_not_depend_on_how_an_array_lies_in_memory():
    assert (
        sha256(A.reshape(2, 3))
        == sha256(np.asfortranarray(A.reshape(2, 3)))
        == sha256(np.repeat(A, 2)[::2].reshape(2, 3))
    )
    assert sha256("text") == sha256(b"text")


@given(st.lists(st.binary(max_size=8), max_size=4))
def test_hashes_are_hexadecimal_and_repeatable(parts):
    assert sha256(*parts) == sha256(*parts) and len(sha256(*parts)) == 64 and int(sha256(*parts), 16) >= 0
