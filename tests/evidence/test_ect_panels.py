"""Panels of the ECT chapter: shapes of each step in the frame, faces chosen by rank, one row or column a face."""

import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate.evidence import manifest
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import ect_panels as views
from replicate.methods.ect import CONFIGS, FCN
from replicate.methods.ect_fitting import PDM

SMALL = CONFIGS["smoke", "synthetic"]
RUN = Experiment("ect", "cpu", device="cpu")


pytestmark = pytest.mark.usefixtures("drawing")


@pytest.fixture(scope="module")
def steps():
    torch.manual_seed(0)
    faces = toy_faces(12)
    true = torch.as_tensor(faces.points)
    pdm = PDM.fit(true + torch.randn(true.shape), SMALL.frame, 5)
    return views.steps_of(FCN(SMALL, 68).eval(), pdm, faces.subset(np.arange(3)), SMALL)


def test_steps_are_in_the_frame(steps):
    assert steps.crops.shape == (3, 64, 64, 3) and 0 <= steps.crops.min() < steps.crops.max() <= 1
    assert steps.maps.shape == (3, 64, 64) and steps.maps.min() >= 0
    assert list(steps.shapes) == ["CRM", "CRM-PDM", "weighted correction", "ECT"]
    assert all(shape.shape == steps.truth.shape == (3, 68, 2) for shape in steps.shapes.values())
    assert 0 < steps.truth.min() < steps.truth.max() < 63 and steps.confidence.shape == (3, 68)
    assert (steps.shapes["CRM"] == steps.shapes["CRM"].round()).all()  # peaks are whole pixels
    dots = steps.truth[0].round().astype(int)
    assert steps.crops[0, dots[:, 1], dots[:, 0]].mean() > steps.crops[0].mean() + 0.1


def test_faces_are_chosen_by_their_place_in_the_order():
    values = np.array([5.0, 1.0, 4.0, 2.0, 3.0])
    assert views.ranked(values, (0, 0.5, 1)).tolist() == [1, 4, 0]
    assert views.ranked(-values, (0, 0.25)).tolist() == [0, 2]


def test_every_face_has_its_row_or_column(steps):
    numbers = np.array([2.5, 0.0, -1.25])
    made = [
        views.correction_panel(RUN, steps, numbers),
        views.confidence_panel(RUN, steps),
        views.all_steps_panel(RUN, steps, abs(numbers)),
    ]
    assert [len(figure.axes) for figure in made] == [3 * 4, 2 * 3 + 1, 3 * 6]
    recorded = {figure.artefact: figure for figure in manifest.load("ect")}
    assert set(recorded) == {"ECT-F3", "ECT-F4", "ECT-F11"}
    assert all((figure.images, figure.seeds) == (3, 1) for figure in recorded.values())
    assert "+2.50 %, +0.00 %, -1.25 %" in recorded["ECT-F3"].alt


def test_circles_are_the_smaller_the_higher_the_confidence(steps):
    figure = views.confidence_panel(RUN, steps)
    [circles] = figure.axes[3].collections
    w = np.maximum(steps.confidence[0], views.LEAST_SHOWN)
    np.testing.assert_allclose(circles.get_widths() * w, (circles.get_widths() * w)[0], rtol=1e-5)
