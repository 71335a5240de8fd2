"""The page on ECT's method: Algorithm 1 is the code's, settings are the paper's, and every check notices what it is there for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate.errors import ReplicateError
from replicate.evidence import manifest, published
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import configurations
from replicate.evidence.views import ect_method as views
from replicate.methods import ect
from replicate.methods.ect import CONFIGS, ECTConfig
from replicate.methods.ect_fitting import PDM

SMALL = CONFIGS["smoke", "synthetic"]


pytestmark = pytest.mark.usefixtures("drawing")


def model(components=5):
    torch.manual_seed(0)
    true = torch.as_tensor(toy_faces(30).points)
    return PDM.fit(true + torch.randn(true.shape), SMALL.frame, components)


def hidden_faces(protocol, count=6):
    """Toy faces of a protocol, of which a third of the points is hidden."""
    faces = toy_faces(count)
    visible = np.arange(faces.points.shape[1]) % 3 > 0
    return replace(faces, protocol=protocol, visible=np.tile(visible, (count, 1)))


# Algorithm 1


def test_every_line_of_algorithm_1_stands_beside_code():
    table = views.algorithm_table()
    assert table["line"].tolist()[0] == "1" and table["line"].tolist()[-1] == "12"
    assert set(["1", "2", "3", "4", "8", "10", "11", "12"]) < set(table["line"])


def test_code_that_is_no_longer_there_is_an_error(monkeypatch):
    number, words, function, _ = views._STEPS[0]
    monkeypatch.setattr(views, "_STEPS", ((number, words, function, "maps = network(image)"),))
    with pytest.raises(ReplicateError, match="line 1: `maps = network\\(image\\)` is not in predict"):
        views.algorithm_table()


# §IV Settings


def test_settings_that_the_paper_prints_stand_beside_those_used():
    table = views.settings_table(CONFIGS["cpu", "synthetic"], "cpu").set_index("setting")
    assert len(table) == len(published.load("ect").query("artefact == 'ECT-S18'"))
    crop = ["248 × 248 px", "248 × 248 of 256 px", "124 × 124 of 128 px"]
    assert table.loc["random crop"].tolist() == crop
    assert table.loc["sigma"].tolist() == ["6 px", "6 px", "3 px"]
    assert table.loc["learning rate", "paper"] == "10^−8"
    assert table.loc["learning rate, fine-tuning truncated FCN", "paper"] == "10^−11"
    assert table.loc["b in Eq.15", "ECTConfig()"] == "25, subtracted"


def test_the_numbers_that_are_taken_over_agree():
    agree = views.settings_that_agree()
    assert len(agree) == 4 and all(printed == held for printed, held in agree.values())


def test_the_table_of_configurations_has_every_field_and_profile():
    table = configurations.config_table(ECTConfig(), CONFIGS, title="ECTConfig()").set_index("field")
    assert table.columns.tolist() == ["ECTConfig()", "smoke", "cpu, synthetic", "cpu, real", "gpu"]
    assert (table["gpu"] == "same").all()
    assert table.loc["patches", "ECTConfig()"] == "30 / 30 / 30 / 20 / 20"
    assert table.loc["peak", "ECTConfig()"] == "1.06385"
    narrow = CONFIGS["cpu", "real"].narrow
    assert table.loc["narrow", "cpu, real"].startswith(f"width {narrow.width:g}, samples {narrow.samples:,}")


# §III-B Targets and loss


def test_hidden_points_have_empty_maps_where_they_are_marked():
    sets = {name: hidden_faces(name) for name in ("cofw", "300w")}
    table = views.target_table(sets, SMALL).set_index("protocol")
    hidden, visible = 6 * 23, 6 * 45
    assert table.loc["cofw"].tolist() == [6, "yes", f"{hidden} of {hidden}", f"0 of {visible}"]
    assert table.loc["300w"].tolist() == [6, "no", f"0 of {hidden}", f"0 of {visible}"]


def test_true_maps_have_their_peaks_at_the_points():
    faces = toy_faces(2)
    maps = views.true_maps(faces, SMALL)
    assert maps.shape == (2, 68, 64, 64) and maps.amax().item() <= SMALL.peak
    assert (maps.flatten(2).argmax(-1).float().std(1) > 100).all()  # they lie all over the frame


@pytest.mark.parametrize("faces", ["synthetic", "real"])
def test_the_faces_with_the_most_hidden_points_are_shown(faces):
    shown = hidden_faces("cofw")
    shown.visible[4] = False
    shown.visible[4, :3] = True
    figure = views.ideal_maps(Experiment("ect", "cpu", faces, device="cpu"), shown, SMALL, columns=2)
    below = figure.axes[2].images[0].get_array()
    assert below.shape == (64, 64) and 0 < (below > 0.5).sum() < 60  # three points' worth
    [made] = manifest.load("ect")
    assert (made.artefact, made.faces, made.images) == ("ECT-S19", "synthetic", 2)


@pytest.mark.parametrize("config", [SMALL, CONFIGS["cpu", "synthetic"]])
def test_the_loss_is_the_one_written_out(config):
    checks = views.check_loss(config)
    floor = checks.pop("ideal small maps, enlarged")
    assert max(checks.values()) < 1e-12 and len(checks) == 4
    assert 0.01 < floor < 0.5


def test_what_ideal_small_maps_leave_falls_with_the_size_of_the_input():
    floors = [
        views.check_loss(replace(SMALL, input_size=size))["ideal small maps, enlarged"] for size in (64, 128)
    ]
    assert floors[1] < floors[0] / 3


def test_a_wrong_loss_is_noticed(monkeypatch):
    monkeypatch.setattr(
        ect, "upsampled_error", lambda small, points, config: 1.01 * views._written_out(small, points, config)
    )
    checks = views.check_loss(SMALL)
    assert checks["Eq. 10, response maps"] == pytest.approx(0.01)
    assert checks["Eq. 10, its gradient"] > 0.005 and checks["Eq. 10, whole loss"] > 1e-3


# §III-A Shape model


def test_the_bases_are_what_eq_13_needs():
    checks = views.check_bases(model())
    assert checks["orthonormality"] < 1e-5 and max(checks.values()) < 1e-3


def test_bases_that_are_not_orthonormal_are_noticed():
    skewed = model()
    skewed.components[..., 0] += 0.1 * skewed.components[..., 1]
    assert views.check_bases(skewed)["orthonormality"] > 0.05
    assert views.check_bases(skewed)["shapes of the model, px"] > 0.1


def test_retained_variance_rises_to_all():
    pdm = model(components=7)
    found = views.retained_variance(pdm, counts=(5, 1000))
    assert list(found) == ["variance in 5 components", "variance in 7 components"]
    assert 0 < found["variance in 5 components"] < found["variance in 7 components"] < 100


def test_the_shape_model_is_drawn_and_described():
    run = Experiment("ect", "cpu", device="cpu")
    figure = views.shape_model(run, model(), run.source("300w", "train"), components=2)
    assert len(figure.axes) == 3 and figure.axes[1].get_title() == "component 2"
    [made] = manifest.load("ect")
    assert made.artefact == "ECT-S14" and "variance in 5 components" in made.alt and made.images == 3148
