"""Prediction files: what one model said about one test set, from which every metric, curve and test is computed.

One ``.npz`` without pickled objects per model and test set. Points of real faces are another person's data:
they may go
to the cache, never to the recorded results.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from replicate.errors import ReplicateError
from replicate.files import atomic_write
from replicate.metrics import NORMALISERS, PIXEL
from replicate.paths import cache, results_dir
from replicate.vocabulary import FACES, PAPERS, check_one_of

STEPS_PER_PIXEL = 100  # resolution of recorded points
_FORMAT = 1
_DAMAGE = (
    ValueError,
    TypeError,
    KeyError,
    OSError,
    EOFError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Predictions:
    """Predictions of one model on one test set.

    Parameters
    ----------
    model : str
        Key of the model.
    testset : str
        ``"300w-common"``: protocol and subset.
    faces : str
        ``synthetic`` or ``real``.
    names : tuple of str
        N image names.
    errors : dict of str to (N,) array
        Error of each image in per cent, or in pixels, by key (see `replicate.evidence.scoring`); infinite for a face without
        prediction.
    points : (N, L, 2) array or None
        Predicted landmarks in image pixels.
    provenance : dict
        JSON values that say how the predictions came about: device, seconds of training, hash of the test
        faces, box rule.
    confidence : (N, L) array or None
        How sure each landmark is; kept to three digits.

    Raises
    ------
    ReplicateError
        If sizes disagree, a name is missing or given twice, or a number is NaN or negative.
    """

    model: str
    testset: str
    faces: str
    names: tuple[str, ...]
    errors: Mapping[str, np.ndarray] = field(repr=False)
    points: np.ndarray | None = field(default=None, repr=False)
    provenance: Mapping = field(default_factory=dict)
    confidence: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_one_of("faces", self.faces, FACES)
        for name in ("model", "testset"):
            text = getattr(self, name)
            if not text or any(letter in text for letter in "/\\\0") or text.startswith("."):
                raise ReplicateError(f"{name}: got {text!r}, expected a name that can be part of a file name")
        object.__setattr__(self, "names", tuple(map(str, self.names)))
        if not self.names or len(set(self.names)) != len(self.names):
            raise ReplicateError(
                f"names: got {len(self.names)}, {len(set(self.names))} different; expected distinct names"
            )
        object.__setattr__(self, "errors", {name: self._checked(name, e) for name, e in self.errors.items()})
        if self.points is not None:
            self._check_points()
        if self.confidence is not None:
            self._check_confidence()

    def _checked(self, key: str, errors: np.ndarray) -> np.ndarray:
        check_one_of("normaliser", key.partition(", ")[0], (*NORMALISERS, PIXEL))
        errors = np.asarray(errors, np.float64)
        if errors.shape != (len(self.names),) or not (errors >= 0).all():
            raise ReplicateError(
                f"errors[{key!r}]: got shape {errors.shape}, {np.isnan(errors).sum()} NaN and "
                f"{(errors < 0).sum()} negative; expected one error for each of {len(self.names)} names"
            )
        return errors

    def _check_points(self) -> None:
        points = np.asarray(self.points, np.float32)
        if points.ndim != 3 or points.shape[0] != len(self.names) or points.shape[2] != 2:
            raise ReplicateError(f"points: got shape {points.shape}, expected ({len(self.names)}, L, 2)")
        if not np.isfinite(points).all():
            raise ReplicateError(f"points: {(~np.isfinite(points)).sum()} coordinates are NaN or infinite")
        object.__setattr__(self, "points", points)

    def _check_confidence(self) -> None:
        kept = np.asarray(self.confidence, np.float16).astype(np.float32)  # as a file gives it back
        if kept.ndim != 2 or len(kept) != len(self.names) or not np.isfinite(kept).all():
            raise ReplicateError(
                f"confidence: got shape {kept.shape} with {(~np.isfinite(kept)).sum()} NaN or infinite; expected ({len(self.names)}, L)"
            )
        object.__setattr__(self, "confidence", kept)

    @property
    def markup(self) -> str:
        """Markup of the test faces; records that do not name it are older than tests in any other markup."""
        return self.provenance.get("markup", "ibug68")


Runs = Mapping[
    str, Sequence[Predictions]
]  # by method or by test set: one run per training seed, a method's on the same faces


def path_of(model: str, testset: str, paper: str, profile: str, folder: Path | None = None) -> Path:
    """File of the predictions of `model` on `testset`; `folder` replaces the profile's results folder."""
    check_one_of("paper", paper, PAPERS)
    return (folder or results_dir(profile)) / paper / "predictions" / f"{model}.{testset}.npz"


def without_points(predictions: Predictions) -> Predictions:
    """What may be recorded of predictions on real faces: names and errors."""
    return replace(predictions, points=None)


