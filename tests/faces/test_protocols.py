"""Protocols: counts, unions, fingerprints, and faces that are made once and whole."""

import errno
import threading
from dataclasses import replace

import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.evidence import published
from replicate.faces import protocols
from replicate.faces.protocols import SPLITS, FaceSource
from replicate.faces.synthetic import FaceBatch, generate

CHALLENGING = FaceSource("300w", "challenging", "synthetic", "smoke")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, and nothing remembered from other tests."""
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(protocols, "_loaded", {})
    return tmp_path / "cache"


@pytest.fixture
def generator(monkeypatch):
    """In place of the generator: grey images and random points, at once; the list of calls."""
    calls = []

    def generate_many(seed, indices, condition, progress=None):
        calls.append((seed, list(indices), condition))
        count = len(indices)
        images = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        points = np.random.default_rng(seed).uniform(0, 8, (count, 68, 2)).astype(np.float32)
        return FaceBatch(images, points, np.ones((count, 68), bool), {"yaw": np.arange(count) * 1.0})

    monkeypatch.setattr(protocols.synthetic, "generate_many", generate_many)
    return calls


@pytest.fixture
def broken_generator(monkeypatch):
    """The generator must not be called."""

    def fail(*arguments, **options):
        raise AssertionError("faces were generated")

    monkeypatch.setattr(protocols.synthetic, "generate_many", fail)


def left_in(cache):
    """What is in the cache besides locks."""
    return sorted(path.name for path in (cache / "faces").glob("*") if path.suffix != ".lock")


# What a source is


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("split", ["train", "common", "challenging", "full", "private"])
def test_synthetic_splits_have_the_official_counts(split, profile):
    official = published.value("DAN-S18", protocol="300w", subset=split)
    assert FaceSource("300w", split, "synthetic", profile).count == official


def test_smoke_sets_are_small():
    counts = {split: FaceSource("300w", split, "synthetic", "smoke").count for split in SPLITS["300w"]}
    assert counts["full"] == counts["common"] + counts["challenging"] and max(counts.values()) < 100


def test_the_full_set_is_the_union_of_common_and_challenging():
    full = FaceSource("300w", "full", "real", "cpu")
    assert full.parts == (
        FaceSource("300w", "common", "real", "cpu"),
        FaceSource("300w", "challenging", "real", "cpu"),
    )
    assert full.parts[0].parts == (full.parts[0],)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(protocol="300-w"), "protocol: got '300-w', expected one of 300w. Did you mean '300w'"),
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
    prints = {split: FaceSource("300w", split, "synthetic", "cpu").fingerprint for split in SPLITS["300w"]}
    assert len(set(prints.values())) == 5 and not cache.exists()
    assert FaceSource("300w", "train", "synthetic", "gpu").fingerprint == prints["train"]  # the same faces
    assert FaceSource("300w", "train", "synthetic", "smoke").fingerprint != prints["train"]  # fewer


@pytest.mark.parametrize(
    ("where", "name"),
    [(protocols, "DATA_SEED"), (protocols, "BOX_RULE"), (protocols.synthetic, "GENERATOR_VERSION")],
)
def test_whatever_determines_the_faces_changes_the_fingerprint(where, name, monkeypatch):
    before = replace(CHALLENGING).fingerprint
    monkeypatch.setattr(where, name, "another")
    assert replace(CHALLENGING).fingerprint != before


# Loading


def test_synthetic_faces_are_the_generators_in_order():
    faces = CHALLENGING.load()
    assert len(faces) == 12 and (faces.protocol, faces.split, faces.faces, faces.markup) == (
        "300w",
        "challenging",
        "synthetic",
        "ibug68",
    )
    for index in (0, 7):
        face = generate(protocols.DATA_SEED, index, "challenging")
        np.testing.assert_array_equal(faces.images[index], face.image)
        np.testing.assert_array_equal(faces.points[index], face.points)
        np.testing.assert_array_equal(faces.visible[index], face.visible)
        assert {name: values[index] for name, values in faces.attributes.items()} == face.attributes


def test_the_second_load_reads_the_same_faces_without_holding_them_in_memory(generator, monkeypatch):
    first = CHALLENGING.load()
    assert CHALLENGING.load() is first
    monkeypatch.setattr(protocols, "_loaded", {})  # as in another process
    second = CHALLENGING.load()
    assert len(generator) == 1 and generator[0] == (protocols.DATA_SEED, list(range(12)), "challenging")
    assert isinstance(second.images, np.memmap) and second is not first
    assert second.sha256 == first.sha256
    np.testing.assert_array_equal(second.attributes["yaw"], first.attributes["yaw"])


def test_a_union_joins_its_parts_with_their_boxes(generator):
    full = FaceSource("300w", "full", "synthetic", "smoke").load()
    parts = [part.load() for part in FaceSource("300w", "full", "synthetic", "smoke").parts]
    assert full.names == parts[0].names + parts[1].names and full.split == "full" and len(full) == 36
    np.testing.assert_array_equal(full.boxes, np.concatenate([part.boxes for part in parts]))
    assert sorted(call[2] for call in generator) == ["challenging", "common"]  # each made once


def test_two_loads_at_the_same_time_generate_once(generator, cache):
    entered, loaded = threading.Barrier(2), []

    def load():
        entered.wait()
        loaded.append(protocols._load_synthetic(CHALLENGING))

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(generator) == 1 and len(left_in(cache)) == 1
    assert loaded[0].sha256 == loaded[1].sha256


# What goes wrong


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_a_generation_that_is_stopped_leaves_nothing(generator, cache, monkeypatch, stop):
    working = protocols.synthetic.generate_many

    def stopped(*arguments, **options):
        raise stop

    monkeypatch.setattr(protocols.synthetic, "generate_many", stopped)
    with pytest.raises(stop):
        CHALLENGING.load()
    assert left_in(cache) == []
    monkeypatch.setattr(protocols.synthetic, "generate_many", working)
    assert len(CHALLENGING.load()) == 12


def test_a_full_disk_leaves_nothing_and_says_what_to_do(generator, cache, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(ReplicateError, match="cannot write .*No space left.*REPLICATE_CACHE"),
    ):
        patch.setattr(protocols.np, "savez", full)  # the images are written by then
        CHALLENGING.load()
    assert left_in(cache) == []
    assert len(CHALLENGING.load()) == 12


def test_what_a_killed_process_left_is_removed(generator, cache):
    CHALLENGING.load()
    (whole,) = left_in(cache)
    protocols.shutil.rmtree(cache / "faces" / whole)
    half_written = cache / "faces" / f".{whole}.k1ll3d"
    (half_written / "faces").mkdir(parents=True)
    (half_written / "faces" / "images.npy").write_bytes(b"half")
    protocols._loaded.clear()
    assert len(CHALLENGING.load()) == 12 and left_in(cache) == [whole]


def test_a_cache_that_cannot_be_written_is_named(generator, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ReplicateError, match="cannot write .*file.*REPLICATE_CACHE"):
        CHALLENGING.load()


def test_absent_real_faces_say_where_they_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path / "nowhere"))
    source = FaceSource("300w", "common", "real", "cpu")
    with pytest.raises(
        ReplicateError, match=r"nowhere/300w is not there. Set REPLICATE_DATA .*--faces synthetic"
    ):
        source.load()
    with pytest.raises(ReplicateError, match="REPLICATE_DATA"):
        _ = source.fingerprint
