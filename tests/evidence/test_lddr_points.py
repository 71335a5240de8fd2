"""Errors of single landmarks of LDDR: the right points in each part of the face, circles as large as errors."""

from dataclasses import replace

import numpy as np
import pytest
from toy_faces import toy_faces

from replicate.errors import ReplicateError
from replicate.evidence import manifest
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import lddr_points as views
from replicate.faces.sources import FaceSource
from replicate.metrics import normalising_distance

ABOUT = {"device": "test", "training_seconds": 1.0, "faces_sha256": "0", "box_rule": "b", "training_faces": 5}
FACES = toy_faces(8)
PUPILS = normalising_distance(FACES.points, "inter-pupil", "ibug68")


@pytest.fixture
def run():
    return Experiment("lddr", device="cpu", seed=1)


def moved(share):
    """The true points, each moved to the right by its share (68,) of the inter-pupil distance."""
    step = np.zeros(FACES.points.shape)
    step[..., 0] = share * PUPILS[:, None]
    return FACES.points + step


def estimates(run, share, name="lfpw"):
    tested = Predictions("m", "toy", "synthetic", FACES.names, {"inter-pupil": np.ones(8)}, None, ABOUT)
    return views.Estimates(run.source(name, "test"), tested, FACES, moved(share))


def test_the_19_points_are_the_contour_and_the_inner_corners_of_the_mouth():
    assert views.OUTER.tolist() == [*range(17), 60, 64]
    assert {name: len(points) for name, points in views.GROUPS.items()} == {
        "jaw": 17, "brows": 10, "nose": 9, "eyes": 12, "mouth": 20, "the 49 points": 49, "the other 19 points": 19, "all 68 points": 68,
    }  # fmt: skip


def test_landmarks_are_those_on_record_or_else_predicted_again(run, monkeypatch):
    monkeypatch.setattr(FaceSource, "load", lambda source: FACES)
    without = estimates(run, np.zeros(68)).tested
    asked = []

    def predict(faces):
        asked.append(len(faces))
        return faces.points + 2

    source = run.source("lfpw", "test")
    recorded = views.estimates(source, replace(without, points=FACES.points + 1), predict)
    np.testing.assert_allclose(recorded.points, FACES.points + 1)
    assert asked == []
    np.testing.assert_allclose(views.estimates(source, without, predict).points, FACES.points + 2)
    assert asked == [8]
    other = replace(without, names=tuple(f"x{name}" for name in FACES.names))
    with pytest.raises(ReplicateError, match="got predictions on toy, expected the 8 faces of lfpw test"):
        views.estimates(source, other, predict)


def test_each_part_has_the_mean_error_of_its_own_points(run):
    share = np.zeros(68)
    share[:17], share[36:48], share[60] = 0.10, 0.02, 0.20
    rows = views.group_rows(run, "LDDR-S4", {"lfpw": estimates(run, share)})
    found = {row.metric.removeprefix("mean error, "): (row.value, row.points) for row in rows}
    assert found == {
        "jaw": (pytest.approx(10, rel=1e-5), 17),
        "brows": (0.0, 10),
        "nose": (0.0, 9),
        "eyes": (pytest.approx(2, rel=1e-5), 12),
        "mouth": (pytest.approx(1, rel=1e-5), 20),
        "the 49 points": (pytest.approx(2 * 12 / 49, rel=1e-5), 49),
        "the other 19 points": (pytest.approx((170 + 20) / 19, rel=1e-5), 19),
        "all 68 points": (pytest.approx((170 + 24 + 20) / 68, rel=1e-5), 68),
    }
    assert {(row.artefact, row.protocol, row.normaliser, row.seeds) for row in rows} == {
        ("LDDR-S4", "lfpw", "inter-pupil", 1)
    }


def test_circles_are_as_wide_as_the_errors_and_inside_the_picture(run, drawing):
    share = np.linspace(0.01, 0.08, 68)
    by_set = {name: estimates(run, share, name) for name in ("lfpw", "helen")}
    figure = views.point_map(run, "LDDR-S4", by_set)
    ax = figure.axes[0]
    (circles,) = ax.collections
    np.testing.assert_allclose(
        2 * circles._widths, 2 * share, rtol=1e-4
    )  # half widths, in inter-pupil distances
    centre = circles.get_offsets()
    assert ax.get_xlim()[0] == pytest.approx((centre[:, 0] - share).min(), abs=1e-4)
    assert ax.get_ylim()[0] == pytest.approx((centre[:, 1] + share).max(), abs=1e-4)  # y goes down
    eyes = centre[36:42].mean(0) - centre[42:48].mean(0)
    assert np.linalg.norm(eyes) == pytest.approx(1, rel=1e-4)
    assert "lfpw: from 1.0 % (point 0) to 8.0 % (point 67)" in figure.get_label()
    (kept,) = manifest.load("lddr", ["smoke"])
    assert (kept.subset, kept.images, kept.seeds, kept.box_rule) == ("lfpw test, helen test", 16, 1, "b")
