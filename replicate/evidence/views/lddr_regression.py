"""What the page on LDDR's regression shows: both solvers of Eq. 2, the penalty (S15), stages (S12), constant patches (C12), the span of Eq. 3 (S16)."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from replicate.evidence import tested
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import interval_curves
from replicate.evidence.predictions import Predictions, Runs, paired_errors, stacked_errors, swept
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table, number
from replicate.evidence.views.ablations import with_interval
from replicate.evidence.views.compared import behind, on_faces, runs_caption, sets_caption
from replicate.evidence.views.lddr_descriptor import crops_of
from replicate.evidence.views.sweeps import levelled
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.methods.lddr import FACE, LDDR, STAGES, LDDRConfig, outside_span, training_crops
from replicate.metrics import Interval, bootstrap_mean, paired_bootstrap
from replicate.regression import mean_square, ridge, support_vector_regression

NORMALISER = "inter-pupil"
PENALTIES = (16.0, 160.0, 1_600.0, 16_000.0, 160_000.0, 1_600_000.0)  # in mean squares of a feature
TEST, TRAIN = "test faces", "training faces"
COLUMNS = 4  # of the 136 targets, for which LIBLINEAR is asked


# Eq. 2, two ways ----------------------------------------------------------------------------------------------------------------------


def problem(model: LDDR, faces: FaceSet) -> tuple[Tensor, Tensor]:
    """Features (N, 17408) of the last stage at the faces' mean shape, and what it lacks to the true ones, (N, 136); nothing is fitted.

    Both are doubles with a mean square of one: so far from it as they are, LIBLINEAR takes their products for nothing, and stops.
    """
    config = model.config
    crops, points = crops_of(faces, config)
    start = points.mean(0).expand_as(points)
    parts = zip(crops.split(8), start.split(8), strict=True)
    features = torch.cat([model.features(*part, config.forms[-1]) for part in parts])
    missing = (points - start).flatten(1)
    return tuple(x.double() / mean_square(x) ** 0.5 for x in (features, missing))


def solver_table(features: Tensor, targets: Tensor, penalty: float) -> pd.DataFrame:
    """The minimum of Eq. 2 found in several ways, for some of the targets of a `problem`: time, distance to the closed form in doubles, gradient left."""
    targets = targets[:, :COLUMNS]
    ways: dict[str, Callable[[], Tensor]] = {
        "closed form, 64 bits": lambda: ridge(features, targets, penalty, bias=False).weights,
        "closed form, 32 bits": lambda: ridge(features.float(), targets.float(), penalty, bias=False).weights,
    } | {
        f"LIBLINEAR, tolerance {tolerance:g}": partial(_by_liblinear, features, targets, penalty, tolerance)
        for tolerance in (1e-3, 1e-8)
    }
    found, lines = {}, []
    for name, solve in ways.items():
        started = time.perf_counter()
        found[name] = solve().double()
        seconds = time.perf_counter() - started
        weights, best = found[name], next(iter(found.values()))
        distance = ((weights - best).norm() / best.norm()).item()
        left = features.T @ (features @ weights - targets) + penalty * weights
        lines.append((name, seconds, distance, (left.norm() / (features.T @ targets).norm()).item()))
    return pd.DataFrame(lines, columns=["solver", "seconds", "distance of the weights", "gradient left"])


def _by_liblinear(features: Tensor, targets: Tensor, penalty: float, tolerance: float) -> Tensor:
    return support_vector_regression(features, targets, penalty, tolerance=tolerance).weights


def shown(table: pd.DataFrame, features: Tensor, title: str) -> Table:
    """A table of `solver_table` in words."""
    texts = table.assign(
        seconds=[f"{one:.2f}" for one in table["seconds"]],
        **{name: [f"{one:.1e}" for one in table[name]] for name in table.columns[2:]},
    )
    count, dimension = features.shape
    return Table(texts, f"{title}: {count:,} samples of {dimension:,} features, {COLUMNS} targets.")


def costs(runs: Sequence[Predictions], config: LDDRConfig) -> pd.DataFrame:
    """The penalty of each stage of a run as it is on record: absolute, as LIBLINEAR's C, and what C = 1 would be in mean squares of a feature."""
    lines = [
        (stage, f"{penalty:.3g}", f"{1 / (2 * penalty):.1e}", f"{config.penalty / (2 * penalty):.1e}")
        for stage, penalty in enumerate(runs[0].provenance["penalties"], start=1)
    ]
    return pd.DataFrame(lines, columns=["stage", "lambda", "C = 1 / (2 lambda)", "C = 1, in mean squares"])


# The penalty (S15, C10) ---------------------------------------------------------------------------------------------------------------


