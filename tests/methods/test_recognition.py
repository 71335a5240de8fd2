"""The recognition pipeline of TCNN §5.2: alignment, network, power normalisation, PCA, correlation, fusion and acceptance, in closed form."""

import numpy as np
import pytest
import torch
from five_dots import SHAPE, five_dots, read_off
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr

from replicate.errors import ReplicateError
from replicate.faces.verification import VerificationSplit, synthetic_templates
from replicate.geometry import apply_transform
from replicate.methods import recognition
from replicate.methods.baselines import MeanShape
from replicate.methods.recognition import CONFIGS, FRAME, Compared, Recogniser, RecogniserConfig

torch.set_num_threads(1)
RNG = np.random.default_rng(0)
TEMPLATE = recognition.template(torch.as_tensor(SHAPE / 40).float())  # the boxes have 40 pixels


# Alignment


def test_the_template_is_the_mean_shape_in_the_box_as_an_aligned_face_shows_it():
    np.testing.assert_allclose(TEMPLATE.numpy(), 52 / 40 * SHAPE + 31.5, rtol=1e-6)
    square = recognition.template(torch.tensor([[-0.5, -0.5], [0.5, 0.5]]))
    assert square.tolist() == [[5.5, 5.5], [57.5, 57.5]]  # 52 of the 64 pixels, in the middle


def test_found_points_come_to_lie_on_the_template_in_the_picture():
    faces = five_dots(12, jitter=0, turn=25)
    aligned = recognition.align(faces.images, faces.boxes, {"true": faces.points}, TEMPLATE)
    dots = read_off(aligned.crops(torch.arange(12), "true"))
    np.testing.assert_allclose(dots.numpy(), np.tile(TEMPLATE, (12, 1, 1)), atol=0.8)
    assert aligned.crops(torch.arange(2), "true").shape == (2, 3, 64, 64)


def test_points_of_another_form_are_brought_as_near_as_a_similarity_can():
    faces = five_dots(8, jitter=2.5)
    aligned = recognition.align(faces.images, faces.boxes, {"true": faces.points}, TEMPLATE)
    seen = apply_transform(aligned.canvases.from_image, torch.as_tensor(faces.points))
    for move, shape in zip(aligned.moves["true"].numpy(), seen.numpy(), strict=True):
        # least squares over (a, b, x, y) of the similarity, solved independently
        equations = np.concatenate(
            [np.stack([shape[:, 0], -shape[:, 1], np.ones(5), np.zeros(5)], 1),
             np.stack([shape[:, 1], shape[:, 0], np.zeros(5), np.ones(5)], 1)]
        )  # fmt: skip
        a, b, x, y = np.linalg.lstsq(equations, TEMPLATE.numpy().T.ravel(), rcond=None)[0]
        np.testing.assert_allclose(move, [[a, -b, x], [b, a, y]], atol=2e-3)


def test_the_box_alone_is_the_mean_shape_in_the_box():
    faces = five_dots(6)
    mean = MeanShape().fit(faces)
    target = recognition.template(torch.as_tensor(mean.shape_))
    points = {"box": None, "mean": mean.predict(faces.images, faces.boxes)}
    moves = recognition.align(faces.images, faces.boxes, points, target).moves
    np.testing.assert_allclose(moves["mean"], moves["box"], atol=1e-4)
    np.testing.assert_array_equal(moves["box"][0], np.eye(2, 3))


@pytest.mark.parametrize("lost", [0.0, np.nan])
def test_points_in_one_place_are_refused(lost):
    faces = five_dots(3)
    points = faces.points.copy()
    points[1] = 20 + lost
    with pytest.raises(ReplicateError, match="SDM: no similarity .* of face 1 .*1 of 3"):
        recognition.align(faces.images, faces.boxes, {"SDM": points}, TEMPLATE)


# Network


