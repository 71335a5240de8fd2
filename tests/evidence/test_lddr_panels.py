"""A crowd in one image: pictures in their places, landmarks in every box that the detector gives, the fullest photograph."""

from types import SimpleNamespace

import numpy as np
import pytest
from toy_faces import CANONICAL

from replicate.errors import AbsentError, ReplicateError
from replicate.evidence import manifest
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import lddr_panels as views
from replicate.faces.sources import FaceSource


@pytest.fixture
def run():
    return Experiment("lddr", device="cpu", seed=4)


def pictures(count):
    """Images of one brightness each."""
    images = [np.full((128, 128, 3), number, np.uint8) for number in range(count)]
    return SimpleNamespace(images=images)


def test_a_wall_holds_its_pictures_in_rows_that_grow(run, monkeypatch):
    monkeypatch.setattr(FaceSource, "sample", lambda source, count: pictures(count))
    crowd = views.wall(run.source("ijb-a", "test"))
    assert (crowd.people, crowd.source, crowd.faces) == (15, "ijb-a/test", "synthetic")
    assert crowd.image.shape == (120 + 144 + 180, 720, 3)
    assert [crowd.image[60, x, 0] for x in (0, 119, 120, 719)] == [0, 0, 1, 5]
    assert [crowd.image[y, 0, 0] for y in (120, 263, 264)] == [6, 6, 11] and crowd.image[-1, -1, 0] == 14


def test_a_wall_of_too_few_pictures_is_refused(run, monkeypatch):
    monkeypatch.setattr(FaceSource, "sample", lambda source, count: pictures(3))
    with pytest.raises(ReplicateError, match="source: got 3 faces, expected 15 or more"):
        views.wall(run.source("ijb-a", "test"))


def test_every_face_that_is_found_has_a_box_and_landmarks(run, drawing, monkeypatch):
    crowd = views.Crowd(np.zeros((200, 300, 3), np.uint8), 7, "ijb-a/test", "synthetic")
    boxes = np.array([[10.0, 20, 60, 70], [100, 30, 180, 110]])
    monkeypatch.setattr(views.detection, "find_faces", lambda image: boxes)
    asked = []

    def predict(faces):
        asked.append(faces)
        return CANONICAL.numpy() + faces.boxes[:, None, :2]

    figure = views.crowd_panel(run, "LDDR-F1", crowd, predict, "LDDR")
    (ax,) = figure.axes
    drawn = [line.get_xydata() for line in ax.lines]
    corners = [xy for xy in drawn if xy.shape == (5, 2)]
    assert any(np.array_equal(xy[[0, 2]], [[10, 20], [60, 70]]) for xy in corners)
    dots = [xy for xy in drawn if xy.shape == (68, 2)]
    np.testing.assert_allclose([xy[0] for xy in dots], CANONICAL[0].numpy() + boxes[:, :2], rtol=1e-6)
    assert asked[0].images[1] is crowd.image and np.isnan(asked[0].points).all()
    assert (
        "2 faces found by OpenCV's frontal-face cascade, 7 synthetic people of ijb-a/test"
        in figure.get_label()
    )
    (kept,) = manifest.load("lddr", ["smoke"])
    assert (kept.artefact, kept.subset, kept.images, kept.seeds) == ("LDDR-F1", "ijb-a/test", 1, 1)


def test_an_image_without_a_face_is_refused(run, monkeypatch):
    monkeypatch.setattr(views.detection, "find_faces", lambda image: np.empty((0, 4)))
    crowd = views.Crowd(np.zeros((200, 300, 3), np.uint8), 7, "afw/train", "real")
    with pytest.raises(ReplicateError, match="afw/train: no upright frontal face was found"):
        views.crowd_panel(run, "LDDR-F1", crowd, None, "LDDR")


def test_the_photograph_with_the_most_faces_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path))
    with pytest.raises(AbsentError, match="afw is not there"):
        views.most_crowded()
    names = ("afw/8_1", "afw/77_5_1", "afw/77_5_2", "afw/9_1")
    found = SimpleNamespace(names=names, pixels=lambda index: np.full((6, 5), index, np.uint8))
    data_set = SimpleNamespace(folder="300w", read=lambda folder, split: found)
    monkeypatch.setitem(views.real.DATA_SETS, "300w", data_set)
    (tmp_path / "300w" / "afw").mkdir(parents=True)
    crowd = views.most_crowded()
    assert (crowd.people, crowd.source, crowd.faces) == (2, "afw/train", "real")
    assert crowd.image.shape == (6, 5, 3) and (crowd.image == 1).all()
