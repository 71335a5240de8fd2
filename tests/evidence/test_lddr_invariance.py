"""Invariance of descriptors: distances on hand-made ones, changes of faces, the network without normalisation, maps."""

import numpy as np
import pytest
import torch

from replicate.evidence import manifest
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import lddr_invariance as views
from replicate.evidence.views.lddr_invariance import CHANGES, Describer
from replicate.methods import lddr
from replicate.methods.lddr import CONFIGS, STAGES, DeepFeatures, Descriptor
from replicate.metrics import Interval

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("drawing")
RANDOM = torch.Generator().manual_seed(0)


@pytest.fixture
def run():
    return Experiment("lddr", device="cpu")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Descriptor(1 / 16).eval()


def seen(faces=2, points=3, size=60):
    crops = torch.randint(40, 200, (faces, size, size, 3), generator=RANDOM, dtype=torch.uint8)
    return crops, 20.0 + 20 * torch.rand(faces, points, 2, generator=RANDOM)


def test_distances_are_in_per_cent_of_that_between_landmarks():
    before = torch.tensor([[[0.0, 0], [10, 0]], [[0, 0], [0, 4]]])
    after = before + torch.tensor([[[3.0, 4], [0, 1]], [[0, 0], [0, 1]]])
    np.testing.assert_allclose(views.distances(before, after), [30, 12.5])


def test_changes_leave_faces_alone_where_nothing_happens():
    one = seen()
    for change in CHANGES.values():
        crops, points = change.make(one, change.none)
        assert (crops.int() - one[0].int()).abs().max() <= 1
        torch.testing.assert_close(points, one[1], atol=1e-4, rtol=0)
        assert change.none in change.amounts and list(change.amounts) == sorted(change.amounts)


def test_a_turned_face_has_its_landmarks_where_its_pixels_are():
    crops = torch.full((1, 61, 61, 3), 50, dtype=torch.uint8)
    crops[0, 19:22, 39:42] = 250
    turned, points = views.turned((crops, torch.tensor([[[40.0, 20]]])), 90.0)
    assert points.round().tolist() == [[[40, 40]]]  # from the upper right to the lower right
    assert turned[0, 40, 40].tolist() == [250] * 3 and turned[0, 20, 40].tolist() == [50] * 3


def test_light_multiplies_brightness_adds_and_both_are_cut_off():
    crops = torch.tensor([0, 100, 200], dtype=torch.uint8).view(1, 1, 1, 3)
    points = torch.zeros(1, 1, 2)
    assert views.lit((crops, points), 1.5)[0].flatten().tolist() == [0, 150, 255]
    assert views.brightened((crops, points), -40.0)[0].flatten().tolist() == [0, 60, 160]


def test_a_descriptor_that_ignores_a_change_stays_at_zero():
    constant = torch.randn(3, 5, generator=RANDOM)

    def places(crops, points, form):
        return points.flatten(1)

    def blind(crops, points, form):
        return constant.flatten().expand(len(crops), -1)

    found = views.invariance(
        seen(9), {"places": Describer(places, STAGES[3]), "blind": Describer(blind, STAGES[3])}
    )
    assert all(one.value == 0 for change in found.values() for one in change["blind"])
    shift = [one.value for one in found["shift"]["places"]]
    np.testing.assert_allclose(shift, np.array(CHANGES["shift"].amounts) * shift[1], rtol=1e-5)
    assert shift[1] > 0 and all(one.value == 0 for one in found["gain"]["places"])


def test_describers_have_the_named_features(network):
    kinds = views.describers(network, CONFIGS["smoke"], seed=3)
    one = seen()
    assert {name: kind(one).shape[-1] for name, kind in kinds.items()} == {
        "LDDR": 256, "LDDR, normalisation taken out": 256, "LDDR, patches of 92 px": 256, "random weights": 256, "SIFT": 128, "HOG": 324,
    }  # fmt: skip
    torch.manual_seed(3)
    plain = Descriptor(CONFIGS["smoke"].network.width)
    assert torch.equal(kinds["random weights"].features.network.conv1.weight, plain.conv1.weight.bfloat16())
    direct = DeepFeatures(network)(*one, STAGES[0]).float().view(2, 3, 256)
    assert torch.equal(kinds["LDDR, patches of 92 px"](one), direct)


def test_without_normalisation_nothing_is_normalised(network, monkeypatch):
    torch.nn.init.normal_(network.conv2.bias)
    patch = 100 * torch.randn(2, 3, 21, 21, generator=RANDOM, dtype=torch.float64)
    plain = network.double()(patch, STAGES[3])
    found = views.without_normalisation(network)(patch, STAGES[3])
    monkeypatch.setattr(lddr, "normalised", lambda x: x)
    expected = network(patch, STAGES[3])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.max().item())
    assert (plain - expected).norm() > 0.05 * expected.norm()
    network.float()


def test_maps_agree_with_themselves_and_nearly_with_patches(network):
    assert max(views.check_map(network).values()) < 1e-12
    one = seen(faces=2, points=40)
    found = views.map_against_patches(network, one)
    assert found.shape == (2,) and (found > 0.01).all() and (found < 60).all()
    crop = one[0][0]
    assert views.map_of(network, crop).shape == (256, 40, 40)


def test_colours_are_the_principal_components():
    maps = torch.zeros(1, 4, 2, 50)
    maps[0, 2, 0] = torch.linspace(-1, 1, 50) * 9
    maps[0, 1] = torch.linspace(0, 1, 50)
    shown = views.as_colours(maps)
    assert shown.shape == (1, 2, 50, 3) and shown.min() == 0 and shown.max() == 1
    first = shown[0, 0, :, 0]
    assert (first.diff() >= 0).all() or (first.diff() <= 0).all()


def test_the_record_has_curves_numbers_and_maps(run, network):
    found = {
        what: {"LDDR": [Interval(float(n), n - 1.0, n + 1.0) for n, _ in enumerate(change.amounts)]}
        for what, change in CHANGES.items()
    }
    figure = views.invariance_plot(run, found, "test", 5)
    assert [ax.get_xlabel() for ax in figure.axes] == [change.label for change in CHANGES.values()]
    np.testing.assert_array_equal(figure.axes[3].lines[0].get_xdata(), CHANGES["offset"].amounts)
    rows = views.invariance_rows(run, found, 5)
    assert [(row.metric.split(", ")[1], row.value, row.ci_high, row.images) for row in rows] == [
        ("shift 2 pixels", 2, 3, 5), ("turn 10 degrees", 3, 4, 5), ("light 0.7 factor", 1, 2, 5), ("brightness 20 added levels", 5, 6, 5),
    ]  # fmt: skip
    views.map_figure(Experiment("lddr", faces="real", device="cpu"), network, CONFIGS["smoke"], count=1)
    kept = {(one.title, one.faces) for one in manifest.load("lddr", ["smoke"])}
    assert kept == {("change of the descriptors", "synthetic"), ("descriptor maps", "synthetic")}
