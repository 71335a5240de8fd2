"""What the ECT chapter shows of §IV-B: what each step adds, how much of it outliers decide, and the floor that the maps put under the peaks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from replicate.evidence import claims, tested
from replicate.evidence.claims import Claim, Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions, Runs, stacked_errors
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table
from replicate.evidence.views import ablations
from replicate.evidence.views.compared import behind, metric_change, on_faces, runs_caption
from replicate.faces.augment import cut_canvases
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.geometry import apply_transform, invert
from replicate.methods import ect
from replicate.methods.ect import ECTConfig
from replicate.methods.ect_fitting import PDM, climb, fits, peaks
from replicate.metrics import (
    Comparison,
    bootstrap_mean,
    bootstrap_statistic,
    failure_percent,
    nme,
    paired_bootstrap,
)

NORMALISER = "inter-pupil"
# The statements of the text on what each step adds: the method with it and the one without it
STEPS = {
    "ECT-S9": ("ECT", "CRM-CLM"),
    "ECT-S10": ("CRM-PDM", "CRM"),
    "ECT-S11": ("CRM-CLM-C", "CRM-CLM"),
    "ECT-S12": ("ECT", "CRM-CLM-C"),
}
FAILURE = 10.0  # per cent of the inter-pupil distance, as the paper has it on COFW
_BATCH = 8  # faces whose ideal maps are made at a time


def judge_steps(run: Experiment, by_subset: Mapping[str, Runs]) -> list[Verdict]:
    """Judge and record ECT-C1 to ECT-C5; where CRM is a side, the note has the same comparison with peaks between pixels.

    Parameters
    ----------
    by_subset : dict
        By test set and method: one run per training seed.
    """

    def side(method: str) -> dict[str, Sequence[Predictions]]:
        return {subset: results[method] for subset, results in by_subset.items()}

    made = []
    for claim in (claims.get(f"ECT-C{number}") for number in range(1, 6)):
        named = [quantity.at for quantity in claim.quantities if quantity.at in by_subset]
        finer = {at: differ(by_subset[at][claim.left], by_subset[at][tested.CLIMBED]) for at in named}
        note = between_pixels(finer) if claim.right == "CRM" else _printed_effect(claim, by_subset)
        made.append(run.judge_on(claim.id, side(claim.left), side(claim.right), note))
    return made


def _printed_effect(claim: Claim, by_subset: Mapping[str, Runs]) -> str:
    """For a note: the relative difference here beside the one that the paper prints, if it prints one."""
    quantity = claim.quantity()
    if quantity.paper_relative is None:
        return ""
    means = [
        stacked_errors(list(by_subset[quantity.at][name]), NORMALISER).mean()
        for name in (claim.left, claim.right)
    ]
    relative = 100 * (means[0] / means[1] - 1)
    return f"{relative:+.1f} % here, {100 * quantity.paper_relative:+.0f} % in the paper"


def differ(left: Sequence[Predictions], right: Sequence[Predictions]) -> Comparison:
    """Mean errors of two methods on the same faces, paired."""
    return paired_bootstrap(*(stacked_errors(list(side), NORMALISER) for side in (left, right)))


def between_pixels(compared: Mapping[str, Comparison], where: str = "in place of CRM") -> str:
    """For a note: what comes out where the peaks are not bound to whole pixels, in percentage points by test set."""
    words = {True: "significantly higher", False: "significantly lower"}
    found = [
        f"{at} {one.difference:+.2f} [{one.low:+.2f}, {one.high:+.2f}] "
        f"({'not significant' if one.low <= 0 <= one.high else words[one.low > 0]})"
        for at, one in compared.items()
    ]
    return f"with peaks between pixels {where}, the difference is {', '.join(found)}"


def outliers_table(
    run: Experiment, source: FaceSource, results: Runs, title: str, reference: str = "CRM"
) -> Table:
    """Mean error of each method beside measures that a few lost faces do not decide: the median, and failures; with 95 % intervals.

    Parameters
    ----------
    reference : str
        The method to whose median the other medians are compared, paired.
    """
    statistics = {
        f"mean, % {NORMALISER}": np.mean,
        f"median, % {NORMALISER}": np.median,
        f"above {FAILURE:g} %, % of faces": partial(failure_percent, threshold=FAILURE),
    }
    errors = {method: stacked_errors(list(runs), NORMALISER) for method, runs in results.items()}
    lines = []
    for method, one in errors.items():
        found = [bootstrap_statistic(one, statistic) for statistic in statistics.values()]
        against = paired_bootstrap(one, errors[reference], np.median)
        lines.append(
            (
                method,
                *(f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in found),
                f"{against.difference:+.2f} [{against.low:+.2f}, {against.high:+.2f}]",
            )
        )
    columns = ["method", *statistics, f"median less that of {reference}"]
    return Table(pd.DataFrame(lines, columns=columns), runs_caption(run, source, results[reference], title))


def gain_rows(run: Experiment, sources: Mapping[str, FaceSource], by_subset: Mapping[str, Runs]) -> list[Row]:
    """By how much each of `STEPS` lowers the mean error on each test set, in per cent.

    The paper prints two of these numbers, beside Table VIII; they come as rows of the table too, named as its are.

    Parameters
    ----------
    by_subset : dict
        By test set and method: one run per training seed.
    """
    made = []
    for artefact, (after, before) in STEPS.items():
        for subset, source in sources.items():
            step = dict(after=after, before=before, metric=f"mean error, {NORMALISER}")
            made += metric_change(run, artefact, source, by_subset[subset], **step)
    printed = dict(artefact="ECT-T8", metric="relative NME reduction", points=68, unit="%")
    table = [
        replace(row, method="ECT vs CRM-CLM", **printed)
        for row in made
        if row.artefact == "ECT-S9" and row.subset in ("common", "challenging")
    ]
    return [*made, *table]


def steps_plot(run: Experiment, source: FaceSource, results: Runs) -> Figure:
    """Paired differences of all methods to the peaks on one test set, beside Table VIII."""
    title = f"{on_faces(run, source, results['CRM'])}, profile {run.profile}"
    figure = ablations.difference_plot(results, "CRM", title=title, normaliser=NORMALISER)
    name = f"differences to the peaks, {source.split}"
    return run.record_figure("ECT-T8", name, figure, **behind(source, results["CRM"]))


def ideal_table(sizes: Mapping[str, ECTConfig], train: FaceSet, faces: FaceSet, caption: str) -> Table:
    """What the methods of Table VIII, and peaks between pixels, make of ideal response maps: the error that is left where the network makes none.

    Parameters
    ----------
    sizes : dict of str to ECTConfig
        By what they are called.
    train : FaceSet
        From which the shape model is learnt.
    faces : FaceSet
        Whose true points have ideal maps.
    """
    shapes = torch.as_tensor(train.points)
    columns = {}
    for name, config in sizes.items():
        errors = ideal_errors(faces, PDM.fit(shapes, config.frame, config.components), config)
        columns[name] = {method: bootstrap_mean(one) for method, one in errors.items()}
    lines = [
        (method, *(f"{one[method].value:.2f} [{one[method].low:.2f}, {one[method].high:.2f}]" for one in columns.values()))
        for method in next(iter(columns.values()))
    ]  # fmt: skip
    heads = [f"{name}, % {NORMALISER}" for name in columns]
    return Table(pd.DataFrame(lines, columns=["method", *heads]), caption)


@torch.inference_mode()
def ideal_errors(faces: FaceSet, pdm: PDM, config: ECTConfig) -> dict[str, np.ndarray]:
    """Errors (N,) in per cent of the inter-pupil distance, by method, of faces whose small maps are ideal.

    They are enlarged as those of a network are, so that peaks fall on whole pixels of a map that is linear between every fourth.
    """
    canvases = cut_canvases(faces.images, faces.boxes, pdm.mean, config.frame, colour=True)
    true = torch.as_tensor(faces.points)
    found: dict[str, list[torch.Tensor]] = {}
    for part in torch.arange(len(faces)).split(_BATCH):
        to_frame = canvases.from_image[part]
        maps = ect.upsampled(ect.target_maps(apply_transform(to_frame, true[part]), config, ect.STRIDE))
        ways = fits(pdm, config) | {tested.CLIMBED: partial(climb, config=config)}
        for method, fit in ways.items():
            fitted = fit(maps, peaks(maps)).shapes[-1]
            found.setdefault(method, []).append(apply_transform(invert(to_frame), fitted))
    return {
        method: nme(torch.cat(shapes).numpy(), faces.points, normaliser=NORMALISER, markup=faces.markup)
        for method, shapes in found.items()
    }
