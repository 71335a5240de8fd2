"""Measures of the clusters of TCNN's vanilla network (§2.2) with their uncertainty: sizes, Eqs 3 and 4, sharpness.

What is uncertain is what a repetition changes: the network, where EM begins, and which faces there are. Networks, or starts of EM where there is one
network, are drawn with replacement, and so are faces, both the same ones for all levels; a face keeps its cluster. The paper's standard errors over
clusters ask something else. The clusters of a level are no sample: together they hold all faces, the turned ones in clusters of their own, and another
run of EM divides the same faces again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Self
from zlib import crc32

import numpy as np

from replicate.evidence.experiment import Experiment
from replicate.faces.sources import FaceSource
from replicate.methods import tcnn, tcnn_analysis
from replicate.methods.tcnn import LEVELS, VanillaConfig, attribute_variances, principal_variances
from replicate.methods.tcnn_analysis import (
    LAST,
    PARTITIONS,
    POSITIONS,
    RGB,
    UNTRAINED,
    AnalysisConfig,
    ClusteredFaces,
    Clusters,
    Partition,
    shared_energy,
    shuffled,
)
from replicate.metrics import Comparison, Interval
from replicate.metrics.comparisons import compared

LEARNING, VALIDATING = "train", "validation"  # parts of the training faces, as the paper's values name them
NAMES = {
    RGB: "RGB clusters",
    **{level: f"{level}-input clusters" for level in LEVELS[1:]},
    UNTRAINED: "FC5-input clusters, untrained network",
    POSITIONS: "clusters of the true points",
}
RANDOM = "random clusters"  # of the same sizes as those of a level
STARTS = (0, 1, 2)  # of EM, where there is one network
_RESAMPLES = 1000


# Uncertainty ----------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Measured:
    """Something measured in every cluster, in several repetitions.

    Attributes
    ----------
    values : sequence of (K, n) arrays
        By repetition; NaN where a cluster has none.
    samples : sequence of (R, n) arrays
        The statistic over clusters in resamples, by repetition.
    statistic : callable
        Over clusters, an axis; it leaves NaN out.
    """

    values: Sequence[np.ndarray]
    samples: Sequence[np.ndarray]
    statistic: Callable[..., np.ndarray] = np.nanmean

    def of(self, place: int) -> Self:
        """One landmark or label of several."""
        chosen = slice(place, place + 1)
        return self._changed(lambda one: one[:, chosen])

    def overall(self) -> Self:
        """The mean over landmarks."""
        return self._changed(lambda one: one.mean(1, keepdims=True))

    def times(self, factor: float) -> Self:
        """In another unit."""
        return self._changed(lambda one: factor * one)

    def _changed(self, change: Callable[[np.ndarray], np.ndarray]) -> Self:
        sides = ([change(one) for one in side] for side in (self.values, self.samples))
        return type(self)(*sides, self.statistic)

    @property
    def repetitions(self) -> list[float]:
        """The statistic of each repetition, of a measure of one number."""
        return [float(self.statistic(one, axis=0).item()) for one in self.values]

    def drawn(self) -> tuple[float, np.ndarray]:
        """The mean over repetitions, and what it is (R,) when repetitions and faces are drawn again.

        Resamples are moved so that their mean is the value: faces that are drawn twice make clusters look closer than they are.
        """
        moved = [
            one[:, 0] - one.mean() + value for one, value in zip(self.samples, self.repetitions, strict=True)
        ]
        count = len(moved)
        which = np.random.default_rng(1).integers(count, size=(count, len(moved[0])))
        return float(np.mean(self.repetitions)), np.take_along_axis(np.stack(moved), which, 0).mean(0)

    def interval(self) -> Interval:
        """The mean over repetitions with its 95 % interval."""
        return _interval(*self.drawn())

    def standard_error(self) -> float:
        """As the paper's figures have it: standard error of the mean over clusters, on average over repetitions."""
        known = [one[np.isfinite(one)] for one in self.values]
        return float(np.mean([k.std(ddof=1) / np.sqrt(len(k)) if len(k) > 1 else 0.0 for k in known]))


def _interval(value: float, samples: np.ndarray) -> Interval:
    low, high = np.percentile(samples, (2.5, 97.5)).tolist()
    return Interval(value, min(low, value), max(high, value))


def comparison(left: Measured, right: Measured) -> Comparison:
    """Means of two levels, on the same repetitions and faces."""
    return compared(left.drawn(), right.drawn())


