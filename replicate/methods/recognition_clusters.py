"""Clusters of faces by what a recogniser sees in them, beside those by what TCNN's vanilla network and the bare pixels give (TCNN §6, Fig. 12).

Mixtures, Eqs 3 and 4 are those of `tcnn`; the mean images are those of the same faces as in Fig. 1, those that the vanilla network learns from. All that the
figure and its numbers need is kept in one small file, so that neither faces nor networks are needed to draw it again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from replicate import store
from replicate.devices import choose_device, describe_device
from replicate.faces.augment import CORNERS, Canvases, cut_canvases
from replicate.faces.faceset import FaceSet
from replicate.faces.people import people
from replicate.faces.sources import FaceSource
from replicate.geometry import apply_transform
from replicate.methods import recognition, recognition_training, tcnn, tcnn_training
from replicate.methods.recognition import Recogniser, RecogniserConfig
from replicate.methods.recognition_training import Aligners
from replicate.methods.tcnn import Mixture, Vanilla
from replicate.methods.tcnn_analysis import LABELS, mean_images
from replicate.store import ModelKey, StoredModel
from replicate.training import FitReport

VERSION = 1  # raise when a change here alters what is stored
FC7, FC5, RGB = "fc7 of the recogniser", "FC5 of the vanilla CNN", "RGB"
SPACES = {FC7: "", FC5: "FC5", RGB: "CL1"}  # with the level of the vanilla network
_FILED = {FC7: "fc7", FC5: "fc5", RGB: "rgb"}


@dataclass(frozen=True, eq=False)
class Within:
    """What the faces of a cluster have in common, by one kind of features.

    Attributes
    ----------
    landmarks : array
        (K, 5) Eq. 3: variance along the principal axis, in per cent of that of all faces; NaN for clusters of fewer than two faces.
    labels : array
        (K, 3) Eq. 4: variance of each of `tcnn_analysis.LABELS`, in per cent of that of all faces; NaN for empty clusters.
    yaw : array
        (K,) variance of the yaw of generated faces, in per cent of that of all; NaN where it is not known.
    one_person : array
        (P,) for each person with several pictures, which per cent of their pairs have both in one cluster.
    two_people : float
        Per cent of the pairs of pictures of two different people that have both in one cluster.
    """

    landmarks: np.ndarray
    labels: np.ndarray
    yaw: np.ndarray
    one_person: np.ndarray
    two_people: float


@dataclass(frozen=True, eq=False)
class RecognisedClusters:
    """Clusters of training faces.

    Attributes
    ----------
    averages : array
        (K, 40, 40, 3) uint8: mean of the crops of each cluster of fc7, neighbours being alike; see `ordered`.
    sizes : array
        (K,) their faces.
    within : dict of str to Within
        By `SPACES`.
    """

    averages: np.ndarray
    sizes: np.ndarray
    within: dict[str, Within]


# The model store ----------------------------------------------------------------------------------------------------------------------------


def key(config: RecogniserConfig, profile: str, faces: str, seed: int) -> ModelKey:
    """What names the clusters; photographs are read to name theirs."""
    source = FaceSource(*recognition_training.LANDMARKS, faces, profile)
    described = {
        "clusters": tcnn.ANALYSED[profile],
        "aligners": recognition_training.aligner_hashes(profile, faces, seed),
        "people": people(faces, profile).fingerprint
        if faces == "real"
        else FaceSource("janus", "five", faces, profile).fingerprint,
    }
    parent = recognition_training.key(config, profile, seed).hash
    return ModelKey("recognised-clusters", described, source.fingerprint, profile, seed, VERSION, parent)


def obtain(
    config: RecogniserConfig,
    profile: str,
    faces: str,
    seed: int,
    *,
    device: str = "auto",
    fresh: bool = False,
) -> tuple[RecognisedClusters, StoredModel]:
    """The clusters from the model store, made now if they are absent, by the recogniser of generated people or that of LFW's first split."""
    where = choose_device(device)

    def make(_) -> store.Training:
        began = time.perf_counter()
        tensors = _clustered(config, profile, faces, seed, device)
        report = FitReport(seconds=time.perf_counter() - began, stopped="all kinds of features clustered")
        return tensors, report, describe_device(where)

    model = store.get(key(config, profile, faces, seed), make, fresh=fresh)
    return _read(model.tensors), model


def _read(tensors: dict[str, Tensor]) -> RecognisedClusters:
    def within(filed: str) -> Within:
        found = {name: tensors[f"{filed}.{name}"].double().numpy() for name in Within.__dataclass_fields__}
        return Within(**found | {"two_people": float(found["two_people"])})

    averages = tensors["averages"].view(-1, tcnn.SIDE, tcnn.SIDE, 3).numpy()
    return RecognisedClusters(
        averages, tensors["sizes"].numpy(), {name: within(filed) for name, filed in _FILED.items()}
    )


# Clusters -----------------------------------------------------------------------------------------------------------------------------------

Describe = Callable[[FaceSet], Tensor]  # N faces -> features (N, D)


