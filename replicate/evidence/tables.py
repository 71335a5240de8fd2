"""Tables "paper | ours ± interval | difference | verdict", rendered from rows; no number is typed."""

from collections.abc import Iterable, Sequence
from html import escape

import pandas as pd

from replicate.errors import ReplicateError
from replicate.evidence import claims, published
from replicate.evidence.claims import Verdict
from replicate.evidence.rows import NO_NORMALISER, Row

SMOKE_WARNING = "smoke profile: numbers mean nothing"
SYNTHETIC_REMARK = "Synthetic faces are not the paper's benchmark: compare directions, not sizes"
_MATCH = ("artefact", "protocol", "subset", "points", "metric", "normaliser")
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
        rows. The
        difference is ours minus the paper's, on real faces only: on synthetic ones it would compare two
        benchmarks.

    Raises
    ------
    ReplicateError
        For rows of mixed faces or profiles.
    """
    rows, verdicts = list(rows), list(verdicts)
    _one_edition(rows)
    paper = published.load() if published_values is None else published_values
    return pd.DataFrame(
        [_line(row, _published_value(row, paper), verdicts) for row in rows],
        columns=["method", "subset", "metric", "images", "paper", "ours", "difference", "verdict"],
    )


def caption(rows: Iterable[Row], title: str = "") -> str:
    """What a table or figure was measured on: faces, profile, images, seeds, box rule; drawn from its rows.

    Parameters
    ----------
    rows : iterable of Row
        Of one kind of faces and one profile.
    title : str
        Put in front.
    """
    rows = list(rows)
    _one_edition(rows)
    return caption_of(
        faces=rows[0].faces,
        profile=rows[0].profile,
        images={row.subset: row.images for row in rows if row.images},
        seeds=max((row.seeds or 1 for row in rows), default=1),
        box_rule=next((row.box_rule for row in rows if row.box_rule), ""),
        notes=tuple(dict.fromkeys(row.note for row in rows if row.note)),
        title=title,
    )


def caption_of(
    *,
    faces: str,
    profile: str,
    images: dict[str, int],
    seeds: int,
    box_rule: str = "",
    notes: Sequence[str] = (),
    title: str = "",
) -> str:
    """Caption of a table or figure that has no rows; `images` counts the images of each subset."""
    counts = ", ".join(f"{count:,} {subset}".strip() for subset, count in images.items())
    parts = [
        f"{faces} faces",
        f"profile {profile}",
        f"{counts} images" if counts else "",
        f"{seeds} seed{'s' * (seeds > 1)}",
        *notes,
        f"boxes: {box_rule}" if box_rule else "",
        "95 % intervals by bootstrap",
    ]
    lines = [title, "; ".join(filter(None, parts))]
    if faces == "synthetic":
        lines.append(SYNTHETIC_REMARK)
    if profile == "smoke":
        lines.insert(0, SMOKE_WARNING.upper())
    return ". ".join(line[0].upper() + line[1:].rstrip(".") for line in lines if line) + "."


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
        return to_html(self.data, self.caption)

    def __str__(self) -> str:
        return f"{self.caption}\n{self.data.to_string(index=False)}"

    __repr__ = __str__


def table(rows: Iterable[Row], verdicts: Iterable[Verdict] = (), title: str = "") -> Table:
    """The comparison of rows with the paper, with its caption: what a notebook's last line returns."""
    rows = list(rows)
    return Table(compare(rows, verdicts), caption(rows, title))


def verdict_table(verdicts: Sequence[Verdict], box_rule: str) -> Table:
    """Claims in words with both sides, the interval of their difference and the verdict.

    Parameters
    ----------
    verdicts : sequence of Verdict
        Of one kind of faces and one profile.
    box_rule : str
        Where the starting boxes come from.
    """
    lines = []
    for verdict in verdicts:
        claim = claims.get(verdict.claim)
        sides = [number(side, "%") for side in (verdict.left, verdict.right)]
        interval = f"{number(verdict.difference, '%')} [{number(verdict.ci_low, '%')}, {number(verdict.ci_high, '%')}]"
        lines.append((claim.id, claim.statement, *sides, interval, verdict.verdict, verdict.note))
    first = verdicts[0]
    about = caption_of(
        faces=first.faces,
        profile=first.profile,
        images={"test": first.images},
        seeds=first.seeds or 1,
        box_rule=box_rule,
        title="Verdicts on the claims",
    )
    columns = ["claim", "statement", "left", "right", "difference", "verdict", "note"]
    return Table(pd.DataFrame(lines, columns=columns), about)


def number(value: float, unit: str) -> str:
    """A value with the digits that papers print: two decimals for per cent, whole counts, three digits otherwise."""
    if unit == "%":
        return f"{value:.2f}"
    if unit == "count" or (float(value).is_integer() and abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _one_edition(rows: Sequence[Row]) -> None:
    editions = {(row.faces, row.profile) for row in rows}
    if len(editions) != 1:
        raise ReplicateError(
            f"rows: got {sorted(editions) or 'none'}, expected rows of one kind of faces and one profile"
        )


def _line(row: Row, printed: float | None, verdicts: Sequence[Verdict]) -> dict[str, str]:
    comparable = printed is not None and row.faces == "real"
    return {
        "method": row.method,
        "subset": row.subset,
        "metric": row.metric if row.normaliser == NO_NORMALISER else f"{row.metric}, {row.normaliser}",
        "images": "" if row.images is None else f"{row.images:,}",
        "paper": "–" if printed is None else number(printed, row.unit),
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
    """The one published number for a row, in its unit; None if there is none or more than one."""
    # statements about data sets name no method
    found = paper[paper["label"].isin([row.method, ""]) & paper["number"].notna()]
    for name in _MATCH:
        wanted = getattr(row, name)
        wanted = "" if wanted is None or wanted == NO_NORMALISER else str(wanted)
        found = found[found[name] == wanted]
    if len(found) != 1:
        return None
    unit, value = found["unit"].iloc[0], float(found["number"].iloc[0])
    return 100 * value if (unit, row.unit) == ("fraction", "%") else value


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
