"""The Janus CS2 adapter: faces, and the ten verification splits, on small protocols that the tests make."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicate.errors import ReplicateError
from replicate.faces.real import janus
from replicate.faces.real.ijba import COLUMNS
from replicate.faces.real.janus import DATA_SET, read_comparisons, verification

POINTS = "1,1,2,1,1.5,2"
TRAIN = [f"1,7,img/7.jpg,70,700,0,0,5,5,{POINTS}", f"1,7,frame/8.png,80,701,0,0,5,5,{POINTS}"]
TEST = [
    f"30,1,img/1.jpg,10,100,0,0,5,5,{POINTS}",
    f"30,1,img/2.jpg,20,101,0,0,5,5,{POINTS}",
    f"31,1,img/3.jpg,30,102,0,0,5,5,{POINTS}",
    f"40,2,img/1.jpg,10,103,0,0,4,4,{POINTS}",
    f"40,2,img/2.jpg,20,104,,,,,{','.join([''] * 6)}",  # no box
]


def write_split(folder, k, train=TRAIN, test=TEST, comparisons="30,31\n40,30\n"):
    split = folder / f"split{k}"
    split.mkdir(exist_ok=True)
    header = ",".join(COLUMNS)
    (split / f"train_{k}.csv").write_text("\n".join([header, *train]))
    (split / f"verify_metadata_{k}.csv").write_text("\n".join([header, *test]))
    (split / f"verify_comparisons_{k}.csv").write_text(comparisons)


@pytest.fixture
def release(tmp_path):
    for k in range(1, 11):
        write_split(tmp_path, k)
    for name in ("img/1.jpg", "img/2.jpg", "img/3.jpg", "img/7.jpg", "frame/8.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((8, 8, 3), np.uint8))
    return tmp_path


def test_faces_and_splits_share_their_numbers(release):
    faces, splits = DATA_SET.read(release, "all"), verification(release)
    assert len(faces) == 6 and len(splits) == 10
    for split in splits:
        assert faces.identity[split.train].tolist() == [7, 7]
        named = [[faces.names[face] for face in template] for template in split.templates]
        assert named == [["img/1.jpg#100", "img/2.jpg#101"], ["img/3.jpg#102"], ["img/1.jpg#103"]]
        assert split.pairs.tolist() == [[0, 1], [2, 0]] and split.same.tolist() == [True, False]


@pytest.mark.parametrize("name,found,what", [("IMAGES", 4, "images"), ("FRAMES", 1, "frames")])
def test_more_images_than_the_release_has_are_refused(release, monkeypatch, name, found, what):
    monkeypatch.setattr(janus, name, found)
    assert len(DATA_SET.read(release, "all")) == 6  # two people share an image
    monkeypatch.setattr(janus, name, found - 1)
    with pytest.raises(ReplicateError, match=f": {found} {what}, the official release has {found - 1}"):
        DATA_SET.read(release, "all")


def test_parts(release, tmp_path):
    parts = {part.name: part.found for part in DATA_SET.check(release)}
    assert parts == {"images": 4, "frames": 1, "people": 3, "training people of a split": 1}
    assert {part.state for part in DATA_SET.check(tmp_path / "none")} == {"absent"}


def test_people_of_training_and_test_must_differ(release):
    write_split(release, 4, train=[*TRAIN, f"2,2,img/3.jpg,30,105,0,0,5,5,{POINTS}"])
    with pytest.raises(ReplicateError, match="split 4: person 2 is in training and in test"):
        verification(release)


@pytest.mark.parametrize(
    "comparisons,message",
    [
        ("30,31\n30,99\n", "split 2: template 99 is compared but has no faces"),
        ("30,31\n30\n", "verify_comparisons_2.csv, line 2: 1 fields"),
        ("30,31\n\n30,x\n", "verify_comparisons_2.csv, line 3: template: got 'x'"),
        ("30,30\n", "split 2: a pair compares a template with itself"),
    ],
)
def test_damaged_comparisons_are_refused(release, comparisons, message):
    write_split(release, 2, comparisons=comparisons)
    with pytest.raises(ReplicateError, match=message):
        verification(release)


def test_missing_files_are_named(release):
    (release / "split3" / "verify_comparisons_3.csv").unlink()
    with pytest.raises(ReplicateError, match="verify_comparisons_3.csv is not there"):
        verification(release)
    (release / "images" / "img" / "3.jpg").unlink()
    with pytest.raises(ReplicateError, match=r"verify_metadata_1.csv, line 4: .*3.jpg is not there"):
        DATA_SET.read(release, "all")
    (release / "split3" / "train_3.csv").unlink()
    with pytest.raises(ReplicateError, match="Janus CS2: 19 of the 20 tables"):
        verification(release)


@given(st.binary(max_size=100) | st.text('0123456789,\n\r" ', max_size=100).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused_clearly(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "pairs.csv"
    path.write_bytes(data)
    try:
        pairs = read_comparisons(path)
    except ReplicateError as error:
        assert "pairs.csv" in str(error)
    else:
        assert pairs.shape[1] == 2 and (pairs >= 0).all()
