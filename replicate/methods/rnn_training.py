"""Training of RNN (Lai, Xiao, Pan, Cui, Feng, Xu, Yin and Yan, "Deep Recurrent Regression for Facial Landmark Detection"): candidate shapes,
§III-B; augmentation, §IV-A; end to end, §III-D, or in two stages, Fig. 10. Networks are those of `rnn`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans
from torch import Tensor

from replicate import store, training
from replicate.devices import choose_device, describe_device
from replicate.errors import ReplicateError
from replicate.faces.augment import CORNERS, Canvases, EnlargedSamples, cut_canvases
from replicate.faces.faceset import FaceSet
from replicate.faces.perturbations import RNN_VARIANTS
from replicate.faces.sources import FaceSource
from replicate.geometry import apply_transform, box_centre, box_size, invert
from replicate.methods import rnn
from replicate.methods.rnn import FEATURES_VERSION, PADDING, RNN, VERSION, Pooled, RNNConfig
from replicate.metrics import nme
from replicate.store import ModelKey, StoredModel
from replicate.training import FitReport
from replicate.vocabulary import check_one_of

MOST_SHAPES = 20_000  # our choice: of the enlarged set, from which candidates come
MANY = 500  # our choice: candidates from which on k-means goes through the shapes in batches
STANDARDISED = 16  # our choice: batches that features are standardised by
CHUNK = 64  # faces that pass the network at a time
NORMALISER = "inter-pupil"


# Faces -------------------------------------------------------------------------------------------------------------------------------------


def squares(boxes: np.ndarray) -> np.ndarray:
    """§IV-B: square boxes (N, 4) that fill `RNNConfig.frame` as the paper's crops fill the input.

    A box W wide and H high gets 0.2 W on all sides, and the longer side of what comes out is the side of the input. Beyond the shorter sides
    the paper has zeros, we what the photograph has there.

    Raises
    ------
    ReplicateError
        If a box is not finite or has no area.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    sound = np.isfinite(boxes).all(-1) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    if not sound.all():
        raise ReplicateError(
            f"boxes: got {boxes[~sound][0].tolist()} and {(~sound).sum() - 1} more like it, expected finite x_min < x_max and y_min < y_max"
        )
    boxes = torch.as_tensor(np.asarray(boxes), dtype=torch.float64)
    size = box_size(boxes)
    side = (size.amax(-1) + 2 * PADDING * size[..., 0]) / (1 + 2 * PADDING)
    centre, half = box_centre(boxes), side[..., None] / 2
    return torch.cat([centre - half, centre + half], -1).numpy()


def framed(images: Sequence[np.ndarray], boxes: np.ndarray, config: RNNConfig) -> Canvases:
    """Photographs as the network sees them, by their boxes (N, 4)."""
    return cut_canvases(images, squares(boxes), CORNERS, config.frame, colour=True)


def enlarged(
    faces: FaceSet, config: RNNConfig, seed: int, device: torch.device | str = "cpu"
) -> EnlargedSamples:
    """§IV-A: 52 images of each face.

    Raises
    ------
    ReplicateError
        If a point is not annotated.
    """
    if not np.isfinite(faces.points).all():
        missing = int((~np.isfinite(faces.points)).any(-1).sum())
        raise ReplicateError(
            f"{faces.protocol}/{faces.split}: {missing} points are not annotated, and RNN learns from whole shapes; leave these faces out"
        )
    return EnlargedSamples(
        faces,
        CORNERS,
        config.frame,
        RNN_VARIANTS,
        config.batch,
        seed,
        device,
        boxes=squares(faces.boxes),
        colour=True,
    )


def shapes_of(samples: EnlargedSamples, most: int, seed: int) -> Tensor:
    """Shapes (n, L, 2) of random images of the enlarged set, in pixels of the input; no image is made."""
    chosen = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))[:most]
    return samples.shapes(chosen)


# §III-B Initialization searching -------------------------------------------------------------------------------------------------------------


