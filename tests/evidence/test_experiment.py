"""What notebooks work with: predictions are made once, rows say what the errors say, nothing is lost on the way."""

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.evidence import claims, manifest, predictions, rows
from replicate.evidence.experiment import Experiment
from replicate.evidence.measured import FAILURE_THRESHOLD
from replicate.evidence.scoring import INNER
from replicate.evidence.trained import Predicted, Trained
from replicate.faces import sources
from replicate.faces.boxes import TIGHT
from replicate.faces.faceset import FaceSet, concatenate
from replicate.faces.sources import FaceSource
from replicate.metrics import Comparison, auc, failure_rate, mcnemar, nme
from replicate.training import FitReport

REAL_LOAD = FaceSource.load  # the tests replace it

COUNTS = {"common": 20, "challenging": 12, "private": 30}
MODELS = ("one-stage", "two-stages")
REPORTS = (
    FitReport(seconds=10.0),
    FitReport(seconds=25.04, steps=200, samples=6400, history=[(100, 7.12345), (200, 6.0)]),
)


def make_faces(split, kind="synthetic"):
    """Faces without pixels: the fake predictor sees only the true points."""
    count = COUNTS[split]
    rng = np.random.default_rng(count)
    turn = np.linspace(0, 2 * np.pi, 68)
    shape = 128 + np.stack([60 * np.cos(turn) + 9 * np.cos(5 * turn), 70 * np.sin(turn)], 1)
    points = (shape + rng.normal(0, 3, (count, 68, 2))).astype(np.float32)
    names = tuple(f"{split}/{number}" for number in range(count))
    images = np.full((count, 4, 4), COUNTS[split], np.uint8)
    boxes = TIGHT.boxes(points, names)
    return FaceSet(
        images,
        points,
        np.ones((count, 68), bool),
        boxes,
        names,
        "ibug68",
        "300w",
        split,
        kind,
        "boxes of the test",
    )


@pytest.fixture(autouse=True)
def faces(monkeypatch):
    """In place of generated and of real faces: sets of the test."""

    def load(source):
        parts = [make_faces(part.split, source.faces) for part in source.parts]
        return parts[0] if len(parts) == 1 else concatenate(parts, source.protocol, source.split)

    monkeypatch.setattr(FaceSource, "load", load)


class Predictor:
    """Two models that err by noise of a given size; counts how often it is trained and asked."""

    def __init__(self, *noise):
        self.noise, self.trained, self.asked = noise or (4.0, 3.0), 0, []

    def obtain(self):
        self.trained += 1
        return Trained(self.predict, REPORTS, FaceSource("300w", "train", "synthetic", "cpu"))

    def alone(self):
        """The second of the two models."""
        trained = self.obtain()
        return replace(trained, predict=lambda faces: self.predict(faces)[1:], reports=REPORTS[1:])

    def predict(self, faces):
        self.asked.append(faces.split)
        rng = np.random.default_rng(len(faces))
        noisy = [
            faces.points + rng.normal(0, size, faces.points.shape) * rng.gamma(1, 1, (len(faces), 1, 1))
            for size in self.noise
        ]
        sure = np.linspace(0, 1, faces.visible.size).reshape(faces.visible.shape)
        moved = {"inter-pupil, 3 iterations": faces.points + 1}
        return [Predicted(noisy[0]), *(Predicted(points, sure, moved) for points in noisy[1:])]


def experiment(**changes):
    return Experiment(**{"paper": "dan", "profile": "cpu", "device": "cpu", **changes})


def test_split(run, split, predictor=None, models=MODELS):
    return run.test(models, run.source("300w", split), (predictor or Predictor()).obtain)


test_split.__test__ = False


# Predictions


def test_predictions_on_record_are_used_again():
    predictor = Predictor()
    first = test_split(experiment(), "private", predictor)
    second = test_split(experiment(), "private", predictor)  # as in another notebook
    assert predictor.trained == 1 and predictor.asked == ["private"]
    assert [run.model for run in first] == [run.model for run in second] == list(MODELS)
    for a, b in zip(first, second, strict=True):
        assert a.names == b.names
        for normaliser, errors in a.errors.items():
            np.testing.assert_allclose(b.errors[normaliser], errors, rtol=1e-6)


