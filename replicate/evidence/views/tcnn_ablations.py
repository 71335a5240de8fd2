"""What the TCNN chapter shows of networks that differ in one thing: kind, number and place of the clusters, and their augmentation (§3, §5.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from replicate.evidence import tested
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions, Runs, paired_errors, swept
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.tables import Table
from replicate.evidence.views.ablations import with_interval
from replicate.evidence.views.compared import runs_caption
from replicate.faces.sources import FaceSource
from replicate.methods import tcnn
from replicate.methods.tcnn import Heads, TCNNConfig, Vanilla, VanillaConfig
from replicate.metrics import Interval, bootstrap_mean, paired_bootstrap
from replicate.metrics.comparisons import compared, streams

NORMALISER = "inter-pupil"
TCNN, VANILLA = "TCNN", "vanilla CNN"
OWN = f"{TCNN}, own labels"  # warped images keep the warped points of their own face
WARPED = f"{VANILLA}, warped images"
KMEANS, BARE, CL4 = f"{TCNN}, k-means", f"{TCNN}, no augmentation", f"{TCNN}, split at CL4"
SEVERAL = {TCNN, OWN, KMEANS, BARE, CL4, VANILLA}  # with all training seeds; others have the first
ONE = "one image"  # behind the name of a network that is asked without mirror images
CLUSTERS = "clusters"
COSTLY = {WARPED, f"{TCNN}, 500 images", f"{TCNN}, 5,000 images"}  # left out on photographs at `cpu`
SWEPT = {"smoke": (1, 2, 4), "cpu": (1, 4, 16, 48, 64, 96), "gpu": (1, 2, 4, 8, 16, 32, 48, 64, 96, 128)}
AMOUNTS = {"smoke": (10, 160), "cpu": (500, 5000), "gpu": (1000, 20_000)}  # images, besides those in use
PRINTED = 5000  # §3.2: images of each cluster
RESAMPLES = 2000


# Settings -------------------------------------------------------------------------------------------------------------------------------


def as_printed(profile: str) -> dict[str, TCNNConfig]:
    """TCNN with the labels that the paper gives to warped images, and with their own."""
    config = tcnn.CONFIGS[profile]
    return {TCNN: config, OWN: config.with_own_labels()}


def sweep(profile: str, name: str = TCNN) -> dict[int, TCNNConfig]:
    """§5.1, Fig. 7: one of `as_printed` by its number of clusters."""
    config = as_printed(profile)[name]
    return {clusters: replace(config, clusters=clusters) for clusters in SWEPT[profile]}


def clusterings(profile: str) -> dict[str, TCNNConfig]:
    """§2.2: ways to cluster."""
    config = tcnn.CONFIGS[profile]
    return {TCNN: config, KMEANS: replace(config, clustering="k-means")}


def splits(profile: str) -> dict[str, TCNNConfig]:
    """§3.1: where the heads begin."""
    return {TCNN: tcnn.CONFIGS[profile], CL4: replace(tcnn.CONFIGS[profile], split="CL4")}


def augmentations(profile: str) -> dict[str, TCNNConfig]:
    """§3.2: kinds of further images for a cluster."""
    config, both = tcnn.CONFIGS[profile], as_printed(profile)
    shifted = replace(config, augmentation="oversampled and mirrored")
    bare = replace(config, augmentation="none")
    return {TCNN: config, BARE: bare, f"{TCNN}, oversampled and mirrored": shifted, OWN: both[OWN]}


def amounts(profile: str) -> dict[str, TCNNConfig]:
    """§3.2: numbers of images to which clusters are raised, ascending."""
    config = tcnn.CONFIGS[profile]
    others = {f"{TCNN}, {images:,} images": replace(config, images=images) for images in AMOUNTS[profile]}
    bare = {BARE: replace(config, augmentation="none")}
    return bare | dict(sorted({TCNN: config, **others}.items(), key=lambda one: one[1].images))


def fully_augmented(profile: str) -> str:
    """The network of `amounts` with as many images as the paper has, or else the one in use."""
    found = [name for name, config in amounts(profile).items() if config.images == PRINTED and name != BARE]
    return found[0] if found else TCNN


def variants(profile: str) -> dict[str, TCNNConfig]:
    """All tweaked networks of this chapter but those of `sweep`."""
    return clusterings(profile) | splits(profile) | augmentations(profile) | amounts(profile)


def vanilla_variants(profile: str) -> dict[str, VanillaConfig]:
    """§3.2: the vanilla network, and one that has half of its training images warped onto other faces."""
    config = tcnn.CONFIGS[profile].vanilla
    return {VANILLA: config, WARPED: replace(config, warps=0.5)}


def test_variants(
    run: Experiment,
    configs: Mapping[str, TCNNConfig | VanillaConfig],
    train: FaceSource,
    sources: Mapping[str, FaceSource],
) -> dict[str, dict[str, list[Predictions]]]:
    """Runs of all networks on all test sets by set and name: one per training seed for those in `SEVERAL`, else one; without those in `COSTLY` on photographs at `cpu`."""
    out = COSTLY if (run.profile, run.faces) == ("cpu", "real") else ()

    def test(name: str, config: TCNNConfig | VanillaConfig, source: FaceSource) -> list[Predictions]:
        how = tested.test_tcnn if isinstance(config, TCNNConfig) else tested.test_vanilla
        return how(run, config, train, source, seeds=run.seeds(3 if name in SEVERAL else 1))

    return {
        place: {name: test(name, config, source) for name, config in configs.items() if name not in out}
        for place, source in sources.items()
    }


def test_sweep(
    run: Experiment, name: str, train: FaceSource, sources: Mapping[str, FaceSource]
) -> dict[str, dict[int, list[Predictions]]]:
    """Runs of `sweep` on all test sets by set and number of clusters, one per training seed; of own labels, the first alone."""
    seeds = run.seeds(3 if name == TCNN else 1)
    return {
        place: {
            clusters: tested.test_tcnn(run, config, train, source, seeds=seeds)
            for clusters, config in sweep(run.profile, name).items()
        }
        for place, source in sources.items()
    }


def judge_augmentation(
    run: Experiment, amounts: Mapping[str, Runs], kinds: Mapping[str, Runs], full: str
) -> Verdict:
    """Judge and record TCNN-C15 on AFLW: as many images as the paper has against none; the note has what other labels do.

    Parameters
    ----------
    amounts, kinds : dict of str to dict
        Runs by test set and name.
    full : str
        See `fully_augmented`; where it was left out, the one in use takes its place.
    """
    full = full if full in amounts["aflw"] else TCNN
    left, bare = (amounts["aflw"][name] for name in (full, BARE))
    own = paired_bootstrap(*paired_errors(kinds["aflw"][OWN], bare, NORMALISER))
    note = f"left: {full}; {OWN}, against none: {with_interval(own.difference, own.low, own.high, '+')}"
    return run.judge("TCNN-C15", left, bare[: len(left)], note)  # the same seeds on both sides


# What became of the heads ---------------------------------------------------------------------------------------------------------------


def told(runs: Sequence[Predictions], name: str) -> np.ndarray:
    """What the records of tweaked networks tell of their heads, one network after the other (S * K,), by a field of `tcnn_heads.Tweaking`."""
    return np.concatenate([one.provenance[f"tweaking {name}"] for one in runs])


def moved(results: Runs) -> str:
    """For a note: how many heads of each tweaked network are not the vanilla network's, because another epoch validated better."""
    words = []
    for name, runs in results.items():
        better = told(runs, "loss_after") < told(runs, "loss_before")
        words.append(f"{name} {better.sum()} of {len(better)}")
    return f"heads that left the vanilla weights: {', '.join(words)}"


