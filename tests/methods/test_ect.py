"""The estimation of ECT against the paper: layers and counts of Fig. 2, ideal response maps, Eq. 10, inference."""

import contextlib
import csv
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from replicate.errors import ReplicateError
from replicate.evidence import ambiguities
from replicate.methods import ect
from replicate.methods.ect import CONFIGS, FCN, ECTConfig
from replicate.paths import published_dir

torch.set_num_threads(1)
PAPER, SMALL = ECTConfig(), CONFIGS["smoke", "synthetic"]
TINY = replace(SMALL, width=1 / 64, input_size=32)


def network(config=SMALL, points=5, seed=0):
    torch.manual_seed(seed)
    return FCN(config, points)


def count(config):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in FCN(config, 68).parameters())


def published(**wanted):
    with open(published_dir() / "values" / "ect.csv", newline="", encoding="utf-8") as file:
        (row,) = (row for row in csv.DictReader(file) if wanted.items() <= row.items())
    return row


# Fig. 2


def test_full_width_has_the_published_number_of_parameters():
    row = published(metric="FCN parameters (68 points)")
    assert count(PAPER) == int(row["value"]) and round(count(PAPER) / 1e6, 2) == 9.97
    for network, words in (("truncated", "PrimaryNet {:,}"), ("spatial fusion", "has {:,}")):
        assert words.format(count(replace(PAPER, network=network))) in row["note"]


def test_the_truncated_network_has_30_per_cent_fewer_parameters():
    stated = float(published(artefact="ECT-F10a", metric="parameter reduction")["value"])
    fewer = 100 * (1 - count(replace(PAPER, network="truncated")) / count(PAPER))
    assert fewer == pytest.approx(stated, abs=2)


def test_the_model_it_replaces_is_about_twice_as_large():
    assert count(replace(PAPER, network="spatial fusion")) / count(PAPER) == pytest.approx(2, abs=0.3)


def test_layers_are_those_of_fig_2():
    with torch.device("meta"):
        made = FCN(PAPER, 68)
    found = [
        [(b.out_channels, b.kernel_size[0], b.dilation[0]) for b in layer.branches]
        for layer in (*made.stem, *made.context, *made.fusion)
    ]
    assert found == [
        *[[(128, 5, 1)]] * 3,
        [(128, 3, d) for d in (1, 2, 3, 4)],
        [(256, 3, d) for d in (1, 2, 3, 4)],
        [(512, 1, 1)],
        [(256, 1, 1)],
        [(64, 3, d) for d in (1, 2, 3)],
        [(64, 3, 1), (64, 3, 2), (64, 3, 4), (64, 5, 3)],
        [(128, 3, 1), (128, 3, 2), (128, 3, 4), (128, 5, 3)],
        [(256, 1, 1)],
    ]


@pytest.mark.parametrize("name", ect.NETWORKS)
def test_maps_come_out_wherever_a_loss_is_taken(name):
    maps = network(replace(SMALL, network=name))(torch.rand(2, 3, 64, 64))
    assert [found.shape for found in maps] == [(2, 5, 16, 16)] * (1 if name == "truncated" else 2)
    assert all(found.is_contiguous() and found.dtype == torch.float32 for found in maps)
    assert ect.upsampled(maps[-1]).shape == (2, 5, 64, 64)


def test_the_upsampled_maps_are_those_of_a_bilinear_deconvolution():
    small = torch.randn(1, 5, 16, 16)
    weights = 1 - (torch.arange(8) - 3.5).abs() / 4
    kernel = (weights[:, None] * weights).expand(5, 1, 8, 8)
    expected = functional.conv_transpose2d(small, kernel, stride=4, padding=2, groups=5)
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(ect.upsampled(small)[inside], expected[inside], atol=1e-5, rtol=1e-4)


def test_negative_responses_are_possible():
    """Fig. 2: ReLU after each convolution but the last of each subnet."""
    maps = network()(torch.rand(1, 3, 64, 64))
    assert all(found.amin() < 0 < found.amax() for found in maps)


# §III-B Ideal response maps


def test_an_ideal_map_is_a_gaussian_around_its_point():
    config = replace(PAPER, input_size=64, sigma=8.0)  # sigma is 2 pixels of this input
    maps = ect.target_maps(torch.tensor([[[20.25, 31.5]]]), config)[0, 0]
    for x, y in ((20, 31), (18, 30), (25, 36)):
        expected = config.peak * math.exp(-((x - 20.25) ** 2 + (y - 31.5) ** 2) / 8)
        assert maps[y, x].item() == pytest.approx(expected, rel=1e-4)
    assert maps.sum().item() == pytest.approx(config.peak * 2 * math.pi * 4, rel=1e-5)


