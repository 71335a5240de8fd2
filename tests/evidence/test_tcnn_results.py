"""TCNN's benchmarks: what follows from the text, gaps in closed form, poses, and which examples are shown."""

from dataclasses import replace

import numpy as np
import pytest
from five_dots import five_dots
from tcnn_runs import ABOUT, five_point_run

from replicate.evidence import manifest, published, tables
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.tested import ONE_IMAGE
from replicate.evidence.tested.tcnn_clusters import Clustered
from replicate.evidence.views import tcnn_results as views
from replicate.faces.sources import FaceSource

FACES = 40
OFFSETS = np.linspace(-1, 1, FACES)
SOURCES = {name: FaceSource(*which, "synthetic", "smoke") for name, which in views.TEST_SETS.items()}


@pytest.fixture(params=["synthetic"])
def run(request, drawing):
    return Experiment("tcnn", faces=request.param, device="cpu")


def one_run(error, alone=None):
    errors = {"inter-pupil": error + OFFSETS, ONE_IMAGE: (error if alone is None else alone) + OFFSETS}
    return five_point_run(errors, loss_before=[1.0, 1.0], loss_after=[1.0, 0.5])


def methods(tcnn=7.0, vanilla=8.0, sdm=10.0, own=6.0, **alone):
    found = {"SDM": sdm, "vanilla CNN": vanilla, "TCNN": tcnn, "TCNN, own labels": own}
    return {name: [one_run(error, alone.get(name))] for name, error in found.items()}


def test_errors_that_follow_from_the_text_are_those_on_record():
    known = published.load("tcnn")
    known = known[(known["artefact"] == "TCNN-F8a") & (known["source"] == "derived")]
    for name in ("aflw", "afw"):
        printed = known[known["subset"] == name].set_index("label")["value"]
        assert {method: f"{found.value:.2f}" for method, found in views.derived(name).items()} == dict(
            printed
        )


def test_rounding_of_gap_and_percentage_bounds_what_follows_from_them():
    aflw, afw = views.derived("aflw"), views.derived("afw")
    assert aflw["TCDCN'14"] == pytest.approx((0.62 / 0.08, 0.615 / 0.085, 0.625 / 0.075))
    assert aflw["TCNN"] == pytest.approx((0.62 / 0.08 - 0.62, 0.615 / 0.085 - 0.615, 0.625 / 0.075 - 0.625))
    assert afw["TCDCN'14"] == pytest.approx((1.4 / 0.17, 1.35 / 0.175, 1.45 / 0.165))


def test_the_text_table_leaves_out_what_is_only_drawn():
    table = views.text_table().data
    assert set(table["source"]) == {"paper", "derived"} and len(table) == 10
    assert "0.62 points" in table["value"].tolist() and "7.75 %" in table["value"].tolist()


def test_rows_have_the_names_that_published_values_have(run):
    rows = views.error_rows(run, "TCNN-F8a", SOURCES, {name: methods() for name in SOURCES})
    assert {(row.protocol, row.subset) for row in rows} == {("mtfl", "aflw"), ("mtfl", "afw")}
    found = {(row.method, row.subset): row.value for row in rows}
    assert found["TCNN", "afw"] == 7.0 and len(rows) == 8
    table = tables.compare(rows)
    assert table[table["method"] == "TCNN"]["paper"].tolist() == ["7.13", "6.84"]
    assert views.as_published([replace(rows[0], protocol="300w", subset="common")])[0].protocol == "300w"


def test_networks_without_mirror_images_stand_beside(run):
    shown = views.with_one_image(methods(TCNN=7.4))
    assert list(shown)[-1] == "TCNN, own labels, one image" and "SDM, one image" not in shown
    assert shown["TCNN, one image"][0].errors["inter-pupil"].mean() == pytest.approx(7.4)


