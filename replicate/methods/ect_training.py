"""Training of ECT (Zhang, Li, Sun and Liu, "Combining Data-Driven and Model-Driven Methods for Robust Facial Landmark Detection"):
the implementation part of §IV, and §IV-C for the truncated network. Networks are those of `ect`, shape models those of `ect_fitting`.

A network is trained in steps, each from the weights of the one before: a narrower network if there is one, the network itself, and
what is left of it without its fusion part. The model store keeps what each step has made, and the shape model with it: the mean
shape places the faces that the network sees, so neither is of use without the other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from replicate import store, training
from replicate.devices import choose_device, describe_device
from replicate.errors import ReplicateError
from replicate.faces.augment import Samples, cut_canvases
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.geometry import apply_transform, invert
from replicate.methods.ect import FCN, VERSION, ECTConfig, Inception, loss
from replicate.methods.ect_fitting import PDM, Fit, Fitted, fits, predict
from replicate.metrics import nme
from replicate.networks import widen
from replicate.store import ModelKey, StoredModel

FLAGGED = ("aflw-pifa", "cofw")  # §IV: protocols whose hidden points are marked; 300-W has no such marks
# fields of the configuration that decide the fit alone, not what is trained
FITTING = ("a", "b", "confidence", "components", "gamma", "rho2", "prior_rho2", "patches", "turning")
_IN_STEPS = ("narrow", "pretraining", "finetuning")  # fields that `steps` has used up
_PDM = "pdm."  # before the names of its tensors in a stored model


@dataclass(frozen=True)
class Step:
    """A network that is trained from the weights of the one before: its own budget, step size and faces."""

    config: ECTConfig
    source: FaceSource


def steps(config: ECTConfig, source: FaceSource) -> list[Step]:
    """The networks that are trained one after the other, the wanted one last."""
    if config.network == "truncated":
        share = config.finetuning
        last = replace(config, samples=round(share * config.samples), step_size=share * config.step_size)
        return [*steps(replace(config, network="dilated"), source), Step(last, source)]
    before = []
    if config.narrow:
        before = steps(replace(config.narrow, network=config.network), source)
    if config.pretraining:
        generated = replace(source, split="wide", faces="synthetic")
        before = steps(replace(config.pretraining, network=config.network), generated)
    return [*before, Step(config, source)]


def pretraining_faces(config: ECTConfig, source: FaceSource) -> FaceSource | None:
    """The generated faces that a network was trained on before it saw those of `source`; None if there are none."""
    first = steps(config, source)[0].source
    return first if first != source else None


def keys(config: ECTConfig, source: FaceSource, profile: str, seed: int) -> list[ModelKey]:
    """What names the model of each step: all that decides its weights, and nothing of the fit or of later steps."""
    found: list[ModelKey] = []
    for step in steps(config, source):
        fields = asdict(replace(step.config, narrow=None, pretraining=None)).items()
        described = {name: value for name, value in fields if name not in (*FITTING, *_IN_STEPS)}
        name, parent = f"ect-{step.config.network.replace(' ', '-')}", found[-1].hash if found else ""
        found.append(ModelKey(name, described, step.source.fingerprint, profile, seed, VERSION, parent))
    return found


def obtain(
    config: ECTConfig,
    source: FaceSource,
    profile: str,
    seed: int,
    *,
    device: str = "auto",
    fresh: bool = False,
) -> tuple[FCN, PDM, list[StoredModel]]:
    """A trained network and its shape model from the model store; steps that are absent are trained one after the other.

    Parameters
    ----------
    source : FaceSource
        The training faces, loaded only if a step must be trained.
    device : str
        `auto`, `cpu`, `cuda`, ...: where to train, and where what is returned is.
    fresh : bool
        Train all steps again.

    Returns
    -------
    FCN, PDM, list of StoredModel
        The network in evaluation mode, the shape model with the configured number of components, and the stored model of each step.
    """
    planned = steps(config, source)

    def train(before: list[StoredModel], checkpoint: Path) -> store.Training:
        number = len(before)
        same_faces = number > 0 and planned[number - 1].source == planned[number].source
        return _train_step(
            planned[number], number, before[-1] if before else None, same_faces, seed, checkpoint, device
        )

    models = store.chain(keys(config, source, profile, seed), train, fresh=fresh)
    network, pdm = assemble(config, models[-1])
    where = choose_device(device)
    return network.eval().to(where), pdm.to(where), models


def assemble(config: ECTConfig, model: StoredModel) -> tuple[FCN, PDM]:
    """The network and the shape model that a stored model holds."""
    pdm = _stored_pdm(model, config)
    network = FCN(config, len(pdm.mean))
    network.load_state_dict(
        {name: value for name, value in model.tensors.items() if not name.startswith(_PDM)}
    )
    return network.to(memory_format=torch.channels_last), pdm


def _stored_pdm(model: StoredModel, config: ECTConfig) -> PDM:
    own = training.with_prefix(model.tensors, _PDM)
    return PDM(**own, active=len(own["eigenvalues"])).using(config.components)


def predict_faces(network: FCN, pdm: PDM, faces: FaceSet, wanted: Mapping[str, Fit]) -> dict[str, Fitted]:
    """`predict_boxes` for a face set and its boxes."""
    return predict_boxes(network, pdm, faces.images, faces.boxes, wanted)


def predict_boxes(
    network: FCN, pdm: PDM, images: Sequence[np.ndarray], boxes: np.ndarray, wanted: Mapping[str, Fit]
) -> dict[str, Fitted]:
    """`ect_fitting.predict` for boxes (N, 4) in N images; the mean shape is placed in a box as it was in training.

    Parameters
    ----------
    images : sequence of uint8 arrays
        Grey or RGB.
    wanted : mapping
        By label, as from `ect_fitting.fits`; their models are on the network's device.
    """
    canvases = cut_canvases(images, boxes, pdm.mean.cpu(), network.config.frame, colour=True)
    return predict(network, canvases, wanted)


# §IV Implementation details -----------------------------------------------------------------------------------------------------------


def _train_step(
    step: Step,
    number: int,
    before: StoredModel | None,
    same_faces: bool,
    seed: int,
    checkpoint: Path,
    device: str = "cpu",
) -> store.Training:
    """Train the network of a step, number `number`, from the weights of the step before, if there was one.

    It has that one's shape model too if `same_faces` trained it.
    """
    where, config, faces = choose_device(device), step.config, step.source.load()
    seen = faces_with_targets(faces)
    pdm = _stored_pdm(before, config) if same_faces else _fit_pdm(faces, config)
    torch.manual_seed(seed * 1_000 + number)
    network = FCN(config, len(pdm.mean))
    if before:
        network.load_state_dict(grown(before.tensors, network, seed * 10 + number))
    network.to(where, memory_format=torch.channels_last)
    held_out = _held_out(faces, config.validation_faces, seed)
    learning = seen.subset(~held_out)
    samples = Samples(
        learning,
        pdm.mean,
        config.frame,
        config.perturbation,
        config.batch,
        20 * seed + number,
        where,
        boxes=learning.boxes,
        colour=True,
    )
    validate, gate = _validation(network, pdm, faces.subset(held_out), seen.subset(held_out))
    report = training.fit(
        network,
        samples,
        lambda batch: loss(network(batch[0]), batch[1], config),
        validate,
        config.schedule(),
        seed=seed,
        checkpoint=checkpoint,
        label=f"ECT, {config.network} network, width {config.width:g}, {faces.faces} {faces.protocol}, seed {seed}",
        must_beat=gate if config.sanity_gate else None,
    )
    tensors = network.state_dict() | {_PDM + name: value for name, value in pdm.tensors().items()}
    return tensors, report, describe_device(where)


def faces_with_targets(faces: FaceSet) -> FaceSet:
    """The same faces with all points unknown (NaN) that have no ideal response: not annotated, or marked as hidden.

    Raises
    ------
    ReplicateError
        If a face has no other points.
    """
    faces = faces.without_hidden() if faces.protocol in FLAGGED else faces
    empty = np.flatnonzero(~_known(faces).any(1))
    if len(empty):
        raise ReplicateError(
            f"{faces.names[empty[0]]}: none of its points is annotated and visible ({len(empty)} such faces); a network cannot learn from "
            "these, so leave them out"
        )
    return faces


def _known(faces: FaceSet) -> np.ndarray:
    """(N, L) bool."""
    return np.isfinite(faces.points).all(-1)


def _fit_pdm(faces: FaceSet, config: ECTConfig) -> PDM:
    """§III-A: from all faces whose places are all annotated, hidden ones included."""
    complete = faces.points[_known(faces).all(1)]
    return PDM.fit(torch.as_tensor(complete), config.frame, config.components)


def _held_out(faces: FaceSet, validation: int, seed: int) -> np.ndarray:
    """(N,) bool: the random faces that validate, all of whose places are annotated."""
    held_out = np.zeros(len(faces), bool)
    complete = np.flatnonzero(_known(faces).all(1))
    held_out[np.random.default_rng(seed).permutation(complete)[:validation]] = True
    return held_out


def _validation(network: FCN, pdm: PDM, faces: FaceSet, seen: FaceSet) -> tuple[Callable[[], float], float]:
    """A function that gives the validation error, and that error of the mean shape.

    It is the error of the peaks of all points that have a target, in per cent of the distance by which §IV divides the errors on these
    faces. As the fit does not enter it, studies of the fit share their network.
    """
    config, device = network.config, network.conv8.weight.device
    canvases = cut_canvases(faces.images, faces.boxes, pdm.mean, config.frame, colour=True)
    normaliser = "box" if faces.protocol == "aflw-pifa" else "inter-pupil"
    known, peaks = _known(seen), fits(pdm.to(device), config, ["CRM"])

    def error(shapes: Tensor) -> float:
        return nme(
            shapes.numpy(),
            faces.points,
            normaliser=normaliser,
            markup=faces.markup,
            boxes=faces.boxes,
            visible=known,
        ).mean()

    start = config.frame.canonical(pdm.mean).expand(faces.points.shape)
    gate = error(apply_transform(invert(canvases.from_image), start))
    canvases = canvases.to(device)
    return lambda: error(predict(network.eval(), canvases, peaks)["CRM"].shapes[0]), gate


# Weights of one network for another -----------------------------------------------------------------------------------------------------


def grown(tensors: Mapping[str, Tensor], network: FCN, seed: int) -> dict[str, Tensor]:
    """Those of the weights of a network that another one of at most its parts has too, widened so that it computes the same.

    `widen` repeats the channels of a layer as a whole; where branches are joined, the copies of each of them come one after the other.

    Parameters
    ----------
    network : FCN
        The other network, as wide or a multiple of it.
    seed : int
        See `widen`.
    """
    state = network.state_dict()
    wide = widen({name: value for name, value in tensors.items() if name in state}, state, seed)
    for name, channels in _joined(network):
        total = sum(channels)
        copies = total // tensors[name].shape[1]
        numbers = torch.arange(total).view(copies, -1)  # of the channels as `widen` has them, copy by copy
        order = torch.cat([part.flatten() for part in numbers.split([c // copies for c in channels], 1)])
        wide[name] = wide[name][:, order]
    return wide


def _joined(network: FCN) -> Iterator[tuple[str, list[int]]]:
    """Names of the weights that read what may have been joined, and the channels of each joined part."""

    def out(layer: Inception) -> list[int]:
        return [branch.out_channels for branch in layer.branches]

    conv3, conv7 = network.stem[2], network.context[-1]
    starts = {"context": out(conv3), "fusion": out(conv3) + out(conv7)}
    for part, read in starts.items():
        for number, layer in enumerate(getattr(network, part)):
            for branch in range(len(layer.branches)):
                yield f"{part}.{number}.branches.{branch}.weight", read
            read = out(layer)
