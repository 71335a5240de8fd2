"""Manifest of figures: which were made, from what; the pictures themselves stay with the executed notebook."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from replicate.errors import ReplicateError
from replicate.evidence.records import load_all, merge, now, paper_of
from replicate.paths import results_dir
from replicate.provenance import commit
from replicate.vocabulary import FACES, PROFILES, check_one_of

KEY = ("artefact", "title", "subset")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure that a notebook made.

    Parameters
    ----------
    artefact : str
        ``"DAN-F4"``.
    title : str
        Tells figures of one artefact apart.
    alt : str
        What a person who cannot see it should know.
    faces, profile : str
        What it was made from.
    subset : str
        Test set shown, if any.
    images, seeds : int or None
        Behind it.
    box_rule : str
        Where starting boxes come from.
    """

    artefact: str
    title: str
    alt: str
    faces: str
    profile: str
    subset: str = ""
    images: int | None = None
    seeds: int | None = None
    box_rule: str = ""
    commit: str | None = field(default_factory=commit)
    recorded_at: str = field(default_factory=now)

    def __post_init__(self) -> None:
        paper_of(self.artefact)
        check_one_of("faces", self.faces, FACES)
        check_one_of("profile", self.profile, PROFILES)
        if not self.title or not self.alt:
            raise ReplicateError(
                f"title, alt: a figure of {self.artefact} needs both, got {self.title!r} and {self.alt!r}"
            )

    def to_dict(self) -> dict:
        """The figure as JSON values."""
        return asdict(self)


def path_of(artefact: str, faces: str, profile: str) -> Path:
    """File that lists a paper's figures."""
    return results_dir(profile) / paper_of(artefact) / f"figures.{faces}.{profile}.json"


def record(figures: Iterable[Figure]) -> list[Path]:
    """Merge figures into their manifests; returns the files that changed. See `rows.record`."""
    files: dict[Path, list[dict]] = {}
    for figure in figures:
        files.setdefault(path_of(figure.artefact, figure.faces, figure.profile), []).append(figure.to_dict())
    return [path for path, new in files.items() if merge(path, new, lambda r: tuple(r[name] for name in KEY))]


def load(paper: str | None = None, profiles: Iterable[str] = PROFILES) -> list[Figure]:
    """Recorded figures of one paper or of all.

    Raises
    ------
    ReplicateError
        If a file is damaged, naming it.
    """
    return load_all(Figure, "figure", f"{paper or '*'}/figures.*", profiles)
