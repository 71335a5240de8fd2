"""The fitting loop: learning, stopping, resuming after a kill at any moment, refusing useless models."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from replicate.errors import ReplicateError
from replicate.training import Schedule, fit

torch.set_num_threads(1)
SCHEDULE = Schedule(batch=8, step_size=0.05, samples=8 * 60, decay=True, validate_every=10, patience=100)
TRUE = torch.tensor([[2.0, -1.0]])


def problem(seed=0, dropout=0.0):
    """Linear regression whose solution is known: network, samples, loss, validation."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Dropout(dropout), nn.Linear(2, 1))
    held_out = torch.randn(50, 2, generator=torch.Generator().manual_seed(99))

    def draw(step):
        return torch.randn(8, 2, generator=torch.Generator().manual_seed(step))

    def loss(x):
        return (network(x) - x @ TRUE.T - 3).square().mean()

    def validate():
        network.eval()
        with torch.inference_mode():
            return (network(held_out) - held_out @ TRUE.T - 3).abs().mean().item()

    return network, draw, loss, validate


def run(tmp_path, schedule=SCHEDULE, **options):
    network, *parts = problem(dropout=options.pop("dropout", 0.0))
    report = fit(
        network, *parts, schedule, seed=1, checkpoint=tmp_path / "c.checkpoint", label="test", **options
    )
    return network, report


def test_fit_finds_the_known_solution(tmp_path):
    network, report = run(tmp_path, replace(SCHEDULE, samples=8 * 400))
    torch.testing.assert_close(network[1].weight, TRUE, atol=0.01, rtol=0)
    assert network[1].bias.item() == pytest.approx(3, abs=0.01)
    assert report.steps == 400 and report.samples == 3200 and report.stopped == "budget spent"
    assert not (tmp_path / "c.checkpoint").exists()


def test_result_is_the_best_validated_state(tmp_path):
    network, report = run(tmp_path)
    assert report.best_error == min(error for _, error in report.history)
    held_out = torch.randn(50, 2, generator=torch.Generator().manual_seed(99))
    with torch.inference_mode():
        again = (network(held_out) - held_out @ TRUE.T - 3).abs().mean().item()
    assert again == pytest.approx(report.best_error, rel=1e-5)


def test_early_stopping_follows_the_written_rule(tmp_path):
    errors = iter([5.0, 4.0, 4.5, 4.1, 6.0, 1.0])
    network, draw, loss, _ = problem()
    rule = replace(SCHEDULE, patience=3)
    report = fit(
        network, draw, loss, lambda: next(errors), rule, seed=0, checkpoint=tmp_path / "c", label="test"
    )
    assert report.history == [(10, 5.0), (20, 4.0), (30, 4.5), (40, 4.1), (50, 6.0)]
    assert (report.best_error, report.best_step, report.stopped) == (4.0, 20, "no better in 3 validations")


def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    """Interrupted in the middle by an error in the samples, which leaves the last checkpoint as a kill would."""
    schedule = replace(SCHEDULE, checkpoint_seconds=0.0)
    whole, _ = run(tmp_path / "whole", schedule, dropout=0.3)
    network, draw, loss, validate = problem(dropout=0.3)

    def failing(step):
        if step == 37:
            raise KeyboardInterrupt
        return draw(step)

    with pytest.raises(KeyboardInterrupt):
        fit(network, failing, loss, validate, schedule, seed=1, checkpoint=tmp_path / "c", label="test")
    network, draw, loss, validate = problem(
        seed=5, dropout=0.3
    )  # other initial weights: the checkpoint must replace them
    report = fit(network, draw, loss, validate, schedule, seed=1, checkpoint=tmp_path / "c", label="test")
    assert torch.equal(whole[1].weight, network[1].weight) and torch.equal(whole[1].bias, network[1].bias)
    assert report.steps == 60


def test_kill_9_during_training_leaves_a_checkpoint_that_resumes(tmp_path):
    script = (
        "import sys, time; sys.path.insert(0, 'tests')\n"
        "from pathlib import Path; from dataclasses import replace\n"
        "from test_training import SCHEDULE, fit, problem\n"
        "network, draw, loss, validate = problem()\n"
        "def slow(step): time.sleep(0.02); return draw(step)\n"
        f"fit(network, slow, loss, validate, replace(SCHEDULE, checkpoint_seconds=0.0), seed=1, checkpoint=Path({str(tmp_path / 'c')!r}), label='t')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.time() + 60
    while not (tmp_path / "c").exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "c").exists()
    network, draw, loss, validate = problem()
    seen = []
    fit(
        network,
        lambda s: (seen.append(s), draw(s))[1],
        loss,
        validate,
        SCHEDULE,
        seed=1,
        checkpoint=tmp_path / "c",
        label="t",
    )
    assert seen[0] > 0 and seen[-1] == 59
    whole, _ = run(tmp_path / "whole")
    assert torch.equal(whole[1].weight, network[1].weight)


def test_the_gate_stops_a_model_that_does_not_beat_the_mean_shape(tmp_path):
    with pytest.raises(ReplicateError, match=r"does not beat the mean shape's 0\.00 after 60 steps"):
        run(tmp_path, must_beat=0.0)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    network, draw, _, validate = problem()
    with pytest.raises(ReplicateError, match="the loss is nan at step 0"):
        fit(
            network,
            draw,
            lambda x: network(x).sum() * math.nan,
            validate,
            SCHEDULE,
            seed=0,
            checkpoint=tmp_path / "c",
            label="t",
        )


def test_step_size_rises_then_falls_to_zero():
    sizes = [SCHEDULE.step_size_at(step) for step in range(SCHEDULE.steps)]
    assert max(sizes) == pytest.approx(0.05) and sizes.index(max(sizes)) in (2, 3)
    assert sizes[0] == pytest.approx(0.05 / 3) and 0 < sizes[-1] < 1e-4
    assert {replace(SCHEDULE, decay=False).step_size_at(step) for step in range(60)} == {0.05}


def test_frozen_parameters_stay(tmp_path):
    network, *parts = problem()
    network[1].bias.requires_grad_(False)
    before = network[1].bias.clone()
    fit(network, *parts, SCHEDULE, seed=0, checkpoint=tmp_path / "c", label="t")
    assert torch.equal(network[1].bias, before)
