"""The face store: what comes back is what went in, whatever kills, disks, processes and time do in between."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import time
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicate.errors import ReplicateError
from replicate.faces import face_store
from replicate.faces.face_store import StoredImages, Writer, make, open_store, verify

COUNT, CHUNK = 10, 4


def face(number, side=None):
    """Image of one face; sizes and channels differ unless `side` is given."""
    rng = np.random.default_rng(number)
    shape = (side, side, 3) if side else (4 + number, 7, 3) if number % 2 else (5, 3 + number)
    return rng.integers(0, 256, shape, np.uint8)


def labels(which):
    numbers = np.array(list(which))
    return {
        "points": np.stack([np.full((2, 2), number, np.float32) for number in numbers]),
        "names": np.array([f"Gesicht-{'ü' * number}" for number in numbers]),  # text of any length
        "yaw": numbers * 1.5,
    }


def chunks(done, count=COUNT, side=None):
    for start in range(done, count, CHUNK):
        which = range(start, min(start + CHUNK, count))
        yield [face(number, side) for number in which], labels(which)


@pytest.fixture
def folder(tmp_path):
    """Where the tests put their store."""
    return tmp_path / "faces" / "toy-train"


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def besides_locks(folder):
    return sorted(path.name for path in folder.parent.glob("*") if path.suffix != ".lock")


# What is kept


def test_faces_come_back_as_they_went(folder):
    make(folder, chunks)
    stored = open_store(folder)
    assert len(stored.images) == COUNT
    for number, image in enumerate(stored.images):
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, face(number), strict=True)
    np.testing.assert_array_equal(stored.images[-1], face(COUNT - 1))
    assert stored.labels.keys() == {"points", "names", "yaw"}
    for name, values in labels(range(COUNT)).items():
        np.testing.assert_array_equal(stored.labels[name], values, strict=True)
    with pytest.raises(IndexError):
        stored.images[COUNT]


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 1, 3])), min_size=1), min_size=1)
)  # fmt: skip
def test_any_sizes_in_any_chunks_come_back(tmp_path_factory, sizes):
    folder = tmp_path_factory.mktemp("store") / "toy"
    rng = np.random.default_rng(0)
    batches = [
        [rng.integers(0, 256, (h, w, c) if c else (h, w), np.uint8) for h, w, c in chunk] for chunk in sizes
    ]
    make(folder, lambda done: [(images, {"n": np.arange(len(images))}) for images in batches])
    flat = [image for images in batches for image in images]
    found = open_store(folder).images
    assert len(found) == len(flat)
    for one, other in zip(found, flat, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    verify(folder)


def test_a_stored_split_is_three_files_and_says_what_it_is(folder):
    make(folder, chunks, faces="toy train", files=["a.jpg"])
    assert sorted(content(folder)) == ["labels.npz", "pixels.bin", "store.json"]
    recorded = face_store.about(folder)
    size = sum(face(number).size for number in range(COUNT))
    assert (folder / "pixels.bin").stat().st_size == size
    assert recorded == {
        "count": COUNT,
        "bytes": size,
        "pixels_sha256": verify(folder),
        "labels_sha256": recorded["labels_sha256"],
        "faces": "toy train",
        "files": ["a.jpg"],
    }
    assert besides_locks(folder) == ["toy-train"]


def test_the_same_faces_make_the_same_bytes(folder):
    other = folder.with_name("other")
    make(folder, chunks)
    make(other, lambda done: [([face(n)], labels([n])) for n in range(done, COUNT)])  # in chunks of one
    assert (folder / "pixels.bin").read_bytes() == (other / "pixels.bin").read_bytes()
    assert face_store.about(folder)["labels_sha256"] == face_store.about(other)["labels_sha256"]


def test_a_split_that_is_there_is_not_made_again(folder):
    make(folder, chunks)
    before = content(folder)
    make(folder, lambda done: pytest.fail("made again"))
    assert content(folder) == before


# Reading


def test_images_are_views_of_the_mapped_file(folder):
    make(folder, chunks)
    images = open_store(folder).images
    assert isinstance(images.pixels, np.memmap)
    for image in images:
        assert np.shares_memory(image, images.pixels) and not image.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        images[0][:] = 0


@pytest.mark.parametrize("index", [np.array([7, 0, 7, 3]), np.arange(COUNT), np.array([], int)])
def test_a_batch_stacks_images_of_one_size(folder, index):
    make(folder, lambda done: chunks(done, side=6))
    batch = open_store(folder).images.batch(index)
    assert batch.shape == (len(index), 6, 6, 3) and batch.dtype == np.uint8
    for image, number in zip(batch, index, strict=True):
        np.testing.assert_array_equal(image, face(number, 6))


def test_a_batch_of_grey_images_has_no_channels():
    images = StoredImages(np.arange(24, dtype=np.uint8), np.array([[2, 3, 0]] * 4))
    assert images.batch(np.array([3, 1])).tolist() == [[[18, 19, 20], [21, 22, 23]], [[6, 7, 8], [9, 10, 11]]]


def test_images_that_differ_in_size_have_no_batch(folder):
    make(folder, chunks)
    with pytest.raises(ReplicateError, match="differ in size; take them one by one"):
        open_store(folder).images.batch(np.array([0, 1]))


def test_opening_reads_no_pixels(folder, monkeypatch):
    make(folder, chunks)
    hashed = []
    monkeypatch.setattr(
        face_store, "_hash", lambda path, found=face_store._hash: hashed.append(path.name) or found(path)
    )
    open_store(folder)
    assert hashed == ["labels.npz"]


def test_places_beyond_two_gibibytes_are_found():
    """Offsets count in 64 bits: 20,000 images of 256 x 256 pixels exceed 32."""
    shapes = np.array([[256, 256, 3]] * 20_000, np.int32)
    images = StoredImages(np.empty(0, np.uint8), shapes)
    assert images.starts[-1] == 20_000 * 256 * 256 * 3 > 2**31


# What goes wrong while reading


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("pixels.bin", truncate, r"pixels\.bin has \d+ bytes, expected \d+"),
        ("pixels.bin", lengthen, r"pixels\.bin has \d+ bytes, expected \d+"),
        ("pixels.bin", lambda path: path.unlink(), r"No such file.*pixels\.bin"),
        ("labels.npz", flip, r"labels\.npz has changed"),
        ("labels.npz", truncate, r"labels\.npz has changed"),
        ("labels.npz", lambda path: path.unlink(), r"No such file.*labels\.npz"),
        ("store.json", truncate, r"Expecting|Unterminated"),
        ("store.json", lambda path: path.unlink(), r"No such file.*store\.json"),
        ("store.json", lambda path: path.write_text("[]"), r"store\.json lacks some of bytes, count"),
        ("store.json", lambda path: path.write_text("{}"), "lacks some of bytes"),
        ("store.json", lambda path: path.write_bytes(b"\xff\xfe"), "utf-8"),
    ],
)
def test_damage_is_named_with_what_to_do(folder, name, damage, message):
    make(folder, chunks)
    damage(folder / name)
    with pytest.raises(
        ReplicateError,
        match=rf"(?s)toy-train: damaged \(.*({message}).*\)\. Delete this folder; it is made again",
    ):
        open_store(folder)
    shutil.rmtree(folder)  # as the message says
    make(folder, chunks)
    verify(folder)


@pytest.mark.parametrize("place", [0, 100, -1])
def test_verification_notices_one_bit(folder, place):
    make(folder, chunks)
    recorded = json.loads((folder / "store.json").read_text())["pixels_sha256"]
    assert verify(folder) == recorded
    data = bytearray((folder / "pixels.bin").read_bytes())
    data[place] ^= 1
    (folder / "pixels.bin").write_bytes(data)
    open_store(folder)  # which reads no pixels
    with pytest.raises(
        ReplicateError, match=rf"damaged \(SHA-256 of pixels\.bin is .*, recorded was {recorded[:12]}\)"
    ):
        verify(folder)


# Kills: the next run continues, and ends with the same bytes


@pytest.fixture
def whole(folder):
    """What an undisturbed run writes, by file."""
    make(folder.with_name("undisturbed"), chunks, faces="toy")
    return content(folder.with_name("undisturbed"))


def in_a_process(target, *arguments):
    worker = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    worker.start()
    return worker


def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)


def make_and_die_after(folder, faces):
    def some(done):
        for images, about in chunks(done):
            if done >= faces:
                die()
            yield images, about
            done += len(images)

    make(folder, some, faces="toy")


def make_and_die_at(folder, where, name, after):
    """Killed at call number `after` of a function that `make` uses."""
    calls, original = [], getattr(where, name)

    def wrapped(*arguments, **options):
        calls.append(name)
        return die() if len(calls) > after else original(*arguments, **options)

    setattr(where, name, wrapped)
    make(folder, chunks, faces="toy")


def continued(folder):
    """Make the split and return at which faces that began."""
    began = []
    make(folder, lambda done: began.append(done) or chunks(done), faces="toy")
    return began


@pytest.mark.parametrize(("killed_at", "resumed_at"), [(0, 0), (4, 4), (8, 8)])
def test_a_kill_between_chunks_is_continued_at_the_right_face(folder, whole, killed_at, resumed_at):
    worker = in_a_process(make_and_die_after, folder, killed_at)
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL and not folder.exists()
    assert continued(folder) == [resumed_at]
    assert content(folder) == whole and besides_locks(folder) == ["toy-train", "undisturbed"]


@pytest.mark.parametrize(
    ("where", "name", "after", "began"),
    [
        (np, "savez", 1, [4]),  # the pixels of the second chunk are written, its labels are not
        (np, "savez", 3, [COUNT]),  # all chunks are, joined labels are not
        (face_store, "_hash", 0, [COUNT]),  # joined labels are
        (face_store, "write_json", 0, [COUNT]),
        (
            face_store.Path,
            "unlink",
            5,  # `atomic_write` unlinks too: of three chunks, the labels and the record
            [],
        ),  # the record is; some chunks' labels are gone
        (face_store.Path, "unlink", 6, []),
        (face_store.Path, "rename", 0, []),  # everything is in place but the name
    ],
)
def test_a_kill_at_any_step_is_continued(folder, whole, where, name, after, began):
    worker = in_a_process(make_and_die_at, folder, where, name, after)
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL and not folder.exists()
    assert continued(folder) == began
    assert content(folder) == whole and besides_locks(folder) == ["toy-train", "undisturbed"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_an_interruption_keeps_what_is_written(folder, whole, stop):
    def stopped(done):
        for number, chunk in enumerate(chunks(done)):
            if number == 2:
                raise stop
            yield chunk

    with pytest.raises(stop):
        make(folder, stopped, faces="toy")
    assert not folder.exists() and continued(folder) == [8] and content(folder) == whole


def test_what_was_begun_from_another_source_is_not_continued(folder, whole):
    worker = in_a_process(make_and_die_after, folder, 4)
    worker.join(60)
    (left,) = folder.parent.glob(".toy-train.*.partial")
    make(folder, chunks, faces="toy", stamp="changed since")
    assert not left.exists() and besides_locks(folder) == ["toy-train", "undisturbed"]
    assert content(folder)["pixels.bin"] == whole["pixels.bin"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("pixels.bin", lambda path: os.truncate(path, 10)),
        ("chunk-000000.npz", truncate),
        ("chunk-000000.npz", lengthen),
    ],
)
def test_a_damaged_remainder_is_not_built_upon(folder, name, damage):
    """As a power cut may leave it: what is recorded as written is not there."""
    worker = in_a_process(make_and_die_after, folder, 8)
    worker.join(60)
    (left,) = folder.parent.glob(".toy-train.*.partial")
    if damage is lengthen:
        (left / name).write_bytes(b"")
    else:
        damage(left / name)
    with pytest.raises(ReplicateError, match=rf"\.partial: damaged \({name}.*\)\. Delete this folder"):
        make(folder, chunks, faces="toy")
    shutil.rmtree(left)
    assert continued(folder) == [0]


def test_no_faces_make_no_store(folder):
    with pytest.raises(ReplicateError, match="no faces; a stored split needs at least one"):
        make(folder, lambda done: [])
    assert not folder.exists()


# Full disks


@pytest.mark.parametrize("where", ["pixels", "labels"])
def test_a_full_disk_keeps_what_is_written_and_says_what_to_do(folder, whole, monkeypatch, where):
    full = OSError(errno.ENOSPC, "No space left on device")
    calls, savez = [], np.savez

    def one_chunk_fits(path, **arrays):
        calls.append(path)
        if len(calls) > 1:
            raise full
        return savez(path, **arrays)

    def no_sync(handle):
        calls.append(handle)
        if len(calls) > 3:  # pixels and labels of the first chunk, and pixels of the second
            raise full

    with monkeypatch.context() as patch:
        if where == "labels":
            patch.setattr(np, "savez", one_chunk_fits)
        else:
            patch.setattr(face_store.os, "fsync", lambda handle: no_sync(handle) if handle else None)
        with pytest.raises(
            ReplicateError,
            match="cannot write .*toy-train: .*No space left on device. Free space or set REPLICATE_CACHE to another disk; what is "
            "written so far is kept",
        ):
            make(folder, chunks, faces="toy")
    assert not folder.exists() and continued(folder) == [4] and content(folder) == whole


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReplicateError, match="cannot write .*file.*REPLICATE_CACHE"):
        make(tmp_path / "file" / "toy", chunks)


def test_errors_of_the_source_are_passed_on_unchanged(folder):
    def unreadable(done):
        yield next(iter(chunks(done)))
        raise ReplicateError("a.jpg: truncated")

    with pytest.raises(ReplicateError, match=r"^a\.jpg: truncated$"):
        make(folder, unreadable)

    def vanished(done):
        raise OSError(errno.ENOENT, "No such file", "a.jpg")

    with pytest.raises(FileNotFoundError, match=r"a\.jpg"):  # not taken for the disk of the store
        make(folder, vanished)


# Several processes


def make_slowly(folder, log, barrier):
    def slow(done):
        for chunk in chunks(done):
            with log.open("a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(0.05)
            yield chunk

    barrier.wait()
    make(folder, slow, faces="toy")
    verify(folder)


def test_two_processes_at_once_make_it_once(folder, tmp_path, whole):
    barrier, log = multiprocessing.get_context("fork").Barrier(2), tmp_path / "log"
    workers = [in_a_process(make_slowly, folder, log, barrier) for _ in range(2)]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    made = log.read_text().split()
    assert len(made) == 3 and len(set(made)) == 1  # three chunks, by one of them
    assert content(folder) == whole


def test_an_open_store_outlives_its_removal(folder):
    make(folder, chunks)
    images = open_store(folder).images
    face_store.remove(folder, lambda about: True)
    assert not folder.exists() and besides_locks(folder) == []
    np.testing.assert_array_equal(images[3], face(3))


def test_only_what_is_outdated_is_removed(folder):
    make(folder, chunks, stamp="now")
    face_store.remove(folder, lambda about: about["stamp"] != "now")  # another process made it again
    assert folder.exists()
    face_store.remove(folder, lambda about: about["stamp"] == "now")
    assert not folder.exists()
    face_store.remove(folder, lambda about: pytest.fail("there is nothing to judge"))


def test_a_store_that_cannot_be_removed_is_named(folder, monkeypatch):
    make(folder, chunks)

    def refused(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(face_store.Path, "rename", refused)
    with pytest.raises(ReplicateError, match="cannot write .*toy-train: .*Permission denied"):
        face_store.remove(folder, lambda about: True)


# Memory


def test_chunks_are_not_held(folder):
    seen, most = [], 0

    class Image(np.ndarray):
        """An array that can be watched."""

    def watched(done):
        nonlocal most
        for number in range(20):
            image = np.full((8, 8), number, np.uint8).view(Image)
            seen.append(weakref.ref(image))
            most = max(most, sum(reference() is not None for reference in seen))
            yield [image], {"n": np.array([number])}

    make(folder, watched)
    assert most == 2 and open_store(folder).labels["n"].tolist() == list(range(20))  # the last and the next


def test_a_writer_counts_what_is_there(tmp_path):
    writer = Writer(tmp_path / "w")
    assert writer.count == 0
    for images, about in chunks(0):
        writer.append(images, about)
    assert writer.count == COUNT == Writer(tmp_path / "w").count


def test_chunks_with_other_labels_are_not_joined(tmp_path):
    writer = Writer(tmp_path / "new")
    images = np.zeros((2, 4, 4), np.uint8)
    writer.append(images, {"points": np.zeros((2, 1, 2))})
    with pytest.raises(ReplicateError, match="chunk-000000.npz holds other labels than points, boxes"):
        writer.append(images, {"points": np.zeros((2, 1, 2)), "boxes": np.zeros((2, 4))})


def test_a_walk_through_a_large_store_gives_its_pages_back(tmp_path, monkeypatch):
    monkeypatch.setattr(face_store, "RESIDENT", 3 * 16)
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 4), dtype=np.uint8)
    face_store.make(tmp_path / "store", lambda done: [(images, {"n": np.arange(9)})])
    stored = face_store.open_store(tmp_path / "store").images
    released = []
    monkeypatch.setattr(stored, "pixels", Spy(stored.pixels, released))
    np.testing.assert_array_equal(np.stack(list(stored)), images)
    assert len(released) == 2  # after the fourth and the eighth image


class Spy:
    """A memory-mapped array whose map says when it is told to give pages back."""

    def __init__(self, pixels, released):
        self.pixels, self._mmap = pixels, self
        self.madvise = released.append

    def __getitem__(self, place):
        return self.pixels[place]
