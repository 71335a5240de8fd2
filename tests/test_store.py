"""The model store: found by hash, trained once, damaged files refused."""

import threading
from dataclasses import replace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from replicate import store, training
from replicate.errors import ReplicateError
from replicate.store import ModelKey
from replicate.training import FitReport

KEY = ModelKey("toy", {"width": 4}, "faces", "smoke", 0, 1)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store.paths, "models_dir", lambda: tmp_path / "reference")
    return tmp_path


def trainer(calls, value=1.0):
    def train(checkpoint):
        calls.append(checkpoint)
        report = FitReport(best_error=3.0, steps=5, history=[(5, 3.0)], stopped="budget spent")
        return (
            {"weight": torch.full((2, 3), value), "large": torch.full((300, 300), 1 / 3)},
            report,
            "test machine",
        )

    return train


def test_a_model_is_trained_once(folders):
    calls = []
    first, second = store.get(KEY, trainer(calls)), store.get(KEY, trainer(calls))
    assert len(calls) == 1
    assert torch.equal(first.tensors["weight"], second.tensors["weight"])
    assert (
        second.report.best_error == 3.0
        and second.report.history == [[5, 3.0]]
        and second.trained_on == "test machine"
    )


def test_fresh_trains_again(folders):
    calls = []
    store.get(KEY, trainer(calls))
    assert store.get(KEY, trainer(calls, 2.0), fresh=True).tensors["weight"][0, 0] == 2
    assert len(calls) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"version": 2},
        {"profile": "cpu"},
        {"parent": "a"},
        {"training_faces": "b"},
        {"config": {}},
    ],
)
def test_everything_that_decides_a_model_changes_its_hash(change):
    assert replace(KEY, **change).hash != KEY.hash


def test_matrices_are_kept_in_bfloat16_and_vectors_exactly(folders):
    model = store.get(KEY, trainer([]))
    assert model.tensors["large"][0, 0] == torch.tensor(1 / 3).bfloat16().float()
    assert model.tensors["weight"].dtype == torch.float32


def test_notebooks_of_one_fresh_run_share_a_model(folders, monkeypatch):
    calls = []
    store.get(KEY, trainer(calls))
    path = next(store.files())
    monkeypatch.setenv(store.FRESH_SINCE, str(path.stat().st_mtime + 1))
    store.get(KEY, trainer(calls), fresh=True)
    assert len(calls) == 2
    monkeypatch.setenv(store.FRESH_SINCE, str(path.stat().st_mtime))
    store.get(KEY, trainer(calls), fresh=True)
    assert len(calls) == 2


def test_a_model_built_on_other_weights_is_not_used(folders):
    calls = []
    parent = store.get(replace(KEY, method="parent"), trainer([]))
    child = store.get(KEY, trainer(calls), parent=parent)
    assert child.parent_sha256 == parent.sha256 != ""
    store.get(KEY, trainer(calls), parent=parent)
    assert len(calls) == 1
    other = store.get(replace(KEY, method="parent"), trainer([], 9.0), fresh=True)
    store.get(KEY, trainer(calls), parent=other)
    assert len(calls) == 2


def test_fresh_ignores_a_checkpoint(folders):
    seen = []

    def train(checkpoint):
        seen.append(checkpoint.exists())
        checkpoint.touch()
        return trainer([])(checkpoint)

    store.get(KEY, train)
    store.get(KEY, train, fresh=True)
    assert seen == [False, False]


def test_reference_models_need_no_training(folders):
    tensors, report, device = trainer([], 7.0)(None)
    (folders / "reference").mkdir()
    store.save(folders / "reference" / KEY.filename, KEY, tensors, report, device)
    calls = []
    assert store.get(KEY, trainer(calls)).tensors["weight"][0, 0] == 7 and not calls
    assert [path.parent.name for path in store.files()] == ["reference"]


def test_damaged_and_foreign_files_are_refused(folders):
    store.get(KEY, trainer([]))
    path = next(store.files())
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(ReplicateError, match="cannot be read.*Delete it"):
        store.load(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ReplicateError, match="do not match their recorded hash"):
        store.load(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ReplicateError, match="cannot be read"):
        store.load(path)
    path.write_bytes(whole)
    with pytest.raises(ReplicateError, match=f"describes {KEY.hash}"):
        store.load(path, replace(KEY, seed=3))


def test_two_threads_that_want_a_model_train_it_once(folders):
    calls, entered = [], threading.Barrier(2)

    def want():
        entered.wait()
        store.get(KEY, trainer(calls))

    threads = [threading.Thread(target=want) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_a_full_disk_leaves_the_model_that_was_there(folders, monkeypatch):
    store.get(KEY, trainer([]))

    def full(*arguments):
        raise SafetensorError("Error while serializing: No space left on device")

    with monkeypatch.context() as patch, pytest.raises(ReplicateError, match="cannot write .*No space left"):
        patch.setattr(training, "save_file", full)
        store.get(KEY, trainer([], 2.0), fresh=True)
    assert store.get(KEY, trainer([])).tensors["weight"][0, 0] == 1
    assert [path.suffix for path in sorted((folders / "cache" / "models").iterdir())] == [
        ".lock",
        ".safetensors",
    ]


def test_a_cache_that_cannot_be_written_is_named_before_anything_is_trained(folders, monkeypatch):
    (folders / "file").write_text("in the way")
    monkeypatch.setenv("REPLICATE_CACHE", str(folders / "file"))
    calls = []
    with pytest.raises(ReplicateError, match="cannot write .*Set REPLICATE_CACHE"):
        store.get(KEY, trainer(calls))
    assert not calls


def test_a_failed_training_leaves_no_model(folders):
    def fail(checkpoint):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get(KEY, fail)
    assert list(store.files()) == []