def test_a_small_map_has_its_pixels_in_the_middle_of_those_it_stands_for():
    maps = ect.target_maps(torch.tensor([[[4 * 7 + 1.5, 4 * 3 + 1.5]]]), SMALL, stride=4)[0, 0]
    assert maps.shape == (16, 16) and maps[3, 7].item() == pytest.approx(SMALL.peak)
    assert maps[3, 6].item() == pytest.approx(maps[3, 8].item())


def test_an_invisible_point_has_an_empty_map():
    points = torch.full((1, 2, 2), 30.0)
    points[0, 1] = torch.nan
    maps = ect.target_maps(points, SMALL)
    assert maps[0, 0].max() > 1 and (maps[0, 1] == 0).all()


# Eq. 10


@pytest.mark.parametrize(("name", "places"), [("dilated", 3), ("truncated", 2)])
def test_empty_maps_cost_1_at_each_place_and_ideal_ones_nearly_nothing(name, places):
    config = replace(SMALL, network=name, sigma=20.0)  # of which a quarter, and a sixteenth in small maps
    points = 25 + 14 * torch.rand(2, 5, 2)
    maps = network(config)(torch.rand(2, 3, 64, 64))
    empty = [torch.zeros_like(found) for found in maps]
    ideal = [ect.target_maps(points, config, 4) for _ in maps]
    assert ect.loss(empty, points, config).item() == pytest.approx(places, rel=1e-3)
    assert 0 < ect.loss(ideal, points, config) < 0.03  # enlarged between its pixels, a map is not quite ideal
    points[0, :] = torch.nan  # of ten maps, five should be empty now
    assert ect.loss(empty, points, config).item() == pytest.approx(places / 2, rel=1e-3)
    assert ect.loss(ideal, points, config).item() == pytest.approx(places / 2, rel=0.05)


def test_the_loss_is_that_of_all_maps_pixel_by_pixel():
    """Also beyond the borders, and for points that are not annotated."""
    torch.manual_seed(0)
    points = 80 * torch.rand(3, 5, 2).double() - 8
    points[1, 2] = torch.nan
    maps = [torch.randn(3, 5, 16, 16).double().requires_grad_() for _ in range(2)]
    response, places = ect.upsampled(maps[-1]), ((maps[0], 4), (maps[1], 4))
    energy = math.pi * (SMALL.sigma * SMALL.unit * SMALL.peak) ** 2
    expected = (response - ect.target_maps(points, SMALL)).square().sum() / energy
    for found, stride in places:
        expected = (
            expected + (found - ect.target_maps(points, SMALL, stride)).square().sum() * stride**2 / energy
        )
    found = ect.loss(maps, points, SMALL)
    torch.testing.assert_close(found, expected / 15)
    slopes = [torch.autograd.grad(cost, maps, retain_graph=True) for cost in (found, expected / 15)]
    for ours, direct in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, direct)


def test_the_gradient_is_that_of_finite_differences():
    model = network(TINY, points=2).double()
    crops, points = torch.rand(1, 3, 32, 32).double(), torch.tensor([[[10.0, 12.0], [20.0, 15.0]]]).double()

    def cost():
        return ect.loss(model(crops), points, TINY)

    cost().backward()
    parameters = list(model.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in parameters)
    direction = [torch.randn_like(parameter) for parameter in parameters]
    slope = sum((parameter.grad * d).sum() for parameter, d in zip(parameters, direction, strict=True))
    values = []
    with torch.no_grad():
        for size in (1e-6, -2e-6):
            for parameter, d in zip(parameters, direction, strict=True):
                parameter += size * d
            values.append(cost())
    assert abs(slope) > 1e-3
    assert ((values[0] - values[1]) / 2e-6).item() == pytest.approx(slope.item(), rel=1e-4)


