"""What every chapter shows of methods tested on the same faces: cumulative error curves, rows of several artefacts, changes of one metric."""

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.figure import Figure

from replicate.evidence.captions import caption_of, notes_of, span
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import ced_plot
from replicate.evidence.measured import FAILURE_THRESHOLD
from replicate.evidence.predictions import Predictions, Runs, stacked_errors, trained_on
from replicate.evidence.rows import Row
from replicate.faces.sources import FaceSource

SHARED_SEEDS = "differences are over the seeds that both sides have"


def on_faces(run: Experiment, source: FaceSource, runs: Sequence[Predictions]) -> str:
    """For a title: ``"300w challenging, 135 synthetic faces"``."""
    return f"{source.protocol} {source.split}, {len(runs[0].names)} {run.faces} faces"


def behind(source: FaceSource, runs: Sequence[Predictions]) -> dict:
    """What `Experiment.record_figure` puts on record of the runs behind a figure."""
    return dict(
        subset=source.split,
        images=len(runs[0].names),
        seeds=len(runs),
        box_rule=runs[0].provenance["box_rule"],
    )


def runs_caption(
    run: Experiment,
    source: FaceSource,
    runs: Sequence[Predictions],
    title: str,
    beside: Iterable[Sequence[Predictions]] = (),
) -> str:
    """Caption of a table of methods that were tested as these runs were; some of those `beside` them may have other numbers of seeds."""
    about = behind(source, runs)
    counts = {len(runs), *map(len, beside)}
    return caption_of(
        faces=run.faces,
        profile=run.profile,
        images={about["subset"]: about["images"]},
        seeds=span(counts),
        box_rule=about["box_rule"],
        notes=(trained_on(runs[0].provenance), *([SHARED_SEEDS] if len(counts) > 1 else [])),
        title=title,
    )


def sets_caption(run: Experiment, results: Mapping[str, Runs], reference: str, title: str) -> str:
    """Caption of a table of several methods on several test sets: `results` by test set and method, images and boxes those of the reference."""
    first = next(iter(results.values()))
    seeds = span([len(runs) for by_method in results.values() for runs in by_method.values()])
    counts = {len(runs) for by_method in results.values() for runs in by_method.values()}
    notes = notes_of((method, trained_on(runs[0].provenance)) for method, runs in first.items())
    return caption_of(
        faces=run.faces,
        profile=run.profile,
        images={name: len(by_method[reference][0].names) for name, by_method in results.items()},
        seeds=seeds,
        box_rule=first[reference][0].provenance["box_rule"],
        notes=(*notes, *([SHARED_SEEDS] if len(counts) > 1 else [])),
        title=title,
    )


def cumulative_errors(
    run: Experiment,
    artefact: str,
    source: FaceSource,
    results: Mapping[str, Sequence[Predictions]],
    *,
    score: str = "inter-ocular",
    threshold: float = FAILURE_THRESHOLD,
) -> Figure:
    """Cumulative error curves of all methods on `source`, recorded for an artefact.

    Parameters
    ----------
    results : dict of str to sequence of Predictions
        By method: one run per training seed.
    score : str
        Which of their errors: ``"inter-ocular"``, or with a condition ``"inter-ocular, 51 points"``.
    threshold : float
        Right end of the curves in per cent, also of areas and failures.
    """
    normaliser, _, condition = score.partition(", ")
    curves = {name: stacked_errors(list(runs), score) for name, runs in results.items()}
    most = max(results.values(), key=len)
    title = ", ".join(filter(None, [on_faces(run, source, most), condition]))
    figure = ced_plot(curves, threshold, normaliser, title=title)
    return run.record_figure(artefact, "cumulative error", figure, **behind(source, most))


def rows_of(
    run: Experiment,
    methods: Mapping[str, Sequence[str]],
    source: FaceSource,
    results: Mapping[str, Sequence[Predictions]],
    scores: Sequence[str] | None = None,
    rates: tuple[str, float] | None = ("inter-ocular", FAILURE_THRESHOLD / 100),
) -> list[Row]:
    """Error rows of several artefacts that show the same runs, each some of them.

    Parameters
    ----------
    methods : dict of str to sequence of str
        By artefact: the methods that it shows.
    scores, rates
        See `Experiment.error_rows`.
    """
    return [
        row
        for artefact, names in methods.items()
        for name in names
        for row in run.error_rows(artefact, name, source, results[name], scores, rates)
    ]


def metric_change(
    run: Experiment,
    artefact: str,
    source: FaceSource,
    results: Mapping[str, Sequence[Predictions]],
    *,
    after: str,
    before: str,
    metric: str,
) -> list[Row]:
    """The change of one metric in per cent from one method to another, paired; no row if the metric was zero before.

    Parameters
    ----------
    results : dict of str to sequence of Predictions
        Runs of both methods on `source`, by method.
    metric : str
        ``"failure rate 0.08, inter-ocular"``.
    """
    name, _, normaliser = metric.partition(", ")
    kind = name.split()[0]  # "failure" of "failure-rate reduction vs SDM"
    made = run.change_rows(
        artefact, after, source, results[after], results[before], against=before, normaliser=normaliser
    )
    return [row for row in made if row.metric.startswith(kind)]
