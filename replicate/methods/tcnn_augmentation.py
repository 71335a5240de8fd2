"""Alignment-sensitive data augmentation of TCNN, §3.2 (Wu, Hassner, Kim, Medioni and Natarajan, "Facial Landmark Detection with Tweaked Convolutional Neural Networks"):
the images of each cluster as its head sees them. The layers below the heads are frozen, so each image passes them once, and what enters the heads is kept.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from replicate.errors import ReplicateError
from replicate.faces.augment import FramedFaces, alignment, mirror_batch, seeded
from replicate.faces.perturbations import UniformPerturbation
from replicate.geometry import apply_transform
from replicate.methods import tcnn
from replicate.methods.tcnn import FRAME, Mixture, TCNNConfig, Vanilla
from replicate.progress import progress_bar

OVERSAMPLING = 0.1  # our choice: largest shift of an oversampled crop, in its sides
CHUNK = 1024  # crops that pass the network at a time
_TRIES = 20  # warps drawn for each that is wanted, at most


def plain_crops(faces: FramedFaces) -> Iterator[Tensor]:
    """Crops (n, 3, 40, 40) of all faces in their boxes, some at a time."""
    for index in torch.arange(len(faces.canvases)).split(CHUNK):
        yield faces.canvases.crops(index.to(faces.points.device))


class Pools(NamedTuple):
    """Images of K clusters as the heads see them.

    Attributes
    ----------
    features : Tensor
        (M, D) bfloat16, which is what the network computes in; cluster by cluster.
    shapes : Tensor
        (M, 5, 2) labels.
    sizes : Tensor
        (K,) images of each cluster.
    drawn, kept : Tensor
        (K,) warps that were made, and those of them that fell into their cluster again.
    """

    features: Tensor
    shapes: Tensor
    sizes: Tensor
    drawn: Tensor
    kept: Tensor


def rejections(
    network: Vanilla,
    mixture: Mixture,
    faces: FramedFaces,
    cluster: Tensor,
    pairs: int,
    seed: int,
    *,
    across: bool,
    split: str = "FC5",
) -> Tensor:
    """§3.2: which warps (pairs,) bool of a face onto another, of its own cluster or of another one, leave the cluster of the second.

    Parameters
    ----------
    cluster : Tensor
        (N,) of the faces.
    """
    generator, count, device = seeded(seed, 1), len(cluster), cluster.device
    members = _Members.of(cluster)
    found: list[Tensor] = []
    while sum(map(len, found)) < pairs:
        first, second = (torch.randint(count, (CHUNK,), generator=generator).to(device) for _ in range(2))
        if not across:  # the same share of each cluster as among the faces
            own = cluster[first]
            second = members.at(own, members.drawn(own, generator))
        use = (cluster[first] != cluster[second]) if across else (first != second)
        if not use.any():
            raise ReplicateError(
                f"rejections: {count} faces in {len(mixture)} clusters hold no such pair; use more faces"
            )
        first, second = first[use], second[use]
        crops = faces.canvases.crops(first, alignment(faces.points[first], faces.points[second]))
        found.append(mixture.assign(network.features(crops, split)) != cluster[second])
    return torch.cat(found)[:pairs]


class _Members(NamedTuple):
    """The faces (N,) cluster by cluster, and where each cluster (K,) begins and how many faces it has."""

    order: Tensor
    starts: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, cluster: Tensor) -> "_Members":
        """From the cluster (N,) of each face."""
        sizes = cluster.bincount()
        return cls(cluster.argsort(stable=True), sizes.cumsum(0) - sizes, sizes)

    def drawn(self, owner: Tensor, generator: torch.Generator) -> Tensor:
        """Random places (n,) in some clusters (n,)."""
        return (torch.rand(len(owner), generator=generator).to(owner.device) * self.sizes[owner]).long()

    def at(self, owner: Tensor, place: Tensor) -> Tensor:
        """The faces (n,) at places (n,) of clusters (n,); after the last place comes the first."""
        return self.order[self.starts[owner] + place % self.sizes[owner]]


def fill_pools(
    network: Vanilla, mixture: Mixture, faces: FramedFaces, cluster: Tensor, config: TCNNConfig, seed: int
) -> Pools:
    """§3.2: the images of each cluster, raised to `config.images` by augmentation.

    Clusters of one face have no pair to warp, and others may lose nearly all warps: they stay smaller.

    Parameters
    ----------
    cluster : Tensor
        (N,) of the faces.
    """
    clusters, device = len(mixture), cluster.device
    features = [network.features(crops, config.split).bfloat16() for crops in plain_crops(faces)]
    shapes, owners = [faces.points], [cluster]
    drawn, kept, added = (torch.zeros(clusters, dtype=torch.long, device=device) for _ in range(3))
    members = cluster.bincount(minlength=clusters)
    wanted = (config.images - members).clamp_min(0)
    wanted[members < 2] = 0
    if config.augmentation == "none":
        wanted.zero_()
    generator = seeded(seed, 0)
    with progress_bar() as progress:
        bar = progress.add_task("TCNN augmentation", total=int(wanted.sum()), remark="")
        while (open_ := (added < wanted) & (drawn < _TRIES * config.images)).any():
            owner = _shared_out((wanted - added) * open_, kept, drawn)
            crops, labels = _augmented(faces, cluster, owner, config.augmentation, generator)
            found = network.features(crops, config.split)
            stays = torch.ones_like(owner, dtype=torch.bool)
            if config.augmentation.startswith("aligned"):
                stays = mixture.assign(found) == owner
            drawn += owner.bincount(minlength=clusters)
            kept += owner[stays].bincount(minlength=clusters)
            stays &= _rank(owner, stays) < (wanted - added)[owner]  # not more than are wanted
            added += owner[stays].bincount(minlength=clusters)
            features.append(found[stays].bfloat16())
            shapes.append(labels[stays])
            owners.append(owner[stays])
            progress.update(bar, completed=int(added.sum()))
    owner = torch.cat(owners)
    order = owner.argsort(stable=True)
    return Pools(
        torch.cat(features)[order], torch.cat(shapes)[order], owner.bincount(minlength=clusters), drawn, kept
    )


def _shared_out(missing: Tensor, kept: Tensor, drawn: Tensor) -> Tensor:
    """The clusters (n,) for which to draw next: in the order of their number, each as often as it should take to fill it."""
    rate = (kept + 1) / (drawn + 2)
    tries = (1.1 * missing / rate.clamp_min(0.02)).ceil().long()
    tries = tries.clamp_max(max(CHUNK // 4, 2 * CHUNK // max(1, int((missing > 0).sum()))))
    return torch.arange(len(missing), device=missing.device).repeat_interleave(tries)[: 4 * CHUNK]


def _rank(owner: Tensor, stays: Tensor) -> Tensor:
    """How many that stay come before each image (n,) in its cluster; images are in the order of their clusters."""
    counted = stays.long().cumsum(0) - stays.long()
    starts = torch.searchsorted(owner, owner)
    return counted - counted[starts]


def _augmented(
    faces: FramedFaces, cluster: Tensor, owner: Tensor, augmentation: str, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One more image (n, 3, 40, 40) and its labels (n, 5, 2) for each of some clusters (n,)."""
    members, device = _Members.of(cluster), owner.device
    place = members.drawn(owner, generator)
    index = members.at(owner, place)
    shapes = faces.points[index]
    if augmentation == "oversampled and mirrored":
        moves = UniformPerturbation(OVERSAMPLING).sample(len(owner), FRAME, generator).to(device)
        mirrored = (torch.rand(len(owner), generator=generator) < 0.5).to(device)
        return mirror_batch(
            faces.canvases.crops(index, moves), apply_transform(moves, shapes), mirrored, tcnn.MARKUP
        )
    others = members.sizes[owner] - 1
    step = 1 + (torch.rand(len(owner), generator=generator).to(device) * others).long()
    target = faces.points[members.at(owner, place + step)]  # never the face itself
    moves = alignment(shapes, target)
    labels = apply_transform(moves, shapes) if augmentation == "aligned, own labels" else target
    return faces.canvases.crops(index, moves), labels
