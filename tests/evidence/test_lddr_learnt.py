"""What descriptors have learnt: classifiers by name, the right reports, and landmarks told apart where features tell them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate.evidence.experiment import Experiment
from replicate.evidence.views import lddr_learnt as views
from replicate.evidence.views.lddr_ablations import swaps, trainings
from replicate.faces.sources import FaceSource
from replicate.methods import lddr_training
from replicate.methods.lddr import CONFIGS, STAGES
from replicate.store import StoredModel
from replicate.training import FitReport

CONFIG = CONFIGS["smoke"]
TRAIN, TEST = (FaceSource("lfpw", split, "synthetic", "smoke") for split in ("train", "test"))
FORM = STAGES[3]


@pytest.fixture
def run():
    return Experiment("lddr", device="cpu")


@pytest.fixture
def stored(monkeypatch):
    """In place of trainings: models whose errors are 10, 11, ... in the order in which they are asked for; counts the asking."""
    asked = []

    def obtain_features(config, source, profile, seed, *, device):
        models = []
        for key in lddr_training.keys(config, source, profile, seed)[:-1]:
            error = 10.0 + 10 * len(asked) + len(models)
            report = FitReport(best_error=error, samples=96, seconds=5.0)
            models.append(StoredModel(key, {}, report, "a device, 1 thread", "", ""))
        asked.append(config.weights)
        return None, models

    monkeypatch.setattr(lddr_training, "obtain_features", obtain_features)
    return asked


def test_every_classifier_has_a_row_with_its_own_error(run, stored):
    rows = views.classifier_rows(run, trainings(CONFIG), TRAIN)
    assert {row.method: row.value for row in rows} == {
        "classifier of objects": 20.0,  # of the second cascade asked for, which trains it alone
        "classifier of faces, after objects": 11.0,
        "classifier of faces": 30.0,
    }
    faces = next(row for row in rows if row.method == "classifier of faces")
    assert (faces.unit, faces.images, faces.device) == ("%", CONFIG.network.validation, "a device, 1 thread")
    assert faces.note == "2 classes, 96 pictures seen"
    assert stored == ["tuned", "objects", "faces"]  # random weights have no classifier


def test_classifiers_on_record_are_not_asked_for_again(run, stored):
    rows = views.classifier_rows(run, trainings(CONFIG), TRAIN)
    again = views.classifier_rows(run, trainings(CONFIG), TRAIN)
    assert len(stored) == 3
    assert {row.method: row.value for row in again} == {row.method: row.value for row in rows}


def test_a_tuned_imagenet_is_named_by_what_it_knew(run):
    named = views._classifiers(replace(CONFIG, weights="imagenet tuned"), TRAIN)
    assert list(named) == ["classifier of faces, after ImageNet"]


def colours(crops, points, form):
    """Features that are the pixel at each point, and how far it is from the middle of the crop."""
    places = points.round().long()
    face = torch.arange(len(crops))[:, None]
    pixels = crops[face, places[..., 1].clamp(0, 319), places[..., 0].clamp(0, 319)].float()
    return torch.cat([pixels, points - 159.5, (points - 159.5).square()], -1).flatten(1)


def test_descriptors_are_taken_at_the_true_points():
    faces = toy_faces(3)  # bright dots on grey
    found = views.descriptors(colours, FORM, CONFIG, faces).view(3, 68, -1)
    assert found[..., :3].median() > 100 and found.shape[-1] == 7
    elsewhere = replace(faces, points=faces.points + 20)
    assert views.descriptors(colours, FORM, CONFIG, elsewhere)[:, :3].median() < 70


def test_landmarks_are_told_apart_where_features_tell_them():
    learning, tested = toy_faces(24), toy_faces(8, seed=1)

    def place(crops, points, form):  # one number for each landmark
        return torch.eye(68).repeat(len(crops), 1, 1).flatten(1)

    def nothing(crops, points, form):
        return torch.ones(len(crops), 68 * 4)

    assert views.part_errors(place, FORM, CONFIG, learning, tested).tolist() == [0.0] * 8
    np.testing.assert_allclose(
        views.part_errors(nothing, FORM, CONFIG, learning, tested), 100 * 67 / 68, rtol=1e-5
    )
    places = views.part_errors(colours, FORM, CONFIG, learning, tested).mean()
    assert 0 < places < 95  # a spiral seen from its middle


def test_there_is_a_row_for_every_cascade_and_size(run, monkeypatch):
    asked = []

    class Model:
        features = staticmethod(lambda crops, points, form: torch.eye(68).repeat(len(crops), 1, 1).flatten(1))

    def obtain_features(config, *_, **__):
        asked.append(config.features)
        return Model.features, []

    monkeypatch.setattr(lddr_training, "obtain_features", obtain_features)
    rows = views.part_rows(run, swaps(CONFIG), TRAIN, TEST)
    assert [row.method for row in rows][:2] == ["LDDR, 42 pixels", "LDDR, 21 pixels"] and len(rows) == 6
    assert {row.value for row in rows} == {0.0} and rows[0].images == 12 and asked == ["deep", "SIFT", "HOG"]
    assert views.part_rows(run, swaps(CONFIG), TRAIN, TEST) and len(asked) == 3
