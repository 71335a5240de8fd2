"""RNN's networks: every equation in closed form or against an independent formula, and what the fast forms compute against the plain ones."""

import gc
import math
import re
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from replicate.errors import ReplicateError
from replicate.methods import rnn
from replicate.methods.rnn import LSTM, RNN, ConvDeconv, MappingLoss, Pooled, RNNConfig

SMALL = RNNConfig("VGG-S", width=1 / 16, scale=1 / 8, rank=6, candidates=3)


def network(config=SMALL, points=5, seed=0):
    torch.manual_seed(seed)
    return RNN(config, torch.rand(3, points, 2) * config.size, torch.rand(points, 2) * config.size)


# §III-A


@pytest.mark.parametrize("size", [128, 256])
def test_sides_and_channels_are_those_of_the_paper(size):
    """Table VII and Fig. 2; with meta tensors nothing is computed."""
    for backbone, layers in (("VGG-S", 5), ("VGG-19", 16)):
        with torch.device("meta"):
            made = ConvDeconv(RNNConfig(backbone))
            found = made(torch.empty(1, 3, size, size))
        shapes = {name: tuple(one.shape) for name, one in found.items()}
        assert shapes == {
            "conv5": (1, 512, size // 4, size // 4), "deconv6": (1, 96, size // 2, size // 2), "deconv7": (1, 96, size, size),
        }  # fmt: skip
        kinds = [type(module).__name__ for module in made.modules()]
        assert (kinds.count("Conv2d"), kinds.count("ConvTranspose2d")) == (layers, 2)


def test_parameters_of_vgg19_are_those_that_follow_from_its_layers():
    with torch.device("meta"):
        made = ConvDeconv(RNNConfig())
    convolutions = sum(p.numel() for p in made.blocks.parameters())
    assert convolutions == 20_024_384  # of VGG-19 without its dense layers
    assert sum(p.numel() for p in made.deconv6.parameters()) == 786_528
    assert sum(p.numel() for p in made.deconv7.parameters()) == 147_552


def test_initial_weights_keep_the_size_of_what_passes():
    torch.manual_seed(0)
    made = ConvDeconv(replace(SMALL, width=1 / 4, backbone="VGG-19"))
    with torch.no_grad():
        found = made(torch.rand(4, 3, 32, 32))
    for one in found.values():
        assert 0.1 < one.std() < 10


# §III-B


def written_out(points, size):
    """Q of one landmark over the whole input, as §III-B prints it."""
    y, x = np.mgrid[:size, :size]
    found = 0.5 ** np.maximum(abs(points[0] - x), abs(points[1] - y))
    return found / found.sum()


@given(st.floats(0, 39), st.floats(0, 39))
@settings(max_examples=25, deadline=None)
def test_probabilities_are_those_of_the_paper(x, y):
    places, values = rnn.probabilities(torch.tensor([[[x, y]]], dtype=torch.float64), 40)
    found = torch.zeros(1600, dtype=torch.float64).index_add_(0, places[0, 0], values[0, 0]).view(40, 40)
    np.testing.assert_allclose(found, written_out((x, y), 40), atol=1e-6)
    assert values.sum().item() == pytest.approx(1)


def test_the_largest_probability_in_the_middle_of_a_large_input_is_one_in_seventeen():
    _, values = rnn.probabilities(torch.tensor([[[50.0, 50.0]]]), 101)
    assert values.max().item() == pytest.approx(1 / 17, rel=1e-5)  # 1 + sum of 8 r / 2^r


def test_a_landmark_beyond_the_border_is_looked_for_on_it():
    beyond, border = (rnn.probabilities(torch.tensor([[[x, 8.0]]]), 16) for x in (-5.0, 0.0))
    for one, other in zip(beyond, border, strict=True):
        torch.testing.assert_close(one, other)


def test_the_loss_is_the_cross_entropy_with_its_gradient():
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 12, 12, dtype=torch.float64, requires_grad=True)
    points = torch.rand(2, 3, 2, dtype=torch.float64) * 11
    wanted = np.stack([[written_out(point, 12) for point in face] for face in points.numpy()])
    logarithms = maps.flatten(2).log_softmax(-1).view_as(maps)
    expected = -(torch.from_numpy(wanted) * logarithms).sum((2, 3)).mean()
    value = rnn.mapping_loss(maps, points)
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    [gradient] = torch.autograd.grad(value, maps)  # A^ - Q
    torch.testing.assert_close(gradient, (logarithms.exp() - torch.from_numpy(wanted)) / 6, atol=1e-6, rtol=0)


