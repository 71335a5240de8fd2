"""LDDR's ablations: cascades differ in what they say, effects are those of the errors, and claims are judged by the right sides."""

from dataclasses import replace

import numpy as np
import pytest

from replicate.evidence import manifest, tables
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import lddr_ablations as views
from replicate.faces.sources import FaceSource
from replicate.methods import lddr_training
from replicate.methods.lddr import CONFIGS, LDDRConfig

CONFIG = CONFIGS["cpu"]
FACES = 40
NAMES = tuple(f"face {number}" for number in range(FACES))
OFFSETS = np.linspace(-1, 1, FACES)
ABOUT = {"device": "test", "training_seconds": 1.0, "faces_sha256": "0", "box_rule": "b", "training_faces": 5}
LFPW = FaceSource("lfpw", "test", "synthetic", "smoke")
HARD = FaceSource("300w", "challenging", "synthetic", "smoke")


@pytest.fixture
def run(drawing):
    return Experiment("lddr", device="cpu")


def one_run(error, **more):
    """A run with this mean error, and with these under other conditions; all faces share their offsets."""
    errors = {"inter-pupil": error + OFFSETS}
    errors |= {f"inter-pupil, {key}": value + OFFSETS for key, value in more.items()}
    return Predictions("m", "toy", "synthetic", NAMES, errors, None, ABOUT)


def changes(configs):
    """Which fields of each configuration are not those of the first."""
    first = next(iter(configs.values()))
    return {
        name: {
            field: getattr(config, field)
            for field in vars(config)
            if getattr(config, field) != getattr(first, field)
        }
        for name, config in configs.items()
    }


def test_each_ablation_changes_one_thing():
    assert changes(views.swaps(CONFIG)) == {
        "LDDR": {}, "LDDR with SIFT": {"features": "SIFT"}, "LDDR with HOG": {"features": "HOG"}
    }  # fmt: skip
    assert changes(views.trainings(CONFIG)) == {
        "LDDR": {},
        "LDDR, objects alone": {"weights": "objects"},
        "LDDR, faces alone": {"weights": "faces"},
        "LDDR, random weights": {"weights": "random"},
    }
    assert CONFIG.weights == "tuned" and CONFIG.features == "deep"


def test_all_features_are_tried_with_other_penalties():
    found = {word: {c.penalty for c in configs.values()} for word, configs in views.penalties(CONFIG).items()}
    assert found == {"a tenth": {1600.0}, "as elsewhere": {16000.0}, "tenfold": {160000.0}}
    assert views.penalties(CONFIG)["as elsewhere"] == views.swaps(CONFIG)


def test_imagenet_is_tried_where_its_weights_are_and_fit(monkeypatch):
    monkeypatch.setattr(lddr_training, "imagenet_file", lambda: "a file")
    assert "LDDR, ImageNet alone" not in views.trainings(CONFIG)  # a quarter of its width
    found = changes(views.trainings(LDDRConfig()))
    assert found["LDDR, ImageNet alone"] == {"weights": "imagenet"}
    assert found["LDDR, ImageNet, then faces"] == {"weights": "imagenet tuned"}
    monkeypatch.setattr(lddr_training, "imagenet_file", lambda: None)
    assert "LDDR, ImageNet alone" not in views.trainings(LDDRConfig())


def test_plain_images_with_twice_the_starts_are_as_many_samples_as_the_paper_has():
    samples = {
        name: len(config.variants) * config.starts
        for name, config in views.augmentations(replace(CONFIG, starts=5)).items()
    }
    assert samples == {
        "LDDR": 10, "LDDR, plain images": 5, "LDDR, plain images, twice the starts": 10, "LDDR, mirrored, turned and both": 20
    }  # fmt: skip


def test_mean_errors_are_those_of_each_test_set(run):
    by_source = {LFPW: {"LDDR": [one_run(5.0)]}, HARD: {"LDDR": [one_run(11.0)]}}
    rows = views.mean_rows(run, "LDDR-S5", by_source)
    assert [(row.protocol, row.subset, row.value, row.normaliser) for row in rows] == [
        ("lfpw", "test", 5.0, "inter-pupil"), ("300w", "challenging", 11.0, "inter-pupil")
    ]  # fmt: skip


def test_differences_are_drawn_to_the_reference(run):
    results = {"LDDR": [one_run(5.0)], "LDDR with SIFT": [one_run(6.5)]}
    figure = views.difference_plot(run, "LDDR-S5", LFPW, results, "LDDR")
    assert "LDDR with SIFT: +1.50 [+1.50, +1.50]" in figure.get_label()
    (kept,) = manifest.load("lddr", ["smoke"])
    assert (kept.artefact, kept.title) == ("LDDR-S5", "differences to LDDR, lfpw test")


