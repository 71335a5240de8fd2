"""What LDDR's descriptor networks have learnt (S13): errors of the classifiers, and how well a descriptor tells which landmark it is of."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from replicate.devices import choose_device, describe_device
from replicate.evidence import timings
from replicate.evidence.experiment import Experiment
from replicate.evidence.measured import exact_rows
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.faces.augment import CORNERS, cut_canvases
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.geometry import apply_transform
from replicate.methods import lddr_training
from replicate.methods.lddr import Features, Form, LDDRConfig, as_bytes
from replicate.methods.lddr_training import Step
from replicate.metrics import bootstrap_mean
from replicate.regression import linear, mean_square, ridge
from replicate.store import StoredModel

ARTEFACT = "LDDR-S13"
CLASSIFIED = "pictures taken for another class"
CONFUSED = "patches taken for another landmark"
FACES = 96  # from which a classifier of landmarks learns, and on as many others it is tested
_PENALTY = 10.0  # in mean squares of a feature: there are far more patches than numbers in a descriptor


# The classifiers ------------------------------------------------------------------------------------------------------------------------


def classifier_rows(run: Experiment, configs: Mapping[str, LDDRConfig], train: FaceSource) -> list[Row]:
    """Share of held-out pictures that each classifier takes for what they are not, of the run's seed: from the record, else of the stored models.

    Parameters
    ----------
    configs : dict of str to LDDRConfig
        Cascades on `train`; those with descriptors that are not trained here have no classifier.
    """
    names = list(dict.fromkeys(name for config in configs.values() for name in _classifiers(config, train)))
    recorded = timings.on_record(run, ARTEFACT, CLASSIFIED, names)
    if recorded:
        return recorded
    found: dict[str, Row] = {}
    for config in configs.values():
        named = _classifiers(config, train)
        if named:
            _, models = lddr_training.obtain_features(config, train, run.profile, run.seed, device=run.device)
            of_steps = zip(named.items(), models[-len(named) :], strict=True)
            found |= {name: _classifier_row(run, name, step, model) for (name, step), model in of_steps}
    run.record(found.values())
    return list(found.values())


def _classifiers(config: LDDRConfig, train: FaceSource) -> dict[str, Step]:
    """The trainings behind a cascade, by what their classifier is called."""
    named, before = {}, "ImageNet" if config.weights.startswith("imagenet") else ""
    for step in lddr_training.steps(config, train):
        named[f"classifier of {step.name}" + f", after {before}" * bool(before)] = step
        before = step.name
    return named


def _classifier_row(run: Experiment, name: str, step: Step, model: StoredModel) -> Row:
    edition = dict(faces=run.faces, profile=run.profile, device=model.trained_on)
    [row] = exact_rows(ARTEFACT, name, {CLASSIFIED: model.report.best_error}, "%", **edition)
    note = f"{step.classes} classes, {model.report.samples:,} pictures seen"
    return replace(row, images=step.config.validation, seeds=1, seconds=model.report.seconds, note=note)


# Which landmark is it? --------------------------------------------------------------------------------------------------------------------


def part_rows(
    run: Experiment, configs: Mapping[str, LDDRConfig], train: FaceSource, source: FaceSource
) -> list[Row]:
    """How often a linear classifier takes a landmark's patch for another's, for the features of each cascade and each size of patches: from the record,
    else measured now with the features of the run's seed.

    Parameters
    ----------
    configs : dict of str to LDDRConfig
        Cascades on `train`, by name.
    train, source : FaceSource
        From whose first faces the classifier learns, and on whose first faces it is tested.
    """
    forms = {form.input: form for config in configs.values() for form in config.forms}
    names = [f"{name}, {side} pixels" for name in configs for side in forms]
    recorded = timings.on_record(run, ARTEFACT, CONFUSED, names)
    if recorded:
        return recorded
    learning, tested, device = train.sample(FACES), source.sample(FACES), choose_device(run.device)
    made = []
    for name, config in configs.items():
        features, _ = lddr_training.obtain_features(config, train, run.profile, run.seed, device=run.device)
        for side, form in forms.items():
            errors = part_errors(features, form, config, learning, tested, device)
            made.append(_part_row(run, f"{name}, {side} pixels", source, tested, errors))
    run.record(made)
    return made


def _part_row(run: Experiment, name: str, source: FaceSource, tested: FaceSet, errors: np.ndarray) -> Row:
    value, low, high = bootstrap_mean(errors)
    return Row(
        artefact=ARTEFACT, method=name, protocol=source.protocol, subset=source.split, points=tested.points.shape[1], metric=CONFUSED,
        normaliser=NO_NORMALISER, value=value, ci_low=low, ci_high=high, unit="%", images=len(tested), seeds=1, faces=run.faces,
        profile=run.profile, device=describe_device(choose_device(run.device)),
    )  # fmt: skip


def part_errors(
    features: Features,
    form: Form,
    config: LDDRConfig,
    learning: FaceSet,
    tested: FaceSet,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Share of each test face's patches that are taken for those of other landmarks, (N,) in per cent.

    The classifier is a linear regression to one number for each landmark, learnt from patches at the true places; the largest number wins.

    Parameters
    ----------
    features : callable
        What is computed of a patch.
    form : Form
        Says how large patches are.
    config : LDDRConfig
        Says how faces are cut.
    """
    count = tested.points.shape[1]
    known, asked = (descriptors(features, form, config, faces, device) for faces in (learning, tested))
    truth = torch.eye(count, device=known.device).repeat(len(learning), 1)
    guessed = (
        linear(asked, ridge(known, truth, _PENALTY * mean_square(known))).argmax(1).view(-1, count).cpu()
    )
    return 100 * (guessed != torch.arange(count)).float().mean(1).double().numpy()


def descriptors(
    features: Features, form: Form, config: LDDRConfig, faces: FaceSet, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """What features say of the true landmarks of some faces, one after the other: (N * L, D)."""
    canvases = cut_canvases(faces.images, faces.boxes, CORNERS, config.frame, colour=True)
    crops = as_bytes(canvases.to(device).crops(torch.arange(len(faces), device=device)))
    points = apply_transform(canvases.from_image, torch.as_tensor(faces.points)).to(device)
    parts = zip(crops.split(32), points.split(32), strict=True)
    return torch.cat([features(*part, form) for part in parts]).view(points.shape[0] * points.shape[1], -1)