def candidates(shapes: Tensor, count: int, seed: int) -> Tensor:
    """Candidate shapes (count, L, 2): centres of k-means of training shapes (n, L, 2).

    Raises
    ------
    ReplicateError
        If there are not as many shapes, or none is asked for.
    """
    if not 1 <= count <= len(shapes):
        raise ReplicateError(
            f"candidates: got {count} of {len(shapes)} training shapes, expected one or more and no more than there are"
        )
    kind = KMeans if count < MANY else partial(MiniBatchKMeans, batch_size=4 * MANY)
    found = kind(count, n_init=1, random_state=seed).fit(shapes.flatten(1).cpu().numpy())
    return torch.as_tensor(found.cluster_centers_, dtype=torch.float32).view(count, *shapes.shape[1:])


# The model store ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A training from the weights of the one before: what it learns, and its own budget."""

    config: RNNConfig
    learns: str  # "everything", "features" or "regression"


def steps(config: RNNConfig) -> list[Step]:
    """The trainings that follow one another: the features with the initialization network alone, and then everything, or the regression alone.

    The first, in place of a training on ImageNet, is the same for all that differ in the regression.
    """
    first = replace(
        config, samples=config.pretraining, pooled=("deconv7",), recurrent=False, gates="low rank", rank=1, steps=1, box=0.0, weight=0.0,
    )  # fmt: skip
    last = "everything" if config.training == "end to end" else "regression"
    return [Step(first, "features"), Step(config, last)]


def keys(config: RNNConfig, source: FaceSource, profile: str, seed: int) -> list[ModelKey]:
    """What names the model of each step: all that decides its weights."""
    found: list[ModelKey] = []
    for step in steps(config):
        described = asdict(step.config) | {"learns": step.learns, "pooled": list(step.config.pooled)}
        del described["sanity_gate"], described["training"], described["pretraining"]
        parent = found[-1].hash if found else ""
        version = FEATURES_VERSION if step.learns == "features" else VERSION
        found.append(ModelKey("rnn", described, source.fingerprint, profile, seed, version, parent))
    return found


def obtain(
    config: RNNConfig,
    source: FaceSource,
    profile: str,
    seed: int,
    *,
    device: str = "auto",
    fresh: bool = False,
) -> tuple[RNN, list[StoredModel]]:
    """A trained network from the model store; what is absent is trained now.

    Parameters
    ----------
    source : FaceSource
        The training faces, loaded only if needed.
    device : str
        `auto`, `cpu`, `cuda`, ...: where to train, and where the network is.
    fresh : bool
        Train again.

    Returns
    -------
    RNN, list of StoredModel
        The network in evaluation mode, and the stored model of each step.
    """
    planned, where = steps(config), choose_device(device)

    def train(before: list[StoredModel], checkpoint: Path) -> store.Training:
        return _train(planned[len(before)], before, source, seed, checkpoint, where)

    models = store.chain(keys(config, source, profile, seed), train, fresh=fresh)
    return assemble(config, models[-1]).to(where), models


def obtain_features(
    config: RNNConfig,
    source: FaceSource,
    profile: str,
    seed: int,
    *,
    device: str = "auto",
    fresh: bool = False,
) -> RNN:
    """The network after its first training, of the conv-deconv part and the initialization network; its regression has learnt nothing. See `obtain`."""
    first, where = steps(config)[0], choose_device(device)

    def train(checkpoint: Path) -> store.Training:
        return _train(first, [], source, seed, checkpoint, where)

    model = store.get(keys(config, source, profile, seed)[0], train, fresh=fresh)
    return _for_use(_continued(first.config, model)).to(where)


