"""Pages of the book that are made from data: scoreboard, claims, ambiguities, status, recorded results of each paper."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from replicate.cli_tables import difference, number, told
from replicate.files import read_json
from replicate.paths import cache
from replicate.vocabulary import FACES, PAPERS, PROFILES
from replicate.workflow import Job

if TYPE_CHECKING:
    from replicate.evidence.ambiguities import Ambiguity
    from replicate.evidence.rows import Row

NAMES = {"lddr": "LDDR", "tcnn": "TCNN", "dan": "DAN", "rnn": "RNN", "ect": "ECT"}
BADGES = {
    **{"done": "success", "partial": "warning", "missing": "danger", "data absent": "muted"},
    **{
        "reproduced": "success",
        "direction holds": "info",
        "not reproduced": "danger",
        "inconclusive": "warning",
    },
    **{"not testable": "muted", "not run": "light", "not applicable": "light"},
}
OVERVIEW = "_overview"  # a part of the first page of each chapter, which includes it
SMOKE = "The numbers of a smoke run mean nothing: it only shows that every step works."


def text(value: object) -> str:
    """`value` as text that Markdown shows as it is, also inside a table."""
    words = "–" if value is None else str(value)
    return "".join(f"\\{c}" if c in "\\`*_$|<>[]{}#~" else c for c in words).replace("\n", " ")


def badge(word: str) -> str:
    """A state or verdict as a coloured badge."""
    return f"{{bdg-{BADGES[word]}}}`{word}`"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def link(key: str | None, words: str) -> str:
    """A link to the page of a notebook from a page at the top of the book."""
    return f"[{words}]({key.removeprefix('notebooks/')})" if key else "–"


def provenance(job: Job, status: Mapping | None) -> str:
    """The notice under a notebook's title: what ran, on what, when; or that nothing ran."""
    if status is None:
        return (
            f":::{{note}}\nThis notebook has not been run on this machine with profile `{job.profile}` and {job.faces} faces, so its "
            f"code stands here without results. `replicate run {job.notebook} --profile {job.profile} --faces {job.faces}` runs it; "
            "the numbers recorded earlier stand on the page of recorded results.\n:::"
        )
    line = (
        f"profile **{job.profile}** · **{job.faces}** faces · seed {job.seed} · {status['seconds']:.0f} s on "
        f"{text(status['device'])} · {status['finished_at'][:10]}"
    )
    if job.profile == "smoke":
        return f":::{{warning}}\n{SMOKE}\n\n{line}\n:::"
    return f"*{line}*"


def generate(jobs: Sequence[Job]) -> dict[str, str]:
    """Text of every generated page by its name."""
    from replicate import faces_pages
    from replicate.evidence import artefacts, claims, rows

    works = artefacts.as_json()
    statements = claims.as_json()
    numbers = rows.load()
    pages = {
        "scoreboard": scoreboard(works),
        "claims": claims_page(statements),
        "ambiguities": ambiguities_page(),
        "status": status_page(jobs, numbers),
    }
    pages |= faces_pages.generate()
    for paper in sorted({job.notebook.split("/")[0] for job in jobs} & set(PAPERS)):
        own = [c for c in statements if c["paper"] == paper]
        pages[f"{paper}/recorded"] = recorded_page(paper, rows.load(paper), own)
        pages[f"{paper}/{OVERVIEW}"] = overview(own)
    return pages


def scoreboard(works: Sequence[Mapping]) -> str:
    """All artefacts by paper with their states."""
    parts = [
        "# Scoreboard\n",
        f"The five papers hold {len(works)} tables, figures and statements. An artefact is {badge('done')} when its notebook makes what "
        "the paper shows, at the `cpu` profile or above, and the numbers or the figure are recorded.\n",
    ]
    states = list(dict.fromkeys(("done", "partial", "missing", "data absent", "not applicable")))
    counts = []
    for faces in ("synthetic", "real"):
        tally = Counter(w["state"][faces] for w in works)
        counts.append([f"{faces} faces", *(str(tally[state]) for state in states)])
    parts.append(table(["", *(badge(s) for s in states)], counts))
    for paper in PAPERS:
        own = [w for w in works if w["paper"] == paper]
        parts.append(f"## {NAMES[paper]}: {len(own)} artefacts\n")
        lines = [
            [
                text(w["id"]),
                text(w["title"]),
                badge(w["state"]["synthetic"]),
                badge(w["state"]["real"]),
                link(w["notebook"], "open"),
            ]
            for w in own
        ]
        parts.append(table(["id", "what it shows", "synthetic", "real", "notebook"], lines))
    return "\n".join(parts)


