"""TCNN's clusters as evidence: Eqs 3 and 4 by numpy, intervals that know seeds from clusters, rows, verdicts, tables and figures."""

from dataclasses import replace

import numpy as np
import pytest

from replicate.evidence import claims, manifest, rows, tables
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import tcnn_cluster_figures as drawn
from replicate.evidence.views import tcnn_clusters as views
from replicate.evidence.views import tcnn_measures as measures
from replicate.evidence.views.tcnn_measures import LEARNING, NAMES, VALIDATING, Measured, Study
from replicate.methods.tcnn import LEVELS
from replicate.methods.tcnn_analysis import (
    LAST,
    PARTITIONS,
    PICTURED,
    POSITIONS,
    RGB,
    ClusteredFaces,
    Clusters,
    Partition,
)
from replicate.store import ModelKey, StoredModel
from replicate.training import FitReport

CLUSTERS = 8
MEAN = np.array([[13.0, 14], [26, 14], [20, 21], [15, 28], [25, 28]])


@pytest.fixture
def run(drawing):
    return Experiment("tcnn", device="cpu")


def partition(learning, validating, energy=10.0, shuffled=5.0, clusters=CLUSTERS):
    energies = (np.full(clusters, value) for value in (energy, 100.0, shuffled, 100.0))
    return Partition(learning, validating, np.array([1.0, 0.9]), *energies)


def toy(seeds=1, faces=400, turn=0.0, seed=0, networks=None):
    """A study in which deeper levels know more of the cluster that shapes and smiles follow; RGB knows nothing of it."""
    rng = np.random.default_rng(seed)
    count = faces + faces // 4
    true = rng.integers(CLUSTERS, size=count)
    places = MEAN + 4 * rng.normal(size=(CLUSTERS, 1, 2))[true] + rng.normal(size=(count, 5, 2))
    if turn:
        c, s = np.cos(turn), np.sin(turn)
        places = (places - 20) @ np.array([[c, s], [-s, c]]) + 20
    labels = np.stack(
        [rng.random(count) < 0.5, true < 4, rng.random(count) < 0.1 + 0.1 * (true == 2)], 1
    ).astype(int)
    clusters = []
    for _ in range(seeds):
        found = {}
        for place, name in enumerate(PARTITIONS):
            known = rng.random(count) < {RGB: 0.0, POSITIONS: 1.0}.get(
                name, place / 4 if name in LEVELS else 0.2
            )
            cluster = np.where(known, true, rng.integers(CLUSTERS, size=count))
            found[name] = partition(cluster[:faces], cluster[faces:], 10.0 + 5 * place)
        clusters.append(Clusters(found, rng.random(count - faces) * 5 + 2))
    means = {level: np.full((CLUSTERS, 40, 40, 3), 90, np.uint8) for level in PICTURED}
    about = ClusteredFaces(places[:faces], places[faces:], labels[:faces], labels[faces:], means)
    return Study(clusters, about, networks or seeds, "a device", 12.0, "model")


# Eqs 3 and 4 --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [LEARNING, VALIDATING])
def test_variances_are_numpys(part):
    studied = toy()
    [found], [labels] = studied.variances("CL3", part).values, studied.label_variances("CL3", part).values
    first = studied.partitions("CL3")[0]
    points, known, cluster = studied.faces.points, studied.faces.labels, first.learning
    if part == VALIDATING:
        points, known = studied.faces.validating_points, studied.faces.validating_labels
        cluster = first.validating
    for k in range(CLUSTERS):
        own = points[cluster == k]
        for j in range(5):
            expected = np.linalg.eigvalsh(np.cov(own[:, j].T, ddof=0)).max()
            assert found[k, j] == pytest.approx(expected)
        assert labels[k] == pytest.approx(np.var(known[cluster == k], axis=0))
    assert studied.images(part) == len(points)


def test_no_turn_of_all_shapes_changes_a_variance():
    one, other = toy(), toy(turn=0.7)
    assert np.abs(one.faces.points - other.faces.points).max() > 5
    for name in (RGB, LAST):
        before, after = one.variances(name).overall(), other.variances(name).overall()
        assert before.values[0] == pytest.approx(after.values[0])
        assert before.interval() == pytest.approx(after.interval())
    assert one.eye_distance == pytest.approx(other.eye_distance)


