"""Claims whose numbers stand for several test sets, and claims against methods that are not run here.

Both judge each of a claim's quantities on the test set that it names (`Quantity.at`), as far as predictions on it are given; the worst of these
verdicts counts, and the note has all of them.
"""

from collections.abc import Callable, Mapping, Sequence

from replicate.errors import ReplicateError
from replicate.evidence import published, verdicts
from replicate.evidence.claims import Claim, Quantity, Verdict
from replicate.evidence.measured import failure_count
from replicate.evidence.predictions import Predictions, Runs, stacked_errors, trained_on
from replicate.metrics import Comparison
from replicate.vocabulary import check_one_of

Comparisons = Comparison | Mapping[str, Comparison]


def judge(
    claim: Claim,
    left: Sequence[Predictions],
    right: Sequence[Predictions],
    *,
    faces: str,
    profile: str,
    note: str = "",
) -> Verdict:
    """Judge a claim on all of its metrics of the same faces, such as DAN-C4's three: all have to hold.

    Where the paper prints numbers of one metric under several conditions, the first gives the effect.
    """

    def one(quantity: Quantity) -> Verdict:
        errors = (stacked_errors(list(side), quantity.normaliser) for side in (left, right))
        return verdicts.judge_paired(claim, *errors, faces=faces, profile=profile, metric=quantity.metric)

    note = "; ".join(filter(None, [note, _unlike(left, right)]))
    metrics = dict.fromkeys(quantity.metric for quantity in claim.quantities)
    judged = [(quantity, one(quantity)) for quantity in map(claim.quantity, metrics)]
    return (
        verdicts.combine_quantities(claim, judged, note) if len(judged) > 1 else judged[0][1].with_note(note)
    )


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
    """Judge a claim of which one side is a method that is not run here, by the number that the claim states for it, or else its artefacts.

    Parameters
    ----------
    runs : dict of str to sequence of Predictions
        Of the other side, on the paper's test sets.
    method : str
        The method that is not run, as the claim and the published values name it.
    """
    check_one_of(f"method of {claim.id} that is not run", method, (claim.left, claim.right))
    is_left = method == claim.left

    def judge(quantity: Quantity) -> Verdict:
        number = quantity.paper_left if is_left else quantity.paper_right
        if number is None:
            number = printed(claim.artefacts, method, quantity.at, quantity.metric)
        return verdicts.judge_against_number(
            claim,
            stacked_errors(list(runs[quantity.at]), quantity.normaliser),
            number,
            statistic=verdicts.statistic_of(quantity.metric),
            faces=faces,
            profile=profile,
            quantity=quantity,
            number_is_left=is_left,
        )

    remark = (
        f"{method} is not run here: its number is the printed one, without an interval and from its own boxes"
    )
    return _judge_each(claim, runs.keys(), judge, "; ".join(filter(None, [note, remark])))


def _unlike(left: Sequence[Predictions], right: Sequence[Predictions]) -> str:
    """How many faces each side was trained on, if not the same."""
    sides = [trained_on(runs[0].provenance) for runs in (left, right)]
    return "" if sides[0] == sides[1] else " against ".join(sides)


def judge_number(
    claim: Claim, runs: Sequence[Predictions], *, faces: str, profile: str, note: str = ""
) -> Verdict:
    """Judge a claim whose right side is a number that the paper prints.

    Parameters
    ----------
    runs : sequence of Predictions
        Of the left side, on the test set that the claim names.

    Raises
    ------
    ReplicateError
        If the paper prints none.
    """
    quantity = claim.quantity()
    if quantity.paper_right is None:
        raise ReplicateError(f"{claim.id}: the paper prints no number of {claim.right}")
    return verdicts.judge_against_number(
        claim,
        stacked_errors(list(runs), quantity.normaliser),
        quantity.paper_right,
        statistic=verdicts.statistic_of(quantity.metric),
        faces=faces,
        profile=profile,
        note=note,
    )


def judge_comparison(
    claim: Claim,
    comparison: Comparisons,
    *,
    faces: str,
    profile: str,
    images: int | None = None,
    seeds: int | None = None,
    note: str = "",
) -> Verdict:
    """Judge a claim about something else than errors by comparisons made elsewhere; of several, the worst counts.

    Parameters
    ----------
    comparison : Comparison, or dict of str to Comparison
        By the condition that the claim names, or by another name in words.

    Raises
    ------
    ReplicateError
        If the claim is about errors, or about a range, or if there is no comparison.
    """
    if claim.quantity().of_errors:
        raise ReplicateError(
            f"{claim.id} is about {claim.quantity().metric}: judge it by the errors on record (`judge`, `judge_on`)"
        )
    several = {"": comparison} if isinstance(comparison, Comparison) else comparison
    about = dict(faces=faces, profile=profile, images=images, seeds=seeds)
    conditions = {quantity.at for quantity in claim.quantities}
    judged = []
    for name, one in several.items():
        quantity = claim.quantity(at=name if name in conditions else None)
        judged.append(verdicts.judge_comparison(claim, one, quantity=quantity, **about))
    if len(judged) == 1:
        return judged[0].with_note(note)
    ranked = sorted(zip(judged, several, strict=True), key=lambda one: verdicts.ORDER.index(one[0].verdict))
    return verdicts.combine(*zip(*ranked, strict=True), note)  # what decides comes first, with its numbers


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
    """The number that a paper's artefacts have for a method on a test set; the metric with its normaliser after a comma.

    After another comma comes a part of the face, ``"51 points"``.
    """
    name, normaliser, *part = metric.split(", ")
    points = {"points": part[0].removesuffix(" points")} if part else {}
    return published.value(
        artefacts, label=method, subset=subset, metric=name, normaliser=normaliser, **points
    )


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
    return judged[0][1].with_note(note)
