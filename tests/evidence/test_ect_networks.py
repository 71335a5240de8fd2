"""Networks of ECT: their sizes, their errors by method, what the fit gains on each."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from replicate.evidence import manifest, tables, tested
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import ect_networks as views
from replicate.faces.sources import FaceSource
from replicate.methods.ect import CONFIGS, ECTConfig
from replicate.methods.ect_fitting import METHODS

ABOUT = {"device": "test", "training_seconds": 1.0, "faces_sha256": "0", "box_rule": "b", "training_faces": 5}
NAMES = tuple(f"face {number}" for number in range(20))


@pytest.fixture
def run():
    yield Experiment("ect", device="cpu")
    plt.close("all")


def one_run(error):
    errors = {"inter-pupil": error + np.linspace(-0.5, 0.5, len(NAMES))}
    return Predictions("m", "toy", "synthetic", NAMES, errors, None, ABOUT)


def test_parameters_are_those_of_the_published_networks():
    expected = {"dilated": 9_968_968, "truncated": 6_812_740, "spatial fusion": 17_647_240}
    assert views.parameter_counts(ECTConfig()) == expected


def test_sizes_stand_beside_the_papers_at_its_own_width_only(run):
    widths = {"": ECTConfig(), "width 0.25": CONFIGS["cpu", "synthetic"]}
    rows = [row for artefact in views.SIZES for row in views.size_rows(run, artefact, widths)]
    found = {(row.artefact, row.method): row.value for row in rows}
    assert found["ECT-S13", "truncated FCN"] == 6_812_740 and found["ECT-S16", "full FCN"] == 9_968_968
    assert found["ECT-S16", "full FCN vs spatial-fusion FCN"] == pytest.approx(43.51, abs=0.01)
    assert found["ECT-S16", "spatial-fusion FCN, width 0.25"] < 17_647_240 / 10
    drawn = views.as_drawn(views.size_rows(run, "ECT-S13", widths))
    assert [row.method for row in drawn] == [
        "truncated FCN vs full FCN",
        "truncated FCN vs full FCN, width 0.25",
    ]
    assert tables.compare(drawn)["paper"].to_list() == ["30.00", "–"]
    assert drawn[0].value == pytest.approx(31.66, abs=0.01)


@pytest.fixture
def networks():
    def results(crm, gain):
        means = {method: crm - gain * step / 4 for step, method in enumerate(METHODS)}
        return {method: [one_run(mean), one_run(mean)] for method, mean in means.items()}

    return {"full FCN": results(10.0, 2.0), "truncated FCN": results(12.0, 3.5)}


def test_networks_are_drawn_and_recorded_by_method(run, networks):
    source = FaceSource("300w", "challenging", "synthetic", "smoke")
    figure = views.networks_plot(run, source, networks)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(heights, [10, 9.5, 9, 8.5, 8, 12, 11.125, 10.25, 9.375, 8.5])
    assert "truncated FCN: CRM 12.00, CRM-PDM 11.12" in figure.get_label()
    (kept,) = manifest.load("ect", ["smoke"])
    assert (kept.artefact, kept.subset, kept.images, kept.seeds) == ("ECT-F10a", "challenging", 20, 2)


def test_methods_of_several_networks_are_named_by_both(networks):
    found = views.by_network(networks, ("CRM", "ECT"))
    assert list(found) == ["CRM, full FCN", "ECT, full FCN", "CRM, truncated FCN", "ECT, truncated FCN"]
    assert found["ECT, truncated FCN"] is networks["truncated FCN"]["ECT"]


def test_gains_are_compared_in_points_and_shown_in_per_cent_too(run, networks):
    found = views.compare_gains(networks["truncated FCN"], networks["full FCN"])
    assert (found.left, found.right, found.difference) == pytest.approx((3.5, 2.0, 1.5))
    verdict = run.judge_comparison("ECT-C9", found, 20, 2)
    assert verdict.verdict == "reproduced"
    source = FaceSource("300w", "challenging", "synthetic", "smoke")
    lines = views.gains_table(run, source, networks, "Gains").data.to_numpy().tolist()
    assert lines == [
        ["full FCN", "10.00", "8.00", "2.00 [2.00, 2.00]", "20.0"],
        ["truncated FCN", "12.00", "8.50", "3.50 [3.50, 3.50]", "29.2"],
    ]


def test_the_claims_on_networks_are_judged_and_peaks_between_pixels_noted(run, networks):
    for mean, results in zip((9.5, 11.0), networks.values(), strict=True):
        results[tested.CLIMBED] = [one_run(mean)] * 2
    full, truncated = networks.values()
    gains, number, raw = views.judge_truncated(run, full, truncated)
    assert (gains.verdict, gains.difference, gains.images, gains.seeds) == ("reproduced", 1.5, 20, 2)
    assert (
        "on both sides, the difference is challenging +1.00 [+1.00, +1.00]" in gains.note
    )  # 11 - 8.5 less 9.5 - 8
    assert number.verdict == "not testable"
    assert (raw.verdict, raw.difference) == ("reproduced", -2.0) and "challenging -1.50" in raw.note
    alike = views.judge_dilated(run, full, full)
    assert (alike.claim, alike.verdict, alike.difference) == ("ECT-C12", "reproduced", 0.0)
    assert "full +0.00" in alike.note
