"""The papers' claims and the verdicts on them, in a ledger that leaves none out."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

import yaml

from replicate.errors import ReplicateError
from replicate.evidence.records import load_all, merge, now, paper_of
from replicate.paths import published_dir, results_dir
from replicate.provenance import commit
from replicate.vocabulary import FACES, PROFILES, check_one_of

DIRECTIONS = ("lower", "higher", "equal", "not lower", "bound")
JUDGED = ("reproduced", "direction holds", "not reproduced")  # need an interval
VERDICTS = (*JUDGED, "inconclusive", "not testable", "not run")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What a claim compares, with what the paper prints.

    Parameters
    ----------
    metric : str
        ``"mean error, inter-ocular"``.
    at : str
        Subset, input size or other condition of the printed numbers.
    paper_left, paper_right : float or None
        Printed numbers of both sides.
    paper_relative : float or None
        Printed relative difference, (left - right) / right.
    margin : dict
        Of an equality, or of an order that is to be clear: ``absolute`` or ``relative`` (to the right side), and the ``reason``; of a bound:
        ``low`` and ``high``.
    """

    metric: str
    at: str = ""
    paper_left: float | None = None
    paper_right: float | None = None
    paper_relative: float | None = None
    margin: Mapping = field(default_factory=dict)

    @property
    def effect(self) -> float | None:
        """The paper's difference relative to its right side; None if it prints none."""
        if self.paper_left is None or not self.paper_right:
            return self.paper_relative
        return (self.paper_left - self.paper_right) / self.paper_right

    @property
    def unit(self) -> str:
        """``"%"`` for errors and rates; counts and speeds have a metric that names its unit."""
        rates = ("AUC", "failure", "slope", "occlusion recall")
        return "%" if self.normaliser or self.metric.startswith(rates) else ""

    @property
    def of_errors(self) -> bool:
        """Whether it follows from the errors of single faces: a mean error, an area or a failure rate."""
        return bool(self.normaliser)

    @property
    def normaliser(self) -> str:
        """Normaliser that the metric names after a comma; empty if it names none."""
        return self.metric.partition(", ")[2]

    def margin_at(self, right: float) -> float | None:
        """Margin of an equality or of a clear order in the unit of the metric, for a right side of this size; None if it states none."""
        if "relative" in self.margin:
            return self.margin["relative"] * abs(right)
        return self.margin.get("absolute")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A comparison that a paper makes.

    Parameters
    ----------
    id : str
        ``"DAN-C1"``.
    statement : str
        The claim in our words.
    direction : str
        How left compares with right: ``lower``, ``higher``, ``equal``; or ``bound``: left lies between two
        limits.
    left, right : str
        The two sides; methods are named as in rows.
    quantities : tuple of Quantity
        What is compared.
    artefacts : tuple of str
        Where the paper makes the claim.
    transferable : bool
        Whether other faces than the paper's can test it.
    needs : tuple of str
        Data sets that it needs and that are not at hand.
    note : str
        A remark for the reader.
    """

    id: str
    statement: str
    direction: str
    left: str
    right: str = ""
    quantities: tuple[Quantity, ...]
    artefacts: tuple[str, ...]
    transferable: bool
    needs: tuple[str, ...] = ()
    note: str = ""

    @property
    def paper(self) -> str:
        """Paper that makes the claim."""
        return paper_of(self.id)

    def quantity(self, metric: str | None = None, at: str | None = None) -> Quantity:
        """The first quantity with this metric (its name without the normaliser is enough) and condition."""
        found = [
            q
            for q in self.quantities
            if (metric is None or metric in (q.metric, q.metric.split(", ")[0])) and at in (None, q.at)
        ]
        if not found:
            shown = "; ".join(f"{q.metric} {q.at}".strip() for q in self.quantities)
            raise ReplicateError(f"{self.id} compares {shown}, not {metric!r} at {at!r}")
        return found[0]

    def equality_margin(self, right: float | None) -> float | None:
        """Within which a claim of equality holds, for a right side; None for other claims, or without a right side."""
        wanted = self.direction == "equal" and right is not None
        return self.quantity().margin_at(right) if wanted else None

    def to_dict(self) -> dict:
        """The claim with its ledger of verdicts, as ``replicate claims --json`` prints it."""
        names = ("id", "paper", "statement", "transferable", "direction", "note")
        about = {name: getattr(self, name) for name in names}
        return about | {"verdicts": [verdict.to_dict() for verdict in ledger(self)]}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the comparison came to on given faces and profile.

    Parameters
    ----------
    claim : str
        Its id.
    faces, profile : str
        Where it was tested.
    verdict : str
        One of `VERDICTS`.
    left, right, difference : float or None
        The two sides, and left minus right.
    ci_low, ci_high : float or None
        95 % interval of the difference.
    p_value : float or None
        Two-sided.
    images, seeds : int or None
        Behind the comparison.
    note : str
        Counts, other quantities, remarks.
    """

    claim: str
    faces: str
    profile: str
    verdict: str
    left: float | None = None
    right: float | None = None
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    p_value: float | None = None
    images: int | None = None
    seeds: int | None = None
    note: str = ""
    commit: str | None = field(default_factory=commit)
    recorded_at: str = field(default_factory=now)

    def __post_init__(self) -> None:
        check_one_of("faces", self.faces, FACES)
        check_one_of("profile", self.profile, PROFILES)
        check_one_of("verdict", self.verdict, VERDICTS)
        if self.verdict in JUDGED and (self.ci_low is None or self.ci_high is None):
            raise ReplicateError(f"{self.claim}: the verdict {self.verdict!r} needs ci_low and ci_high")
        for name in ("left", "right", "difference", "ci_low", "ci_high", "p_value"):
            number = getattr(self, name)
            if number is not None:
                object.__setattr__(self, name, float(f"{float(number):.6g}"))

    def with_note(self, note: str) -> "Verdict":
        """The verdict with a remark put before its own."""
        return replace(self, note="; ".join(filter(None, [note, self.note])))

    def to_dict(self) -> dict:
        """The verdict as JSON values."""
        return asdict(self)


