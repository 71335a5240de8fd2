"""The benchmarks of LDDR: the slow forms compute what the fast ones do, and the limits are those of the operations."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from replicate import regression
from replicate.bench import lddr as bench
from replicate.methods.lddr import CHANNELS, CONFIGS, STAGES, DeepFeatures, DescriptorConfig, LDDRConfig

torch.set_num_threads(1)
WIDTH = 1 / 16
SMALL = DescriptorConfig(width=WIDTH)


@pytest.fixture
def small(monkeypatch):
    """A narrow network, few faces, one device and little time."""

    def once(work, count, seconds=2.0):
        began = time.perf_counter()
        work()
        return count / (time.perf_counter() - began)

    for name, value in (("FACES", 2), ("FITTED_FACES", 3), ("STARTS", 2)):
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(bench, "LDDRConfig", lambda **changes: replace(LDDRConfig(**changes), network=SMALL))
    monkeypatch.setitem(bench.CONFIGS, "cpu", replace(CONFIGS["cpu"], network=SMALL, penalty=10.0))
    monkeypatch.setattr(bench, "choose_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(bench, "rate", once)
    monkeypatch.setattr(bench, "peak", lambda dtype, device: 4e12 if dtype == torch.bfloat16 else 1e12)


def network():
    return bench._network(WIDTH, torch.device("cpu"))


def patches_of(count=2, starts=1):
    """Of faces whose landmarks lie up to the border of their crops."""
    patches, missing = bench.patches_of(LDDRConfig(augmentation="none"), count, starts, torch.device("cpu"))
    patches.points[0, :4] = torch.tensor([[-4.0, 6.4], [0, 0], [319, 300], [330.5, 318]])
    return patches, missing


@pytest.mark.parametrize("form", STAGES)
def test_patches_one_by_one_have_the_descriptors_of_all_at_once(form):
    (patches, _), (plain, _) = patches_of(), network()
    expected = bench.PlainFeatures(plain)(*patches, form)
    assert expected.shape == (2, 68 * CHANNELS) and expected.dtype == torch.float32
    found = DeepFeatures(plain, torch.float32)(*patches, form)
    assert (found - expected).abs().max() < 1e-4 * expected.std() and expected.std() > 1
    rounded = DeepFeatures(plain)(*patches, form).float()
    assert (rounded - expected).abs().mean() < 0.02 * expected.std()


def test_a_network_that_is_built_anew_is_the_same():
    plain, weights = network()
    again = bench.build(weights, WIDTH, torch.device("cpu"))
    assert all(map(torch.equal, plain.state_dict().values(), again.state_dict().values()))


def test_samples_are_shapes_of_other_faces_on_each_crop_and_what_they_lack():
    config = LDDRConfig()
    patches, missing = bench.patches_of(config, 3, 2, torch.device("cpu"))
    assert patches.crops.shape == (6, 320, 320, 3) and patches.points.shape == (6, 2 * 68, 2)
    assert missing.shape == (12, 136)
    truth = patches.points.view(6, 2, 68, 2) + 224 * missing.view(6, 2, 68, 2)
    assert (truth[:, 0] - truth[:, 1]).abs().max() < 1e-3  # both starts lack what leads to one shape
    assert (truth[1] - truth[0]).abs().mean() > 1 and missing.abs().max() > 0.01
    assert (patches.points.view(6, 2, 68, 2)[1, 0] - truth[0, 0]).abs().max() < 1e-3  # another face's shape


def test_the_limit_of_descriptors_is_that_of_their_operations(small):
    found = bench.descriptors()
    assert found.limit == pytest.approx(4e12 / _operations_by_hand(WIDTH), rel=1e-6)
    assert found.value > 0 and found.peer_value > 0 and found.unit == "faces/s"
    assert found.ratio > 2  # far more on a free machine
    anew = float(found.measures.split("the slow form makes ")[1].split(" faces/s")[0])
    assert anew < found.peer_value
    assert "4 stages, 68 landmarks, width 0.0625, 2 faces" in found.measures


def _operations_by_hand(width):
    """Two for each weight and place, of 68 patches at the four stages of Table 1; conv2, conv4 and conv5 have two groups."""
    c1, c2, c3 = (round(channels * width) for channels in (96, 256, 384))
    places = [(21, 7, 5, 3), (20, 7, 5, 3), (16, 12, 5, 3), (11, 7, 5, 3)]  # sides of conv1 to conv4
    weights = [121 * 3 * c1, 25 * c1 * c2 // 2, 9 * c2 * c3, 9 * c3 * c3 // 2]
    last = 9 * c3 * CHANNELS // 2
    return (
        68 * 2 * sum(last + sum(s * s * w for s, w in zip(sides, weights, strict=True)) for sides in places)
    )


def test_liblinear_with_samples_that_are_kept_finds_what_it_finds_with_new_ones():
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(12, 30, generator=generator)
    features[:, 25:] = 0  # features that are zero everywhere count all the same
    targets = torch.randn(12, 3, generator=generator)
    tight, usual = (
        regression.Liblinear(features.double().numpy(), 1.0, tolerance) for tolerance in (bench.TIGHT, 1e-3)
    )
    expected = regression.ridge(features.double(), targets.double(), 0.5, bias=False).weights
    for output in (2, 0, 1):
        found = tight.weights(targets[:, output].double().numpy())
        assert found.shape == (30,)
        np.testing.assert_allclose(found, expected[:, output], atol=1e-7)
        assert bench.distance(expected[:, output], found) < 1e-6
    rough = usual.weights(targets[:, 0].double().numpy())
    assert 1e-6 < bench.distance(rough, expected[:, 0].numpy()) < 0.1  # LIBLINEAR's own tolerance


def test_distances_are_shares_of_a_length():
    assert bench.distance(torch.tensor([3.0, 4.5]), np.array([3.0, 4.0])) == pytest.approx(0.1)


def test_the_regression_is_measured_on_descriptors(small):
    found = bench.ridge()
    assert "12 samples, 17408 features, 136 outputs" in found.measures and found.unit == "outputs/s"
    products = 12 * 12 * 17408 + 12**3 / 3 + 2 * 12 * 12 * 136 + 2 * 12 * 17408 * 136
    assert found.limit == pytest.approx(136 * 1e12 / products, rel=1e-6)
    assert found.ratio > 3
    told = found.measures.split("length, those of float64 by ")[1]
    assert float(told.split(",")[0]) < 1e-4  # as near as LIBLINEAR comes with so few samples
