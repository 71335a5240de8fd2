"""What pages on a method's implementation share: configurations side by side, augmented faces, facts from the official code."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from replicate.evidence import ambiguities, figures
from replicate.evidence.experiment import Experiment
from replicate.faces.augment import Samples
from replicate.shapes import mean_shape
from replicate.vocabulary import FACES

SAME = "same"


def config_table(
    paper: Any, configs: Mapping[tuple[str, str], Any], without: Sequence[str] = (), title: str = "paper"
) -> pd.DataFrame:
    """The paper's configuration and what the profiles change of it, one line for each field.

    Parameters
    ----------
    paper : dataclass
        The configuration of the paper.
    configs : dict of (profile, faces) to dataclass
        What runs here.
    without : sequence of str
        Fields that are left out.
    title : str
        Heads the first column.
    """
    columns = {title: _described(paper, without)}
    for profile, faces in product(dict.fromkeys(profile for profile, _ in configs), FACES):
        config = configs[profile, faces]
        alike = configs[profile, "synthetic"] == configs[profile, "real"]
        described = _described(config, without)
        columns[profile if alike else f"{profile}, {faces}"] = {
            name: SAME if value == columns[title][name] else value for name, value in described.items()
        }
    return pd.DataFrame(columns).rename_axis("field").reset_index()


def _described(config: Any, without: Sequence[str]) -> dict[str, str]:
    fields = {name: getattr(config, name) for name in asdict(config) if name not in without}
    return {name: _words(value) for name, value in fields.items()}


def _words(value: object) -> str:
    if is_dataclass(value):  # a network that is trained before
        before = value.narrow or value.pretraining
        return f"width {value.width}, samples {_words(value.samples)}" + (
            f", after {_words(before)}" if before else ""
        )
    if isinstance(value, tuple):
        return " / ".join(map(_words, value))
    if type(value) in (int, float):
        return f"{value:,}" if type(value) is int else f"{value:.6g}"
    return "none" if value is None else str(value)


def augmented_faces(
    run: Experiment,
    artefact: str,
    config: Any,
    title: str,
    *,
    count: int = 10,
    from_boxes: bool = False,
    colour: bool = False,
) -> Figure:
    """Augmented images of one generated face with its true points, as a network of a configuration trains on them.

    Parameters
    ----------
    config : dataclass
        With `frame` and `perturbation`.
    from_boxes : bool
        Whether crops start from the boxes of the faces, or from the tight boxes of the true points.
    colour : bool
        Whether the network sees colours.
    """
    run = replace(run, faces="synthetic")
    faces = run.source("300w", "train").sample(8)
    mean = mean_shape(torch.as_tensor(faces.points))
    one = faces.subset(np.arange(1))
    boxes = one.boxes if from_boxes else None
    samples = Samples(
        one, mean, config.frame, config.perturbation, count, run.seed, boxes=boxes, colour=colour
    )
    crops, points = samples(0)
    images = (255 * crops.movedim(1, -1)).round().to(torch.uint8).numpy()
    shown = images if colour else images[..., 0]
    figure = figures.faces_grid(shown, truth=points.numpy(), markup_name=one.markup, columns=5)
    figure.suptitle(title, fontsize="medium")
    figure.set_label(f"Augmented images of one generated face, {title}: {figure.get_label()}")
    return run.record_figure(artefact, title, figure, images=1, seeds=1)


def facts_from_official_code(paper: str) -> pd.DataFrame:
    """Where a paper is silent and its published code is not: the silence, and what is done here."""
    entries = [
        entry
        for entry in ambiguities.load(paper)
        if "code" in " ".join((entry.options, entry.choice, entry.reason))
    ]
    return pd.DataFrame(
        [(entry.id, entry.where, entry.options, entry.choice) for entry in entries],
        columns=["entry", "where", "options", "choice"],
    )
