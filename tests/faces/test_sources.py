"""Face sources: fingerprints, faces that are made or read once and whole, and photographs that are cut without moving a label."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from replicate import paths
from replicate.errors import AbsentError, ReplicateError
from replicate.evidence import published
from replicate.faces import face_store, real, sources
from replicate.faces.boxes import BoxRule
from replicate.faces.face_store import StoredImages
from replicate.faces.markups import MARKUPS, Markup, convert, convert_visibility
from replicate.faces.protocols import IN_A_ROW, PROTOCOLS, official_count
from replicate.faces.real.reading import Annotations, DataSet
from replicate.faces.sources import DATA_SEED, LARGEST_FACE, MARGIN, FaceSource
from replicate.faces.synthetic import FaceBatch, generate

CHALLENGING = FaceSource("300w", "challenging", "synthetic", "smoke")
SPLITS = [(protocol, split) for protocol, about in PROTOCOLS.items() for split in about.splits]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, and nothing remembered from other tests."""
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "_loaded", {})
    return tmp_path / "cache"


def made_face(seed, index, size):
    rng = np.random.default_rng((seed, index))
    return rng.integers(0, 256, (size, size, 3), np.uint8), rng.uniform(0, size, (68, 2))


@pytest.fixture
def generator(monkeypatch):
    """In place of the generator: noise and random points, at once; the list of calls."""
    calls = []

    def generate_chunks(seed, indices, condition, *, size=256, identities=None, workers=None):
        calls.append((seed, list(indices), condition))
        for start in range(0, len(indices), 5):
            some = indices[start : start + 5]
            images, points = zip(*(made_face(seed, index, 8) for index in some), strict=True)
            persons = np.array(some if identities is None else identities[start : start + 5])
            attributes = {"yaw": np.array(some) * 1.0, "identity": persons}
            visible = np.ones((len(some), 68), bool)
            yield FaceBatch(np.stack(images), np.float32(points), visible, attributes)

    monkeypatch.setattr(sources.synthetic, "generate_chunks", generate_chunks)
    return calls


@pytest.fixture
def broken_generator(monkeypatch):
    """The generator must not be called."""

    def fail(*arguments, **options):
        raise AssertionError("faces were generated")

    monkeypatch.setattr(sources.synthetic, "generate_chunks", fail)


def left_in(cache):
    """What is in the cache besides locks."""
    return sorted(path.name for path in (cache / "faces").glob("*") if path.suffix != ".lock")


def as_in_another_process():
    sources._loaded.clear()


def assert_same(one, other, count=None):
    """That two sets are the same, or the first is the beginning of the second."""
    count = len(other) if count is None else count
    assert len(one) == count and one.names == other.names[:count]
    for name in ("points", "visible", "boxes", "identity"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name)[:count], strict=True)
    assert one.attributes.keys() == other.attributes.keys()
    for name, values in one.attributes.items():
        np.testing.assert_array_equal(values, other.attributes[name][:count], strict=True)
    for a, b in zip(one.images, other.images, strict=False):
        np.testing.assert_array_equal(a, b, strict=True)
    for name in ("markup", "protocol", "split", "faces", "box_rule"):
        assert getattr(one, name) == getattr(other, name)


# What a source is


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("split", ["train", "common", "challenging", "full", "private"])
def test_synthetic_splits_have_the_official_counts(split, profile):
    official = published.value("DAN-S18", protocol="300w", subset=split)
    assert FaceSource("300w", split, "synthetic", profile).count == official


def test_smoke_sets_are_small():
    counts = {
        split: FaceSource("300w", split, "synthetic", "smoke").count for split in PROTOCOLS["300w"].splits
    }
    assert counts["full"] == counts["common"] + counts["challenging"] and max(counts.values()) < 100


def test_the_full_set_is_the_union_of_common_and_challenging():
    full = FaceSource("300w", "full", "real", "cpu")
    assert full.parts == (
        FaceSource("300w", "common", "real", "cpu"),
        FaceSource("300w", "challenging", "real", "cpu"),
    )
    assert full.leaves == (
        FaceSource("lfpw", "test", "real", "cpu"),
        FaceSource("helen", "test", "real", "cpu"),
        FaceSource("300w", "challenging", "real", "cpu"),
    )
    assert full.parts[0].parts == (full.parts[0],)  # its own parts belong to other protocols


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(protocol="300-w"), "protocol: got '300-w', expected one of 300w, .*Did you mean '300w'"),
        (dict(split="chalenging"), "split: got 'chalenging', expected one of .*Did you mean 'challenging'"),
        (dict(faces="reel"), "faces: got 'reel'.*Did you mean 'real'"),
        (dict(profile="cpus"), "profile: got 'cpus'.*Did you mean 'cpu'"),
    ],
)
def test_unknown_words_are_refused(changes, message):
    with pytest.raises(ReplicateError, match=message):
        replace(CHALLENGING, **changes)


# Fingerprints


