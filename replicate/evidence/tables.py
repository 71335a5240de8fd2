"""Tables "paper | ours ± interval | difference | verdict", rendered from rows; no number is typed."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import pandas as pd

from replicate.errors import ReplicateError
from replicate.evidence import claims, published
from replicate.evidence.captions import SMOKE_WARNING, caption, caption_of, check_one_edition, set_names
from replicate.evidence.claims import Claim, Verdict
from replicate.evidence.records import paper_of
from replicate.evidence.rows import NO_NORMALISER, Row

_MATCH = ("artefact", "protocol", "subset", "points", "normaliser")
_VERSUS = " vs "  # in the name of a relative change, before the method that it is relative to
_CLASS = {"reproduced": "good", "direction holds": "fair", "not reproduced": "bad", "inconclusive": "open"}


def compare(
    rows: Iterable[Row], verdicts: Iterable[Verdict] = (), published_values: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Rows beside the paper's numbers for the same method, test set, metric and normaliser.

    Parameters
    ----------
    rows : iterable of Row
        Of one kind of faces and one profile.
    verdicts : iterable of Verdict
        Shown beside the rows of their claim's left side, where the metric agrees.
    published_values : DataFrame, optional
        As `published.load` gives it; all papers' unless given.

    Returns
    -------
    DataFrame
        ``method, subset, metric, images, paper, ours, difference, verdict`` as text, in the order of the
        rows. The difference is ours minus the paper's, on real faces only: on synthetic ones it would compare two benchmarks.
        The metric names the number of points where rows have several, and the subset its protocol.

    Raises
    ------
    ReplicateError
        For rows of mixed faces or profiles.
    """
    rows, verdicts = list(rows), list(verdicts)
    check_one_edition(rows)
    paper = published.load() if published_values is None else published_values
    several, sets = len({row.points for row in rows if row.points}) > 1, set_names(rows)
    return pd.DataFrame(
        [_line(row, paper, verdicts, several) | {"subset": sets[row.protocol, row.subset]} for row in rows],
        columns=["method", "subset", "metric", "images", "paper", "ours", "difference", "verdict"],
    )


