"""Training of ECT: targets of hidden points, steps and keys, resuming, fine-tuning without the fusion part, widening, what is stored."""

from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate import networks, training
from replicate.errors import ReplicateError
from replicate.evidence import ambiguities
from replicate.faces.augment import Samples, cut_canvases
from replicate.faces.markups import convert
from replicate.faces.markups import markup as find_markup
from replicate.faces.protocols import PROTOCOLS
from replicate.methods import ect_training
from replicate.methods.ect import CONFIGS, FCN, ECTConfig, target_maps
from replicate.methods.ect_fitting import PDM, fits
from replicate.methods.ect_training import Step
from replicate.metrics import nme

torch.set_num_threads(1)
SMALL = replace(
    CONFIGS["smoke", "synthetic"], width=1 / 32, input_size=32, samples=40, batch=4, validate_every=5
)
CHANGES = {  # of every field, another value
    "network": "spatial fusion", "width": 1 / 16, "input_size": 64, "shape_extent": 150.0, "sigma": 5.0, "peak": 1.0,
    "a": 0.3, "b": 20.0, "confidence": "variance", "components": 7, "gamma": 1.0, "rho2": 9.0, "prior_rho2": 3.0, "patches": (20,),
    "turning": True, "kept": 0.9, "rotation": 10.0, "batch": 5, "step_size": 1e-4, "decay": False, "samples": 44,
    "validation_faces": 9, "validate_every": 6, "patience": 3, "finetuning": 0.2, "narrow": replace(SMALL, width=1 / 64), "pretraining": replace(SMALL, samples=48), "sanity_gate": True,
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Toy faces."""

    fingerprint: str = "toy"
    split: str = "train"
    faces: str = "real"

    def load(self):
        return toy_faces(box_noise=2.0, seed=int(self.split == "wide"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path))


def obtain(config, **options):
    return ect_training.obtain(config, Source(), "smoke", 0, **options)


def hashes(config, seed=0, fingerprint="toy"):
    return [key.hash for key in ect_training.keys(config, Source(fingerprint), "smoke", seed)]


def faces_of(protocol, markup, hidden):
    """Toy faces in another markup; `hidden` lists points that all of them hide."""
    faces = toy_faces(6)
    points = convert(faces.points, "ibug68", markup).astype(np.float32)
    visible = np.ones(points.shape[:2], bool)
    visible[:, hidden] = False
    return replace(faces, points=points, visible=visible, markup=markup, protocol=protocol)


# §IV Hidden points


@pytest.mark.parametrize(("protocol", "markup"), [("aflw-pifa", "aflw34"), ("cofw", "cofw29")])
def test_hidden_points_have_empty_targets_also_when_mirrored(protocol, markup):
    hidden = [0, 12]
    faces = faces_of(protocol, markup, hidden)
    seen = ect_training.faces_with_targets(faces)
    mean = torch.as_tensor(faces.points[0])
    samples = Samples(seen, mean, SMALL.frame, SMALL.perturbation, 32, 0, boxes=seen.boxes, colour=True)
    _, points = samples(0)
    mirror = torch.tensor(find_markup(markup).mirror)
    empty = (target_maps(points, SMALL) == 0).all(-1).all(-1)
    plain = torch.zeros(empty.shape[1], dtype=bool)
    plain[hidden] = True
    places = {tuple(row.tolist()) for row in empty}
    assert places == {tuple(plain.tolist()), tuple(plain[mirror].tolist())}
    assert faces.points[:, hidden].max() > 0  # the shape model still knows these places


def test_on_faces_without_marks_all_annotated_points_have_targets():
    """300-W says of no point that it is hidden, so what the generator knows is not used either."""
    faces = faces_of("300w", "ibug68", [3])
    faces.points[2, 5] = np.nan
    seen = ect_training.faces_with_targets(faces)
    assert np.argwhere(np.isnan(seen.points).any(-1)).tolist() == [[2, 5]]


def test_the_protocols_with_marks_are_those_of_the_paper():
    assert all("ect" in PROTOCOLS[protocol].papers for protocol in ect_training.FLAGGED)
    assert {PROTOCOLS[protocol].markup for protocol in ect_training.FLAGGED} == {"aflw34", "cofw29"}


def test_a_face_without_any_target_is_named():
    faces = faces_of("cofw", "cofw29", [])
    faces.visible[4] = False
    with pytest.raises(ReplicateError, match="^4: none of its points is annotated and visible"):
        ect_training.faces_with_targets(faces)


def test_faces_with_hidden_or_unknown_points_train(tmp_path, monkeypatch):
    """A face with a place that nobody annotated neither shapes the model nor validates, but its other points have targets."""
    faces = faces_of("cofw", "cofw29", [4])
    faces.points[1, 7] = np.nan
    config = replace(SMALL, validation_faces=5, samples=8)
    assert np.flatnonzero(~ect_training._held_out(faces, 5, seed=0)).tolist() == [1]
    monkeypatch.setattr(Source, "load", lambda _: faces)
    step = Step(config, Source())
    tensors, report, _ = ect_training._train_step(step, 0, None, False, 0, tmp_path / "c")
    known = torch.as_tensor(np.delete(faces.points, 1, axis=0))
    assert torch.equal(tensors["pdm.mean"], PDM.fit(known, config.frame, 3).mean)
    assert np.isfinite(report.best_error) and all(value.isfinite().all() for value in tensors.values())


# Steps and keys


def test_steps_end_with_the_wanted_network():
    config = replace(SMALL, network="truncated", narrow=replace(SMALL, width=1 / 64, samples=12))
    planned = [step.config for step in ect_training.steps(config, Source())]
    assert [(s.network, s.width, s.samples, s.step_size) for s in planned] == [
        ("dilated", 1 / 64, 12, SMALL.step_size),
        ("dilated", 1 / 32, 40, SMALL.step_size),
        ("truncated", 1 / 32, 4, pytest.approx(SMALL.step_size / 10)),
    ]
    fusion = ect_training.steps(replace(config, network="spatial fusion"), Source())
    assert [step.config.network for step in fusion] == ["spatial fusion"] * 2


def test_pretraining_comes_first_and_on_generated_faces():
    before = replace(SMALL, samples=48)
    config = replace(SMALL, network="truncated", narrow=replace(SMALL, samples=12, pretraining=before))
    planned = ect_training.steps(config, Source())
    assert [step.config.samples for step in planned] == [48, 12, 40, 4]
    generated = Source(split="wide", faces="synthetic")
    assert [step.source for step in planned] == [generated, *[Source()] * 3]
    assert ect_training.pretraining_faces(config, Source()) == generated
    assert ect_training.pretraining_faces(SMALL, Source()) is None


def test_a_pretrained_network_has_the_shape_model_of_its_own_faces():
    config = replace(SMALL, pretraining=replace(SMALL, samples=8), step_size=0.0)
    before, after = obtain(config)[2]
    assert torch.equal(before.tensors["conv8.weight"], after.tensors["conv8.weight"])
    own, others = (
        PDM.fit(torch.as_tensor(s.load().points), SMALL.frame, 2).mean
        for s in (Source(), Source(split="wide"))
    )
    assert torch.equal(after.tensors["pdm.mean"], own) and torch.equal(before.tensors["pdm.mean"], others)
    assert not torch.equal(own, others)


def test_every_field_names_the_model_unless_it_decides_the_fit_alone():
    """`finetuning` counts for the truncated network only, and there not for what comes before it."""
    assert set(CHANGES) == {field.name for field in fields(ECTConfig)}
    changed = {name: hashes(replace(SMALL, **{name: value})) for name, value in CHANGES.items()}
    same = {name for name, found in changed.items() if found == hashes(SMALL)}
    assert same == {*ect_training.FITTING, "finetuning"}
    assert len({found[-1] for found in changed.values()}) == len(CHANGES) - len(same) + 1
    truncated = replace(SMALL, network="truncated")
    plain, other = hashes(truncated), hashes(replace(truncated, finetuning=0.2))
    assert plain[0] == other[0] == hashes(SMALL)[0] and plain[1] != other[1]


def test_seed_faces_and_a_narrow_network_name_the_model():
    found = [hashes(SMALL), hashes(SMALL, seed=1), hashes(SMALL, fingerprint="others")]
    found += [hashes(replace(SMALL, narrow=replace(SMALL, samples=n))) for n in (8, 12)]
    assert len({one[-1] for one in found}) == 5


def test_a_narrow_network_must_see_the_same_faces():
    with pytest.raises(ReplicateError, match="narrow: got validation_faces 9, expected 8"):
        replace(SMALL, narrow=replace(SMALL, validation_faces=9))
    with pytest.raises(ReplicateError, match="pretraining: got sigma 5.0, expected 6.0"):
        replace(SMALL, pretraining=replace(SMALL, sigma=5.0))
    with pytest.raises(ReplicateError, match="narrow, pretraining: got both"):
        replace(SMALL, narrow=SMALL, pretraining=SMALL)


# Training


def test_what_is_obtained_is_what_was_trained():
    network, pdm, (model,) = obtain(SMALL)
    assert {name for name in model.tensors if not name.startswith("pdm.")} == set(network.state_dict())
    expected = PDM.fit(torch.as_tensor(Source().load().points), SMALL.frame, SMALL.components)
    assert torch.equal(pdm.mean, expected.mean) and torch.equal(pdm.components, expected.components)
    assert pdm.active == expected.active and not network.training
    few = obtain(replace(SMALL, components=1))
    assert few[1].active == 1 and few[2][0].sha256 == model.sha256  # the fit can change without a training
    assert model.report.samples == SMALL.samples and len(model.report.history) == 2


def test_the_recorded_error_is_that_of_the_peaks():
    network, pdm, (model,) = obtain(SMALL)
    faces = Source().load()
    faces = faces.subset(ect_training._held_out(faces, SMALL.validation_faces, seed=0))
    found = ect_training.predict_faces(network, pdm, faces, fits(pdm, SMALL, ["CRM", "ECT"]))
    errors = {
        label: nme(one.shapes[-1].numpy(), faces.points, normaliser="inter-pupil", markup="ibug68").mean()
        for label, one in found.items()
    }
    assert errors["CRM"] == pytest.approx(model.report.best_error) and errors["ECT"] < errors["CRM"]


def test_a_killed_training_resumes_to_the_same_weights(tmp_path, monkeypatch):
    """Validated once, at the end, so that what comes out is the last state and not one from before the kill."""
    config = replace(SMALL, validate_every=100)
    schedule = replace(config.schedule(), checkpoint_seconds=0.0)
    monkeypatch.setattr(ECTConfig, "schedule", lambda *_: schedule)

    def train(checkpoint):
        return ect_training._train_step(Step(config, Source()), 0, None, False, 0, checkpoint)[0]

    def interrupted(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return descend(*arguments)

    whole = train(tmp_path / "whole")
    calls, descend = iter(range(3)), training._descend
    with monkeypatch.context() as patch:
        patch.setattr(training, "_descend", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed")
    assert (tmp_path / "killed").exists()
    resumed = train(tmp_path / "killed")
    assert [name for name, value in whole.items() if not torch.equal(resumed[name], value)] == []


def test_the_gate_compares_with_the_mean_shape(tmp_path):
    with pytest.raises(ReplicateError, match="does not beat the mean shape's"):
        step = Step(replace(SMALL, sanity_gate=True, samples=4), Source())
        ect_training._train_step(step, 0, None, False, 0, tmp_path / "c")


# §IV-C Truncated network


def test_the_truncated_network_starts_from_the_full_ones_weights():
    """With a step size of zero it keeps them."""
    full = obtain(replace(SMALL, step_size=0.0))[2][0]
    before, after = obtain(replace(SMALL, network="truncated", step_size=0.0))[2]
    assert before.sha256 == full.sha256 and after.key.parent == before.key.hash
    assert after.parent_sha256 == before.sha256
    kept = {name for name in before.tensors if not name.startswith(("fusion.", "conv5_fusion."))}
    assert set(after.tensors) == kept and "pdm.components" in kept
    assert all(torch.equal(after.tensors[name], before.tensors[name]) for name in kept)
    trained = obtain(replace(SMALL, network="truncated", finetuning=1.0))[2]
    assert trained[1].report.samples == SMALL.samples
    assert not torch.equal(trained[1].tensors["conv8.weight"], trained[0].tensors["conv8.weight"])


def test_each_step_sees_other_samples(monkeypatch):
    streams = []
    monkeypatch.setattr(ect_training, "Samples", lambda *a, **k: streams.append(a[5]) or Samples(*a, **k))
    obtain(replace(SMALL, network="truncated", samples=8))
    assert len(set(streams)) == 2


# Widening


@pytest.mark.parametrize("name", ["dilated", "truncated", "spatial fusion"])
def test_a_widened_network_computes_what_the_narrow_one_does(name, monkeypatch):
    monkeypatch.setattr(networks, "WIDENING_NOISE", 0.0)
    torch.manual_seed(0)
    narrow = FCN(replace(SMALL, network=name), 5)
    wide = FCN(replace(SMALL, network=name, width=3 / 32), 5)
    crops = torch.rand(2, 3, 32, 32).double()
    wide.load_state_dict(ect_training.grown(narrow.state_dict(), wide, seed=0))
    with torch.inference_mode():  # in double precision, which autocast leaves alone
        expected, found = narrow.double()(crops), wide.double()(crops)
    for ours, maps in zip(found, expected, strict=True):
        assert maps.std() > 1e-4
        torch.testing.assert_close(ours, maps, atol=1e-8, rtol=1e-5)


def test_a_network_grows_from_a_trained_narrow_one():
    narrow = replace(SMALL, width=1 / 64, samples=8)
    models = obtain(replace(SMALL, narrow=narrow, step_size=0.0))[2]
    assert models[1].parent_sha256 == models[0].sha256 == obtain(narrow)[2][0].sha256
    small, large = (model.tensors["stem.0.branches.0.weight"] for model in models)
    assert (small.shape[0], large.shape[0]) == (2, 4)
    assert torch.allclose(large, small.repeat(2, 1, 1, 1), atol=0.5 * small.std().item())


# Memory


def test_canvases_of_all_training_faces_fit_into_memory():
    """§IV: 3,148 faces of 300-W, 3,901 of AFLW-PIFA; canvases hold a byte for each colour of a pixel."""
    faces = toy_faces(2)
    for config, gibibytes in ((CONFIGS["cpu", "synthetic"], 0.4), (ECTConfig(), 1.5)):
        samples = Samples(
            faces, torch.as_tensor(faces.points[0]), config.frame, config.perturbation, 2, 0, boxes=faces.boxes, colour=True
        )  # fmt: skip
        pixels = samples.canvases.pixels
        assert pixels.dtype == torch.uint8 and 3901 * pixels[0].numel() < gibibytes * 2**30
        assert pixels[0].numel() == 3 * round(1.43 * config.input_size) ** 2


def test_crops_are_the_same_in_training_and_in_tests():
    """The crop before it is augmented is the one that `predict_faces` cuts."""
    faces = Source().load()
    pdm = ect_training._fit_pdm(faces, SMALL)
    canvases = cut_canvases(faces.images, faces.boxes, pdm.mean, SMALL.frame, colour=True)
    samples = Samples(faces, pdm.mean, SMALL.frame, SMALL.perturbation, 4, 0, boxes=faces.boxes, colour=True)
    assert torch.equal(samples.canvases.pixels, canvases.pixels)


# The register


def test_the_register_says_what_the_training_does():
    said = {entry.id: entry.choice for entry in ambiguities.load("ect")}
    paper = ECTConfig()
    assert said["ECT-A33"].startswith(f"{paper.validation_faces} training faces held out")
    assert "AFLW-PIFA and COFW" in said["ECT-A34"] and ect_training.FLAGGED == ("aflw-pifa", "cofw")
    assert paper.finetuning == 0.1 and said["ECT-A36"].startswith(
        "a tenth of the samples, with a tenth of the step size"
    )
