"""RNN's ablations: networks differ in what they say, effects are those of the errors, the paper's are those of its tables, and claims have the right sides."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from replicate.evidence import manifest, published, tested
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import rnn_ablations as views
from replicate.evidence.views import rnn_effects as effects
from replicate.faces.sources import FaceSource
from replicate.methods.rnn import CONFIGS
from replicate.methods.rnn_training import keys

FACES = 40
NAMES = tuple(f"face {number}" for number in range(FACES))
OFFSETS = np.linspace(-1, 1, FACES)
ABOUT = {"device": "test", "training_seconds": 1.0, "faces_sha256": "0", "box_rule": "b", "training_faces": 5}
TRAIN = FaceSource("300w", "train", "synthetic", "cpu")


@pytest.fixture
def run(drawing):
    yield Experiment("rnn", device="cpu")
    plt.close("all")


def one_run(error, slope=1.0, **more):
    """A run with this mean error, and with these under other conditions; faces differ by `slope` times what they share."""
    errors = {"inter-pupil": error + slope * OFFSETS}
    errors |= {f"inter-pupil, {key}": value + OFFSETS for key, value in more.items()}
    return Predictions("m", "toy", "synthetic", NAMES, errors, None, ABOUT)


def printed(artefact):
    """Labels of the paper's rows that are RNN's own."""
    values = published.load("rnn")
    found = values[(values["artefact"] == artefact) & (values["method"] == "RNN")]
    return set(found["label"])


def changes(configs, first):
    return {
        name: {key: value for key, value in vars(config).items() if value != getattr(first, key)}
        for name, config in configs.items()
    }


def test_networks_have_the_papers_names():
    assert set(views.backbones("cpu")) == printed("RNN-T8")
    assert set(views.networks("cpu")) == printed("RNN-T9")
    assert set(views.trainings("cpu")) == printed("RNN-T11")
    assert set(views.pooled("cpu")) == printed("RNN-T14")


def test_each_network_differs_from_the_main_one_in_what_its_name_says():
    main = CONFIGS["cpu"]
    assert changes(views.backbones("cpu"), main) == {
        "RNN, VGG-S (128x128)": {"nominal": 128},
        "RNN, VGG-S (256x256)": {},
        "RNN, VGG-19 (128x128)": {"nominal": 128, "backbone": "VGG-19"},
        "RNN, VGG-19 (256x256)": {"backbone": "VGG-19"},
    }
    by_word = views.networks("cpu")
    assert {name: config.recurrent for name, config in by_word.items()} == {
        name: name.endswith("with recurrent features") for name in by_word
    }
    assert changes(views.gated("cpu"), main) == {
        "RNN": {},
        "RNN, full gates": {"gates": "full"},
    }
    assert changes(views.trainings("cpu"), main) == {
        "RNN, two-stage training": {"training": "two stages"},
        "RNN": {},
    }
    assert changes(views.pooled("cpu"), main) == {
        "RNN, SIP input: conv5": {"pooled": ("conv5",)},
        "RNN, SIP input: deconv6": {"pooled": ("deconv6",)},
        "RNN, SIP input: deconv7": {},
        "RNN, SIP input: conv5 + deconv7": {"pooled": ("conv5", "deconv7")},
        "RNN, SIP input: deconv6 + deconv7": {"pooled": ("deconv6", "deconv7")},
    }


def test_the_main_network_is_trained_once_for_all_tables():
    main = keys(CONFIGS["cpu"], TRAIN, "cpu", 0)[-1].hash
    own = (
        views.networks("cpu")["RNN, VGG-S (256x256), with recurrent features"],
        views.trainings("cpu")["RNN"],
        views.pooled("cpu")["RNN, SIP input: deconv7"],
    )
    assert [keys(config, TRAIN, "cpu", 0)[-1].hash for config in own] == 3 * [main]
    several = {keys(config, TRAIN, "cpu", 0)[-1].hash for config in views.networks("cpu").values()}
    assert len(several) == 8


def test_an_effect_is_that_of_the_errors_face_by_face(run):
    results = {"new": [one_run(4.0)], "old": [one_run(5.0)]}
    points, percent = effects.effect(results, effects.Change("new for old", "new", "old"))
    assert points.difference == pytest.approx(-1) and percent.value == pytest.approx(-20)
    # every face gains one point, so that only the error before varies from resample to resample
    np.testing.assert_allclose([points.low, points.high], -1)
    assert -21.5 < percent.low < -20 < percent.high < -18.5


def test_the_papers_effects_are_those_of_its_tables():
    large = effects.Change("", "RNN, VGG-19 (256x256)", "RNN, VGG-S (256x256)")
    assert effects.printed_effect("RNN-T8", large, "challenging") == pytest.approx((0.06, 100 * 0.06 / 8.23))
    together = effects.Change("", "RNN", "RNN, two-stage training")
    assert effects.printed_effect("RNN-T11", together, "full") == pytest.approx((-0.57, -57 / 5.47))
    unknown = effects.Change("", "RNN", "RNN, initialisation: candidate search N = 10")
    assert effects.printed_effect("RNN-T10", unknown, "full") is None


@pytest.mark.parametrize(
    ("artefact", "changes"),
    [("RNN-T8", views.SIZES), ("RNN-T9", views.RECURRENCE), ("RNN-T11", views.TRAININGS), ("RNN-T14", views.MAPS)],
)  # fmt: skip
def test_every_change_of_the_pages_is_printed(artefact, changes):
    for change in changes:
        assert all(effects.printed_effect(artefact, change, subset) for subset in views.SUBSETS)


def test_the_paper_gains_most_by_recurrence_with_its_smallest_network():
    gains = [effects.printed_effect("RNN-T9", change, "full")[0] for change in views.RECURRENCE]
    assert gains == pytest.approx([-0.60, -0.50, -0.27, -0.12])


def test_table_and_figure_hold_both_effects(run):
    sources = {name: run.source("300w", name) for name in ("common", "full")}
    change = effects.Change("end to end for two stages", "RNN", "RNN, two-stage training")
    results = {
        "common": {"RNN": [one_run(4.0)], "RNN, two-stage training": [one_run(5.0)]},
        "full": {"RNN": [one_run(6.0)], "RNN, two-stage training": [one_run(5.0)]},
    }
    table = effects.table(run, "RNN-T11", results, [change], "Effects").data
    assert table["the paper, points"].tolist() == ["-0.57", "-0.57"]
    assert table["here, points"].tolist() == ["-1.00 [-1.00, -1.00]", "+1.00 [+1.00, +1.00]"]
    assert [cell.split()[0] for cell in table["here, %"]] == ["-20.0", "+20.0"]
    figure = effects.plot(run, "RNN-T11", sources, results, [change])
    common, full = figure.axes
    assert common.lines[-1].get_xdata() == pytest.approx([-57 / 4.64])  # the paper's
    assert full.containers[0].lines[0].get_xdata() == pytest.approx([20.0])
    assert "full: end to end for two stages +20.00" in figure.get_label()
    [record] = manifest.load("rnn", ["smoke"])
    assert record.subset == "300w common (40 images), 300w full (40 images)" and record.images is None


def test_reductions_are_positive_where_the_error_falls(run):
    sources = {"full": run.source("300w", "full")}
    results = {"full": {"SDM": [one_run(8.0)], views.TWO_STAGES: [one_run(6.0)], "RNN": [one_run(9.0)]}}
    rows = effects.reduction_rows(run, "RNN-S15", sources, results, views.TRAININGS)
    found = {(row.method, row.metric): (row.value, row.unit) for row in rows}
    assert found == {
        (views.TWO_STAGES, "mean-error reduction vs SDM"): (25.0, "% relative"),
        ("RNN", f"mean-error reduction vs {views.TWO_STAGES}"): (-50.0, "% relative"),
    }


def test_mean_rows_stand_under_the_papers_names_method_by_method(run):
    sources = {name: run.source("300w", name) for name in ("common", "full")}
    results = {
        "common": {"a": [one_run(1.0)], "b": [one_run(2.0)]},
        "full": {"a": [one_run(3.0)], "b": [one_run(4.0)]},
    }
    rows = views.mean_rows(run, "RNN-T9", sources, results)
    assert [(row.method, row.subset, row.value) for row in rows] == [
        ("a", "common", 1.0), ("a", "full", 3.0), ("b", "common", 2.0), ("b", "full", 4.0)
    ]  # fmt: skip
    assert {row.normaliser for row in rows} == {"inter-pupil"}
    assert [row.method for row in views.mean_rows(run, "RNN-T9", sources, results, ["b"])] == ["b", "b"]


def test_networks_of_table_viii_are_the_recurrent_ones():
    runs = {name: [name] for name in views.networks("cpu")}
    found = views.only_recurrent(runs)
    assert set(found) == set(views.backbones("cpu"))
    assert found["RNN, VGG-19 (128x128)"] == ["RNN, VGG-19 (128x128), with recurrent features"]


def test_sizes_of_this_profile_beside_the_papers():
    table = views.scale_table(views.networks("cpu")).data.set_index("network")
    line = table.loc["RNN, VGG-19 (128x128), without recurrent features"]
    assert line.tolist() == [128, 64, "0.25", "–"]
    assert table.loc["RNN, VGG-S (256x256), with recurrent features"].tolist() == [256, 128, "0.25", "low rank"]  # fmt: skip


def test_what_is_pooled_at_full_size_is_the_papers():
    table = views.pooled_table(views.pooled("gpu")).data.set_index("network")
    assert table.loc["RNN, SIP input: deconv7"].tolist() == ["96", "7", "7", 256]
    assert table.loc["RNN, SIP input: conv5 + deconv7"].tolist() == ["512 + 96", "1 + 7", "4 + 7", 256]
    assert table.loc["RNN, SIP input: deconv6"].tolist() == ["96", "3", "6", 256]


def test_errors_before_the_first_step_are_those_of_peaks_and_of_step_zero(run):
    steps = {"peaks of conv8": 9.0, "0 steps": 8.0}
    assert tested.PEAKS_ALONE == "inter-pupil, peaks of conv8"
    table = views.first_errors_table(run, {"full": {"RNN": [one_run(5.0, **steps)]}}, "First").data
    assert [cell.split()[0] for cell in table.iloc[0, 2:]] == ["9.00", "8.00", "5.00"]


# Claims -----------------------------------------------------------------------------------------------------------------------------------


def runs_of_networks(gains):
    """Runs of the eight networks by what recurrence gains in each; without it the error is 10."""
    found = {}
    for (backbone, nominal), gain in gains.items():
        name = views.label(backbone, nominal)
        found[f"{name}, {views.WITHOUT}"] = [one_run(10.0)]
        found[f"{name}, {views.WITH}"] = [one_run(10.0 - gain)]
    return found


def test_claims_on_recurrence_have_the_right_sides(run):
    gains = {("VGG-S", 128): 3.0, ("VGG-S", 256): 2.0, ("VGG-19", 128): 1.0, ("VGG-19", 256): 0.5}
    small, large, deep, more = views.judge_recurrence(run, runs_of_networks(gains))
    assert [small.claim, large.claim, deep.claim, more.claim] == [f"RNN-C{number}" for number in (1, 2, 3, 4)]
    assert (small.left, small.right, large.left) == (7.0, 10.0, 8.0)
    assert (deep.left, deep.right) == (9.0, 10.0) and "256 pixels: -0.5" in deep.note
    assert (more.left, more.right, more.verdict) == (
        3.0,
        1.0,
        "reproduced",
    ) and "256 pixels: +1.5" in more.note
    assert {one.verdict for one in (small, large, deep)} == {"reproduced"}


def test_the_large_network_may_gain_more_and_lose(run):
    gains = {("VGG-S", 128): 0.5, ("VGG-S", 256): 2.0, ("VGG-19", 128): 1.0, ("VGG-19", 256): -1.0}
    _, _, deep, _ = views.judge_recurrence(run, runs_of_networks(gains))
    assert deep.verdict == "not reproduced"  # one of the two sizes is refuted
    gains |= {("VGG-S", 128): 2.0}
    *_, more = views.judge_recurrence(run, runs_of_networks(gains))
    assert more.verdict == "reproduced"
    gains |= {("VGG-19", 256): 3.0}
    *_, more = views.judge_recurrence(run, runs_of_networks(gains))
    assert more.verdict == "not reproduced" and more.difference == pytest.approx(-1.0)  # at 256 pixels


def test_claims_on_size_have_the_right_sides(run):
    errors = {("VGG-S", 128): 8.0, ("VGG-S", 256): 7.0, ("VGG-19", 128): 6.0, ("VGG-19", 256): 5.0}
    results = {views.label(*which): [one_run(error)] for which, error in errors.items()}
    larger, deeper = views.judge_networks(run, results)
    assert (larger.claim, larger.left, larger.right) == ("RNN-C5", 5.0, 6.0)
    assert "VGG-19: -1 [-1, -1]" in larger.note and "VGG-S: -1 [-1, -1]" in larger.note
    assert (deeper.claim, deeper.left, deeper.right) == ("RNN-C6", 5.0, 7.0)


def test_claims_on_trainings_and_maps_have_the_right_sides(run):
    results = {"SDM": [one_run(8.0)], views.TWO_STAGES: [one_run(6.0)], "RNN": [one_run(5.0)]}
    together, two = views.judge_trainings(run, results)
    assert (together.claim, together.left, together.right) == ("RNN-C9", 5.0, 6.0)
    assert (two.claim, two.left, two.right) == ("RNN-C10", 6.0, 8.0)
    errors = {("conv5",): 7.0, ("deconv7",): 6.0, ("deconv6", "deconv7"): 5.0}
    both, fine = views.judge_maps(run, {views.from_maps(*maps): [one_run(e)] for maps, e in errors.items()})
    assert (both.claim, both.left, both.right) == ("RNN-C13", 5.0, 6.0)
    assert (fine.claim, fine.left, fine.right) == ("RNN-C14", 6.0, 7.0)


def test_sdm_is_that_of_the_dan_chapter(run, monkeypatch):
    asked = []

    def test_baseline(of_dan, model, train, source):
        asked.append((of_dan.paper, of_dan.fresh, type(model).__name__, train.split, source.split))
        return [one_run(1.0)]

    monkeypatch.setattr(tested, "test_baseline", test_baseline)
    views.test_sdm(Experiment("rnn", device="cpu", fresh=True), run.source("300w", "common"))
    assert asked == [("dan", False, "SDM", "train", "common")]