@pytest.mark.usefixtures("broken_generator")
def test_a_fingerprint_of_synthetic_faces_needs_no_faces(cache):
    prints = {names: FaceSource(*names, "synthetic", "cpu").fingerprint for names in SPLITS}
    assert len(set(prints.values())) == len(SPLITS) and not cache.exists()
    train = FaceSource("300w", "train", "synthetic", "gpu")
    assert train.fingerprint == prints["300w", "train"]  # the same faces
    assert replace(train, profile="smoke").fingerprint != train.fingerprint  # fewer
    janus = FaceSource("janus", "all", "synthetic", "gpu")
    assert janus.fingerprint != prints["janus", "all"]  # more


@pytest.mark.parametrize("split", ["challenging", "full"])  # `full` is a union that holds `challenging`
@pytest.mark.parametrize(
    ("where", "name", "value"),
    [(sources, "DATA_SEED", 301), (sources.synthetic, "GENERATOR_VERSION", "another")],
)
def test_another_recipe_changes_every_fingerprint(split, where, name, value, monkeypatch):
    source = replace(CHALLENGING, split=split)
    before = source.fingerprint
    monkeypatch.setattr(where, name, value)
    assert replace(source).fingerprint != before


def with_table(monkeypatch, protocol={}, **split):  # noqa: B006
    """Change the entry of `300w challenging` in the table."""
    found = PROTOCOLS["300w"]
    splits = found.splits | {"challenging": replace(found.splits["challenging"], **split)}
    monkeypatch.setitem(PROTOCOLS, "300w", replace(found, splits=splits, **protocol))


@pytest.mark.parametrize(
    "changes",
    [
        dict(smoke=11),
        dict(condition="private"),
        dict(first=1),
        dict(size=128),
        dict(identities=3),
        dict(markup="ibug51"),
        dict(box_rule=BoxRule(growth=0.1)),
        dict(protocol=dict(markup="ibug51")),
        dict(protocol=dict(box_rule=BoxRule(growth=0.1))),
        dict(protocol=dict(box_rule=BoxRule(square=True))),
        dict(protocol=dict(box_rule=BoxRule(shift_sd=0.04))),
        dict(protocol=dict(box_rule=BoxRule(log_scale_sd=0.04))),
    ],
)
def test_whatever_determines_the_faces_changes_the_fingerprint(changes, monkeypatch):
    common = FaceSource("300w", "common", "synthetic", "smoke")
    before, apart, full = (
        source.fingerprint for source in (CHALLENGING, common, replace(common, split="full"))
    )
    with_table(monkeypatch, **changes)
    assert replace(CHALLENGING).fingerprint != before
    assert replace(common).fingerprint == apart  # its faces are other protocols'
    assert replace(common, split="full").fingerprint != full


def test_points_that_are_built_otherwise_are_other_faces(monkeypatch):
    cofw, common = (
        FaceSource(p, s, "synthetic", "smoke") for p, s in (("cofw", "test"), ("300w", "challenging"))
    )
    before, apart = cofw.fingerprint, common.fingerprint
    definition = MARKUPS["cofw29"].definition
    other = Markup("cofw29", (*definition[:-1], (7, 8, 9)))  # another chin
    monkeypatch.setitem(MARKUPS, "cofw29", other)
    assert replace(cofw).fingerprint != before and replace(common).fingerprint == apart


@pytest.mark.usefixtures("generator")
def test_a_store_with_other_labels_is_not_opened(cache, monkeypatch):
    CHALLENGING.load()
    monkeypatch.setattr(sources, "_LAYOUT", "next")
    as_in_another_process()
    replace(CHALLENGING).load()
    assert len(left_in(cache)) == 2


@pytest.mark.parametrize(
    "changes",
    [
        dict(count=200),  # at `smoke`
        dict(cpu=7),
        dict(real="elsewhere", data_set="afw", normalisers=("diagonal",)),
        dict(protocol=dict(title="?", about="?", papers=("ect",), normalisers=("diagonal",), data_set="afw")),
    ],
)
def test_nothing_else_changes_the_fingerprint(changes, monkeypatch):
    before = CHALLENGING.fingerprint
    with_table(monkeypatch, **changes)
    assert replace(CHALLENGING).fingerprint == before


# Synthetic faces


def test_synthetic_faces_are_the_generators_in_order():
    faces = CHALLENGING.load()
    assert len(faces) == 12 and (faces.protocol, faces.split, faces.faces, faces.markup) == (
        "300w",
        "challenging",
        "synthetic",
        "ibug68",
    )
    assert faces.names[7] == "300w/challenging/00007" and faces.box_rule == PROTOCOLS["300w"].box_rule.text
    np.testing.assert_array_equal(faces.boxes, PROTOCOLS["300w"].box_rule.boxes(faces.points, faces.names))
    for index in (0, 7):
        face = generate(DATA_SEED, index, "challenging")
        np.testing.assert_array_equal(faces.images[index], face.image)
        np.testing.assert_array_equal(faces.points[index], face.points)
        np.testing.assert_array_equal(faces.visible[index], face.visible)
        known = {name: values[index] for name, values in faces.attributes.items()}
        assert known | {"identity": faces.identity[index]} == face.attributes


