"""Rows: checked when made, merged when recorded, safe against kills, full disks and other processes."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
from contract_keys import RESULT_KEYS

from replicate.errors import ReplicateError
from replicate.evidence import records, rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(value=5.0), "5.0 of DAN-T5, DAN, 2 stages lies outside its interval"),
        (dict(value=float("nan")), "value: got nan"),
        (dict(ci_high=float("inf")), "ci_high: got inf"),
        (dict(ci_high=None), "both bounds or neither"),
        (dict(faces="rael"), "Did you mean 'real'"),
        (dict(profile="cuda"), "profile: got 'cuda'"),
        (dict(normaliser="interocular"), "normaliser: got 'interocular'"),
        (dict(artefact="T5"), "expected a paper and a number"),
        (dict(method=""), "method: got an empty text"),
        (dict(images=-1), "images: got -1"),
        (dict(seeds=1.5), "seeds: got 1.5"),
    ],
)
def test_a_bad_row_is_refused(make_row, changes, message):
    with pytest.raises(ReplicateError, match=message):
        make_row(**changes)


def test_a_row_has_the_agreed_keys_and_survives_json(make_row):
    row = make_row(value=4.3000001, faces_sha256="ab", count=16)
    assert row.to_dict().keys() >= set(RESULT_KEYS)
    assert row.value == 4.3
    assert rows.Row(**json.loads(json.dumps(row.to_dict()))) == row


def test_recorded_rows_are_read_back_and_selected(make_row):
    made = [
        make_row(),
        make_row(metric="AUC 0.08", value=4.2),
        make_row(faces="real"),
        make_row(profile="smoke"),
    ]
    other = make_row(artefact="LDDR-T2", method="LDDR")
    rows.record([*made, other])
    assert set(rows.load()) == {*made, other}
    assert set(rows.load(paper="dan")) == set(made)
    assert rows.load(faces="real") == [made[2]]
    assert rows.load(profile="smoke") == [made[3]]
    assert [entry["artefact"] for entry in rows.as_json()].count("LDDR-T2") == 1


def test_files_lie_where_the_profile_keeps_them(make_row, places):
    changed = rows.record([make_row(), make_row(profile="smoke")])
    assert changed == [
        places / "results/dan/DAN-T5.synthetic.cpu.json",
        places / "cache/results/dan/DAN-T5.synthetic.smoke.json",
    ]


def test_the_same_numbers_leave_the_file_untouched(make_row):
    [path] = rows.record([make_row(), make_row(metric="AUC 0.08", value=4.2)])
    before = path.read_bytes(), path.stat().st_mtime_ns
    again = make_row(value=4.3001, seconds=99.0, commit="another", recorded_at="later")
    assert rows.record([again]) == []
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_counts_keep_all_their_digits_and_the_smallest_change_counts(make_row):
    exact = dict(metric="parameters", normaliser="none", ci_low=None, ci_high=None, unit="count")
    rows.record([make_row(value=12_846_217, **exact)])
    assert [row.value for row in rows.load()] == [12_846_217]
    assert rows.record([make_row(value=12_846_217.0, **exact)]) == []
    rows.record([make_row(value=12_846_218, **exact)])
    assert [row.value for row in rows.load()] == [12_846_218]


def test_a_changed_number_replaces_its_row_and_no_other(make_row):
    first, second = make_row(commit="old"), make_row(metric="AUC 0.08", value=4.2, commit="old")
    rows.record([first, second])
    moved = make_row(value=4.4, commit="new")
    rows.record([moved, replace(second, commit="new")])
    assert set(rows.load()) == {moved, second}


def test_replace_drops_rows_that_are_no_longer_made(make_row):
    rows.record([make_row(), make_row(method="DAN, 1 stage")])
    rows.record([make_row(method="DAN, 3 stages")], replace=True)
    assert [row.method for row in rows.load()] == ["DAN, 3 stages"]


@pytest.mark.parametrize(
    "content",
    ['[{"artefact": "DAN-T5"', '{"artefact": "DAN-T5"}', '[{"artefact": "DAN-T5"}]', '[["DAN-T5"]]', ""],
)
def test_a_damaged_file_is_named_and_kept(make_row, content):
    [path] = rows.record([make_row()])
    path.write_text(content)
    with pytest.raises(ReplicateError, match="DAN-T5.synthetic.cpu.json"):
        rows.load()
    with pytest.raises(ReplicateError, match="DAN-T5.synthetic.cpu.json"):
        rows.record([make_row(value=4.4)])
    assert path.read_text() == content


def test_an_unwritable_results_folder_is_a_clear_error(make_row, places):
    (places / "results").write_text("a file where the folder should be")
    with pytest.raises(ReplicateError, match="cannot write .*DAN-T5"):
        rows.record([make_row()])


def test_an_unwritable_cache_is_a_clear_error(make_row, places):
    (places / "cache").write_text("a file where the folder should be")
    with pytest.raises(ReplicateError, match="REPLICATE_CACHE"):
        rows.record([make_row()])


def test_a_full_disk_loses_nothing(make_row, monkeypatch):
    [path] = rows.record([make_row()])
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ReplicateError, match="No space left on device"):
        rows.record([make_row(value=4.4)])
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def _record_many(make, number, count):
    rows.record([make(method=f"method {number}-{index}") for index in range(count)])


def test_processes_that_record_at_once_lose_no_row(make_row):
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_record_many, args=(make_row, number, 5)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert len(rows.load()) == 40


def _die_while_writing(make):
    def kill(*arguments, **options):
        os.kill(os.getpid(), signal.SIGKILL)

    records.write_json.__globals__["json"].dumps = kill
    rows.record([make(value=4.4)])


def test_a_kill_while_recording_leaves_the_old_file_and_no_lock(make_row):
    [path] = rows.record([make_row()])
    before = path.read_bytes()
    worker = multiprocessing.get_context("fork").Process(target=_die_while_writing, args=(make_row,))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    assert path.read_bytes() == before
    rows.record([make_row(value=4.4)])
    assert [row.value for row in rows.load()] == [4.4]
