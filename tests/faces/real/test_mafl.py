"""The MAFL adapter on small parts of CelebA that the tests make."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_files import returns_or_refuses, write_image

from replicate.errors import ReplicateError
from replicate.faces.real import mafl

NAMES = ("000001.jpg", "000002.jpg", "000003.jpg")
LANDMARKS = """3
lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y
000001.jpg  10  20  30  21  20  30  12  40  28  41
000002.jpg  11  20  30  21  20  30  12  40  28  41
000003.jpg  12  20  30  21  20  30  12  40  28  41
"""
ATTRIBUTES = """3
Male Smiling
000001.jpg  1 -1
000002.jpg -1 -1
000003.jpg -1  1
"""
PEOPLE = "000001.jpg 2880\n000002.jpg 7\n000003.jpg 2880\n"


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        write_image(tmp_path / "img_celeba" / name)
    (tmp_path / "training.txt").write_text("000003.jpg\n000001.jpg\n")
    (tmp_path / "testing.txt").write_text("000002.jpg\n")
    (tmp_path / "list_landmarks_celeba.txt").write_text(LANDMARKS)
    return tmp_path


def test_points_in_the_order_of_the_list(folder):
    faces = mafl.read(folder, "train")
    assert faces.names == ("000003.jpg", "000001.jpg")
    expected = np.array([[12, 20], [30, 21], [20, 30], [12, 40], [28, 41]], np.float32)
    np.testing.assert_array_equal(faces.points[0], expected)
    assert faces.points[1, 0].tolist() == [10, 20] and faces.points.dtype == np.float32
    assert faces.visible.all() and faces.boxes is None and faces.identity is None and faces.attributes == {}
    assert faces.pixels(0).shape == (50, 60, 3)
    assert {path.name for path in faces.files} == {
        "training.txt", "list_landmarks_celeba.txt", "000001.jpg", "000003.jpg"}  # fmt: skip
    assert mafl.read(folder, "test").names == ("000002.jpg",)


def test_attributes_and_identity_where_celeba_gives_them(folder):
    (folder / "Anno").mkdir()
    (folder / "Anno" / "list_attr_celeba.txt").write_text(ATTRIBUTES)
    (folder / "identity_CelebA.txt").write_text(PEOPLE)
    faces = mafl.read(folder, "train")
    assert {key: value.tolist() for key, value in faces.attributes.items()} == {
        "Male": [False, True], "Smiling": [True, False],
        "male": [False, True], "smiling": [True, False]}  # fmt: skip
    assert faces.identity.tolist() == [2880, 2880] and mafl.read(folder, "test").identity.tolist() == [7]
    assert {"list_attr_celeba.txt", "identity_CelebA.txt"} <= {path.name for path in faces.files}


def test_attributes_that_other_sets_have_too(folder):
    text = ATTRIBUTES.replace("Male", "Eyeglasses")
    (folder / "list_attr_celeba.txt").write_text(text)
    attributes = mafl.read(folder, "train").attributes
    assert attributes["wearing_glasses"].tolist() == [False, True] and "male" not in attributes


def test_aligned_images_in_the_folders_of_celeba(folder):
    (folder / "img_celeba").rename(folder / "aligned")
    (folder / "Img").mkdir()
    (folder / "aligned").rename(folder / "Img" / "img_align_celeba")
    (folder / "Anno").mkdir()
    with pytest.raises(
        ReplicateError, match=r"neither list_landmarks_celeba.txt with img_celeba/ nor list_landmarks_align"
    ):
        mafl.read(folder, "train")
    assert mafl.check(folder)[0].state == "absent"
    (folder / "list_landmarks_celeba.txt").rename(folder / "Anno" / "list_landmarks_align_celeba.txt")
    assert mafl.read(folder, "train").files[1].parent.name == "Anno"
    assert mafl.check(folder)[0].found == 2


def test_byte_order_mark_and_crlf(folder):
    for path in folder.glob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(mafl.read(folder, "train")) == 2


@pytest.mark.parametrize(
    "text,message",
    [
        ("000001.jpg\n000001.jpg\n", "training.txt, line 2: '000001.jpg' stands on line 1 already"),
        ("000001.jpg\n000009.jpg\n", r"training.txt, line 2: .*000009.jpg is not there \(1 of 2"),
        ("000001.jpg\n\n../x.jpg\n", r"training.txt, line 3: got '\.\./x.jpg'"),
        ("000001.jpg\n/x.jpg\n", r"training.txt, line 2: got '/x.jpg'"),
        ("\n", "training.txt: no names, expected 19000"),
    ],
)
def test_bad_lists_name_the_line(folder, text, message):
    (folder / "training.txt").write_text(text)
    with pytest.raises(ReplicateError, match=message):
        mafl.read(folder, "train")


@pytest.mark.parametrize(
    "old,new,message",
    [
        ("3\n", "4\n", "line 1: states 4 rows, the file has 3"),
        ("3\n", "2\n", "line 1: states 2 rows, the file has 3"),
        ("3\n", "three\n", "line 1: got 'three', expected the number of rows"),
        ("12  20", "12  x", "line 5: .*expected 10 numbers"),
        ("12  20", "nan 20", "line 5: .*finite"),
        ("12  20", "12", "line 5: got 9 fields|line 5: .*expected 10 numbers"),
        ("000002.jpg", "000003.jpg", "line 5: 000003.jpg stands on line 4 already"),
        (LANDMARKS, "", "line 1: got ''"),
    ],
)
def test_bad_landmarks_name_the_line(folder, old, new, message):
    path = folder / "list_landmarks_celeba.txt"
    path.write_text(LANDMARKS.replace(old, new, 1))
    with pytest.raises(ReplicateError, match=f"list_landmarks_celeba.txt, ({message})"):
        mafl.read(folder, "train")


def test_a_name_without_landmarks_names_the_list(folder):
    (folder / "list_landmarks_celeba.txt").write_text(LANDMARKS.replace("000001", "000004"))
    with pytest.raises(
        ReplicateError, match=r"training.txt, line 2: 000001.jpg is not in .*landmarks.*\(1 such\)"
    ):
        mafl.read(folder, "train")


@pytest.mark.parametrize(
    "name,text,message",
    [
        (
            "list_attr_celeba.txt",
            ATTRIBUTES.replace("1 -1", "1 0", 1),
            "line 3: Smiling is 0, expected 1 or -1",
        ),
        ("list_attr_celeba.txt", ATTRIBUTES.replace("1 -1", "1 -1 1", 1), "line 3: .*expected 2 numbers"),
        (
            "list_attr_celeba.txt",
            ATTRIBUTES.replace("Smiling", "Male"),
            "line 2: 'Male' stands on line 2 already",
        ),
        (
            "identity_CelebA.txt",
            PEOPLE.replace("2880", "2.5", 1),
            "line 1: person 2.5, expected a whole number",
        ),
        (
            "identity_CelebA.txt",
            PEOPLE.replace("000002", "000001"),
            "line 2: 000001.jpg stands on line 1 already",
        ),
        ("identity_CelebA.txt", PEOPLE.replace("2880", "", 1), "line 1: .*expected 1 numbers"),
    ],
)
def test_bad_attributes_and_identities_name_the_line(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(ReplicateError, match=f"{name}, {message}"):
        mafl.read(folder, "train")


def test_check_counts_listed_images_that_are_there(folder):
    assert [(part.name, part.expected, part.found, part.state) for part in mafl.check(folder)] == [
        ("train", 19_000, 2, "incomplete"), ("test", 1_000, 1, "incomplete")]  # fmt: skip
    (folder / "img_celeba" / "000002.jpg").unlink()
    assert mafl.check(folder)[1].state == "absent"


def test_too_long_a_list_is_refused(folder, monkeypatch):
    monkeypatch.setitem(mafl.COUNTS, "train", 1)
    with pytest.raises(ReplicateError, match="training.txt: 2 faces, the official release has 1"):
        mafl.read(folder, "train")


FIELDS = st.one_of(
    st.sampled_from([*NAMES, "3", "1", "-1", "nan", "1e999", "\x00", "\u0663"]), st.text(max_size=4)
)
TEXTS = st.lists(st.lists(FIELDS, max_size=12), max_size=6).map(
    lambda rows: "\n".join(" ".join(row) for row in rows).encode("utf-8", "surrogatepass")
)


@given(st.sampled_from(["training.txt", "list_landmarks_celeba.txt", "list_attr_celeba.txt", "identity_CelebA.txt"]),
       st.one_of(st.binary(max_size=200), TEXTS))  # fmt: skip
def test_any_bytes_in_any_file_are_read_or_refused(tmp_path_factory, name, data):
    folder = tmp_path_factory.mktemp("fuzz")
    write_image(folder / "img_celeba" / NAMES[0])
    contents = {
        "training.txt": NAMES[0],
        "list_landmarks_celeba.txt": LANDMARKS,
        "list_attr_celeba.txt": ATTRIBUTES,
    }
    for other, text in contents.items():
        (folder / other).write_text(text)
    (folder / name).write_bytes(data)
    returns_or_refuses(lambda: mafl.read(folder, "train"), [name])
