"""Notebooks: where they are, what they depend on, and running one so that its output is complete or absent.

``python -m replicate.notebooks NOTEBOOK OUTPUT -p NAME VALUE ...`` is papermill with four additions: an unknown parameter is
an error, the output appears only when the run has succeeded, two runs of the same output wait for each other, and a
status file beside the output says what ran, on what, for how long.
"""

import ast
import os
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from filelock import FileLock

from replicate.errors import ReplicateError
from replicate.files import read_json, sha256, write_json
from replicate.paths import data_dir, published_dir, root
from replicate.provenance import commit
from replicate.vocabulary import FACES, PAPERS, PROFILES, check_one_of

CHAPTERS = ("faces", *PAPERS)  # folders of notebooks: the data card, and one for each paper
REQUIRED = ("profile", "faces", "seed", "device")  # every notebook's parameters cell defines at least these


def folder() -> Path:
    """The folder that holds one folder of notebooks per chapter."""
    return root() / "notebooks"


def find() -> dict[str, Path]:
    """All notebooks by their key, such as ``dan/s43_stages``, in the order of the papers' sections."""
    paths = (p for p in folder().glob("*/*.ipynb") if not p.name.startswith("."))
    return {f"{p.parent.name}/{p.stem}": p for p in sorted(paths, key=section_order)}


def section_order(path: Path) -> tuple[str, tuple[int, ...], str]:
    """Sort key that puts ``s3_method`` before ``s31_network`` before ``s43_stages``."""
    digits = "".join(c for c in path.stem.split("_")[0] if c.isdigit())
    return path.parent.name, tuple(map(int, digits)), path.stem


def read(path: Path) -> nbformat.NotebookNode:
    """Read a notebook.

    Raises
    ------
    ReplicateError
        If the file is missing or is not a notebook.
    """
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError as error:
        raise ReplicateError(
            f"notebook {path} does not exist. `replicate run --dry-run` lists the notebooks."
        ) from error
    except Exception as error:  # nbformat raises its own and json's exceptions for a damaged file
        raise ReplicateError(f"{path} is not a Jupyter notebook: {error}") from error


def default_parameters(notebook: nbformat.NotebookNode, path: Path) -> dict[str, object]:
    """Names and default values assigned in the cell tagged ``parameters``.

    Raises
    ------
    ReplicateError
        If there is no such cell, or it does anything but assign literals to names.
    """
    cells = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ReplicateError(f"{path} has {len(cells)} cells tagged `parameters`, expected exactly one.")
    values: dict[str, object] = {}
    for line in ast.parse(cells[0].source).body:
        target = line.targets[0] if isinstance(line, ast.Assign) and len(line.targets) == 1 else None
        if not isinstance(target, ast.Name):
            raise ReplicateError(
                f"{path}: the parameters cell may only assign values to names, found `{ast.unparse(line)}`."
            )
        values[target.id] = ast.literal_eval(line.value)
    return values


def check_parameters(path: Path, given: Mapping[str, object]) -> dict[str, object]:
    """Merge `given` into the notebook's defaults; papermill itself would only warn of an unknown name.

    Raises
    ------
    ReplicateError
        For an unknown name, a value of another kind than the default, or one outside the vocabulary, naming the valid ones.
    """
    defaults = default_parameters(read(path), path)
    for name, value in given.items():
        check_one_of(f"parameter of {path.name}", name, defaults)
        _check_kind(name, value, defaults[name])
    merged = {**defaults, **given}
    check_one_of("profile", str(merged.get("profile", "smoke")), PROFILES)
    check_one_of("faces", str(merged.get("faces", "synthetic")), FACES)
    return merged


def _check_kind(name: str, value: object, default: object) -> None:
    """Refuse a value that is not of its default's kind; a default of None takes any."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    like = {float: (int, float)}.get(type(default), type(default))
    mistaken = isinstance(value, bool) and not isinstance(default, bool)  # to Python, a bool is an int
    if default is not None and (mistaken or not isinstance(value, like)):
        raise ReplicateError(
            f"parameter {name}: got {value!r}, expected {kinds.get(type(default), type(default).__name__)}, such as {default!r}"
        )


def inputs(path: Path) -> list[Path]:
    """Files whose content decides the output: the notebook, the library modules it reaches, the published values."""
    source = "\n".join(c.source for c in read(path).cells if c.cell_type == "code")
    published = sorted(p for p in published_dir().rglob("*") if p.is_file())
    return [path, *library_files(source), *published]


def library_files(source: str) -> list[Path]:
    """Files of this library that `source` imports, directly or through other modules of the library."""
    waiting, seen = imported_names(source), set()
    files: set[Path] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for file in module_files(name) - files:
            files.add(file)
            package = ".".join(file.relative_to(root()).parent.parts)
            waiting |= imported_names(file.read_text(encoding="utf-8"), package)
    return sorted(files)


def imported_names(source: str, package: str = "") -> set[str]:
    """Dotted names under ``replicate`` that `source`, a module of `package`, may import; IPython's magic lines are skipped."""
    python = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    names = set()
    for node in ast.walk(ast.parse(python)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.split(".")[0] == "replicate"}


def module_files(name: str) -> set[Path]:
    """Source files that importing `name` executes: its own and those of the packages around it."""
    parts = name.split(".")
    files = set()
    for depth in range(1, len(parts) + 1):
        base = root().joinpath(*parts[:depth])
        files |= {f for f in (base / "__init__.py", base.with_suffix(".py")) if f.is_file()}
    return files


