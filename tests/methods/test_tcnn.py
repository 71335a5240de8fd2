"""TCNN against the paper: the shapes of Fig. 2, Eq. 1 to 4, clusters against scikit-learn, heads against loops, mirror images."""

import csv
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from torch.nn import functional

from replicate.errors import ReplicateError
from replicate.methods import tcnn
from replicate.methods.tcnn import LEVELS, SPLITS, Heads, Mixture, TCNNConfig, Tweaked, Vanilla
from replicate.paths import published_dir

torch.set_num_threads(1)
WIDTHS = {"CL4": 576, "FC5": 256}


def network(seed=0):
    torch.manual_seed(seed)
    made = Vanilla()
    made.mean, made.std = torch.rand(3, 40, 40), 0.2 + torch.rand(3, 40, 40) / 10
    for layer in made.layers:
        torch.nn.init.normal_(layer.bias, std=0.1)
    return made.requires_grad_(False)


def crops(count=6, seed=0):
    return torch.rand(count, 3, 40, 40, generator=torch.Generator().manual_seed(seed))


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def groups(count=400, dimension=12, clusters=5, seed=0):
    """Features in clouds of different sizes and widths."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((clusters, dimension))
    widths = rng.uniform(0.2, 1.5, (clusters, dimension))
    which = rng.choice(clusters, count, p=np.arange(1, clusters + 1) / sum(range(clusters + 1)))
    return torch.from_numpy(centres[which] + widths[which] * rng.standard_normal((count, dimension))).float()


def different_heads(clusters=4, split="FC5", seed=0):
    """Heads that have parted from the vanilla weights."""
    heads = Heads(network(seed), clusters, split)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return heads


def tweaked(split="FC5", clusters=4):
    net = network()
    features = torch.cat([net.features(crops(40, seed), split) for seed in range(2)])
    mixture = Mixture.fit(features, clusters, 0)
    return Tweaked(net, mixture, different_heads(clusters, split).requires_grad_(False))


# §2.1 Vanilla network design


def printed_shapes():
    with open(published_dir() / "values" / "tcnn.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["artefact"] == "TCNN-F2"]
    return {
        row["setting"]: tuple(int(side) for side in row["value"].split("×"))
        for row in rows
        if row["metric"] == "output shape"
    }


def plain_levels(net, x):
    """Fig. 2 as one writes it down: convolution, tanh, absolute value, pooling."""
    x = (x - net.mean) / net.std
    found = {"input": x}
    for name, layer in zip(("CL1", "CL2", "CL3", "CL4"), net.layers, strict=False):
        x = functional.conv2d(x, layer.weight, layer.bias).tanh().abs()
        found[name] = x = functional.max_pool2d(x, 2, 2) if name != "CL4" else x
    x = (x.reshape(len(x), -1) @ net.fc5.weight.T + net.fc5.bias).tanh().abs()
    return found | {"FC5": x, "FC6": x @ net.fc6.weight.T + net.fc6.bias}


def test_all_shapes_are_those_of_fig_2():
    """And in the order that Fig. 2 has them: height, width, channels."""
    found = {name: x.shape[1:] for name, x in plain_levels(network(), crops(2)).items()}
    assert found.pop("FC6") == (10,)
    shapes = {
        name: (*shape[1:], shape[0]) if len(shape) == 3 else (1, *shape) for name, shape in found.items()
    }
    assert shapes == printed_shapes()
    entering = dict(zip(LEVELS, printed_shapes().values(), strict=False))
    levels = {name: x.shape[1:] for name, x in network().levels(crops(2))}
    assert {name: (*sides, channels) for name, (channels, *sides) in levels.items()} == entering
    sizes = {name: network().features(crops(2), name).shape[1] for name in LEVELS}
    assert sizes == {name: math.prod(shape) for name, shape in entering.items()}


def test_there_are_79046_parameters():
    counts = [sum(p.numel() for p in layer.parameters()) for layer in Vanilla().layers]
    assert counts == [1216, 6960, 27712, 16448, 25700, 1010] and sum(counts) == 79_046
    assert sum(p.numel() for p in Vanilla().parameters()) == 79_046


def test_the_network_is_the_plain_one():
    net = network().double()
    expected, found = plain_levels(net, crops().double()), dict(net.levels(crops().double()))
    for level, before in zip(LEVELS, ("input", *LEVELS), strict=False):
        torch.testing.assert_close(found[level], expected[before], atol=1e-12, rtol=0)
    shapes = tcnn.to_shapes(expected["FC6"])
    rounded = network()(crops())
    assert rounded.shape == (6, 5, 2) and rounded.dtype == torch.float32
    assert (rounded - shapes).abs().max() < 0.6 and shapes.std() > 5  # bfloat16, in pixels


def test_features_are_rounded_levels():
    net = network()
    for level, maps in net.levels(crops()):
        found, exact = net.features(crops(), level), maps.flatten(1)
        assert found.dtype == torch.float32
        assert (found - exact).abs().mean() < 0.01 * exact.abs().mean()
    assert torch.equal(net.features(crops(), "FC5"), net.features(crops()))
    with pytest.raises(ReplicateError, match="level: got 'FC6'"):
        net.features(crops(), "FC6")


def test_crops_lose_the_mean_image_and_are_divided_by_the_deviation():
    net = network()
    assert (net.normalised(net.mean[None] + 2 * net.std) - 2).abs().max() < 1e-5
    state = net.state_dict()
    assert {"mean", "std"} <= set(state) and state["mean"].shape == (3, 40, 40)


def test_the_activation_is_the_absolute_hyperbolic_tangent():
    x = torch.tensor([-1.0, 0.0, 0.5, 20.0])
    assert tcnn.absolute_tanh(x).tolist() == pytest.approx([math.tanh(1), 0, math.tanh(0.5), 1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_pooling_first_gives_what_pooling_last_gives_to_the_bit(dtype):
    x = 3 * random(4, 16, 36, 36).to(dtype)
    assert torch.equal(tcnn.pooled(x), functional.max_pool2d(x.tanh().abs(), 2, 2))


def test_pooling_first_has_the_same_gradient():
    x = random(2, 3, 8, 8, dtype=torch.float64).requires_grad_()
    weight = random(2, 3, 4, 4, seed=1, dtype=torch.float64)
    short, plain = (
        torch.autograd.grad((weight * y).sum(), x)[0]
        for y in (tcnn.pooled(x), functional.max_pool2d(x.tanh().abs(), 2, 2))
    )
    torch.testing.assert_close(short, plain, atol=1e-14, rtol=0)
    assert torch.autograd.gradcheck(tcnn.pooled, random(1, 2, 4, 4, dtype=torch.float64).requires_grad_())


def test_outputs_are_sides_of_the_crop_from_its_middle():
    outputs = torch.tensor([0, 0, 0.5, -0.5, 0, 0.25, 0, 0, 0, 0])
    shape = tcnn.to_shapes(outputs)
    assert shape.shape == (5, 2)
    assert shape[:3].tolist() == [[19.5, 19.5], [39.5, -0.5], [19.5, 29.5]]


def test_equation_1_by_hand():
    true = torch.tensor([[[10.0, 10], [22, 5], [16, 16], [11, 24], [20, 25]]])
    found = true + torch.tensor([[[3.0, 4], [0, 0], [0, -2], [1, 1], [0, 0]]])
    assert tcnn.loss(found, true).tolist() == pytest.approx([(25 + 4 + 2) / (144 + 25)])
    assert tcnn.loss(true, true).item() == 0
    both = tcnn.loss(torch.stack([found, true]), torch.stack([true, true]))
    assert both.shape == (2, 1) and both[1] == 0


def test_equation_1_does_not_depend_on_size_place_or_turn():
    true, found = (5 * random(7, 5, 2, seed=seed, dtype=torch.float64) for seed in range(2))
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    moved = [3 * shapes @ turn.T + 11 for shapes in (found, true)]
    torch.testing.assert_close(tcnn.loss(*moved), tcnn.loss(found, true))


def test_the_gradient_of_equation_1():
    true = 5 * random(3, 5, 2, dtype=torch.float64)
    found = (true + random(3, 5, 2, seed=1, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda shapes: tcnn.loss(shapes, true), found)
    (slope,) = torch.autograd.grad(tcnn.loss(found, true).sum(), found)
    eyes = (true[:, 0] - true[:, 1]).square().sum(-1)[:, None, None]
    torch.testing.assert_close(slope, 2 * (found.detach() - true) / eyes)


def test_a_batch_is_learnt_by_heart():
    """All of the network, by gradients in bfloat16."""
    torch.manual_seed(0)
    net = Vanilla().to(memory_format=torch.channels_last)
    seen = crops(8)
    net.mean, net.std = seen.mean(0), seen.std(0)
    true = tcnn.to_shapes(0.25 * random(8, 10))
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-4)
    for _ in range(120):
        optimiser.zero_grad()
        (net(seen) - true).square().mean().backward()
        optimiser.step()
    error = (net(seen) - true).norm(dim=-1).mean().item()
    assert error < 0.5 and (true - true.mean(0)).norm(dim=-1).mean() > 5  # pixels


# §2.2 What is the network learning?


@pytest.mark.parametrize("covariance", tcnn.COVARIANCES)
def test_clusters_are_those_of_scikit_learn(covariance):
    learnt, others = groups(seed=0), groups(seed=0)[:100] + 0.3
    mixture = Mixture.fit(learnt, 5, 3, covariance=covariance)
    model = GaussianMixture(
        5, covariance_type=covariance, init_params="k-means++", random_state=3, max_iter=200
    )
    model.fit(learnt.numpy())
    for features in (learnt, others):
        assert mixture.assign(features).tolist() == model.predict(features.numpy()).tolist()
    assert len(mixture) == 5 and mixture.assign(learnt).unique().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("covariance", tcnn.COVARIANCES)
def test_densities_are_those_of_normal_distributions(covariance):
    features = groups(60)
    mixture = Mixture.fit(features, 3, 0, covariance=covariance)
    weights, means, variances = (
        part.double().numpy() for part in (mixture.log_weights.exp(), mixture.means, mixture.variances)
    )
    x = features.double().numpy()
    densities = [
        np.log(weight) + multivariate_normal(mean, np.diag(variance)).logpdf(x)
        for weight, mean, variance in zip(weights, means, variances, strict=True)
    ]
    np.testing.assert_allclose(mixture.log_joint(features), np.stack(densities, 1), rtol=1e-3, atol=1e-2)
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    alike = (variances == variances[:, :1]).all()
    assert alike == (covariance == "spherical")


def test_k_means_assigns_to_the_nearest_mean():
    features, others = groups(), groups(seed=1)
    mixture = Mixture.fit(features, 6, 2, clustering="k-means")
    model = KMeans(6, random_state=2).fit(features.numpy())
    assert mixture.assign(others).tolist() == torch.cdist(others, mixture.means).argmin(1).tolist()
    assert mixture.assign(features).tolist() == model.labels_.tolist()


def test_components_are_independent_of_the_order_of_features_and_of_what_they_are_assigned_with():
    features = groups()
    mixture = Mixture.fit(features, 4, 0)
    some = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:50]
    assert torch.equal(mixture.assign(features)[some], mixture.assign(features[some]))


def test_the_seed_decides_the_clusters():
    features = torch.rand(200, 8, generator=torch.Generator().manual_seed(0))
    one, same, other = (Mixture.fit(features, 6, seed) for seed in (0, 0, 1))
    assert torch.equal(one.means, same.means) and not torch.equal(one.means, other.means)


def test_a_mixture_is_kept_exactly():
    mixture = Mixture.fit(groups(), 4, 0, covariance="diag")
    kept = mixture.tensors()
    again = Mixture.of(kept).to("cpu")
    for name in ("log_weights", "means", "variances"):
        assert torch.equal(getattr(again, name), getattr(mixture, name))
    assert all(value.ndim not in (2, 4) for value in kept.values())  # which the store would round


def test_clusters_need_faces_and_finite_features():
    with pytest.raises(ReplicateError, match="clusters: got 5 for 4 faces, expected at most one per face"):
        Mixture.fit(torch.rand(4, 3), 5, 0)
    features = torch.rand(9, 3)
    features[4, 1] = math.nan
    with pytest.raises(ReplicateError, match="features: some are not finite"):
        Mixture.fit(features, 2, 0)


def test_equation_3_by_hand():
    """Along the diagonal in the first cluster; one face alone has no variance, and none no cluster."""
    shapes = np.zeros((5, 2, 2))
    shapes[:3, 0] = [[-1, -1], [0, 0], [1, 1]]
    shapes[:3, 1] = [[0, 5], [0, 7], [0, 9]]
    found = tcnn.principal_variances(shapes, np.array([0, 0, 0, 1, 3]), 4)
    assert found.shape == (4, 2) and found[0] == pytest.approx([4 / 3, 8 / 3])
    assert np.isnan(found[1:]).all()


def test_principal_variances_are_those_of_a_singular_value_decomposition():
    rng = np.random.default_rng(0)
    shapes, cluster = rng.normal(size=(60, 5, 2)) * [3, 1], rng.integers(0, 3, 60)
    found = tcnn.principal_variances(shapes, cluster, 3)
    for k in range(3):
        for j in range(5):
            own = shapes[cluster == k, j]
            largest = np.linalg.svd(own - own.mean(0), compute_uv=False)[0]
            assert found[k, j] == pytest.approx(largest**2 / len(own))


def test_principal_variances_do_not_depend_on_the_axes():
    rng = np.random.default_rng(1)
    shapes, cluster = rng.normal(size=(40, 5, 2)), rng.integers(0, 2, 40)
    turned = 4 * shapes @ np.array([[0.6, -0.8], [0.8, 0.6]]) + 3
    found, expected = (tcnn.principal_variances(one, cluster, 2) for one in (turned, shapes))
    np.testing.assert_allclose(found, 16 * expected)


def test_equation_4_by_hand():
    labels = np.array([[1, 0], [0, 0], [1, 1], [1, 1], [0, 1], [0, 1]])
    found = tcnn.attribute_variances(labels, np.array([0, 0, 0, 0, 2, 2]), 3)
    assert found.shape == (3, 2) and np.isnan(found[1]).all()
    assert found[0] == pytest.approx([0.75 * 0.25, 0.25]) and found[2] == pytest.approx([0, 0])
    assert found[0] == pytest.approx(labels[:4].var(0))


# §3.1 Tweaking by fine-tuning


@pytest.mark.parametrize("split", SPLITS)
def test_heads_begin_as_the_vanilla_network(split):
    net = network()
    heads, entering = Heads(net, 3, split), dict(net.levels(crops()))[split].flatten(1)
    expected = tcnn.to_shapes(plain_levels(net, crops())["FC6"])
    found = heads(entering.expand(3, -1, -1))
    assert found.shape == (3, 6, 5, 2) and len(heads) == 3
    for shapes in found:
        torch.testing.assert_close(shapes, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("split", SPLITS)
def test_heads_have_the_dimensions_of_the_original_layers(split):
    heads = Heads(network(), 7, split)
    own = 25_700 + 1_010 + (16_448 if split == "CL4" else 0)
    assert sum(parameter.numel() for parameter in heads.parameters()) == 7 * own
    assert all(
        parameter.is_contiguous() for parameter in heads.parameters()
    )  # Adam's moments are read back as such
    assert all(parameter.requires_grad for parameter in heads.parameters())  # of a network that is frozen


@pytest.mark.parametrize("split", SPLITS)
def test_each_head_has_its_own_weights(split):
    net, heads = network(), different_heads(3, split)
    features = net.features(crops(), split).expand(3, -1, -1)
    found = heads(features)
    for k in range(3):
        alone = Heads(net, 1, split)
        alone.load_state_dict({name: value[k : k + 1] for name, value in heads.state_dict().items()})
        torch.testing.assert_close(alone(features[:1])[0], found[k], atol=1e-4, rtol=0)
        torch.testing.assert_close(heads(features[:1], slice(k, k + 1))[0], found[k], atol=1e-4, rtol=0)
    chosen = torch.tensor([2, 0])
    torch.testing.assert_close(heads(features[:2], chosen), found[chosen], atol=1e-4, rtol=0)
    assert (found[0] - found[1]).abs().max() > 0.1


@pytest.mark.parametrize("split", SPLITS)
def test_the_gradient_of_one_head_is_none_of_the_others(split):
    heads, width = different_heads(4, split), WIDTHS[split]
    features, true = random(4, 5, width), tcnn.to_shapes(random(4, 5, 10, seed=1))
    together = torch.autograd.grad(tcnn.loss(heads(features), true).sum(), list(heads.parameters()))
    for k in range(4):
        one = tcnn.loss(heads(features)[k], true[k]).sum()
        for alone, of_sum in zip(torch.autograd.grad(one, list(heads.parameters())), together, strict=True):
            torch.testing.assert_close(alone[k], of_sum[k], atol=1e-4, rtol=1e-4)
            assert alone[k].abs().max() > 0
            assert not alone[[other for other in range(4) if other != k]].any()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("cluster", [[0, 0, 0, 0, 0, 0], [3, 1, 3, 0, 1, 3], [2, 1, 0, 3, 2, 1]])
def test_faces_go_to_the_heads_of_their_clusters(split, cluster):
    heads, features = different_heads(4, split), random(6, WIDTHS[split])
    found = heads.routed(features, torch.tensor(cluster))
    for row, k in enumerate(cluster):
        alone = heads(features[row][None, None], slice(k, k + 1))[0, 0]
        torch.testing.assert_close(found[row], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("split", SPLITS)
def test_a_tweaked_network_is_features_clusters_and_heads(split):
    model, x = tweaked(split), crops(12, seed=5)
    features = model.network.features(x, split)
    cluster = model.mixture.assign(features)
    expected = torch.stack([
        model.heads(one[None, None], slice(k, k + 1))[0, 0] for one, k in zip(features, cluster.tolist(), strict=True)
    ])  # fmt: skip
    torch.testing.assert_close(model(x), expected, atol=1e-4, rtol=0)
    assert len(cluster.unique()) > 1


@pytest.mark.parametrize("split", SPLITS)
def test_without_fine_tuning_a_tweaked_network_is_the_vanilla_one(split):
    model = tweaked(split)._replace(heads=Heads(network(), 4, split).requires_grad_(False))
    assert (model(crops()) - network()(crops())).abs().max() < (0.6 if split == "CL4" else 1e-3)


def test_mirroring_twice_is_nothing():
    shapes = 40 * torch.rand(5, 5, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(tcnn.mirror_shapes(tcnn.mirror_shapes(shapes)), shapes)
    once = tcnn.mirror_shapes(shapes)[0].tolist()
    assert once[0] == pytest.approx([39 - shapes[0, 1, 0].item(), shapes[0, 1, 1].item()])
    assert once[2] == pytest.approx([39 - shapes[0, 2, 0].item(), shapes[0, 2, 1].item()])
    assert once[3] == pytest.approx([39 - shapes[0, 4, 0].item(), shapes[0, 4, 1].item()])


@pytest.mark.parametrize("model", [network(), tweaked(), tweaked("CL4")], ids=["vanilla", "FC5", "CL4"])
def test_the_average_with_the_mirror_image_mirrors_with_the_crop(model):
    x = crops(9, seed=3)
    found, mirrored = (tcnn.mirrored_average(model, one) for one in (x, x.flip(-1)))
    torch.testing.assert_close(mirrored, tcnn.mirror_shapes(found), atol=1e-3, rtol=0)
    both = [model(x), tcnn.mirror_shapes(model(x.flip(-1)))]
    torch.testing.assert_close(found, torch.stack(both).mean(0), atol=1e-3, rtol=0)
    assert (both[0] - both[1]).abs().max() > 0.5  # alone it does not


def test_a_crop_and_its_mirror_image_may_belong_to_different_clusters():
    model = tweaked()
    x = crops(64, seed=4)
    clusters = [model.mixture.assign(model.network.features(one)) for one in (x, x.flip(-1))]
    assert (clusters[0] != clusters[1]).any()


def test_predictions_do_not_depend_on_the_batches():
    model, x = tweaked(), crops(20)
    whole = tcnn.predict(model, x)
    torch.testing.assert_close(tcnn.predict(model, iter(x.split(7))), whole, atol=0.3, rtol=0)  # bfloat16
    assert torch.equal(tcnn.predict(model, x, mirror=False), model(x)) and whole.shape == (20, 5, 2)


# Configuration


@pytest.mark.parametrize(
    ("field", "wrong", "near"),
    [
        ("clustering", "kmeans", "k-means"),
        ("covariance", "diagonal", "diag"),
        ("split", "FC6", "FC5"),
        ("augmentation", "aligned, own label", "aligned, own labels"),
    ],
)
def test_an_unknown_word_names_the_nearest(field, wrong, near):
    with pytest.raises(ReplicateError, match=f"{field}: got '{wrong}'.*Did you mean '{near}'"):
        TCNNConfig(**{field: wrong})


def test_what_the_paper_prints_is_what_is_configured():
    config = TCNNConfig()
    assert (config.clusters, config.images, config.patience, config.clustering) == (48, 5000, 50, "GMM")
    assert (config.split, config.augmentation, config.vanilla.warps) == ("FC5", "aligned", 0)
    assert tcnn.ANALYSED["cpu"] == 64 and tcnn.LANDMARKS == 5 and tcnn.SIDE == 40
    assert {profile: made.clusters for profile, made in tcnn.CONFIGS.items() if profile != "smoke"} == {
        "cpu": 48, "gpu": 48
    }  # fmt: skip
