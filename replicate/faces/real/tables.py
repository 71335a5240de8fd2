"""Careful reading of comma-separated tables, for the data sets that are published as such."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from replicate.errors import ReplicateError
from replicate.faces.real.reading import inside, read_lines


def read_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line that is not blank, stripped, with the number of the line (from 1).

    Raises
    ------
    ReplicateError
        Naming the file, if it cannot be read as text, and the line, if its quotes are not balanced.
    """
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:  # line by line: an open quote must not swallow the lines after it
            (fields,) = csv.reader([line], strict=True)
        except (csv.Error, ValueError) as error:
            raise ReplicateError(
                f"{path}, line {number}: not a line of comma-separated fields ({error})"
            ) from error
        yield number, [field.strip() for field in fields]


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The named columns of a table whose first line is a header, in the order asked for; other columns are passed over.

    Raises
    ------
    ReplicateError
        As `read_csv`, and if the header lacks or repeats a column or a line has another number of fields than the header.
    """
    rows = read_csv(path)
    number, header = next(rows, (1, []))
    lacking = [column for column in columns if header.count(column) != 1]
    if lacking:
        raise ReplicateError(
            f"{path}, line {number}: the header must have each of {', '.join(columns)} once; check {', '.join(lacking)}"
        )
    places = [header.index(column) for column in columns]
    for number, fields in rows:
        if len(fields) != len(header):
            raise ReplicateError(f"{path}, line {number}: {len(fields)} fields, the header has {len(header)}")
        yield number, tuple(fields[place] for place in places)


def whole_number(path: Path, line_no: int, field: str, what: str, most: int = 2**31 - 1) -> int:
    """Parse a whole number from 0 to `most`, such as an identifier.

    Raises
    ------
    ReplicateError
        Naming file, line and what the number is for.
    """
    if not (field.isascii() and field.isdigit()) or len(field) > 10 or int(field) > most:
        raise ReplicateError(
            f"{path}, line {line_no}: {what}: got {field[:40]!r}, expected a whole number from 0 to {most}"
        )
    return int(field)


def is_present(folder: Path, relative: str, path: Path, line_no: int) -> bool:
    """Whether the file that a list names below `folder` is there, to count what a machine has.

    Raises
    ------
    ReplicateError
        As `inside`, for a path that no list should hold.
    """
    found = inside(folder, relative, path, line_no)
    try:
        return found.is_file()
    except OSError:  # a name too long for the disk
        return False
