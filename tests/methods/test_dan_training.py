"""Training of DAN: steps, keys, what is frozen and what is trained, in each of the orders of §3.5."""

from dataclasses import dataclass, replace
from itertools import combinations

import pytest
import torch
from toy_faces import toy_faces

from replicate import store, training
from replicate.errors import ReplicateError
from replicate.methods import dan_training
from replicate.methods.dan import CONFIGS, ORDERS, DANConfig

torch.set_num_threads(1)
SMALL = replace(CONFIGS["smoke", "synthetic"], dropout=0.0, samples=(96, 96, 96))
VARIANTS = {
    "heatmap": dict(heatmap=False),
    "feature image": dict(feature_image=False),
    "affine": dict(transform="affine"),
    "no transform": dict(transform="none"),
    "large feature image": dict(feature_side=112),
    "small heatmap": dict(heatmap_radius=8.0),
    "warm": dict(order="end to end after stage 1"),
}


@dataclass(frozen=True)
class Source:
    """Toy faces by the name of their split."""

    split: str = "train"
    faces: str = "synthetic"

    @property
    def fingerprint(self):
        return f"toy {self.split} {self.faces}"

    def load(self):
        return toy_faces(box_noise=2.0 if self.split == "train" else 4.0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REPLICATE_CACHE", str(tmp_path))


def stop_after(steps, descend):
    """`descend` that is interrupted after so many calls."""
    calls = iter(range(steps))

    def limited(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return descend(*arguments)

    return limited


def hashes(config, stages=2, **source):
    return [key.hash for key in dan_training.keys(config, stages, Source(**source), "smoke", 0)]


# Steps


def test_steps_of_the_three_orders():
    config = replace(SMALL, samples=(50, 30, 20))
    found = {
        order: [
            (step.name, step.stages, step.joint, step.samples)
            for step in dan_training.steps(config.changed(order=order), 3)
        ]
        for order in ORDERS
    }
    stages = [("dan-stage1", 1, False, 50), ("dan-stage2", 2, False, 30), ("dan-stage3", 3, False, 20)]
    assert found == {
        "stage by stage": stages,
        "end to end after stage 1": [stages[0], ("dan-joint", 3, True, 50)],
        "end to end": [("dan-joint", 3, True, 100)],
    }


# Keys


def test_variants_of_the_connection_share_their_first_stage_and_nothing_else():
    first, second = hashes(SMALL)
    found = {name: hashes(SMALL.changed(**changes)) for name, changes in VARIANTS.items()}
    assert {keys[0] for keys in found.values()} == {first}
    assert len({second, *(keys[1] for keys in found.values())}) == 1 + len(VARIANTS)


def test_another_loss_or_no_first_stage_shares_nothing():
    own = (
        hashes(SMALL),
        hashes(SMALL.changed(loss="sum of squares")),
        hashes(SMALL.changed(order="end to end")),
    )
    assert all(not set(a) & set(b) for a, b in combinations(own, 2))


def test_a_network_is_named_by_what_it_starts_from():
    plain, teacher = hashes(SMALL), replace(SMALL, width=8)
    assert set(hashes(replace(SMALL, pretraining=SMALL))).isdisjoint(plain)
    assert hashes(replace(SMALL, pretraining=SMALL)) != hashes(replace(SMALL, pretraining=teacher))
    assert hashes(replace(SMALL, pretraining=SMALL)) != hashes(replace(SMALL, narrow=SMALL))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("stages", [-1, 0, 4])
def test_stages_outside_the_budget_are_refused(stages, order):
    with pytest.raises(ReplicateError, match=f"stages: got {stages}, expected 1 to 3"):
        dan_training.steps(SMALL.changed(order=order), stages)


# What a network grows from


def test_origins_must_share_order_and_held_out_faces():
    with pytest.raises(ReplicateError, match="expected one network at most"):
        replace(SMALL, narrow=SMALL, pretraining=SMALL)
    with pytest.raises(ReplicateError, match="it validates on 8 faces"):
        replace(SMALL, narrow=SMALL, validation_faces=9)
    with pytest.raises(ReplicateError, match="order: got 'stage by stage' on top of"):
        replace(SMALL, narrow=SMALL.changed(order="end to end"))


def test_changes_name_unknown_fields_and_can_take_an_origin_away():
    with pytest.raises(ReplicateError, match="field: got 'heat_map'.*Did you mean 'heatmap'"):
        SMALL.changed(heat_map=False)
    assert replace(SMALL, narrow=SMALL).changed(narrow=None, heatmap=False) == SMALL.changed(heatmap=False)


def test_each_network_of_a_chain_sees_other_samples():
    pretrained = replace(SMALL, pretraining=replace(SMALL, narrow=SMALL))
    chain = (SMALL, replace(SMALL, narrow=SMALL)), (pretrained, replace(SMALL, narrow=pretrained))
    assert [[dan_training._generation(one) for one in pair] for pair in chain] == [[0, 1], [1, 2]]


def test_the_faces_of_pretraining_are_found_through_the_chain():
    real = Source(faces="real")
    pretrained = replace(SMALL, pretraining=SMALL)
    for config in (pretrained, replace(SMALL, narrow=pretrained)):
        assert dan_training.pretraining_faces(config, real) == Source(split="wide")
    assert dan_training.pretraining_faces(replace(SMALL, narrow=SMALL), real) is None


def test_a_joint_step_starts_from_its_own_first_stage_whatever_it_grew_from():
    order = "end to end after stage 1"
    origin = SMALL.changed(order=order)
    config = replace(origin, pretraining=origin, step_size=0.0)
    own = dan_training.obtain(config, 2, Source(faces="real"), "smoke", 0)[1]
    name = "stages.0.convolutions.0.weight"
    assert torch.equal(own[1].tensors[name], own[0].tensors[name])
    before = dan_training.obtain(origin, 2, Source(split="wide"), "smoke", 0)[1]
    name = "stages.1.convolutions.0.weight"
    assert torch.equal(own[1].tensors[name], before[1].tensors[name])


# Training


@pytest.mark.parametrize(("order", "stages"), [("stage by stage", 1), ("end to end", 2)])
def test_a_killed_training_resumes_to_the_same_weights(tmp_path, monkeypatch, order, stages):
    """Validated once, at the end, so that what comes out is the last state and not one from before the kill."""
    config = SMALL.changed(order=order, samples=(80, 80), batch=16, validate_every=100)
    step = dan_training.steps(config, stages)[-1]
    schedule = replace(config.schedule(step.samples), checkpoint_seconds=0.0)
    monkeypatch.setattr(DANConfig, "schedule", lambda *_: schedule)

    def train(checkpoint):
        return dan_training._train_step(config, step, [], None, toy_faces(box_noise=2.0), 0, checkpoint)[0]

    whole = train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(training, "_descend", stop_after(3, training._descend))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed")
    assert (tmp_path / "killed").exists()
    resumed = train(tmp_path / "killed")
    assert [name for name, value in whole.items() if not torch.equal(resumed[name], value)] == []


def test_frozen_parts_keep_weights_and_statistics():
    models = dan_training.obtain(SMALL, 2, Source(), "smoke", 0)[1]
    network = dan_training.assemble(SMALL, models, 3)
    dan_training.freeze(network, dan_training.steps(SMALL, 3)[2], continued=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()(torch.rand(4, 1, 112, 112))
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith(("stages.2.", "connections.1.")) for name in changed)
    assert [stage.training for stage in network.stages] == [False, False, True]
    assert [connection.training for connection in network.connections] == [False, True]


def test_a_face_without_all_points_is_named():
    class Damaged(Source):
        def load(self):
            faces = toy_faces(box_noise=2.0)
            faces.points[3, 5] = float("nan")
            return faces

    with pytest.raises(ReplicateError, match="some of its points are not annotated"):
        dan_training.obtain(SMALL, 1, Damaged(split="damaged"), "smoke", 0)


def test_sequential_training_keeps_earlier_stages():
    one, _ = dan_training.obtain(SMALL, 1, Source(), "smoke", 0)
    two, models = dan_training.obtain(SMALL, 2, Source(), "smoke", 0)
    crops = torch.rand(2, 1, 112, 112)
    with torch.inference_mode():
        assert torch.equal(one(crops)[0], two(crops)[0])
        assert len(two(crops)) == 2
    assert models[1].key.parent == models[0].key.hash
    assert {name.split(".")[0] for name in models[1].tensors} == {"stages", "connections"}


def test_the_gate_compares_with_the_mean_shape(tmp_path):
    config = replace(SMALL, sanity_gate=True, samples=(32, 32, 32))
    (step,) = dan_training.steps(config, 1)
    with pytest.raises(ReplicateError, match="does not beat the mean shape's"):
        dan_training._train_step(config, step, [], None, toy_faces(box_noise=2.0), 0, tmp_path / "c")


def test_hash_of_a_stage_ignores_later_budgets(tmp_path, monkeypatch):
    keys = []
    monkeypatch.setattr(
        store,
        "get",
        lambda key, train, **options: keys.append(key) or store.StoredModel(key, {}, None, "", "", ""),
    )
    monkeypatch.setattr(dan_training, "assemble", lambda config, models: torch.nn.Module())
    for last in (10, 20):
        dan_training.obtain(replace(SMALL, samples=(5, 6, last)), 2, Source(), "smoke", 0)
    assert [key.hash for key in keys[:2]] == [key.hash for key in keys[2:]]


def test_a_joint_step_trains_the_first_stage_too():
    apart = dan_training.obtain(SMALL, 2, Source(), "smoke", 0)[1]
    warm = dan_training.obtain(SMALL.changed(order="end to end after stage 1"), 2, Source(), "smoke", 0)[1]
    assert warm[0].sha256 == apart[0].sha256 and warm[1].key.parent == warm[0].key.hash
    name = "stages.0.convolutions.0.weight"
    assert name not in apart[1].tensors and not torch.equal(warm[1].tensors[name], warm[0].tensors[name])
    assert not torch.equal(
        warm[1].tensors["stages.0.convolutions.1.running_mean"],
        warm[0].tensors["stages.0.convolutions.1.running_mean"],
    )


def test_from_scratch_one_model_holds_all():
    network, (model,) = dan_training.obtain(SMALL.changed(order="end to end"), 2, Source(), "smoke", 0)
    assert set(model.tensors) == set(network.state_dict())
    assert model.report.samples == 192
    assert dan_training.assemble(SMALL, [model]).state_dict().keys() == model.tensors.keys()


def test_weights_carry_over_from_generated_faces_but_not_their_mean_shape():
    """With a step size of zero a pretrained network keeps its weights, and has S_0 and pixel statistics of its own faces."""
    config = replace(SMALL, pretraining=SMALL, step_size=0.0)
    own = dan_training.obtain(config, 2, Source(faces="real"), "smoke", 0)[1]
    before = dan_training.obtain(SMALL, 2, Source(split="wide"), "smoke", 0)[1]
    afresh = dan_training.obtain(replace(SMALL, step_size=0.0), 1, Source(faces="real"), "smoke", 0)[1][0]
    for mine, theirs in zip(own, before, strict=True):
        for name in theirs.tensors:
            if name.endswith("weight"):
                assert torch.equal(mine.tensors[name], theirs.tensors[name]), name
    torch.testing.assert_close(own[0].tensors["canonical"], afresh.tensors["canonical"])
    assert not torch.equal(own[0].tensors["pixel_mean"], before[0].tensors["pixel_mean"])
    assert own[0].report.seconds > before[0].report.seconds


def test_reports_count_the_time_of_the_steps_before():
    models = dan_training.obtain(SMALL, 2, Source(), "smoke", 0)[1]
    first, second = store.reports(models)
    assert first.seconds == models[0].report.seconds
    assert second.seconds == pytest.approx(models[0].report.seconds + models[1].report.seconds)
    assert second.best_error == models[1].report.best_error
