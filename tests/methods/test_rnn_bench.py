"""RNN's benchmarks time forms that compute the same."""

from dataclasses import replace

import pytest
import torch

from replicate.bench import rnn as bench
from replicate.methods import rnn
from replicate.methods.rnn import RNNConfig

SMALL = RNNConfig("VGG-S", width=1 / 16, scale=1 / 8, rank=4, steps=2)
CPU = torch.device("cpu")


@pytest.mark.parametrize("radius", [0, 2])
def test_both_forms_of_pooling_send_back_the_same_gradient(radius):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 12, 12).to(memory_format=torch.channels_last)
    shapes = [11 * torch.rand(2, 5, 2) for _ in range(3)]
    found = bench.pooled_at_once(maps, shapes, radius)
    assert found.sum() == 2 * 5 * 3 * 3  # one for every landmark, channel and step of every face
    torch.testing.assert_close(found, bench.pooled_in_a_loop(maps, shapes, radius))


def test_the_plain_forms_compute_what_the_fast_ones_do():
    made = bench.network(SMALL, CPU)
    crops, points = torch.rand(2, 3, 32, 32), 31 * torch.rand(2, bench.LANDMARKS, 2)
    fast, plain = (form(made, crops, points).item() for form in (rnn.loss, bench.plain_loss))
    assert fast == pytest.approx(plain, rel=1e-4)
    quick = rnn.for_inference(made.eval())
    moved = (bench._predict(quick, crops) - bench._predict_plainly(made, crops)).norm(dim=-1)
    assert moved.median() < 1.0  # a pixel; where two peaks are alike, rounding may choose another start


@pytest.mark.parametrize("name", ["sip", "inference", "training"])
def test_each_benchmark_has_a_peer_and_says_what_it_times(name, monkeypatch):
    monkeypatch.setattr(bench, "RNNConfig", lambda: SMALL)
    monkeypatch.setattr(bench, "CONFIGS", {"cpu": replace(SMALL)})
    monkeypatch.setattr(bench, "FACES", 1)
    monkeypatch.setattr(bench, "BATCH", 2)
    monkeypatch.setattr(bench, "rate", lambda work, count: count / (1 + 0 * (work() is None)))
    monkeypatch.setattr(bench, "peak", lambda *_: 1e9)
    found = getattr(bench, name)()
    assert found.unit == "faces/s" and found.value == found.peer_value and found.measures
