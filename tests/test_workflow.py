"""From selectors to runs: what is chosen, what is stale and why, and the two runners, on a small checkout."""

import json
import os
import signal
import time

import nbformat
import pytest
from small_checkout import write_notebook

from replicate import notebooks, workflow
from replicate.errors import ReplicateError
from replicate.workflow import Job


class TestSelect:
    @pytest.fixture(autouse=True)
    def two_papers(self, tmp_path, monkeypatch):
        for name in ("dan/s1_a", "dan/s43_b", "ect/s2_c", "faces/sheets"):
            write_notebook(tmp_path / f"{name}.ipynb")
        monkeypatch.setattr(notebooks, "folder", lambda: tmp_path)
        monkeypatch.setattr(
            workflow, "artefact_notebooks", lambda: {"DAN-T5": "notebooks/dan/s43_b.ipynb", "DAN-T9": None}
        )

    @pytest.mark.parametrize(
        ("selectors", "keys"),
        [
            ([], ["dan/s1_a", "dan/s43_b", "ect/s2_c", "faces/sheets"]),
            (["dan"], ["dan/s1_a", "dan/s43_b"]),
            (["faces"], ["faces/sheets"]),
            (["Faces", "ect"], ["ect/s2_c", "faces/sheets"]),
            (["DAN-T5"], ["dan/s43_b"]),
            (["dan-t5", "ect"], ["dan/s43_b", "ect/s2_c"]),
            (["notebooks/ect/s2_c.ipynb"], ["ect/s2_c"]),
        ],
    )
    def test_chapters_artefacts_and_notebooks(self, selectors, keys):
        assert workflow.select(selectors) == keys

    @pytest.mark.parametrize(
        ("selector", "message"),
        [
            ("DAN-T55", "Did you mean 'DAN-T5'"),
            ("dna", "Did you mean 'dan'"),
            ("face", "expected a chapter .faces, lddr.*Did you mean 'faces'"),
            ("DAN-T9", "no notebook makes DAN-T9 yet"),
            ("rnn", "no notebook of rnn exists yet"),
        ],
    )
    def test_anything_else_is_an_error_that_helps(self, selector, message):
        with pytest.raises(ReplicateError, match=message):
            workflow.select([selector])

    def test_a_parameter_that_one_of_the_notebooks_lacks_is_an_error(self):
        with pytest.raises(ReplicateError, match="got 'epochs'"):
            workflow.jobs(["dan"], profile="smoke", parameters={"epochs": 3})

    def test_runs_with_different_parameters_have_different_outputs(self):
        jobs = [Job("dan/s1_a", "smoke", "synthetic", 0), Job("dan/s1_a", "smoke", "synthetic", 1)]
        jobs += [Job("dan/s1_a", "smoke", "synthetic", 0, (("width", 8),)), Job("dan/s1_a", "cpu", "real", 0)]
        assert len({job.output for job in jobs}) == 4


class TestStale:
    @pytest.fixture
    def job(self, tmp_path, monkeypatch):
        monkeypatch.setattr(notebooks, "folder", lambda: tmp_path / "notebooks")
        monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path / "cache"))
        write_notebook(tmp_path / "notebooks" / "dan" / "s1_a.ipynb", "print(1)")
        return Job("dan/s1_a", "smoke", "synthetic")

    def run(self, job):
        notebooks.execute(job.source, job.output, job.parameters)

    def test_reasons_from_the_first_run_to_a_failure(self, job):
        assert workflow.stale_because(job) == "not run yet"
        self.run(job)
        assert workflow.stale_because(job) is None
        job.source.touch()
        assert workflow.stale_because(job) is None
        write_notebook(job.source, "1 / 0")
        assert workflow.stale_because(job).startswith("changed: ") and "s1_a.ipynb" in workflow.stale_because(
            job
        )
        with pytest.raises(ReplicateError):
            self.run(job)
        assert workflow.stale_because(job) == "the last run failed"

    def test_fresh_runs_everything(self, job):
        self.run(job)
        assert workflow.plan([job]) == {job: None}
        assert workflow.plan([job], fresh=True) == {job: "asked for with --fresh"}

    def test_real_faces_that_are_absent_are_named_before_anything_runs(self, job, monkeypatch, tmp_path):
        monkeypatch.setenv("REPLICATE_DATA", str(tmp_path / "nowhere"))
        with pytest.raises(ReplicateError, match="nowhere is not a folder. Set REPLICATE_DATA"):
            notebooks.input_digests(job.source, "real")

    def test_a_change_among_the_real_faces_makes_a_run_stale(self, job, monkeypatch, tmp_path):
        monkeypatch.setenv("REPLICATE_DATA", str(tmp_path / "faces"))
        (tmp_path / "faces").mkdir()
        real = Job(job.notebook, "smoke", "real")
        self.run(real)
        assert workflow.stale_because(real) is None
        (tmp_path / "faces" / "new.pts").write_text("")
        assert workflow.stale_because(real) == "changed: the real faces"


