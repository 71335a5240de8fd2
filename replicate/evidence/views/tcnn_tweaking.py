"""What the TCNN chapter shows of tweaking itself: errors cluster by cluster (Fig. 6, §3.1), and when the heads end."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import rankdata

from replicate.errors import ReplicateError
from replicate.evidence.captions import caption_of
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE
from replicate.evidence.predictions import Predictions, Runs, stacked_errors, trained_on
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.tables import Table
from replicate.evidence.tested import ONE_IMAGE
from replicate.evidence.tested.tcnn_clusters import VANILLA_ONE_IMAGE, Clustered
from replicate.evidence.views.ablations import with_interval
from replicate.evidence.views.tcnn_ablations import ONE, OWN, TCNN, VANILLA, mean_of, told
from replicate.faces.sources import FaceSource
from replicate.methods.tcnn import TCNNConfig
from replicate.metrics import Comparison, Interval, bootstrap_mean, paired_bootstrap
from replicate.metrics.comparisons import compared, streams

NORMALISER = "inter-pupil"
RESAMPLES = 2000
_BLOCK = 100  # resamples at a time
_ROUNDING = 1e-3  # per cent: a smaller gain is the rounding of two ways to compute the same
QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")


# Errors of clusters: Fig. 6, S16 --------------------------------------------------------------------------------------------------------


def cluster_means(values: np.ndarray, cluster: np.ndarray, clusters: int) -> np.ndarray:
    """Mean of values (N,) over the faces of each cluster, (K,); NaN for a cluster without faces."""
    with np.errstate(invalid="ignore"):
        return np.bincount(cluster, values, clusters) / np.bincount(cluster, minlength=clusters)


def before_and_after(found: Clustered) -> tuple[np.ndarray, np.ndarray]:
    """Errors (N,) of the vanilla network and of TCNN from one image: that of the face's own cluster, whose head alone is at work."""
    return found.run.errors[VANILLA_ONE_IMAGE], found.run.errors[ONE_IMAGE]


def clusters_improved(found: Sequence[Clustered], seed: int = 0) -> Interval:
    """How many clusters have a lower mean error after tweaking, over seeds on average, with faces drawn again inside each cluster, and seeds.

    Drawing again adds its own chance to that of the faces, so that clusters whose gain is small change sides: the interval leans towards
    half of the clusters. It is widened where it would not hold the number itself.
    """
    faces_rng, seeds_rng = streams(seed)
    values, samples = [], []
    for one in found:
        gain = np.subtract(*before_and_after(one))
        values.append(_positive(_gains(one)))
        samples.append([_positive(means) for means in _redrawn(gain, one.cluster, one.clusters, faces_rng)])
    value = float(np.mean(values))
    low, high = np.percentile(_over_seeds(np.array(samples), seeds_rng), (2.5, 97.5)).tolist()
    return Interval(value, min(low, value), max(high, value))


def _gains(one: Clustered) -> np.ndarray:
    """What tweaking takes off the mean error of each cluster (K,), NaN for one without faces."""
    return cluster_means(np.subtract(*before_and_after(one)), one.cluster, one.clusters)


def _positive(means: np.ndarray) -> int:
    return int((means > _ROUNDING).sum())  # a cluster without faces is none that improved


