"""Scores of landmarks: closed forms of each, and the names that they have on record and in rows."""

from dataclasses import replace

import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.evidence import published
from replicate.evidence.scoring import (
    INNER,
    LDDR_SCORES,
    PARTS,
    SCORES,
    Score,
    described,
    errors_of,
    scores_of,
)
from replicate.evidence.trained import Predicted
from replicate.faces.faceset import FaceSet
from replicate.faces.markups import markup
from replicate.faces.protocols import PROTOCOLS, markup_of

OUTER = 36, 45  # outer eye corners of the 68 points


def faces_of(name, count=3, **changes):
    """Faces in boxes of 100 by 64 pixels, whose area has the root 80; all points visible."""
    points = np.random.default_rng(0).uniform(0, 60, (count, markup(name).size, 2)).astype(np.float32)
    about = dict(
        images=np.zeros((count, 4, 4), np.uint8), points=points, visible=np.ones(points.shape[:2], bool),
        boxes=np.tile([0, 0, 100, 64], (count, 1)).astype(np.float32), names=tuple(map(str, range(count))),
        markup=name, protocol="toy", split="test", faces="synthetic", box_rule="of the test",
    )  # fmt: skip
    return FaceSet(**about | changes)


def moved(faces, right, which=slice(None)):
    """Predictions that lie `right` pixels to the right of the chosen points."""
    points = faces.points.copy()
    points[:, which, 0] += right
    return points


def test_every_score_has_a_key_of_its_own_and_a_normaliser_before_the_comma():
    assert INNER.key == str(INNER) == "inter-ocular, 51 points"
    assert Score("box", visible=True).key == "box"
    assert {name: [score.key for score in scores] for name, scores in SCORES.items()} == {
        "ibug68": ["inter-ocular", "inter-pupil", "diagonal"],
        "aflw34": ["box", "box, 21 points"],
        "cofw29": ["inter-pupil"],
        "afw6": ["box", "pixel"],
        "ijba3": ["eye-nose"],
        "mtfl5": ["inter-pupil"],
    }
    assert {name: [score.key for score in scores] for name, scores in LDDR_SCORES.items()} == {
        "ibug68": [
            "face",
            "inter-pupil, 49 points",
            "inter-ocular, 49 points",
            "face, 49 points",
            "diagonal, 49 points",
        ],
        "ijba3": [],
    }
    with pytest.raises(ReplicateError, match="markup with scores: got 'aflw21'"):
        scores_of("aflw21")


def test_parts_are_the_points_that_the_paper_counts():
    assert {key: len(part) for key, part in PARTS.items()} == {
        ("ibug68", "51 points"): 51,
        ("ibug68", "49 points"): 49,
        ("aflw34", "21 points"): 21,
    }
    assert set(PARTS["ibug68", "51 points"]).isdisjoint(markup("ibug68").regions["jaw"])
    assert set(PARTS["ibug68", "51 points"]) - set(PARTS["ibug68", "49 points"]) == {60, 64}
    assert markup("aflw34").definition[:21] == markup("aflw21").definition


def test_the_inner_points_are_judged_by_the_whole_face():
    faces = faces_of("ibug68")
    distance = np.linalg.norm(np.subtract(*(faces.points[:, corner] for corner in OUTER)), axis=1)
    jaw_off = errors_of(Predicted(moved(faces, 5, slice(17))), faces, [Score("inter-ocular"), INNER])
    np.testing.assert_allclose(jaw_off["inter-ocular"], 100 * 5 * 17 / 68 / distance, rtol=1e-4)
    np.testing.assert_allclose(jaw_off[INNER.key], 0, atol=1e-6)
    brow_off = errors_of(Predicted(moved(faces, 5, [17])), faces, [INNER])
    np.testing.assert_allclose(brow_off[INNER.key], 100 * 5 / 51 / distance, rtol=1e-4)


def test_49_points_leave_out_jaw_and_inner_mouth_corners_and_keep_the_length_of_the_whole_face():
    faces = faces_of("ibug68")
    scores = LDDR_SCORES["ibug68"]
    elsewhere = errors_of(Predicted(moved(faces, 5, [0, 16, 60, 64])), faces, scores)
    brow_off = errors_of(Predicted(moved(faces, 5, [17])), faces, scores)
    sides = np.ptp(faces.points, axis=1)
    np.testing.assert_allclose(elsewhere["face"], 100 * 5 * 4 / 68 / sides.mean(1), rtol=1e-4)
    lengths = {"face": sides.mean(1), "diagonal": np.hypot(*sides.T)}
    for name, length in lengths.items():
        np.testing.assert_allclose(elsewhere[f"{name}, 49 points"], 0, atol=1e-6)
        np.testing.assert_allclose(brow_off[f"{name}, 49 points"], 100 * 5 / 49 / length, rtol=1e-4)


def test_eyes_and_nose_are_judged_by_the_way_from_eyes_to_nose():
    points = np.array([[[0, 0], [8, 0], [4, 20]], [[0, 0], [6, 8], [3, 54]]], np.float32)
    faces = faces_of("ijba3", count=2, points=points)
    found = errors_of(Predicted(moved(faces, 3, [2])), faces, scores_of("ijba3"))
    np.testing.assert_allclose(found["eye-nose"], [100 / 20, 100 / 50], rtol=1e-5)


def test_hidden_points_do_not_count_where_a_score_is_of_the_visible_ones():
    visible = np.ones((3, 34), bool)
    visible[1, :20], visible[2, 1:] = False, False
    faces = faces_of("aflw34", visible=visible)
    found = errors_of(Predicted(moved(faces, 8, [20])), faces, scores_of("aflw34"))
    # 8 of 80 pixels are 10 %, of one point among all that are visible
    np.testing.assert_allclose(found["box"], [10 / 34, 10 / 14, 0], atol=1e-4)
    np.testing.assert_allclose(found["box, 21 points"], [10 / 21, 10, 0], atol=1e-4)


