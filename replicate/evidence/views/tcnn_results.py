"""What the TCNN chapter shows of its benchmarks (§5.1): errors and curves on AFLW and AFW, what the paper's text gives, errors by pose, examples."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicate.evidence import published, tested
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE
from replicate.evidence.predictions import Predictions, Runs, stacked_errors, under
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.tables import Table
from replicate.evidence.tested.tcnn_clusters import Clustered
from replicate.evidence.views.ablations import with_interval
from replicate.evidence.views.compared import behind, cumulative_errors, rows_of, runs_caption
from replicate.evidence.views.ect_protocols import among
from replicate.evidence.views.fitted import Predict
from replicate.evidence.views.tcnn_ablations import ONE, OWN, TCNN, VANILLA, as_printed, moved
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.methods import baselines, tcnn, tcnn_training
from replicate.methods.tcnn import TCNNConfig
from replicate.metrics import Interval, bootstrap_mean, normalising_distance, paired_bootstrap

NORMALISER = "inter-pupil"
TEST_SETS = {"aflw": ("mtfl", "test"), "afw": ("afw", "five")}  # as claims and published values name them
BEFORE = "TCDCN'14"  # the best method before, by the text
POSES = {"frontal": (3,), "half turned": (2, 4), "profile": (1, 5)}  # of MTFL's labels
EXAMPLES, COLUMNS = (
    48,
    3,
)  # first faces of a test set that are looked at for examples, and how many stand in a row
CURVES_END = 25.0  # per cent: right end of the cumulative curves
MISTAKE = 10.0  # per cent of the distance of the eyes: a point further off is drawn in red


def test_sets(run: Experiment) -> dict[str, FaceSource]:
    """The faces of §5.1 by the names that claims have for them, as far as this machine has or can make them."""
    sources = {name: run.source(*which) for name, which in TEST_SETS.items()}
    return {name: source for name, source in sources.items() if source.available}


def as_published(rows: Sequence[Row]) -> list[Row]:
    """The same rows with their test sets named as the paper's values are: subsets `aflw` and `afw` of MTFL's benchmark."""
    names = {which: name for name, which in TEST_SETS.items()}
    return [
        replace(row, protocol="mtfl", subset=names[row.protocol, row.subset])
        if (row.protocol, row.subset) in names
        else row
        for row in rows
    ]


def test_all(run: Experiment, train: FaceSource, source: FaceSource) -> dict[str, list[Predictions]]:
    """Runs on `source` of what §5.1 compares and this suite has, and of TCNN with other labels, all trained on `train`; points of TCNN are kept."""
    config, seeds, own = tcnn.CONFIGS[run.profile], run.seeds(3), as_printed(run.profile)[OWN]
    sdm = baselines.SDM(baselines.SDM_CONFIGS[run.profile])
    return {
        "mean shape": tested.test_baseline(run, baselines.MeanShape(), train, source, points=False),
        "SDM": tested.test_baseline(run, sdm, train, source, points=False),
        VANILLA: tested.test_vanilla(run, config.vanilla, train, source, seeds=seeds),
        TCNN: tested.test_tcnn(run, config, train, source, seeds=seeds, points=True),
        OWN: tested.test_tcnn(run, own, train, source, seeds=seeds),
    }


def with_one_image(results: Runs) -> dict[str, Sequence[Predictions]]:
    """The same runs, those of the networks without mirror images, and where they are on record those with labels that are moved by a pixel."""
    networks = (name for name in (VANILLA, TCNN, OWN) if name in results)
    conditions = [ONE, tested.ONE_PIXEL.partition(", ")[2]]
    alone = {
        f"{name}, {condition}": under(results[name], condition)
        for name in networks
        for condition in conditions
        if f"{NORMALISER}, {condition}" in results[name][0].errors
    }
    return {**results, **alone}


def error_rows(
    run: Experiment, artefact: str, sources: Mapping[str, FaceSource], results: Mapping[str, Runs]
) -> list[Row]:
    """Mean errors of all methods on all test sets, by set and method, named as the paper's values are."""
    return as_published(
        [
            row
            for name, by_method in results.items()
            for row in rows_of(run, {artefact: list(by_method)}, sources[name], by_method, [NORMALISER], None)
        ]
    )


# Fig. 8 -----------------------------------------------------------------------------------------------------------------------------------