@pytest.mark.parametrize(
    ("protocol", "split"), [("cofw", "test"), ("afw", "test"), ("ijb-a", "test"), ("mafl", "test")]
)
def test_faces_are_the_generators_in_the_markup_and_size_of_the_split(protocol, split):
    found = PROTOCOLS[protocol].splits[split]
    faces = FaceSource(protocol, split, "synthetic", "smoke").sample(2)
    for index in range(2):
        face = generate(
            DATA_SEED, found.first + index, found.condition, size=found.size, identity=0 if found.identities else None
        )  # fmt: skip
        np.testing.assert_array_equal(faces.images[index], face.image)
        points = convert(face.points[None], "ibug68", faces.markup)[0]
        np.testing.assert_allclose(faces.points[index], points, rtol=1e-6)
        visible = convert_visibility(face.visible[None], "ibug68", faces.markup)[0]
        np.testing.assert_array_equal(faces.visible[index], visible)


@pytest.mark.usefixtures("generator")
def test_people_of_a_split_take_turns(monkeypatch):
    found = PROTOCOLS["janus"]
    few = replace(found.splits["all"], identities=7)
    monkeypatch.setitem(PROTOCOLS, "janus", replace(found, splits={"all": few}))
    faces = FaceSource("janus", "all", "synthetic", "smoke").load()
    assert faces.identity.tolist() == [index // IN_A_ROW % 7 for index in range(60)]
    assert faces.attributes.keys() == {"yaw"}
    others = FaceSource("mtfl", "test", "synthetic", "smoke").load()
    assert len(set(others.identity)) == len(others)


@pytest.mark.usefixtures("generator")
@pytest.mark.parametrize(("protocol", "split"), SPLITS)
def test_a_smoke_set_is_the_beginning_of_the_larger_ones(protocol, split, monkeypatch):
    for name, found in PROTOCOLS.items():  # `cpu` counts in proportion to the test
        splits = {
            key: replace(part, cpu=None if part.union else part.smoke + 9)
            for key, part in found.splits.items()
        }
        monkeypatch.setitem(PROTOCOLS, name, replace(found, splits=splits))
    smoke, cpu = (FaceSource(protocol, split, "synthetic", profile) for profile in ("smoke", "cpu"))
    for small, large in zip(smoke.leaves, cpu.leaves, strict=True):
        assert large.count == small.count + 9
        assert_same(small.load(), large.load(), small.count)


@pytest.mark.usefixtures("generator")
def test_the_second_load_reads_the_same_faces_without_holding_them_in_memory(generator):
    first = CHALLENGING.load()
    assert CHALLENGING.load() is first
    as_in_another_process()
    second = CHALLENGING.load()
    assert generator == [(DATA_SEED, list(range(12)), "challenging")]
    assert isinstance(second.images, StoredImages) and isinstance(second.images.pixels, np.memmap)
    assert all(np.shares_memory(image, second.images.pixels) for image in second.images)
    assert second is not first and second.sha256 == first.sha256
    assert_same(second, first)


def test_a_union_joins_its_parts_with_their_boxes(generator):
    full = FaceSource("300w", "full", "synthetic", "smoke")
    faces, parts = full.load(), [leaf.load() for leaf in full.leaves]
    assert faces.names == parts[0].names + parts[1].names + parts[2].names and len(faces) == full.count == 36
    assert (faces.protocol, faces.split) == ("300w", "full")
    for name in ("points", "boxes", "identity"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(getattr(faces, name), joined)
    for image, own in zip(faces.images, (image for part in parts for image in part.images), strict=True):
        np.testing.assert_array_equal(image, own)
        assert isinstance(image, np.memmap)  # joined without reading a pixel
    assert [call[1:] for call in generator] == [  # each made once
        (list(range(811, 823)), "lfpw"),
        (list(range(2000, 2012)), "helen"),
        (list(range(12)), "challenging"),
    ]
    assert FaceSource("300w", "common", "synthetic", "smoke").load().names == faces.names[:24]
    assert len(generator) == 3


# Samples


@pytest.mark.usefixtures("generator")
@pytest.mark.parametrize("count", [1, 3, 7])
@pytest.mark.parametrize(("protocol", "split"), SPLITS)
def test_a_sample_is_the_beginning_of_the_split(protocol, split, count, cache):
    source = FaceSource(protocol, split, "synthetic", "smoke")
    sample = source.sample(count)
    assert not cache.exists()  # nothing else was made
    parts = [leaf.load() for leaf in source.leaves]
    assert sample.names == tuple(name for part in parts for name in part.names[:count])
    assert (sample.protocol, sample.split) == (protocol, split)
    if len(parts) == 1:
        assert_same(sample, source.load(), count)
    for number, part in enumerate(parts):
        some = sample.subset(np.arange(count * number, count * (number + 1)))
        for name in ("points", "visible", "boxes", "identity"):
            np.testing.assert_array_equal(getattr(some, name), getattr(part, name)[:count])
        for image, own in zip(some.images, part.images, strict=False):
            np.testing.assert_array_equal(image, own)


def test_a_sample_makes_no_more_than_it_shows(generator):
    FaceSource("300w", "full", "synthetic", "gpu").sample(2)
    assert [call[1] for call in generator] == [[811, 812], [2000, 2001], [0, 1]]


@pytest.mark.usefixtures("generator")
def test_a_sample_larger_than_its_split_is_the_split():
    assert_same(CHALLENGING.sample(1000), CHALLENGING.load())


@pytest.mark.parametrize("count", [0, -1])
def test_an_empty_sample_is_refused(count):
    with pytest.raises(ReplicateError, match=f"count: got {count}, expected at least one face"):
        CHALLENGING.sample(count)


# What goes wrong with synthetic faces


def test_two_loads_at_the_same_time_generate_once(generator, cache):
    entered, loaded = threading.Barrier(2), []

    def load():
        entered.wait()
        loaded.append(sources._load_leaf(CHALLENGING))

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(generator) == 1 and len(left_in(cache)) == 1
    assert loaded[0].sha256 == loaded[1].sha256


def stopping(working, after, stop):
    """A generator of faces that stops after some chunks."""

    def generate_chunks(*arguments, **options):
        for number, batch in enumerate(working(*arguments, **options)):
            if number == after:
                stop()
            yield batch

    return generate_chunks


def raising(error):
    def stop():
        raise error

    return stop


def undisturbed(monkeypatch, cache):
    """The faces of an undisturbed run, made in another cache."""
    monkeypatch.setenv("REPLICATE_CACHE", str(cache) + "-other")
    faces = CHALLENGING.load()
    monkeypatch.setenv("REPLICATE_CACHE", str(cache))
    as_in_another_process()
    return faces


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), MemoryError(), RuntimeError()])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_generation_that_is_stopped_is_continued(generator, cache, monkeypatch, stop, after):
    expected = undisturbed(monkeypatch, cache)
    with monkeypatch.context() as patch, pytest.raises(type(stop)):
        patch.setattr(
            sources.synthetic,
            "generate_chunks",
            stopping(sources.synthetic.generate_chunks, after, raising(stop)),
        )
        CHALLENGING.load()
    assert all(name.startswith(".") for name in left_in(cache))  # nothing that a load would take for whole
    assert_same(CHALLENGING.load(), expected)
    assert generator[-1][1] == list(range(5 * after, 12)) and len(left_in(cache)) == 1


