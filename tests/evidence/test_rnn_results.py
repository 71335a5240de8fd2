"""RNN's counts, tables and curves: printed samples divide as they do, gaps have the right sign, gains along the curve are those of the shares."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from replicate.evidence import manifest, tested
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import ect_results, fitted, lddr_results
from replicate.evidence.views import rnn_results as views
from replicate.faces.sources import FaceSource
from replicate.methods.rnn import CONFIGS

FACES = 40
NAMES = tuple(f"face {number}" for number in range(FACES))
OFFSETS = np.linspace(-1, 1, FACES)
ABOUT = {"device": "test", "training_seconds": 1.0, "faces_sha256": "0", "box_rule": "b", "training_faces": 5}


@pytest.fixture
def run(drawing):
    yield Experiment("rnn", device="cpu")
    plt.close("all")


def one_run(errors, faces="synthetic"):
    errors = np.broadcast_to(np.asarray(errors, float), FACES)
    return Predictions("m", "toy", faces, NAMES, {"inter-pupil": errors}, None, ABOUT)


# Counts -----------------------------------------------------------------------------------------------------------------------------------


def test_samples_are_52_of_each_training_face():
    run = Experiment("rnn", "cpu", device="cpu")
    rows = views.augmented_rows(run, ["lfpw", "helen", "300w"])
    assert [(row.protocol, row.subset, row.value) for row in rows] == [
        ("lfpw", "train after augmentation", 42172),
        ("helen", "train after augmentation", 104000),  # printed: 121,160
        ("300w", "train after augmentation", 163696),
    ]


def test_helen_alone_has_samples_of_all_its_images():
    table = views.printed_samples_table().data.set_index("data set")
    assert table.columns[1] == "samples / 52"
    assert table.loc["lfpw"].tolist() == ["42,172", "811", "811", "1,035"]
    assert table.loc["helen"].tolist() == ["121,160", "2,330", "2,000", "2,330"]
    assert table.loc["300w"].tolist() == ["163,696", "3,148", "3,148", "3,837"]


# Other methods ----------------------------------------------------------------------------------------------------------------------------


def test_other_methods_are_those_on_record_of_their_chapters(run, monkeypatch):
    asked = []

    def compared_methods(of_ect, source):
        asked.append((of_ect.paper, of_ect.fresh, source.split))
        return {name: [one_run(1.0)] for name in ("mean shape", "SDM", "DAN", "ECT")}

    def compared_lddr(of_lddr, train, source, *, seeds):
        asked.append((of_lddr.paper, train.protocol, source.protocol, list(seeds)))
        return {name: [one_run(2.0)] for name in ("mean shape", "SDM", "LDDR")}

    for where in (ect_results, lddr_results.ect_results):
        monkeypatch.setattr(where, "compared_methods", compared_methods)
    monkeypatch.setattr(tested, "test_lddr_compared", compared_lddr)
    assert list(views.other_methods(run, run.source("300w", "full"))) == ["mean shape", "SDM", "DAN", "ECT"]
    found = views.other_methods(run, run.source("lfpw", "test"))
    assert list(found) == ["mean shape", "SDM", "LDDR", "DAN", "ECT"]
    assert found["SDM"][0].errors["inter-pupil"][0] == 2.0
    assert asked == [("ect", False, "full"), ("lddr", "300w", "lfpw", [0]), ("ect", False, "test")]


def test_methods_with_five_points_learn_from_what_they_say(run, monkeypatch):
    asked = []

    def test_baseline(one, model, train, source, *, points):
        asked.append((one.paper, type(model).__name__, train.protocol, points))
        return [one_run(2.0)]

    def test_vanilla(one, network, train, source, *, seeds):
        asked.append((one.paper, type(network).__name__, train.protocol, list(seeds)))
        return [one_run(1.0)]

    monkeypatch.setattr(tested, "test_baseline", test_baseline)
    monkeypatch.setattr(tested, "test_vanilla", test_vanilla)
    found = views.five_point_methods(run, run.source("mafl", "train"), run.source("mafl", "test"))
    assert list(found) == ["mean shape", "SDM", "vanilla CNN, trained on MTFL"]
    assert asked == [
        ("rnn", "MeanShape", "mafl", False), ("rnn", "SDM", "mafl", False), ("tcnn", "VanillaConfig", "mtfl", [0])
    ]  # fmt: skip


def test_panels_show_the_last_shapes_of_the_main_network(run, monkeypatch):
    asked, shapes = (
        [],
        np.arange(3 * 2 * 5 * 2.0).reshape(3, 2, 5, 2),
    )  # of three steps, two faces, five points

    def obtain(config, train, profile, seed, *, device):
        asked.append((train.split, profile, seed, device))
        return "network", []

    def predict_boxes(network, images, boxes, starts):
        return {name: shapes for name in starts if (network, images, boxes) == ("network", "images", "boxes")}

    monkeypatch.setattr(fitted.rnn_training, "obtain", obtain)
    monkeypatch.setattr(fitted.rnn_training, "predict_boxes", predict_boxes)
    predict = fitted.by_rnn(run, CONFIGS["smoke"], run.source("300w", "train"))
    assert asked == []
    np.testing.assert_array_equal(predict(SimpleNamespace(images="images", boxes="boxes")), shapes[-1])
    assert asked == [("train", "smoke", 0, "cpu")]


# Gaps -------------------------------------------------------------------------------------------------------------------------------------


def test_the_gap_is_to_the_best_other_method(run):
    others = {"SDM": [one_run(6 + OFFSETS)], "DAN": [one_run(5 + OFFSETS)], "mean shape": [one_run(9.0)]}
    assert views.best_of(others) == "DAN"
    source = run.source("lfpw", "test")
    ahead = views.gap_rows(run, "RNN-S5", source, "RNN", [one_run(4 + OFFSETS)], others, ("CFSS", "RNN-T2"))
    behind = views.gap_rows(run, "RNN-S5", source, "RNN", [one_run(7 + OFFSETS)], others)
    # no photographs: the printed number is no one's to be compared with
    assert [(row.metric, row.value, row.unit, row.subset) for row in ahead + behind] == [
        ("gap to DAN", 1.0, "points", ""), ("gap to DAN", -2.0, "points", "")
    ]  # fmt: skip
    assert (ahead[0].ci_low, ahead[0].ci_high) == (1.0, 1.0)


def test_on_photographs_the_gap_to_a_printed_number_stands_beside(drawing):
    run = Experiment("rnn", "cpu", "real", device="cpu")
    others = {"SDM": [one_run(6.0, "real")]}
    own = [one_run(4.0, "real")]
    rows = views.gap_rows(
        run, "RNN-S7", FaceSource("300w", "challenging", "real", "cpu"), "RNN", own, others, ("TCDCN", "RNN-T4")
    )  # fmt: skip
    assert [(row.metric, row.subset) for row in rows] == [
        ("gap to SDM", "challenging"),
        ("gap to TCDCN", "challenging"),
    ]
    assert [row.value for row in rows] == pytest.approx([2.0, 4.6])  # 8.60 is printed
    [_, cfss] = views.gap_rows(
        run, "RNN-S5", FaceSource("lfpw", "test", "real", "cpu"), "RNN", own, others, ("CFSS", "RNN-T2")
    )
    assert (cfss.metric, cfss.value) == ("gap to CFSS", pytest.approx(0.87))  # 4.87 is printed


# Gain along the curve ---------------------------------------------------------------------------------------------------------------------


def test_the_curve_counts_images_up_to_the_level():
    errors = np.array([[2.0, 4.0, 4.0, 9.0]])
    assert [views.within(errors, level)[0] for level in (1.0, 2.0, 4.0, 10.0)] == [0, 25, 75, 100]


def test_gains_are_relative_to_the_method_with_the_largest_area(run):
    quarter, half = np.arange(FACES) < FACES // 4, np.arange(FACES) < FACES // 2
    results = {
        "SDM": [one_run(12.0)],
        "DAN": [one_run(np.where(quarter, 4.5, 7.0))],
        "RNN": [one_run(np.where(half, 3.5, 7.0))],
    }
    assert views.second_best(results) == "DAN"
    source = run.source("300w", "common")
    rows = views.curve_gain_rows(run, source, results)
    gains = {row.metric: row.value for row in rows}
    assert gains == {  # nobody is within 3 % or 4 % by DAN; a quarter against a half; then all
        "relative CED gain over DAN at 5 %": 100.0,
        "relative CED gain over DAN at 6 %": 100.0,
        "relative CED gain over DAN at 8 %": 0.0,
        "relative CED gain over DAN at 10 %": 0.0,
    }
    figure = views.curve_gain_figure(run, source, results)
    points, percent = figure.axes
    drawn = dict(zip(np.round(points.lines[0].get_xdata(), 1), points.lines[0].get_ydata(), strict=True))
    assert (drawn[3.0], drawn[4.0], drawn[5.0], drawn[8.0]) == (0.0, 50.0, 25.0, 0.0)
    share = percent.lines[0].get_ydata()
    assert np.isnan(share[0]) and np.nanmax(share) == 100
    assert percent.lines[-1].get_ydata()[0] == 23  # the paper's
    assert "+25 points, +100 % at 5 %" in figure.get_label()
    [record] = manifest.load("rnn", ["smoke"])
    assert (record.artefact, record.images) == ("RNN-S8", FACES)
