"""Training of TCNN (Wu, Hassner, Kim, Medioni and Natarajan, "Facial Landmark Detection with Tweaked Convolutional Neural Networks"): the
vanilla network, §2.1; the alignment-sensitive augmentation of each cluster, §3.2; and the heads, §3.1. Networks are those of `tcnn`.

The layers below the heads are frozen, so each image passes them once: what enters the heads is kept, and all heads are trained on it
together as one batched computation, each with its own images, its own validation and its own end.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad

from replicate import store, training
from replicate.devices import choose_device, describe_device
from replicate.errors import ReplicateError
from replicate.faces.augment import CORNERS, FramedFaces, alignment, cut_canvases, frame_faces, mirror_batch
from replicate.faces.faceset import FaceSet
from replicate.faces.perturbations import Rotation, UniformPerturbation
from replicate.faces.sources import FaceSource
from replicate.geometry import apply_transform, compose, invert
from replicate.methods import tcnn
from replicate.methods.tcnn import FRAME, Heads, Mixture, Model, TCNNConfig, Tweaked, Vanilla, VanillaConfig
from replicate.metrics import nme
from replicate.progress import progress_bar
from replicate.store import ModelKey, StoredModel
from replicate.training import FitReport, read_metadata, write_tensors

VALIDATION = 1972 / (7571 + 1972)  # §2.1: share of the faces that validate, by the counts printed there
OVERSAMPLING = 0.1  # our choice: largest shift of an oversampled crop, in its sides
_TRIES = 20  # warps drawn for each that is wanted, at most
CHECKPOINT_SECONDS = 120.0
_CHUNK = 1024  # crops that pass the network at a time


# Faces --------------------------------------------------------------------------------------------------------------------------------------


def held_out(count: int) -> np.ndarray:
    """(count,) bool: the faces that validate, drawn at random once and for all training seeds: §2.1."""
    chosen = np.random.default_rng(0).permutation(count)[: max(1, round(VALIDATION * count))]
    return np.isin(np.arange(count), chosen)


def framed(faces: FaceSet, device: torch.device | str = "cpu") -> FramedFaces:
    """Faces whose boxes fill the crops, with canvases around them.

    Raises
    ------
    ReplicateError
        If the faces do not have five points, or one is not annotated.
    """
    if faces.markup != tcnn.MARKUP or not np.isfinite(faces.points).all():
        raise ReplicateError(
            f"{faces.protocol}/{faces.split}: got {faces.markup} with {int((~np.isfinite(faces.points)).any(-1).sum())} unknown "
            f"points, expected five known points a face ({tcnn.MARKUP})"
        )
    return frame_faces(faces, CORNERS, FRAME, [Rotation()], device, boxes=faces.boxes, colour=True)


def plain_crops(faces: FramedFaces) -> Iterator[Tensor]:
    """Crops (n, 3, 40, 40) of all faces in their boxes, some at a time."""
    for index in torch.arange(len(faces.canvases)).split(_CHUNK):
        yield faces.canvases.crops(index.to(faces.points.device))


def predict_faces(model: Model, faces: FaceSet, *, mirror: bool = True) -> np.ndarray:
    """Shapes (N, 5, 2) in pixels of the images; see `predict_boxes`."""
    return predict_boxes(model, faces.images, faces.boxes, mirror=mirror)


def predict_boxes(
    model: Model, images: Sequence[np.ndarray], boxes: np.ndarray, *, mirror: bool = True
) -> np.ndarray:
    """Shapes (N, 5, 2) in pixels of N grey or RGB images with boxes (N, 4)."""
    network = model if isinstance(model, Vanilla) else model.network
    canvases = cut_canvases(images, boxes, CORNERS, FRAME, colour=True).to(network.mean.device)
    index = torch.arange(len(canvases), device=network.mean.device)
    shapes = tcnn.predict(model, (canvases.crops(part) for part in index.split(512)), mirror=mirror)
    return apply_transform(invert(canvases.from_image), shapes).cpu().numpy()


# The model store ----------------------------------------------------------------------------------------------------------------------------


def keys(config: TCNNConfig, source: FaceSource, profile: str, seed: int) -> list[ModelKey]:
    """What names the vanilla network, and the heads with their clusters."""
    described = asdict(config)
    vanilla = described.pop("vanilla")
    del vanilla["sanity_gate"]
    first = ModelKey("tcnn-vanilla", vanilla, source.fingerprint, profile, seed, tcnn.VERSION)
    return [first, replace(first, method="tcnn", config=described, parent=first.hash)]


def obtain_vanilla(
    config: VanillaConfig,
    source: FaceSource,
    profile: str,
    seed: int,
    *,
    device: str = "auto",
    fresh: bool = False,
) -> tuple[Vanilla, StoredModel]:
    """A vanilla network from the model store, trained now if it is absent; see `obtain`."""
    where = choose_device(device)

    def train(checkpoint: Path) -> store.Training:
        return _train_vanilla(config, source, seed, checkpoint, where)

    model = store.get(keys(TCNNConfig(config), source, profile, seed)[0], train, fresh=fresh)
    return _network(model).to(where), model


def obtain(
    config: TCNNConfig,
    source: FaceSource,
    profile: str,
    seed: int,
    *,
    device: str = "auto",
    fresh: bool = False,
) -> tuple[Tweaked, list[StoredModel]]:
    """A tweaked network from the model store; vanilla network and heads are trained now where they are absent.

    Parameters
    ----------
    source : FaceSource
        The training faces with those that validate, loaded only if needed.
    device : str
        `auto`, `cpu`, `cuda`, ...: where to train, and where the network is.
    fresh : bool
        Train everything again.

    Returns
    -------
    Tweaked, list of StoredModel
        The network, and the stored models of vanilla network and heads. The latter's tensors also tell what became of each cluster, see
        `Tweaking`.
    """
    where = choose_device(device)

    def train(before: list[StoredModel], checkpoint: Path) -> store.Training:
        if not before:
            return _train_vanilla(config.vanilla, source, seed, checkpoint, where)
        return _tweak(_network(before[0]).to(where), config, source, seed, checkpoint)

    models = store.chain(keys(config, source, profile, seed), train, fresh=fresh)
    return assemble(config, models, where), models


def assemble(
    config: TCNNConfig, models: Sequence[StoredModel], device: torch.device | str = "cpu"
) -> Tweaked:
    """The tweaked network that two stored models hold."""
    network, tensors = _network(models[0]), models[1].tensors
    heads = Heads(network, config.clusters, config.split)
    heads.load_state_dict(_named(tensors, "heads."))
    mixture = Mixture.of(_named(tensors, "mixture."))
    return Tweaked(network.to(device), mixture.to(device), heads.requires_grad_(False).to(device))


def _network(model: StoredModel) -> Vanilla:
    network = Vanilla()
    network.load_state_dict(model.tensors)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


# §2.1 Vanilla network -----------------------------------------------------------------------------------------------------------------------


def _train_vanilla(
    config: VanillaConfig, source: FaceSource, seed: int, checkpoint: Path, device: torch.device
) -> store.Training:
    faces = source.load()
    out = held_out(len(faces))
    learning, checked = framed(faces.subset(~out), device), faces.subset(out)
    torch.manual_seed(seed)
    network = Vanilla()
    network.mean, network.std = crop_statistics(learning)
    network.to(device, memory_format=torch.channels_last)
    samples = WarpedSamples(learning, config, seed)
    validate, gate = _validation(network, checked)
    report = training.fit(
        network,
        samples,
        lambda batch: tcnn.loss(network(batch[0]), batch[1]).mean(),
        validate,
        config.schedule,
        seed=seed,
        checkpoint=checkpoint,
        label=f"TCNN's vanilla network, {faces.faces} {faces.protocol}, seed {seed}",
        must_beat=gate if config.sanity_gate else None,
    )
    return network.state_dict(), report, describe_device(device)


def crop_statistics(faces: FramedFaces) -> tuple[Tensor, Tensor]:
    """§2.1: mean image and standard deviation of each of its values, both (3, 40, 40), of crops in [0, 1]."""
    crops = torch.cat(list(plain_crops(faces)))
    return crops.mean(0), crops.std(0, correction=0).clamp_min(1e-3)


class WarpedSamples:
    """Batches for the vanilla network, a function of (seed, step): crops moved and mirrored at random, a share of them onto another face first.

    Parameters
    ----------
    faces : FramedFaces
    config : VanillaConfig
        Its `warps` is the share of crops that take the place of another face of the batch, with its points as labels: §3.2.
    """

    def __init__(self, faces: FramedFaces, config: VanillaConfig, seed: int) -> None:
        self.faces, self.config, self.seed = faces, config, seed

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Crops (batch, 3, 40, 40) and true shapes (batch, 5, 2) of a step."""
        count, batch, device = len(self.faces.canvases), self.config.batch, self.faces.points.device
        generator = _generator(self.seed, step)
        index = torch.randint(count, (batch,), generator=generator).to(device)
        moves = self.config.perturbation.sample(batch, FRAME, generator).to(device)
        mirrored = (torch.rand(batch, generator=generator) < 0.5 * self.config.mirrored).to(device)
        shapes = self.faces.points[index]
        warped = round(self.config.warps * batch)
        before = torch.eye(2, 3, device=device).repeat(batch, 1, 1)
        if warped:
            target = shapes.roll(1, 0)[:warped]
            before[:warped] = alignment(shapes[:warped], target)
            shapes = torch.cat([target, shapes[warped:]])
        crops = self.faces.canvases.crops(index, compose(moves, before))
        return mirror_batch(crops, apply_transform(moves, shapes), mirrored, tcnn.MARKUP)