def save(predictions: Predictions, paper: str, profile: str, folder: Path | None = None) -> Path:
    """Write a prediction file; one on file that says the same is left as it is.

    Points are kept to a hundredth of a pixel, 689 faces of 68 points in less than 150 kB.

    Parameters
    ----------
    predictions : Predictions
        What to write.
    paper, profile : str
        Where it belongs.
    folder : Path, optional
        Another folder than the profile's results, inside the cache for points of real faces.

    Raises
    ------
    ReplicateError
        For points of real faces outside the cache, or if the file cannot be written.
    """
    path = path_of(predictions.model, predictions.testset, paper, profile, folder)
    kept_private = path.resolve().is_relative_to(cache().resolve())
    if predictions.faces == "real" and predictions.points is not None and not kept_private:
        raise ReplicateError(
            f"points: predictions on real faces may not be recorded in {path.parent}; pass without_points(predictions), "
            "or a folder inside the cache"
        )
    if path.exists() and _agrees(path, predictions):
        return path
    arrays = _packed(predictions)
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, **arrays)
    return path


def load(model: str, testset: str, paper: str, profile: str, folder: Path | None = None) -> Predictions:
    """Read a prediction file.

    Raises
    ------
    ReplicateError
        If there is none, or if it is damaged or inconsistent; the message names it.
    """
    path = path_of(model, testset, paper, profile, folder)
    if not path.exists():
        raise ReplicateError(
            f"{path} does not exist: the model has not been tested on {testset} at profile {profile}"
        )
    return read(path)


