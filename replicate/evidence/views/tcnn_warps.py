"""What the TCNN chapter shows of alignment-sensitive augmentation (§3.2): warped images that were kept (Fig. 5), and how many are not (S13)."""

from collections.abc import Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from replicate.errors import ReplicateError
from replicate.evidence import claims, timings
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.rows import Row
from replicate.evidence.tested.tcnn_clusters import clusters_of
from replicate.evidence.views.tcnn_ablations import TCNN
from replicate.faces.augment import FramedFaces, alignment
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.geometry import apply_transform
from replicate.methods import tcnn_augmentation, tcnn_training
from replicate.methods.tcnn import MARKUP, SIDE, TCNNConfig, Tweaked
from replicate.metrics import bootstrap_mean, nme, paired_bootstrap

PAIRS = 8  # warped images in Fig. 5
WARPS = {"smoke": 200, "cpu": 20_000, "gpu": 20_000}  # pairs of faces whose warp is accepted or not
WITHIN, ACROSS = f"{TCNN}, pairs from the same cluster", f"{TCNN}, pairs from other clusters"
REJECTED = "rejected augmented images"
LABELS = "mean error, labels of warped images"


def warp_panel(run: Experiment, artefact: str, config: TCNNConfig, train: FaceSource, count: int) -> Figure:
    """Training faces (top) and images made of them that were kept (bottom), with their points in cyan, recorded for an artefact: none is picked.

    Parameters
    ----------
    count : int
        First training faces among which pairs of one cluster are looked for; those that validate are left out.
    """
    faces = train.sample(count)
    faces = faces.subset(~tcnn_training.held_out(train.count)[: len(faces)])
    model, _ = tcnn_training.obtain(config, train, run.profile, run.seed, device=run.device)
    framed = tcnn_training.framed(faces, model.network.mean.device)
    first, second, warped = kept_warps(model, framed, torch.from_numpy(clusters_of(model, faces)), run.seed)
    figure, axes = plt.subplots(2, PAIRS, figsize=(10.5, 2.8), layout="constrained")
    rows = ((framed.canvases.crops(first), first), (warped, second))
    for cells, (crops, own) in zip(axes, rows, strict=True):
        for ax in cells:
            ax.set_axis_off()
        images, shapes = (one.cpu().numpy() for one in (crops.movedim(1, -1), framed.points[own]))
        for ax, crop, points in zip(cells, images, shapes, strict=False):
            ax.imshow(crop, interpolation="bilinear")
            ax.plot(
                *points.T, "o", color="#00FFFF", markersize=3.6, markeredgecolor="black", markeredgewidth=0.4
            )
    moved = (framed.points[first] - framed.points[second]).norm(dim=-1).mean().item()
    figure.set_label(
        f"{len(first)} {run.faces} training faces in crops of {SIDE} pixels (top), and each warped onto the points of another face of its cluster "
        f"(bottom), with the points that are its labels. The points of the two faces of a pair lie {moved:.1f} pixels apart on average."
    )
    shown = dict(subset=train.split, images=len(first), seeds=1, box_rule=faces.box_rule)
    return run.record_figure(artefact, "warped images that were kept", figure, **shown)


@torch.inference_mode()
def kept_warps(
    model: Tweaked, faces: FramedFaces, cluster: Tensor, seed: int, count: int = PAIRS
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of faces of one cluster whose warp stays in it: indices of both (P,) and the warped crops (P, 3, 40, 40); first one of each cluster.

    Raises
    ------
    ReplicateError
        If there is none.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(cluster), generator=generator)
    order = order[cluster[order].argsort(stable=True)]  # clusters together, shuffled inside
    following = order.roll(-1)
    paired = cluster[order] == cluster[following]
    first, second = order[paired], following[paired]
    if not len(first):
        raise ReplicateError(f"faces: no two of {len(cluster)} are of the same cluster; use more")
    crops = faces.canvases.crops(first, alignment(faces.points[first], faces.points[second]))
    stays = model.mixture.assign(model.network.features(crops, model.heads.split)).cpu() == cluster[first]
    found = stays.nonzero()[:, 0]
    if not len(found):
        raise ReplicateError(f"faces: all warps of {len(first)} pairs are rejected; use more faces")
    owner = cluster[first[found]]
    again = torch.cat([owner.new_zeros(1), (owner[1:] == owner[:-1]).long()])  # not the first of its cluster
    found = found[again.argsort(stable=True)[:count]]
    return first[found], second[found], crops[found]