def penalties(config: LDDRConfig) -> dict[float, LDDRConfig]:
    """Cascades that differ in the penalty alone."""
    return {penalty: replace(config, penalty=penalty) for penalty in PENALTIES}


def training_errors(
    run: Experiment, configs: Mapping[float, LDDRConfig], train: FaceSource
) -> dict[float, np.ndarray]:
    """Errors (n,) in per cent of the run's own seed on the faces that the cascades have learnt from."""
    found = {}
    for penalty, config in configs.items():
        [learnt] = tested.test_lddr(run, config, train, train, seeds=[run.seed])
        found[penalty] = learnt.errors[NORMALISER]
    return found


def penalty_rows(
    run: Experiment, source: FaceSource, by_penalty: Mapping[float, Sequence[Predictions]]
) -> list[Row]:
    """S15: mean error on the test faces at each penalty."""
    return [
        row
        for penalty, runs in by_penalty.items()
        for row in run.error_rows(
            "LDDR-S15", f"LDDR, penalty {penalty:,.0f}", source, runs, [NORMALISER], rates=None
        )
    ]


def penalty_table(
    run: Experiment,
    source: FaceSource,
    by_penalty: Mapping[float, Sequence[Predictions]],
    learnt: Mapping[float, np.ndarray],
    used: float,
    title: str,
) -> Table:
    """Errors on test faces and on training faces at each penalty, and the paired difference on the test faces to the penalty in use.

    A difference is over the seeds that both penalties have.
    """
    lines = []
    for penalty, runs in by_penalty.items():
        found = bootstrap_mean(stacked_errors(list(runs), NORMALISER))
        compared = paired_bootstrap(*paired_errors(runs, by_penalty[used], NORMALISER))
        difference = with_interval(compared.difference, compared.low, compared.high, "+")
        cost = 1 / (2 * runs[0].provenance["penalties"][0])
        lines.append((
            f"{penalty:,.0f}", f"{cost:.1e}", with_interval(*found), "–" if penalty == used else difference,
            number(learnt[penalty].mean(), "%"),
        ))  # fmt: skip
    few = len(next(iter(learnt.values())))
    columns = ["penalty", "C of stage 1", "test faces, %", "difference", f"{few} training faces, %"]
    return Table(
        pd.DataFrame(lines, columns=columns),
        runs_caption(run, source, by_penalty[used], title, by_penalty.values()),
    )


def penalty_plot(
    run: Experiment,
    source: FaceSource,
    by_penalty: Mapping[float, Sequence[Predictions]],
    learnt: Mapping[float, np.ndarray],
    used: float,
) -> Figure:
    """Mean error against the penalty on test faces and on training faces, recorded for S15.

    The bands leave out what each face has above the others on average over all penalties, so they tell how certain differences are. Only
    seeds that all penalties have are drawn.
    """
    seeds = min(map(len, by_penalty.values()))
    errors = {
        TEST: np.stack([stacked_errors(list(runs)[:seeds], NORMALISER) for runs in by_penalty.values()], -1),
        TRAIN: np.stack([learnt[penalty] for penalty in by_penalty], -1)[None],
    }  # (S, N, K)
    curves = {
        name: [bootstrap_mean(at) for at in np.moveaxis(levelled({name: one})[name], -1, 0)]
        for name, one in errors.items()
    }
    figure, ax = plt.subplots(figsize=(6.0, 4.0))
    ax.axvline(used, color="0.6", linestyle=":", linewidth=1.2)
    interval_curves(ax, curves, dict.fromkeys(curves, tuple(by_penalty)))
    ax.set(xscale="log", ylim=(0, None), xlabel="penalty (mean squares of a feature)")
    ax.set_ylabel(f"mean error (% of {NORMALISER} distance)")
    ax.set_title(f"{on_faces(run, source, by_penalty[used])}, profile {run.profile}", fontsize="small")
    words = (f"{name} {_in_words(curve, tuple(by_penalty))}" for name, curve in curves.items())
    figure.set_label(f"Mean error in per cent against the penalty: {'; '.join(words)}.")
    return run.record_figure(
        "LDDR-S15", "mean error by penalty", figure, **behind(source, by_penalty[used][:seeds])
    )


def _in_words(curve: Sequence[Interval], places: Sequence[float]) -> str:
    return ", ".join(f"{one.value:.2f} at {place:,.0f}" for one, place in zip(curve, places, strict=True))


# Stages (S12) and patches (C12) -------------------------------------------------------------------------------------------------------