def mean_of(about: Row, metric: str, values: np.ndarray, unit: str) -> Row:
    """The mean of values (n,) as a row, with its interval if they are several."""
    value, low, high = bootstrap_mean(values) if len(values) > 1 else (values[0], None, None)
    return replace(about, metric=metric, value=value, ci_low=low, ci_high=high, unit=unit)


def loss_change(runs: Sequence[Predictions], kind: str, weight: str) -> float:
    """By how much tweaking changes the mean loss of Eq. 1, in per cent, over all heads and seeds.

    Parameters
    ----------
    kind : str
        ``"fit"``: of the images that each head is trained on; ``"loss"``: of the faces that validate it.
    weight : str
        By how many images each head counts: ``"images"`` or ``"validating"``.
    """
    weights = told(runs, weight)
    before, after = (told(runs, f"{kind}_{when}") for when in ("before", "after"))
    return float(100 * ((after * weights).sum() / (before * weights).sum() - 1))


def fit_table(
    run: Experiment, source: FaceSource, results: Runs, vanilla: Sequence[Predictions], title: str
) -> Table:
    """What tweaking changes on the images of the heads, on the faces that validate them and on test faces: over-fitting, if the first alone falls.

    Parameters
    ----------
    results : dict of str to sequence of Predictions
        Tweaked networks by name, on `source`.
    vanilla : sequence of Predictions
        The network that all of them begin with, on the same faces.
    """
    lines = []
    for name, runs in results.items():
        change = paired_bootstrap(*paired_errors(runs, vanilla, NORMALISER))
        faces, images = (np.median(told(runs, what)) for what in ("faces", "images"))
        test = (100 * one / change.right for one in (change.difference, change.low, change.high))
        fit, checked = loss_change(runs, "fit", "images"), loss_change(runs, "loss", "validating")
        lines.append(
            (
                name,
                f"{faces:,.0f}",
                f"{images:,.0f}",
                f"{fit:+.1f}",
                f"{checked:+.1f}",
                with_interval(*test, "+"),
            )
        )
    columns = [
        "network",
        "faces of a cluster",
        "images of a cluster",
        "loss of these images, %",
        "validation loss, %",
    ]
    first = next(iter(results.values()))
    return Table(
        pd.DataFrame(lines, columns=[*columns, "test error, %"]),
        runs_caption(run, source, first, title, results.values()),
    )


