"""LDDR against the paper: Table 1 and receptive fields, the network against Caffe's layers in torch, patches, features, the cascade, Eq. 3."""

import csv
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from toy_faces import toy_faces

from replicate.errors import ReplicateError
from replicate.faces.faceset import FaceSet
from replicate.methods import lddr
from replicate.methods.lddr import (
    ALEXNET,
    CONFIGS,
    FACE,
    LDDR,
    STAGES,
    DeepFeatures,
    Descriptor,
    Form,
    LDDRConfig,
    training_crops,
)
from replicate.paths import published_dir

torch.set_num_threads(1)
PLAIN = replace(CONFIGS["smoke"], augmentation="none", penalty=1e-2)
FIVE = np.array([[-40, -30], [38, -31], [2, 10], [-28, 45], [30, 44]])  # eyes, nose and mouth of a drawn face
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]])


def network(width=1 / 16, seed=0):
    torch.manual_seed(seed)
    return Descriptor(width).eval()


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def dots(count=8, seed=0):
    """Faces whose five landmarks are squares of five colours, in boxes of 224 pixels."""
    rng = np.random.default_rng(seed)
    points = 150 + FIVE + rng.integers(-12, 13, (count, 5, 2))
    images = np.full((count, 300, 300, 3), 30, np.uint8)
    for image, shape in zip(images, points, strict=True):
        for (x, y), colour in zip(shape, COLOURS, strict=True):
            image[y - 3 : y + 4, x - 3 : x + 4] = colour
    boxes = np.tile(np.float32([150 - 112, 150 - 112, 150 + 112, 150 + 112]), (count, 1))
    return FaceSet(
        images, points.astype(np.float32), np.ones((count, 5), bool), boxes, tuple(map(str, range(count))),
        "mtfl5", "drawn", "train", "synthetic", "made by the test",
    )  # fmt: skip


def offsets(crops, points, form):
    """Features that know the answer: from each point to the middle of the pixels of its landmark's colour."""
    found = []
    for crop, places in zip(crops.float(), points, strict=True):
        is_near = [
            (crop - torch.tensor(colour)).abs().sum(-1) < 120 for colour in COLOURS
        ]  # edges are blurred
        middles = torch.stack([near.nonzero().float().mean(0).flip(0) for near in is_near])
        found.extend((middles - places.view(-1, 5, 2)).flatten(1))
    return torch.stack(found)


