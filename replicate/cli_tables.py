"""Tables of the ``replicate`` command for people; the JSON form carries everything."""

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

STATE_STYLES = {
    "done": "green",
    "partial": "yellow",
    "missing": "red",
    "data absent": "dim",
    "not applicable": "dim",
}
VERDICT_STYLES = {
    "reproduced": "green",
    "direction holds": "green",
    "not reproduced": "red",
    "inconclusive": "yellow",
    "not testable": "dim",
    "not run": "dim",
}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", expand=False)
    for column in columns:
        table.add_column(
            column, overflow="fold"
        )  # a narrow terminal breaks long words rather than cut them off
    return table


_NOTHING = 1e-6


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits, or a dash; what is left of rounding is zero."""
    value = 0.0 if value is not None and abs(value) < _NOTHING else value
    return "–" if value is None else f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"


def interval(row: Mapping) -> str:
    """``value [low, high]`` of a row."""
    value = number(row["value"])
    return value if row["ci_low"] is None else f"{value} [{number(row['ci_low'])}, {number(row['ci_high'])}]"


def metric_name(row: Mapping) -> str:
    """The metric of a row, with its normaliser where there is one."""
    return (
        row["metric"] if row["normaliser"] in (None, "", "none") else f"{row['metric']} ({row['normaliser']})"
    )


def artefacts(rows: Sequence[Mapping]) -> Group:
    """One line per artefact, and the count of each state."""
    table = _table(f"{len(rows)} artefacts", "id", "what it shows", "synthetic", "real", "notebook")
    for row in rows:
        states = [
            Text(row["state"][faces], STATE_STYLES[row["state"][faces]]) for faces in ("synthetic", "real")
        ]
        table.add_row(row["id"], row["title"], *states, row["notebook"] or "–")
    counts = [
        f"{faces}: "
        + ", ".join(f"{n} {state}" for state, n in Counter(r["state"][faces] for r in rows).most_common())
        for faces in ("synthetic", "real")
    ]
    return Group(table, *counts)


def results(rows: Sequence[Mapping]) -> Table:
    """One line per recorded number."""
    columns = (
        "artefact",
        "method",
        "subset",
        "metric",
        "value [95 %]",
        "unit",
        "images",
        "faces",
        "profile",
        "device",
    )
    table = _table(f"{len(rows)} results", *columns)
    for row in rows:
        cells = [
            row["artefact"],
            row["method"],
            row["subset"],
            metric_name(row),
            interval(row),
            row["unit"],
            row["images"],
        ]
        table.add_row(
            *(str(c if c is not None else "–") for c in [*cells, row["faces"], row["profile"], row["device"]])
        )
    return table


def told(claim: Mapping) -> list[Mapping]:
    """The verdicts of a claim that say something, or one that says `not run`."""
    return [v for v in claim["verdicts"] if v["verdict"] != "not run"] or [{"verdict": "not run"}]


def difference(verdict: Mapping) -> str:
    """The difference of a verdict with its interval."""
    low, high = verdict.get("ci_low"), verdict.get("ci_high")
    return number(verdict.get("difference")) + (
        f" [{number(low)}, {number(high)}]" if low is not None else ""
    )


def claims(rows: Sequence[Mapping]) -> Table:
    """One line per claim and verdict."""
    table = _table(
        f"{len(rows)} claims",
        "id",
        "statement",
        "faces",
        "profile",
        "verdict",
        "left",
        "right",
        "difference [95 %]",
    )
    for row in rows:
        for verdict in told(row):
            word = Text(verdict["verdict"], VERDICT_STYLES[verdict["verdict"]])
            sides = number(verdict.get("left")), number(verdict.get("right"))
            where = verdict.get("faces", ""), verdict.get("profile", "")
            table.add_row(row["id"], row["statement"], *where, word, *sides, difference(verdict))
    return table


def plan(reasons: Mapping) -> Table:
    """What would run and why; `reasons` maps jobs to words or None."""
    stale = sum(reason is not None for reason in reasons.values())
    table = _table(
        f"{stale} of {len(reasons)} notebooks to run", "notebook", "profile", "faces", "seed", "why"
    )
    for job, reason in reasons.items():
        why = Text(reason, "yellow") if reason else Text("up to date", "green")
        table.add_row(job.notebook, job.profile, job.faces, str(job.seed), why)
    return table


def bench(rows: Sequence[Mapping]) -> Table:
    """One line per benchmark."""
    columns = (
        "name",
        "measures",
        "value",
        "peer",
        "faster than peer",
        "of this machine's limit",
        "device",
        "threads",
    )
    table = _table("benchmarks", *columns)
    for row in rows:
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}×"
        peer = "–" if row["peer"] is None else f"{row['peer']}: {number(row['peer_value'])}"
        share = "–" if row["fraction_of_limit"] is None else f"{100 * row['fraction_of_limit']:.0f} %"
        value = f"{number(row['value'])} {row['unit']}"
        table.add_row(
            row["name"], row["measures"], value, peer, ratio, share, row["device"], str(row["threads"])
        )
    return table


def checks(rows: Sequence[Mapping], omit: Sequence[str] = ("box rule", "file", "samples")) -> Table:
    """One line per data set, split or model; long columns stand in the JSON form only."""
    names = [name for name in (rows[0] if rows else ["nothing"]) if name not in omit]
    table = _table("", *names)
    for row in rows:
        table.add_row(*("–" if row[name] is None else str(row[name]) for name in names))
    return table


def faces(rows: Sequence[Mapping]) -> Table:
    """One line per detected face."""
    table = _table(
        f"{len(rows)} face{'s' * (len(rows) != 1)}", "image", "box", "points", "first point", "seconds"
    )
    for row in rows:
        box, first = (" ".join(f"{v:.0f}" for v in numbers) for numbers in (row["box"], row["points"][0]))
        table.add_row(row["image"], box, str(len(row["points"])), first, f"{row['seconds']:.3f}")
    return table
