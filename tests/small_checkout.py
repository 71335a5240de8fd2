"""A small checkout and small notebooks for tests of the workflow and the book."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = 'profile = "cpu"\nfaces = "synthetic"\nseed = 0\ndevice = "cpu"'


def write_notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    """A notebook with a title, a parameters cell and the given code cells."""
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    title = nbformat.v4.new_markdown_cell("# §1 A small page\n\nWith a formula, $x^2$.")
    notebook = nbformat.v4.new_notebook(cells=[title, first, *map(nbformat.v4.new_code_cell, cells)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


OTHERS = ("lddr", "tcnn", "rnn", "ect")  # chapters beside that of the small notebook


class Checkout:
    """A copy of the library, the workflow and the written pages with one small notebook, and a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.root, self.cache = folder / "checkout", folder / "cache"
        for name in ("replicate", "workflow", "book", "data/published"):
            ignored = shutil.ignore_patterns("__pycache__", "*.ipynb")
            shutil.copytree(ROOT / name, self.root / name, ignore=ignored)
        self.notebook = write_notebook(
            self.root / "notebooks" / "dan" / "s1_small.ipynb", "print(profile, 6 * 7)"
        )
        # the chapters' own first pages link to notebooks that are not here
        (self.root / "book" / "dan" / "index.md").write_text("# A chapter\n\n```{tableofcontents}\n```\n")
        for paper in OTHERS:
            (self.root / "book" / paper / "index.md").write_text("# A chapter without pages\n")
        self.write_contents("dan/s1_small")

    def write_contents(self, *notebooks: str) -> None:
        """A table of contents with these notebooks."""
        sections = "".join(f"\n  - file: {name}" for name in notebooks)
        pages = "".join(
            f"\n- file: {name}" for name in ("how_to_read", "scoreboard", "claims", "ambiguities", "status")
        )
        others = "".join(f"\n- file: {paper}/index" for paper in OTHERS)
        chapter = f"{others}\n- file: dan/index\n  sections:{sections}\n  - file: dan/recorded"
        (self.root / "book" / "_toc.yml").write_text(
            f"format: jb-book\nroot: preface\nchapters:{pages}{chapter}\n"
        )

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which Python imports this copy of the library."""
        own = {
            "PYTHONPATH": str(self.root),
            "REPLICATE_CACHE": str(self.cache),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        return {**os.environ, **own, "REPLICATE_DATA": str(self.root / "nowhere")}

    def command(self, *arguments: str) -> list[str]:
        """The `replicate` command of this copy."""
        return [sys.executable, "-m", "replicate.cli", *arguments]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Run `replicate` to its end."""
        env = {**self.environment, **environment}
        return subprocess.run(
            self.command(*arguments), cwd=self.root, env=env, capture_output=True, text=True, timeout=300
        )

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start `replicate` in a process group of its own, so that a test can kill all of it."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(
            self.command(*arguments), cwd=self.root, env=self.environment, start_new_session=True, **quiet
        )