def obtain_candidates(config: RNNConfig, source: FaceSource, profile: str, seed: int, count: int) -> Tensor:
    """Another number of candidate shapes (count, L, 2) for a network, from the model store, see `candidates`; made now if they are absent."""
    described = {
        "nominal": config.nominal,
        "scale": config.scale,
        "validation": config.validation_faces,
        "count": count,
    }
    key = ModelKey("rnn-candidates", described, source.fingerprint, profile, seed, FEATURES_VERSION)

    def find(_: Path) -> store.Training:
        faces = source.load()
        samples = enlarged(faces.subset(~held_out(len(faces), config.validation_faces)), config, seed)
        found = candidates(shapes_of(samples, MOST_SHAPES, seed), count, seed)
        return {"candidates": found}, FitReport(), describe_device(torch.device("cpu"))

    return store.get(key, find).tensors["candidates"]


def assemble(config: RNNConfig, model: StoredModel) -> RNN:
    """The network that a stored model holds."""
    network = RNN(config, model.tensors["candidates"], model.tensors["mean"])
    network.load_state_dict(model.tensors)
    return _for_use(network)


def _for_use(network: RNN) -> RNN:
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


# §III-D, §IV-B Training -----------------------------------------------------------------------------------------------------------------------


def _train(
    step: Step,
    before: list[StoredModel],
    source: FaceSource,
    seed: int,
    checkpoint: Path,
    device: torch.device,
) -> store.Training:
    faces, config = source.load(), step.config
    out = held_out(len(faces), config.validation_faces)
    samples, checked = enlarged(faces.subset(~out), config, seed, device), faces.subset(out)
    network = _begun(config, samples, before, seed).to(device, memory_format=torch.channels_last)
    if step.learns != "features":
        _standardise(network, samples)
    losses = {"everything": rnn.loss, "features": _features_loss, "regression": _regression_loss}
    network.features.requires_grad_(step.learns != "regression")
    network.conv8.requires_grad_(step.learns != "regression")
    validate, gate = _validation(network, checked, of_peaks=step.learns == "features")
    report = training.fit(
        network,
        samples,
        lambda batch: losses[step.learns](network, *batch),
        validate,
        config.schedule(),
        seed=seed,
        checkpoint=checkpoint,
        label=f"RNN, {config.backbone} {config.nominal}, {step.learns}, {faces.faces} {faces.protocol}, seed {seed}",
        must_beat=gate if config.sanity_gate else None,
    )
    return network.state_dict(), report, describe_device(device)