# §3.1 Table 1


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_stages_are_those_of_table_1(stage):
    with open(published_dir() / "values" / "lddr.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["artefact"] == "LDDR-T1"]
    printed = {row["setting"]: int(row["value"]) for row in rows if row["variant"] == f"stage {stage}"}
    form = STAGES[stage - 1]
    strides = {name: getattr(form, name) for name in ("conv1", "max1", "conv2", "max2")}
    assert strides | {"network input side": form.input} == printed
    assert set(form.padding) == {0} and form.pool_padding == 1
    assert LDDRConfig().forms[stage - 1] is form


@pytest.mark.parametrize("form", STAGES)
def test_each_stage_ends_in_one_pixel_of_256_channels(form):
    found = network()(torch.zeros(2, 3, form.input, form.input), form)
    assert found.shape == (2, 256, 1, 1)


def test_the_legal_sides_are_those_of_caffes_rounding():
    legal = [[side for side in range(15, 130) if form.sides(side)["conv5"] == 1] for form in STAGES]
    assert [(found[0], found[-1]) for found in legal] == [(87, 94), (68, 73), (41, 44), (21, 21)]
    assert STAGES[3].sides() == dict(conv1=11, max1=11, conv2=7, max2=7, conv3=5, conv4=3, conv5=1)


@pytest.mark.parametrize("form", [*STAGES, ALEXNET, Form(60, 3, 2, 1, 3, padding=(1, 2, 0, 1, 1))])
def test_sides_are_those_that_torch_finds(form):
    for side in range(form.input, form.input + 25):
        x = torch.zeros(1, 1, side, side)
        for name, kernel, stride, padding in form.layers:
            if name.startswith("conv"):
                x = nn.functional.conv2d(x, torch.zeros(1, 1, kernel, kernel), None, stride, padding)
            else:
                x = nn.functional.max_pool2d(x, kernel, stride, padding, ceil_mode=True)
            assert form.sides(side)[name] == x.shape[-1]


def test_receptive_fields():
    """The paper's 195 pixels are those of pool5, which it takes away; its 21 are the input, where padding cuts the field short."""
    assert ALEXNET.receptive_field() == 163
    assert ALEXNET.receptive_field() + (3 - 1) * 16 == 195  # pool5 has a kernel of 3 at steps of 16
    assert [form.receptive_field() for form in STAGES] == [115, 89, 51, 25]
    assert ALEXNET.receptive_field("conv1") == 11 and STAGES[3].receptive_field("max2") == 19
    with pytest.raises(ReplicateError, match="layer: got 'pool5', expected one of conv1, max1, conv2"):
        ALEXNET.receptive_field("pool5")


@pytest.mark.parametrize("form", STAGES)
def test_a_descriptor_depends_on_its_whole_patch_and_nothing_is_wasted(form):
    """All but the last pixels, which strides of more than one may leave out."""
    image = torch.randn(1, 3, form.input, form.input, requires_grad=True)
    for seed in range(3):
        network(seed=seed)(50 * image, form).sum().backward()
    seen = image.grad.abs().sum((0, 1)) > 0
    used = form.input - (form.input - 11) % form.conv1
    assert seen[:used, :used].float().mean() > 0.98 and not seen[used:].any() and not seen[:, used:].any()


# §3.1 The network


def test_parameters_are_those_of_alexnets_convolutions():
    with torch.device("meta"):
        full = Descriptor()
    assert [sum(p.numel() for p in layer.parameters()) for layer in full.children()] == [
        34_944, 307_456, 885_120, 663_936, 442_624,
    ]  # fmt: skip
    assert Descriptor(1 / 4).conv5.out_channels == 256 and Descriptor(1 / 4).conv1.out_channels == 24


@pytest.mark.parametrize("form", [STAGES[0], STAGES[3], ALEXNET])
def test_the_network_is_caffes_layer_by_layer(form):
    """Convolution, ReLU, pooling and then normalisation, as in Caffe's reference network, which R-CNN has."""
    net = network().double()
    layers = list(net.children())
    for layer, stride, padding in zip(layers, (form.conv1, form.conv2, 1, 1, 1), form.padding, strict=True):
        layer.stride, layer.padding = (stride, stride), (padding, padding)
    pools = [
        nn.Sequential(
            nn.MaxPool2d(3, stride, form.pool_padding, ceil_mode=True), nn.LocalResponseNorm(5, 1e-4, 0.75)
        )
        for stride in (form.max1, form.max2)
    ]
    relu = nn.ReLU()
    x = 100 * torch.randn(2, 3, form.input, form.input).double()
    expected = nn.Sequential(
        layers[0], relu, pools[0], layers[1], relu, pools[1], layers[2], relu, layers[3], relu, layers[4], relu
    )(x)  # fmt: skip
    torch.testing.assert_close(net(x, form), expected)
    assert (expected > 0).any()


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_local_response_normalisation_is_torchs(kind):
    x = (300 * torch.randn(2, 12, 5, 6, generator=torch.Generator().manual_seed(0)).relu()).to(kind)
    expected = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)(x.double())
    tolerance = dict(rtol=1e-10, atol=0) if kind == torch.float64 else dict(rtol=0.02, atol=0.1)
    torch.testing.assert_close(lddr.normalised(x).double(), expected, **tolerance)


def test_a_norm_comes_between_convolution_and_relu():
    halves = [nn.Identity()] * 4 + [nn.Threshold(0.5, 7.0)]
    x = torch.randn(1, 3, 21, 21)
    plain, found = network()(x, STAGES[3]), network()(x, STAGES[3], halves)
    assert ((plain <= 0.5) == (found == 7.0)).all() and (found == 7.0).any()


def test_colours_are_centred_exactly():
    values = torch.arange(256, dtype=torch.uint8)[:, None].expand(256, 3)
    for kind in (torch.float32, torch.bfloat16):
        assert torch.equal(
            lddr.centred(values, kind).double(), values.double() - torch.tensor([123, 117, 104])
        )


