"""False responses: they move the peaks whatever their strength, and the weighted correction the less the weaker they are."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from toy_faces import toy_faces

from replicate.evidence import manifest
from replicate.evidence.experiment import Experiment
from replicate.evidence.views import ect_outliers as views
from replicate.methods import ect
from replicate.methods.ect import CONFIGS
from replicate.methods.ect_fitting import PDM

SMALL = CONFIGS["smoke", "synthetic"]


@pytest.fixture
def errors(monkeypatch):
    """Of faces of which the response maps are ideal, at strengths of 0.1 and 1."""
    torch.manual_seed(0)
    faces = toy_faces(20)
    pdm = PDM.fit(torch.as_tensor(faces.points) + torch.randn(20, 68, 2), SMALL.frame, 5)
    truth = pdm.mean + torch.randn(6, 1, 2)
    parts = [(ect.target_maps(part, SMALL), part) for part in truth.split(4)]
    monkeypatch.setattr(views, "_response_maps", lambda *_: iter(parts))
    return views.errors_with_outliers(None, pdm, faces, SMALL, strengths=(0.1, 1.0), share=0.2)


def test_weak_false_responses_are_corrected_and_strong_ones_are_not(errors):
    assert list(errors) == list(views.METHODS) and all(found.shape == (2, 6) for found in errors.values())
    peaks, projection, equal, weighted = (found.mean(1) for found in errors.values())
    assert peaks[0] == peaks[1] and projection[0] == projection[1]
    assert weighted[0] < 0.3 * equal[0] and weighted[0] < 0.3 * projection[0]
    assert weighted[1] == pytest.approx(equal[1], rel=0.2)


def test_the_figure_says_where_curves_begin_and_end(errors):
    figure = views.outlier_curves(
        Experiment("ect", "cpu", device="cpu"), errors, toy_faces(6), strengths=(0.1, 1.0)
    )
    [made] = manifest.load("ect")
    ends = [f"{value:.1f} %" for value in errors["weighted correction"].mean(1)]
    assert made.artefact == "ECT-F3" and f"weighted correction: {' to '.join(ends)}" in made.alt
    assert len(figure.axes[0].lines) == 4
    plt.close("all")


def test_response_maps_and_true_points_come_face_by_face():
    torch.manual_seed(0)
    faces = toy_faces(5)
    pdm = PDM.fit(torch.as_tensor(faces.points) + torch.randn(5, 68, 2), SMALL.frame, 3)
    found = list(views._response_maps(ect.FCN(SMALL, 68).eval(), pdm, faces, SMALL, batch=2))
    assert [len(maps) for maps, _ in found] == [2, 2, 1] and found[0][0].shape == (2, 68, 64, 64)
    truth = np.concatenate([points for _, points in found])
    assert truth.shape == (5, 68, 2) and 0 < truth.min() < truth.max() < 63