def digests(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 by path relative to the checkout; of a notebook, only its cells' text counts, not outputs."""
    result = {}
    for file in files:
        if file.suffix == ".ipynb":
            digest = sha256(*(f"{c.cell_type}:{c.source}" for c in read(file).cells))
        else:
            digest = sha256(file.read_bytes())
        result[os.path.relpath(file, root())] = digest
    return result


def input_digests(path: Path, faces: str) -> dict[str, str]:
    """Digests of all that decides the output of a notebook, by name."""
    own = digests(inputs(path))
    return own | {"the real faces": faces_fingerprint()} if faces == "real" else own


def faces_fingerprint() -> str:
    """A value that changes when a file of the real faces appears, vanishes, grows or shrinks.

    Raises
    ------
    ReplicateError
        If there are no real faces on this machine.
    """
    if not data_dir().is_dir():
        raise ReplicateError(
            f"faces='real' needs real faces, and {data_dir()} is not a folder. "
            "Set REPLICATE_DATA to the folder that holds the data sets; `replicate data check` says what belongs there."
        )
    files = sorted(
        (os.path.relpath(p, data_dir()), p.stat().st_size) for p in data_dir().rglob("*") if p.is_file()
    )
    return sha256(*(f"{name}:{size}" for name, size in files))


def status_path(output: Path) -> Path:
    """The status file beside an executed notebook."""
    return output.with_suffix(".json")


def failed_path(output: Path) -> Path:
    """Where a run that failed leaves its notebook, with the error in the cell that raised it."""
    return output.with_suffix(".failed.ipynb")


def execute(path: Path, output: Path, parameters: Mapping[str, object], *, fresh: bool = False) -> dict:
    """Run a notebook; on success `output` and its status file are replaced, otherwise they stay as they were.

    Parameters
    ----------
    path, output : Path
        The notebook and where its executed copy goes.
    parameters : mapping
        Values for names of the parameters cell.
    fresh : bool
        Tell a notebook that has a parameter `fresh` to train its models again.

    Returns
    -------
    dict
        The status that was written: notebook, parameters, device, exit, seconds, dates, commit and input digests.

    Raises
    ------
    ReplicateError
        For an unknown parameter, an unwritable folder, or a cell that raised; the failed notebook is kept beside `output`.
    """
    values = check_parameters(path, parameters)
    if fresh and "fresh" in values:
        values["fresh"] = True
    folder_to_write(output.parent)
    with FileLock(output.with_suffix(".lock")):
        return _execute_locked(path, output, values)


def folder_to_write(folder: Path) -> Path:
    """Make `folder` in the cache.

    Raises
    ------
    ReplicateError
        If it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        raise ReplicateError(
            f"cannot write {folder}: {error}. Set REPLICATE_CACHE to a folder you may write."
        ) from error
    return folder


def _execute_locked(path: Path, output: Path, values: Mapping[str, object]) -> dict:
    partial = output.with_name(
        f".{output.stem}.partial.ipynb"
    )  # a leftover of a killed run is simply overwritten
    status = _describe(path, values)
    began = time.monotonic()
    error = _papermill(path, partial, values)
    status |= {"seconds": round(time.monotonic() - began, 2), "finished_at": _now()}
    if error is not None:
        partial.replace(failed_path(output))
        write_json(failed_path(output).with_suffix(".json"), status | {"exit": "failed", "error": error})
        raise ReplicateError(f"{path} failed: {error}. The notebook as far as it ran: {failed_path(output)}")
    partial.replace(output)
    write_json(status_path(output), status | {"exit": "done", "error": None})
    for leftover in (failed_path(output), failed_path(output).with_suffix(".json")):
        leftover.unlink(missing_ok=True)
    return read_json(status_path(output))


def _papermill(path: Path, partial: Path, values: Mapping[str, object]) -> str | None:
    """Run papermill; return what went wrong in one line, or None."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel of this environment, not one in the user's home
    try:
        papermill.execute_notebook(
            path,
            partial,
            parameters=dict(values),
            cwd=root(),
            kernel_name="python3",
            stderr_file=sys.stderr,
            extra_arguments=["--log-level=ERROR"],
        )
    except PapermillExecutionError as error:
        return f"cell {error.exec_count}: {error.ename}: {error.evalue}"
    except DeadKernelError:
        return "the kernel died (out of memory, or killed)"
    return None


def _describe(path: Path, values: Mapping[str, object]) -> dict:
    from replicate.devices import choose_device, describe_device  # imports torch

    return {
        "notebook": os.path.relpath(path, root()),
        "paper": path.parent.name,
        "profile": values.get("profile"),
        "faces": values.get("faces"),
        "seed": values.get("seed"),
        "parameters": dict(values),
        "device": describe_device(choose_device(str(values.get("device", "auto")))),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "started_at": _now(),
        "commit": commit(),
        "inputs": input_digests(path, str(values.get("faces"))),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def main(arguments: list[str] | None = None) -> int:
    """Command line of this module, used by the workflow's rules."""
    import argparse

    import yaml

    parser = argparse.ArgumentParser(
        prog="python -m replicate.notebooks", description=__doc__.splitlines()[0]
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters"
    )
    parser.add_argument("--fresh", action="store_true", help="train every model again")
    given = parser.parse_args(arguments)
    values = {name: yaml.safe_load(value) for name, value in given.parameters}
    try:
        execute(given.notebook.resolve(), given.output, values, fresh=given.fresh)
    except ReplicateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