def test_the_map_of_an_image_is_that_of_each_of_its_parts():
    """Position independence: what is moved in the image moves in the map. And where nothing is pooled beyond its border, a patch has
    the descriptor that the map has."""
    net = network().double()
    image = torch.randn(3, 50, 44).double() * 50
    whole = lddr.descriptor_map(net, image)
    assert whole.shape == (256, 30, 24)
    part = lddr.descriptor_map(net, image[:, 7:, 5:])
    torch.testing.assert_close(
        part[:, 2:, 2:], whole[:, 9:, 7:]
    )  # the outer two see the padding of the pools
    patch = image[:, 20:41, 10:31]
    torch.testing.assert_close(lddr.descriptor_map(net, patch), net(patch[None], STAGES[3])[0])


def test_a_descriptor_of_the_map_sees_25_pixels():
    image = torch.randn(3, 60, 60, requires_grad=True)
    lddr.descriptor_map(network(), 50 * image)[:, 20, 20].sum().backward()  # pixel 30
    rows = (image.grad.abs().sum((0, 2)) > 0).nonzero().flatten()
    assert (rows.min(), rows.max()) == (30 - 12, 30 + 12)


# §3.2 Patches and features


@pytest.mark.parametrize("side", [21, 42, 92])
def test_patches_are_cut_around_their_points_and_repeat_the_last_pixels(side):
    crops = noise(2, 60, 60, 3)
    points = torch.tensor([[[30.0, 31], [0, 0], [59, 2.4]], [[-7.3, 80], [12.2, 58.9], [500, -500]]])
    found = lddr.cut_patches(crops, points, side)
    assert found.shape == (6, 3, side, side)
    places = [(crop, point) for crop, row in zip(crops, points, strict=True) for point in row]
    for patch, (crop, point) in zip(found, places, strict=True):
        padded = np.pad(crop.numpy(), [(side, side), (side, side), (0, 0)], mode="edge")
        left, top = (point - (side - 1) / 2).round().clamp(-side, 60).int().tolist()
        expected = padded[top + side : top + 2 * side, left + side : left + 2 * side]
        np.testing.assert_array_equal(patch.movedim(0, -1), expected)


def test_the_middle_of_a_patch_is_its_point():
    crop = torch.zeros(1, 60, 60, 1)
    crop[0, 20, 33] = 1
    odd = lddr.cut_patches(crop, torch.tensor([[[33.4, 19.6]]]), 21)[0, 0]
    assert odd.argmax() == 10 * 21 + 10
    even = lddr.cut_patches(crop, torch.tensor([[[33.4, 19.6]]]), 42)[0, 0]
    assert even.nonzero().tolist() == [[21, 20]]  # the middle, 20.5, lies at 33.5 and 19.5


def test_features_of_many_faces_are_those_of_each_patch():
    net = network().double()
    crops, points = noise(3, 80, 80, 3), 20 + 40 * torch.rand(3, 4, 2)
    found = DeepFeatures(net, torch.float64)(crops, points, STAGES[2])
    assert found.shape == (3, 4 * 256)
    patch = lddr.cut_patches(crops[1:2].double(), points[1:2, 2:3], 42) - torch.tensor([123, 117, 104]).view(
        3, 1, 1
    )
    torch.testing.assert_close(found[1].view(4, 256)[2], net(patch, STAGES[2]).flatten())
    rough = DeepFeatures(net)(crops, points, STAGES[2])
    assert rough.dtype == torch.bfloat16
    assert (rough.double() - found).norm() < 0.02 * found.norm()
    assert net.conv1.weight.dtype == torch.float64  # the network that was handed over stays as it is


@pytest.mark.parametrize(("name", "length"), [("SIFT", 128), ("HOG", 324)])
def test_hand_crafted_features_see_their_patch_alone(name, length):
    features = lddr.HAND_CRAFTED[name]
    crops, points = noise(2, 120, 120, 3), torch.tensor([[[60.0, 55], [52, 70]]]).expand(2, 2, 2)
    found = features(crops, points, STAGES[2])
    assert found.shape == (2, 2 * length)
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[0, :length], found[0, length:])
    outside = crops.clone()
    reach = {"SIFT": 45, "HOG": 22}[name]  # SIFT's corners, half a bin for interpolation, and its blur
    outside[:, : 55 - reach], outside[:, 55 + reach :] = 0, 0
    torch.testing.assert_close(features(outside, points[:, :1], STAGES[2])[0], found[0, :length])
    moved, places = torch.roll(crops, (4, 8), (1, 2)), points[:, :1] + torch.tensor([8.0, 4])
    torch.testing.assert_close(features(moved, places, STAGES[2])[0], found[0, :length])


