"""What the page on DAN's implementation shows: configurations, augmentation, checks of the error measures, facts from the official code."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from replicate.evidence import ambiguities, figures, published
from replicate.evidence.experiment import Experiment
from replicate.evidence.measured import FAILURE_THRESHOLD
from replicate.evidence.rows import Row
from replicate.faces.augment import Samples
from replicate.faces.markups import markup
from replicate.faces.protocols import official_count
from replicate.faces.sources import FaceSource
from replicate.methods.dan import CONFIGS, DANConfig
from replicate.metrics import auc, ced_at, failure_rate, nme
from replicate.shapes import mean_shape

SAME = "same"


def config_table() -> pd.DataFrame:
    """The paper's configuration and what the profiles change of it, one line for each field."""
    columns = {"paper": _described(DANConfig())}
    for (profile, faces), config in CONFIGS.items():
        alike = CONFIGS[profile, "synthetic"] == CONFIGS[profile, "real"]
        described = _described(config)
        columns[profile if alike else f"{profile}, {faces}"] = {
            name: SAME if value == columns["paper"][name] else value for name, value in described.items()
        }
    return pd.DataFrame(columns).rename_axis("field").reset_index()


def _described(config: DANConfig) -> dict[str, str]:
    fields = {name: getattr(config, name) for name in asdict(config) if name != "variant"}
    return {name: _words(value) for name, value in fields.items()}


def _words(value: object) -> str:
    if isinstance(value, DANConfig):
        before = value.narrow or value.pretraining
        return f"width {value.width}, samples {_words(value.samples)}" + (
            f", after {_words(before)}" if before else ""
        )
    if isinstance(value, tuple):
        return " + ".join(f"{number:,}" for number in value)
    return "none" if value is None else f"{value:,}" if type(value) is int else str(value)


def augmentation_rows(run: Experiment, config: DANConfig, train: FaceSource) -> list[Row]:
    """How many images the paper makes of its training faces, by both readings, and how many samples this profile draws."""
    made = published.value("DAN-S8")
    kept = official_count("300w", "train") - DANConfig().validation_faces
    own = train.count - config.validation_faces
    stages = _samples(config)
    counts = {
        "DAN, ten of each face": {"training images": kept, "augmented images": made * kept},
        "DAN, ten of each face and ten of its mirror image": {
            "training images": kept,
            "augmented images": 2 * made * kept,
        },
        "DAN, new ones at every step": {
            "training images": own,
            "validation images": config.validation_faces,
            **{f"samples at most, stage {number}": n for number, n in enumerate(stages, start=1)},
        },
    }
    rows = [row for method, numbers in counts.items() for row in run.count_rows("DAN-S8", method, numbers)]
    per_face = {"images per training image": stages[0] / own}
    return rows + run.count_rows("DAN-S8", "DAN, augmentation", per_face, unit="")


def _samples(config: DANConfig) -> list[int]:
    """Samples of the training faces that each stage sees at most, as a narrow network and as a wide one."""
    narrow = config.narrow.samples if config.narrow else (0,) * config.most_stages
    return [sum(pair) for pair in zip(config.samples, narrow, strict=True)]


def augmented_faces(run: Experiment, config: DANConfig, title: str, count: int = 10) -> Figure:
    """Augmented images of one generated face with its true points, as a network of this configuration trains on them."""
    faces = replace(run.source("300w", "train"), faces="synthetic").sample(8)
    mean = mean_shape(torch.as_tensor(faces.points))
    one = faces.subset(np.arange(1))
    samples = Samples(one, mean, config.frame, config.perturbation, count, run.seed)
    crops, points = samples(0)
    images = (255 * crops[:, 0]).round().to(torch.uint8).numpy()
    figure = figures.faces_grid(images, truth=points.numpy(), markup_name=one.markup, columns=5)
    figure.suptitle(title, fontsize="medium")
    figure.set_label(f"Augmented images of one generated face, {title}: {figure.get_label()}")
    return run.record_figure("DAN-S8", title, figure, images=1, seeds=1)


def metric_checks(threshold: float = FAILURE_THRESHOLD) -> pd.DataFrame:
    """Error measures of §4 on errors for which they are known: what is checked, what was found, what it must be."""
    uniform = threshold * (np.arange(1000) + 0.5) / 1000
    spread = 2 * uniform
    shape = np.random.default_rng(0).uniform(0, 100, (1, 68, 2))
    left, right = shape[0, list(markup("ibug68").outer_corners)]
    moved = shape + (right - left) * threshold / 100  # every point, by this share of the eye-corner distance
    error = nme(moved, shape, normaliser="inter-ocular", markup="ibug68")[0]
    at = f"{threshold / 100:g}"
    checks = [
        (f"error of points that are all off by {at} of the eye-corner distance", error, threshold),
        ("AUC of perfect predictions", auc(np.zeros(10), threshold), 100),
        (f"AUC of errors spread evenly from 0 to {at}", auc(uniform, threshold), 50),
        (f"AUC of errors above {at}", auc(np.full(10, 1.01 * threshold), threshold), 0),
        (f"failures among errors of exactly {at}", failure_rate([threshold], threshold).percent, 0),
        (
            f"failures among errors just above {at}",
            failure_rate([np.nextafter(threshold, np.inf)], threshold).percent,
            100,
        ),
        (
            f"curve at {at} and failures together, errors spread evenly from 0 to {2 * threshold / 100:g}",
            100 * ced_at(spread, threshold) + failure_rate(spread, threshold).percent,
            100,
        ),
    ]
    return pd.DataFrame(checks, columns=["measure", "found, %", "must be, %"]).astype({"found, %": float})


def facts_from_official_code() -> pd.DataFrame:
    """Where the paper is silent and the published code is not: the silence, and what is done here."""
    entries = [
        entry
        for entry in ambiguities.load("dan")
        if "code" in " ".join((entry.options, entry.choice, entry.reason))
    ]
    return pd.DataFrame(
        [(entry.id, entry.where, entry.options, entry.choice) for entry in entries],
        columns=["entry", "where", "options", "choice"],
    )
