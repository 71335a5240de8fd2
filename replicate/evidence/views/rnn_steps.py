"""What the RNN chapter shows of one network by where it starts (§IV-D.3: Table X) and after how many steps (§IV-D.5: Table XII)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from replicate.evidence import claims, judging, published, tested, verdicts
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions, Runs, stacked_errors, swept, under
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.tables import Table
from replicate.evidence.views.ablations import with_interval
from replicate.evidence.views.compared import runs_caption, sets_caption
from replicate.evidence.views.ect_sweeps import TOLERANCES, iterations_to_converge
from replicate.evidence.views.rnn_ablations import RNN
from replicate.evidence.views.rnn_effects import NORMALISER, Change
from replicate.faces.sources import FaceSource
from replicate.methods.rnn import RNNConfig
from replicate.metrics import bootstrap_mean, curve_interval, paired_bootstrap

MEAN = "RNN, initialisation: mean shape"
_GROUPS = ("nearest quarter", "second quarter", "third quarter", "farthest quarter")


def condition(key: str) -> str:
    """What a key of errors names behind its normaliser, as `predictions.under` takes it."""
    return key.partition(", ")[2]


# Starting shapes (Table X) --------------------------------------------------------------------------------------------------------------


def searched(count: int) -> str:
    """The start from the nearest of N candidates as its rows name it."""
    return f"RNN, initialisation: candidate search N = {count}"


def by_start(run: Experiment, config: RNNConfig, runs: Sequence[Predictions]) -> dict[str, list[Predictions]]:
    """Runs with several starts as a mapping by start: the mean shape, then the nearest of more and more candidates."""
    counts = sorted((config.candidates, *tested.CANDIDATES[run.profile]))
    found = {MEAN: under(runs, condition(tested.MEAN_START))}
    return found | {searched(count): under(runs, f"{count} candidates") for count in counts}


def search_changes(run: Experiment, config: RNNConfig) -> tuple[Change, ...]:
    """What Table X changes: the search for the mean shape, and other numbers of candidates for the one in use."""
    own = searched(config.candidates)
    others = (
        Change(f"{count:,} instead of {config.candidates} candidates", searched(count), own)
        for count in tested.CANDIDATES[run.profile]
    )
    return (Change(f"{config.candidates} candidates instead of the mean shape", own, MEAN), *others)


def judge_starts(run: Experiment, config: RNNConfig, results: Runs) -> list[Verdict]:
    """Judge and record RNN-C7 and C8 by runs on the full set, see `by_start`."""
    own, counts = results[searched(config.candidates)], tested.CANDIDATES[run.profile]
    named = [quantity.at for quantity in claims.get("RNN-C8").quantities]
    more = {at: results[searched(count)] for at, count in zip(named, counts, strict=True)}
    return [
        run.judge("RNN-C7", own, results[MEAN]),
        run.judge_on("RNN-C8", dict.fromkeys(more, own), more),
    ]


def beginnings_table(
    run: Experiment, config: RNNConfig, results: Mapping[str, Sequence[Predictions]], title: str
) -> Table:
    """Where each start begins and where it ends, and what the network finds without any step: mean errors on each test set with intervals.

    Parameters
    ----------
    results : dict
        By test set: runs with several starts.
    """
    lines = []
    for name, runs in results.items():
        peaks = bootstrap_mean(stacked_errors(list(runs), tested.PEAKS_ALONE))
        lines.append((name, "peaks of conv8, which no step follows", with_interval(*peaks), "–"))
        for start, (begun, ended) in _ends(run, config, runs).items():
            ends = [with_interval(*bootstrap_mean(one)) for one in (begun, ended)]
            lines.append((name, start, *ends))
    columns = ["test set", "shape", f"at first, % {NORMALISER}", "after all steps"]
    about = sets_caption(run, {name: {RNN: runs} for name, runs in results.items()}, RNN, title)
    return Table(pd.DataFrame(lines, columns=columns), about)


def _ends(
    run: Experiment, config: RNNConfig, runs: Sequence[Predictions]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Errors (S, N) of the first and of the last shape by start."""
    keys = {"mean shape": tested.MEAN_START}
    counts = sorted((config.candidates, *tested.CANDIDATES[run.profile]))
    keys |= {f"nearest of {count:,} candidates": f"{NORMALISER}, {count} candidates" for count in counts}
    return {
        name: tuple(stacked_errors(list(runs), one) for one in (f"{key}, start", key))
        for name, key in keys.items()
    }


def sensitivity_table(
    run: Experiment, config: RNNConfig, source: FaceSource, runs: Sequence[Predictions], title: str
) -> Table:
    """Errors at first and at last from the mean shape and from the search, for quarters of the faces by how far the mean shape is from the truth."""
    ends = _ends(run, config, runs)
    mean, search = ends["mean shape"], ends[f"nearest of {config.candidates:,} candidates"]
    lines = []
    for name, faces in zip(_GROUPS, np.array_split(mean[0].mean(0).argsort(), len(_GROUPS)), strict=True):
        compared = paired_bootstrap(search[1][:, faces], mean[1][:, faces])
        cells = (f"{one[:, faces].mean():.2f}" for one in (mean[0], search[0], mean[1], search[1]))
        difference = with_interval(compared.difference, compared.low, compared.high, "+")
        lines.append((name, *cells, difference))
    sides = ("from the mean shape", f"from {config.candidates} candidates")
    columns = ["faces", *(f"{when}, {side}, %" for when in ("at first", "at last") for side in sides)]
    return Table(
        pd.DataFrame(lines, columns=[*columns, "difference at last"]), runs_caption(run, source, runs, title)
    )


