"""The AFLW and AFLW-PIFA adapters on small databases and Matlab files that the tests make."""

import sqlite3
from contextlib import closing

import cv2
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from replicate.errors import ReplicateError
from replicate.faces.real.aflw import DATA_SET, PIFA_DATA_SET, POINT_NAMES, yaw_bins

TABLES = {
    "Faces": "face_id, file_id, db_id",
    "FaceImages": "image_id, db_id, file_id, filepath, bw, width, height",
    "FaceRect": "face_id, x, y, w, h, annot_type_id",
    "FeatureCoords": "face_id, feature_id, x, y, annot_type_id",
    "FeatureCoordTypes": "feature_id, descr, code, x, y, z",
    "FacePose": "face_id, roll, pitch, yaw, annot_type_id",
    "FaceMetaData": "face_id, sex, occluded, glasses, bw, annot_type_id",
}
NAMES = [
    "HeadCenter",
    *POINT_NAMES,
]  # of features 1 to 22: the order comes from the names, not from the numbers
ROWS = {
    "Faces": [(12, "image1.jpg", "aflw"), (11, "image1.jpg", "aflw"), (13, "image2.jpg", "aflw"), (14, "image2.jpg", "aflw")],
    "FaceImages": [(1, "aflw", "image1.jpg", "0/image1.jpg", 0, 8, 8), (2, "aflw", "image2.jpg", "3/image2.jpg", 0, 8, 8)],
    "FaceRect": [(11, 1, 2, 5, 6, 1), (12, 0, 0, 3, 3, 1), (13, 0, 0, 3, 3, 1)],  # 13 has no points, 14 no rectangle
    "FeatureCoords": [(11, 2, 1.5, 2.5, 1), (11, 22, 4, 7, 1), (11, 1, 9, 9, 1), (11, 3, -1, -1, 1), (12, 16, 1, 2, 1), (14, 2, 1, 1, 1)],
    "FeatureCoordTypes": [(number, name, f"F{number}", 0, 0, 0) for number, name in enumerate(NAMES, start=1)],
    "FacePose": [(11, 0.0, np.pi / 6, -np.pi / 2, 1)],
    "FaceMetaData": [(11, "f", 0, 1, 0, 1), (12, None, None, 0, 0, 1)],
}  # fmt: skip


def write_database(folder, **changes):
    path = folder / "data" / "aflw.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        for table, columns in TABLES.items():
            connection.execute(f"CREATE TABLE {table} ({columns})")
            rows = (ROWS | changes)[table]
            marks = ", ".join("?" * (columns.count(",") + 1))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        connection.commit()
    return path


@pytest.fixture
def release(tmp_path):
    write_database(tmp_path)
    for name in ("0/image1.jpg", "3/image2.jpg"):
        image = tmp_path / "data" / "flickr" / name
        image.parent.mkdir(parents=True)
        cv2.imwrite(str(image), np.zeros((8, 8, 3), np.uint8))
    return tmp_path


def test_faces_with_rectangle_and_points(release):
    faces = DATA_SET.read(release, "all")
    assert faces.names == ("0/image1.jpg#11", "0/image1.jpg#12")
    expected = np.full((2, 21, 2), np.nan)
    expected[0, 0], expected[0, 20], expected[1, POINT_NAMES.index("NoseCenter")] = (1.5, 2.5), (4, 7), (1, 2)
    np.testing.assert_array_equal(faces.points, expected)
    np.testing.assert_array_equal(faces.visible, np.isfinite(expected[..., 0]))
    np.testing.assert_array_equal(faces.boxes, [[1, 2, 6, 8], [0, 0, 3, 3]])
    assert faces.pixels(1).shape == (8, 8, 3) and len(faces.files) == 2


def test_pose_in_degrees_and_attributes(release):
    attributes = DATA_SET.read(release, "all").attributes
    np.testing.assert_allclose(attributes["yaw"], [-90, np.nan], rtol=1e-6)
    np.testing.assert_allclose(attributes["pitch"], [30, np.nan], rtol=1e-6)
    np.testing.assert_allclose(attributes["roll"], [0, np.nan])
    np.testing.assert_array_equal(attributes["male"], [0, np.nan])
    np.testing.assert_array_equal(attributes["wearing_glasses"], [1, 0])
    np.testing.assert_array_equal(attributes["occluded"], [0, np.nan])


