"""Fixtures that several test files share: small notebooks, a small checkout, the command in a process of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from small_checkout import Checkout, write_notebook

settings.register_profile("suite", deadline=None)  # a busy machine is no failure; benchmarks measure time
settings.load_profile("suite")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A small checkout of its own for one test."""
    return Checkout(tmp_path)


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[..., Path]:
    """Make a notebook from code cells."""

    def make(*cells: str, **options: str) -> Path:
        return write_notebook(tmp_path / "s1_small.ipynb", *cells, **options)

    return make
