"""Tests of whole methods: ECT's fits share their response maps, and what is on record of them agrees with itself."""

from dataclasses import replace
from math import ceil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate.errors import ReplicateError
from replicate.evidence import predictions, tested
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import swept, under
from replicate.faces.faceset import concatenate
from replicate.faces.markups import convert
from replicate.faces.protocols import markup_of
from replicate.faces.sources import FaceSource
from replicate.methods import ect_fitting, ect_training
from replicate.methods.baselines import MeanShape
from replicate.methods.ect import CONFIGS, FCN
from replicate.methods.ect_fitting import PDM, Fitted
from replicate.metrics import nme
from replicate.training import FitReport

torch.set_num_threads(1)
CONFIG = replace(CONFIGS["smoke", "synthetic"], width=1 / 32, input_size=32, components=10)
COUNTS = {"train": 24, "common": 11, "challenging": 7, "private": 5, "test": 9}
COMPONENTS = (5, 10, 20, 23)  # of 24 training shapes
REPORT = FitReport(seconds=7.0, steps=10, samples=100, history=[(5, 30.0), (10, 20.0)])


def shapes_of(split):
    """True 68 points of toy faces that differ in more than place and size."""
    count = COUNTS[split]
    faces = toy_faces(count, seed=count)
    return faces, faces.points + np.random.default_rng(count).normal(0, 2, faces.points.shape).astype(
        np.float32
    )