def test_errors_are_those_of_each_model_by_every_normaliser():
    predictor = Predictor()
    runs, true = test_split(experiment(), "private", predictor), make_faces("private")
    for run, said in zip(runs, predictor.predict(true), strict=True):
        assert set(run.errors) == {"inter-ocular", "inter-pupil", "diagonal", *said.more}
        for key, errors in run.errors.items():
            shapes, normaliser = said.more.get(key, said.points), key.split(", ")[0]
            np.testing.assert_allclose(
                errors, nme(shapes, true.points, normaliser=normaliser, markup="ibug68")
            )
    assert [run.provenance["training_seconds"] for run in runs] == [10, 25]
    assert [run.provenance.get("validation") for run in runs] == [None, [[3200, 7.123], [6400, 6.0]]]
    assert (
        runs[0].provenance["faces_sha256"] == true.sha256
        and runs[0].provenance["box_rule"] == "boxes of the test"
    )


def test_confidences_are_kept_where_a_model_has_them():
    plain, sure = test_split(experiment(), "full")
    assert plain.confidence is None and sure.confidence.shape == (32, 68)
    np.testing.assert_allclose(sure.confidence[:20].ravel(), np.linspace(0, 1, 20 * 68), atol=1e-3)
    np.testing.assert_array_equal(test_split(experiment(), "full")[1].confidence, sure.confidence)


def test_a_score_that_is_not_on_record_is_made_and_then_kept():
    predictor, run = Predictor(), experiment()
    test_split(run, "full", predictor)
    for _ in range(2):
        found = run.test(MODELS, run.source("300w", "full"), predictor.obtain, more=[INNER])
    assert predictor.asked == ["common", "challenging"] * 2 and predictor.trained == 1
    true = concatenate([make_faces("common"), make_faces("challenging")], "300w", "full")
    inner = np.arange(68) >= 17
    visible = np.tile(inner, (32, 1))
    expected = nme(found[0].points, true.points, normaliser="inter-ocular", markup="ibug68", visible=visible)
    np.testing.assert_allclose(found[0].errors[INNER.key], expected, atol=0.05)
    assert test_split(run, "full", predictor)[0].errors.keys() == found[0].errors.keys()


@pytest.mark.parametrize("change", ["model", "faces"])
def test_other_models_and_other_faces_are_predicted_anew(change, monkeypatch):
    predictor = Predictor()
    test_split(experiment(), "private", predictor)
    if change == "faces":
        monkeypatch.setattr(sources, "DATA_SEED", 301)
    test_split(
        experiment(), "private", predictor, models=("one-stage", "another") if change == "model" else MODELS
    )
    assert predictor.trained == 2


def test_fresh_trains_and_predicts_again_but_once():
    before = test_split(experiment(), "full")
    predictor, run = Predictor(2.0, 1.0), experiment(fresh=True)
    after = {split: test_split(run, split, predictor) for split in ("common", "challenging", "full")}
    assert predictor.trained == 1 and predictor.asked == ["common", "challenging"]
    assert after["full"][0].errors["diagonal"].mean() < 0.7 * before[0].errors["diagonal"].mean()
    stored_now = test_split(experiment(), "full", predictor)
    np.testing.assert_allclose(
        stored_now[1].errors["diagonal"], after["full"][1].errors["diagonal"], rtol=1e-6
    )


def test_a_union_joins_its_parts_in_order_and_stores_them_apart():
    run = experiment()
    full, common, challenging = (test_split(run, split)[1] for split in ("full", "common", "challenging"))
    assert (
        full.names
        == common.names + challenging.names
        == concatenate([make_faces("common"), make_faces("challenging")], "300w", "full").names
    )
    for normaliser, errors in full.errors.items():
        np.testing.assert_allclose(
            errors, np.concatenate([common.errors[normaliser], challenging.errors[normaliser]])
        )
    np.testing.assert_allclose(full.points, np.concatenate([common.points, challenging.points]), atol=0.01)
    assert full.provenance["faces_sha256"].split() == [
        make_faces("common").sha256,
        make_faces("challenging").sha256,
    ]
    assert {path.name.split(".")[1].split("-")[1] for path in stored(run)} == {"common", "challenging"}


