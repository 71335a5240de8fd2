"""What the LDDR chapter shows of cascades that differ in one thing: descriptors (S5, S13), augmentation (S3), starting shapes (S6)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from replicate.evidence import claims, published, tested
from replicate.evidence.captions import caption
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import faces_grid
from replicate.evidence.predictions import Predictions, Runs, same_seeds, stacked_errors, under
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table, number
from replicate.evidence.views import ablations
from replicate.evidence.views.compared import behind, metric_change, on_faces, rows_of, runs_caption
from replicate.faces.perturbations import Variant
from replicate.faces.sources import FaceSource
from replicate.methods import lddr_training
from replicate.methods.lddr import FACE, LDDRConfig, training_crops
from replicate.metrics import paired_bootstrap

NORMALISER = "inter-pupil"
LDDR = "LDDR"  # as the profile has it
PLAIN = "LDDR, plain images"
_GROUPS = ("nearest quarter", "second quarter", "third quarter", "farthest quarter")


# Cascades that differ in one thing ----------------------------------------------------------------------------------------------------


def swaps(config: LDDRConfig) -> dict[str, LDDRConfig]:
    """One cascade with three kinds of features."""
    return {LDDR: config} | {f"LDDR with {name}": replace(config, features=name) for name in ("SIFT", "HOG")}


def penalties(config: LDDRConfig) -> dict[str, dict[str, LDDRConfig]]:
    """The cascades of `swaps` by strength of the penalty, which was chosen with one of them."""
    penalty = config.penalty
    factors = {"a tenth": penalty / 10, "as elsewhere": penalty, "tenfold": 10 * penalty}
    return {word: swaps(replace(config, penalty=value)) for word, value in factors.items()}


def trainings(config: LDDRConfig) -> dict[str, LDDRConfig]:
    """One cascade with descriptors that have learnt different things; those of ImageNet if its weights are at hand and as wide."""
    weights = {"objects alone": "objects", "faces alone": "faces", "random weights": "random"}
    if config.network.width == 1 and lddr_training.imagenet_file():
        weights |= {"ImageNet alone": "imagenet", "ImageNet, then faces": "imagenet tuned"}
    return {LDDR: config} | {f"LDDR, {name}": replace(config, weights=what) for name, what in weights.items()}


def augmentations(config: LDDRConfig) -> dict[str, LDDRConfig]:
    """Cascades from images that are made of the training images in different ways; one has as many samples from no new image."""
    plain = replace(config, augmentation="none")
    return {
        LDDR: config,
        PLAIN: plain,
        f"{PLAIN}, twice the starts": replace(plain, starts=2 * config.starts),
        "LDDR, mirrored, turned and both": replace(config, augmentation="mirrored, turned and both"),
    }


def test_all(
    run: Experiment,
    configs: Mapping[str, LDDRConfig],
    train: FaceSource,
    source: FaceSource,
    seeds: Sequence[int],
    several: Collection[str],
) -> dict[str, list[Predictions]]:
    """Runs of several cascades on `source`, by name; those named `several` have all seeds, the others the first. See `tested.test_lddr`."""
    return {
        name: tested.test_lddr(run, config, train, source, seeds=seeds if name in several else seeds[:1])
        for name, config in configs.items()
    }


def mean_rows(run: Experiment, artefact: str, by_source: Mapping[FaceSource, Runs]) -> list[Row]:
    """Mean errors of all methods on all test sets, by inter-pupil distance.

    Parameters
    ----------
    by_source : dict
        By test set and method: one run per training seed.
    """
    return [
        row
        for source, results in by_source.items()
        for row in rows_of(run, {artefact: list(results)}, source, results, [NORMALISER], None)
    ]


def difference_plot(
    run: Experiment, artefact: str, source: FaceSource, results: Runs, reference: str
) -> Figure:
    """Paired differences of all methods to one of them on `source`, recorded for an artefact."""
    title = f"{on_faces(run, source, results[reference])}, profile {run.profile}"
    figure = ablations.difference_plot(results, reference, title=title, normaliser=NORMALISER)
    name = f"differences to {reference}, {source.protocol} {source.split}"
    return run.record_figure(artefact, name, figure, **behind(source, results[reference]))


# Descriptors (S13) ----------------------------------------------------------------------------------------------------------------------


OBJECTS = "LDDR, objects alone"


def judge_tuning(run: Experiment, results: Runs) -> Verdict:
    """Judge and record LDDR-C13 by runs on LFPW: with ImageNet's weights as the network that knows objects, where there are any."""
    tuned, objects, known = "LDDR, ImageNet, then faces", "LDDR, ImageNet alone", "those of ImageNet"
    if objects not in results:
        tuned, objects, known = LDDR, OBJECTS, "fractals"
    sides = ({"lfpw": results[name]} for name in (tuned, objects))
    return run.judge_on(
        "LDDR-C13", *sides, f"the objects are {known}" + ", not ImageNet" * (known == "fractals")
    )


# Augmentation (S3) ----------------------------------------------------------------------------------------------------------------------


