"""Faces of known people with the splits that compare them: those of Janus, made; those of LFW, turned again."""

import cv2
import numpy as np
import pytest

from replicate.errors import AbsentError
from replicate.faces import people as module
from replicate.faces import protocols
from replicate.faces.people import TURN, five_point_boxes, people
from replicate.faces.sources import FaceSource

FOLDS = {"Ann": 0, "Bob": 0, "Cy": 1, "Di": 1}
MIDDLE = (
    79.5 + 0.0 * 113.6,
    79.5 + 0.09 * 250 / 2.2,
)  # of the box of five points: 0.59 of the square's height


@pytest.fixture
def lfw(tmp_path, monkeypatch):
    """Two folds of two people with eight pictures each: a white dot to the right of the middle of the box."""
    rows, pairs = ["file,identity,fold"], ["fold,same,a,b"]
    folder = tmp_path / "lfw"
    for person, fold in FOLDS.items():
        (folder / person).mkdir(parents=True)
        for number in range(8):
            image = np.zeros((160, 160, 3), np.uint8)
            cv2.circle(image, (110, 90), 4, (255, 255, 255), -1)
            cv2.imwrite(str(folder / person / f"{number}.png"), image)
            rows.append(f"{person}/{number}.png,{person},{fold}")
    for fold, (a, b) in enumerate((("Ann", "Bob"), ("Cy", "Di"))):
        pairs += [f"{fold},1,{a}/{n}.png,{a}/{n + 1}.png" for n in range(7)]
        pairs += [f"{fold},0,{a}/{n}.png,{b}/{n}.png" for n in range(7)]
    (folder / "manifest.csv").write_text("\n".join(rows), encoding="utf-8")
    (folder / "pairs_pack.csv").write_text("\n".join(pairs), encoding="utf-8")
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path))
    return folder


def test_a_box_of_five_points_lies_in_the_lower_part_of_the_detectors_square():
    box = five_point_boxes(np.array([[100.0, 200, 200, 300]]))
    np.testing.assert_allclose(box, [[107, 216, 193, 302]])
    side = box[0, 2] - box[0, 0]
    assert side == box[0, 3] - box[0, 1] == pytest.approx(86)


def test_the_place_in_the_square_is_that_of_68_points_and_of_five_in_those():
    """Two relations, one after the other: medians of 300-W's training faces, which `replicate.faces.detector` and this module state."""
    within_68 = np.array(
        [-0.007, -0.089, 1.010, 0.947]
    )  # median place of a `SQUARE` box in the tight one of 68 points
    place_68 = np.array([0.08, 0.23, 0.92, 1.07])  # of that one in the detector's square
    sides = place_68[[2, 3, 2, 3]] - place_68[[0, 1, 0, 1]]
    chained = place_68[[0, 1, 0, 1]] + sides * within_68
    np.testing.assert_allclose(module.FIVE_IN_SQUARE, chained, atol=0.012)


def test_photographs_are_turned_about_the_middle_of_the_face_by_an_angle_of_their_name(lfw):
    found = people("real", "cpu").faces
    angles = []
    for image, name in zip(found.images, found.names, strict=True):
        y, x = np.nonzero(image[..., 0] > 128)
        centre = five_point_boxes(np.array([[79.5 - 125 / 2.2] * 2 + [79.5 + 125 / 2.2] * 2]))[0]
        middle = np.array([(centre[0] + centre[2]) / 2, (centre[1] + centre[3]) / 2])
        before, after = np.array([110, 90]) - middle, np.array([x.mean(), y.mean()]) - middle
        assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), abs=0.6)
        angle = np.degrees(np.arctan2(after[1], after[0]) - np.arctan2(before[1], before[0]))
        assert angle == pytest.approx(TURN * module._normal(name)[0], abs=1.5)
        angles.append(angle)
    assert 5 < np.std(angles) < 16  # 10 degrees in 32 pictures
    again = people("real", "cpu").faces
    np.testing.assert_array_equal(again.boxes, found.boxes)
    assert again.sha256 == found.sha256


def test_boxes_have_the_error_of_other_faces(lfw):
    found = people("real", "cpu").faces
    still = five_point_boxes(np.array([[79.5 - 125 / 2.2] * 2 + [79.5 + 125 / 2.2] * 2]))[0]
    side = still[2] - still[0]
    middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2 - (still[:2] + still[2:]) / 2
    scales = np.log((found.boxes[:, 2:] - found.boxes[:, :2]) / side)
    np.testing.assert_allclose(scales[:, 0], scales[:, 1], atol=1e-5)  # squares stay squares
    for spread in ((middles / side).std(0), scales[:, 0].std()):
        assert (spread > 0.025).all() and (spread < 0.08).all()  # 5 % in 32 pictures
    assert len(np.unique(found.boxes, axis=0)) == 32


def test_folds_of_lfw_share_nobody_and_smoke_keeps_the_first_pairs(lfw):
    full, few = people("real", "cpu"), people("real", "smoke")
    assert len(full.faces) == 32 and [len(split.pairs) for split in full.splits] == [14, 14]
    assert [(len(split.pairs), int(split.same.sum())) for split in few.splits] == [(12, 6), (12, 6)]
    assert full.fingerprint != few.fingerprint
    for known in (full, few):
        identity = known.faces.identity
        for split in known.splits:
            compared = np.concatenate(split.templates)
            assert not {*identity[compared]} & {*identity[split.train]}
            pairs = np.array([[identity[split.templates[n][0]] for n in pair] for pair in split.pairs])
            np.testing.assert_array_equal(pairs[:, 0] == pairs[:, 1], split.same)
    # the same pictures in both
    place = [full.faces.names.index(name) for name in few.faces.names]
    np.testing.assert_array_equal(few.faces.boxes, full.faces.boxes[place])
    assert few.faces.names[few.splits[1].templates[0][0]] == "Cy/0.png"


def test_without_lfw_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path))
    with pytest.raises(AbsentError, match="Set REPLICATE_DATA.*lfw/"):
        people("real", "cpu")


def test_generated_people_are_those_of_janus_with_five_points(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path))
    known = people("synthetic", "smoke")
    assert known.faces.markup == "mtfl5" and known.faces.points.shape == (60, 5, 2)
    assert known.fingerprint == FaceSource("janus", "five", "synthetic", "smoke").fingerprint
    assert len(known.splits) == 10 and len(np.unique(known.faces.identity)) == 12
    three = FaceSource("janus", "all", "synthetic", "smoke").sample(2)
    np.testing.assert_array_equal(known.faces.images[1], three.images[1])
    np.testing.assert_allclose(known.faces.points[:2, :2], three.points[:, :2], rtol=1e-6)  # the eyes
    learnt = protocols.get("casia", "train")[1]
    assert min(known.faces.identity) == 0 and max(known.faces.identity) < learnt.first_person