def stored(run):
    return sorted(predictions.path_of("m", "t", run.paper, run.profile).parent.glob("*.npz"))


@pytest.mark.parametrize(("kind", "kept"), [("synthetic", True), ("real", False)])
def test_landmarks_of_real_people_are_not_kept(kind, kept):
    run = experiment(faces=kind)
    made = test_split(run, "common")
    assert all((run.points is not None) == kept for run in made)
    read = [predictions.read(path) for path in stored(run)]
    assert len(read) == 2 and all((one.points is not None) == kept for one in read)


def test_points_are_left_out_where_errors_are_enough_and_made_when_they_are_wanted():
    predictor, run = Predictor(), experiment()
    (first, _) = run.test(MODELS, run.source("300w", "common"), predictor.obtain, points=False)
    assert first.points is None and all(predictions.read(path).points is None for path in stored(run))
    assert test_split(experiment(), "common", predictor)[0].points.shape == (20, 68, 2)
    written = [path.read_bytes() for path in stored(run)]
    again = experiment().test(MODELS, run.source("300w", "common"), predictor.obtain, points=False)
    assert again[0].points is not None and [path.read_bytes() for path in stored(run)] == written
    assert predictor.asked == ["common", "common"]


def test_points_on_record_stay_when_a_model_is_tested_again_with_another_for_errors_alone():
    predictor, run = Predictor(), experiment()
    test_split(run, "common", predictor)
    written = {path: path.read_bytes() for path in stored(run)}
    others = [MODELS[0], "e" * 12]
    found = experiment().test(others, run.source("300w", "common"), predictor.obtain, points=False)
    assert [one.points is None for one in found] == [False, True]
    assert {path: path.read_bytes() for path in written} == written


def test_kinds_of_faces_do_not_share_predictions():
    synthetic, real = Predictor(), Predictor()
    test_split(experiment(), "common", synthetic)
    test_split(experiment(faces="real"), "common", real)
    assert synthetic.trained == real.trained == 1


def test_smoke_results_stay_in_the_cache(places):
    run = experiment(profile="smoke")
    made = test_split(run, "common")
    run.record(run.error_rows("DAN-T5", "DAN, 1 stage", run.source("300w", "common"), made[:1]))
    run.judge("DAN-C1", made[1:], made[:1])
    assert not (places / "results").exists()
    assert {path.name for path in (places / "cache" / "results" / "dan").iterdir()} == {
        "predictions",
        "DAN-T5.synthetic.smoke.json",
        "claims.synthetic.smoke.json",
    }


# Rows


def rows_by_metric(made):
    return {(row.metric, row.normaliser): row for row in made}


def test_rows_have_the_numbers_of_the_errors():
    run = experiment()
    seeds = [
        test_split(run, "private", Predictor(size, 1.0), models=(f"seed-{size}", "x"))[0]
        for size in (3.0, 4.0)
    ]
    found = rows_by_metric(run.error_rows("DAN-T5", "DAN, 1 stage", run.source("300w", "private"), seeds))
    ocular = np.stack([one.errors["inter-ocular"] for one in seeds])
    for normaliser in ("inter-ocular", "inter-pupil", "diagonal"):
        expected = np.mean([one.errors[normaliser] for one in seeds])
        assert found["mean error", normaliser].value == pytest.approx(expected, rel=1e-5)
    assert found["AUC 0.08", "inter-ocular"].value == pytest.approx(auc(ocular, 8.0).mean(), rel=1e-5)
    failing = failure_rate(ocular, FAILURE_THRESHOLD)
    assert 0 < failing.count < ocular.size  # or the next line says little
    rate = found["failure rate 0.08", "inter-ocular"]
    assert (rate.count, rate.value) == (failing.count, pytest.approx(failing.percent, rel=1e-5))
    assert len(found) == 5
    for row in found.values():
        assert row.ci_low < row.value < row.ci_high and row.unit == "%"
        assert (row.artefact, row.method, row.protocol, row.subset) == (
            "DAN-T5",
            "DAN, 1 stage",
            "300w",
            "private",
        )
        assert (row.images, row.seeds, row.points, row.faces, row.profile) == (30, 2, 68, "synthetic", "cpu")
        assert row.seconds == 20 and row.model == "seed-3.0 seed-4.0" and row.box_rule == "boxes of the test"
        assert row.faces_sha256 == make_faces("private").sha256 and row.note == "trained on 3,148 faces"


