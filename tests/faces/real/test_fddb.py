"""The FDDB adapter: boxes of ellipses in closed form, and lists that are damaged in every way."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicate.errors import ReplicateError
from replicate.faces.real.fddb import DATA_SET, ellipse_boxes, read_ellipses

FIRST = "2002/08/11/big/img_591"
ELLIPSE = "12.5 8.25 1.265839 30.5 25.0  1"


@pytest.fixture
def release(tmp_path):
    """Ten lists of one image each; the first has two faces."""
    folds = tmp_path / "FDDB-folds"
    folds.mkdir()
    for fold in range(1, 11):
        name = FIRST if fold == 1 else f"2003/01/{fold:02d}/big/img_1"
        lines = [name, "2", ELLIPSE, "4 3 0 7 6 1"] if fold == 1 else [name, "1", ELLIPSE]
        (folds / f"FDDB-fold-{fold:02d}-ellipseList.txt").write_text("\n".join(lines) + "\n")
        image = tmp_path / "originalPics" / f"{name}.jpg"
        image.parent.mkdir(parents=True)
        cv2.imwrite(str(image), np.full((8, 8, 3), fold, np.uint8))
    return tmp_path


def first_list(release):
    return release / "FDDB-folds" / "FDDB-fold-01-ellipseList.txt"


def test_faces_of_ten_folds(release):
    faces = DATA_SET.read(release, "all")
    assert len(faces) == 11 and faces.names[:2] == (f"{FIRST}#0", f"{FIRST}#1")
    assert faces.points.shape == (11, 0, 2) and faces.visible.shape == (11, 0)
    np.testing.assert_allclose(faces.boxes[1], [3, 3, 11, 9])  # angle 0: centre 7, 6 and radii 4, 3
    assert faces.attributes["fold"].tolist() == [1, 1, *range(2, 11)]
    assert faces.pixels(10).shape == (8, 8, 3) and abs(int(faces.pixels(10)[0, 0, 0]) - 10) <= 1
    assert len(faces.files) == 20


@given(
    st.tuples(
        st.floats(1, 100), st.floats(1, 100), st.floats(-4, 4), st.floats(-500, 500), st.floats(-500, 500)
    )
)
@settings(max_examples=100, deadline=None)
def test_box_touches_the_ellipse(ellipse):
    a, b, angle, x, y = ellipse
    u = np.linspace(0, 2 * np.pi, 20001)
    along, across = a * np.cos(u), b * np.sin(u)
    outline_x = x + along * np.cos(angle) - across * np.sin(angle)
    outline_y = y + along * np.sin(angle) + across * np.cos(angle)
    drawn = [outline_x.min(), outline_y.min(), outline_x.max(), outline_y.max()]
    np.testing.assert_allclose(ellipse_boxes(np.array([ellipse]))[0], drawn, atol=1e-4)


def test_box_of_special_ellipses():
    boxes = ellipse_boxes(np.array([[5, 2, 0, 10, 20], [5, 2, np.pi / 2, 10, 20], [3, 3, 0.7, 0, 0]]))
    np.testing.assert_allclose(boxes, [[5, 18, 15, 22], [8, 15, 12, 25], [-3, -3, 3, 3]], atol=1e-12)


@pytest.mark.parametrize(
    "text,message",
    [
        (f"{FIRST}\n", "line 1: number of faces: got ''"),
        (f"{FIRST}\nzwei\n", "line 2: number of faces: got 'zwei'"),
        (f"{FIRST}\n-1\n", "line 2: number of faces"),
        (f"{FIRST}\n2\n{ELLIPSE}\n", "line 2: .*expected 6 numbers"),
        (f"{FIRST}\n1\n{ELLIPSE}\n{ELLIPSE}\n", "line 4: number of faces: got ''"),
        (f"{FIRST}\n1\n1 2 3 4 5\n", "line 3: .*expected 6 numbers"),
        (f"{FIRST}\n1\n1 2 x 4 5 1\n", "line 3: .*expected 6 numbers"),
        (f"{FIRST}\n1\n1 nan 3 4 5 1\n", "line 3: .*finite"),
        (f"{FIRST}\n1\n0 2 3 4 5 1\n", "line 3: .*positive radii"),
        (f"{FIRST}\n1\n1 2 3 4 5 0\n", "line 3: .*1 at the end"),
        (f"{FIRST}\n1\n{ELLIPSE}\n{FIRST}\n1\n{ELLIPSE}\n", "line 4: .*stands on line 1 already"),
    ],
)
def test_damaged_lists_are_refused(release, text, message):
    first_list(release).write_text(text)
    with pytest.raises(ReplicateError, match=f"fold-01-ellipseList.txt, {message}"):
        DATA_SET.read(release, "all")
    assert DATA_SET.check(release)[0].state.startswith("damaged: ")


def test_byte_order_mark_crlf_blank_lines_and_no_faces(release):
    text = f"\r\n{FIRST}\r\n1\r\n{ELLIPSE}\r\n\r\nother\r\n0\r\n"
    first_list(release).write_bytes(b"\xef\xbb\xbf" + text.encode())
    images = read_ellipses(first_list(release))
    assert [(image.name, image.line, len(image.ellipses)) for image in images] == [
        (FIRST, 2, 1),
        ("other", 6, 0),
    ]


def test_image_in_two_lists_is_refused(release):
    second = release / "FDDB-folds" / "FDDB-fold-02-ellipseList.txt"
    second.write_text(f"{FIRST}\n1\n{ELLIPSE}\n")
    with pytest.raises(ReplicateError, match="fold-02.*line 1: .*is in FDDB-fold-01-ellipseList.txt already"):
        DATA_SET.read(release, "all")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "C:/x", "a/../../b"])
def test_paths_that_leave_the_folder_are_refused(release, name):
    first_list(release).write_text(f"{name}\n1\n{ELLIPSE}\n")
    with pytest.raises(ReplicateError, match="fold-01.*line 1"):
        DATA_SET.read(release, "all")


def test_missing_image_and_missing_list_are_named(release):
    (release / "originalPics" / f"{FIRST}.jpg").unlink()
    with pytest.raises(ReplicateError, match=r"fold-01.*line 1: .*img_591.jpg is not there"):
        DATA_SET.read(release, "all")
    faces, images = DATA_SET.check(release)
    assert (faces.found, images.found, images.state) == (9, 9, "incomplete")
    first_list(release).unlink()
    with pytest.raises(ReplicateError, match="fold-01-ellipseList.txt is not there"):
        DATA_SET.read(release, "all")


def test_non_ascii_name(release):
    (release / "originalPics" / "größe.jpg").write_bytes(b"x")
    first_list(release).write_text(f"größe\n1\n{ELLIPSE}\n", encoding="utf-8")
    assert DATA_SET.read(release, "all").names[0] == "größe#0"


def test_what_is_absent(tmp_path):
    assert {part.state for part in DATA_SET.check(tmp_path)} == {"absent"}
    with pytest.raises(ReplicateError, match="REPLICATE_DATA"):
        DATA_SET.read(tmp_path, "all")
    with pytest.raises(ReplicateError, match="split: got 'test', expected one of all"):
        DATA_SET.read(tmp_path, "test")


@given(st.binary(max_size=200) | st.text("012 .\n-e\raé", max_size=200).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused_clearly(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_bytes(data)
    try:
        images = read_ellipses(path)
    except ReplicateError as error:
        assert "fuzz.txt" in str(error)
    else:
        assert all(image.name and image.ellipses.shape[1] == 5 for image in images)
