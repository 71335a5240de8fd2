"""What the TCNN chapter shows of more than five points (§5.3): one fitter of 68 points on 300-W, from the box and from five points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from replicate.evidence import claims, detected, published, verdicts
from replicate.evidence.captions import caption, caption_of
from replicate.evidence.claims import Verdict
from replicate.evidence.detected import DetectedBoxes, SimulatedBoxes
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import FITTED, draw_landmarks
from replicate.evidence.predictions import Predictions, Runs, stacked_errors
from replicate.evidence.rows import Row
from replicate.evidence.sensitivity import Sensitivity, sensitivity_plot
from replicate.evidence.tables import Table, number
from replicate.evidence.tested import started
from replicate.evidence.tested.started import BOX, INNER, START, STARTS, TCNN, Boxes
from replicate.evidence.verdicts import statistic_of
from replicate.evidence.views.ablations import with_interval
from replicate.evidence.views.compared import behind, on_faces
from replicate.evidence.views.ect_protocols import among
from replicate.faces.boxes import TIGHT
from replicate.faces.faceset import FaceSet
from replicate.faces.markups import convert
from replicate.faces.sources import FaceSource
from replicate.metrics import paired_bootstrap

ALL = "inter-ocular"  # error of all 68 points
SCORES = {"49 points": INNER.key, "68 points": ALL}  # as the claim names them
RATE = "failure rate 0.10"  # Fig. 10: of the inter-ocular distance
END = 10.0  # per cent: right end of the curves
LEVELS = (0.0, 0.05, 0.1, 0.2)  # of the error of simulated boxes
USUAL = TIGHT.shift_sd  # that of all other pages
DETECTOR, FOUND = "detector's boxes", "detector's boxes, faces found"
SETS = {  # Fig. 11; by how the names of their faces begin, generated ones and photographs
    "AFW": ("afw/",),
    "HELEN": ("helen/",),
    "iBUG": ("300w/", "ibug/"),
    "LFPW": ("lfpw/",),
}
LINES = 3  # faces of a set that Fig. 11 shows with 49 points, and as many with 68
TESTED = "all of 300-W but the training faces of LFPW and HELEN, from which SDM has learnt"


@dataclass(frozen=True)
class Beyond:
    """The faces of the experiment, and its fits."""

    run: Experiment

    @property
    def test(self) -> FaceSource:
        """What no model has learnt from: 1,026 faces in full."""
        return self.run.source("300w", "unseen")

    @property
    def train(self) -> FaceSource:
        """What SDM learns from."""
        return self.run.source("300w", "lfpw+helen")

    @property
    def five(self) -> FaceSource:
        """What the networks learn from."""
        return self.run.source("mtfl", "train")

    @property
    def parts(self) -> dict[str, FaceSource]:
        """The test sets that `test` is made of, by name."""
        return dict(zip(SETS, self.test.leaves, strict=True))

    @property
    def detected(self) -> DetectedBoxes:
        """The test faces in the boxes of a detector."""
        return DetectedBoxes(self.test, self.train)

    def fit(self, boxes: Boxes, starts: Sequence[str] = STARTS) -> dict[str, list[Predictions]]:
        """Runs from some starts, one per training seed of the networks; the points that Fig. 11 shows are kept."""
        return {start: self._runs(boxes, start) for start in starts}

    def by_boxes(self) -> dict[str, dict[str, list[Predictions]]]:
        """Runs from the box and from TCNN's points, by what the boxes are; in the detector's also on the faces that it finds."""
        starts = (BOX, TCNN)
        simulated = {noise(one): self.fit(SimulatedBoxes(self.test, one), starts) for one in LEVELS}
        results = self.fit(self.detected, starts)
        found = among(results, detected.found(detected.detections(self.run, self.detected)))
        return {DETECTOR: results, FOUND: found} | simulated

    def _runs(self, boxes: Boxes, start: str) -> list[Predictions]:
        points = start == TCNN and isinstance(boxes, DetectedBoxes)
        seeds = self.run.seeds(3)
        return started.test_started(self.run, self.train, self.five, boxes, start, seeds=seeds, points=points)


def noise(level: float) -> str:
    """What simulated boxes with an error of this standard deviation are called."""
    return f"simulated boxes, error {100 * level:g} %"


def of_sets(results: Runs) -> dict[str, dict[str, list[Predictions]]]:
    """The same runs on the faces of each of `SETS`."""
    names = next(iter(results.values()))[0].names
    masks = {name: np.array([one.startswith(begin) for one in names]) for name, begin in SETS.items()}
    return {name: among(results, mask) for name, mask in masks.items()}


# Fig. 10c and the claim -----------------------------------------------------------------------------------------------------------------------


def performance_rows(run: Experiment, artefact: str, source: FaceSource, results: Runs) -> list[Row]:
    """Images with an error above a tenth of the inter-ocular distance and mean errors, of 49 and of 68 points, by start."""
    return [
        row
        for method, runs in results.items()
        for score in SCORES.values()
        for row in run.error_rows(artefact, method, source, runs, [score], rates=(score, 0.1))
        if row.metric in (RATE, "mean error")
    ]


def performance_table(rows: Sequence[Row], title: str) -> Table:
    """Fig. 10c: what the paper prints of CLNF and of other methods, and below it what is measured here with SDM; all in per cent."""
    lines: dict[str, dict[str, str]] = {}
    for one in _printed():
        line = lines.setdefault(f"{one['label']}, as printed", {})
        line[_column(int(one["points"]), one["metric"])] = _per_cent(one)
        line["remark"] = line.get("remark") or one["note"].replace("dash in the paper", "")
    for row in rows:
        shown = with_interval(row.value, row.ci_low, row.ci_high)
        lines.setdefault(f"{row.method}, here", {})[_column(row.points, row.metric)] = shown
    columns = [_column(points, metric) for points in (49, 68) for metric in (RATE, "mean error")]
    table = pd.DataFrame.from_dict(lines, orient="index").reindex(columns=[*columns, "remark"]).fillna("")
    return Table(table.rename_axis("method").reset_index(), caption(rows, title))


def _printed() -> list[dict]:
    found = published.load("tcnn")
    return found[found["artefact"] == "TCNN-F10c"].to_dict("records")


def _column(points: int, metric: str) -> str:
    return f"{points} points, {'above 10 %' if metric == RATE else metric}"


def _per_cent(one: Mapping) -> str:
    """A printed number in per cent; a dash where the paper has one."""
    if np.isnan(one["number"]):
        return "–"
    return number(100 * one["number"] if one["unit"] == "fraction" else one["number"], "%")


def judge_starts(run: Experiment, by_boxes: Mapping[str, Runs]) -> Verdict:
    """Judge and record that fewer faces fail from TCNN's points than from the box (TCNN-C20), in the detector's boxes; the note has also the
    differences in the simulated boxes of all other pages.
    """
    claim = claims.get("TCNN-C20")
    elsewhere = [
        f"{verdict.difference:+.3g} [{verdict.ci_low:+.3g}, {verdict.ci_high:+.3g}] with {quantity.at}"
        for quantity, verdict in _judged(run, by_boxes[noise(USUAL)])
    ]
    note = f"{BOX} takes the place of CLNF; {noise(USUAL)}: {', '.join(elsewhere)}; {DETECTOR}"
    verdict = verdicts.combine_quantities(claim, _judged(run, by_boxes[DETECTOR]), note)
    claims.record([verdict])
    return verdict


def _judged(run: Experiment, results: Runs) -> list[tuple[claims.Quantity, Verdict]]:
    """Verdicts on 68 and on 49 points."""
    claim, about = claims.get("TCNN-C20"), dict(faces=run.faces, profile=run.profile)
    judged = []
    for quantity in claim.quantities:
        sides = (stacked_errors(list(results[start]), SCORES[quantity.at]) for start in (TCNN, BOX))
        which = dict(metric=quantity.metric, at=quantity.at)
        judged.append((quantity, verdicts.judge_paired(claim, *sides, **about, **which)))
    return judged


# Starts (S26) ---------------------------------------------------------------------------------------------------------------------------------


def start_rows(run: Experiment, artefact: str, source: FaceSource, results: Runs) -> list[Row]:
    """Mean errors of the shapes that the fits begin with, and of those that they end in; all of 68 points."""
    rows = []
    for method, runs in results.items():
        rows += run.error_rows(artefact, method, source, runs, [START, ALL], rates=None)
    return [
        replace(row, metric=f"{row.metric}, at the end") if row.metric == "mean error" else row
        for row in rows
    ]


def box_rows(run: Experiment, artefact: str, source: FaceSource, by_boxes: Mapping[str, Runs]) -> list[Row]:
    """Failures and mean errors in each kind of boxes."""
    return [
        replace(row, metric=f"{row.metric}, {name}")
        for name, results in by_boxes.items()
        for row in performance_rows(run, artefact, source, results)
    ]


def box_table(run: Experiment, by_boxes: Mapping[str, Runs], score: str, title: str) -> Table:
    """Images above a tenth of the inter-ocular distance from the box and from TCNN's points, with their paired difference, in each kind of boxes."""
    lines = []
    for name, results in by_boxes.items():
        sides = [stacked_errors(list(results[start]), score) for start in (BOX, TCNN)]
        fails = paired_bootstrap(sides[1], sides[0], statistic_of(RATE))
        means = paired_bootstrap(sides[1], sides[0])
        lines.append(
            (
                name,
                number(sides[0].shape[1], "count"),
                *(f"{fails[side]:.2f}" for side in (1, 0)),
                with_interval(fails.difference, fails.low, fails.high, "+"),
                *(f"{means[side]:.2f}" for side in (1, 0)),
                with_interval(means.difference, means.low, means.high, "+"),
            )
        )
    heads = [
        f"{what}, {start}" for what in ("above 10 %", "mean error") for start in (BOX, TCNN, "difference")
    ]
    results = next(iter(by_boxes.values()))
    about = caption_of(
        faces=run.faces,
        profile=run.profile,
        images={"unseen": len(results[BOX][0].names)},
        seeds=len(results[TCNN]),
        notes=[f"{BOX} and {TCNN} in per cent", TESTED],
        title=title,
    )
    return Table(pd.DataFrame(lines, columns=["boxes", "faces", *heads]), about)


