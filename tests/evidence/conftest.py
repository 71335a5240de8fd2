"""Recorded results and the cache of these tests live in a folder of their own."""

import matplotlib.pyplot as plt
import pytest

from replicate.evidence import figures
from replicate.evidence.rows import Row


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Point results and cache to the test's folder."""
    monkeypatch.setenv("REPLICATE_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def drawing():
    """Figures in the book's style, closed after the test."""
    figures.style()
    yield
    plt.close("all")


@pytest.fixture
def make_row():
    """A function that makes a valid row, with changes."""

    def make(**changes) -> Row:
        about = dict(artefact="DAN-T5", method="DAN, 2 stages", protocol="300w", subset="private", points=68)
        what = dict(
            metric="mean error", normaliser="inter-ocular", value=4.3, ci_low=4.1, ci_high=4.5, unit="%"
        )
        how = dict(images=600, seeds=1, faces="synthetic", profile="cpu", device="test", seconds=1.0)
        return Row(**{**about, **what, **how, "box_rule": "tight boxes", **changes})

    return make
