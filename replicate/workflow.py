"""From selectors to executed notebooks: which runs are asked for, which are stale and why, and running them.

Two runners give the same files: Snakemake (parallel, clusters) and a plain loop.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from filelock import FileLock, Timeout

from replicate import notebooks
from replicate.errors import ReplicateError
from replicate.files import read_json, write_json
from replicate.paths import cache, root
from replicate.vocabulary import check_one_of

MEMORY_MIB = 6144  # no process of this project may need more


@dataclass(frozen=True)
class Job:
    """One notebook with one set of parameters."""

    notebook: str  # key, such as dan/s43_stages
    profile: str
    faces: str
    seed: int = 0
    extra: tuple[tuple[str, object], ...] = ()  # further parameters of this notebook

    @property
    def source(self) -> Path:
        """The notebook in the checkout."""
        return notebooks.folder() / f"{self.notebook}.ipynb"

    @property
    def output(self) -> Path:
        """The executed notebook in the cache."""
        variant = "-".join([f"seed{self.seed}", *(f"{name}-{value}" for name, value in self.extra)])
        return cache() / "notebooks" / self.profile / self.faces / variant / f"{self.notebook}.ipynb"

    @property
    def status(self) -> Path:
        """The status file that marks the output as complete."""
        return notebooks.status_path(self.output)

    @property
    def parameters(self) -> dict[str, object]:
        """What is passed to the notebook."""
        return {"profile": self.profile, "faces": self.faces, "seed": self.seed, **dict(self.extra)}

    @property
    def arguments(self) -> list[str]:
        """Arguments of ``python -m replicate.notebooks`` for this job."""
        pairs = [part for name, value in self.parameters.items() for part in ("-p", name, str(value))]
        return [str(self.source), str(self.output), *pairs]


def select(selectors: Iterable[str]) -> list[str]:
    """Keys of the notebooks that the selectors name: a paper, the chapter `faces`, an artefact, a notebook, or nothing for all.

    Raises
    ------
    ReplicateError
        For a selector that names nothing, with the nearest valid one.
    """
    available = notebooks.find()
    chosen: set[str] = set()
    for selector in selectors:
        chosen |= _matching(selector, available)
    return [key for key in available if key in chosen or not chosen]


def _matching(selector: str, available: Mapping[str, Path]) -> set[str]:
    key = selector.removeprefix("notebooks/").removesuffix(".ipynb")
    if key in available:
        return {key}
    if selector.lower() in notebooks.CHAPTERS:
        found = {name for name in available if name.startswith(f"{selector.lower()}/")}
        if not found:
            raise ReplicateError(f"no notebook of {selector} exists yet; there are: {', '.join(available)}.")
        return found
    makers = artefact_notebooks()
    identity = next((name for name in makers if name.lower() == selector.lower()), None)
    if identity is None:
        near = get_close_matches(
            selector, [*notebooks.CHAPTERS, *available, *makers], n=1
        ) or get_close_matches(selector.upper(), makers, n=1)
        raise ReplicateError(
            f"selector: got {selector!r}, expected a chapter ({', '.join(notebooks.CHAPTERS)}), a notebook ({', '.join(available)}) or an artefact "
            f"such as DAN-T5 (`replicate artefacts` lists them).{f' Did you mean {near[0]!r}?' if near else ''}"
        )
    maker = makers[identity]
    if maker is None:
        raise ReplicateError(
            f"no notebook makes {identity} yet; `replicate artefacts` says which notebook makes what."
        )
    return {maker.removeprefix("notebooks/").removesuffix(".ipynb")}


def artefact_notebooks() -> dict[str, str | None]:
    """The notebook that makes each artefact, by the artefact's id."""
    from replicate.evidence import artefacts

    return {a.id: a.notebook for a in artefacts.load()}


