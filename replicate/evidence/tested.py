"""Predictions of models on test sets, for notebooks: from the record, else from the model store, else trained now."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor

from replicate import store
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.scoring import INNER, LDDR_SCORES, Score
from replicate.evidence.trained import Predicted, Trained
from replicate.faces import protocols
from replicate.faces.faceset import FaceSet
from replicate.faces.markups import convert
from replicate.faces.sources import FaceSource
from replicate.files import sha256
from replicate.methods import baselines, dan, dan_training, ect_fitting, ect_training, lddr, lddr_training
from replicate.methods.baselines import SDM, MeanShape
from replicate.methods.dan import DANConfig
from replicate.methods.ect import FCN, ECTConfig
from replicate.methods.ect_fitting import PDM, Fit, Fitted
from replicate.methods.lddr import LDDR, LDDRConfig
from replicate.vocabulary import check_one_of

CORRECTION = "weighted correction"  # what CRM-CLM-C and ECT tune
CLIMBED = "CRM between pixels"  # no method of the paper: what the grid of pixels costs CRM
ECT_METHODS = (*ect_fitting.METHODS, CORRECTION, CLIMBED)
TUNED = ("CRM-CLM", "ECT")  # ECT's Fig. 10c, after 0 to `ITERATIONS` iterations
ITERATIONS = 10
SHAPED = ("CRM-PDM", "CRM-CLM", "ECT")  # ECT's Fig. 10b, for `COMPONENTS`
COMPONENTS: tuple[int | str, ...] = (5, 10, 20, 30, 40, 60, 80, 100, "all")
SWEPT = ("common", "challenging")  # the parts of 300-W on which both are tried, by the dilated network
STARTS = (1, 5, 10, 25)  # shapes that LDDR starts from at test, where more than the paper's one are tried


def test_baseline(
    run: Experiment,
    model: MeanShape | SDM,
    train: FaceSource,
    source: FaceSource,
    *,
    points: bool = True,
    more: Sequence[Score] = (),
) -> list[Predictions]:
    """One run of a baseline, fitted to `train`, on `source`; see `test_dan`.

    Faces of another markup than the training faces are judged by those of their points that follow from the fitted ones.

    Parameters
    ----------
    more : sequence of Score
        What it is judged by besides, see `Experiment.test`.
    """

    def obtain() -> Trained:
        fitted, stored = baselines.obtain(model, train, run.profile, run.seed, fresh=run.fresh)

        def predict(faces: FaceSet) -> list[Predicted]:
            return [Predicted(_as_annotated(fitted.predict(faces.images, faces.boxes), train, faces))]

        return Trained(predict, [stored.report], train)

    return run.test([baselines.key(model, train, run.profile, run.seed).hash], source, obtain, points, more)


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
    more = [INNER] if _markup(train) == "ibug68" else []
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
        more[method] |= {_swept_key(k, "iterations"): shape.numpy() for k, shape in after}
    sure = {"ECT": fitted["ECT"].confidence.numpy()} if faces.protocol == "cofw" else {}
    return [
        Predicted(_as_annotated(shapes[name].numpy(), train, faces), sure.get(name), more[name])
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
            wanted[f"{method}: {_swept_key(count, 'components')}"] = partial(_last_shape, fit)
    return wanted


def _last_shape(fit: Fit, maps: Tensor, start: Tensor) -> Fitted:
    fitted = fit(maps, start)
    return Fitted(fitted.shapes[-1:], fitted.confidence)


def _swept_key(setting: int | str, what: str) -> str:
    return f"inter-pupil, {setting} {what}"


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
    more = LDDR_SCORES[_markup(source)]
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
    return run.test([name], source, obtain, points, LDDR_SCORES[_markup(source)])[0]


def _predict_lddr(model: LDDR, train: FaceSource, restarts: bool, faces: FaceSet) -> list[Predicted]:
    """The last shapes that the mean shape leads to; those of the other stages and starts are further points."""
    stages = model.predict(faces.images, faces.boxes)[:, 0].numpy()  # (T + 1, N, L, 2)
    found = _as_annotated(stages[-1], train, faces)
    if faces.markup != "ibug68":
        return [Predicted(found)]
    more = {_swept_key(number, "stages"): shapes for number, shapes in enumerate(stages)}
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
    return {_swept_key(count, "starts"): np.median(shapes[:count], axis=0) for count in known}


def _markup(source: FaceSource) -> str:
    return protocols.markup_of(source.protocol, source.split)


def _as_annotated(points: np.ndarray, train: FaceSource, faces: FaceSet) -> np.ndarray:
    """Points in the markup of the training faces, (N, L, 2), as points in that of the test faces."""
    return points if _markup(train) == faces.markup else convert(points, _markup(train), faces.markup)