def test_rows_are_of_the_errors_and_the_threshold_that_are_asked_for():
    run = experiment()
    (one,) = run.test(MODELS[1:], run.source("300w", "private"), Predictor(3.0, 2.0).alone, more=[INNER])
    about = ("ECT-T1", "ECT", run.source("300w", "private"), [one])
    found = run.error_rows(*about, scores=[INNER, "inter-pupil, 3 iterations"], rates=(INNER.key, 0.1))
    assert [(row.metric, row.normaliser, row.points, row.unit) for row in found] == [
        ("mean error", "inter-ocular", 51, "%"),
        ("mean error, 3 iterations", "inter-pupil", 68, "%"),
        ("AUC 0.10", "inter-ocular", 51, "%"),
        ("failure rate 0.10", "inter-ocular", 51, "%"),
    ]
    inner = one.errors[INNER.key]
    values = [inner.mean(), one.errors["inter-pupil, 3 iterations"].mean(), auc(inner, 10.0)]
    assert [row.value for row in found[:3]] == pytest.approx(values, rel=1e-5)
    assert (found[3].value, found[3].count) == (
        pytest.approx(100 * (inner > 10).mean(), rel=1e-5),
        (inner > 10).sum(),
    )
    assert [row.metric for row in run.error_rows(*about, scores=["diagonal"], rates=None)] == ["mean error"]


def test_pixels_have_rows_of_their_own_and_no_rates():
    run, source = experiment(), experiment().source("afw", "test")
    known = dict(
        device="test", faces_sha256="f", box_rule="b", markup="afw6", training_seconds=1, training_faces=2
    )
    errors = {"box": np.array([4.0, 6.0, 5.0]), "pixel": np.array([10.0, 30.0, 20.0])}
    one = predictions.Predictions("m", "afw-test", "synthetic", ("a", "b", "c"), errors, None, known)
    box, pixels = run.error_rows("ECT-T5", "ECT", source, [one], rates=None)
    assert (box.metric, box.normaliser, box.points, box.value) == ("mean error, visible points", "box", 6, 5)
    assert (pixels.metric, pixels.normaliser, pixels.points, pixels.value, pixels.unit) == (
        "MAPE", "none", 6, 20, "px",
    )  # fmt: skip
    with pytest.raises(ReplicateError, match="rates: got 'pixel' with errors in px"):
        run.error_rows("ECT-T5", "ECT", source, [one], rates=("pixel", 0.1))


def test_changes_are_relative_to_the_model_before():
    run = experiment()
    before, after = test_split(run, "private")
    made = {
        row.metric: row
        for row in run.change_rows(
            "DAN-S5", "DAN, 2 stages against 1", run.source("300w", "private"), [after], [before]
        )
    }
    a, b = after.errors["inter-ocular"], before.errors["inter-ocular"]
    expected = {
        "mean-error reduction": 100 * (b.mean() - a.mean()) / b.mean(),
        "AUC increase": 100 * (auc(a, 8.0) - auc(b, 8.0)) / auc(b, 8.0),
        "failure-rate reduction": 100 * ((b > 8).sum() - (a > 8).sum()) / (b > 8).sum(),
    }
    assert {name: row.value for name, row in made.items()} == pytest.approx(expected, rel=1e-4)
    assert all(value > 0 for value in expected.values())  # the second model is the better one
    assert all(
        row.ci_low <= row.value <= row.ci_high and row.unit == "% relative" and row.points is None
        for row in made.values()
    )


