"""Pages about the faces that are made from data: how well synthetic training carries over, and where each real data set comes from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from replicate.book_pages import table, text
from replicate.evidence import captions, rows, tables
from replicate.evidence.records import OTHER_ARTEFACTS
from replicate.evidence.rows import Row
from replicate.faces.protocols import PROTOCOLS, data_set_of, leaves
from replicate.faces.real import DATA_SETS, DataSet
from replicate.vocabulary import PROFILES

(TRANSFER,) = OTHER_ARTEFACTS
SUBSETS = ("common", "challenging", "full")
_TRAINED_ON_REAL = {
    "mean shape": "mean shape of the real training faces",
    "DAN": "DAN, trained on real faces",
}


def generate() -> dict[str, str]:
    """Text of the generated pages of the chapter by their names."""
    return {
        "faces/carry_over": transfer_page(rows.load("faces"), rows.load("dan", "real")),
        "faces/licences": licences_page(DATA_SETS),
    }


def transfer_page(recorded: Sequence[Row], on_real: Sequence[Row]) -> str:
    """Errors on real test faces of models that have seen generated faces alone.

    Parameters
    ----------
    recorded : sequence of Row
        Those of artefact `FACES-TRANSFER`.
    on_real : sequence of Row
        Of the DAN chapter on real faces; those on the very same test faces are shown for comparison.
    """
    parts = [
        "# Do generated faces carry over to photographs?\n",
        "A DAN is trained on generated faces alone and tested on the photographs of the 300-W test set. It has never seen a photograph. If "
        "the generated faces were useless, its error would be that of the mean shape, which puts the same average face into every box; if they "
        "were as good as photographs, it would be that of a DAN trained on as many real ones. The DAN that stands beside it is that of the DAN chapter on "
        "real faces, with a width, samples and training faces of its own. At the `cpu` profile it starts from the weights of the network that is tested "
        "here and then learns from photographs (the captions name both numbers of faces), so the distance between the two is what the photographs and the "
        "further training add; it is no measure of a network that has seen photographs alone.\n",
        "Nothing was adjusted on the test photographs: choices about the generator were made on the real *training* faces.\n",
    ]
    photographs = _by_profile(recorded, "real")
    if not photographs:
        parts.append("*Not recorded here yet.*\n")
    for profile, own in photographs.items():
        parts.append(f"## On photographs, profile {profile}\n")
        parts += _error_tables([*own, *_same_faces(own, on_real)])
    for profile, own in _by_profile(recorded, "synthetic").items():
        parts.append(f"## The same models on generated faces, profile {profile}\n")
        parts.append(
            "The test faces are of the same make as the training faces here. That the errors are smaller than on photographs is what the generator "
            "lacks, and what annotators add.\n"
        )
        parts += _error_tables(own)
    return "\n".join([*parts, _READING] if photographs else parts)


def _by_profile(recorded: Sequence[Row], faces: str) -> dict[str, list[Row]]:
    """Rows of one kind of test faces by profile, the most thorough first; those of `smoke` mean nothing."""
    profiles = reversed([profile for profile in PROFILES if profile != "smoke"])
    found = {p: [row for row in recorded if (row.profile, row.faces) == (p, faces)] for p in profiles}
    return {profile: own for profile, own in found.items() if own}


_READING = """## What follows

* A comparison of two methods on generated faces is about faces that resemble photographs to this degree, and their order need not carry over. Compare
  SDM with DAN on both kinds of faces, in the DAN chapter, before you rely on an order.
* For data of your own: train on generated faces to begin, then go on with the few photographs that you have labelled. The
  gap between the two kinds of test faces is what they have to close.
* Part of the gap is no fault of the pictures: a contour point of a generated face lies where a formula puts it, that of a photograph where an
  annotator did.
"""


def _same_faces(own: Sequence[Row], on_real: Sequence[Row]) -> list[Row]:
    """Rows of models trained on real faces, if they were tested on the same faces and their method is not there already."""
    tested = {(row.subset, row.faces_sha256) for row in own}
    have = {row.method for row in own}
    return [
        replace(row, method=_TRAINED_ON_REAL[row.method])
        for row in on_real
        if row.artefact == "DAN-T2"
        and row.profile == own[0].profile
        and row.method in _TRAINED_ON_REAL
        and not {row.method, _TRAINED_ON_REAL[row.method]} & have
        and (row.subset, row.faces_sha256) in tested
    ]


def _error_tables(shown: Sequence[Row]) -> list[str]:
    """One table for each metric and normaliser: methods down, subsets across."""
    parts = []
    for metric, normaliser in dict.fromkeys((row.metric, row.normaliser) for row in shown):
        values = {
            (row.method, row.subset): _value(row)
            for row in shown
            if (row.metric, row.normaliser) == (metric, normaliser)
        }
        subsets = [name for name in SUBSETS if any(subset == name for _, subset in values)]
        lines = [
            [text(method), *(text(values.get((method, subset))) for subset in subsets)]
            for method in dict.fromkeys(method for method, _ in values)
        ]
        about = (
            f"{metric}, % of the {normaliser} distance"
            if metric == "mean error"
            else f"{metric}, %, {normaliser}"
        )
        words = captions.caption(shown, f"{about}, on {shown[0].faces} faces")
        parts.append(f"*{text(words)}*\n\n" + table(["method", *subsets], lines))
    return parts


def _value(row: Row) -> str:
    value = tables.number(row.value, row.unit)
    if row.ci_low is None:
        return value
    return f"{value} [{tables.number(row.ci_low, row.unit)}, {tables.number(row.ci_high, row.unit)}]"


def licences_page(data_sets: Mapping[str, DataSet]) -> str:
    """Where each real data set is obtained, under which terms, what to cite, where it goes, and which protocols use it."""
    parts = [
        "# Real faces: licences, citations, how to get them\n",
        "No photograph comes with this suite. Whoever has a data set puts it, as it was downloaded and unpacked, into a folder of its own below "
        "`$REPLICATE_DATA`; `replicate data check` says what is found, `replicate run --faces real` uses it. The terms below are a summary: "
        "those of the distributor count. All of these sets show people who were not asked, so they serve research, not products, and their "
        "faces stay out of reports unless the terms allow it.\n",
        "The generated faces are free of this: no photograph and no scan goes into them, and nobody is shown. Averages and quantiles of the "
        "landmarks of 300-W training faces are all that was taken from real ones.\n",
    ]
    for name, data_set in data_sets.items():
        counts = ", ".join(f"{split} {count:,}" for split, count in data_set.splits.items())
        facts = [
            ["obtained from", _linked(data_set.url)],
            ["terms", text(data_set.terms)],
            ["cite", text(data_set.cite)],
            ["folder", f"`$REPLICATE_DATA/{data_set.folder}`"],
            ["faces", text(counts)],
            ["protocols", text(", ".join(_users(name)) or "none of the tables; read for comparisons")],
        ]
        parts.append(f"## {text(data_set.title)}\n\n" + table(["", ""], facts))
    return "\n".join(parts)


def _linked(words: str) -> str:
    """Markdown of plain words in which each address is a link."""
    parts = re.split(r"(https?://[^\s,;()]+)", words)
    return "".join(f"<{part}>" if part.startswith("http") else text(part) for part in parts if part)


def _users(data_set: str) -> list[str]:
    """Protocols that take faces from a data set."""
    return [
        name
        for name, protocol in PROTOCOLS.items()
        if any(data_set_of(*leaf) == data_set for split in protocol.splits for leaf in leaves(name, split))
    ]