def test_shapes_and_sizes_are_those_of_alexnets_kind():
    network = Recogniser(RecogniserConfig(width=1.0, features=512), people=7).eval()
    x = torch.rand(2, 3, 64, 64)
    assert network.convolutions(x).shape == (2, 128, 4, 4)
    assert network.penultimate(x).shape == (2, 512) and network(x).shape == (2, 7)
    convolutions = [layer for layer in network.convolutions if isinstance(layer, torch.nn.Conv2d)]
    dense = [network.fc6, network.fc7, network.fc8]
    assert [layer.out_channels for layer in convolutions] == [48, 128, 192, 192, 128]
    assert (
        sum(layer.weight.numel() for layer in convolutions)
        == 9 * (48 * 128 + 128 * 192 + 192 * 192 + 192 * 128) + 25 * 3 * 48
    )
    assert [layer.in_features for layer in dense] == [2048, 512, 512]


def test_features_are_those_of_fc7_whatever_comes_with_them():
    torch.manual_seed(0)
    faces = five_dots(5)
    network = Recogniser(CONFIGS["smoke"], people=3)
    aligned = recognition.align(faces.images, faces.boxes, {"true": faces.points}, TEMPLATE)
    found = recognition.features(network, aligned, "true")
    with torch.inference_mode():
        exact = network.penultimate(aligned.crops(torch.arange(5), "true"))
    assert found.shape == (5, 64) and (found >= 0).all() and (found > 0).any()
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.02 * float(exact.max()))
    torch.testing.assert_close(recognition.features(network, aligned, "true"), found)  # nothing is dropped
    halves = [recognition.features(network, part, "true") for part in _halves(aligned)]
    torch.testing.assert_close(torch.cat(halves), found, rtol=0.02, atol=0.02 * float(exact.max()))


def _halves(aligned):
    from replicate.methods.recognition_training import chosen

    return [chosen(aligned, np.arange(0, 2)), chosen(aligned, np.arange(2, 5))]


# Features


def test_power_normalisation_is_the_signed_square_root():
    x = np.array([-9.0, -0.25, 0.0, 4.0])
    np.testing.assert_allclose(recognition.power_normalised(x), [-3, -0.5, 0, 2])
    np.testing.assert_allclose(recognition.power_normalised(x, 1.0), x)


def test_the_projection_keeps_the_papers_share_and_is_a_rotation_of_centred_features():
    assert recognition.KEPT == 4000 / 4096
    x = RNG.normal(size=(700, 512)) @ np.diag(np.linspace(1, 2, 512))
    fitted = recognition.projection(x)
    assert fitted.n_components_ == 500  # of 512, as 4,000 of 4,096
    np.testing.assert_allclose(fitted.components_ @ fitted.components_.T, np.eye(500), atol=1e-8)
    found = fitted.transform(x)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-8)
    covariance = np.cov(found.T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-8)
    # what is lost are the smallest directions of the covariance, computed independently
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    np.testing.assert_allclose(np.diag(covariance), values[:500], rtol=1e-8)
    assert recognition.projection(x[:40]).n_components_ == 39  # as many as 40 faces determine


@given(st.integers(0, 1000))
def test_correlation_is_pearsons(seed):
    x = np.random.default_rng(seed).normal(size=(6, 17))
    found = recognition.correlations(x)
    np.testing.assert_allclose(found, np.corrcoef(x), atol=1e-5)
    assert found[1, 4] == pytest.approx(pearsonr(x[1], x[4]).statistic, abs=1e-5)


def test_correlation_does_not_know_scale_or_level():
    x = RNG.normal(size=(5, 30))
    moved = x * RNG.uniform(0.1, 9, (5, 1)) + RNG.normal(size=(5, 1))
    np.testing.assert_allclose(recognition.correlations(moved), recognition.correlations(x), atol=1e-4)
    assert np.isfinite(recognition.correlations(np.zeros((2, 4)))).all()


# Fusion


