"""What a notebook works with: faces, predictions, rows and verdicts of one paper at one profile."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from replicate.devices import choose_device, describe_device
from replicate.evidence import claims, manifest, predictions, rows, verdicts
from replicate.evidence.claims import Verdict
from replicate.evidence.predictions import Predictions, stacked_errors
from replicate.evidence.rows import Row
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.metrics import (
    Statistic,
    auc,
    bootstrap_statistic,
    failure_percent,
    failures,
    nme,
    relative_change,
)
from replicate.vocabulary import FACES, PAPERS, PROFILES, check_one_of

NORMALISERS = ("inter-ocular", "inter-pupil", "diagonal")  # what every prediction file holds
FAILURE_THRESHOLD = 8.0  # per cent of the inter-ocular distance: 300-W's failure, DAN §4
_AUC: Statistic = partial(auc, threshold=FAILURE_THRESHOLD)
_FAILURES: Statistic = partial(failure_percent, threshold=FAILURE_THRESHOLD)


@dataclass(frozen=True)
class Trained:
    """Models that are ready to be tested.

    Attributes
    ----------
    predict : callable
        From faces to one array (N, L, 2) of image pixels per model.
    seconds : sequence of float
        What each model took to train.
    on : FaceSource
        The training faces.
    """

    predict: Callable[[FaceSet], Sequence[np.ndarray]]
    seconds: Sequence[float]
    on: FaceSource


@dataclass(frozen=True)
class Experiment:
    """One paper's work at one profile on one kind of faces.

    Parameters
    ----------
    paper : str
        `dan`, ...
    profile, faces : str
        See `replicate.vocabulary`.
    seed : int
        First training seed.
    device : str
        `auto`, `cpu`, `cuda`, ...
    fresh : bool
        Train and predict again, once, whatever is stored.
    """

    paper: str
    profile: str = "smoke"
    faces: str = "synthetic"
    seed: int = 0
    device: str = "auto"
    fresh: bool = False
    _obtained: dict[tuple[str, ...], Trained] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _tested: set[Path] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_one_of("paper", self.paper, PAPERS)
        check_one_of("profile", self.profile, PROFILES)
        check_one_of("faces", self.faces, FACES)
        choose_device(self.device)

    def seeds(self, count: int) -> tuple[int, ...]:
        """Training seeds for an ablation: `count` of them, one at `smoke` and one on real faces at `cpu` (their budgets)."""
        few = self.profile == "smoke" or (self.profile == "cpu" and self.faces == "real")
        return tuple(range(self.seed, self.seed + (1 if few else count)))

    def source(self, protocol: str, split: str) -> FaceSource:
        """The faces of a protocol's split, not yet loaded."""
        return FaceSource(protocol, split, self.faces, self.profile)

    def present(self, protocol: str, splits: Sequence[str]) -> list[str]:
        """Those of some splits whose faces this machine has or can make.

        Raises
        ------
        ReplicateError
            If there are none; it says where they are looked for.
        """
        found = [split for split in splits if self.source(protocol, split).available]
        if not found:
            self.source(protocol, splits[0]).load()  # says what is absent, and what to do
        return found

    def test(
        self, models: Sequence[str], source: FaceSource, obtain: Callable[[], Trained]
    ) -> list[Predictions]:
        """Predictions of several models on one test set: from the record, else computed now and stored.

        Parameters
        ----------
        models : sequence of str
            Their hashes.
        source : FaceSource
            The test faces; the parts of a union are tested and stored apart and joined here.
        obtain : callable
            Gives the trained models; called at most once for the same models, and only if something is not on record.
        """
        parts = [self._test_part(models, part, obtain) for part in source.parts]
        return [_join(runs, f"{source.protocol}-{source.split}") for runs in zip(*parts, strict=True)]

    def _test_part(
        self, models: Sequence[str], source: FaceSource, obtain: Callable[[], Trained]
    ) -> list[Predictions]:
        testset = f"{source.protocol}-{source.split}-{self.faces}-{source.fingerprint[:8]}"
        files = [predictions.path_of(model, testset, self.paper, self.profile) for model in models]
        if all(file.exists() and (file in self._tested or not self.fresh) for file in files):
            return [predictions.read(file) for file in files]
        if (
            tuple(models) not in self._obtained
        ):  # other test sets want them too, and `fresh` must not train again
            self._obtained[tuple(models)] = obtain()
        trained = self._obtained[tuple(models)]
        faces = source.load()
        shapes = trained.predict(faces)
        provenance = {
            "device": describe_device(choose_device(self.device)),
            "faces_sha256": faces.sha256,
            "box_rule": faces.box_rule,
            "training_faces": trained.on.count,
        }
        runs = []
        for model, predicted, seconds in zip(models, shapes, trained.seconds, strict=True):
            errors = {n: nme(predicted, faces.points, normaliser=n, markup=faces.markup) for n in NORMALISERS}
            # points of real faces are nobody's to publish
            points = np.asarray(predicted) if self.faces == "synthetic" else None
            about = provenance | {"training_seconds": round(seconds, 1)}
            runs.append(Predictions(model, testset, self.faces, faces.names, errors, points, about))
            self._tested.add(predictions.save(runs[-1], self.paper, self.profile))
        return runs

    def error_rows(
        self,
        artefact: str,
        method: str,
        source: FaceSource,
        runs: Sequence[Predictions],
        normalisers: Sequence[str] = NORMALISERS,
    ) -> list[Row]:
        """Mean error per normaliser, and AUC and failures at 0.08 of the inter-ocular distance, each with a 95 % interval.

        Parameters
        ----------
        runs : sequence of Predictions
            One per training seed, on the same faces.
        """
        about = self._about(artefact, method, source, runs)
        errors = stacked_errors(runs, "inter-ocular")
        made = [
            self._row(about, "mean error", name, stacked_errors(runs, name), np.mean) for name in normalisers
        ]
        made.append(self._row(about, "AUC 0.08", "inter-ocular", errors, _AUC))
        failing = int(failures(errors, FAILURE_THRESHOLD).sum())
        made.append(self._row(about, "failure rate 0.08", "inter-ocular", errors, _FAILURES, count=failing))
        return made

    def _about(
        self, artefact: str, method: str, source: FaceSource, runs: Sequence[Predictions]
    ) -> Callable[..., Row]:
        """What the rows of one method on one test set share."""
        provenance = runs[0].provenance
        return partial(
            Row,
            artefact=artefact,
            method=method,
            protocol=source.protocol,
            subset=source.split,
            points=68,
            images=len(runs[0].names),
            seeds=len(runs),
            faces=self.faces,
            profile=self.profile,
            device=provenance["device"],
            seconds=sum(run.provenance["training_seconds"] for run in runs),
            faces_sha256=provenance["faces_sha256"],
            box_rule=provenance["box_rule"],
            model=" ".join(run.model for run in runs),
            note=f"trained on {provenance['training_faces']:,} faces",
        )

    @staticmethod
    def _row(
        about: Callable[..., Row],
        metric: str,
        normaliser: str,
        errors: np.ndarray,
        statistic: Statistic,
        **more: int,
    ) -> Row:
        interval = bootstrap_statistic(errors, statistic)
        return about(
            metric=metric,
            normaliser=normaliser,
            value=interval.value,
            ci_low=interval.low,
            ci_high=interval.high,
            unit="%",
            **more,
        )

    def change_rows(
        self,
        artefact: str,
        method: str,
        source: FaceSource,
        after: Sequence[Predictions],
        before: Sequence[Predictions],
    ) -> list[Row]:
        """How much AUC rises and mean error and failures fall from `before` to `after`, in per cent, with paired intervals.

        A failure rate that was zero before has no relative change and gives no row.
        """
        sides = [stacked_errors(list(runs), "inter-ocular") for runs in (after, before)]
        # without a number of points, as the papers' relative numbers are listed
        about = partial(self._about(artefact, method, source, after), points=None)
        made = []
        for metric, sign, statistic in (
            ("mean-error reduction", -1, np.mean),
            ("AUC increase", 1, _AUC),
            ("failure-rate reduction", -1, _FAILURES),
        ):
            if np.mean(statistic(sides[1], axis=-1)) == 0:
                continue
            change = relative_change(*sides, statistic)
            low, high = sorted((sign * change.low, sign * change.high))
            made.append(
                about(
                    metric=metric,
                    normaliser=rows.NO_NORMALISER,
                    value=sign * change.value,
                    ci_low=low,
                    ci_high=high,
                    unit="% relative",
                )
            )
        return made

    def count_rows(
        self, artefact: str, method: str, counts: dict[str, float], unit: str = "count"
    ) -> list[Row]:
        """Rows for numbers that are exact, such as sizes of layers: metric to value."""
        return [
            Row(
                artefact=artefact, method=method, protocol="", subset="", points=None, metric=metric, normaliser=rows.NO_NORMALISER,
                value=value, ci_low=None, ci_high=None, unit=unit, images=None, seeds=None, faces=self.faces, profile=self.profile,
                device=describe_device(choose_device(self.device)),
            )
            for metric, value in counts.items()
        ]  # fmt: skip

    def record(self, results: Sequence[Row]) -> None:
        """Put rows on record; numbers that have not moved leave their files untouched."""
        rows.record(results)

    def record_figure(self, artefact: str, title: str, figure: plt.Figure, **shown: object) -> plt.Figure:
        """Put on record that the artefact's figure was made; its label is the alternative text. Returns the figure."""
        manifest.record(
            [
                manifest.Figure(
                    artefact=artefact,
                    title=title,
                    alt=figure.get_label(),
                    faces=self.faces,
                    profile=self.profile,
                    **shown,
                )
            ]
        )
        return figure

    def judge(
        self, claim_id: str, left: Sequence[Predictions], right: Sequence[Predictions], note: str = ""
    ) -> Verdict:
        """Judge and record a claim about errors on the same faces; `left` and `right` hold one run per seed.

        A claim about several metrics is judged on all of them.
        """
        claim = claims.get(claim_id)
        normaliser = claim.quantities[0].metric.split(", ")[-1]
        errors = (stacked_errors(list(side), normaliser) for side in (left, right))
        verdict = verdicts.judge_all(claim, *errors, faces=self.faces, profile=self.profile, note=note)
        claims.record([verdict])
        return verdict


def _join(runs: Sequence[Predictions], testset: str) -> Predictions:
    """One run from the runs of the same model on disjoint test sets."""
    if len(runs) == 1:
        return runs[0]
    first = runs[0]
    hashes = " ".join(run.provenance["faces_sha256"] for run in runs)
    return Predictions(
        first.model,
        testset,
        first.faces,
        tuple(name for run in runs for name in run.names),
        {n: np.concatenate([run.errors[n] for run in runs]) for n in first.errors},
        None if first.points is None else np.concatenate([run.points for run in runs]),
        {**first.provenance, "faces_sha256": hashes},
    )
