"""Predictions of LDDR and of the methods that it is compared with."""

import json
from collections.abc import Sequence
from functools import partial

import numpy as np

from replicate import store
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.scoring import LDDR_SCORES
from replicate.evidence.tested.baseline import as_annotated, markup_of, swept_key, test_baseline
from replicate.evidence.trained import Predicted, Trained
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.files import sha256
from replicate.methods import baselines, lddr, lddr_training
from replicate.methods.baselines import MeanShape
from replicate.methods.lddr import LDDR, LDDRConfig

STARTS = (1, 5, 10, 25)  # shapes that LDDR starts from at test, where more than the paper's one are tried


def test_lddr(
    run: Experiment,
    config: LDDRConfig,
    train: FaceSource,
    source: FaceSource,
    *,
    seeds: Sequence[int] = (0,),
    points: bool = False,
    restarts: bool = False,
) -> list[Predictions]:
    """Runs of LDDR on `source`, one per training seed, with the `LDDR_SCORES` besides.

    Faces with 68 points also have the inter-pupil error after each stage, ``"inter-pupil, 3 stages"``, of the initial shape at 0 (see
    `predictions.swept`); their record tells the penalty lambda of each stage.

    Parameters
    ----------
    run : Experiment
        Says profile and device.
    points : bool
        Whether predicted points of generated faces are kept on record for the run's own seed, and not only the errors.
    restarts : bool
        Whether to try several initial shapes at test: ``"inter-pupil, 10 starts"`` is the error of the median, landmark by landmark, of
        the shapes that the mean shape and nine training shapes lead to. The numbers are `STARTS`, as far as there are training shapes.
        Such runs have a record of their own.
    """
    return [
        _test_lddr_seed(run, config, train, source, seed, points and seed == run.seed, restarts)
        for seed in seeds
    ]


def test_lddr_compared(
    run: Experiment,
    train: FaceSource,
    source: FaceSource,
    *,
    seeds: Sequence[int] = (0,),
    points: bool = False,
) -> dict[str, list[Predictions]]:
    """Runs on `source` of LDDR and of the methods of its tables that are part of this suite, by name, all trained on `train`."""
    more = LDDR_SCORES[markup_of(source)]
    sdm = baselines.SDM(baselines.SDM_CONFIGS[run.profile])
    return {
        "mean shape": test_baseline(run, MeanShape(), train, source, points=points, more=more),
        "SDM": test_baseline(run, sdm, train, source, points=points, more=more),
        "LDDR": test_lddr(run, lddr.CONFIGS[run.profile], train, source, seeds=seeds, points=points),
    }


def _test_lddr_seed(
    run: Experiment,
    config: LDDRConfig,
    train: FaceSource,
    source: FaceSource,
    seed: int,
    points: bool,
    restarts: bool,
) -> Predictions:
    def obtain() -> Trained:
        model, models = lddr_training.obtain(
            config, train, run.profile, seed, device=run.device, fresh=run.fresh
        )
        steps = lddr_training.steps(config, train)
        return Trained(
            partial(_predict_lddr, model, train, restarts),
            store.reports(models)[-1:],
            train,
            steps[-1].source if steps else None,
            {"penalties": model.penalties_},
        )

    key = lddr_training.keys(config, train, run.profile, seed)[-1].hash
    name = sha256(json.dumps([key, STARTS]))[:12] if restarts else key
    return run.test([name], source, obtain, points, LDDR_SCORES[markup_of(source)])[0]


def _predict_lddr(model: LDDR, train: FaceSource, restarts: bool, faces: FaceSet) -> list[Predicted]:
    """The last shapes that the mean shape leads to; those of the other stages and starts are further points."""
    stages = model.predict(faces.images, faces.boxes)[:, 0].numpy()  # (T + 1, N, L, 2)
    found = as_annotated(stages[-1], train, faces)
    if faces.markup != "ibug68":
        return [Predicted(found)]
    more = {swept_key(number, "stages"): shapes for number, shapes in enumerate(stages)}
    return [Predicted(found, more=more | (_restarted(model, stages[-1], faces) if restarts else {}))]


def _restarted(model: LDDR, first: np.ndarray, faces: FaceSet) -> dict[str, np.ndarray]:
    """Medians over the first of some starts, by the key of their error.

    Parameters
    ----------
    first : array
        (N, L, 2), what the mean shape leads to.
    """
    # few starts at a time: all of their patches are held
    others = [model.predict(faces.images, faces.boxes, some)[-1] for some in model.examples_.split(4)]
    shapes = np.concatenate([first[None], *(other.numpy() for other in others)])
    known = [count for count in STARTS if count <= len(shapes)]
    return {swept_key(count, "starts"): np.median(shapes[:count], axis=0) for count in known}
