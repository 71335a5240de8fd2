"""What the DAN chapter shows of its comparisons (§4.1 and §4.2): worst faces, starting boxes, changes from other methods."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from replicate.errors import ReplicateError
from replicate.evidence import published
from replicate.evidence.captions import caption_of
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import faces_grid
from replicate.evidence.measured import FAILURE_THRESHOLD
from replicate.evidence.predictions import Predictions, stacked_errors
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table
from replicate.evidence.verdicts import statistic_of
from replicate.evidence.views.compared import metric_change
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.methods.dan import DAN, predict_faces
from replicate.metrics import Comparison, paired_bootstrap, pixel_error

WORST = 9  # faces in Fig. 4
SHOWN, LOOKED_AT = 10, 100  # faces in our Fig. 5, and those of the test set that they are chosen from
METRICS = ("mean error, inter-ocular", "AUC 0.08, inter-ocular", "failure rate 0.08, inter-ocular")
_TABLES = ("DAN-T2", "DAN-T3", "DAN-T4")


def worst_faces(run: Experiment, network: DAN, faces: FaceSet, tested: Predictions) -> Figure:
    """Fig. 4: the faces with the largest errors, in their order.

    Parameters
    ----------
    network : DAN
        What made the predictions; it is asked again where their points are not on record.
    faces : FaceSet
        The test faces.
    tested : Predictions
        On these faces, by the network.

    Raises
    ------
    ReplicateError
        If the predictions are of other faces.
    """
    if tested.names != faces.names:
        raise ReplicateError(
            f"tested: got predictions on {tested.testset}, expected {len(faces)} faces of {faces.split}"
        )
    errors = tested.errors["inter-ocular"]
    worst = np.argsort(-errors, kind="stable")[:WORST]
    shown = faces.subset(worst)
    fitted = predict_faces(network, shown)[-1] if tested.points is None else tested.points[worst]
    titles = [f"{errors[index]:.1f} %" for index in worst]
    figure = faces_grid(shown.images, fitted, titles=titles, markup_name=faces.markup, columns=5)
    failing = int((errors > FAILURE_THRESHOLD).sum())
    what = (
        f"{len(worst)} worst of {len(faces)} {faces.split} {faces.faces} faces, profile {run.profile}, seed {run.seed}: "
        f"{failing} of {len(faces)} above {FAILURE_THRESHOLD:g} %"
    )
    figure.suptitle(what, fontsize="small")
    figure.set_label(f"{what}. Landmarks fitted by DAN in yellow; inter-ocular errors: {', '.join(titles)}.")
    return run.record_figure(
        "DAN-F4",
        "worst faces",
        figure,
        subset=faces.split,
        images=len(faces),
        seeds=1,
        box_rule=faces.box_rule,
    )


def menpo_faces(run: Experiment, network: DAN, source: FaceSource) -> Figure:
    """Fig. 5: test faces with their starting boxes: those of the first hundred on which the second stage corrects the first one most.

    The points of the Menpo test faces were not released with them, so difficulty cannot be measured by an error.
    """
    faces = source.sample(LOOKED_AT)
    first, last = predict_faces(network, faces)[-2:]
    sides = np.sqrt(np.prod(faces.boxes[:, 2:] - faces.boxes[:, :2], axis=1))
    hard = np.argsort(-pixel_error(last, first) / sides, kind="stable")[:SHOWN]
    shown = faces.subset(hard)
    figure = faces_grid(shown.images, last[hard], boxes=shown.boxes, markup_name=faces.markup, columns=5)
    what = (
        f"{len(hard)} of the first {len(faces)} {faces.protocol} {faces.split} {faces.faces} faces, "
        f"profile {run.profile}, seed {run.seed}"
    )
    figure.suptitle(what, fontsize="small")
    figure.set_label(f"{what}. Landmarks fitted by DAN in yellow, starting boxes in orange.")
    return run.record_figure(
        "DAN-F5",
        "faces with starting boxes",
        figure,
        subset=f"{source.protocol}/{source.split}",
        images=len(hard),
        seeds=1,
        box_rule=faces.box_rule,
    )


def change_statement(
    run: Experiment,
    artefact: str,
    source: FaceSource,
    after: Sequence[Predictions],
    before: Sequence[Predictions],
    *,
    metric: str,
    best: str,
    printed_in: str,
) -> list[Row]:
    """What DAN changes in one metric against the best method before: against SDM, and on real faces against the paper's by its printed number.

    Parameters
    ----------
    artefact : str
        The statement, ``"DAN-S3"``.
    after, before : sequence of Predictions
        Of DAN and of SDM on `source`.
    metric : str
        ``"failure rate 0.08, inter-ocular"``.
    best, printed_in : str
        The paper's method before, and the table with its number.
    """
    made = metric_change(
        run, artefact, source, {"DAN": after, "SDM": before}, after="DAN", before="SDM", metric=metric
    )
    if run.faces == "real":
        made.append(
            run.published_change_row(
                artefact, "DAN", source, after, against=best, printed_in=printed_in, metric=metric
            )
        )
    return made


def in_general(rows: Sequence[Row], artefact: str) -> list[Row]:
    """The same changes for a statement that names no test set; the note says on which they were measured."""
    return [
        replace(
            row,
            artefact=artefact,
            protocol="",
            subset="",
            note=f"{row.note}; {artefact} on the {row.subset} set",
        )
        for row in rows
    ]


def paired_changes(
    run: Experiment,
    names: tuple[str, str],
    after: Mapping[str, Sequence[Predictions]],
    before: Mapping[str, Sequence[Predictions]],
    title: str = "",
) -> Table:
    """Differences of two methods on several test sets, paired, beside those that the paper's numbers have.

    Parameters
    ----------
    names : tuple of str
        Of the method after and the one before.
    after, before : dict of str to sequence of Predictions
        Runs by test set, one per seed.
    """
    lines = []
    for subset in after:
        for metric in METRICS:
            errors = (stacked_errors(list(side[subset]), "inter-ocular") for side in (after, before))
            compared = paired_bootstrap(*errors, statistic_of(metric))
            lines.append((subset, metric, *_sides(compared), _printed_difference(names, subset, metric)))
    one = next(iter(after.values()))
    about = caption_of(
        faces=run.faces,
        profile=run.profile,
        images={subset: len(runs[0].names) for subset, runs in after.items()},
        seeds=len(one),
        box_rule=one[0].provenance["box_rule"],
        title=title,
    )
    columns = ["subset", "metric, %", names[1], names[0], "difference", "paper's difference"]
    return Table(pd.DataFrame(lines, columns=columns), about)


def _sides(compared: Comparison) -> tuple[str, str, str]:
    difference = f"{compared.difference:+.2f} [{compared.low:+.2f}, {compared.high:+.2f}]"
    return f"{compared.right:.2f}", f"{compared.left:.2f}", difference


def _printed_difference(names: tuple[str, str], subset: str, metric: str) -> str:
    """Difference of the two methods' printed numbers; a dash if the paper has not both."""
    metric, _, normaliser = metric.partition(", ")
    where = dict(subset=subset, metric=metric, normaliser=normaliser)
    try:
        after, before = (published.value(_TABLES, label=name, **where) for name in names)
    except ReplicateError:
        return "–"
    return f"{after - before:+.2f}"