def test_the_window_of_sift_is_as_large_as_the_patch():
    """A bright disc in one of its 4 x 4 cells is found there: a cell is a quarter of the patch."""
    for side in (92, 42):
        crop = np.zeros((1, 200, 200, 3), np.uint8)
        cell = (np.array([0, 3]) + 0.5 - 2) * side / 4  # column 0, row 3
        cv2.circle(crop[0], tuple(np.round(100 + cell).astype(int).tolist()), side // 12, (255,) * 3, -1)
        found = lddr.sift_features(
            torch.from_numpy(crop), torch.full((1, 1, 2), 100.0), STAGES[[92, 68, 42].index(side)]
        )
        histogram = found.float().view(4, 4, 8).sum(-1)
        assert histogram.argmax() == 4 * 3 + 0 and histogram[3, 0] > 0.5 * histogram.sum()


def test_hog_is_opencvs():
    crops, points = noise(1, 100, 100, 3), torch.full((1, 1, 2), 49.5)
    grey = cv2.cvtColor(crops[0, 4:96, 4:96].numpy(), cv2.COLOR_RGB2GRAY)
    hog = cv2.HOGDescriptor((32, 32), (16, 16), (8, 8), (8, 8), 9)
    expected = hog.compute(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA))
    np.testing.assert_allclose(lddr.hog_features(crops, points, STAGES[0])[0], expected, atol=1e-3)


# §3.3 The cascade


@pytest.mark.parametrize("solver", lddr.SOLVERS)
def test_a_cascade_solves_a_problem_that_is_linear(solver):
    """From features that hold the answer it learns to take it, in box sides, and is there after one stage."""
    faces = dots(16)  # of which the steps from one to another span all ten dimensions
    config = replace(PLAIN, starts=6, solver=solver, tolerance=1e-8)
    model = LDDR(config, offsets).fit(faces)
    torch.testing.assert_close(model.weights_[0], torch.eye(10) / FACE, atol=2e-5, rtol=0)
    paths = model.predict(faces.images, faces.boxes)
    assert paths.shape == (3, 1, 16, 5, 2)
    truth = torch.as_tensor(faces.points)
    assert (paths[0, 0] - truth).norm(dim=-1).mean() > 5
    assert (paths[1:, 0] - truth).norm(dim=-1).max() < 0.05
    new = dots(seed=1)
    far = torch.full((2, 5, 2), 0.2)
    paths = model.predict(new.images, new.boxes, far)
    assert paths.shape == (3, 2, 8, 5, 2)
    assert (paths[2] - torch.as_tensor(new.points)).norm(dim=-1).max() < 0.5


def test_shapes_are_measured_in_box_sides():
    """The mean shape lies in a box as it does in those of the training faces, whatever their sizes and the images' colours."""
    faces = dots()
    model = LDDR(replace(PLAIN, stages=(4,)), offsets).fit(faces)
    mean = (faces.points.mean(0) - 150) / 224
    torch.testing.assert_close(model.initial_, torch.as_tensor(mean), atol=1e-5, rtol=0)
    box = np.float32([[20, 40, 132, 152]])
    start = model.predict([faces.images[0][..., 0]], box, model.initial_[None])[0, 0, 0]
    np.testing.assert_allclose(start, mean * 112 + [76, 96], atol=1e-3)


@pytest.mark.parametrize("faces", [dots(3), toy_faces(3, box_noise=2.0)], ids=["dots", "spiral"])
def test_a_cascade_of_deep_descriptors_learns_a_few_faces_by_heart(faces):
    """From the shapes of the other faces, from which it was trained to go."""
    config = replace(PLAIN, stages=(1, 2, 3, 4), starts=8, penalty=1.0)
    model = LDDR(config, DeepFeatures(network())).fit(faces)
    paths = model.predict(faces.images, faces.boxes, model.examples_)
    errors = (paths - torch.as_tensor(faces.points)).norm(dim=-1).mean(-1)  # (5, 3, 3)
    others = errors[0] > 0.1
    assert others.sum() == 6
    assert (errors[4][others] < 0.1 * errors[0][others]).all()