def test_no_failures_before_have_no_relative_change():
    run = experiment()
    before, after = test_split(run, "private", Predictor(0.2, 0.1))
    made = run.change_rows(
        "DAN-S5", "DAN, 2 stages against 1", run.source("300w", "private"), [after], [before]
    )
    assert [row.metric for row in made] == ["mean-error reduction", "AUC increase"]


def test_exact_numbers_have_no_interval():
    made = experiment().count_rows(
        "DAN-T1", "DAN, one stage", {"parameters, fc1": 6_422_528, "parameters, fc2": 34_952}
    )
    assert [(row.metric, row.value, row.ci_low, row.images, row.unit) for row in made] == [
        ("parameters, fc1", 6_422_528, None, None, "count"),
        ("parameters, fc2", 34_952, None, None, "count"),
    ]


def test_recording_again_touches_no_file():
    run = experiment()
    for _ in range(2):
        made = test_split(run, "private")
        run.record(run.error_rows("DAN-T5", "DAN, 1 stage", run.source("300w", "private"), made[:1]))
        path = rows.path_of("DAN-T5", "synthetic", "cpu")
        written = path.read_bytes(), path.stat().st_mtime_ns
        run = experiment()  # from the files now
    assert (path.read_bytes(), path.stat().st_mtime_ns) == written and len(json.loads(path.read_text())) == 5


def test_a_change_names_the_method_before_and_its_normaliser_decides():
    run = experiment()
    before, after = test_split(run, "private")
    made = run.change_rows(
        "DAN-S4", "DAN", run.source("300w", "private"), [after], [before],
        against="SDM", normaliser="inter-pupil",
    )  # fmt: skip
    a, b = after.errors["inter-pupil"], before.errors["inter-pupil"]
    assert made[0].metric == "mean-error reduction vs SDM"
    assert made[0].value == pytest.approx(100 * (b.mean() - a.mean()) / b.mean(), rel=1e-4)


def test_a_change_from_a_printed_number_moves_with_our_interval_alone():
    run = experiment(faces="real")
    runs = test_split(run, "private")[1:]
    about = dict(against="MDM", printed_in="DAN-T4", metric="failure rate 0.08, inter-ocular")
    row = run.published_change_row("DAN-S2", "DAN", run.source("300w", "private"), runs, **about)
    (rate,) = (
        row
        for row in run.error_rows("DAN-T4", "DAN", run.source("300w", "private"), runs)
        if row.metric == "failure rate 0.08"
    )
    assert (row.metric, row.unit, row.points) == ("failure-rate reduction vs MDM", "% relative", None)
    assert row.value == pytest.approx(100 * (6.8 - rate.value) / 6.8, rel=1e-4)
    assert row.ci_low == pytest.approx(100 * (6.8 - rate.ci_high) / 6.8, rel=1e-4)
    assert row.note.endswith("MDM by its published number, without interval")
    synthetic = experiment()
    with pytest.raises(ReplicateError, match="MDM: its published numbers are of photographs"):
        synthetic.published_change_row("DAN-S2", "DAN", synthetic.source("300w", "private"), runs, **about)


def test_failures_are_counted_on_average_over_seeds():
    run = experiment()
    runs = test_split(run, "private", Predictor(4.0, 5.0))
    row = run.failure_count_row("DAN-F4", "DAN", run.source("300w", "private"), runs)
    counts = [(one.errors["inter-ocular"] > 8).sum() for one in runs]
    assert row.value == np.mean(counts) and counts[0] != counts[1]
    assert row.ci_low < row.value < row.ci_high and (row.unit, row.seeds, row.points) == ("count", 2, None)


# Verdicts and figures


def test_a_verdict_is_reached_and_recorded():
    run = experiment()
    before, after = test_split(run, "private", Predictor(4.0, 1.0))
    verdict = run.judge("DAN-C1", [after], [before], note="of the test")
    difference = (after.errors["inter-ocular"] - before.errors["inter-ocular"]).mean()
    assert verdict.verdict == "reproduced" and verdict.difference == pytest.approx(difference, rel=1e-5)
    assert claims.recorded("dan", ["cpu"]) == [verdict] and verdict.note == "of the test"
    fails = [one.errors["inter-ocular"] > 8 for one in (after, before)]
    assert run.judge("DAN-C2", [after], [before]).p_value == pytest.approx(mcnemar(*fails), rel=1e-5)
    assert {one.claim for one in claims.recorded("dan", ["cpu"])} == {"DAN-C1", "DAN-C2"}