def bars(
    run: Experiment, artefact: str, sources: Mapping[str, FaceSource], results: Mapping[str, Runs]
) -> Figure:
    """Mean error of every method on each test set with 95 % intervals, recorded for an artefact (Fig. 8, left).

    On photographs the errors that follow from the paper's text stand beside, with what its rounding allows.
    """
    figure, axes = plt.subplots(1, len(results), figsize=(4.4 * len(results), 3.8), squeeze=False)
    parts = []
    for ax, (name, by_method) in zip(axes[0], results.items(), strict=True):
        shown = {method: bootstrap_mean(_errors(runs)) for method, runs in by_method.items()}
        if run.faces == "real":
            shown |= {f"{method}, from the text": derived(name)[method] for method in (BEFORE, TCNN)}
        for place, (method, (value, low, high)) in enumerate(shown.items()):
            own = method in by_method
            look = dict(color=PALETTE[place], alpha=0.85) if own else dict(color="0.9", hatch="//")
            ax.bar(place, value, yerr=[[value - low], [high - value]], capsize=3, edgecolor="0.3", **look)
            ax.annotate(f"{value:.2f}", (place, high), ha="center", va="bottom", fontsize="small")
        ax.set_xticks(range(len(shown)), [method.replace(", ", ",\n") for method in shown], rotation=30)
        ax.margins(y=0.12)
        ax.set_title(f"{name.upper()}, {len(by_method[TCNN][0].names):,} {run.faces} faces", fontsize="small")
        in_words = (f"{method} {with_interval(*one)}" for method, one in shown.items())
        parts.append(f"{name.upper()}: {', '.join(in_words)}.")
    axes[0, 0].set_ylabel(f"mean error (% of {NORMALISER} distance)")
    figure.tight_layout()
    figure.set_label(
        f"Bars of the mean error in per cent with 95 % intervals, profile {run.profile}. {' '.join(parts)}"
    )
    largest = next(iter(results))
    about = behind(sources[largest], results[largest][TCNN]) | {"subset": "mtfl/aflw, mtfl/afw"}
    return run.record_figure(artefact, "mean errors", figure, **about)


def curves(run: Experiment, artefact: str, source: FaceSource, results: Runs) -> Figure:
    """Cumulative error curves of all methods with their mean errors in the legend, recorded for an artefact (Fig. 8, right)."""
    named = {f"{method}, mean {_errors(runs).mean():.2f} %": runs for method, runs in results.items()}
    return cumulative_errors(run, artefact, source, named, score=NORMALISER, threshold=CURVES_END)


def _errors(runs: Sequence[Predictions]) -> np.ndarray:
    return stacked_errors(list(runs), NORMALISER)


# What the text says of the bars: S20 to S22 -----------------------------------------------------------------------------------------------


def derived(name: str) -> dict[str, Interval]:
    """Errors of `BEFORE` and TCNN on a test set that follow from the printed gap and percentage, with what their rounding allows."""
    gap = published.value("TCNN-S21", label=f"{TCNN} vs {BEFORE}", subset=name, metric="absolute error gap")
    share = published.value("TCNN-S20", subset=name, metric="relative error reduction")
    half = 0.5 * 10.0 ** -len(f"{gap:g}".partition(".")[2])  # of the last digit
    corners = [(gap + side * half, (share - side * 0.5) / 100) for side in (0, -1, 1)]
    before = Interval(*(points / part for points, part in corners))
    return {BEFORE: before, TCNN: Interval(*(points / part - points for points, part in corners))}


def text_table() -> Table:
    """All numbers on the bars of Fig. 8 that can be had without measuring the image, and where they come from."""
    found = published.load("tcnn")
    wanted = found["artefact"].isin(["TCNN-F8a", "TCNN-S20", "TCNN-S21"]) & found["number"].notna()
    lines = [
        (one["label"], one["subset"], one["metric"], f"{one['value']} {one['unit']}", one["source"], one["place"])
        for one in found[wanted].to_dict("records")
    ]  # fmt: skip
    columns = ["method", "test set", "metric", "value", "source", "where, or how"]
    about = "What the paper's text gives of the bars of Fig. 8, on its photographs; all other heights are in the image alone"
    return Table(pd.DataFrame(lines, columns=columns), about)


def gap_rows(run: Experiment, sources: Mapping[str, FaceSource], results: Mapping[str, Runs]) -> list[Row]:
    """By how much TCNN's error is lower than that of others, in per cent (S20) and in points (S21), paired where both were run.

    `BEFORE` has no runs: on photographs its error is what the text allows, and the interval is that of ours alone.
    """
    made = []
    for name, by_method in results.items():
        for after, before in ((TCNN, VANILLA), (OWN, VANILLA), (TCNN, "SDM"), (VANILLA, "SDM")):
            sides = [_errors(by_method[method]) for method in (after, before)]
            compared = paired_bootstrap(*sides)
            about = _versus(run, sources[name], by_method[after], f"{after} vs {before}")
            percent = run.change_rows(
                "TCNN-S20", f"{after} vs {before}", sources[name], by_method[after], by_method[before],
                normaliser=NORMALISER,
            )[0]  # fmt: skip
            made += [
                replace(percent, metric="relative error reduction", points=5, unit="%"),
                _gap(about, -compared.difference, -compared.high, -compared.low),
            ]
        if run.faces == "real":
            made += _rows_before(run, sources[name], by_method[TCNN], derived(name)[BEFORE].value)
    return as_published(made)