def gain_table(
    run: Experiment, by_set: Mapping[str, tuple[FaceSource, Sequence[Predictions]]], title: str
) -> Table:
    """By how much each stage lowers the mean error of the one before, paired, on each test set."""
    lines = []
    for name, (_, runs) in by_set.items():
        _, errors = swept(runs, NORMALISER, "stages")  # (S, N, T + 1)
        for stage in range(1, errors.shape[-1]):
            one = paired_bootstrap(errors[..., stage], errors[..., stage - 1])
            lines.append(
                (name, stage, with_interval(one.difference, one.low, one.high, "+"), number(one.left, "%"))
            )
    columns = ["test set", "stage", f"change of the mean error, % {NORMALISER}", "mean error after it, %"]
    about = sets_caption(run, {name: {"LDDR": runs} for name, (_, runs) in by_set.items()}, "LDDR", title)
    return Table(pd.DataFrame(lines, columns=columns), about)


def patch_sizes(config: LDDRConfig) -> dict[str, LDDRConfig]:
    """Cascades with patches of one size in all stages, by the names of LDDR-C12."""
    return {
        f"patches of {form.input} pixels": replace(config, stages=(stage,) * len(config.stages))
        for stage, form in enumerate(STAGES, start=1)
    }


def test_sizes(
    run: Experiment, config: LDDRConfig, train: FaceSource, source: FaceSource, seeds: Sequence[int]
) -> dict[str, list[Predictions]]:
    """Runs of the cascades with patches of one size, by name."""
    sizes = patch_sizes(config)
    return {name: tested.test_lddr(run, one, train, source, seeds=seeds) for name, one in sizes.items()}


def judge_patches(run: Experiment, shrinking: Sequence[Predictions], constant: Runs):
    """Judge and record LDDR-C12: shrinking patches against those of each one size, from the same seeds."""
    return run.judge_on(
        "LDDR-C12", {name: shrinking[: len(runs)] for name, runs in constant.items()}, constant
    )


# Eq. 3 (S16) --------------------------------------------------------------------------------------------------------------------------


def span_table(
    model: LDDR, train: FaceSet, test: FaceSet, counts: Sequence[int], seed: int = 0
) -> pd.DataFrame:
    """How far steps lie outside the span of the training steps, by the number of training faces, in per cent of their length.

    Cascades are fitted to the first faces, with the features of a model. The last line has the span of all training faces, of which no
    cascade is fitted here.

    Returns
    -------
    DataFrame
        ``faces``, ``dimensions`` of the span, and the share outside it: the largest of the steps ``LDDR`` takes on test faces from the mean
        shape, and the means of the ``true`` steps of these faces and of ``random`` steps.
    """
    truth = (crops_of(test, model.config)[1] - (model.config.crop - 1) / 2) / FACE
    random = torch.randn(len(test), *truth.shape[1:], generator=torch.Generator().manual_seed(seed))
    lines = []
    for count in (*counts, len(train)):
        part = train.subset(np.arange(count))
        _, shapes = training_crops(part, model.config, seed)
        span, start = shapes[1:] - shapes[0], shapes[:count].mean(0)
        dimensions = int(torch.linalg.matrix_rank(span.flatten(1).double(), rtol=1e-6))
        outside = [outside_span(steps, span).mean().item() for steps in (truth - start, random)]
        own = _farthest_outside(model, part, test, span, seed) if count < len(train) else float("nan")
        lines.append((count, dimensions, *(100 * share for share in (own, *outside))))
    return pd.DataFrame(lines, columns=["faces", "dimensions", "LDDR", "true", "random"])


def _farthest_outside(model: LDDR, train: FaceSet, test: FaceSet, span: Tensor, seed: int) -> float:
    """The largest share outside the span of all steps that a cascade fitted to some faces takes, after every stage."""
    fitted = LDDR(model.config, model.features).fit(train, seed)
    paths = fitted.predict(test.images, test.boxes)[:, 0]
    return max(outside_span(shapes - paths[0], span).max().item() for shapes in paths[1:])


def span_rows(run: Experiment, table: pd.DataFrame, images: int) -> list[Row]:
    """S16 in numbers: those of `span_table`."""
    names = {"LDDR": "LDDR, its steps", "true": "true steps", "random": "random steps"}
    made = []
    for line in table.to_dict("records"):
        for column, method in names.items():
            if np.isfinite(line[column]):
                metric = f"outside the span of {line['faces']:,} training faces"
                made += run.count_rows("LDDR-S16", method, {metric: line[column]}, "%")
    return [replace(row, images=images) for row in made]


def span_shown(table: pd.DataFrame, title: str) -> Table:
    """A table of `span_table` in words."""
    shares = {
        name: ["–" if np.isnan(one) else f"{one:.2g}" for one in table[name]]
        for name in ("LDDR", "true", "random")
    }
    heads = {"LDDR": "steps of LDDR, at most", "true": "true steps", "random": "random steps"}
    heads |= {"faces": "training faces", "dimensions": "dimensions of the span"}
    return Table(table.assign(**shares).rename(columns=heads), f"{title}, in per cent of their length.")
