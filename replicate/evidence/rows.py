"""Result rows: one number each, with everything needed to trust it."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import pandas as pd

from replicate.errors import ReplicateError
from replicate.evidence.records import load_all, merge, now, paper_of
from replicate.metrics import NORMALISERS
from replicate.paths import results_dir
from replicate.provenance import commit
from replicate.vocabulary import FACES, PROFILES, check_one_of

NO_NORMALISER = "none"  # counts, times, parameters
KEY = ("artefact", "method", "protocol", "subset", "points", "metric", "normaliser", "faces", "profile")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number.

    Parameters
    ----------
    artefact : str
        Table, figure or statement it belongs to, ``"DAN-T5"``.
    method : str
        ``"DAN, 2 stages"``: a method and its variant, as the published values name them.
    protocol, subset : str
        ``"300w"``, ``"common"``.
    points : int or None
        Number of landmarks; None where the number is not about landmarks.
    metric : str
        ``"mean error"``, ``"AUC 0.08"``, ``"failure rate 0.08"`` or what the published values call it.
    normaliser : str
        One of `replicate.metrics.NORMALISERS`, or ``"none"``.
    value, ci_low, ci_high : float
        The number and its 95 % interval; both bounds None where there is nothing to resample.
    unit : str
        ``"%"`` for errors, AUC and failure rates.
    images, seeds : int or None
        Test images and trained models behind the number.
    faces, profile : str
        ``synthetic`` or ``real``; ``smoke``, ``cpu`` or ``gpu``.
    device : str
        What it ran on.
    seconds : float or None
        Time of the work behind it.
    faces_sha256 : str or None
        Hash of the test faces.
    box_rule : str
        Where the starting boxes come from.
    model : str
        Key of the model, or of the models, separated by spaces.
    count : int or None
        Number of failures behind a failure rate.
    note : str
        A short remark for the reader.
    commit, recorded_at : str
        Filled in.

    Raises
    ------
    ReplicateError
        For a word outside the vocabulary, a number that is not finite, or a value outside its interval.
    """

    artefact: str
    method: str
    protocol: str
    subset: str
    points: int | None
    metric: str
    normaliser: str
    value: float
    ci_low: float | None
    ci_high: float | None
    unit: str
    images: int | None
    seeds: int | None
    faces: str
    profile: str
    device: str
    seconds: float | None = None
    faces_sha256: str | None = None
    box_rule: str = ""
    model: str = ""
    count: int | None = None
    note: str = ""
    commit: str | None = field(default_factory=commit)
    recorded_at: str = field(default_factory=now)

    def __post_init__(self) -> None:
        paper_of(self.artefact)
        check_one_of("faces", self.faces, FACES)
        check_one_of("profile", self.profile, PROFILES)
        check_one_of("normaliser", self.normaliser, (*NORMALISERS, NO_NORMALISER))
        for name in ("method", "metric"):
            if not getattr(self, name):
                raise ReplicateError(f"{name}: got an empty text; a row of {self.artefact} needs one")
        for name in ("value", "ci_low", "ci_high", "seconds"):
            self._as_float(name)
        for name in ("points", "images", "seeds", "count"):
            self._as_count(name)
        self._check_interval()

    def _as_float(self, name: str) -> None:
        """Make a plain float of a number of any kind, so that it can be written as JSON."""
        given = getattr(self, name)
        if given is None and name != "value":
            return
        try:
            number = float(given)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ReplicateError(
                f"{name}: got {given!r} for {self.artefact}, {self.method}; expected a finite number"
            )
        exact = number.is_integer()  # a count keeps all of its digits
        object.__setattr__(
            self, name, round(number, 1) if name == "seconds" else number if exact else float(f"{number:.6g}")
        )

    def _as_count(self, name: str) -> None:
        given = getattr(self, name)
        if given is None:
            return
        if isinstance(given, bool) or int(given) != given or given < 0:
            raise ReplicateError(
                f"{name}: got {given!r} for {self.artefact}, {self.method}; expected a whole number"
            )
        object.__setattr__(self, name, int(given))

    def _check_interval(self) -> None:
        if (self.ci_low is None) != (self.ci_high is None):
            raise ReplicateError(
                f"ci_low, ci_high: got {self.ci_low} and {self.ci_high} for {self.artefact}, {self.method}; "
                "expected both bounds or neither"
            )
        if self.ci_low is not None and not self.ci_low <= self.value <= self.ci_high:
            raise ReplicateError(
                f"value: {self.value} of {self.artefact}, {self.method} lies outside its interval "
                f"[{self.ci_low}, {self.ci_high}]; check that all three come from the same errors"
            )

    @property
    def key(self) -> tuple:
        """What identifies a row: recording it again replaces it."""
        return tuple(getattr(self, name) for name in KEY)

    def to_dict(self) -> dict:
        """The row as JSON values."""
        return asdict(self)


def path_of(artefact: str, faces: str, profile: str) -> Path:
    """File that holds the rows of an artefact."""
    return results_dir(profile) / paper_of(artefact) / f"{artefact}.{faces}.{profile}.json"


def record(rows: Iterable[Row], *, replace: bool = False) -> list[Path]:
    """Merge rows into their files.

    Parameters
    ----------
    rows : iterable of Row
        May belong to several artefacts, faces and profiles.
    replace : bool
        Also remove the rows on file, of the same artefact, faces and profile, that are not given: for a table
        whose
        methods or metrics have changed.

    Returns
    -------
    list of Path
        The files that changed; none if the same numbers were on file.

    Raises
    ------
    ReplicateError
        If a file is damaged or cannot be written; every file is then as before or complete.
    """
    files: dict[Path, list[dict]] = {}
    for row in rows:
        files.setdefault(path_of(row.artefact, row.faces, row.profile), []).append(row.to_dict())
    return [path for path, new in files.items() if merge(path, new, _key, lambda _: replace)]


def load(paper: str | None = None, faces: str | None = None, profile: str | None = None) -> list[Row]:
    """Recorded rows, by paper and artefact; of all papers, faces and profiles unless told otherwise.

    Raises
    ------
    ReplicateError
        If a file is damaged, naming it.
    """
    return load_all(
        Row, "result row", f"{paper or '*'}/*-*.{faces or '*'}", [profile] if profile else PROFILES
    )


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Rows as a table, one column per field."""
    return pd.DataFrame([row.to_dict() for row in rows], columns=[f.name for f in fields(Row)])


def as_json() -> list[dict]:
    """All rows as ``replicate results --json`` prints them."""
    return [row.to_dict() for row in load()]


def _key(record: dict) -> tuple:
    return tuple(record[name] for name in KEY)
