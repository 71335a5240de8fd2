"""Faces seen in training: generated ones by their numbers, photographs by names, pixels and looks."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from five_dots import five_dots

from replicate.evidence import seen
from replicate.evidence.experiment import Experiment
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource


def source(protocol, split, faces="synthetic", profile="cpu"):
    return FaceSource(protocol, split, faces, profile)


def test_generated_faces_of_different_splits_are_different_and_the_same_ones_are_found():
    unseen, fitted = source("300w", "unseen"), source("300w", "lfpw+helen")
    assert len(seen.identities(unseen)) == 337 + 330 + 135 + 224
    assert seen.shared(unseen, fitted) == seen.shared(unseen, source("mtfl", "train")) == 0
    assert seen.shared(unseen, source("300w", "train")) == 337  # AFW is part of it
    janus = [source("janus", split, profile="smoke") for split in ("all", "five")]
    assert seen.shared(*janus) == 60  # the same faces with other points
    assert seen.shared(fitted, fitted) == 811 + 2000


def photographs(count, seed):
    """Smooth random pictures with five points in random places."""
    rng = np.random.default_rng(seed)
    images = [cv2.GaussianBlur(rng.uniform(0, 255, (90, 90)), (0, 0), 4) for _ in range(count)]
    images = [((one - one.min()) * 255 / np.ptp(one)).astype(np.uint8) for one in images]
    points = (five_dots(count, seed=seed).points / 2 + rng.uniform(10, 35, (count, 1, 2))).astype(np.float32)
    boxes = np.tile(np.float32([0, 0, 80, 80]), (count, 1))
    names = tuple(f"{seed}/{number}" for number in range(count))
    return FaceSet(images, points, np.ones((count, 5), bool), boxes, names, "mtfl5", "p", "s", "real", "none")


def test_a_copy_of_another_size_and_turn_is_alike_and_other_photographs_are_not():
    known, new = photographs(30, 1), photographs(8, 2)
    move = cv2.getRotationMatrix2D((45, 45), 12, 1.6) + [[0, 0, 20], [0, 0, 15]]
    images, points = list(new.images), new.points.copy()
    images[3] = cv2.warpAffine(known.images[17], move, (140, 130), borderMode=cv2.BORDER_REPLICATE)
    points[3] = known.points[17] @ move[:, :2].T + move[:, 2]
    found = seen.likeness(replace(new, images=images, points=points), known)
    assert found.shape == (8,) and found[3] > seen.ALIKE > 0.95 > np.delete(found, 3).max()


def test_brightness_and_contrast_do_not_matter():
    one = photographs(5, 3)
    dim = [(0.5 * image + 40).astype(np.uint8) for image in one.images]
    np.testing.assert_allclose(seen.likeness(replace(one, images=dim), one), 1, atol=1e-3)


def test_rows_count_by_number_and_photographs_also_by_looks(monkeypatch):
    sets = {"300w": photographs(6, 4), "mtfl": photographs(9, 5)}
    copied = list(sets["300w"].images)
    copied[2], places = sets["mtfl"].images[7], sets["300w"].points.copy()
    places[2] = sets["mtfl"].points[7] + 0.1  # the same pixels
    copied[4] = np.ascontiguousarray(sets["mtfl"].images[1][2:, 3:])  # cut otherwise
    places[4] = sets["mtfl"].points[1] - [3, 2]
    sets["300w"] = replace(sets["300w"], images=copied, points=places)
    monkeypatch.setattr(FaceSource, "load", lambda one: sets[one.protocol])
    run = Experiment("tcnn", "cpu", "real", device="cpu")
    rows = seen.seen_rows(
        run, "TCNN-S27", {"iBUG": run.source("300w", "challenging")}, {"TCNN": run.source("mtfl", "train")}
    )
    assert {row.metric: row.value for row in rows} == {seen.SEEN: 1, seen.LOOKALIKES: 2}
    assert {(row.artefact, row.subset, row.images, row.method) for row in rows} == {
        ("TCNN-S27", "iBUG", 6, "TCNN")
    }
    table = seen.seen_table(rows, "Seen")
    assert table.data.to_numpy().tolist() == [["iBUG", "6", "1", "2"]]


@pytest.mark.parametrize("profile", ["smoke", "cpu"])
def test_generated_faces_are_counted_without_being_made(monkeypatch, profile):
    monkeypatch.setattr(FaceSource, "load", lambda one: pytest.fail("made"))
    run = Experiment("tcnn", profile, device="cpu")
    fitted = run.source("300w", "lfpw+helen")
    rows = seen.seen_rows(
        run, "TCNN-S27", {"unseen": run.source("300w", "unseen"), "own": fitted}, {"SDM": fitted}
    )
    assert [row.value for row in rows] == [0, fitted.count]