def test_random_clusters_vary_as_all_faces_do():
    studied = toy(faces=4000)
    points = studied.faces.points
    whole = np.mean([np.linalg.eigvalsh(np.cov(points[:, j].T)).max() for j in range(5)])
    random, real = (studied.variances(LAST, random=which).overall().interval() for which in (True, False))
    assert random.value == pytest.approx(whole, rel=0.03) and real.value < 0.3 * whole
    smiles = studied.label_variances(LAST, random=True).of(1).interval().value
    assert smiles == pytest.approx(studied.faces.labels[:, 1].var(), rel=0.03)


def test_the_distance_of_the_eyes_is_a_mean_square():
    eyes = toy().faces.points[:, :2]
    assert toy().eye_distance == pytest.approx(np.mean(np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=1) ** 2))


# Uncertainty --------------------------------------------------------------------------------------------------------------------------------


def test_resamples_are_of_faces():
    draws = measures.face_draws(50)
    assert (draws.sum(1) == 50).all() and draws.mean() == 1 and draws.max() >= 4
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(50, 5, 2)), (rng.random((50, 3)) < 0.4).astype(float)
    cluster = np.where(
        np.arange(50) == 7, 4, rng.integers(3, size=50)
    )  # one face alone, and none in cluster 3
    variances = measures.resampled_principal_variances(points, cluster, 5)
    shares = measures.resampled_label_variances(labels, cluster, 5)
    for sample in (0, 17):
        drawn = np.repeat(np.arange(50), draws[sample].astype(int))
        for k in range(3):
            own = drawn[cluster[drawn] == k]
            expected = [np.linalg.eigvalsh(np.cov(points[own, j].T, ddof=0)).max() for j in range(5)]
            assert variances[sample, k] == pytest.approx(np.array(expected))
            assert shares[sample, k] == pytest.approx(labels[own].var(0))
    assert np.isnan(variances[:, 3:]).all()


