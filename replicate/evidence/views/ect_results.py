"""What the ECT chapter shows of 300-W beside ECT itself (§IV-A): the methods of the DAN chapter, and their errors without the jaw line."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from replicate.evidence import claims, tested
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions, Runs
from replicate.evidence.scoring import Score, errors_of
from replicate.evidence.trained import Predicted
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.methods import ect


def compared_methods(run: Experiment, source: FaceSource) -> dict[str, list[Predictions]]:
    """Runs on `source` of the methods that Fig. 5 has here, by name: those of the DAN chapter as they are there, and ECT."""
    others = tested.test_compared(Experiment("dan", run.profile, run.faces, run.seed, run.device), source)
    config, train = ect.CONFIGS[run.profile, run.faces], run.source("300w", "train")
    own = tested.test_ect(run, config, train, source, seeds=run.seeds(3))
    return {name: others[name] for name in ("mean shape", "SDM", "DAN")} | {"ECT": own["ECT"]}


def judge_on_photographs(
    run: Experiment, claim_id: str, left: Mapping[str, Sequence[Predictions]], right: Mapping
) -> Verdict:
    """`Experiment.judge_on` for a claim about photographs; on synthetic faces the ledger's verdict, not testable, and nothing is recorded."""
    if run.faces == "synthetic":
        return claims.unjudged(claims.get(claim_id), run.faces, run.profile)
    return run.judge_on(claim_id, left, right)


def scored(results: Runs, faces: FaceSet, score: Score) -> dict[str, list[Predictions]]:
    """The runs that have a score, or points on record from which it follows; methods without such a run are left out.

    Parameters
    ----------
    faces : FaceSet
        What they were tested on.
    """
    found = {method: [_scored(one, faces, score) for one in runs] for method, runs in results.items()}
    kept = {method: [one for one in runs if one is not None] for method, runs in found.items()}
    return {method: runs for method, runs in kept.items() if runs}


def _scored(one: Predictions, faces: FaceSet, score: Score) -> Predictions | None:
    if score.key in one.errors or one.points is None:
        return one if score.key in one.errors else None
    return replace(one, errors={**one.errors, **errors_of(Predicted(one.points), faces, [score])})
