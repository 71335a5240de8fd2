"""Progress bars on standard error, so that standard output stays data."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bar() -> Progress:
    """A bar for a task that has a field `remark`: description, share done, time left, remark."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)