def brute_force(scores, sizes, betas):
    ends = np.cumsum(sizes)
    parts = [np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    found = np.zeros((len(sizes), len(sizes)))
    for i, one in enumerate(parts):
        for j, other in enumerate(parts):
            s = [scores[a, b] for a in one for b in other]
            for beta in betas:
                weights = [np.exp(beta * value) for value in s]
                found[i, j] += sum(w * v for w, v in zip(weights, s, strict=True)) / sum(weights) / len(betas)
    return found


@given(st.integers(0, 1000))
def test_fusion_is_the_softmax_of_all_pairs_of_pictures(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, 5)
    scores = np.corrcoef(rng.normal(size=(sizes.sum(), 9)))
    found = recognition.fused(scores, sizes)
    np.testing.assert_allclose(found, brute_force(scores, sizes, range(21)), rtol=1e-9)
    np.testing.assert_allclose(found, found.T, rtol=1e-9)


def test_fusion_goes_from_the_mean_to_the_maximum():
    sizes = [2, 1, 3]
    scores = np.corrcoef(RNG.normal(size=(6, 8)))
    pairs = scores[0:2, 3:6]
    at = {beta: recognition.fused(scores, sizes, [beta])[0, 2] for beta in (0, 1, 5, 20, 400)}
    assert at[0] == pytest.approx(pairs.mean())
    assert list(at.values()) == sorted(at.values())
    assert at[400] == pytest.approx(pairs.max(), abs=1e-6)
    assert recognition.fused(scores, sizes)[1, 2] != pytest.approx(pairs.mean())
    np.testing.assert_allclose(
        recognition.fused(scores, [1] * 6), scores
    )  # a picture alone is its own template


# Acceptance


def split_of(people=9, pictures=6, seed=0):
    identity = np.repeat(np.arange(people), pictures)
    return identity, synthetic_templates(identity, seed=seed, splits=1)[0]


def test_acceptance_counts_pairs_above_the_threshold_of_the_impostors():
    similarity = np.concatenate([np.arange(100) / 100, [0.985, 0.5, 0.995, 0.9]])
    same = np.arange(104) >= 100
    compared = Compared(similarity, same)
    assert (
        compared.accepted(0.01) == 0.5
    )  # one impostor may pass, so 0.98 is the threshold: 0.985 and 0.995 pass
    assert compared.accepted(0.1) == 0.75  # and here 0.89
    stretched = Compared(np.exp(3 * similarity) - 7, same)
    assert [stretched.accepted(far) for far in (0.01, 0.1)] == [0.5, 0.75]


def test_features_that_know_people_accept_all_and_those_that_do_not_accept_few():
    identity, split = split_of(people=60)
    centres = RNG.normal(size=(60, 40))
    knowing = centres[identity] + 0.05 * RNG.normal(size=(len(identity), 40))
    guessing = RNG.normal(size=(len(identity), 40))
    assert recognition.compare(split, knowing).accepted(0.01) == 1
    assert recognition.compare(split, guessing).accepted(0.1) < 0.3
    np.testing.assert_array_equal(recognition.compare(split, guessing).same, split.same)


def test_similarities_do_not_depend_on_scale_or_on_the_numbering_of_faces():
    identity, split = split_of()
    raw = RNG.gamma(1.0, size=(len(identity), 20))
    found = recognition.compare(split, raw).similarity
    np.testing.assert_allclose(recognition.compare(split, 7 * raw).similarity, found, atol=1e-4)
    order = RNG.permutation(len(identity))
    place = np.argsort(order)
    renumbered = VerificationSplit(
        "x", place[split.train], tuple(place[one] for one in split.templates), split.pairs, split.same
    )
    np.testing.assert_allclose(recognition.compare(renumbered, raw[order]).similarity, found, atol=1e-4)


def test_only_training_faces_decide_the_projection():
    identity, split = split_of()
    raw = RNG.gamma(1.0, size=(len(identity), 20))
    found = recognition.compare(split, raw).similarity
    tested = np.concatenate(split.templates)
    nobody = np.setdiff1d(np.arange(len(identity)), np.concatenate([tested, split.train]))
    changed = raw.copy()
    changed[nobody] += 100
    np.testing.assert_array_equal(recognition.compare(split, changed).similarity, found)
    lone = split.pairs[0]
    changed = raw.copy()
    others = np.setdiff1d(tested, np.concatenate([split.templates[one] for one in lone]))
    changed[others] += 5
    assert recognition.compare(split, changed).similarity[0] == pytest.approx(found[0], abs=1e-5)


def test_settings_are_the_papers_where_it_prints_them():
    assert recognition.FARS == (0.01, 0.1)
    assert CONFIGS["gpu"].features == 4096 and round(recognition.KEPT * 4096) == 4000
    assert FRAME.size == 64
