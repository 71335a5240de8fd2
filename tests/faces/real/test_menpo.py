"""The Menpo adapter on small folders that the tests make."""

import cv2
import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.faces.real.menpo import DATA_SET, is_profile

POINTS = np.random.default_rng(0).uniform(20, 80, (68, 2)).round(3)


def write_pts(path, points, newline="\n"):
    lines = ["version: 1", f"n_points: {len(points)}", "{", *(f"{x} {y}" for x, y in points), "}"]
    path.write_text(newline.join(lines) + newline, newline="")


@pytest.fixture
def release(tmp_path):
    """Two semi-frontal faces, one profile, two test images."""
    train, test = tmp_path / "menpo_train_release", tmp_path / "menpo_test_release"
    for folder, names in (
        (train, ("aflw__face_1.jpg", "fddb__face_2.png", "aflw__profile.jpg")),
        (test, ("b.jpg", "a.png")),
    ):
        folder.mkdir()
        for name in names:
            cv2.imwrite(str(folder / name), np.zeros((100, 120, 3), np.uint8))
    write_pts(train / "aflw__face_1.pts", POINTS)
    write_pts(train / "fddb__face_2.pts", POINTS, "\r\n")
    write_pts(train / "aflw__profile.pts", POINTS[:39])
    return tmp_path


def test_training_faces_without_profiles(release):
    faces = DATA_SET.read(release, "train")
    assert faces.names == ("menpo_train_release/aflw__face_1.jpg", "menpo_train_release/fddb__face_2.png")
    np.testing.assert_allclose(faces.points, np.stack([POINTS - 1] * 2), atol=1e-5)
    assert faces.visible.all() and faces.boxes is None and faces.pixels(1).shape == (100, 120, 3)


def test_test_faces_have_boxes_in_the_middle_and_no_points(release):
    faces = DATA_SET.read(release, "test")
    assert faces.names == ("menpo_test_release/a.png", "menpo_test_release/b.jpg")
    assert faces.points.shape == (2, 68, 2) and np.isnan(faces.points).all() and not faces.visible.any()
    # DAN's released code: a square of 0.46 of the height, 100 here
    np.testing.assert_allclose(faces.boxes[0], [59.5 - 23, 49.5 - 23, 59.5 + 23, 49.5 + 23])


def test_boxes_follow_the_height_and_no_test_image_is_decoded(release, monkeypatch):
    cv2.imwrite(str(release / "menpo_test_release" / "a.png"), np.zeros((300, 100), np.uint8))
    monkeypatch.setattr(cv2, "imdecode", None)
    faces = DATA_SET.read(release, "test")
    np.testing.assert_allclose(faces.boxes[0], [49.5 - 69, 149.5 - 69, 49.5 + 69, 149.5 + 69])


def test_parts_say_how_many_profiles_are_left_out(release, tmp_path):
    train, test = DATA_SET.check(release)
    assert (train.found, train.state) == (2, "incomplete, 1 profile faces left out")
    assert (test.found, test.state) == (2, "incomplete")
    assert [part.state for part in DATA_SET.check(tmp_path / "none")] == ["absent", "absent"]


def test_a_face_without_partner_is_named(release):
    (release / "menpo_train_release" / "aflw__face_1.pts").unlink()
    with pytest.raises(ReplicateError, match=r"aflw__face_1.jpg lacks its partner"):
        DATA_SET.read(release, "train")
    assert DATA_SET.check(release)[0].state.startswith("damaged: ")


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_folder_is_named(tmp_path, split):
    with pytest.raises(ReplicateError, match=f"menpo_{split}_release.*REPLICATE_DATA"):
        DATA_SET.read(tmp_path, split)


def test_neither_68_nor_39_points(release):
    write_pts(release / "menpo_train_release" / "aflw__face_1.pts", POINTS[:67])
    with pytest.raises(ReplicateError, match="aflw__face_1.pts, line 2: .*67.*expected 68 points"):
        DATA_SET.read(release, "train")


@pytest.mark.parametrize(
    "text,profile",
    [
        ("n_points: 39\n{\n}", True),
        ("n_points :39\r\n{", True),
        ("n_points: 68\n{", False),
        ("{\nn_points: 39", False),
        ("", False),
    ],
)
def test_head_of_a_profile(tmp_path, text, profile):
    (tmp_path / "a.pts").write_text(text, newline="")
    assert is_profile(tmp_path / "a.pts") is profile


def test_what_is_no_text_or_no_image_is_refused(release):
    (release / "menpo_train_release" / "aflw__face_1.pts").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReplicateError, match="aflw__face_1.pts, line 1"):
        DATA_SET.read(release, "train")
    (release / "menpo_test_release" / "a.png").write_bytes(b"")
    with pytest.raises(ReplicateError, match="a.png: not a readable image"):
        DATA_SET.read(release, "test")
