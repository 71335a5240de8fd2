"""What RNN costs in time: inputs of 128 and 256 pixels (S9, C19), and gates of the LSTM (F6)."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from replicate.bench.machine import synchronised
from replicate.devices import choose_device, describe_device
from replicate.evidence import timings
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.rows import Row
from replicate.evidence.views.rnn_network import POINTS, lstm_weights, pooled_channels, weights_row
from replicate.faces.faceset import FaceSet
from replicate.methods import rnn_training
from replicate.methods.rnn import CONFIGS, LSTM, NOMINAL, RNN, RNNConfig
from replicate.methods.rnn_training import LAST
from replicate.metrics import against_number

# Inputs (S9, C19) -------------------------------------------------------------------------------------------------------------------------

CLAIM = "RNN-C19"
TIME, FASTER = "time per face", "speed-up"  # the latter as the paper's is listed
FACES = 8  # that are fitted together


def configs(run: Experiment) -> dict[str, RNNConfig]:
    """What is timed: the paper's networks at full width, and this profile's if it is another; by name. `smoke` has no time for the paper's."""
    own = CONFIGS[run.profile]
    if run.profile == "smoke":
        return {own.backbone: own}
    found = {backbone: RNNConfig(backbone) for backbone in ("VGG-19", "VGG-S")}
    if own.width < 1:
        found[f"{own.backbone}, width {own.width:g}, {own.scale:g} of the pixels along a side"] = own
    return found


def speed(
    run: Experiment, faces: Callable[[], FaceSet], rounds: int = timings.LEAST_ROUNDS
) -> tuple[list[Row], Verdict]:
    """Rows of S9 and the verdict on RNN-C19: from the record, else measured now and recorded. The first of `configs` decides.

    Parameters
    ----------
    run : Experiment
        `fresh` measures again.
    faces : callable
        Gives the faces that are fitted together; called only for a measurement.
    rounds : int
        See `timings.alternate`.
    """
    timed = configs(run)
    wanted = [("RNN-S9", TIME, [_named(name, nominal) for name in timed for nominal in NOMINAL])]
    wanted.append(("RNN-S9", FASTER, [_compared(name, place) for place, name in enumerate(timed)]))
    if known := timings.known(run, wanted, CLAIM):
        return known
    some, device = faces(), choose_device(run.device)
    seconds = {name: measure(config, some, device, rounds) for name, config in timed.items()}
    made = _rows(run, seconds, len(some), device)
    run.record(made)
    first = next(iter(seconds.values()))
    compared = against_number(first[256] / first[128], 4.0)
    note = f"of {next(iter(timed))}, {len(some)} faces at a time; {rounds} rounds"
    return made, run.judge_comparison(CLAIM, compared, note=note)


def measure(
    config: RNNConfig, faces: FaceSet, device: torch.device, rounds: int = timings.LEAST_ROUNDS
) -> dict[int, np.ndarray]:
    """Seconds (R,) of a face from photograph and box to landmarks, by nominal side of the input; with random weights, which take as long as
    trained ones. On a CPU they are the processor's, so that other programs do not count.
    """
    ways = []
    for nominal in NOMINAL:
        one = replace(config, nominal=nominal)
        shapes = one.size * torch.rand(one.candidates, POINTS, 2)
        network = RNN(one, shapes, shapes[0]).eval().requires_grad_(False).to(device)
        fit = partial(rnn_training.predict_boxes, network, faces.images, faces.boxes, {LAST: LAST})
        ways.append(synchronised(fit, device))
    rates = timings.alternate(ways, len(faces), rounds, _clock(device))
    return dict(zip(NOMINAL, 1 / rates, strict=True))


def _clock(device: torch.device) -> Callable[[], float]:
    return time.process_time if device.type == "cpu" else time.perf_counter


def _of(device: torch.device) -> str:
    return "processor time" if device.type == "cpu" else "elapsed time"


def _named(name: str, nominal: int) -> str:
    return f"RNN, {name} {nominal}"


def _compared(name: str, place: int) -> str:
    """Of the first the paper's name, so that its number stands beside it."""
    return "RNN, 128x128 vs 256x256" + (f", {name}" if place else "")


def _rows(
    run: Experiment, seconds: Mapping[str, Mapping[int, np.ndarray]], count: int, device: torch.device
) -> list[Row]:
    about = dict(images=count, device=describe_device(device), note=f"{count} faces at a time; {_of(device)}")
    made = []
    for place, (name, taken) in enumerate(seconds.items()):
        made += [
            timings.round_row(run, "RNN-S9", _named(name, n), TIME, "s", taken[n], **about) for n in NOMINAL
        ]
        made.append(
            timings.round_row(
                run, "RNN-S9", _compared(name, place), FASTER, "x", taken[256] / taken[128], **about
            )
        )
    return made


# Gates (F6) -------------------------------------------------------------------------------------------------------------------------------

UNROLLED = "time of the recurrent features of a batch, forward and backward"
CELLS = (  # landmarks and gates; full gates of all landmarks would need gigabytes for their gradients alone
    (5, "full"),
    (5, "low rank"),
    (5, "per landmark"),
    (POINTS, "low rank"),
    (POINTS, "per landmark"),
)


def gate_rows(run: Experiment, rounds: int = timings.LEAST_ROUNDS) -> list[Row]:
    """Seconds of all steps of the LSTM for a batch, by landmarks and gates, from the record, else measured now and recorded."""
    methods = cell_names()
    if known := timings.on_record(run, "RNN-F6", UNROLLED, methods):
        return known
    config, device = CONFIGS["smoke"] if run.profile == "smoke" else RNNConfig(), choose_device(run.device)
    channels = round(config.width * pooled_channels(("deconv7",)))
    ways = [
        synchronised(unrolled(config, points, channels, gates, device), device) for points, gates in CELLS
    ]
    seconds = 1 / timings.alternate(ways, 1, rounds, _clock(device))
    note = f"{channels} channels, {config.steps} steps, batch of {config.batch}, rank {config.rank}; {_of(device)}"
    about = dict(device=describe_device(device), note=note)
    made = [
        timings.round_row(run, "RNN-F6", method, UNROLLED, "s", taken, **about)
        for method, taken in zip(methods, seconds, strict=True)
    ]
    run.record(made)
    return made


def cell_weights(run: Experiment) -> list[Row]:
    """Millions of weights of `CELLS` at the paper's width."""
    channels = pooled_channels(("deconv7",))
    return [
        weights_row(run, name, lstm_weights(points, channels, gates))
        for name, (points, gates) in zip(cell_names(), CELLS, strict=True)
    ]


def cell_names() -> list[str]:
    """What the rows of `CELLS` are called."""
    return [f"LSTM, {points} landmarks, gates {gates}" for points, gates in CELLS]


def unrolled(
    config: RNNConfig, points: int, channels: int, gates: str, device: torch.device
) -> Callable[[], None]:
    """All steps of an LSTM on a batch of random features, and the gradients of its weights."""
    cell = LSTM(points, channels, gates, config.rank).to(device)
    features = torch.randn(config.steps, config.batch, points, channels, device=device)

    def work() -> None:
        state = 2 * [torch.zeros_like(features[0])]
        with torch.autocast(device.type, torch.bfloat16):
            for one in features:
                state = cell(one, *state)
        state[0].float().square().mean().backward()
        cell.zero_grad()

    return work