def _validation(network: Vanilla, faces: FaceSet) -> tuple[Callable[[], float], float]:
    """A function that gives the validation error in per cent of the distance of the eyes, without mirror images, and that of the mean shape."""
    seen = framed(faces, network.mean.device)
    crops = torch.cat(list(plain_crops(seen)))
    true = seen.points.cpu().numpy()

    def error(shapes: Tensor) -> float:
        found = shapes.expand(true.shape).cpu().numpy()
        return nme(found, true, normaliser="inter-pupil", markup=faces.markup).mean()

    return lambda: error(tcnn.predict(network.eval(), crops, mirror=False)), error(seen.points.mean(0))


def _generator(*numbers: int) -> torch.Generator:
    """Random numbers that these numbers determine."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


# §3.2 Alignment-sensitive data augmentation -------------------------------------------------------------------------------------------------


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
    generator, count, device = _generator(seed, 1), len(cluster), cluster.device
    found: list[Tensor] = []
    while sum(map(len, found)) < pairs:
        first, second = (torch.randint(count, (_CHUNK,), generator=generator).to(device) for _ in range(2))
        if not across:  # the same share of each cluster as among the faces
            second = _partners(first, cluster, generator)
        use = (cluster[first] != cluster[second]) if across else (first != second)
        if not use.any():
            raise ReplicateError(
                f"rejections: {count} faces in {len(mixture)} clusters hold no such pair; use more faces"
            )
        first, second = first[use], second[use]
        crops = faces.canvases.crops(first, alignment(faces.points[first], faces.points[second]))
        found.append(mixture.assign(network.features(crops, split)) != cluster[second])
    return torch.cat(found)[:pairs]


def _partners(first: Tensor, cluster: Tensor, generator: torch.Generator) -> Tensor:
    """A random face (n,) of the same cluster for each face (n,), perhaps itself."""
    order = cluster.argsort(stable=True)
    sizes = cluster.bincount()
    starts = sizes.cumsum(0) - sizes
    own = cluster[first]
    place = (torch.rand(len(first), generator=generator).to(first.device) * sizes[own]).long()
    return order[starts[own] + place]


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
    generator = _generator(seed, 0)
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
    tries = tries.clamp_max(max(_CHUNK // 4, 2 * _CHUNK // max(1, int((missing > 0).sum()))))
    return torch.arange(len(missing), device=missing.device).repeat_interleave(tries)[: 4 * _CHUNK]


def _rank(owner: Tensor, stays: Tensor) -> Tensor:
    """How many that stay come before each image (n,) in its cluster; images are in the order of their clusters."""
    counted = stays.long().cumsum(0) - stays.long()
    starts = torch.searchsorted(owner, owner)
    return counted - counted[starts]


def _augmented(
    faces: FramedFaces, cluster: Tensor, owner: Tensor, augmentation: str, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One more image (n, 3, 40, 40) and its labels (n, 5, 2) for each of some clusters (n,)."""
    order, sizes = cluster.argsort(stable=True), cluster.bincount()
    starts, device = sizes.cumsum(0) - sizes, owner.device
    place = (torch.rand(len(owner), generator=generator).to(device) * sizes[owner]).long()
    index = order[starts[owner] + place]
    shapes = faces.points[index]
    if augmentation == "oversampled and mirrored":
        moves = UniformPerturbation(OVERSAMPLING).sample(len(owner), FRAME, generator).to(device)
        mirrored = (torch.rand(len(owner), generator=generator) < 0.5).to(device)
        return mirror_batch(
            faces.canvases.crops(index, moves), apply_transform(moves, shapes), mirrored, tcnn.MARKUP
        )
    step = 1 + (torch.rand(len(owner), generator=generator).to(device) * (sizes[owner] - 1)).long()
    target = faces.points[order[starts[owner] + (place + step) % sizes[owner]]]  # never the face itself
    moves = alignment(shapes, target)
    labels = apply_transform(moves, shapes) if augmentation == "aligned, own labels" else target
    return faces.canvases.crops(index, moves), labels