def _redrawn(values: np.ndarray, cluster: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Cluster means (R, K) with the faces of each cluster drawn again."""
    order, sizes = cluster.argsort(kind="stable"), np.bincount(cluster, minlength=clusters)
    starts = sizes.cumsum() - sizes
    means = []
    for _ in range(0, RESAMPLES, _BLOCK):
        place = rng.random((_BLOCK, len(values))) * sizes[cluster]
        drawn = values[order[starts[cluster] + place.astype(int)]]
        means.append(_means_of_rows(drawn, np.broadcast_to(cluster, drawn.shape), clusters))
    return np.concatenate(means)


def _means_of_rows(values: np.ndarray, cluster: np.ndarray, clusters: int) -> np.ndarray:
    """`cluster_means` of each row of values (B, N) with clusters (B, N)."""
    rows = len(values)
    flat = (cluster + clusters * np.arange(rows)[:, None]).ravel()
    return cluster_means(values.ravel(), flat, rows * clusters).reshape(rows, clusters)


def _over_seeds(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means (R,) over seeds that are drawn again, of samples (S, R)."""
    drawn = rng.integers(len(samples), size=samples.shape)
    return np.take_along_axis(samples, drawn, 0).mean(0)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's correlation along the last axis; NaN where one side is constant."""
    ranks = [rankdata(side, axis=-1) for side in (x, y)]
    x, y = (side - side.mean(-1, keepdims=True) for side in ranks)
    with np.errstate(invalid="ignore"):
        return (x * y).sum(-1) / np.sqrt(np.square(x).sum(-1) * np.square(y).sum(-1))


def gain_correlation(found: Sequence[Clustered], *, halves: bool = False, seed: int = 0) -> Comparison:
    """Rank correlation, over clusters, of the vanilla error and of what tweaking takes off it, beside zero; clusters and seeds are drawn again.

    Parameters
    ----------
    halves : bool
        Take error and gain from different halves of the faces of each cluster. A cluster whose faces happen to be hard for the vanilla network
        has a high error and something to gain for no other reason (regression to the mean), and the two halves do not share that chance.
    """
    clusters_rng, seeds_rng = streams(seed)
    values, samples = [], []
    for one in found:
        whole, drawn = _correlations(one, halves, clusters_rng)
        values.append(whole)
        samples.append(drawn)
    return compared((float(np.mean(values)), _over_seeds(np.array(samples), seeds_rng)), (0.0, 0.0))


def _correlations(one: Clustered, halves: bool, rng: np.random.Generator) -> tuple[float, np.ndarray]:
    """The correlation, and that of clusters drawn again (R,)."""
    sides = _split(one, rng) if halves else _repeated(one)
    known = np.isfinite(sides[0]).all(0) & np.isfinite(sides[1]).all(0)
    if known.sum() < 3:
        raise ReplicateError(
            f"clusters: {known.sum()} of {one.clusters} hold enough of the {len(one.cluster)} faces; three are the least that can correlate"
        )
    error, gain = (side[:, known] for side in sides)
    drawn = rng.integers(known.sum(), size=error.shape)
    samples = rank_correlation(np.take_along_axis(error, drawn, 1), np.take_along_axis(gain, drawn, 1))
    return float(np.nan_to_num(rank_correlation(error, gain)).mean()), np.nan_to_num(samples)


def _repeated(one: Clustered) -> tuple[np.ndarray, np.ndarray]:
    """Vanilla error and gain of each cluster, the same (R, K) times."""
    before, after = (cluster_means(side, one.cluster, one.clusters) for side in before_and_after(one))
    return np.tile(before, (RESAMPLES, 1)), np.tile(before - after, (RESAMPLES, 1))


def _split(one: Clustered, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Vanilla error of one half of each cluster's faces and gain of the other, (R, K) for as many ways to halve them."""
    before, after = before_and_after(one)
    sizes = np.bincount(one.cluster, minlength=one.clusters)
    errors, gains = [], []
    for _ in range(0, RESAMPLES, _BLOCK):
        order = (one.cluster + rng.random((_BLOCK, len(before)))).argsort(1)
        cluster = one.cluster[order]
        place = np.arange(len(before)) - (sizes.cumsum() - sizes)[cluster]
        first = 2 * place < sizes[cluster]
        marked = 2 * cluster + first
        errors.append(_means_of_rows(before[order], marked, 2 * one.clusters)[:, 1::2])
        gains.append(_means_of_rows((before - after)[order], marked, 2 * one.clusters)[:, ::2])
    return np.concatenate(errors), np.concatenate(gains)


def cluster_rows(
    run: Experiment, artefact: str, source: FaceSource, found: Clustered, subset: str, beside: Clustered
) -> list[Row]:
    """Mean error of each cluster before and after, in the order of the latter, with its number of faces; without interval for a single face.

    Parameters
    ----------
    beside : Clustered
        A network with the same clusters and labels of its own.
    """
    before, after = before_and_after(found)
    sides = {VANILLA: before, TCNN: after, OWN: before_and_after(beside)[1]}
    [about] = run.error_rows(artefact, TCNN, source, [found.run], [ONE_IMAGE], rates=None)
    rows = []
    for rank, k in enumerate(_ranked(found), start=1):
        own = found.cluster == k
        for method, errors in sides.items():
            where = dict(method=f"{method}, cluster {rank}", subset=subset, images=own.sum())
            rows.append(replace(mean_of(about, about.metric, errors[own], about.unit), **where))
    return rows


def _ranked(found: Clustered) -> np.ndarray:
    """Clusters with faces, by ascending error after tweaking."""
    means = cluster_means(before_and_after(found)[1], found.cluster, found.clusters)
    return np.argsort(means, kind="stable")[: np.isfinite(means).sum()]


def cluster_plot(
    run: Experiment, artefact: str, found: Clustered, subset: str, beside: Clustered | None = None
) -> Figure:
    """Mean error of each cluster before (red) and after (blue), sorted by the latter, recorded for an artefact.

    Parameters
    ----------
    beside : Clustered, optional
        A network with the same clusters and labels of its own, drawn as points.
    """
    ranked, sides = _ranked(found), dict(zip((VANILLA, TCNN), before_and_after(found), strict=True))
    if beside is not None:
        sides[OWN] = before_and_after(beside)[1]
    means = {name: cluster_means(side, found.cluster, found.clusters)[ranked] for name, side in sides.items()}
    place = np.arange(1, len(ranked) + 1)
    figure, ax = plt.subplots(figsize=(8.6, 3.8), layout="constrained")
    for name, color, shift in ((VANILLA, PALETTE[1], -0.2), (TCNN, PALETTE[0], 0.2)):
        ax.bar(place + shift, means[name], width=0.4, color=color, linewidth=0, label=name)
    if beside is not None:
        ax.plot(place, means[OWN], "D", color="black", markersize=3, label=OWN)
    ax.set(xlabel=f"cluster, by the error of {TCNN}", ylabel=f"mean error (% of {NORMALISER} distance)")
    ax.set_xlim(0, len(ranked) + 1)
    ax.legend(frameon=False)
    count = len(found.cluster)
    what = f"{count:,} {run.faces} {subset} faces, one image, profile {run.profile}, seed {run.seed}"
    ax.set_title(what, fontsize="small")
    lower = {name: _positive(means[VANILLA] - means[name]) for name in means if name != VANILLA}
    ranges = ", ".join(f"{name} {one.min():.1f} to {one.max():.1f} %" for name, one in means.items())
    figure.set_label(
        f"Bars of the mean error of {len(ranked)} clusters before and after tweaking, {what}: {ranges}. Clusters that are lower after it: "
        + ", ".join(f"{number} by {name}" for name, number in lower.items())
        + "."
    )
    about = dict(subset=subset, images=count, seeds=1, box_rule=found.run.provenance["box_rule"])
    return run.record_figure(artefact, f"error of each cluster, {subset}", figure, **about)


def quarter_table(run: Experiment, found: Clustered, subset: str, title: str) -> Table:
    """Errors before and after in each quarter of the clusters by their vanilla error, with the share of faces that are not frontal."""
    before, after = before_and_after(found)
    means = cluster_means(before, found.cluster, found.clusters)
    ranked = np.argsort(means, kind="stable")[: np.isfinite(means).sum()]
    lines = []
    for name, own in zip(QUARTERS, np.array_split(ranked, len(QUARTERS)), strict=True):
        mask = np.isin(found.cluster, own)
        turned = "–" if found.turned is None else f"{100 * found.turned[mask].mean():.0f}"
        lines.append((name, len(own), f"{mask.sum():,}", turned, *_gain_cells(before[mask], after[mask])))
    columns = [f"clusters by the error of the {VANILLA}", "clusters", "faces", "not frontal, %"]
    columns += [f"{VANILLA}, %", f"{TCNN}, %", "gain, points", "gain, %"]
    about = found.run.provenance
    shown = caption_of(
        faces=run.faces,
        profile=run.profile,
        images={subset: len(found.cluster)},
        seeds=1,
        box_rule=about["box_rule"],
        notes=(trained_on(about),),
        title=title,
    )
    return Table(pd.DataFrame(lines, columns=columns), shown)


def _gain_cells(before: np.ndarray, after: np.ndarray) -> list[str]:
    """Both mean errors, the gain in points with its interval, unless there is but one face, and in per cent."""
    gain = before - after
    points = with_interval(*bootstrap_mean(gain), "+") if len(gain) > 1 else f"{gain[0]:+.2f}"
    share = 100 * gain.mean() / before.mean()
    return [f"{before.mean():.2f}", f"{after.mean():.2f}", points, f"{share:.1f}"]


def summary_rows(
    run: Experiment, method: str, source: FaceSource, found: Sequence[Clustered], subset: str
) -> list[Row]:
    """S16: how many clusters improve, both correlations, the largest gain of a cluster, and the faces that are not frontal in the worst quarter."""
    [about] = run.error_rows("TCNN-S16", method, source, [one.run for one in found], [ONE_IMAGE], rates=None)
    about = replace(about, normaliser=NO_NORMALISER, subset=subset, points=None)
    gains = [np.nanmax(_gains(one)) for one in found]
    many, whole, halves = (
        clusters_improved(found), gain_correlation(found), gain_correlation(found, halves=True)
    )  # fmt: skip
    rows = [
        _with(about, "clusters with a lower mean error", many, "count"),
        _with(about, "rank correlation of vanilla error and gain", _interval(whole), ""),
        _with(about, "the same, error and gain from different halves of the faces", _interval(halves), ""),
        replace(about, metric="largest gain of a cluster", value=np.mean(gains), ci_low=None, ci_high=None, unit="points"),
    ]  # fmt: skip
    if all(one.turned is not None for one in found):
        for name, worst in (("worst quarter of the clusters", True), ("other clusters", False)):
            turned = np.concatenate([_turned(one, worst) for one in found])
            rows.append(mean_of(about, f"faces that are not frontal, {name}", turned, "%"))
    return rows


def _turned(one: Clustered, worst: bool) -> np.ndarray:
    """100 for each face that is not frontal and 0 for the others, of the quarter of clusters with the largest errors after tweaking or of the rest."""
    ranked = _ranked(one)
    last = ranked[len(ranked) - max(1, len(ranked) // 4) :]
    return 100.0 * one.turned[np.isin(one.cluster, last) == worst]


def _interval(comparison: Comparison) -> Interval:
    """The left side of a comparison with zero, widened where its interval would not hold it."""
    value = comparison.left
    return Interval(value, min(comparison.low, value), max(comparison.high, value))


def _with(about: Row, metric: str, found: Interval, unit: str) -> Row:
    return replace(about, metric=metric, value=found.value, ci_low=found.low, ci_high=found.high, unit=unit)


def judge_clusters(
    run: Experiment, found: Sequence[Clustered], beside: Mapping[str, Sequence[Clustered]]
) -> Verdict:
    """Judge and record TCNN-C7 by the faces that validate; the note has the number elsewhere.

    Parameters
    ----------
    found : sequence of Clustered
        On the faces that validate, one per seed.
    beside : dict of str to sequence of Clustered
        On test faces, which ended no training, or with other labels, by what they are.
    """
    held = np.mean([len(np.unique(one.cluster)) for one in found])
    others = ", ".join(
        f"{name} {number.value:.3g} [{number.low:.3g}, {number.high:.3g}]"
        for name, number in ((name, clusters_improved(one)) for name, one in beside.items())
    )
    note = f"{held:g} clusters hold faces that validate, which also ended the training of each head; {others}"
    return run.judge_interval("TCNN-C7", clusters_improved(found), len(found[0].cluster), len(found), note)


def judge_gain(
    run: Experiment, found: Sequence[Clustered], beside: Mapping[str, Sequence[Clustered]]
) -> Verdict:
    """Judge and record TCNN-C8 as the paper shows it and with error and gain from different halves of each cluster's faces: both have to hold.

    Parameters
    ----------
    beside : dict of str to sequence of Clustered
        As of `judge_clusters`; the note has their correlations from different halves.
    """
    both = {
        "the same faces": gain_correlation(found),
        "different halves": gain_correlation(found, halves=True),
    }
    others = ((name, gain_correlation(one, halves=True)) for name, one in beside.items())
    note = ", ".join(f"{name} {one.left:+.2f} [{one.low:+.2f}, {one.high:+.2f}]" for name, one in others)
    gains = np.concatenate([_gains(one) for one in found])
    known = gains[np.isfinite(gains)]
    about = f"{(abs(known) > _ROUNDING).sum()} of {len(known)} clusters have another error than before, beyond rounding"
    about += f"; different halves elsewhere: {note}" if note else ""
    return run.judge_comparison("TCNN-C8", both, len(found[0].cluster), len(found), about)


# When heads end: S10 --------------------------------------------------------------------------------------------------------------------


def stopping_rows(
    run: Experiment, method: str, config: TCNNConfig, source: FaceSource, runs: Sequence[Predictions]
) -> list[Row]:
    """The patience, and after how many epochs heads have ended, of all seeds: mean, least and most; and how many kept the vanilla weights.

    Parameters
    ----------
    runs : sequence of Predictions
        Of one tweaked network, one per seed.
    """
    epochs = told(runs, "epochs")
    [about] = run.error_rows("TCNN-S10", method, source, runs, [NORMALISER], rates=None)
    about = replace(
        about, protocol="", subset="", points=None, normaliser=NO_NORMALISER, ci_low=None, ci_high=None, images=None,
        note=f"{len(epochs)} heads", unit="epochs",
    )  # fmt: skip
    exact = {
        "epochs of the head that ended first": epochs.min(),
        "epochs of the head that ended last": epochs.max(),
    }
    rows = [
        replace(about, metric="early-stopping patience", value=config.patience, note=""),
        mean_of(about, "epochs per head", epochs, "epochs"),
        *(replace(about, metric=metric, value=value) for metric, value in exact.items()),
    ]
    kept = float((told(runs, "loss_after") >= told(runs, "loss_before")).sum())
    return [*rows, replace(about, metric="heads that kept the vanilla weights", value=kept, unit="count")]


# Mirror images: S11 -----------------------------------------------------------------------------------------------------------------------


def mirror_note(results: Mapping[str, Runs]) -> str:
    """What averaging over image and mirror image changes for every network on every test set, in words.

    Parameters
    ----------
    results : dict of str to dict
        By test set and method, with ``", one image"`` behind those without mirror images.
    """
    parts = []
    for name, by_method in results.items():
        for method in (one for one in by_method if f"{one}, {ONE}" in by_method):
            sides = (stacked_errors(list(by_method[one]), NORMALISER) for one in (method, f"{method}, {ONE}"))
            change = paired_bootstrap(*sides)
            parts.append(f"{method}, {name} {with_interval(change.difference, change.low, change.high, '+')}")
    return f"averaged minus one image: {'; '.join(parts)}"