def fit_rows(run: Experiment, artefact: str, results: Runs) -> list[Row]:
    """The changes of both losses in `fit_table` as rows."""
    rows = []
    for name, runs in results.items():
        changes = {
            "change of the training loss by tweaking": loss_change(runs, "fit", "images"),
            "change of the validation loss by tweaking": loss_change(runs, "loss", "validating"),
        }
        rows += [replace(row, seeds=len(runs)) for row in run.count_rows(artefact, name, changes, unit="%")]
    return rows


def cost_rows(run: Experiment, artefact: str, configs: Mapping[str, TCNNConfig], results: Runs) -> list[Row]:
    """S8: numbers that each head learns, epochs of a head, and seconds that tweaking takes, with intervals over seeds if there are several."""
    rows = []
    for name, config in configs.items():
        weights = sum(value.numel() for value in Heads(Vanilla(), 1, config.split).parameters())
        [about] = run.count_rows(artefact, name, {"numbers that a head learns": weights})
        seconds = np.array([one.provenance["tweaking seconds"] for one in results[name]])
        learnt = replace(about, seeds=len(seconds), device=results[name][0].provenance["device"])
        epochs = mean_of(learnt, "epochs per head", told(results[name], "epochs"), "epochs")
        time = mean_of(learnt, "time of tweaking", seconds, "s")
        rows += [
            about,
            epochs,
            replace(time, note=f"clustering, augmentation and all heads together; {time.device}"),
        ]
    return rows


