"""Numbers that the papers print, and where in the paper each stands."""

import csv
from collections.abc import Sequence
from functools import cache

import pandas as pd

from replicate.errors import ReplicateError
from replicate.evidence.records import paper_of
from replicate.paths import published_dir
from replicate.vocabulary import PAPERS, check_one_of

COLUMNS = (
    *(
        "artefact",
        "method",
        "citation",
        "variant",
        "protocol",
        "subset",
        "images",
        "points",
        "setting",
        "metric",
    ),
    *("normaliser", "value", "unit", "plus_minus", "source", "place", "note"),
)
SOURCES = ("paper", "derived", "elsewhere", "missing")


def load(paper: str | None = None) -> pd.DataFrame:
    """Published values of one paper or of all five, in the papers' order.

    Parameters
    ----------
    paper : str, optional
        ``"dan"`` for example.

    Returns
    -------
    DataFrame
        Columns `COLUMNS` as text, exactly as printed (a thousands comma stays), and ``paper``, ``label``
        (method, variant
        and setting: the name of the method in rows) and ``number`` (the value as a float, NaN where there is
        none).
        ``source`` tells a printed value (``paper``) from one computed of printed ones (``derived``), one that
        another
        publication gives (``elsewhere``) and one that is drawn or lost (``missing``).
    """
    if paper is not None:
        check_one_of("paper", paper, PAPERS)
    tables = [_read(one) for one in ([paper] if paper else PAPERS)]
    return pd.concat(tables, ignore_index=True)


def value(artefact: str | Sequence[str], **where: str) -> float:
    """The one published number of an artefact, or of several of a paper, that satisfies all conditions.

    Parameters
    ----------
    artefact : str or sequence of str
        ``"DAN-T5"``.
    **where : str
        Columns and their text: ``label="DAN, 2 stages", metric="mean error"``.

    Raises
    ------
    ReplicateError
        For an unknown column, or unless exactly one number fits.

    Examples
    --------
    >>> value("DAN-T5", label="DAN, 2 stages", metric="mean error")
    4.3
    """
    artefacts = [artefact] if isinstance(artefact, str) else list(artefact)
    found = load(paper_of(artefacts[0]))
    found = found[found["artefact"].isin(artefacts) & found["number"].notna()]
    for column, text in where.items():
        check_one_of("column", column, found.columns)
        found = found[found[column] == str(text)]
    if len(found) != 1:
        shown = found[["label", "subset", "points", "metric", "normaliser", "value"]].to_string(index=False)
        raise ReplicateError(
            f"{', '.join(artefacts)}: {len(found)} published values fit {where}, expected one.\n{shown}"
        )
    return float(found["number"].iloc[0])


@cache
def _records(paper: str) -> tuple[tuple[str, ...], ...]:
    path = published_dir() / "values" / f"{paper}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        header, *records = csv.reader(file)
    if tuple(header) != COLUMNS or any(len(record) != len(COLUMNS) for record in records):
        raise ReplicateError(f"{path}: expected the columns {', '.join(COLUMNS)} in every line")
    return tuple(map(tuple, records))


def _read(paper: str) -> pd.DataFrame:
    table = pd.DataFrame(_records(paper), columns=list(COLUMNS), dtype=object)
    table.insert(0, "paper", paper)
    parts = zip(table["method"], table["variant"], table["setting"], strict=True)
    table["label"] = [", ".join(part for part in three if part) for three in parts]
    table["number"] = [_number(text) for text in table["value"]]
    return table


def _number(text: str) -> float:
    """A printed number as a float; NaN for words, shapes and bounds."""
    try:
        return float(text.replace(",", "").replace(" ", ""))
    except ValueError:
        return float("nan")
