"""Run time of LDDR: all four ways find the same landmarks, times become rows and a verdict, training times are those of the stored models."""

from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from toy_faces import toy_faces

from replicate.evidence import claims, tables, timings
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import lddr_speed as views
from replicate.methods import lddr_training
from replicate.methods.lddr import CONFIGS, DeepFeatures, Descriptor, LDDRConfig
from replicate.store import StoredModel
from replicate.training import FitReport

torch.set_num_threads(1)
CONFIG = CONFIGS["smoke"]
CPU = torch.device("cpu")
WAVE = np.sin(np.arange(12)) / 50
TIMES = dict(zip(views.WAYS, (4.0, 2.0, 3.0, 0.8), strict=True))


def experiment(**changes):
    return Experiment(**{"paper": "lddr", "profile": "smoke", "device": "cpu", **changes})


@pytest.fixture
def timed(monkeypatch):
    """In place of a clock: four seconds, and less by the changes of §4.3."""
    asked = []

    def measure(config, face, device, rounds):
        asked.append(config.network.width)
        return {way: seconds * (1 + WAVE - WAVE.mean()) for way, seconds in TIMES.items()}

    monkeypatch.setattr(views, "measure", measure)
    return asked


def test_a_network_read_from_its_file_is_the_one_that_was_written(tmp_path):
    torch.manual_seed(0)
    network = Descriptor(1 / 16)
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    read = views.read_network(tmp_path / "network.safetensors", 1 / 16, "cpu")
    assert read.conv1.weight.dtype == torch.bfloat16 and not read.training
    torch.testing.assert_close(read.conv4.weight.float(), network.conv4.weight, atol=0, rtol=0.01)


@pytest.mark.parametrize("at_a_time", [1, 68])
def test_features_are_those_of_the_cascade_however_patches_are_divided(at_a_time):
    torch.manual_seed(0)
    kept = DeepFeatures(Descriptor(1 / 16))
    crops = torch.randint(0, 256, (2, 320, 320, 3), dtype=torch.uint8)
    points = 100 + 120 * torch.rand(2, 68, 2)
    form = CONFIG.forms[-1]
    found = views.StageFeatures(lambda: kept.network, at_a_time)(crops, points, form)
    expected = kept(crops, points, form)
    assert found.shape == (2, 68 * 256)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02 * expected.abs().max().item())


def test_the_timed_work_is_that_of_prediction(monkeypatch):
    shapes, asked = [], []

    def alternate(ways, count, rounds):
        shapes.extend(way() for way in ways)
        asked.append((len(ways), count, rounds))
        return np.outer([0.25, 0.5, 1.0, 2.0], np.ones(rounds))

    monkeypatch.setattr(timings, "alternate", alternate)
    monkeypatch.setattr(views, "synchronised", lambda work, device: work)
    found = views.measure(CONFIG, toy_faces(1), CPU, 10)
    assert asked == [(4, 1, 10)] and list(found) == list(views.WAYS)
    assert [seconds[0] for seconds in found.values()] == [4.0, 2.0, 1.0, 0.5]
    for shape in shapes:
        assert shape.shape == (len(CONFIG.stages) + 1, 1, 1, 68, 2)
        torch.testing.assert_close(shape, shapes[0])


def test_networks_are_read_anew_only_in_the_slow_ways(monkeypatch):
    read = []
    original = views.read_network
    monkeypatch.setattr(views, "read_network", lambda *given: read.append(1) or original(*given))
    monkeypatch.setattr(views, "synchronised", lambda work, device: work)

    def alternate(ways, count, rounds):
        counts = []
        for way in ways:
            before = len(read)
            way()
            counts.append(len(read) - before)
        assert counts == [len(CONFIG.stages), 0, len(CONFIG.stages), 0]
        return np.ones((len(ways), rounds))

    monkeypatch.setattr(timings, "alternate", alternate)
    views.measure(CONFIG, toy_faces(1), CPU, 10)
    assert len(read) == 1 + 2 * len(CONFIG.stages)


def test_the_papers_width_is_timed_beside_the_profiles():
    assert {name: config.network.width for name, config in views.configs(experiment(profile="cpu")).items()} == {
        "": 1.0, ", width 0.25": 0.25
    }  # fmt: skip
    assert views.configs(experiment(profile="gpu")) == {"": LDDRConfig()}
    assert views.configs(experiment()) == {"": CONFIG}


