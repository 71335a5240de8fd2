"""Training of DAN (Kowalski, Naruniec and Trzcinski, CVPR Workshops 2017): §3.5 and the implementation part of §4.

A network is trained in steps. Stage by stage, each step adds a stage and trains it on top of the finished ones; end to end, one
step trains all stages at once. The model store keeps what each step has made, so variants that share their first stage train it once.
"""

from collections.abc import Callable
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
from replicate.methods.dan import DAN, VERSION, DANConfig, DANVariant, loss_of, normalised_distance, predict
from replicate.networks import widen
from replicate.shapes import mean_shape
from replicate.store import ModelKey, StoredModel

_FACES_OWN = ("canonical", "pixel_")  # what a network holds of its training faces besides weights


@dataclass(frozen=True)
class Step:
    """One step of §3.5's procedure.

    Attributes
    ----------
    name : str
        Of its models in the store.
    stages : int
        Stages of the network after it.
    joint : bool
        Whether it trains all stages or the last one only.
    samples : int
        Its budget.
    """

    name: str
    stages: int
    joint: bool
    samples: int


def steps(config: DANConfig, stages: int) -> list[Step]:
    """The steps that lead to a network of so many stages.

    Raises
    ------
    ReplicateError
        If the budget does not provide for that number of stages.
    """
    if not 1 <= stages <= config.most_stages:
        raise ReplicateError(
            f"stages: got {stages}, expected 1 to {config.most_stages}, for which `samples` of the configuration provides"
        )
    budget = config.samples[:stages]
    apart = [Step(f"dan-stage{number}", number, False, budget[number - 1]) for number in range(1, stages + 1)]
    if config.variant.order == "stage by stage" or stages == 1:
        return apart
    if config.variant.order == "end to end":  # as many samples as stage by stage
        return [Step("dan-joint", stages, True, sum(budget))]
    return [apart[0], Step("dan-joint", stages, True, sum(budget[1:]))]


def keys(config: DANConfig, stages: int, source: FaceSource, profile: str, seed: int) -> list[ModelKey]:
    """What names the model of each step: its own budget and all that came before, but nothing of later steps."""
    found: list[ModelKey] = []
    for number, step in enumerate(steps(config, stages)):
        described = _described(config, step)
        if origin := _origin(config, source):
            kind, before, faces = origin
            described[kind] = keys(before, stages, faces, profile, seed)[number].hash
        parent = found[-1].hash if found else ""
        found.append(ModelKey(step.name, described, source.fingerprint, profile, seed, VERSION, parent))
    return found


def _origin(config: DANConfig, source: FaceSource) -> tuple[str, DANConfig, FaceSource] | None:
    """The network whose weights this one starts from: its field in the configuration, its own configuration, its faces."""
    if config.narrow:
        return "narrow", config.narrow, source
    if config.pretraining:
        return "pretraining", config.pretraining, replace(source, split="wide", faces="synthetic")
    return None


def pretraining_faces(config: DANConfig, source: FaceSource) -> FaceSource | None:
    """The generated faces that a network was trained on before it saw those of `source`; None if there are none."""
    if not (origin := _origin(config, source)):
        return None
    kind, before, faces = origin
    return faces if kind == "pretraining" else pretraining_faces(before, faces)


def _described(config: DANConfig, step: Step) -> dict:
    """What decides a step's weights, as JSON values; of a variant, what differs from the paper's method."""
    config = replace(config, narrow=None, pretraining=None)  # `keys` names them by their hashes
    if step.stages == 1:  # there is no connection yet, so all variants of it share their first stage
        plain = DANConfig()
        config = replace(config, heatmap_radius=plain.heatmap_radius, feature_side=plain.feature_side)
        config = replace(config, variant=DANVariant(loss=config.variant.loss))
    described = asdict(config) | {"stage": step.stages, "samples": step.samples}
    described.pop("pretraining")
    usual = asdict(DANVariant())
    variant = {name: value for name, value in described.pop("variant").items() if value != usual[name]}
    return described | ({"variant": variant} if variant else {})


def obtain(
    config: DANConfig,
    stages: int,
    source: FaceSource,
    profile: str,
    seed: int,
    *,
    device: str = "auto",
    fresh: bool = False,
) -> tuple[DAN, list[StoredModel]]:
    """A trained DAN from the model store; steps that are absent are trained one after the other (§3.5).

    Parameters
    ----------
    source : FaceSource
        The training faces, loaded only if a step must be trained.
    device : str
        `auto`, `cpu`, `cuda`, ...: where to train, and where the returned network is.
    fresh : bool
        Train all steps again.

    Returns
    -------
    DAN, list of StoredModel
        The network in evaluation mode, and the stored model of each step.
    """
    origin = _origin(config, source)
    if origin and fresh:
        obtain(origin[1], stages, origin[2], profile, seed, device=device, fresh=True)
    planned = steps(config, stages)

    def train(models: list[StoredModel], checkpoint: Path) -> store.Training:
        step, before = planned[len(models)], None
        if origin:
            _, smaller, its_faces = origin
            before = obtain(smaller, step.stages, its_faces, profile, seed, device=device)[1][len(models)]
        tensors, report, trained_on = _train_step(
            config, step, models, before, source.load(), seed, checkpoint, device
        )
        report.seconds += before.report.seconds if before else 0
        return tensors, report, trained_on

    models = store.chain(keys(config, stages, source, profile, seed), train, fresh=fresh)
    return assemble(config, models).eval().to(choose_device(device)), models


