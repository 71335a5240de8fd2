"""What the page on LDDR's descriptor measures (S14): how much descriptors change when a face is shifted, turned or lit otherwise, and their map."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import interval_curves
from replicate.evidence.rows import Row
from replicate.evidence.views.lddr_descriptor import crops_of
from replicate.geometry import apply_transform, similarity, warp
from replicate.methods import lddr
from replicate.methods.lddr import HAND_CRAFTED, STAGES, DeepFeatures, Descriptor, Features, Form, LDDRConfig
from replicate.metrics import Interval, bootstrap_mean

LDDR = "LDDR"
UNNORMALISED = "LDDR, normalisation taken out"
_TINY = 2.0**-10  # so small are activations that the local normalisation leaves as they are
_MAP_BORDER = (STAGES[-1].input - 1) // 2  # pixels of an image that its descriptor map lacks on each side

Seen = tuple[Tensor, Tensor]  # crops (N, S, S, 3) uint8 and points (N, L, 2) on them


# Descriptors and changes --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Describer:
    """Features of patches, and the form, and with it the patch, in which they are computed."""

    features: Features
    form: Form

    def __call__(self, seen: Seen) -> Tensor:
        """(N, L, D)."""
        crops, points = seen
        found = [
            self.features(*part, self.form) for part in zip(crops.split(8), points.split(8), strict=True)
        ]
        return torch.cat(found).float().unflatten(1, (points.shape[1], -1))


def describers(tuned: Descriptor, config: LDDRConfig, seed: int) -> dict[str, Describer]:
    """Kinds of descriptors by name: LDDR's, what it is without normalisation, from larger patches or without a training, and others.

    Parameters
    ----------
    tuned : Descriptor
        A trained network.
    seed : int
        Of the random weights.
    """
    torch.manual_seed(seed)
    plain, base = Descriptor(config.network.width), STAGES[-1]
    kinds = {LDDR: DeepFeatures(tuned), UNNORMALISED: DeepFeatures(without_normalisation(tuned))}
    found = {name: Describer(features, base) for name, features in kinds.items()}
    found[f"LDDR, patches of {STAGES[0].input} px"] = Describer(DeepFeatures(tuned), STAGES[0])
    found["random weights"] = Describer(DeepFeatures(plain), base)
    return found | {name: Describer(features, base) for name, features in HAND_CRAFTED.items()}


@torch.no_grad()
def without_normalisation(network: Descriptor) -> Descriptor:
    """A network that computes the same but for its local response normalisations, which change nothing.

    The normalisations leave tiny activations alone. So conv1 and conv2 are made tiny, and conv3 undoes it.
    """
    found = copy.deepcopy(network)
    found.conv1.weight *= _TINY
    found.conv1.bias *= _TINY
    found.conv2.bias *= _TINY
    found.conv3.weight /= _TINY
    return found


@dataclass(frozen=True)
class Change:
    """Something that happens to faces, with the amounts that are tried; at `none` nothing happens."""

    label: str
    amounts: tuple[float, ...]
    none: float
    make: Callable[[Seen, float], Seen]


def shifted(seen: Seen, pixels: float) -> Seen:
    """Patches that lie to the right of where they should."""
    return seen[0], seen[1] + torch.tensor([pixels, 0.0])


def turned(seen: Seen, degrees: float) -> Seen:
    """Faces turned about the middle of their crops, and their points with them."""
    crops, points = seen
    size = crops.shape[1]
    centre = torch.full((2,), (size - 1) / 2)
    turn = similarity(torch.ones(()), torch.tensor(degrees).deg2rad(), torch.zeros(2))
    turn[:, 2] = centre - turn[:, :2] @ centre
    images = warp(crops.movedim(-1, 1).float(), turn.expand(len(crops), 2, 3), (size, size))
    return _bytes(images.movedim(1, -1)), apply_transform(turn, points)


def lit(seen: Seen, gain: float) -> Seen:
    """Faces in more or less light."""
    return _bytes(seen[0].float() * gain), seen[1]


def brightened(seen: Seen, levels: float) -> Seen:
    """Faces to whose colours something is added."""
    return _bytes(seen[0].float() + levels), seen[1]


def _bytes(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)


CHANGES = {
    "shift": Change("shift (pixels)", (0, 1, 2, 3, 4, 6, 8), 0, shifted),
    "turn": Change("turn (degrees)", (0, 2, 5, 10, 15, 20, 30), 0, turned),
    "gain": Change("light (factor)", (0.5, 0.7, 0.85, 1, 1.15, 1.3, 1.5), 1, lit),
    "offset": Change("brightness (added levels)", (-40, -20, -10, 0, 10, 20, 40), 0, brightened),
}


# Invariance (S14) ---------------------------------------------------------------------------------------------------------------------


def distances(before: Tensor, after: Tensor) -> np.ndarray:
    """How far descriptors (N, L, D) of each face have moved: (N,), in per cent of the mean distance between its landmarks' descriptors.

    At 0 a change is not seen; at 100 a landmark is as unlike itself as it is unlike the others.
    """
    moved = (after - before).norm(dim=-1).mean(1)
    count = before.shape[1]
    between = torch.cdist(before, before).sum((1, 2)) / (count * (count - 1))
    return (100 * moved / between).double().numpy()


def invariance(seen: Seen, kinds: Mapping[str, Describer]) -> dict[str, dict[str, list[Interval]]]:
    """By change and kind of descriptor: the mean distance over faces at each of the change's amounts."""
    before = {name: kind(seen) for name, kind in kinds.items()}
    found: dict[str, dict[str, list[Interval]]] = {}
    for what, change in CHANGES.items():
        made = [seen if amount == change.none else change.make(seen, amount) for amount in change.amounts]
        found[what] = {
            name: [bootstrap_mean(distances(before[name], kind(one))) for one in made]
            for name, kind in kinds.items()
        }
    return found


