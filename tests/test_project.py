"""The project's own files: one list of dependencies, what is generated from it, and what must never be committed."""

import os
import re
import subprocess
import sys
import tomllib

import pytest
import rattler
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from replicate import project
from replicate.paths import root

SETTINGS = tomllib.loads((root() / "pyproject.toml").read_text())["project"]
WANTED = [Requirement(r) for r in SETTINGS["dependencies"] + SETTINGS["optional-dependencies"]["test"]]
ENVIRONMENT = yaml.safe_load(project.environment())


def tracked() -> list[str]:
    """Files under version control, or those that would be."""
    git = ["git", "-C", str(root()), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(git, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [name for name in listed if (root() / name).is_file()]


def test_environment_yml_is_what_pyproject_generates():
    assert (root() / "environment.yml").read_text() == project.environment(), "run: make environment"


def test_every_conda_spec_parses_strictly():
    specs = [entry for entry in ENVIRONMENT["dependencies"] if isinstance(entry, str)]
    parsed = [rattler.MatchSpec(spec, strict=True) for spec in specs]
    assert all(p.name is not None for p in parsed)
    assert {str(p.name.normalized) for p in parsed} >= {
        "python",
        "pip",
        "pytorch",
        "opencv",
        "numpy",
        "cxx-compiler",
    }


def test_strict_parsing_refuses_a_broken_spec():
    with pytest.raises(Exception, match="unable to parse version spec"):
        rattler.MatchSpec("numpy >>2", strict=True)


def test_conda_and_pip_together_give_every_dependency():
    names = tomllib.loads((root() / "pyproject.toml").read_text())["tool"]["replicate"]["conda"]
    by_conda = {entry.split()[0] for entry in ENVIRONMENT["dependencies"] if isinstance(entry, str)}
    by_pip = {Requirement(entry).name for entry in ENVIRONMENT["dependencies"][-1]["pip"]}
    for requirement in WANTED:
        spelled = names.get(requirement.name, requirement.name)
        assert (requirement.name in by_pip) if spelled == "pip" else (spelled in by_conda), requirement


def test_constraints_pin_a_tested_version_of_every_dependency():
    lines = [
        line for line in (root() / "constraints.txt").read_text().splitlines() if line and line[0] != "#"
    ]
    assert all(
        re.fullmatch(r"[a-z0-9-]+==[0-9][A-Za-z0-9.]*", line) for line in lines
    )  # no addresses, no local versions
    pins = dict(line.split("==") for line in lines)
    for requirement in WANTED:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_the_code_is_linted_and_formatted(arguments):
    command = [sys.executable, "-m", "ruff", *arguments, "replicate", "tests"]
    done = subprocess.run(command, cwd=root(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_no_photograph_annotation_or_large_file_is_committed():
    names = tracked()
    assert not [n for n in names if n.lower().endswith((".jpg", ".jpeg", ".pts", ".pkl", ".pickle", ".pth"))]
    assert not [n for n in names if (root() / n).stat().st_size > 30 * 2**20]
    assert sum((root() / n).stat().st_size for n in names if n.startswith("data/models/")) <= 60 * 2**20


def test_the_continuous_integration_script_runs_the_tests():
    script = root() / ".ci" / "run"
    assert os.access(script, os.X_OK) and "make --no-print-directory test" in script.read_text()
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_make_help_lists_the_commands_the_readme_promises():
    listed = subprocess.run(["make", "help"], cwd=root(), capture_output=True, text=True).stdout
    for command in ("book", "test", "lab", "serve", "environment", "clean"):
        assert f"make {command}" in listed


def test_make_installs_again_only_when_the_lists_change():
    plan = subprocess.run(
        ["make", "--dry-run", "setup", "VENV=/nonexistent"], cwd=root(), capture_output=True, text=True
    )
    assert "-m venv /nonexistent" in plan.stdout and "--constraint constraints.txt" in plan.stdout


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_between_files_hold(page):
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", (root() / page).read_text())
    missing = [target for target in targets if not (root() / target).exists()]
    assert not missing