# Steps (Table XII) ----------------------------------------------------------------------------------------------------------------------


def stepped(step: int) -> str:
    """The shape after a step as its rows name it."""
    return f"RNN, after step {step}"


def by_step(runs: Sequence[Predictions]) -> dict[str, list[Predictions]]:
    """Runs as a mapping by step: the shapes after the first step, after the second and so on."""
    steps, _ = swept(runs, NORMALISER, "steps")
    return {stepped(step): under(runs, f"{step} steps") for step in steps if step > 0}


def changes_table(run: Experiment, source: FaceSource, runs: Sequence[Predictions], title: str) -> Table:
    """The mean error after each step, beginning with the initial shape, and its paired change by that step."""
    steps, errors = swept(runs, NORMALISER, "steps")
    lines = []
    for place, step in enumerate(steps):
        error, change = bootstrap_mean(errors[..., place]), "–"
        if place:
            _, _, *found, _ = paired_bootstrap(errors[..., place], errors[..., place - 1])
            change = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*found)
        lines.append((step, with_interval(*error), change))
    columns = ["step", f"mean error, % {NORMALISER}", "change by this step"]
    return Table(pd.DataFrame(lines, columns=columns), runs_caption(run, source, runs, title))


def stable_rows(
    run: Experiment, sources: Mapping[str, FaceSource], results: Mapping[str, Sequence[Predictions]]
) -> list[Row]:
    """S16: steps from which on the mean error stays within `ect_sweeps.TOLERANCE` per cent of the last; that of the full set also as the paper has it.

    Parameters
    ----------
    results : dict
        Runs by test set, one of them ``"full"``.
    """
    made = {}
    for name, source in sources.items():
        found = curve_interval(swept(results[name], NORMALISER, "steps")[1], iterations_to_converge)
        [row] = run.error_rows("RNN-S16", RNN, source, results[name], [NORMALISER], rates=None)
        what = dict(metric="steps after which error is stable", normaliser=NO_NORMALISER, points=None, unit="")  # fmt: skip
        made[name] = replace(row, value=found.value, ci_low=found.low, ci_high=found.high, **what)
    return [
        *made.values(),
        replace(made["full"], protocol="", subset="", images=None),
    ]  # it names no test set


def tolerance_table(run: Experiment, results: Mapping[str, Sequence[Predictions]], title: str) -> Table:
    """Steps from which on the error is stable by several tolerances, on each test set, here and by Table XII: what the definition decides."""
    lines = []
    for name, runs in results.items():
        errors, printed = swept(runs, NORMALISER, "steps")[1], printed_means(name)
        found = [curve_interval(errors, partial(iterations_to_converge, tolerance=one)) for one in TOLERANCES]
        lines.append((name, "here", *(f"{one.value:.3g} [{one.low:.3g}, {one.high:.3g}]" for one in found)))
        theirs = (1 + iterations_to_converge(printed, one) for one in TOLERANCES)  # it begins with step 1
        lines.append((name, "the paper", *theirs))
    about = sets_caption(run, {name: {RNN: runs} for name, runs in results.items()}, RNN, title)
    columns = ["test set", "errors", *(f"within {tolerance:g} %" for tolerance in TOLERANCES)]
    return Table(pd.DataFrame(lines, columns=columns), about)


def printed_means(subset: str) -> np.ndarray:
    """The paper's mean errors (8,) on a test set of 300-W after each step, in per cent."""
    values = published.load("rnn")
    return values[(values["artefact"] == "RNN-T12") & (values["subset"] == subset)]["number"].to_numpy()


def judge_steps(run: Experiment, runs: Sequence[Predictions]) -> list[Verdict]:
    """Judge and record RNN-C11 and C12 by runs on the full set.

    C12 speaks of each step. The worst verdict on a single step decides, and gives the numbers; the note has all steps.
    """
    shapes = by_step(runs)
    converged = run.judge("RNN-C11", shapes[stepped(4)], shapes[stepped(len(shapes))])
    claim = claims.get("RNN-C12")
    each = {}
    for step in range(2, len(shapes) + 1):
        sides = (shapes[stepped(step - 1)], shapes[stepped(step)])
        judged = judging.judge(claim, *sides, faces=run.faces, profile=run.profile)
        each[f"step {step}"] = replace(judged, note="")
    ranked = sorted(each, key=lambda name: (verdicts.ORDER.index(each[name].verdict), each[name].ci_low))
    falling = verdicts.combine([each[name] for name in ranked], ranked, "before minus after each step")
    claims.record([falling])
    return [converged, falling]
