"""Faces in a detector's boxes: boxes of known squares, true ones where it finds none, errors in closed form, one computation for the record."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate.errors import ReplicateError
from replicate.evidence import detected
from replicate.evidence.detected import DetectedBoxes, SimulatedBoxes
from replicate.evidence.experiment import Experiment
from replicate.faces import detector
from replicate.faces.boxes import SQUARE, TIGHT
from replicate.faces.markups import convert
from replicate.faces.sources import FaceSource
from replicate.geometry import tight_box

COUNTS = {"lfpw+helen": 20, "unseen": 12}
MISSED = (2, 7)  # of the test faces


def load(source):
    faces = toy_faces(COUNTS[source.split], seed=COUNTS[source.split])
    names = tuple(f"{source.split}/{number}" for number in range(len(faces)))
    return replace(faces, names=names, protocol=source.protocol, split=source.split)


def squares_of(faces):
    """Squares that lie in the same way around the tight boxes of all points."""
    low, high = np.split(tight_box(torch.as_tensor(faces.points)).numpy().astype(float), 2, axis=1)
    middle, side = (low + high) / 2, 1.2 * (high - low).max(1, keepdims=True)
    return np.concatenate([middle - side / 2, middle + side / 2], 1)


@pytest.fixture(autouse=True)
def looked(monkeypatch):
    """Toy faces with known squares; returns the titles of the searches."""
    titles = []

    def find_all(images, title=""):
        titles.append(title)
        faces = load(FaceSource("300w", title.rsplit(" ", 1)[1], "synthetic", "smoke"))
        squares = [square[None] for square in squares_of(faces)]
        if "unseen" in title:
            squares[MISSED[0]] = np.empty((0, 4))
            squares[MISSED[1]] = squares[MISSED[1]] + 90.0  # beside the face
        return squares[: len(images)]

    monkeypatch.setattr(FaceSource, "load", load)
    monkeypatch.setattr(
        FaceSource,
        "sample",
        lambda source, count: load(source).subset(np.arange(min(count, COUNTS[source.split]))),
    )
    monkeypatch.setattr(detector, "find_all", find_all)
    detected._located.cache_clear()
    detected._relations.cache_clear()
    yield titles
    detected._located.cache_clear()
    detected._relations.cache_clear()


@pytest.fixture
def run():
    return Experiment("tcnn", device="cpu")


@pytest.fixture
def boxes(run):
    return DetectedBoxes(run.source("300w", "unseen"), run.source("300w", "lfpw+helen"))


def exact(faces, rule):
    points = convert(faces.points, "ibug68", "mtfl5") if rule is SQUARE else faces.points
    return rule.with_noise(0.0, 0.0).boxes(points, faces.names)


def test_both_boxes_come_from_one_square_by_what_training_faces_have_on_average(boxes):
    faces, train = boxes.load(), load(boxes.train)
    known = np.delete(np.arange(12), MISSED)
    for found, rule in ((faces.boxes, TIGHT), (boxes.five_boxes(faces), SQUARE)):
        squares, true = squares_of(train), exact(train, rule)
        side = (squares[:, 2] - squares[:, 0])[:, None]
        where = ((true - squares[:, [0, 1, 0, 1]]) / side).mean(0)
        own = squares_of(faces)
        expected = own[:, [0, 1, 0, 1]] + (own[:, 2] - own[:, 0])[:, None] * where
        np.testing.assert_allclose(found[known], expected[known], rtol=1e-5)
    assert faces.box_rule == detected.RULE and faces.names == load(boxes.source).names


def test_where_no_face_is_found_the_true_box_takes_the_place(boxes):
    faces, missed = boxes.load(), list(MISSED)
    np.testing.assert_allclose(faces.boxes[missed], exact(faces, TIGHT)[missed], rtol=1e-6)
    np.testing.assert_allclose(boxes.five_boxes(faces)[missed], exact(faces, SQUARE)[missed], rtol=1e-6)


def test_boxes_of_some_faces_are_found_by_name_and_others_refused(boxes):
    faces = boxes.load()
    some = faces.subset(np.array([9, 2]))
    np.testing.assert_array_equal(boxes.five_boxes(some), boxes.five_boxes(faces)[[9, 2]])
    with pytest.raises(ReplicateError, match="0 was not looked for by the detector"):
        boxes.five_boxes(load(boxes.train))


def test_errors_are_those_of_the_box_for_five_points(run, boxes):
    one = detected.detections(run, boxes)
    faces, found = boxes.load(), detected.found(one)
    assert np.flatnonzero(~found).tolist() == list(MISSED)
    assert all(np.isinf(error[~found]).all() for error in one.errors.values())
    true, given = exact(faces, SQUARE)[found].astype(float), boxes.five_boxes(faces)[found]
    side = true[:, 2] - true[:, 0]
    corners = np.hypot(*(given - true)[:, :2].T) + np.hypot(*(given - true)[:, 2:].T)
    middle = (given - true).reshape(-1, 2, 2).mean(1)
    np.testing.assert_allclose(one.errors[detected.BOX][found], 50 * corners / side, rtol=1e-4)
    np.testing.assert_allclose(
        one.errors[detected.POSITION][found], 100 * np.hypot(*middle.T) / side, rtol=1e-4
    )
    ratio = (given[:, 2] - given[:, 0]) / side
    np.testing.assert_allclose(
        one.errors[detected.SIZE][found], 100 * np.abs(np.log(ratio)), rtol=1e-4, atol=1e-4
    )


def test_detections_are_looked_for_once_and_then_on_record(run, boxes, looked):
    first = detected.detections(run, boxes)
    assert looked == ["of 300w lfpw+helen", "of 300w unseen"]
    detected._located.cache_clear()
    again = detected.detections(run, boxes)
    assert len(looked) == 2 and again.names == first.names
    np.testing.assert_allclose(again.errors[detected.BOX], first.errors[detected.BOX], rtol=1e-6)
    detected.detections(replace(run, fresh=True), boxes)
    assert len(looked) == 3  # the relations are known


def test_what_decides_the_boxes_is_in_their_fingerprint(run, boxes):
    others = [
        replace(boxes, source=run.source("300w", "full")),
        replace(boxes, train=run.source("300w", "train")),
        replace(boxes, count=5),
    ]
    assert len({one.fingerprint for one in (boxes, *others)}) == 4
    assert (boxes.split, others[2].split) == ("unseen@detector", "unseen-first5@detector")
    assert boxes.parts == (boxes,) and len(others[2].load()) == 5


def test_simulated_boxes_err_alike_for_all_points_and_for_five(run):
    source = run.source("300w", "unseen")
    simulated = SimulatedBoxes(source, 0.1)
    faces = simulated.load()
    for given, rule in ((faces.boxes, TIGHT), (simulated.five_boxes(faces), SQUARE)):
        true = exact(faces, rule).astype(float)
        size = true[:, 2:] - true[:, :2]
        scale = np.log((given[:, 2:] - given[:, :2]) / size)
        shift = ((given - true).reshape(-1, 2, 2).mean(1)) / size
        errors = np.concatenate([shift, scale], 1) / 0.1
        if rule is TIGHT:
            expected = errors
    np.testing.assert_allclose(errors, expected, atol=1e-3)
    assert np.abs(errors).max() > 1
    some = faces.subset(np.array([4]))
    np.testing.assert_array_equal(simulated.five_boxes(some), simulated.five_boxes(faces)[[4]])