def _versus(run: Experiment, source: FaceSource, runs: Sequence[Predictions], method: str) -> Row:
    [row] = run.error_rows("TCNN-S21", method, source, runs, [NORMALISER], rates=None)
    return row


def _gap(about: Row, value: float, low: float, high: float) -> Row:
    return replace(about, metric="absolute error gap", value=value, ci_low=low, ci_high=high, unit="points")


def _rows_before(
    run: Experiment, source: FaceSource, runs: Sequence[Predictions], number: float
) -> list[Row]:
    about = _versus(run, source, runs, f"{TCNN} vs {BEFORE}")
    note = "; ".join([about.note, f"{BEFORE} by the number that follows from the text"])
    value, low, high = bootstrap_mean(_errors(runs))
    gap = replace(_gap(about, number - value, number - high, number - low), note=note)
    share = [100 * one / number for one in (gap.value, gap.ci_low, gap.ci_high)]
    percent = replace(
        gap, artefact="TCNN-S20", method=f"{TCNN} vs best previous", metric="relative error reduction",
        normaliser=NO_NORMALISER, value=share[0], ci_low=share[1], ci_high=share[2], unit="%",
    )  # fmt: skip
    return [gap, percent]


def judge_benchmark(run: Experiment, results: Mapping[str, Runs]) -> Verdict:
    """Judge and record TCNN-C9 with mirror images on both sides; the note has the same with one image on both, and with labels of their own."""
    remarks = []
    for method, condition in ((TCNN, ONE), (OWN, ""), (OWN, ONE)):
        found = []
        for name, by_method in results.items():
            sides = [by_method[method], by_method[VANILLA]]
            compared = paired_bootstrap(*(_errors(under(one, ONE) if condition else one) for one in sides))
            found.append(f"{name} {with_interval(compared.difference, compared.low, compared.high, '+')}")
        remarks.append(f"{', '.join(filter(None, [method, condition]))}: {', '.join(found)}")
    sides = ({name: by_method[method] for name, by_method in results.items()} for method in (TCNN, VANILLA))
    first = next(iter(results.values()))
    remarks.append(moved({method: first[method] for method in (TCNN, OWN)}))
    return run.judge_on("TCNN-C9", *sides, "; ".join(remarks))


def judge_before(run: Experiment, claim_id: str, name: str, results: Mapping[str, Runs]) -> Verdict | None:
    """Judge and record TCNN-C10 or C11, on photographs; None if the faces are absent."""
    if name not in results:
        return None
    _, low, high = derived(name)[BEFORE]
    alone = _errors(results[name][VANILLA]).mean()
    notes = [
        f"{VANILLA} {alone:.2f}",
        f"{BEFORE} follows from the printed gap and percentage, whose rounding allows {low:.2f} to {high:.2f}",
    ]
    if name == "afw":
        notes.append(
            "on the faces of AFW that 300-W annotates, by means of eye points as eye centres (TCNN-A15), not on the paper's list"
        )
    elif all(tested.ONE_PIXEL in one.errors for one in results[name][TCNN]):
        moved_by_one = stacked_errors(list(results[name][TCNN]), tested.ONE_PIXEL).mean()
        notes.append(
            f"with the test labels one pixel to the left and up it is {moved_by_one:.2f}, see TCNN-A31"
        )
    note = "; ".join(notes)
    return run.judge_published(claim_id, {name: results[name][TCNN]}, BEFORE, note)


# By pose ----------------------------------------------------------------------------------------------------------------------------------


def by_pose(found: Clustered) -> dict[str, np.ndarray]:
    """Masks (N,) of the faces in each of `POSES`, by its name; none if poses are not known."""
    if found.pose is None:
        return {}
    masks = {name: np.isin(found.pose, labels) for name, labels in POSES.items()}
    return {name: mask for name, mask in masks.items() if mask.sum() > 1}


def pose_rows(
    run: Experiment, artefact: str, source: FaceSource, results: Runs, poses: Mapping[str, np.ndarray]
) -> list[Row]:
    """Mean errors by pose; the number of faces is that of the pose."""
    rows = []
    for name, mask in poses.items():
        by_method = among(results, mask)
        made = rows_of(run, {artefact: list(by_method)}, source, by_method, [NORMALISER], None)
        rows += [replace(row, subset=f"{row.subset}, {name}") for row in as_published(made)]
    return rows


