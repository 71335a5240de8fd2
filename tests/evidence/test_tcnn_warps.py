"""Warped images: points of the other face lie where its labels say, pairs are of one cluster, and rejections are measured once."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from five_dots import five_dots, read_off

from replicate.errors import ReplicateError
from replicate.evidence import manifest
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import tcnn_warps as views
from replicate.faces.sources import FaceSource
from replicate.methods import tcnn, tcnn_augmentation, tcnn_training

CLUSTERS = torch.arange(24) % 3
CONFIG = tcnn.CONFIGS["smoke"]


@pytest.fixture
def run(drawing):
    return Experiment("tcnn", device="cpu")


def model(assign):
    """A network whose features are the crops, with clusters by a function of these."""
    network = SimpleNamespace(features=lambda crops, split: crops, mean=torch.zeros(1))
    heads = SimpleNamespace(split="FC5")
    return SimpleNamespace(network=network, mixture=SimpleNamespace(assign=assign), heads=heads)


def accepting(found):
    """Keeps every warp: it says for each crop the cluster of the face that it was made for."""
    return model(lambda crops: found.pop())


def all_pairs():
    """What `kept_warps` of a model that rejects nothing should warp: as many faces as have a successor in their cluster."""
    return torch.cat([torch.full((7,), cluster) for cluster in range(3)])


def test_labels_are_the_points_of_the_second_face():
    faces = tcnn_training.framed(five_dots(24, jitter=0.0))  # similar shapes: the warp is exact
    first, second, crops = views.kept_warps(accepting([all_pairs()]), faces, CLUSTERS, seed=0, count=21)
    assert (CLUSTERS[first] == CLUSTERS[second]).all() and (first != second).all()
    assert (read_off(crops) - faces.points[second]).abs().max() < 0.6
    assert (faces.points[first] - faces.points[second]).norm(dim=-1).mean() > 1  # something was moved


def test_each_cluster_is_shown_before_one_is_shown_twice():
    faces = tcnn_training.framed(five_dots(24))
    first, _, crops = views.kept_warps(accepting([all_pairs()]), faces, CLUSTERS, seed=0, count=4)
    assert sorted(CLUSTERS[first[:3]].tolist()) == [0, 1, 2] and crops.shape == (4, 3, 40, 40)


def test_warps_that_leave_their_cluster_are_left_out():
    faces = tcnn_training.framed(five_dots(24))
    first, _, _ = views.kept_warps(model(lambda crops: torch.full((len(crops),), 1)), faces, CLUSTERS, seed=0)
    assert set(CLUSTERS[first].tolist()) == {1} and len(first) == 7
    with pytest.raises(ReplicateError, match="all warps of 21 pairs are rejected"):
        views.kept_warps(model(lambda crops: torch.full((len(crops),), 9)), faces, CLUSTERS, seed=0)
    with pytest.raises(ReplicateError, match="no two of 24"):
        views.kept_warps(accepting([]), faces, torch.arange(24), seed=0)


def test_labels_of_similar_faces_have_no_error():
    shapes = tcnn_training.framed(five_dots(24, jitter=0.0)).points
    assert views.label_distances(shapes, CLUSTERS, 50, seed=0) == pytest.approx(np.zeros(50), abs=1e-3)


def test_the_error_of_a_label_is_what_no_similarity_can_mend():
    shapes = torch.tensor([[[0.0, 0], [10, 0], [5, 5], [2, 10], [8, 10]]]).repeat(2, 1, 1)
    shapes[1, 2, 0] += 1  # one point, an eighth of... a tenth of the distance of the eyes to the right
    found = views.label_distances(shapes, torch.zeros(2, dtype=torch.long), 200, seed=0)
    assert len(np.unique(found.round(3))) == 2  # one each way
    assert (found < 100 * 1 / 10 / 5 * 2).all() and (found > 100 * 1 / 10 / 5 / 2).all()


def test_partners_are_of_the_same_cluster_and_never_the_face_itself(monkeypatch):
    pairs = []

    def alignment(points, target):
        pairs.append((points[:, 0, 0], target[:, 0, 0]))
        return torch.eye(2, 3).expand(len(points), 2, 3)

    monkeypatch.setattr(views, "alignment", alignment)
    shapes = torch.rand(24, 5, 2, generator=torch.Generator().manual_seed(0))
    shapes[:, 0, 0] = torch.arange(24)  # so that a face can be told by a number
    cluster = torch.where(torch.arange(24) < 22, torch.arange(24) % 3, torch.arange(24))  # two alone
    views.label_distances(shapes, cluster, 3000, seed=0)
    ((first, second),) = pairs
    assert (first != second).all() and (cluster[first.long()] == cluster[second.long()]).all()
    assert set(first.long().tolist()) == set(range(22)) == set(second.long().tolist())


def rejecting(monkeypatch, faces):
    """Rejections that are known in place of trained networks; what was asked for."""
    asked = []

    def rejections(network, mixture, framed, cluster, pairs, seed, *, across, split):
        asked.append((seed, across, len(cluster)))
        return torch.arange(pairs) % 10 < (9 if across else 2 + seed)

    found = SimpleNamespace(network=SimpleNamespace(mean=torch.zeros(1)), mixture=None)
    monkeypatch.setattr(FaceSource, "load", lambda source: faces)
    monkeypatch.setattr(tcnn_training, "obtain", lambda *args, **kwargs: (found, []))
    monkeypatch.setattr(tcnn_augmentation, "rejections", rejections)
    monkeypatch.setattr(views, "clusters_of", lambda model, faces: np.arange(len(faces)) % 3)
    return asked


def test_rejections_are_measured_once_on_faces_that_do_not_validate(run, monkeypatch):
    asked = rejecting(monkeypatch, five_dots(24, jitter=0.0))
    rows, verdict = views.rejections(run, CONFIG, run.source("mtfl", "train"), seeds=(0, 1))
    assert [(row.method, row.metric, round(row.value, 6)) for row in rows] == [
        (views.WITHIN, views.REJECTED, 25.0),
        (views.ACROSS, views.REJECTED, 90.0),
        (views.WITHIN, views.LABELS, pytest.approx(0, abs=1e-3)),
    ]
    assert asked == [(seed, across, 19) for seed in (0, 1) for across in (False, True)]  # 5 of 24 validate
    assert (verdict.claim, verdict.verdict) == ("TCNN-C14", "reproduced")
    again, same = views.rejections(run, CONFIG, run.source("mtfl", "train"), seeds=(0, 1))
    assert len(asked) == 4 and [row.value for row in again] == [row.value for row in rows]
    assert same.verdict == verdict.verdict


def test_the_panel_shows_pairs_of_training_faces(run, monkeypatch):
    faces = five_dots(24)
    monkeypatch.setattr(FaceSource, "sample", lambda source, count: faces.subset(np.arange(count)))
    asked = []
    monkeypatch.setattr(
        views, "clusters_of", lambda model, faces: asked.append(len(faces)) or np.zeros(len(faces), int)
    )
    everything = model(lambda crops: torch.zeros(len(crops), dtype=torch.long))
    monkeypatch.setattr(tcnn_training, "obtain", lambda *args, **kwargs: (everything, []))
    figure = views.warp_panel(run, "TCNN-F5", CONFIG, run.source("mtfl", "train"), count=24)
    learning = (~tcnn_training.held_out(64)[:24]).sum()
    assert asked == [learning] and figure.get_label().startswith("8 synthetic training faces")
    shown = [ax for ax in figure.axes if ax.get_images()]
    assert len(shown) == 16 and all(len(ax.get_lines()[0].get_xdata()) == 5 for ax in shown)
    (kept,) = manifest.load("tcnn", ["smoke"])
    assert (kept.artefact, kept.images) == ("TCNN-F5", 8)