def outputs(path) -> list[str]:
    """What the cells of an executed notebook printed."""
    cells = nbformat.read(path, as_version=4).cells
    return [
        output.text for cell in cells for output in cell.get("outputs", []) if output.output_type == "stream"
    ]


def test_snakemake_and_the_serial_path_give_the_same_and_repeat_nothing(checkout):
    executed = checkout.cache / "notebooks" / "smoke" / "synthetic" / "seed0" / "dan" / "s1_small.ipynb"
    done = checkout.run("run", "dan", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    assert "not run yet" in done.stderr and done.stdout == ""
    assert outputs(executed) == ["smoke 42\n"]
    stamp = executed.stat().st_mtime_ns

    again = checkout.run("run", "--profile", "smoke")
    assert again.returncode == 0 and "up to date" in again.stderr and executed.stat().st_mtime_ns == stamp

    other = checkout.run(
        "run", "dan", "--profile", "smoke", "--serial", REPLICATE_CACHE=str(checkout.cache) + "2"
    )
    assert other.returncode == 0, other.stderr
    twin = checkout.cache.with_name("cache2") / executed.relative_to(checkout.cache)
    assert outputs(twin) == outputs(executed)
    keys = ("profile", "faces", "seed", "parameters", "inputs", "exit")
    left, right = (json.loads(notebooks.status_path(path).read_text()) for path in (executed, twin))
    assert [left[key] for key in keys] == [right[key] for key in keys]

    write_notebook(checkout.notebook, "print(profile, 6 * 9)")
    why = checkout.run("run", "--profile", "smoke", "--dry-run")
    assert "changed: notebooks/dan/s1_small.ipynb" in why.stderr and executed.stat().st_mtime_ns == stamp
    assert checkout.run("run", "--profile", "smoke").returncode == 0
    assert outputs(executed) == ["smoke 54\n"]


def test_a_failing_notebook_is_exit_status_1_and_the_others_still_run(checkout):
    write_notebook(checkout.root / "notebooks" / "dan" / "s0_bad.ipynb", "raise RuntimeError('too bad')")
    done = checkout.run("run", "--profile", "smoke")
    assert (
        done.returncode == 1
        and "too bad" in done.stderr
        and "Traceback" not in done.stderr.split("error:")[-1]
    )
    folder = checkout.cache / "notebooks" / "smoke" / "synthetic" / "seed0" / "dan"
    assert (folder / "s1_small.ipynb").exists() and not (folder / "s0_bad.ipynb").exists()
    assert (folder / "s0_bad.failed.ipynb").exists()


def test_kill_9_of_a_whole_run_loses_nothing_and_blocks_nothing(checkout):
    started = checkout.root / "started"
    slow = f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep(600)"
    write_notebook(checkout.notebook, slow)
    process = checkout.start("run", "--profile", "smoke")
    end = time.monotonic() + 60
    while not started.exists():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    folder = checkout.cache / "notebooks" / "smoke" / "synthetic" / "seed0" / "dan"
    assert not (folder / "s1_small.ipynb").exists() and not (folder / "s1_small.json").exists()
    write_notebook(checkout.notebook, "print('whole')")
    done = checkout.run("run", "--profile", "smoke")
    assert done.returncode == 0, done.stderr
    assert outputs(folder / "s1_small.ipynb") == ["whole\n"]


def test_a_second_run_at_the_same_time_is_refused_with_a_reason(checkout):
    from filelock import FileLock

    folder = checkout.cache / "workflow"
    folder.mkdir(parents=True)
    with FileLock(folder / "run.lock"):
        done = checkout.run("run", "--profile", "smoke")
    assert done.returncode == 1 and "another `replicate run`" in done.stderr


def test_the_slurm_profile_names_the_executor_and_limits():
    import yaml

    from replicate.paths import root

    profile = yaml.safe_load((root() / "workflow" / "profiles" / "slurm" / "config.yaml").read_text())
    assert profile["executor"] == "slurm"
    assert profile["default-resources"]["mem_mb"] == workflow.MEMORY_MIB
