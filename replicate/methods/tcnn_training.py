"""Training of TCNN (Wu, Hassner, Kim, Medioni and Natarajan, "Facial Landmark Detection with Tweaked Convolutional Neural Networks"): the
vanilla network, §2.1, and models that are kept in the store. Networks are those of `tcnn`; the images of each cluster, §3.2, come from
`tcnn_augmentation`, and `tcnn_heads` trains the heads on them, §3.1.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from replicate import store, training
from replicate.devices import choose_device, describe_device
from replicate.errors import ReplicateError
from replicate.faces.augment import (
    CORNERS,
    FramedFaces,
    alignment,
    cut_canvases,
    frame_faces,
    mirror_batch,
    seeded,
)
from replicate.faces.faceset import FaceSet
from replicate.faces.perturbations import Rotation
from replicate.faces.sources import FaceSource
from replicate.geometry import apply_transform, compose, invert
from replicate.methods import tcnn
from replicate.methods.tcnn import FRAME, Heads, Mixture, Model, TCNNConfig, Tweaked, Vanilla, VanillaConfig
from replicate.methods.tcnn_augmentation import fill_pools, plain_crops
from replicate.methods.tcnn_heads import fit_heads, fit_of, validating_faces
from replicate.metrics import nme
from replicate.store import ModelKey, StoredModel
from replicate.training import with_prefix

VALIDATION = 1972 / (7571 + 1972)  # §2.1: share of the faces that validate, by the counts printed there


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
        If the faces do not have five points, one is not annotated, or both eyes lie in one place.
    """
    if faces.markup != tcnn.MARKUP or not np.isfinite(faces.points).all():
        raise ReplicateError(
            f"{faces.protocol}/{faces.split}: got {faces.markup} with {int((~np.isfinite(faces.points)).any(-1).sum())} unknown "
            f"points, expected five known points a face ({tcnn.MARKUP})"
        )
    eyes = np.linalg.norm(faces.points[:, 0] - faces.points[:, 1], axis=-1)
    if not eyes.all():
        first = faces.names[int(np.flatnonzero(eyes == 0)[0])]
        raise ReplicateError(
            f"{faces.protocol}/{faces.split}: both eyes of {first} lie in one place, and errors are divided by their distance; leave it out"
        )
    return frame_faces(faces, CORNERS, FRAME, [Rotation()], device, boxes=faces.boxes, colour=True)


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
        `tcnn_heads.Tweaking`.
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
    heads.load_state_dict(with_prefix(tensors, "heads."))
    mixture = Mixture.of(with_prefix(tensors, "mixture."))
    return Tweaked(network.to(device), mixture.to(device), heads.requires_grad_(False).to(device))


def _network(model: StoredModel) -> Vanilla:
    network = Vanilla()
    network.load_state_dict(model.tensors)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


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
        generator = seeded(self.seed, step)
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


# §3.1 Tweaking by fine-tuning -------------------------------------------------------------------------------------------------------------


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
        validating = validating_faces(mixture, validation, config.validation)
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