def test_small_parts_give_the_same_as_one(monkeypatch):
    faces, config = dots(7), replace(PLAIN, augmentation="mirrored and turned")

    def run():
        model = LDDR(config, DeepFeatures(network(), torch.float32)).fit(faces)
        return model.predict(faces.images, faces.boxes)

    whole = run()
    monkeypatch.setattr(lddr, "_CHUNK", 3)
    torch.testing.assert_close(run(), whole, atol=1e-3, rtol=0)


def test_what_was_learnt_is_restored():
    faces = dots()
    model = LDDR(PLAIN, offsets).fit(faces)
    again = LDDR(PLAIN, offsets).restore(model.tensors())
    before, after = (one.predict(faces.images, faces.boxes) for one in (model, again))
    assert torch.equal(before, after)
    assert again.penalties_ == pytest.approx(model.penalties_) and len(again.penalties_) == 2
    assert torch.equal(again.examples_, model.examples_) and model.examples_.shape == (8, 5, 2)


def test_weights_of_low_rank_are_the_nearest():
    faces = dots()
    model = LDDR(PLAIN, offsets).fit(faces)
    whole, part = (LDDR(PLAIN, offsets).restore(model.tensors(rank)) for rank in (10, 3))
    for weights, same, near in zip(model.weights_, whole.weights_, part.weights_, strict=True):
        torch.testing.assert_close(same, weights, atol=1e-5, rtol=1e-4)
        assert torch.linalg.matrix_rank(near) == 3
        lost = torch.linalg.svdvals(weights)[3:].square().sum().sqrt()
        assert (near - weights).norm().item() == pytest.approx(lost.item(), rel=1e-3)


def test_the_penalty_of_each_stage_is_in_units_of_its_own_features():
    faces, seen = dots(), []

    def remembered(crops, points, form):
        seen.append(offsets(crops, points, form))
        return seen[-1]

    model = LDDR(replace(PLAIN, penalty=0.5), remembered).fit(faces)
    assert model.penalties_ == pytest.approx([0.5 * lddr.mean_square(x) for x in seen])
    loose = LDDR(replace(PLAIN, penalty=0.5, solver="liblinear"), offsets).fit(faces)
    assert loose.penalties_[0] == pytest.approx(model.penalties_[0])


def test_faces_that_cannot_be_learnt_from_are_counted():
    faces = dots(4)
    faces.points[2, 1] = np.nan
    with pytest.raises(ReplicateError, match="got 4 with 1 that lack a point; expected at least two"):
        LDDR(PLAIN, offsets).fit(faces)
    with pytest.raises(ReplicateError, match="got 1 with 0 that lack a point"):
        LDDR(PLAIN, offsets).fit(faces.subset([0]))


# §4.2 Augmentation and initial shapes


@pytest.mark.parametrize("augmentation", lddr.AUGMENTATIONS)
def test_variants_show_their_landmarks_where_their_shapes_say(augmentation, monkeypatch):
    monkeypatch.setattr(lddr, "_CUT", 3)
    faces, config = dots(8), replace(PLAIN, augmentation=augmentation)
    crops, shapes = training_crops(faces, config, seed=3)
    count = {"none": 1, "mirrored and turned": 2, "mirrored, turned and both": 4}[augmentation]
    assert crops.shape == (8 * count, 320, 320, 3) and crops.dtype == torch.uint8
    places = (shapes * FACE + 159.5).round().long()
    seen = crops[torch.arange(8 * count)[:, None], places[..., 1], places[..., 0]]
    mirrored = {1: [False], 2: [False, True], 4: [False, True, False, True]}[count]
    swapped = torch.as_tensor(COLOURS[[1, 0, 2, 4, 3]])
    for number, flipped in enumerate(mirrored):
        expected = swapped if flipped else torch.as_tensor(COLOURS)
        part = seen[8 * number : 8 * (number + 1)].int()
        assert (part - expected).abs().max() < 30
    torch.testing.assert_close(shapes[:8], torch.as_tensor((faces.points - 150) / 224), atol=1e-5, rtol=0)