# §3.1 Tweaking by fine-tuning ---------------------------------------------------------------------------------------------------------------


class Tweaking(NamedTuple):
    """What became of each cluster (K,), kept beside the heads.

    Attributes
    ----------
    faces : Tensor
        Training faces.
    images : Tensor
        Images after augmentation.
    drawn, kept : Tensor
        See `Pools`.
    validating : Tensor
        Faces that validate its head.
    epochs : Tensor
        Epochs until its fine-tuning ended, `patience` after the best one.
    loss_before, loss_after : Tensor
        Validation loss, Eq. 1, of the vanilla weights and of the best ones.
    fit_before, fit_after : Tensor
        The same loss on the images that the head learns from.
    """

    faces: Tensor
    images: Tensor
    drawn: Tensor
    kept: Tensor
    validating: Tensor
    epochs: Tensor
    loss_before: Tensor
    loss_after: Tensor
    fit_before: Tensor
    fit_after: Tensor

    @classmethod
    def of(cls, model: StoredModel) -> "Tweaking":
        """From the stored model of heads."""
        return cls(**_named(model.tensors, "tweaking."))


def _tweak(
    network: Vanilla, config: TCNNConfig, source: FaceSource, seed: int, checkpoint: Path
) -> store.Training:
    """§3.1: cluster the features, fill the clusters, and train a head for each."""
    faces, device, started = source.load(), network.mean.device, time.perf_counter()
    out = held_out(len(faces))
    learning, checked = framed(faces.subset(~out), device), framed(faces.subset(out), device)
    with torch.inference_mode():
        found, validation = (
            torch.cat([network.features(crops, config.split) for crops in plain_crops(part)])
            for part in (learning, checked)
        )
        mixture = Mixture.fit(
            found, config.clusters, seed, clustering=config.clustering, covariance=config.covariance
        )
        mixture = mixture.to(device)
        cluster = mixture.assign(found)
        pools = fill_pools(network, mixture, learning, cluster, config, seed)
        validating = _validating(mixture, validation, config.validation)
    prepared = time.perf_counter() - started
    heads = Heads(network, config.clusters, config.split).to(device)
    fit_before = fit_of(heads, pools)
    report, about = fit_heads(heads, pools, validation, checked.points, validating, config, seed, checkpoint)
    report.data_seconds, report.seconds = prepared, report.seconds + prepared
    about |= {"fit_before": fit_before, "fit_after": fit_of(heads, pools)}
    about["validating"] = torch.tensor([len(index) for index in validating])
    sizes = cluster.bincount(minlength=config.clusters)
    tensors = {f"heads.{name}": value for name, value in heads.state_dict().items()}
    tensors |= {f"mixture.{name}": value for name, value in mixture.tensors().items()}
    told = about | {"faces": sizes, "images": pools.sizes, "drawn": pools.drawn, "kept": pools.kept}
    tensors |= {f"tweaking.{name}": value for name, value in told.items()}
    return tensors, report, describe_device(device)