def invariance_plot(
    run: Experiment, found: Mapping[str, Mapping[str, Sequence[Interval]]], subset: str, images: int
) -> Figure:
    """Distances against the amounts of each change, one panel for each, recorded for S14."""
    figure, axes = plt.subplots(2, 2, figsize=(9.4, 7.4), sharey=True, layout="constrained")
    for ax, (what, curves) in zip(axes.flat, found.items(), strict=True):
        change = CHANGES[what]
        interval_curves(ax, curves, dict.fromkeys(curves, change.amounts), legend=False)
        ax.set_xlabel(change.label)
    for ax in axes[:, 0]:
        ax.set_ylabel("distance (% of that between landmarks)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    words = (
        f"{what}: "
        + ", ".join(f"{name} {max(one.value for one in curve):.0f} %" for name, curve in curves.items())
        for what, curves in found.items()
    )
    figure.set_label(
        "Distance of descriptors from those of the unchanged face, in per cent of the distance between landmarks, against shift, turn, gain and "
        f"offset. At the amount that changes most, {'; '.join(words)}."
    )
    about = dict(subset=subset, images=images, seeds=1)
    return run.record_figure("LDDR-S14", "change of the descriptors", figure, **about)


def invariance_rows(
    run: Experiment, found: Mapping[str, Mapping[str, Sequence[Interval]]], images: int
) -> list[Row]:
    """S14 in numbers: the distances of each kind of descriptor at one amount of each change."""
    made = []
    for what, amount in (("shift", 2), ("turn", 10), ("gain", 0.7), ("offset", 20)):
        change = CHANGES[what]
        place = change.amounts.index(amount)
        name, unit = change.label.rstrip(")").split(" (")
        metric = f"change of descriptors, {name} {amount:g} {unit}"
        for method, curve in found[what].items():
            value, low, high = curve[place]
            [row] = run.count_rows("LDDR-S14", method, {metric: value}, "%")
            made.append(replace(row, ci_low=low, ci_high=high, images=images, seeds=1))
    return made


# Descriptor map -----------------------------------------------------------------------------------------------------------------------


