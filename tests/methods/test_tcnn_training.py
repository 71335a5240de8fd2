"""Training of TCNN: the split, crops and labels, keys, pools of augmented images, batches, heads together and alone, early stopping, resuming."""

from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
import pytest
import torch
from five_dots import five_dots, read_off
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_faces import toy_faces

from replicate import detection, training
from replicate.errors import ReplicateError
from replicate.faces import synthetic
from replicate.faces.boxes import SQUARE, TIGHT
from replicate.faces.faceset import FaceSet
from replicate.faces.markups import convert
from replicate.methods import tcnn, tcnn_augmentation, tcnn_heads, tcnn_training
from replicate.methods.tcnn import CONFIGS, SPLITS, Heads, Mixture, TCNNConfig, Vanilla, VanillaConfig
from replicate.methods.tcnn_augmentation import Pools
from replicate.methods.tcnn_heads import Tweaking
from replicate.methods.tcnn_training import WarpedSamples
from replicate.training import FitReport

torch.set_num_threads(1)
CPU = torch.device("cpu")
SMALL = VanillaConfig(batch=8, samples=64, validate_every=4, sanity_gate=False)
CONFIG = TCNNConfig(SMALL, clusters=2, images=30, patience=2, epochs=4, batch=10, validation=3)
CHANGES = {  # of every field, another value
    "clusters": 3, "clustering": "k-means", "covariance": "diag", "split": "CL4", "augmentation": "none", "images": 40,
    "patience": 3, "epochs": 5, "batch": 20, "step_size": 1e-3, "validation": 4,
}  # fmt: skip
VANILLA_CHANGES = {
    "batch": 16, "step_size": 1e-4, "samples": 128, "shift": 0.1, "rotation": 5.0, "scale": 0.2, "mirrored": False, "warps": 0.5,
    "validate_every": 8, "patience": 3, "sanity_gate": True,
}  # fmt: skip
WIDTHS = {"CL4": 576, "FC5": 256}


@dataclass(frozen=True)
class Source:
    """Faces of five dots."""

    fingerprint: str = "dots"
    count: int = 40
    protocol: str = "mtfl"
    split: str = "train"
    faces: str = "synthetic"

    def load(self):
        return five_dots(self.count)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path))


def network(faces=None, seed=0):
    """With random weights, for crops of these faces."""
    torch.manual_seed(seed)
    made = Vanilla()
    made.mean, made.std = tcnn_training.crop_statistics(faces or tcnn_training.framed(five_dots()))
    return made.requires_grad_(False)


def numbers(seed=0):
    return torch.Generator().manual_seed(seed)


def off(crops, shapes):
    """Distances (n, 5) of the dots from where they should be; in a mirrored crop left and right have changed their colours."""
    found, order = read_off(crops), [1, 0, 2, 4, 3]
    plain, mirrored = ((found[:, which] - shapes).norm(dim=-1) for which in (list(range(5)), order))
    return torch.where((plain.amax(1) < mirrored.amax(1))[:, None], plain, mirrored)


def clustered(count=40, clusters=3, seed=0, **drawn):
    """Faces, a network, and clusters of what enters its FC5."""
    faces = tcnn_training.framed(five_dots(count, seed, **drawn))
    net = network(faces)
    found = torch.cat([net.features(crops) for crops in tcnn_augmentation.plain_crops(faces)])
    mixture = Mixture.fit(found, clusters, 0)
    return net, mixture, faces, mixture.assign(found)


# Faces


def test_the_printed_counts_are_held_out():
    assert tcnn_training.held_out(9543).sum() == 1972 and (~tcnn_training.held_out(9543)).sum() == 7571
    assert tcnn_training.held_out(10_000).sum() == 2066
    assert (tcnn_training.held_out(500) == tcnn_training.held_out(500)).all()
    places = tcnn_training.held_out(10_000).nonzero()[0]
    assert places.mean() == pytest.approx(5000, rel=0.03)  # drawn from the whole list, not from its end


def test_the_box_fills_the_crop():
    """In an image whose values are its coordinates, crops hold the coordinates of what they show."""
    y, x = np.mgrid[:100, :120]
    image = np.stack([2 * x, 2 * y, x + y], -1).astype(np.uint8)
    box = np.float32([[30.0, 25, 70, 65]])
    points = np.float32([[[40, 40], [60, 40], [50, 50], [42, 60], [58, 60]]])
    faces = replace(five_dots(1), images=image[None], boxes=box, points=points)
    seen = tcnn_training.framed(faces)
    (crop,) = next(tcnn_augmentation.plain_crops(seen))
    places = np.arange(40) + 0.5  # 40 pixels a side from the edge of the box on
    np.testing.assert_allclose(255 * crop[0].mean(0), 2 * (30 + places), atol=0.6)
    np.testing.assert_allclose(255 * crop[1].mean(1), 2 * (25 + places), atol=0.6)
    np.testing.assert_allclose(seen.points[0], points[0] - [30, 25] - 0.5, atol=1e-4)


def test_dots_lie_where_the_points_say():
    seen = tcnn_training.framed(five_dots(12))
    (crops,) = tcnn_augmentation.plain_crops(seen)
    assert (read_off(crops) - seen.points).norm(dim=-1).max() < 0.6


