"""The benchmarks of ECT: the slow forms compute what the fast ones do, and the limit is that of the paper's layers."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from replicate.bench import ect as bench
from replicate.methods import ect_fitting
from replicate.methods.ect import ECTConfig, for_inference

torch.set_num_threads(1)
SMALL = replace(ECTConfig(), width=1 / 16, input_size=64, components=5)


@pytest.fixture
def small(monkeypatch):
    """Few faces, a small frame, one device and little time."""

    def briefly(work, count, seconds=2.0):
        times = []
        for _ in range(3):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return count / min(times)

    for name, value in (("SHAPES", 8), ("FACES", 3), ("PLAIN_FACES", 1)):
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(bench, "ECTConfig", lambda: SMALL)
    monkeypatch.setattr(bench, "choose_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(bench, "rate", briefly)
    monkeypatch.setattr(bench, "peak", lambda dtype, device: 4e12)


def test_the_slow_form_fits_what_the_batched_one_does(small):
    pdm, maps = bench._fitting_problem(SMALL)
    start = ect_fitting.peaks(maps)
    fitted = ect_fitting.refine(maps, start, pdm, SMALL)
    for face in range(3):
        slow = bench.plain_refine(maps[face].numpy(), start[face].double().numpy(), pdm, SMALL)
        assert np.abs(fitted.shapes[-1][face].numpy() - slow).max() < 1e-4
    assert (fitted.shapes[-1] - start).norm(dim=-1).max() > 5 and fitted.confidence.std() > 0.1


def test_tuning_is_measured_beside_the_slow_form(small):
    found = bench.tuning()
    assert found.ratio > 3 and found.unit == "faces/s"  # of many more, with more faces at a time
    assert "5 iterations" in found.measures and "68 landmarks, 5 components" in found.measures


def network_and_crops(count=2):
    return bench.network_and_crops(SMALL, count, torch.device("cpu"))


def test_the_plain_network_gives_the_same_maps_as_the_fast_one(small):
    plain, crops = network_and_crops()
    with torch.inference_mode():
        expected, found = bench.plain_forward(plain, crops), bench.response_maps(for_inference(plain), crops)
    assert found.shape == (2, 68, 64, 64)
    assert (found - expected).abs().max() < 0.06 * expected.std() and expected.std() > 1e-4


def test_the_limit_of_inference_is_that_of_its_numbers(small):
    found = bench.inference()
    assert found.limit == pytest.approx(4e12 / _operations_by_hand(1 / 16, 64), rel=1e-6)
    assert found.value > 0 and found.peer_value > 0


def test_the_slow_pipeline_finds_the_points_of_the_whole_method(small):
    plain, crops = network_and_crops()
    pdm, _ = bench.shape_model(SMALL)
    with torch.inference_mode():
        maps = bench.plain_forward(plain, crops)
        expected = ect_fitting.refine(maps, ect_fitting.peaks(maps), pdm, SMALL).shapes[-1]
        assert np.abs(bench.plain_pipeline(plain, pdm, crops) - expected.numpy()).max() < 0.01


def test_the_parts_together_are_the_method(small):
    plain, crops = network_and_crops()
    pdm, _ = bench.shape_model(SMALL)
    fast = for_inference(plain)
    with torch.inference_mode():
        parts = bench.parts_of(fast, pdm, crops)
        maps = parts["maps"]()
        assert torch.equal(maps, bench.response_maps(fast, crops))
        assert torch.equal(parts["peaks"](), ect_fitting.peaks(maps))
        assert len(parts["correction"]().shapes) == 1 and len(parts["correction and tuning"]().shapes) == 6


def test_steps_add_up_to_the_whole(small):
    times = {"maps": 30.0, "peaks": 1.0, "correction": 4.0, "correction and tuning": 79.0}
    steps = bench.step_times(times)
    assert steps == {"maps": 30.0, "peaks": 1.0, "correction": 4.0, "tuning": 75.0}


def test_the_pipeline_is_as_fast_as_its_steps_together(small, monkeypatch):
    seconds = iter([0.6, 0.1, 0.1, 0.3])  # of the parts, for two faces
    monkeypatch.setattr(bench, "rate", lambda work, count, seconds_=2.0: count / next(seconds, 4.0))
    found = bench.pipeline()
    assert found.value == pytest.approx(2 / 1.0)
    assert found.peer_value == pytest.approx(1 / 4.0) and found.ratio == pytest.approx(8)
    for share in ("maps 60.0%", "peaks 10.0%", "correction 10.0%", "tuning 20.0%"):
        assert share in found.measures


def _operations_by_hand(width, side):
    """Two for each weight and place: Fig. 2."""
    c = [round(channels * width) for channels in (128, 256, 512, 64)]
    first, second, third = 3 * c[0] * 25, c[0] * c[0] * 25, c[0] * c[0] * 25
    context = 4 * 9 * (c[0] * c[0] + 4 * c[0] * c[1]) + 4 * c[1] * c[2] + c[2] * c[1]
    fusion = 3 * 9 * (c[0] + c[1]) * c[3] + (3 * 9 + 25) * (3 * c[3] * c[3] + 4 * c[3] * c[0])
    last = 4 * c[0] * c[1] + c[1] * 68
    small = (side // 4) ** 2
    return 2 * (side**2 * first + (side // 2) ** 2 * second + small * (third + context + fusion + last))