def claims_page(statements: Sequence[Mapping]) -> str:
    """All claims with their verdicts."""
    parts = [
        "# Claims\n",
        f"The papers make {len(statements)} claims that can be tested by a comparison; {sum(c['transferable'] for c in statements)} of them "
        "can be tested on any faces. What each verdict means stands in [](how_to_read.md).\n",
    ]
    for paper in PAPERS:
        own = [c for c in statements if c["paper"] == paper]
        parts.append(f"## {NAMES[paper]}: {len(own)} claims\n\n" + claims_table(own))
    return "\n".join(parts)


def overview(statements: Sequence[Mapping]) -> str:
    """What came out of a paper's claims at a glance: each with its verdict on each kind of faces; of several profiles, the largest counts."""
    lines = []
    for claim in statements:
        cells = [text(claim["id"].split("-")[1]), text(claim["statement"])]
        for faces in FACES:
            verdicts = [one for one in told(claim) if one.get("faces") == faces and one["profile"] != "smoke"]
            best = max(
                verdicts, key=lambda one: PROFILES.index(one["profile"]), default={"verdict": "not run"}
            )
            cells.append(badge(best["verdict"]))
        lines.append(cells)
    return (
        f"The paper makes {len(statements)} claims that a comparison can test. These are their verdicts, by the rules of "
        "[](../how_to_read.md); numbers, intervals and remarks stand on the page of [claims](../claims.md).\n\n"
        + table(["", "claim", *(f"{faces} faces" for faces in FACES)], lines)
    )


def claims_table(statements: Sequence[Mapping]) -> str:
    """One line per claim and verdict."""
    lines = []
    for claim in statements:
        remark = f" *{text(claim['note'])}*" if claim.get("note") else ""
        head = [text(claim["id"]), text(claim["statement"]) + remark]
        for verdict in told(claim):
            lines.append([*head, *_verdict_cells(verdict)])
            head = ["", ""]
    return table(["id", "claim", "verdict", "measured"], lines)


def _verdict_cells(verdict: Mapping) -> list[str]:
    """The verdict with its faces and profile; both sides, their difference [95 %], the margin of an equality, images and the note."""
    from replicate.evidence import claims
    from replicate.evidence.tables import measured

    word = badge(verdict["verdict"])
    if "faces" not in verdict:
        return [word, "–"]
    facts = (
        []
        if verdict["left"] is None
        else [measured(claims.get(verdict["claim"]), verdict["left"], verdict["right"])]
    )
    facts += [f"difference {difference(verdict)}"] if verdict["difference"] is not None else []
    margin = claims.get(verdict["claim"]).equality_margin(verdict["right"])
    facts += [f"margin ±{number(margin)}"] if margin is not None else []
    facts += [f"{verdict['images']:,} images"] if verdict["images"] else []
    facts += [verdict["note"]] if verdict["note"] else []
    return [f"{word} {text(verdict['faces'])}, {text(verdict['profile'])}", text("; ".join(facts) or None)]


