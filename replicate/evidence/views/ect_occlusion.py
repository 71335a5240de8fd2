"""What the page on COFW shows of occlusion (§IV-A): the confidence of a landmark (Eq. 15) as a sign that it is hidden."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.metrics import precision_recall_curve

from replicate.errors import ReplicateError
from replicate.evidence import claims, published
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import PALETTE, faces_grid
from replicate.evidence.predictions import Predictions, Runs
from replicate.evidence.rows import NO_NORMALISER, Row
from replicate.evidence.views.compared import behind, on_faces
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.metrics import compare_recalls, recall_against_number, recall_at_precision, recall_interval

PRECISION = 80.0  # per cent, §IV-A
RECALL = "occlusion recall at precision 80 %"
BEFORE = "best previous (one of Wu and Ji, RCPR, RAR, SimLPD)"  # as the published values name it
EARLIER = "SDM and logistic regression"  # see `replicate.evidence.occlusion`
_VISIBLE, _HIDDEN = PALETTE[5], PALETTE[1]

# Table VI, S7, S20 -------------------------------------------------------------------------------------------------------------------


def with_confidence(results: Runs) -> dict[str, Sequence[Predictions]]:
    """Of the methods of `ect_protocols.compared_methods` those that have confidences; none of none."""
    names = {EARLIER: "SDM", "ECT": "ECT"}
    return {name: results[method] for name, method in names.items() if method in results}


def scores_of(runs: Sequence[Predictions]) -> np.ndarray:
    """How likely each landmark is hidden, (S, N, L): one less its confidence.

    Raises
    ------
    ReplicateError
        If the confidences of a run are not on record.
    """
    for one in runs:
        if one.confidence is None:
            raise ReplicateError(
                f"{one.model}: its confidences on {one.testset} are not on record; only ECT and SDM on COFW have some"
            )
    return 1 - np.stack([one.confidence for one in runs])


def recall_rows(
    run: Experiment, artefact: str, source: FaceSource, results: Runs, hidden: np.ndarray
) -> list[Row]:
    """Recall of hidden landmarks at a precision of 80 %, with its interval over faces.

    Parameters
    ----------
    results : dict of str to sequence of Predictions
        Of methods with confidences.
    hidden : array
        (N, L) bool, the truth.
    """
    made = []
    for method, runs in results.items():
        like = run.error_rows(artefact, method, source, runs, rates=None)[0]
        found = recall_interval(scores_of(runs), hidden, PRECISION)
        made.append(
            replace(like, metric=RECALL, normaliser=NO_NORMALISER, unit="%", value=found.value, ci_low=found.low, ci_high=found.high)
        )  # fmt: skip
    return made


def judge_occlusion(run: Experiment, results: Runs, hidden: np.ndarray) -> Verdict:
    """ECT-C15: on generated faces against `EARLIER`, on photographs against the printed recall of the best method before.

    Parameters
    ----------
    results : dict of str to sequence of Predictions
        Of `with_confidence`.
    """
    claim = claims.get("ECT-C15")
    ours = scores_of(results["ECT"])
    if run.faces == "real":
        number = published.value("ECT-T6", label=BEFORE, metric=RECALL)
        compared, note = recall_against_number(ours, hidden, PRECISION, number), f"against {BEFORE}"
    else:
        compared = compare_recalls(ours, scores_of(results[EARLIER]), hidden, PRECISION)
        note = f"{claim.right}: {EARLIER}"
    return run.judge_comparison(claim.id, compared, images=len(hidden), seeds=len(ours), note=note)


def threshold(scores: np.ndarray, hidden: np.ndarray, precision: float = PRECISION) -> float:
    """The lowest score from which on landmarks are called hidden so that at least `precision` per cent of these are; infinite if there is none.

    Parameters
    ----------
    scores, hidden : array
        (N, L), of one model and the truth.
    """
    found, _, thresholds = precision_recall_curve(hidden.ravel(), scores.ravel())
    return float(thresholds[100 * found[:-1] >= precision].min(initial=np.inf))


def rule_rows(run: Experiment, scores: np.ndarray, hidden: np.ndarray) -> list[Row]:
    """S20: the threshold on the confidence for a precision of 80 %, and what it calls hidden.

    Parameters
    ----------
    scores, hidden : array
        (N, L), of one model and the truth.
    """
    from_score = threshold(scores, hidden)
    called = scores >= from_score
    counts = {
        "landmarks": hidden.size,
        "hidden landmarks": hidden.sum(),
        "landmarks called hidden": called.sum(),
        "hidden landmarks called hidden": (called & hidden).sum(),
    }
    rows = run.count_rows("ECT-S20", "ECT", counts)
    if not called.any():
        return rows
    confidence = {"highest confidence that is called hidden": 1 - from_score}
    shares = {
        "precision": 100 * (called & hidden).sum() / called.sum(),
        "recall": 100 * (called & hidden).sum() / hidden.sum(),
    }
    return [
        *rows,
        *run.count_rows("ECT-S20", "ECT", confidence, ""),
        *run.count_rows("ECT-S20", "ECT", shares, "%"),
    ]


def occlusion_figure(run: Experiment, source: FaceSource, results: Runs, hidden: np.ndarray) -> Figure:
    """Confidences of visible and hidden landmarks by ECT, and precision against recall of all methods with confidences (S7, S20)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.4), layout="constrained")
    scores = scores_of(results["ECT"])
    from_score = threshold(scores[0], hidden)
    _confidences(left, 1 - scores, hidden, 1 - from_score)
    told = [
        f"{name}: recall {_curve(right, name, runs, hidden, color):.1f} % at precision {PRECISION:g} %"
        for color, (name, runs) in zip(PALETTE, results.items(), strict=False)
    ]
    right.axhline(hidden.mean(), color="0.4", linestyle=":", linewidth=1, label="all called hidden")
    right.axhline(PRECISION / 100, color="0.4", linestyle="--", linewidth=1)
    right.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall of hidden landmarks", ylabel="precision")
    right.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.2))  # below: it never hides a curve
    title = f"{on_faces(run, source, results['ECT'])}, profile {run.profile}"
    figure.suptitle(title, fontsize="medium")
    figure.set_label(
        f"{title}. Left: confidences of visible and of hidden landmarks by ECT. Right: precision against recall. {'; '.join(told)}."
    )
    return run.record_figure("ECT-S7", "confidence and occlusion", figure, **behind(source, results["ECT"]))


