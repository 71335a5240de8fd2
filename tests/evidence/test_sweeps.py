"""Errors at all settings of one quantity: the right ones in rows, table and curves."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from swept_runs import FACES, HARD, one_run

from replicate.evidence import manifest
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import sweeps
from replicate.faces.sources import FaceSource


@pytest.fixture
def run():
    yield Experiment("ect", device="cpu")
    plt.close("all")


def test_rows_and_their_table_hold_every_setting_of_one_kind(run):
    results = {
        "CRM-PDM": [one_run(components={5: 6.0, "all": 5.5}, iterations=(9.0,))],
        "ECT": [one_run(components={5: 5.0, "all": 4.0})],
    }
    rows = sweeps.sweep_rows(run, "ECT-F10b", HARD, results, "components")
    found = {(row.method, row.metric): (row.value, row.normaliser, row.points) for row in rows}
    assert found == {
        ("CRM-PDM", "mean error, 5 components"): (6.0, "inter-pupil", 68),
        ("CRM-PDM", "mean error, all components"): (5.5, "inter-pupil", 68),
        ("ECT", "mean error, 5 components"): (5.0, "inter-pupil", 68),
        ("ECT", "mean error, all components"): (4.0, "inter-pupil", 68),
    }
    table = sweeps.sweep_table(rows[:-1], "components", "Sweep")
    assert table.data[["subset", "components"]].to_numpy().tolist() == [
        ["challenging", "5"],
        ["challenging", "all"],
    ]
    assert table.data["CRM-PDM, % inter-pupil"][0].startswith("6.00 [5.")
    assert table.data["ECT, % inter-pupil"].to_list()[1] == "–"
    assert "Sweep." in table.caption and "30 challenging images" in table.caption


def test_the_plot_draws_each_method_at_its_settings_on_each_test_set(run):
    def results(shift):
        swept = {5: 6.0 + shift, 10: 4.0 + shift, "all": 5.0 + shift}
        return {"ECT": [one_run(components=swept)], "CRM": [one_run(7.0 + shift)]}

    easy = FaceSource("300w", "common", "synthetic", "smoke")
    by_source = {easy: results(-1.0), HARD: results(0.0)}
    figure = sweeps.sweep_plot(
        run, "ECT-F10b", by_source, ["ECT"], "components", label="parts", level=["CRM"], used=10
    )
    first, second = figure.axes
    used, ect, crm = second.lines
    assert set(used.get_xdata()) == {10} and ect.get_xdata().tolist() == [5, 10, 60]
    np.testing.assert_allclose(ect.get_ydata(), [6, 4, 5])
    np.testing.assert_allclose(first.lines[1].get_ydata(), [5, 3, 4])
    np.testing.assert_allclose(crm.get_xydata(), [[5, 7], [60, 7]])
    assert first.get_legend() and not second.get_legend()
    assert "300w challenging: ECT 6.00 at 5, 5.00 at 60, least 4.00 at 10; CRM 7.00" in figure.get_label()
    band = second.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose(
        sorted(set(band.round(6))), [4, 5, 6]
    )  # faces differ, but not in what settings do
    (kept,) = manifest.load("ect", ["smoke"])
    assert (kept.artefact, kept.images) == ("ECT-F10b", None)
    assert kept.subset == f"300w common ({FACES} images), 300w challenging ({FACES} images)"


def test_sets_of_several_protocols_keep_their_lines_apart(run):
    sources = [FaceSource(protocol, "test", "synthetic", "smoke") for protocol in ("lfpw", "helen")]
    rows = [
        row
        for source, value in zip(sources, (6.0, 4.0), strict=True)
        for row in sweeps.sweep_rows(
            run, "ECT-F10c", source, {"ECT": [one_run(iterations=(9.0, value))]}, "iterations"
        )
    ]
    table = sweeps.sweep_table(rows, "iterations", "Sweep").data
    assert table[["subset", "iterations"]].to_numpy().tolist() == [
        ["lfpw test", "0"], ["lfpw test", "1"], ["helen test", "0"], ["helen test", "1"],
    ]  # fmt: skip
    assert [cell.split()[0] for cell in table["ECT, % inter-pupil"]] == ["9.00", "6.00", "9.00", "4.00"]
