"""What TCNN costs: times of stored models beside the paper's, by the number of clusters; ways to train a head are timed once and kept."""

import numpy as np
import pytest
import torch

from replicate.evidence import tables, timings
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import tcnn_ablations
from replicate.evidence.views import tcnn_costs as views
from replicate.methods import tcnn_heads, tcnn_training
from replicate.methods.tcnn import CONFIGS, TCNNConfig
from replicate.store import StoredModel
from replicate.training import FitReport

torch.set_num_threads(1)
WAVE = np.sin(np.arange(12)) / 50


def experiment(**changes):
    return Experiment(**{"paper": "tcnn", "profile": "smoke", "device": "cpu", **changes})


@pytest.fixture
def stored(monkeypatch):
    """In place of trainings: half an hour of the vanilla network; heads take a minute to prepare, 30 s each, and 80 epochs each."""
    asked = []

    def obtain(config, source, profile, seed, *, device):
        asked.append(config.clusters)
        keys = tcnn_training.keys(config, source, profile, seed)
        whole = 60.0 + 30.0 * config.clusters
        reports = [FitReport(seconds=1800.0), FitReport(seconds=whole, data_seconds=60.0)]
        epochs = torch.full((config.clusters,), 80)
        told = {f"tweaking.{name}": epochs for name in tcnn_heads.Tweaking._fields}
        models = zip(keys, ({}, told), reports, strict=True)
        return None, [
            StoredModel(key, tensors, report, "a device", "", "") for key, tensors, report in models
        ]

    monkeypatch.setattr(tcnn_training, "obtain", obtain)
    return asked


def rows_of(run, profile="smoke"):
    swept = tcnn_ablations.sweep(profile)
    return views.training_rows(run, run.source("mtfl", "train"), swept), swept


def test_times_stand_beside_the_papers(stored):
    rows, swept = rows_of(experiment())
    shown = tables.compare(rows[:2]).set_index("method")
    assert shown["paper"].to_dict() == {"vanilla CNN": "6.5", "TCNN, one cluster": "2"}
    assert [row.value for row in rows[:2]] == [0.5, 0.5]
    assert stored == list(swept) and len(rows) == 2 + 3 * len(swept)
    share = views.share_table(rows).data.set_index("")
    assert share.loc["paper"].to_list() == ["390", "2", "0.51"]
    assert share.loc["here"].to_list() == ["30", "0.5", "1.67"]


def test_what_heads_take_by_their_number(stored):
    rows, swept = rows_of(experiment(profile="cpu"), "cpu")
    table = views.sweep_table(rows, swept).data.set_index("clusters")
    assert list(table.index) == [str(clusters) for clusters in swept]
    assert table.loc["48"].to_list() == ["80", "60", "1,440", "30", "375"]
    assert table.loc["1"].to_list() == ["80", "60", "30", "30", "375"]


def test_times_on_record_need_no_model(stored):
    rows, _ = rows_of(experiment())
    count = len(stored)
    again, _ = rows_of(experiment())
    assert again == rows and len(stored) == count
    rows_of(experiment(fresh=True))
    assert len(stored) == 2 * count


def test_the_sweep_holds_the_network_in_use():
    for profile, config in CONFIGS.items():
        assert config in tcnn_ablations.sweep(profile).values()


@pytest.fixture
def timed(monkeypatch):
    """In place of a clock: a tenth of a second together, three and sixty times as long alone."""
    asked = []

    def measure(config, device, rounds):
        asked.append((config.clusters, config.images))
        return {way: s * (1 + WAVE - WAVE.mean()) for way, s in zip((views.TOGETHER, views.ALONE, views.PLAIN), (0.1, 0.3, 6), strict=True)}  # fmt: skip

    monkeypatch.setattr(views, "measure", measure)
    return asked


def test_ways_are_timed_once_at_the_papers_size(timed):
    run = experiment(profile="cpu")
    rows = views.epoch_rows(run)
    assert timed == [(48, 5000)] and views.epoch_rows(run) == rows and len(timed) == 1
    assert [row.value for row in rows] == pytest.approx([0.1, 0.3, 6], rel=1e-5)
    table = views.epoch_table(rows).data.set_index("way")
    assert table["times as long"].to_list() == ["1", "3", "60", "–"]
    assert table["79.63 epochs, minutes"].to_list() == ["0.133", "0.398", "7.96", "2"]
    views.epoch_rows(experiment(profile="cpu", fresh=True))
    assert len(timed) == 2


def test_smoke_times_its_own_size():
    assert views.timed_config("smoke") == CONFIGS["smoke"]
    assert views.timed_config("cpu") == views.timed_config("gpu") == TCNNConfig()


def test_the_three_ways_train_the_same_cluster(monkeypatch):
    """Each is called, and the time of all heads together is shared out."""
    made = []

    def alternate(ways, count, rounds):
        made.extend(way() for way in ways)
        return np.outer([0.25, 1.0, 0.5], np.ones(rounds))

    monkeypatch.setattr(timings, "alternate", alternate)
    monkeypatch.setattr(views, "synchronised", lambda work, device: work)
    found = views.measure(CONFIGS["smoke"], torch.device("cpu"), 10)
    assert {way: seconds[0] for way, seconds in found.items()} == {
        views.TOGETHER: 1.0,
        views.ALONE: 1.0,
        views.PLAIN: 2.0,
    }
    together, alone, plain = made
    assert (len(together), len(alone)) == (CONFIGS["smoke"].clusters, 1)
    weights = plain.fc5.weight.detach()
    assert (alone.weights["fc5"][0].T - weights).norm() < 0.02 * weights.norm()
