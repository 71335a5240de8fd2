"""The book: staging its pages from the checkout, executed notebooks and recorded results, building it, showing it."""

import functools
import http.server
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml
from filelock import FileLock

from replicate import book_pages, notebooks
from replicate.errors import ReplicateError
from replicate.files import read_json, sha256
from replicate.paths import cache, root
from replicate.workflow import Job

BUILD = "from jupyter_book.cli.main import main; main()"


def folder() -> Path:
    """Where the book is staged and built."""
    return cache() / "book"


def site() -> Path:
    """The built site; a link to the newest complete build."""
    return folder() / "html"


def build(profile: str = "cpu", faces: str = "synthetic") -> Path:
    """Build the book unless it is up to date.

    The site appears under its name only when it is complete; a build that is killed leaves the previous site.

    Returns
    -------
    Path
        The first page.

    Raises
    ------
    ReplicateError
        If the build reports an error or a warning; the messages stand on standard error.
    """
    with FileLock(notebooks.folder_to_write(folder()) / "build.lock"):
        source = folder() / "source"
        shutil.rmtree(source, ignore_errors=True)
        stage(source, profile, faces)
        target = folder() / f"site-{_digest(source)}"
        if not (target.is_dir() and site().resolve() == target.resolve()):
            _build_pages(source, target)
            _point(site(), target)
        _sweep(keep=target)
    return site() / "index.html"


def _build_pages(source: Path, target: Path) -> None:
    work = folder() / "work"
    shutil.rmtree(work, ignore_errors=True)
    command = [
        sys.executable,
        "-c",
        BUILD,
        "build",
        str(source),
        "--path-output",
        str(work),
        "-W",
        "--keep-going",
        "-q",
    ]
    done = subprocess.run(command, cwd=root(), stdout=sys.stderr, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    if done.returncode:
        raise ReplicateError(
            "the book was not built: Jupyter Book reported the errors or warnings above. The last book stays."
        )
    shutil.rmtree(target, ignore_errors=True)
    (work / "_build" / "html").replace(target)


def _point(link: Path, target: Path) -> None:
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.name)
    fresh.replace(link)


def _sweep(keep: Path) -> None:
    for path in [*folder().glob("site-*"), folder() / "work"]:
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)


def _digest(source: Path) -> str:
    files = sorted(p for p in source.rglob("*") if p.is_file())
    return sha256(*(part for p in files for part in (str(p.relative_to(source)), p.read_bytes())))[:16]


def stage(source: Path, profile: str, faces: str) -> None:
    """Fill `source` with everything Jupyter Book needs: written pages, generated pages, executed notebooks.

    Raises
    ------
    ReplicateError
        If a notebook has no place in ``book/_toc.yml``, or the table of contents names a page that does not exist.
    """
    shutil.copytree(root() / "book", source)
    jobs = {key: Job(key, profile, faces) for key in notebooks.find()}
    for key, job in jobs.items():
        page = source / f"{key}.ipynb"
        page.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook_page(job), page)
    for name, text in book_pages.generate(list(jobs.values())).items():
        page = source / f"{name}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    _check_contents(source, set(jobs))


def _check_contents(source: Path, keys: set[str]) -> None:
    contents = set(pages_of(yaml.safe_load((source / "_toc.yml").read_text(encoding="utf-8"))))
    if keys - contents:
        raise ReplicateError(
            f"book/_toc.yml has no place for {', '.join(sorted(keys - contents))}; add a line for each."
        )
    absent = sorted(
        name for name in contents if not any((source / f"{name}{end}").exists() for end in (".md", ".ipynb"))
    )
    if absent:
        raise ReplicateError(
            f"book/_toc.yml names {', '.join(absent)}, and there is no such page or notebook."
        )


def pages_of(contents: dict | list) -> list[str]:
    """Names of all pages in a table of contents."""
    if isinstance(contents, list):
        return [name for part in contents for name in pages_of(part)]
    own = [contents[key] for key in ("root", "file") if key in contents]
    return own + [n for key in ("parts", "chapters", "sections") for n in pages_of(contents.get(key, []))]


def notebook_page(job: Job) -> nbformat.NotebookNode:
    """The executed notebook of `job` as a page, or the notebook itself with a notice where it has not been run."""
    done = job.output.exists() and job.status.exists()
    page = notebooks.read(job.output if done else job.source)
    for cell in page.cells:
        if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])):
            cell.metadata["tags"] = ["remove-cell"]
    for name in ("papermill", "widgets"):  # widgets would have the page load scripts from elsewhere
        page.metadata.pop(name, None)
    notice = book_pages.provenance(job, read_json(job.status) if done else None)
    page.cells.insert(1, nbformat.v4.new_markdown_cell(notice, id="provenance"))
    for cell in page.cells:
        cell.metadata.pop("papermill", None)
        if cell.cell_type == "code":
            cell.outputs = _shown(cell.outputs)
            if words := _alternative_text(cell.outputs):
                cell.metadata["mystnb"] = {"image": {"alt": words}}
    return page


def _alternative_text(outputs: list[nbformat.NotebookNode]) -> str:
    """What the pictures of a cell show, in words, as `figures.show` has left it with them."""
    texts = (output.get("metadata", {}).get("image/png", {}).get("alt", "") for output in outputs)
    return " ".join(filter(None, texts))


def _shown(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Outputs that belong on a page: no progress bars, and each picture once.

    A cell whose value is pyplot's current figure holds it twice, as its value and as a display.
    """
    kept = [output for output in outputs if not _is_progress(output)]
    pictures = [output for output in kept if "image/png" in output.get("data", {})]
    if not any(picture.output_type == "execute_result" for picture in pictures):
        return kept
    return [output for output in kept if output not in pictures or output.output_type == "execute_result"]


def _is_progress(output: nbformat.NotebookNode) -> bool:
    if output.output_type == "stream":
        return output.name == "stderr"
    data = output.get("data", {})
    finished = output.output_type == "display_data" and not data.get("text/plain", "").strip()  # of rich
    return finished or "application/vnd.jupyter.widget-view+json" in data


def serve(port: int) -> None:
    """Show the built book on this machine until interrupted.

    Raises
    ------
    ReplicateError
        If there is no book yet, or the port is taken.
    """
    if not site().exists():
        raise ReplicateError("there is no book yet; `make book` builds it.")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site()))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise ReplicateError(
            f"cannot listen on port {port}: {error}. Choose another: make serve PORT=8001"
        ) from error
    print(f"the book: http://localhost:{port} (Ctrl-C ends)", file=sys.stderr)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
