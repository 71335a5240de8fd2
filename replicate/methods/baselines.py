"""Baselines: the mean shape in the box, and the Supervised Descent Method (SDM).

Convention: landmarks are ``(N, L, 2)`` arrays of (x, y) in pixels of each image, the centre of the top-left
pixel at (0, 0); boxes are ``(N, 4)`` arrays ``(x_min, y_min, x_max, y_max)``. Box coordinates are relative to
the centre of the box, in units of the mean of its width and height.

References
----------
X. Xiong and F. De la Torre, Supervised Descent Method and its Applications to Face Alignment, CVPR 2013.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from replicate import store
from replicate.devices import describe_device
from replicate.errors import ReplicateError
from replicate.faces.faceset import FaceSet
from replicate.faces.images import to_grey
from replicate.faces.markups import markup
from replicate.faces.sources import FaceSource
from replicate.progress import progress_bar
from replicate.regression import linear, mean_square, ridge
from replicate.store import ModelKey, StoredModel
from replicate.training import FitReport

VERSION = 1  # raise when a change here alters what a fit gives
_CHUNK = 256  # faces whose crops are held at a time
_THREADS = 2


class MeanShape:
    """Predict the mean training shape in every box, whatever the image shows.

    The floor under every method: one that does not beat it has learnt nothing.

    Attributes
    ----------
    shape_ : (L, 2) float32 array
        The mean of the training shapes in box coordinates.
    """

    def fit(self, faces: FaceSet) -> "MeanShape":
        """Average the shapes of the training faces, each seen from its box."""
        self.shape_ = _to_box(_all_points(faces), faces.boxes).mean(axis=0).astype(np.float32)
        return self

    def predict(self, images: Sequence[np.ndarray], boxes: np.ndarray) -> np.ndarray:
        """Place the mean shape in the boxes: ``(N, L, 2)`` float32. The images are not looked at."""
        return _from_box(self.shape_, _checked_boxes(images, boxes)).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that was learnt."""
        return {"shape": self.shape_}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "MeanShape":
        """Rebuild a fitted baseline from `arrays`."""
        model = cls()
        model.shape_ = np.asarray(arrays["shape"])
        return model


@dataclass(frozen=True)
class SDMConfig:
    """Configuration of `SDM`."""

    stages: int = 5  # §3.2: converges in four to five steps
    patch: float = 32.0  # side of a descriptor's window in working pixels; §4: 32 x 32
    perturbations: int = (
        5  # initial shapes for each training face; §3.2 samples them, the number is our choice
    )
    shift_sd: float = 0.08  # of the initial shapes, in box sides; our choice, by validation
    log_scale_sd: float = 0.1  # our choice, by validation
    mirror: bool = True  # train on mirrored faces too; our choice: it doubles the training faces
    box_side: int = 100  # pixels of the box in the working image; our choice
    ridge: float = 30.0  # penalty in mean eigenvalues of the centred normal matrix; our choice, by validation


