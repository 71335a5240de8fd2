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
    "dan.inference32",
    "dan.sequential",
    "dan.connection",
    "dan.training",
    "ect.tuning",
    "ect.inference",
    "ect.pipeline",
    "lddr.descriptors",
    "lddr.ridge",
    "tcnn.heads",
    "tcnn.clusters",
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


def test_the_operations_of_the_large_product_are_counted(monkeypatch):
    monkeypatch.setitem(machine.SIDE, "cpu", 16)
    work, operations = machine.matrix_product(torch.float32, torch.device("cpu"))
    assert operations == machine.operations(work) == 2 * 16**3


@pytest.fixture
def small_dan(monkeypatch):
    """The benchmarks of DAN with four faces, one device and a clock that has not to be waited for."""
    from replicate.bench import dan

    def once(work, count, seconds=2.0):
        began = time.perf_counter()
        work()
        return count / (time.perf_counter() - began)

    monkeypatch.setattr(dan, "FACES", 4)
    monkeypatch.setattr(dan, "BATCH", 2)
    monkeypatch.setattr(dan, "choose_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(dan, "rate", once)
    monkeypatch.setattr(dan, "peak", lambda dtype, device: 1e12 if dtype == torch.float32 else 4e12)
    return dan


@pytest.mark.parametrize(("dtype", "pixels"), [(torch.bfloat16, 0.5), (torch.float32, 0.05)])
def test_the_plain_dan_is_the_same_network_as_the_fast_one(small_dan, dtype, pixels):
    """Pixels by which points may differ: bfloat16 has 8 bits, and float32 keeps the weights that were rounded to them."""
    plain, fast, crops = small_dan._two_stages(dtype)
    assert fast.stages[0].convolutions[0].weight.dtype == dtype
    with torch.inference_mode():
        shapes = fast(crops) if dtype == torch.bfloat16 else small_dan.plain_forward(fast, crops)
        for one, other in zip(shapes, small_dan.plain_forward(plain, crops), strict=True):
            assert (one - other).norm(dim=-1).mean() < pixels
            assert one.std() > 1  # and the comparison is not of zeros


@pytest.mark.parametrize(("name", "peak"), [("inference", 4e12), ("inference32", 1e12)])
def test_the_limit_of_inference_is_that_of_its_numbers(small_dan, name, peak):
    found = getattr(small_dan, name)()
    # a stage of width 64 has 2.5 giga-multiplications, counted by hand from Table 1
    assert found.limit == pytest.approx(peak / _operations_by_hand(64, 256), rel=0.01)
    assert found.value > 0 and found.peer_value > 0


def _operations_by_hand(width, hidden):
    """Two operations for each weight and place, of two stages and a connection."""
    side, entering, total = 112, (1, 3), 0
    for channels in entering:
        for level in range(4):
            out = width * 2**level
            total += (side // 2**level) ** 2 * 9 * (channels * out + out * out)
            channels = out
        total += 7 * 7 * 8 * width * hidden + hidden * 136
    return 2 * (total + hidden * 56**2)


def test_faces_one_by_one_stand_beside_batches(small_dan, monkeypatch):
    monkeypatch.setattr(small_dan, "_rate", lambda forward, crops, batch=2: {1: 45.0, 2: 73.0}[batch])
    found = small_dan.sequential()
    assert found.ratio == pytest.approx(45 / 73) and "paper's ratio is 0.62" in found.measures


def test_the_connection_is_a_small_part_of_the_forward_pass(small_dan):
    found = small_dan.connection()
    assert f"{1 / found.ratio:.1%} of a forward pass" in found.measures
    assert found.ratio > 3  # of the aim, more than six; a busy machine is no failure


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
