"""Speed of TCNN: all heads together beside one after the other, the clusters of every layer, and what tweaking adds to a prediction."""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from replicate.bench import Measurement
from replicate.bench.machine import operations, peak, rate, synchronised
from replicate.devices import choose_device, describe_device
from replicate.evidence import timings
from replicate.methods import tcnn, tcnn_heads
from replicate.methods.tcnn import LEVELS, SIDE, Heads, Mixture, TCNNConfig, Tweaked, Vanilla
from replicate.methods.tcnn_augmentation import Pools

HEADS, IMAGES, VALIDATION = 64, 5000, 31  # §2.2 and §3.2; a 64th of the faces that validate (§2.1)
FACES = 7934  # learning faces of MTFL's 10,000
BATCH = 512  # crops that enter a network at a time in a prediction
ROUNDS = 15  # in which TCNN and its vanilla network take turns
_CHUNK = 1000


def crops_like_faces(count: int, seed: int = 0) -> Tensor:
    """Smooth random crops (count, 3, 40, 40) in [0, 1], with about the contrast of faces: what they show does not matter to a clock."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 6, 6, generator=generator)
    smooth = functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic", align_corners=False)
    return (0.5 + 0.2 * smooth + 0.02 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)


def shapes_like_faces(count: int, seed: int = 0) -> Tensor:
    """Shapes (count, 5, 2) about a face in the middle of the crop."""
    face = torch.tensor([[-0.2, -0.15], [0.2, -0.15], [0, 0.03], [-0.15, 0.2], [0.15, 0.2]])
    noise = torch.randn(count, 5, 2, generator=torch.Generator().manual_seed(seed))
    return tcnn.to_shapes((face + 0.03 * noise).flatten(1))


def network(device: torch.device) -> Vanilla:
    """A network with random weights, which take as long as trained ones, for `crops_like_faces`."""
    torch.manual_seed(0)
    made = Vanilla()
    crops = crops_like_faces(500)
    made.mean, made.std = crops.mean(0), crops.std(0)
    return made.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)


def features_of(made: Vanilla, crops: Tensor, level: str = "FC5") -> Tensor:
    """What enters a layer (N, D), some crops at a time."""
    return torch.cat([made.features(part, level) for part in crops.split(_CHUNK)])


# Fine-tuning --------------------------------------------------------------------------------------------------------------------------------


class Cluster(NamedTuple):
    """One cluster's images and validating faces: crops (n, 3, 40, 40) and shapes (n, 5, 2) of each."""

    crops: Tensor
    shapes: Tensor
    checked: Tensor
    true: Tensor


def cluster_of(images: int, validation: int, device: torch.device) -> Cluster:
    """A cluster of so many images and validating faces."""
    sizes = (images, validation)
    (crops, checked), (shapes, true) = (
        [make(size, seed).to(device) for seed, size in enumerate(sizes)]
        for make in (crops_like_faces, shapes_like_faces)
    )
    return Cluster(crops, shapes, checked, true)


def kept_of(made: Vanilla, one: Cluster) -> tuple[Tensor, Tensor]:
    """Features of the cluster's images and of its validating faces."""
    return features_of(made, one.crops), features_of(made, one.checked)


def tune(made: Vanilla, one: Cluster, kept: tuple[Tensor, Tensor], config: TCNNConfig, folder: Path) -> Heads:
    """One epoch of as many heads as `config` has clusters, all with the images of one cluster, as `tcnn_heads` trains them.

    Parameters
    ----------
    kept : tuple of Tensor
        See `kept_of`.
    """
    count = config.clusters
    sizes = torch.full((count,), len(one.crops), device=one.crops.device)
    features, checked = kept
    pools = Pools(
        features.bfloat16().repeat(count, 1), one.shapes.repeat(count, 1, 1), sizes, 0 * sizes, 0 * sizes
    )
    validating = [torch.arange(len(checked), device=sizes.device)] * count
    heads = Heads(made, count)
    once = replace(config, epochs=1)
    tcnn_heads.fit_heads(heads, pools, checked, one.true, validating, once, 0, folder / "unused")
    return heads


def tune_plainly(
    made: Vanilla, one: Cluster, config: TCNNConfig, order: Iterator[Tensor] | None = None
) -> Vanilla:
    """One epoch of one head as §3.1 describes it: a copy of the network whose first layers are frozen, and each image passes them anew, in float32.

    Parameters
    ----------
    order : iterator of Tensor, optional
        The images of each step; at random unless given.
    """
    copy = deepcopy(made)
    trained = [copy.fc5, copy.fc6]
    for layer in trained:
        layer.requires_grad_(True)
    optimiser = torch.optim.Adam([p for layer in trained for p in layer.parameters()], lr=config.step_size)
    for index in order or orders(len(one.crops), config.batch):
        optimiser.zero_grad()
        tcnn.loss(plain_shapes(copy, one.crops[index]), one.shapes[index]).mean().backward()
        optimiser.step()
    with torch.inference_mode():
        tcnn.loss(plain_shapes(copy, one.checked), one.true).mean().item()
    return copy


def plain_shapes(made: Vanilla, crops: Tensor) -> Tensor:
    """The network layer after layer, Fig. 2, in float32."""
    x = (crops - made.mean) / made.std
    for layer in (made.cl1, made.cl2, made.cl3):
        x = functional.max_pool2d(tcnn.absolute_tanh(layer(x)), 2)
    x = tcnn.absolute_tanh(made.cl4(x)).flatten(1)
    return tcnn.to_shapes(made.fc6(tcnn.absolute_tanh(made.fc5(x))))