def drop(left: Measured, right: Measured) -> Interval:
    """By how much the mean of `left` is below that of `right`, in per cent of it."""
    (one, ones), (other, others) = left.drawn(), right.drawn()
    return _interval(100 * (1 - one / other), 100 * (1 - ones / others))


@cache
def face_draws(count: int) -> np.ndarray:
    """How often each face is drawn in each resample, (R, count)."""
    rng = np.random.default_rng(0)
    return np.stack(
        [np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(_RESAMPLES)]
    ).astype(float)


def sums(columns: np.ndarray, cluster: np.ndarray, clusters: int) -> np.ndarray:
    """Sums of columns (N, C) over the faces of each cluster in each resample, (R, K, C)."""
    draws = face_draws(len(columns))
    members = [np.flatnonzero(cluster == k) for k in range(clusters)]
    return np.stack([draws[:, own] @ columns[own] for own in members], 1)


def resampled_principal_variances(points: np.ndarray, cluster: np.ndarray, clusters: int) -> np.ndarray:
    """Eq. 3 in resamples of the faces, (R, K, L), of points (N, L, 2); NaN as `principal_variances` has it."""
    x, y = np.moveaxis(points - points.mean(0), -1, 0)
    columns = np.concatenate([np.ones((len(x), 1)), x, y, x * x, y * y, x * y], 1)
    found = sums(columns, cluster, clusters)
    with np.errstate(invalid="ignore"):
        x, y, xx, yy, xy = np.split(found[..., 1:] / found[..., :1], 5, axis=-1)
    a, b, c = xx - x * x, xy - x * y, yy - y * y  # of the covariance matrix
    found = (a + c) / 2 + np.sqrt(((a - c) / 2) ** 2 + b * b)
    found[:, np.bincount(cluster, minlength=clusters) < 2] = np.nan
    return found


def resampled_label_variances(labels: np.ndarray, cluster: np.ndarray, clusters: int) -> np.ndarray:
    """Eq. 4 in resamples of the faces, (R, K, A), of 0/1 labels (N, A)."""
    found = sums(np.concatenate([np.ones((len(labels), 1)), labels], 1), cluster, clusters)
    with np.errstate(invalid="ignore"):
        share = found[..., 1:] / found[..., :1]
    return share * (1 - share)


# What is measured -----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Study:
    """The clusters of several networks, or of several starts of EM, and what is known of the faces in them.

    Attributes
    ----------
    clusters : sequence of Clusters
        By repetition.
    faces : ClusteredFaces
        With the mean images of the first one's clusters.
    networks : int
        Training seeds behind them.
    trained_on : str
        Device.
    seconds : float
        Of all clusterings.
    models : str
        Names of the stored clusters.
    """

    clusters: Sequence[Clusters]
    faces: ClusteredFaces
    networks: int
    trained_on: str
    seconds: float
    models: str
    _known: dict[tuple, Measured] = field(default_factory=dict, init=False, repr=False)

    @property
    def eye_distance(self) -> float:
        """Mean squared distance of the eyes of all learning faces, in squared pixels of the crop."""
        eyes = self.faces.points[:, :2]
        return float(np.square(eyes[:, 0] - eyes[:, 1]).sum(1).mean())

    @property
    def note(self) -> str:
        """What the repetitions are, where they are no training seeds."""
        several = len(self.clusters) > self.networks
        return f"EM from {len(self.clusters)} starts" if several else ""

    def images(self, part: str = LEARNING) -> int:
        """Faces of a part."""
        return len(self.faces.points if part == LEARNING else self.faces.validating_points)

    def partitions(self, name: str) -> list[Partition]:
        """Those of one of `PARTITIONS`, by repetition."""
        return [one.partitions[name] for one in self.clusters]

    def variances(self, name: str, part: str = LEARNING, *, random: bool = False) -> Measured:
        """lambda of Eq. 3 of the five landmarks, in squared pixels of the crop.

        Parameters
        ----------
        name : str
            One of `PARTITIONS`.
        part : str
            `LEARNING` faces, of which the clusters were made, or `VALIDATING` ones, which were assigned to them.
        random : bool
            Of random clusters of the same sizes.
        """
        points = self.faces.points if part == LEARNING else self.faces.validating_points
        how = points, principal_variances, resampled_principal_variances
        return self._measured((name, part, random), *how)

    def label_variances(self, name: str, part: str = LEARNING, *, random: bool = False) -> Measured:
        """sigma^2 of Eq. 4 of the three labels; see `variances`."""
        labels = self.faces.labels if part == LEARNING else self.faces.validating_labels
        how = labels.astype(float), attribute_variances, resampled_label_variances
        return self._measured((name, part, random), *how)

    def _measured(
        self, which: tuple[str, str, bool], data: np.ndarray, measure: Callable, resample: Callable
    ) -> Measured:
        if (*which, measure) not in self._known:
            members, values, samples = self._members(*which), [], []
            for cluster, clusters in members:
                values.append(measure(data, cluster, clusters))
                samples.append(np.nanmean(resample(data, cluster, clusters), axis=1))
            self._known[*which, measure] = Measured(values, samples)
        return self._known[*which, measure]

    def _members(self, name: str, part: str, random: bool) -> list[tuple[np.ndarray, int]]:
        """Cluster of each face and K, by repetition."""
        found = []
        for seed, partition in enumerate(self.partitions(name)):
            cluster = partition.learning if part == LEARNING else partition.validating
            found.append((shuffled(cluster, seed) if random else cluster, partition.clusters))
        return found

    def sizes(self, name: str, statistic: Callable[..., np.ndarray]) -> Measured:
        """A statistic of the numbers of learning faces of all clusters."""
        values, samples = [], []
        for one in self.partitions(name):
            values.append(one.sizes[:, None].astype(float))
            drawn = sums(np.ones((len(one.learning), 1)), one.learning, one.clusters)
            samples.append(statistic(drawn, axis=1))
        return Measured(values, samples, statistic)

    def energy(self, name: str, *, random: bool = False) -> Measured:
        """Gradient energy of the mean images, in squared grey levels."""
        return _of_clusters([p.energy_shuffled if random else p.energy for p in self.partitions(name)])

    def shared(self, name: str, *, random: bool = False) -> Measured:
        """Gradient energy that two faces of a cluster have in common, in per cent of that of single faces."""
        found = []
        for one in self.partitions(name):
            energies = (one.energy, one.faces_energy)
            if random:
                energies = (one.energy_shuffled, one.faces_energy_shuffled)
            found.append(100 * shared_energy(*energies, one.sizes))
        return _of_clusters(found)