def to_markdown(table: pd.DataFrame, caption: str = "") -> str:
    """A Markdown table with its caption above; cells keep their text whatever it is."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    body = "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)
    return f"*{_escaped(caption)}*\n\n{body}\n" if caption else body + "\n"


def to_html(table: pd.DataFrame, caption: str = "") -> str:
    """An HTML table with its caption; a smoke caption is set off as a warning.

    The table stands in a box that scrolls sideways, below its caption, so that a narrow screen shows all of both.
    """
    head = "".join(f'<th scope="col">{escape(str(column))}</th>' for column in table.columns)
    lines = "".join(
        "<tr>"
        + "".join(_cell(column, value) for column, value in zip(table.columns, line, strict=True))
        + "</tr>"
        for line in table.astype(str).to_numpy().tolist()
    )
    kind = ' class="warning"' if SMOKE_WARNING.upper() in caption else ""
    title = f"<figcaption{kind}>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="evidence">{title}<div style="overflow-x:auto"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div></figure>"
    )


class Table:
    """A comparison that shows itself in a notebook and prints as text.

    Parameters
    ----------
    data : DataFrame
        Usually of `compare`.
    caption : str
        Usually of `caption`.
    """

    def __init__(self, data: pd.DataFrame, caption: str) -> None:
        self.data, self.caption = data, caption

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.caption)}</p>" if self.data.empty else to_html(self.data, self.caption)

    def __str__(self) -> str:
        return self.caption if self.data.empty else f"{self.caption}\n{self.data.to_string(index=False)}"

    __repr__ = __str__


def table(rows: Iterable[Row], verdicts: Iterable[Verdict] = (), title: str = "") -> Table:
    """The comparison of rows with the paper, with its caption: what a notebook's last line returns.

    Without rows it says that the faces are not there.
    """
    rows = list(rows)
    if not rows:
        return absent(title)
    return Table(_without_empty(compare(rows, verdicts)), caption(rows, title))


def _without_empty(compared: pd.DataFrame) -> pd.DataFrame:
    """The table without the columns that hold nothing in any line."""
    may_go = ["subset", "images", "paper", "difference", "verdict"]
    empty = [name for name in may_go if compared[name].isin(("", "–")).all()]
    return compared.drop(columns=empty)


def absent(title: str = "") -> Table:
    """In place of a table whose faces are not on this machine."""
    where = "these faces are not on this machine; `replicate data check` says where to obtain them."
    return Table(pd.DataFrame(), f"{title}: {where}" if title else where.capitalize())


def verdict_table(verdicts: Sequence[Verdict], box_rule: str = "", subset: str = "test") -> Table:
    """Claims in words with both sides, the interval of their difference and the verdict.

    Parameters
    ----------
    verdicts : sequence of Verdict
        Of one kind of faces and one profile.
    box_rule : str
        Where the starting boxes come from.
    subset : str
        What the images are, where all verdicts are on as many.
    """
    if not verdicts:
        return absent("Verdicts on the claims")
    lines = []
    for verdict in verdicts:
        claim = claims.get(verdict.claim)
        lines.append(
            (
                claim.id,
                claim.statement,
                verdict.verdict,
                measured(claim, verdict.left, verdict.right),
                _decisive(claim, verdict),
                verdict.note,
            )
        )
    by_images: dict[int, list[str]] = {}
    for verdict in verdicts:
        if verdict.images:
            by_images.setdefault(verdict.images, []).append(verdict.claim)
    several = len(by_images) > 1
    about = caption_of(
        faces=verdicts[0].faces,
        profile=verdicts[0].profile,
        images={f"({', '.join(ids)})" if several else subset: count for count, ids in by_images.items()},
        seeds=max(verdict.seeds or 1 for verdict in verdicts),
        box_rule=box_rule,
        title="Verdicts on the claims",
    )
    columns = ["claim", "statement", "verdict", "measured", "difference", "note"]
    return Table(pd.DataFrame(lines, columns=columns), about)


def published_table(artefact: str, exclude: Iterable[str] = ()) -> Table:
    """What an artefact prints of methods that are not run here, beside what others have published of the same ones.

    Parameters
    ----------
    artefact : str
        ``"DAN-T2"``.
    exclude : iterable of str
        Methods that are run here, as rows name them.

    Returns
    -------
    Table
        One line per method, metric and source, one column per test set; all in per cent. The metric names the number of points where there
        are several. Lines of other publications than the paper come last.
    """
    found = published.load(paper_of(artefact))
    found = found[(found["artefact"] == artefact) & found["source"].isin(("paper", "elsewhere"))]
    found = found[~found["label"].isin(list(exclude))]
    if found.empty:
        raise ReplicateError(f"{artefact}: nothing is published of methods other than those excluded")
    found = found.sort_values("source", key=lambda source: source == "elsewhere", kind="stable")
    subsets = list(dict.fromkeys(found["subset"]))
    several = len(set(found["points"]) - {""}) > 1
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for one in found.to_dict("records"):
        where = one["place"] if one["source"] == "elsewhere" else f"the paper, {one['place']}"
        points = f"{one['points']} points" if several and one["points"] else ""
        key = one["label"], ", ".join(filter(None, [one["metric"], one["normaliser"], points])), where
        lines.setdefault(key, {})[one["subset"]] = _per_cent(one)
    table = [
        (*key[:2], *(cells.get(subset, "–") for subset in subsets), key[2]) for key, cells in lines.items()
    ]
    return Table(
        pd.DataFrame(table, columns=["method", "metric", *subsets, "as published in"]),
        f"As published, not run here ({artefact}): numbers in per cent of other models on the paper's photographs, without intervals.",
    )


def _per_cent(printed: Mapping) -> str:
    """A published number in per cent, with the digits it was printed with; fractions get two."""
    if printed["unit"] == "fraction":
        return number(100 * printed["number"], "%")
    return printed["value"] or "–"


def measured(claim: Claim, left: float | None, right: float | None) -> str:
    """Both sides of a claim by name, with what is compared; a dash without numbers."""
    quantity = claim.quantity()
    named = ((claim.left, left), (claim.right, right))
    sides = [
        f"{name} {number(value, quantity.unit)}{' %' * bool(quantity.unit)}"
        for name, value in named
        if value is not None
    ]
    return f"{quantity.metric}: {' against '.join(sides)}" if sides else "–"


def _decisive(claim: Claim, verdict: Verdict) -> str:
    """The difference with its interval, and the margin that decides on an equality."""
    unit = claim.quantity().unit
    if verdict.ci_low is None:
        return "–"
    interval = f"[{number(verdict.ci_low, unit)}, {number(verdict.ci_high, unit)}]"
    if verdict.difference is None:  # of a bound, the interval is the left side's
        return interval
    margin = claim.equality_margin(verdict.right)
    text = f"{number(verdict.difference, unit)} {interval}"
    return text if margin is None else f"{text}, margin ±{number(margin, unit)}"


def number(value: float, unit: str) -> str:
    """A value with the digits that papers print: two decimals for per cent, whole counts and thousands, three digits otherwise."""
    value = value + 0.0  # a zero without a sign
    if unit == "%":
        return f"{value:.2f}"
    if unit == "count" or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _line(
    row: Row, paper: pd.DataFrame, verdicts: Sequence[Verdict], name_points: bool = False
) -> dict[str, str]:
    printed = _published_value(row, paper)
    comparable = printed is not None and row.faces == "real"
    paper_cell = _against_another(row, paper) if printed is None else number(printed, row.unit)
    metric = [row.metric, "" if row.normaliser == NO_NORMALISER else row.normaliser]
    if name_points and row.points:
        metric.append(f"{row.points} points")
    return {
        "method": row.method,
        "subset": row.subset,
        "metric": ", ".join(filter(None, metric)),
        "images": "" if row.images is None else f"{row.images:,}",
        "paper": paper_cell,
        "ours": _ours(row),
        "difference": f"{row.value - printed:+.2f}" if comparable else "–",
        "verdict": "; ".join(f"{v.claim}: {v.verdict}" for v in verdicts if _concerns(v, row)) or "–",
    }


def _ours(row: Row) -> str:
    text = number(row.value, row.unit)
    if row.ci_low is not None and row.ci_high is not None:
        text += f" [{number(row.ci_low, row.unit)}, {number(row.ci_high, row.unit)}]"
    if row.count is not None and row.images:
        text += f" ({row.count} of {row.images * (row.seeds or 1)})"
    return text if row.unit in ("%", "count", "") else f"{text} {row.unit}"


def _published_value(row: Row, paper: pd.DataFrame) -> float | None:
    """The one published number for a row, in its unit; None if there is none or if several differ."""
    found = _published_of(row, paper)
    found = found[found["metric"] == row.metric]
    if found["number"].nunique() != 1:
        return None
    unit, value = found["unit"].iloc[0], float(found["number"].iloc[0])
    return 100 * value if (unit, row.unit) == ("fraction", "%") else value


def _published_of(row: Row, paper: pd.DataFrame) -> pd.DataFrame:
    """Numbers that the row's own paper has for its method, test set and normaliser, of any metric."""
    # statements about data sets name no method
    found = paper[paper["label"].isin([row.method, ""]) & paper["number"].notna()]
    found = found[found["source"] != "elsewhere"]
    for name in _MATCH:
        wanted = getattr(row, name)
        wanted = "" if wanted is None or wanted == NO_NORMALISER else str(wanted)
        found = found[found[name] == wanted]
    return found


