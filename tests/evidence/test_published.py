"""Published values: carried unchanged, complete, and found by what they are about."""

import csv
import hashlib
import os
from collections import Counter
from pathlib import Path

import pytest

from replicate.errors import ReplicateError
from replicate.evidence import artefacts, published
from replicate.metrics import NORMALISERS
from replicate.paths import root

ORIGINAL = Path(os.environ.get("REPLICATE_PUBLISHED") or root().parent / "shared" / "papers" / "published")
COUNTS = {
    ("lddr", "paper"): 91,
    ("lddr", "missing"): 5,
    ("tcnn", "paper"): 87,
    ("tcnn", "derived"): 5,
    ("tcnn", "elsewhere"): 3,
    ("tcnn", "missing"): 68,
    ("dan", "paper"): 148,
    ("dan", "elsewhere"): 21,
    ("rnn", "paper"): 221,
    ("rnn", "missing"): 2,
    ("ect", "paper"): 34,
    ("ect", "derived"): 1,
    ("ect", "elsewhere"): 27,
    ("ect", "missing"): 148,
}
# SHA-256 of "artefact|value|unit|plus_minus|source" of every line: a value cannot change unnoticed
DIGESTS = {
    "lddr": "334bd8c862f0bdd38cf385b7c37f2285aa914e3718352d6e43be655c2b59172d",
    "tcnn": "f4b1a6cd10426326e75a6af9c09c9c6010b1c874906c42b3aa65651f72a9488e",
    "dan": "b90aeb178c89551b4e9b6b65d3fd5b51463d85e6ad319fa8bea60da12de67b57",
    "rnn": "b978eca5c475f3697766c68d9f470c2903cea261d2199599a928668d63c014c8",
    "ect": "a60a05300b052be53283b5fbc59bf3d29c6e1c493dc913004dec3c5f9951bb22",
}


@pytest.mark.skipif(not ORIGINAL.is_dir(), reason=f"the collection of published values is not at {ORIGINAL}")
@pytest.mark.parametrize("paper", ["lddr", "tcnn", "dan", "rnn", "ect"])
def test_every_value_of_the_collection_is_carried_unchanged_and_in_order(paper):
    names = ("citation", "value", "plus_minus", "source")
    expected = []
    for path in sorted(ORIGINAL.glob(f"{paper}_*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            expected += [tuple(line[name] for name in names) for line in csv.DictReader(file)]
    carried = published.load(paper)[list(names)].itertuples(index=False, name=None)
    assert expected and list(carried) == expected


def test_there_are_861_values_of_five_papers():
    table = published.load()
    assert len(table) == 861
    assert Counter(zip(table["paper"], table["source"], strict=True)) == COUNTS


@pytest.mark.parametrize("paper", ["lddr", "tcnn", "dan", "rnn", "ect"])
def test_values_are_those_that_were_checked_against_the_papers(paper):
    columns = published.load(paper)[["artefact", "value", "unit", "plus_minus", "source"]]
    text = "\n".join("|".join(line) for line in columns.itertuples(index=False, name=None))
    assert hashlib.sha256(text.encode()).hexdigest() == DIGESTS[paper]


def test_a_value_is_missing_exactly_where_the_source_says_so_or_the_paper_has_a_blank():
    table = published.load()
    assert not table.loc[table["source"] == "missing", "value"].str.len().any()
    blanks = table[(table["value"] == "") & (table["source"] != "missing")]
    assert set(blanks["note"]) == {"dash in the paper", "blank in the paper"} and len(blanks) == 28


def test_every_value_belongs_to_an_artefact_and_a_normaliser_of_the_metrics():
    table = published.load()
    assert set(table["artefact"]) <= {artefact.id for artefact in artefacts.load()}
    assert set(table["normaliser"]) <= {"", "none", *NORMALISERS}
    assert set(table["source"]) <= set(published.SOURCES)
    assert (table.loc[table["source"] == "paper", "place"] != "").all()


@pytest.mark.parametrize(
    ("artefact", "where", "expected"),
    [
        ("DAN-T5", dict(label="DAN, 1 stage", metric="failure rate 0.08"), 6.17),
        ("DAN-T5", dict(label="DAN, 3 stages", metric="AUC 0.08"), 47.08),
        ("DAN-T2", dict(label="DAN", subset="full", normaliser="inter-ocular"), 3.59),
        ("DAN-T2", dict(label="DAN", subset="challenging", normaliser="inter-pupil"), 7.57),
        ("DAN-T2", dict(label="DAN-Menpo", subset="full", normaliser="diagonal"), 1.42),
        ("LDDR-T4", dict(label="LDDR"), 11.49),
        ("RNN-T4", dict(label="RNN", subset="full"), 4.90),
        ("TCNN-T2", dict(label="TCNN, same pipeline, alignment by", metric="TAR at FAR 0.01"), 0.718),
        ("ECT-F10a", dict(label="ECT, truncated FCN"), 8.24),
    ],
)
def test_known_numbers_are_found(artefact, where, expected):
    assert published.value(artefact, **where) == expected


def test_full_set_of_every_dan_row_is_the_mean_of_its_two_parts():
    table = published.load("dan")
    table = table[(table["artefact"] == "DAN-T2") & (table["source"] == "paper")]
    cells = table.pivot_table(index=["label", "normaliser"], columns="subset", values="number").dropna()
    pooled = (554 * cells["common"] + 135 * cells["challenging"]) / 689
    assert len(cells) == 13 and (abs(pooled - cells["full"]) < 0.012).all()


def test_a_number_is_found_among_several_artefacts():
    where = dict(label="MDM", subset="full", metric="failure rate 0.08")
    assert published.value(["DAN-T3", "DAN-S3"], **where) == 4.21
    with pytest.raises(ReplicateError, match="DAN-T2, DAN-S3: 0 published values fit"):
        published.value(["DAN-T2", "DAN-S3"], **where)


def test_an_ambiguous_or_unknown_question_is_refused():
    with pytest.raises(ReplicateError, match="3 published values fit"):
        published.value("DAN-T5", metric="mean error")
    with pytest.raises(ReplicateError, match="column: got 'metrics'"):
        published.value("DAN-T5", metrics="mean error")
    with pytest.raises(ReplicateError, match="paper: got 'nad'"):
        published.load("nad")


@pytest.mark.parametrize(
    ("text", "number"), [("1, 972", 1972), ("67,183", 67183), (".718", 0.718), ("4.30", 4.3)]
)
def test_printed_numbers_are_read(text, number):
    assert published._number(text) == number


@pytest.mark.parametrize("text", ["", "<40%", "17K+", "8 × 8 × 48", "3×3×1,1", "10−8", "half"])
def test_words_shapes_and_bounds_are_no_numbers(text):
    assert published._number(text) != published._number(text)
