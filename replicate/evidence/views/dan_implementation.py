"""What the page on DAN's implementation shows: configurations, augmentation, checks of the error measures, facts from the official code."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from replicate.evidence import published
from replicate.evidence.experiment import Experiment
from replicate.evidence.measured import FAILURE_THRESHOLD
from replicate.evidence.rows import Row
from replicate.evidence.views import configurations
from replicate.faces.markups import markup
from replicate.faces.protocols import official_count
from replicate.faces.sources import FaceSource
from replicate.methods.dan import CONFIGS, DANConfig
from replicate.metrics import auc, ced_at, failure_rate, nme


def config_table() -> pd.DataFrame:
    """The paper's configuration and what the profiles change of it, one line for each field."""
    return configurations.config_table(DANConfig(), CONFIGS, without=("variant",))


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
    return configurations.augmented_faces(run, "DAN-S8", config, title, count=count)


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
    return configurations.facts_from_official_code("dan")
