"""What DAN costs: faces per second at test (S7), samples per second and operations of training (S11)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch

from replicate.bench.machine import operations, synchronised
from replicate.devices import choose_device, describe_device
from replicate.errors import ReplicateError
from replicate.evidence import claims, timings
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table
from replicate.evidence.timings import Rates
from replicate.faces.augment import cut_canvases
from replicate.faces.faceset import FaceSet
from replicate.geometry import apply_transform, invert
from replicate.methods import dan, dan_training
from replicate.methods.dan import DAN, DANConfig
from replicate.methods.dan_training import Step
from replicate.metrics import paired_bootstrap

BATCH = {"cpu": 8, "cuda": 64}  # faces at a time, by type of device
CLAIM = "DAN-C18"
_FACES = ("DAN-S7", "faces per second")
_SAMPLES = ("DAN-S11", "samples per second of training")


# At test ---------------------------------------------------------------------------------------------------------------------------


def prediction_speed(
    run: Experiment, obtain: Callable[[], DAN], faces: Callable[[], FaceSet], rounds: int = 12
) -> tuple[list[Row], Verdict]:
    """Speed in batches and one by one, and the verdict on DAN-C18: from the record, else measured now and recorded.

    Parameters
    ----------
    run : Experiment
        `fresh` measures again.
    obtain : callable
        Gives the network, on the device to be timed; called only for a measurement, as is `faces`.
    faces : callable
        Gives the faces.
    rounds : int
        See `timings.alternate`.
    """
    claim = claims.get(CLAIM)
    methods = (claim.left, claim.right)
    if known := timings.known(run, [(*_FACES, methods)], CLAIM):
        return known
    network, some = obtain(), faces()
    rates = measure_prediction(network, some, methods, rounds)
    made = timings.rate_rows(run, *_FACES, "fps", rates)
    run.record(made)
    compared = paired_bootstrap(*rates.by_way.values())
    verdict = run.judge_comparison(CLAIM, compared, images=len(some), seeds=1, note=f"{rounds} rounds")
    return made, verdict


def measure_prediction(network: DAN, faces: FaceSet, methods: Sequence[str], rounds: int) -> Rates:
    """Faces per second in batches and one by one, from photograph and box to landmarks.

    Parameters
    ----------
    network : DAN
        Brought to its fast form first, which is not timed.
    methods : sequence of str
        What the two ways are called.

    Raises
    ------
    ReplicateError
        For fewer faces than a batch, or too few rounds.
    """
    batch = BATCH[network.canonical.device.type]
    if len(faces) < batch:
        raise ReplicateError(f"faces: got {len(faces)}, expected at least a batch of {batch}")
    fast = dan.for_inference(network)
    images = [np.asarray(image) for image in faces.images]  # in memory: reading them is not timed
    ways = [partial(predict_in, fast, images, faces.boxes, size) for size in (batch, 1)]
    rates = timings.alternate(ways, len(images), rounds)
    note = f"{len(network.stages)} stages of width {network.config.width}; batches of {batch}"
    return Rates(
        dict(zip(methods, rates, strict=True)), len(images), describe_device(network.canonical.device), note
    )


@torch.inference_mode()
def predict_in(fast: DAN, images: Sequence[np.ndarray], boxes: np.ndarray, batch: int) -> torch.Tensor:
    """Final shapes (N, L, 2) in pixels of the images, `batch` of them at a time, cutting the crops included.

    Parameters
    ----------
    fast : DAN
        As `dan.for_inference` gives it.
    """
    shapes = []
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        cut = cut_canvases(images[part], boxes[part], fast.canonical.cpu(), fast.config.frame)
        canvases = cut.to(fast.canonical.device)
        index = torch.arange(len(canvases), device=fast.canonical.device)
        shape = fast(canvases.crops(index))[-1]
        shapes.append(apply_transform(invert(canvases.from_image), shape).cpu())
    return torch.cat(shapes)


# In training -----------------------------------------------------------------------------------------------------------------------


def training_operations(config: DANConfig, stages: int) -> float:
    """Floating-point operations that the budget of a training allows: matrix products and convolutions, forward and backward."""
    return sum(
        step.samples * operations(_descent(config, step, count=2)) / 2
        for step in dan_training.steps(config, stages)
    )


def training_speed(run: Experiment, configs: Mapping[str, DANConfig], stages: int = 2) -> list[Row]:
    """Samples per second of each kind of training step that these configurations take: from the record, else measured now.

    What is timed is the network forward and backward; Adam's step and drawing the samples take little beside it.

    Parameters
    ----------
    configs : dict of str to DANConfig
        By method. All are timed in turn, in batches of the first configuration.
    """
    steps = _kinds(configs.values(), stages)
    recorded = timings.on_record(run, *_SAMPLES, list(steps))
    if recorded:
        return recorded
    config, device = next(iter(configs.values())), choose_device(run.device)
    ways = [_descent(config, step, config.batch, device) for step in steps.values()]
    rates = timings.alternate(ways, config.batch, timings.LEAST_ROUNDS)
    note = f"width {config.width}, batches of {config.batch}"
    made = timings.rate_rows(
        run,
        *_SAMPLES,
        "samples/s",
        Rates(dict(zip(steps, rates, strict=True)), config.batch, describe_device(device), note),
    )
    run.record(made)
    return made


def cost_table(
    configs: Mapping[str, DANConfig], speeds: Sequence[Row], caption: str, stages: int = 2
) -> Table:
    """What the budget of each training takes: samples, operations, and minutes at the measured speeds."""
    rates = {row.method: row.value for row in speeds}
    needed = {method: training_operations(config, stages) for method, config in configs.items()}
    lines = []
    for method, config in configs.items():
        steps = dan_training.steps(config, stages)
        minutes = sum(step.samples / rates[_kind(step)] for step in steps) / 60
        relative = needed[method] / min(needed.values())
        seen = " + ".join(f"{step.samples:,}" for step in steps)
        lines.append((method, seen, f"{needed[method] / 1e12:,.1f}", f"{relative:.2f}", f"{minutes:.1f}"))
    columns = ["method", "samples", "operations, 10¹²", "operations, relative", "minutes"]
    return Table(pd.DataFrame(lines, columns=columns), caption)


def _kinds(configs: Sequence[DANConfig], stages: int) -> dict[str, Step]:
    """Every kind of step once, by its name in rows."""
    return {_kind(step): step for config in configs for step in dan_training.steps(config, stages)}


def _kind(step: Step) -> str:
    return f"DAN, stages 1 to {step.stages} together" if step.joint else f"DAN, stage {step.stages}"


def _descent(
    config: DANConfig, step: Step, count: int, device: torch.device | str = "cpu"
) -> Callable[[], None]:
    """A training step's forward and backward pass on `count` samples of noise."""
    pixels = torch.full((config.input_size, config.input_size), 0.5)
    network = DAN(config, step.stages, config.frame.canonical(torch.rand(68, 2)), pixels, pixels).train()
    dan_training.freeze(
        network.to(device, memory_format=torch.channels_last), step, continued=step.stages > 1
    )
    crops = torch.rand(count, 1, config.input_size, config.input_size, device=device)
    return synchronised(lambda: network(crops)[-1].sum().backward(), torch.device(device))
