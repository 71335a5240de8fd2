"""Small JSON files of records that several processes may extend: merged under a lock, written atomically."""

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from replicate.errors import ReplicateError
from replicate.files import lock, read_json, sha256, write_json
from replicate.paths import cache, results_dir
from replicate.vocabulary import PAPERS

Record = TypeVar("Record")
VOLATILE = ("seconds", "device", "commit", "recorded_at")  # differ between two runs that agree
ROUNDING = 1e-4  # relative; below the last digit that any table shows
OTHER_ARTEFACTS = ("FACES-TRANSFER",)  # measured here, in no paper


def paper_of(identity: str) -> str:
    """Paper of an artefact or claim such as ``"DAN-T5"``; ``"faces"`` for what belongs to no paper.

    Raises
    ------
    ReplicateError
        If the identity names no paper.
    """
    paper, _, rest = identity.lower().partition("-")
    if not rest or (paper not in PAPERS and identity not in OTHER_ARTEFACTS):
        raise ReplicateError(
            f"id: got {identity!r}, expected a paper and a number such as 'DAN-T5'. `replicate artefacts` lists them."
        )
    return paper


def now() -> str:
    """Coordinated universal time, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def read_records(path: Path) -> list[dict]:
    """The records of a file, none if there is no such file.

    Raises
    ------
    ReplicateError
        If the file is not a JSON list of objects; the message names the file.
    """
    if not path.exists():
        return []
    records = read_json(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ReplicateError(
            f"{path} does not hold a list of records. Delete it or restore it from version control."
        )
    return records


def load_all(kind: type[Record], what: str, pattern: str, profiles: Iterable[str]) -> list[Record]:
    """The records of all result files of some profiles, as objects.

    Parameters
    ----------
    kind : type
        Dataclass of a record, which checks its own values.
    what : str
        The record in words, for messages.
    pattern : str
        Of the files below the results folder, without the ending ``.<profile>.json``.
    profiles : iterable of str

    Raises
    ------
    ReplicateError
        If a file is damaged, naming it.
    """
    files = (
        path
        for profile in profiles
        for path in sorted(results_dir(profile).glob(f"{pattern}.{profile}.json"))
    )
    return [record for path in files for record in _read_as(kind, what, path)]


def _read_as(kind: type[Record], what: str, path: Path) -> list[Record]:
    records = read_records(path)
    try:
        return [kind(**record) for record in records]
    except (TypeError, ReplicateError) as error:
        raise ReplicateError(
            f"{path} holds a record that is not a {what} ({error}). Delete it or restore it from version control."
        ) from error


def merge(
    path: Path,
    new: Iterable[Mapping],
    key: Callable[[Mapping], tuple],
    drop: Callable[[Mapping], bool] = lambda record: False,
) -> bool:
    """Put `new` records into a file, in place of those with the same key; the others stay.

    A record that says the same as the one on file (`VOLATILE` fields aside, numbers within `ROUNDING`) leaves
    it as it
    is, so that a second run changes no file. The lock lives in the cache, beside nothing that is kept.

    Parameters
    ----------
    path : Path
        The file; its folder is made.
    new : iterable of dict
        Records, JSON values only.
    key : callable
        What identifies a record.
    drop : callable
        Records on file to leave out unless `new` holds them again.

    Returns
    -------
    bool
        Whether the file was written.

    Raises
    ------
    ReplicateError
        If the file is damaged, the folder cannot be written or the disk is full; the file is then as before.
    """
    with _locked(path):
        old = _by_key(path, key)
        merged = {name: record for name, record in old.items() if not drop(record)}
        for record in new:
            known = old.get(key(record))
            merged[key(record)] = known if known is not None and same(known, record) else dict(record)
        if merged == old:
            return False
        ordered = [merged[name] for name in sorted(merged, key=lambda name: tuple(map(str, name)))]
        write_json(path, ordered)
    return True


def same(left: object, right: object) -> bool:
    """Whether two JSON values agree, volatile fields aside and numbers within rounding."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        names = (left.keys() | right.keys()) - set(VOLATILE)
        return all(name in left and name in right and same(left[name], right[name]) for name in names)
    if isinstance(left, float) or isinstance(right, float):
        numbers = all(isinstance(side, (int, float)) and not isinstance(side, bool) for side in (left, right))
        if not numbers or (float(left).is_integer() and float(right).is_integer()):
            return numbers and left == right  # counts are exact
        return math.isclose(left, right, rel_tol=ROUNDING, abs_tol=1e-9)
    return left == right


def _by_key(path: Path, key: Callable[[Mapping], tuple]) -> dict[tuple, dict]:
    records = read_records(path)
    try:
        return {key(record): record for record in records}
    except KeyError as error:
        raise ReplicateError(
            f"{path} holds a record without {error}. Delete it or restore it from version control."
        ) from error


def _locked(path: Path) -> FileLock:
    return lock(cache() / "locks" / f"{sha256(str(path.resolve()))[:24]}.lock")