def set_table(run: Experiment, results: Runs, title: str) -> Table:
    """Images above a tenth of the inter-ocular distance on each of the four sets, by start; 68 points."""
    lines = []
    for name, own in of_sets(results).items():
        fails = [statistic_of(RATE)(stacked_errors(list(runs), ALL), axis=-1).mean() for runs in own.values()]
        pair = paired_bootstrap(
            *(stacked_errors(list(own[start]), ALL) for start in (TCNN, BOX)), statistic_of(RATE)
        )
        gain = with_interval(pair.difference, pair.low, pair.high, "+")
        lines.append((name, len(own[BOX][0].names), *(f"{fail:.1f}" for fail in fails), gain))
    about = caption_of(
        faces=run.faces,
        profile=run.profile,
        images={name: count for name, count, *_ in lines},
        seeds=max(map(len, results.values())),
        box_rule=results[BOX][0].provenance["box_rule"],
        title=title,
    )
    columns = ["set", "faces", *results, f"{TCNN} less {BOX}"]
    return Table(pd.DataFrame(lines, columns=columns), about)


def noise_plot(run: Experiment, artefact: str, source: FaceSource, by_boxes: Mapping[str, Runs]) -> Figure:
    """Failures against the error of simulated boxes, from the box and from TCNN's points, recorded for an artefact."""
    runs = {level: by_boxes[noise(level)] for level in LEVELS}
    curves = {
        start: Sensitivity.of({level: results[start] for level, results in runs.items()}, ALL)
        for start in (BOX, TCNN)
    }
    most = runs[LEVELS[0]][TCNN]
    figure = sensitivity_plot(curves, metric=RATE, title=f"{on_faces(run, source, most)}, 68 points")
    about = behind(source, most) | {"box_rule": "simulated, with the error on the axis"}
    return run.record_figure(artefact, "failures by box noise", figure, **about)


