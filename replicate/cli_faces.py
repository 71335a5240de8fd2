"""The commands ``replicate data``, ``replicate models`` and ``replicate detect``."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from replicate import cli_tables as tables
from replicate.cli_common import AsJson, Faces, Profile, console, show, wrong_usage
from replicate.errors import ReplicateError
from replicate.vocabulary import FACES, PAPERS, PROFILES, check_one_of

data = typer.Typer(
    help="Faces: what is there, what it holds, and making synthetic ones.", no_args_is_help=True
)
models = typer.Typer(help="Trained models: what is there, and whether it is intact.", no_args_is_help=True)
detection = typer.Typer()


@data.command()
def check(as_json: AsJson = False) -> None:
    """Say which real faces are on this machine, what is missing or damaged, and where that is obtained on which terms."""
    from replicate import faces_report
    from replicate.paths import data_dir

    rows = faces_report.check()
    console.print(f"real faces in {data_dir()} (set REPLICATE_DATA to look elsewhere)", soft_wrap=True)
    show(rows, as_json, lambda found: tables.checks([_short_check(row) for row in found]))
    if not as_json:
        for title, url, terms in _to_obtain(rows):
            console.print(
                f"{title}\n  from {url}\n  terms: {terms}", soft_wrap=True, markup=False, highlight=False
            )
    damaged = [row for row in rows if row["state"].startswith("damaged")]
    if damaged:
        raise ReplicateError(
            "; ".join(f"{row['data set']}, {row['part']}: {row['state']}" for row in damaged)
            + ". Restore or remove these files."
        )


def _short_check(row: dict) -> dict:
    """A row for a narrow table; what is damaged is told below it."""
    short = {name: row[name] for name in ("data set", "part", "expected", "found")}
    return short | {"state": row["state"].partition(":")[0]}


def _to_obtain(rows: list[dict]) -> list[tuple[str, str, str]]:
    """Title, source and terms of each data set of which something is missing."""
    missing = [row for row in rows if row["state"] != "complete"]
    return list(dict.fromkeys((row["title"], row["url"], row["terms"]) for row in missing))


@data.command()
def describe(
    protocol: Annotated[str | None, typer.Argument(help="Benchmark; none: all of them.")] = None,
    faces: Faces = "synthetic",
    profile: Profile = "smoke",
    sample: Annotated[int, typer.Option(min=1, help="Generated faces of each part to render.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Say what each split of a protocol holds: counts, points, sizes, visibility and pose."""
    from replicate import faces_report
    from replicate.faces.protocols import PROTOCOLS

    with wrong_usage():
        if protocol is not None:
            check_one_of("protocol", protocol, PROTOCOLS)
        check_one_of("faces", faces, FACES)
        check_one_of("profile", profile, PROFILES)
    rows = faces_report.describe(protocol, faces, profile, sample)
    if faces == "synthetic":
        console.print(
            f"sizes and visibility of the first {sample} faces of each part, pose (5 %, 50 % and 95 %) of the first "
            f"{faces_report.DRAWN}",
            soft_wrap=True,
        )
    show(rows, as_json, lambda found: tables.checks([_short_description(row) for row in found]))
    for row in rows:
        if not row["images"]:
            console.print(f"{row['protocol']} {row['split']}: {row['state']}", soft_wrap=True, markup=False)


def _short_description(row: dict) -> dict:
    """A row for a narrow table; the JSON form has roll, box rule, normalisers and image size too."""
    short = {
        "split": f"{row['protocol']} {row['split']}",
        "faces": row["images"],
        "official": row["official"],
    }
    if not row["images"]:
        return short | dict.fromkeys(("markup", "face, px", "visible", "yaw", "pitch"))
    pose = {name: row[name] and " ".join(f"{angle:+.0f}" for angle in row[name]) for name in ("yaw", "pitch")}
    return short | {"markup": row["markup"], "face, px": row["face size"], "visible": row["visible"]} | pose


@data.command()
def make(
    folder: Annotated[
        Path | None, typer.Argument(help="Write PNG images and .pts files here; none: fill the cache.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Faces to write.")] = 16,
    condition: Annotated[str, typer.Option(help="Difficulty of the faces to write.")] = "common",
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the faces to write.")] = 0,
    profile: Profile = "smoke",
    as_json: AsJson = False,
) -> None:
    """Make synthetic faces: as files in FOLDER, or those that a profile needs."""
    from replicate import faces_report
    from replicate.faces.synthetic import CONDITIONS

    with wrong_usage():
        check_one_of("profile", profile, PROFILES)
        check_one_of("condition", condition, ["train", *CONDITIONS])
    rows = (
        faces_report.prepare(profile)
        if folder is None
        else faces_report.export(folder, count, condition, seed)
    )
    show(rows, as_json, tables.checks)


@models.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the stored models."""
    from replicate import store

    show([_row(store.load(path), path) for path in store.files()], as_json, tables.checks)


@models.command()
def verify(as_json: AsJson = False) -> None:
    """Read every stored model and compare it with its recorded hash."""
    from replicate import store

    rows, damaged = [], []
    for path in store.files():
        try:
            rows.append(_row(store.load(path), path) | {"state": "intact"})
        except ReplicateError as error:
            damaged.append(str(error))
    show(rows, as_json, tables.checks)
    if damaged:
        raise ReplicateError(" ".join(damaged))


def _row(model, path: Path) -> dict:
    key, report = model.key, model.report
    return {
        "method": key.method,
        "profile": key.profile,
        "seed": key.seed,
        "hash": key.hash,
        "validation error": round(report.best_error, 3) if report.history else None,  # closed forms have none
        "samples": report.samples,
        "seconds": round(report.seconds),
        "trained on": model.trained_on,
        "MiB": round(path.stat().st_size / 2**20, 1),
        "file": str(path),
    }


@detection.command()
def detect(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    method: Annotated[str, typer.Option(help=f"One of {', '.join(PAPERS)}.")] = "dan",
    box: Annotated[
        str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="The face's box; none: faces are searched for.")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="OUT.png", help="Write the image with its landmarks.")
    ] = None,
    profile: Profile = "cpu",
    faces: Faces = "synthetic",
    as_json: AsJson = False,
) -> None:
    """Find landmarks in pictures with a trained model (trained first, if the store does not hold it)."""
    from replicate import detection as detecting

    with wrong_usage():
        for name, value, choices in (
            ("method", method, PAPERS),
            ("profile", profile, PROFILES),
            ("faces", faces, FACES),
        ):
            check_one_of(name, value, choices)
        corners = None if box is None else parse_box(box)
        if draw is not None and (len(images) > 1 or draw.suffix.lower() not in (".png", ".jpg", ".jpeg")):
            raise ReplicateError("--draw takes one image and a name that ends in .png or .jpg.")
    predict = detecting.predictor(method, profile, faces)
    found = [face for image in images for face in detecting.detect(image, method, predict, corners)]
    if draw is not None:
        detecting.draw(images[0], found, draw)
    show(found, as_json, tables.faces)


def parse_box(text: str) -> np.ndarray:
    """``x0,y0,x1,y1`` as four numbers."""
    try:
        corners = np.array([float(part) for part in text.split(",")])
    except ValueError:
        corners = np.empty(0)
    if corners.shape != (4,):
        raise ReplicateError(f"--box: got {text!r}, expected four numbers x0,y0,x1,y1 in pixels.")
    return corners