def orders(count: int, batch: int, seed: int = 0) -> Iterator[Tensor]:
    """The images (b,) of each step of an epoch."""
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return iter(shuffled.split(batch))


def heads() -> Measurement:
    """An epoch of all heads, together and one after the other."""
    device, config = choose_device("auto"), replace(TCNNConfig(), clusters=HEADS)
    made, one = network(device), cluster_of(IMAGES, VALIDATION, device)
    kept, single = kept_of(made, one), replace(config, clusters=1)
    with TemporaryDirectory() as folder:
        together, alone = (partial(tune, made, one, kept, some, Path(folder)) for some in (config, single))
        per_head = operations(alone)
        value = rate(synchronised(together, device), HEADS)
        in_turn = rate(synchronised(alone, device), 1)
    slow = rate(synchronised(partial(tune_plainly, made, one, config), device), 1)
    return Measurement(
        f"an epoch of {HEADS} heads, {len(one.crops):,} images each in batches of {config.batch}, on kept features; {HEADS} heads take "
        f"{HEADS / value:.3g} s together, {HEADS / in_turn:.3g} s one after the other on kept features, {HEADS / slow:.3g} s in the plain form; "
        f"limit: {per_head / 1e9:.2f} GFLOP a head at the speed of the bfloat16 matrix product",
        value=value,
        unit="heads/s",
        peer="one after the other in float32, each image through all layers",
        peer_value=slow,
        limit=peak(torch.bfloat16, device) / per_head,
        device=describe_device(device),
        threads=torch.get_num_threads(),
    )


# Clusters -----------------------------------------------------------------------------------------------------------------------------------


class Clustered(NamedTuple):
    """How long a clustering took for each layer, in seconds, and the most memory of its process in GiB, before and in all."""

    seconds: dict[str, float]
    before: float
    most: float


def cluster_levels(faces: int, clusters: int, clustering: str, threads: int) -> Clustered:
    """Clusters of what enters each layer, one layer after the other, as §2.2 makes them; on the processor."""
    torch.set_num_threads(threads)
    made, crops = network(torch.device("cpu")), crops_like_faces(faces)
    before, seconds = _most_memory(), {}
    for level in LEVELS:
        features = features_of(made, crops, level)
        began = time.perf_counter()
        Mixture.fit(features, clusters, 0, clustering=clustering)
        seconds[level] = time.perf_counter() - began
    return Clustered(seconds, before, _most_memory())


def _most_memory() -> float:
    """The most that this process has held so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def in_a_process_of_its_own(work: Callable[..., Clustered], *arguments: object) -> Clustered:
    """What `work` returns when nothing else has been in the memory of its process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def clusters() -> Measurement:
    """EM at all five layers."""
    threads = torch.get_num_threads()
    mixture, means = (
        in_a_process_of_its_own(cluster_levels, FACES, HEADS, clustering, threads)
        for clustering in tcnn.CLUSTERINGS
    )
    total = sum(mixture.seconds.values())
    each = ", ".join(f"{level} {seconds:.0f} s" for level, seconds in mixture.seconds.items())
    return Measurement(
        f"Gaussian mixtures of {HEADS} components by EM, of what enters each of {len(LEVELS)} layers, {FACES:,} smooth random crops: "
        f"{total / 60:.1f} minutes ({each}); the process holds at most {mixture.most:.2f} GiB, {mixture.before:.2f} GiB of them before",
        value=60 * len(LEVELS) / total,
        unit="layers/min",
        peer="k-means of scikit-learn",
        peer_value=60 * len(LEVELS) / sum(means.seconds.values()),
        device="cpu",
        threads=threads,
    )


# Prediction ---------------------------------------------------------------------------------------------------------------------------------


def tweaked(made: Vanilla, crops: Tensor, clusters: int) -> Tweaked:
    """A tweaked network whose clusters are those of the crops."""
    mixture = Mixture.fit(features_of(made, crops), clusters, 0)
    return Tweaked(made, mixture.to(crops.device), Heads(made, clusters).requires_grad_(False))


def inference() -> Measurement:
    """A prediction of TCNN beside one of its vanilla network, both averaged over the mirror image."""
    device, count = choose_device("auto"), TCNNConfig().clusters
    made, crops = network(device), crops_like_faces(4 * BATCH).to(device)
    model, some = tweaked(made, crops, count), crops[:BATCH]
    present = len(model.mixture.assign(made.features(some)).unique())
    per_face = operations(partial(tcnn.predict, made, some)) / len(some)
    ours, plain = (synchronised(partial(tcnn.predict, one, some), device) for one in (model, made))
    value, vanilla = np.median(timings.alternate([ours, plain], len(some), ROUNDS), axis=1).tolist()
    return Measurement(
        f"crop and mirror image to points, TCNN of {count} heads of which {present} are at work, batches of {len(some)}, bfloat16 up to the heads; "
        f"it takes {vanilla / value:.2f} times as long as its vanilla network; limit: {per_face / 1e6:.1f} MFLOP a face at the speed of the "
        "bfloat16 matrix product",
        value=value,
        unit="faces/s",
        peer="the vanilla network",
        peer_value=vanilla,
        limit=peak(torch.bfloat16, device) / per_face,
        device=describe_device(device),
        threads=torch.get_num_threads(),
    )
