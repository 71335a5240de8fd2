"""What the RNN chapter shows of networks that differ in one thing (§IV-D): backbone and input, recurrence, training, pooled maps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from replicate.evidence import tested
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions, Runs, stacked_errors
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table
from replicate.evidence.views.ablations import with_interval
from replicate.evidence.views.compared import rows_of, sets_caption
from replicate.evidence.views.rnn_effects import NORMALISER, Change
from replicate.faces.sources import FaceSource
from replicate.methods import rnn
from replicate.methods.baselines import SDM, SDM_CONFIGS
from replicate.methods.rnn import RNNConfig
from replicate.metrics import bootstrap_mean, paired_bootstrap

SUBSETS = ("common", "challenging", "full")  # of 300-W
RNN = "RNN"  # the main network, as the profile has it
TWO_STAGES = "RNN, two-stage training"
FULL = "RNN, full gates"
WITH, WITHOUT = "with recurrent features", "without recurrent features"


# Networks that differ in one thing ------------------------------------------------------------------------------------------------------


def label(backbone: str, nominal: int) -> str:
    """A network of Table VIII as its rows name it, ``"RNN, VGG-S (128x128)"``."""
    return f"RNN, {backbone} ({nominal}x{nominal})"


def backbones(profile: str) -> dict[str, RNNConfig]:
    """The four networks of Table VIII."""
    return {label(config.backbone, config.nominal): config for config in rnn.sized(profile).values()}


def networks(profile: str) -> dict[str, RNNConfig]:
    """The eight networks of Table IX: those of `backbones`, each without recurrent features (Fig. 7A) and with them (Fig. 7B)."""
    return {
        f"{name}, {word}": replace(config, recurrent=word == WITH)
        for name, config in backbones(profile).items()
        for word in (WITHOUT, WITH)
    }


def gated(profile: str) -> dict[str, RNNConfig]:
    """The main network with gates of low rank, and with those of Eq. 11 as printed."""
    main = rnn.CONFIGS[profile]
    return {RNN: main, FULL: replace(main, gates="full")}


def trainings(profile: str) -> dict[str, RNNConfig]:
    """The main network trained in two stages (Fig. 10), and end to end: Table XI."""
    main = rnn.CONFIGS[profile]
    return {TWO_STAGES: replace(main, training="two stages"), RNN: main}


def from_maps(*names: str) -> str:
    """A network of Table XIV as its rows name it, ``"RNN, SIP input: conv5 + deconv7"``."""
    return f"RNN, SIP input: {' + '.join(names)}"


def pooled(profile: str) -> dict[str, RNNConfig]:
    """The main network with shape-indexed features from the maps of Table XIV; that with ``"deconv7"`` is the main network itself."""
    maps = (("conv5",), ("deconv6",), ("deconv7",), ("conv5", "deconv7"), ("deconv6", "deconv7"))
    return {from_maps(*names): replace(rnn.CONFIGS[profile], pooled=names) for names in maps}


def test_sets(run: Experiment) -> dict[str, FaceSource]:
    """The three test sets of 300-W by name."""
    return {name: run.source("300w", name) for name in SUBSETS}


def test_all(
    run: Experiment,
    configs: Mapping[str, RNNConfig],
    sources: Mapping[str, FaceSource],
    *,
    points: bool = False,
) -> dict[str, dict[str, list[Predictions]]]:
    """Runs of several networks, all trained on 300-W, by test set and name. See `tested.test_rnn`."""
    train, how = run.source("300w", "train"), dict(seeds=run.seeds(1), points=points)
    return {
        subset: {name: tested.test_rnn(run, config, train, source, **how) for name, config in configs.items()}
        for subset, source in sources.items()
    }


def test_sdm(run: Experiment, source: FaceSource) -> list[Predictions]:
    """SDM on `source`, as the DAN chapter has it: trained on 300-W."""
    of_dan = Experiment("dan", run.profile, run.faces, run.seed, run.device)
    return tested.test_baseline(of_dan, SDM(SDM_CONFIGS[run.profile]), of_dan.source("300w", "train"), source)


# What is changed ------------------------------------------------------------------------------------------------------------------------


SIZES = (
    *(
        Change(f"{backbone}: 256 instead of 128 pixels", label(backbone, 256), label(backbone, 128))
        for backbone in ("VGG-S", "VGG-19")
    ),
    *(
        Change(
            f"{nominal} pixels: VGG-19 instead of VGG-S", label("VGG-19", nominal), label("VGG-S", nominal)
        )
        for nominal in (128, 256)
    ),
)
RECURRENCE = tuple(
    Change(f"{backbone}, {nominal} pixels", *(f"{label(backbone, nominal)}, {word}" for word in (WITH, WITHOUT)))
    for backbone in ("VGG-S", "VGG-19")
    for nominal in (128, 256)
)  # fmt: skip
GATES = (Change("full gates instead of those of low rank", FULL, RNN),)
TRAININGS = (
    Change("two stages instead of SDM", TWO_STAGES, "SDM"),
    Change("end to end instead of two stages", RNN, TWO_STAGES),
)
DEEPEST = from_maps("deconv7")
MAPS = (
    Change("conv5 instead of deconv7", from_maps("conv5"), DEEPEST),
    Change("deconv6 instead of deconv7", from_maps("deconv6"), DEEPEST),
    Change("conv5 added to deconv7", from_maps("conv5", "deconv7"), DEEPEST),
    Change("deconv6 added to deconv7", from_maps("deconv6", "deconv7"), DEEPEST),
)


def mean_rows(
    run: Experiment,
    artefact: str,
    sources: Mapping[str, FaceSource],
    results: Mapping[str, Runs],
    methods: Sequence[str] = (),
) -> list[Row]:
    """Mean errors by inter-pupil distance, method by method, on all test sets.

    Parameters
    ----------
    results : dict
        By test set and method: one run per training seed.
    methods : sequence of str
        Which of them; all unless told otherwise.
    """
    first = next(iter(results.values()))
    return [
        row
        for method in methods or first
        for name, source in sources.items()
        for row in rows_of(run, {artefact: [method]}, source, results[name], [NORMALISER], None)
    ]


# What they are --------------------------------------------------------------------------------------------------------------------------


def scale_table(configs: Mapping[str, RNNConfig]) -> Table:
    """The input of each network in pixels along a side, the paper's and this profile's, and its channels relative to the paper's."""
    lines = [
        (name, config.nominal, config.size, f"{config.width:g}", config.gates if config.recurrent else "–")
        for name, config in configs.items()
    ]
    columns = ["network", "input in the paper, pixels", "input here, pixels", "channels, times the paper's", "gates"]  # fmt: skip
    return Table(pd.DataFrame(lines, columns=columns), "The networks as this profile has them.")


