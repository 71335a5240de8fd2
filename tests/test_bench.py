"""The benchmark runner: its registry, its rows and what the derived numbers mean."""

import time

import pytest
import torch

from replicate import bench
from replicate.bench import Measurement, machine
from replicate.errors import ReplicateError

PROMISED = [
    "faces.generate",
    "faces.protocols",
    "faces.read",
    "faces.open",
    "faces.augment",
    "dan.inference",
    "dan.training",
    "ect.tuning",
    "ect.inference",
    "lddr.descriptors",
    "lddr.ridge",
    "tcnn.heads",
    "tcnn.inference",
    "rnn.sip",
    "rnn.inference",
    "rnn.training",
]


def test_all_promised_benchmarks_have_their_names():
    assert set(PROMISED) <= set(bench.REGISTRY)
    assert bench.select([]) == list(bench.REGISTRY) and bench.select(["dan.training"]) == ["dan.training"]


def test_an_unknown_name_is_an_error_with_the_nearest():
    with pytest.raises(ReplicateError, match="Did you mean 'dan.inference'"):
        bench.select(["dan.inferense"])


def test_ratio_and_fraction_are_those_of_the_rates():
    found = Measurement("m", 80.0, "faces/s", "naive", 20.0, 400.0)
    assert found.ratio == 4.0 and found.fraction_of_limit == 0.2
    assert (
        Measurement("m", 80.0, "faces/s").ratio is None
        and Measurement("m", None, "", "p", 1.0, 1.0).ratio is None
    )


def test_a_row_has_the_agreed_keys(monkeypatch):
    monkeypatch.setitem(bench.REGISTRY, "small", ("machine", "small"))
    monkeypatch.setattr(machine, "small", lambda: Measurement("m", 2.0, "1/s", "p", 1.0, 4.0), raising=False)
    row = bench.measure("small")
    assert tuple(row) == bench.KEYS
    assert (row["name"], row["ratio"], row["fraction_of_limit"]) == ("small", 2.0, 0.5)


def test_a_benchmark_whose_method_is_absent_says_so(monkeypatch):
    monkeypatch.setitem(bench.REGISTRY, "xyz.speed", ("xyz", "speed"))
    row = bench.measure("xyz.speed")
    assert row["value"] is None and row["measures"].startswith("absent: there is no XYZ")


def test_a_rate_is_count_over_time():
    assert machine.rate(lambda: time.sleep(0.02), 3, seconds=0.1) == pytest.approx(150, rel=0.25)


def test_operations_count_two_per_multiply_and_add():
    left, right = torch.ones(4, 5), torch.ones(5, 6)
    assert machine.operations(lambda: left @ right) == 2 * 4 * 5 * 6


def test_the_plain_dan_is_the_same_network_as_the_fast_one():
    from replicate.bench import dan
    from replicate.methods.dan import for_inference

    network, samples = dan._network(stages=2)
    crops = samples.canvases.crops(torch.arange(4))
    with torch.inference_mode():
        fast, plain = for_inference(network)(crops), dan.plain_forward(network.eval(), crops)
    for one, other in zip(fast, plain, strict=True):
        assert (one - other).norm(dim=-1).mean() < 0.5  # pixels; bfloat16 has 8 bits
        assert one.std() > 1  # and the comparison is not of zeros


def test_the_plain_crops_are_those_that_the_batched_augmentation_makes(monkeypatch):
    from replicate.bench import dan as dan_bench
    from replicate.bench import faces
    from replicate.faces.perturbations import NormalPerturbation

    monkeypatch.setattr(dan_bench, "FACES", 4)
    made = dan_bench.faces()
    mean = torch.as_tensor(made.points).mean(0)
    samples = faces.Samples(
        made, mean, faces.dan.DANConfig().frame, NormalPerturbation(0.05, 10.0, 0.1), 4, seed=0
    )
    moves = samples.perturbation.sample(4, samples.canvases.frame, torch.Generator().manual_seed(0))
    mirrored = torch.tensor([False, True, False, True])
    crops, _ = samples.framed.augmented(torch.arange(4), moves, mirrored)
    plain = torch.stack([torch.from_numpy(crop.copy()) for crop in faces._one_by_one(made, samples)])
    assert (plain - crops[:, 0]).abs().mean() < 0.03 and crops.std() > 0.1


def test_the_store_that_is_read_holds_different_faces_many_times(monkeypatch, tmp_path):
    from replicate.bench import faces

    monkeypatch.setattr(faces, "STORED", 6)
    monkeypatch.setattr(faces, "DIFFERENT", 2)
    images = faces._store(tmp_path / "store").images
    assert len(images) == 6 and images.batch([0, 2, 4]).shape == (3, 256, 256, 3)
    assert (images[0] == images[4]).all() and (images[0] != images[1]).any()


def test_the_share_of_the_protocols_stands_for_all_of_their_faces(monkeypatch):
    from replicate.bench import faces
    from replicate.faces.protocols import PROTOCOLS

    asked = []

    def seconds_a_face(split, count):
        asked.append((split, count))
        return 0.01

    monkeypatch.setattr(faces, "_seconds_a_face", seconds_a_face)
    made = faces.protocols()
    total = sum(count for _, count in asked)
    assert made.value == pytest.approx(100) and f"{total:,} faces" in made.measures
    assert f"{total / 6000:.1f} minutes" in made.measures
    own = [split for about in PROTOCOLS.values() for split in about.splits.values() if split.real]
    assert [split for split, _ in asked] == own