def test_faces_must_have_five_known_points():
    with pytest.raises(ReplicateError, match="toy/train: got ibug68 with 0 unknown points, expected five"):
        tcnn_training.framed(toy_faces(2))
    faces = five_dots(3)
    faces.points[1, 2:4] = np.nan
    with pytest.raises(ReplicateError, match="drawn/train: got mtfl5 with 2 unknown points"):
        tcnn_training.framed(faces)


def test_a_face_whose_eyes_lie_in_one_place_is_refused():
    faces = five_dots(6)
    faces.points[4, 1] = faces.points[4, 0]
    with pytest.raises(ReplicateError, match=f"both eyes of {faces.names[4]} lie in one place"):
        tcnn_training.framed(faces)


@pytest.mark.parametrize("name", ["clusters", "patience", "epochs", "batch"])
def test_a_network_without_clusters_or_epochs_is_refused(name):
    with pytest.raises(ReplicateError, match=f"{name}: got 0, expected one or more"):
        TCNNConfig(**{name: 0})


def test_mean_and_deviation_are_those_of_each_value():
    seen = tcnn_training.framed(five_dots(9))
    crops = torch.cat(list(tcnn_augmentation.plain_crops(seen))).double().numpy()
    mean, std = tcnn_training.crop_statistics(seen)
    np.testing.assert_allclose(mean, crops.mean(0), atol=1e-6)
    np.testing.assert_allclose(std, np.maximum(crops.std(0), 1e-3), atol=1e-6)
    assert mean.shape == std.shape == (3, 40, 40)


@pytest.mark.parametrize("mirror", [True, False])
def test_predictions_move_with_the_image(mirror):
    """By whole pixels, so that crops are the same; what is added is as far away as the canvases do not reach."""
    faces, model = five_dots(5), network()
    moved = [np.pad(image, ((6, 0), (11, 3), (0, 0)), mode="edge") for image in np.asarray(faces.images)]
    expected = tcnn_training.predict_faces(model, faces, mirror=mirror)
    found = tcnn_training.predict_boxes(model, moved, faces.boxes + np.float32([11, 6, 11, 6]), mirror=mirror)
    np.testing.assert_allclose(found - [11, 6], expected, atol=0.3)  # bfloat16
    assert expected.shape == (5, 5, 2)


@pytest.mark.parametrize("times", [1, 3])
def test_predictions_are_in_pixels_of_the_image(times):
    """Of a model that reads the dots off its crops."""

    class Reads:
        network = network()

        def __call__(self, crops):
            return read_off(crops)

    faces = five_dots(5)
    images = [
        cv2.resize(image, None, fx=times, fy=times, interpolation=cv2.INTER_NEAREST) for image in faces.images
    ]
    between = (times - 1) / 2  # pixel centres are at whole numbers
    boxes = times * faces.boxes + np.float32(between)
    found = tcnn_training.predict_boxes(Reads(), images, boxes, mirror=False)
    assert np.abs((found - between) / times - faces.points).max() < 0.6
    assert np.abs(((found - between) / times - faces.points).mean((0, 1))).max() < 0.2


def test_grey_images_are_colour_images_without_colour():
    faces, model = five_dots(3), network()
    grey = [image.mean(-1).round().astype(np.uint8) for image in faces.images]
    three = [np.repeat(image[..., None], 3, -1) for image in grey]
    found = [tcnn_training.predict_boxes(model, images, faces.boxes) for images in (grey, three)]
    np.testing.assert_array_equal(*found)


# Keys


def hashes(config, seed=0, fingerprint="dots"):
    return [key.hash for key in tcnn_training.keys(config, Source(fingerprint), "smoke", seed)]


def test_fields_of_the_heads_leave_the_vanilla_network_alone():
    assert set(CHANGES) | {"vanilla"} == {field.name for field in fields(TCNNConfig)}
    plain = hashes(CONFIG)
    changed = [hashes(replace(CONFIG, **{name: value})) for name, value in CHANGES.items()]
    assert {first for first, _ in changed} == {plain[0]}
    assert len({plain[1], *(second for _, second in changed)}) == 1 + len(CHANGES)


def test_every_field_of_the_vanilla_network_names_both_but_the_gate():
    assert set(VANILLA_CHANGES) == {field.name for field in fields(VanillaConfig)}
    plain = hashes(CONFIG)
    changed = {
        name: hashes(replace(CONFIG, vanilla=replace(SMALL, **{name: value})))
        for name, value in VANILLA_CHANGES.items()
    }
    assert changed.pop("sanity_gate") == plain
    for place in range(2):
        assert len({plain[place], *(found[place] for found in changed.values())}) == 1 + len(changed)


def test_faces_and_seed_name_both():
    plain = hashes(CONFIG)
    for other in (hashes(CONFIG, seed=1), hashes(CONFIG, fingerprint="others")):
        assert not set(plain) & set(other)
    vanilla, heads = tcnn_training.keys(CONFIG, Source(), "smoke", 0)
    assert (vanilla.method, heads.method, heads.parent) == ("tcnn-vanilla", "tcnn", vanilla.hash)


# §2.1 Vanilla network


def samples(seed=0, count=24, **changes):
    return WarpedSamples(tcnn_training.framed(five_dots(count)), replace(SMALL, batch=16, **changes), seed)


def test_a_batch_depends_on_seed_and_step_alone():
    crops, shapes = samples()(3)
    again, same = samples()(3)
    assert torch.equal(crops, again) and torch.equal(shapes, same)
    assert crops.shape == (16, 3, 40, 40) and shapes.shape == (16, 5, 2)
    for others in (samples()(4), samples(1)(3)):
        assert not torch.equal(shapes, others[1])


