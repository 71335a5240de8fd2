"""What the TCNN chapter shows of clusters of what a recogniser sees (§5.2, Fig. 12)."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from replicate.devices import choose_device, describe_device
from replicate.evidence import captions
from replicate.evidence.experiment import Experiment
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.tables import Table
from replicate.methods import recognition_clusters
from replicate.methods.recognition import CONFIGS
from replicate.methods.recognition_clusters import RecognisedClusters
from replicate.metrics import bootstrap_mean

MEANS = "TCNN-F12"
WITHIN = {  # metrics of the clusters of Fig. 12
    "variance of landmarks": "landmarks",
    "variance of gender": 0,
    "variance of smiling": 1,
    "variance of eyeglasses": 2,
    "variance of yaw": "yaw",
}
ONE, TWO = "pictures of one person in one cluster", "pictures of two people in one cluster"


def clusters(run: Experiment) -> RecognisedClusters:
    """The clusters of the run's seed, from the model store; made now if they are absent."""
    config = CONFIGS[run.profile]
    return recognition_clusters.obtain(
        config, run.profile, run.faces, run.seed, device=run.device, fresh=run.fresh
    )[0]


def mean_faces(run: Experiment, found: RecognisedClusters) -> Figure:
    """Fig. 12: mean images of the clusters of fc7 in a square, neighbours being alike."""
    columns = int(np.ceil(np.sqrt(len(found.averages))))
    lines = -(-len(found.averages) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(0.85 * columns, 0.85 * lines), squeeze=False, layout="constrained"
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, image in zip(axes.flat, found.averages, strict=False):
        ax.imshow(image, interpolation="bilinear")
    smallest, largest = int(found.sizes.min()), int(found.sizes.max())
    figure.set_label(
        f"Mean images of {len(found.averages)} clusters of {int(found.sizes.sum()):,} {run.faces} faces by fc7 of the recogniser, {smallest} to {largest} "
        "faces each, ordered by the first principal component of their centres."
    )
    shown = dict(subset="mtfl/train", images=int(found.sizes.sum()), seeds=1)
    return run.record_figure(MEANS, "mean images of clusters by what a recogniser sees", figure, **shown)


def cluster_rows(run: Experiment, found: RecognisedClusters) -> list[Row]:
    """How much the faces of a cluster have in common, by kind of features: pose and attributes, and who they are."""
    made = []
    for name, within in found.within.items():
        values = {metric: _per_cluster(within, what) for metric, what in WITHIN.items()} | {
            ONE: within.one_person
        }
        for metric, one in values.items():
            one = one[np.isfinite(one)]
            if len(one) > 1:
                made.append(_cluster_row(run, found, name, metric, bootstrap_mean(one)))
        made.append(_cluster_row(run, found, name, TWO, (within.two_people, None, None)))
    run.record(made)
    return made


def _per_cluster(within: recognition_clusters.Within, what: str | int) -> np.ndarray:
    """(K,) of a measure: landmarks are averaged."""
    if isinstance(what, int):
        return within.labels[:, what]
    return within.yaw if what == "yaw" else within.landmarks.mean(1)


def _cluster_row(
    run: Experiment, found: RecognisedClusters, name: str, metric: str, interval: Sequence
) -> Row:
    value, low, high = interval
    return Row(
        artefact=MEANS, method=f"clusters by {name}", protocol="mtfl", subset="train", points=None, metric=metric, normaliser=NO_NORMALISER,
        value=value, ci_low=low, ci_high=high, unit="%", images=int(found.sizes.sum()), seeds=1, faces=run.faces, profile=run.profile,
        device=describe_device(choose_device(run.device)),
    )  # fmt: skip


def cluster_table(made: Sequence[Row]) -> Table:
    """Rows of `cluster_rows`, one line for each measure and one column for each kind of features."""
    methods = list(dict.fromkeys(row.method for row in made))
    found = {(row.method, row.metric): row for row in made}
    lines = []
    for metric in dict.fromkeys(row.metric for row in made):
        cells = []
        for method in methods:
            row = found[method, metric]
            interval = f" [{row.ci_low:.1f}, {row.ci_high:.1f}]" if row.ci_low is not None else ""
            cells.append(f"{row.value:.1f}{interval}")
        lines.append((metric, *cells))
    title = "What faces of one cluster have in common: variances in per cent of those of all faces, shares in per cent of the pairs"
    return Table(pd.DataFrame(lines, columns=["measure", *methods]), captions.caption(made, title))