class SDM:
    """Cascade of linear regressions from SIFT descriptors at the current points to the remaining step.

    Faces are resampled so that the box has a fixed side. Each stage k learns the generic descent direction
    R_k and the bias b_k that minimise ``||x* - x_k - R_k phi_k - b_k||^2`` over training faces and initial
    shapes (§3.2), where phi_k are upright SIFT descriptors of fixed scale around the points x_k.

    Parameters
    ----------
    config : SDMConfig
        See there.

    Attributes
    ----------
    initial_ : (L, 2) float32 array
        Mean shape x_0 in box coordinates.
    regressors_ : (stages, 128 L, 2 L) float32 array
        R_k, transposed, in box sides per unit of a descriptor.
    biases_ : (stages, 2 L) float32 array
        b_k.
    """

    def __init__(self, config: SDMConfig | None = None) -> None:
        self.config = config or SDMConfig()

    def fit(self, faces: FaceSet, seed: int = 0) -> "SDM":
        """Learn the cascade.

        Parameters
        ----------
        faces : FaceSet
            Training faces; every point must be known.
        seed : int
            Seed of the initial shapes.

        Raises
        ------
        ReplicateError
            If a point is missing.
        """
        target = _to_box(_all_points(faces), faces.boxes)  # (N, L, 2)
        crops = self._crops(faces.images, faces.boxes)
        if self.config.mirror:
            target = np.concatenate([target, target[:, markup(faces.markup).mirror] * (-1, 1)])
            crops += [np.ascontiguousarray(crop[:, ::-1]) for crop in crops]
        self.initial_ = target.mean(axis=0).astype(np.float32)
        shapes = self._initial_shapes(len(crops), seed)  # (N, P, L, 2)
        regressors, biases = [], []
        with progress_bar() as progress:
            bar = progress.add_task("SDM stages", total=self.config.stages, remark="")
            for _ in range(self.config.stages):
                features = torch.from_numpy(self._features(crops, shapes)).flatten(0, 1)  # (N * P, 128 L)
                steps = torch.from_numpy(target[:, None] - shapes).flatten(0, 1).flatten(1)
                eigenvalue = mean_square(features, centred=True) * len(features)  # the mean one
                fitted = ridge(features, steps, self.config.ridge * eigenvalue)
                shapes += linear(features, fitted).numpy().reshape(shapes.shape)
                regressors.append(fitted.weights.numpy())
                biases.append(fitted.bias.numpy())
                progress.advance(bar)
        self.regressors_, self.biases_ = np.stack(regressors), np.stack(biases)
        return self

    def predict(
        self, images: Sequence[np.ndarray], boxes: np.ndarray, starts: np.ndarray | None = None
    ) -> np.ndarray:
        """Descend from the mean shape in each box, or from given shapes: ``(N, L, 2)`` float32 in pixels of the images.

        Parameters
        ----------
        images : sequence of arrays
            N grey or RGB images.
        boxes : (N, 4) array
            Place and scale of the working images.
        starts : (N, L, 2) array, optional
            Initial shapes in pixels of the images.

        Raises
        ------
        ReplicateError
            If the starts are not as many shapes of L finite points.
        """
        boxes = _checked_boxes(images, boxes)
        shapes = self._starts(boxes, starts)[:, None]  # (N, 1, L, 2)
        for part, crops in self._parts(images, boxes):
            for regressor, bias in zip(self.regressors_, self.biases_, strict=True):
                features = self._features(crops, shapes[part])[:, 0].astype(np.float32)
                shapes[part] += (features @ regressor + bias).reshape(shapes[part].shape)
        return _from_box(shapes[:, 0], boxes).astype(np.float32)

    def descriptors(self, images: Sequence[np.ndarray], boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
        """SIFT descriptors at `points` (N, L, 2) of the images, as the cascade sees them: (N, L, 128) uint8."""
        boxes = _checked_boxes(images, boxes)
        shapes, found = _to_box(points, boxes)[:, None], []
        for part, crops in self._parts(images, boxes):
            found.append(self._features(crops, shapes[part])[:, 0])
        return np.concatenate(found).reshape(*points.shape[:2], -1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that was learnt."""
        return {"initial": self.initial_, "regressors": self.regressors_, "biases": self.biases_}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], config: SDMConfig | None = None) -> "SDM":
        """Rebuild a fitted cascade from `arrays` and its configuration."""
        model = cls(config)
        model.initial_, model.regressors_, model.biases_ = (
            np.asarray(arrays[name]) for name in ("initial", "regressors", "biases")
        )
        return model

    def _starts(self, boxes: np.ndarray, starts: np.ndarray | None) -> np.ndarray:
        """Where the descent begins, in box coordinates: (N, L, 2) float32."""
        expected = (len(boxes), *self.initial_.shape)
        if starts is None:
            return np.broadcast_to(self.initial_, expected).copy()
        starts = np.asarray(starts, dtype=float)
        if starts.shape != expected or not np.isfinite(starts).all():
            raise ReplicateError(
                f"starts: got shape {starts.shape} with {(~np.isfinite(starts)).sum()} NaN or infinite coordinates, "
                f"expected {expected} in pixels of the images"
            )
        return _to_box(starts, boxes).astype(np.float32)

    def _initial_shapes(self, count: int, seed: int) -> np.ndarray:
        rng, config = np.random.default_rng(seed), self.config
        size = (count, config.perturbations, 1)
        scale = np.exp(rng.normal(0, config.log_scale_sd, (*size, 1)))
        shift = rng.normal(0, config.shift_sd, (*size, 2))
        return (self.initial_ * scale + shift).astype(np.float32)

    def _parts(
        self, images: Sequence[np.ndarray], boxes: np.ndarray
    ) -> Iterator[tuple[slice, list[np.ndarray]]]:
        """Crops of so many faces at a time as memory allows, and which faces they are."""
        for start in range(0, len(boxes), _CHUNK):
            part = slice(start, start + _CHUNK)
            yield part, self._crops([images[i] for i in range(*part.indices(len(boxes)))], boxes[part])

    def _crops(self, images: Sequence[np.ndarray], boxes: np.ndarray) -> list[np.ndarray]:
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(self._crop, images, np.asarray(boxes, dtype=float)))

    def _crop(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Resample the surroundings of a box to a grey square of twice the working side, in its middle."""
        side = 2 * self.config.box_side
        scale = self.config.box_side / _side(box)
        shift = (side - 1) / 2 - scale * _centre(box)
        image = to_grey(image)
        if scale < 1:  # remove what the working image is too coarse to show
            image = cv2.GaussianBlur(image, (0, 0), 0.5 * np.sqrt(scale**-2 - 1))
        transform = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        return cv2.warpAffine(image, transform, (side, side), borderMode=cv2.BORDER_REPLICATE)

    def _features(self, crops: Sequence[np.ndarray], shapes: np.ndarray) -> np.ndarray:
        """SIFT descriptors of all shapes (N, P, L, 2) on their crops: (N, P, 128 L), integers below 256."""
        centre = (2 * self.config.box_side - 1) / 2
        positions = shapes * self.config.box_side + centre
        with ThreadPoolExecutor(_THREADS) as pool:
            features = list(pool.map(self._descriptors, crops, positions))
        return np.stack(features).reshape(*shapes.shape[:2], -1)

    def _descriptors(self, crop: np.ndarray, positions: np.ndarray) -> np.ndarray:
        diameter = self.config.patch / 6  # OpenCV's window is 4 bins of 1.5 diameters
        keypoints = [cv2.KeyPoint(x, y, diameter, 0) for x, y in positions.reshape(-1, 2).tolist()]
        return cv2.SIFT_create().compute(crop, keypoints)[1].astype(np.uint8)


SDM_CONFIGS = {
    "smoke": SDMConfig(stages=2, perturbations=1),
    "cpu": SDMConfig(),
    "gpu": SDMConfig(perturbations=10),
}


def key(model: MeanShape | SDM, source: FaceSource, profile: str, seed: int) -> ModelKey:
    """What names a baseline in the model store."""
    config = asdict(model.config) if isinstance(model, SDM) else {}
    return ModelKey(type(model).__name__.lower(), config, source.fingerprint, profile, seed, VERSION)


def obtain(
    model: MeanShape | SDM, source: FaceSource, profile: str, seed: int, *, fresh: bool = False
) -> tuple[MeanShape | SDM, StoredModel]:
    """A fitted baseline from the model store, fitted now if it is absent.

    Parameters
    ----------
    model : MeanShape or SDM
        Says which baseline, and with which configuration; it is not changed.
    source : FaceSource
        The training faces, loaded only if needed.
    """

    def fit(checkpoint: Path) -> tuple[dict[str, Tensor], FitReport, str]:
        faces, started = source.load(), time.perf_counter()
        fitted = (
            type(model)(model.config).fit(faces, seed) if isinstance(model, SDM) else MeanShape().fit(faces)
        )
        report = FitReport(seconds=time.perf_counter() - started, stopped="closed form")
        return (
            {name: torch.from_numpy(array) for name, array in fitted.arrays().items()},
            report,
            describe_device("cpu"),
        )

    stored = store.get(key(model, source, profile, seed), fit, fresh=fresh)
    arrays = {name: tensor.numpy() for name, tensor in stored.tensors.items()}
    made = SDM.from_arrays(arrays, model.config) if isinstance(model, SDM) else MeanShape.from_arrays(arrays)
    return made, stored


def _centre(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _side(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).mean(axis=-1)


def _to_box(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    return (points - _centre(boxes)[:, None]) / _side(boxes)[:, None, None]


def _from_box(shapes: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    return shapes * _side(boxes)[:, None, None] + _centre(boxes)[:, None]


def _all_points(faces: FaceSet) -> np.ndarray:
    missing = np.argwhere(~np.isfinite(faces.points).all(axis=2))
    if len(missing):
        raise ReplicateError(
            f"faces: point {missing[0, 1]} of {faces.names[missing[0, 0]]} is missing ({len(missing)} such); "
            "this baseline needs every point, so leave such faces out"
        )
    return faces.points


def _checked_boxes(images: Sequence[np.ndarray], boxes: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes, dtype=float)
    if boxes.shape != (len(images), 4) or not (boxes[:, 2:] > boxes[:, :2]).all():
        raise ReplicateError(
            f"boxes: got shape {boxes.shape} for {len(images)} images; expected (N, 4) as "
            "(x_min, y_min, x_max, y_max) with x_min < x_max and y_min < y_max"
        )
    return boxes
