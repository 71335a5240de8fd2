"""Notebooks: the rules for those of the repository, running them at smoke, and what a run leaves behind."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from replicate import notebooks
from replicate.errors import ReplicateError
from replicate.paths import root
from replicate.workflow import Job, environment, stale_because

ALL = notebooks.find()
SMALL = {"profile": "smoke"}


@pytest.mark.parametrize("key", ALL)
class TestEveryNotebook:
    def test_its_parameters_cell_names_what_every_notebook_takes(self, key):
        values = notebooks.default_parameters(notebooks.read(ALL[key]), ALL[key])
        assert set(notebooks.REQUIRED) <= set(values)

    def test_it_holds_no_outputs(self, key):
        for cell in notebooks.read(ALL[key]).cells:
            assert not cell.get("outputs") and cell.get("execution_count") is None

    def test_nbstripout_would_change_nothing(self, key):
        done = subprocess.run(
            [sys.executable, "-m", "nbstripout", "--verify", str(ALL[key])], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def test_its_cells_tell_and_call_but_hold_no_long_logic(self, key):
        for cell in notebooks.read(ALL[key]).cells:
            if cell.cell_type == "code":
                lines = [
                    line
                    for line in cell.source.splitlines()
                    if line.strip() and not line.lstrip().startswith("#")
                ]
                assert len(lines) <= 15, cell.source

    def test_it_imports_nothing_of_the_project_but_the_library(self, key):
        source = "\n".join(c.source for c in notebooks.read(ALL[key]).cells if c.cell_type == "code")
        imported = {a.name for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import) for a in n.names}
        imported |= {n.module for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ImportFrom)}
        foreign = {
            name for name in imported if name.split(".")[0] in {"tests", "workflow", "book", "notebooks"}
        }
        assert not foreign

    def test_it_runs_at_smoke_in_under_a_minute(self, key, monkeypatch):
        monkeypatch.setenv(
            "REPLICATE_CACHE", os.environ.get("REPLICATE_CACHE") or str(root() / ".replicate" / "test")
        )
        job = Job(key, "smoke", "synthetic")
        if stale_because(job):
            command = [sys.executable, "-m", "replicate.notebooks", *job.arguments]
            done = subprocess.run(command, cwd=root(), env=environment(1), capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
        assert stale_because(job) is None
        assert json.loads(job.status.read_text())["seconds"] < 60


def test_order_is_that_of_the_sections():
    names = ["s43_stages", "s3_method", "s31_network", "s42_results"]
    ordered = sorted((Path("dan") / f"{name}.ipynb" for name in names), key=notebooks.section_order)
    assert [p.stem for p in ordered] == ["s3_method", "s31_network", "s42_results", "s43_stages"]


class TestExecute:
    def test_a_run_leaves_the_executed_notebook_and_its_status(self, notebook, tmp_path):
        output = tmp_path / "out" / "page.ipynb"
        status = notebooks.execute(notebook("print(profile, faces, 6 * 7)"), output, SMALL)
        assert "smoke synthetic 42" in output.read_text()
        assert status == json.loads(output.with_suffix(".json").read_text())
        assert (status["exit"], status["profile"], status["faces"], status["seed"]) == (
            "done",
            "smoke",
            "synthetic",
            0,
        )
        assert status["seconds"] > 0 and status["device"] and status["finished_at"] >= status["started_at"]
        assert sorted(p.suffix for p in output.parent.iterdir()) == [".ipynb", ".json", ".lock"]

    def test_an_unknown_parameter_is_an_error_that_names_the_nearest(self, notebook, tmp_path):
        with pytest.raises(
            ReplicateError,
            match="got 'sed', expected one of profile, faces, seed, device. Did you mean 'seed'",
        ):
            notebooks.execute(notebook(), tmp_path / "out.ipynb", {"sed": 1})
        assert not (tmp_path / "out.ipynb").exists()

    @pytest.mark.parametrize(("name", "value"), [("profile", "smoek"), ("faces", "reel")])
    def test_a_value_outside_the_vocabulary_is_an_error(self, notebook, tmp_path, name, value):
        with pytest.raises(ReplicateError, match=f"{name}: got '{value}'.*Did you mean"):
            notebooks.execute(notebook(), tmp_path / "out.ipynb", {name: value})

    def test_fresh_reaches_a_notebook_that_knows_it_and_no_other(self, notebook, tmp_path):
        knows = notebook("print('fresh:', fresh)", parameters="profile = 'smoke'\nfresh = False")
        assert notebooks.execute(knows, tmp_path / "a.ipynb", {}, fresh=True)["parameters"]["fresh"] is True
        assert "fresh: True" in (tmp_path / "a.ipynb").read_text()
        assert (
            "fresh"
            not in notebooks.execute(notebook("1"), tmp_path / "b.ipynb", {}, fresh=True)["parameters"]
        )

    def test_a_failing_cell_keeps_the_last_good_run(self, notebook, tmp_path):
        output = tmp_path / "out.ipynb"
        notebooks.execute(notebook("print('good')"), output, SMALL)
        with pytest.raises(ReplicateError, match=r"ZeroDivisionError: division by zero.*as far as it ran"):
            notebooks.execute(notebook("print('bad'); 1 / 0"), output, SMALL)
        assert "good" in output.read_text() and "bad" not in output.read_text()
        failed = json.loads(output.with_suffix(".failed.json").read_text())
        assert failed["exit"] == "failed" and "ZeroDivisionError" in failed["error"]
        notebooks.execute(notebook("print('good again')"), output, SMALL)
        assert (
            not output.with_suffix(".failed.ipynb").exists()
            and not output.with_suffix(".failed.json").exists()
        )

    def test_a_folder_that_cannot_be_written_is_named(self, notebook, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ReplicateError, match="cannot write .*file.*REPLICATE_CACHE"):
            notebooks.execute(notebook(), tmp_path / "file" / "out.ipynb", SMALL)

    def test_kill_9_leaves_no_half_written_output_and_the_next_run_succeeds(self, notebook, tmp_path):
        output, started = tmp_path / "out.ipynb", tmp_path / "started"
        source = notebook(f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(600)")
        process = subprocess.Popen([sys.executable, "-m", "replicate.notebooks", str(source), str(output)])
        wait_for(started.exists)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not output.exists() and not notebooks.status_path(output).exists()
        notebooks.execute(notebook("print('whole')"), output, SMALL)
        assert "whole" in output.read_text()
        assert not list(tmp_path.glob(".*partial*"))


def wait_for(condition, seconds: float = 60.0) -> None:
    """Wait until `condition` holds, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


