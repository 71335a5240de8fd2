"""Claims whose numbers stand for several test sets, and claims against methods that are not run here.

Both judge each of a claim's quantities on the test set that it names (`Quantity.at`), as far as predictions on it are given; the worst of these
verdicts counts, and the note has all of them.
"""

from collections.abc import Callable, Mapping, Sequence

from replicate.errors import ReplicateError
from replicate.evidence import published, verdicts
from replicate.evidence.claims import Claim, Quantity, Verdict
from replicate.evidence.measured import failure_count
from replicate.evidence.predictions import Predictions, stacked_errors
from replicate.vocabulary import check_one_of

Runs = Mapping[str, Sequence[Predictions]]  # by test set, one per training seed


def judge_on(claim: Claim, left: Runs, right: Runs, *, faces: str, profile: str, note: str = "") -> Verdict:
    """Judge a claim at each test set that it names and for which both sides have runs.

    Raises
    ------
    ReplicateError
        If there is none.
    """

    def judge(quantity: Quantity) -> Verdict:
        errors = (stacked_errors(list(side[quantity.at]), quantity.normaliser) for side in (left, right))
        where = dict(metric=quantity.metric, at=quantity.at, faces=faces, profile=profile)
        return verdicts.judge_paired(claim, *errors, **where)

    return _judge_each(claim, left.keys() & right.keys(), judge, note)


def judge_published(
    claim: Claim, runs: Runs, method: str, *, faces: str, profile: str, note: str = ""
) -> Verdict:
    """Judge a claim of which one side is a method that is not run here, by the number that the claim's paper prints for it.

    Parameters
    ----------
    runs : dict of str to sequence of Predictions
        Of the other side, on the paper's test sets.
    method : str
        The method that is not run, as the claim and the published values name it.
    """
    check_one_of(f"method of {claim.id} that is not run", method, (claim.left, claim.right))

    def judge(quantity: Quantity) -> Verdict:
        return verdicts.judge_against_number(
            claim,
            stacked_errors(list(runs[quantity.at]), quantity.normaliser),
            printed(claim.artefacts, method, quantity.at, quantity.metric),
            statistic=verdicts.statistic_of(quantity.metric),
            faces=faces,
            profile=profile,
            quantity=quantity,
            number_is_left=method == claim.left,
        )

    remark = (
        f"{method} is not run here: its number is the printed one, without an interval and from its own boxes"
    )
    return _judge_each(claim, runs.keys(), judge, "; ".join(filter(None, [note, remark])))


def judge_failures(
    claim: Claim, runs: Sequence[Predictions], *, faces: str, profile: str, note: str = ""
) -> Verdict:
    """Judge a claim that as many faces fail as the paper counted; with several seeds, their mean number.

    Parameters
    ----------
    runs : sequence of Predictions
        On the test set that the claim names.
    """
    errors = stacked_errors(list(runs), "inter-ocular")

    quantity = claim.quantity()
    counts = f"{failure_count(errors).sum()} of {errors.size} fail"
    return verdicts.judge_against_number(
        claim,
        errors,
        quantity.paper_right,
        statistic=failure_count,
        faces=faces,
        profile=profile,
        note="; ".join(filter(None, [note, counts])),
    )


def printed(artefacts: str | Sequence[str], method: str, subset: str, metric: str) -> float:
    """The number that a paper's artefacts have for a method on a test set; the metric with its normaliser after a comma."""
    name, _, normaliser = metric.partition(", ")
    return published.value(artefacts, label=method, subset=subset, metric=name, normaliser=normaliser)


def _judge_each(
    claim: Claim, given: Sequence[str] | set[str], judge: Callable[[Quantity], Verdict], note: str
) -> Verdict:
    judged = [(quantity, judge(quantity)) for quantity in claim.quantities if quantity.at in given]
    named = list(dict.fromkeys(quantity.at for quantity in claim.quantities))
    if not judged:
        raise ReplicateError(
            f"{claim.id} is about {', '.join(named)}; got runs on {', '.join(sorted(given))}"
        )
    absent = [at for at in named if at not in given]
    remark = f"not judged on {', '.join(absent)}: not at hand" if absent else ""
    note = "; ".join(filter(None, [note, remark]))
    if len(claim.quantities) > 1:
        return verdicts.combine_quantities(claim, judged, note)
    [(_, verdict)] = judged
    return verdict.with_note(note)
