"""Speed on record: rates of several ways of doing the same, timed in turn and kept, because no two runs time alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from replicate.errors import ReplicateError
from replicate.evidence import claims, rows
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.metrics import bootstrap_mean

LEAST_ROUNDS = 10


@dataclass(frozen=True, eq=False)
class Rates:
    """What was timed.

    Attributes
    ----------
    by_way : mapping of str to array
        Per method (R,) rates in R rounds, paired: a round times all of them.
    count : int
        Things that each call handled.
    device, note : str
        For the rows.
    """

    by_way: Mapping[str, np.ndarray]
    count: int
    device: str
    note: str


def alternate(
    ways: Sequence[Callable[[], object]],
    count: int,
    rounds: int,
    clock: Callable[[], float] | None = None,
) -> np.ndarray:
    """Rates (W, rounds) of W ways to handle `count` things; each is called once before, to warm up.

    A round times every way, in an order that turns around each time, so that what slows the machine down slows down all.

    Parameters
    ----------
    clock : callable, optional
        Gives seconds: of the wall by default; those of the processor count no other programs.

    Raises
    ------
    ReplicateError
        For fewer rounds than an interval over them needs.
    """
    if rounds < LEAST_ROUNDS:
        raise ReplicateError(
            f"rounds: got {rounds}, expected at least {LEAST_ROUNDS}, for an interval over them"
        )
    clock = clock or time.perf_counter
    for way in ways:
        way()
    rates = np.empty((len(ways), rounds))
    for number in range(rounds):
        for place in list(range(len(ways)))[:: 1 if number % 2 else -1]:
            began = clock()
            ways[place]()
            rates[place, number] = count / (clock() - began)
    return rates


def on_record(run: Experiment, artefact: str, metric: str, methods: Sequence[str]) -> list[Row] | None:
    """The rows of these methods, in their order; None if one is missing or the experiment asks for everything afresh."""
    known = [] if run.fresh else rows.load(run.paper, run.faces, run.profile)
    found = {row.method: row for row in known if (row.artefact, row.metric) == (artefact, metric)}
    return [found[method] for method in methods] if set(methods) <= found.keys() else None


def known(
    run: Experiment, wanted: Sequence[tuple[str, str, Sequence[str]]], claim_id: str
) -> tuple[list[Row], Verdict] | None:
    """What a measurement gave: its rows and the verdict on its claim; None if anything is missing, see `on_record`.

    Parameters
    ----------
    wanted : sequence of (str, str, sequence of str)
        Artefact, metric and methods of the rows.
    """
    recorded = [on_record(run, *one) for one in wanted]
    judged = verdict_on_record(run, claim_id)
    return ([row for found in recorded for row in found], judged) if all(recorded) and judged else None


def verdict_on_record(run: Experiment, claim_id: str) -> Verdict | None:
    """The verdict on a claim about what was timed; None if there is none or the experiment asks for everything afresh."""
    known = [] if run.fresh else claims.recorded(run.paper, [run.profile])
    return next((v for v in known if (v.claim, v.faces) == (claim_id, run.faces)), None)


def rate_rows(run: Experiment, artefact: str, metric: str, unit: str, rates: Rates) -> list[Row]:
    """One row per way: its mean rate over the rounds with a 95 % interval."""
    about = dict(images=rates.count, device=rates.device, note=rates.note)
    return [
        round_row(run, artefact, method, metric, unit, values, seconds=(rates.count / values).sum(), **about)
        for method, values in rates.by_way.items()
    ]


def round_row(
    run: Experiment,
    artefact: str,
    method: str,
    metric: str,
    unit: str,
    values: np.ndarray,
    *,
    device: str,
    note: str,
    images: int | None = None,
    seconds: float | None = None,
) -> Row:
    """The mean of what each round gave (R,), with a 95 % interval over the rounds."""
    value, low, high = bootstrap_mean(values)
    return Row(
        artefact=artefact, method=method, protocol="", subset="", points=None, metric=metric, normaliser=NO_NORMALISER,
        value=value, ci_low=low, ci_high=high, unit=unit, images=images, seeds=1, faces=run.faces, profile=run.profile,
        device=device, seconds=seconds, note=f"{note}; {len(values)} rounds; {device}",
    )  # fmt: skip