def test_the_database_is_not_written(release):
    database = release / "data" / "aflw.sqlite"
    before = database.read_bytes()
    database.chmod(0o444)
    DATA_SET.read(release, "all")
    assert database.read_bytes() == before and [path.name for path in database.parent.glob("*.sqlite*")] == [
        "aflw.sqlite"
    ]


def test_parts(release, tmp_path):
    (part,) = DATA_SET.check(release)
    assert (part.found, part.expected, part.state) == (2, 24386, "incomplete")
    (release / "data" / "flickr" / "0" / "image1.jpg").unlink()
    assert DATA_SET.check(release)[0].found == 0
    assert DATA_SET.check(tmp_path / "none")[0].state == "absent"


@pytest.mark.parametrize(
    "table,rows,message",
    [
        ("FaceRect", [*ROWS["FaceRect"], (11, 1, 2, 5, 7, 2)], "table FaceRect: face 11 has two entries that differ"),
        ("FaceRect", [(11, 1, 2, 0, 6, 1)], "table FaceRect: face 11 has 0x6 pixels"),
        ("FaceRect", [(11, 1, 2, "wide", 6, 1)], "table FaceRect: face 11 has .*'wide'"),
        ("FaceRect", [(11, 1, None, 2, 6, 1)], "table FaceRect: face 11 has .*None"),
        ("FeatureCoords", [(11, 2, 1e9, 1, 1)], "table FeatureCoords: face 11 has .*at most"),
        ("FeatureCoords", [(11, 2, float("inf"), 1, 1)], "table FeatureCoords: face 11 has .*inf"),
        ("FeatureCoords", [(11, 2, 1, 1, 1), (11, 2, 1, 2, 1)], "table FeatureCoords: face 11 has point 2 twice"),
        ("FeatureCoordTypes", ROWS["FeatureCoordTypes"][:-1], "table FeatureCoordTypes: no ChinCenter among HeadCenter, Left"),
        ("Faces", [(11, "image9.jpg", "aflw")], "table Faces: face 11 is in image 'image9.jpg'"),
        ("Faces", [(11, "image1.jpg", "aflw")] * 2, "table Faces: face_id 11, expected different"),
        ("Faces", [("eleven", "image1.jpg", "aflw")], "table Faces: face_id 'eleven'"),
        ("FaceImages", [(1, "aflw", "image1.jpg", "../1.jpg", 0, 8, 8), ROWS["FaceImages"][1]], r"table FaceImages, line 1: .*'\.\.'"),
        ("FaceImages", [(1, "aflw", "image1.jpg", "0/x.jpg", 0, 8, 8), ROWS["FaceImages"][1]], "table FaceImages, line 1: .*x.jpg is not there"),
        ("FaceImages", [(1, "aflw", "image1.jpg", b"\xff", 0, 8, 8), ROWS["FaceImages"][1]], "table Faces: face 12 is in image"),
        ("FaceImages", [*ROWS["FaceImages"], (3, "aflw", "image1.jpg", "2/image1.jpg", 0, 8, 8)], "table FaceImages, line 3: 'image1.jpg' is '0/image1.jpg' on line 1"),
        ("FaceMetaData", [(11, "f", "yes", 0, 0, 1)], "table FaceMetaData: face 11 has .*'yes'"),
    ],
)  # fmt: skip
def test_damaged_rows_are_refused(release, table, rows, message):
    write_database(release, **{table: rows})
    with pytest.raises(ReplicateError, match=f"aflw.sqlite, {message}"):
        DATA_SET.read(release, "all")


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"no database", lambda data: data[:5000]])
def test_damaged_database_is_refused(release, damage):
    database = release / "data" / "aflw.sqlite"
    database.write_bytes(damage(database.read_bytes()))
    with pytest.raises(ReplicateError, match=r"aflw.sqlite, table \w+: cannot read .* restore the database"):
        DATA_SET.read(release, "all")
    assert DATA_SET.check(release)[0].state.startswith("damaged: ")


