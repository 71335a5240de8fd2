"""The ambiguity register: where a paper is silent or contradicts itself, and what is done about it."""

from dataclasses import asdict, dataclass

import yaml

from replicate.errors import ReplicateError
from replicate.paths import published_dir
from replicate.vocabulary import PAPERS


@dataclass(frozen=True, kw_only=True)
class Ambiguity:
    """One silence or contradiction of a paper.

    Parameters
    ----------
    id, paper : str
        ``"DAN-A1"``, ``"dan"``.
    where : str
        Section, table or equation.
    silence : str
        What the paper leaves open or says twice.
    options : str
        Readings, with who takes each.
    choice : str
        What this replication does.
    reason : str
        Why.
    """

    id: str
    paper: str
    where: str
    silence: str
    options: str
    choice: str
    reason: str

    def to_dict(self) -> dict:
        """The entry as plain values."""
        return asdict(self)


def load(paper: str | None = None) -> list[Ambiguity]:
    """The register of one paper or of all that have one, in the papers' order.

    Raises
    ------
    ReplicateError
        If an entry lacks a field or has one too many, or an id occurs twice.
    """
    entries: list[Ambiguity] = []
    for one in [paper] if paper else PAPERS:
        path = published_dir() / "ambiguities" / f"{one}.yaml"
        if path.exists():
            try:
                entries += [Ambiguity(paper=one, **entry) for entry in yaml.safe_load(path.read_bytes())]
            except TypeError as error:
                raise ReplicateError(f"{path}: {error}") from error
    ids = [entry.id for entry in entries]
    if len(set(ids)) != len(ids):
        raise ReplicateError(f"ambiguities: an id occurs twice in {ids}")
    return entries
