"""The ``replicate`` command.

Results go to standard output, as JSON or as tables; progress and messages go to standard error. Exit status: 0 done, 1 work failed,
2 wrong usage.
"""

import os
import sys
import time
from typing import Annotated

import typer
import yaml
from rich.text import Text

from replicate import cli_faces
from replicate import cli_tables as tables
from replicate.cli_common import AsJson, Faces, Profile, console, show, wrong_usage
from replicate.errors import ReplicateError
from replicate.vocabulary import FACES, PAPERS, PROFILES, check_one_of

app = typer.Typer(
    help="Five facial-landmark papers, replicated: run the notebooks, look at results, use the models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(cli_faces.data, name="data")
app.add_typer(cli_faces.models, name="models")
app.add_typer(cli_faces.detection)


Papers = Annotated[
    list[str] | None, typer.Argument(metavar="PAPER", help=f"Only of {', '.join(PAPERS)}; none: of all.")
]


@app.command()
def artefacts(papers: Papers = None, as_json: AsJson = False) -> None:
    """List every table, figure and statement of the five papers and how far it is replicated."""
    from replicate.evidence import artefacts as ledger

    show(_of(papers, ledger.as_json()), as_json, tables.artefacts)


@app.command()
def results(papers: Papers = None, as_json: AsJson = False) -> None:
    """List every recorded number with its interval and provenance."""
    from replicate.evidence import rows

    show(_of(papers, rows.as_json(), "artefact"), as_json, tables.results)


@app.command()
def claims(papers: Papers = None, as_json: AsJson = False) -> None:
    """List the papers' claims and the verdicts on them."""
    from replicate.evidence import claims as ledger

    show(_of(papers, ledger.as_json()), as_json, tables.claims)


def _of(papers: list[str] | None, listed: list[dict], name: str = "id") -> list[dict]:
    """What is listed of some papers, by the beginning of the identifiers in the field `name`."""
    with wrong_usage():
        wanted = [check_one_of("paper", paper, PAPERS).upper() + "-" for paper in papers or ()]
    return [one for one in listed if not wanted or one[name].startswith(tuple(wanted))]


@app.command()
def run(
    selectors: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SELECTOR]...",
            help="Chapter (a paper or faces), artefact or notebook; none: all notebooks.",
        ),
    ] = None,
    profile: Profile = "cpu",
    faces: Faces = "synthetic",
    seed: Annotated[list[int], typer.Option(help="Random seed; give it again for more.")] = [0],  # noqa: B006
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A parameter of the notebook."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks run at the same time.")] = 1,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run everything and train every model again.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run and why.")] = False,
    serial: Annotated[bool, typer.Option("--serial", help="One after another, without Snakemake.")] = False,
    cluster: Annotated[
        str, typer.Option(help="Where Snakemake runs: a folder of workflow/profiles.")
    ] = "local",
) -> None:
    """Run notebooks; only those that never ran or whose notebook, code or data changed."""
    from replicate import workflow
    from replicate.store import FRESH_SINCE

    with wrong_usage():
        asked = workflow.jobs(selectors or [], profile, faces, seed, parse_parameters(parameter or []))
    reasons = workflow.plan(asked, fresh=fresh)
    console.print(tables.plan(reasons))
    stale = [job for job, reason in reasons.items() if reason]
    if dry_run or not stale:
        return
    if fresh:
        os.environ[FRESH_SINCE] = str(time.time())  # the notebooks' processes inherit it
    if serial:
        succeeded = workflow.run_serially(stale, fresh=fresh)
    else:
        succeeded = workflow.run_with_snakemake(stale, parallel=jobs, fresh=fresh, cluster=cluster)
    if not succeeded:
        raise ReplicateError("a notebook failed; the messages above say which and why.")


def parse_parameters(pairs: list[str]) -> dict[str, object]:
    """Values by name from ``name=value`` words; values are read as YAML, so ``3``, ``true`` and ``[1, 2]`` work."""
    for pair in pairs:
        if "=" not in pair:
            raise ReplicateError(f"--parameter: got {pair!r}, expected NAME=VALUE.")
    return {name: yaml.safe_load(value) for name, value in (pair.split("=", 1) for pair in pairs)}


@app.command()
def book(
    profile: Profile = "cpu",
    faces: Faces = "synthetic",
    serve: Annotated[
        int | None, typer.Option(metavar="PORT", help="Show the built book on this port instead.")
    ] = None,
) -> None:
    """Build the book from executed notebooks and recorded results."""
    from replicate import book as builder

    with wrong_usage():
        check_one_of("profile", profile, PROFILES)
        check_one_of("faces", faces, FACES)
    if serve is not None:
        builder.serve(serve)
        return
    console.print(f"The book: {builder.build(profile, faces)}")


@app.command()
def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Benchmarks; none: all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure speed against the naive form and against what this machine can do at most."""
    from replicate import bench as benchmarks

    with wrong_usage():
        chosen = benchmarks.select(names or [])
    measured = []
    for name in chosen:
        console.print(f"measuring {name} …")
        measured.append(benchmarks.measure(name))
    show(measured, as_json, tables.bench)


def main() -> None:
    """Run the command; an error the user can mend is one line and exit status 1, without a traceback."""
    try:
        app()
    except ReplicateError as error:
        console.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
