"""What the TCNN chapter shows of boxes (§2.1, §5.3): how many faces a real detector finds, how far its boxes are off, and what boxes cost."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from replicate.evidence import detected, tested
from replicate.evidence.captions import caption, caption_of
from replicate.evidence.detected import POSITION, SIZE, DetectedBoxes
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions, Runs, stacked_errors
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.sensitivity import NoisyBoxes, Sensitivity, at_level, sensitivity_plot
from replicate.evidence.tables import Table, number
from replicate.evidence.views.ablations import with_interval
from replicate.evidence.views.compared import behind, on_faces
from replicate.evidence.views.ect_protocols import among
from replicate.evidence.views.tcnn_300w import Beyond, of_sets
from replicate.faces import detector
from replicate.faces.protocols import box_rule_of
from replicate.faces.sources import FaceSource
from replicate.methods import tcnn
from replicate.metrics import Interval, bootstrap_mean, bootstrap_statistic, failures, paired_bootstrap

LEVELS = (0.0, 0.025, 0.05, 0.1)  # of the error of simulated boxes
NORMALISER = "inter-pupil"
VANILLA, TCNN = "vanilla CNN", "TCNN"
SAMPLE = 500  # first generated training faces that the detector looks at; of photographs, it looks at all
THRESHOLD = 10.0  # per cent of the distance of the eyes
MISSED = "faces missed"
SPREADS = {POSITION: "error of position, root mean square", SIZE: "error of size, root mean square"}
FALLBACKS = "faces that start from the true box"
BY_DETECTOR, FOUND = "detector's boxes, true ones of faces missed", "detector's boxes, faces found"
FAILED = f"failure rate {THRESHOLD / 100:.2f}, faces missed counted as failures"

Looked = Mapping[
    str, tuple[FaceSource, Predictions]
]  # by the set's name: what the detector says of its faces


# Detections (S2, S28) -------------------------------------------------------------------------------------------------------------------------


def look(run: Experiment, train: FaceSource, test: FaceSource) -> dict[str, tuple[FaceSource, Predictions]]:
    """What the detector says of the faces that the networks learn from, of those of AFLW, and of the four sets of 300-W."""
    first = SAMPLE if run.faces == "synthetic" else None
    sources = {
        "training": (train, DetectedBoxes(train, train, first)),
        "AFLW": (test, DetectedBoxes(test, train)),
    }
    found = {name: (source, detected.detections(run, boxes)) for name, (source, boxes) in sources.items()}
    return found | look_300w(Beyond(run))


def look_300w(study: Beyond) -> dict[str, tuple[FaceSource, Predictions]]:
    """The same of the test faces of §5.3."""
    by_set = of_sets({detector.NAME: [detected.detections(study.run, study.detected)]})
    return {name: (source, by_set[name][detector.NAME][0]) for name, source in study.parts.items()}


def detection_rows(run: Experiment, artefact: str, looked: Looked) -> list[Row]:
    """Faces that the detector misses on each set, and how far its boxes of the others are off, in per cent of the true boxes' sides."""
    rows = []
    for source, one in looked.values():
        missed = ~detected.found(one)
        share = bootstrap_mean(100.0 * missed)
        rows.append(replace(_row(run, artefact, source, one, MISSED, share, "%"), count=int(missed.sum())))
        if (~missed).sum() > 1:
            spreads = {POSITION: _per_axis, SIZE: _spread}
            rows += [
                _row(
                    run,
                    artefact,
                    source,
                    one,
                    SPREADS[key],
                    bootstrap_statistic(one.errors[key][~missed], spread),
                    "%",
                )
                for key, spread in spreads.items()
            ]
    return rows


def fallback_rows(run: Experiment, artefact: str, study: Beyond, looked: Looked) -> list[Row]:
    """How many faces of each set, and of all, start from the true box since the detector misses them."""
    counted = {(source.protocol, source.split): one for source, one in looked.values()}
    missed = {which: int((~detected.found(one)).sum()) for which, one in counted.items()}
    images = {which: len(one.names) for which, one in counted.items()}
    every = study.test.protocol, study.test.split
    missed[every], images[every] = sum(missed.values()), sum(images.values())
    any_one = next(iter(looked.values()))
    return [
        replace(
            _row(run, artefact, *any_one, FALLBACKS, Interval(float(count), None, None), "count"),
            protocol=which[0],
            subset=which[1],
            images=images[which],
        )
        for which, count in missed.items()
    ]


def detection_table(rows: Sequence[Row], looked: Looked, title: str) -> Table:
    """Rows of `detection_rows`: a line for each set."""
    found = {(row.protocol, row.subset, row.metric): row for row in rows}
    lines = []
    for name, (source, one) in looked.items():
        own = [found.get((source.protocol, source.split, metric)) for metric in (MISSED, *SPREADS.values())]
        cells = ["–" if row is None else with_interval(row.value, row.ci_low, row.ci_high) for row in own]
        lines.append((name, number(len(one.names), "count"), number(own[0].count, "count"), *cells))
    columns = ["set", "faces", MISSED, f"{MISSED}, %", *(f"{metric}, %" for metric in SPREADS.values())]
    return Table(pd.DataFrame(lines, columns=columns), caption(rows, title))


def fallback_table(rows: Sequence[Row], names: Mapping[tuple[str, str], str], title: str) -> Table:
    """Rows of `fallback_rows`; `names` by protocol and subset."""
    lines = [
        (
            names.get((row.protocol, row.subset), "together"),
            number(row.images, "count"),
            number(row.value, "count"),
            f"{100 * row.value / row.images:.1f}",
        )
        for row in rows
    ]
    columns = ["set", "faces", FALLBACKS, "per cent"]
    return Table(pd.DataFrame(lines, columns=columns), caption(rows, title))