class TestParametersCell:
    def test_a_notebook_without_one_is_an_error(self, tmp_path):
        path = tmp_path / "none.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")]), path)
        with pytest.raises(ReplicateError, match="0 cells tagged `parameters`"):
            notebooks.check_parameters(path, {})

    def test_anything_but_literals_is_an_error(self, notebook):
        with pytest.raises(ReplicateError, match="may only assign"):
            notebooks.check_parameters(notebook(parameters="import os"), {})

    @pytest.mark.parametrize(
        ("name", "value", "kind"),
        [
            ("fresh", "maybe", "true or false"),
            ("seed", "abc", "a whole number"),
            ("seed", True, "a whole number"),
            ("share", "half", "a number"),
            ("device", 0, "a word"),
        ],
    )
    def test_a_value_of_another_kind_is_refused(self, notebook, name, value, kind):
        path = notebook(parameters="seed = 0\nfresh = False\nshare = 0.5\ndevice = 'auto'\nmore = None")
        with pytest.raises(ReplicateError, match=f"parameter {name}: got {value!r}, expected {kind}"):
            notebooks.check_parameters(path, {name: value})
        fine = {"seed": 3, "fresh": True, "share": 1, "device": "cpu", "more": [1]}
        assert notebooks.check_parameters(path, fine) == fine

    def test_values_are_read_with_their_types(self, notebook):
        values = notebooks.check_parameters(
            notebook(parameters="seed = 3\nrates = [0.1, 0.2]\nname = 'a'"), {"seed": 4}
        )
        assert values == {"seed": 4, "rates": [0.1, 0.2], "name": "a"}

    @pytest.mark.parametrize("content", ["", "not json", "{}"])
    def test_a_damaged_file_is_named(self, tmp_path, content):
        (tmp_path / "bad.ipynb").write_text(content)
        with pytest.raises(ReplicateError, match=r"bad\.ipynb is not a Jupyter notebook"):
            notebooks.read(tmp_path / "bad.ipynb")


class TestInputs:
    def test_imports_are_followed_through_the_library_and_no_further(self):
        names = {
            p.relative_to(root()).as_posix()
            for p in notebooks.library_files("%matplotlib inline\nfrom replicate import files")
        }
        assert names == {"replicate/__init__.py", "replicate/files.py", "replicate/errors.py"}

    def test_an_import_inside_a_function_counts(self):
        source = "def f():\n    from replicate.vocabulary import PAPERS\n"
        assert root() / "replicate" / "vocabulary.py" in notebooks.library_files(source)

    @pytest.mark.parametrize(
        ("line", "name"),
        [
            ("from . import b", "replicate.x.y.b"),
            ("from .b import c", "replicate.x.y.b"),
            ("from ..b import c", "replicate.x.b"),
            ("import replicate.b", "replicate.b"),
        ],
    )
    def test_relative_imports_start_from_the_package(self, line, name):
        assert name in notebooks.imported_names(line, "replicate.x.y")

    def test_a_package_brings_the_modules_it_imports(self):
        found = {p.name for p in notebooks.library_files("from replicate.faces import synthetic")}
        assert {"generator.py", "scene.py", "batch.py", "errors.py"} <= found and "cli.py" not in found

    def test_the_digest_ignores_outputs_but_not_code(self, notebook, tmp_path):
        path = notebook("x = 1")
        before = list(notebooks.digests([path]).values())
        executed = shutil.copy(path, tmp_path / "copy.ipynb")
        content = json.loads(Path(executed).read_text())
        content["cells"][-1] |= {
            "execution_count": 3,
            "outputs": [{"output_type": "stream", "name": "stdout", "text": "1"}],
        }
        Path(executed).write_text(json.dumps(content))
        assert list(notebooks.digests([Path(executed)]).values()) == before
        assert list(notebooks.digests([notebook("x = 2")]).values()) != before