def read(path: Path) -> Predictions:
    """Read one prediction file by its path, see `load`."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _unpacked({name: arrays[name] for name in arrays.files})
    except _DAMAGE as error:
        raise ReplicateError(
            f"{path} is not a prediction file ({error}). Delete it and test the model again, or restore it."
        ) from error


def stacked_errors(runs: list[Predictions], normaliser: str) -> np.ndarray:
    """Errors ``(S, N)`` of S models on the same images, rows in the order given.

    Raises
    ------
    ReplicateError
        If the runs were not tested on the same images or lack the normaliser.
    """
    if not runs or any(run.names != runs[0].names for run in runs):
        raise ReplicateError("runs: expected at least one, all tested on the same images in the same order")
    for run in runs:
        check_one_of(f"normaliser of {run.model}", normaliser, run.errors)
    return np.stack([run.errors[normaliser] for run in runs])


def paired_errors(
    left: Sequence[Predictions], right: Sequence[Predictions], normaliser: str
) -> tuple[np.ndarray, np.ndarray]:
    """`stacked_errors` of two methods with the seeds that both have: runs are in the order of their seeds, and some methods have more."""
    both = min(len(left), len(right))
    return stacked_errors(list(left)[:both], normaliser), stacked_errors(list(right)[:both], normaliser)


def same_seeds(results: Runs, *methods: str) -> dict[str, Sequence[Predictions]]:
    """Some methods with the seeds that all of them have."""
    count = min(len(results[method]) for method in methods)
    return {method: results[method][:count] for method in methods}


def swept(runs: Sequence[Predictions], normaliser: str, what: str) -> tuple[tuple[int, ...], np.ndarray]:
    """Errors of S models at all K settings that were tried of one quantity, and these settings.

    Parameters
    ----------
    normaliser, what : str
        ``"inter-pupil"`` and ``"iterations"`` or ``"components"``: of the keys ``"inter-pupil, 3 iterations"``.

    Returns
    -------
    settings : tuple of int
        (K,) ascending; ``all components`` are as many as the shape model has.
    errors : array
        (S, N, K).

    Raises
    ------
    ReplicateError
        If the runs lack them, or were not tested on the same images.
    """
    start, end = f"{normaliser}, ", f" {what}"
    by_setting = {}
    for key in runs[0].errors:
        if key.startswith(start) and key.endswith(end):
            setting = key[len(start) : -len(end)]
            number = runs[0].provenance["shape_components"] if setting == "all" else int(setting)
            by_setting[number] = stacked_errors(list(runs), key)
    if not by_setting:
        raise ReplicateError(f"{runs[0].model}: no errors by number of {what} in {', '.join(runs[0].errors)}")
    settings = tuple(sorted(by_setting))
    return settings, np.stack([by_setting[setting] for setting in settings], -1)


def under(runs: Sequence[Predictions], condition: str) -> list[Predictions]:
    """The same runs as they were under a condition that was tried beside, ``"10 components"``: with its errors by normaliser, and no others.

    Raises
    ------
    ReplicateError
        If a run lacks it.
    """
    found = []
    for run in runs:
        errors = {
            key.removesuffix(f", {condition}"): e
            for key, e in run.errors.items()
            if key.endswith(f", {condition}")
        }
        if not errors:
            raise ReplicateError(f"condition: got {condition!r}, but {run.model} has {', '.join(run.errors)}")
        found.append(replace(run, errors=errors, points=None, confidence=None))
    return found


def trained_on(provenance: Mapping) -> str:
    """In words, how many faces a model was trained on."""
    text = f"trained on {provenance['training_faces']:,} faces"
    before = provenance.get("trained_before_on")
    return f"{text} after {before:,} generated ones" if before else text


def joined(runs: Sequence[Predictions], testset: str) -> Predictions:
    """One run from the runs of the same model on disjoint test sets, with the errors that all of them have."""
    if len(runs) == 1:
        return runs[0]
    first = runs[0]
    shared = [key for key in first.errors if all(key in run.errors for run in runs)]
    hashes = " ".join(run.provenance["faces_sha256"] for run in runs)
    return Predictions(
        first.model,
        testset,
        first.faces,
        tuple(name for run in runs for name in run.names),
        {key: np.concatenate([run.errors[key] for run in runs]) for key in shared},
        _together([run.points for run in runs]),
        {**first.provenance, "faces_sha256": hashes},
        _together([run.confidence for run in runs]),
    )


def _together(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """All parts in a row; None if one is not kept."""
    return None if any(part is None for part in parts) else np.concatenate(parts)


def _packed(predictions: Predictions) -> dict[str, np.ndarray]:
    arrays = {
        "format": np.array(_FORMAT),
        "about": np.array([predictions.model, predictions.testset, predictions.faces]),
        "names": np.array(predictions.names),
        "provenance": np.array(json.dumps(dict(predictions.provenance))),
    }
    arrays |= {f"error {name}": errors.astype(np.float32) for name, errors in predictions.errors.items()}
    if predictions.points is not None:
        arrays |= _packed_points(predictions.points)
    if predictions.confidence is not None:
        arrays["confidence"] = predictions.confidence.astype(np.float16)
    return arrays


def _packed_points(points: np.ndarray) -> dict[str, np.ndarray]:
    """Whole steps from the mean shape, each landmark relative to the one before, high and low bytes apart.

    Neighbouring landmarks are off the mean by much the same, so the high bytes of their differences compress well.
    """
    mean = points.mean(axis=0, dtype=np.float64).astype(np.float32)
    steps = np.rint((points - mean.astype(np.float64)) * STEPS_PER_PIXEL)
    if np.abs(steps).max(initial=0) > np.iinfo(np.int16).max:
        return {"points": points}  # images far larger than a face crop
    differences = np.diff(steps.astype(np.int64), axis=1, prepend=0)
    planes = (differences % 2**16).astype("<u2")[..., None].view(np.uint8)  # a sum modulo 2^16 undoes it
    return {"points mean": mean, "points steps": np.moveaxis(planes, -1, 0)}


def _steps(planes: np.ndarray) -> np.ndarray:
    """Undo `_packed_points`: (N, L, 2, 2) bytes to (N, L, 2) steps from the mean shape."""
    differences = planes.view("<u2")[..., 0].astype(np.int64)
    return (np.cumsum(differences, axis=1) % 2**16).astype("<u2").view("<i2").astype(np.float64)


def _unpacked(arrays: dict[str, np.ndarray]) -> Predictions:
    if int(arrays["format"]) != _FORMAT:
        raise ReplicateError(f"format {arrays['format']}, expected {_FORMAT}")
    points = arrays.get("points")
    if "points steps" in arrays:
        planes = np.ascontiguousarray(np.moveaxis(arrays["points steps"], 0, -1))
        points = arrays["points mean"] + _steps(planes) / STEPS_PER_PIXEL
    errors = {name.removeprefix("error "): arrays[name] for name in arrays if name.startswith("error ")}
    model, testset, faces = map(str, arrays["about"])
    provenance = json.loads(str(arrays["provenance"]))
    names = tuple(map(str, arrays["names"]))
    return Predictions(model, testset, faces, names, errors, points, provenance, arrays.get("confidence"))


def _agrees(path: Path, predictions: Predictions) -> bool:
    """Whether the file holds these predictions, to the resolution of the file."""
    try:
        old = read(path)
    except ReplicateError:
        return False  # a damaged file is replaced
    about = [
        (p.model, p.testset, p.faces, p.names, set(p.errors), _shape(p.points), _shape(p.confidence))
        for p in (old, predictions)
    ]
    if about[0] != about[1]:
        return False
    pairs = [(old.errors[key], errors, dict(rtol=1e-4)) for key, errors in predictions.errors.items()]
    pairs.append((old.points, predictions.points, dict(rtol=0, atol=1.5 / STEPS_PER_PIXEL)))
    pairs.append((old.confidence, predictions.confidence, dict(rtol=0, atol=2e-3)))
    return all(np.allclose(one, other, **near) for one, other, near in pairs if other is not None)


def _shape(array: np.ndarray | None) -> tuple[int, ...] | None:
    return None if array is None else array.shape