def test_damaged_table_name_is_refused(release):
    database = release / "data" / "aflw.sqlite"
    database.write_bytes(database.read_bytes().replace(b"TABLE FacePose", b"TABLE Face\xffose"))
    with pytest.raises(ReplicateError, match="aflw.sqlite, table .*restore the database"):
        DATA_SET.read(release, "all")


@given(position=st.integers(0, 20000), byte=st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_a_database_with_any_byte_changed(tmp_path_factory, position, byte):
    folder = tmp_path_factory.getbasetemp() / "bytes"
    (folder / "data" / "flickr" / "0").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "flickr" / "0" / "image1.jpg").write_bytes(b"")
    database = write_database(folder)
    data = bytearray(database.read_bytes())
    data[position % len(data)] = byte
    database.write_bytes(data)
    try:
        DATA_SET.read(folder, "all")
    except ReplicateError as error:
        assert "aflw.sqlite" in str(error)


def test_missing_database(tmp_path):
    with pytest.raises(ReplicateError, match="aflw.sqlite is not there.*REPLICATE_DATA"):
        DATA_SET.read(tmp_path, "all")


def test_yaw_bins():
    yaw = [0, -30, 30, 30.1, -45, 60, 60.5, 90, -90, 91, np.nan]
    assert yaw_bins(yaw).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, -1, -1]


# AFLW-PIFA

ORDER = np.random.default_rng(0).permutation(34) + 1


@pytest.fixture
def pifa(tmp_path):
    """Three training and two test faces, made so that every number says where it belongs."""
    write_matlab(tmp_path)
    (tmp_path / "order.txt").write_text("\n".join(map(str, ORDER)))
    for folder, count in (("TrainImages", 3), ("TestImages", 2)):
        (tmp_path / folder).mkdir()
        for number in range(1, count + 1):
            cv2.imwrite(str(tmp_path / folder / f"{number}.jpg"), np.zeros((8, 8, 3), np.uint8))
    return tmp_path


def phis(count):
    x, y = (
        100 * np.arange(count)[:, None] + np.arange(34),
        1000 + np.arange(count)[:, None] + np.arange(34) / 2,
    )
    visible = np.tile(np.arange(34) % 4 != 0, (count, 1))
    return np.hstack([x, y, visible]).astype(float)


def write_matlab(folder, **changes):
    boxes = {"bboxesTr": np.array([[1, 2, 3, 4]] * 3, float), "bboxesT": np.array([[5, 6, 7, 8]] * 2, float)}
    points = {"phisTr": phis(3), "phisT": phis(2)}
    for name, variables in (("BoundingBox.mat", boxes), ("Landmark.mat", points)):
        variables |= {key: value for key, value in changes.items() if key in variables}
        scipy.io.savemat(folder / name, {key: value for key, value in variables.items() if value is not None})


def test_pifa_points_in_the_order_supplied(pifa):
    faces = PIFA_DATA_SET.read(pifa, "test")
    assert faces.names == ("TestImages/1.jpg", "TestImages/2.jpg") and faces.points.shape == (2, 34, 2)
    published = ORDER - 1
    np.testing.assert_allclose(faces.points[1, :, 0], 100 + published - 1)  # Matlab counts from 1
    np.testing.assert_allclose(faces.points[1, :, 1], 1001 + published / 2 - 1)
    np.testing.assert_array_equal(faces.visible[0], published % 4 != 0)
    np.testing.assert_array_equal(faces.boxes[0], [4, 5, 11, 13])
    assert faces.attributes == {} and faces.pixels(1).shape == (8, 8, 3)
    assert len(PIFA_DATA_SET.read(pifa, "train")) == 3