def test_a_killed_generation_is_continued_with_the_same_faces(generator, cache, monkeypatch):
    expected = undisturbed(monkeypatch, cache)

    def load_and_die():
        sources.synthetic.generate_chunks = stopping(
            sources.synthetic.generate_chunks, 1, lambda: os.kill(os.getpid(), signal.SIGKILL)
        )
        CHALLENGING.load()

    worker = multiprocessing.get_context("fork").Process(target=load_and_die)
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL and len(left_in(cache)) == 1
    faces = CHALLENGING.load()
    assert generator[-1][1] == list(range(5, 12))  # this process made the rest only
    assert_same(faces, expected)
    assert faces.sha256 == expected.sha256
    face_store.verify(cache / "faces" / left_in(cache)[0])


def test_a_full_disk_keeps_what_is_written_and_says_what_to_do(generator, cache, monkeypatch):
    calls, savez = [], np.savez

    def one_chunk_fits(*arguments, **arrays):
        calls.append(arguments)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return savez(*arguments, **arrays)

    with (
        monkeypatch.context() as patch,
        pytest.raises(ReplicateError, match="cannot write .*No space left.*REPLICATE_CACHE"),
    ):
        patch.setattr(np, "savez", one_chunk_fits)
        CHALLENGING.load()
    assert all(name.startswith(".") for name in left_in(cache))
    assert len(CHALLENGING.load()) == 12 and generator[-1][1] == list(range(5, 12))


def test_a_cache_that_cannot_be_written_is_named(generator, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ReplicateError, match="cannot write .*file.*REPLICATE_CACHE"):
        CHALLENGING.load()


@pytest.mark.usefixtures("generator")
@pytest.mark.parametrize("name", ["store.json", "labels.npz", "pixels.bin"])
def test_a_damaged_store_is_named(cache, name):
    CHALLENGING.load()
    as_in_another_process()
    (whole,) = left_in(cache)
    (cache / "faces" / whole / name).unlink()
    with pytest.raises(
        ReplicateError, match=f"{whole}: damaged .*{name}.*Delete this folder; it is made again"
    ):
        CHALLENGING.load()


# Real faces: a data set of the test


class Photographs:
    """Photographs in memory with a file beside each, and how often every one is decoded."""

    def __init__(self, folder, images, points, boxes=None, **known):
        self.folder, self.images, self.known = folder, images, known
        self.points, self.boxes = np.float32(points), None if boxes is None else np.float32(boxes)
        self.decoded, self.parsed = Counter(), 0
        folder.mkdir(parents=True)
        for number in range(len(images)):
            self.file(number).write_bytes(b"made by the test")

    def file(self, number):
        return self.folder / f"{number}.jpg"

    def pixels(self, index):
        self.decoded[index] += 1
        return self.images[index]

    def read(self, folder, split):
        self.parsed += 1
        count = len(list(folder.glob("*.jpg")))
        return Annotations(
            names=tuple(f"{split}/{number}-é" for number in range(count)),
            pixels=self.pixels,
            points=self.points[:count],
            visible=np.isfinite(self.points[:count]).all(2),
            boxes=None if self.boxes is None else self.boxes[:count],
            files=tuple(self.file(number) for number in range(count)),
            **{name: value[:count] for name, value in self.known.items() if name == "identity"},
            attributes={name: value[:count] for name, value in self.known.items() if name != "identity"},
        )