@pytest.mark.parametrize("warps", [0.0, 0.5, 1.0])
def test_labels_are_where_the_dots_are(warps):
    """Mirrored, turned and shifted; onto another face the dots come by least squares alone, so that these are nearly of one form."""
    made = samples(warps=warps, shift=0.05, scale=0.05)
    made.faces = tcnn_training.framed(five_dots(24, jitter=0.0))
    for step in range(3):
        assert off(*made(step)).max() < 1.0


def test_a_share_of_the_crops_is_warped_onto_other_faces():
    """Without other moves, what is warped has the points of another face, and what is not its own."""
    made = samples(warps=0.25, shift=0.0, rotation=0.0, scale=0.0, mirrored=False)
    points = made.faces.points
    crops, shapes = made(0)
    _, plain = samples(warps=0.0, shift=0.0, rotation=0.0, scale=0.0, mirrored=False)(0)
    assert torch.equal(shapes[4:], plain[4:]) and not torch.equal(shapes[:4], plain[:4])
    assert all(any(torch.allclose(shape, one, atol=1e-4) for one in points) for shape in shapes)
    own = read_off(crops)
    away = (own - shapes).norm(dim=-1).mean(1)
    assert away[:4].mean() > 2 * away[4:].mean()  # least squares does not bring them there exactly


def test_half_of_the_crops_are_mirrored_or_none():
    still = dict(shift=0.0, rotation=0.0, scale=0.0)
    shapes = torch.cat([samples(mirrored=True, **still)(step)[1] for step in range(20)])
    points = tcnn_training.framed(five_dots(24)).points
    own = torch.stack([(shapes - one).flatten(1).abs().amax(1) < 1e-4 for one in points]).any(0)
    assert 0.4 < own.float().mean() < 0.6
    other = torch.stack([
        (tcnn.mirror_shapes(shapes) - one).flatten(1).abs().amax(1) < 1e-4 for one in points
    ]).any(0)  # fmt: skip
    assert (own | other).all()
    plain = torch.cat([samples(mirrored=False, **still)(step)[1] for step in range(3)])
    assert torch.stack([(plain - one).flatten(1).abs().amax(1) < 1e-4 for one in points]).any(0).all()


def test_moves_stay_within_their_bounds():
    made = samples(shift=0.1, rotation=0.0, scale=0.0, mirrored=False)
    _, plain = samples(shift=0.0, rotation=0.0, scale=0.0, mirrored=False)(0)
    shifts = (made(0)[1] - plain).mean(1)
    assert 2 < shifts.abs().max() <= 4.0  # a tenth of 40 pixels


def test_validation_is_the_error_in_per_cent_of_the_distance_of_the_eyes(monkeypatch):
    faces = five_dots(6)
    seen = tcnn_training.framed(faces)
    validate, gate = tcnn_training._validation(network(), faces)
    shifted = seen.points + torch.tensor([3.0, 4.0])
    eyes = (seen.points[:, 0] - seen.points[:, 1]).norm(dim=-1)
    monkeypatch.setattr(tcnn, "predict", lambda model, crops, mirror: shifted)
    assert validate() == pytest.approx(100 * (5 / eyes).mean().item(), rel=1e-5)
    errors = (seen.points - seen.points.mean(0)).norm(dim=-1).mean(1) / eyes
    assert gate == pytest.approx(100 * errors.mean().item(), rel=1e-5)


