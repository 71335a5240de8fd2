"""Tests of LDDR on record: errors of points, parts, stages and starts in closed form, from a cascade of which all predictions are known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate.evidence import predictions, tested
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import swept, under
from replicate.faces.markups import convert
from replicate.faces.protocols import markup_of
from replicate.faces.sources import FaceSource
from replicate.methods import lddr_training
from replicate.methods.lddr import CONFIGS
from replicate.metrics import normalising_distance
from replicate.training import FitReport

CONFIG = CONFIGS["smoke"]  # two stages
STAGES = 4
EXAMPLES = 11  # so that 25 starts cannot be tried
WHOLE = ("inter-ocular", "inter-pupil", "diagonal", "face")
REPORTS = (FitReport(seconds=5.0, steps=10, samples=100, history=[(10, 50.0)]), FitReport(seconds=2.0))


def load(source):
    faces = toy_faces(9, seed=1)
    name = markup_of(source.protocol, source.split)
    points = convert(faces.points, "ibug68", name)
    about = dict(markup=name, protocol=source.protocol, split=source.split)
    return replace(faces, points=points, visible=np.ones(points.shape[:2], bool), **about)


class Cascade:
    """Each stage takes a pixel off what it lacks to the right; from the training shape number j it ends j + 1 pixels lower; the jaw is 5 off."""

    examples_ = torch.arange(1.0, EXAMPLES + 1)[:, None, None].expand(EXAMPLES, 68, 2)

    def __init__(self, seed):
        self.left, self.penalties_ = seed, [4.0, 3.0, 2.0, 1.0]

    def predict(self, images, boxes, starts=None):
        starts = torch.zeros(1, 68, 2) if starts is None else starts
        found = torch.as_tensor(toy_faces(9, seed=1).points).repeat(STAGES + 1, len(starts), 1, 1, 1)
        found[..., :17, 0] += 5
        found[..., 0] += torch.arange(STAGES, -1, -1)[:, None, None, None] + self.left
        found[..., 1] += starts[None, :, None, :, 1]
        return found


@pytest.fixture(autouse=True)
def trainings(monkeypatch):
    """Toys in place of faces, a cascade that is known in place of trained ones; the trainings that were asked for."""
    asked = []

    def obtain(config, source, profile, seed, *, device, fresh):
        asked.append((source.protocol, source.split, seed))
        return Cascade(seed), [SimpleNamespace(report=report) for report in REPORTS]

    monkeypatch.setattr(FaceSource, "load", load)
    monkeypatch.setattr(lddr_training, "obtain", obtain)
    return asked


def test_on(protocol="lfpw", split="test", config=CONFIG, train=("300w", "train"), **options):
    run = Experiment("lddr", "cpu", device="cpu")
    return tested.test_lddr(run, config, run.source(*train), run.source(protocol, split), **options)


test_on.__test__ = False


def distance(normaliser):
    return normalising_distance(load(FaceSource("lfpw", "test", "synthetic", "cpu")).points, normaliser, 68)


def test_errors_are_those_of_the_last_stage_by_all_lengths_with_and_without_the_jaw():
    [ours] = test_on()
    for normaliser in WHOLE:
        jaw_alone = 100 * 5 * 17 / 68 / distance(normaliser)
        np.testing.assert_allclose(ours.errors[normaliser], jaw_alone, rtol=1e-4)
        np.testing.assert_allclose(ours.errors[f"{normaliser}, 49 points"], 0, atol=1e-4)
    [inner] = under([ours], "49 points")
    assert inner.errors.keys() == set(WHOLE)  # as claims about the 49 points want them


def test_errors_after_each_stage_are_on_record():
    stages, errors = swept(test_on(), "inter-pupil", "stages")
    assert stages == tuple(range(STAGES + 1)) and errors.shape == (1, 9, STAGES + 1)
    expected = [(51 * off + 17 * (off + 5)) / 68 for off in range(STAGES, -1, -1)]
    np.testing.assert_allclose(errors[0], 100 * np.array(expected) / distance("inter-pupil")[:, None], 1e-4)


def test_a_record_tells_penalties_and_what_the_descriptor_has_seen():
    [ours] = test_on()
    about = ours.provenance
    assert about["penalties"] == [4.0, 3.0, 2.0, 1.0] and about["training_seconds"] == 7.0
    assert predictions.trained_on(about) == "trained on 3,148 faces after 12,000 generated ones"
    [objects] = test_on(config=replace(CONFIG, weights="objects"))
    assert predictions.trained_on(objects.provenance) == "trained on 3,148 faces"
    [sift] = test_on(config=replace(CONFIG, features="SIFT"))
    assert "trained_before_on" not in sift.provenance


def test_several_starts_are_judged_by_their_median_landmark():
    [ours] = test_on(restarts=True)
    starts, errors = swept([ours], "inter-pupil", "starts")
    assert starts == (1, 5, 10)
    lower = np.array([0.0, 2.0, 4.5])  # the middle of 0, 1, ..., count - 1
    expected = (51 * lower + 17 * np.hypot(lower, 5)) / 68
    np.testing.assert_allclose(errors[0], 100 * expected / distance("inter-pupil")[:, None], rtol=1e-4)
    np.testing.assert_array_equal(ours.errors["inter-pupil, 1 starts"], ours.errors["inter-pupil"])


def test_starts_are_kept_apart_so_that_a_test_without_them_does_not_remove_them(trainings):
    names = [test_on(restarts=restarts)[0].model for restarts in (True, False, True)]
    assert names[0] == names[2] != names[1] and len(trainings) == 2
    [plain] = test_on()
    assert plain.model == names[1] and not any("starts" in key for key in plain.errors)


def test_seeds_and_training_faces_have_models_of_their_own(trainings):
    runs = test_on(seeds=(0, 3), train=("lfpw", "train"))
    assert trainings == [("lfpw", "train", 0), ("lfpw", "train", 3)]
    assert runs[0].model != runs[1].model
    assert (runs[0].errors["face"] < runs[1].errors["face"]).all()
    again = test_on(seeds=(0, 3), train=("lfpw", "train"))
    assert len(trainings) == 2 and [run.model for run in again] == [run.model for run in runs]


def test_points_go_on_record_only_where_they_are_asked_for():
    assert [run.points is None for run in test_on(seeds=(0, 1))] == [True, True]
    kept = test_on("300w", "challenging", seeds=(0, 1), points=True)
    assert [run.points is None for run in kept] == [False, True]
    expected = toy_faces(9, seed=1).points + np.where(np.arange(68) < 17, 5, 0)[:, None] * [1, 0]
    np.testing.assert_allclose(kept[0].points, expected, atol=0.01)


def test_faces_with_three_points_are_judged_by_eyes_and_nose():
    [ours] = test_on("ijb-a", "test", restarts=True)
    assert ours.markup == "ijba3" and ours.errors.keys() == {"eye-nose"}
    np.testing.assert_allclose(ours.errors["eye-nose"], 0, atol=1e-4)  # 68 points, all but the jaw found


@pytest.mark.parametrize(("protocol", "more"), [("lfpw", {"face", "face, 49 points"}), ("ijb-a", set())])
def test_the_methods_of_a_table_have_the_same_scores_and_training_faces(protocol, more, trainings):
    run = Experiment("lddr", device="cpu")
    found = tested.test_lddr_compared(run, run.source("300w", "train"), run.source(protocol, "test"))
    assert list(found) == ["mean shape", "SDM", "LDDR"] and trainings == [("300w", "train", 0)]
    for [one] in found.values():
        assert more <= one.errors.keys() and one.points is None
        assert one.provenance["training_faces"] == run.source("300w", "train").count
    shared = [set(key for key in one.errors if "stages" not in key) for [one] in found.values()]
    assert shared[0] == shared[1] == shared[2]
