"""One fitting loop for every network: budget, early stopping, checkpoints, resume, and a gate that stops useless models.

The sample that a step sees is a function of (seed, step) alone, and so is its dropout: a run that was killed and resumed goes
through the same steps as one that was not.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from replicate.errors import ReplicateError
from replicate.files import atomic_write
from replicate.progress import progress_bar

GRADIENT_NORM_LIMIT = 10.0  # guards the first steps; ordinary steps stay below it


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes
    ----------
    batch : int
        Samples per step.
    step_size : float
        Adam's initial step.
    samples : int
        Budget; the last step is ``samples // batch``.
    decay : bool
        Whether the step falls to zero over the budget, by a half cosine after a short linear start, or stays constant.
    validate_every : int
        Steps between validations.
    patience : int
        Stopping rule: stop after this many validations in a row without a new best.
    checkpoint_seconds : float
        Time between checkpoints.
    """

    batch: int
    step_size: float
    samples: int
    decay: bool
    validate_every: int
    patience: int
    checkpoint_seconds: float = 120.0

    @property
    def steps(self) -> int:
        return max(1, self.samples // self.batch)

    def step_size_at(self, step: int) -> float:
        """Adam's step at `step`, counted from 0."""
        if not self.decay:
            return self.step_size
        warm_up = max(1, self.steps // 20)
        if step < warm_up:
            return self.step_size * (step + 1) / warm_up
        return (
            self.step_size * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, self.steps - warm_up)))
        )


@dataclass
class FitReport:
    """What a fit did; kept beside the model.

    Attributes
    ----------
    best_error, best_step : float, int
        Lowest validation error and the step it was measured at (that state of the network is the result).
    steps, samples : int
        Steps taken and samples seen.
    seconds, data_seconds : float
        Time spent in all sittings, and the part of it spent waiting for samples.
    history : list
        (step, validation error) pairs.
    stopped : str
        Why it ended.
    """

    best_error: float = math.inf
    best_step: int = 0
    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0
    history: list[tuple[int, float]] = field(default_factory=list)
    stopped: str = ""


def fit(
    network: nn.Module,
    draw: Callable[[int], Any],
    loss: Callable[[Any], Tensor],
    validate: Callable[[], float],
    schedule: Schedule,
    *,
    seed: int,
    checkpoint: Path,
    label: str,
    must_beat: float | None = None,
) -> FitReport:
    """Train the parameters of `network` that require gradients; leave it in its best validated state.

    Parameters
    ----------
    network : Module
        What is trained and checkpointed.
    draw : callable
        ``draw(step)`` returns the samples of a step; it must depend on the step alone.
    loss : callable
        ``loss(samples)`` returns the scalar to minimise.
    validate : callable
        Returns the validation error of the network as it stands; lower is better. It must set evaluation mode itself.
    schedule : Schedule
        Budget, step size, stopping rule.
    seed : int
        Of dropout; samples are the business of `draw`.
    checkpoint : Path
        File for the state of an unfinished run; used if present, removed at the end.
    label : str
        For the progress bar.
    must_beat : float, optional
        Sanity gate: the validation error of the mean shape.

    Raises
    ------
    ReplicateError
        If the loss or a validation error stops being finite, or the best validation error does not beat `must_beat`.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=schedule.step_size, fused=True)
    report, best = _resume(checkpoint, network, optimiser)
    started, last_saved = time.perf_counter() - report.seconds, time.perf_counter()
    with progress_bar() as progress:
        bar = progress.add_task(label, total=schedule.steps, completed=report.steps, remark="")
        while report.steps < schedule.steps and not report.stopped:
            drawing = time.perf_counter()
            samples = draw(report.steps)
            report.data_seconds += time.perf_counter() - drawing
            _prepare(network, optimiser, schedule.step_size_at(report.steps), seed * 1_000_003 + report.steps)
            value = _descend(trained, optimiser, loss(samples))
            if not math.isfinite(value):
                raise ReplicateError(
                    f"{label}: the loss is {value} at step {report.steps}; lower the step size ({schedule.step_size}) or check the points"
                )
            report.steps += 1
            report.samples = report.steps * schedule.batch
            report.seconds = time.perf_counter() - started
            if report.steps % schedule.validate_every == 0 or report.steps == schedule.steps:
                best = _validated(network, validate, report, best, schedule, label)
            if time.perf_counter() - last_saved > schedule.checkpoint_seconds:
                _save(checkpoint, network, optimiser, best, report)
                last_saved = time.perf_counter()
            progress.update(
                bar, completed=report.steps, remark=f"best {report.best_error:.3f}" if report.history else ""
            )
    network.load_state_dict(best)
    report.stopped = report.stopped or "budget spent"
    if must_beat is not None and not report.best_error < must_beat:
        raise ReplicateError(
            f"{label}: validation error {report.best_error:.2f} does not beat the mean shape's {must_beat:.2f} after {report.steps} steps. "
            "Check that points and images belong together; if they do, train longer or lower the step size."
        )
    checkpoint.unlink(missing_ok=True)
    return report


def _prepare(network: nn.Module, optimiser: torch.optim.Optimizer, step_size: float, seed: int) -> None:
    """Set what a step depends on: step size, training mode, and the seed of dropout."""
    for group in optimiser.param_groups:
        group["lr"] = step_size
    network.train()
    torch.manual_seed(seed)


def _descend(trained: list[nn.Parameter], optimiser: torch.optim.Optimizer, loss: Tensor) -> float:
    """One step of Adam down the gradient of the loss, whose value is returned."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(trained, GRADIENT_NORM_LIMIT)
    optimiser.step()
    return loss.item()


