"""A check of Matlab files of version 5 to 7.2, before scipy reads them.

scipy's reader trusts the types and dimensions that a file states, and a damaged file can end the whole process. The variables that pass
this check are numbers, text, or cells and structures of these, with known types and as many values as their dimensions say.

A file is 128 bytes of header and a list of elements; an element is a tag (type and size, 8 bytes, or a small element of at most four
bytes inside the tag), its data, and padding to 8 bytes. A matrix is an element that holds elements: flags, dimensions, name, data.
Compressed elements hold one element, deflated. (MathWorks, MAT-File Format, level 5.)
"""

import zlib
from collections.abc import Collection, Iterator
from math import prod
from pathlib import Path

import numpy as np

from replicate.errors import ReplicateError

HEADER = 128  # bytes
NAMES, DIMENSIONS, MATRIX, COMPRESSED = (
    1,
    5,
    14,
    15,
)  # types of elements; whole numbers are of the type of dimensions
BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # of one number of each type
TEXT = BYTES.keys() | {16, 17, 18}  # UTF-8, -16, -32
CELL, STRUCTURE, CHARACTERS, NUMERIC = 1, 2, 4, range(6, 16)  # classes of matrices; double to uint64
COMPLEX = 0x0800
DEEPEST = 20  # matrices within matrices

Element = tuple[int, int, int, int]  # its byte in the file, its type, first byte and end of its data


class _DamagedError(ValueError):
    """What is wrong, without the file's name."""


def check_mat5(path: Path, names: Collection[str]) -> None:
    """Refuse a file whose variables `names` are damaged, or are neither numbers nor text nor cells nor structures.

    Other variables are not looked into, and files of version 4 pass: scipy reads those safely.

    Raises
    ------
    ReplicateError
        Naming the file, and the byte of the element at fault.
    """
    try:
        data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    except (OSError, ValueError) as error:
        raise ReplicateError(f"{path}: cannot be read ({error})") from error
    if 0 in data[:4]:  # version 4, which starts with a small number
        return
    order = "<" if bytes(data[126:HEADER]) == b"IM" else ">"
    try:
        for element in _elements(data, HEADER, len(data), order):
            _check_variable(data, element, order, names)
    except _DamagedError as error:
        raise ReplicateError(f"{path}: damaged Matlab file: {error}; restore it from its source") from error


def _elements(data: np.ndarray, start: int, stop: int, order: str) -> Iterator[Element]:
    """The elements between two bytes."""
    while start < stop:
        if stop - start < 8:
            raise _DamagedError(f"{stop - start} bytes are left at byte {start}, expected an element")
        kind, size = (int(word) for word in data[start : start + 8].view(f"{order}u4"))
        small = kind >> 16
        first = start + 4 if small else start + 8
        size, kind = (small, kind & 0xFFFF) if small else (size, kind)
        if size > (4 if small else stop - first):
            raise _DamagedError(f"the element at byte {start} has {size} bytes, more than there are")
        yield start, kind, first, first + size
        padding = 0 if kind == COMPRESSED else -size % 8
        start = start + 8 if small else first + size + padding


def _check_variable(data: np.ndarray, element: Element, order: str, names: Collection[str]) -> None:
    at, kind, start, stop = element
    if kind == COMPRESSED:
        try:
            data = np.frombuffer(zlib.decompress(data[start:stop].tobytes()), np.uint8)
        except zlib.error as error:
            raise _DamagedError(f"the compressed element at byte {at} cannot be opened ({error})") from error
        _, kind, start, stop = next(_elements(data, 0, len(data), order), (at, 0, 0, 0))
    if kind != MATRIX:
        raise _DamagedError(f"type {kind} at byte {at}, expected a matrix")
    parts = list(_elements(data, start, stop, order))
    # without a sound head, scipy may find one of the names where none stands here
    if not _has_head(parts) or bytes(data[parts[2][2] : parts[2][3]]).decode("latin1") in names:
        _check_matrix(data, parts, order, at, DEEPEST)


def _has_head(parts: list[Element]) -> bool:
    """Whether the parts of a matrix begin with flags, dimensions and a name."""
    if len(parts) < 3:
        return False
    (_, _, first, stop), (_, kind, _, _) = parts[:2]
    return stop - first == 8 and kind == DIMENSIONS


def _check_matrix(data: np.ndarray, parts: list[Element], order: str, at: int, depth: int) -> None:
    """Check the parts of one matrix and of those in its cells or fields; `at` is where in the file to look."""
    where = f"the matrix at byte {at}"
    if not _has_head(parts):
        raise _DamagedError(f"{where} has no flags, dimensions and name")
    flags = int(data[parts[0][2] : parts[0][2] + 4].view(f"{order}u4")[0])
    stated = data[parts[1][2] : parts[1][3]]
    if len(stated) < 8 or len(stated) % 4:
        raise _DamagedError(f"{where} has {len(stated)} bytes of dimensions")
    dimensions = stated.view(f"{order}i4").tolist()
    count, values = prod(dimensions), parts[3:]
    kinds, sizes = [kind for _, kind, _, _ in values], [end - first for _, _, first, end in values]
    matlab_class = flags & 0xFF
    if matlab_class == STRUCTURE:
        count *= _count_fields(data, values[:2], order)
        values, kinds, sizes = values[2:], kinds[2:], sizes[2:]
    if matlab_class in NUMERIC:
        sound = len(values) == (2 if flags & COMPLEX else 1) and all(
            BYTES.get(kind, 0) * count == size for kind, size in zip(kinds, sizes, strict=True)
        )
        sound = sound and BYTES.keys() >= set(kinds)
    elif matlab_class == CHARACTERS:
        sound = len(values) == 1 and kinds[0] in TEXT and count <= sizes[0]
    else:
        nested = matlab_class in (CELL, STRUCTURE) and depth > 0
        sound = nested and len(values) == count and set(kinds) <= {MATRIX}
    if not sound or min(dimensions) < 0:
        raise _DamagedError(
            f"{where} is of class {matlab_class} with dimensions {dimensions[:4]} and elements of type {kinds[:4]} with {sizes[:4]} "
            "bytes, expected numbers, text, cells or fields of that many values"
        )
    if matlab_class in (CELL, STRUCTURE):
        for inner, _, first, end in values:
            if end > first:  # else empty
                _check_matrix(data, list(_elements(data, first, end, order)), order, inner, depth - 1)


def _count_fields(data: np.ndarray, elements: list[Element], order: str) -> int:
    """How many fields the two elements after a structure's name say there are: the length of a field's name, and the names."""
    if [kind for _, kind, _, _ in elements] != [DIMENSIONS, NAMES]:
        raise _DamagedError("a structure without the names of its fields")
    (at, _, first, end), (_, _, names, stop) = elements
    length = int(data[first:end].view(f"{order}i4")[0]) if end - first == 4 else 0
    if length < 1 or (stop - names) % length:
        raise _DamagedError(
            f"the fields of the structure at byte {at} have names of {length} bytes, {stop - names} in all"
        )
    fields = [bytes(data[place : place + length]).partition(b"\0")[0] for place in range(names, stop, length)]
    named = all(field.isascii() and field.decode("ascii").isidentifier() for field in fields)
    if not named or len(set(fields)) < len(fields):
        raise _DamagedError(
            f"the fields of the structure at byte {at} are called {fields[:4]}, expected different names"
        )
    return len(fields)