def jobs(
    selectors: Sequence[str] = (),
    profile: str = "cpu",
    faces: str = "synthetic",
    seeds: Sequence[int] = (0,),
    parameters: Mapping[str, object] | None = None,
) -> list[Job]:
    """The runs that a command asks for; every name is checked before anything starts.

    Raises
    ------
    ReplicateError
        For an unknown selector, profile, faces or parameter.
    """
    extra = tuple(sorted((parameters or {}).items()))
    asked = [Job(key, profile, faces, seed, extra) for key in select(selectors) for seed in seeds]
    for job in asked:
        notebooks.check_parameters(job.source, job.parameters)
    return asked


def stale_because(job: Job) -> str | None:
    """Why `job` has to run, in words, or None if its output is up to date. Content decides, dates do not."""
    if notebooks.failed_path(job.output).exists():
        return "the last run failed"
    if not (job.status.exists() and job.output.exists()):
        return "not run yet"
    before = read_json(job.status)["inputs"]
    now = notebooks.input_digests(job.source, job.faces)
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed:
        return f"changed: {', '.join(changed[:4])}" + (
            f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        )
    return None


def plan(asked: Sequence[Job], *, fresh: bool = False) -> dict[Job, str | None]:
    """The reason to run each job, None where there is none.

    Raises
    ------
    ReplicateError
        If a job asks for real faces and there are none on this machine.
    """
    if any(job.faces == "real" for job in asked):
        notebooks.faces_fingerprint()
    return {job: "asked for with --fresh" if fresh else stale_because(job) for job in asked}


def run_serially(stale: Sequence[Job], *, fresh: bool = False) -> bool:
    """Run jobs one after another, the next also after a failure; returns whether all succeeded."""
    commands = [
        [sys.executable, "-m", "replicate.notebooks", *job.arguments, *["--fresh"] * fresh] for job in stale
    ]
    codes = [
        subprocess.run(c, cwd=root(), env=environment(1), stdout=sys.stderr).returncode for c in commands
    ]
    return not any(codes)


def run_with_snakemake(
    stale: Sequence[Job], *, parallel: int = 1, fresh: bool = False, cluster: str = "local"
) -> bool:
    """Run jobs under Snakemake, `parallel` at a time; returns whether all succeeded.

    `cluster` names a folder of ``workflow/profiles``.

    Raises
    ------
    ReplicateError
        If another run of this checkout's workflow is going on.
    """
    folder = notebooks.folder_to_write(cache() / "workflow")
    profiles = root() / "workflow" / "profiles"
    check_one_of("cluster", cluster, sorted(p.name for p in profiles.iterdir()))
    try:
        # The operating system frees this lock when the process dies; Snakemake's own lock files would stay.
        with FileLock(folder / "run.lock", timeout=0):
            config = folder / "jobs.json"
            listed = [[job.notebook, job.profile, job.faces, job.seed, dict(job.extra)] for job in stale]
            write_json(config, {"jobs": listed, "fresh": fresh})
            command = [
                sys.executable,
                "-m",
                "snakemake",
                "--snakefile",
                str(root() / "workflow" / "Snakefile"),
            ]
            command += ["--profile", str(profiles / cluster), "--nolock", "--forceall"]
            command += ["--directory", str(folder), "--configfile", str(config)]
            command += ["--cores" if cluster == "local" else "--jobs", str(parallel)]
            done = subprocess.run(command, cwd=root(), env=environment(parallel), stdout=sys.stderr)
    except Timeout as error:
        raise ReplicateError(f"another `replicate run` is using {folder}; wait for it or end it.") from error
    return done.returncode == 0


def environment(parallel: int) -> dict[str, str]:
    """Environment of notebooks that run `parallel` at a time: each has its share of the threads."""
    threads = max(1, (os.cpu_count() or 1) // parallel)
    return {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", **os.environ}


def jobs_of_config(config: Mapping) -> list[Job]:
    """Jobs from a Snakemake configuration: a list under ``jobs``, or everything at the named profile and faces."""
    if "jobs" in config:
        return [Job(key, p, f, s, tuple(sorted(extra.items()))) for key, p, f, s, extra in config["jobs"]]
    return jobs(profile=config.get("profile", "cpu"), faces=config.get("faces", "synthetic"))
