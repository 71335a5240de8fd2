"""What the LDDR chapter shows of its tables and curves (§4.2): own and cumulative training, methods of other chapters, samples of curves, IJB-A's normaliser."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from replicate.evidence.captions import caption, caption_of
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import length_of
from replicate.evidence.predictions import Predictions, Runs, trained_on
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table
from replicate.evidence.views import ect_results
from replicate.evidence.views.compared import metric_change, rows_of
from replicate.evidence.views.ect_protocols import by_yaw
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.geometry import apply_transform, similarity
from replicate.metrics import nme, normalising_distance

PUPILS, INNER = "inter-pupil", "inter-pupil, 49 points"  # the errors of Tables 2 and 3
TEST_SETS = {"lfpw": ("lfpw", "test"), "helen": ("helen", "test"), "challenging": ("300w", "challenging")}
OWN = {"helen": "LDDR, trained on Helen train only", "lfpw": "LDDR, trained on LFPW train only"}  # in §4.2
TOGETHER = "LDDR, trained on the cumulative set"


def test_sets(run: Experiment) -> dict[str, FaceSource]:
    """The faces of Tables 2 to 4, by the names that claims have for them."""
    return {name: run.source(*which) for name, which in TEST_SETS.items()}


# The tables ---------------------------------------------------------------------------------------------------------------------------


def training_rows(
    run: Experiment, sources: Mapping[str, FaceSource], own: Runs, together: Runs
) -> tuple[list[Row], list[Row]]:
    """Errors of LDDR trained on each set's own faces (S1) and on all (S2), and what the latter gains, paired.

    Parameters
    ----------
    sources : dict of str to FaceSource
        Test sets by name.
    own, together : dict of str to sequence of Predictions
        Runs by test set, one per seed.

    Returns
    -------
    errors, changes : list of Row
    """
    errors, changes = [], []
    for name, method in OWN.items():
        runs = {method: own[name], TOGETHER: together[name]}
        errors += rows_of(
            run, {"LDDR-S1": [method], "LDDR-S2": [TOGETHER]}, sources[name], runs, [PUPILS], None
        )
        changes += metric_change(
            run,
            "LDDR-S2",
            sources[name],
            runs,
            after=TOGETHER,
            before=method,
            metric=f"mean error, {PUPILS}",
        )
    return errors, changes


def judge_training(run: Experiment, claim_id: str, name: str, own: Runs, together: Runs) -> Verdict:
    """Judge and record that the cumulative training set lowers the error on a test set; the note has how many faces each side was trained on."""
    sides = [trained_on(runs[name][0].provenance) for runs in (together, own)]
    return run.judge_on(claim_id, {name: together[name]}, {name: own[name]}, " against ".join(sides))


def of_other_chapters(run: Experiment, source: FaceSource) -> dict[str, list[Predictions]]:
    """Runs of DAN and ECT on `source`, as the ECT chapter has them."""
    of_ect = Experiment("ect", run.profile, run.faces, run.seed, run.device)
    found = ect_results.compared_methods(of_ect, source)
    return {name: found[name] for name in ("DAN", "ECT")}


# The curves ---------------------------------------------------------------------------------------------------------------------------


def curve_samples(
    run: Experiment, artefact: str, source: FaceSource, results: Runs, score: str, places: Sequence[float]
) -> list[Row]:
    """Samples of cumulative error curves: which share of the images has an error up to each of `places`, with intervals.

    Parameters
    ----------
    results : dict of str to sequence of Predictions
        By method: one run per training seed.
    score : str
        Which of their errors, ``"face"``.
    places : sequence of float
        In per cent.
    """
    rows = []
    for method, runs in results.items():
        for place in places:
            within = [
                replace(one, errors={score: 100.0 * (one.errors[score] <= place)}, points=None)
                for one in runs
            ]
            [row] = run.error_rows(artefact, method, source, within, [score], rates=None)
            rows.append(replace(row, metric=f"images with an error up to {place:g} %"))
    return rows


def samples_table(rows: Sequence[Row], title: str) -> Table:
    """The samples of `curve_samples`, one line per method and one column per place."""
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        place = row.metric.removeprefix("images with an error ")
        shown = f"{row.value:.1f} [{row.ci_low:.1f}, {row.ci_high:.1f}]"
        lines.setdefault(row.method, {})[f"{place} of the {length_of(row.normaliser)}"] = shown
    table = pd.DataFrame.from_dict(lines, orient="index").rename_axis("method").reset_index()
    return Table(table, caption(rows, f"{title}: per cent of the images with an error"))


# IJB-A --------------------------------------------------------------------------------------------------------------------------------


def check_eye_nose(faces: FaceSet, seed: int = 0) -> dict[str, float]:
    """Largest deviations, in per cent, of the three-point error from what it has to be.

    Parameters
    ----------
    faces : FaceSet
        In the markup of IJB-A: eye centres and base of the nose.

    Returns
    -------
    dict
        From 10 where each point was moved, anywhere, by a tenth of the distance from the nose to the middle of the eyes; from one third of it
        where the nose alone was; and from the same error after faces and estimates were turned, enlarged and moved together.
    """
    random = np.random.default_rng(seed)
    true = faces.points.astype(float)
    distance = np.linalg.norm(true[:, 2] - (true[:, 0] + true[:, 1]) / 2, axis=-1)
    angle = random.uniform(0, 2 * np.pi, true.shape[:2])
    step = 0.1 * distance[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    turn = similarity(*(torch.tensor(part, dtype=torch.double) for part in (1.7, 0.6, [31.0, -8.0])))
    turned = [apply_transform(turn, torch.as_tensor(points)).numpy() for points in (true + step, true)]

    def farthest(predicted: np.ndarray, points: np.ndarray, expected: float) -> float:
        found = nme(predicted, points, normaliser="eye-nose", markup=faces.markup)
        return float(np.abs(found - expected).max())

    return {
        "every point moved by a tenth of the distance": farthest(true + step, true, 10),
        "the nose alone moved by it": farthest(true + step * [[0], [0], [1]], true, 10 / 3),
        "the same, all turned, enlarged and moved": farthest(*turned, 10),
    }


def distance_table(run: Experiment, faces: FaceSet) -> Table:
    """How long both distances are on faces that are turned to the side, in per cent of the side of the box: median and least."""
    sides = normalising_distance(faces.points, "box", faces.markup, faces.boxes)
    shares = [
        100 * normalising_distance(faces.points, normaliser, faces.markup) / sides
        for normaliser in (PUPILS, "eye-nose")
    ]
    lines = []
    for name, among in by_yaw(faces).items():
        cells = [f"{np.median(share[among]):.0f}, {share[among].min():.0f}" for share in shares]
        lines.append((name.removeprefix("|yaw| ").replace("mean", "any"), among.sum(), *cells))
    columns = ["|yaw|, °", "faces", "eye to eye", "middle of the eyes to nose"]
    about = caption_of(
        faces=faces.faces,
        profile=run.profile,
        images={f"{faces.protocol} {faces.split}": len(faces)},
        seeds="",
        title="Both distances in per cent of the side of the box: median and least",
        intervals=False,
    )
    return Table(pd.DataFrame(lines, columns=columns), about)
