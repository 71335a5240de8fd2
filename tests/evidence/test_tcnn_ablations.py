"""TCNN's ablations: networks differ in what they say, the best number of clusters and the changes of losses in closed form."""

from dataclasses import replace

import numpy as np
import pytest
from tcnn_runs import AFLW, five_point_run

from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import swept
from replicate.evidence.views import tcnn_ablations as views
from replicate.methods.tcnn import CONFIGS

FACES = 60
OFFSETS = np.linspace(-1, 1, FACES)


@pytest.fixture
def run(drawing):
    return Experiment("tcnn", device="cpu")


def one_run(error=7.0, **told):
    errors = np.broadcast_to(np.asarray(error, float), FACES) + OFFSETS
    return five_point_run({"inter-pupil": errors}, **told)


def changes(configs):
    first = next(iter(configs.values()))
    return {
        name: {key: value for key, value in vars(config).items() if value != getattr(first, key)}
        for name, config in configs.items()
    }


def test_each_variant_changes_one_thing():
    everything = changes({views.TCNN: CONFIGS["cpu"], **views.variants("cpu")})
    assert everything == {
        "TCNN": {},
        "TCNN, k-means": {"clustering": "k-means"},
        "TCNN, split at CL4": {"split": "CL4"},
        "TCNN, no augmentation": {"augmentation": "none"},
        "TCNN, oversampled and mirrored": {"augmentation": "oversampled and mirrored"},
        "TCNN, own labels": {"augmentation": "aligned, own labels"},
        "TCNN, 500 images": {"images": 500},
        "TCNN, 5,000 images": {"images": 5000},
    }
    assert changes(views.vanilla_variants("cpu")) == {
        "vanilla CNN": {},
        "vanilla CNN, warped images": {"warps": 0.5},
    }


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_the_sweep_holds_the_number_in_use_and_a_single_cluster(profile):
    assert views.sweep(profile, views.OWN)[1].augmentation == "aligned, own labels"
    found = views.sweep(profile)
    assert {1, CONFIGS[profile].clusters} <= found.keys()
    assert [config.clusters for config in found.values()] == list(found)
    assert found[CONFIGS[profile].clusters] == CONFIGS[profile]  # so that it is not trained twice


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu"])
def test_amounts_ascend_and_hold_the_one_in_use(profile):
    found = views.amounts(profile)
    images = [config.images for name, config in found.items() if name != views.BARE]
    assert next(iter(found)) == views.BARE and images == sorted(images) and len(images) == 3
    assert found[views.TCNN] == CONFIGS[profile]


@pytest.mark.parametrize(
    ("profile", "name"), [("cpu", "TCNN, 5,000 images"), ("gpu", "TCNN"), ("smoke", "TCNN")]
)
def test_the_papers_number_of_images_is_among_them(profile, name):
    assert views.fully_augmented(profile) == name


def by_clusters(means, seeds=1):
    """Runs by number of clusters with these errors, the same for all seeds."""
    return {clusters: seeds * [one_run(error)] for clusters, error in means.items()}


def test_sweeps_have_the_errors_of_all_numbers_of_clusters():
    runs = views.as_swept(by_clusters({1: 8.0, 16: 7.0, 48: 7.5}, seeds=2), used=48)
    settings, errors = swept(runs, "inter-pupil", "clusters")
    assert settings == (1, 16, 48) and errors.shape == (2, FACES, 3)
    assert errors.mean((0, 1)) == pytest.approx([8.0, 7.0, 7.5])
    assert runs[0].errors["inter-pupil"].mean() == pytest.approx(7.5)


def test_a_number_of_clusters_that_is_best_on_every_face_has_no_doubt():
    runs = views.as_swept(by_clusters({1: 8.0, 16: 7.0, 48: 7.5}), used=48)
    assert views.best_interval(runs) == (16, 16, 16)


def test_the_interval_of_the_best_number_holds_those_that_other_faces_prefer():
    half = np.where(np.arange(FACES) % 2, 1.0, -1.0)
    runs = views.as_swept(by_clusters({8: 7 + half, 32: 7 - half, 64: 9.0}), used=8)
    value, low, high = views.best_interval(runs)
    assert (low, high) == (8, 32) and value in (8, 32)
    _, best, drawn = views.best_samples(runs)
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    assert shares[2] == 0 and abs(shares[0] - shares[1]) < 0.15 and best in (0, 1)


def test_seeds_are_drawn_again_as_well():
    errors = {8: [one_run(6.0), one_run(8.0), one_run(8.0)], 64: 3 * [one_run(7.4)]}
    assert views.best_interval(views.as_swept(errors, used=64)) == (
        8,
        8,
        64,
    )  # without the first seed 64 is best


