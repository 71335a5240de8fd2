"""What the RNN chapter shows of its data and of its tables and curves (§IV-A to C, MAFL): counts, other methods, gaps, gains along the curve."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from replicate.evidence import judging, published, tested
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE, length_of
from replicate.evidence.predictions import Predictions, Runs, paired_errors, stacked_errors
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.tables import Table, number
from replicate.evidence.views import ect_results, lddr_results
from replicate.evidence.views.compared import behind, on_faces
from replicate.evidence.views.rnn_ablations import RNN
from replicate.evidence.views.rnn_effects import NORMALISER
from replicate.faces.perturbations import RNN_VARIANTS
from replicate.faces.sources import FaceSource
from replicate.methods import tcnn
from replicate.methods.baselines import SDM, SDM_CONFIGS, MeanShape
from replicate.metrics import against_number, auc, failure_percent, paired_bootstrap, relative_change

TRAINED_ON_300W = "RNN, trained on 300-W"
VANILLA = "vanilla CNN, trained on MTFL"  # of the TCNN chapter
BOUND = 10.0  # per cent: right end of the curves of the common set
LEVELS = (3.0, 4.0, 5.0, 6.0, 8.0, 10.0)  # per cent: where the gain along the curve is put on record


# Counts (Table I, S1) -------------------------------------------------------------------------------------------------------------------


def augmented_rows(run: Experiment, names: Sequence[str]) -> list[Row]:
    """Training samples of each data set after augmentation, as Table I lists them.

    Parameters
    ----------
    names : sequence of str
        Protocols: ``"lfpw"``, ``"helen"``, ``"300w"``.
    """
    made = []
    for name in names:
        samples = len(RNN_VARIANTS) * run.source(name, "train").count
        [row] = run.count_rows("RNN-T1", RNN, {"training samples": samples})
        made.append(replace(row, protocol=name, subset="train after augmentation"))
    return made


def printed_samples_table() -> Table:
    """The samples of Table I divided by the factor that the text gives, beside the images that the paper counts."""

    def printed(artefact: str, protocol: str, subset: str) -> float:
        return published.value(artefact, label=RNN, protocol=protocol, subset=subset)

    factor = published.value("RNN-S2", metric="enlargement factor")
    tests = {"lfpw": "test", "helen": "test", "300w": "full"}
    lines = []
    for name, test in tests.items():
        samples = printed("RNN-T1", name, "train after augmentation")
        train = printed("RNN-S1", name, "train")
        counts = (samples, samples / factor, train, train + printed("RNN-S1", name, test))
        lines.append((name, *(number(count, "count") for count in counts)))
    columns = ["data set", "samples", f"samples / {factor:g}", "training images", "training and test images"]
    return Table(pd.DataFrame(lines, columns=columns), "Printed numbers of training samples (Table I) and of images (§IV-A).")  # fmt: skip


# Other methods --------------------------------------------------------------------------------------------------------------------------


def other_methods(run: Experiment, source: FaceSource) -> dict[str, list[Predictions]]:
    """Runs on `source` of other methods of this suite with 68 points, all trained on 300-W, as their chapters have them on record."""
    if source.protocol == "300w":
        of_ect = Experiment("ect", run.profile, run.faces, run.seed, run.device)
        return ect_results.compared_methods(of_ect, source)
    of_lddr = Experiment("lddr", run.profile, run.faces, run.seed, run.device)
    train = run.source("300w", "train")
    found = tested.test_lddr_compared(of_lddr, train, source, seeds=run.seeds(3))
    return found | lddr_results.of_other_chapters(run, source)


def five_point_methods(
    run: Experiment, train: FaceSource, source: FaceSource
) -> dict[str, list[Predictions]]:
    """Runs on faces with five points: the baselines, trained on `train`, and the vanilla network of the TCNN chapter."""
    of_tcnn = Experiment("tcnn", run.profile, run.faces, run.seed, run.device)
    network, mtfl = tcnn.CONFIGS[run.profile].vanilla, run.source("mtfl", "train")
    found = {
        "mean shape": tested.test_baseline(run, MeanShape(), train, source, points=False),
        "SDM": tested.test_baseline(run, SDM(SDM_CONFIGS[run.profile]), train, source, points=False),
    }
    if mtfl.available:
        found[VANILLA] = tested.test_vanilla(of_tcnn, network, mtfl, source, seeds=[run.seed])
    return found


# Gaps to the next best (S5 to S7, S10) ---------------------------------------------------------------------------------------------------


def best_of(results: Runs) -> str:
    """The method with the least mean error."""
    return min(results, key=lambda name: stacked_errors(list(results[name]), NORMALISER).mean())


def gap_rows(
    run: Experiment,
    artefact: str,
    source: FaceSource,
    method: str,
    runs: Sequence[Predictions],
    others: Runs,
    printed: tuple[str, str] | None = None,
) -> list[Row]:
    """By how many points a method is ahead of the best other one of this suite, paired, and on photographs of one that is not run here.

    Parameters
    ----------
    runs : sequence of Predictions
        Of the method on `source`, one per training seed.
    others : dict of str to sequence of Predictions
        Other methods of this suite on the same faces.
    printed : (str, str), optional
        A method that is not run here, and the artefact that prints its number.
    """
    best = best_of(others)
    compared = {best: paired_bootstrap(*paired_errors(runs, others[best], NORMALISER))}
    if printed and run.faces == "real":
        name, where = printed
        subset = source.split if source.protocol == "300w" else "test"
        theirs = judging.printed(where, name, subset, f"mean error, {NORMALISER}")
        compared[name] = against_number(stacked_errors(list(runs), NORMALISER), theirs)
    [row] = run.error_rows(artefact, method, source, runs, [NORMALISER], rates=None)
    subset = source.split if source.protocol == "300w" else ""  # as the paper's gaps are listed
    row = replace(row, subset=subset, points=None, normaliser=NO_NORMALISER, unit="points")
    return [
        replace(row, metric=f"gap to {name}", value=-one.difference, ci_low=-one.high, ci_high=-one.low)
        for name, one in compared.items()
    ]


# Gain along the curve (S8) ---------------------------------------------------------------------------------------------------------------


def second_best(results: Runs) -> str:
    """Of the methods but RNN, that with the largest area under the curve up to `BOUND`."""
    others = (name for name in results if name != RNN)
    return max(others, key=lambda name: auc(stacked_errors(list(results[name]), NORMALISER).ravel(), BOUND))


def within(errors: np.ndarray, level: float, axis: int = -1) -> np.ndarray:
    """Per cent of the images with an error up to a level: the curve of Eq. 18, as a statistic to resample."""
    return 100 - failure_percent(errors, level, axis)


def curve_gain_rows(run: Experiment, source: FaceSource, results: Runs) -> list[Row]:
    """By how many per cent more images RNN has within each of `LEVELS` than the second best method, paired; no row where the latter has none."""
    other = second_best(results)
    sides = paired_errors(results[RNN], results[other], NORMALISER)
    [row] = run.error_rows("RNN-S8", RNN, source, results[RNN], [NORMALISER], rates=None)
    row, made = replace(row, subset="common", points=None, normaliser=NO_NORMALISER), []
    for level in LEVELS:
        if within(sides[1], level).any():
            value, low, high = relative_change(*sides, partial(within, level=level))
            metric = f"relative CED gain over {other} at {level:g} %"
            made.append(replace(row, metric=metric, value=value, ci_low=low, ci_high=high))
    return made


def curve_gain_figure(run: Experiment, source: FaceSource, results: Runs) -> Figure:
    """The gain of RNN over the second best method at every level of the curve, in points and in per cent, recorded for S8."""
    other, levels = second_best(results), np.arange(1.0, BOUND + 0.05, 0.1)
    sides = paired_errors(results[RNN], results[other], NORMALISER)
    points, percent = [], []
    for level in levels:
        share = partial(within, level=level)
        points.append(paired_bootstrap(*sides, share, resamples=500)[2:5])
        some = share(sides[1]).mean() >= 100 / sides[1].shape[1]  # an image, on average over seeds
        percent.append(relative_change(*sides, share, resamples=500) if some else 3 * [np.nan])
    printed = published.value("RNN-S8", metric="relative CED gain over second best")
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.6), layout="constrained")
    for ax, curve, unit in zip(axes, (points, percent), ("points", "%"), strict=True):
        value, low, high = np.array(curve).T
        ax.fill_between(levels, low, high, color=PALETTE[0], alpha=0.2, linewidth=0)
        ax.plot(levels, value, color=PALETTE[0], label=f"here, over {other}")
        ax.axhline(0, color="0.4", linewidth=1)
        ax.set(xlabel=f"error level (% of {length_of(NORMALISER)})", ylabel=f"more images within it, {unit}")
    axes[1].axhline(printed, color=PALETTE[1], linestyle="--", label="the paper, at a level not said")
    axes[1].set_ylim(*_shown(np.array(percent), printed))
    axes[1].legend(frameon=False)
    title = f"{on_faces(run, source, results[RNN])}, profile {run.profile}"
    figure.suptitle(title, fontsize="small")
    told = (
        f"{gain[0]:+.0f} points, {share[0]:+.0f} % at {level:.0f} %"
        for level, gain, share in zip(levels, points, percent, strict=True)
        if np.isclose(level % 1, 0, atol=1e-6) and np.isfinite(share[0])
    )
    figure.set_label(
        f"Images within an error level that RNN has more than {other}, {title}: {'; '.join(told)}. The paper has {printed:g} % at a level not said."
    )
    return run.record_figure("RNN-S8", "gain along the curve", figure, **behind(source, results[RNN]))


def _shown(curve: np.ndarray, printed: float) -> tuple[float, float]:
    """Limits that hold the paper's number and the curve from where its interval is not too wide to be of use."""
    useful = curve[(curve[:, 2] - curve[:, 1]) < 4 * printed]
    ends = [0, printed, *useful[:, 1:].ravel()]
    return 1.1 * min(ends), 1.1 * max(ends)