def test_uncertainty_is_that_of_new_faces():
    """With clusters that stay, the interval is as wide as what new faces give; the error over clusters is far wider, since clusters differ."""
    scale = np.repeat([1.0, 3.0, 5.0, 7.0], 50)[:, None, None]  # the same clusters every time

    def drawn(seed):
        points = scale * np.random.default_rng(seed).normal(size=(200, 5, 2))
        about = ClusteredFaces(points, points, np.zeros((200, 3), int), np.zeros((200, 3), int), {})
        one = partition(np.arange(200) // 50, np.arange(200) // 50, clusters=4)
        return Study([Clusters({RGB: one}, np.zeros(200))], about, 1, "d", 1.0, "m").variances(RGB).overall()

    values = [drawn(seed).repetitions[0] for seed in range(200)]
    some = [drawn(seed).interval() for seed in range(10)]
    width = np.mean([one.high - one.low for one in some]) / (2 * 1.96)
    assert width == pytest.approx(np.std(values), rel=0.15)
    assert drawn(0).standard_error() > 4 * width


def test_the_paper_has_the_error_over_clusters():
    values = np.array([1.0, np.nan, 3.0, 8.0, np.nan])[:, None]
    measured = Measured([values], [np.full((9, 1), 4.0)])
    assert measured.standard_error() == pytest.approx(np.std([1, 3, 8], ddof=1) / np.sqrt(3))
    assert measured.interval() == (4, 4, 4) and measured.repetitions == [4.0]


def test_repetitions_are_uncertain_too():
    def of(*levels):
        return Measured([np.full((6, 1), one) for one in levels], [np.full((1000, 1), one) for one in levels])

    assert of(5.0, 5.0, 5.0).interval() == (5, 5, 5)
    value, low, high = of(4.0, 5.0, 6.0).interval()
    assert value == 5 and low < 4.5 and high > 5.5


def test_resamples_are_moved_onto_the_value():
    samples = np.random.default_rng(0).normal(3.0, 0.1, (1000, 1))  # faces drawn twice: closer than they are
    value, low, high = Measured([np.full((4, 1), 3.3)], [samples]).interval()
    assert (value, low, high) == pytest.approx((3.3, 3.3 - 0.196, 3.3 + 0.196), abs=0.02)


def test_levels_are_compared_on_the_same_networks_and_faces():
    rng = np.random.default_rng(0)
    seeds = [5 + one for one in rng.normal(0, 1, (3, 1))]
    noise = rng.normal(0, 0.1, (1000, 1))
    right = Measured([np.full((6, 1), one) for one in seeds], [one + noise for one in seeds])
    left = Measured([one - 1 for one in right.values], [one - 1 for one in right.samples])
    found = measures.comparison(left, right)
    assert (found.difference, found.low, found.high) == pytest.approx((-1, -1, -1))
    assert found.p_value < 0.01
    assert measures.comparison(right, right).p_value == 1


def test_a_drop_is_in_per_cent_of_the_right_side():
    left, right = (Measured([np.full((9, 1), v)], [np.full((1000, 1), v)]) for v in (3.0, 12.0))
    assert measures.drop(left, right) == (75, 75, 75)
    assert left.times(4).interval() == right.interval()


def test_clusters_are_drawn_where_faces_are_not_known():
    values = np.random.default_rng(0).normal(5, 2, 64)
    measured = measures._of_clusters([np.append(values, np.nan)])
    value, low, high = measured.interval()
    error = values.std() / 8
    assert value == pytest.approx(values.mean()) and high - low == pytest.approx(2 * 1.96 * error, rel=0.1)
    again = measures._of_clusters([np.append(values, np.nan)])
    assert again.interval() == measured.interval()


def test_one_network_is_clustered_from_several_starts(monkeypatch):
    asked = []

    key = ModelKey("toy", {}, "faces", "cpu", 0, 1)
    stored = StoredModel(key, {}, FitReport(seconds=2.0), "a device", "", "")

    def obtain(config, vanilla, train, profile, seed, **how):
        asked.append((config.restart, config.covariance, seed, how["fresh"]))
        return toy().clusters[0], stored

    monkeypatch.setattr(measures.tcnn_analysis, "obtain", obtain)
    monkeypatch.setattr(measures.tcnn_analysis, "obtain_faces", lambda *_, **__: toy().faces)

    def asked_for(faces="synthetic", profile="cpu", fresh=False, **changes):
        asked.clear()
        run = Experiment("tcnn", profile, faces, device="cpu", fresh=fresh)
        return measures.study(run, None, None, **changes)

    three = asked_for()
    assert asked == [(0, "spherical", seed, False) for seed in range(3)] and (three.networks, three.note) == (
        3,
        "",
    )
    one = asked_for("real", fresh=True)
    assert asked == [(0, "spherical", 0, True), (1, "spherical", 0, False), (2, "spherical", 0, False)]
    assert (one.networks, one.note, one.seconds) == (1, "EM from 3 starts", 6.0)
    asked_for("real", fresh=True, covariance="diag")
    assert asked == [(0, "diag", 0, False)]
    asked_for(profile="smoke")
    assert asked == [(0, "spherical", 0, False)]


# Rows and verdicts --------------------------------------------------------------------------------------------------------------------------


def test_rows_are_named_as_the_papers_values(run):
    studied = toy(seeds=2)
    sizes, landmarks, attributes = (
        make(run, studied) for make in (views.size_rows, views.landmark_rows, views.attribute_rows)
    )
    assert len(sizes) == 10 and len(landmarks) == 50 and sizes[0].seeds == 2 and sizes[0].images == 400
    cl1 = [one.sizes for one in studied.partitions(RGB)]
    assert sizes[0].ci_low < sizes[0].value < sizes[0].ci_high
    assert sizes[0].value == np.mean([np.median(one) for one in cl1])
    assert sizes[1].value == pytest.approx(np.mean([one.std() for one in cl1]), rel=1e-5)
    made = {(row.method, row.metric): row for row in landmarks}
    px = made["vanilla CNN, landmark 3, input of FC5", "principal-axis variance, Eq. 3"]
    relative = made["vanilla CNN, landmark 3, input of FC5", views.OF_EYES]
    assert relative.value == pytest.approx(100 * px.value / studied.eye_distance, rel=1e-4)
    named = {row.method for row in attributes if row.subset == LEARNING}
    assert "vanilla CNN, eyeglasses, input of CL2" in named and "clusters of the true points, gender" in named
    rows.record([*sizes, *landmarks, *attributes])
    assert len(rows.load("tcnn", profile="smoke")) == len(
        {row.key for row in (*sizes, *landmarks, *attributes)}
    )


def test_controls_stand_beside_the_levels(run):
    found = views.variance_rows(run, toy())
    names = [row.method for row in found if row.subset == VALIDATING]
    assert names == [
        *NAMES.values(),
        "random clusters, sizes of RGB clusters",
        "random clusters, sizes of FC5-input clusters",
    ]
    by_name = {row.method: row.value for row in found if row.subset == LEARNING}
    assert by_name[NAMES[POSITIONS]] < by_name[NAMES["CL4"]] < by_name[NAMES[RGB]]
    others = views.variance_rows(run, toy(), ", k-means")
    assert {row.method for row in others} == {f"{NAMES[level]}, k-means" for level in LEVELS}


def test_the_drop_is_that_of_each_landmark(run):
    studied = toy()
    found = {row.method: row for row in views.drop_rows(run, studied)}
    assert len(found) == 6
    nose = found["vanilla CNN, RGB input to FC5 input, nose"].value
    last, first = (studied.variances(name).values[0][:, 2].mean() for name in (LAST, RGB))
    assert nose == pytest.approx(100 * (1 - last / first), rel=1e-5)


def test_shares_are_those_of_all_training_faces(run):
    studied = toy()
    labels = np.concatenate([studied.faces.labels, studied.faces.validating_labels])
    found = {row.method: row for row in views.share_rows(run, studied)}
    assert found["eyeglasses"].value == pytest.approx(100 * labels[:, 2].mean(), rel=1e-5)
    assert found["smiling"].images == 500 and found["smiling"].ci_low is None
    assert set(found) == {"male", "smiling", "eyeglasses"}


def test_planted_effects_are_found(run):
    studied = toy(faces=4000)
    first, second = views.judge_landmarks(run, studied)
    assert first.verdict == "reproduced" and first.difference < 0 and "validating faces" in first.note
    assert second.verdict == "not reproduced"  # CL4 knows a quarter less here
    smile, glasses, gender = views.judge_attributes(run, studied)
    assert (smile.claim, smile.verdict) == ("TCNN-C3", "reproduced")
    assert glasses.claim == "TCNN-C4" and glasses.left < glasses.right
    assert gender.verdict == "not testable" and gender.claim == "TCNN-C5"
    sharp = views.judge_sharpness(run, studied)
    assert sharp.verdict == "reproduced" and "shared by two faces" in sharp.note
    assert "4,000 train images" in tables.verdict_table([first, sharp], subset="train").caption
    assert {v.claim for v in claims.recorded("tcnn", ["smoke"])} == {f"TCNN-C{n}" for n in (1, 2, 3, 4, 6)}


def test_gender_is_judged_on_photographs(run):
    studied = toy(faces=4000)
    found = views.judge_attributes(replace(run, faces="real"), studied)[2]
    assert found.verdict == "inconclusive" and found.left == pytest.approx(0.25, abs=0.01)


def test_sharpness_is_measured_in_both_ways(run):
    found = {(row.method, row.metric): row for row in views.sharpness_rows(run, toy())}
    assert found["RGB clusters", "sharpness of mean images"].value == 10
    assert found["random clusters, sizes of RGB clusters", "sharpness of mean images"].value == 5
    sizes = toy().partitions(RGB)[0].sizes
    expected = np.mean((sizes * 10 - 100) / ((sizes - 1) * 100)) * 100
    assert found["RGB clusters", "sharpness shared by two faces"].value == pytest.approx(expected, rel=1e-4)


# Tables and figures -------------------------------------------------------------------------------------------------------------------------


def test_table_1_has_the_papers_numbers_beside(run):
    table = drawn.size_table(views.size_rows(run, toy())).data
    assert table["paper: median ± SD"].tolist() == [
        "92.0 ± 98.3",
        "110.5 ± 55.1",
        "116.0 ± 70.0",
        "118.5 ± 81.6",
        "110.0 ± 58.3",
    ]
    assert table["features"].tolist() == [f"input of {level}" for level in LEVELS]


def test_tables_have_a_line_for_each_kind_of_clusters(run):
    studied = toy(seeds=2)
    variances = views.variance_rows(run, studied)
    table = drawn.spread_table(variances, "title")
    assert (
        table.data.columns.tolist() == ["clusters", "train faces", "validation faces"]
        and len(table.data) == 9
    )
    assert "px²" in table.caption
    labels = drawn.attribute_table(studied, views.attribute_rows(run, studied)).data
    assert labels.shape == (9, 4) and labels["smiling"][0].count("/") == 1
    landmarks = drawn.landmark_table(studied, views.landmark_rows(run, studied)).data
    assert landmarks.shape == (5, 6)
    repeated = drawn.repetition_table(studied, variances).data
    assert repeated.columns.tolist()[:3] == ["features", "network 1", "network 2"] and len(repeated) == 5
    assert drawn.repetition_table(toy(seeds=3, networks=1), variances).data.columns[3] == "start 3"
    choice = drawn.choice_table({"one": studied, "another": toy()}, variances).data
    assert len(choice) == 10 and choice["log density, validation"][0] == "0.900"


def test_grids_are_filled_line_by_line():
    images = np.stack([np.full((2, 2, 3), value, np.uint8) for value in range(5)])
    grid = drawn.montage(images)
    assert grid.shape == (4, 6, 3)
    assert grid[::2, ::2, 0].tolist() == [[0, 1, 2], [3, 4, 255]]


def test_mean_images_are_sorted(run, monkeypatch):
    studied = toy()
    shades = np.random.default_rng(0).permutation(CLUSTERS).astype(np.uint8) * 20
    means = np.broadcast_to(shades[:, None, None, None], (CLUSTERS, 40, 40, 3)).copy()
    studied = replace(studied, faces=replace(studied.faces, means=dict.fromkeys(PICTURED, means)))
    errors = studied.clusters[0].validation_error
    figure = drawn.means_figure(run, studied, errors, "error")
    upper, lower = (ax.images[0].get_array()[::40, ::40, 0].ravel()[:CLUSTERS] for ax in figure.axes)
    assert (np.diff(upper.astype(int)) > 0).all()
    cluster = studied.partitions(LAST)[0].validating
    by_error = np.argsort([errors[cluster == k].mean() for k in range(CLUSTERS)])
    assert lower.tolist() == shades[by_error].tolist()


def test_the_most_variable_cluster_has_enough_faces():
    studied = toy()
    chosen = drawn.most_variable(studied, LAST)
    spread = studied.variances(LAST).values[0].mean(1)
    assert chosen == spread.argmax() and studied.partitions(LAST)[0].sizes[chosen] >= 15
    rare = np.where(np.arange(400) < 5, 0, 1 + np.arange(400) % (CLUSTERS - 1))
    first = studied.clusters[0]
    partitions = first.partitions | {LAST: partition(rare, first.partitions[LAST].validating)}
    few = replace(studied, clusters=[replace(first, partitions=partitions)])
    assert drawn.most_variable(few, LAST) != 0  # five faces only


def test_figures_go_on_record(run):
    studied = toy(seeds=2)
    figures = [drawn.landmarks_figure(run, studied), drawn.attributes_figure(run, studied)]
    assert [one.artefact for one in manifest.load("tcnn", ["smoke"])] == ["TCNN-F3", "TCNN-F4"]
    main, *panels = figures[0].axes
    assert len(main.containers) == 5 and [len(panel.lines[0].get_xdata()) for panel in panels] == [15, 15]
    assert panels[0].get_ylim()[0] > panels[0].get_ylim()[1]  # downwards, as in images
    assert "CL1" in figures[0].get_label() and "smiling" in figures[1].get_label()