def test_gaps_are_paired_and_in_points_and_per_cent(run):
    rows = {
        (row.artefact, row.method, row.subset): row
        for row in views.gap_rows(run, SOURCES, {"aflw": methods()})
    }
    gap, share = (rows[artefact, "TCNN vs SDM", "aflw"] for artefact in ("TCNN-S21", "TCNN-S20"))
    assert (gap.value, gap.unit, gap.metric) == (3.0, "points", "absolute error gap")
    assert gap.ci_low == pytest.approx(3) and gap.ci_high == pytest.approx(3)
    assert (share.value, share.unit) == (30.0, "%") and share.ci_low < 30 < share.ci_high
    assert rows["TCNN-S21", "TCNN, own labels vs vanilla CNN", "aflw"].value == 2.0
    assert not any("TCDCN" in row.method for row in rows.values())  # numbers of photographs


def test_on_photographs_tcdcn_stands_beside_by_its_number(drawing):
    run = Experiment("tcnn", faces="real", device="cpu")
    rows = {
        (row.artefact, row.method): row for row in views.gap_rows(run, SOURCES, {"aflw": methods(tcnn=6.975)})
    }
    assert rows["TCNN-S21", "TCNN vs TCDCN'14"].value == pytest.approx(7.75 - 6.975)
    best = rows["TCNN-S20", "TCNN vs best previous"]
    assert best.value == pytest.approx(10.0) and best.ci_low < 10 < best.ci_high
    assert "follows from the text" in best.note
    assert tables.compare([best]).iloc[0]["paper"] == "8.00"


def test_tcnn_is_judged_on_both_sets_with_the_other_readings_in_the_note(run):
    results = {"aflw": methods(TCNN=7.5), "afw": methods()}
    verdict = views.judge_benchmark(run, results)
    assert (verdict.claim, verdict.verdict) == ("TCNN-C9", "reproduced")
    assert "TCNN, one image: aflw -0.50 [-0.50, -0.50], afw -1.00" in verdict.note
    assert "TCNN, own labels: aflw -2.00" in verdict.note
    assert "heads that left the vanilla weights: TCNN 1 of 2, TCNN, own labels 1 of 2" in verdict.note
    worse = {"aflw": methods(), "afw": methods(tcnn=8.5)}
    assert views.judge_benchmark(run, worse).verdict == "not reproduced"


def test_tcdcn_is_judged_on_photographs_alone(run):
    assert views.judge_before(run, "TCNN-C10", "aflw", {"aflw": methods()}).verdict == "not testable"
    assert views.judge_before(run, "TCNN-C11", "afw", {"aflw": methods()}) is None
    real = replace(run, faces="real")
    verdict = views.judge_before(real, "TCNN-C10", "aflw", {"aflw": methods(tcnn=7.0)})
    assert (verdict.verdict, verdict.right) == ("reproduced", 7.75)  # half of 8 % is asked for
    assert "rounding allows 7.24 to 8.33" in verdict.note
    assert "one pixel" not in verdict.note  # not on record
    on_afw = views.judge_before(real, "TCNN-C11", "afw", {"afw": methods(tcnn=7.0)})
    assert "faces of AFW that 300-W annotates" in on_afw.note
    nearly = views.judge_before(real, "TCNN-C10", "aflw", {"aflw": methods(tcnn=7.55)})
    assert nearly.verdict == "direction holds"
    assert (
        views.judge_before(real, "TCNN-C10", "aflw", {"aflw": methods(tcnn=9.0)}).verdict == "not reproduced"
    )


def with_poses(pose):
    return Clustered(one_run(7.0), np.zeros(len(pose), int), 1, np.asarray(pose))


def test_poses_are_those_of_mtfl():
    masks = views.by_pose(with_poses([1, 2, 3, 3, 4, 5]))
    assert {name: mask.nonzero()[0].tolist() for name, mask in masks.items()} == {
        "frontal": [2, 3], "half turned": [1, 4], "profile": [0, 5],
    }  # fmt: skip
    assert "profile" not in views.by_pose(with_poses([1, 2, 3, 3, 4, 4]))  # one face has no interval
    assert views.by_pose(replace(with_poses([3]), pose=None)) == {}


