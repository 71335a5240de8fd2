"""What TCNN's vanilla network learns (§2.2), in rows and verdicts: sizes of clusters (Table 1), how sharp their mean images are (Fig. 1), and how much
landmarks and attributes vary in them (Figs 3 and 4), level by level.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from replicate.evidence import claims
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.judging import Comparisons
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.views.tcnn_measures import (
    LEARNING,
    NAMES,
    VALIDATING,
    Study,
    comparison,
    controlled,
    drop,
)
from replicate.faces import protocols
from replicate.methods import tcnn
from replicate.methods.tcnn import LEVELS
from replicate.methods.tcnn_analysis import LAST, RGB
from replicate.metrics import Interval

LANDMARKS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
ATTRIBUTES = ("gender", "smiling", "eyeglasses")  # in the order of `LABELS`, as the paper's values name them
VARIANCE, OF_EYES = "principal-axis variance", "principal-axis variance, of the squared eye distance"
CLAIMED = {"TCNN-C3": "smiling", "TCNN-C4": "eyeglasses", "TCNN-C5": "gender"}
ALTERNATIVES = {"diagonal covariances": dict(covariance="diag"), "k-means": dict(clustering="k-means")}


# Rows -----------------------------------------------------------------------------------------------------------------------------------------


def _rows(run: Experiment, studied: Study, artefact: str, part: str = LEARNING) -> Callable[..., Row]:
    """What rows of §2.2 share; the paper's name of its data stands for the faces here."""

    def make(method: str, metric: str, unit: str, found: Interval) -> Row:
        return Row(
            artefact=artefact, method=method, protocol="sun2013", subset=part, points=None, metric=metric, normaliser=NO_NORMALISER,
            value=found.value, ci_low=found.low, ci_high=found.high, unit=unit, images=studied.images(part), seeds=studied.networks,
            faces=run.faces, profile=run.profile, device=studied.trained_on, seconds=studied.seconds, model=studied.models,
            box_rule=protocols.box_rule_of("mtfl", "train").text, note=studied.note,
        )  # fmt: skip

    return make


def _level(level: str) -> str:
    return f"input of {level}"


def size_rows(run: Experiment, studied: Study) -> list[Row]:
    """Table 1: median and standard deviation of cluster sizes by level."""
    make, found = _rows(run, studied, "TCNN-T1"), []
    for level in LEVELS:
        method = f"GMM on vanilla CNN features, input features of {level}"
        for metric, statistic in (("median cluster size", np.median), ("SD of cluster sizes", np.std)):
            found.append(make(method, metric, "images", studied.sizes(level, statistic).interval()))
    return found


def landmark_rows(run: Experiment, studied: Study) -> list[Row]:
    """Fig. 3: Eq. 3 for each landmark and level, in squared pixels and relative to the distance of the eyes."""
    make, found = _rows(run, studied, "TCNN-F3"), []
    for level in LEVELS:
        for place in range(tcnn.LANDMARKS):
            method = f"vanilla CNN, landmark {place + 1}, {_level(level)}"
            measured = studied.variances(level).of(place)
            found.append(make(method, "principal-axis variance, Eq. 3", "px²", measured.interval()))
            relative = measured.times(100 / studied.eye_distance)
            found.append(make(method, OF_EYES, "%", relative.interval()))
    return found


def variance_rows(run: Experiment, studied: Study, suffix: str = "") -> list[Row]:
    """Eq. 3 averaged over landmarks, of learning and of validating faces, for all levels and their controls.

    Parameters
    ----------
    suffix : str
        Added to the names, for another clustering than the paper's; of this the controls are left out.
    """
    found = []
    for part in (LEARNING, VALIDATING):
        make = _rows(run, studied, "TCNN-F3", part)
        for name, measured in controlled(partial(studied.variances, part=part), not suffix).items():
            found.append(make(name + suffix, VARIANCE, "px²", measured.overall().interval()))
    return found


def drop_rows(run: Experiment, studied: Study) -> list[Row]:
    """S5: by how much the variance falls from the RGB input to the input of FC5, for each landmark and for all."""
    make, metric = _rows(run, studied, "TCNN-S5"), "relative drop of average intra-cluster location variance"
    last, first = studied.variances(LAST), studied.variances(RGB)
    method = "vanilla CNN, RGB input to FC5 input"
    found = [make(method, metric, "%", drop(last.overall(), first.overall()))]
    for place, landmark in enumerate(LANDMARKS):
        found.append(make(f"{method}, {landmark}", metric, "%", drop(last.of(place), first.of(place))))
    return found