def check_map(network: Descriptor, seed: int = 0) -> dict[str, float]:
    """Largest deviations of a descriptor map from what it should be, relative to its largest value, on a random image.

    Returns
    -------
    dict
        Of the map of a moved image from the moved map, where neither sees a border; and of the map of one patch from its descriptor.
    """
    random = torch.Generator().manual_seed(seed)
    image = 60 * torch.randn(3, 64, 60, generator=random, dtype=torch.float64)
    network, form = copy.deepcopy(network).double(), STAGES[-1]
    with torch.inference_mode():
        whole, part = (lddr.descriptor_map(network, one) for one in (image, image[:, 6:, 9:]))
        patch = image[:, 10 : 10 + form.input, 20 : 20 + form.input]
        alone, mapped = network(patch[None], form)[0], lddr.descriptor_map(network, patch)
    large = whole.abs().max()
    moved = (part[:, 2:, 2:] - whole[:, 8:, 11:]).abs().max()
    return {
        "map of a moved image": (moved / large).item(),
        "map of a patch alone": ((mapped - alone).abs().max() / large).item(),
    }


@torch.inference_mode()
def map_of(network: Descriptor, crop: Tensor) -> Tensor:
    """Descriptor map (256, S - 20, S - 20) of a crop (S, S, 3) uint8, in single precision."""
    return lddr.descriptor_map(copy.deepcopy(network).float(), lddr.centred(crop).movedim(-1, 0))


def map_against_patches(network: Descriptor, seen: Seen) -> np.ndarray:
    """Distances (N,), as in `distances`, between the descriptors of a map at the landmarks and those of patches around them."""
    crops, points = seen
    alone = Describer(DeepFeatures(network, torch.float32), STAGES[-1])(seen)
    places = points.round().long().clamp(_MAP_BORDER, crops.shape[1] - 1 - _MAP_BORDER) - _MAP_BORDER
    maps = (map_of(network, crop) for crop in crops)
    at_landmarks = [one[:, where[:, 1], where[:, 0]].T for one, where in zip(maps, places, strict=True)]
    return distances(alone, torch.stack(at_landmarks))


def map_figure(run: Experiment, network: Descriptor, config: LDDRConfig, count: int = 3) -> Figure:
    """Generated faces above their descriptor maps: the three principal components of all descriptors as colours."""
    run = replace(run, faces="synthetic")
    crops, _ = crops_of(run.source("lfpw", "test").sample(count), config)
    maps = torch.stack([map_of(network, crop) for crop in crops])  # (count, 256, h, w)
    colours = as_colours(maps)
    figure, axes = plt.subplots(2, count, figsize=(2.6 * count, 5.2), layout="constrained", squeeze=False)
    inside = slice(_MAP_BORDER, -_MAP_BORDER)
    for (upper, lower), crop, shown in zip(axes.T, crops, colours, strict=True):
        upper.imshow(crop[inside, inside].numpy())
        lower.imshow(shown.numpy())
        for ax in (upper, lower):
            ax.set_axis_off()
    figure.set_label(
        f"{count} generated faces above their descriptor maps, in which similar descriptors have similar colours: eyes, brows, mouth and the edge "
        "of the face stand out from skin and background."
    )
    return run.record_figure("LDDR-S14", "descriptor maps", figure, images=count)


def as_colours(maps: Tensor) -> Tensor:
    """Descriptor maps (n, D, h, w) as pictures (n, h, w, 3) in [0, 1]: the first three principal components, each between its 2nd and 98th percentile."""
    pixels = maps.movedim(1, -1).flatten(0, 2)
    centred = pixels - pixels.mean(0)
    _, axes = torch.linalg.eigh(centred.T @ centred)
    scores = (centred @ axes[:, -3:].flip(1)).numpy()
    low, high = np.percentile(scores, (2, 98), axis=0)
    shown = ((scores - low) / np.maximum(high - low, 1e-12)).clip(0, 1)
    return torch.from_numpy(shown).unflatten(0, (len(maps), *maps.shape[-2:]))
