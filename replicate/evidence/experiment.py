"""What a notebook works with: faces, predictions, rows and verdicts of one paper at one profile."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from replicate.devices import choose_device, describe_device
from replicate.errors import ReplicateError
from replicate.evidence import (
    captions,
    claims,
    figures,
    judging,
    manifest,
    measured,
    predictions,
    rows,
    verdicts,
)
from replicate.evidence.claims import Verdict
from replicate.evidence.judging import Comparisons
from replicate.evidence.measured import FAILURE_THRESHOLD
from replicate.evidence.predictions import Predictions, Runs, stacked_errors
from replicate.evidence.rows import Row
from replicate.evidence.scoring import Score, errors_of, scores_of
from replicate.evidence.trained import Trained
from replicate.faces.markups import markup as find_markup
from replicate.faces.sources import FaceSource
from replicate.metrics import Interval
from replicate.vocabulary import FACES, PAPERS, PROFILES, check_one_of


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
        self,
        models: Sequence[str],
        source: FaceSource,
        obtain: Callable[[], Trained],
        points: bool = True,
        more: Sequence[Score] = (),
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
        points : bool
            Whether predicted points of generated faces go on record, and not only the errors. Those of real faces never do: they are
            nobody's to publish.
        more : sequence of Score
            What the predictions are judged by beside the scores of all tests on faces of this markup.
        """
        points = points and self.faces == "synthetic"
        parts = [self._test_part(models, part, obtain, points, more) for part in source.parts]
        return [
            predictions.joined(runs, f"{source.protocol}-{source.split}") for runs in zip(*parts, strict=True)
        ]

    def _test_part(
        self,
        models: Sequence[str],
        source: FaceSource,
        obtain: Callable[[], Trained],
        points: bool,
        more: Sequence[Score],
    ) -> list[Predictions]:
        testset = f"{source.protocol}-{source.split}-{self.faces}-{source.fingerprint[:8]}"
        files = [predictions.path_of(model, testset, self.paper, self.profile) for model in models]
        on_record = [self._on_record(file) for file in files]
        wanted = {score.key for score in more}
        if all(
            run and wanted <= run.errors.keys() and (run.points is not None or not points)
            for run in on_record
        ):
            return on_record
        key = tuple(models)
        if key not in self._obtained:  # other test sets want them too, and `fresh` must not train again
            self._obtained[key] = obtain()
        trained, faces = self._obtained[key], source.load()
        scores, runs = (*scores_of(faces.markup), *more), []
        found = zip(
            models, files, trained.predict(faces), trained.provenance(faces, self.device), strict=True
        )
        for model, file, predicted, about in found:
            # a notebook that needs errors alone does not take away the points that another one has put on record
            known = file.exists() and predictions.read(file).points is not None
            kept = np.asarray(predicted.points) if points or known else None
            what = (faces.names, errors_of(predicted, faces, scores), kept, about, predicted.confidence)
            runs.append(Predictions(model, testset, self.faces, *what))
            self._tested.add(predictions.save(runs[-1], self.paper, self.profile))
        return runs

    def _on_record(self, file: Path) -> Predictions | None:
        """Predictions on record that need not be made again; None if there are none."""
        usable = file.exists() and (file in self._tested or not self.fresh)
        return predictions.read(file) if usable else None

    def error_rows(
        self,
        artefact: str,
        method: str,
        source: FaceSource,
        runs: Sequence[Predictions],
        scores: Sequence[str | Score] | None = None,
        rates: tuple[str, float] | None = ("inter-ocular", FAILURE_THRESHOLD / 100),
    ) -> list[Row]:
        """Mean errors, and AUC and failure rate of one of them, each with a 95 % interval.

        Parameters
        ----------
        runs : sequence of Predictions
            One per training seed, on the same faces.
        scores : sequence of str or Score, optional
            Which mean errors, see `replicate.evidence.scoring`; those that all tests on faces of this markup have unless told otherwise.
        rates : (str, float), optional
            The error and the threshold, as a share of the normaliser; None for neither.
        """
        about = self._about(artefact, method, source, runs)
        keys = [str(score) for score in (scores_of(runs[0].markup) if scores is None else scores)]
        made = measured.mean_rows(about, runs, keys)
        return made if rates is None else [*made, *measured.rate_rows(about, runs, *rates)]

    def failure_count_row(
        self, artefact: str, method: str, source: FaceSource, runs: Sequence[Predictions]
    ) -> Row:
        """The number of faces with an error above 0.08 of the inter-ocular distance, on average over seeds, with its interval."""
        about = self._about(artefact, method, source, runs)
        errors = stacked_errors(list(runs), "inter-ocular")
        # without points and normaliser, as the papers' counts are listed
        return measured.statistic_row(
            about, "failures 0.08", rows.NO_NORMALISER, errors, measured.failure_count, "count", points=None
        )

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
            points=find_markup(runs[0].markup).size,
            images=len(runs[0].names),
            seeds=len(runs),
            faces=self.faces,
            profile=self.profile,
            device=provenance["device"],
            seconds=sum(run.provenance["training_seconds"] for run in runs),
            faces_sha256=provenance["faces_sha256"],
            box_rule=provenance["box_rule"],
            model=" ".join(run.model for run in runs),
            note=predictions.trained_on(provenance),
        )

    def change_rows(
        self,
        artefact: str,
        method: str,
        source: FaceSource,
        after: Sequence[Predictions],
        before: Sequence[Predictions],
        *,
        against: str = "",
        normaliser: str = "inter-ocular",
    ) -> list[Row]:
        """How much AUC rises and mean error and failures fall from `before` to `after`, in per cent, with paired intervals.

        A failure rate that was zero before has no relative change and gives no row.

        Parameters
        ----------
        against : str
            Method of `before`, which the metric then names as the papers' statements do: "failure-rate reduction vs SDM".
        normaliser : str
            Of the errors.
        """
        sides = [stacked_errors(list(runs), normaliser) for runs in (after, before)]
        return measured.change_rows(self._about(artefact, method, source, after), *sides, against)

    def published_change_row(
        self,
        artefact: str,
        method: str,
        source: FaceSource,
        runs: Sequence[Predictions],
        *,
        against: str,
        printed_in: str,
        metric: str,
    ) -> Row:
        """The change of one metric in per cent from a method that is not run here, by its published number, to `runs`.

        Parameters
        ----------
        against : str
            The method that is not run.
        printed_in : str
            Artefact that prints its number.
        metric : str
            ``"failure rate 0.08, inter-ocular"``.

        Raises
        ------
        ReplicateError
            On synthetic faces: the published numbers are of photographs.
        """
        if self.faces == "synthetic":
            raise ReplicateError(f"{against}: its published numbers are of photographs; faces are synthetic")
        name, _, normaliser = metric.partition(", ")
        number = judging.printed(printed_in, against, source.split, metric)
        about = self._about(artefact, method, source, runs)
        errors = stacked_errors(list(runs), normaliser)
        note = f"{against} by its published number, without interval"
        return measured.change_from_number(about, name, errors, number, against, note)

    def count_rows(
        self, artefact: str, method: str, counts: dict[str, float], unit: str = "count"
    ) -> list[Row]:
        """Rows for numbers that are exact, such as sizes of layers: metric to value."""
        device = describe_device(choose_device(self.device))
        return measured.exact_rows(artefact, method, counts, unit, device=device, **self._edition)

    def record(self, results: Sequence[Row]) -> None:
        """Put rows on record; numbers that have not moved leave their files untouched."""
        rows.record(results)

    def record_figure(self, artefact: str, title: str, figure: plt.Figure, **shown: object) -> plt.Figure:
        """Put on record that the artefact's figure was made, and show it with a caption; its label is the alternative text.

        Parameters
        ----------
        title : str
            Tells figures of one artefact apart.
        **shown : object
            `subset`, `images`, `seeds` and `box_rule` behind it; none for a diagram, whose caption is its title.
        """
        edition = dict(faces=self.faces, profile=self.profile)
        manifest.record(
            [manifest.Figure(artefact=artefact, title=title, alt=figure.get_label(), **edition, **shown)]
        )
        about = (
            captions.figure_caption(title, **edition, **shown) if shown else f"{title[0].upper()}{title[1:]}."
        )
        figures.show(figure, about)
        return figure

    def judge(
        self, claim_id: str, left: Sequence[Predictions], right: Sequence[Predictions], note: str = ""
    ) -> Verdict:
        """Judge and record a claim about errors on the same faces; `left` and `right` hold one run per seed.

        A claim about several metrics is judged on all of them.
        """
        claim = claims.get(claim_id)
        return self._recorded(judging.judge(claim, left, right, **self._edition, note=note))

    def judge_on(self, claim_id: str, left: Runs, right: Runs, note: str = "") -> Verdict:
        """Judge and record a claim about errors on several test sets: on each that it names, as far as both sides have runs on it.

        Parameters
        ----------
        left, right : dict of str to sequence of Predictions
            Runs by subset, one per seed.
        """
        claim = claims.get(claim_id)
        return self._recorded(judging.judge_on(claim, left, right, **self._edition, note=note))

    def judge_published(self, claim_id: str, runs: Runs, method: str, note: str = "") -> Verdict:
        """Judge and record a claim against a method that is not run here, by its published numbers.

        These are numbers of photographs. On synthetic faces the verdict is that of the ledger, not testable, and nothing is recorded.

        Parameters
        ----------
        runs : dict of str to sequence of Predictions
            Runs of the claim's other side by subset, one per seed.
        method : str
            The method that is not run: one side of the claim.
        """
        claim = claims.get(claim_id)
        if self.faces == "synthetic":
            return claims.unjudged(claim, **self._edition)
        return self._recorded(judging.judge_published(claim, runs, method, **self._edition, note=note))

    def judge_failures(self, claim_id: str, runs: Sequence[Predictions], note: str = "") -> Verdict:
        """Judge and record a claim that as many faces fail as the paper counted; on synthetic faces as `judge_published`."""
        claim = claims.get(claim_id)
        if self.faces == "synthetic":
            return claims.unjudged(claim, **self._edition)
        return self._recorded(judging.judge_failures(claim, runs, **self._edition, note=note))

    def judge_number(self, claim_id: str, runs: Sequence[Predictions], note: str = "") -> Verdict:
        """Judge and record a claim about an error against the number that the paper prints; on synthetic faces as `judge_published`."""
        claim = claims.get(claim_id)
        if self.faces == "synthetic":
            return claims.unjudged(claim, **self._edition)
        return self._recorded(judging.judge_number(claim, runs, **self._edition, note=note))

    def judge_comparison(
        self,
        claim_id: str,
        comparison: Comparisons,
        images: int | None = None,
        seeds: int | None = None,
        note: str = "",
    ) -> Verdict:
        """Judge and record a claim about something else than errors: confidences, recall, times, the best of several settings.

        Parameters
        ----------
        comparison : Comparison, or dict of str to Comparison
            Of the claim's left side with its right side; by condition or name where there are several, of which the worst counts.
        images, seeds : int, optional
            Behind it.

        Raises
        ------
        ReplicateError
            If the claim is about errors, their area or failures (see `judge`), or about a range.
        """
        claim = claims.get(claim_id)
        about = dict(images=images, seeds=seeds, note=note)
        return self._recorded(judging.judge_comparison(claim, comparison, **self._edition, **about))

    def judge_interval(
        self,
        claim_id: str,
        interval: Interval,
        images: int | None = None,
        seeds: int | None = None,
        note: str = "",
    ) -> Verdict:
        """Judge and record a claim that a number lies between two limits."""
        claim = claims.get(claim_id)
        about = dict(images=images, seeds=seeds, note=note)
        return self._recorded(verdicts.judge_interval(claim, interval, **self._edition, **about))

    @property
    def _edition(self) -> dict[str, str]:
        return {"faces": self.faces, "profile": self.profile}

    @staticmethod
    def _recorded(verdict: Verdict) -> Verdict:
        claims.record([verdict])
        return verdict