def _clustered(
    config: RecogniserConfig, profile: str, faces: str, seed: int, device: str
) -> dict[str, Tensor]:
    source = FaceSource(*recognition_training.LANDMARKS, faces, profile)
    everybody = source.load()
    learning = everybody.subset(~tcnn_training.held_out(len(everybody)))
    known = people(faces, profile)
    aligners = recognition_training.obtain_aligners(profile, faces, seed, device)
    if faces == "real":
        of_splits = recognition_training.obtain_of_splits(
            config, known, lambda: aligners.align(known.faces), profile, seed, device=device
        )
        recogniser = of_splits[0][0]
    else:
        recogniser, _ = recognition_training.obtain(config, profile, seed, device=device)
    vanilla, _ = tcnn_training.obtain_vanilla(
        tcnn.CONFIGS[profile].vanilla, source, profile, seed, device=device
    )
    describe = describers(recogniser, aligners, vanilla)
    tensors: dict[str, Tensor] = {}
    for name, filed in _FILED.items():
        features = describe[name](learning)
        mixture = Mixture.fit(features, tcnn.ANALYSED[profile], seed)
        cluster = mixture.assign(features).numpy()
        of_people = mixture.assign(describe[name](known.faces)).numpy()
        found = within(learning, cluster, of_people, known.faces.identity, len(mixture))
        tensors |= {f"{filed}.{key}": torch.as_tensor(value) for key, value in vars(found).items()}
        if name == FC7:
            tensors |= _pictured(learning, cluster, ordered(mixture.means.numpy()))
    return tensors


def describers(recogniser: Recogniser, aligners: Aligners, vanilla: Vanilla) -> dict[str, Describe]:
    """The features of faces, by `SPACES`: those of the recogniser of faces as TCNN lays them, the others of the crops in their boxes."""

    def recognised(faces: FaceSet) -> Tensor:
        find = aligners.find[recognition_training.TCNN]
        points = {recognition_training.TCNN: find(faces.images, faces.boxes)}
        aligned = recognition.align(faces.images, faces.boxes, points, aligners.template)
        return recognition.features(recogniser, aligned, recognition_training.TCNN).cpu()

    def of_level(level: str) -> Describe:
        @torch.inference_mode()
        def describe(faces: FaceSet) -> Tensor:
            parts = _canvases(faces).crops(torch.arange(len(faces))).split(1024)
            return torch.cat(
                [vanilla.features(crops.to(vanilla.mean.device), level).cpu() for crops in parts]
            )

        return describe

    return {name: of_level(level) if level else recognised for name, level in SPACES.items()}


def _canvases(faces: FaceSet) -> Canvases:
    """Faces whose boxes fill crops of 40 pixels, as the vanilla network sees them."""
    return cut_canvases(faces.images, faces.boxes, CORNERS, tcnn.FRAME, colour=True)


def within(
    faces: FaceSet, cluster: np.ndarray, of_people: np.ndarray, identity: np.ndarray, clusters: int
) -> Within:
    """What faces have in common with those of their cluster.

    Parameters
    ----------
    faces : FaceSet
        N faces with five points and attributes.
    cluster : array
        (N,) int.
    of_people : array
        (M,) int, the clusters that pictures of known people fall into.
    identity : array
        (M,) who is on them.
    """
    points = apply_transform(_canvases(faces).from_image, torch.as_tensor(faces.points)).numpy()
    labels = np.stack([np.asarray(faces.attributes[name]) for name in LABELS], 1)
    nobody = np.zeros(len(faces), int)

    def share(measure: Callable[[np.ndarray, np.ndarray, int], np.ndarray], values: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):  # a label that all faces share has no variance
            found = 100 * measure(values, cluster, clusters) / measure(values, nobody, 1)
        return np.where(np.isfinite(found), found, np.nan)

    yaw = np.full(clusters, np.nan)
    if "yaw" in faces.attributes:
        turned = np.asarray(faces.attributes["yaw"], float)
        own = [turned[cluster == k] for k in range(clusters)]
        yaw = np.array([100 * one.var() / turned.var() if len(one) > 1 else np.nan for one in own])
    return Within(
        share(tcnn.principal_variances, points.astype(float)),
        share(tcnn.attribute_variances, labels),
        yaw,
        *together(of_people, identity),
    )


def together(cluster: np.ndarray, identity: np.ndarray) -> tuple[np.ndarray, float]:
    """How often two pictures have the same cluster, in per cent: (P,) of one person each, and of two different people.

    Parameters
    ----------
    cluster, identity : array
        (N,) of N pictures. People with one picture have no pair, and are among the different ones alone.
    """
    who = np.unique(identity, return_inverse=True)[1]
    counts = np.zeros((who.max() + 1, cluster.max() + 1))
    np.add.at(counts, (who, cluster), 1)
    pictures = counts.sum(1)
    own = (counts * (counts - 1)).sum(1)
    several = pictures > 1
    total = counts.sum(0)
    pairs = pictures.sum() * (pictures.sum() - 1) - (pictures * (pictures - 1)).sum()
    others = (total * (total - 1)).sum() - own.sum()
    return 100 * own[several] / (pictures * (pictures - 1))[several], float(100 * others / pairs)


# The figure ---------------------------------------------------------------------------------------------------------------------------------


def ordered(centres: np.ndarray) -> np.ndarray:
    """An order (K,) of clusters in which neighbours are alike: along the first principal axis of their centres (K, D)."""
    centred = centres - centres.mean(0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    axis = axis * np.sign(axis[np.abs(axis).argmax()])  # either direction would do; this settles it
    return np.argsort(centred @ axis, kind="stable")


def _pictured(faces: FaceSet, cluster: np.ndarray, order: np.ndarray) -> dict[str, Tensor]:
    """Mean crops and sizes of the clusters, in an order."""
    crops = _canvases(faces).crops(torch.arange(len(faces)))
    means = mean_images(crops, cluster, len(order)).nan_to_num()[torch.as_tensor(order.copy())]
    sizes = np.bincount(cluster, minlength=len(order))[order]
    bytes_ = (255 * means).round().byte().permute(0, 2, 3, 1).flatten()
    return {"averages": bytes_, "sizes": torch.as_tensor(sizes)}