def pose_table(
    run: Experiment, source: FaceSource, results: Runs, poses: Mapping[str, np.ndarray], title: str
) -> Table:
    """Mean error of the vanilla network by pose, and paired differences of the tweaked ones to it."""
    lines = []
    for name, mask in poses.items():
        shown = among(results, mask)
        before = _errors(shown[VANILLA])
        changes = [paired_bootstrap(_errors(shown[method]), before) for method in (TCNN, OWN)]
        cells = [with_interval(one.difference, one.low, one.high, "+") for one in changes]
        lines.append((name, f"{mask.sum():,}", with_interval(*bootstrap_mean(before)), *cells))
    columns = ["pose", "faces", f"{VANILLA}, %", *(f"{method}, difference" for method in (TCNN, OWN))]
    return Table(pd.DataFrame(lines, columns=columns), runs_caption(run, source, results[TCNN], title))


# Fig. 9 -----------------------------------------------------------------------------------------------------------------------------------


def by_tcnn(run: Experiment, config: TCNNConfig, train: FaceSource) -> Predict:
    """Landmarks (N, 5, 2) of faces by TCNN, of the run's first seed; the network is obtained at the first call."""

    def predict(faces: FaceSet) -> np.ndarray:
        model, _ = tcnn_training.obtain(config, train, run.profile, run.seed, device=run.device)
        return tcnn_training.predict_faces(model, faces)

    return predict


def example_faces(
    run: Experiment, artefact: str, shown: Mapping[str, tuple[FaceSet, Predictions]], predict: Predict
) -> Figure:
    """Faces of each test set, truth in white and TCNN's points in cyan, those further off than `MISTAKE` in red; recorded for an artefact.

    The first two rows are the first faces of the set, the others those with the largest errors among the rest.

    Parameters
    ----------
    shown : dict of str to (FaceSet, Predictions)
        By test set: its first faces, and predictions on all.
    predict : callable
        From faces to landmarks (N, 5, 2), asked where points are not on record.
    """
    figure = plt.figure(figsize=(10.5, 7.6), layout="constrained")
    halves = figure.subfigures(2, len(shown), squeeze=False)
    parts, count = [], 0
    for (upper, lower), (name, (faces, found)) in zip(halves.T, shown.items(), strict=True):
        errors = found.errors[NORMALISER][: len(faces)]
        which = _first_and_worst(errors)
        one = faces.subset(which)
        points = predict(one) if found.points is None else found.points[which]
        wrong, count = _wrong(points, one), count + len(which)
        cells = []
        rest = f"largest errors of the next {len(faces) - 2 * COLUMNS}"
        for half, what in ((upper, "first faces"), (lower, rest)):
            half.suptitle(f"{name.upper()}: {what}", fontsize="small")
            cells += list(half.subplots(2, COLUMNS).flat)
        for cell in cells:
            cell.set_axis_off()
        for cell, *face in zip(cells, one.images, one.points, points, wrong, errors[which], strict=False):
            _draw(cell, *face)
        in_words = ", ".join(f"{error:.1f}" for error in errors[which])
        parts.append(f"{name.upper()}: errors of {in_words} %, {wrong.sum()} of {wrong.size} points in red.")
    figure.set_label(
        f"{run.faces} faces with true points in white and those of TCNN in cyan, red if more than {MISTAKE:g} % of the distance of the eyes off. "
        + " ".join(parts)
    )
    first, _ = next(iter(shown.values()))
    about = dict(images=count, seeds=1, box_rule=first.box_rule, subset="mtfl/aflw, mtfl/afw")
    return run.record_figure(artefact, "example detections", figure, **about)


def _first_and_worst(errors: np.ndarray) -> np.ndarray:
    """Two rows of the first faces, and two of those with the largest errors of the others: indices, of N errors."""
    first = np.arange(min(len(errors), 2 * COLUMNS))
    others = np.argsort(-errors[len(first) :], kind="stable")[: 2 * COLUMNS]
    return np.concatenate([first, len(first) + others])


def _wrong(points: np.ndarray, faces: FaceSet) -> np.ndarray:
    """(N, 5) bool: the points that are further off than `MISTAKE`."""
    eyes = normalising_distance(faces.points, NORMALISER, faces.markup)
    return 100 * np.linalg.norm(points - faces.points, axis=-1) > MISTAKE * eyes[:, None]


def _draw(
    ax: Axes, image: np.ndarray, true: np.ndarray, points: np.ndarray, wrong: np.ndarray, error: float
) -> None:
    """One face with its true points, those that were found, and the error above it."""
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
    ax.plot(*true.T, "o", color="white", markersize=3.4, markeredgecolor="black", markeredgewidth=0.4)
    for color, which in (("#00FFFF", ~wrong), ("#FF2020", wrong)):
        look = dict(markersize=2.8, markeredgecolor="black", markeredgewidth=0.3)
        ax.plot(*points[which].T, "s", color=color, **look)
    ax.set_title(f"{error:.1f} %", fontsize="x-small", pad=2)
