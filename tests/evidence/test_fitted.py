"""Panels of fitted faces: the right faces with the right points and errors, in rows."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate.errors import ReplicateError
from replicate.evidence import manifest
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import fitted
from replicate.methods.lddr import CONFIGS


@pytest.fixture
def run():
    yield Experiment("ect", device="cpu", seed=2)
    plt.close("all")


def made_on(faces, points=None):
    errors = {"inter-pupil": np.arange(float(len(faces)))}
    return Predictions("m", "toy", faces.faces, faces.names, errors, points)


def renamed(faces, prefix):
    return replace(faces, names=tuple(prefix + name for name in faces.names))


def drawn(figure):
    """Of each face: its image, its title and the first landmark drawn."""
    return [
        (ax.images[0].get_array(), ax.get_title(), ax.lines[-1].get_xydata()[0])
        for ax in figure.axes
        if ax.images
    ]


def test_rows_hold_the_first_faces_with_points_on_record_or_else_predicted(run):
    easy, hard = renamed(toy_faces(5), "easy "), renamed(toy_faces(6, seed=1), "hard ")
    asked = []

    def predict(faces):
        asked.append(faces.names)
        return faces.points + 2

    rows = {"common": (easy, made_on(easy, easy.points + 1)), "challenging": (hard, made_on(hard))}
    figure = fitted.example_faces(run, "ECT-F6", rows, predict, method="ECT", score="inter-pupil", columns=3)
    found = drawn(figure)
    assert [title for _, title, _ in found] == ["0.0 %", "1.0 %", "2.0 %"] * 2
    assert all(np.array_equal(found[n][0], easy.images[n]) for n in range(3))
    assert all(np.array_equal(found[3 + n][0], hard.images[n]) for n in range(3))
    np.testing.assert_allclose([point for *_, point in found[:3]], easy.points[:3, 0] + 1)
    np.testing.assert_allclose([point for *_, point in found[3:]], hard.points[:3, 0] + 2)
    assert asked == [hard.names[:3]]
    (kept,) = manifest.load("ect", ["smoke"])
    assert (kept.artefact, kept.subset, kept.images, kept.seeds) == ("ECT-F6", "common, challenging", 6, 1)
    assert "first 3 synthetic faces of each set" in kept.alt and "seed 2" in kept.alt and "by ECT" in kept.alt


def test_faces_are_found_by_name_among_those_predicted(run):
    faces = toy_faces(6)
    rows = {"last": (faces.subset(np.array([4, 5])), made_on(faces, faces.points))}
    figure = fitted.example_faces(run, "ECT-F6", rows, None, method="ECT", score="inter-pupil", columns=2)
    assert [title for _, title, _ in drawn(figure)] == ["4.0 %", "5.0 %"]


def test_other_or_too_few_faces_are_refused(run):
    faces = toy_faces(4)
    with pytest.raises(ReplicateError, match=r"rows\['few'\]: got 4 faces, expected 6 or more"):
        fitted.example_faces(run, "ECT-F6", {"few": (faces, made_on(faces))}, None, method="", score="")
    other = {"other": (renamed(faces, "x"), made_on(faces))}
    with pytest.raises(ReplicateError, match=r"x0: its landmarks were not predicted on toy \(2 such faces\)"):
        fitted.example_faces(run, "ECT-F6", other, None, method="", score="", columns=2)


def test_a_kind_may_have_several_rows_and_its_landmarks_another_markup(run):
    faces = toy_faces(4)
    rows = {"all": (faces, made_on(faces))}
    look = dict(method="ECT", score="inter-pupil", columns=2, lines=2, markup="aflw34")
    figure = fitted.example_faces(run, "ECT-F8", rows, lambda shown: shown.points[:, :34] + 5, **look)
    found = drawn(figure)
    assert [title for _, title, _ in found] == ["0.0 %", "1.0 %", "2.0 %", "3.0 %"]
    np.testing.assert_allclose([point for *_, point in found], faces.points[:, 0] + 5)


def test_kinds_may_differ_in_error_and_in_what_predicts_them(run):
    one, other = toy_faces(2), renamed(toy_faces(2, seed=1), "other ")
    of_other = Predictions("m", "toy", "synthetic", other.names, {"face": np.full(2, 7.0)})
    rows = {"one": (one, made_on(one)), "other": (other, of_other)}
    predict = {"one": lambda faces: faces.points + 1, "other": lambda faces: faces.points + 9}
    score = {"one": "inter-pupil", "other": "face"}
    figure = fitted.example_faces(run, "LDDR-F5", rows, predict, method="LDDR", score=score, columns=2)
    found = drawn(figure)
    assert [title for _, title, _ in found] == ["0.0 %", "1.0 %", "7.0 %", "7.0 %"]
    moved = np.concatenate([one.points[:, 0] + 1, other.points[:, 0] + 9])
    np.testing.assert_allclose([point for *_, point in found], moved)
    assert "inter-pupil, face errors" in figure.get_label()


def test_lddr_is_obtained_once_it_is_asked_and_gives_its_last_shapes(run, monkeypatch):
    faces, asked = toy_faces(3), []

    class Cascade:
        def predict(self, images, boxes):
            steps = torch.arange(3.0)[:, None, None, None, None]
            return torch.as_tensor(faces.points)[None, None] + steps

    def obtain(config, train, profile, seed, device):
        asked.append((config, train, profile, seed))
        return Cascade(), []

    monkeypatch.setattr(fitted.lddr_training, "obtain", obtain)
    train, config = run.source("300w", "train"), CONFIGS["smoke"]
    predict = fitted.by_lddr(run, config, train)
    assert asked == []
    np.testing.assert_allclose(predict(faces), faces.points + 2)
    assert asked == [(config, train, "smoke", 2)]
