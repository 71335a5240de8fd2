"""Checks of ECT's equations: they hold for what is implemented, and fail for what is not."""

import pytest
import torch
from toy_faces import toy_faces

from replicate.evidence.views import ect_equations as views
from replicate.methods.ect import CONFIGS, ECTConfig
from replicate.methods.ect_fitting import PDM, Patches

SMALL = CONFIGS["smoke", "synthetic"]
PRINTED = "Eq. 14 as printed against the correction, px"


@pytest.fixture
def pdm():
    torch.manual_seed(0)
    true = torch.as_tensor(toy_faces(30).points)
    return PDM.fit(true + torch.randn(true.shape), SMALL.frame, 6)


def test_the_correction_is_that_of_the_equations_and_not_the_printed_one(pdm):
    checks = views.check_fit(pdm, SMALL)
    assert checks.pop(PRINTED) > 5
    assert max(checks.values()) < 1e-4 and len(checks) == 3


def test_a_wrong_correction_is_noticed(pdm, monkeypatch):
    right = PDM.step
    monkeypatch.setattr(PDM, "step", lambda *given: 0.99 * right(*given))
    checks = views.check_fit(pdm, SMALL)
    assert min(checks.values()) > 1e-3


@pytest.mark.parametrize(
    "config", [SMALL, *map(CONFIGS.get, (("cpu", "synthetic"), ("cpu", "real"))), ECTConfig()]
)
def test_mean_shift_and_confidence_have_their_closed_forms(config):
    checks = views.check_patches(config)
    assert len(checks) == 2 and max(checks.values()) < 1e-5


def test_a_wrong_kernel_is_noticed(monkeypatch):
    right = Patches.mean_shift
    monkeypatch.setattr(Patches, "mean_shift", lambda patches, rho: right(patches, 1.1 * rho))
    assert views.check_patches(SMALL)["Eq. 9, mean shift on an ideal map, px"] > 1e-3