def test_pifa_yaw_where_it_is_at_hand(pifa):
    (pifa / "yaw-test.txt").write_text("-75.5\n10\n")
    assert PIFA_DATA_SET.read(pifa, "test").attributes["yaw"].tolist() == [-75.5, 10]
    (pifa / "yaw-test.txt").write_text("-75.5\n")
    with pytest.raises(ReplicateError, match="yaw-test.txt: 1 numbers, expected 2"):
        PIFA_DATA_SET.read(pifa, "test")


def test_pifa_parts(pifa, tmp_path):
    assert [(part.found, part.state) for part in PIFA_DATA_SET.check(pifa)] == [
        (3, "incomplete"),
        (2, "incomplete"),
    ]
    (pifa / "TestImages" / "1.jpg").unlink()
    assert PIFA_DATA_SET.check(pifa)[1].found == 1
    with pytest.raises(ReplicateError, match="Landmark.mat, line 1: .*1.jpg is not there"):
        PIFA_DATA_SET.read(pifa, "test")
    assert {part.state for part in PIFA_DATA_SET.check(tmp_path / "none")} == {"absent"}


def test_pifa_without_an_order_is_refused(pifa):
    (pifa / "order.txt").unlink()
    with pytest.raises(
        ReplicateError,
        match="order.txt is not there. The order of the 34 points is published as a figure only",
    ):
        PIFA_DATA_SET.read(pifa, "test")
    assert "order.txt is not there" in PIFA_DATA_SET.check(pifa)[0].state


@pytest.mark.parametrize(
    "text,message",
    [
        ("", "got 0 numbers, expected each of 1 to 34 once"),
        (" ".join(map(str, range(34))), "expected each"),
        ("1\n1.5\n", "line 2: point: got '1.5'"),
        ("1\n35\n", "line 2: point: got '35'"),
    ],
)
def test_pifa_order_must_be_a_permutation(pifa, text, message):
    (pifa / "order.txt").write_text(text)
    with pytest.raises(ReplicateError, match=f"order.txt.*{message}"):
        PIFA_DATA_SET.read(pifa, "test")


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"phisT": phis(2)[:, :68]}, r"Landmark.mat: phisT is ndarray of shape \(2, 68\), expected numbers \(N, 102\)"),
        ({"phisT": "text"}, "Landmark.mat: phisT is str"),
        ({"phisT": scipy.sparse.csc_matrix(phis(2))}, "Landmark.mat: damaged Matlab file: .*of class 5"),
        ({"phisT": phis(3)}, "Landmark.mat: 3 faces in phisT, but 2 boxes"),
        ({"phisT": phis(2) * [[1]] * np.where(np.arange(102) == 5, np.nan, 1)}, "phisT, row 1: expected finite numbers"),
        ({"phisT": np.hstack([phis(2)[:, :68], 1 - phis(2)[:, 68:]])}, "must be 1 .visible. or 0, most of them 1"),
        ({"phisT": phis(2) + 0.5}, "must be 1 .visible. or 0"),
        ({"bboxesT": np.array([[1.0, 2, 3, 4], [1, 2, 0, 4]])}, "BoundingBox.mat: bboxesT, row 2: expected a positive"),
        ({"phisT": None}, r"Landmark.mat: no variable phisT; it has phisTr"),
    ],
)  # fmt: skip
def test_pifa_arrays_of_another_form_are_refused(pifa, changes, message):
    write_matlab(pifa, **changes)
    with pytest.raises(ReplicateError, match=message):
        PIFA_DATA_SET.read(pifa, "test")


def test_pifa_with_more_faces_than_the_release(pifa):
    write_matlab(pifa, phisT=phis(1300), bboxesT=np.ones((1300, 4)))
    with pytest.raises(ReplicateError, match="1300 faces, the official release has 1299"):
        PIFA_DATA_SET.read(pifa, "test")


@pytest.mark.parametrize("size", [0, 40, 200, -30])
def test_pifa_truncated_matlab_file(pifa, size):
    data = (pifa / "Landmark.mat").read_bytes()
    (pifa / "Landmark.mat").write_bytes(data[:size])
    with pytest.raises(ReplicateError, match="Landmark.mat: "):
        PIFA_DATA_SET.read(pifa, "test")