# Fig. 11 --------------------------------------------------------------------------------------------------------------------------------------


def examples(study: Beyond, artefact: str, tested: Predictions) -> Figure:
    """The first faces of each set with 49 points, and the next with 68, fitted from TCNN's points; recorded for an artefact.

    Parameters
    ----------
    tested : Predictions
        The run of the first seed in the detector's boxes; its points are fitted again if they are not on record.
    """
    faces = study.test.sample(2 * LINES)
    points = _points(study, tested, faces)
    errors = {key: dict(zip(tested.names, tested.errors[key], strict=True)) for key in SCORES.values()}
    figure, axes = plt.subplots(LINES, 2 * len(SETS), figsize=(13, 1.75 * LINES + 0.5), layout="constrained")
    shown = []
    for place, (name, begin) in enumerate(SETS.items()):
        own = [index for index, one in enumerate(faces.names) if one.startswith(begin)]
        for number_of_face, index in enumerate(own):
            block, line = divmod(number_of_face, LINES)
            markup, score = (("ibug49", INNER.key), ("ibug68", ALL))[block]
            error = errors[score][faces.names[index]]
            ax = axes[line, block * len(SETS) + place]
            _draw(ax, faces.images[index], convert(points[index], "ibug68", markup), markup)
            ax.set_title(f"{name}, {error:.1f} %", fontsize="x-small")
            shown.append(f"{name}, {markup.removeprefix('ibug')} points: {error:.1f} %")
    what = (
        f"The first {study.run.faces} faces of each set, profile {study.run.profile}, seed {study.run.seed}"
    )
    figure.suptitle(f"{what}; 49 points (left) and 68 (right)", fontsize="small")
    figure.set_label(
        f"{what}. Landmarks by SDM from TCNN's points in yellow, with inter-ocular errors: {'; '.join(shown)}."
    )
    rule = tested.provenance["box_rule"]
    about = dict(subset=", ".join(SETS), images=len(faces), seeds=1, box_rule=rule)
    return study.run.record_figure(artefact, "fitted faces", figure, **about)


def _points(study: Beyond, tested: Predictions, faces: FaceSet) -> np.ndarray:
    """Fitted points (n, 68, 2) of some of the test faces, from the record where they are there."""
    where = {name: place for place, name in enumerate(tested.names)}
    places = [where[name] for name in faces.names]
    if tested.points is not None:
        return tested.points[places]
    boxed = study.detected.load().subset(np.array(places))
    run = study.run
    return started.begin(run, study.train, study.five, study.detected, TCNN, run.seed, boxed).end


def _draw(ax: Axes, image: np.ndarray, points: np.ndarray, markup: str) -> None:
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
    draw_landmarks(ax, points, markup, FITTED)
    ax.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    ax.set_axis_off()
