"""False peaks put into response maps: what projection and correction make of them, with equal and with measured weights (C19)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import DASHES, PALETTE
from replicate.faces.augment import cut_canvases
from replicate.faces.faceset import FaceSet
from replicate.geometry import apply_transform
from replicate.methods import ect
from replicate.methods.ect import FCN, ECTConfig, for_inference, upsampled
from replicate.methods.ect_fitting import PDM, peaks, refine
from replicate.metrics import bootstrap_mean, nme

STRENGTHS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.1)  # of a false response, an ideal one being 1
SHARE = 0.1  # of the landmarks of a face
METHODS = ("peaks", "projection, equal weights", "correction, equal weights", "weighted correction")


@torch.inference_mode()
def errors_with_outliers(
    network: FCN,
    pdm: PDM,
    faces: FaceSet,
    config: ECTConfig,
    *,
    strengths: Sequence[float] = STRENGTHS,
    share: float = SHARE,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Errors of peaks, projection and correction where a share of the landmarks has a false response at a random place, and no other.

    Which landmarks, and where, is the same for all strengths.

    Parameters
    ----------
    strengths : sequence of float
        How high the false response is: that of an ideal map is 1.
    share : float
        Of the landmarks of each face.

    Returns
    -------
    dict of str to array
        By method of `METHODS`: (K, N) in per cent of the inter-pupil distance, for K strengths.
    """
    random = torch.Generator().manual_seed(seed)
    found: dict[str, list[list[np.ndarray]]] = {method: [[] for _ in strengths] for method in METHODS}
    for maps, truth in _response_maps(network, pdm, faces, config):
        which = torch.rand(truth.shape[:2], generator=random).argsort(1) < round(share * truth.shape[1])
        places = config.input_size * (0.1 + 0.8 * torch.rand(truth.shape, generator=random))
        ideal = ect.target_maps(places, config)
        for number, strength in enumerate(strengths):
            spoilt = torch.where(which[..., None, None], strength * ideal, maps)
            for method, shapes in zip(METHODS, _fitted(spoilt, pdm, config), strict=True):
                error = nme(shapes.numpy(), truth.numpy(), normaliser="inter-pupil", markup=faces.markup)
                found[method][number].append(error)
    return {
        method: np.stack([np.concatenate(parts) for parts in by_strength])
        for method, by_strength in found.items()
    }


def _response_maps(
    network: FCN, pdm: PDM, faces: FaceSet, config: ECTConfig, batch: int = 8
) -> Iterator[tuple[Tensor, Tensor]]:
    """Response maps and true points in the frame, some faces at a time, on the CPU."""
    device, fast = network.conv8.weight.device, for_inference(network)
    canvases = cut_canvases(faces.images, faces.boxes, pdm.mean.cpu(), config.frame, colour=True)
    truth = apply_transform(canvases.from_image, torch.as_tensor(faces.points))
    for part in torch.arange(len(faces)).split(batch):
        yield upsampled(fast(canvases.crops(part).to(device))[-1]).cpu(), truth[part]


def _fitted(maps: Tensor, pdm: PDM, config: ECTConfig) -> tuple[Tensor, ...]:
    """Shapes by `METHODS`; with Eq. 15 as printed, all weights of the correction are equal."""
    start, pdm = peaks(maps), pdm.to("cpu")
    equal = replace(config, confidence="as printed")
    return (
        start,
        refine(maps, start, pdm, config, "CRM-PDM").shapes[0],
        refine(maps, start, pdm, equal, "ECT", iterations=0).shapes[0],
        refine(maps, start, pdm, config, "ECT", iterations=0).shapes[0],
    )


def outlier_curves(
    run: Experiment, errors: dict[str, np.ndarray], faces: FaceSet, strengths: Sequence[float] = STRENGTHS
) -> Figure:
    """Mean error against the strength of the false responses, by method, with 95 % intervals over faces."""
    figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    parts = []
    for (method, values), colour, dash in zip(errors.items(), PALETTE, DASHES, strict=False):
        means = np.array([bootstrap_mean(one) for one in values])
        ax.plot(strengths, means[:, 0], color=colour, linestyle=dash, marker="o", markersize=4, label=method)
        ax.fill_between(strengths, means[:, 1], means[:, 2], color=colour, alpha=0.15, linewidth=0)
        ends = " to ".join(f"{mean:.1f} %" for mean in means[[0, -1], 0])
        parts.append(f"{method}: {ends}")
    ax.set(
        xlabel="strength of the false responses (1: ideal)",
        ylabel="mean error (% of inter-pupil distance)",
        ylim=(0, None),
    )
    ax.legend(frameon=False)
    figure.set_label(
        f"Mean error against the strength of false responses at {100 * SHARE:.0f} % of the landmarks, from {strengths[0]:g} to "
        f"{strengths[-1]:g} of an ideal one. {'. '.join(parts)}."
    )
    return run.record_figure(
        "ECT-F3", "false responses", figure, subset=faces.split, images=len(faces), seeds=1, box_rule=faces.box_rule,
    )  # fmt: skip