def recorded_page(paper: str, numbers: Sequence["Row"], statements: Sequence[Mapping]) -> str:
    """Recorded results of one paper beside its published ones: real faces first, then synthetic."""
    parts = [
        f"# {NAMES[paper]}: recorded results\n",
        "Every number that has been recorded for this paper, with the faces and the profile it was measured on. The page is made from "
        "the recorded rows, so it is the same on a machine that has no real faces.\n",
    ]
    numbers = [row for row in numbers if row.profile != "smoke"]
    groups = sorted(
        {(r.faces, r.profile) for r in numbers}, key=lambda g: (g[0] != "real", -PROFILES.index(g[1]))
    )
    if not groups:
        parts.append("Nothing has been recorded yet.\n")
    for faces, profile in groups:
        own = [r for r in numbers if (r.faces, r.profile) == (faces, profile)]
        parts.append(f"## {faces.capitalize()} faces, profile {profile}\n")
        for artefact in dict.fromkeys(r.artefact for r in own):
            parts.append(
                f"### {text(artefact)}\n\n" + results_table([r for r in own if r.artefact == artefact])
            )
    judged = [c for c in statements if told(c)[0]["verdict"] != "not run"]
    if judged:
        parts.append("## Verdicts\n\n" + claims_table(judged))
    return "\n".join(parts)


def results_table(numbers: Sequence["Row"]) -> str:
    """Our numbers of one artefact beside the paper's, under a caption that says what they were measured on."""
    from replicate.evidence import captions, tables

    compared = tables.compare(numbers).drop(columns="verdict")
    lines = [[text(cell) for cell in line] for line in compared.to_numpy().tolist()]
    return f"*{text(captions.caption(numbers))}*\n\n" + table(list(compared.columns), lines)


def ambiguities_page() -> str:
    """Silences and contradictions of the papers and what is done about each."""
    from replicate.evidence import ambiguities

    parts = [
        "# Ambiguities\n",
        "Where a paper is silent, contradicts itself or differs from its official code, something has to be chosen. Each choice stands "
        "here. The paper's own line is the default; the code's way is an ablation where it matters.\n",
    ]
    header = ["id", "what is open", "readings", "choice and reason"]
    for paper in PAPERS:
        own = ambiguities.load(paper)
        if own:
            lines = [_ambiguity(entry) for entry in own]
            parts.append(f"## {NAMES[paper]}\n\n" + table(header, lines))
    return "\n".join(parts)


def _ambiguity(entry: "Ambiguity") -> list[str]:
    choice = f"**{text(entry.choice)}**"
    return [
        text(entry.id),
        f"{text(entry.where)}: {text(entry.silence)}",
        text(entry.options),
        f"{choice} {text(entry.reason)}",
    ]


def status_page(jobs: Sequence[Job], numbers: Sequence["Row"]) -> str:
    """Every run on this machine and every recorded edition: time, device, date."""
    parts = ["# Status\n", "## Runs on this machine\n"]
    lines = [line for job in jobs for line in _runs_of(job.notebook)]
    header = ["notebook", "profile", "faces", "seed", "result", "seconds", "device", "date", "commit"]
    parts.append(table(header, lines) if lines else "No notebook has been run on this machine.\n")
    parts.append("## Recorded editions\n")
    parts.append(editions_table(numbers) if numbers else "Nothing has been recorded yet.\n")
    return "\n".join(parts)


def _runs_of(notebook: str) -> list[list[str]]:
    lines = []
    for path in sorted((cache() / "notebooks").glob(f"*/*/*/{notebook}.*json")):
        run = read_json(path)
        result = {"done": "{bdg-success}`done`", "failed": "{bdg-danger}`failed`"}[run["exit"]]
        plain = [run["profile"], run["faces"], run["seed"]]
        tail = [f"{run['seconds']:.0f}", run["device"], run["finished_at"][:10], run["commit"]]
        lines.append([link(notebook + ".ipynb", notebook), *map(text, plain), result, *map(text, tail)])
    return lines


def editions_table(numbers: Sequence["Row"]) -> str:
    """One line per artefact, faces and profile of the recorded rows."""
    groups: dict[tuple, list] = {}
    for row in numbers:
        groups.setdefault((row.artefact, row.faces, row.profile), []).append(row)
    lines = []
    for key, rows in sorted(groups.items()):
        newest = max(rows, key=lambda row: row.recorded_at)
        seconds = max((row.seconds or 0 for row in rows), default=0)
        cells = [*key, len(rows), f"{seconds:,.0f}", newest.device, newest.recorded_at[:10], newest.commit]
        lines.append([text(cell) for cell in cells])
    header = ["artefact", "faces", "profile", "numbers", "seconds of training", "device", "date", "commit"]
    return table(header, lines)
