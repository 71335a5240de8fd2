"""What the TCNN chapter shows of face recognition (§5.2): Table 2 with other aligners, on other people; the claim; and the pipeline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from replicate.devices import choose_device, describe_device
from replicate.evidence import captions, published, timings
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.tables import Table, number
from replicate.evidence.views.ablations import with_interval
from replicate.faces import people as known_people
from replicate.faces import protocols
from replicate.faces.faceset import FaceSet
from replicate.faces.people import People
from replicate.faces.sources import FaceSource
from replicate.methods import recognition, recognition_training, tcnn, tcnn_training
from replicate.methods.recognition import CONFIGS, FARS, AlignedFaces, Recogniser
from replicate.methods.recognition_training import ALIGNERS, CASCADE, TCNN, VANILLA, Aligners
from replicate.metrics import Comparison, bootstrap_mean, nme, paired_bootstrap

TABLE, DIFFERENCES, PIPELINE = "TCNN-T2", "TCNN-S25", "TCNN-S24"
CLAIM = "TCNN-C19"
SEEDS = 1  # recognisers: one training takes longer than all others of this chapter
OWN = f"{TCNN}, own labels"  # the tweaked network whose warped images keep their own points
TRUE = "true points"  # what an alignment without errors would give; of generated faces alone
SUFFIX = ", same pipeline, alignment by"  # of methods, as the paper's values name them
STATED = "face-recognition pipeline"  # method of S24 among the paper's values
METRIC = {far: f"TAR at FAR {far:g}" for far in FARS}
SPREAD = ", standard deviation over splits"
MINUS = f", minus that of {TCNN}"
ERROR = "mean error"


# What is measured ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Accepted:
    """What the recognition makes of each alignment.

    Attributes
    ----------
    rates : dict of str to array
        By aligner (S, splits, len(FARS)): true accept rates of S training seeds, as fractions.
    errors : dict of str to array
        By aligner (S, N): error of the points of each face in per cent of the distance of the eyes; empty where they are not known.
    images, seconds : int, float
        Faces, and time of the trainings of the recognisers.
    models : str
        Their names.
    """

    rates: Mapping[str, np.ndarray]
    errors: Mapping[str, np.ndarray]
    images: int
    seconds: float
    models: str
    faces_sha256: str
    box_rule: str


def aligners_of(run: Experiment) -> tuple[str, ...]:
    """What is compared: the aligners, TCNN with other labels, and the true points where they are known."""
    return (*ALIGNERS, OWN) if run.faces == "real" else (*ALIGNERS, OWN, TRUE)


def points_of(run: Experiment, found: Aligners, faces: FaceSet, seed: int) -> dict[str, np.ndarray | None]:
    """By `aligners_of`, the points (N, 5, 2) of some faces; None for the box alone."""
    config = tcnn.CONFIGS[run.profile].with_own_labels()
    source = run.source(*recognition_training.LANDMARKS)
    own, _ = tcnn_training.obtain(config, source, run.profile, seed, device=run.device)
    points = found.points(faces) | {OWN: tcnn_training.predict_faces(own, faces)}
    return points if run.faces == "real" else points | {TRUE: faces.points}


def measure(run: Experiment) -> Accepted:
    """Train what is absent, and compare all pairs of templates of all splits with every aligner."""
    everybody = known_people.people(run.faces, run.profile)
    names = aligners_of(run)
    rates, errors, models, seconds = {name: [] for name in names}, {}, [], 0.0
    for seed in run.seeds(SEEDS):
        found = recognition_training.obtain_aligners(run.profile, run.faces, seed, run.device)
        points = points_of(run, found, everybody.faces, seed)
        if TRUE in names:
            for name, error in _landmark_errors(everybody, points, found).items():
                errors.setdefault(name, []).append(error)
        aligned = recognition.align(everybody.faces.images, everybody.faces.boxes, points, found.template)
        networks = _recognisers(run, everybody, aligned, seed)
        for name in names:
            rates[name].append(accepted(everybody, aligned, name, [network for network, _ in networks]))
        own = {model.key.hash: model for _, model in networks}
        models += own
        seconds += sum(model.report.seconds for model in own.values())
    rates, errors = ({name: np.stack(one) for name, one in side.items()} for side in (rates, errors))
    faces = everybody.faces
    return Accepted(rates, errors, len(faces), seconds, " ".join(models), faces.sha256, faces.box_rule)


def _recognisers(run: Experiment, everybody: People, aligned: AlignedFaces, seed: int) -> list[tuple]:
    """A recogniser and its stored model for each split; generated people share one."""
    config, about = CONFIGS[run.profile], dict(device=run.device, fresh=run.fresh)
    if run.faces == "real":
        among = AlignedFaces(aligned.canvases, {name: aligned.moves[name] for name in ALIGNERS})
        return recognition_training.obtain_of_splits(
            config, everybody, lambda: among, run.profile, seed, **about
        )
    return [recognition_training.obtain(config, run.profile, seed, **about)] * len(everybody.splits)


def accepted(
    everybody: People, aligned: AlignedFaces, aligner: str, networks: Sequence[Recogniser]
) -> np.ndarray:
    """True accept rates (splits, len(FARS)) of one alignment, by the recogniser of each split."""
    found, raw = [], {}
    for split, network in zip(everybody.splits, networks, strict=True):
        if id(network) not in raw:
            raw = {id(network): recognition.features(network, aligned, aligner).cpu().numpy()}
        compared = recognition.compare(split, raw[id(network)])
        found.append([compared.accepted(far) for far in FARS])
    return np.array(found)


def _landmark_errors(
    everybody: People, points: Mapping[str, np.ndarray | None], found: Aligners
) -> dict[str, np.ndarray]:
    """Errors (N,) of the points of each aligner; of the box alone, those of the mean shape in it."""
    mean = (found.template.numpy() - (recognition.FRAME.size - 1) / 2) / recognition.FRAME.extent
    boxes, true = everybody.faces.boxes, everybody.faces.points
    centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).mean(1)
    placed = mean * side[:, None, None] + centre[:, None]
    return {
        name: nme(
            placed if one is None else one, true, normaliser="inter-pupil", markup=everybody.faces.markup
        )
        for name, one in points.items()
        if name != TRUE
    }


# Table 2 and the claim ----------------------------------------------------------------------------------------------------------------------


def verification(run: Experiment) -> tuple[list[Row], Verdict]:
    """Rows of Table 2 and of what goes with it (S25), and the verdict on TCNN-C19: from the record, else measured now and recorded."""
    names = [name + SUFFIX for name in aligners_of(run)]
    others = [name + SUFFIX for name in aligners_of(run) if name != TCNN]
    wanted = [(TABLE, METRIC[far] + more, names) for far in FARS for more in ("", SPREAD)]
    wanted += [(DIFFERENCES, METRIC[far] + MINUS, others) for far in FARS]
    if run.faces == "synthetic":
        wanted.append((DIFFERENCES, ERROR, [name + SUFFIX for name in (*ALIGNERS, OWN)]))
    if known := timings.known(run, wanted, CLAIM):
        return known
    found = measure(run)
    made = rate_rows(run, found)
    run.record(made)
    return made, judge(run, found)


def rate_rows(run: Experiment, found: Accepted) -> list[Row]:
    """True accept rates and their spread over splits, differences to TCNN, and errors of the points."""

    def row(artefact: str, aligner: str, metric: str, interval: Sequence, **more) -> Row:
        value, low, high = interval
        about = dict(
            protocol="janus" if run.faces == "synthetic" else "lfw", subset="", points=None, normaliser=NO_NORMALISER, unit="fraction",
            images=found.images, seeds=len(run.seeds(SEEDS)), faces=run.faces, profile=run.profile, device=describe_device(choose_device(run.device)),
            seconds=found.seconds, faces_sha256=found.faces_sha256, box_rule=found.box_rule, model=found.models, note=_note(run),
        )  # fmt: skip
        return Row(
            artefact=artefact,
            method=aligner + SUFFIX,
            metric=metric,
            value=value,
            ci_low=low,
            ci_high=high,
            **about | more,
        )

    made = []
    for place, far in enumerate(FARS):
        for aligner, rates in found.rates.items():
            own = rates[..., place]
            made.append(row(TABLE, aligner, METRIC[far], bootstrap_mean(own)))
            made.append(row(TABLE, aligner, METRIC[far] + SPREAD, (own.std(1, ddof=1).mean(), None, None)))
            if aligner != TCNN:
                _, _, *difference, _ = paired_bootstrap(own, found.rates[TCNN][..., place])
                made.append(row(DIFFERENCES, aligner, METRIC[far] + MINUS, difference))
    for aligner, errors in found.errors.items():
        about = dict(normaliser="inter-pupil", unit="%", points=5)
        made.append(row(DIFFERENCES, aligner, ERROR, bootstrap_mean(errors), **about))
    return made


def _note(run: Experiment) -> str:
    return (
        "templates of generated people in the place of Janus CS2; intervals over splits, which share people"
        if run.faces == "synthetic"
        else "pairs of LFW, ten identity-disjoint folds, in the place of Janus CS2; intervals over folds; some of the people are among the photographs "
        "that the landmark methods were trained on"
    )


def judge(run: Experiment, found: Accepted) -> Verdict:
    """Judge and record that faces aligned by TCNN are verified better than those aligned by `CASCADE`; the note has the vanilla network."""
    compared: dict[str, Comparison] = {}
    notes = []
    for place, far in enumerate(FARS):
        tcnn, cascade, vanilla = (found.rates[name][..., place] for name in (TCNN, CASCADE, VANILLA))
        compared[f"FAR {far:g}"] = paired_bootstrap(tcnn, cascade)
        _, _, *difference, _ = paired_bootstrap(tcnn, vanilla)
        notes.append(f"FAR {far:g}: {with_interval(*(100 * one for one in difference), '+')} points")
    note = f"{CASCADE} in the place of CLNF, ERT and LBF; against {VANILLA}, {', '.join(notes)}; {_note(run)}"
    about = dict(images=found.images, seeds=len(run.seeds(SEEDS)))
    return run.judge_comparison(CLAIM, compared, note=note, **about)


def rates_table(run: Experiment, made: Sequence[Row]) -> Table:
    """Table 2: the paper's numbers on Janus CS2, then ours, each ± its standard deviation over splits; and the error of the points where it is known."""
    printed = published.load("tcnn")
    printed = printed[(printed["artefact"] == TABLE) & printed["number"].notna()]
    found = {(row.method, row.metric): row for row in made}
    lines = []
    for label in dict.fromkeys(printed["label"]):
        own = printed[printed["label"] == label].set_index("metric")
        cells = [
            f"{own.loc[metric, 'value']} ± {own.loc[metric, 'plus_minus']}" for metric in METRIC.values()
        ]
        lines.append(
            ("paper, Janus CS2", label.removesuffix(SUFFIX).replace(", reference method", ""), *cells, "–")
        )
    for aligner in aligners_of(run):
        rows = [
            (found[aligner + SUFFIX, metric], found[aligner + SUFFIX, metric + SPREAD])
            for metric in METRIC.values()
        ]
        cells = [
            f"{own.value:.3f} [{own.ci_low:.3f}, {own.ci_high:.3f}] ± {spread.value:.3f}"
            for own, spread in rows
        ]
        error = found.get((aligner + SUFFIX, ERROR))
        lines.append(("here", aligner, *cells, number(error.value, "%") if error else "–"))
    columns = ["", "alignment", *METRIC.values(), "error of the points, %"]
    table = pd.DataFrame(lines, columns=columns)
    if (table[columns[-1]] == "–").all():
        table = table.drop(columns=columns[-1])
    about = captions.caption([row for row in made if row.artefact == TABLE], "True accept rates (Table 2)")
    return Table(table, about)


