"""Predictions of a fitter of 68 points by where it starts: in the box, or on five points that a network has found (TCNN §5.3)."""

import json
from collections.abc import Sequence
from functools import cache

import numpy as np

from replicate import store
from replicate.evidence.detected import DetectedBoxes, SimulatedBoxes
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.scoring import Score
from replicate.evidence.trained import Predicted, Trained
from replicate.faces.faceset import FaceSet
from replicate.faces.markups import convert
from replicate.faces.sources import FaceSource
from replicate.files import sha256
from replicate.methods import baselines, started, tcnn, tcnn_training
from replicate.methods.baselines import SDM
from replicate.methods.started import Begun
from replicate.methods.tcnn import Model, TCNNConfig
from replicate.store import ModelKey
from replicate.training import FitReport
from replicate.vocabulary import check_one_of

BOX, VANILLA, TCNN, TRUTH = "SDM", "vanilla CNN+SDM", "TCNN+SDM", "true points+SDM"
OWN = "TCNN, own labels+SDM"  # warped training images keep the warped points of their own face
STARTS = (BOX, VANILLA, TCNN, OWN, TRUTH)
NETWORKS = (VANILLA, TCNN, OWN)
INNER = Score("inter-ocular", "49 points")
START = "inter-ocular, at the start"  # key of the error of the shape that the fit begins with
VERSION = 1  # raise when a change here or in `methods.started` gives other shapes

Boxes = DetectedBoxes | SimulatedBoxes


def test_started(
    run: Experiment,
    train: FaceSource,
    five: FaceSource,
    boxes: Boxes,
    start: str,
    *,
    seeds: Sequence[int] = (0,),
    points: bool = False,
) -> list[Predictions]:
    """Runs of SDM on faces of 68 points in some boxes, from one of `STARTS`: one per training seed of the network, if there is one.

    They have the error of 49 points besides, and that of the shape that the fit begins with, `START`. The fit is always the same one, of the run's
    own seed.

    Parameters
    ----------
    train : FaceSource
        Which SDM has learnt from, with 68 points.
    five : FaceSource
        Which the networks have learnt from, with five points.
    boxes : DetectedBoxes or SimulatedBoxes
        The test faces with their boxes for SDM and for the networks.
    start : str
        `BOX`: the mean shape in the box; otherwise the mean shape on the five points of a network, or on the true ones.
    points : bool
        Whether predicted points of generated faces are kept on record for the run's own seed, and not only the errors.
    """
    check_one_of("start", start, STARTS)
    return [
        _test_seed(run, train, five, boxes, start, seed, points and seed == run.seed)
        for seed in (seeds if start in NETWORKS else (run.seed,))
    ]


def _test_seed(
    run: Experiment,
    train: FaceSource,
    five: FaceSource,
    boxes: Boxes,
    start: str,
    seed: int,
    points: bool,
) -> Predictions:
    def obtain() -> Trained:
        def predict(faces: FaceSet) -> list[Predicted]:
            begun = begin(run, train, five, boxes, start, seed, faces)
            return [Predicted(begun.end, more={START: begun.start})]

        models = [
            _fitter(run, train),
            *(_network(run, five, name, seed) for name in NETWORKS if name == start),
        ]
        seconds = sum(taken for _, taken in models)
        return Trained(predict, [FitReport(seconds=seconds)], train)

    keys = [baselines.key(_sdm(run), train, run.profile, run.seed), *_keys(run, five, start, seed)]
    # what is obtained knows the boxes for five points, so it has another name in other boxes
    name = sha256(json.dumps([VERSION, start, boxes.split, *(key.hash for key in keys)]))[:12]
    return run.test([name], boxes, obtain, points, [INNER])[0]


def begin(
    run: Experiment,
    train: FaceSource,
    five: FaceSource,
    boxes: Boxes,
    start: str,
    seed: int,
    faces: FaceSet,
) -> Begun:
    """The fit on some of the test faces, in the boxes that they have; see `test_started`."""
    model = _fitter(run, train)[0]
    if start == BOX:
        return started.from_boxes(model, faces.images, faces.boxes)
    if start == TRUTH:
        return started.from_five(model, faces.images, convert(faces.points, started.ALL, started.FIVE))
    network = _network(run, five, start, seed)[0]
    found = tcnn_training.predict_boxes(network, faces.images, boxes.five_boxes(faces))
    return started.from_five(model, faces.images, np.asarray(found))


def _sdm(run: Experiment) -> SDM:
    return SDM(baselines.SDM_CONFIGS[run.profile])


def _config(run: Experiment, start: str) -> TCNNConfig:
    config = tcnn.CONFIGS[run.profile]
    return config.with_own_labels() if start == OWN else config


def _keys(run: Experiment, five: FaceSource, start: str, seed: int) -> list[ModelKey]:
    """What names the network behind a start, if there is one."""
    if start not in NETWORKS:
        return []
    vanilla, heads = tcnn_training.keys(_config(run, start), five, run.profile, seed)
    return [vanilla if start == VANILLA else heads]


@cache  # several starts share a model, and `fresh` must not train it again for each
def _fitter(run: Experiment, train: FaceSource) -> tuple[SDM, float]:
    """The fitted cascade, and the seconds that it took."""
    model, stored = baselines.obtain(_sdm(run), train, run.profile, run.seed, fresh=run.fresh)
    return model, stored.report.seconds


@cache
def _network(run: Experiment, five: FaceSource, start: str, seed: int) -> tuple[Model, float]:
    """The network behind a start, and the seconds that it took."""
    config, how = _config(run, start), dict(device=run.device, fresh=run.fresh)
    if start == VANILLA:
        model, stored = tcnn_training.obtain_vanilla(config.vanilla, five, run.profile, seed, **how)
        return model, stored.report.seconds
    model, models = tcnn_training.obtain(config, five, run.profile, seed, **how)
    return model, store.reports(models)[-1].seconds