def _row(
    run: Experiment,
    artefact: str,
    source: FaceSource,
    one: Predictions,
    metric: str,
    interval: Interval,
    unit: str,
) -> Row:
    return Row(
        artefact=artefact, method=detector.NAME, protocol=source.protocol, subset=source.split, points=None, metric=metric,
        normaliser=NO_NORMALISER, value=interval.value, ci_low=interval.low, ci_high=interval.high, unit=unit, images=len(one.names),
        seeds=None, faces=run.faces, profile=run.profile, device=one.provenance["device"], model=one.model,
    )  # fmt: skip


def _per_axis(distances: np.ndarray, axis: int = -1) -> np.ndarray:
    """Root mean square along one axis, from distances in the plane."""
    return np.sqrt(np.square(distances).mean(axis) / 2)


def _spread(sizes: np.ndarray, axis: int = -1) -> np.ndarray:
    """Root of the mean square."""
    return np.sqrt(np.square(sizes).mean(axis))


# Errors by box rule (S2) ----------------------------------------------------------------------------------------------------------------------


def test_boxes(
    run: Experiment, train: FaceSource, test: FaceSource
) -> dict[str | float, dict[str, list[Predictions]]]:
    """Runs of both networks by the error of simulated boxes, and, as `BY_DETECTOR`, in the detector's."""
    own = box_rule_of(test.protocol, test.split).shift_sd  # these boxes the faces have already
    sources = {level: test if level == own else NoisyBoxes(test, level) for level in LEVELS}
    sources[BY_DETECTOR] = DetectedBoxes(test, train)
    config, seeds = tcnn.CONFIGS[run.profile], run.seeds(3)
    return {
        name: {
            VANILLA: tested.test_vanilla(run, config.vanilla, train, source, seeds=seeds),
            TCNN: tested.test_tcnn(run, config, train, source, seeds=seeds),
        }
        for name, source in sources.items()
    }


def of_found(results: Runs, looked: Predictions) -> dict[str, list[Predictions]]:
    """The same runs on the faces that the detector has found."""
    return among(results, detected.found(looked))


def box_rows(
    run: Experiment,
    artefact: str,
    source: FaceSource,
    by_boxes: Mapping[str | float, Runs],
    looked: Predictions,
) -> list[Row]:
    """Mean errors by box; in the detector's boxes also of the faces that it finds, and the failures if those that it misses are some."""
    named = {name if isinstance(name, str) else _level(name): runs for name, runs in by_boxes.items()}
    named[FOUND] = of_found(by_boxes[BY_DETECTOR], looked)
    rows = [
        replace(row, metric=f"{row.metric}, {name}")
        for name, results in named.items()
        for method, runs in results.items()
        for row in run.error_rows(artefact, method, source, runs, [NORMALISER], rates=None)
    ]
    missed = ~detected.found(looked)
    for method, runs in by_boxes[BY_DETECTOR].items():
        fails = [100.0 * (missed | failures(one.errors[NORMALISER], THRESHOLD)) for one in runs]
        counted = [
            replace(one, errors={NORMALISER: f}, points=None) for one, f in zip(runs, fails, strict=True)
        ]
        [row] = run.error_rows(artefact, method, source, counted, [NORMALISER], rates=None)
        rows.append(replace(row, metric=FAILED, count=int(np.sum(fails)) // 100))
    return rows


def box_table(
    run: Experiment, by_boxes: Mapping[str | float, Runs], looked: Predictions, title: str
) -> Table:
    """Mean error of both networks and their paired difference, in each kind of boxes."""
    named = {name if isinstance(name, str) else _level(name): runs for name, runs in by_boxes.items()}
    named[FOUND] = of_found(by_boxes[BY_DETECTOR], looked)
    lines = []
    for name, results in named.items():
        vanilla, tweaked = (stacked_errors(list(results[method]), NORMALISER) for method in (VANILLA, TCNN))
        pair = paired_bootstrap(tweaked, vanilla)
        cells = (with_interval(*bootstrap_mean(errors)) for errors in (vanilla, tweaked))
        lines.append(
            (name, vanilla.shape[1], *cells, with_interval(pair.difference, pair.low, pair.high, "+"))
        )
    one = by_boxes[BY_DETECTOR][TCNN]
    about = caption_of(
        faces=run.faces,
        profile=run.profile,
        images={"test": len(one[0].names)},
        seeds=len(one),
        notes=[f"mean errors in per cent of the {NORMALISER} distance"],
        title=title,
    )
    return Table(pd.DataFrame(lines, columns=["boxes", "faces", VANILLA, TCNN, "difference"]), about)


def noise_plot(
    run: Experiment, artefact: str, source: FaceSource, by_boxes: Mapping[str | float, Runs]
) -> Figure:
    """Mean error of both networks against the error of simulated boxes, recorded for an artefact."""
    curves = {
        method: Sensitivity.of({level: by_boxes[level][method] for level in LEVELS}, NORMALISER)
        for method in (VANILLA, TCNN)
    }
    runs = by_boxes[LEVELS[0]][TCNN]
    figure = sensitivity_plot(curves, title=on_faces(run, source, runs))
    about = behind(source, runs) | {"box_rule": "simulated, with the error on the axis"}
    return run.record_figure(artefact, "mean error by box noise", figure, **about)


def _level(level: float) -> str:
    return at_level("", level).removeprefix(", ")
