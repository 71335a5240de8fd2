"""Where things live on disk. Every path of the project is decided here."""

import os
from pathlib import Path

from replicate.vocabulary import PROFILES, check_one_of


def root() -> Path:
    """The checkout: the folder that holds `replicate/`, `notebooks/` and `data/`."""
    return Path(__file__).resolve().parents[1]


def published_dir() -> Path:
    """The papers' numbers, artefacts, claims and ambiguities."""
    return root() / "data" / "published"


def models_dir() -> Path:
    """Small reference models that travel with the repository."""
    return root() / "data" / "models"


def cache() -> Path:
    """What can be made again: trained models, generated faces, executed notebooks, the book. `$REPLICATE_CACHE` moves it."""
    return Path(os.environ.get("REPLICATE_CACHE") or root() / ".replicate").expanduser()


def results_dir(profile: str) -> Path:
    """Where rows, verdicts and predictions of `profile` are recorded; `$REPLICATE_RESULTS` moves the recorded editions.

    `smoke` numbers mean nothing, so they stay in the cache.
    """
    check_one_of("profile", profile, PROFILES)
    if profile == "smoke":
        return cache() / "results"
    return Path(os.environ.get("REPLICATE_RESULTS") or root() / "data" / "results").expanduser()


def data_dir() -> Path:
    """Real faces, each data set in its official layout: `$REPLICATE_DATA`, else `data/faces/`."""
    return Path(os.environ.get("REPLICATE_DATA") or root() / "data" / "faces").expanduser()
