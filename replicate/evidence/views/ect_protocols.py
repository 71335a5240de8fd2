"""What the ECT chapter shows of the other benchmarks (§IV-A): methods beside ECT, and their errors by yaw."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from replicate.evidence import tested
from replicate.evidence.experiment import Experiment
from replicate.evidence.occlusion import test_occlusion
from replicate.evidence.predictions import Predictions, Runs
from replicate.evidence.rows import Row
from replicate.faces.faceset import FaceSet
from replicate.faces.real.aflw import YAW_BINS, yaw_bins
from replicate.faces.sources import FaceSource
from replicate.methods import baselines
from replicate.methods.ect import CONFIGS

# Methods on the same faces -----------------------------------------------------------------------------------------------------------


def compared_methods(run: Experiment, train: FaceSource, source: FaceSource) -> dict[str, list[Predictions]]:
    """Runs on `source` of the methods that are part of this suite, fitted to `train`: by name; the peaks of ECT's network alone are one.

    On COFW, SDM comes with the confidences of `occlusion`.
    """
    sdm = baselines.SDM(baselines.SDM_CONFIGS[run.profile])
    own = tested.test_ect(run, CONFIGS[run.profile, run.faces], train, source, seeds=run.seeds(1))
    return {
        "mean shape": tested.test_baseline(run, baselines.MeanShape(), train, source, points=False),
        "SDM": test_occlusion(run, train, source)
        if source.protocol == "cofw"
        else tested.test_baseline(run, sdm, train, source, points=False),
        tested.CLIMBED: own[tested.CLIMBED],
        "ECT": own["ECT"],
    }


def error_rows(
    run: Experiment,
    artefact: str,
    source: FaceSource,
    results: Runs,
    scores: Sequence[str] | None = None,
    rates: tuple[str, float] | None = None,
) -> list[Row]:
    """`Experiment.error_rows` of all methods."""
    return [
        row
        for method, runs in results.items()
        for row in run.error_rows(artefact, method, source, runs, scores, rates)
    ]


def for_statement(rows: Sequence[Row], artefact: str) -> list[Row]:
    """The same numbers on record for a statement that puts a table into words."""
    return [replace(row, artefact=artefact) for row in rows]


# Yaw: Table IV -----------------------------------------------------------------------------------------------------------------------


def by_yaw(faces: FaceSet) -> dict[str, np.ndarray]:
    """Masks (N,) of the faces in each range of Table IV, and in all of them together, by its name; none if the yaw is not known."""
    if "yaw" not in faces.attributes:
        return {}
    bins, edges = yaw_bins(faces.attributes["yaw"]), (0, *YAW_BINS)
    names = [f"|yaw| {low}-{high}" for low, high in pairwise(edges)]
    ranges = {name: bins == number for number, name in enumerate(names)}
    return {name: mask for name, mask in ranges.items() if mask.any()} | {"|yaw| mean": bins >= 0}


def among(results: Runs, which: np.ndarray) -> dict[str, list[Predictions]]:
    """The same runs on the faces that a mask (N,) selects."""
    return {method: [_among(one, np.asarray(which)) for one in runs] for method, runs in results.items()}


def _among(run: Predictions, which: np.ndarray) -> Predictions:
    return replace(
        run,
        names=tuple(name for name, wanted in zip(run.names, which, strict=True) if wanted),
        errors={key: errors[which] for key, errors in run.errors.items()},
        points=None if run.points is None else run.points[which],
        confidence=None if run.confidence is None else run.confidence[which],
    )


def yaw_rows(
    run: Experiment, artefact: str, source: FaceSource, results: Runs, ranges: Mapping[str, np.ndarray]
) -> list[Row]:
    """Mean error of the 21 points by range of yaw; the number of faces is that of the range.

    Parameters
    ----------
    ranges : dict of str to array
        Of `by_yaw`.
    """
    return [
        replace(row, subset=name)
        for name, which in ranges.items()
        for row in error_rows(run, artefact, source, among(results, which), ["box, 21 points"])
    ]