SOURCE = FaceSource("cofw", "test", "real", "cpu")
CONTENT = np.array([[0.31, 0.35], [0.69, 0.33], [0.52, 0.55], [0.36, 0.72], [0.66, 0.74]])
SIZES = [(1203, 1501), (240, 320), (1400, 700), (90, 80)]  # height and width of the photographs
SIDES = [611, 60, 455, 50]  # of the faces
CORNERS = [(700, 400), (5, 100), (60, 900), (20, 30)]


def face_points(number):
    """Five points of 29; the others are not annotated."""
    points = np.full((29, 2), np.nan)
    points[:5] = CORNERS[number] + SIDES[number] * CONTENT
    return points


def photograph(number):
    """A soft dot at each point, so that its place can be measured in any crop."""
    y, x = np.mgrid[: SIZES[number][0], : SIZES[number][1]].astype(np.float32)
    image, width = np.zeros(SIZES[number], np.float32), SIDES[number] / 60
    for point in face_points(number)[:5]:
        image += 250 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * width**2))
    grey = np.clip(image, 0, 255).astype(np.uint8)
    return grey if number % 2 else np.repeat(grey[..., None], 3, 2)


def boxes_of(number):
    x, y = CORNERS[number]
    return [x, y, x + SIDES[number], y + SIDES[number]]


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """In place of COFW: four photographs with published boxes."""
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path / "data"))
    return put_in_place(tmp_path, monkeypatch, boxes=[boxes_of(number) for number in range(4)])


def put_in_place(tmp_path, monkeypatch, **changes):
    about = dict(
        images=[photograph(number) for number in range(4)],
        points=[face_points(number) for number in range(4)],
        yaw=np.array([10.0, -20.0, 30.0, np.nan]),
        identity=np.array([4, 4, 9, 1]),
    )
    made = Photographs(tmp_path / "data" / "made", **about | changes)
    entry = DataSet("cofw", "made", "Made", "", "", "", {"test": 4}, lambda folder: [], made.read)
    monkeypatch.setitem(real.DATA_SETS, "cofw", entry)
    return made


def place_of_dot(image, near, reach):
    """Centre of mass of the dot near a point."""
    grey = np.asarray(image if image.ndim == 2 else image[..., 0], float)
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]]
    weight = np.where((np.abs(x - near[0]) < reach) & (np.abs(y - near[1]) < reach), grey, 0)
    return [(x * weight).sum() / weight.sum(), (y * weight).sum() / weight.sum()]


def test_real_faces_are_what_the_data_set_says(photographs):
    faces = SOURCE.load()
    assert faces.names == ("test/0-é", "test/1-é", "test/2-é", "test/3-é") and SOURCE.count == 4
    assert (faces.protocol, faces.split, faces.faces, faces.markup) == ("cofw", "test", "real", "cofw29")
    assert faces.box_rule == "as the data set gives them"
    assert faces.visible[:, :5].all() and not faces.visible[:, 5:].any()
    assert np.isnan(faces.points[:, 5:]).all() and faces.points.dtype == np.float32
    np.testing.assert_array_equal(faces.identity, [4, 4, 9, 1])
    np.testing.assert_array_equal(faces.attributes["yaw"], [10, -20, 30, np.nan])
    assert faces.images[0].ndim == 3 and faces.images[1].ndim == 2


def test_large_faces_are_reduced_and_others_are_not_touched(photographs):
    faces = SOURCE.load()
    np.testing.assert_allclose(
        faces.attributes["pixel"], [611 / LARGEST_FACE, 1, 455 / LARGEST_FACE, 1], rtol=2e-3
    )
    sides = faces.boxes[:, 2:] - faces.boxes[:, :2]
    np.testing.assert_allclose(sides[[0, 2]], LARGEST_FACE, rtol=2e-3)
    np.testing.assert_array_equal(sides[[1, 3]], [[60, 60], [50, 50]])
    assert max(max(image.shape) for image in faces.images) <= (1 + 2 * MARGIN) * LARGEST_FACE + 3
    left, top = 0, 100 - 60  # of the second, whose margin ends at the left edge of the photograph
    np.testing.assert_array_equal(
        faces.images[1], photograph(1)[top : 100 + 60 + 60 + 1, left : 5 + 60 + 60 + 1]
    )
    np.testing.assert_allclose(faces.points[1], face_points(1) - [left, top], atol=1e-4)
    np.testing.assert_array_equal(faces.images[3], photograph(3))  # the margin reaches every edge of the last
    np.testing.assert_allclose(faces.points[3], face_points(3), atol=1e-4)


