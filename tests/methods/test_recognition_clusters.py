"""Clusters by what a recogniser sees: what faces of a cluster have in common, in closed form; their order and mean images; and what is stored."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from five_dots import five_dots

from replicate.methods import recognition, recognition_clusters, tcnn
from replicate.methods.recognition_clusters import FC5, FC7, RGB, ordered, together, within

torch.set_num_threads(1)


@pytest.fixture
def faces():
    found = five_dots(40)
    rng = np.random.default_rng(1)
    attributes = {name: rng.integers(0, 2, 40) for name in ("male", "smiling", "wearing_glasses")}
    return replace(found, attributes=attributes | {"yaw": rng.normal(0, 20, 40)}, identity=np.arange(40) // 4)


def test_pairs_of_pictures_are_counted_one_by_one():
    rng = np.random.default_rng(0)
    cluster, identity = rng.integers(0, 3, 30), rng.integers(0, 7, 30)
    identity[0] = 99  # somebody with one picture
    one, two = together(cluster, identity)
    pairs = list(combinations(range(30), 2))
    shares = {}
    for a, b in pairs:
        key = identity[a] if identity[a] == identity[b] else "others"
        shares.setdefault(key, []).append(100.0 * (cluster[a] == cluster[b]))
    assert two == pytest.approx(np.mean(shares.pop("others")))
    np.testing.assert_allclose(one, [np.mean(shares[person]) for person in sorted(shares)])


def test_clusters_of_people_have_all_pictures_of_one_person_and_none_of_two():
    identity = np.repeat([4, 7, 9], 5)
    one, two = together(np.repeat([2, 0, 1], 5), identity)
    assert one.tolist() == [100] * 3 and two == 0
    one, two = together(np.zeros(15, int), identity)
    assert one.tolist() == [100] * 3 and two == 100


def test_one_cluster_has_the_variance_of_all_faces(faces):
    found = within(faces, np.zeros(40, int), np.zeros(40, int), faces.identity, 1)
    np.testing.assert_allclose(found.landmarks, 100)
    np.testing.assert_allclose(found.labels, 100)
    np.testing.assert_allclose(found.yaw, 100)


def test_variances_within_clusters_are_those_of_their_faces(faces):
    cluster = np.arange(40) % 2
    found = within(faces, cluster, cluster, faces.identity, 3)
    shapes = faces.points - faces.boxes[:, None, :2]  # boxes have 40 pixels, as crops do
    for k in (0, 1):
        own = shapes[cluster == k]
        for landmark in range(5):
            largest = [np.linalg.eigvalsh(np.cov(s[:, landmark].T, bias=True))[-1] for s in (own, shapes)]
            assert found.landmarks[k, landmark] == pytest.approx(100 * largest[0] / largest[1], rel=1e-4)
        for place, name in enumerate(("male", "smiling", "wearing_glasses")):
            labels = faces.attributes[name]
            assert found.labels[k, place] == pytest.approx(100 * labels[cluster == k].var() / labels.var())
        yaw = faces.attributes["yaw"]
        assert found.yaw[k] == pytest.approx(100 * yaw[cluster == k].var() / yaw.var())
    assert np.isnan(found.landmarks[2]).all() and np.isnan(found.labels[2]).all() and np.isnan(found.yaw[2])


def test_a_label_that_all_share_has_no_share_of_variance(faces):
    bearded = replace(faces, attributes=faces.attributes | {"male": np.ones(40, int)})
    found = within(bearded, np.arange(40) % 2, np.zeros(40, int), faces.identity, 2)
    assert np.isnan(found.labels[:, 0]).all() and np.isfinite(found.labels[:, 1:]).all()


def test_the_order_is_along_the_line_on_which_centres_lie():
    rng = np.random.default_rng(2)
    axis, place = rng.normal(size=9), rng.permutation(12).astype(float)
    order = ordered(place[:, None] * axis + 3)
    found = place[order]
    assert found.tolist() in (sorted(place), sorted(place, reverse=True))


def test_mean_images_are_means_of_crops_in_order(faces):
    cluster, order = np.arange(40) % 2, np.array([1, 2, 0])
    made = recognition_clusters._pictured(faces, cluster, order)
    images = made["averages"].view(3, 40, 40, 3).numpy()
    crops = recognition_clusters._canvases(faces).crops(torch.arange(40)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(images[0], 255 * crops[1::2].mean(0), atol=0.51)
    np.testing.assert_allclose(images[2], 255 * crops[::2].mean(0), atol=0.51)
    assert (images[1] == 0).all() and made["sizes"].tolist() == [20, 0, 20]


def test_everything_is_small_and_found_again_without_faces(tmp_path, monkeypatch):
    """At smoke, with all trainings."""
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path))
    config = recognition.CONFIGS["smoke"]
    found, model = recognition_clusters.obtain(config, "smoke", "synthetic", 0)
    assert found.averages.shape == (tcnn.ANALYSED["smoke"], 40, 40, 3) and found.averages.dtype == np.uint8
    assert found.sizes.sum() == 64 - 13 and set(found.within) == {FC7, FC5, RGB}  # a fifth validates
    sizes = {tensor.numel() * tensor.element_size() for tensor in model.tensors.values()}
    assert sum(sizes) < 1_000_000 * 6 / 64  # in proportion, below a megabyte for 64 clusters
    monkeypatch.setattr(recognition_clusters, "_clustered", None)
    again, _ = recognition_clusters.obtain(config, "smoke", "synthetic", 0)
    np.testing.assert_array_equal(again.averages, found.averages)
    for name, one in found.within.items():
        np.testing.assert_allclose(again.within[name].landmarks, one.landmarks)
        assert 0 < again.within[name].two_people < 100 and len(one.one_person) == 12