def attribute_rows(run: Experiment, studied: Study) -> list[Row]:
    """Fig. 4: Eq. 4 for each attribute and level, of learning and of validating faces, and for all controls under names of their own."""
    levels = {NAMES[level]: level for level in LEVELS}
    found = []
    for part in (LEARNING, VALIDATING):
        make = _rows(run, studied, "TCNN-F4", part)
        for name, measured in controlled(partial(studied.label_variances, part=part)).items():
            for place, attribute in enumerate(ATTRIBUTES):
                method = f"{name}, {attribute}"
                if name in levels:
                    method = f"vanilla CNN, {attribute}, {_level(levels[name])}"
                row = make(method, "attribute variance, Eq. 4", "", measured.of(place).interval())
                found.append(row)
    return found


def share_rows(run: Experiment, studied: Study) -> list[Row]:
    """S6: share of positive labels among all training faces, learning and validating ones."""
    labels = np.concatenate([studied.faces.labels, studied.faces.validating_labels])
    make, found = _rows(run, studied, "TCNN-S6"), []
    for place, attribute in enumerate(("male", *ATTRIBUTES[1:])):
        row = make(attribute, "share of positives", "%", Interval(100 * labels[:, place].mean(), None, None))
        known = dict(images=len(labels), seeds=None, seconds=None, model="", box_rule="", note="")
        found.append(replace(row, **known))
    return found


def sharpness_rows(run: Experiment, studied: Study) -> list[Row]:
    """Fig. 1 in numbers: how sharp the mean images of clusters are, by level, with controls."""
    make, found = _rows(run, studied, "TCNN-F1"), []
    measures = {
        "sharpness of mean images": (studied.energy, "squared grey levels"),
        "sharpness shared by two faces": (studied.shared, "%"),
    }
    for metric, (measure, unit) in measures.items():
        for name, measured in controlled(measure).items():
            found.append(make(name, metric, unit, measured.interval()))
    return found


# Verdicts -------------------------------------------------------------------------------------------------------------------------------------


def judge_landmarks(run: Experiment, studied: Study) -> list[Verdict]:
    """C1: the variance halves from RGB to FC5; C2: CL4 is as good as FC5. Judged on the faces of which the clusters were made, as in the paper."""
    last, fourth, first = (studied.variances(name).overall() for name in (LAST, "CL4", RGB))
    held = drop(*(studied.variances(name, VALIDATING).overall() for name in (LAST, RGB)))
    note = f"on validating faces the variance falls by {held.value:.1f} % [{held.low:.1f}, {held.high:.1f}]"
    return [
        _judge(run, studied, "TCNN-C1", comparison(last, first), note),
        _judge(run, studied, "TCNN-C2", comparison(fourth, last)),
    ]


def judge_attributes(run: Experiment, studied: Study) -> list[Verdict]:
    """C3 to C5: attributes in clusters of FC5's input against those of RGB; gender only where the labels are people's."""
    found = []
    for claim, attribute in CLAIMED.items():
        if run.faces == "synthetic" and not claims.get(claim).transferable:
            found.append(claims.unjudged(claims.get(claim), faces=run.faces, profile=run.profile))
            continue
        place = ATTRIBUTES.index(attribute)
        sides = (studied.label_variances(name).of(place) for name in (LAST, RGB))
        found.append(_judge(run, studied, claim, comparison(*sides)))
    return found


def judge_sharpness(run: Experiment, studied: Study) -> Verdict:
    """C6 by both measures, since the plain one grows as clusters become small."""
    sides = {
        "gradient energy of mean images": comparison(*map(studied.energy, (LAST, RGB))),
        "energy shared by two faces": comparison(*map(studied.shared, (LAST, RGB))),
    }
    return _judge(run, studied, "TCNN-C6", sides)


def _judge(run: Experiment, studied: Study, claim: str, found: Comparisons, note: str = "") -> Verdict:
    note = "; ".join(filter(None, [studied.note, note]))
    return run.judge_comparison(claim, found, studied.images(), studied.networks, note)
