"""TCNN's page of networks: shapes and counts are those of the modules, every statement is checked against the code, and a wrong code is found out."""

import pytest
import torch

from replicate.errors import ReplicateError
from replicate.evidence import manifest, published, tables
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import tcnn_layers as layers
from replicate.evidence.views import tcnn_method as views
from replicate.methods import tcnn, tcnn_training
from replicate.methods.tcnn import CONFIGS, TCNNConfig, Vanilla

pytestmark = pytest.mark.usefixtures("drawing")
torch.set_num_threads(1)


@pytest.fixture
def run():
    return Experiment("tcnn", device="cpu")


@pytest.fixture
def crops():
    return torch.rand(30, 3, 40, 40, generator=torch.Generator().manual_seed(0))


def test_shapes_stand_beside_those_of_fig_2():
    table = layers.shape_table().set_index("layer")
    assert table.loc["CL1"].to_list() == [
        "conv 5 × 5, |tanh|, max pool 2 × 2", "36 × 36 × 16", "18 × 18 × 16", "18 × 18 × 16", "1,216"
    ]  # fmt: skip
    assert (
        table.loc["CL4", "what it does"] == "conv 2 × 2, |tanh|" and table.loc["CL4", "before pooling"] == ""
    )
    assert table.loc["FC5"].to_list()[2:] == ["100", "1 × 100", "25,700"]
    assert table.loc["FC6", "what it does"] == "dense" and table.loc["input", "parameters"] == "0"
    assert list(table.index) == list(layers.printed_shapes())


def test_a_network_of_other_shapes_is_found_out(monkeypatch):
    class Padded(Vanilla):
        def __init__(self):
            super().__init__()
            self.cl4.padding = (1, 1)
            self.fc5 = torch.nn.Linear(4 * 4 * 64, 100)

    monkeypatch.setattr(layers, "Vanilla", Padded)
    with pytest.raises(ReplicateError, match="CL4: the network gives 4 × 4 × 64, Fig. 2 prints 2 × 2 × 64"):
        layers.shape_table()


def test_only_without_padding_are_all_sides_the_printed_ones():
    assert layers.paddings_that_fit() == [(0, 0, 0, 0, 0), (0, 0, 0, 0, 1)]


def test_parameters_are_counted(run):
    found = {(row.method, row.metric): row.value for row in layers.parameter_rows(run)}
    assert found["vanilla CNN", "parameters"] == 79_046
    counts = [value for (_, metric), value in found.items() if metric.startswith("parameters,")]
    assert sum(counts) == 79_046 and len(counts) == 6
    assert found["one head from FC5 on", "parameters"] == 25_700 + 1_010
    assert found["one head from CL4 on", "parameters"] == 16_448 + 25_700 + 1_010


@pytest.mark.parametrize("faces", ["synthetic", "real"])
def test_the_diagram_belongs_to_no_faces(faces):
    figure = layers.networks(Experiment("tcnn", "smoke", faces, device="cpu"), TCNNConfig())
    assert "CL3 3 × 3 × 64" in figure.get_label() and "26,710 parameters of its own" in figure.get_label()
    words = [text.get_text() for text in figure.axes[0].texts]
    assert "79,046 parameters" in words and words.count("256") == 2
    assert "$K$ = 48; each pair has 26,710 parameters of its own" in words
    (made,) = manifest.load("tcnn", ["smoke"])
    assert (made.artefact, made.faces) == ("TCNN-F2", "synthetic")


def test_all_statements_are_as_printed(crops):
    table = views.check_table(CONFIGS["smoke"], crops).set_index("")
    assert list(table.index) == [f"TCNN-S{number}" for number in range(29, 37)]
    assert (table["state"] == views.AS_PRINTED).all()
    assert table.loc["TCNN-S30", "the code"].startswith("|tanh| after 5 layers")
    assert table.loc["TCNN-S35", "the code"] == "Adam"
    assert table.loc["TCNN-S36", "the code"] == "64 components"
    assert (
        "step size 0.002, batches of 16, 1,600 samples" in table.loc["TCNN-S35", "left open, and our choice"]
    )


