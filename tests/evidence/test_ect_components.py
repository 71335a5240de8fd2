"""What each step of ECT adds: against the right methods, beside the paper's numbers, without outliers, and with ideal maps."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate.evidence import claims, manifest, tables, tested
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import ect_components as views
from replicate.faces.sources import FaceSource
from replicate.methods.ect import CONFIGS
from replicate.methods.ect_fitting import METHODS, PDM

ABOUT = {"device": "test", "training_seconds": 1.0, "faces_sha256": "0", "box_rule": "b", "training_faces": 5}
NAMES = tuple(f"face {number}" for number in range(20))
SMALL = replace(CONFIGS["smoke", "synthetic"], input_size=128)


@pytest.fixture
def run():
    yield Experiment("ect", device="cpu")
    plt.close("all")


def one_run(error, faces="synthetic"):
    errors = {"inter-pupil": error + np.linspace(-0.5, 0.5, len(NAMES))}
    return Predictions("m", "toy", faces, NAMES, errors, None, ABOUT)


def test_the_claims_are_judged_on_their_test_sets_and_beside_peaks_between_pixels(run):
    means = {"CRM": 10.0, "CRM-PDM": 9.0, "CRM-CLM": 8.0, "CRM-CLM-C": 7.0, "ECT": 6.5, tested.CLIMBED: 9.5}
    results = {method: [one_run(mean)] for method, mean in means.items()}
    verdicts = views.judge_steps(run, dict.fromkeys(("common", "challenging", "full"), results))
    assert [one.claim for one in verdicts] == [f"ECT-C{number}" for number in range(1, 6)]
    assert [one.difference for one in verdicts] == [-1.0, -1.0, -0.5, -1.5, -1.5]
    finer = "with peaks between pixels in place of CRM, the difference is common -0.50 [-0.50, -0.50] (significantly lower), "
    finer += "challenging -0.50 [-0.50, -0.50] (significantly lower)"
    assert verdicts[0].note.startswith(finer)
    assert all("between pixels" not in one.note for one in verdicts[1:])
    assert [one.note for one in verdicts[3:]] == [
        "-18.8 % here, -12 % in the paper",
        "-18.8 % here, -16 % in the paper",
    ]
    assert {one.claim for one in claims.recorded("ect", ["smoke"])} == {one.claim for one in verdicts}


def test_a_few_lost_faces_move_the_mean_and_not_the_median(run):
    lost = one_run(6.0)
    errors = {"inter-pupil": lost.errors["inter-pupil"] + 100 * (np.arange(20) > 17)}
    results = {"CRM": [one_run(7.0)], "ECT": [replace(lost, errors=errors)]}
    source = FaceSource("300w", "challenging", "synthetic", "smoke")
    table = views.outliers_table(run, source, results, "Outliers")
    crm, found = table.data.to_numpy().tolist()
    starts = [cell.split(" [")[0] for cell in found]
    assert starts == ["ECT", "16.00", "6.00", "10.00", "-1.00"] and crm[-1] == "+0.00 [+0.00, +0.00]"
    assert "20 challenging images" in table.caption


def test_each_step_is_set_against_the_method_without_it_and_the_papers_numbers():
    run = Experiment("ect", faces="real", device="cpu")
    means = {"CRM": 10.0, "CRM-PDM": 9.0, "CRM-CLM": 8.0, "CRM-CLM-C": 7.0, "ECT": 6.0}
    results = {method: [one_run(mean, "real")] for method, mean in means.items()}
    sources = {
        subset: FaceSource("300w", subset, "real", "smoke") for subset in ("common", "challenging", "full")
    }
    rows = views.gain_rows(run, sources, dict.fromkeys(sources, results))
    found = {row.artefact: (row.method, row.metric, row.value) for row in rows if row.subset == "challenging"}
    assert found == {
        "ECT-S9": ("ECT", "mean-error reduction vs CRM-CLM", 25.0),
        "ECT-S10": ("CRM-PDM", "mean-error reduction vs CRM", 10.0),
        "ECT-S11": ("CRM-CLM-C", "mean-error reduction vs CRM-CLM", 12.5),
        "ECT-S12": ("ECT", "mean-error reduction vs CRM-CLM-C", pytest.approx(100 / 7, abs=1e-4)),
        "ECT-T8": ("ECT vs CRM-CLM", "relative NME reduction", 25.0),
    }
    assert sum(row.subset == "full" for row in rows) == 4  # the paper prints none of the full set
    shown = tables.compare([row for row in rows if row.artefact == "ECT-T8"])
    assert shown[["subset", "paper", "difference"]].to_numpy().tolist() == [
        ["common", "12.00", "+13.00"],
        ["challenging", "16.00", "+9.00"],
    ]


def test_steps_are_drawn_as_differences_to_the_peaks(run):
    results = {"CRM": [one_run(10.0)], "CRM-PDM": [one_run(9.0)], "ECT": [one_run(7.5)]}
    figure = views.steps_plot(run, FaceSource("300w", "common", "synthetic", "smoke"), results)
    assert "CRM-PDM: -1.00 [-1.00, -1.00]. ECT: -2.50 [-2.50, -2.50]" in figure.get_label()
    assert figure.axes[0].get_xlabel() == "mean error minus that of CRM (% of inter-pupil distance)"
    (kept,) = manifest.load("ect", ["smoke"])
    assert (kept.artefact, kept.title) == ("ECT-T8", "differences to the peaks, common")


def test_ideal_maps_of_a_finer_frame_leave_less_error():
    faces = toy_faces(12)
    errors = {}
    for size in (128, 256):
        config = replace(SMALL, input_size=size)
        pdm = PDM.fit(torch.as_tensor(faces.points), config.frame, config.components)
        errors[size] = {name: one.mean() for name, one in views.ideal_errors(faces, pdm, config).items()}
    assert set(errors[128]) == {*METHODS, tested.CLIMBED}
    # peaks are whole pixels beside the middle of a small one: about 1.1 of its quarters off in the mean
    assert 1.7 < errors[128]["CRM"] / errors[256]["CRM"] < 2.3
    assert errors[128]["ECT"] < 0.5 * errors[128]["CRM"]


def test_the_table_of_ideal_maps_has_a_column_for_each_size():
    faces = toy_faces(12)
    table = views.ideal_table({"64": CONFIGS["smoke", "synthetic"], "128": SMALL}, faces, faces, "Ideal maps")
    assert table.data.columns.to_list() == ["method", "64, % inter-pupil", "128, % inter-pupil"]
    assert table.data["method"].to_list() == [*METHODS, tested.CLIMBED] and table.caption == "Ideal maps"
    first, second = (float(table.data[name][0].split()[0]) for name in table.data.columns[1:])
    assert 1.5 < first / second < 2.5
