"""Files of the project that are generated: environment.yml from pyproject.toml, and the picture of README.md."""

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
    wanted = [
        Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["test"]
    ]
    by_pip = sorted(str(r) for r in wanted if names.get(r.name) == "pip")
    by_conda = sorted(
        f"{names.get(r.name, r.name)} {r.specifier}".strip() for r in wanted if names.get(r.name) != "pip"
    )
    python = f"python {project['requires-python']}"
    # liblinear-official is compiled when it is installed
    dependencies = [python, "pip", "cxx-compiler", *by_conda, {"pip": by_pip}]
    content = {"name": "replicate", "channels": ["conda-forge", "nodefaults"], "dependencies": dependencies}
    return HEADER + yaml.safe_dump(content, sort_keys=False)


def picture(path: Path) -> None:
    """Write the picture of README.md: eight generated faces with their landmarks."""
    import cv2
    import numpy as np

    from replicate.evidence import figures
    from replicate.faces.synthetic import generate_many

    faces = generate_many(7, range(8), "common")
    figure = figures.faces_grid(faces.images, truth=faces.points, columns=4, size=1.9)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
        pixels = cv2.imread(str(temporary))
        small = np.uint8(np.minimum(np.round(pixels / 8) * 8, 255))  # fewer levels make a smaller file
        cv2.imwrite(str(temporary), small, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def main(arguments: list[str]) -> int:
    """Write the generated files named in `arguments`: environment.yml, or a .png for the picture of README.md."""
    for name in arguments:
        path = Path(name)
        if path.suffix == ".png":
            picture(path)
        else:
            with atomic_write(path) as temporary:
                temporary.write_text(environment(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
