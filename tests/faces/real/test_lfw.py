"""The LFW adapter on a small folder that the tests make, and on the real one where it is at hand."""

import os

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicate import paths
from replicate.errors import ReplicateError
from replicate.faces.real.lfw import DATA_SET, verification

PEOPLE = {"Zoë_A": 0, "Bob_B": 0, "Cy_C": 1, "Di_D": 1}  # fold of each, two images each


@pytest.fixture
def release(tmp_path):
    rows = ["file,identity,number,fold,images_of_person_in_lfw"]
    for person, fold in PEOPLE.items():
        for number in (1, 2):
            file = f"{person}/{person}_{number:04d}.jpg"
            (tmp_path / person).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / file), np.full((160, 160, 3), 7, np.uint8))
            rows.append(f"{file},{person},{number},{fold},5")
    pairs = [
        "fold,same,a,b",
        "0,1,Zoë_A/Zoë_A_0001.jpg,Zoë_A/Zoë_A_0002.jpg",
        "0,0,Bob_B/Bob_B_0001.jpg,Zoë_A/Zoë_A_0001.jpg",
        "1,0,Cy_C/Cy_C_0002.jpg,Di_D/Di_D_0001.jpg",
    ]
    (tmp_path / "manifest.csv").write_text(
        "\ufeff" + "\r\n".join(rows) + "\r\n", encoding="utf-8", newline=""
    )
    (tmp_path / "pairs_pack.csv").write_text("\n".join(pairs), encoding="utf-8")
    return tmp_path


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_images_people_and_folds(release):
    faces = DATA_SET.read(release, "all")
    assert faces.names[0] == "Zoë_A/Zoë_A_0001.jpg" and len(faces) == 8
    assert faces.identity.tolist() == [3, 3, 0, 0, 1, 1, 2, 2]  # in the order of names
    assert faces.attributes["fold"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert faces.points.shape == (8, 0, 2)
    np.testing.assert_allclose(faces.boxes[0], [79.5 - 125 / 2.2] * 2 + [79.5 + 125 / 2.2] * 2, rtol=1e-6)
    assert faces.pixels(0).shape == (160, 160, 3)


def test_splits_test_one_fold_and_train_on_the_others(release):
    zero, one = verification(release)
    assert zero.train.tolist() == [4, 5, 6, 7] and one.train.tolist() == [0, 1, 2, 3]
    assert [faces.tolist() for faces in zero.templates] == [[0], [1], [2]]
    assert zero.pairs.tolist() == [[0, 1], [2, 0]] and zero.same.tolist() == [True, False]
    assert one.pairs.tolist() == [[0, 1]] and one.same.tolist() == [False]


def test_parts(release, tmp_path):
    assert [(part.found, part.state) for part in DATA_SET.check(release)] == [
        (8, "incomplete"),
        (3, "incomplete"),
    ]
    (release / "Bob_B" / "Bob_B_0001.jpg").unlink()
    assert DATA_SET.check(release)[0].found == 7
    assert [part.state for part in DATA_SET.check(tmp_path / "none")] == ["absent", "absent"]


@pytest.mark.parametrize(
    "file,old,new,message",
    [
        ("manifest.csv", "identity", "person", "line 1: the header must have .* check identity"),
        ("manifest.csv", ",1,0,5", ",1,0", "line 2: 4 fields, the header has 5"),
        ("manifest.csv", ",1,0,5", ",1,zero,5", "line 2: fold: got 'zero'"),
        ("manifest.csv", ",1,0,5", ",1,10,5", "line 2: fold: got '10'.* 0 to 9"),
        ("manifest.csv", "Zoë_A,2,0", "Zoë_A,2,1", "line 3: person 'Zoë_A' .*one fold only"),
        ("manifest.csv", "Zoë_A_0002.jpg", "Zoë_A_0001.jpg", "line 3: .*stands on line 2 already"),
        ("manifest.csv", "Zoë_A/Zoë_A_0001.jpg", "../Zoë_A_0001.jpg", "line 2: .*'..'"),
        ("manifest.csv", "Zoë_A_0002.jpg", "Zoë_A_0009.jpg", "line 3: .*0009.jpg is not there"),
        ("manifest.csv", "Zoë_A/Zoë_A_0001.jpg", '"Zoë_A', "line 2: not a line of comma-separated fields"),
    ],
)
def test_damaged_manifest_is_refused(release, file, old, new, message):
    edit(release / file, old, new)
    with pytest.raises(ReplicateError, match=f"{file}, {message}"):
        DATA_SET.read(release, "all")


@pytest.mark.parametrize(
    "old,new,message",
    [
        ("0,1,Zoë", "0,0,Zoë", "line 2: got fold 0 and same 0, but the manifest has 'Zoë_A' in fold 0"),
        ("0,1,Zoë", "0,yes,Zoë", "line 2: same: got 'yes'"),
        ("1,0,Cy", "0,0,Cy", "line 4: got fold 0"),
        ("Zoë_A_0002", "Zoë_A_0003", "line 2: 'Zoë_A/Zoë_A_0003.jpg' is not in manifest.csv"),
    ],
)
def test_damaged_pairs_are_refused(release, old, new, message):
    edit(release / "pairs_pack.csv", old, new)
    with pytest.raises(ReplicateError, match=f"pairs_pack.csv, {message}"):
        verification(release)
    assert DATA_SET.check(release)[1].state.startswith("damaged: ")


def test_image_of_another_size_is_refused(release):
    cv2.imwrite(str(release / "Bob_B" / "Bob_B_0001.jpg"), np.zeros((250, 250, 3), np.uint8))
    with pytest.raises(ReplicateError, match="Bob_B_0001.jpg: 250x250 pixels, expected 160x160"):
        DATA_SET.read(release, "all").pixels(2)


@given(
    st.binary(max_size=200)
    | st.text('01,a."\n\ré', max_size=200).map(lambda t: b"file,identity,fold\n" + t.encode())
)
@settings(max_examples=200, deadline=None)
def test_any_manifest_is_read_or_refused_clearly(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    (folder / "manifest.csv").write_bytes(data)
    try:
        assert len(DATA_SET.read(folder, "all")) == 0  # a header alone: no image is there
    except ReplicateError as error:
        assert "manifest.csv" in str(error)


@pytest.mark.skipif(
    not (os.environ.get("REPLICATE_DATA") and (paths.data_dir() / "lfw").is_dir()),
    reason="REPLICATE_DATA has no lfw/",
)
def test_real_folds():
    folder = paths.data_dir() / "lfw"
    faces, splits = DATA_SET.read(folder, "all"), verification(folder)
    assert len(np.unique(faces.identity)) == 423 and len(splits) == 10
    for split in splits:
        assert split.same.sum() == 300 and len(split.same) == 600
        tested = np.concatenate(split.templates)
        assert not np.isin(faces.identity[tested], faces.identity[split.train]).any()
