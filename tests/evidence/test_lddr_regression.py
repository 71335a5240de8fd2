"""The regression's page: both solvers, penalties, patch sizes, gains of stages, and the span of Eq. 3."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from replicate.evidence import claims, manifest
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import lddr_regression as views
from replicate.faces.sources import FaceSource
from replicate.methods.lddr import CONFIGS, LDDR, DeepFeatures, Descriptor, LDDRConfig
from replicate.regression import mean_square

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("drawing")
FACES = 20
NAMES = tuple(f"face {number}" for number in range(FACES))
ABOUT = {"device": "test", "training_seconds": 1.0, "faces_sha256": "0", "box_rule": "b", "training_faces": 5, "penalties": [50.0, 5.0]}  # fmt: skip
TEST = FaceSource("lfpw", "test", "synthetic", "smoke")
OFFSETS = np.linspace(-1, 1, FACES)
SMALL = CONFIGS["smoke"]


@pytest.fixture
def run():
    return Experiment("lddr", device="cpu")


def one_run(mean, stages=()):
    errors = {"inter-pupil": mean + OFFSETS}
    errors |= {f"inter-pupil, {k} stages": value + OFFSETS for k, value in enumerate(stages)}
    return Predictions("m", "lfpw-test", "synthetic", NAMES, errors, None, ABOUT)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    faces = FaceSource("lfpw", "train", "synthetic", "smoke").load()
    config = replace(SMALL, stages=(4,))
    return LDDR(config, DeepFeatures(Descriptor(SMALL.network.width))).fit(faces)


# Eq. 2


def test_the_problem_is_that_of_a_stage_in_units_of_one(run, model):
    faces = run.source("lfpw", "train").sample(6)
    features, targets = views.problem(model, faces)
    assert features.shape == (6, 17_408) and targets.shape == (6, 136)
    assert mean_square(features) == pytest.approx(1) and mean_square(targets) == pytest.approx(1)
    torch.testing.assert_close(targets.mean(0), torch.zeros(136).double(), atol=1e-5, rtol=0)
    centre = (faces.boxes[:, None, :2] + faces.boxes[:, None, 2:]) / 2
    shapes = (faces.points - centre) / (faces.boxes[:, 2:] - faces.boxes[:, :2]).mean(1)[:, None, None]
    lacking = (shapes - shapes.mean(0)).reshape(6, -1)
    assert np.corrcoef(lacking.ravel(), targets.numpy().ravel())[0, 1] > 0.999


def test_all_solvers_go_to_the_same_minimum():
    torch.manual_seed(0)
    features, targets = torch.rand(10, 60).double(), torch.randn(10, 6).double()
    table = views.solver_table(features, targets, 2.0).set_index("solver")
    assert len(table) == 4 and table.loc["closed form, 64 bits", "distance of the weights"] == 0
    assert table["distance of the weights"].drop("LIBLINEAR, tolerance 0.001").max() < 1e-5
    assert (
        table.loc["closed form, 64 bits", "gradient left"] < 1e-12 and (table["gradient left"] < 1e-2).all()
    )
    shown = views.shown(table.reset_index(), features, "Title")
    assert shown.caption == "Title: 10 samples of 60 features, 4 targets."
    assert shown.data["distance of the weights"][0] == "0.0e+00"


def test_costs_are_those_of_liblinear():
    table = views.costs([one_run(5.0)], replace(SMALL, penalty=1_000.0))
    assert table.to_numpy().tolist() == [[1, "50", "1.0e-02", "1.0e+01"], [2, "5", "1.0e-01", "1.0e+02"]]


# The penalty


def test_the_penalties_include_the_one_in_use():
    configs = views.penalties(SMALL)
    assert LDDRConfig().penalty in configs and configs[SMALL.penalty] == SMALL
    assert {replace(config, penalty=1.0) for config in configs.values()} == {replace(SMALL, penalty=1.0)}


def test_the_sweep_is_shown_on_test_and_on_training_faces(run):
    by_penalty = {1.0: [one_run(8.0)], 10.0: [one_run(5.0)], 100.0: [one_run(6.0)]}
    learnt = {1.0: np.full(4, 0.5), 10.0: np.full(4, 3.0), 100.0: np.full(4, 5.5)}
    figure = views.penalty_plot(run, TEST, by_penalty, learnt, used=10.0)
    ax = figure.axes[0]
    used, test, train = ax.lines
    assert ax.get_xscale() == "log" and set(used.get_xdata()) == {10.0}
    np.testing.assert_allclose(test.get_xydata(), [[1, 8], [10, 5], [100, 6]])
    np.testing.assert_allclose(train.get_ydata(), [0.5, 3, 5.5])
    assert "test faces 8.00 at 1, 5.00 at 10, 6.00 at 100; training faces 0.50 at 1" in figure.get_label()
    table = views.penalty_table(run, TEST, by_penalty, learnt, 10.0, "Sweep").data
    assert table["penalty"].to_list() == ["1", "10", "100"]
    assert table["difference"].to_list() == ["+3.00 [+3.00, +3.00]", "–", "+1.00 [+1.00, +1.00]"]
    assert table["C of stage 1"].to_list() == ["1.0e-02"] * 3
    assert table["4 training faces, %"].to_list() == ["0.50", "3.00", "5.50"]
    rows = views.penalty_rows(run, TEST, by_penalty)
    assert [(row.method, row.value) for row in rows] == [
        ("LDDR, penalty 1", 8.0), ("LDDR, penalty 10", 5.0), ("LDDR, penalty 100", 6.0),
    ]  # fmt: skip
    (kept,) = manifest.load("lddr", ["smoke"])
    assert (kept.artefact, kept.images) == ("LDDR-S15", FACES)


def test_penalties_may_have_different_numbers_of_seeds(run):
    by_penalty = {1.0: [one_run(8.0)], 10.0: [one_run(5.0), one_run(7.0)]}
    learnt = dict.fromkeys(by_penalty, np.full(4, 3.0))
    table = views.penalty_table(run, TEST, by_penalty, learnt, 10.0, "Sweep").data
    assert [cell.split()[0] for cell in table["test faces, %"]] == ["8.00", "6.00"]
    assert table["difference"].to_list() == ["+3.00 [+3.00, +3.00]", "–"]
    figure = views.penalty_plot(run, TEST, by_penalty, learnt, used=10.0)
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), [8, 5])
    (kept,) = manifest.load("lddr", ["smoke"])
    assert kept.seeds == 1


def test_training_faces_are_fitted_by_what_learnt_from_them(run):
    config = replace(SMALL, features="HOG", stages=(4,))
    configs = {penalty: replace(config, penalty=penalty) for penalty in (1.0, 1e9)}
    found = views.training_errors(run, configs, run.source("lfpw", "train"))
    assert {errors.shape for errors in found.values()} == {(16,)}
    assert found[1.0].mean() < found[1e9].mean()


# Stages and patches


def test_each_stage_is_compared_with_the_one_before(run):
    by_set = {"lfpw": (TEST, [one_run(4.0, stages=(20.0, 8.0, 4.0))])}
    table = views.gain_table(run, by_set, "Gains").data
    assert table.to_numpy().tolist() == [
        ["lfpw", 1, "-12.00 [-12.00, -12.00]", "8.00"], ["lfpw", 2, "-4.00 [-4.00, -4.00]", "4.00"],
    ]  # fmt: skip


def test_patches_of_one_size_are_judged_each(run):
    sizes = views.patch_sizes(SMALL)
    assert {name: config.stages for name, config in sizes.items()} == {
        "patches of 92 pixels": (1, 1), "patches of 68 pixels": (2, 2), "patches of 42 pixels": (3, 3), "patches of 21 pixels": (4, 4),
    }  # fmt: skip
    named = {quantity.at for quantity in claims.get("LDDR-C12").quantities}
    assert named == set(sizes)
    constant = {name: [one_run(7.0)] for name in sizes}
    assert views.judge_patches(run, [one_run(5.0)], constant).verdict == "reproduced"
    constant["patches of 42 pixels"] = [one_run(4.0)]
    verdict = views.judge_patches(run, [one_run(5.0)], constant)
    assert verdict.verdict == "not reproduced" and "patches of 42 pixels" in verdict.note


# Eq. 3


def test_steps_stay_in_the_span_that_grows_with_the_faces(run, model):
    train, test = run.source("lfpw", "train").load(), run.source("lfpw", "test").sample(5)
    table = views.span_table(model, train, test, (3, 6))
    assert table["faces"].to_list() == [3, 6, len(train)]
    dimensions = table["dimensions"].to_list()
    assert dimensions[0] == 5  # two images of each face, and one shape to start from
    assert dimensions == sorted(dimensions) and dimensions[-1] <= 2 * len(train) - 1
    assert table["LDDR"][:2].max() < 0.2 and np.isnan(table["LDDR"][2])
    assert (table["true"].diff()[1:] < 0).all() and (table["random"] > 80).all()
    rows = views.span_rows(run, table, 5)
    assert len(rows) == 8 and {row.images for row in rows} == {5}
    assert rows[0].metric == "outside the span of 3 training faces" and rows[0].value == pytest.approx(
        table["LDDR"][0], rel=1e-5
    )
    shown = views.span_shown(table, "Span").data
    assert shown["steps of LDDR, at most"].to_list()[2] == "–"