def test_times_stand_beside_the_papers_and_are_judged(timed):
    rows, verdict = views.prediction_speed(experiment(profile="cpu"), lambda: None)
    assert timed == [1.0, 0.25] and len(rows) == 2 * (4 + 3)
    shown = tables.compare(rows).set_index("method")
    assert shown.loc[views.SLOW, "paper"] == "4" and shown.loc[views.MERGED, "paper"] == "0.8"
    assert shown.loc["LDDR, merged vs unmerged", "paper"] == "80.00"
    cuts = {row.method: row.value for row in rows if row.metric == views.CUT}
    assert cuts["LDDR, merging alone"] == pytest.approx(50) and cuts["LDDR, batching alone"] == pytest.approx(
        25
    )
    assert cuts["LDDR, merged vs unmerged, width 0.25"] == pytest.approx(80)
    assert (verdict.claim, verdict.verdict, verdict.difference) == (
        "LDDR-C9",
        "reproduced",
        pytest.approx(-3.2),
    )
    assert verdict.note.startswith(
        "80 % less here, 80 % in the paper; merging alone 50 %, batching alone 25 %"
    )


def test_what_is_on_record_is_not_timed_again_unless_asked(timed):
    rows, verdict = views.prediction_speed(experiment(), lambda: None)
    again, same = views.prediction_speed(experiment(), lambda: None)
    assert len(timed) == 1 and same == verdict == claims.recorded("lddr", ["smoke"])[0]
    assert {row.key: row.value for row in again} == {row.key: row.value for row in rows}
    views.prediction_speed(experiment(fresh=True), lambda: None)
    assert len(timed) == 2


def test_a_cascade_for_timing_stays_where_it_starts():
    model = views.cascade(CONFIG, DeepFeatures(Descriptor(1 / 16)), CPU)
    faces = toy_faces(2)
    shapes = model.predict(faces.images, faces.boxes)
    torch.testing.assert_close(shapes[-1], shapes[0])
    assert len({tuple(point) for point in shapes[0, 0, 0].round().tolist()}) == 68


@pytest.fixture
def stored(monkeypatch):
    """In place of trainings: steps of half an hour each, and cascades that take a second for each training face."""
    asked = []

    def obtain(config, source, profile, seed, *, device):
        asked.append(source.protocol)
        *before, last = lddr_training.keys(config, source, profile, seed)
        seconds = [1800.0] * len(before) + [float(source.count)]
        reports = [FitReport(seconds=one) for one in seconds]
        return None, [
            StoredModel(k, {}, r, "a device", "", "") for k, r in zip([*before, last], reports, strict=True)
        ]

    monkeypatch.setattr(lddr_training, "obtain", obtain)
    return asked


def test_training_times_stand_beside_the_papers(stored):
    run = experiment(profile="cpu")
    rows = views.training_rows(run, CONFIGS["cpu"])
    assert [(row.method, row.protocol, row.value) for row in rows] == [
        ("LDDR, training", "lfpw", pytest.approx(811 / 3600, rel=1e-4)),
        ("LDDR, training", "helen", pytest.approx(2000 / 3600, rel=1e-4)),
        ("LDDR, training", "300w", pytest.approx(3148 / 3600, rel=1e-4)),
        ("LDDR, training of the descriptor, objects", "", 0.5),
        ("LDDR, training of the descriptor, faces", "", 0.5),
    ]
    assert tables.compare(rows)["paper"].tolist() == ["5.5", "9", "15", "–", "–"]
    assert views.training_rows(run, CONFIGS["cpu"]) == rows and len(stored) == 3
    table = views.training_table(rows).data
    assert table["training set"].tolist() == ["lfpw", "helen", "300w train"]
    assert table["here, s a face"].tolist() == ["1", "1", "1"]
    assert table["paper, s a face"].tolist() == ["24.4", "16.2", "17.2"]  # 5.5 hours of 811 faces, ...


def test_a_cascade_without_a_trained_descriptor_has_no_times_of_one(stored):
    sift = partial(views.training_rows, config=views.replace(CONFIG, features="SIFT"))
    assert {row.method for row in sift(experiment())} == {views.CASCADE}