def test_hidden_points_count_on_cofw():
    faces = faces_of("cofw29", visible=np.zeros((3, 29), bool))
    eyes = np.linalg.norm(faces.points[:, 16] - faces.points[:, 17], axis=1)
    found = errors_of(Predicted(moved(faces, 3)), faces, scores_of("cofw29"))
    np.testing.assert_allclose(found["inter-pupil"], 300 / eyes, rtol=1e-4)


def test_pixels_are_those_of_the_photograph_and_unknown_points_are_left_out():
    faces = faces_of("afw6")
    unknown = np.where(np.arange(6)[:, None] < 2, np.nan, faces.points).astype(np.float32)
    faces = replace(faces, points=unknown, attributes={"pixel": np.array([1.0, 2.0, 0.5])})
    found = errors_of(Predicted(np.nan_to_num(moved(faces, 4))), faces, scores_of("afw6"))
    np.testing.assert_allclose(found["pixel"], [4, 8, 2], atol=1e-4)
    np.testing.assert_allclose(found["box"], 5, atol=1e-4)  # of the box, in the same pixels
    whole = errors_of(Predicted(moved(faces_of("afw6"), 4)), faces_of("afw6"), scores_of("afw6"))
    np.testing.assert_allclose(whole["pixel"], 4, atol=1e-4)  # an image that was not reduced


def test_further_points_have_the_score_that_their_key_begins_with():
    visible = np.ones((3, 34), bool)
    visible[:, :17] = False
    faces = faces_of("aflw34", visible=visible)
    more = {"box, 3 iterations": moved(faces, 8), "box, 5 components": moved(faces, 8, slice(17))}
    found = errors_of(Predicted(faces.points, more=more), faces, scores_of("aflw34"))
    assert list(found) == ["box", "box, 21 points", *more]
    np.testing.assert_allclose(found["box, 3 iterations"], 10, atol=1e-4)
    np.testing.assert_allclose(found["box, 5 components"], 0, atol=1e-6)  # they are hidden
    with pytest.raises(ReplicateError, match="normaliser of further points: got 'inter-pupil'"):
        errors_of(Predicted(faces.points, more={"inter-pupil, 3": faces.points}), faces, scores_of("aflw34"))


def test_what_cannot_be_judged_is_refused():
    faces = faces_of("aflw34", visible=np.zeros((3, 34), bool))
    with pytest.raises(ReplicateError, match="face 0 has no visible point"):
        errors_of(Predicted(faces.points), faces, scores_of("aflw34"))
    with pytest.raises(
        ReplicateError, match="part: got '51 points' of aflw34, expected one of 51 points of ibug68"
    ):
        errors_of(Predicted(faces.points), faces, [Score("box", "51 points")])


@pytest.mark.parametrize(
    ("key", "name", "expected"),
    [
        ("inter-pupil", "ibug68", ("mean error", "inter-pupil", 68, "%")),
        ("inter-ocular, 51 points", "ibug68", ("mean error", "inter-ocular", 51, "%")),
        ("inter-pupil, all components", "ibug68", ("mean error, all components", "inter-pupil", 68, "%")),
        ("inter-pupil, 49 points", "ibug68", ("mean error", "inter-pupil", 49, "%")),
        ("face", "ibug68", ("mean error", "face", 68, "%")),
        ("inter-pupil, 3 stages", "ibug68", ("mean error, 3 stages", "inter-pupil", 68, "%")),
        ("eye-nose", "ijba3", ("mean error", "eye-nose", 3, "%")),
        ("box", "aflw34", ("mean error, visible points", "box", 34, "%")),
        ("box, 21 points", "aflw34", ("mean error, visible points", "box", 21, "%")),
        ("box", "afw6", ("mean error, visible points", "box", 6, "%")),
        ("pixel", "afw6", ("MAPE", "none", 6, "px")),
        ("inter-pupil", "cofw29", ("mean error", "inter-pupil", 29, "%")),
    ],
)
def test_rows_name_errors_as_the_published_values_do(key, name, expected):
    assert described(key, name) == expected


def test_every_score_of_a_paper_is_one_of_its_published_values():
    values = published.load("ect")
    for protocol, split in (("300w", "common"), ("aflw-pifa", "test"), ("afw", "test"), ("cofw", "test")):
        name = markup_of(protocol, split)
        keys = [score.key for score in scores_of(name) if score.normaliser in ("inter-pupil", "box", "pixel")]
        for metric, normaliser, points, unit in (described(key, name) for key in keys):
            listed = values[(values["protocol"] == protocol) & (values["metric"] == metric)]
            listed = listed[(listed["normaliser"] == normaliser) & (listed["points"] == str(points))]
            assert len(listed) and set(listed["unit"]) == {unit}, (protocol, metric, normaliser, points)
        assert PROTOCOLS[protocol].papers.count("ect") == 1


def test_the_49_points_of_lddr_are_listed_as_its_tables_have_them():
    values = published.load("lddr")
    for key in ("inter-pupil", "inter-pupil, 49 points"):
        metric, normaliser, points, unit = described(key, "ibug68")
        listed = values[(values["metric"] == metric) & (values["normaliser"] == normaliser)]
        listed = listed[(listed["points"] == str(points)) & (listed["method"] == "LDDR")]
        assert {"lfpw", "helen"} <= set(listed["protocol"]) and set(listed["unit"]) == {unit}