def assemble(config: DANConfig, models: list[StoredModel], stages: int | None = None) -> DAN:
    """The network that the models of successive steps make up; further stages, up to `stages`, are new."""
    # a joint step gives new weights to what was trained before
    state = {name: value for model in models for name, value in model.tensors.items()}
    network = DAN(
        config,
        stages or models[-1].key.config["stage"],
        state["canonical"],
        state["pixel_mean"],
        state["pixel_std"],
    )
    network.load_state_dict(state, strict=stages is None)
    return network.to(memory_format=torch.channels_last)


def _train_step(
    config: DANConfig,
    step: Step,
    models: list[StoredModel],
    before: StoredModel | None,
    faces: FaceSet,
    seed: int,
    checkpoint: Path,
    device: str = "cpu",
) -> store.Training:
    """Train what a step trains on top of finished models, starting from the weights of the same step of another network if given."""
    _check_points(faces)
    where = choose_device(device)
    torch.manual_seed(seed * 1_000 + step.stages)
    held_out = _held_out(len(faces), config.validation_faces, seed)
    mean = mean_shape(torch.as_tensor(faces.points[~held_out], dtype=torch.float32))
    stream = 20 * seed + 2 * step.stages + _generation(config)
    samples = Samples(
        faces.subset(~held_out), mean, config.frame, config.perturbation, config.batch, stream, where
    )
    if models:
        network = assemble(config, models, step.stages)
    else:
        network = DAN(config, step.stages, config.frame.canonical(mean), *_pixel_statistics(samples))
    if before:
        # what earlier steps of this network have made is its own, and so is what it holds of other faces than the origin's
        own = tuple(name for model in models for name in model.tensors) + (
            () if config.narrow else _FACES_OWN
        )
        taken = {name: value for name, value in before.tensors.items() if not name.startswith(own)}
        network.load_state_dict(widen(taken, network.state_dict(), seed * 10 + step.stages), strict=False)
    network.to(where, memory_format=torch.channels_last)
    own = freeze(network, step, continued=bool(models))
    error = loss_of(config, faces.markup)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        crops, true = batch
        return error(network(crops)[-1], true).mean()

    validate, gate = _validation(network, faces.subset(held_out), mean)
    report = training.fit(
        network,
        samples,
        loss,
        validate,
        config.schedule(step.samples),
        seed=seed,
        checkpoint=checkpoint,
        label=f"DAN {'stages 1 to' if step.joint else 'stage'} {step.stages}, {faces.faces} {faces.protocol}, seed {seed}",
        # that all stages at once learn nothing can be a result: §3.5 calls it inferior
        must_beat=gate if config.sanity_gate and not step.joint else None,
    )
    tensors = {name: value for name, value in network.state_dict().items() if name.startswith(own)}
    return tensors, report, describe_device(where)


def _check_points(faces: FaceSet) -> None:
    unknown = np.argwhere(~np.isfinite(faces.points).all((1, 2)))[:, 0]
    if len(unknown):
        raise ReplicateError(
            f"{faces.names[unknown[0]]}: some of its points are not annotated ({len(unknown)} such faces); DAN needs all points of its "
            "training faces, so leave these out"
        )


def _generation(config: DANConfig) -> int:
    """How many networks on the same faces this one has grown from, so that each sees other samples; a pretrained one counts as one."""
    return 1 + _generation(config.narrow) if config.narrow else int(config.pretraining is not None)


def _held_out(count: int, validation: int, seed: int) -> np.ndarray:
    """§4: which of `count` training faces, (count,) bool, are the random subset that validates."""
    held_out = np.zeros(count, bool)
    held_out[np.random.default_rng(seed).permutation(count)[:validation]] = True
    return held_out


def freeze(network: DAN, step: Step, *, continued: bool) -> tuple[str, ...]:
    """Let a step train only what is its own; returns the prefixes of the names of that.

    Parameters
    ----------
    continued : bool
        Whether the network comes from an earlier step, which holds S_0 and the pixel statistics.
    """
    last = step.stages - 1
    own = ("stages.", "connections.") if step.joint else (f"stages.{last}.", f"connections.{last - 1}.")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(own))
    return own if continued else (*own, *_FACES_OWN)


def _validation(network: DAN, faces: FaceSet, mean: Tensor) -> tuple[Callable[[], float], float]:
    """A function that gives the validation error in per cent of the inter-pupil distance, and that of the mean shape."""
    canvases = cut_canvases(faces.images, faces.boxes, mean, network.config.frame)
    true = torch.as_tensor(faces.points, dtype=torch.float32)

    def error(shapes: Tensor) -> float:
        return 100 * normalised_distance(shapes, true, faces.markup).mean().item()

    start = apply_transform(invert(canvases.from_image), network.canonical.cpu().expand_as(true))
    return lambda: error(predict(network.eval(), canvases)[-1]), error(start)


def _pixel_statistics(samples: Samples, batches: int = 32) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each pixel over augmented crops: two (112, 112)."""
    crops = torch.cat([samples(step)[0] for step in range(batches)])[:, 0].cpu()
    std = crops.std(0).clamp_min(0.01)  # a pixel that never changes must not be divided by zero
    return crops.mean(0), std
