"""Claims on several test sets, and against numbers that a paper prints of a method that is not run here."""

import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.evidence import claims, judging
from replicate.evidence.predictions import Predictions
from replicate.metrics import bootstrap_mean, bootstrap_statistic, failure_percent

WHERE = dict(faces="real", profile="cpu")
NOT_RUN = "is not run here: its number is the printed one, without an interval and from its own boxes"


def runs(mean, images=200, seeds=2, model="a"):
    """Runs whose inter-ocular errors have this mean, and inter-pupil errors 1.4 times it."""
    made = []
    for seed in range(seeds):
        errors = np.random.default_rng(seed).gamma(4, 1, images)
        errors *= mean / errors.mean()
        by_normaliser = {"inter-ocular": errors, "inter-pupil": 1.4 * errors}
        names = tuple(map(str, range(images)))
        made.append(Predictions(f"{model}{seed}", "toy", "real", names, by_normaliser))
    return made


def test_every_named_test_set_is_judged_and_the_worst_counts():
    claim = claims.get("DAN-C9")
    better = {"full": runs(3.0), "common": runs(2.5), "challenging": runs(4.5), "private": runs(4.2)}
    plain = {"full": runs(3.5), "challenging": runs(5.0), "private": runs(4.0), "common": runs(3.0)}
    judged = judging.judge_on(claim, better, plain, **WHERE)
    assert (judged.left, judged.right) == (pytest.approx(3.0), pytest.approx(3.5))
    assert judged.verdict == "not reproduced"
    parts = judged.note.split("; ")
    assert [part.split(":")[0] for part in parts] == ["full", "common", "challenging", "private"]
    assert [part.endswith("not reproduced") for part in parts] == [False, False, False, True]


def test_a_test_set_that_is_not_at_hand_is_named():
    better, plain = (
        {"full": runs(3.0), "challenging": runs(4.5)},
        {"full": runs(3.5), "challenging": runs(5.0)},
    )
    judged = judging.judge_on(claims.get("DAN-C9"), better, plain, **WHERE, note="of the test")
    assert judged.verdict == "reproduced"
    assert judged.note.startswith("of the test; not judged on common, private: not at hand; full: -0.5 [")
    with pytest.raises(
        ReplicateError, match="DAN-C9 is about full, common, challenging, private; got runs on train"
    ):
        judging.judge_on(claims.get("DAN-C9"), {"train": runs(3.0)}, {"train": runs(3.0)}, **WHERE)


def test_the_number_of_a_method_that_is_not_run_is_the_printed_one():
    ours = {"full": runs(4.0), "challenging": runs(5.0)}
    judged = judging.judge_published(claims.get("DAN-C7"), ours, "RAR", **WHERE)
    interval = bootstrap_mean(np.stack([run.errors["inter-pupil"] for run in ours["challenging"]]))
    assert (judged.left, judged.right) == (pytest.approx(7.0), 8.35)
    assert (judged.ci_low, judged.ci_high) == pytest.approx(
        (interval.low - 8.35, interval.high - 8.35), rel=1e-4
    )
    assert judged.verdict == "reproduced" and judged.note == f"RAR {NOT_RUN}"


def test_failure_rates_are_judged_in_per_cent():
    ours = {"full": runs(3.5)}
    judged = judging.judge_published(claims.get("DAN-C5"), ours, "MDM", **WHERE)
    errors = np.stack([run.errors["inter-ocular"] for run in ours["full"]])
    interval = bootstrap_statistic(errors, failure_percent_8)
    assert (judged.left, judged.right) == (pytest.approx(interval.value, rel=1e-5), 4.21)
    assert judged.ci_high == pytest.approx(interval.high - 4.21, rel=1e-4)


def failure_percent_8(samples, axis=-1):
    return failure_percent(samples, 8.0, axis)


def test_a_claim_in_favour_of_the_other_method_has_its_number_on_the_left():
    judged = judging.judge_published(
        claims.get("DAN-C8"), {"common": runs(3.2), "full": runs(3.3)}, "RAR", **WHERE
    )
    assert (judged.left, judged.right) == (4.12, pytest.approx(1.4 * 3.2))
    assert judged.ci_low < judged.difference < judged.ci_high
    assert judged.note.startswith(f"RAR {NOT_RUN}; common: -0.36 [") and "; full: +0.32 [" in judged.note
    assert judged.verdict == "not reproduced"


def test_a_method_that_the_claim_does_not_name_is_refused():
    with pytest.raises(
        ReplicateError, match="method of DAN-C7 that is not run: got 'MDM', expected one of DAN, RAR"
    ):
        judging.judge_published(claims.get("DAN-C7"), {"challenging": runs(5.0)}, "MDM", **WHERE)


@pytest.mark.parametrize(("seeds", "failing"), [(1, [7]), (2, [6, 9])])
def test_failures_are_counted_per_seed(seeds, failing):
    made = []
    for seed, count in enumerate(failing):
        errors = np.full(135, 4.0)
        errors[:count] = 9.0
        made.append(
            Predictions(f"a{seed}", "toy", "real", tuple(map(str, range(135))), {"inter-ocular": errors})
        )
    judged = judging.judge_failures(claims.get("DAN-C17"), made, **WHERE)
    assert (judged.left, judged.right) == (np.mean(failing), 7.0)
    assert judged.note == f"{sum(failing)} of {135 * seeds} fail"
    assert (
        judged.ci_low < -2 and judged.ci_high > 2 and judged.verdict == "inconclusive"
    )  # 135 faces say no more