@pytest.mark.parametrize("width", [1 / 8, 1 / 4])
def test_gradients_in_bfloat16_are_close_to_those_in_full_precision(width, monkeypatch):
    """At 1/8, a layer that dilates reads 24 channels, of which the processor's bfloat16 kernels make NaN, or a crash."""
    config = replace(SMALL, width=width)
    model, crops, points = network(config), torch.rand(4, 3, 64, 64), 16 + 32 * torch.rand(4, 5, 2)
    model.to(memory_format=torch.channels_last)
    found = torch.autograd.grad(ect.loss(model(crops), points, config), list(model.parameters()))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    expected = torch.autograd.grad(ect.loss(model(crops), points, config), list(model.parameters()))
    for ours, exact in zip(found, expected, strict=True):
        assert (ours - exact).norm() < 0.3 * exact.norm()


def test_no_layer_of_the_published_or_of_the_small_network_must_leave_bfloat16():
    for name in ect.NETWORKS:
        for config in (PAPER, CONFIGS["cpu", "synthetic"]):
            with torch.device("meta"):
                made = FCN(replace(config, network=name), 68)
            assert not any(ect._unsafe(m) for m in made.modules() if isinstance(m, torch.nn.Conv2d))


def test_every_layer_learns():
    model = network()
    ect.loss(model(torch.rand(1, 3, 64, 64)), 16 + 32 * torch.rand(1, 5, 2), SMALL).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_the_network_overfits_a_batch():
    model, crops, points = network(), torch.rand(2, 3, 64, 64), 16 + 32 * torch.rand(2, 5, 2)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        cost = ect.loss(model(crops), points, SMALL)
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
    assert cost.item() < 0.75  # of 3


# Inference and configurations


def test_the_network_for_inference_gives_the_same_maps():
    model, crops = network().eval(), torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        plain, fast = model(crops)[-1], ect.for_inference(model)(crops)[-1]
    assert ect.for_inference(model).context[0].branches[0].weight.dtype == torch.bfloat16
    assert (plain - fast).abs().max() < 0.02 * plain.std() and model.stem[0].branches[0].weight.requires_grad


def test_a_smaller_input_scales_all_lengths():
    half = replace(PAPER, input_size=128)
    assert [half.patch(k) for k in range(7)] == [15, 15, 15, 10, 10, 10, 10]
    assert [PAPER.patch(k) for k in range(5)] == [30, 30, 30, 20, 20]
    assert half.frame.size == 128 and half.frame.extent == PAPER.frame.extent / 2


def test_an_unknown_word_is_refused():
    for name in ("network", "confidence"):
        with pytest.raises(ReplicateError, match=f"{name}: got 'dilatd', expected one of"):
            replace(PAPER, **{name: "dilatd"})


def test_the_register_says_what_the_configuration_does():
    said = {entry.id: entry.choice for entry in ambiguities.load("ect")}
    assert PAPER.confidence == "deviation" and said["ECT-A1"] == "sum over standard deviation, b subtracted"
    assert said["ECT-A5"] == f"peak {PAPER.peak:.3f}"
    assert said["ECT-A6"] == f"standard deviation of {PAPER.sigma:g} pixels"
    assert f"Adam from {PAPER.step_size:g}" in said["ECT-A8"] and PAPER.decay
    assert f"(at the cpu profile from {CONFIGS['cpu', 'synthetic'].step_size:g})" in said["ECT-A8"]
    assert f"batches of {PAPER.batch}" in said["ECT-A8"]
    assert f"{PAPER.shape_extent:g} of {PAPER.input_size} pixels" in said["ECT-A12"]
    assert not PAPER.turning and said["ECT-A16"].startswith("Eq. 13 throughout")
    assert said["ECT-A18"].startswith(f"gamma = {PAPER.gamma:g} squared pixels")
    assert said["ECT-A20"].startswith(f"rho^2 = {PAPER.rho2:g} squared pixels") and PAPER.prior_rho2 is None
    assert said["ECT-A22"] == f"m = {PAPER.components}"
    assert said["ECT-A25"].startswith(f"r = {', '.join(map(str, PAPER.patches))} pixels")
    for faces, width in (("synthetic", 1 / 4), ("real", 1 / 2)):
        cpu = CONFIGS["cpu", faces]
        assert (cpu.width, cpu.input_size) == (width, 128) and CONFIGS["gpu", faces] == PAPER
    assert "a half of it on photographs" in said["ECT-A32"]
    assert cpu.narrow and cpu.narrow.pretraining and "generated faces" in said["ECT-A37"]


def test_the_register_is_complete():
    register = ambiguities.load("ect")
    assert [entry.id for entry in register] == [f"ECT-A{number + 1}" for number in range(len(register))]
    assert all(all(entry.to_dict().values()) for entry in register)
