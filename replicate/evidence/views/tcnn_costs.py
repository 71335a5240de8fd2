"""What TCNN costs: hours of the vanilla network, minutes of a cluster by the number of clusters, and what training heads together saves (S9)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from replicate.bench import tcnn as bench
from replicate.bench.machine import synchronised
from replicate.devices import choose_device, describe_device
from replicate.evidence import published, rows, timings
from replicate.evidence.captions import caption
from replicate.evidence.experiment import Experiment
from replicate.evidence.measured import exact_rows
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table, number
from replicate.evidence.views.tcnn_ablations import TCNN, VANILLA, with_clusters
from replicate.faces.sources import FaceSource
from replicate.methods import tcnn, tcnn_training
from replicate.methods.tcnn import TCNNConfig
from replicate.methods.tcnn_heads import Tweaking
from replicate.store import StoredModel

ARTEFACT = "TCNN-S9"
ONE = f"{TCNN}, one cluster"
TRAINING, TUNING = "training time", "fine-tuning time"  # as the paper's are listed
PREPARATION, ALL_HEADS, EPOCHS = "preparation time", "fine-tuning time of all heads", "epochs of all heads"
EPOCH = "time of an epoch of one head"
TOGETHER = f"{TCNN}, heads together"
ALONE = f"{TCNN}, one head alone, kept features"
PLAIN = f"{TCNN}, one head alone, each image through all layers"
_VALIDATING = 31  # faces that validate a head where there are 64: §2.1, §2.2


# Stored trainings -----------------------------------------------------------------------------------------------------------------------------


def training_rows(run: Experiment, train: FaceSource, configs: Mapping[int, TCNNConfig]) -> list[Row]:
    """Times that the vanilla network and the heads took, of the run's seed: from the record, else of the stored models, which are trained now if
    absent.

    Parameters
    ----------
    configs : dict of int to TCNNConfig
        By the number of clusters, with that of `tcnn.CONFIGS` among them.

    Returns
    -------
    list of Row
        The vanilla network's, that of one cluster of the network in use, and three of each number of clusters: the time of features, clusters
        and augmentation, that of the fine-tuning of all heads together, and the epochs of all heads, added up.
    """
    wanted = [(VANILLA, TRAINING), (ONE, TUNING)]
    wanted += [(with_clusters(k), metric) for k in configs for metric in (PREPARATION, ALL_HEADS, EPOCHS)]
    known = [] if run.fresh else rows.load(run.paper, run.faces, run.profile)
    found = {(row.method, row.metric): row for row in known if row.artefact == ARTEFACT}
    if not set(wanted) <= found.keys():
        made = _trained(run, train, configs)
        run.record(made)
        found = {(row.method, row.metric): row for row in made}
    return [found[one] for one in wanted]


def _trained(run: Experiment, train: FaceSource, configs: Mapping[int, TCNNConfig]) -> list[Row]:
    """Rows of the stored models."""

    def row(method: str, metric: str, value: float, unit: str, model: StoredModel) -> Row:
        edition = dict(faces=run.faces, profile=run.profile, device=model.trained_on)
        [made] = exact_rows(ARTEFACT, method, {metric: value}, unit, **edition)
        return replace(made, seeds=1, seconds=model.report.seconds, note=model.trained_on)

    first, swept = [], []
    for clusters, config in configs.items():
        _, (vanilla, heads) = tcnn_training.obtain(config, train, run.profile, run.seed, device=run.device)
        tuning = heads.report.seconds - heads.report.data_seconds
        if config == tcnn.CONFIGS[run.profile]:
            first = [
                row(VANILLA, TRAINING, vanilla.report.seconds / 3600, "hours", vanilla),
                row(ONE, TUNING, tuning / clusters / 60, "minutes", heads),
            ]
        about = partial(row, with_clusters(clusters), model=heads)
        swept += [
            about(PREPARATION, heads.report.data_seconds, "s"),
            about(ALL_HEADS, tuning, "s"),
            about(EPOCHS, Tweaking.of(heads).epochs.sum().item(), "epochs"),
        ]
    return first + swept


def share_table(made: Sequence[Row]) -> Table:
    """The paper's two times beside ours, and a cluster's as a share of the vanilla network's.

    Parameters
    ----------
    made : sequence of Row
        Of `training_rows`.
    """
    vanilla, one = (next(row for row in made if row.method == method) for method in (VANILLA, ONE))
    lines = []
    for whose, hours, minutes in (
        ("paper", published.value(ARTEFACT, label=VANILLA), published.value(ARTEFACT, label=ONE)),
        ("here", vanilla.value, one.value),
    ):
        share = 100 * minutes / (60 * hours)
        lines.append((whose, *(number(value, "") for value in (60 * hours, minutes)), number(share, "%")))
    columns = ["", "vanilla network, minutes", "one cluster, minutes", "share, %"]
    return Table(pd.DataFrame(lines, columns=columns), caption([vanilla, one], "Training and fine-tuning"))


def sweep_table(made: Sequence[Row], configs: Mapping[int, TCNNConfig]) -> Table:
    """What heads take by their number: all of them, each of them, and an epoch of each.

    Parameters
    ----------
    made : sequence of Row
        Of `training_rows` with the same `configs`.
    """
    found = {(row.method, row.metric): row for row in made}
    lines, used = [], []
    for clusters in configs:
        three = [found[with_clusters(clusters), metric] for metric in (PREPARATION, ALL_HEADS, EPOCHS)]
        preparation, tuning, epochs = (row.value for row in three)
        cells = (epochs / clusters, preparation, tuning, tuning / clusters, 1000 * tuning / epochs)
        lines.append((str(clusters), *(number(cell, "") for cell in cells)))
        used += three
    columns = [
        "clusters",
        "epochs of a head",
        "features, clusters, images, s",
        "all heads, s",
        "one head, s",
        "an epoch of a head, ms",
    ]
    return Table(pd.DataFrame(lines, columns=columns), caption(used, "Time by the number of clusters"))


# Heads together and alone ---------------------------------------------------------------------------------------------------------------------


def timed_config(profile: str) -> TCNNConfig:
    """What is timed: the paper's number of heads with the paper's number of images; `smoke` has no time for it."""
    return tcnn.CONFIGS["smoke"] if profile == "smoke" else TCNNConfig()


def epoch_rows(run: Experiment, rounds: int = timings.LEAST_ROUNDS) -> list[Row]:
    """Seconds of an epoch of one head in three ways, from the record, else measured now and recorded.

    Parameters
    ----------
    run : Experiment
        `fresh` measures again.
    rounds : int
        See `timings.alternate`.
    """
    if known := timings.on_record(run, ARTEFACT, EPOCH, (TOGETHER, ALONE, PLAIN)):
        return known
    config, device = timed_config(run.profile), choose_device(run.device)
    note = f"{config.clusters} heads, {config.images:,} images each in batches of {config.batch}"
    about = dict(device=describe_device(device), note=note)
    seconds = measure(config, device, rounds)
    made = [
        timings.round_row(run, ARTEFACT, way, EPOCH, "s", taken, **about) for way, taken in seconds.items()
    ]
    run.record(made)
    return made


def measure(config: TCNNConfig, device: torch.device, rounds: int) -> dict[str, np.ndarray]:
    """Seconds (R,) of an epoch of one head: one of all heads together, alone, and in the plain form; with random weights, which take as long as
    trained ones.
    """
    network, one = bench.network(device), bench.cluster_of(config.images, _VALIDATING, device)
    kept, alone = bench.kept_of(network, one), replace(config, clusters=1)
    with TemporaryDirectory() as folder:
        ways = [partial(bench.tune, network, one, kept, some, Path(folder)) for some in (config, alone)]
        ways.append(partial(bench.tune_plainly, network, one, config))
        taken = 1 / timings.alternate([synchronised(way, device) for way in ways], 1, rounds)
    return dict(zip((TOGETHER, ALONE, PLAIN), (taken[0] / config.clusters, *taken[1:]), strict=True))


def epoch_table(made: Sequence[Row]) -> Table:
    """The three ways, and the minutes that the paper's epochs of a cluster would take in each of them.

    Parameters
    ----------
    made : sequence of Row
        Of `epoch_rows`.
    """
    printed, epochs = published.value(ARTEFACT, label=ONE), published.value("TCNN-S19")
    together = next(row.value for row in made if row.method == TOGETHER)
    lines = [
        (row.method.removeprefix(f"{TCNN}, "), *(number(value, "") for value in (
            1000 * row.value, 1000 * row.ci_low, 1000 * row.ci_high, row.value / together, epochs * row.value / 60
        )))
        for row in made
    ]  # fmt: skip
    lines.append(("paper", "–", "–", "–", "–", number(printed, "")))
    columns = ["way", "an epoch of a head, ms", "from", "to", "times as long", f"{epochs:g} epochs, minutes"]
    return Table(
        pd.DataFrame(lines, columns=columns), caption(made, "One head, together with all others and alone")
    )
