"""Clusters of faces on record: of the faces that validate and of test faces, errors of both networks, poses of generated faces alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from five_dots import five_dots

from replicate.evidence import predictions
from replicate.evidence.experiment import Experiment
from replicate.evidence.tested import ONE_IMAGE, tcnn_clusters
from replicate.evidence.views import tcnn_offsets
from replicate.faces.sources import FaceSource
from replicate.methods import tcnn_augmentation, tcnn_training
from replicate.methods.tcnn import CONFIGS, Heads, Mixture, Tweaked, Vanilla, mirror_shapes
from replicate.metrics import nme
from replicate.training import FitReport

CONFIG = CONFIGS["smoke"]
FACES = 24


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = Vanilla().eval().requires_grad_(False)
    features = torch.cat(
        [network.features(c) for c in tcnn_augmentation.plain_crops(tcnn_training.framed(five_dots(FACES)))]
    )
    heads = Heads(network, CONFIG.clusters)
    with torch.no_grad():
        heads.biases["fc6"] += 0.02 * torch.randn_like(heads.biases["fc6"])  # heads that differ
    return Tweaked(network, Mixture.fit(features, CONFIG.clusters, 0), heads.requires_grad_(False))


@pytest.fixture
def asked(monkeypatch, model):
    """Toys in place of faces and of the trained network; what was asked for."""
    calls = []

    def load(source):
        pose = np.arange(FACES) % 5 + 1
        return replace(five_dots(FACES), faces=source.faces, attributes={"pose": pose})

    def obtain(config, source, profile, seed, *, device):
        calls.append(seed)
        stored = [type("Stored", (), {"report": FitReport(seconds=2.0)}) for _ in range(2)]
        return model, stored

    monkeypatch.setattr(FaceSource, "load", load)
    monkeypatch.setattr(tcnn_training, "obtain", obtain)
    return calls


def found_by(run, source, seeds=(0,)):
    train = run.source("mtfl", "train")
    return tcnn_clusters.test_clusters(run, CONFIG, train, source or train, seeds)


def test_faces_that_validate_are_those_of_the_training(asked, model):
    run = Experiment("tcnn", device="cpu")
    (found,) = found_by(run, None)
    out = tcnn_training.held_out(FACES)
    faces = five_dots(FACES).subset(out)
    assert found.run.names == faces.names and found.clusters == CONFIG.clusters
    with torch.inference_mode():
        crops = torch.cat(list(tcnn_augmentation.plain_crops(tcnn_training.framed(faces))))
        expected = model.mixture.log_joint(model.network.features(crops)).argmax(1)
    assert found.cluster.tolist() == expected.tolist()
    assert found.pose.tolist() == (np.arange(FACES) % 5 + 1)[out].tolist()
    assert found.turned.tolist() == (found.pose != 3).tolist()


def test_errors_are_those_of_both_networks_with_and_without_mirror_images(asked, model):
    run = Experiment("tcnn", device="cpu")
    (found,) = found_by(run, run.source("mtfl", "test"))
    faces = five_dots(FACES)
    keys = {"inter-pupil": (model, True), ONE_IMAGE: (model, False)}
    keys |= {
        tcnn_clusters.VANILLA: (model.network, True),
        tcnn_clusters.VANILLA_ONE_IMAGE: (model.network, False),
    }
    assert set(found.run.errors) == set(keys)
    for key, (which, mirror) in keys.items():
        points = tcnn_training.predict_faces(which, faces, mirror=mirror)
        expected = nme(points, faces.points, normaliser="inter-pupil", markup="mtfl5")
        assert found.run.errors[key] == pytest.approx(expected, rel=1e-5)


def test_a_second_request_is_answered_from_the_record(asked):
    run = Experiment("tcnn", device="cpu")
    (first,) = found_by(run, run.source("mtfl", "test"))
    (again,) = found_by(run, run.source("mtfl", "test"))
    assert asked == [0] and again.cluster.tolist() == first.cluster.tolist()
    assert again.pose.tolist() == first.pose.tolist()
    found_by(replace(run, fresh=True), run.source("mtfl", "test"), seeds=(0, 1))
    assert asked == [0, 0, 1]


def test_poses_of_photographs_are_read_and_not_recorded(asked):
    run = Experiment("tcnn", faces="real", device="cpu")
    (found,) = found_by(run, run.source("mtfl", "test"))
    assert found.pose.tolist() == (np.arange(FACES) % 5 + 1).tolist()
    [file] = (predictions.path_of("x", "y", "tcnn", "smoke").parent).glob("*.npz")
    kept = predictions.read(file)
    assert "pose" not in kept.provenance and kept.points is None
    assert "clusters-mtfl-test-real" in file.name


class Shifted:
    """Predictions three pixels right of and one below the truth for an image, and from the mirror image as far to the left."""

    def predict(self, faces, mirror):
        sides = np.array([[3.0, 1.0], [-3.0, 1.0]])
        return faces.points + (sides.mean(0) if mirror else sides[0]).astype(np.float32)


def test_signed_offsets_of_an_image_and_of_its_mirror_image(monkeypatch):
    monkeypatch.setattr(
        tcnn_training, "predict_faces", lambda model, faces, mirror: model.predict(faces, mirror)
    )
    faces = five_dots(6, jitter=0.0, turn=0.0)
    eyes = np.linalg.norm(faces.points[:, 0] - faces.points[:, 1], axis=-1)
    found = tcnn_offsets.signed_offsets(Shifted(), faces)
    assert found["one image"] == pytest.approx(100 * np.stack([3 / eyes, 1 / eyes], -1), rel=1e-4)
    assert found["its mirror image"] == pytest.approx(100 * np.stack([-3 / eyes, 1 / eyes], -1), rel=1e-4)
    assert found[tcnn_offsets.BOTH] == pytest.approx(np.tile([0.0, 1.0], (6, 1)), abs=1e-4)
    reduced = replace(faces, attributes={"pixel": np.full(6, 2.0)})
    assert tcnn_offsets.signed_offsets(Shifted(), reduced)[tcnn_offsets.BOTH][:, 1] == pytest.approx(
        2, abs=1e-4
    )


def test_the_answer_to_the_mirror_image_follows_from_the_average(model):
    faces = five_dots(8)
    found = tcnn_offsets.signed_offsets(model, faces)["its mirror image"]
    framed = tcnn_training.framed(faces)
    [crops] = tcnn_augmentation.plain_crops(framed)
    with torch.inference_mode():
        alone = mirror_shapes(model(crops.flip(-1)))
    eyes = (framed.points[:, 0] - framed.points[:, 1]).norm(dim=-1)
    expected = 100 * (alone - framed.points).mean(1) / eyes[:, None]  # boxes are upright: the scale cancels
    assert found == pytest.approx(expected.numpy(), abs=0.05)


def test_offsets_are_measured_once_for_all_parts(asked, model, monkeypatch):
    run = Experiment("tcnn", device="cpu")
    monkeypatch.setattr(tcnn_training, "obtain_vanilla", lambda *args, device: (model.network, None))
    networks = {"vanilla CNN": CONFIG.vanilla, "TCNN": CONFIG}
    tests = {"aflw": run.source("mtfl", "test")}
    rows = tcnn_offsets.offset_rows(run, networks, run.source("mtfl", "train"), tests)
    assert len(rows) == (3 + 2) * 2 * 3 and {row.subset for row in rows} == {"learning", "validation", "aflw"}
    assert {row.images for row in rows if row.subset == "validation"} == {tcnn_training.held_out(FACES).sum()}
    again = tcnn_offsets.offset_rows(run, networks, run.source("mtfl", "train"), tests)
    assert len(asked) == 3  # once for each part
    assert {(row.method, row.metric, row.subset, row.value) for row in again} == {
        (row.method, row.metric, row.subset, row.value) for row in rows
    }
    table = tcnn_offsets.offset_table(rows, "Offsets").data
    assert table.shape == (10, 5) and table["to the"].tolist()[:2] == ["right", "down"]
