"""States of the artefacts: computed from notebooks and records, never stated."""

import json
from collections import Counter

import pytest

from replicate.errors import ReplicateError
from replicate.evidence import ambiguities, artefacts, claims, manifest, rows
from replicate.evidence.claims import Verdict
from replicate.evidence.manifest import Figure

COUNTS = {"lddr": 31, "tcnn": 53, "dan": 32, "rnn": 44, "ect": 46}


@pytest.fixture
def write_notebook(places, monkeypatch):
    """A function that puts a notebook into a checkout of its own, declaring what it makes."""
    monkeypatch.setattr(artefacts, "root", lambda: places)

    def write(name, **declared):
        path = places / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"cells": [], "metadata": {"replicate": declared}, "nbformat": 4}))
        return path

    return write


def state(identity: str) -> dict:
    return next(artefact for artefact in artefacts.load() if artefact.id == identity).state


def figure(artefact="DAN-F4", faces="synthetic", profile="cpu", **changes) -> Figure:
    return Figure(
        artefact=artefact, title="worst faces", alt="nine faces", faces=faces, profile=profile, **changes
    )


def test_there_are_206_artefacts_in_the_papers_numbers(write_notebook):
    every = artefacts.as_json()
    assert len({entry["id"] for entry in every}) == 206
    assert Counter(entry["paper"] for entry in every) == COUNTS
    assert json.loads(json.dumps(every)) == every
    assert {"id", "paper", "kind", "title", "notebook", "state"} <= every[0].keys()
    assert all(entry["title"] and entry["output"] for entry in every)


def test_without_a_notebook_nothing_is_done(write_notebook, make_row):
    rows.record([make_row()])
    assert state("DAN-T5") == {"synthetic": "missing", "real": "data absent"}
    assert state("DAN-T2")["real"] == "data absent"  # one of its rows needs Menpo
    assert state("RNN-T4") == {"synthetic": "missing", "real": "missing"}
    assert state("DAN-F1") == {"synthetic": "missing", "real": "not applicable"}


def test_a_notebook_without_records_is_not_done(write_notebook, make_row):
    write_notebook("dan/s43_stages", artefacts=["DAN-T5"])
    assert state("DAN-T5")["synthetic"] == "missing"
    rows.record([make_row(profile="smoke")])
    assert state("DAN-T5")["synthetic"] == "missing"  # smoke numbers are no evidence
    rows.record([make_row()])
    assert state("DAN-T5")["synthetic"] == "done"


def test_the_notebook_is_named_by_its_path_in_the_checkout(write_notebook):
    write_notebook("dan/s43_stages", artefacts=["DAN-T5"], partial=["DAN-S6"])
    by_id = {artefact.id: artefact.notebook for artefact in artefacts.load()}
    assert by_id["DAN-T5"] == by_id["DAN-S6"] == "notebooks/dan/s43_stages.ipynb"
    assert by_id["DAN-T4"] is None


def test_what_is_declared_in_part_stays_partial(write_notebook, make_row):
    write_notebook("dan/s43_stages", partial=["DAN-T5"])
    rows.record([make_row()])
    assert state("DAN-T5")["synthetic"] == "partial"
    write_notebook("dan/s44_all", artefacts=["DAN-T5"])  # another notebook makes all of it
    assert state("DAN-T5")["synthetic"] == "done"


def test_real_faces_count_as_done_only_with_the_test_set_that_the_artefact_needs(write_notebook, make_row):
    write_notebook("dan/s43_stages", artefacts=["DAN-T5", "RNN-T4"])
    rows.record([make_row(faces="real", subset="full")])
    assert state("DAN-T5") == {"synthetic": "missing", "real": "partial"}
    rows.record([make_row(faces="real", subset="private")])
    assert state("DAN-T5")["real"] == "done"
    rows.record([make_row(faces="real", artefact="RNN-T4", subset="full")])
    assert state("RNN-T4")["real"] == "done"


def test_a_verdict_is_evidence_for_the_artefacts_of_its_claim(write_notebook):
    write_notebook("dan/s43_stages", artefacts=["DAN-S6"])
    about = dict(claim="DAN-C4", faces="synthetic", profile="cpu", ci_low=-0.1, ci_high=0.1)
    claims.record([Verdict(verdict="not run", **about)])
    assert state("DAN-S6")["synthetic"] == "missing"
    claims.record([Verdict(verdict="not reproduced", **about)])
    assert state("DAN-S6")["synthetic"] == "done"


def test_a_figure_needs_its_manifest_entry_and_a_statement_of_method_only_its_notebook(write_notebook):
    write_notebook("dan/s3_method", artefacts=["DAN-F4", "DAN-S9"])
    assert state("DAN-S9") == {"synthetic": "done", "real": "not applicable"}
    assert state("DAN-F4")["synthetic"] == "missing"
    manifest.record([figure(), figure(faces="real", subset="challenging")])
    assert state("DAN-F4") == {"synthetic": "done", "real": "done"}


def test_an_absent_set_is_named_as_the_reason(write_notebook):
    reasons = {artefact.id: artefact.reason for artefact in artefacts.load()}
    assert reasons["DAN-T4"] == "real faces not at hand: 300w/private"
    assert reasons["DAN-F1"].startswith("does not depend on the faces")
    assert reasons["RNN-T4"] == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"metadata": {"replicate": {"artefacts": ["DAN-T55"]}}}', "Did you mean 'DAN-T5'"),
        ('{"metadata": {"replicate": ["DAN-T5"]}}', "expected an object"),
        ('{"cells": []}', "not a Jupyter notebook"),
        ("{", "not a Jupyter notebook"),
    ],
)
def test_a_notebook_that_declares_nonsense_is_named(write_notebook, content, message):
    write_notebook("dan/s43_stages").write_text(content)
    with pytest.raises(ReplicateError, match=message) as caught:
        artefacts.load()
    assert "s43_stages.ipynb" in str(caught.value)


def test_figures_are_recorded_once(places):
    assert manifest.record([figure()]) == [places / "results/dan/figures.synthetic.cpu.json"]
    assert manifest.record([figure(recorded_at="later")]) == []
    assert manifest.record([figure(images=9)]) != []
    assert [(f.artefact, f.images) for f in manifest.load("dan")] == [("DAN-F4", 9)]


def test_a_figure_without_words_for_it_is_refused():
    with pytest.raises(ReplicateError, match="needs both"):
        Figure(artefact="DAN-F4", title="worst faces", alt="", faces="synthetic", profile="cpu")


def test_the_register_of_ambiguities_is_complete():
    register = ambiguities.load("dan")
    assert [entry.id for entry in register] == [f"DAN-A{number + 1}" for number in range(len(register))]
    assert len(register) >= 19
    assert all(all(entry.to_dict().values()) for entry in register)
    assert ambiguities.load()[: len(register)] == register or ambiguities.load()[0].paper != "dan"