@pytest.mark.parametrize(
    ("found", "left", "right", "known"),
    [
        ({"LDDR": 4.0, "LDDR, objects alone": 5.0}, 4.0, 5.0, "fractals"),
        (
            {"LDDR": 4.0, "LDDR, objects alone": 5.0, "LDDR, ImageNet alone": 3.0, "LDDR, ImageNet, then faces": 2.0},
            2.0, 3.0, "those of ImageNet",
        ),
    ],
)  # fmt: skip
def test_tuning_is_judged_against_the_best_network_of_objects(run, found, left, right, known):
    verdict = views.judge_tuning(run, {name: [one_run(error)] for name, error in found.items()})
    assert (verdict.claim, verdict.left, verdict.right, verdict.verdict) == (
        "LDDR-C13",
        left,
        right,
        "reproduced",
    )
    assert f"the objects are {known}" in verdict.note


def test_effects_of_augmentation_stand_beside_the_papers_two_per_cent(run):
    def results(error):
        return {"LDDR": [one_run(error)], views.PLAIN: [one_run(10.0)], "other": [one_run(9.0)]}

    sources = {"lfpw": LFPW, "challenging": HARD}
    rows = views.augmentation_rows(run, sources, {"lfpw": results(9.7), "challenging": results(8.0)})
    assert [(row.method, row.protocol, round(row.value, 6)) for row in rows] == [
        ("LDDR", "lfpw", 3.0),
        ("other", "lfpw", 10.0),
        ("LDDR", "300w", 20.0),
        ("other", "300w", 10.0),
        ("LDDR, random rotation + flip augmentation vs none", "", 3.0),
    ]
    shown = tables.compare(rows).iloc[-1]
    assert (shown["paper"], shown["metric"], shown["subset"]) == ("2.00", "error reduction", "")
    verdict = views.judge_augmentation(run, {"lfpw": results(9.7)}, rows)
    assert (verdict.claim, verdict.verdict) == ("LDDR-C7", "reproduced")
    assert verdict.note == "3 % here, 2 % in the paper"


def test_changes_are_over_the_seeds_of_both_sides(run):
    runs = {"LDDR": [one_run(8.0), one_run(2.0)], views.PLAIN: [one_run(10.0)], "other": [one_run(9.0)]}
    rows = views.augmentation_rows(run, {"lfpw": LFPW}, {"lfpw": runs})
    assert rows[0].method == "LDDR" and rows[0].value == pytest.approx(20.0)


def test_the_figure_has_all_four_images_of_a_face(run):
    figure = views.variants_figure(run, CONFIGS["smoke"])
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["as it is", "mirrored", "turned", "mirrored and turned"]
    images = [np.asarray(ax.get_images()[0].get_array(), float) for ax in figure.axes]
    assert np.abs(images[0][:, ::-1] - images[1]).mean() < 3 < np.abs(images[0] - images[1]).mean()
    (kept,) = manifest.load("lddr", ["smoke"])
    assert (kept.artefact, kept.faces) == ("LDDR-S3", "synthetic")


def restarted(one=10.0, five=9.5, ten=9.0):
    return one_run(one, **{"1 starts": one, "5 starts": five, "10 starts": ten})


def test_several_starts_are_compared_with_one(run):
    rows = views.restart_rows(run, HARD, [restarted()])
    assert [(row.method, row.metric, row.value) for row in rows] == [
        ("LDDR, 5 starts", "mean-error reduction vs 1 start", 5.0),
        ("LDDR, 10 starts", "mean-error reduction vs 1 start", 10.0),
    ]


def test_the_gap_is_that_of_the_papers_table(run):
    table = views.gap_table(views.restart_rows(run, HARD, [restarted()])).data
    assert table["the paper's gap, %"].tolist() == ["13.14", "13.14"]  # 11.49 to 9.98
    assert table["gain, % of the gap"].tolist() == ["38", "76"]


def test_faces_are_divided_by_how_far_the_mean_shape_is_from_them(run):
    far = np.arange(FACES)[::-1]  # the last face is nearest
    errors = {
        "inter-pupil, 0 stages": 20.0 + far,
        "inter-pupil, 1 starts": np.full(FACES, 10.0),
        "inter-pupil, 10 starts": np.where(far >= 30, 6.0, 10.0),
    }
    run_of = replace(one_run(10.0), errors={"inter-pupil": np.full(FACES, 10.0), **errors})
    table = views.distance_table(run, HARD, [run_of], "By distance").data
    assert table["before the first stage, %"].tolist() == ["24.50", "34.50", "44.50", "54.50"]
    assert table["10 starts, %"].tolist() == ["10.00", "10.00", "10.00", "6.00"]
    assert table["difference"].tolist()[-1] == "-4.00 [-4.00, -4.00]"
