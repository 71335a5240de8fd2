"""What the parts of the ``replicate`` command share."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console, RenderableType

from replicate.errors import ReplicateError
from replicate.vocabulary import FACES, PROFILES

console = Console(stderr=True)  # for people; standard output belongs to results

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]
Profile = Annotated[str, typer.Option(help=f"How much work: {', '.join(PROFILES)}.")]
Faces = Annotated[str, typer.Option(help=f"Where the faces come from: {', '.join(FACES)}.")]


@contextmanager
def wrong_usage() -> Iterator[None]:
    """Report a ReplicateError about the arguments as wrong usage (exit status 2)."""
    try:
        yield
    except ReplicateError as error:
        raise typer.BadParameter(str(error)) from error


def show(rows: Sequence[dict], as_json: bool, table: Callable[[Sequence[dict]], RenderableType]) -> None:
    """Print `rows` to standard output as JSON, or through `table`."""
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        Console().print(table(rows))
