"""Weights for LDDR: steps and keys, the classifier and what is left of it, resuming, ImageNet's file, obtaining a cascade."""

import struct
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from toy_faces import toy_faces

from replicate import training
from replicate.errors import AbsentError, ReplicateError
from replicate.faces.patches import FacePatches
from replicate.fractals import Fractals
from replicate.methods import lddr, lddr_training
from replicate.methods.lddr import ALEXNET, CONFIGS, DeepFeatures, Descriptor, DescriptorConfig, LDDRConfig
from replicate.methods.lddr_training import Classifier

torch.set_num_threads(1)
NETWORK = DescriptorConfig(
    width=1 / 48, kinds=2, objects=8, patches=8, batch=4, validation=8, validate_every=1
)
SMALL = LDDRConfig(network=NETWORK, stages=(4,))
CHANGES = {  # of every field, another value
    "features": "SIFT", "weights": "objects", "network": replace(NETWORK, width=1 / 24), "stages": (3,), "augmentation": "none",
    "rotation": 10.0, "starts": 2, "penalty": 1.0, "solver": "liblinear", "tolerance": 1e-2, "crop": 300,
}  # fmt: skip
NETWORK_CHANGES = {
    "width": 1 / 24, "kinds": 3, "objects": 12, "patches": 12, "batch": 2, "step_size": 1e-4, "tuning": 0.1, "validation": 4,
    "validate_every": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Toy faces."""

    fingerprint: str = "toy"
    protocol: str = "lfpw"
    split: str = "train"
    faces: str = "real"

    def load(self):
        return toy_faces(6, box_noise=2.0, seed=int(self.split == "wide"))


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REPLICATE_DATA", str(tmp_path / "data"))
    return tmp_path


def hashes(config, seed=0, fingerprint="toy"):
    return [key.hash for key in lddr_training.keys(config, Source(fingerprint), "smoke", seed)]


def methods(config):
    return [key.method for key in lddr_training.keys(config, Source(), "smoke", 0)]


def classifier(classes=3, width=1 / 16):
    torch.manual_seed(0)
    return Classifier(Descriptor(width), classes, width)


def scrambled(network):
    """Every running mean, variance, scale and offset as different from its initial value as after a training."""
    for norm in network.norms:
        for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
            values.copy_(torch.rand(values.shape) + 0.5)
    return network


# Steps and keys


def test_what_a_cascade_is_trained_from():
    def planned(weights):
        steps = lddr_training.steps(replace(SMALL, weights=weights), Source())
        return [(step.name, step.classes, step.samples, step.step_size) for step in steps]

    objects, faces = ("objects", 2, 8, 1e-3), ("faces", 2, 8, 1e-3)
    tuned = ("faces", 2, 8, pytest.approx(3e-4))
    assert planned("tuned") == [objects, tuned]
    assert planned("objects") == [objects] and planned("faces") == [faces]
    assert planned("random") == planned("imagenet") == [] and planned("imagenet tuned") == [tuned]
    assert lddr_training.steps(replace(SMALL, features="HOG"), Source()) == []


def test_descriptors_learn_from_generated_faces_of_every_condition():
    objects, faces = lddr_training.steps(SMALL, Source())
    assert objects.source is None
    assert faces.source == Source(protocol="300w", split="wide", faces="synthetic")


def test_every_field_names_the_cascade_unless_nothing_depends_on_it():
    assert set(CHANGES) == {field.name for field in fields(LDDRConfig)}
    changed = {name: hashes(replace(SMALL, **{name: value}))[-1] for name, value in CHANGES.items()}
    assert [name for name, found in changed.items() if found == hashes(SMALL)[-1]] == ["tolerance"]
    assert len(set(changed.values())) == len(CHANGES)
    slow = replace(SMALL, solver="liblinear")
    assert hashes(slow)[-1] != hashes(replace(slow, tolerance=1e-2))[-1]


def test_every_field_of_the_network_names_the_trainings_that_it_decides():
    assert set(NETWORK_CHANGES) == {field.name for field in fields(DescriptorConfig)}
    plain = hashes(SMALL)
    changed = {
        name: hashes(replace(SMALL, network=replace(NETWORK, **{name: value})))
        for name, value in NETWORK_CHANGES.items()
    }
    assert len({found[-1] for found in changed.values()} | {plain[-1]}) == len(NETWORK_CHANGES) + 1
    assert [name for name, found in changed.items() if found[0] == plain[0]] == ["patches", "tuning"]


def test_cascades_share_the_descriptor():
    """What decides the cascade alone leaves its descriptor as it is, and so does everything that other features do not have."""
    plain = hashes(SMALL)
    assert len(plain) == 3 and hashes(replace(SMALL, penalty=1.0))[:2] == plain[:2]
    assert hashes(SMALL, fingerprint="others")[2] != plain[2] and hashes(SMALL, seed=1)[0] != plain[0]
    sift = replace(SMALL, features="SIFT")
    assert len(hashes(sift)) == 1
    assert hashes(sift) == hashes(replace(sift, weights="random", network=DescriptorConfig()))
    assert methods(SMALL) == ["lddr-objects", "lddr-faces", "lddr"]
    assert hashes(replace(SMALL, weights="objects"))[0] == plain[0]
    assert methods(replace(SMALL, weights="random")) == ["lddr"]


# The classifier


def test_the_head_is_alexnets_and_small():
    network = classifier(classes=5, width=1 / 16)
    linear = [layer for layer in network.head if isinstance(layer, nn.Linear)]
    assert [(one.in_features, one.out_features) for one in linear] == [(9216, 256), (256, 256), (256, 5)]
    assert network(torch.randn(2, 3, 224, 224)).shape == (2, 5)
    assert network(torch.randn(2, 3, 224, 224)).dtype == torch.float32


def test_what_is_left_without_batch_normalisation_computes_the_same():
    network = scrambled(classifier()).eval()
    pictures = 80 * torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        expected = network.descriptor(pictures, ALEXNET, network.norms)
        plain = network.plain()
        found = plain(pictures, ALEXNET)
    assert (expected > 0).any()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert set(plain.state_dict()) == set(Descriptor(1 / 16).state_dict())
    assert not torch.equal(plain.conv1.weight, network.descriptor.conv1.weight)


def test_gradients_in_bfloat16_are_those_in_single_precision(monkeypatch):
    """Of all weights but the convolutions' biases, which batch normalisation takes out again."""
    network = classifier()
    for layer in network.head:
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    pictures = torch.nn.functional.interpolate(120 * torch.randn(4, 3, 14, 14), size=224)
    labels = torch.arange(4) % 3
    found = []
    for precise in (False, True):
        with monkeypatch.context() as patch:
            if precise:
                patch.setattr(torch, "autocast", lambda *_: torch.enable_grad())
            network.zero_grad()
            nn.functional.cross_entropy(network(pictures), labels).backward()
        found.append([layer.weight.grad.flatten().clone() for layer in network.descriptor.children()])
    for rough, exact in zip(*found, strict=True):
        assert torch.cosine_similarity(rough, exact, 0) > 0.8
        assert rough.norm() / exact.norm() == pytest.approx(1, abs=0.2)


def test_the_error_rate_counts_pictures():
    class Sees(nn.Module):
        def forward(self, x):
            return x

    scores = torch.eye(3)
    batches = [(scores, torch.tensor([0, 1, 1])), (scores[:2], torch.tensor([0, 2]))]
    assert lddr_training.error_rate(Sees(), batches) == pytest.approx(40.0)


# Pictures


def test_pictures_to_validate_with_are_others():
    objects, faces = lddr_training.steps(SMALL, Source())
    learning, held_out = lddr_training._pictures(objects, seed=2)
    assert isinstance(learning, Fractals) and (learning.seed, held_out.seed) == (4, 5)
    assert (
        lddr_training._pictures(objects, seed=3)[0].seed == 6
    )  # no seed learns from what another validates with
    learning, held_out = lddr_training._pictures(faces, seed=2)
    assert isinstance(learning, FacePatches)
    assert (len(learning.images), len(held_out.images)) == (5, 1)
    assert not any(np.array_equal(image, held_out.images[0]) for image in learning.images)


def test_a_batch_is_centred_and_labelled():
    class Grey:
        def take(self, indices):
            return np.full((len(indices), 4, 4, 3), [123, 118, 104], np.uint8), np.array(indices) % 2 == 0

    x, labels = lddr_training._batch(Grey(), range(3, 5), torch.device("cpu"))
    assert x.shape == (2, 3, 4, 4) and labels.tolist() == [0, 1] and labels.dtype == torch.int64
    assert x[1, :, 2, 2].tolist() == [0.0, 1.0, 0.0]


# Training


def train_step(checkpoint, step, before=()):
    return lddr_training._train_step(step, 0, before, 0, checkpoint, torch.device("cpu"))


def test_a_killed_training_resumes_to_the_same_weights(tmp_path, monkeypatch):
    """Validated once, at the end, so that what comes out is the last state and not one from before the kill."""
    network = replace(NETWORK, objects=16, validation=4, validate_every=100)
    step = lddr_training.steps(replace(SMALL, network=network), Source())[0]
    schedule = replace(step.schedule, checkpoint_seconds=0.0)
    monkeypatch.setattr(lddr_training.Step, "schedule", schedule)

    def interrupted(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return descend(*arguments)

    whole, report, _ = train_step(tmp_path / "whole", step)
    assert (report.steps, report.samples, len(report.history)) == (4, 16, 1)
    calls, descend = iter(range(2)), training._descend
    with monkeypatch.context() as patch:
        patch.setattr(training, "_descend", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_step(tmp_path / "killed", step)
    assert (tmp_path / "killed").exists()
    resumed = train_step(tmp_path / "killed", step)[0]
    assert [name for name, value in whole.items() if not torch.equal(resumed[name], value)] == []


def test_a_training_starts_from_the_weights_of_the_one_before(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        training, "fit", lambda network, *_, **__: seen.append(network) or training.FitReport()
    )
    objects, faces = lddr_training.steps(SMALL, Source())
    tensors = train_step(tmp_path / "a", objects)[0]

    @dataclass
    class Before:
        tensors: dict

    train_step(tmp_path / "b", faces, [Before(tensors)])
    first, second = (network.descriptor.state_dict() for network in seen)
    assert all(torch.equal(second[name], value) for name, value in tensors.items())
    assert not torch.equal(first["conv1.weight"], second["conv1.weight"])  # the norms are folded in between


def test_a_cascade_is_obtained_and_found_again(monkeypatch):
    model, models = lddr_training.obtain(SMALL, Source(), "smoke", 0, device="cpu")
    assert [one.key.method for one in models] == ["lddr-objects", "lddr-faces", "lddr"]
    assert [one.report.stopped for one in models] == ["budget spent", "budget spent", "solved"]
    assert all(0 <= error <= 100 for one in models[:2] for _, error in one.report.history)
    assert models[2].parent_sha256 == models[1].sha256 and models[1].parent_sha256 == models[0].sha256
    folded = models[1].tensors["conv1.weight"].bfloat16()
    assert torch.equal(model.features.network.conv1.weight, folded)
    assert model.weights_[0].shape == (68 * 256, 136)
    faces = Source().load()
    fitted = lddr.LDDR(SMALL, model.features).fit(faces, 0)
    assert torch.equal(fitted.weights_[0].bfloat16().float(), model.weights_[0])  # the store rounds
    monkeypatch.setattr(lddr_training, "_train_step", None)
    again = lddr_training.obtain(SMALL, Source(), "smoke", 0, device="cpu")[0]
    paths = [one.predict(faces.images, faces.boxes) for one in (model, again)]
    assert torch.equal(*paths) and paths[0].isfinite().all()


def test_features_are_those_of_the_cascade_without_fitting_one():
    cascade, models = lddr_training.obtain(SMALL, Source(), "smoke", 0, device="cpu")
    features, before = lddr_training.obtain_features(SMALL, Source(), "smoke", 0, device="cpu")
    assert [model.sha256 for model in before] == [model.sha256 for model in models[:-1]]
    for name, value in features.network.state_dict().items():
        assert torch.equal(value, cascade.features.network.state_dict()[name])


def test_other_features_and_random_weights_need_no_training():
    found = {}
    for changes in ({"features": "SIFT"}, {"features": "HOG"}, {"weights": "random"}):
        model, models = lddr_training.obtain(replace(SMALL, **changes), Source(), "smoke", 0, device="cpu")
        assert len(models) == 1
        found[tuple(changes.values())] = model
    assert found["SIFT",].features is lddr.sift_features and found["SIFT",].weights_[0].shape[0] == 68 * 128
    random = found["random",].features
    assert isinstance(random, DeepFeatures)
    torch.manual_seed(0)
    assert torch.equal(random.network.conv1.weight, Descriptor(1 / 48).conv1.weight.bfloat16())


# ImageNet


def varint(value):
    return bytes([value]) if value < 128 else bytes([value % 128 | 128]) + varint(value // 128)


def message(number, content):
    """A field of protobuf with a length: text, bytes or an embedded message."""
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(values):
    """Caffe's BlobProto: shape in field 7, packed dimensions; data in field 5, packed floats."""
    shape = message(1, b"".join(map(varint, values.shape)))
    return message(7, shape) + message(5, values.contiguous().numpy().astype("<f4").tobytes())


def old_blob(values):
    """BlobProto as it was in 2012: four dimensions in fields 1 to 4."""
    sides = (1,) * (4 - values.ndim) + tuple(values.shape)
    return b"".join(varint(n << 3) + varint(side) for n, side in enumerate(sides, start=1)) + message(
        5, values.contiguous().numpy().astype("<f4").tobytes()
    )


def caffemodel(weights, old):
    """Caffe's NetParameter with the five convolutions, in colours from blue to red."""
    layers = [message(1, "CaffeNet")]
    for number in range(1, 6):
        name = f"conv{number}"
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        weight = weight.flip(1) if number == 1 else weight
        if old:  # V1LayerParameter: name 4, type 5 with 4 for a convolution, blobs 6
            body = message(4, name) + varint(5 << 3) + varint(4)
            layers.append(message(2, body + message(6, old_blob(weight)) + message(6, old_blob(bias))))
        else:  # LayerParameter: name 1, type 2, blobs 7
            body = message(1, name) + message(2, "Convolution")
            layers.append(message(100, body + message(7, blob(weight)) + message(7, blob(bias))))
    return b"".join(layers)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(1)
    network = Descriptor()
    for layer in network.children():
        nn.init.normal_(layer.bias)
    return network.state_dict()


def put(places, name, content):
    folder = places / "data" / "imagenet"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        save_file(content, folder / name)


@pytest.mark.parametrize("kind", ["caffemodel", "caffemodel of 2012", "safetensors"])
def test_a_users_file_of_imagenets_weights_is_read(kind, places, weights):
    old = kind.endswith("2012")
    content = weights if kind == "safetensors" else caffemodel(weights, old)
    put(places, f"net.{kind.split()[0]}", content)
    found = lddr_training.imagenet_tensors(1.0)
    assert list(found) == list(weights)
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_the_file_names_the_model_and_is_its_first_step(places, weights):
    config = LDDRConfig(network=replace(NETWORK, width=1.0), weights="imagenet tuned")
    put(places, "net.safetensors", weights)
    first = hashes(config)
    assert methods(config) == ["lddr-imagenet", "lddr-faces", "lddr"]
    assert methods(replace(config, weights="imagenet")) == ["lddr-imagenet", "lddr"]
    put(places, "net.safetensors", weights | {"conv1.bias": torch.ones(96)})
    assert not set(first) & set(hashes(config))


def test_what_is_wrong_with_a_file_is_said(places, weights):
    with pytest.raises(AbsentError, match="no .caffemodel or .safetensors in .*imagenet; put Caffe's"):
        hashes(replace(SMALL, weights="imagenet"))
    put(places, "net.safetensors", weights)
    with pytest.raises(
        ReplicateError, match=r"width: got 0.25, but ImageNet's weights are of the full width"
    ):
        lddr_training.imagenet_tensors(0.25)
    put(places, "net.safetensors", weights | {"conv2.weight": torch.zeros(256, 96, 5, 5)})
    with pytest.raises(
        ReplicateError, match=r"conv2.weight has \(256, 96, 5, 5\), expected \(256, 48, 5, 5\)"
    ):
        lddr_training.imagenet_tensors(1.0)
    put(places, "net.safetensors", {"conv1.bias": torch.zeros(96)})
    with pytest.raises(ReplicateError, match="conv1.weight has nothing"):
        lddr_training.imagenet_tensors(1.0)
    for name in ("net.safetensors", "net.caffemodel"):
        put(places, name, struct.pack("<q", 10**9) + b"no weights")
        with pytest.raises(ReplicateError, match=r"(?s)cannot be read .*; restore it from its source"):
            lddr_training.imagenet_tensors(1.0)


def test_the_profiles_differ_in_size_alone():
    assert CONFIGS["gpu"].network == DescriptorConfig()
    assert {config.weights for config in CONFIGS.values()} == {"tuned"}