def held_out(count: int, validation: int) -> np.ndarray:
    """(count,) bool: the faces that validate, drawn at random once and for all seeds; a fifth at most.

    Raises
    ------
    ReplicateError
        If there are fewer than five faces.
    """
    if count < 5:
        raise ReplicateError(f"training faces: got {count}, expected five or more, of which one validates")
    chosen = np.random.default_rng(0).permutation(count)[: min(validation, count // 5)]
    return np.isin(np.arange(count), chosen)


def _begun(config: RNNConfig, samples: EnlargedSamples, before: list[StoredModel], seed: int) -> RNN:
    """A network with new weights, but for the conv-deconv part and all shapes of the step before, if there was one."""
    torch.manual_seed(seed)
    if not before:
        shapes = shapes_of(samples, MOST_SHAPES, seed)
        return RNN(config, candidates(shapes, config.candidates, seed), samples.framed.points.mean(0).cpu())
    return _continued(config, before[-1])


def _continued(config: RNNConfig, model: StoredModel) -> RNN:
    """A network whose conv-deconv part and all shapes are those of a model of features; the rest is new."""
    network = RNN(config, model.tensors["candidates"], model.tensors["mean"])
    kept = {name: value for name, value in model.tensors.items() if name.startswith(("features.", "conv8."))}
    network.load_state_dict(kept, strict=False)
    return network


@torch.no_grad()
def _standardise(network: RNN, samples: EnlargedSamples) -> None:
    """`RNN.standardise` by features around the true shapes of the first batches."""
    seen = []
    for number in range(STANDARDISED):
        crops, points = samples(number)
        maps = {name: Pooled(one) for name, one in network.maps(crops).items()}
        seen.append(rnn.shape_indexed(maps, points, network.config))
    network.standardise(torch.cat(seen))


def _features_loss(network: RNN, crops: Tensor, points: Tensor) -> Tensor:
    """Fig. 10 (a): the initialization network alone."""
    return network.mapping_loss(network.maps(crops), points)[0]


def _regression_loss(network: RNN, crops: Tensor, points: Tensor) -> Tensor:
    """Fig. 10 (b): the recurrent regression on maps that stay as they are."""
    with torch.no_grad():
        maps = network.maps(crops)
        peaks = network.peaks(maps)
    pooled = {name: Pooled(one) for name, one in maps.items()}
    return rnn.regression_loss(network.refine(pooled, network.start(peaks)), points, network.config)


def _validation(network: RNN, faces: FaceSet, of_peaks: bool) -> tuple[Callable[[], float], float]:
    """A function that gives the validation error in per cent, of the last step or of the peaks of conv8, and that error of the mean shape."""
    canvases = framed(faces.images, faces.boxes, network.config)

    def error(shapes: Tensor) -> float:
        found = apply_transform(invert(canvases.from_image), shapes.cpu())
        return nme(found.numpy(), faces.points, normaliser=NORMALISER, markup=faces.markup).mean()

    name = PEAKS if of_peaks else LAST
    placed = canvases.to(network.mean.device)
    gate = error(network.mean.expand(len(faces), -1, -1))
    return lambda: error(predict(network.eval(), placed, {name: name})[name][-1]), gate


# §III Prediction ------------------------------------------------------------------------------------------------------------------------------

LAST, PEAKS, MEAN = (
    "candidates",
    "peaks",
    "mean shape",
)  # where the regression starts; of the peaks, it does not


@torch.inference_mode()
def predict(network: RNN, canvases: Canvases, starts: Mapping[str, str | Tensor]) -> dict[str, list[Tensor]]:
    """Shapes after each step in pixels of the input, S^0 to S^K, each (N, L, 2), by the name of the start.

    Parameters
    ----------
    starts : mapping
        By name: `LAST` for the network's own candidates, `MEAN` for its mean shape, `PEAKS` for the peaks of conv8 alone, or other
        candidates (M, L, 2).

    Raises
    ------
    ReplicateError
        If there is no face, no candidate, or a start by another name.
    """
    if not len(canvases):
        raise ReplicateError("faces: got none, expected one or more")
    for name, start in starts.items():
        if isinstance(start, str):
            check_one_of("start", start, (LAST, MEAN, PEAKS))
        elif not len(start):
            raise ReplicateError(f"start {name!r}: got no candidates, expected one or more")
    fast = rnn.for_inference(network)
    found: dict[str, list[list[Tensor]]] = {name: [] for name in starts}
    for index in torch.arange(len(canvases), device=network.mean.device).split(CHUNK):
        maps = fast.maps(canvases.crops(index))
        pooled = {name: Pooled(one) for name, one in maps.items()}
        shapes = fast.peaks(maps)
        for name, start in starts.items():
            if isinstance(start, Tensor):
                begun = rnn.nearest(shapes, start)
            else:
                begun = {LAST: fast.start(shapes), PEAKS: shapes, MEAN: fast.mean.expand_as(shapes)}[start]
            found[name].append(
                [shapes] if isinstance(start, str) and start == PEAKS else fast.refine(pooled, begun)
            )
    return {name: [torch.cat(one) for one in zip(*parts, strict=True)] for name, parts in found.items()}


def predict_boxes(
    network: RNN, images: Sequence[np.ndarray], boxes: np.ndarray, starts: Mapping[str, str | Tensor]
) -> dict[str, np.ndarray]:
    """`predict` for N images with boxes (N, 4): shapes (K + 1, N, L, 2) in pixels of the images."""
    canvases = framed(images, boxes, network.config)
    back = invert(canvases.from_image)
    found = predict(network, canvases.to(network.mean.device), starts)
    return {
        name: np.stack([apply_transform(back, shapes.cpu()).numpy() for shapes in steps])
        for name, steps in found.items()
    }