def test_sides_on_different_faces_are_not_compared():
    run = experiment()
    common, private = test_split(run, "common"), test_split(run, "private")
    with pytest.raises(ReplicateError, match="images of 20 and 30|20 and 30 images"):
        run.judge("DAN-C1", common[:1], private[:1])


def test_claims_against_printed_numbers_are_recorded_on_real_faces_only():
    synthetic, real = experiment(), experiment(faces="real")
    for run, expected in ((synthetic, "not testable"), (real, "reproduced")):
        runs = test_split(run, "challenging", Predictor(0.3, 0.2))
        assert run.judge_published("DAN-C7", {"challenging": runs[:1]}, "RAR").verdict == expected
    assert [one.claim for one in claims.recorded("dan", ["cpu"])] == ["DAN-C7"]
    assert synthetic.judge_failures("DAN-C17", test_split(synthetic, "challenging")).verdict == "not testable"
    judged = real.judge_failures("DAN-C17", test_split(real, "challenging", Predictor(0.3, 0.2)))
    assert (judged.left, judged.right, judged.verdict) == (0, 7, "not reproduced")


def test_a_printed_right_side_and_comparisons_made_elsewhere_are_judged_and_recorded():
    synthetic, real = experiment(paper="ect"), experiment(paper="ect", faces="real")
    runs = {run.faces: test_split(run, "challenging", Predictor(1.0, 1.0))[:1] for run in (synthetic, real)}
    assert synthetic.judge_number("ECT-C10", runs["synthetic"]).verdict == "not testable"
    judged = real.judge_number("ECT-C10", runs["real"], "of the test")
    error = runs["real"][0].errors["inter-pupil"].mean()
    note = "of the test; ECT, truncated FCN is lower by more than the margin"
    assert (judged.left, judged.right, judged.note) == (pytest.approx(error, rel=1e-5), 8.24, note)
    gap = Comparison(45.0, 40.0, 5.0, 3.0, 7.0, 0.001)
    recall = synthetic.judge_comparison("ECT-C15", gap, images=507, seeds=1)
    assert (recall.verdict, recall.images, recall.difference) == ("direction holds", 507, 5.0)  # 29 % printed
    assert {one.claim: one for one in claims.recorded("ect", ["cpu"])} == {
        "ECT-C10": judged,
        "ECT-C15": recall,
    }


def test_a_claim_on_several_test_sets_is_recorded_once():
    run = experiment()
    before, after = ({s: [test_split(run, s)[i]] for s in ("full", "challenging", "private")} for i in (0, 1))
    verdict = run.judge_on("DAN-C9", after, before)
    assert claims.recorded("dan", ["cpu"]) == [verdict] and verdict.images is None
    counts = {subset: len(runs[0].names) for subset, runs in after.items()}
    assert len(set(counts.values())) > 1
    assert all(f"{subset}, {count} images: -" in verdict.note for subset, count in counts.items())


def test_figures_of_one_artefact_on_two_test_sets_are_both_kept():
    figure = plt.figure()
    figure.set_label("a rising line")
    for subset in ("common", "challenging", "common"):
        experiment().record_figure("DAN-T5", "cumulative error", figure, subset=subset, images=30, seeds=1)
    plt.close(figure)
    assert sorted(kept.subset for kept in manifest.load("dan", ["cpu"])) == ["challenging", "common"]


def test_a_figure_is_put_on_record_with_its_alternative_text():
    figure = plt.figure()
    figure.set_label("a rising line")
    assert (
        experiment().record_figure("DAN-T5", "cumulative error", figure, subset="private", images=30, seeds=1)
        is figure
    )
    plt.close(figure)
    (shown,) = manifest.load("dan", ["cpu"])
    assert (shown.artefact, shown.alt, shown.subset, shown.images, shown.faces) == (
        "DAN-T5",
        "a rising line",
        "private",
        30,
        "synthetic",
    )