def _against_another(row: Row, paper: pd.DataFrame) -> str:
    """The paper's change from another method than the row's, and from which: of "... vs SDM", its "... vs MDM"."""
    metric, versus, _ = row.metric.partition(_VERSUS)
    if not versus:
        return "–"
    found = _published_of(row, paper)
    found = found[found["metric"].map(lambda name: name.partition(_VERSUS)[0]) == metric]
    if found["number"].nunique() != 1:
        return "–"
    other = found["metric"].iloc[0].partition(_VERSUS)[2]
    text = number(float(found["number"].iloc[0]), row.unit)
    return f"{text} (vs {other})" if other else text


def _concerns(verdict: Verdict, row: Row) -> bool:
    claim = claims.get(verdict.claim)
    same_edition = (verdict.faces, verdict.profile) == (row.faces, row.profile)
    metrics = {quantity.metric for quantity in claim.quantities}
    named = {row.metric, f"{row.metric}, {row.normaliser}"} & metrics
    return same_edition and row.method == claim.left and row.artefact in claim.artefacts and bool(named)


def _escaped(value: object) -> str:
    return "".join(f"\\{c}" if c in "\\`*_$|<>[]{}#~" else c for c in str(value)).replace("\n", " ")


def _cell(column: str, value: str) -> str:
    if column != "verdict":
        return f"<td>{escape(value)}</td>"
    kinds = [_CLASS[verdict] for verdict in _CLASS if value.endswith(f": {verdict}")]
    return f'<td class="{kinds[0]}">{escape(value)}</td>' if kinds else f"<td>{escape(value)}</td>"