# The number of clusters: Fig. 7, S18 ----------------------------------------------------------------------------------------------------


def with_clusters(clusters: int, name: str = TCNN) -> str:
    """What a network of the sweep is called: ``"TCNN, 16 clusters"``."""
    return f"{name}, {clusters} cluster{'s' * (clusters > 1)}"


def as_swept(by_clusters: Mapping[int, Sequence[Predictions]], used: int) -> list[Predictions]:
    """Runs whose errors are those of all numbers of clusters, ``"inter-pupil, 16 clusters"``, one per seed; the error itself is that of the one in use.

    Parameters
    ----------
    by_clusters : dict of int to sequence of Predictions
        Runs by number of clusters, one per seed.
    """
    found = []
    for place, one in enumerate(by_clusters[used]):
        errors = {
            f"{NORMALISER}, {clusters} {CLUSTERS}": runs[place].errors[NORMALISER]
            for clusters, runs in by_clusters.items()
        }
        found.append(replace(one, errors={NORMALISER: one.errors[NORMALISER], **errors}, points=None))
    return found


def best_samples(runs: Sequence[Predictions]) -> tuple[tuple[int, ...], int, np.ndarray]:
    """Numbers of clusters that were tried, the place of the one with the least mean error over faces and seeds, and its place (R,) with both drawn again."""
    settings, errors = swept(runs, NORMALISER, CLUSTERS)  # (S, N, K)
    seeds, faces, _ = errors.shape
    faces_rng, seeds_rng = streams(0)
    times = faces_rng.multinomial(faces, np.full(faces, 1 / faces), RESAMPLES)
    means = np.tensordot(times, errors, (1, 1)) / faces  # (R, S, K)
    drawn = seeds_rng.integers(seeds, size=(RESAMPLES, seeds, 1))
    return settings, int(errors.mean((0, 1)).argmin()), np.take_along_axis(means, drawn, 1).mean(1).argmin(-1)


def best_interval(runs: Sequence[Predictions]) -> Interval:
    """The number of clusters with the least mean error, with its interval over faces and seeds."""
    settings, best, drawn = best_samples(runs)
    low, high = np.percentile(np.asarray(settings)[drawn], (2.5, 97.5), method="closest_observation").tolist()
    return Interval(settings[best], min(low, settings[best]), max(high, settings[best]))


def best_rows(run: Experiment, artefact: str, source: FaceSource, results: Runs) -> list[Row]:
    """`best_interval` of each method as rows."""
    rows = []
    for name, runs in results.items():
        [about] = run.error_rows(artefact, name, source, runs, [NORMALISER], rates=None)
        value, low, high = best_interval(runs)
        number = dict(metric="best number of clusters", value=value, ci_low=low, ci_high=high, unit=CLUSTERS)
        rows.append(replace(about, normaliser=NO_NORMALISER, points=None, **number))
    return rows


def best_table(
    run: Experiment, source: FaceSource, runs: Sequence[Predictions], used: int, title: str
) -> Table:
    """Errors by number of clusters, their paired difference to the number in use, and how often each is the best of the resamples."""
    settings, _, drawn = best_samples(runs)
    _, errors = swept(runs, NORMALISER, CLUSTERS)
    share = 100 * np.bincount(drawn, minlength=len(settings)) / len(drawn)
    lines = []
    for place, clusters in enumerate(settings):
        change = paired_bootstrap(errors[..., place], errors[..., settings.index(used)])
        difference = (
            with_interval(change.difference, change.low, change.high, "+") if clusters != used else "–"
        )
        lines.append(
            (clusters, with_interval(*bootstrap_mean(errors[..., place])), difference, f"{share[place]:.0f}")
        )
    columns = [CLUSTERS, f"mean error, % {NORMALISER}", f"difference to {used}", "best in, % of resamples"]
    return Table(pd.DataFrame(lines, columns=columns), runs_caption(run, source, runs, title))


