"""What the adapters of all real data sets share: their results, and careful reading of lists, numbers and paths.

An adapter parses annotations only. Images stay undecoded behind `Annotations.pixels`, so that a split of twenty thousand faces opens
in the time its lists take to read. Whatever a file holds, an adapter returns `Annotations` or raises `ReplicateError`.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from replicate.errors import AbsentError, ReplicateError
from replicate.faces.images import LARGEST_SIDE, read_image

LARGEST_NUMBER = 1e6  # pixels or labels; beyond it a file is damaged, and float32 loses the fraction
_BYTE_ORDER_MARK = "\ufeff"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Part:
    """What a machine has of one part of a data set.

    Attributes
    ----------
    name : str
        The part, as the data set's splits or folders name it.
    expected, found : int
        Faces of the official release, and faces here with annotation and image.
    state : str
        `complete`, `incomplete`, `absent` or `damaged: <what>`.
    """

    name: str
    expected: int
    found: int
    state: str

    @classmethod
    def counted(cls, name: str, expected: int, count: Callable[[], int]) -> "Part":
        """Judge a part by `count()`; the error that counting raises says what is damaged."""
        try:
            found = count()
        except (ReplicateError, OSError) as error:  # OSError: a folder that may not be looked into
            return cls(name, expected, 0, f"damaged: {error}")
        if found > expected:
            return cls(name, expected, found, f"damaged: {found} faces, the official release has {expected}")
        state = "absent" if found == 0 else "complete" if found == expected else "incomplete"
        return cls(name, expected, found, state)


@dataclass(frozen=True, eq=False)
class Annotations:
    """The annotated faces of one split; pixels are decoded on demand.

    Coordinates are (x, y) in pixels of each image, 0-based, the centre of the top-left pixel at (0, 0).

    Attributes
    ----------
    names : tuple of str
        Unique name of each face within the data set. Where a photograph may hold several, `<photograph>#<which>`.
    pixels : callable
        `pixels(i)` decodes the image of face i: uint8, (H, W) grey or (H, W, 3) RGB. Safe to call from several threads.
    points : array
        (N, L, 2) float32; NaN where a point is not annotated.
    visible : array
        (N, L) bool; False where a point is annotated as hidden, or not at all.
    boxes : array or None
        (N, 4) float32 published boxes (x_min, y_min, x_max, y_max); None: the protocol's box rule simulates them.
    attributes : dict of str to array
        (N,) per attribute, as published unless the adapter says otherwise.
    identity : array or None
        (N,) integers: the person in each image.
    files : tuple of Path
        Every file that was or will be read, annotations and images, so that a store can tell when one has changed.
    """

    names: tuple[str, ...]
    pixels: Callable[[int], np.ndarray]
    points: np.ndarray
    visible: np.ndarray
    boxes: np.ndarray | None = None
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    identity: np.ndarray | None = None
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __post_init__(self) -> None:
        count = len(self.names)
        if len(set(self.names)) != count:
            raise ReplicateError(
                f"Annotations: {len(set(self.names))} different names for {count} faces, expected {count}"
            )
        for name in self.names:
            if any(
                "\ud800" <= letter <= "\udfff" for letter in name
            ):  # bytes of a file name that are no text
                raise ReplicateError(f"Annotations: the name {name!r} is not UTF-8 text; rename the file")
        landmarks = self.points.shape[1] if self.points.ndim == 3 else "L"
        expected = {"points": (count, landmarks, 2), "visible": (count, landmarks)}
        arrays = {"points": self.points, "visible": self.visible}
        for key, values in self.attributes.items():
            arrays[f"attributes[{key!r}]"], expected[f"attributes[{key!r}]"] = values, (count,)
        if self.boxes is not None:
            arrays["boxes"], expected["boxes"] = self.boxes, (count, 4)
        if self.identity is not None:
            arrays["identity"], expected["identity"] = self.identity, (count,)
        for key, array in arrays.items():
            if array.shape != expected[key]:
                raise ReplicateError(
                    f"Annotations.{key}: got shape {array.shape}, expected {expected[key]} for {count} names"
                )


@dataclass(frozen=True)
class DataSet:
    """One published data set: where it comes from and how it is read.

    Attributes
    ----------
    name : str
        Key in `replicate.faces.real.DATA_SETS`.
    folder : str
        Its folder below `$REPLICATE_DATA`.
    title, url, terms, cite : str
        For people: full name, where it is obtained, under which terms, and what to cite.
    splits : dict of str to int
        Splits that `read` takes, with the number of faces of the official release.
    check : callable
        `check(folder)` lists the parts that this machine has; never raises for what it finds there.
    read : callable
        `read(folder, split)` returns `Annotations`; raises `ReplicateError` that names the file and the line.
    """

    name: str
    folder: str
    title: str
    url: str
    terms: str
    cite: str
    splits: dict[str, int]
    check: Callable[[Path], list[Part]]
    read: Callable[[Path, str], Annotations]


def read_lines(path: Path) -> list[str]:
    """Read a text file as UTF-8; a byte-order mark is dropped, and lines end with LF, CRLF or CR.

    Returns
    -------
    list of str
        Line n of the file at index n - 1; no line ends with its newline.

    Raises
    ------
    ReplicateError
        Naming the file, if it is absent, cannot be read or is no text in UTF-8 (then with the line).
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReplicateError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ReplicateError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8 text; save the file as UTF-8 or restore it"
        ) from error
    text = text.removeprefix(_BYTE_ORDER_MARK).replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")  # not splitlines: that also splits at U+2028 and others, which names may hold
    return lines[:-1] if lines[-1] == "" else lines


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line that is not blank, split at white space, with the number of the line (from 1).

    Raises
    ------
    ReplicateError
        As `read_lines`.
    """
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split()
        if fields:
            yield number, fields


def numbers(path: Path, line_no: int, fields: Sequence[str], count: int, finite: bool = True) -> list[float]:
    """Parse exactly `count` numbers of one line.

    Parameters
    ----------
    path, line_no
        Where the fields come from, for the message.
    fields : sequence of str
    count : int
        How many there must be.
    finite : bool
        Refuse NaN and infinities; otherwise NaN passes (a point that is not annotated).

    Raises
    ------
    ReplicateError
        Naming file and line, for another count, what is no number, and values beyond `LARGEST_NUMBER`.
    """
    try:
        values = [float(field) for field in fields]
    except ValueError:
        values = []
    if len(values) != count:
        problem = f"{count} numbers"
    elif finite and not all(map(math.isfinite, values)):
        problem = "finite numbers"
    elif any(abs(value) > LARGEST_NUMBER for value in values):
        problem = f"numbers of at most {LARGEST_NUMBER:.0f}"
    elif any("_" in field for field in fields):  # Python reads 1_000 as a number, nobody else does
        problem = f"{count} numbers"
    else:
        return values
    raise ReplicateError(f"{path}, line {line_no}: got {_shortened(' '.join(fields))}, expected {problem}")


def inside(folder: Path, relative: str, path: Path, line_no: int) -> Path:
    """The path that a list names below `folder`; backslashes separate folders too.

    Parameters
    ----------
    folder : Path
        Everything the list names must lie below it.
    relative : str
        As the list has it.
    path, line_no
        The list and the line, for the message.

    Raises
    ------
    ReplicateError
        Naming list and line, for an empty or absolute path, `..`, control characters, and links that leave the folder.
    """
    where, got = f"{path}, line {line_no}", _shortened(relative)
    name = relative.replace("\\", "/")
    if not name or _CONTROL.search(name):
        raise ReplicateError(f"{where}: got {got}, expected the path of an image below {folder}")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or _DRIVE.match(name) or ".." in parts:
        raise ReplicateError(
            f"{where}: got {got}, expected a path below {folder}, neither absolute nor with '..'"
        )
    found = Path(folder, *parts)
    if _leaves(folder, parts):
        raise ReplicateError(
            f"{where}: {found} leaves {folder} by a link; copy the file there, or make the whole folder a link"
        )
    return found


def _leaves(folder: Path, parts: Sequence[str]) -> bool:
    """Whether a link on the way from `folder` leads out of it; nothing is resolved where there is none, which is fast."""
    steps = [os.path.join(folder, *parts[:end]) for end in range(1, len(parts) + 1)]
    if not any(map(os.path.islink, steps)):
        return False
    try:
        return not Path(steps[-1]).resolve().is_relative_to(Path(folder).resolve())
    except (OSError, RuntimeError):  # a loop of links
        return True


def listed_file(folder: Path, relative: str, path: Path, line_no: int) -> Path:
    """Like `inside`, for a file that must exist; the error of a missing one names the line that asks for it."""
    found = inside(folder, relative, path, line_no)
    if not _is_file(found):
        raise ReplicateError(
            f"{path}, line {line_no}: {found} is not there; restore the image, or remove the line to work without it"
        )
    return found


def require_listed(path: Path, files: Sequence[tuple[int, Path]]) -> None:
    """Refuse a list that names absent files.

    Parameters
    ----------
    path : Path
        The list.
    files : sequence of (int, Path)
        Number of the line and the file that it names.

    Raises
    ------
    ReplicateError
        Naming the list, the first such line and how many there are.
    """
    absent = [(number, file) for number, file in files if not _is_file(file)]
    if absent:
        number, file = absent[0]
        raise ReplicateError(
            f"{path}, line {number}: {file} is not there ({len(absent)} of {len(files)} listed files are absent); "
            "restore the images, or remove the lines to work without them"
        )


def count_present(paths: Iterable[Path]) -> int:
    """How many of the paths are files."""
    return sum(_is_file(path) for path in paths)


def refuse_duplicates(path: Path, names: Iterable[tuple[int, str]]) -> None:
    """Refuse a list that names one thing twice.

    Parameters
    ----------
    path : Path
        The list.
    names : iterable of (int, str)
        Number of the line and the name on it.

    Raises
    ------
    ReplicateError
        Naming the list and both lines.
    """
    first: dict[str, int] = {}
    for number, name in names:
        if name in first:
            raise ReplicateError(
                f"{path}, line {number}: {_shortened(name)} stands on line {first[name]} already; remove one of the two"
            )
        first[name] = number


def refuse_surplus(path: Path, found: int, expected: int, what: str = "faces") -> None:
    """Refuse more than the official release has: two releases were mixed, or the file is another one."""
    if found > expected:
        raise ReplicateError(
            f"{path}: {found} {what}, the official release has {expected}; restore the official file"
        )


def require(path: Path, what: str) -> Path:
    """`path`, which must be a file; otherwise an `AbsentError` that says which data set it belongs to and what to do."""
    if not _is_file(path):
        raise AbsentError(
            f"{what}: {path} is not there. Set REPLICATE_DATA to the folder that holds the data set, or see `replicate data check`."
        )
    return path


def image_reader(paths: Sequence[Path]) -> Callable[[int], np.ndarray]:
    """`Annotations.pixels` for one image file per face."""
    paths = tuple(paths)
    return lambda index: read_image(paths[index])


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file in pixels, from its header alone: nothing is decoded.

    Raises
    ------
    ReplicateError
        Naming the file, if it cannot be read, has no header of an image, or is absurdly large.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ReplicateError(
            f"image {path}: not a readable image ({error}); restore it from its source"
        ) from error
    if max(width, height) > LARGEST_SIDE:
        raise ReplicateError(f"image {path}: {width}x{height} pixels, expected at most {LARGEST_SIDE} a side")
    return width, height


def photographs(names: Sequence[str]) -> list[list[int]]:
    """Which faces share a photograph, by `Annotations.names`: the numbers of its faces for each photograph, in order of appearance."""
    found: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        photograph, _, which = name.rpartition("#")
        found.setdefault(photograph if which.isdecimal() else name, []).append(number)
    return list(found.values())


def check_points_belong(name: Path | str, size: tuple[int, int], points: np.ndarray) -> None:
    """Refuse points that cannot belong to their image.

    Annotators place hidden points a little outside the frame; half a face outside means another image's points.

    Parameters
    ----------
    name : Path or str
        The face or its file, for the message.
    size : (int, int)
        Width and height of the image in pixels.
    points : array
        (L, 2), 0-based; NaN where not annotated. Without any annotated point there is nothing to check.

    Raises
    ------
    ReplicateError
        If a point lies further outside the image than half the mean side of the face, or all points coincide.
    """
    points = np.asarray(points)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return
    size = np.asarray(size)
    # one point alone has no extent to compare with; the face is then no larger than the image
    extent = np.ptp(points, axis=0) if len(points) > 1 else size
    slack = extent.mean() / 2
    if slack == 0 or (points < -slack).any() or (points > size - 1 + slack).any():
        low, high = points.min(0), points.max(0)
        raise ReplicateError(
            f"{name}: the points span x {low[0]:.0f} to {high[0]:.0f} and y {low[1]:.0f} to {high[1]:.0f}, "
            f"expected them within the {size[0]}x{size[1]} image; the annotation may belong to another image"
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the disk
        return False


def _shortened(text: str, length: int = 120) -> str:
    return repr(text if len(text) <= length else text[:length] + "…")
