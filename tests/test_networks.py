"""Folding and widening keep the function of a network."""

import pytest
import torch
from torch import nn

from replicate import networks
from replicate.errors import ReplicateError

torch.set_num_threads(1)


def small_network(width):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.Flatten(), nn.Linear(2 * width * 16, 5, bias=False), nn.BatchNorm1d(5),
    )  # fmt: skip


def trained(width, seed=0):
    torch.manual_seed(seed)
    network = small_network(width)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return network.eval()


def test_folding_keeps_the_function():
    network, x = trained(3), torch.randn(4, 1, 8, 8)
    folded = networks.fold_batch_norm(network)
    assert not any(isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) for layer in folded)
    torch.testing.assert_close(folded(x), network(x), atol=1e-5, rtol=1e-5)


def test_widening_without_noise_keeps_the_function_exactly(monkeypatch):
    monkeypatch.setattr(networks, "WIDENING_NOISE", 0.0)
    narrow, wide, x = trained(3), small_network(9).eval(), torch.randn(4, 1, 8, 8)
    wide.load_state_dict(networks.widen(narrow.state_dict(), wide.state_dict(), seed=0))
    torch.testing.assert_close(wide(x), narrow(x), atol=1e-5, rtol=1e-5)


def test_the_copies_part_and_the_seed_decides_how():
    narrow, wide = trained(3), small_network(6).state_dict()
    first, again, other = (networks.widen(narrow.state_dict(), wide, seed) for seed in (0, 0, 1))
    assert not torch.equal(first["0.weight"][:3], first["0.weight"][3:])
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_only_multiples_can_be_reached():
    with pytest.raises(
        ReplicateError, match=r"0\.weight: cannot be widened from \(4, 1, 3, 3\) to \(6, 1, 3, 3\)"
    ):
        networks.widen(trained(4).state_dict(), small_network(6).state_dict(), seed=0)
