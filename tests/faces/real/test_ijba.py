"""The IJB-A adapter on small protocols that the tests make."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicate.errors import ReplicateError
from replicate.faces.real.ijba import COLUMNS, DATA_SET, SPLITS, read_metadata

HEADER = ",".join((*COLUMNS, "FACE_YAW"))  # a further column is passed over
ROWS = {  # template, subject, file, media, sighting, box, right eye, left eye, nose, yaw
    "train": [
        "10,1,img/1.jpg,100,1000,5,6,20,30,8,9,16,9.5,12,15,",
        "11,2,frame/2_001.png,200,2000,1,1,10,10,,,3,4,,,12",
    ],
    "verify_metadata": [
        "20,3,img/3.jpg,300,3000,0,0,7,7,,,,,,,",
        "20,3,img/1.jpg,100,1001,2,2,4,4,1,1,2,1,1.5,2,",  # another face of the first image
        "21,4,img/4.jpg,400,4000,,,,,,,,,,,",  # no box
    ],
}


def write_protocol(folder, rows=ROWS, header=HEADER):
    for k in range(1, 11):
        split = folder / f"split{k}"
        split.mkdir(parents=True, exist_ok=True)
        for kind, lines in rows.items():
            (split / f"{kind}_{k}.csv").write_text("\n".join([header, *lines]) + "\n")


@pytest.fixture
def release(tmp_path):
    write_protocol(tmp_path / "IJB-A_11_sets")
    for name in ("img/1.jpg", "img/3.jpg", "img/4.jpg", "frame/2_001.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((8, 8, 3), np.uint8))
    return tmp_path


def first_table(release):
    return release / "IJB-A_11_sets" / "split1" / "train_1.csv"


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_all_faces_once(release):
    faces = DATA_SET.read(release, "all")
    assert faces.names == ("img/1.jpg#1000", "frame/2_001.png#2000", "img/3.jpg#3000", "img/1.jpg#1001")
    np.testing.assert_array_equal(
        faces.points[0], [[8, 9], [16, 9.5], [12, 15]]
    )  # the right eye is on the left
    np.testing.assert_array_equal(faces.visible[1], [False, True, False])
    assert np.isnan(faces.points[1, 0]).all() and not faces.visible[2].any()
    np.testing.assert_array_equal(faces.boxes[0], [5, 6, 25, 36])
    assert faces.identity.tolist() == [1, 2, 3, 3]
    assert faces.attributes["media"].tolist() == [100, 200, 300, 100]
    assert faces.pixels(3).shape == (8, 8, 3)
    assert len(faces.files) == 20 + 3


def test_stills(release):
    assert DATA_SET.read(release, "stills").names == ("img/1.jpg#1000", "img/3.jpg#3000", "img/1.jpg#1001")


@pytest.mark.parametrize("split,found", [("stills", 3), ("all", 4)])
def test_more_faces_than_the_release_has_are_refused(release, monkeypatch, split, found):
    monkeypatch.setitem(SPLITS, split, found - 1)
    with pytest.raises(ReplicateError, match=f"11_sets: {found} faces, the official release has {found - 1}"):
        DATA_SET.read(release, split)


def test_parts(release, tmp_path):
    assert [(part.name, part.found, part.state) for part in DATA_SET.check(release)] == [
        ("stills", 3, "incomplete"),
        ("all", 4, "incomplete"),
    ]
    (release / "images" / "img" / "1.jpg").unlink()
    assert [part.found for part in DATA_SET.check(release)] == [1, 2]
    assert [part.state for part in DATA_SET.check(tmp_path / "none")] == ["absent", "absent"]


@pytest.mark.parametrize(
    "old,new,message",
    [
        ("SIGHTING_ID", "SIGHTING", "line 1: the header must have .*check SIGHTING_ID"),
        ("FACE_YAW", "FACE_X", "line 1: .*check FACE_X"),
        ("15,\n", "15\n", "line 2: 15 fields, the header has 16"),
        ("5,6,20,30", "5,6,20,", "line 2: FACE_X.* expected all or none"),
        ("5,6,20,30", "5,6,zwanzig,30", "line 2: .*expected 4 numbers"),
        ("5,6,20,30", "5,6,nan,30", "line 2: .*finite"),
        ("5,6,20,30", "5,6,0,30", "line 2: a face of 0x30 pixels"),
        ("8,9,16", ",9,16", "line 2: RIGHT_EYE_X, RIGHT_EYE_Y"),
        ("10,1,img", "ten,1,img", "line 2: template: got 'ten'"),
        ("10,1,img", "10,-1,img", "line 2: subject: got '-1'"),
        ("img/1.jpg", "../1.jpg", r"line 2: .*'\.\.'"),
        ("img/1.jpg", "/etc/passwd", "line 2: .*absolute"),
        ("img/1.jpg", "img/9.jpg", "line 2: .*9.jpg is not there"),
        ("img/1.jpg", '"img/1.jpg', "line 2: not a line of comma-separated"),
    ],
)
def test_damaged_tables_are_refused(release, old, new, message):
    edit(first_table(release), old, new)
    with pytest.raises(ReplicateError, match=f"train_1.csv, {message}"):
        DATA_SET.read(release, "all")


def test_tables_that_contradict_each_other(release):
    edit(release / "IJB-A_11_sets" / "split7" / "train_7.csv", "8,9,16", "8,9,17")
    with pytest.raises(ReplicateError, match=r"train_7.csv, line 2: face 1000 .*train_1.csv, line 2"):
        DATA_SET.read(release, "all")
    assert DATA_SET.check(release)[0].state.startswith("damaged: ")


def test_same_numbers_in_other_digits_are_the_same_face(release):
    edit(release / "IJB-A_11_sets" / "split7" / "train_7.csv", "8,9,16", "8.0,9,16")
    assert len(DATA_SET.read(release, "all")) == 4


def test_missing_table_is_counted(release):
    first_table(release).unlink()
    with pytest.raises(ReplicateError, match="IJB-A: 19 of the 20 tables"):
        DATA_SET.read(release, "all")


def test_byte_order_mark_crlf_and_backslash(release):
    text = first_table(release).read_text().replace("img/1", "img\\1").replace("\n", "\r\n")
    first_table(release).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert DATA_SET.read(release, "all").names[0] == "img/1.jpg#1000"


@given(
    st.binary(max_size=200)
    | st.text('0123,.-\n\r"é', max_size=300).map(lambda text: f"{HEADER}\n{text}".encode())
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused_clearly(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(data)
    try:
        read_metadata(path)
    except ReplicateError as error:
        assert "fuzz.csv" in str(error)


@given(st.lists(st.text("0123456789.-e ", max_size=8), min_size=16, max_size=16))
@settings(max_examples=200, deadline=None)
def test_any_fields_are_read_or_refused_clearly(tmp_path_factory, fields):
    path = tmp_path_factory.getbasetemp() / "fields.csv"
    path.write_text(f"{HEADER}\n{','.join(fields)}\n")
    try:
        ((_, sighting),) = read_metadata(path)
    except ReplicateError as error:
        assert "fields.csv, line 2" in str(error)
    else:
        assert sighting.box is None or (
            sighting.box[2] > sighting.box[0] and sighting.box[3] > sighting.box[1]
        )