def difference_table(made: Sequence[Row]) -> Table:
    """What each alignment gains or loses against TCNN's, paired by split and seed."""
    own = [row for row in made if row.metric.endswith(MINUS)]
    found = {(row.method, row.metric): row for row in own}
    lines = [
        (
            method.removesuffix(SUFFIX),
            *(
                f"{row.value:+.3f} [{row.ci_low:+.3f}, {row.ci_high:+.3f}]"
                for row in (found[method, metric + MINUS] for metric in METRIC.values())
            ),
        )
        for method in dict.fromkeys(row.method for row in own)
    ]
    table = pd.DataFrame(lines, columns=["alignment", *METRIC.values()])
    return Table(table, captions.caption(own, f"True accept rate minus that of {TCNN} (S25)"))


# The pipeline (S24) -------------------------------------------------------------------------------------------------------------------------


def pipeline_rows(run: Experiment) -> list[Row]:
    """Numbers of a raw feature and those that PCA keeps, as the paper counts them."""
    config = CONFIGS[run.profile]
    kept = {
        "raw feature dimension": config.features,
        "PCA dimension": round(recognition.KEPT * config.features),
    }
    made = run.count_rows(PIPELINE, STATED, kept)
    run.record(made)
    return made


def layer_table(run: Experiment) -> Table:
    """The layers of the recogniser with the shapes of what leaves them and their weights."""
    config = CONFIGS[run.profile]
    people = len({*_learnt(run)})
    with torch.device("meta"):
        network = Recogniser(config, people)
        shapes, x = [], torch.empty(1, 3, recognition.FRAME.size, recognition.FRAME.size)
        for layer in network.convolutions:
            x = layer(x) if not isinstance(layer, torch.nn.BatchNorm2d) else x
            if isinstance(layer, torch.nn.Conv2d):
                shapes.append([f"conv{len(shapes) + 1}", layer, x.shape])
            elif isinstance(layer, torch.nn.MaxPool2d):
                shapes[-1][2] = x.shape
    lines = [
        (name, f"{layer.kernel_size[0]}x{layer.kernel_size[1]}, stride {layer.stride[0]}", "x".join(map(str, shape[1:])), f"{layer.weight.numel():,}")
        for name, layer, shape in shapes
    ]  # fmt: skip
    for name in ("fc6", "fc7", "fc8"):
        layer = getattr(network, name)
        lines.append((name, "dense", f"{layer.out_features}", f"{layer.weight.numel():,}"))
    about = f"The recogniser at profile {run.profile}: input 3x{recognition.FRAME.size}x{recognition.FRAME.size}; shapes after pooling where a layer has it; biases and batch normalisation are not counted."
    return Table(pd.DataFrame(lines, columns=["layer", "window", "output", "weights"]), about)


