"""What TCNN's network learns: sharpness in closed form, control clusters, and what is stored of clusters and faces."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
import torch
from five_dots import five_dots
from sklearn.metrics import adjusted_rand_score

from replicate import paths, store
from replicate.errors import ReplicateError
from replicate.methods import tcnn, tcnn_analysis, tcnn_augmentation, tcnn_training
from replicate.methods.tcnn import LEVELS, Mixture, VanillaConfig
from replicate.methods.tcnn_analysis import (
    LAST,
    PARTITIONS,
    PICTURED,
    POSITIONS,
    RGB,
    AnalysisConfig,
    Partition,
    gradient_energy,
    mean_images,
    shared_energy,
    shuffled,
)
from replicate.metrics import nme

torch.set_num_threads(1)
SMALL = VanillaConfig(batch=8, samples=64, validate_every=4, sanity_gate=False)
CONFIG = AnalysisConfig(clusters=3)
COUNT = 60


@dataclass(frozen=True)
class Source:
    """Faces of five dots, with labels."""

    fingerprint: str = "dots"
    count: int = COUNT
    protocol: str = "mtfl"
    split: str = "train"
    faces: str = "synthetic"

    def load(self):
        faces = five_dots(self.count)
        rng = np.random.default_rng(1)
        labels = {
            name: rng.random(self.count) < share
            for name, share in zip(tcnn_analysis.LABELS, (0.5, 0.6, 0.2), strict=True)
        }
        return replace(faces, attributes=labels)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path))


def obtain(config=CONFIG, seed=0, **how):
    return tcnn_analysis.obtain(config, SMALL, Source(), "smoke", seed, device="cpu", **how)


def obtain_faces(config=CONFIG, seed=0):
    return tcnn_analysis.obtain_faces(config, SMALL, Source(), "smoke", seed, device="cpu")


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random(shape))


# Measures -----------------------------------------------------------------------------------------------------------------------------------


def test_a_ramp_has_the_square_of_its_steps():
    ramp = torch.arange(40.0).expand(3, 40, 40) * 2 / 255  # two grey levels a pixel, to the right alone
    assert gradient_energy(ramp).item() == pytest.approx(4, rel=1e-5)
    assert gradient_energy(ramp + ramp.mT).item() == pytest.approx(8, rel=1e-5)
    assert gradient_energy(torch.full((2, 3, 40, 40), 0.3)).tolist() == pytest.approx([0, 0], abs=1e-9)


def test_energy_is_a_quadratic_form_that_no_mirroring_changes():
    image = noise(5, 3, 40, 40)
    torch.testing.assert_close(gradient_energy(0.5 * image), 0.25 * gradient_energy(image))
    torch.testing.assert_close(gradient_energy(image.flip(-1)), gradient_energy(image))
    torch.testing.assert_close(gradient_energy(image.mT), gradient_energy(image))


def test_a_blurred_image_is_less_sharp():
    image = noise(40, 40, 3).numpy()
    blurs = [image, *(cv2.GaussianBlur(image, (0, 0), sigma) for sigma in (0.7, 1.5, 3.0))]
    sharp = [gradient_energy(torch.from_numpy(one).permute(2, 0, 1)).item() for one in blurs]
    assert sharp == sorted(sharp, reverse=True) and sharp[-1] < 0.05 * sharp[0]


def test_a_mean_image_has_the_energy_that_pairs_share():
    faces = noise(6, 3, 40, 40)
    both = faces[:, None] + faces[None]  # E(a + b) = E(a) + E(b) + 2 a.b
    single = gradient_energy(faces)
    products = (gradient_energy(both) - single[:, None] - single[None]) / 2
    torch.testing.assert_close(gradient_energy(faces.mean(0)), products.mean())
    others = products[~torch.eye(6, dtype=bool)].mean() / single.mean()
    found = shared_energy(
        *(np.array([x.item()]) for x in (gradient_energy(faces.mean(0)), single.mean())), np.array([6])
    )
    assert found == pytest.approx(others.item())


def test_equal_faces_share_all_and_unlike_ones_nothing():
    one = noise(1, 3, 40, 40)
    energy = gradient_energy(one).numpy()
    assert shared_energy(energy, energy, np.array([7])) == pytest.approx(1)
    noisy = noise(400, 3, 40, 40)
    mean, single = gradient_energy(noisy.mean(0)).item(), gradient_energy(noisy).mean().item()
    assert mean / single == pytest.approx(1 / 400, rel=0.1)  # what a plain ratio would call sharp
    assert abs(shared_energy(np.array([mean]), np.array([single]), np.array([400]))) < 5e-4


def test_a_single_face_shares_with_nobody():
    ones = np.ones(3)
    assert np.isnan(shared_energy(ones, ones, np.array([0, 1, 2]))).tolist() == [True, True, False]


def test_mean_images_are_means():
    crops, cluster = noise(7, 3, 40, 40), np.array([0, 3, 3, 0, 1, 3, 0])
    found = mean_images(crops, cluster, 4)
    for k in (0, 1, 3):
        torch.testing.assert_close(found[k], crops[torch.from_numpy(cluster == k)].mean(0))
    assert found[2].isnan().all()


def test_random_clusters_have_the_same_sizes():
    cluster = np.repeat([0, 1, 2, 4], [3, 50, 7, 40])
    found = shuffled(cluster, 0)
    assert np.bincount(found).tolist() == [3, 50, 7, 0, 40]
    assert (found == shuffled(cluster, 0)).all() and not (found == shuffled(cluster, 1)).all()
    assert abs(adjusted_rand_score(cluster, found)) < 0.1


@pytest.mark.parametrize("clustering", tcnn.CLUSTERINGS)
@pytest.mark.parametrize("covariance", tcnn.COVARIANCES)
def test_planted_clusters_are_found(clustering, covariance):
    rng = np.random.default_rng(0)
    planted = rng.integers(5, size=400)
    centres = 8 * rng.normal(size=(5, 30))
    features = torch.from_numpy((centres[planted] + rng.normal(size=(400, 30))).astype(np.float32))
    mixture = Mixture.fit(features[:300], 5, 0, clustering=clustering, covariance=covariance)
    assert adjusted_rand_score(planted[:300], mixture.assign(features[:300])) == 1
    assert adjusted_rand_score(planted[300:], mixture.assign(features[300:])) == 1


# What is stored -----------------------------------------------------------------------------------------------------------------------------


def test_clusters_of_every_level_are_those_of_its_features():
    clusters, stored = obtain()
    assert tuple(clusters.partitions) == PARTITIONS
    faces = Source().load()
    out = tcnn_training.held_out(COUNT)
    network, _ = tcnn_training.obtain_vanilla(SMALL, Source(), "smoke", 0, device="cpu")
    crops = [
        torch.cat(list(tcnn_augmentation.plain_crops(tcnn_training.framed(faces.subset(w)))))
        for w in (~out, out)
    ]
    for level in LEVELS:
        learning, validating = (network.features(part, level) for part in crops)
        mixture, partition = Mixture.fit(learning, 3, 0), clusters.partitions[level]
        assert partition.learning.tolist() == mixture.assign(learning).tolist()
        assert partition.validating.tolist() == mixture.assign(validating).tolist()
        means = mean_images(crops[0], partition.learning, 3)
        assert partition.energy == pytest.approx(gradient_energy(means).numpy(), rel=1e-4, nan_ok=True)
        density = [
            mixture.log_joint(x).logsumexp(1).mean().item() / x.shape[1] for x in (learning, validating)
        ]
        assert partition.log_density == pytest.approx(density, rel=1e-4)
    assert stored.parent_sha256


def test_clusters_of_the_points_have_points_that_hardly_vary():
    clusters, _ = obtain()
    points = tcnn_training.framed(Source().load().subset(~tcnn_training.held_out(COUNT))).points.numpy()

    def spread(name):  # as k-means has it: the sum of squares around the means
        cluster = clusters.partitions[name].learning
        return sum(((points[cluster == k] - points[cluster == k].mean(0)) ** 2).sum() for k in set(cluster))

    assert spread(POSITIONS) <= min(spread(level) for level in LEVELS)


def test_the_error_is_that_of_the_network():
    clusters, _ = obtain()
    faces = Source().load()
    faces = faces.subset(tcnn_training.held_out(COUNT))
    network, _ = tcnn_training.obtain_vanilla(SMALL, Source(), "smoke", 0, device="cpu")
    shapes = tcnn_training.predict_faces(network, faces)
    expected = nme(shapes, faces.points, normaliser="inter-pupil", markup="mtfl5")
    assert clusters.validation_error == pytest.approx(expected, rel=1e-3)


def test_faces_are_kept_as_they_are():
    found, clusters = obtain_faces(), obtain()[0]
    faces, out = Source().load(), tcnn_training.held_out(COUNT)
    for points, labels, which in (
        (found.points, found.labels, ~out),
        (found.validating_points, found.validating_labels, out),
    ):
        part = faces.subset(which)
        assert (points == tcnn_training.framed(part).points.numpy()).all()
        assert (labels == np.stack([part.attributes[name] for name in tcnn_analysis.LABELS], 1)).all()
    crops = torch.cat(list(tcnn_augmentation.plain_crops(tcnn_training.framed(faces.subset(~out)))))
    assert tuple(found.means) == PICTURED == (RGB, LAST)
    for level, means in found.means.items():
        expected = mean_images(crops, clusters.partitions[level].learning, 3).nan_to_num()
        assert means.dtype == np.uint8
        assert np.abs(means - 255 * expected.permute(0, 2, 3, 1).numpy()).max() <= 0.5 + 1e-3


def test_what_is_stored_is_found_again(monkeypatch):
    before, faces = obtain()[0], obtain_faces()

    def never(*_):
        raise AssertionError("made again")

    monkeypatch.setattr(tcnn_analysis, "_parts", never)  # neither faces nor features are needed any more
    after, again = obtain()[0], obtain_faces()
    for name in PARTITIONS:
        for one, other in zip(
            vars(before.partitions[name]).values(), vars(after.partitions[name]).values(), strict=True
        ):
            assert np.array_equal(one, other, equal_nan=True)
    assert (faces.points == again.points).all()
    with pytest.raises(AssertionError, match="made again"):
        obtain(replace(CONFIG, clusters=4))


def test_a_partition_is_kept_exactly():
    rng = np.random.default_rng(0)
    energies = (rng.random(5).astype(np.float32).astype(float) for _ in range(4))
    one = Partition(rng.integers(5, size=9), rng.integers(5, size=4), np.array([1.5, -2.0]), *energies)
    other = Partition.of(one.tensors())
    assert all((a == b).all() for a, b in zip(vars(one).values(), vars(other).values(), strict=True))
    assert one.tensors()["learning"].dtype == torch.uint8
    assert one.sizes.tolist() == np.bincount(one.learning, minlength=5).tolist() and one.clusters == 5


def test_every_field_names_other_clusters():
    def hashes(config, vanilla=SMALL, seed=0):
        return [key.hash for key in tcnn_analysis.keys(config, vanilla, Source(), "smoke", seed)]

    first = hashes(CONFIG)
    for change in (dict(clusters=4), dict(clustering="k-means"), dict(covariance="diag"), dict(restart=1)):
        other = hashes(replace(CONFIG, **change))
        assert other[0] == first[0] and other[1] != first[1] and other[2] != first[2]
    assert len({*first, *hashes(CONFIG, replace(SMALL, batch=16)), *hashes(CONFIG, seed=1)}) == 9


def test_another_start_of_em_may_end_elsewhere():
    starts = [obtain(replace(CONFIG, restart=number))[0].partitions[LAST] for number in range(3)]
    assert any((starts[0].learning != other.learning).any() for other in starts[1:])


@pytest.mark.parametrize("change", [dict(covariance="diag"), dict(clustering="k-means")])
def test_other_clusterings_are_kept_alike(change):
    clusters, _ = obtain(replace(CONFIG, **change))
    for name in PARTITIONS:
        partition = clusters.partitions[name]
        assert partition.sizes.sum() == len(partition.learning) and np.isfinite(partition.log_density).all()
    plain = obtain()[0].partitions[POSITIONS]
    assert (
        clusters.partitions[POSITIONS].learning == plain.learning
    ).all()  # k-means whatever the others are


def test_clusters_of_other_weights_are_not_used():
    _, stored = obtain()
    _, parent = tcnn_training.obtain_vanilla(SMALL, Source(), "smoke", 0, device="cpu")
    other = {name: 1.5 * value for name, value in parent.tensors.items()}
    store.save(paths.cache() / "models" / parent.key.filename, parent.key, other, parent.report, "elsewhere")
    _, again = obtain()
    assert again.parent_sha256 != stored.parent_sha256


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (dict(clusters=0), "expected 1 to 256"),
        (dict(clusters=257), "expected 1 to 256"),
        (dict(covariance="full"), "spherical"),
    ],
)
def test_impossible_clusterings_are_refused(change, match):
    with pytest.raises(ReplicateError, match=match):
        AnalysisConfig(**change)
