"""Training of RNN: crops, the enlarged set, candidates, what names a model, both ways to train, killed and resumed."""

from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate import training
from replicate.errors import ReplicateError
from replicate.geometry import apply_transform
from replicate.methods import rnn_training
from replicate.methods.rnn import CONFIGS, RNN, RNNConfig
from replicate.methods.rnn_training import LAST, MEAN, PEAKS

torch.set_num_threads(1)
SMALL = RNNConfig(
    "VGG-S", width=1 / 16, scale=1 / 8, rank=4, candidates=3, batch=4, pretraining=12, samples=24, steps=2, validation_faces=3, validate_every=3, sanity_gate=False,
)  # fmt: skip
CHANGES = {  # of every field that decides the weights, another value
    "backbone": "VGG-19", "width": 1 / 32, "nominal": 128, "scale": 1 / 16, "pooled": ("conv5",), "recurrent": False, "gates": "full", "rank": 3,
    "steps": 1, "box": 4.0, "candidates": 2, "batch": 2, "step_size": 1e-4, "samples": 20, "pretraining": 16, "validation_faces": 2, "validate_every": 2,
    "patience": 9, "weight": 1.0, "training": "two stages",
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Toy faces."""

    fingerprint: str = "toy"
    protocol: str = "300w"
    split: str = "train"
    faces: str = "synthetic"

    def load(self):
        return toy_faces(16, box_noise=2.0)


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def hashes(config, seed=0, fingerprint="toy"):
    return [key.hash for key in rnn_training.keys(config, Source(fingerprint), "smoke", seed)]


# Faces


def test_boxes_get_a_fifth_of_their_width_and_their_longer_side_fills_the_input():
    """§IV-B: a box of 100 by 100 becomes 140 by 140; one of 100 by 120 is 140 by 160, one of 120 by 100 168 by 148."""
    boxes = np.array([[10.0, 20, 110, 120], [0, 0, 100, 120], [0, 0, 120, 100]])
    found = rnn_training.squares(boxes)
    sides = found[:, 2:] - found[:, :2]
    np.testing.assert_allclose(sides, np.repeat(np.array([[140.0], [160], [168]]) / 1.4, 2, 1))
    np.testing.assert_allclose(found[:, :2] + found[:, 2:], boxes[:, :2] + boxes[:, 2:])  # the same centres


@pytest.mark.parametrize("box", [[0, 0, np.nan, 5], [5, 0, 0, 5], [0, 3, 4, 3]])
def test_boxes_without_area_are_refused(box):
    with pytest.raises(ReplicateError, match="0 more like it, expected finite x_min < x_max"):
        rnn_training.squares(np.array([[0, 0, 9, 9], box], float))


def test_too_few_faces_to_hold_one_out():
    with pytest.raises(ReplicateError, match="training faces: got 4, expected five or more"):
        rnn_training.held_out(4, 100)
    assert rnn_training.held_out(5, 100).sum() == 1


def test_what_cannot_be_predicted_is_said():
    network = RNN(SMALL, torch.zeros(1, 5, 2), torch.zeros(5, 2))
    faces = toy_faces(1)
    image, box = faces.images, faces.boxes
    with pytest.raises(ReplicateError, match="faces: got none"):
        rnn_training.predict_boxes(network, [], np.empty((0, 4)), {"a": LAST})
    with pytest.raises(ReplicateError, match="start: got 'anywhere'"):
        rnn_training.predict_boxes(network, image, box, {"a": "anywhere"})
    with pytest.raises(ReplicateError, match="start 'a': got no candidates"):
        rnn_training.predict_boxes(network, image, box, {"a": torch.empty(0, 5, 2)})


def test_the_corners_of_a_padded_box_are_those_of_the_input():
    faces = toy_faces(2)
    boxes = np.array([[20.0, 30, 80, 90], [10, 10, 50, 70]])
    canvases = rnn_training.framed(faces.images, boxes, SMALL)
    crops = torch.tensor(
        [[[20 - 12.0, 30 - 12], [80 + 12, 90 + 12]], [[30 - 42.0, 40 - 38], [30 + 42, 40 + 38]]]
    )
    found = apply_transform(canvases.from_image, crops)
    middle = (SMALL.size - 1) / 2
    expected = torch.tensor([middle - SMALL.size / 2, middle + SMALL.size / 2])
    torch.testing.assert_close(found[0], expected[:, None].expand(2, 2))
    # the second crop, 84 by 76? no: 40 + 0.4 * 40 wide and 60 + 0.4 * 40 high, so its height fills the input
    high = apply_transform(canvases.from_image, torch.tensor([[[30.0, 40 - 38]], [[30.0, 40 - 38]]]))[1, 0, 1]
    torch.testing.assert_close(high, expected[0])


def test_the_shapes_of_the_enlarged_set_are_those_of_its_images():
    samples = rnn_training.enlarged(toy_faces(5, box_noise=2.0), SMALL, seed=3)
    assert len(samples) == 52 * 5
    positions = torch.arange(0, len(samples), 7)
    torch.testing.assert_close(samples.shapes(positions), samples.take(positions)[1])


def test_faces_with_unknown_points_are_refused():
    faces = toy_faces(5)
    faces.points[1, 3] = np.nan
    with pytest.raises(ReplicateError, match="1 points are not annotated"):
        rnn_training.enlarged(faces, SMALL, seed=0)


# Candidates


def test_candidates_are_the_centres_of_groups_of_shapes():
    generator = torch.Generator().manual_seed(0)
    centres = 50 * torch.rand(4, 5, 2, generator=generator)
    shapes = (centres[:, None] + 0.01 * torch.randn(4, 30, 5, 2, generator=generator)).flatten(0, 1)
    found = rnn_training.candidates(shapes, 4, seed=1)
    nearest = (found[:, None] - centres).flatten(2).norm(dim=-1).argmin(1)
    assert sorted(nearest.tolist()) == [0, 1, 2, 3]
    torch.testing.assert_close(found, centres[nearest], atol=0.02, rtol=0)


def test_candidates_without_end_are_the_shapes_themselves():
    shapes = torch.rand(6, 5, 2, generator=torch.Generator().manual_seed(0))
    found = rnn_training.candidates(shapes, 6, seed=0)
    assert torch.cdist(shapes.flatten(1), found.flatten(1)).min(1).values.max() < 1e-5
    with pytest.raises(ReplicateError, match="got 0 of 6 training shapes"):
        rnn_training.candidates(torch.rand(6, 5, 2), 0, seed=0)
    with pytest.raises(ReplicateError, match="got 7 of 6 training shapes"):
        rnn_training.candidates(shapes, 7, seed=0)


def test_other_numbers_of_candidates_are_kept(monkeypatch):
    found = rnn_training.obtain_candidates(SMALL, Source(), "smoke", 0, 5)
    assert found.shape == (5, 68, 2) and found.isfinite().all()
    monkeypatch.setattr(Source, "load", lambda source: pytest.fail("loaded again"))
    torch.testing.assert_close(rnn_training.obtain_candidates(SMALL, Source(), "smoke", 0, 5), found)


# Keys and steps


def test_every_field_that_decides_the_weights_names_them():
    assert set(CHANGES) == {field.name for field in fields(RNNConfig)} - {"sanity_gate"}
    names = {tuple(hashes(replace(SMALL, **{field: value}))) for field, value in CHANGES.items()}
    names |= {tuple(hashes(SMALL)), tuple(hashes(SMALL, seed=1)), tuple(hashes(SMALL, fingerprint="other"))}
    assert len(names) == len(CHANGES) + 3
    assert hashes(replace(SMALL, sanity_gate=True)) == hashes(SMALL)


def test_networks_that_differ_in_the_regression_share_their_features():
    assert [step.learns for step in rnn_training.steps(SMALL)] == ["features", "everything"]
    apart = replace(SMALL, training="two stages")
    assert [step.learns for step in rnn_training.steps(apart)] == ["features", "regression"]
    others = {
        "recurrent": False,
        "pooled": ("conv5",),
        "gates": "full",
        "rank": 3,
        "steps": 1,
        "box": 2.0,
        "weight": 1.0,
        "samples": 20,
    }
    for config in (apart, *(replace(SMALL, **{name: value}) for name, value in others.items())):
        assert hashes(config)[0] == hashes(SMALL)[0] and hashes(config)[1] != hashes(SMALL)[1]
    assert hashes(replace(SMALL, width=1 / 32))[0] != hashes(SMALL)[0]


# Training


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPLICATE_CACHE", str(tmp_path_factory.mktemp("rnn")))
        yield rnn_training.obtain(SMALL, Source(), "smoke", 0, device="cpu")


def test_a_training_validates_on_faces_that_it_does_not_see(trained):
    network, [first, model] = trained
    assert first.report.steps == 3 and model.report.steps == 6
    assert [step for step, _ in model.report.history] == [3, 6]
    assert rnn_training.held_out(16, 3).sum() == 3 and not network.training


def test_features_are_those_of_the_first_training(trained):
    network = rnn_training.obtain_features(SMALL, Source(), "smoke", 0, device="cpu")
    kept = {
        name: value
        for name, value in network.state_dict().items()
        if name.startswith(("features.", "conv8."))
    }
    assert all(torch.equal(value, trained[1][0].tensors[name]) for name, value in kept.items())


def test_the_same_seed_trains_the_same_network(trained):
    for seed, same in ((0, True), (1, False)):
        models = rnn_training.obtain(SMALL, Source(), "smoke", seed, device="cpu")[1]
        assert ([one.sha256 for one in models] == [one.sha256 for one in trained[1]]) == same


def test_a_killed_training_goes_on_where_it_was(trained, monkeypatch):
    class KilledError(Exception):
        pass

    save, calls = training._save, []

    def save_and_die(*args):
        save(*args)
        calls.append(1)
        if len(calls) == 2:
            raise KilledError

    schedule = RNNConfig.schedule
    monkeypatch.setattr(training, "_save", save_and_die)
    monkeypatch.setattr(RNNConfig, "schedule", lambda one: replace(schedule(one), checkpoint_seconds=0.0))
    with pytest.raises(KilledError):
        rnn_training.obtain(SMALL, Source(), "smoke", 0, device="cpu")
    models = rnn_training.obtain(SMALL, Source(), "smoke", 0, device="cpu")[1]
    assert [one.sha256 for one in models] == [one.sha256 for one in trained[1]]


def test_the_second_stage_leaves_the_features_as_they_are():
    config = replace(SMALL, training="two stages")
    _, [first, second] = rnn_training.obtain(config, Source(), "smoke", 0, device="cpu")
    for name, value in first.tensors.items():
        if name.startswith(("features.", "conv8.", "candidates", "mean")):
            torch.testing.assert_close(second.tensors[name], value)
    assert any(
        not torch.equal(second.tensors[name], torch.zeros_like(second.tensors[name]))
        for name in second.tensors
        if "lstm" in name
    )


# Prediction


def test_starts_are_what_they_are_called(trained):
    network, faces = trained[0], toy_faces(5, box_noise=2.0)
    canvases = rnn_training.framed(faces.images, faces.boxes, SMALL)
    one = torch.rand(1, 68, 2) * SMALL.size
    found = rnn_training.predict(network, canvases, {"a": LAST, "b": MEAN, "c": PEAKS, "d": one})
    assert {name: len(steps) for name, steps in found.items()} == {"a": 3, "b": 3, "c": 1, "d": 3}
    torch.testing.assert_close(found["b"][0], network.mean.expand(5, -1, -1))
    torch.testing.assert_close(found["d"][0], one.expand(5, -1, -1))
    distances = (found["c"][0][:, None] - network.candidates).flatten(2).norm(dim=-1)
    torch.testing.assert_close(found["a"][0], network.candidates[distances.argmin(1)])


def test_predictions_are_in_pixels_of_the_images(trained):
    network, faces = trained[0], toy_faces(4)
    found = rnn_training.predict_boxes(network, faces.images, faces.boxes, {"mean": MEAN})["mean"]
    assert found.shape == (3, 4, 68, 2)
    canvases = rnn_training.framed(faces.images, faces.boxes, SMALL)
    back = apply_transform(canvases.from_image, torch.as_tensor(found[0]))
    torch.testing.assert_close(back, network.mean.expand(4, -1, -1), atol=1e-3, rtol=0)


def test_profiles_have_the_papers_numbers():
    full = CONFIGS["gpu"]
    assert (full.backbone, full.width, full.size, full.candidates, full.steps, full.box) == (
        "VGG-19",
        1.0,
        256,
        50,
        8,
        6.0,
    )
    assert [config.size for config in CONFIGS.values()] == [64, 128, 256]