def variants_figure(run: Experiment, config: LDDRConfig) -> Figure:
    """The images that the fullest augmentation makes of one generated face, with its true points, recorded for S3."""
    every = replace(config, augmentation="mirrored, turned and both")
    one = replace(run, faces="synthetic").source("lfpw", "train").sample(1)
    crops, shapes = training_crops(one, every, run.seed)
    points = shapes * FACE + (config.crop - 1) / 2
    names = [
        " and ".join(
            filter(None, ["mirrored" * v.mirrored, "turned" * (v.perturbation != Variant().perturbation)])
        )
        or "as it is"
        for v in every.variants
    ]
    figure = faces_grid(crops.numpy(), truth=points.numpy(), titles=names, columns=len(names))
    figure.set_label(f"One generated face as the training images show it: {', '.join(names)}.")
    shown = replace(run, faces="synthetic")
    return shown.record_figure("LDDR-S3", "what augmentation makes of a face", figure, images=1, seeds=1)


def augmentation_rows(
    run: Experiment, sources: Mapping[str, FaceSource], results: Mapping[str, Runs]
) -> list[Row]:
    """By how much each way to make images lowers the mean error of `PLAIN`, in per cent; that of LDDR on LFPW also as the paper lists its own.

    Parameters
    ----------
    sources, results : dict
        Test sets, and runs on them by method, by name; ``"lfpw"`` is among them.
    """
    metric = f"mean error, {NORMALISER}"
    made = [
        row
        for name, source in sources.items()
        for method in results[name]
        if method != PLAIN
        for row in metric_change(
            run,
            "LDDR-S3",
            source,
            same_seeds(results[name], method, PLAIN),
            after=method,
            before=PLAIN,
            metric=metric,
        )
    ]
    [own] = [row for row in made if (row.method, row.protocol) == (LDDR, "lfpw")]
    paper = dict(
        method="LDDR, random rotation + flip augmentation vs none", metric="error reduction", unit="%"
    )
    return [*made, replace(own, **paper, protocol="", subset="", images=None)]  # it names no test set


def judge_augmentation(run: Experiment, results: Mapping[str, Runs], gained: Sequence[Row]) -> Verdict:
    """Judge and record LDDR-C7 on LFPW; the note has the gain in per cent beside the paper's.

    Parameters
    ----------
    results : dict
        Runs by test set and method.
    gained : sequence of Row
        Of `augmentation_rows`.
    """
    sides = ({"lfpw": results["lfpw"][name]} for name in (LDDR, PLAIN))
    [own] = [row for row in gained if (row.method, row.protocol) == (LDDR, "lfpw")]
    printed = -100 * claims.get("LDDR-C7").quantity().paper_relative
    return run.judge_on("LDDR-C7", *sides, f"{own.value:.0f} % here, {printed:.0f} % in the paper")


# Starting shapes (S6) -----------------------------------------------------------------------------------------------------------------


def restart_rows(run: Experiment, source: FaceSource, runs: Sequence[Predictions]) -> list[Row]:
    """By how much more than one starting shape lowers the mean error, in per cent; no row for what was not tried."""
    by_count = {f"LDDR, {count} starts": under(runs, f"{count} starts") for count in _tried(runs)}
    first, *several = by_count
    results = {"1 start": by_count[first], **{name: by_count[name] for name in several}}
    how = dict(before="1 start", metric=f"mean error, {NORMALISER}")
    return [
        row for name in several for row in metric_change(run, "LDDR-S6", source, results, after=name, **how)
    ]


def _tried(runs: Sequence[Predictions]) -> list[int]:
    return [count for count in tested.STARTS if f"{NORMALISER}, {count} starts" in runs[0].errors]


def gap_table(rows: Sequence[Row]) -> Table:
    """What several starts gain beside what the paper's LDDR would have to gain on the challenging set to be level with CFSS.

    Parameters
    ----------
    rows : sequence of Row
        Of `restart_rows`.
    """
    cfss, own = (
        published.value("LDDR-T4", label=method, subset="challenging", points="68")
        for method in ("CFSS", "LDDR")
    )
    gap = 100 * (1 - cfss / own)
    lines = [
        (
            row.method,
            ablations.with_interval(row.value, row.ci_low, row.ci_high),
            number(gap, "%"),
            f"{100 * row.value / gap:.0f}",
        )
        for row in rows
    ]
    columns = ["method", "gain over one start, %", "the paper's gap, %", "gain, % of the gap"]
    return Table(
        pd.DataFrame(lines, columns=columns), caption(rows, "Gain of several starts, and the gap to CFSS")
    )


def distance_table(run: Experiment, source: FaceSource, runs: Sequence[Predictions], title: str) -> Table:
    """Error from one start and from the most that were tried, for faces by how far the mean shape is from the truth at first: quarters of the faces."""
    most = _tried(runs)[-1]
    keys = (f"{NORMALISER}, 0 stages", f"{NORMALISER}, 1 starts", f"{NORMALISER}, {most} starts")
    initial, one, several = (stacked_errors(list(runs), key) for key in keys)
    lines = []
    for name, faces in zip(_GROUPS, np.array_split(initial.mean(0).argsort(), len(_GROUPS)), strict=True):
        compared = paired_bootstrap(several[:, faces], one[:, faces])
        difference = ablations.with_interval(compared.difference, compared.low, compared.high, "+")
        sides = (initial[:, faces].mean(), compared.right, compared.left)
        lines.append((name, *(number(side, "%") for side in sides), difference))
    columns = ["faces", "before the first stage, %", "1 start, %", f"{most} starts, %", "difference"]
    return Table(pd.DataFrame(lines, columns=columns), runs_caption(run, source, runs, title))
