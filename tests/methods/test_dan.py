"""DAN against the paper: shapes and counts of Table 1, Eqs 2 to 4 in naive form, training stages, inference."""

import math
from dataclasses import replace

import pytest
import torch
from toy_faces import CANONICAL, toy_faces

from replicate.errors import ReplicateError
from replicate.faces.augment import Samples
from replicate.geometry import apply_transform, fit_affine, fit_similarity, invert, similarity
from replicate.methods import dan
from replicate.methods.dan import CONFIGS, DAN, DANConfig, Stage
from replicate.networks import widen
from replicate.shapes import fit_in_boxes

torch.set_num_threads(1)
SMALL = replace(CONFIGS["smoke", "synthetic"], dropout=0.0)


def network(config=SMALL, stages=2, seed=0):
    torch.manual_seed(seed)
    made = DAN(config, stages, CANONICAL, torch.full((112, 112), 0.4), torch.full((112, 112), 0.3))
    for module in made.modules():  # as after training
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return made.eval()


# Table 1


def test_table_1_shapes_and_parameter_count():
    stage = Stage(1, 68, DANConfig())
    x, seen = torch.zeros(2, 1, 112, 112), []
    for layer in stage.convolutions:
        x = layer(x)
        if isinstance(layer, torch.nn.ReLU | torch.nn.MaxPool2d):
            seen.append(tuple(x.shape[1:]))
    sides = [
        (64, 112),
        (64, 112),
        (64, 56),
        (128, 56),
        (128, 56),
        (128, 28),
        (256, 28),
        (256, 28),
        (256, 14),
        (512, 14),
        (512, 14),
        (512, 7),
    ]
    assert seen == [(c, s, s) for c, s in sides]
    convolutions = sum(p.numel() for p in stage.convolutions.parameters() if p.ndim == 4)
    by_hand = sum(
        9 * i * o
        for i, o in [(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    )
    assert convolutions == by_hand
    assert stage.fc1[0].weight.shape == (256, 7 * 7 * 512) and stage.fc2.weight.shape == (136, 256)


def test_feature_layer_has_3136_units():
    assert network(DANConfig(width=4)).connections[0].feature.weight.shape == (3136, 256)


# Eq. 3


def test_heatmap_agrees_with_eq_3_pixel_by_pixel():
    shape = torch.tensor([[[5.3, 7.8], [20.0, 20.0], [21.5, 18.0]]])
    heat = dan.landmark_heatmap(shape, 30, radius=6.0)[0, 0]
    for y in range(30):
        for x in range(30):
            distance = min(math.dist((x, y), s) for s in shape[0].tolist())
            expected = 1 / (1 + distance) if distance <= 6 else 0
            assert heat[y, x] == pytest.approx(expected, abs=1e-5)


def test_heatmap_is_1_on_a_landmark_and_zero_beyond_the_radius():
    heat = dan.landmark_heatmap(torch.tensor([[[50.0, 40.0]]]), 112, radius=16.0)[0, 0]
    assert heat[40, 50] == pytest.approx(1, abs=1e-5)
    assert heat[40, 66] == pytest.approx(1 / 17, abs=1e-5) and heat[40, 67] == 0


def test_heatmap_is_the_same_with_and_without_gradient():
    shape = 112 * torch.rand(3, 68, 2, generator=torch.Generator().manual_seed(0))
    plain = dan.landmark_heatmap(shape, 112, 16.0)
    assert torch.equal(plain, dan.landmark_heatmap(shape.requires_grad_(), 112, 16.0).detach())


def test_heatmap_gradient():
    shape = torch.tensor([[[2.3, 3.7], [5.6, 1.2]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: dan.landmark_heatmap(s, 8, 20.0), shape)


# §3.2 and Eq. 2


def test_connection_brings_image_and_landmarks_to_the_canonical_pose():
    image = torch.zeros(1, 1, 112, 112)
    image[0, 0, 70, 40] = 1
    move = similarity(torch.tensor([1.1]), torch.tensor([0.2]), torch.tensor([[3.0, -4.0]]))
    shape = apply_transform(move, CANONICAL[None])
    images, transform = network().connections[0].parts(image, shape, torch.randn(1, SMALL.hidden), CANONICAL)
    warped, feature = images["image"], images["feature image"]
    torch.testing.assert_close(apply_transform(transform, shape)[0], CANONICAL, atol=1e-3, rtol=0)
    where = apply_transform(transform, torch.tensor([[[40.0, 70.0]]]))[0, 0]
    mass = warped[0, 0] / warped.sum()
    y, x = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    torch.testing.assert_close(torch.stack([(x * mass).sum(), (y * mass).sum()]), where, atol=0.35, rtol=0)
    assert feature.shape == (1, 1, 112, 112) and torch.equal(
        feature[..., ::2, ::2], feature[..., 1::2, 1::2]
    )  # nearest


FITS = {
    "similarity": fit_similarity,
    "affine": fit_affine,
    "none": lambda shape, _: torch.eye(2, 3).expand(len(shape), 2, 3),
}
VARIANTS = [
    {},
    dict(heatmap=False),
    dict(feature_image=False),
    dict(heatmap=False, feature_image=False),
    dict(transform="affine"),
    dict(transform="none"),
    dict(feature_side=112),
    dict(heatmap_radius=4.0),
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_forward_is_eq_2_for_every_stage(changes):
    """Stages composed by hand in single precision agree with the network within what bfloat16 rounds."""
    config = SMALL.changed(**changes)
    model, crops = network(config, stages=3), torch.rand(3, 1, 112, 112)
    fit = FITS[config.variant.transform]
    with torch.inference_mode():
        image = (crops - 0.4) / 0.3
        delta, hidden = model.stages[0](image)
        expected = [CANONICAL + delta]
        for connection, stage in zip(model.connections, model.stages[1:], strict=True):
            joined, _ = connection(image, expected[-1], hidden, CANONICAL)
            to_pose = fit(expected[-1], CANONICAL.expand(3, 68, 2))
            assert joined.shape == (3, 1 + config.variant.heatmap + config.variant.feature_image, 112, 112)
            delta, hidden = stage(joined)
            expected.append(apply_transform(invert(to_pose), apply_transform(to_pose, expected[-1]) + delta))
        for ours, by_hand in zip(model(crops), expected, strict=True):
            torch.testing.assert_close(ours, by_hand, atol=0.05, rtol=0)


# Eq. 4


def test_loss_is_mean_point_distance_over_inter_pupil_distance():
    true = CANONICAL[None].repeat(2, 1, 1)
    moved = true + torch.tensor([3.0, 4.0])
    pupils = [true[0, range(a, a + 6)].mean(0) for a in (36, 42)]
    expected = 5 / math.dist(*(p.tolist() for p in pupils))
    assert dan.normalised_distance(moved, true, "ibug68").tolist() == pytest.approx([expected] * 2, rel=1e-5)


def test_sum_of_squares_is_in_units_of_the_extent():
    true = torch.zeros(2, 5, 2)
    moved = true + torch.tensor([3.0, 4.0])
    assert dan.sum_of_squares(moved, true, extent=10.0).tolist() == pytest.approx([5 * 25 / 100] * 2)


def test_a_variant_of_an_unknown_word_is_refused():
    for name in ("transform", "loss", "order"):
        with pytest.raises(ReplicateError, match=f"{name}: got 'afine', expected one of"):
            SMALL.changed(**{name: "afine"})


def test_changes_reach_the_networks_that_a_configuration_grows_from():
    config = CONFIGS["cpu", "real"].changed(heatmap=False, heatmap_radius=8.0)
    for one in (config, config.narrow, config.narrow.pretraining, config.narrow.pretraining.narrow):
        assert (one.variant.heatmap, one.heatmap_radius) == (False, 8.0)


def test_all_layers_are_differentiable_end_to_end():
    """§3.5: the loss of stage 2 reaches the weights of stage 1, through the transform, the heatmap and the feature image."""
    model = network(stages=2)
    model(torch.rand(4, 1, 112, 112))[-1].square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.stages[0].convolutions[0].weight.grad.abs().max() > 0


# §3.5 Training


@pytest.mark.parametrize("stages", [1, 2])
def test_the_last_stage_overfits_a_batch(stages):
    crops, true = Samples(
        toy_faces(box_noise=2.0), CANONICAL, SMALL.frame, SMALL.perturbation, batch=4, seed=0
    )(0)
    model = network(SMALL, stages).train()
    optimiser = torch.optim.Adam((*model.stages[-1].parameters(), *model.connections.parameters()), lr=0.02)
    losses = []
    for _ in range(80):
        loss = dan.normalised_distance(model(crops)[-1], true, "ibug68").mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]


def test_a_widened_network_computes_what_the_narrow_one_does():
    small, large = network(replace(SMALL, width=4)), network(replace(SMALL, width=8))
    large.load_state_dict(widen(small.state_dict(), large.state_dict(), seed=0))
    crops = torch.rand(4, 1, 112, 112)
    with torch.inference_mode():
        for a, b in zip(small(crops), large(crops), strict=True):
            assert (a - b).abs().mean() < 0.15 * (a - CANONICAL).abs().mean()


# Inference


def test_folded_network_predicts_the_same():
    model, crops = network(), torch.rand(6, 1, 112, 112)
    with torch.inference_mode():
        for a, b in zip(model(crops), dan.for_inference(model)(crops), strict=True):
            assert (a - b).abs().max() < 0.1  # pixels of the frame


def test_predictions_are_in_pixels_of_the_original_images():
    """A network whose update is zero predicts the mean shape placed in the box."""
    model, faces = network(stages=1), toy_faces(box_noise=2.0)
    torch.nn.init.zeros_(model.stages[0].fc2.weight)
    canvases = dan.cut_canvases(faces.images, faces.boxes, CANONICAL, SMALL.frame)
    (shapes,) = dan.predict(model, canvases, batch=5)
    torch.testing.assert_close(
        shapes, fit_in_boxes(CANONICAL, torch.as_tensor(faces.boxes)), atol=1e-3, rtol=0
    )
