"""RNN's register says what the code does: choices that are numbers are those of the configurations, and those in words hold."""

import re
from dataclasses import replace

import pytest
import torch

from replicate import training
from replicate.evidence import ambiguities
from replicate.faces.perturbations import RNN_JITTER, RNN_VARIANTS
from replicate.methods import rnn, rnn_training
from replicate.methods.rnn import CONFIGS, LSTM, RNN, ConvDeconv, RNNConfig
from replicate.paths import root

REGISTER = ambiguities.load("rnn")
ENTRIES = {entry.id: entry for entry in REGISTER}
PAPER, CPU = RNNConfig(), CONFIGS["cpu"]


def choice(number):
    return ENTRIES[f"RNN-A{number}"].choice


def test_the_register_is_complete():
    assert [entry.id for entry in REGISTER] == [f"RNN-A{number + 1}" for number in range(len(REGISTER))]
    assert len(REGISTER) >= 26  # the silences that the reading of the paper listed
    assert all(all(entry.to_dict().values()) for entry in REGISTER)


def test_entries_that_pages_name_exist():
    named = set()
    for path in [
        *(root() / "notebooks" / "rnn").glob("*.ipynb"),
        *(root() / "book" / "rnn").glob("index.md"),
    ]:
        for first, more in re.findall(r"RNN-A(\d+)((?:, A\d+)*(?: and A\d+)?)", path.read_text("utf-8")):
            named |= {first, *re.findall(r"\d+", more)}
    assert named and {f"RNN-A{number}" for number in named} <= ENTRIES.keys()


def test_choices_of_the_network_are_those_of_the_modules():
    assert choice(3) == "1 x 1"
    small = replace(PAPER, width=1 / 16, scale=1 / 8)
    torch.manual_seed(0)
    network = RNN(small, torch.zeros(1, 5, 2), torch.zeros(5, 2)).requires_grad_(False)
    assert network.conv8.kernel_size == (1, 1)
    assert "deviation of 0.01" in choice(23) and network.conv8.weight.std().item() == pytest.approx(
        0.01, rel=0.3
    )
    assert "one of 0.001" in choice(23)
    assert "gates from a deviation of 1 on inputs divided by the root of their number" in choice(23)
    assert network.lstm.matrix.weight.std().item() == pytest.approx(1, rel=0.1)
    assert not network.lstm.matrix.bias.any()
    assert network.regressors[0].weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert not network.conv8.bias.any() and not network.regressors[0].bias.any()
    assert choice(2) == "yes, both"
    found = network.features(torch.rand(1, 3, small.size, small.size))
    assert all(found[name].min() == 0 for name in ("deconv6", "deconv7"))
    assert choice(4) == "pool3, pool4 and pool5" and rnn.POOLED_BLOCKS == 2


def test_colours_are_centred_as_the_register_says(monkeypatch):
    assert choice(5) == "RGB from 0 to 1, minus a half, times four"
    network = ConvDeconv(CONFIGS["smoke"])
    seen = []
    network.blocks[0].register_forward_hook(lambda module, given, out: seen.append(given[0]))
    crops = torch.rand(1, 3, 16, 16)
    network(crops)
    torch.testing.assert_close(seen[0], 4 * (crops - 0.5))


def test_choices_of_the_loss_and_of_pooling():
    assert choice(9).startswith("1/32 of a side") and rnn.STEP == 1 / 32
    assert "Pixels more than 24 away" in ENTRIES["RNN-A7"].reason and rnn.REACH == 24
    assert 0.5**24 < 1 / 16_000_000
    assert "7 x 7" in choice(14) and 2 * PAPER.radius("deconv7") + 1 == 7
    assert choice(16).startswith("six pixels of the input") and PAPER.radius("deconv6") == 1
    assert choice(16).endswith("one cell at least") and PAPER.radius("conv5") == 0
    shapes = [torch.zeros(1, 4, 2), torch.full((1, 4, 2), 8.0), torch.zeros(1, 4, 2)]
    found = rnn.regression_loss(shapes, torch.zeros(1, 4, 2), PAPER)  # means, steps added up
    assert "means over landmarks and images" in choice(8) and found.item() == pytest.approx(2.0)
    assert f"a weight of {PAPER.weight:g} beside the softmax loss" in choice(8) and CPU.weight == PAPER.weight


def test_choices_of_the_candidates():
    assert choice(10).startswith(f"{rnn_training.MOST_SHAPES:,} shapes of the enlarged set")
    assert choice(11) == f"in batches, from {rnn_training.MANY} candidates on"
    assert choice(13).startswith(f"one network, trained with {PAPER.candidates} candidates")


def test_choices_of_the_gates():
    assert f"of rank {PAPER.rank}" in choice(17) and PAPER.gates == CPU.gates == "low rank"
    with torch.device("meta"):
        weights = {
            gates: sum(p.numel() for p in LSTM(68, 96, gates, 128).parameters()) for gates in rnn.GATES
        }
    assert weights["low rank"] == weights["per landmark"] == pytest.approx(0.0148 * weights["full"], rel=0.01)
    assert "341 million" in ENTRIES["RNN-A17"].silence and round(weights["full"] / 1e6) == 341
    assert f"rank {PAPER.rank}" in choice(18)


def test_choices_of_the_training():
    said = choice(21)
    assert f"Adam from {PAPER.step_size:g}" in said and f"batches of {PAPER.batch}" in said
    assert f"{PAPER.samples:,} images (at the cpu profile {CPU.samples:,})" in said
    assert f"gradients longer than {training.GRADIENT_NORM_LIMIT:g}" in said
    schedule = PAPER.schedule()
    assert schedule.step_size_at(schedule.steps // 20) == PAPER.step_size  # after a twentieth
    assert schedule.step_size_at(schedule.steps) == pytest.approx(0, abs=1e-9)
    assert choice(40) == f"the best on {PAPER.validation_faces} training faces held out"
    stages = rnn_training.steps(replace(PAPER, training="two stages"))
    assert [one.learns for one in stages] == ["features", "regression"]
    together = rnn_training.steps(PAPER)
    assert [one.learns for one in together] == ["features", "everything"]
    assert together[0].config == replace(
        stages[0].config, training="end to end"
    )  # "both ways start from the same features and see as many images"
    assert stages[0].config.samples == PAPER.pretraining and stages[1].config.samples == PAPER.samples
    said = choice(1)
    assert f"{PAPER.pretraining:,} images (at the cpu profile {CPU.pretraining:,})" in said


def test_units_of_the_regression():
    said = choice(41)
    assert f"around the true landmarks of {rnn_training.STANDARDISED * PAPER.batch} training images" in said
    assert (
        said.endswith("what the k-th regressor of 1 to 8 says is in 1/(128 k) of the input's side")
        and rnn.CHANGE == 1 / 128
    )


def test_boxes_at_the_cpu_profile_and_of_the_smaller_input():
    sides = [rnn.STRIDES[name] * (2 * CPU.radius(name) + 1) for name in rnn.MAPS]
    assert "Boxes then have {}, {} and {} pixels".format(*sides) in ENTRIES["RNN-A16"].reason
    small, large = (replace(PAPER, nominal=nominal) for nominal in rnn.NOMINAL)
    assert choice(42) == "6 pixels of either input" and PAPER.box == 6
    assert small.radius("deconv7") == large.radius("deconv7")


def test_choices_of_the_augmentation():
    assert "up to a tenth of its side and scaled by up to a tenth" in choice(24)
    assert RNN_JITTER.shift == RNN_JITTER.scale == 0.1 and len(RNN_VARIANTS) == 52
