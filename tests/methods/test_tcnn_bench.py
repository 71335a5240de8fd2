"""The benchmarks of TCNN: the plain form trains what the fast one trains, limits are those of the operations, ratios those of the clocks."""

import time
from dataclasses import replace

import pytest
import torch

from replicate.bench import tcnn as bench
from replicate.evidence import timings
from replicate.methods import tcnn, tcnn_heads
from replicate.methods.tcnn import LEVELS, TCNNConfig

torch.set_num_threads(1)
CPU = torch.device("cpu")
WEIGHTS = 256 * 100 + 100 * 10


@pytest.fixture
def small(monkeypatch):
    """Few heads and images, one device and little time."""

    def once(work, count, seconds=2.0):
        began = time.perf_counter()
        work()
        return count / (time.perf_counter() - began)

    for name, value in (("HEADS", 4), ("IMAGES", 120), ("VALIDATION", 5), ("FACES", 60), ("BATCH", 16)):
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(bench, "choose_device", lambda name: CPU)
    monkeypatch.setattr(bench, "rate", once)
    monkeypatch.setattr(bench, "peak", lambda dtype, device: 4e12 if dtype == torch.bfloat16 else 1e12)
    return monkeypatch


def test_the_plain_network_is_the_fast_one():
    made, crops = bench.network(CPU), bench.crops_like_faces(20)
    plain = bench.plain_shapes(made, crops)
    assert (plain - made(crops)).abs().max() < 0.5 and plain.std() > 3  # pixels; bfloat16


def test_crops_and_shapes_are_like_those_of_faces():
    crops, shapes = bench.crops_like_faces(200), bench.shapes_like_faces(200)
    assert crops.shape == (200, 3, 40, 40) and crops.min() >= 0 and crops.max() <= 1
    assert 0.05 < crops.std(0).mean() < 0.3
    assert (shapes > 0).all() and (shapes < 39).all()
    assert tcnn.loss(shapes.mean(0), shapes).mean() < 0.2
    features = bench.features_of(bench.network(CPU), crops)
    assert features.std(0).median() > 0.02 and features.max() <= 1


def test_all_forms_train_the_same_head(small, tmp_path):
    """With the same batches: alone, as one of several, and in the plain form."""
    made, one = bench.network(CPU), bench.cluster_of(120, 5, CPU)
    kept = bench.kept_of(made, one)
    order = torch.arange(120).reshape(2, 60).contiguous()

    def batches(sizes, batch, generator):
        index = torch.stack([order + 120 * k for k in range(len(sizes))], 1)
        return tcnn_heads.Batches(index, torch.ones(index.shape, dtype=torch.bool))

    small.setattr(tcnn_heads, "epoch_batches", batches)
    configs = [replace(TCNNConfig(), clusters=count) for count in (1, 4)]
    alone, together = (bench.tune(made, one, kept, config, tmp_path) for config in configs)
    plain = bench.tune_plainly(made, one, configs[0], iter(order))
    moved = (plain.fc5.weight - made.fc5.weight).detach()
    assert moved.abs().max().item() == pytest.approx(2 * TCNNConfig().step_size, rel=0.1)  # two steps of Adam
    for heads in (alone, together):
        for weights in heads.weights["fc5"]:
            assert ((weights.T - plain.fc5.weight).norm() / moved.norm()) < 0.3  # bfloat16
    assert torch.equal(plain.cl4.weight, made.cl4.weight) and not made.fc5.weight.requires_grad


def test_an_order_has_every_image_once():
    order = list(bench.orders(25, 10))
    assert [len(part) for part in order] == [10, 10, 5]
    assert sorted(torch.cat(order).tolist()) == list(range(25))


def test_the_limit_of_heads_is_that_of_their_operations(small):
    """A forward pass has two operations a weight, the gradients of weights as many, those of features only those of FC6; validated twice."""
    found = bench.heads()
    by_hand = 120 * (2 * 2 * WEIGHTS + 2 * 1000) + 2 * 5 * 2 * WEIGHTS
    assert found.limit == pytest.approx(4e12 / by_hand, rel=0.01)
    assert found.unit == "heads/s" and found.ratio > 3  # far more on a free machine
    assert "4 heads, 120 images each in batches of 100" in found.measures
    told = float(found.measures.split("layers")[0].split("heads take ")[1].split(" s together")[0])
    assert told == pytest.approx(4 / found.value, rel=0.01)


def test_the_limit_of_inference_is_that_of_its_operations(small):
    small.setattr(timings, "alternate", lambda ways, count, rounds: torch.tensor([[80.0], [100.0]]).numpy())
    found = bench.inference()
    convolutions = 36**2 * 75 * 16 + 16**2 * 144 * 48 + 6**2 * 432 * 64 + 2**2 * 256 * 64
    assert found.limit == pytest.approx(4e12 / (2 * 2 * (convolutions + WEIGHTS)), rel=0.01)
    assert found.ratio == pytest.approx(0.8) and "1.25 times as long as its vanilla network" in found.measures
    assert "TCNN of 48 heads" in found.measures


def test_a_tweaked_network_of_copies_says_what_the_vanilla_one_says():
    made, crops = bench.network(CPU), bench.crops_like_faces(80)
    model = bench.tweaked(made, crops, 6)
    assert len(model.mixture) == len(model.heads) == 6
    assert len(model.mixture.assign(made.features(crops)).unique()) > 2
    assert (tcnn.predict(model, crops) - tcnn.predict(made, crops)).abs().max() < 1e-3


def test_clusters_of_all_layers_are_timed(small):
    asked = []

    def here(work, *arguments):
        asked.append(arguments)
        return work(*arguments)

    small.setattr(bench, "in_a_process_of_its_own", here)
    found = bench.clusters()
    assert asked == [(60, 4, "GMM", 1), (60, 4, "k-means", 1)]
    assert all(f"{level} " in found.measures for level in LEVELS)
    assert "64 components" not in found.measures and "4 components by EM" in found.measures
    assert found.value > 0 and found.ratio > 0


def test_memory_is_that_of_the_process():
    before = bench._most_memory()
    held = torch.ones(2**26)  # a quarter of a GiB
    assert 0.05 < before < bench._most_memory() + 1e-9 and held.sum() > 0
    assert bench._most_memory() > 0.25
