"""Predictions of ECT and of what it is made of."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor

from replicate import store
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.scoring import INNER
from replicate.evidence.tested.baseline import as_annotated, markup_of, swept_key
from replicate.evidence.trained import Predicted, Trained
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.files import sha256
from replicate.methods import ect_fitting, ect_training
from replicate.methods.ect import FCN, ECTConfig
from replicate.methods.ect_fitting import PDM, Fit, Fitted
from replicate.vocabulary import check_one_of

CORRECTION = "weighted correction"  # what CRM-CLM-C and ECT tune
CLIMBED = "CRM between pixels"  # no method of the paper: what the grid of pixels costs CRM
ECT_METHODS = (*ect_fitting.METHODS, CORRECTION, CLIMBED)
TUNED = ("CRM-CLM", "ECT")  # ECT's Fig. 10c, after 0 to `ITERATIONS` iterations
ITERATIONS = 10
SHAPED = ("CRM-PDM", "CRM-CLM", "ECT")  # ECT's Fig. 10b, for `COMPONENTS`
COMPONENTS: tuple[int | str, ...] = (5, 10, 20, 30, 40, 60, 80, 100, "all")
SWEPT = ("common", "challenging")  # the parts of 300-W on which both are tried, by the dilated network


def test_ect(
    run: Experiment,
    config: ECTConfig,
    train: FaceSource,
    source: FaceSource,
    *,
    network: str = "dilated",
    seeds: Sequence[int] = (0,),
    methods: Sequence[str] = ECT_METHODS,
    sweeps: bool = True,
) -> dict[str, list[Predictions]]:
    """Runs on `source` of the methods of ECT's Table VIII, of the start of the last two, `CORRECTION`, and of the peaks between pixels,
    `CLIMBED`: by name, one per training seed.

    All methods of a seed fit the response maps of one network. Errors go on record, not points. Faces with 68 points also have the errors
    without the jaw line. On the full set of 300-W and its parts, the dilated network also has the errors of the methods `TUNED` after each
    iteration, and of the methods `SHAPED` for several numbers of shape components (see `predictions.swept`). COFW has the confidences of ECT.

    Parameters
    ----------
    run : Experiment
        Says profile and device.
    config : ECTConfig
        Of the dilated network and of the fit.
    train : FaceSource
        For AFW that of AFLW-PIFA, whose 34 points include the six.
    network : str
        One of `ect.NETWORKS`; the configuration's gives way to it.
    methods : sequence of str
        Which of `ECT_METHODS`.
    sweeps : bool
        False saves the time of the errors by iteration and number of components, for variants of which nobody asks for them.
    """
    for method in methods:
        check_one_of("method", method, ECT_METHODS)
    config = replace(config, network=network)
    by_seed = [_test_ect_seed(run, config, train, source, seed, methods, sweeps) for seed in seeds]
    return {name: list(runs) for name, runs in zip(methods, zip(*by_seed, strict=True), strict=True)}


def _test_ect_seed(
    run: Experiment,
    config: ECTConfig,
    train: FaceSource,
    source: FaceSource,
    seed: int,
    methods: Sequence[str],
    sweeps: bool,
) -> list[Predictions]:
    def obtain() -> Trained:
        network, pdm, models = ect_training.obtain(
            config, train, run.profile, seed, device=run.device, fresh=run.fresh
        )
        return Trained(
            partial(_fit, network, pdm, config, train, methods, sweeps),
            [store.reports(models)[-1]] * len(methods),
            train,
            ect_training.pretraining_faces(config, train),
            {"shape_components": len(pdm.eigenvalues)},
        )

    model = ect_training.keys(config, train, run.profile, seed)[-1].hash
    hashes = [_hash(model, method, config, sweeps) for method in methods]
    more = [INNER] if markup_of(train) == "ibug68" else []
    return run.test(hashes, source, obtain, points=False, more=more)


def _hash(model: str, method: str, config: ECTConfig, sweeps: bool) -> str:
    """Twelve hexadecimal digits that name a method's predictions: of its network, of all of the fit, and of what is tried on record."""
    fitting = {name: getattr(config, name) for name in ect_training.FITTING}
    tried = [ITERATIONS, COMPONENTS] if sweeps else []
    return sha256(json.dumps([model, method, fitting, *tried], sort_keys=True))[:12]


def _fit(
    network: FCN,
    pdm: PDM,
    config: ECTConfig,
    train: FaceSource,
    methods: Sequence[str],
    sweeps: bool,
    faces: FaceSet,
) -> list[Predicted]:
    """What each method makes of the response maps of some faces, which are computed once."""
    sweeps = sweeps and faces.protocol == "300w" and faces.split in SWEPT and config.network == "dilated"
    last = len(config.patches)  # iterations that the methods take
    wanted: dict[str, Fit] = ect_fitting.fits(pdm, config)
    wanted[CLIMBED] = partial(_last_shape, partial(ect_fitting.climb, config=config))
    if sweeps:
        wanted |= {name: partial(wanted[name], iterations=max(last, ITERATIONS)) for name in TUNED}
        wanted |= _component_fits(pdm, config)
    fitted = ect_training.predict_faces(network, pdm, faces, wanted)
    shapes = {name: fitted[name].shapes[: last + 1][-1] for name in (*ect_fitting.METHODS, CLIMBED)}
    shapes[CORRECTION] = fitted["ECT"].shapes[0]
    more: dict[str, dict[str, np.ndarray]] = {name: {} for name in ECT_METHODS}
    for label in [label for label in wanted if label not in shapes]:
        method, _, key = label.partition(": ")
        more[method][key] = fitted[label].shapes[-1].numpy()
    for method in TUNED if sweeps else ():
        after = enumerate(fitted[method].shapes[: ITERATIONS + 1])
        more[method] |= {swept_key(k, "iterations"): shape.numpy() for k, shape in after}
    sure = {"ECT": fitted["ECT"].confidence.numpy()} if faces.protocol == "cofw" else {}
    return [
        Predicted(as_annotated(shapes[name].numpy(), train, faces), sure.get(name), more[name])
        for name in methods
    ]


def _component_fits(pdm: PDM, config: ECTConfig) -> dict[str, Fit]:
    """The methods `SHAPED` for those of `COMPONENTS` that the shape model has: by method and key of the error."""
    every = len(pdm.eigenvalues)
    wanted: dict[str, Fit] = {}
    for count in COMPONENTS:
        if count != "all" and count >= every:
            continue
        model = pdm.using(every if count == "all" else count)
        for method, fit in ect_fitting.fits(model, config, SHAPED).items():
            wanted[f"{method}: {swept_key(count, 'components')}"] = partial(_last_shape, fit)
    return wanted


def _last_shape(fit: Fit, maps: Tensor, start: Tensor) -> Fitted:
    fitted = fit(maps, start)
    return Fitted(fitted.shapes[-1:], fitted.confidence)
