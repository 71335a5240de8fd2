"""Training of the recogniser: who validates, how batches are drawn, what names a model, and that nobody who is compared is learnt."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from five_dots import SHAPE, five_dots

from replicate.faces.people import People
from replicate.faces.verification import from_folds
from replicate.methods import recognition, recognition_training
from replicate.methods.recognition import RecogniserConfig
from replicate.methods.recognition_training import ALIGNERS, BOX, CASCADE, TCNN, VANILLA, Samples
from replicate.store import StoredModel
from replicate.training import FitReport

torch.set_num_threads(1)
CPU = torch.device("cpu")
CONFIG = RecogniserConfig(
    width=0.125, features=32, dropout=0.1, batch=16, samples=960, step_size=4e-3, validate_every=20, sanity_gate=False
)  # fmt: skip
TEMPLATE = recognition.template(torch.as_tensor(SHAPE / 40).float())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path))


def coloured_people(people=4, pictures=6):
    """Faces of five dots before a background of a colour that each person has for themself, and who they are."""
    faces = five_dots(people * pictures, jitter=0.5)
    identity = np.arange(people).repeat(pictures)
    colours = np.array(
        [
            [90, 0, 0],
            [0, 90, 0],
            [0, 0, 90],
            [80, 80, 0],
            [0, 80, 80],
            [80, 0, 80],
            [20, 20, 20],
            [120, 120, 120],
        ]
    )
    images = np.clip(np.stack(faces.images) // 2 + colours[identity][:, None, None], 0, 255).astype(np.uint8)
    return replace(faces, images=images, identity=identity)


def aligned(faces):
    rng = np.random.default_rng(0)
    noisy = {
        name: faces.points + rng.normal(0, 1, faces.points.shape).astype(np.float32) for name in ALIGNERS[1:]
    }
    return recognition.align(faces.images, faces.boxes, {BOX: None} | noisy, TEMPLATE)


def test_the_last_picture_of_everybody_with_several_validates():
    identity = np.array([5, 5, 2, 5, 9, 2])
    assert recognition_training.held_out(identity).tolist() == [False, False, False, True, False, True]
    assert recognition_training.held_out(np.arange(4)).sum() == 0


class TestSamples:
    def samples(self, seed=0, **changes):
        faces = coloured_people()
        learning = torch.arange(0, len(faces), 2)
        config = replace(CONFIG, **changes)
        return Samples(aligned(faces), torch.as_tensor(faces.identity), learning, config, seed)

    def test_a_step_gives_the_same_batch_again_and_another_step_or_seed_another(self):
        one = self.samples()
        crops, labels = one(3)
        assert crops.shape == (16, 3, 64, 64) and crops.min() >= 0 and crops.max() <= 1
        torch.testing.assert_close(one(3), (crops, labels), rtol=0, atol=0)
        assert not torch.equal(one(4)[0], crops) and not torch.equal(self.samples(seed=1)(3)[0], crops)

    def test_labels_are_those_of_the_faces_and_only_learning_faces_are_drawn(self):
        samples = self.samples(mirrored=False)
        samples.moves = samples.moves[:1]  # box alone, so that a crop tells its face
        plain = samples.faces.crops(torch.arange(24), BOX)
        for step in range(3):
            crops, labels = samples(step)
            which = (crops[:, None] - plain[None]).abs().flatten(2).mean(-1).argmin(1)
            assert (which % 2 == 0).all() and torch.equal(samples.labels[which], labels)

    def test_every_aligner_lays_a_quarter_of_the_faces(self):
        samples = self.samples(mirrored=False, batch=400)
        crops, _ = samples(0)
        laid = torch.stack([samples.faces.crops(torch.arange(24), name) for name in ALIGNERS])
        distance = (crops[:, None] - laid.flatten(0, 1)[None]).abs().flatten(2).mean(-1)
        aligner = distance.argmin(1) // 24
        shares = aligner.bincount(minlength=4) / 400
        assert (shares - 0.25).abs().max() < 0.09  # four standard deviations of a fair draw

    def test_half_of_the_faces_are_mirrored(self):
        plain, mirrored = self.samples(mirrored=False, batch=300), self.samples(batch=300)
        same = (plain(0)[0] - mirrored(0)[0]).abs().flatten(1).amax(1) == 0
        flipped = (plain(0)[0].flip(-1) - mirrored(0)[0]).abs().flatten(1).amax(1) == 0
        assert (same ^ flipped).all() and 0.38 < flipped.float().mean() < 0.62


def test_it_learns_people_who_can_be_told_apart():
    faces = coloured_people()
    network = recognition_training._new(CONFIG, faces.identity, 0)
    _, report, _ = recognition_training._fit(
        network, CONFIG, aligned(faces), faces.identity, 0, Path("unused"), CPU, "people of colours"
    )
    assert report.best_error == 0 and report.samples <= 960


class TestNames:
    def test_what_decides_the_weights_decides_the_name(self):
        config = recognition.CONFIGS["smoke"]
        name = recognition_training.key(config, "smoke", 0).hash
        changes = {
            "width": 0.25, "features": 48, "dropout": 0.1, "batch": 8, "step_size": 1e-4, "samples": 99, "mirrored": False, "validate_every": 7,
        }  # fmt: skip
        assert set(changes) | {"sanity_gate"} == set(vars(config))
        for field, value in changes.items():
            assert recognition_training.key(replace(config, **{field: value}), "smoke", 0).hash != name, field
        assert recognition_training.key(replace(config, sanity_gate=True), "smoke", 0).hash == name
        assert recognition_training.key(config, "smoke", 1).hash != name

    def test_other_landmark_models_are_other_recognisers(self, monkeypatch):
        config = recognition.CONFIGS["smoke"]
        name = recognition_training.key(config, "smoke", 0).hash
        monkeypatch.setattr(recognition_training, "aligner_hashes", lambda *_: ["x"])
        assert recognition_training.key(config, "smoke", 0).hash != name

    def test_aligners_are_the_four_that_are_compared(self):
        assert ALIGNERS == (BOX, CASCADE, VANILLA, TCNN)
        assert (
            len(set(recognition_training.aligner_hashes("smoke", "synthetic", 0))) == 4
        )  # mean shape, SDM, two of TCNN


class TestSplits:
    """Recognisers of splits, on people of colours."""

    @pytest.fixture
    def found(self, monkeypatch):
        faces = coloured_people(people=8)
        fold = faces.identity % 2
        pairs = np.array([[0, 1], [0, 12], [6, 7], [6, 18]])
        splits = from_folds(
            fold, pairs, faces.identity[pairs[:, 0]] == faces.identity[pairs[:, 1]], fold[pairs[:, 0]]
        )
        parent = recognition_training._new(CONFIG, np.arange(5), 7)
        model = StoredModel(
            recognition_training.key(CONFIG, "smoke", 0),
            parent.state_dict(),
            FitReport(),
            "here",
            "0" * 64,
            "",
        )
        monkeypatch.setattr(recognition_training, "obtain", lambda *_, **__: (parent, model))
        monkeypatch.setattr(recognition_training, "aligner_hashes", lambda *_: ["x"])
        seen = []
        fit = recognition_training._fit

        def recorded(network, config, some, identity, *rest):
            start = {name: value.clone() for name, value in network.state_dict().items()}
            seen.append((start, config, len(some), identity))
            return fit(network, config, some, identity, *rest)

        monkeypatch.setattr(recognition_training, "_fit", recorded)
        people = People(faces, splits, "dots")
        laid = aligned(faces)
        networks = recognition_training.obtain_of_splits(CONFIG, people, lambda: laid, "smoke", 0)
        return faces, splits, parent, seen, networks

    def test_each_learns_the_people_of_the_other_folds_alone(self, found):
        faces, splits, _, seen, networks = found
        assert len(networks) == len(splits) == len(seen) == 2
        for split, (_, config, count, identity), (network, _) in zip(splits, seen, networks, strict=True):
            compared = faces.identity[np.concatenate(split.templates)]
            assert not {*identity} & {*compared} and len({*identity}) == 4
            assert count == len(identity) == len(split.train) == 24 and len(network.fc8.bias) == 4
            assert (config.samples, config.step_size) == (288, 0.5 * CONFIG.step_size)

    def test_it_begins_with_what_was_learnt_of_generated_people(self, found):
        _, _, parent, seen, networks = found
        for start, *_ in seen:
            for name, value in parent.state_dict().items():
                if not name.startswith("fc8"):
                    torch.testing.assert_close(start[name], value, rtol=0, atol=0)
        assert not torch.equal(networks[0][0].fc7.weight, networks[1][0].fc7.weight)

    def test_stored_ones_are_found_again(self, found, monkeypatch):
        faces, splits, _, seen, networks = found

        def refuse():
            raise AssertionError("faces were asked for")

        again = recognition_training.obtain_of_splits(
            CONFIG, People(faces, splits, "dots"), refuse, "smoke", 0
        )
        assert len(seen) == 2
        assert [model.sha256 for _, model in again] == [model.sha256 for _, model in networks]