@pytest.mark.parametrize("number", range(4))
def test_labels_lie_where_the_crop_shows_them(photographs, number):
    faces = SOURCE.load()
    for point in faces.points[number, :5]:
        dot = place_of_dot(faces.images[number], point, reach=30 / 320 * min(SIDES[number], LARGEST_FACE))
        np.testing.assert_allclose(dot, point, atol=0.05)


@pytest.mark.parametrize("number", range(4))
def test_labels_in_the_crop_map_back_to_the_photograph(photographs, number):
    faces = SOURCE.load()
    points, box = faces.points[number, :5].astype(float), faces.boxes[number].reshape(2, 2).astype(float)
    true, true_box = face_points(number)[:5], np.reshape(boxes_of(number), (2, 2))
    start = np.maximum(np.floor(true_box[0] - MARGIN * SIDES[number]), 0)
    end = np.minimum(np.ceil(true_box[1] + MARGIN * SIDES[number]) + 1, SIZES[number][::-1])
    scale = (end - start) / faces.images[number].shape[1::-1]
    np.testing.assert_allclose((points + 0.5) * scale - 0.5 + start, true, atol=1e-3)
    np.testing.assert_allclose((box + 0.5) * scale - 0.5 + start, true_box, atol=1e-3)  # with the points
    pixel = faces.attributes["pixel"][number]
    assert pixel == pytest.approx(np.sqrt(scale.prod()))
    distances = np.linalg.norm(points[1:] - points[0], axis=1) * pixel  # an error in pixels of the photograph
    np.testing.assert_allclose(distances, np.linalg.norm(true[1:] - true[0], axis=1), rtol=2e-3)


def test_without_published_boxes_the_rule_of_the_protocol_holds(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path / "data"))
    put_in_place(tmp_path, monkeypatch, boxes=None)
    faces = SOURCE.load()
    rule = PROTOCOLS["cofw"].box_rule
    np.testing.assert_array_equal(faces.boxes, rule.boxes(faces.points, faces.names))
    assert faces.box_rule == rule.text
    for number in range(4):
        dot = place_of_dot(
            faces.images[number], faces.points[number, 0], 30 / 320 * min(SIDES[number], LARGEST_FACE)
        )
        np.testing.assert_allclose(dot, faces.points[number, 0], atol=0.05)


def test_faces_without_points_keep_their_published_box(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path / "data"))
    put_in_place(
        tmp_path,
        monkeypatch,
        points=np.full((4, 29, 2), np.nan),
        boxes=[boxes_of(number) for number in range(4)],
    )
    faces = SOURCE.load()
    assert np.isnan(faces.points).all() and not faces.visible.any()
    np.testing.assert_array_equal(faces.boxes[3], boxes_of(3))


def test_photographs_are_read_once_and_then_no_more(photographs, cache):
    first = SOURCE.load()
    assert photographs.decoded == {0: 1, 1: 1, 2: 1, 3: 1} and photographs.parsed == 1
    assert SOURCE.load() is first and SOURCE.fingerprint == first.sha256
    as_in_another_process()
    second = replace(SOURCE).load()
    assert_same(second, first)
    assert sum(photographs.decoded.values()) == 4 and photographs.parsed == 1  # not even the lists
    assert isinstance(second.images.pixels, np.memmap) and len(left_in(cache)) == 1
    face_store.verify(cache / "faces" / left_in(cache)[0])


def test_a_sample_of_real_faces_is_their_beginning(photographs):
    assert_same(SOURCE.sample(3), SOURCE.load(), 3)


def touch(photographs):
    path = photographs.file(1)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def overwrite(photographs):
    photographs.file(1).write_bytes(b"made anew by the test, and longer")


def add(photographs):
    photographs.file(3).write_bytes(b"found again")


def take_away(photographs):
    photographs.file(3).unlink()


@pytest.mark.parametrize("change", [touch, overwrite, take_away])
def test_a_changed_file_is_read_again(photographs, cache, change):
    before = SOURCE.load()
    photographs.images[1] = 255 - photographs.images[1]
    change(photographs)
    as_in_another_process()
    after = replace(SOURCE).load()
    assert photographs.parsed == 2 and len(left_in(cache)) == 1
    np.testing.assert_array_equal(after.images[1], 255 - before.images[1])
    assert len(after) == (3 if change is take_away else 4) and replace(SOURCE).fingerprint != before.sha256


def test_a_new_file_is_noticed(photographs, cache):
    take_away(photographs)
    assert len(SOURCE.load()) == 3
    add(photographs)
    as_in_another_process()
    assert len(replace(SOURCE).load()) == 4 and len(left_in(cache)) == 1


@pytest.mark.parametrize("name", ["_READING", "MARGIN", "LARGEST_FACE"])
def test_faces_that_would_be_cut_otherwise_now_are_read_again(photographs, cache, monkeypatch, name):
    SOURCE.load()
    as_in_another_process()
    monkeypatch.setattr(sources, name, 0.5 * getattr(sources, name))
    replace(SOURCE).load()
    assert photographs.parsed == 2 and len(left_in(cache)) == 1