def _learnt(run: Experiment) -> list[int]:
    """Who is on each face that a recogniser of generated people learns from."""
    split = protocols.get(*recognition_training.LEARNT)[1]
    count = FaceSource(*recognition_training.LEARNT, "synthetic", run.profile).count
    return [protocols.person_of(split, split.first + index) for index in range(count)]


def aligned_panel(run: Experiment, count: int = 8) -> Figure:
    """The first pictures of the people as each aligner lays them, with the points that it found."""
    faces = _first(run, count)
    found = recognition_training.obtain_aligners(run.profile, run.faces, run.seed, run.device)
    points = points_of(run, found, faces, run.seed)
    aligned = recognition.align(faces.images, faces.boxes, points, found.template)
    index = torch.arange(len(faces))
    figure, axes = plt.subplots(
        len(points),
        len(faces),
        figsize=(1.1 * len(faces), 1.15 * len(points)),
        squeeze=False,
        layout="constrained",
    )
    for line, name in zip(axes, points, strict=True):
        for ax, crop in zip(line, aligned.crops(index, name), strict=True):
            ax.imshow(crop.permute(1, 2, 0).numpy(), interpolation="bilinear")
            ax.plot(*found.template.numpy().T, "+", color="white", markersize=3, markeredgewidth=0.6)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize="x-small")
    figure.set_label(
        f"{len(faces)} {run.faces} faces, one in each column, as laid by {', '.join(points)}; crosses where the five points of the template lie."
    )
    return run.record_figure(
        PIPELINE, "the same faces as each aligner lays them", figure, subset="janus" if run.faces == "synthetic" else "lfw",
        images=len(faces), seeds=1, box_rule=faces.box_rule,
    )  # fmt: skip


def _first(run: Experiment, count: int) -> FaceSet:
    """One picture each of the first people."""
    if run.faces == "real":
        faces = known_people.people("real", run.profile).faces
    else:
        faces = FaceSource("janus", "five", "synthetic", run.profile).sample(5 * count)
    _, first = np.unique(faces.identity, return_index=True)
    return faces.subset(np.sort(first)[:count])