def load(source):
    if source.split == "full":
        parts = [load(replace(source, split=split)) for split in ("common", "challenging")]
        return concatenate(parts, "300w", "full")
    faces, points = shapes_of(source.split)
    name = markup_of(source.protocol, source.split)
    points = convert(points, "ibug68", name)
    visible = np.arange(points.size // 2).reshape(points.shape[:2]) % 5 > 0
    names = tuple(f"{source.split}/{number}" for number in range(len(faces)))
    about = dict(markup=name, protocol=source.protocol, split=source.split)
    return replace(faces, points=points, visible=visible, names=names, **about)


@pytest.fixture(autouse=True)
def trainings(monkeypatch):
    """In place of faces, toys; in place of training, networks as they start. Returns the trainings that were asked for."""
    asked = []

    def obtain(config, source, profile, seed, *, device, fresh):
        asked.append((config.network, source.protocol, seed))
        faces = source.load()
        torch.manual_seed(seed)
        network = FCN(config, faces.points.shape[1]).eval()
        pdm = PDM.fit(torch.as_tensor(faces.points), config.frame, config.components)
        return network, pdm, [SimpleNamespace(report=REPORT), SimpleNamespace(report=REPORT)]

    monkeypatch.setattr(FaceSource, "load", load)
    monkeypatch.setattr(ect_training, "obtain", obtain)
    return asked


def experiment(**changes):
    return Experiment(**{"paper": "ect", "profile": "cpu", "device": "cpu", **changes})


def test_on(protocol, split, run=None, train=None, config=CONFIG, **options):
    run = run or experiment()
    return tested.test_ect(
        run, config, run.source(train or protocol, "train"), run.source(protocol, split), **options
    )


test_on.__test__ = False


def errors(runs, key="inter-pupil"):
    return runs[0].errors[key]


def test_every_method_is_on_record_with_errors_alone():
    found = test_on("300w", "challenging")
    assert list(found) == [
        "CRM", "CRM-PDM", "CRM-CLM", "CRM-CLM-C", "ECT", "weighted correction", "CRM between pixels"
    ]  # fmt: skip
    hashes = {runs[0].model for runs in found.values()}
    assert len(hashes) == 7
    for (run,) in found.values():
        assert run.points is None and run.confidence is None and len(run.names) == 7
        assert {"inter-ocular", "inter-pupil", "diagonal", "inter-ocular, 51 points"} <= run.errors.keys()
        about = run.provenance
        assert (about["training_seconds"], about["training_faces"], about["markup"]) == (14.0, 3148, "ibug68")
        assert about["validation"] == [[50, 30.0], [100, 20.0]] and about["shape_components"] == 23
        assert "trained_before_on" not in about


def test_sweeps_agree_with_the_methods_and_with_each_other():
    found = test_on("300w", "challenging")
    for method in ("CRM-CLM", "ECT"):
        iterations, by_iteration = swept(found[method], "inter-pupil", "iterations")
        assert iterations == tuple(range(11)) and by_iteration.shape == (1, 7, 11)
        np.testing.assert_array_equal(by_iteration[0, :, 5], errors(found[method]))
        assert (np.ptp(by_iteration, axis=-1) > 0).all()
    for method in ("CRM-PDM", "CRM-CLM", "ECT"):
        settings, by_components = swept(found[method], "inter-pupil", "components")
        assert settings == COMPONENTS and by_components.shape == (1, 7, 4)
        np.testing.assert_allclose(by_components[0, :, 1], errors(found[method]), rtol=1e-5)
        assert (np.ptp(by_components, axis=-1) > 0).all()
    start = {"CRM-CLM": "CRM-PDM", "ECT": tested.CORRECTION}
    for method, before in start.items():
        [unmoved] = under(found[method], "0 iterations")
        np.testing.assert_allclose(unmoved.errors["inter-pupil"], errors(found[before]), rtol=1e-5)
    swept_keys = {
        name: sum(key.endswith(("components", "iterations")) for key in runs[0].errors)
        for name, runs in found.items()
    }
    assert swept_keys == {"CRM": 0, "CRM-PDM": 4, "CRM-CLM": 15, "CRM-CLM-C": 0, "ECT": 15,
                          "weighted correction": 0, "CRM between pixels": 0}  # fmt: skip


def test_methods_are_those_of_the_fit():
    found, faces = test_on("300w", "challenging"), load(experiment().source("300w", "challenging"))
    network, pdm, _ = ect_training.obtain(
        CONFIG, experiment().source("300w", "train"), "cpu", 0, device="cpu", fresh=False
    )
    fits = ect_fitting.fits(pdm, CONFIG)
    for name, one in ect_training.predict_faces(network, pdm, faces, fits).items():
        expected = nme(one.shapes[-1].numpy(), faces.points, normaliser="inter-pupil", markup="ibug68")
        np.testing.assert_allclose(errors(found[name]), expected, rtol=1e-5)
    assert len({errors(runs).mean() for runs in found.values()}) == 7


def test_response_maps_are_computed_once_for_all_methods_and_settings(monkeypatch, trainings):
    batches, forward = [], FCN.forward
    monkeypatch.setattr(
        FCN, "forward", lambda self, crops: batches.append(len(crops)) or forward(self, crops)
    )
    run = experiment()
    full = test_on("300w", "full", run)
    assert sum(batches) == 18 and len(batches) == ceil(11 / 8) + 1  # the parts of the set, in batches of 8
    assert trainings == [("dilated", "300w", 0)]
    again = test_on("300w", "full", experiment())
    assert trainings == [("dilated", "300w", 0)] and sum(batches) == 18
    hard = test_on("300w", "challenging", experiment())["ECT"][0]  # a part of the set
    for key, values in hard.errors.items():
        np.testing.assert_allclose(values, full["ECT"][0].errors[key][11:], rtol=1e-6)
    assert "inter-pupil, all components" in hard.errors and sum(batches) == 18
    for name, runs in full.items():
        for key, values in runs[0].errors.items():
            np.testing.assert_allclose(again[name][0].errors[key], values, rtol=1e-6)


def test_settings_are_tried_on_the_public_test_set_alone():
    (ours,) = test_on("300w", "private")["ECT"]
    assert ours.errors.keys() == {"inter-ocular", "inter-pupil", "diagonal", "inter-ocular, 51 points"}


def test_variants_may_go_without_settings_and_share_no_record_with_those_that_have_them():
    plain, whole = (test_on("300w", "challenging", sweeps=sweeps)["ECT"][0] for sweeps in (False, True))
    assert plain.errors.keys() == {"inter-ocular", "inter-pupil", "diagonal", "inter-ocular, 51 points"}
    np.testing.assert_allclose(plain.errors["inter-pupil"], whole.errors["inter-pupil"], rtol=1e-6)
    assert "inter-pupil, 0 iterations" in whole.errors and plain.model != whole.model


def test_some_methods_alone_have_the_errors_that_they_have_among_all():
    some = test_on("300w", "challenging", methods=("ECT", tested.CORRECTION))
    assert list(some) == ["ECT", tested.CORRECTION]
    every = test_on("300w", "challenging")
    for name, [ours] in some.items():
        assert ours.model == every[name][0].model
        np.testing.assert_array_equal(ours.errors["diagonal"], every[name][0].errors["diagonal"])
    with pytest.raises(ReplicateError, match="method: got 'CRM-PMD', expected one of"):
        test_on("300w", "challenging", methods=["CRM-PMD"])


def test_seeds_and_networks_have_models_of_their_own(trainings):
    found = test_on("300w", "challenging", seeds=(3, 4), network="truncated")
    assert trainings == [("truncated", "300w", 3), ("truncated", "300w", 4)]
    assert len({run.model for runs in found.values() for run in runs}) == 14
    assert not any("components" in key or "iterations" in key for key in found["ECT"][0].errors)
    assert "inter-ocular, 51 points" in found["ECT"][0].errors
    assert found["ECT"][0].errors["diagonal"].mean() != found["ECT"][1].errors["diagonal"].mean()


@pytest.mark.parametrize(
    "change",
    [
        dict(b=20.0),
        dict(turning=True),
        dict(confidence="as printed"),
        dict(components=20),
        dict(patches=(20,)),
    ],
)
def test_another_fit_has_another_name_on_the_same_network(change, monkeypatch):
    run = experiment()
    train, key = run.source("300w", "train"), ect_training.keys
    models = [key(config, train, "cpu", 0)[-1].hash for config in (CONFIG, replace(CONFIG, **change))]
    assert models[0] == models[1]
    names = [
        tested.ect._hash(models[0], method, config, True)
        for method in tested.ECT_METHODS
        for config in (CONFIG, replace(CONFIG, **change))
    ]
    assert len(set(names)) == 14
    wide = key(replace(CONFIG, width=1 / 16), train, "cpu", 0)[-1].hash
    assert tested.ect._hash(wide, "ECT", CONFIG, True) not in names
    before = tested.ect._hash(models[0], "ECT", CONFIG, True)
    monkeypatch.setattr(tested.ect, "COMPONENTS", (5, "all"))
    assert tested.ect._hash(models[0], "ECT", CONFIG, True) != before  # what was tried is on record


def test_confidences_are_kept_of_ect_on_cofw():
    found = test_on("cofw", "test")
    assert [name for name, runs in found.items() if runs[0].confidence is not None] == ["ECT"]
    (ours,) = found["ECT"]
    assert ours.confidence.shape == (9, 29) and ours.errors.keys() == {"inter-pupil"}
    assert (ours.confidence >= 0).all() and (ours.confidence <= 1).all() and ours.markup == "cofw29"


def test_landmarks_of_aflw_are_judged_where_they_are_visible():
    (ours,) = test_on("aflw-pifa", "test")["ECT"]
    assert ours.errors.keys() == {"box", "box, 21 points"} and ours.confidence is None


def test_six_of_the_34_points_are_those_of_afw(monkeypatch, trainings):
    """A fit that finds all 34 points finds the six."""
    _, true = shapes_of("test")

    def oracle(network, pdm, faces, wanted):
        shapes = torch.as_tensor(convert(true, "ibug68", "aflw34"))
        return {label: Fitted((shapes,), torch.ones(shapes.shape[:2])) for label in wanted}

    monkeypatch.setattr(ect_training, "predict_faces", oracle)
    found = test_on("afw", "test", train="aflw-pifa")
    assert trainings == [("dilated", "aflw-pifa", 0)]
    for (run,) in found.values():
        assert run.markup == "afw6" and run.errors.keys() == {"box", "pixel"}
        assert max(values.max() for values in run.errors.values()) < 1e-4


def test_baselines_are_judged_in_the_markup_of_the_faces():
    run = experiment(profile="smoke")
    train, source = run.source("aflw-pifa", "train"), run.source("afw", "test")
    (found,) = tested.test_baseline(run, MeanShape(), train, source)
    faces = load(source)
    fitted = MeanShape().fit(load(train)).predict(faces.images, faces.boxes)
    six = convert(fitted, "aflw34", "afw6")
    np.testing.assert_allclose(found.points, six, atol=0.01)
    expected = nme(
        six, faces.points, normaliser="box", markup="afw6", boxes=faces.boxes, visible=faces.visible
    )
    np.testing.assert_allclose(found.errors["box"], expected, rtol=1e-4)


def test_on_photographs_the_faces_before_are_told(monkeypatch):
    run = experiment(faces="real")
    monkeypatch.setattr(FaceSource, "fingerprint", "f" * 64)
    monkeypatch.setattr(FaceSource, "count", 64)
    before = replace(CONFIG, pretraining=CONFIG)
    (ours,) = test_on("300w", "challenging", run, config=before)["ECT"]
    assert ours.provenance["trained_before_on"] == ours.provenance["training_faces"] == 64
    assert predictions.trained_on(ours.provenance) == "trained on 64 faces after 64 generated ones"