def rejections(
    run: Experiment, config: TCNNConfig, train: FaceSource, seeds: Sequence[int]
) -> tuple[list[Row], Verdict]:
    """S13 and TCNN-C14: how many warps onto a face of the same cluster and of another one are rejected, and how far off the labels of the
    former are: from the record, else measured now.
    """
    wanted = [("TCNN-S13", REJECTED, [WITHIN, ACROSS]), ("TCNN-S12", LABELS, [WITHIN])]
    known = timings.known(run, wanted, "TCNN-C14")
    if known:
        return known
    faces = train.load()
    faces = faces.subset(~tcnn_training.held_out(len(faces)))
    found = [_measured(run, config, train, faces, seed) for seed in seeds]
    within, across, labels = (np.stack(side) for side in zip(*found, strict=True))
    [about] = run.count_rows("TCNN-S13", WITHIN, {REJECTED: 0.0}, unit="%")
    pairs = f"{within.shape[1]:,} pairs of training faces for each seed"
    about = replace(about, images=len(faces), seeds=len(seeds), note=pairs)
    rows = [
        _mean(about, within),
        _mean(replace(about, method=ACROSS), across),
        _mean(replace(about, artefact="TCNN-S12", metric=LABELS, normaliser="inter-pupil"), labels),
    ]
    run.record(rows)
    compared = paired_bootstrap(within, across)
    [claim] = claims.get("TCNN-C14").quantities
    nearly = f"the paper prints under {claim.paper_left:g} and over {claim.paper_right:g} %; the verdict is about their difference"
    return rows, run.judge_comparison("TCNN-C14", compared, len(faces), len(seeds), f"{pairs}; {nearly}")


def _mean(about: Row, values: np.ndarray) -> Row:
    value, low, high = bootstrap_mean(values)
    return replace(about, value=value, ci_low=low, ci_high=high)


@torch.inference_mode()
def _measured(
    run: Experiment, config: TCNNConfig, train: FaceSource, faces: FaceSet, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which warps (P,) are rejected, of pairs of one cluster and of two, as 100 or 0, and how far off labels are (P,) in the former."""
    model, _ = tcnn_training.obtain(config, train, run.profile, seed, device=run.device)
    framed = tcnn_training.framed(faces, model.network.mean.device)
    cluster = torch.from_numpy(clusters_of(model, faces)).to(model.network.mean.device)
    pairs, split = WARPS[run.profile], config.split
    within, across = (
        tcnn_augmentation.rejections(
            model.network, model.mixture, framed, cluster, pairs, seed, across=apart, split=split
        )
        for apart in (False, True)
    )
    off = label_distances(framed.points.cpu(), cluster.cpu(), pairs, seed)
    return 100.0 * within.cpu().numpy(), 100.0 * across.cpu().numpy(), off


def label_distances(shapes: Tensor, cluster: Tensor, pairs: int, seed: int) -> np.ndarray:
    """How far the points of a face lie from those of another face of its cluster that is warped onto them, (P,) in per cent of the eyes' distance.

    Parameters
    ----------
    shapes : Tensor
        (N, 5, 2).
    cluster : Tensor
        (N,), not all of single faces.
    """
    generator = torch.Generator().manual_seed(seed)
    several = (cluster.bincount()[cluster] > 1).nonzero()[:, 0]
    first = several[torch.randint(len(several), (pairs,), generator=generator)]
    order = cluster.argsort(stable=True)
    sizes = cluster.bincount()
    place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
    own, starts = cluster[first], sizes.cumsum(0) - sizes
    step = 1 + (torch.rand(pairs, generator=generator) * (sizes[own] - 1)).long()  # never the face itself
    second = order[starts[own] + (place[first] - starts[own] + step) % sizes[own]]
    true = shapes[second]
    warped = apply_transform(alignment(shapes[first], true), shapes[first])
    return nme(warped.numpy(), true.numpy(), normaliser="inter-pupil", markup=MARKUP)
