"""What the ECT chapter shows of other networks (§III-B, §IV-C): their sizes, their errors by method (Fig. 10a), what the fit gains on each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from replicate.evidence import tested
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE
from replicate.evidence.predictions import Predictions, Runs, stacked_errors
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table
from replicate.evidence.views.compared import behind, on_faces, runs_caption
from replicate.evidence.views.ect_components import NORMALISER, between_pixels, differ
from replicate.faces.sources import FaceSource
from replicate.methods import ect
from replicate.methods.ect import FCN, ECTConfig
from replicate.methods.ect_fitting import METHODS
from replicate.metrics import Comparison, bootstrap_mean, paired_bootstrap

NAMED = {"dilated": "full FCN", "truncated": "truncated FCN", "spatial fusion": "spatial-fusion FCN"}
SIZES = {"ECT-S13": ("truncated", "dilated"), "ECT-S16": ("dilated", "spatial fusion")}  # smaller, larger


def parameter_counts(config: ECTConfig, points: int = 68) -> dict[str, int]:
    """Learnt numbers of each network at the width of a configuration."""
    with torch.device("meta"):  # shapes without memory
        networks = {name: FCN(replace(config, network=name), points) for name in ect.NETWORKS}
    return {name: sum(one.numel() for one in network.parameters()) for name, network in networks.items()}


def size_rows(run: Experiment, artefact: str, widths: Mapping[str, ECTConfig]) -> list[Row]:
    """Parameters of the two networks of an artefact of `SIZES`, and how many fewer the smaller one has.

    Parameters
    ----------
    widths : dict of str to ECTConfig
        By what the width is called; empty for that of the paper.
    """
    made, (smaller, larger) = [], SIZES[artefact]
    for width, config in widths.items():
        counts, suffix = parameter_counts(config), f", {width}" if width else ""
        for name in (larger, smaller):
            made += run.count_rows(artefact, NAMED[name] + suffix, {"parameters": counts[name]})
        fewer = {"parameter reduction": 100 * (1 - counts[smaller] / counts[larger])}
        made += run.count_rows(artefact, f"{NAMED[smaller]} vs {NAMED[larger]}{suffix}", fewer, "%")
    return made


def as_drawn(sizes: Sequence[Row]) -> list[Row]:
    """The shares among the rows of S13, which Fig. 10a gives too."""
    return [replace(row, artefact="ECT-F10a") for row in sizes if row.unit == "%"]


def by_network(networks: Mapping[str, Runs], methods: Sequence[str]) -> dict[str, Sequence[Predictions]]:
    """Methods on the maps of several networks as one mapping, named ``"ECT, truncated FCN"``.

    Parameters
    ----------
    networks : dict
        By network and method: one run per training seed.
    """
    return {f"{method}, {name}": results[method] for name, results in networks.items() for method in methods}


def networks_plot(run: Experiment, source: FaceSource, networks: Mapping[str, Runs]) -> Figure:
    """Fig. 10a: mean error of the methods of Table VIII on the maps of each network, as bars with 95 % intervals."""
    figure, ax = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    width, parts = 0.8 / len(networks), []
    places = np.arange(len(METHODS))
    for number, (name, results) in enumerate(networks.items()):
        found = [bootstrap_mean(stacked_errors(list(results[method]), NORMALISER)) for method in METHODS]
        values, low, high = np.array(found).T
        drawn = ax.bar(
            places + (number - (len(networks) - 1) / 2) * width,
            values,
            width,
            yerr=(values - low, high - values),
            color=PALETTE[number],
            hatch=("", "//", "..")[number],
            edgecolor="white",
            error_kw=dict(capsize=2, linewidth=1),
            label=name,
        )
        ax.bar_label(drawn, [f"{value:.2f}" for value in values], fontsize=7, padding=1)
        in_words = (f"{method} {value:.2f}" for method, value in zip(METHODS, values, strict=True))
        parts.append(f"{name}: {', '.join(in_words)}")
    first = next(iter(networks.values()))["CRM"]
    title = f"{on_faces(run, source, first)}, profile {run.profile}"
    ax.set_xticks(places, METHODS)
    ax.set(ylabel=f"mean error (% of {NORMALISER} distance)", title=title)
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.set_label(f"Mean error in per cent on {title}. " + ". ".join(parts) + ".")
    name = f"mean error by network, {source.split}"
    return run.record_figure("ECT-F10a", name, figure, **behind(source, first))


def gain(results: Runs, peaks: str = "CRM") -> np.ndarray:
    """By how much ECT lowers the error of the peaks, (S, N) in percentage points of the inter-pupil distance."""
    return stacked_errors(list(results[peaks]), NORMALISER) - stacked_errors(list(results["ECT"]), NORMALISER)


def compare_gains(left: Runs, right: Runs, peaks: str = "CRM") -> Comparison:
    """The gain on the maps of one network with that on those of another, paired over faces and seeds."""
    return paired_bootstrap(gain(left, peaks), gain(right, peaks))


def gains_table(run: Experiment, source: FaceSource, networks: Mapping[str, Runs], title: str) -> Table:
    """Raw peaks, ECT and the gain of each network, in points and in per cent of the error of the raw peaks, with 95 % intervals."""
    lines = []
    for name, results in networks.items():
        values = [stacked_errors(list(results[method]), NORMALISER).mean() for method in ("CRM", "ECT")]
        found = bootstrap_mean(gain(results))
        points = f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
        lines.append(
            (name, *(f"{value:.2f}" for value in values), points, f"{100 * found.value / values[0]:.1f}")
        )
    columns = ["network", f"CRM, % {NORMALISER}", f"ECT, % {NORMALISER}", "gain, points", "gain, % of CRM"]
    first = next(iter(networks.values()))["CRM"]
    return Table(pd.DataFrame(lines, columns=columns), runs_caption(run, source, first, title))


def judge_truncated(run: Experiment, full: Runs, truncated: Runs) -> list[Verdict]:
    """Judge and record ECT-C9 to ECT-C11 by runs on the challenging set; notes have the same with peaks between pixels."""
    (seeds, images), both = gain(full).shape, "on both sides"
    finer = between_pixels({"challenging": compare_gains(truncated, full, tested.CLIMBED)}, both)
    raw = between_pixels({"challenging": differ(full[tested.CLIMBED], truncated[tested.CLIMBED])}, both)
    sides = ({"challenging": results["CRM"]} for results in (full, truncated))
    return [
        run.judge_comparison("ECT-C9", compare_gains(truncated, full), images, seeds, finer),
        run.judge_number("ECT-C10", truncated["ECT"]),
        run.judge_on("ECT-C11", *sides, raw),
    ]


def judge_dilated(run: Experiment, dilated: Runs, spatial: Runs) -> Verdict:
    """Judge and record ECT-C12 by runs on the full set; the note has the same with peaks between pixels."""
    finer = between_pixels(
        {"full": differ(dilated[tested.CLIMBED], spatial[tested.CLIMBED])}, "on both sides"
    )
    sides = ({"full": results["CRM"]} for results in (dilated, spatial))
    return run.judge_on("ECT-C12", *sides, finer)
