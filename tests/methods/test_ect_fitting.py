"""Correction and tuning of ECT: agreement with plain loops over faces, landmarks and pixels, closed forms, invariances."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate.errors import ReplicateError
from replicate.faces.augment import cut_canvases
from replicate.geometry import apply_transform, similarity
from replicate.methods import ect, ect_fitting
from replicate.methods.ect import ECTConfig
from replicate.methods.ect_fitting import METHODS, PDM, Patches
from replicate.shapes import mean_shape

torch.set_num_threads(1)
SIZE = 64
# lengths of a quarter: patches of 13 and 8 pixels, ideal responses with a deviation of 2 pixels
CONFIG = ECTConfig(input_size=SIZE, sigma=8.0, components=3, patches=(52, 52, 32), b=20.0)
OUTLINE = torch.tensor(
    [[14.0, 18.0], [33.0, 15.0], [50.0, 20.0], [47.0, 40.0], [30.0, 48.0], [15.0, 43.0], [31.0, 30.0]]
)


def shapes(count=40, seed=0, spread=1.5):
    generator = torch.Generator().manual_seed(seed)
    coefficients = torch.randn(count, 4, generator=generator) * spread * torch.tensor([2.0, 1.4, 1.0, 0.5])
    ways = torch.randn(4, *OUTLINE.shape, generator=torch.Generator().manual_seed(9)) / 3
    rest = 0.1 * torch.randn(count, *OUTLINE.shape, generator=generator)
    return OUTLINE + torch.einsum("nk,kld->nld", coefficients, ways) + rest


def model(components=3):
    return PDM.fit(shapes(), CONFIG.frame, components)


def problem(count=2, seed=1):
    """Response maps with faint landmarks, an outlier and negative responses; one face reaches over the border."""
    generator = torch.Generator().manual_seed(seed)
    points = shapes(count, seed) + torch.tensor([[[0.3, -0.4]]])
    points[-1] += torch.tensor([13.0, 12.0])
    faint = 0.3 + 0.7 * torch.rand(count, 7, 1, 1, generator=generator)
    maps = faint * ect.target_maps(points, CONFIG)
    maps[:, 0] = ect.target_maps(points[:, :1] + 9, CONFIG)[:, 0]
    return maps + 0.03 * torch.randn(maps.shape, generator=generator)


# The slow form, from the equations


def loops(maps, pdm, config, method):
    """Algorithm 1 for one face, (L, H, W): shapes after the correction and each iteration, and the last weights."""
    maps, n = maps.double().numpy(), len(maps)
    s_bar, bases = pdm.mean.double().numpy().ravel(), pdm.bases.double().numpy().reshape(2 * n, -1)
    inverse = np.zeros((bases.shape[1],) * 2)
    for j in range(pdm.active):
        inverse[4 + j, 4 + j] = 1 / pdm.eigenvalues[j].item()
    start = []
    for i in range(n):  # the peaks
        best = max((maps[i, y, x], -y, -x) for y in range(SIZE) for x in range(SIZE))
        start += [-best[2], -best[1]]
    start = np.array(start, float)
    unit2 = (config.input_size / 256) ** 2
    steps = METHODS[method]
    equal = np.eye(2 * n)
    if steps is None:
        return [start], weights(maps, start, config, 0)
    w = weights(maps, start, config, 0)
    if steps.correct:  # Eq. 14
        big_w = np.diag(np.repeat(w, 2))
        p = (
            np.linalg.inv(config.gamma * unit2 * inverse + bases.T @ big_w @ bases)
            @ bases.T
            @ big_w
            @ (start - s_bar)
        )
    else:
        p = bases.T @ (start - s_bar)
    found = [s_bar + bases @ p]
    for k in range(len(config.patches) if steps.tune else 0):
        current = found[-1]
        w = weights(maps, current, config, k)
        used = w if steps.weigh else np.ones(n)
        big_w = np.diag(np.repeat(used, 2)) if steps.weigh else equal
        v = np.zeros(2 * n)
        for i in range(n):  # Eq. 9
            rho, x_c, y_c = config.rho2 * unit2 / used[i], *current[2 * i : 2 * i + 2]
            total = top_x = top_y = 0.0
            for x, y, response in patch(maps[i], x_c, y_c, config.patch(k)):
                density = math.exp(-((x - x_c) ** 2 + (y - y_c) ** 2) / (2 * rho)) / (2 * math.pi * rho)
                total, top_x, top_y = (
                    total + response * density,
                    top_x + response * density * x,
                    top_y + response * density * y,
                )
            if total > 0:
                v[2 * i : 2 * i + 2] = top_x / total - x_c, top_y / total - y_c
        prior = pdm.noise * inverse
        p = p - np.linalg.inv(prior + bases.T @ big_w @ bases) @ (prior @ p - bases.T @ big_w @ v)  # Eq. 8
        found.append(s_bar + bases @ p)
    return found, w


def patch(response_map, x_c, y_c, side):
    """(x, y, response) of the pixels of a patch."""
    for y in range(math.ceil(y_c - side / 2), math.ceil(y_c - side / 2) + side):
        for x in range(math.ceil(x_c - side / 2), math.ceil(x_c - side / 2) + side):
            inside = 0 <= x < SIZE and 0 <= y < SIZE
            yield x, y, max(response_map[y, x], 0.0) if inside else 0.0


def weights(maps, shape, config, k):
    """Eq. 15, with the standard deviation and b subtracted."""
    found = []
    for i, response_map in enumerate(maps):
        pixels = list(patch(response_map, *shape[2 * i : 2 * i + 2], config.patch(k)))
        total = sum(r for _, _, r in pixels)
        mean_x, mean_y = (sum(pixel[axis] * pixel[2] for pixel in pixels) / total for axis in (0, 1))
        variance = sum(r * ((x - mean_x) ** 2 + (y - mean_y) ** 2) for x, y, r in pixels) / total / 2
        ratio = total / math.sqrt(variance) / (config.input_size / 256)
        found.append(1 / (1 + math.exp(-config.a * (ratio - config.b))))
    return np.array(found)


@pytest.mark.parametrize("method", METHODS)
def test_the_batched_form_agrees_with_plain_loops(method):
    maps, pdm = problem(), model()
    fitted = ect_fitting.fits(pdm, CONFIG)[method](maps, ect_fitting.peaks(maps))
    for face, face_maps in enumerate(maps):
        slow, w = loops(face_maps, pdm, CONFIG, method)
        assert len(fitted.shapes) == len(slow)
        for ours, theirs in zip(fitted.shapes, slow, strict=True):
            assert np.abs(ours[face].numpy().ravel() - theirs).max() < 1e-4
        assert np.abs(fitted.confidence[face].numpy() - w).max() < 1e-4
    assert fitted.confidence.std() > 0.1 and fitted.confidence.max() > 0.8  # weights that matter


# §III-A Point distribution model


def test_bases_are_orthonormal():
    bases = model(8).bases.flatten(0, 1)
    torch.testing.assert_close(bases.T @ bases, torch.eye(bases.shape[1]), atol=1e-5, rtol=0)


def test_a_shape_of_the_model_is_its_own_projection():
    pdm = model()
    p = torch.randn(5, 7, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(pdm.project(pdm.shape(p)), p, atol=1e-4, rtol=0)


def test_every_similarity_of_the_mean_shape_is_in_the_model():
    pdm = model()
    moved = apply_transform(
        similarity(
            torch.tensor([1.3, 0.7]), torch.tensor([0.8, -2.0]), torch.tensor([[9.0, -4.0], [0.0, 3.0]])
        ),
        pdm.mean,
    )
    p = pdm.project(moved)
    torch.testing.assert_close(pdm.shape(p), moved, atol=1e-3, rtol=0)
    torch.testing.assert_close(p[:, 4:], torch.zeros(2, 3), atol=1e-3, rtol=0)


def test_the_model_finds_how_the_shapes_vary():
    """Shapes that vary in two ways, orthogonal to similarities: components and eigenvalues are those of the making."""
    frame = CONFIG.frame
    mean = frame.canonical(OUTLINE)
    similar = ect_fitting.similarity_bases(mean).flatten(0, 1)
    ways = torch.randn(14, 2, generator=torch.Generator().manual_seed(5))
    ways = torch.linalg.qr(ways - similar @ (similar.T @ ways))[0]
    q = torch.randn(400, 2, generator=torch.Generator().manual_seed(6)) * torch.tensor([0.8, 0.3])
    pdm = PDM.fit(mean + (q @ ways.T).unflatten(1, (7, 2)), frame, 5)
    expected = q.var(0)
    torch.testing.assert_close(pdm.eigenvalues[:2], expected, rtol=0.05, atol=0)
    agreement = (pdm.components[..., :2].flatten(0, 1) * ways).sum(0).abs()
    assert (agreement > 0.99).all() and pdm.retained[1] > 0.99 and pdm.retained[-1].item() == pytest.approx(1)


def test_where_training_shapes_lie_and_how_large_they_are_does_not_matter():
    made, generator = shapes(), torch.Generator().manual_seed(2)
    scale, shift = 0.5 + torch.rand(40, generator=generator), 50 * torch.randn(40, 1, 2, generator=generator)
    one, other = model(), PDM.fit(scale[:, None, None] * made + shift, CONFIG.frame, 3)
    torch.testing.assert_close(one.eigenvalues, other.eigenvalues, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(one.mean, other.mean, atol=1e-3, rtol=0)


def test_components_in_use_and_noise():
    pdm = model(3)
    assert pdm.bases.shape == (7, 2, 7) and pdm.using(5).bases.shape == (7, 2, 9)
    assert pdm.noise == pytest.approx(pdm.eigenvalues[3:].mean().item())
    every = pdm.using(99)
    assert every.active == len(pdm.eigenvalues) == 2 * 7 - 4 and every.noise == 0
    assert PDM.fit(shapes(3), CONFIG.frame, 30).active == 2
    again = PDM(**pdm.tensors(), active=3)
    assert torch.equal(again.bases, pdm.bases)


def test_unknown_points_are_refused():
    made = shapes()
    made[3, 2] = torch.nan
    with pytest.raises(ReplicateError, match="got 40 with 1 unknown points"):
        PDM.fit(made, CONFIG.frame, 3)
    with pytest.raises(ReplicateError, match="got 1 with 0"):
        PDM.fit(shapes(1), CONFIG.frame, 3)


# §III-C Correction


def test_with_equal_weights_and_no_prior_the_correction_is_the_projection():
    pdm, observed = (
        model(),
        shapes(4, seed=7) + torch.randn(4, 7, 2, generator=torch.Generator().manual_seed(8)),
    )
    step = pdm.step(torch.zeros(4, 7), observed - pdm.mean, torch.ones(4, 7), 0.0)
    torch.testing.assert_close(step, pdm.project(observed), atol=1e-3, rtol=0)


def test_a_landmark_without_weight_is_put_where_the_others_say():
    pdm = model()
    true = pdm.shape(torch.tensor([[3.0, -2.0, 5.0, 1.0, 2.0, -1.0, 0.5]]))
    observed, w = true.clone(), torch.ones(1, 7)
    observed[0, 2] += 30
    w[0, 2] = 0
    corrected = pdm.shape(pdm.step(torch.zeros(1, 7), observed - pdm.mean, w, 0.0))
    torch.testing.assert_close(corrected, true, atol=1e-3, rtol=0)
    assert (pdm.shape(pdm.project(observed)) - true).norm(dim=-1).max() > 5


def test_a_step_ends_at_the_minimum_of_eq_7():
    pdm, generator = model(), torch.Generator().manual_seed(4)
    p, v, w = (torch.randn(3, *size, generator=generator).double() for size in ((7,), (7, 2), (7,)))
    w, strength = w.sigmoid(), 2.5
    pdm = replace(pdm, **{name: tensor.double() for name, tensor in pdm.tensors().items()})
    moved = (p + pdm.step(p, v, w, strength)).requires_grad_()
    target = pdm.shape(p) + v
    q = strength * (pdm.precision * moved.square()).sum()
    q = q + (w[..., None] * (pdm.shape(moved) - target).square()).sum()
    q.backward()
    assert moved.grad.abs().max() < 1e-4


# §III-D Confidence and mean shift


def one_map(x, y, deviation=2.0, strength=1.0):
    config = replace(CONFIG, sigma=4 * deviation)
    return strength * ect.target_maps(torch.tensor([[[x, y]]]), config)


def test_mean_shift_on_a_gaussian_goes_the_known_part_of_the_way():
    """Two Gaussians multiplied: the mean of their product lies rho / (rho + sigma^2) of the way from one to the other."""
    maps, centre = one_map(32.0, 30.0), torch.tensor([[[29.0, 31.5]]])
    v = Patches(maps, centre, 40).mean_shift(torch.tensor([[5.0]]))
    torch.testing.assert_close(v, torch.tensor([[[3.0, -1.5]]]) * 5 / (5 + 4), atol=1e-3, rtol=0)


def test_mean_shift_converges_to_the_peak():
    maps, place = one_map(32.3, 30.6), torch.tensor([[[28.0, 34.0]]])
    for _ in range(40):
        place = place + Patches(maps, place, 26).mean_shift(torch.tensor(2.0))
    torch.testing.assert_close(place, torch.tensor([[[32.3, 30.6]]]), atol=1e-2, rtol=0)


def test_an_empty_patch_pulls_nowhere_and_has_the_least_confidence():
    least = 1 / (1 + math.exp(CONFIG.a * CONFIG.b))
    for centre in ([30.0, 30.0], [-90.0, 500.0]):
        patches = Patches(torch.zeros(1, 1, SIZE, SIZE), torch.tensor([[centre]]), 13)
        assert torch.equal(patches.mean_shift(torch.tensor([[20.0]])), torch.zeros(1, 1, 2))
        assert patches.confidence(CONFIG).item() == pytest.approx(least, rel=1e-4)
    beyond = Patches(torch.ones(1, 1, SIZE, SIZE), torch.tensor([[[-90.0, 500.0]]]), 13)
    assert beyond.confidence(CONFIG).item() == pytest.approx(least, rel=1e-4)


def test_beyond_the_border_responses_are_zero():
    maps = 0.1 + one_map(1.0, 62.0)
    wide = torch.nn.functional.pad(maps, (20, 20, 20, 20))
    centre = torch.tensor([[[2.4, 60.7]]])
    one, other = Patches(maps, centre, 13), Patches(wide, centre + 20, 13)
    torch.testing.assert_close(one.confidence(CONFIG), other.confidence(CONFIG))
    torch.testing.assert_close(
        one.mean_shift(torch.tensor(4.0)), other.mean_shift(torch.tensor(4.0)), atol=1e-5, rtol=0
    )


def test_confidence_is_the_sum_over_the_deviation():
    total = ECTConfig().peak * 2 * math.pi * 36  # an ideal map's, in full
    expected = 1 / (1 + math.exp(-0.25 * (total / 6 - 25)))
    found = ect_fitting.confidence(torch.tensor(total), torch.tensor(36.0), ECTConfig())
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_eq_15_as_printed_saturates():
    faded = ect_fitting.fading(ECTConfig(), torch.linspace(0, 1, 11))
    assert faded["as printed"].min() > 0.998
    assert faded["deviation"][0] < 0.01 and faded["deviation"][-1] > 0.97
    assert faded["variance"].max() < 0.02
    for readings in faded.values():
        assert (readings.diff() > 0).all()


def test_with_eq_15_as_printed_ect_is_crm_clm_c():
    maps, pdm = problem(), model()
    start = ect_fitting.peaks(maps)

    def last(config, method):
        return ect_fitting.refine(maps, start, pdm, config, method).shapes[-1]

    printed = replace(CONFIG, confidence="as printed", b=25.0)
    assert (last(printed, "ECT") - last(printed, "CRM-CLM-C")).abs().max() < 0.02
    assert (last(CONFIG, "ECT") - last(CONFIG, "CRM-CLM-C")).abs().max() > 0.2


def test_a_false_peak_is_corrected():
    """A faint landmark whose highest response lies elsewhere comes back to its place; a plain projection spoils the others."""
    pdm = model()
    points = pdm.shape(torch.tensor([[0.0, 0.0, 0.0, 0.0, 3.0, -1.0, 0.5]]))
    maps = ect.target_maps(points, CONFIG)
    maps[0, 3] = 0.1 * ect.target_maps(points[:, 3:4] + torch.tensor([0.0, -20.0]), CONFIG)[0, 0]
    start = ect_fitting.peaks(maps)
    error = {
        label: (fit(maps, start).shapes[-1] - points).norm(dim=-1).mean().item()
        for label, fit in ect_fitting.fits(pdm, CONFIG).items()
    }
    assert error["ECT"] < 0.4 < error["CRM-CLM-C"] < error["CRM-CLM"]
    assert error["CRM"] < error["CRM-PDM"]


# Invariance


@pytest.mark.parametrize("turning", [False, True])
def test_a_face_moved_by_whole_pixels_gives_the_shape_moved(turning):
    maps, pdm, config = problem(1), model(), replace(CONFIG, turning=turning)
    wide = torch.nn.functional.pad(maps, (20, 20, 20, 20))
    moved = torch.roll(wide, (5, -7), (-2, -1))
    one, other = (
        ect_fitting.refine(each, ect_fitting.peaks(each), pdm, config).shapes[-1] for each in (wide, moved)
    )
    torch.testing.assert_close(other, one + torch.tensor([-7.0, 5.0]), atol=1e-3, rtol=0)


def test_only_turning_bases_follow_a_face_that_is_turned():
    """A quarter turn of the maps: x becomes the height less y, y becomes x."""
    maps, pdm = torch.nn.functional.pad(problem(1), (20, 20, 20, 20)), model()
    turned = torch.rot90(maps, -1, (-2, -1)).contiguous()
    last = maps.shape[-1] - 1
    gap = {}
    # an odd side, or the pixels of a patch are not the same after the turn
    for turning in (True, False):
        config = replace(CONFIG, turning=turning, patches=(52, 52, 52))
        one, other = (
            ect_fitting.refine(each, ect_fitting.peaks(each), pdm, config).shapes[-1]
            for each in (maps, turned)
        )
        expected = torch.stack([last - one[..., 1], one[..., 0]], -1)
        gap[turning] = (other - expected).abs().max().item()
    assert gap[True] < 1e-2 and gap[False] > 0.2


def test_turning_bases_bear_peaks_that_are_all_in_one_place():
    fitted = ect_fitting.refine(
        torch.zeros(1, 7, SIZE, SIZE), torch.zeros(1, 7, 2), model(), replace(CONFIG, turning=True)
    )
    assert fitted.shapes[-1].isfinite().all()


# The whole


def test_the_peak_is_the_highest_pixel():
    maps = torch.rand(2, 3, 8, 9)
    maps[1, 2, 6, 4] = 2
    assert ect_fitting.peaks(maps)[1, 2].tolist() == [4, 6]
    maps[1, 2, 6, 5] = 2
    assert ect_fitting.peaks(maps)[1, 2].tolist() == [4, 6]


def test_iterations_can_be_more_than_the_list_of_patches():
    maps, pdm = problem(), model()
    start = ect_fitting.peaks(maps)
    longer = ect_fitting.refine(maps, start, pdm, CONFIG, iterations=10).shapes
    assert len(longer) == 11 and len(ect_fitting.refine(maps, start, pdm, CONFIG, iterations=0).shapes) == 1
    steps = [(after - before).norm() for before, after in pairwise(longer[3:])]
    assert steps[-1] < 0.2 * steps[0]


def test_an_unknown_method_is_refused():
    maps = problem()
    with pytest.raises(ReplicateError, match="method: got 'CRM-PDN', expected one of CRM, CRM-PDM"):
        ect_fitting.refine(maps, ect_fitting.peaks(maps), model(), CONFIG, "CRM-PDN")


def test_predictions_are_in_pixels_of_the_original_images(monkeypatch):
    """With ideal response maps, every method finds the points up to the pixels of the frame."""
    faces = toy_faces(count=5, box_noise=1.0)
    true = torch.as_tensor(faces.points)
    config = ECTConfig(width=1 / 64, input_size=128, components=3)
    mean = mean_shape(true)
    canvases = cut_canvases(faces.images, faces.boxes, mean, config.frame, colour=True)
    in_frame = apply_transform(canvases.from_image, true)
    batches = iter(in_frame.split(2))
    monkeypatch.setattr(
        ect_fitting,
        "for_inference",
        lambda network: lambda crops: [ect.target_maps(next(batches), config)],
    )
    monkeypatch.setattr(ect_fitting, "upsampled", lambda maps: maps)
    pdm = PDM.fit(true + 0.05 * torch.randn(true.shape), config.frame, 3)
    found = ect_fitting.predict(ect.FCN(config, 68), canvases, ect_fitting.fits(pdm, config), batch=2)
    assert list(found) == list(METHODS)
    for fitted in found.values():
        assert fitted.shapes[-1].shape == (5, 68, 2) and fitted.confidence.shape == (5, 68)
        assert (fitted.shapes[-1] - true).norm(dim=-1).max() < 1.0
    assert (
        (found["ECT"].shapes[-1] - true).norm(dim=-1).mean()
        < 0.25
        < (found["CRM"].shapes[-1] - true).norm(dim=-1).mean()
    )


def test_peaks_between_pixels_are_found_without_a_shape_model():
    config = ECTConfig(input_size=128)
    torch.manual_seed(0)
    true = 30 + 60 * torch.rand(4, 10, 2)
    maps = ect.upsampled(ect.target_maps(true, config, ect.STRIDE))
    start = ect_fitting.peaks(maps)
    found = ect_fitting.climb(maps, start, config)
    assert len(found.shapes) == 16 and torch.equal(found.shapes[0], start)
    errors = [(shape - true).norm(dim=-1).mean().item() for shape in (start, found.shapes[-1])]
    assert errors[0] > 0.8 and errors[1] < 0.25 * errors[0]
    assert found.confidence.shape == (4, 10)


def test_patches_larger_than_the_maps_are_refused():
    with pytest.raises(ReplicateError, match="side of 40 pixels on maps of 32 x 64"):
        ect_fitting.Patches(torch.zeros(1, 2, 32, 64), torch.zeros(1, 2, 2), 40)


def test_without_iterations_the_peaks_stay():
    start = torch.full((1, 2, 2), 16.0)
    found = ect_fitting.climb(torch.rand(1, 2, 64, 64), start, ECTConfig(input_size=64), iterations=0)
    assert len(found.shapes) == 1 and torch.equal(found.shapes[0], start)