def _validated(
    network, validate, report: FitReport, best: dict[str, Tensor], schedule: Schedule, label: str
) -> dict[str, Tensor]:
    """Validate; record; return the best state so far."""
    error = float(validate())
    if not math.isfinite(error):
        raise ReplicateError(
            f"{label}: the validation error is {error} after {report.steps} steps; check the points of the training faces"
        )
    report.history.append((report.steps, error))
    if error < report.best_error:
        report.best_error, report.best_step = error, report.steps
        return _copy(network)
    since_best = sum(step > report.best_step for step, _ in report.history)
    if since_best >= schedule.patience:
        report.stopped = f"no better in {since_best} validations"
    return best


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _save(path: Path, network, optimiser, best: dict[str, Tensor], report: FitReport) -> None:
    tensors = {f"network.{name}": value for name, value in _copy(network).items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{name}": torch.as_tensor(value).clone() for name, value in state.items()}
    write_tensors(
        path,
        {name: value.contiguous() for name, value in tensors.items()},
        {"report": json.dumps(asdict(report))},
    )


def _resume(path: Path, network, optimiser) -> tuple[FitReport, dict[str, Tensor]]:
    """The state of an unfinished run, loaded into network and optimiser, or that of a new one."""
    if not path.exists():
        return FitReport(), _copy(network)
    tensors = load_file(path)
    network.load_state_dict(with_prefix(tensors, "network."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in with_prefix(tensors, "adam.").items():
        number, key = name.split(".")
        state.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    _match_layouts(optimiser)
    report = FitReport(**json.loads(read_metadata(path)["report"]))
    report.history = [tuple(pair) for pair in report.history]
    return report, with_prefix(tensors, "best.")


def _match_layouts(optimiser: torch.optim.Optimizer) -> None:
    """Give Adam's moments the memory layout of their parameters: its fused form reads both as if they had the same."""
    for parameter, moments in optimiser.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)


def with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically.

    Raises
    ------
    ReplicateError
        If the folder cannot be written or the disk is full; the old file is untouched.
    """
    with atomic_write(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:  # what this library makes of a failure to write
            raise OSError(error) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The text metadata of a safetensors file, without its tensors."""
    with safe_open(path, "pt") as opened:
        return opened.metadata() or {}