def test_errors_by_pose_are_those_of_its_faces(run):
    poses = views.by_pose(with_poses(20 * [3] + 20 * [5]))
    rows = views.pose_rows(run, "TCNN-F8a", SOURCES["aflw"], methods(), poses)
    found = {(row.method, row.subset): row for row in rows}
    assert found["TCNN", "aflw, frontal"].value == pytest.approx(7 + OFFSETS[:20].mean(), rel=1e-5)
    assert found["TCNN", "aflw, profile"].images == 20
    table = views.pose_table(run, SOURCES["aflw"], methods(), poses, "By pose").data
    assert table["TCNN, difference"].tolist() == 2 * ["-1.00 [-1.00, -1.00]"]
    assert views.pose_table(run, SOURCES["aflw"], methods(), {}, "By pose").data.empty


def test_bars_say_their_values(run):
    figure = views.bars(run, "TCNN-F8a", SOURCES, {name: methods() for name in SOURCES})
    assert "AFW: SDM 10.00 [" in figure.get_label() and "TCDCN" not in figure.get_label()
    assert [bar.get_height() for bar in figure.axes[0].patches] == pytest.approx([10, 8, 7, 6])
    real = views.bars(replace(run, faces="real"), "TCNN-F8a", SOURCES, {"aflw": methods()})
    assert "TCDCN'14, from the text 7.75 [7.24, 8.33]" in real.get_label()


def test_curves_have_their_mean_in_the_legend(run):
    figure = views.curves(run, "TCNN-F8b", SOURCES["aflw"], methods())
    assert "TCNN, mean 7.00 %: AUC" in figure.get_label()


def test_examples_are_the_first_faces_and_the_worst_of_the_rest():
    errors = np.concatenate([np.full(6, 50.0), np.arange(20.0)])
    assert views._first_and_worst(errors).tolist() == [*range(6), 25, 24, 23, 22, 21, 20]
    assert views._first_and_worst(errors[:8]).tolist() == [*range(6), 7, 6]
    assert views._first_and_worst(errors[:4]).tolist() == [0, 1, 2, 3]


def test_points_that_are_off_by_more_than_a_tenth_are_red(run):
    faces = five_dots(8, jitter=0)
    eyes = np.linalg.norm(faces.points[:, 0] - faces.points[:, 1], axis=-1)
    points = faces.points.copy()
    points[0, 2, 0] += 0.11 * eyes[0]
    points[1, 3, 1] += 0.09 * eyes[1]
    assert views._wrong(points, faces).nonzero() == (pytest.approx([0]), pytest.approx([2]))
    errors = {"inter-pupil": np.linspace(1, 8, 8)}
    found = Predictions("m", "toy", "synthetic", faces.names, errors, points, ABOUT)
    figure = views.example_faces(run, "TCNN-F9", {"aflw": (faces, found)}, predict=None)
    assert "1 of 40 points in red" in figure.get_label()
    reds = [line for ax in figure.axes for line in ax.get_lines() if line.get_color() == "#FF2020"]
    assert sum(len(line.get_xdata()) for line in reds) == 1
    (kept,) = manifest.load("tcnn", ["smoke"])
    assert (kept.artefact, kept.subset) == ("TCNN-F9", "mtfl/aflw, mtfl/afw")


def test_points_that_are_not_on_record_are_asked_for(run):
    faces, asked = five_dots(8, jitter=0), []

    def predict(shown):
        asked.append(len(shown))
        return shown.points

    errors = {"inter-pupil": np.linspace(1, 8, 8)}
    found = Predictions("m", "toy", "synthetic", faces.names, errors, None, ABOUT)
    figure = views.example_faces(run, "TCNN-F9", {"aflw": (faces, found)}, predict)
    assert asked == [8] and "0 of 40 points in red" in figure.get_label()
