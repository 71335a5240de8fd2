"""Predictions of DAN and of the methods that it is compared with."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from replicate import store
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.tested.baseline import test_baseline
from replicate.evidence.trained import Predicted, Trained
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.methods import baselines, dan, dan_training
from replicate.methods.dan import DANConfig


def test_dan(
    run: Experiment,
    config: DANConfig,
    train: FaceSource,
    source: FaceSource,
    *,
    stages: int = 2,
    seeds: Sequence[int] = (0,),
    points: bool = True,
) -> list[list[Predictions]]:
    """Runs of DAN on `source`, one per training seed, after each step of its training: the last item is the finished network.

    Parameters
    ----------
    run : Experiment
        Says profile and device.
    points : bool
        Whether predicted points of generated faces are kept on record for the run's own seed, and not only the errors.
    """
    by_seed = [
        _test_seed(run, config, train, source, stages, seed, points and seed == run.seed) for seed in seeds
    ]
    return [list(runs) for runs in zip(*by_seed, strict=True)]


def test_compared(run: Experiment, source: FaceSource) -> dict[str, list[Predictions]]:
    """Runs on `source` of the methods of DAN's Tables 2 to 4 that are part of this suite, by name; DAN's over several seeds.

    DAN-Menpo is left out where the training faces of Menpo are not at hand.
    """
    train, more = run.source("300w", "train"), run.source("300w", "train+menpo")
    config, seeds = dan.CONFIGS[run.profile, run.faces], run.seeds(3)
    sdm = baselines.SDM(baselines.SDM_CONFIGS[run.profile])
    found = {
        "mean shape": test_baseline(run, baselines.MeanShape(), train, source),
        "SDM": test_baseline(run, sdm, train, source),
        "DAN": test_dan(run, config, train, source, seeds=seeds)[-1],
    }
    if more.available:
        found["DAN-Menpo"] = test_dan(run, config, more, source, seeds=seeds)[-1]
    return found


def _test_seed(
    run: Experiment,
    config: DANConfig,
    train: FaceSource,
    source: FaceSource,
    stages: int,
    seed: int,
    points: bool,
) -> list[Predictions]:
    # the first step of a joint training is another network's first stage, and is tested there
    steps = dan_training.steps(config, stages)
    tested = slice(-1, None) if steps[-1].joint else slice(None)

    def obtain() -> Trained:
        network, models = dan_training.obtain(
            config, stages, train, run.profile, seed, device=run.device, fresh=run.fresh
        )
        predict = partial(_predict_steps, network, tested)
        before = dan_training.pretraining_faces(config, train)
        return Trained(predict, store.reports(models)[tested], train, before)

    keys = dan_training.keys(config, stages, train, run.profile, seed)
    return run.test([key.hash for key in keys][tested], source, obtain, points=points)


def _predict_steps(network: dan.DAN, tested: slice, faces: FaceSet) -> list[Predicted]:
    return [Predicted(np.asarray(points)) for points in dan.predict_faces(network, faces)[tested]]