def test_the_loss_in_one_pass_is_the_plain_one_with_its_gradients_and_peaks():
    torch.manual_seed(1)
    maps = (
        torch.randn(3, 4, 20, 20, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    )
    weight, bias = (
        torch.randn(5, 4, dtype=torch.float64, requires_grad=True),
        torch.randn(5, dtype=torch.float64, requires_grad=True),
    )
    points = torch.rand(3, 5, 2, dtype=torch.float64) * 19
    value, peaks = MappingLoss.apply(maps, weight, bias, points)
    responses = torch.nn.functional.conv2d(maps, weight[..., None, None], bias)
    plain = rnn.mapping_loss(responses, points)
    assert value.item() == pytest.approx(plain.item(), rel=1e-12)
    torch.testing.assert_close(peaks.float(), rnn.peaks(responses))
    for one, other in zip(
        torch.autograd.grad(3 * value, (maps, weight, bias)),
        torch.autograd.grad(3 * plain, (maps, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


def test_peaks_are_places_of_the_largest_values():
    maps = torch.zeros(1, 2, 5, 7)
    maps[0, 0, 3, 6], maps[0, 1, 4, 2] = 1, 2
    assert rnn.peaks(maps).tolist() == [[[6, 3], [2, 4]]]


def test_peaks_face_by_face_are_those_of_the_batch():
    made = network().eval()
    with torch.no_grad():
        maps = made.maps(torch.rand(3, 3, SMALL.size, SMALL.size))
        torch.testing.assert_close(made.peaks(maps), rnn.peaks(made.responses(maps)))


def test_the_nearest_candidate_is_the_start():
    candidates = torch.tensor([[[0.0, 0], [1, 1]], [[5, 5], [6, 6]], [[0, 9], [9, 0]]])
    shapes = torch.tensor([[[4.0, 5], [7, 5]], [[1, 0], [1, 2]]])
    torch.testing.assert_close(rnn.nearest(shapes, candidates), candidates[[1, 0]])


# §III-C


def by_loop(maps, points, radius):
    """SIP landmark by landmark, with slices."""
    lines = []
    for one, shape in zip(maps, points, strict=True):
        for x, y in shape.round().long().tolist():
            top, left = max(0, y - radius), max(0, x - radius)
            lines.append(one[:, top : y + radius + 1, left : x + radius + 1].amax((1, 2)))
    return torch.stack(lines).view(*points.shape[:2], -1)


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_pooling_and_its_gradient_are_those_of_a_loop(radius):
    torch.manual_seed(2)
    maps = torch.randn(2, 3, 9, 11).to(memory_format=torch.channels_last).requires_grad_()
    points = torch.rand(2, 4, 2) * torch.tensor([10.0, 8.0])
    weights = torch.randn(2, 4, 3)
    expected = by_loop(maps, points, radius)
    [gradient] = torch.autograd.grad((expected * weights).sum(), maps)
    pooled = Pooled(maps)
    found = pooled.at(points, radius)
    torch.testing.assert_close(found, expected)
    [ours] = torch.autograd.grad((found * weights).sum() + 0 * pooled.maps.sum(), maps)
    torch.testing.assert_close(ours, gradient)


def test_gradients_of_several_steps_and_of_the_maps_themselves_are_added():
    torch.manual_seed(3)
    maps = torch.randn(1, 2, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    points = [torch.rand(1, 3, 2) * 5 for _ in range(3)]
    expected = sum(by_loop(maps, one, 1).square().sum() for one in points) + maps.sin().sum()
    pooled = Pooled(maps)
    found = sum(pooled.at(one, 1).square().sum() for one in points) + pooled.maps.sin().sum()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, maps), torch.autograd.grad(expected, maps))


def test_maps_are_freed_with_the_loss_that_was_made_of_them():
    """Without waiting for the collector of cycles, which counts objects and not their size."""
    gc.disable()
    try:
        maps = torch.rand(1, 2, 6, 6, requires_grad=True)
        pooled = Pooled(maps)
        kept = weakref.ref(pooled.maps)
        value = pooled.at(torch.rand(1, 3, 2), 1).sum() + pooled.maps.sum()
        value.backward()
        del pooled, value
        assert kept() is None
    finally:
        gc.enable()


def test_the_gradient_of_a_tie_goes_to_one_place():
    maps = torch.ones(1, 1, 5, 5, requires_grad=True)
    pooled = Pooled(maps)
    [gradient] = torch.autograd.grad(
        pooled.at(torch.tensor([[[2.0, 2.0]]]), 2).sum() + 0 * pooled.maps.sum(), maps
    )
    assert gradient.sum() == 1 and (gradient > 0).sum() == 1


def test_cells_of_coarser_maps_lie_where_the_input_has_the_landmark():
    """A map whose cells say where their middle lies in the input, as the mean of what they cover."""
    config = replace(SMALL, pooled=rnn.MAPS, scale=1.0)
    maps = {}
    for name, stride in rnn.STRIDES.items():
        axis = stride * torch.arange(32 // stride) + (stride - 1) / 2
        maps[name] = Pooled(
            torch.stack([axis.expand(len(axis), -1), axis[:, None].expand(-1, len(axis))])[None]
        )
    shapes = torch.tensor([[[7.5, 21.5], [19.5, 3.5]]])
    found = rnn.shape_indexed(maps, shapes, replace(config, box=0.0)).view(1, 2, 3, 2)
    farthest = (found - shapes[:, :, None]).abs().amax((0, 1, 3))
    assert (farthest <= torch.tensor([2.0, 1.0, 0.5])).all()  # half a cell
    assert [config.radius(name) for name in rnn.MAPS] == [0, 1, 3]


def test_the_full_gates_are_equation_11():
    torch.manual_seed(4)
    points, channels, size = 2, 3, 6
    cell = LSTM(points, channels, "full", 0).double()
    features, before, memory = (torch.randn(4, points, channels, dtype=torch.float64) for _ in range(3))
    both = np.concatenate([features.flatten(1), before.flatten(1)], 1)
    weight, bias = cell.matrix.weight.detach().numpy(), cell.matrix.bias.detach().numpy()

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    weight = weight / (2 * size) ** 0.5  # of Eq. 11
    i, f, o, g = ((both @ weight.T + bias)[:, n * size : (n + 1) * size] for n in range(4))
    expected = sigmoid(f) * memory.flatten(1).numpy() + sigmoid(i) * np.tanh(g)
    shown, kept = cell(features, before, memory)
    np.testing.assert_allclose(kept.detach().flatten(1), expected)
    np.testing.assert_allclose(shown.detach().flatten(1), sigmoid(o) * expected)  # no tanh


def test_gates_per_landmark_are_full_ones_that_see_one_landmark():
    torch.manual_seed(5)
    points, channels = 3, 2
    alone, full = LSTM(points, channels, "per landmark", 0), LSTM(points, channels, "full", 0)
    size = points * channels
    more = points**0.5  # a full product shares among as many times more inputs
    matrix = torch.zeros(2, points, channels, 4, points, channels)
    for landmark in range(points):
        matrix[:, landmark, :, :, landmark] = more * alone.weight[landmark].detach().view(
            2, channels, 4, channels
        )
    full.matrix.weight.data = matrix.reshape(2 * size, 4 * size).T.contiguous()
    full.matrix.bias.data.zero_()
    inputs = [torch.randn(4, points, channels) for _ in range(3)]
    torch.testing.assert_close(alone(*inputs), full(*inputs))


def test_gates_of_low_rank_are_full_ones_whose_matrix_is_a_product():
    torch.manual_seed(6)
    low, full = LSTM(3, 2, "low rank", 4), LSTM(3, 2, "full", 0)
    full.matrix.weight.data = low.matrix.weight.detach() @ low.reduced.weight.detach() / 4**0.5
    full.matrix.bias.data = low.matrix.bias.detach()
    inputs = [torch.randn(4, 3, 2) for _ in range(3)]
    torch.testing.assert_close(low(*inputs), full(*inputs))
    assert torch.linalg.matrix_rank(full.matrix.weight) == 4


@pytest.mark.parametrize("gates", rnn.GATES)
def test_gates_stay_open_when_adam_pushes_all_their_weights_one_way(gates):
    """Thousands of inputs with a common sign, as pooled features have, and ten steps that all say the same."""
    torch.manual_seed(7)
    cell = LSTM(68, 24, gates, 128)
    features = 1 + torch.rand(4, 68, 24)
    before = torch.zeros_like(features)
    optimiser = torch.optim.Adam(cell.parameters(), 1e-3)
    for _ in range(10):
        optimiser.zero_grad()
        shown, _ = cell(features, before, before)
        (-shown.sum()).backward()
        optimiser.step()
    shown, memory = cell(features, before, before)
    ratio = (shown / memory).detach()  # the output gate
    assert ((ratio > 0.95) | (ratio < 0.05)).float().mean() < 0.2


def test_features_are_standardised_by_channel():
    made = network()
    seen = torch.stack([torch.randn(500) * 3 + 7, torch.randn(500) / 10, torch.zeros(500)], -1)
    seen = torch.cat([seen, seen], -1)
    made.standardise(seen)
    torch.testing.assert_close(made.pooled_mean, seen.mean(0))
    torch.testing.assert_close(made.pooled_deviation[:1], seen[:, :1].std(0))
    assert made.pooled_deviation[2] == pytest.approx(seen.std(0).mean().item() / 10)  # a dead channel
    maps = {"deconv7": Pooled(torch.full((1, 6, SMALL.size, SMALL.size), 10.0))}
    found = made.indexed(maps, torch.ones(1, 5, 2))
    assert found[0, 0, 0].item() == pytest.approx((10 - seen[:, 0].mean().item()) / seen[:, 0].std().item())
    made.standardise(torch.zeros(4, 6))  # nothing alive
    assert torch.isfinite(made.indexed(maps, torch.ones(1, 5, 2))).all()


def test_full_gates_at_full_width_have_the_weights_that_the_paper_implies():
    with torch.device("meta"):
        cell = LSTM(68, 96, "full", 0)
    assert sum(p.numel() for p in cell.parameters()) == 4 * (2 * 6528**2 + 6528) == 340_944_384


# The whole


def test_a_regression_that_adds_nothing_leaves_the_start():
    made = network()
    for layer in made.regressors:
        torch.nn.init.zeros_(layer.weight)
    crops = torch.rand(2, 3, SMALL.size, SMALL.size)
    maps = {name: Pooled(one) for name, one in made.maps(crops).items()}
    start = torch.rand(2, 5, 2) * SMALL.size
    shapes = made.refine(maps, start)
    assert len(shapes) == SMALL.steps + 1 and all(torch.equal(shape, start) for shape in shapes)


def test_a_step_adds_what_its_regressor_says_of_both_kinds_of_features():
    """Eq. 7, step by step, without autocast."""
    made = network(replace(SMALL, steps=2))
    made.standardise(torch.tensor([0.25, 0.75]).expand(6, 2).T * 1.0)
    made.pooled_deviation.fill_(0.25)
    maps = {"deconv7": Pooled(torch.rand(1, 6, SMALL.size, SMALL.size))}
    start = torch.rand(1, 5, 2) * (SMALL.size - 1)
    with torch.autocast("cpu", enabled=False):
        state = 2 * [torch.zeros(1, 5, 6)]
        expected = [start]
        for number, layer in enumerate(made.regressors, start=1):
            features = (rnn.shape_indexed(maps, expected[-1], SMALL) - 0.5) / 0.25
            state = made.lstm(features, *state)
            change = layer((features + state[0]).flatten(1)).view(1, 5, 2)
            expected.append(expected[-1] + change * SMALL.size / 128 / number)
    for one, other in zip(made.refine(maps, start), expected, strict=True):
        torch.testing.assert_close(one, other, atol=0.02, rtol=0)  # bfloat16 against full precision


def test_without_recurrence_nothing_is_remembered():
    made = network(replace(SMALL, recurrent=False, steps=2))
    assert made.lstm is None and not any("lstm" in name for name in made.state_dict())
    made.regressors[1].load_state_dict(made.regressors[0].state_dict())
    torch.nn.init.zeros_(made.regressors[0].weight)
    maps = {"deconv7": Pooled(torch.rand(1, 6, SMALL.size, SMALL.size))}
    start = torch.rand(1, 5, 2) * SMALL.size
    made.regressors[1].load_state_dict(made.regressors[0].state_dict())
    shapes = made.refine(maps, start)
    torch.testing.assert_close(shapes[1], shapes[2])


def test_no_gradient_passes_from_step_to_step_but_through_the_memory():
    made = network(replace(SMALL, recurrent=False, steps=2))
    maps = {name: Pooled(one) for name, one in made.maps(torch.rand(1, 3, SMALL.size, SMALL.size)).items()}
    last = made.refine(maps, torch.rand(1, 5, 2) * SMALL.size)[-1]
    given = torch.autograd.grad(last.sum(), made.regressors[0].weight, allow_unused=True)[0]
    assert given is None


def test_the_network_learns_one_batch():
    made = network(replace(SMALL, width=1 / 8, scale=1 / 4)).to(memory_format=torch.channels_last)
    size = made.config.size
    crops, points = torch.rand(4, 3, size, size), 8 + torch.rand(4, 5, 2) * (size - 16)
    made.candidates = points.mean(0, keepdim=True)
    adam = torch.optim.Adam(made.parameters(), lr=3e-3)
    values = []
    for _ in range(150):
        adam.zero_grad()
        value = rnn.loss(made, crops, points)
        value.backward()
        adam.step()
        values.append(value.item())
    assert values[-1] < 0.2 * values[0] and math.isfinite(values[-1])


def test_the_fast_copy_says_the_same():
    made = network().eval()
    crops = torch.rand(2, 3, SMALL.size, SMALL.size)
    with torch.inference_mode():
        ours, fast = (one.maps(crops)["deconv7"].float() for one in (made, rnn.for_inference(made)))
    assert (ours - fast).abs().max() < 0.05 * ours.abs().max()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("backbone", "VGG-16", "backbone: got 'VGG-16', expected one of VGG-19, VGG-S"),
        ("gates", "sparse", "gates: got 'sparse'"),
        ("training", "stages", "training: got 'stages'"),
        ("pooled", ("conv4",), "pooled: got 'conv4'"),
        ("pooled", (), "pooled: got (), expected some of"),
        ("candidates", 0, "candidates: got 0, expected a whole number, one or more"),
        ("steps", 0, "steps: got 0, expected a whole number, one or more"),
        ("rank", 1.5, "rank: got 1.5, expected a whole number"),
        ("samples", 0, "samples: got 0"),
        ("width", 0.0, "width: got 0.0, expected more than zero"),
        ("step_size", float("nan"), "step_size: got nan"),
        ("weight", -1.0, "weight: got -1.0, expected zero or more"),
        ("box", -4.0, "box: got -4.0"),
        ("pooled", ("deconv7", "deconv7"), "each once"),
        ("nominal", 250, "an input of 31 pixels, expected a multiple of 4"),
    ],
)
def test_unknown_words_are_named(field, value, words):
    with pytest.raises(ReplicateError, match=re.escape(words)):
        replace(SMALL, **{field: value})