@torch.inference_mode()
def fit_of(heads: Heads, pools: Pools) -> Tensor:
    """Mean loss (K,), Eq. 1, of each head on its own images; zero for one that has none."""
    owner = torch.arange(len(heads), device=pools.sizes.device).repeat_interleave(pools.sizes)
    parts = zip(pools.features.split(_CHUNK), pools.shapes.split(_CHUNK), owner.split(_CHUNK), strict=True)
    losses = torch.cat([tcnn.loss(heads.routed(x.float(), own), true) for x, true, own in parts])
    return owner.bincount(losses, len(heads)) / pools.sizes.clamp_min(1)


def _validating(mixture: Mixture, features: Tensor, least: int) -> list[Tensor]:
    """Which faces validate each head: those of its cluster; where these are fewer than `least`, the likeliest ones of the component."""
    joint = mixture.log_joint(features)
    cluster, few = joint.argmax(1), min(least, len(features))
    found = []
    for k in range(len(mixture)):
        own = (cluster == k).nonzero()[:, 0]
        found.append(own if len(own) >= few else joint[:, k].topk(few).indices)
    return found


class _Batches(NamedTuple):
    """Which images enter which step of which head: (steps, K, b), and whether there is one."""

    index: Tensor
    present: Tensor


def epoch_batches(sizes: Tensor, batch: int, generator: torch.Generator) -> _Batches:
    """Every image of every cluster once, in random order, in as many steps for all heads; small clusters have small batches.

    Parameters
    ----------
    sizes : Tensor
        (K,) images of each cluster; images are numbered cluster by cluster.
    """
    owner = torch.arange(len(sizes)).repeat_interleave(sizes.cpu())
    order = (owner + torch.rand(len(owner), generator=generator, dtype=torch.float64)).argsort()
    place = torch.arange(len(owner)) - (sizes.cumsum(0) - sizes).cpu()[owner]
    steps = -(-int(sizes.max()) // batch)
    index = torch.zeros(steps, len(sizes), -(-int(sizes.max()) // steps), dtype=torch.long)
    present = torch.zeros(index.shape, dtype=torch.bool)
    where = (place % steps, owner, place // steps)
    index[where], present[where] = order, True
    return _Batches(index.to(sizes.device), present.to(sizes.device))


def fit_heads(
    heads: Heads,
    pools: Pools,
    features: Tensor,
    shapes: Tensor,
    validating: Sequence[Tensor],
    config: TCNNConfig,
    seed: int,
    checkpoint: Path,
) -> tuple[FitReport, dict[str, Tensor]]:
    """Train all heads together; leave each as it was when its validation loss was lowest, the vanilla weights included.

    A head has ended when its validation loss has not fallen for `config.patience` epochs; the others go on without regard to it.

    Parameters
    ----------
    features, shapes : Tensor
        (V, D) and (V, 5, 2) of the faces that validate.
    validating : sequence of Tensor
        For each head, which of these.

    Returns
    -------
    FitReport, dict of str to Tensor
        With the mean validation loss after each epoch, and `epochs`, `loss_before` and `loss_after` of each head.
    """
    widest = max(map(len, validating))
    checked = torch.stack([pad(index, (0, widest - len(index))) for index in validating])
    sizes = torch.tensor([len(index) for index in validating], device=checked.device)
    present = torch.arange(widest, device=checked.device) < sizes[:, None]

    def validate() -> Tensor:
        with torch.inference_mode():
            return _masked_mean(tcnn.loss(heads(features[checked]), shapes[checked]), present)

    fine = _FineTuning(heads, config, validate(), checkpoint)
    with progress_bar() as progress:
        bar = progress.add_task(f"TCNN, {len(heads)} heads, seed {seed}", total=None, remark="")
        while fine.running.any() and fine.epoch < config.epochs:
            batches = epoch_batches(pools.sizes, config.batch, _generator(seed, 2, fine.epoch))
            which = slice(None) if fine.running.all() else fine.running.nonzero()[:, 0]
            for index, there in zip(*(part[:, which] for part in batches), strict=True):
                with torch.autocast(index.device.type, torch.bfloat16):
                    predicted = heads(pools.features[index], which)
                losses = tcnn.loss(predicted, pools.shapes[index])
                fine.descend(_masked_mean(losses, there).sum())
            fine.end_epoch(validate())
            progress.update(bar, completed=fine.epoch, remark=f"{int(fine.running.sum())} running")
    return fine.finish(int(pools.sizes.sum()))


def _masked_mean(values: Tensor, present: Tensor) -> Tensor:
    """Mean of values (K, n) where present, (K,); zero where none is."""
    return (values * present).sum(1) / present.sum(1).clamp_min(1)


class _FineTuning:
    """The state of all heads: Adam, the best weights of each, and how long it has gone without better ones."""

    def __init__(self, heads: Heads, config: TCNNConfig, before: Tensor, checkpoint: Path) -> None:
        self.heads, self.config, self.checkpoint = heads, config, checkpoint
        self.parameters = dict(heads.named_parameters())
        self.optimiser = torch.optim.Adam(self.parameters.values(), lr=config.step_size, fused=True)
        self.best = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.before, self.lowest = before, before.clone()
        self.best_epoch = torch.zeros(len(heads), dtype=torch.long, device=before.device)
        self.report = FitReport()
        self._resume()
        self.started, self.saved = time.perf_counter() - self.report.seconds, time.perf_counter()

    @property
    def epoch(self) -> int:
        return self.report.steps

    @property
    def running(self) -> Tensor:
        """(K,) bool: the heads that have not ended."""
        return self.epoch - self.best_epoch < self.config.patience

    def descend(self, loss: Tensor) -> None:
        """One step of every head; the gradient of a sum of losses is that of each."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def end_epoch(self, losses: Tensor) -> None:
        """Take note of the validation losses (K,) after an epoch; of a head that has ended, nothing counts any more.

        Raises
        ------
        ReplicateError
            If a loss is not finite.
        """
        bad = ~losses.isfinite() & self.running
        if bad.any():
            raise ReplicateError(
                f"TCNN: the validation loss of head {int(bad.nonzero()[0])} is not finite after "
                f"{self.epoch + 1} epochs; lower the step size ({self.config.step_size})"
            )
        better = (losses < self.lowest) & self.running
        self.report.steps += 1
        self.best_epoch[better], self.lowest[better] = self.epoch, losses[better]
        for name, value in self.parameters.items():
            self.best[name][better] = value.detach()[better]
        self.report.history.append((self.epoch, self.lowest.mean().item()))
        self.report.seconds = time.perf_counter() - self.started
        if time.perf_counter() - self.saved > CHECKPOINT_SECONDS:
            self._save()

    def finish(self, images: int) -> tuple[FitReport, dict[str, Tensor]]:
        """Give every head its best weights; the report, whose samples are those of all epochs, and what became of the heads."""
        self.heads.load_state_dict(self.best)
        report = self.report
        report.best_error, report.best_step = self.lowest.mean().item(), int(self.best_epoch.max())
        report.samples = images * report.steps
        report.stopped = "all heads ended" if not self.running.any() else "most epochs reached"
        self.checkpoint.unlink(missing_ok=True)
        epochs = (self.best_epoch + self.config.patience).clamp_max(self.epoch)
        return report, {"epochs": epochs, "loss_before": self.before, "loss_after": self.lowest}

    def _save(self) -> None:
        tensors = {f"now.{name}": value.detach() for name, value in self.parameters.items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for name, value in self.parameters.items():
            tensors |= {f"adam.{key}.{name}": held for key, held in self.optimiser.state[value].items()}
        tensors |= {"before": self.before, "lowest": self.lowest, "best_epoch": self.best_epoch}
        about = {"report": json.dumps(asdict(self.report))}
        write_tensors(self.checkpoint, {name: value.contiguous() for name, value in tensors.items()}, about)
        self.saved = time.perf_counter()

    def _resume(self) -> None:
        """Take up an unfinished run, if there is one."""
        if not self.checkpoint.exists():
            return
        tensors = load_file(self.checkpoint, device=str(self.before.device))
        self.heads.load_state_dict(_named(tensors, "now."))
        self.best = _named(tensors, "best.")
        for name, value in self.parameters.items():
            self.optimiser.state[value] = {
                key: tensors[f"adam.{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }
        self.before, self.lowest, self.best_epoch = (
            tensors[name] for name in ("before", "lowest", "best_epoch")
        )
        self.report = FitReport(**json.loads(read_metadata(self.checkpoint)["report"]))
        self.report.history = [tuple(pair) for pair in self.report.history]
