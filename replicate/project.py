"""Files made from pyproject.toml, the one list of dependencies: ``python -m replicate.project environment.yml``."""

import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from replicate.files import atomic_write
from replicate.paths import root

HEADER = """\
# Made from pyproject.toml by `make environment`; edit that file instead.
# conda env create --file environment.yml && conda activate replicate && pip install --no-deps --editable .
"""


def environment() -> str:
    """Text of environment.yml: conda-forge packages where they exist, the rest by pip."""
    settings = tomllib.loads((root() / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    names = settings["tool"]["replicate"]["conda"]
    wanted = [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["test"]]
    by_pip = sorted(str(r) for r in wanted if names.get(r.name) == "pip")
    by_conda = sorted(f"{names.get(r.name, r.name)} {r.specifier}".strip() for r in wanted if names.get(r.name) != "pip")
    python = f"python {project['requires-python']}"
    # liblinear-official is compiled when it is installed
    dependencies = [python, "pip", "cxx-compiler", *by_conda, {"pip": by_pip}]
    content = {"name": "replicate", "channels": ["conda-forge", "nodefaults"], "dependencies": dependencies}
    return HEADER + yaml.safe_dump(content, sort_keys=False)


def main(arguments: list[str]) -> int:
    """Write environment.yml to the path given, or to standard output."""
    if not arguments:
        sys.stdout.write(environment())
        return 0
    with atomic_write(Path(arguments[0])) as temporary:
        temporary.write_text(environment(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