def load() -> list[Claim]:
    """All claims in the papers' order."""
    return list(_claims())


def get(identity: str) -> Claim:
    """One claim by its id."""
    by_id = {claim.id: claim for claim in _claims()}
    return by_id[check_one_of("claim", identity, by_id)]


def path_of(claim: str, faces: str, profile: str) -> Path:
    """File that holds the verdicts on a paper's claims."""
    return results_dir(profile) / paper_of(claim) / f"claims.{faces}.{profile}.json"


def record(verdicts: Iterable[Verdict]) -> list[Path]:
    """Merge verdicts into their files; returns the files that changed. See `rows.record`."""
    files: dict[Path, list[dict]] = {}
    for verdict in verdicts:
        get(verdict.claim)
        files.setdefault(path_of(verdict.claim, verdict.faces, verdict.profile), []).append(verdict.to_dict())
    return [path for path, new in files.items() if merge(path, new, lambda record: (record["claim"],))]


def recorded(paper: str | None = None, profiles: Iterable[str] = PROFILES) -> list[Verdict]:
    """Recorded verdicts, of one paper or of all.

    Raises
    ------
    ReplicateError
        If a file is damaged, naming it.
    """
    return load_all(Verdict, "verdict", f"{paper or '*'}/claims.*", profiles)


def ledger(claim: Claim) -> list[Verdict]:
    """Verdicts on a claim for both kinds of faces, at the `cpu` and `gpu` profiles.

    Where none is recorded, the ledger says whether the claim cannot be tested on those faces or has not been.
    Smoke verdicts mean nothing and are left out.
    """
    found = [v for v in recorded(claim.paper, ("cpu", "gpu")) if v.claim == claim.id]
    verdicts = []
    for faces in FACES:
        own = [v for v in found if v.faces == faces]
        verdicts += own or [unjudged(claim, faces)]
    return verdicts


def as_json() -> list[dict]:
    """All claims with their verdicts as ``replicate claims --json`` prints them."""
    return [claim.to_dict() for claim in load()]


def unjudged(claim: Claim, faces: str, profile: str = "cpu") -> Verdict:
    """What the ledger says of a claim that has not been judged on these faces: not run, or not testable and why."""
    verdict, note = "not run", ""
    if faces == "synthetic" and not claim.transferable:
        verdict, note = "not testable", "needs the paper's own data or another method's numbers"
    elif faces == "real" and claim.needs:
        verdict, note = "not testable", f"needs data that are not at hand: {', '.join(claim.needs)}"
    return Verdict(
        claim=claim.id, faces=faces, profile=profile, verdict=verdict, note=note, commit=None, recorded_at=""
    )


@cache
def _claims() -> tuple[Claim, ...]:
    path = published_dir() / "claims.yaml"
    return tuple(_claim(entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8")))


def _claim(entry: dict) -> Claim:
    check_one_of(f"direction of {entry['id']}", entry["direction"], DIRECTIONS)
    quantities = tuple(Quantity(**quantity) for quantity in entry["quantities"])
    lists = {name: tuple(entry.get(name, ())) for name in ("artefacts", "needs")}
    return Claim(**{**entry, **lists, "quantities": quantities})