def judge_best(run: Experiment, results: Mapping[str, Runs]) -> Verdict:
    """Judge and record TCNN-C12 by the faces of AFLW and labels as printed; the note has the best numbers of the other curves.

    Parameters
    ----------
    results : dict of str to dict
        Of `as_swept`, by test set and method.
    """
    runs = results["aflw"][TCNN]
    found = {
        f"{method}, {name}": best_interval(other)
        for name, by_method in results.items()
        for method, other in by_method.items()
        if other is not runs
    }
    note = "; ".join(f"{name} {one.value:g} [{one.low:g}, {one.high:g}]" for name, one in found.items())
    return run.judge_interval("TCNN-C12", best_interval(runs), len(runs[0].names), len(runs), note)


# Epochs: S19 ----------------------------------------------------------------------------------------------------------------------------


def epochs_of(by_clusters: Mapping[int, Sequence[Predictions]]) -> dict[int, np.ndarray]:
    """Epochs (S * K,) of all heads of all seeds, by number of clusters."""
    return {clusters: told(runs, "epochs") for clusters, runs in by_clusters.items()}


def effort_rows(
    run: Experiment, artefact: str, name: str, by_clusters: Mapping[int, Sequence[Predictions]]
) -> list[Row]:
    """S19: epochs of a head by number of clusters with their total, mean and deviation of these means, and the power of K that the total grows with.

    Parameters
    ----------
    name : str
        Of the networks.
    """
    rows, means, seeds = [], {}, len(next(iter(by_clusters.values())))
    for clusters, epochs in epochs_of(by_clusters).items():
        means[clusters], total = epochs.mean(), {"epochs in total": epochs.sum() / seeds}
        [about] = run.count_rows(artefact, with_clusters(clusters, name), total, unit="epochs")
        rows += [mean_of(about, "epochs per cluster", epochs, "epochs"), about]
    several, counts = np.array(list(means.values())), np.log(list(means))
    over = {
        "epochs per cluster over values of K": several.mean(),
        "their standard deviation over values of K": several.std(ddof=1),
    }
    power = np.polyfit(counts, counts + np.log(several), 1)[0]
    rows += run.count_rows(artefact, name, over, unit="epochs")
    rows += run.count_rows(artefact, name, {"power of K that the total grows with": power}, unit="")
    return [replace(row, seeds=seeds) for row in rows]


def judge_effort(
    run: Experiment,
    by_clusters: Mapping[int, Sequence[Predictions]],
    beside: Mapping[int, Sequence[Predictions]],
) -> Verdict:
    """Judge and record TCNN-C13: the mean epochs at each number of clusters against the mean of these means; heads are drawn again.

    One cluster is left out: §3.2 calls it the vanilla network, and nothing is tweaked there.

    Parameters
    ----------
    beside : dict of int to sequence of Predictions
        Networks with labels of their own, for the note.
    """
    several_clusters = {clusters: runs for clusters, runs in by_clusters.items() if clusters > 1}
    epochs, rng = epochs_of(several_clusters), np.random.default_rng(0)
    values = {clusters: own.mean() for clusters, own in epochs.items()}
    samples = {
        clusters: own[rng.integers(len(own), size=(RESAMPLES, len(own)))].mean(1)
        for clusters, own in epochs.items()
    }
    overall = float(np.mean(list(values.values()))), np.mean(list(samples.values()), axis=0)
    several = {
        f"K = {clusters}": compared((values[clusters], samples[clusters]), overall) for clusters in epochs
    }
    others = ", ".join(f"{own.mean():.0f} at K = {clusters}" for clusters, own in epochs_of(beside).items())
    seeds = len(next(iter(by_clusters.values())))
    note = (
        f"{moved({f'K = {clusters}': runs for clusters, runs in several_clusters.items()})}; {OWN}: {others}"
    )
    return run.judge_comparison("TCNN-C13", several, None, seeds, note)