def differing(crops):
    table = views.check_table(CONFIGS["smoke"], crops).set_index("")
    return table.index[table["state"] == views.OTHERWISE].to_list()


def test_another_activation_is_found_out(monkeypatch, crops):
    monkeypatch.setattr(tcnn, "absolute_tanh", torch.relu)
    assert "TCNN-S30" in differing(crops)


def test_another_loss_is_found_out(monkeypatch, crops):
    monkeypatch.setattr(tcnn, "loss", lambda shapes, true: (shapes - true).square().sum((-2, -1)))
    assert differing(crops) == ["TCNN-S34"]


def test_a_deviation_that_is_left_out_is_found_out(monkeypatch, crops):
    monkeypatch.setattr(Vanilla, "normalised", lambda self, some: some - self.mean)
    assert "TCNN-S29" in differing(crops)


def test_another_optimiser_and_another_number_of_clusters_are_found_out(monkeypatch, crops):
    monkeypatch.setitem(tcnn.ANALYSED, "cpu", 32)
    monkeypatch.setattr(views.inspect, "getsource", lambda of: "x = torch.optim.SGD(weights)")
    assert differing(crops) == ["TCNN-S35", "TCNN-S36"]


def test_short_forms_are_the_long_ones():
    for seed in range(2):
        deviations = views.check_equations(seed)
        assert len(deviations) == 8 and max(deviations.values()) < 1e-12


def test_the_long_forms_are_not_the_short_ones_under_another_name(monkeypatch):
    """Each check can fail."""
    monkeypatch.setattr(tcnn, "pooled", lambda x: torch.nn.functional.max_pool2d(x, 2).tanh().abs())
    monkeypatch.setattr(tcnn, "mirror_shapes", lambda shapes: shapes * shapes.new_tensor([-1, 1]) + 2)
    monkeypatch.setattr(views.Mixture, "log_joint", lambda self, x: -torch.cdist(x, self.means))
    broken = {name for name, value in views.check_equations().items() if value > 1e-6}
    assert {"pooling before the activation, and after it", "the whole network, layer after layer",
            "posterior, Eq. 2", "mirror image, mirrored back"} <= broken  # fmt: skip
    assert "loss, Eq. 1" not in broken


def test_the_loss_by_loops():
    true = torch.tensor([[[10.0, 10], [22, 5], [16, 16], [11, 24], [20, 25]]])
    found = true + torch.tensor([[[3.0, 4], [0, 0], [0, -2], [1, 1], [0, 0]]])
    assert views.plain_loss(found, true).tolist() == pytest.approx([31 / 169])


def test_printed_settings_are_those_of_the_configuration():
    assert views.printed_settings() == {
        "clusters": (48, 48), "clusters of the analysis": (64, 64), "images of a cluster": (5000, 5000),
        "epochs without a lower validation loss": (50, 50),
    }  # fmt: skip
    assert published.value("TCNN-S10") == 50


def test_profiles_show_what_they_change():
    table = views.config_table().set_index("field")
    assert table.loc["clusters", ["TCNNConfig()", "smoke", "cpu"]].to_list() == ["48", "4", "same"]
    assert table.loc["images", "TCNNConfig()"] == "5,000" and table.loc["images", "gpu"] == "same"
    assert table.loc["vanilla.samples", "smoke"] == "1,600"
    assert "vanilla.sanity_gate" not in table.index and "vanilla" not in table.index


def test_parameters_are_shown_in_a_table(run):
    assert "79,046" in tables.compare(layers.parameter_rows(run))["ours"].to_list()


def test_training_names_the_optimiser_that_is_checked():
    assert views._optimisers() == ["Adam", "Adam"] and hasattr(tcnn_training, "fit_heads")