def test_a_killed_training_of_the_vanilla_network_resumes_to_the_same_weights(tmp_path, monkeypatch):
    """Validated once, at the end, so that what comes out is the last state and not one from before the kill."""
    config = replace(SMALL, samples=48, validate_every=100)
    schedule = replace(config.schedule, checkpoint_seconds=0.0)
    monkeypatch.setattr(VanillaConfig, "schedule", schedule)

    def train(name):
        return tcnn_training._train_vanilla(config, Source(), 0, tmp_path / name, CPU)[0]

    def interrupted(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return descend(*arguments)

    whole = train("whole")
    calls, descend = iter(range(3)), training._descend
    with monkeypatch.context() as patch:
        patch.setattr(training, "_descend", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train("killed")
    assert (tmp_path / "killed").exists()
    resumed = train("killed")
    assert [name for name, value in whole.items() if not torch.equal(resumed[name], value)] == []
    assert whole["std"].shape == (3, 40, 40) and whole["std"].std() > 0


def test_what_validates_is_not_learnt_from(monkeypatch):
    used = {}
    monkeypatch.setattr(
        tcnn_training, "WarpedSamples", lambda faces, *_: used.update(learning=faces.points) or faces
    )
    monkeypatch.setattr(
        tcnn_training, "_validation", lambda _, faces: used.update(checked=faces.points) or (None, None)
    )
    monkeypatch.setattr(training, "fit", lambda *_, **__: FitReport())
    tensors, _, _ = tcnn_training._train_vanilla(SMALL, Source(), 0, None, CPU)
    faces, out = Source().load(), tcnn_training.held_out(40)
    np.testing.assert_array_equal(used["checked"], faces.points[out])
    learning = tcnn_training.framed(faces.subset(~out))
    assert torch.equal(used["learning"], learning.points)
    assert torch.equal(tensors["mean"], tcnn_training.crop_statistics(learning)[0])


def test_the_gate_stops_a_network_that_is_no_better_than_the_mean_shape(tmp_path):
    config = replace(SMALL, samples=8, sanity_gate=True)
    with pytest.raises(ReplicateError, match="does not beat the mean shape"):
        tcnn_training._train_vanilla(config, Source(), 0, tmp_path / "c", CPU)


@pytest.fixture(scope="module")
def generated():
    return synthetic.generate_many(0, range(4), "common", size=128)


def test_generated_faces_are_learnt_by_heart(generated):
    points = convert(generated.points, "ibug68", "mtfl5").astype(np.float32)
    low, high = points.min(1), points.max(1)
    middle, half = (low + high) / 2, 0.8 * (high - low).max(1, keepdims=True)
    faces = FaceSet(
        generated.images, points, np.ones((4, 5), bool), np.concatenate([middle - half, middle + half], 1),
        tuple("abcd"), "mtfl5", "generated", "train", "synthetic", "made by the test",
    )  # fmt: skip
    seen = tcnn_training.framed(faces)
    net = network(seen).requires_grad_(True).to(memory_format=torch.channels_last)
    still = VanillaConfig(batch=8, shift=0.0, rotation=0.0, scale=0.0, mirrored=False)
    draw, optimiser = WarpedSamples(seen, still, 0), torch.optim.Adam(net.parameters(), lr=5e-4)
    for step in range(200):
        crops, shapes = draw(step)
        optimiser.zero_grad()
        tcnn.loss(net(crops), shapes).mean().backward()
        optimiser.step()
    found = tcnn_training.predict_faces(net.eval(), faces, mirror=False)
    eyes = np.linalg.norm(points[:, 0] - points[:, 1], axis=-1)
    errors = 100 * np.linalg.norm(found - points, axis=-1).mean(1) / eyes
    apart = 100 * np.linalg.norm(points - points.mean(0), axis=-1).mean(1) / eyes
    assert errors.mean() < 3 and apart.mean() > 10


# §3.2 Alignment-sensitive data augmentation


def test_equation_5_brings_landmarks_onto_landmarks():
    """Of faces that are exact similarities of one another: dots and labels agree, and the labels are those of another face of the cluster."""
    faces = tcnn_training.framed(five_dots(10, jitter=0.0, turn=20.0))
    cluster = torch.tensor([0, 1] * 5)
    owner = torch.tensor([0] * 20 + [1] * 20)
    crops, labels = tcnn_augmentation._augmented(faces, cluster, owner, "aligned", numbers())
    assert (read_off(crops) - labels).norm(dim=-1).max() < 1.0
    for k in range(2):
        own = faces.points[cluster == k]
        assert all(any(torch.equal(label, shape) for shape in own) for label in labels[owner == k])
    assert len({tuple(label.flatten().tolist()) for label in labels}) == 10


def test_labels_of_the_moved_face_are_where_its_own_landmarks_went():
    faces = tcnn_training.framed(five_dots(10, jitter=2.0))
    cluster, owner = torch.zeros(10, dtype=torch.long), torch.zeros(30, dtype=torch.long)
    crops, own = tcnn_augmentation._augmented(faces, cluster, owner, "aligned, own labels", numbers())
    same, target = tcnn_augmentation._augmented(faces, cluster, owner, "aligned", numbers())
    assert torch.equal(crops, same)
    found = read_off(crops)
    assert (found - own).norm(dim=-1).mean() < 0.5
    assert 0.5 < (own - target).norm(dim=-1).mean() < 4  # what least squares cannot bring together


def test_no_face_is_warped_onto_itself():
    faces = tcnn_training.framed(five_dots(3, jitter=2.0))
    cluster, owner = torch.zeros(3, dtype=torch.long), torch.zeros(200, dtype=torch.long)
    _, own = tcnn_augmentation._augmented(faces, cluster, owner, "aligned, own labels", numbers())
    _, target = tcnn_augmentation._augmented(faces, cluster, owner, "aligned", numbers())
    assert ((own - target).norm(dim=-1).amax(1) > 0.05).all()
    counts = torch.stack([(target == shape).all(-1).all(-1).sum() for shape in faces.points])
    assert counts.sum() == 200 and counts.min() > 40


def test_oversampled_images_are_shifted_and_mirrored():
    faces = tcnn_training.framed(five_dots(4))
    cluster, owner = torch.zeros(4, dtype=torch.long), torch.zeros(60, dtype=torch.long)
    crops, labels = tcnn_augmentation._augmented(faces, cluster, owner, "oversampled and mirrored", numbers())
    assert off(crops, labels).mean() < 0.6
    both = torch.stack([labels, tcnn.mirror_shapes(labels)])  # (2, n, 5, 2)
    moved = both[:, :, None] - faces.points  # of each face
    shift = moved.mean(3, keepdim=True)
    fits = ((moved - shift).abs().amax((3, 4)) < 1e-3) & (shift.abs().amax((3, 4)) <= 4.0)
    assert fits.any(2).any(0).all()
    assert 15 < fits.any(2)[1].sum() < 45


@pytest.fixture(scope="module")
def pooled():
    net, mixture, faces, cluster = clustered()
    config = replace(CONFIG, clusters=3, images=60)
    return net, mixture, faces, cluster, config


def test_pools_are_raised_to_the_wanted_size(pooled):
    net, mixture, faces, cluster, config = pooled
    pools = tcnn_augmentation.fill_pools(net, mixture, faces, cluster, config, 0)
    assert pools.sizes.tolist() == [60, 60, 60] and len(pools.features) == len(pools.shapes) == 180
    assert pools.features.dtype == torch.bfloat16
    owner = torch.arange(3).repeat_interleave(60)
    assert (mixture.assign(pools.features.float()) == owner).all()  # what left its cluster was rejected
    added = pools.sizes - cluster.bincount()
    assert (pools.kept >= added).all() and (pools.drawn >= pools.kept).all()


def test_pools_hold_the_faces_and_warps_onto_them(pooled):
    net, mixture, faces, cluster, config = pooled
    pools = tcnn_augmentation.fill_pools(net, mixture, faces, cluster, config, 0)
    known = torch.cat([net.features(crops) for crops in tcnn_augmentation.plain_crops(faces)])
    for k, (features, shapes) in enumerate(
        zip(pools.features.split(60), pools.shapes.split(60), strict=True)
    ):
        own = faces.points[cluster == k]
        assert torch.equal(shapes[: len(own)], own)
        assert torch.equal(features[: len(own)].float(), known[cluster == k])
        assert (shapes[:, None] == own).all(-1).all(-1).any(1).all()


def test_pools_depend_on_the_seed_alone(pooled):
    made = [tcnn_augmentation.fill_pools(*pooled, seed) for seed in (0, 0, 1)]
    assert all(torch.equal(*pair) for pair in zip(made[0], made[1], strict=True))
    assert not torch.equal(made[0].shapes, made[2].shapes)


def test_without_augmentation_pools_hold_the_faces_alone(pooled):
    *problem, config = pooled
    plain = replace(config, augmentation="none")
    pools = tcnn_augmentation.fill_pools(*problem, plain, 0)
    assert torch.equal(pools.sizes, problem[-1].bincount(minlength=3)) and not pools.drawn.any()
    few = tcnn_augmentation.fill_pools(*problem, replace(config, images=1), 0)
    assert torch.equal(few.sizes, pools.sizes)  # a cluster that is larger keeps all of its faces


def test_oversampling_rejects_nothing(pooled):
    *problem, config = pooled
    pools = tcnn_augmentation.fill_pools(
        *problem, replace(config, augmentation="oversampled and mirrored"), 0
    )
    assert pools.sizes.tolist() == [60, 60, 60] and torch.equal(pools.kept, pools.drawn)


def test_clusters_of_one_face_and_of_none_stay_as_they_are(pooled):
    net, mixture, faces, _, config = pooled
    cluster = torch.tensor([0] * 39 + [1])
    pools = tcnn_augmentation.fill_pools(net, mixture, faces, cluster, config, 0)
    assert pools.sizes[1:].tolist() == [1, 0] and pools.drawn[1:].tolist() == [0, 0]


def test_a_cluster_that_loses_all_warps_is_given_up(pooled, monkeypatch):
    net, mixture, faces, cluster, config = pooled
    monkeypatch.setattr(
        Mixture, "assign", lambda self, features: torch.zeros(len(features), dtype=torch.long)
    )
    pools = tcnn_augmentation.fill_pools(net, mixture, faces, cluster, replace(config, images=20), 0)
    sizes = cluster.bincount()
    assert pools.sizes[0] == max(20, sizes[0]) and torch.equal(pools.sizes[1:], sizes[1:])
    assert not pools.kept[1:].any() and (pools.drawn[1:][sizes[1:] < 20] >= 20 * 20).all()


def test_rejections_are_those_of_the_warps(monkeypatch):
    """With a network that says of a crop what colour it has, faces of two colours in two clusters, and warps that are none."""
    colours = np.array([0, 0, 0, 1, 1, 1])
    faces = five_dots(6)
    bright = np.where(colours[:, None, None, None], 200, 20) + np.zeros((6, 80, 80, 3))
    seen = tcnn_training.framed(replace(faces, images=bright.astype(np.uint8)))

    class Sees:
        def features(self, crops, split):
            assert split == "FC5"
            return crops.mean((1, 2, 3))[:, None]

    mixture = Mixture(torch.zeros(2), torch.tensor([[0.1], [0.8]]), torch.ones(2, 1))
    cluster = torch.from_numpy(colours)
    for across in (False, True):
        found = tcnn_augmentation.rejections(Sees(), mixture, seen, cluster, 100, 0, across=across)
        assert found.shape == (100,) and found.all() == across and found.any() == across
    with pytest.raises(ReplicateError, match="rejections: 6 faces in 2 clusters hold no such pair"):
        tcnn_augmentation.rejections(Sees(), mixture, seen, cluster * 0, 10, 0, across=True)
    with pytest.raises(ReplicateError, match="use more faces"):
        one = tcnn_training.framed(replace(faces, images=bright.astype(np.uint8)).subset(np.arange(1)))
        tcnn_augmentation.rejections(Sees(), mixture, one, cluster[:1], 10, 0, across=False)


def test_partners_are_of_the_same_cluster_and_all_of_them():
    cluster = torch.tensor([2, 0, 2, 1, 0, 2])
    first = torch.arange(6).repeat(100)
    members = tcnn_augmentation._Members.of(cluster)
    second = members.at(cluster[first], members.drawn(cluster[first], numbers()))
    assert (cluster[second] == cluster[first]).all()
    for face in range(6):
        assert sorted(second[first == face].unique().tolist()) == [
            other for other in range(6) if cluster[other] == cluster[face]
        ]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=40))
