"""Predictions of RNN."""

import json
from collections.abc import Sequence
from functools import partial

from replicate import store
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.tested.baseline import as_annotated, swept_key
from replicate.evidence.trained import Predicted, Trained
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.files import sha256
from replicate.methods import rnn_training
from replicate.methods.rnn import RNN, RNNConfig
from replicate.methods.rnn_training import LAST, MEAN, PEAKS

MEAN_START, PEAKS_ALONE = f"inter-pupil, from the {MEAN}", "inter-pupil, peaks of conv8"
CANDIDATES = {"smoke": (10, 20), "cpu": (500, 5000), "gpu": (500, 5000)}  # Table X, besides those in use


def test_rnn(
    run: Experiment,
    config: RNNConfig,
    train: FaceSource,
    source: FaceSource,
    *,
    seeds: Sequence[int] = (0,),
    points: bool = False,
    starts: bool = False,
) -> list[Predictions]:
    """Runs of RNN on `source`, one per training seed.

    They also have the error after each step, ``"inter-pupil, 3 steps"``, of the initial shape at 0 (see `predictions.swept`), and that of the
    peaks of conv8, `PEAKS_ALONE`.

    Parameters
    ----------
    run : Experiment
        Says profile and device.
    points : bool
        Whether predicted points of generated faces are kept on record for the run's own seed, and not only the errors.
    starts : bool
        Whether the same network begins from the mean shape besides, `MEAN_START`, and from other numbers of candidates,
        ``"inter-pupil, 500 candidates"``; and of each the error before the first step, ``"inter-pupil, 500 candidates, start"``. Such runs have
        a record of their own.
    """
    return [
        _test_seed(run, config, train, source, seed, points and seed == run.seed, starts) for seed in seeds
    ]


def _test_seed(
    run: Experiment,
    config: RNNConfig,
    train: FaceSource,
    source: FaceSource,
    seed: int,
    points: bool,
    starts: bool,
) -> Predictions:
    def obtain() -> Trained:
        network, models = rnn_training.obtain(
            config, train, run.profile, seed, device=run.device, fresh=run.fresh
        )
        others = {
            count: rnn_training.obtain_candidates(config, train, run.profile, seed, count)
            for count in (CANDIDATES[run.profile] if starts else ())
        }
        return Trained(partial(_predict, network, train, others), store.reports(models)[-1:], train)

    key = rnn_training.keys(config, train, run.profile, seed)[-1].hash
    name = sha256(json.dumps([key, CANDIDATES[run.profile]]))[:12] if starts else key
    return run.test([name], source, obtain, points=points)[0]


def _predict(network: RNN, train: FaceSource, others: dict, faces: FaceSet) -> list[Predicted]:
    """The last shapes; those of the other steps and starts are further points."""
    wanted = {LAST: LAST, PEAKS: PEAKS} | ({MEAN: MEAN} | others if others else {})
    found = rnn_training.predict_boxes(network, faces.images, faces.boxes, wanted)
    ends = {name: as_annotated(steps[-1], train, faces) for name, steps in found.items()}
    more = {
        swept_key(number, "steps"): as_annotated(one, train, faces) for number, one in enumerate(found[LAST])
    }
    more |= {PEAKS_ALONE: ends[PEAKS]}
    if others:
        begun = {swept_key(count, "candidates"): count for count in others}
        begun |= {swept_key(network.config.candidates, "candidates"): LAST, MEAN_START: MEAN}
        more |= {key: ends[name] for key, name in begun.items()}
        more |= {f"{key}, start": as_annotated(found[name][0], train, faces) for key, name in begun.items()}
    return [Predicted(ends[LAST], more=more)]
