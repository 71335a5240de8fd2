"""Whether labels lie to one side of where faces are: mean signed differences of predicted and true points, from an image and from its mirror image (S11)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from replicate.evidence import rows as records
from replicate.evidence.captions import caption
from replicate.evidence.experiment import Experiment
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.tables import Table
from replicate.evidence.tested.tcnn_clusters import VALIDATION
from replicate.evidence.views.ablations import with_interval
from replicate.evidence.views.tcnn_ablations import ONE, mean_of
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.methods import tcnn_training
from replicate.methods.tcnn import Model, TCNNConfig, VanillaConfig
from replicate.metrics import normalising_distance

ARTEFACT = "TCNN-S11"
LEARNING = "learning"  # the part of the training faces that the networks learn from
DIRECTIONS = {"right": 0, "down": 1}
MIRRORED, BOTH = "its mirror image", "both averaged, in pixels"
NORMALISER = "inter-pupil"


def offset_rows(
    run: Experiment,
    networks: Mapping[str, VanillaConfig | TCNNConfig],
    train: FaceSource,
    tests: Mapping[str, FaceSource],
) -> list[Row]:
    """How far the predicted points lie to the right of and below the true ones, on average, from an image and from its mirror image alone: from
    the record, else by the run's first seed now, and recorded.

    Parameters
    ----------
    networks : dict of str to VanillaConfig or TCNNConfig
        Trained on `train`, by name.
    tests : dict of str to FaceSource
        Test sets by name; faces that networks learn from and faces that validate come besides.
    """
    kinds = [f"{name}, {kind}" for name, config in networks.items() for kind in _kinds(config)]
    wanted = {
        (kind, _metric(way), part)
        for kind in kinds
        for way in DIRECTIONS
        for part in (LEARNING, VALIDATION, *tests)
    }
    known = [] if run.fresh else records.load(run.paper, run.faces, run.profile)
    found = {(row.method, row.metric, row.subset): row for row in known if row.artefact == ARTEFACT}
    if wanted <= found.keys():
        return [row for key, row in found.items() if key in wanted]
    made = []
    for part, faces in _parts(train, tests).items():
        for name, config in networks.items():
            made += _rows(run, name, part, faces, _model(run, config, train), _kinds(config))
    run.record(made)
    return made


def _kinds(config: VanillaConfig | TCNNConfig) -> tuple[str, ...]:
    """What is asked of a network; that which knows no sides also in pixels, since an origin that is off is off by pixels."""
    return (ONE, MIRRORED) if isinstance(config, TCNNConfig) else (ONE, MIRRORED, BOTH)


def _metric(way: str) -> str:
    return f"mean of predicted minus true, {way}"


def _parts(train: FaceSource, tests: Mapping[str, FaceSource]) -> dict[str, FaceSet]:
    faces = train.load()
    out = tcnn_training.held_out(len(faces))
    both = {LEARNING: faces.subset(~out, LEARNING), VALIDATION: faces.subset(out, VALIDATION)}
    return both | {name: source.load() for name, source in tests.items()}


def _model(run: Experiment, config: VanillaConfig | TCNNConfig, train: FaceSource) -> Model:
    how = tcnn_training.obtain if isinstance(config, TCNNConfig) else tcnn_training.obtain_vanilla
    return how(config, train, run.profile, run.seed, device=run.device)[0]


def _rows(
    run: Experiment, name: str, part: str, faces: FaceSet, model: Model, kinds: Sequence[str]
) -> list[Row]:
    offsets, rows = signed_offsets(model, faces), []
    for kind in kinds:
        [about] = run.count_rows(ARTEFACT, f"{name}, {kind}", {"offset": 0.0})
        normaliser, unit = (NO_NORMALISER, "px") if kind == BOTH else (NORMALISER, "%")
        where = dict(protocol="mtfl", subset=part, points=5, normaliser=normaliser)
        about = replace(about, images=len(faces), seeds=1, box_rule=faces.box_rule, **where)
        rows += [
            mean_of(about, _metric(way), offsets[kind][:, axis], unit) for way, axis in DIRECTIONS.items()
        ]
    return rows


def signed_offsets(model: Model, faces: FaceSet) -> dict[str, np.ndarray]:
    """Mean over the landmarks of predicted minus true, (N, 2): from the image and from its mirror image with the answer mirrored back, in per
    cent of the distance of the eyes, and from both on average in pixels of the photograph.
    """
    plain, both = (tcnn_training.predict_faces(model, faces, mirror=mirror) for mirror in (False, True))
    eyes = normalising_distance(faces.points, NORMALISER, faces.markup)[:, None]
    answers = {ONE: plain, MIRRORED: 2 * both - plain}
    found = {kind: 100 * (points - faces.points).mean(1) / eyes for kind, points in answers.items()}
    pixel = np.broadcast_to(faces.attributes.get("pixel", 1.0), len(faces))[
        :, None
    ]  # of a reduced photograph
    return found | {BOTH: (both - faces.points).mean(1) * pixel}


def offset_table(rows: Sequence[Row], title: str) -> Table:
    """A line for each network, kind of answer and direction, a column for each part; in per cent unless the line says pixels."""
    ways = {_metric(way): way for way in DIRECTIONS}
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        sides = (row.value, row.ci_low, row.ci_high)
        shown = f"{row.value:+.2f}" if row.ci_low is None else with_interval(*sides, "+")
        lines.setdefault((row.method, ways[row.metric]), {})[row.subset] = shown
    columns = list(dict.fromkeys(name for cells in lines.values() for name in cells))
    table = [(*key, *(cells.get(name, "–") for name in columns)) for key, cells in lines.items()]
    about = caption(rows, title)
    return Table(pd.DataFrame(table, columns=["answer of", "to the", *columns]), about)