def _of_clusters(values: Sequence[np.ndarray]) -> Measured:
    """Of what only clusters are known, (K,) by repetition, and not their faces: clusters are drawn in place of these, anew in every repetition and
    measure, which makes intervals too wide."""
    samples = []
    for place, one in enumerate(values):
        known = one[np.isfinite(one)]
        rng = np.random.default_rng([2, place, crc32(known.tobytes())])
        samples.append(known[rng.integers(len(known), size=(_RESAMPLES, len(known)))].mean(1, keepdims=True))
    return Measured([one[:, None] for one in values], samples)


def controlled(measure: Callable[..., Measured], controls: bool = True) -> dict[str, Measured]:
    """A measure of the clusters of all levels by name; and of the controls, random clusters with the sizes of the first and the last level among them."""
    found = {NAMES[name]: measure(name) for name in (PARTITIONS if controls else LEVELS)}
    if controls:
        for level in (RGB, LAST):
            found[f"{RANDOM}, sizes of {NAMES[level]}"] = measure(level, random=True)
    return found


def study(run: Experiment, vanilla: VanillaConfig, train: FaceSource, **changes: object) -> Study:
    """The clusters of the run's networks, from the model store or made now; where there is one network, from several starts of EM.

    Parameters
    ----------
    train : FaceSource
        The faces that the networks learn from, with those that validate.
    **changes : object
        Fields of `AnalysisConfig`; then of the run's own seed alone, and of one start.
    """
    base = AnalysisConfig(tcnn.ANALYSED[run.profile])
    seeds = (run.seed,) if changes else run.seeds(3)
    starts = STARTS if len(seeds) == 1 and not changes and run.profile != "smoke" else (0,)
    fresh = run.fresh and not changes  # or networks would be trained again for every change
    found = []
    for seed in seeds:
        for start in starts:
            config = replace(base, **{"restart": start} | changes)
            how = dict(device=run.device, fresh=fresh and start == 0)
            found.append(tcnn_analysis.obtain(config, vanilla, train, run.profile, seed, **how))
    stored = [model for _, model in found]
    return Study(
        [clusters for clusters, _ in found],
        tcnn_analysis.obtain_faces(base, vanilla, train, run.profile, run.seed, device=run.device),
        len(seeds),
        stored[0].trained_on,
        sum(model.report.seconds for model in stored),
        " ".join(model.key.hash for model in stored),
    )