def test_the_best_number_is_judged_by_its_limits(run):
    sweep = {1: 8.0, 16: 7.0, 48: 7.5, 128: 7.9}
    runs, others = (views.as_swept(by_clusters(sweep | more), used=48) for more in ({}, {48: 6.0}))
    results = {"aflw": {views.TCNN: runs, views.OWN: others}, "afw": {views.TCNN: others}}
    verdict = views.judge_best(run, results)
    assert (verdict.claim, verdict.verdict, verdict.left) == ("TCNN-C12", "reproduced", 16)
    assert "TCNN, own labels, aflw 48 [48, 48]; TCNN, afw 48 [48, 48]" in verdict.note
    many = views.as_swept(by_clusters(sweep | {128: 6.5}), used=48)
    assert views.judge_best(run, {"aflw": {views.TCNN: many}}).verdict == "not reproduced"


def test_the_row_of_the_best_number_has_its_interval(run):
    runs = views.as_swept(by_clusters({1: 8.0, 16: 7.0, 48: 7.5}), used=48)
    [row] = views.best_rows(run, "TCNN-S18", AFLW, {views.TCNN: runs})
    assert (row.metric, row.value, row.ci_low, row.ci_high, row.normaliser) == (
        "best number of clusters", 16, 16, 16, "none",
    )  # fmt: skip


def test_the_table_of_the_best_number_has_paired_differences(run):
    runs = views.as_swept(by_clusters({1: 8.0, 16: 7.0, 48: 7.5}), used=48)
    table = views.best_table(run, AFLW, runs, 48, "Best").data
    assert table["clusters"].tolist() == [1, 16, 48]
    assert table["difference to 48"].tolist() == ["+0.50 [+0.50, +0.50]", "-0.50 [-0.50, -0.50]", "–"]
    assert table["best in, % of resamples"].tolist() == ["0", "100", "0"]


HEADS = dict(
    faces=[30.0, 10.0], images=[300.0, 100.0], fit_before=[2.0, 4.0], fit_after=[1.0, 4.0],
    loss_before=[2.0, 2.0], loss_after=[1.0, 2.0], validating=[10.0, 30.0],
)  # fmt: skip


def test_changes_of_losses_weigh_heads_by_their_images():
    runs = [one_run(**HEADS)]
    assert views.loss_change(runs, "fit", "images") == pytest.approx(100 * (700 / 1000 - 1))
    assert views.loss_change(runs, "loss", "validating") == pytest.approx(100 * (70 / 80 - 1))


def test_what_tweaking_changes_stands_in_one_line(run):
    table = views.fit_table(run, AFLW, {"TCNN": [one_run(6.3, **HEADS)]}, [one_run(7.0)], "Changes").data
    assert table.iloc[0].tolist()[:5] == ["TCNN", "20", "200", "-30.0", "-12.5"]
    assert table.iloc[0, 5] == "-10.00 [-10.00, -10.00]"
    rows = views.fit_rows(run, "TCNN-S15", {"TCNN": [one_run(**HEADS)]})
    assert [(row.metric, row.value, row.unit) for row in rows] == [
        ("change of the training loss by tweaking", -30.0, "%"),
        ("change of the validation loss by tweaking", -12.5, "%"),
    ]


def test_what_a_head_learns_follows_from_its_layers(run):
    results = {name: [with_seconds(60.0), with_seconds(80.0)] for name in views.splits("cpu")}
    rows = views.cost_rows(run, "TCNN-S8", views.splits("cpu"), results)
    learnt = {row.method: row.value for row in rows if row.metric == "numbers that a head learns"}
    dense = 256 * 100 + 100 + 100 * 10 + 10
    assert learnt == {"TCNN": dense, "TCNN, split at CL4": dense + 64 * 64 * 2 * 2 + 64}
    times = [row for row in rows if row.metric == "time of tweaking"]
    assert [(row.value, row.ci_low, row.ci_high, row.unit) for row in times] == 2 * [(70.0, 60.0, 80.0, "s")]
    assert [row.value for row in rows if row.metric == "epochs per head"] == [75.0, 75.0]


def with_seconds(seconds):
    one = one_run(epochs=[70.0, 80.0])
    return replace(one, provenance={**one.provenance, "tweaking seconds": seconds})


def epochs(by_number):
    return {
        clusters: [
            one_run(
                epochs=list(map(float, several)),
                loss_before=[1.0] * len(several),
                loss_after=[0.5] + [1.0] * (len(several) - 1),
            )
        ]
        for clusters, several in by_number.items()
    }


