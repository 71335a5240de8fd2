"""Files that are never half written, and hashes of what they hold."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock

from replicate.errors import ReplicateError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it to `path` when the block ends without an error.

    A reader sees the old file or the new one, whenever the process is killed.

    Raises
    ------
    ReplicateError
        If the folder cannot be written or the disk is full; the old file is untouched.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=f".tmp{path.suffix}", dir=path.parent)
    except OSError as error:
        raise ReplicateError(
            f"cannot write {path}: {error}. Check the folder's permissions and free space."
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; these are meant to be shared
        temporary.replace(path)
    except OSError as error:
        raise ReplicateError(
            f"cannot write {path}: {error}. The previous file, if any, is unchanged."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def lock(path: Path) -> FileLock:
    """A lock between processes, held while used as a context manager; `path` is made, and stays.

    Raises
    ------
    ReplicateError
        If `path` cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise ReplicateError(
            f"cannot write {path}: {error}. Set REPLICATE_CACHE to a folder that can be written."
        ) from error
    return FileLock(path)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def read_json(path: Path) -> object:
    """Read JSON; a damaged file is an error that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ReplicateError(
            f"{path} is not valid JSON ({error}). Delete it or restore it from version control."
        ) from error


def sha256(*parts: bytes | str | np.ndarray) -> str:
    """Hexadecimal SHA-256 of bytes, text and arrays (type and shape included), in order."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            part = np.ascontiguousarray(part).tobytes()
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()
