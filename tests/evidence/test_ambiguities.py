"""The register says what the code does: choices that are numbers are those of the configurations."""

import pytest

from replicate.evidence import ambiguities
from replicate.methods.dan import CONFIGS, DANConfig

DAN = {entry.id: entry for entry in ambiguities.load("dan")}
PAPER, CPU, REAL = DANConfig(), CONFIGS["cpu", "synthetic"], CONFIGS["cpu", "real"]


def test_the_paper_scale_is_the_same_on_both_kinds_of_faces():
    assert CONFIGS["gpu", "synthetic"] == CONFIGS["gpu", "real"] == PAPER


@pytest.mark.parametrize("config", [CPU, REAL, REAL.narrow], ids=["synthetic", "real", "real, narrow"])
def test_what_is_said_of_the_cpu_profile_is_so(config):
    perturbations = f"{config.translation}, {config.rotation:g} degrees and {config.scale} at the cpu profile"
    assert perturbations in DAN["DAN-A10"].choice
    assert config.decay and "half cosine to zero" in DAN["DAN-A15"].choice
    assert (
        config.patience * config.validate_every > max(config.samples) / config.batch
    )  # never stops early: DAN-A13
    assert f"batches of {config.batch}." in DAN["DAN-A27"].choice


def test_what_is_said_of_the_gpu_profile_is_so():
    assert (
        f"{PAPER.translation} of the mean shape's width and height, {PAPER.rotation:g} degrees and {PAPER.scale}"
        in DAN["DAN-A10"].options
    )
    assert (
        f"every {PAPER.validate_every} steps and stops after {PAPER.patience} validations"
        in DAN["DAN-A13"].choice
    )
    assert not PAPER.decay and DAN["DAN-A15"].choice.startswith(
        "constant until validation stops improving at the gpu profile"
    )
    assert (
        f"random {PAPER.validation_faces}" in DAN["DAN-A14"].choice
        and str(PAPER.dropout) == DAN["DAN-A6"].choice
    )
    assert f"disc of radius {PAPER.heatmap_radius:g}" == DAN["DAN-A1"].choice and PAPER.narrow is None


def test_the_stand_ins_for_full_width_are_those_of_the_register():
    assert (
        REAL.narrow.width == REAL.width / 2 == PAPER.width / 2
        and REAL.hidden == REAL.narrow.hidden == PAPER.hidden
    )
    assert REAL.most_stages == 2 and REAL.step_size < REAL.narrow.step_size
    assert CPU.width == PAPER.width / 4 and CPU.hidden == PAPER.hidden / 2 and CPU.most_stages == 3
