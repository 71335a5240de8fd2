"""RNN's network, counted: layers and multiplications against closed forms and torch's own counter, cells against a loop, weights against formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from replicate.errors import ReplicateError
from replicate.evidence import claims, published, rows
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import rnn_network as views
from replicate.methods import rnn
from replicate.methods.rnn import BACKBONES, ConvDeconv, RNNConfig


def experiment(**changes):
    return Experiment(**{"paper": "rnn", "profile": "cpu", "device": "cpu", **changes})


def test_layers_of_vgg19_are_those_of_the_text():
    found = views.layers(RNNConfig())
    names = [one.name for one in found]
    assert sum(name.startswith("conv") for name in names) == 17  # 16 and conv8
    assert [name for name in names if "_" not in name] == ["max pool1", "max pool2", "deconv6", "deconv7", "conv8"]  # fmt: skip
    assert names.index("max pool1") == names.index("conv1_2") + 1
    assert names.index("max pool2") == names.index("conv2_2") + 1
    by_name = {one.name: one for one in found}
    assert by_name["conv5_4"].outside == (512, 64) and by_name["deconv7"].outside == (96, 256)
    assert by_name["conv8"].outside == (68, 256) and by_name["conv8"].parameters == 68 * 97
    assert sum(one.parameters for one in found[:-1]) == 20_024_384 + 786_528 + 147_552
    assert by_name["conv3_1"].multiplications == 64 * 64 * 256 * 128 * 9
    assert by_name["deconv6"].multiplications == 64 * 64 * 512 * 96 * 16


@pytest.mark.parametrize("backbone", BACKBONES)
def test_multiplications_are_half_of_the_operations_that_torch_counts(backbone):
    config = RNNConfig(backbone, width=1 / 8, scale=1 / 4)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        ConvDeconv(config)(torch.empty(1, 3, config.size, config.size))
    assert sum(one.multiplications for one in views.layers(config)[:-1]) == counter.get_total_flops() / 2


def test_table_vii_is_that_of_the_modules(monkeypatch):
    printed = views.printed_shapes()
    assert list(printed) == [
        "conv1", "max pool1", "conv2", "max pool2", "conv3", "conv4", "conv5", "deconv6", "deconv7",
    ]  # fmt: skip
    assert printed["conv1"] == ((7, 7, 1, 3), (96, 256, 256))
    table = views.shape_table()
    assert (table["output"] == table["Table VII, output"]).all() and len(table) == 9
    monkeypatch.setitem(rnn.BLOCKS, "VGG-S", ((5, 96, 1), *rnn.BLOCKS["VGG-S"][1:]))
    with pytest.raises(ReplicateError, match="conv1: the network has .* Table VII prints"):
        views.shape_table()


def test_rows_stand_beside_the_numbers_of_fig_2():
    made = views.network_rows(experiment())
    found = {(row.method, row.metric): row.value for row in made}
    for metric in ("conv layers", "deconv channels"):
        assert found["RNN, VGG-19", metric] == published.value("RNN-F2", label="RNN, VGG-19", metric=metric)
    assert found["RNN, VGG-S", "conv layers"] == 5 and found["RNN, VGG-S", "max pooling layers"] == 2
    assert len(views.shape_rows(experiment())) == 3 * 10


def test_operations_do_not_depend_on_the_size_but_by_its_square():
    large, small = views.operations(256), views.operations(128)
    assert {name: count / 4 for name, count in large.items()} == small
    assert large[views.PLAIN] == pytest.approx(25.48e9, rel=1e-3)
    assert large[views.WITHOUT_POOLS] == pytest.approx(1312e9, rel=1e-3)
    assert large[views.PROPOSED] / large[views.PLAIN] == pytest.approx(3.64, abs=0.01)
    assert large[f"{views.PROPOSED}, with conv8"] - large[views.PROPOSED] == 96 * 68 * 256**2
    assert large[views.SMALL] < large[views.PROPOSED]


def test_the_claim_of_a_slightly_higher_cost_fails_on_both_versions():
    verdict = views.judge_operations(experiment(), 256)
    assert (verdict.claim, verdict.verdict) == ("RNN-C20", "not reproduced")
    assert verdict.left / verdict.right == pytest.approx(3.64, abs=0.01)
    assert verdict.ci_low == verdict.ci_high == verdict.difference
    assert f"{views.SMALL}: 1.6 times" in verdict.note
    assert claims.recorded("rnn", ["cpu"]) == [verdict]


def test_multiples_are_relative_to_vgg19():
    made = {(row.method, row.metric): row for row in views.operation_rows(experiment(), 224)}
    assert made[views.PLAIN, "times VGG-19, 224 px"].value == 1
    assert made[views.PLAIN, "multiplications, 224 px"].value == pytest.approx(19.508, abs=1e-3)


# Landmarks in one cell


@given(st.floats(0.5, 16))
@settings(max_examples=10, deadline=None)
def test_the_probability_of_one_cell_is_that_of_random_points(distance):
    rng = np.random.default_rng(0)
    first = 16 * rng.random((40_000, 2))
    angle = 2 * np.pi * rng.random(40_000)
    for within in (False, True):
        length = distance * np.sqrt(rng.random(40_000)) if within else distance
        second = first + (length * np.array([np.cos(angle), np.sin(angle)])).T
        simulated = ((second >= 0) & (second < 16)).all(1).mean()
        assert views.sharing_probability(distance, 16, within) == pytest.approx(simulated, abs=0.01)


def test_points_farther_apart_than_a_cell_are_refused():
    with pytest.raises(ReplicateError, match="distance: got 17, expected no more than the cell's side, 16"):
        views.sharing_probability(17.0, 16.0)
    assert views.sharing_probability(0.0, 16.0) == 1


def test_shared_cells_are_those_of_a_loop():
    points = np.random.default_rng(1).uniform(0, 60, (3, 12, 2))
    pairs = together = company = 0
    for face in points:
        cells = [tuple(cell) for cell in ((face + 0.5) // 16).astype(int)]
        company += sum(cells.count(cell) > 1 for cell in cells)
        for i in range(12):
            for j in range(i):
                if np.hypot(*(face[i] - face[j])) < views.NEAR:
                    pairs, together = pairs + 1, together + (cells[i] == cells[j])
    found = views.sharing(points, 16)
    assert found["pairs within 10 px in one cell"] == pytest.approx(100 * together / pairs)
    assert found["landmarks that share their cell"] == pytest.approx(100 * company / 36)


def test_cells_begin_where_pixels_do():
    """The first cell of 16 holds the pixels 0 to 15."""
    points = np.array([[[0.0, 0], [15, 15], [16, 16]]])
    assert views.sharing(points, 16)["landmarks that share their cell"] == pytest.approx(200 / 3)


def test_cells_are_on_record_with_the_number_of_faces():
    made = views.sharing_rows(experiment(), np.random.default_rng(2).uniform(20, 200, (4, 68, 2)))
    assert len(made) == 6 and {row.images for row in made} == {4}
    values = [row.value for row in made if row.metric.startswith("landmarks")]
    assert values == sorted(values, reverse=True)  # the smaller the cells, the fewer share one
    rows.record(made)
    assert len(rows.load("rnn", "synthetic", "cpu")) == 6


# Weights


@pytest.mark.parametrize(("points", "channels", "rank"), [(68, 96, 128), (5, 7, 3)])
def test_weights_of_gates_are_those_of_their_formulas(points, channels, rank):
    size = points * channels
    assert views.lstm_weights(points, channels, "full") == 4 * (2 * size**2 + size)
    assert views.lstm_weights(points, channels, "low rank", rank) == size * (6 * rank + 4)
    assert views.lstm_weights(points, channels, "per landmark") == size * (8 * channels + 4)


def test_the_table_of_weights_has_a_column_for_each_kind_of_gates():
    made = views.weight_rows(experiment(), {"a": ("deconv7",), "b": ("conv5", "deconv7")})
    table = views.weight_table(made)
    assert table.columns.tolist() == ["pooled from", *rnn.GATES] and table["pooled from"].tolist() == [
        "a",
        "b",
    ]
    assert table.loc[0, "full"] == "340.9" and table.loc[1, "full"] == "13,674.8"
    assert table.loc[0, "low rank"] == table.loc[0, "per landmark"] == "5.0"
