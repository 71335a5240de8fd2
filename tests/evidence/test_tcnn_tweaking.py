"""TCNN cluster by cluster: means, counts and correlations in closed form, and chance in the faces that is taken for a gain."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr
from tcnn_runs import AFLW, five_point_run

from replicate.errors import ReplicateError
from replicate.evidence import manifest, tables
from replicate.evidence.experiment import Experiment
from replicate.evidence.tested import ONE_IMAGE
from replicate.evidence.tested.tcnn_clusters import VANILLA, VANILLA_ONE_IMAGE, Clustered
from replicate.evidence.views import tcnn_tweaking as views
from replicate.methods.tcnn import CONFIGS


@pytest.fixture
def run(drawing):
    return Experiment("tcnn", device="cpu")


def clustered(cluster, before, after, clusters=None, pose=None, **told):
    """Faces with these errors from one image, by vanilla network and TCNN."""
    count = len(cluster)
    before, after = (np.broadcast_to(np.asarray(side, float), count) for side in (before, after))
    errors = {"inter-pupil": after, ONE_IMAGE: after, VANILLA: before, VANILLA_ONE_IMAGE: before}
    found = five_point_run(errors, **told)
    return Clustered(found, np.asarray(cluster), clusters or max(cluster) + 1, pose)


def test_means_are_those_of_each_cluster():
    values, cluster = np.array([1.0, 2.0, 6.0, 4.0]), np.array([2, 0, 2, 0])
    assert views.cluster_means(values, cluster, 4) == pytest.approx([3.0, np.nan, 3.5, np.nan], nan_ok=True)


def test_clusters_that_improve_are_counted():
    cluster = np.repeat([0, 1, 2, 4], 10)  # nobody is in 3
    gain = np.repeat([1.0, -1.0, 1e-5, 2.0], 10)  # the third is rounding
    assert views.clusters_improved([clustered(cluster, 10 + gain, 10.0)]) == (2, 2, 2)


def test_the_number_that_improves_is_averaged_over_seeds_and_uncertain_in_faces_and_seeds():
    cluster = np.repeat(np.arange(8), 12)
    sure = clustered(cluster, 11.0, 10.0)
    unsure = clustered(cluster, 10 + np.tile([3.0, -2.0], 48), 10.0)  # gains half a point on average
    assert views.clusters_improved([sure]) == (8, 8, 8)
    value, low, high = views.clusters_improved([unsure])
    assert value == 8 and 3 <= low < 8 and high == 8
    both = views.clusters_improved([sure, clustered(cluster, 9.0, 10.0)])
    assert (both.value, both.low, both.high) == (4, 0, 8)


def test_rank_correlation_is_spearmans_with_ties():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (2, 6, 20)).astype(float)
    expected = [spearmanr(one, other).statistic for one, other in zip(x, y, strict=True)]
    assert views.rank_correlation(x, y) == pytest.approx(expected)


@pytest.mark.parametrize(("slope", "expected"), [(0.3, 1.0), (-0.3, -1.0)])
def test_gain_that_grows_with_the_error_correlates(slope, expected):
    cluster = np.repeat(np.arange(20), 6)
    before = 5.0 + cluster
    one = clustered(cluster, before, before - slope * before + 10)
    for halves in (False, True):
        found = views.gain_correlation([one], halves=halves)
        assert found.left == pytest.approx(expected) and found.right == 0
        assert found.p_value < 0.01 and found.low <= expected <= found.high


def test_chance_in_the_faces_looks_like_a_gain_unless_halves_are_compared():
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(64), 30)
    before = 8 + rng.normal(0, 2, len(cluster))  # clusters do not differ, and nothing depends on the error
    one = clustered(cluster, before, 7 + rng.normal(0, 2, len(cluster)))
    assert views.gain_correlation([one]).left > 0.5
    control = views.gain_correlation([one], halves=True)
    assert abs(control.left) < 0.1 and control.low < 0 < control.high


def test_a_gain_that_is_no_chance_survives_the_control():
    rng = np.random.default_rng(2)
    cluster = np.repeat(np.arange(64), 30)
    hard = np.linspace(0, 4, 64)[cluster]
    before = 6 + hard + rng.normal(0, 2, len(cluster))
    one = clustered(cluster, before, before - 0.2 * hard - rng.normal(0, 0.3, len(cluster)))
    control = views.gain_correlation([one], halves=True)
    assert control.left > 0.5 and control.low > 0


def test_clusters_with_a_single_face_cannot_be_halved():
    cluster = np.concatenate([np.repeat(np.arange(5), 4), [5, 6]])
    before = 5.0 + cluster
    assert views.gain_correlation(
        [clustered(cluster, before, 0.9 * before)], halves=True
    ).left == pytest.approx(1)
    with pytest.raises(ReplicateError, match="clusters: 2 of 2"):
        views.gain_correlation([clustered([0, 0, 1, 1], 5.0, 4.0)])


def three_clusters(**more):
    """Cluster 1 is the best, then 0, then 2, which has one face; 3 is empty."""
    cluster = np.array([0, 0, 0, 1, 1, 2])
    before, after = [8.0, 9, 10, 6, 7, 20], [7.0, 8, 9, 6.5, 7.5, 12]
    return clustered(cluster, before, after, 4, **more)


def test_rows_of_clusters_are_in_the_order_of_the_tweaked_error(run):
    own = clustered([0, 0, 0, 1, 1, 2], 9.0, [6.0, 6, 6, 5, 5, 11], 4)
    rows = views.cluster_rows(run, "TCNN-F6", AFLW, three_clusters(), "validation", own)
    assert [(row.method, row.value, row.images) for row in rows] == [
        ("vanilla CNN, cluster 1", 6.5, 2), ("TCNN, cluster 1", 7.0, 2), ("TCNN, own labels, cluster 1", 5.0, 2),
        ("vanilla CNN, cluster 2", 9.0, 3), ("TCNN, cluster 2", 8.0, 3), ("TCNN, own labels, cluster 2", 6.0, 3),
        ("vanilla CNN, cluster 3", 20.0, 1), ("TCNN, cluster 3", 12.0, 1), ("TCNN, own labels, cluster 3", 11.0, 1),
    ]  # fmt: skip
    assert {row.subset for row in rows} == {"validation"}
    assert rows[-1].ci_low is None and rows[3].ci_low < 9.0 < rows[3].ci_high


def test_the_figure_says_how_many_clusters_are_lower(run):
    own = clustered([0, 0, 0, 1, 1, 2], 9.0, 5.0, 4)
    figure = views.cluster_plot(run, "TCNN-F6", three_clusters(), "validation", own)
    assert "3 clusters before and after" in figure.get_label()
    assert "lower after it: 2 by TCNN, 3 by TCNN, own labels." in figure.get_label()
    (points,) = figure.axes[0].get_lines()
    assert points.get_ydata() == pytest.approx([5, 5, 5])
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == pytest.approx([6.5, 9, 20, 7, 8, 12])
    (kept,) = manifest.load("tcnn", ["smoke"])
    assert (kept.title, kept.images) == ("error of each cluster, validation", 6)


def test_quarters_of_the_clusters_have_their_gain_and_their_turned_faces(run):
    cluster = np.repeat(np.arange(4), 5)
    pose = np.where(cluster == 3, 5, 3)
    found = clustered(cluster, 5.0 + cluster, 5 + 0.5 * cluster, pose=pose)
    table = views.quarter_table(run, found, "validation", "Quarters")
    assert table.data["not frontal, %"].tolist() == ["0", "0", "0", "100"]
    assert table.data["gain, points"].tolist()[-1] == "+1.50 [+1.50, +1.50]"
    assert table.data["gain, %"].tolist() == ["0.0", "8.3", "14.3", "18.8"]
    assert "20 validation images" in table.caption
    unknown = replace(found, pose=None)
    assert set(views.quarter_table(run, unknown, "test", "Quarters").data["not frontal, %"]) == {"–"}


def test_the_summary_counts_correlates_and_looks_at_the_worst_quarter(run):
    cluster = np.repeat(np.arange(8), 4)
    pose = np.where(cluster >= 6, 1, np.where(np.arange(32) % 4 == 0, 2, 3))
    found = clustered(cluster, 5.0 + cluster, 5 + 0.5 * cluster, pose=pose)
    rows = {row.metric: row for row in views.summary_rows(run, "TCNN", AFLW, [found], "test")}
    assert rows["clusters with a lower mean error"].value == 7  # the first stays as it is
    assert rows["rank correlation of vanilla error and gain"].value == pytest.approx(1)
    assert rows["the same, error and gain from different halves of the faces"].value == pytest.approx(1)
    assert rows["largest gain of a cluster"].value == 3.5
    assert rows["faces that are not frontal, worst quarter of the clusters"].value == 100
    assert rows["faces that are not frontal, other clusters"].value == 25


def test_nearly_all_clusters_is_a_range(run):
    cluster = np.repeat(np.arange(64), 5)
    good = clustered(cluster, 8.0, np.where(cluster < 60, 7.0, 9.0))
    half = clustered(cluster, 8.0, np.where(cluster < 32, 7.0, 9.0))
    verdict = views.judge_clusters(run, [good], {"on test faces": [half]})
    assert (verdict.claim, verdict.verdict, verdict.left) == ("TCNN-C7", "reproduced", 60)
    assert "64 clusters hold faces" in verdict.note and "on test faces 32 [32, 32]" in verdict.note
    assert views.judge_clusters(run, [half], {}).verdict == "not reproduced"


def test_the_gain_is_judged_with_its_control(run):
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(64), 30)
    chance = clustered(cluster, 8 + rng.normal(0, 2, len(cluster)), 7 + rng.normal(0, 2, len(cluster)))
    verdict = views.judge_gain(run, [chance], {"elsewhere": [chance]})
    assert verdict.claim == "TCNN-C8" and verdict.verdict != "reproduced"
    assert "the same faces: +" in verdict.note and "different halves elsewhere: elsewhere " in verdict.note
    steady = clustered(cluster, 5.0 + cluster, 5 + 0.5 * cluster)
    assert views.judge_gain(run, [steady], {}).verdict == "reproduced"


def test_stopping_rows_tell_when_heads_ended(run):
    told = dict(epochs=[50.0, 90.0, 70.0], loss_before=[1.0, 2, 3], loss_after=[1.0, 1, 2])
    one = clustered([0, 0, 0], 7.0, 7.0, **told).run
    rows = views.stopping_rows(run, "TCNN", CONFIGS["cpu"], AFLW, [one])
    assert {row.metric: row.value for row in rows} == {
        "early-stopping patience": 50,
        "epochs per head": 70,
        "epochs of the head that ended first": 50,
        "epochs of the head that ended last": 90,
        "heads that kept the vanilla weights": 1,
    }
    assert tables.compare(rows).iloc[0]["paper"] == "50"


def test_the_note_on_mirror_images_has_every_network():
    def runs(error):
        return [clustered([0, 0, 0], error, error).run]

    results = {"aflw": {"TCNN": runs(7.0), "TCNN, one image": runs(7.5), "SDM": runs(9.0)}}
    assert views.mirror_note(results) == "averaged minus one image: TCNN, aflw -0.50 [-0.50, -0.50]"
