"""Occlusion of landmarks by the earlier kind of method: from the appearance around the landmarks that a cascade has found.

ECT's claim to predict occlusion better than earlier methods needs one of them. RCPR [25] learns, in a cascade of regressions, which landmarks are hidden from
features around their current places. Here the cascade is SDM's; for each landmark, a logistic regression on SDM's descriptor at the place that it has found says
how likely the landmark is hidden. Both are fitted to the same training faces.

References
----------
X. P. Burgos-Artizzu, P. Perona and P. Dollár, Robust Face Landmark Estimation under Occlusion, ICCV 2013.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

from replicate import store
from replicate.devices import describe_device
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.trained import Predicted, Trained
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.methods import baselines
from replicate.methods.baselines import SDM
from replicate.progress import progress_bar
from replicate.store import ModelKey, StoredModel
from replicate.training import FitReport

VERSION = 1  # raise when a change here alters what a fit gives


@dataclass(frozen=True)
class OcclusionConfig:
    """Configuration of `Occlusion`."""

    penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)  # our choice: inverse strengths to choose from
    folds: int = 5  # our choice: of the training faces, to choose by
    least: int = (
        10  # our choice: with fewer hidden or fewer visible faces, a landmark gets its share of hidden ones
    )


class Occlusion:
    """For each landmark, a logistic regression from SDM's descriptor at its place to whether it is hidden.

    Attributes
    ----------
    weights_ : (L, 128) float32 array
    biases_ : (L,) float32 array
    """

    def __init__(self, config: OcclusionConfig | None = None) -> None:
        self.config = config or OcclusionConfig()

    def fit(self, descriptors: np.ndarray, hidden: np.ndarray) -> "Occlusion":
        """Learn from descriptors (N, L, 128) and flags (N, L) of training faces."""
        found = []
        with progress_bar() as progress:
            bar = progress.add_task("occlusion, landmarks", total=hidden.shape[1], remark="")
            for point in range(hidden.shape[1]):
                found.append(self._fit_one(descriptors[:, point], hidden[:, point]))
                progress.advance(bar)
        self.weights_ = np.stack([weights for weights, _ in found]).astype(np.float32)
        self.biases_ = np.array([bias for _, bias in found], np.float32)
        return self

    def probability(self, descriptors: np.ndarray) -> np.ndarray:
        """(N, L): how likely each landmark is hidden, from descriptors (N, L, 128)."""
        return expit(np.einsum("nld,ld->nl", descriptors.astype(np.float32), self.weights_) + self.biases_)

    def _fit_one(self, descriptors: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, float]:
        config, count = self.config, int(hidden.sum())
        if min(count, len(hidden) - count) < config.least:
            return np.zeros(descriptors.shape[1]), float(logit((count + 0.5) / (len(hidden) + 1)))
        scaler = StandardScaler().fit(descriptors)
        search = GridSearchCV(
            LogisticRegression(max_iter=1000),
            {"C": config.penalties},
            scoring="neg_log_loss",
            cv=config.folds,
        )
        chosen = search.fit(scaler.transform(descriptors), hidden).best_estimator_
        weights = chosen.coef_[0] / scaler.scale_
        return weights, float(chosen.intercept_[0] - scaler.mean_ @ weights)


def test_occlusion(run: Experiment, train: FaceSource, source: FaceSource) -> list[Predictions]:
    """One run on `source` of SDM and `Occlusion`, fitted to `train`: SDM's landmarks, with one less the probability of being hidden as confidence."""
    sdm = SDM(baselines.SDM_CONFIGS[run.profile])

    def test() -> Trained:
        cascade, model, stored = obtain(run, sdm, train)
        return Trained(lambda faces: [predict(cascade, model, faces)], [store.reports(stored)[-1]], train)

    return run.test([key(sdm, train, run.profile, run.seed).hash], source, test, points=False)


def predict(cascade: SDM, model: Occlusion, faces: FaceSet) -> Predicted:
    """Landmarks and their confidence."""
    points = cascade.predict(faces.images, faces.boxes)
    hidden = model.probability(cascade.descriptors(faces.images, faces.boxes, points))
    return Predicted(points, 1 - hidden)


def key(sdm: SDM, train: FaceSource, profile: str, seed: int) -> ModelKey:
    """What names the regressions on a cascade's descriptors in the model store."""
    parent = baselines.key(sdm, train, profile, seed)
    config = asdict(OcclusionConfig())
    return ModelKey("sdm-occlusion", config, train.fingerprint, profile, seed, VERSION, parent.hash)


def obtain(run: Experiment, sdm: SDM, train: FaceSource) -> tuple[SDM, Occlusion, list[StoredModel]]:
    """The fitted cascade and regressions with their stored models, fitted now if they are absent.

    Parameters
    ----------
    sdm : SDM
        Says with which configuration.
    """
    cascade, parent = baselines.obtain(sdm, train, run.profile, run.seed, fresh=run.fresh)

    def fit(checkpoint: Path) -> store.Training:
        faces, began = train.load(), time.perf_counter()
        points = cascade.predict(faces.images, faces.boxes)
        made = Occlusion().fit(cascade.descriptors(faces.images, faces.boxes, points), ~faces.visible)
        report = FitReport(seconds=time.perf_counter() - began, stopped="converged")
        tensors = {"weights": torch.from_numpy(made.weights_), "biases": torch.from_numpy(made.biases_)}
        return tensors, report, describe_device("cpu")

    stored = store.get(key(sdm, train, run.profile, run.seed), fit, parent=parent, fresh=run.fresh)
    model = Occlusion()
    model.weights_, model.biases_ = (stored.tensors[name].numpy() for name in ("weights", "biases"))
    return cascade, model, [parent, stored]