def test_images_are_mirrored_and_turned_by_no_more_than_the_rotation():
    config = replace(PLAIN, augmentation="mirrored and turned", rotation=15.0)
    faces = dots(64)
    _, shapes = training_crops(faces, config, seed=0)
    plain, turned = shapes[:64], shapes[64:, [1, 0, 2, 4, 3]] * torch.tensor([-1.0, 1])
    angles = torch.rad2deg(
        torch.angle(torch.view_as_complex(turned.contiguous()) / torch.view_as_complex(plain.contiguous()))
    )
    assert (angles - angles[:, :1]).abs().max() < 0.1  # all points of a face turn alike
    assert 13 < angles.abs().max() <= 15.01 and angles.min() < -10 and angles.max() > 10
    torch.testing.assert_close(turned.norm(dim=-1), plain.norm(dim=-1), atol=1e-4, rtol=0)


def test_initial_shapes_are_those_of_other_faces_as_they_are():
    shapes = torch.randn(2 * 6, 3, 2)
    found = lddr._others(shapes, 6, 40, torch.Generator().manual_seed(0))
    assert found.shape == (12, 40, 3, 2)
    for number, starts in enumerate(found):
        which = {int((shapes == start).all((1, 2)).nonzero()) for start in starts}
        assert which == set(range(6)) - {number % 6}
    again = lddr._others(shapes, 6, 40, torch.Generator().manual_seed(0))
    assert torch.equal(found, again)


def test_the_seed_decides_turns_and_initial_shapes():
    faces, config = dots(), replace(PLAIN, augmentation="mirrored and turned", stages=(4,), penalty=1.0)
    first, again, other = (LDDR(config, offsets).fit(faces, seed).weights_[0] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


# Configurations


def test_the_defaults_are_the_papers():
    paper = CONFIGS["gpu"]
    assert paper.network.width == 1 and paper.stages == (1, 2, 3, 4) and paper.features == "deep"
    assert [config.penalty for config in CONFIGS.values()] == [LDDRConfig().penalty] * 3


@pytest.mark.parametrize(
    "change", [{"features": "SURF"}, {"weights": "vgg"}, {"solver": "svd"}, {"augmentation": "all"}]
)
def test_words_are_checked(change):
    (name,) = change
    with pytest.raises(ReplicateError, match=f"{name}: got '{change[name]}', expected one of"):
        LDDRConfig(**change)


@pytest.mark.parametrize("stages", [(), (0, 1), (5,)])
def test_stages_are_rows_of_table_1(stages):
    with pytest.raises(ReplicateError, match="expected rows of Table 1"):
        LDDRConfig(stages=stages)


# §3.4 Eq. 3


def test_the_share_of_a_step_outside_the_span():
    training = torch.zeros(3, 4, 2)
    training[0, 0, 0], training[1, 1, 1], training[2, 0, 0] = (
        2.0,
        1.0,
        -1.0,
    )  # a plane of the eight dimensions
    steps = torch.zeros(4, 4, 2)
    steps[0, 0, 0] = 5  # inside
    steps[1, 3, 1] = 2  # orthogonal
    steps[2, 1, 1], steps[2, 2, 0] = 4, 3  # an angle of which the sine is 3/5; the last step is none
    torch.testing.assert_close(
        lddr.outside_span(steps, training),
        torch.tensor([0, 1, 0.6, 0], dtype=torch.float64),
        atol=1e-9,
        rtol=0,
    )


def test_every_shape_stays_in_the_span_of_the_training_steps():
    """With fewer training images than coordinates: every column of W is made of targets."""
    faces, new = toy_faces(10, box_noise=2.0), toy_faces(6, seed=1, box_noise=2.0)
    model = LDDR(replace(PLAIN, starts=2, penalty=0.1), DeepFeatures(network())).fit(faces)
    _, truth = training_crops(faces, model.config, seed=0)
    paths = model.predict(new.images, new.boxes)[:, 0]
    side = torch.as_tensor(new.boxes[:, 2] - new.boxes[:, 0])[:, None, None]
    # the span of differences of training shapes holds every target of Eq. 2, and so every column of W
    span = (truth - truth[0])[1:]
    for path in paths[1:]:
        assert lddr.outside_span((path - paths[0]) / side, span).max() < 1e-2
    assert lddr.outside_span(torch.randn(4, 68, 2), span).min() > 0.9