# What goes wrong


def test_a_kill_between_predictions_and_rows_loses_nothing(monkeypatch):
    predictor, run = Predictor(), experiment()
    made = test_split(run, "private", predictor)
    expected = run.error_rows("DAN-T5", "DAN, 1 stage", run.source("300w", "private"), made[:1])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rows, "merge", interrupt)
        run.record(expected)
    assert rows.load("dan") == []
    run = experiment()
    made = test_split(run, "private", predictor)
    run.record(run.error_rows("DAN-T5", "DAN, 1 stage", run.source("300w", "private"), made[:1]))
    assert predictor.trained == 1
    by_metric = rows_by_metric(rows.load("dan"))
    assert {key: row.value for key, row in by_metric.items()} == pytest.approx(
        {key: row.value for key, row in rows_by_metric(expected).items()}
    )


def test_a_kill_between_two_models_repeats_only_the_prediction(monkeypatch):
    saved, save = [], predictions.save

    def save_one(*arguments):
        if saved:
            raise KeyboardInterrupt
        saved.append(save(*arguments))
        return saved[0]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(predictions, "save", save_one)
        test_split(experiment(), "private")
    assert stored(experiment()) == saved
    assert len(test_split(experiment(), "private")) == len(stored(experiment())) == 2


def interrupt(*arguments, **options):
    raise KeyboardInterrupt


def test_a_results_folder_that_cannot_be_written_is_named(places, monkeypatch):
    (places / "file").write_text("in the way")
    monkeypatch.setenv("REPLICATE_RESULTS", str(places / "file"))
    with pytest.raises(ReplicateError, match="cannot write .*file/dan/predictions.*permissions"):
        test_split(experiment(), "private")
    (row,) = experiment().count_rows("DAN-T1", "DAN", {"parameters": 1})
    with pytest.raises(ReplicateError, match="cannot write .*file/dan/DAN-T1"):
        experiment().record([row])


def test_a_damaged_prediction_file_is_named():
    test_split(experiment(), "private")
    stored(experiment())[0].write_bytes(b"half")
    with pytest.raises(ReplicateError, match="one-stage.* is not a prediction file .*Delete it"):
        test_split(experiment(), "private")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(paper="dam"), "paper: got 'dam'.*Did you mean 'dan'"),
        (dict(profile="fast"), "profile: got 'fast'"),
        (dict(faces="photographs"), "faces: got 'photographs'"),
        (dict(device="abacus"), "device: got 'abacus'"),
    ],
)
def test_unknown_words_are_refused_before_any_work(changes, message):
    with pytest.raises(ReplicateError, match=message):
        experiment(**changes)


@pytest.mark.parametrize(
    ("profile", "kind", "expected"),
    [
        ("smoke", "synthetic", (5,)),
        ("cpu", "synthetic", (5, 6, 7)),
        ("cpu", "real", (5,)),
        ("gpu", "real", (5, 6, 7)),
    ],
)
def test_seeds_follow_the_budget_of_the_profile(profile, kind, expected):
    assert experiment(profile=profile, faces=kind, seed=5).seeds(3) == expected


def test_splits_that_are_here_are_told_and_their_absence_says_where_they_belong(tmp_path, monkeypatch):
    assert Experiment("dan").present("300w", ("private", "full")) == ["private", "full"]
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path))
    monkeypatch.setattr(FaceSource, "load", REAL_LOAD)
    with pytest.raises(ReplicateError, match=f"{tmp_path}/300w is not there. Set REPLICATE_DATA"):
        Experiment("dan", faces="real").present("300w", ("private", "full"))


def test_a_verdict_says_how_many_faces_its_sides_were_trained_on_where_they_differ():
    run, other = experiment(), Predictor()
    one, two = test_split(run, "common", other)
    known = {**two.provenance, "training_faces": 64, "trained_before_on": 12000}
    more = replace(two, provenance=known)
    same = run.judge("DAN-C1", [two], [one]).note
    found = run.judge("DAN-C1", [more], [one]).note
    assert "trained on" not in same
    assert found.startswith("trained on 64 faces after 12,000 generated ones against trained on ")