def test_a_listed_file_that_is_not_there_hides_no_change_and_is_noticed_when_it_comes(photographs):
    extra, entry = photographs.folder / "more" / "poses.txt", real.DATA_SETS["cofw"]

    def with_optional_file(folder, split):
        found = entry.read(folder, split)
        return replace(found, files=(*found.files, extra))

    real.DATA_SETS["cofw"] = replace(entry, read=with_optional_file)  # undone by the fixture
    for _ in range(2):
        as_in_another_process()
        SOURCE.load()
    assert photographs.parsed == 1
    touch(photographs)  # another file
    as_in_another_process()
    SOURCE.load()
    assert photographs.parsed == 2
    extra.parent.mkdir()
    extra.write_text("yaw")
    as_in_another_process()
    SOURCE.load()
    assert photographs.parsed == 3


def test_two_copies_of_a_data_set_do_not_share_a_store(photographs, cache, monkeypatch, tmp_path):
    SOURCE.load()
    (tmp_path / "other").mkdir()
    (tmp_path / "data" / "made").rename(tmp_path / "other" / "made")
    photographs.folder = tmp_path / "other" / "made"
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path / "other"))
    as_in_another_process()
    SOURCE.load()
    assert len(left_in(cache)) == 2


def test_an_interrupted_reading_is_continued_at_the_right_face(photographs, cache, monkeypatch):
    monkeypatch.setattr(sources, "_CHUNK", 2)
    pixels = photographs.pixels

    def stopped(index):
        if index >= 2:
            raise KeyboardInterrupt
        return pixels(index)

    photographs.pixels = stopped
    with pytest.raises(KeyboardInterrupt):
        SOURCE.load()
    photographs.pixels = pixels
    faces = SOURCE.load()
    assert photographs.decoded == {0: 1, 1: 1, 2: 1, 3: 1} and len(left_in(cache)) == 1
    for number in (0, 3):
        dot = place_of_dot(
            faces.images[number], faces.points[number, 2], 30 / 320 * min(SIDES[number], LARGEST_FACE)
        )
        np.testing.assert_allclose(dot, faces.points[number, 2], atol=0.05)


def test_two_processes_that_find_changed_files_read_them_once(photographs, cache):
    SOURCE.load()
    overwrite(photographs)
    entered, loaded = threading.Barrier(2), []

    def load():
        entered.wait()
        loaded.append(sources._load_leaf(SOURCE))

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded[0].sha256 == loaded[1].sha256 and len(left_in(cache)) == 1
    assert photographs.decoded == {0: 2, 1: 2, 2: 2, 3: 2}


def test_a_crop_does_not_keep_its_photograph(photographs):
    annotations = photographs.read(photographs.folder, "test")
    for number in range(4):
        crop, _ = sources._crop(annotations, number)
        assert not np.shares_memory(crop, photographs.images[number])


def test_a_face_without_points_and_box_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path / "data"))
    points = np.array([face_points(number) for number in range(4)])
    points[2] = np.nan
    put_in_place(tmp_path, monkeypatch, points=points)
    with pytest.raises(ReplicateError, match="test/2-é: 0 known points and no box, expected at least two"):
        SOURCE.load()


def test_a_box_beside_the_photograph_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path / "data"))
    boxes = np.array([boxes_of(number) for number in range(4)])
    boxes[1] = [2000, 2000, 2100, 2100]
    put_in_place(tmp_path, monkeypatch, points=np.full((4, 29, 2), np.nan), boxes=boxes)
    with pytest.raises(ReplicateError, match=r"test/1-é: the box \[2000.*lies outside the 320x240 image"):
        SOURCE.load()


def test_points_of_another_photograph_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path / "data"))
    put_in_place(
        tmp_path, monkeypatch, points=[face_points(number) + 2000 * (number == 1) for number in range(4)]
    )
    with pytest.raises(ReplicateError, match="test/1-é: .*within the 320x240 image"):
        SOURCE.load()


@pytest.mark.parametrize("name", ["store.json", "labels.npz", "pixels.bin"])
def test_a_damaged_store_of_real_faces_is_named(photographs, cache, name):
    SOURCE.load()
    as_in_another_process()
    (whole,) = left_in(cache)
    (cache / "faces" / whole / name).unlink()
    with pytest.raises(
        ReplicateError, match=f"{whole}: damaged .*{name}.*Delete this folder; it is made again"
    ):
        replace(SOURCE).load()


def test_faces_of_300w_are_cut_out_of_their_photographs(monkeypatch):
    places = [paths.root().parent / "shared" / "faces"]
    if os.environ.get("REPLICATE_DATA"):
        places.insert(0, paths.data_dir())
    place = next((place for place in places if (place / "300w" / "ibug").is_dir()), None)
    if place is None:
        pytest.skip("neither $REPLICATE_DATA nor ../shared/faces has 300w/ibug")
    monkeypatch.setenv("REPLICATE_DATA", str(place))
    faces = replace(CHALLENGING, faces="real").load()
    annotations = real.DATA_SETS["300w"].read(place / "300w", "ibug")
    assert faces.names == annotations.names and len(faces) <= official_count("300w", "challenging")
    untouched = np.flatnonzero(faces.attributes["pixel"] == 1)[:8]
    for index in untouched:
        left, top = offset = (annotations.points[index] - faces.points[index])[0].round().astype(int)
        height, width = faces.images[index].shape[:2]
        photograph = annotations.pixels(index)
        np.testing.assert_array_equal(
            photograph[top : top + height, left : left + width], faces.images[index]
        )
        np.testing.assert_allclose(faces.points[index] + offset, annotations.points[index], atol=1e-3)