def test_ranks_count_what_stays_within_each_cluster(drawn):
    drawn.sort(key=lambda pair: pair[0])
    owner, stays = (torch.tensor(part) for part in zip(*drawn, strict=True))
    found = tcnn_augmentation._rank(owner, stays)
    for place, (own, _) in enumerate(drawn):
        assert found[place] == sum(stay for other, stay in drawn[:place] if other == own)


# §3.1 Tweaking by fine-tuning


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 25), min_size=1, max_size=6).filter(any),
    st.integers(1, 12),
    st.integers(0, 5),
)
def test_an_epoch_has_every_image_once(sizes, batch, seed):
    index, present = tcnn_heads.epoch_batches(torch.tensor(sizes), batch, numbers(seed))
    assert index.shape == present.shape and index.shape[:2] == (-(-max(sizes) // batch), len(sizes))
    assert index.shape[2] <= batch
    seen = index[present]
    assert sorted(seen.tolist()) == list(range(sum(sizes)))
    starts = np.cumsum([0, *sizes])
    for k in range(len(sizes)):
        own = index[:, k][present[:, k]]
        assert ((own >= starts[k]) & (own < starts[k + 1])).all()
        shares = present[:, k].sum(1)
        assert shares.max() - shares.min() <= 1  # a small cluster has small batches


def test_epochs_have_other_orders():
    sizes = torch.tensor([30, 12])
    orders = [tcnn_heads.epoch_batches(sizes, 10, numbers(seed)).index for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])
    first = torch.cat([tcnn_heads.epoch_batches(sizes, 10, numbers(seed)).index[0, 0] for seed in range(60)])
    assert len(first.unique()) == 30  # any image may come first


def test_heads_are_validated_by_their_clusters_or_by_the_likeliest_faces():
    mixture = Mixture(torch.zeros(3), torch.tensor([[0.0], [5.0], [40.0]]), torch.ones(3, 1))
    features = torch.tensor([[0.1], [4.0], [-1.0], [6.0], [5.0], [0.5], [9.0]])
    found = tcnn_heads.validating_faces(mixture, features, 3)
    assert found[0].tolist() == [0, 2, 5] and found[1].tolist() == [1, 3, 4, 6]
    assert found[2].tolist() == [6, 3, 4]  # no face is nearest to it
    assert [len(one) for one in tcnn_heads.validating_faces(mixture, features, 30)] == [7, 7, 7]


def problem(clusters=3, split="FC5", sizes=(30, 30, 30), seed=0, noise=2.0):
    """Heads, their pools and validation: shapes follow features by a linear law of each cluster, and noise."""
    torch.manual_seed(seed)
    net, width, generator = Vanilla(), WIDTHS[split], numbers(seed)
    torch.nn.init.normal_(net.fc5.bias, std=0.1)
    laws = 0.1 * torch.randn(clusters, width, 10, generator=generator) / width**0.5

    def drawn(counts):
        features = torch.rand(sum(counts), width, generator=generator).bfloat16()
        owner = torch.arange(clusters).repeat_interleave(torch.tensor(counts))
        outputs = torch.einsum("nd,ndo->no", features.float(), laws[owner])
        base = torch.tensor([-0.2, -0.2, 0.2, -0.2, 0, 0, -0.15, 0.2, 0.15, 0.2])
        errors = noise * torch.randn(len(owner), 5, 2, generator=generator)
        return features, tcnn.to_shapes(outputs + base) + errors, owner

    features, shapes, _ = drawn(list(sizes))
    none = torch.zeros(clusters, dtype=torch.long)
    pools = Pools(features, shapes, torch.tensor(sizes), none, none)
    checked, true, owner = drawn([8, 6, 10][:clusters])
    validating = [(owner == k).nonzero()[:, 0] for k in range(clusters)]
    return Heads(net, clusters, split), pools, checked.float(), true, validating


def fitted(made, config, checkpoint, seed=0):
    report, about = tcnn_heads.fit_heads(*made, config, seed, checkpoint)
    return report, about, made[0].state_dict()


def validation_loss(heads, features, true, validating):
    return torch.stack([
        tcnn.loss(heads(features[index][None], slice(k, k + 1))[0], true[index]).mean()
        for k, index in enumerate(validating)
    ])  # fmt: skip


LONG = replace(CONFIG, clusters=3, patience=3, epochs=40, batch=10, step_size=1e-3)


@pytest.mark.parametrize("split", SPLITS)
def test_heads_learn_and_keep_their_best_weights(split, tmp_path):
    made = problem(split=split)
    before = validation_loss(made[0], *made[2:])
    report, about, _ = fitted(made, LONG, tmp_path / "c")
    after = validation_loss(made[0], *made[2:])
    torch.testing.assert_close(about["loss_before"], before, rtol=1e-4, atol=0)
    torch.testing.assert_close(about["loss_after"], after, rtol=1e-4, atol=0)
    assert (after < 0.7 * before).all()
    assert report.steps == about["epochs"].max() and report.samples == 90 * report.steps
    assert report.best_error == pytest.approx(after.mean().item(), rel=1e-4)
    means = [loss for _, loss in report.history]
    assert means == sorted(means, reverse=True) and len(means) == report.steps
    assert not (tmp_path / "c").exists()


def test_a_head_that_only_gets_worse_keeps_the_vanilla_weights(tmp_path):
    made = problem()
    start = {name: value.clone() for name, value in made[0].state_dict().items()}
    report, about, weights = fitted(made, replace(LONG, step_size=3.0, patience=4), tmp_path / "c")
    assert about["epochs"].tolist() == [4, 4, 4] and report.stopped == "all heads ended"
    assert torch.equal(about["loss_after"], about["loss_before"])
    assert all(torch.equal(weights[name], value) for name, value in start.items())


def test_no_head_ends_above_the_vanilla_loss(tmp_path):
    for step_size in (1e-4, 1e-2, 0.3):
        _, about, _ = fitted(
            problem(noise=4.0), replace(LONG, step_size=step_size, epochs=12), tmp_path / "c"
        )
        assert (about["loss_after"] <= about["loss_before"]).all()


@pytest.mark.parametrize("split", SPLITS)
def test_heads_together_are_heads_alone(split, tmp_path, monkeypatch):
    """With the same batches, each ends where and as it would have ended alone."""
    config = replace(LONG, patience=2, epochs=25, step_size=5e-3)
    made = problem(split=split, sizes=(30, 17, 24), noise=4.0)
    _, together, weights = fitted(made, config, tmp_path / "c")
    assert len(together["epochs"].unique()) > 1 or split == "CL4"
    batches = tcnn_heads.epoch_batches
    starts = [0, 30, 47, 71]
    for k in range(3):
        heads, pools, features, true, validating = problem(split=split, sizes=(30, 17, 24), noise=4.0)
        alone = Heads(Vanilla(), 1, split)
        alone.load_state_dict({name: value[k : k + 1] for name, value in heads.state_dict().items()})
        own = slice(starts[k], starts[k + 1])
        pool = Pools(pools.features[own], pools.shapes[own], *(part[k : k + 1] for part in pools[2:]))

        def same(sizes, batch, generator, k=k, pools=pools):
            index, present = batches(pools.sizes, batch, generator)
            return tcnn_heads.Batches((index[:, k : k + 1] - starts[k]).clamp_min(0), present[:, k : k + 1])

        with monkeypatch.context() as patch:
            patch.setattr(tcnn_heads, "epoch_batches", same)
            _, about = tcnn_heads.fit_heads(
                alone, pool, features, true, [validating[k]], config, 0, tmp_path / "c"
            )
        assert about["epochs"].item() == together["epochs"][k]
        torch.testing.assert_close(about["loss_after"][0], together["loss_after"][k], rtol=0.02, atol=0)
        for name, value in alone.state_dict().items():
            difference = (value[0] - weights[name][k]).norm() / value.norm()
            assert difference < 0.02  # bfloat16


def test_the_seed_decides_the_batches_and_nothing_else(tmp_path):
    found = [fitted(problem(), LONG, tmp_path / "c", seed)[2] for seed in (0, 0, 1)]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not all(torch.equal(found[0][name], found[2][name]) for name in found[0])


@pytest.mark.parametrize("split", SPLITS)
def test_killed_heads_resume_to_the_same_weights(split, tmp_path, monkeypatch):
    monkeypatch.setattr(tcnn_heads, "CHECKPOINT_SECONDS", -1.0)
    config = replace(LONG, epochs=7, patience=50)
    whole = fitted(problem(split=split), config, tmp_path / "whole")
    end, calls = tcnn_heads._FineTuning.end_epoch, iter(range(4))

    def interrupted(self, losses):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        end(self, losses)

    with monkeypatch.context() as patch:
        patch.setattr(tcnn_heads._FineTuning, "end_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fitted(problem(split=split), config, tmp_path / "killed")
    assert (tmp_path / "killed").exists()
    resumed = fitted(problem(split=split), config, tmp_path / "killed")
    assert resumed[0].history == whole[0].history and len(whole[0].history) == 7
    for part in (1, 2):
        assert [
            name for name, value in whole[part].items() if not torch.equal(resumed[part][name], value)
        ] == []
    assert not (tmp_path / "killed").exists()


def test_a_head_that_has_ended_may_break_and_one_that_runs_may_not(tmp_path):
    fine = tcnn_heads._FineTuning(problem()[0], LONG, torch.ones(3), tmp_path / "c")
    fine.end_epoch(torch.tensor([0.5, 2.0, 2.0]))
    for _ in range(2):
        fine.end_epoch(torch.tensor([0.4, 2.0, 0.5]))
    assert fine.running.tolist() == [True, False, True]
    fine.end_epoch(torch.tensor([0.3, float("nan"), 0.6]))
    assert fine.lowest.tolist() == pytest.approx([0.3, 1.0, 0.5]) and fine.best_epoch.tolist() == [4, 0, 2]
    with pytest.raises(ReplicateError, match="loss of head 0 is not finite after 5 epochs; lower the step"):
        fine.end_epoch(torch.tensor([float("inf"), float("nan"), 0.1]))


def test_most_epochs_are_a_bound(tmp_path):
    report, about, _ = fitted(problem(), replace(LONG, epochs=2, patience=50), tmp_path / "c")
    assert (
        report.steps == 2 and report.stopped == "most epochs reached" and about["epochs"].tolist() == [2] * 3
    )


def test_the_fit_of_heads_is_that_of_their_images():
    heads, pools, *_ = problem(sizes=(5, 0, 7))
    found = tcnn_heads.fit_of(heads, pools)
    losses = [
        tcnn.loss(heads(x.float()[None], slice(k, k + 1))[0], true).mean().item() if len(x) else 0.0
        for k, (x, true) in enumerate(zip(pools.features.split([5, 0, 7]), pools.shapes.split([5, 0, 7]), strict=True))
    ]  # fmt: skip
    assert found.tolist() == pytest.approx(losses, rel=1e-4)


# Pictures of any kind


def test_the_square_box_follows_from_the_tight_one(generated):
    """Of the four faces together, nearly where the rule of the training faces puts it."""
    names = tuple("abcd")
    tight = TIGHT.with_noise(0, 0).boxes(generated.points, names)
    true = SQUARE.with_noise(0, 0).boxes(convert(generated.points, "ibug68", "mtfl5"), names)
    found = detection.square_boxes(tight)
    off = (found - true) / (true[:, 2:] - true[:, :2])[:, :1]
    assert np.abs(np.median(off, 0)).max() < 0.12
    width, height = (found[:, 2:] - found[:, :2]).T
    np.testing.assert_allclose(
        [width, height], [1.02 * (tight[:, 2] - tight[:, 0]), 1.04 * (tight[:, 3] - tight[:, 1])]
    )


def test_faces_of_a_picture_are_found_by_the_stored_network(monkeypatch):
    asked, model, faces = [], network(), five_dots(1)
    monkeypatch.setattr(tcnn_training, "obtain", lambda *given: asked.append(given) or (model, []))
    predict = detection.predictor("tcnn", "smoke", "synthetic")
    config, source, profile, seed = asked[0]
    assert (config, profile, seed) == (CONFIGS["smoke"], "smoke", 0)
    assert (source.protocol, source.split, source.faces) == ("mtfl", "train", "synthetic")
    tight = np.float32([[25, 30, 55, 58], [20, 22, 60, 60]])
    found = predict(np.asarray(faces.images[0]), tight)
    images = [np.asarray(faces.images[0])] * 2
    np.testing.assert_array_equal(
        found, tcnn_training.predict_boxes(model, images, detection.square_boxes(tight))
    )
    assert found.shape == (2, 5, 2)


# The model store


@pytest.mark.parametrize("split", SPLITS)
def test_a_tweaked_network_is_obtained_and_found_again(split, monkeypatch):
    config = replace(CONFIG, split=split)
    model, models = tcnn_training.obtain(config, Source(), "smoke", 0, device="cpu")
    assert [one.key.method for one in models] == ["tcnn-vanilla", "tcnn"]
    assert models[1].parent_sha256 == models[0].sha256
    about = Tweaking.of(models[1])
    assert about.faces.sum() == 32 and (about.images >= about.faces).all()  # eight validate
    assert (about.loss_after <= about.loss_before).all() and (about.epochs >= 2).all()
    assert about.validating.sum() >= 8 and (about.validating >= 3).all()
    assert models[1].report.seconds > models[1].report.data_seconds > 0
    vanilla, stored = tcnn_training.obtain_vanilla(SMALL, Source(), "smoke", 0, device="cpu")
    assert stored.sha256 == models[0].sha256
    assert all(map(torch.equal, vanilla.state_dict().values(), model.network.state_dict().values()))
    monkeypatch.setattr(tcnn_training, "_train_vanilla", None)
    monkeypatch.setattr(tcnn_training, "_tweak", None)
    again, _ = tcnn_training.obtain(config, Source(), "smoke", 0, device="cpu")
    faces = five_dots(6, seed=3)
    found = [tcnn_training.predict_faces(one, faces) for one in (model, again)]
    np.testing.assert_array_equal(*found)
    assert found[0].shape == (6, 5, 2) and np.isfinite(found[0]).all()
    assert not any(parameter.requires_grad for parameter in model.heads.parameters())


def test_what_is_stored_is_what_was_learnt():
    """Heads and mixture, to the bit: the validation loss that was noted is that of the stored model."""
    model, models = tcnn_training.obtain(CONFIG, Source(), "smoke", 0, device="cpu")
    checked = tcnn_training.framed(Source().load().subset(tcnn_training.held_out(40)))
    features = torch.cat([model.network.features(crops) for crops in tcnn_augmentation.plain_crops(checked)])
    validating = tcnn_heads.validating_faces(model.mixture, features, CONFIG.validation)
    found = validation_loss(model.heads, features, checked.points, validating)
    torch.testing.assert_close(found, Tweaking.of(models[1]).loss_after, rtol=1e-4, atol=0)


def test_one_vanilla_network_serves_all_heads(monkeypatch):
    trained = []
    train = tcnn_training._train_vanilla
    monkeypatch.setattr(tcnn_training, "_train_vanilla", lambda *given: trained.append(1) or train(*given))
    for changes in ({}, {"clusters": 3}, {"augmentation": "none"}, {"clustering": "k-means"}):
        tcnn_training.obtain(replace(CONFIG, **changes), Source(), "smoke", 0, device="cpu")
    assert len(trained) == 1


def test_more_clusters_than_faces_are_refused():
    with pytest.raises(ReplicateError, match="clusters: got 33 for 32 faces, expected at most one per face"):
        tcnn_training.obtain(replace(CONFIG, clusters=33), Source(), "smoke", 0, device="cpu")


def test_profiles_differ_in_size_alone():
    full, small = TCNNConfig(), CONFIGS["smoke"]
    assert replace(CONFIGS["cpu"], images=full.images) == full
    assert replace(CONFIGS["gpu"], vanilla=full.vanilla) == full
    kept = ("clustering", "covariance", "split", "augmentation", "step_size")
    assert all(getattr(small, name) == getattr(full, name) for name in kept)
    assert CONFIGS["smoke"].vanilla.schedule.steps == 100