def _confidences(ax: Axes, confidence: np.ndarray, hidden: np.ndarray, limit: float) -> None:
    flags, edges = np.broadcast_to(hidden, confidence.shape), np.linspace(0, 1, 41)
    for words, chosen, color in (("visible", ~flags, _VISIBLE), ("hidden", flags, _HIDDEN)):
        ax.hist(confidence[chosen], edges, density=True, color=color, alpha=0.6, label=words)
    if np.isfinite(limit):
        ax.axvline(limit, color="black", linewidth=1, label=f"precision {PRECISION:g} %")
    ax.set(xlim=(0, 1), xlabel="confidence, Eq. 15", ylabel="density")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.2))


def _curve(ax: Axes, name: str, runs: Sequence[Predictions], hidden: np.ndarray, color: str) -> float:
    """Precision against recall of each seed; the mean recall at a precision of 80 %."""
    scores = scores_of(runs)
    for number, one in enumerate(scores):
        precision, recall, _ = precision_recall_curve(hidden.ravel(), one.ravel())
        ax.plot(recall, precision, color=color, linewidth=1.4, label=name if number == 0 else None)
    return float(np.mean([recall_at_precision(one, hidden, PRECISION) for one in scores]))


# Fig. 9 ---------------------------------------------------------------------------------------


def occluded_faces(
    run: Experiment,
    faces: FaceSet,
    one: Predictions,
    predict: Callable[[FaceSet], np.ndarray],
    count: int = 12,
) -> Figure:
    """Fig. 9: the first faces with a hidden landmark, and which of their landmarks are called hidden.

    Parameters
    ----------
    faces : FaceSet
        All test faces.
    one : Predictions
        Of ECT on these faces.
    predict : callable
        From faces to landmarks (N, L, 2).
    """
    hidden = ~faces.visible
    scores = scores_of([one])[0]
    called = scores >= threshold(scores, hidden)
    which = np.flatnonzero(hidden.any(1))[:count]
    shown = faces.subset(which)
    titles = [
        f"{(called & hidden)[index].sum()} of {hidden[index].sum()} hidden, {(called & ~hidden)[index].sum()} false"
        for index in which
    ]
    figure = faces_grid(shown.images, titles=titles, markup_name=faces.markup, columns=6, size=1.9)
    for ax, points, flags in zip(figure.axes, predict(shown), called[which], strict=False):
        _draw(ax, points, flags)
    figure.legend(
        handles=[
            Line2D([], [], marker="o", linestyle="none", color=_VISIBLE, label="called visible"),
            Line2D([], [], marker="X", linestyle="none", color=_HIDDEN, label="called hidden"),
        ],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    what = f"The first {len(which)} {run.faces} faces with hidden landmarks, profile {run.profile}, seed {run.seed}"
    figure.suptitle(what, fontsize="small")
    figure.set_label(
        f"{what}. Landmarks fitted by ECT, blue dots where they are called visible, orange crosses where hidden. Found: {'; '.join(titles)}."
    )
    return run.record_figure(
        "ECT-F9",
        "fitted faces with predicted occlusion",
        figure,
        subset=faces.split,
        images=len(which),
        seeds=1,
        box_rule=faces.box_rule,
    )


def _draw(ax: Axes, points: np.ndarray, called: np.ndarray) -> None:
    """Landmarks (L, 2), by colour and form according to whether they are called hidden (L,)."""
    look = dict(linestyle="none", markeredgecolor="black", markeredgewidth=0.3)
    ax.plot(*points[~called].T, marker="o", markersize=2.6, color=_VISIBLE, **look)
    ax.plot(*points[called].T, marker="X", markersize=4.2, color=_HIDDEN, **look)