# Real faces: which there are


def test_absent_real_faces_say_where_they_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path / "nowhere"))
    source = FaceSource("300w", "common", "real", "cpu")
    assert not source.available
    with pytest.raises(
        AbsentError,
        match=r"nowhere/300w is not there. Set REPLICATE_DATA .*`replicate data check`.*--faces synthetic",
    ):
        source.load()
    with pytest.raises(ReplicateError, match="REPLICATE_DATA"):
        _ = source.fingerprint


def test_faces_that_exist_as_synthetic_ones_only_say_so(photographs):
    wide = FaceSource("300w", "wide", "real", "cpu")
    assert not wide.available and replace(wide, faces="synthetic").available
    with pytest.raises(AbsentError, match="300w wide exists as synthetic faces only"):
        wide.load()


def test_what_is_there_is_available(photographs):
    assert SOURCE.available
    for error, available in ((AbsentError("not here"), False), (ReplicateError("line 3 is damaged"), True)):
        real.DATA_SETS["cofw"] = replace(
            real.DATA_SETS["cofw"], read=lambda *_, error=error: raising(error)()
        )
        assert SOURCE.available == available


def write_face(path, corner, points=None):
    """A photograph and its 68 points in the format of 300-W."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(f"{path}.png", np.random.default_rng(0).integers(0, 255, (200, 220, 3), np.uint8))
    shape = np.random.default_rng(1).uniform(0, 60, (68, 2)).round(2) + corner
    rows = "".join(f"{x} {y}\n" for x, y in shape)
    Path(f"{path}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}}}\n")
    return shape - 1  # the files count from 1


def test_a_union_of_real_faces_reads_each_folder_once(tmp_path, monkeypatch, cache):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path))
    shapes = [
        write_face(tmp_path / "300w" / name, (20 * number + 70, 70))
        for number, name in enumerate(("lfpw/testset/a", "helen/testset/a", "helen/testset/b", "ibug/a"))
    ]
    full = FaceSource("300w", "full", "real", "cpu")
    faces = full.load()
    assert full.available and full.count == 4 and FaceSource("300w", "common", "real", "cpu").count == 3
    assert faces.names == ("lfpw/testset/a", "helen/testset/a", "helen/testset/b", "ibug/a")
    assert (faces.protocol, faces.split, faces.markup) == ("300w", "full", "ibug68")
    offset = faces.points[:, 0] - np.array(shapes)[:, 0]  # of each crop
    np.testing.assert_allclose(faces.points - offset[:, None], shapes, atol=1e-3)
    assert len(left_in(cache)) == 3
    (tmp_path / "300w/ibug/a.png").unlink()
    as_in_another_process()
    with pytest.raises(ReplicateError, match=r"a\.pts lacks its partner"):
        replace(full).load()
    assert FaceSource("300w", "challenging", "real", "cpu").available  # it is there, and damaged
    assert not FaceSource("300w", "private", "real", "cpu").available


def run_script(tmp_path, text, **more):
    script = tmp_path / "script.py"
    script.write_text(text)
    environment = os.environ | {"REPLICATE_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(paths.root())}
    return subprocess.Popen([sys.executable, script], env=environment, text=True, **more)


NEEDS_PROC = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes as Linux shows them")


@NEEDS_PROC
def test_a_script_without_a_guard_ends_with_advice_and_does_not_wait_for_ever(tmp_path):
    text = """
import os
os.sched_getaffinity = lambda _: {0, 1}
from replicate.faces import sources, protocols
from dataclasses import replace
found = protocols.PROTOCOLS["mtfl"]
protocols.PROTOCOLS["mtfl"] = replace(found, splits={"test": replace(found.splits["test"], smoke=128, size=32)})
sources.FaceSource("mtfl", "test", "synthetic", "smoke").load()
"""
    script = run_script(tmp_path, text, stderr=subprocess.PIPE)
    _, message = script.communicate(timeout=100)
    assert script.returncode != 0 and "__name__ ==" in message


@NEEDS_PROC
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    text = """
from replicate.faces import synthetic
if __name__ == "__main__":
    for batch in synthetic.generate_chunks(0, range(100_000), "common", size=32, workers=2):
        print(len(batch), flush=True)
"""
    script = run_script(tmp_path, text, stdout=subprocess.PIPE)
    assert script.stdout.readline().strip() == "16"
    (children,) = Path(f"/proc/{script.pid}/task/{script.pid}/children").read_text().splitlines() or ("",)
    assert len(children.split()) >= 2
    script.kill()
    script.wait()
    for _ in range(100):
        running = [child for child in children.split() if Path(f"/proc/{child}").exists()]
        if not running:
            break
        time.sleep(0.1)
    script.stdout.close()
    assert not running
