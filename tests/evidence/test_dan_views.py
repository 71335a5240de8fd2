"""What the page on DAN's network shows: shapes as printed, numbers of parameters of every variant, equations that hold."""

import pytest
import torch
from toy_faces import CANONICAL

from replicate.evidence.views import dan as views
from replicate.methods.dan import CONFIGS, DAN, DANConfig


def test_shapes_are_those_that_the_paper_prints():
    printed = views.printed_shapes()
    assert printed["layer"].tolist()[:3] == ["conv1a", "conv1b", "pool1"] and len(printed) == 14
    assert printed.iloc[-1].tolist() == ["fc2", "256", "136"]
    assert views.layer_table(DANConfig())[printed.columns].equals(printed)
    assert not views.layer_table(DANConfig(width=32))[printed.columns].equals(printed)


@pytest.mark.parametrize(
    ("changes", "fewer"), [({}, 0), (dict(heatmap=False), 1), (dict(feature_image=False), 1)]
)
def test_parameters_of_a_variant_follow_the_images_that_enter(changes, fewer):
    config = DANConfig(width=4, hidden=32)
    full, counts = views.parameter_counts(config), views.parameter_counts(config.changed(**changes))
    first = "parameters, stage 1"
    assert counts[first] == full[first]
    own = {
        name: found["parameters, two stages"] - found["parameters, connection"]
        for name, found in (("full", full), ("variant", counts))
    }
    assert own["full"] - own["variant"] == fewer * 9 * config.width
    if not config.changed(**changes).variant.feature_image:
        assert counts["parameters, connection"] == 2 * 2  # batch normalisation of two images
    else:
        assert counts["parameters, connection"] == 33 * 3136 + 2 * (3 - fewer)


def test_the_equations_hold_for_a_random_network():
    torch.manual_seed(0)
    config = CONFIGS["smoke", "synthetic"]
    network = DAN(config, 2, CANONICAL, torch.full((112, 112), 0.5), torch.full((112, 112), 0.3)).eval()
    checks = views.check_equations(network)
    assert checks["Eq. 2: largest deviation"] < 0.1  # pixels; the network rounds to bfloat16
    assert checks["Eq. 3: largest deviation"] < 1e-5 and checks["Eq. 4: deviation"] < 1e-5
    assert 15 < checks["Eq. 3: farthest lit pixel"] <= 16
