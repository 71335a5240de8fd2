"""The 206 artefacts and how far each is replicated, computed from the notebooks and from what is recorded.

A notebook names what it makes in its metadata, and in ``partial`` that of which it makes a part:
``"replicate": {"artefacts": ["DAN-T5"], "partial": ["DAN-S17"]}``.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from replicate.errors import ReplicateError
from replicate.evidence import claims, manifest, rows
from replicate.evidence.records import OTHER_ARTEFACTS, paper_of
from replicate.paths import published_dir, root
from replicate.vocabulary import FACES, check_one_of

STATES = ("done", "partial", "missing", "data absent", "not applicable")
SAME_FOR_ANY_FACES = "does not depend on the faces; made once, with synthetic faces"


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """A table, figure or statement of a paper.

    Parameters
    ----------
    id, paper, kind, title : str
        ``"DAN-T5"``, ``"dan"``, ``"table"`` and what it shows.
    output : str
        What a replication has to show.
    evidence : str
        What has to be recorded: ``rows`` (numbers or a verdict), ``figure``, or ``text``: the notebook's own
        words and checks.
    needs : tuple of str
        Data sets, or a data set and its subset, that real faces need and that are not at hand:
        ``"300w/private"``.
    notebook : str or None
        Path from the checkout of the notebook that makes it.
    state : dict
        One of `STATES` for synthetic and for real faces.
    reason : str
        Why it is not applicable, or which data are absent.
    """

    id: str
    paper: str
    kind: str
    title: str
    output: str
    evidence: str
    needs: tuple[str, ...]
    notebook: str | None
    state: Mapping[str, str]
    reason: str = ""

    def to_dict(self) -> dict:
        """The artefact as ``replicate artefacts --json`` prints it."""
        names = ("id", "paper", "kind", "title", "output", "notebook", "reason")
        return {name: getattr(self, name) for name in names} | {"state": dict(self.state)}


@dataclass(frozen=True)
class _Recorded:
    """What is on file at the `cpu` or `gpu` profile, by artefact and faces."""

    numbers: frozenset[tuple[str, str]]
    pictures: frozenset[tuple[str, str]]
    test_sets: frozenset[tuple[str, str, str]]  # artefact, faces, "protocol/subset" or "protocol"


def load() -> list[Artefact]:
    """All artefacts in the papers' order, with their states as of now.

    Raises
    ------
    ReplicateError
        If a record or a notebook is damaged, or a notebook names an unknown artefact.
    """
    entries = _entries()
    makers = declared({entry["id"] for entry in entries})
    recorded = _recorded()
    return [_artefact(entry, makers, recorded) for entry in entries]


def as_json() -> list[dict]:
    """All artefacts as ``replicate artefacts --json`` prints them."""
    return [artefact.to_dict() for artefact in load()]


def declared(known: Iterable[str], folder: Path | None = None) -> dict[str, tuple[str, bool]]:
    """Notebook that makes each artefact, and whether it makes all of it.

    Parameters
    ----------
    known : iterable of str
        Ids that exist.
    folder : Path, optional
        Where the notebooks are, ``notebooks/`` of the checkout unless told otherwise.
    """
    folder = folder or root() / "notebooks"
    known = {*known, *OTHER_ARTEFACTS}
    makers: dict[str, tuple[str, bool]] = {}
    for path in sorted(folder.glob("*/*.ipynb")):
        about = _metadata(path)
        for kind in ("partial", "artefacts"):  # a notebook that makes all of it wins
            for identity in about.get(kind, ()):
                check_one_of(f"artefact named in {path.name}", identity, known)
                makers[identity] = (path.relative_to(folder.parent).as_posix(), kind == "artefacts")
    return makers


def _metadata(path: Path) -> dict:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("replicate", {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReplicateError(f"{path} is not a Jupyter notebook ({error}). Restore it.") from error
    if not isinstance(about, dict):
        raise ReplicateError(f"{path}: metadata `replicate` is {about!r}, expected an object of lists of ids")
    return about


def _recorded() -> _Recorded:
    numbers = [row for profile in ("cpu", "gpu") for row in rows.load(profile=profile)]
    recorded = claims.recorded(profiles=("cpu", "gpu"))
    judged = [v for v in recorded if v.verdict not in ("not run", "not testable")]
    by_claim = {(artefact, v.faces) for v in judged for artefact in claims.get(v.claim).artefacts}
    pictures = manifest.load(profiles=("cpu", "gpu"))
    shown = [*numbers, *pictures]
    return _Recorded(
        numbers=frozenset({(row.artefact, row.faces) for row in numbers} | by_claim),
        pictures=frozenset((figure.artefact, figure.faces) for figure in pictures),
        test_sets=frozenset(
            (one.artefact, one.faces, test_set) for one in shown for test_set in _test_sets(one)
        ),
    )


def _test_sets(shown: rows.Row | manifest.Figure) -> tuple[str, str]:
    """Names that ``needs`` may use for what a row or figure was measured on."""
    protocol = getattr(shown, "protocol", "")
    subset = shown.subset if "/" in shown.subset else f"{protocol}/{shown.subset}"
    return subset, subset.split("/")[0]


@cache
def _entries() -> tuple[dict[str, str], ...]:
    with (published_dir() / "artefacts.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def _artefact(entry: Mapping[str, str], makers: Mapping, recorded: _Recorded) -> Artefact:
    notebook, complete = makers.get(entry["id"], (None, False))
    needs = tuple(filter(None, entry["needs"].split(";")))
    about = {name: entry[name] for name in ("id", "kind", "title", "output", "evidence")}
    state = {faces: _state(entry, faces, notebook, complete, needs, recorded) for faces in FACES}
    return Artefact(
        **about,
        paper=paper_of(entry["id"]),
        needs=needs,
        notebook=notebook,
        state=state,
        reason=_reason(state, needs),
    )


def _state(
    entry: Mapping[str, str],
    faces: str,
    notebook: str | None,
    complete: bool,
    needs: tuple[str, ...],
    recorded: _Recorded,
) -> str:
    if faces == "real" and entry["faces"] == "any":
        return "not applicable"
    key = entry["id"], faces
    evident = {
        "rows": key in recorded.numbers,
        "figure": key in recorded.pictures,
        "text": faces == "synthetic",
    }
    if notebook is None or not evident[entry["evidence"]]:
        return "data absent" if faces == "real" and needs else "missing"
    covered = all((*key, need) in recorded.test_sets for need in needs)
    return "done" if complete and (faces == "synthetic" or covered) else "partial"


def _reason(state: Mapping[str, str], needs: tuple[str, ...]) -> str:
    if state["real"] == "not applicable":
        return SAME_FOR_ANY_FACES
    absent = needs and state["real"] in ("data absent", "partial")
    return f"real faces not at hand: {', '.join(needs)}" if absent else ""
