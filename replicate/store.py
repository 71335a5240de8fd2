"""The model store: a model is asked for by what determines it, found by the hash of that, and trained if absent.

Models are safetensors files with their description and the record of their training as metadata. Reference models travel with
the repository (`data/models/`); others are kept in the cache. Nothing is ever unpickled.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from replicate import paths
from replicate.errors import ReplicateError
from replicate.files import lock, sha256
from replicate.training import FitReport, write_tensors

Training = tuple[dict[str, Tensor], FitReport, str]  # what a training gives: tensors, report and device
FRESH_SINCE = "REPLICATE_FRESH_SINCE"  # set by `replicate run --fresh` for all notebooks of the run


@dataclass(frozen=True)
class ModelKey:
    """Everything that decides the weights of a model.

    Attributes
    ----------
    method : str
        For example ``dan-stage1``.
    config : dict
        The method's configuration, as JSON values.
    training_faces : str
        Fingerprint of the training faces.
    profile : str
        One of `replicate.vocabulary.PROFILES`.
    seed : int
        Of initial weights, samples and dropout.
    version : int
        The method's code version: raised by hand when its code changes what a training gives.
    parent : str
        Hash of the model that this one builds on, or empty.
    """

    method: str
    config: dict
    training_faces: str
    profile: str
    seed: int
    version: int
    parent: str = ""

    @cached_property
    def hash(self) -> str:
        """Twelve hexadecimal digits that name the model."""
        return sha256(json.dumps(asdict(self), sort_keys=True))[:12]

    @property
    def filename(self) -> str:
        return f"{self.method}-{self.profile}-{self.hash}.safetensors"


@dataclass(frozen=True)
class StoredModel:
    """A model as it came from the store."""

    key: ModelKey
    tensors: dict[str, Tensor]
    report: FitReport
    trained_on: str  # device and threads
    sha256: str  # of the weights
    parent_sha256: str  # of the weights of the model that this one builds on, or empty


def get(
    key: ModelKey,
    train: Callable[[Path], Training],
    *,
    parent: StoredModel | None = None,
    fresh: bool = False,
) -> StoredModel:
    """Return the model for `key`: from the cache, from `data/models/`, or trained now.

    Parameters
    ----------
    key : ModelKey
    train : callable
        ``train(checkpoint)`` resumes from the file `checkpoint` if that exists. Runs
        under a lock, so that two processes that want the same model train it once.
    parent : StoredModel, optional
        The model that this one builds on. A stored model that was built on other weights is not used: the same description can
        give other weights on another device.
    fresh : bool
        Train again, from the first step, even if a finished model or a checkpoint is there; but keep a model that was made since
        the time in `$REPLICATE_FRESH_SINCE`, so that notebooks of one run that share a model train it once.
    """
    parent_sha256 = parent.sha256 if parent else ""
    own = paths.cache() / "models" / key.filename
    fresh = fresh and not _made_since(own, os.environ.get(FRESH_SINCE))
    if not fresh and (found := _find(key, parent_sha256)):
        return found
    with lock(own.with_suffix(".lock")):
        if not fresh and (
            found := _find(key, parent_sha256)
        ):  # another process trained it while this one waited
            return found
        checkpoint = own.with_suffix(".checkpoint")
        if fresh:
            checkpoint.unlink(missing_ok=True)
        tensors, report, trained_on = train(checkpoint)
        save(own, key, tensors, report, trained_on, parent_sha256)
    return load(own, key)


def chain(
    keys: Sequence[ModelKey], train: Callable[[list[StoredModel], Path], Training], *, fresh: bool = False
) -> list[StoredModel]:
    """The models of successive steps of a training, each built on the one before; see `get`.

    Parameters
    ----------
    train : callable
        ``train(before, checkpoint)`` trains the step after those whose models are `before`.
    """
    models: list[StoredModel] = []
    for key in keys:
        parent = models[-1] if models else None
        models.append(get(key, partial(train, list(models)), parent=parent, fresh=fresh))
    return models


def reports(models: Sequence[StoredModel]) -> list[FitReport]:
    """The record of training up to each step: its own, with the seconds of all steps before added."""
    seconds = accumulate(model.report.seconds for model in models)
    return [replace(model.report, seconds=total) for model, total in zip(models, seconds, strict=True)]


def _made_since(path: Path, seconds: str | None) -> bool:
    """Whether a file was written after a time in seconds since 1970; no time is given outside a run with ``--fresh``."""
    return bool(seconds) and path.exists() and path.stat().st_mtime >= float(seconds)


def _find(key: ModelKey, parent_sha256: str) -> StoredModel | None:
    """A finished model built on the right parent: one trained here before one that came with the repository."""
    for folder in (paths.cache() / "models", paths.models_dir()):
        path = folder / key.filename
        if path.exists() and (model := load(path, key)).parent_sha256 == parent_sha256:
            return model
    return None


def save(
    path: Path,
    key: ModelKey,
    tensors: dict[str, Tensor],
    report: FitReport,
    trained_on: str,
    parent_sha256: str = "",
) -> None:
    """Write a model atomically; weights are rounded to bfloat16, in which networks here compute, vectors stay exact."""
    compact = {name: _compact(value).contiguous().cpu() for name, value in tensors.items()}
    metadata = {
        "key": json.dumps(asdict(key), sort_keys=True),
        "report": json.dumps(asdict(report)),
        "trained_on": trained_on,
        "sha256": _digest(compact),
        "parent_sha256": parent_sha256,
    }
    write_tensors(path, compact, metadata)


def load(path: Path, key: ModelKey | None = None) -> StoredModel:
    """Read one model file.

    Raises
    ------
    ReplicateError
        If the file is damaged, is not a model of this store, or its content does not match its recorded hash.
    """
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
        described = ModelKey(**json.loads(metadata["key"]))
        report = FitReport(**json.loads(metadata["report"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ReplicateError(
            f"model {path}: cannot be read ({error!r}). Delete it to have it trained again."
        ) from error
    if key is not None and described.hash != key.hash:
        raise ReplicateError(
            f"model {path}: describes {described.hash}, expected {key.hash}. Delete it to have it trained again."
        )
    if _digest(tensors) != metadata.get("sha256"):
        raise ReplicateError(
            f"model {path}: its weights do not match their recorded hash. Delete it to have it trained again."
        )
    weights = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    about = (metadata.get(name, "") for name in ("trained_on", "sha256", "parent_sha256"))
    return StoredModel(described, weights, report, *about)


def files() -> Iterator[Path]:
    """All finished models, reference models first."""
    for folder in (paths.models_dir(), paths.cache() / "models"):
        yield from sorted(folder.glob("*.safetensors"))


def _compact(value: Tensor) -> Tensor:
    return (
        value.bfloat16()
        if value.is_floating_point() and value.ndim in (2, 4) and value.numel() > 65536
        else value
    )


def _digest(tensors: dict[str, Tensor]) -> str:
    parts = (
        (name, tensors[name].contiguous().view(-1).view(torch.uint8).numpy()) for name in sorted(tensors)
    )
    return sha256(*(part for pair in parts for part in pair))