def test_total_effort_is_linear_if_epochs_do_not_depend_on_clusters(run):
    rows = views.effort_rows(
        run, "TCNN-S19", views.TCNN, epochs({2: [70, 90], 4: [80, 80, 70, 90], 8: 8 * [80]})
    )
    found = {(row.method, row.metric): row.value for row in rows}
    assert (
        found["TCNN, 2 clusters", "epochs in total"] == 160
        and found["TCNN, 8 clusters", "epochs in total"] == 640
    )
    assert found["TCNN", "epochs per cluster over values of K"] == 80
    assert found["TCNN", "their standard deviation over values of K"] == 0
    assert found["TCNN", "power of K that the total grows with"] == pytest.approx(1)


def test_one_cluster_has_a_mean_without_interval(run):
    rows = views.effort_rows(run, "TCNN-S19", views.TCNN, epochs({1: [60], 2: [70, 90]}))
    assert [(row.method, row.ci_low) for row in rows if row.metric == "epochs per cluster"] == [
        ("TCNN, 1 cluster", None),
        ("TCNN, 2 clusters", 70.0),
    ]


def test_epochs_are_judged_against_their_mean(run):
    same, growing = epochs({1: [999], 2: [78, 82], 4: [79, 81, 80, 80]}), epochs({2: [60, 60], 4: 4 * [100]})
    verdict = views.judge_effort(run, same, growing)
    assert (verdict.claim, verdict.verdict, verdict.right) == ("TCNN-C13", "reproduced", 80.0)
    assert "heads that left the vanilla weights: K = 2 1 of 2, K = 4 1 of 4" in verdict.note
    assert "TCNN, own labels: 60 at K = 2, 100 at K = 4" in verdict.note
    assert views.judge_effort(run, growing, same).verdict == "not reproduced"


def test_variants_are_tested_on_all_sets_by_their_kind(run, monkeypatch):
    asked = []

    def test(kind):
        return lambda run, config, train, source, seeds: (
            asked.append((kind, source.protocol)) or [kind, *seeds]
        )

    monkeypatch.setattr(views.tested, "test_tcnn", test("tcnn"))
    monkeypatch.setattr(views.tested, "test_vanilla", test("vanilla"))
    train, sources = run.source("mtfl", "train"), {"aflw": AFLW, "afw": run.source("afw", "five")}
    found = views.test_variants(
        run, {**views.splits("smoke"), **views.vanilla_variants("smoke")}, train, sources
    )
    assert found["afw"] == {
        "TCNN": ["tcnn", 0], "TCNN, split at CL4": ["tcnn", 0],
        "vanilla CNN": ["vanilla", 0], "vanilla CNN, warped images": ["vanilla", 0],
    }  # fmt: skip
    assert asked.count(("tcnn", "mtfl")) == 2 and len(asked) == 8


@pytest.mark.parametrize("faces", ["synthetic", "real"])
def test_only_variants_that_decide_have_all_seeds(faces, drawing, monkeypatch):
    run = Experiment("tcnn", profile="cpu", faces=faces, device="cpu")
    monkeypatch.setattr(views.tested, "test_tcnn", lambda run, config, train, source, seeds: list(seeds))
    train = run.source("mtfl", "train")
    found = views.test_variants(run, views.variants("cpu"), train, {"aflw": AFLW})["aflw"]
    if faces == "synthetic":
        assert {name for name, runs in found.items() if len(runs) == 1} == found.keys() - views.SEVERAL
        assert found["TCNN"] == [0, 1, 2] and found["TCNN, 5,000 images"] == [0]
    else:
        assert not found.keys() & views.COSTLY and found["TCNN"] == [0]


def test_augmentation_is_judged_with_the_papers_number_of_images(run):
    kinds = {"aflw": {views.OWN: [one_run(6.5)]}}
    errors = {views.BARE: 7.0, "TCNN, 5,000 images": 6.9, views.TCNN: 9.0}
    amounts = {"aflw": {name: [one_run(error)] for name, error in errors.items()}}
    verdict = views.judge_augmentation(run, amounts, kinds, "TCNN, 5,000 images")
    assert (verdict.claim, verdict.verdict) == ("TCNN-C15", "reproduced")
    assert (verdict.left, verdict.right) == (6.9, 7.0)
    assert "TCNN, own labels, against none: -0.50 [-0.50, -0.50]" in verdict.note


def test_numbers_of_clusters_are_tested_for_one_kind_of_labels(run, monkeypatch):
    def test(run, config, train, source, seeds):
        return [(config.clusters, config.augmentation, *seeds)]

    monkeypatch.setattr(views.tested, "test_tcnn", test)
    found = views.test_sweep(run, views.OWN, run.source("mtfl", "train"), {"aflw": AFLW})
    assert found == {"aflw": {k: [(k, "aligned, own labels", 0)] for k in (1, 2, 4)}}
