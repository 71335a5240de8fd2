"""The MTFL adapter on small folders that the tests make, and on the real lists where they are at hand."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_files import real_folder, returns_or_refuses, write_image

from replicate.errors import ReplicateError
from replicate.faces.real import mtfl
from replicate.faces.real.reading import check_points_belong

LINES = [
    "lfw_5590\\Zoë_顔_0001.jpg 10 30 20 12 28 15 16 25 35.5 34.25 1 2 1 3",
    "net_7876\\b c.jpg 11 31 21 13 29 16 17 26 36 35 2 1 2 5",
]


@pytest.fixture
def folder(tmp_path):
    write_image(tmp_path / "lfw_5590" / "Zoë_顔_0001.jpg")
    write_image(tmp_path / "net_7876" / "b c.jpg")
    write_list(tmp_path, LINES)
    return tmp_path


def write_list(folder, lines, name="training.txt"):
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")


def test_points_names_and_codes(folder):
    faces = mtfl.read(folder, "train")
    assert faces.names == ("lfw_5590/Zoë_顔_0001.jpg", "net_7876/b c.jpg")
    expected = [[10, 15], [30, 16], [20, 25], [12, 35.5], [28, 34.25]]
    np.testing.assert_array_equal(faces.points[0], np.array(expected, np.float32))
    assert faces.points.dtype == np.float32 and faces.visible.all() and faces.boxes is None
    published = {key: faces.attributes[key].tolist() for key in mtfl.CODES}
    assert published == {"gender": [1, 2], "smile": [2, 1], "glasses": [1, 2], "pose": [3, 5]}
    assert faces.attributes["male"].tolist() == [True, False]
    assert faces.attributes["smiling"].tolist() == [False, True]
    assert faces.attributes["wearing_glasses"].tolist() == [True, False]
    assert faces.pixels(1).shape == (50, 60, 3)
    assert [path.name for path in faces.files] == ["training.txt", "Zoë_顔_0001.jpg", "b c.jpg"]


def test_points_and_order_agree_with_the_markup(folder):
    """Eyes above mouth, left of the image first: as `mtfl5` has it."""
    eyes_and_mouth = mtfl.read(folder, "train").points[:, [0, 1, 3, 4]]
    assert (eyes_and_mouth[:, :2, 1] < eyes_and_mouth[:, 2:, 1]).all()
    assert (eyes_and_mouth[:, [0, 2], 0] < eyes_and_mouth[:, [1, 3], 0]).all()


@pytest.mark.parametrize(
    "data",
    ["\ufeff" + "\r\n".join(LINES), "\n ".join(["", *LINES, ""]), "\r".join(LINES)],
    ids=["bom and crlf", "blanks", "cr"],
)
def test_other_line_ends_read_alike(folder, data):
    (folder / "training.txt").write_bytes(data.encode())
    assert len(mtfl.read(folder, "train")) == 2


@pytest.mark.parametrize(
    "line,message",
    [
        (LINES[0], "line 3: 'lfw_5590/Zoë_顔_0001.jpg' stands on line 1 already"),
        (LINES[0].replace("\\", "/"), "line 3: .* stands on line 1 already"),
        (
            "AFLW\\absent.jpg 10 30 20 12 28 15 16 25 35 34 1 2 1 3",
            r"line 3: .*absent.jpg is not there \(1 of 3",
        ),
        ("..\\a.jpg 10 30 20 12 28 15 16 25 35 34 1 2 1 3", r"line 3: got '\.\.\\\\a.jpg'"),
        ("/etc/a.jpg 10 30 20 12 28 15 16 25 35 34 1 2 1 3", "line 3: got '/etc/a.jpg'"),
        ("a.jpg 10 30 20 12 28 15 16 25 35 1 2 1 3", "line 3: .* expected 14 numbers"),
        ("10 30 20 12 28 15 16 25 35 34 1 2 1 3", "line 3: .* expected 14 numbers"),
        ("a.jpg 10 30 20 12 28 15 16 25 nan 34 1 2 1 3", "line 3: .* expected finite numbers"),
        ("a.jpg 10 30 20 12 28 15 16 25 3,5 34 1 2 1 3", "line 3: .* expected 14 numbers"),
        ("a.jpg 10 30 20 12 28 15 16 25 35 34 3 2 1 3", "line 3: gender is 3, expected 1 to 2"),
        ("a.jpg 10 30 20 12 28 15 16 25 35 34 1 2 1 0", "line 3: pose is 0, expected 1 to 5"),
        ("a.jpg 10 30 20 12 28 15 16 25 35 34 1 1.5 1 3", "line 3: smile is 1.5, expected 1 to 2"),
    ],
)
def test_bad_lines_name_list_and_line(folder, line, message):
    write_list(folder, [*LINES, line])
    with pytest.raises(ReplicateError, match=f"training.txt, {message}"):
        mtfl.read(folder, "train")


def test_an_empty_list_and_too_long_a_list_are_refused(folder, monkeypatch):
    monkeypatch.setitem(mtfl.COUNTS, "train", 1)
    with pytest.raises(ReplicateError, match="training.txt: 2 faces, the official release has 1"):
        mtfl.read(folder, "train")
    write_list(folder, [])
    with pytest.raises(ReplicateError, match="training.txt: no faces, expected 1 lines"):
        mtfl.read(folder, "train")


def test_check_counts_images_that_are_there(folder):
    train, test = mtfl.check(folder)
    assert (train.expected, train.found, train.state) == (10_000, 2, "incomplete")
    assert (test.expected, test.found, test.state) == (2_995, 0, "absent")
    (folder / "net_7876" / "b c.jpg").unlink()
    assert mtfl.check(folder)[0].found == 1
    write_list(folder, ["x"])
    assert mtfl.check(folder)[0].state.startswith("damaged: ") and "line 1" in mtfl.check(folder)[0].state


def test_zero_size_and_huge_images_are_refused_when_decoded(folder):
    path = folder / "net_7876" / "b c.jpg"
    faces = mtfl.read(folder, "train")
    path.write_bytes(b"")
    with pytest.raises(ReplicateError, match="b c.jpg: not a readable image"):
        faces.pixels(1)
    cv2.imwrite(str(path), np.zeros((1, 20_001), np.uint8))
    with pytest.raises(ReplicateError, match="b c.jpg: 20001x1 pixels"):
        faces.pixels(1)


FIELDS = st.one_of(
    st.sampled_from(["1", "2", "nan", "-3.5", "a.jpg", "..", "1e999", "\x00", "é"]), st.text(max_size=5)
)


@given(st.one_of(st.binary(max_size=300), st.lists(st.lists(FIELDS, max_size=16)).map(
    lambda rows: "\n".join(" ".join(row) for row in rows).encode("utf-8", "surrogatepass"))))  # fmt: skip
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "training.txt").write_bytes(data)
    returns_or_refuses(lambda: mtfl.read(folder, "train"), ["training.txt"])


def test_real_lists_have_the_published_counts_and_rates():
    folder = real_folder("mtfl")
    assert [(part.found, part.state) for part in mtfl.check(folder)] == [
        (10_000, "complete"),
        (2_995, "complete"),
    ]
    train, test = mtfl.read(folder, "train"), mtfl.read(folder, "test")
    sources = np.array([name.split("/")[0] for name in train.names])
    assert (sources == "lfw_5590").sum() == 4_151 and (sources == "net_7876").sum() == 5_849
    assert {name.split("/")[0] for name in test.names} == {"AFLW"}
    for faces in (train, test):
        for index in range(0, len(faces), 499):
            height, width = faces.pixels(index).shape[:2]
            check_points_belong(faces.names[index], (width, height), faces.points[index])
    nose = train.points[:, 2, 0] - train.points[:, :2, 0].mean(1)  # to the side that the head turns to
    poses = [nose[train.attributes["pose"] == pose].mean() for pose in range(1, 6)]
    assert np.all(np.diff(poses) > 0)