def pooled_table(configs: Mapping[str, RNNConfig]) -> Table:
    """What each network of Table XIV pools: numbers for each landmark, cells along the side of the box, and pixels of the input that they cover."""
    lines = []
    for name, config in configs.items():
        with torch.device("meta"):  # shapes without memory
            channels = rnn.ConvDeconv(config).channels
        cells = {one: 2 * config.radius(one) + 1 for one in config.pooled}
        covered = {one: cells[one] * rnn.STRIDES[one] for one in config.pooled}
        each = (" + ".join(str(what[one]) for one in config.pooled) for what in (channels, cells, covered))
        lines.append((name, *each, config.size))
    columns = ["network", "features of a landmark", "box, cells", "box, pixels", "input, pixels"]
    return Table(pd.DataFrame(lines, columns=columns), "What is pooled, as this profile has it.")


def only_recurrent(results: Runs) -> dict[str, Sequence[Predictions]]:
    """The networks of Table IX with recurrent features, named as in Table VIII."""
    ending = f", {WITH}"
    return {name.removesuffix(ending): runs for name, runs in results.items() if name.endswith(ending)}


def first_errors_table(run: Experiment, results: Mapping[str, Runs], title: str) -> Table:
    """Mean errors of the peaks of conv8 and of the shape before the first step, of each network on each test set."""
    lines = [
        (name, method, *(with_interval(*bootstrap_mean(stacked_errors(list(runs), key))) for key in keys))
        for name, by_method in results.items()
        for method, runs in by_method.items()
        for keys in [(tested.PEAKS_ALONE, f"{NORMALISER}, 0 steps", NORMALISER)]
    ]
    columns = [
        "test set",
        "method",
        f"peaks of conv8, % {NORMALISER}",
        "before the first step",
        "after the last",
    ]
    reference = next(iter(next(iter(results.values()))))
    return Table(pd.DataFrame(lines, columns=columns), sets_caption(run, results, reference, title))


# Claims ---------------------------------------------------------------------------------------------------------------------------------


def judge_networks(run: Experiment, results: Runs) -> list[Verdict]:
    """Judge and record RNN-C5 and C6 by runs of the networks of Table VIII on the full set."""
    larger, smaller = (
        {backbone: results[label(backbone, nominal)] for backbone in ("VGG-19", "VGG-S")}
        for nominal in (256, 128)
    )
    return [
        run.judge_on("RNN-C5", larger, smaller),
        run.judge("RNN-C6", larger["VGG-19"], larger["VGG-S"]),
    ]


def judge_recurrence(run: Experiment, results: Runs) -> list[Verdict]:
    """Judge and record RNN-C1 to C4 by runs of the networks of Table IX on the full set."""
    sides = {
        (backbone, nominal): [results[f"{label(backbone, nominal)}, {word}"] for word in (WITH, WITHOUT)]
        for backbone in ("VGG-S", "VGG-19")
        for nominal in (128, 256)
    }
    after, before = ({f"{n} pixels": sides["VGG-19", n][place] for n in (128, 256)} for place in (0, 1))
    gains = {
        f"{n} pixels": [gain(*sides[backbone, n]) for backbone in ("VGG-S", "VGG-19")] for n in (128, 256)
    }
    compared = {size: paired_bootstrap(*both) for size, both in gains.items()}
    seeds, images = gains["256 pixels"][0].shape
    return [
        run.judge("RNN-C1", *sides["VGG-S", 128]),
        run.judge("RNN-C2", *sides["VGG-S", 256]),
        run.judge_on("RNN-C3", after, before),
        run.judge_comparison("RNN-C4", compared, images, seeds),
    ]


def gain(after: Sequence[Predictions], before: Sequence[Predictions]) -> np.ndarray:
    """By how much each face's error falls, (S, N) in points of the inter-pupil distance."""
    return stacked_errors(list(before), NORMALISER) - stacked_errors(list(after), NORMALISER)


def judge_trainings(run: Experiment, results: Runs) -> list[Verdict]:
    """Judge and record RNN-C9 and C10 by runs on the full set."""
    return [
        run.judge("RNN-C9", results[RNN], results[TWO_STAGES]),
        run.judge("RNN-C10", results[TWO_STAGES], results["SDM"]),
    ]


def judge_maps(run: Experiment, results: Runs) -> list[Verdict]:
    """Judge and record RNN-C13 and C14 by runs on the full set."""
    return [
        run.judge("RNN-C13", results[from_maps("deconv6", "deconv7")], results[DEEPEST]),
        run.judge("RNN-C14", results[DEEPEST], results[from_maps("conv5")]),
    ]
