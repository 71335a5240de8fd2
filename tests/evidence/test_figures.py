"""Figures: curves that are the distribution, panels that show what they are given."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.evidence import figures
from replicate.metrics import Interval, ced_at

pytestmark = pytest.mark.usefixtures("drawing")


def make_errors(scale=1.0):
    return scale * np.random.default_rng(0).gamma(4, 1.2, 300)


def test_a_curve_is_the_exact_step_function():
    errors = make_errors()
    ax = figures.ced_plot({"DAN": errors}, 8.0, "inter-ocular").axes[0]
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(y[:-1], ced_at(errors, x[:-1]))
    assert (x[0], x[-1], y[-1]) == (0, 8.0, ced_at(errors, 8.0))
    assert ax.lines[0].get_drawstyle() == "steps-post"
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 8), (0, 1))
    assert "inter-ocular" in ax.get_xlabel()


def test_the_legend_gives_area_and_failures_and_curves_differ_without_colour():
    curves = {"one": np.array([1.0, 2, 3, 9]), "two": np.full(4, 4.0)}
    figure = figures.ced_plot(curves, 8.0, "inter-pupil", title="common")
    ax = figure.axes[0]
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["one: AUC 56.2, 25.0 % above 8 % (1 of 4)", "two: AUC 50.0, 0.0 % above 8 % (0 of 4)"]
    assert len({line.get_linestyle() for line in ax.lines}) == 2
    assert figure.get_label() == (
        "Cumulative error curves on common up to 8 % of the inter-pupil distance. " + ". ".join(texts) + "."
    )


def test_faces_without_prediction_stay_outside_the_curve():
    ax = figures.ced_plot({"DAN": np.array([1.0, np.inf])}, 8.0, "inter-ocular").axes[0]
    assert ax.lines[0].get_ydata().max() == 0.5


def test_a_line_with_its_band_stands_where_it_is_told():
    ax = plt.subplots()[1]
    one = [Interval(2.0, 1.5, 2.5), Interval(3.0, 2.0, 4.0)]
    figures.interval_curves(ax, {"one": one, "two": one[:1]}, {"one": (5, 10), "two": (30,)})
    assert [line.get_data()[0].tolist() for line in ax.lines] == [[5, 10], [30]]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [2, 3])
    band = ax.collections[0].get_paths()[0].vertices
    assert {1.5, 2.5, 2.0, 4.0} == set(band[:, 1])
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in ax.lines}
    assert len(looks) == 2 and [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]


def test_a_panel_draws_every_landmark_of_every_face():
    points = np.random.default_rng(0).uniform(10, 50, (3, 68, 2))
    images = np.zeros((3, 64, 64), np.uint8)
    figure = figures.faces_grid(images, points, points + 1, titles=["a", "b", "c"], columns=2)
    axes = [ax for ax in figure.axes if ax.images]
    assert len(axes) == 3 and len(figure.axes) == 4
    for ax, face in zip(axes, points, strict=True):
        drawn = [line.get_xydata() for line in ax.lines if line.get_marker() == "o"]
        np.testing.assert_allclose(drawn, [face + 1, face])
        assert ax.get_ylim()[0] > ax.get_ylim()[1]  # y runs down, as in the image
    assert (
        figure.get_label() == "3 faces with fitted landmarks in yellow and true landmarks in blue: a; b; c."
    )


def test_a_panel_shows_boxes():
    figure = figures.faces_grid(np.zeros((1, 64, 64, 3), np.uint8), boxes=[[1, 2, 30, 40]])
    drawn = figure.axes[0].lines[0].get_xydata()
    assert drawn.min(0).tolist() == [1, 2] and drawn.max(0).tolist() == [30, 40]


def test_wrong_numbers_of_things_are_refused():
    images = np.zeros((2, 8, 8), np.uint8)
    with pytest.raises(ReplicateError, match="fitted: got 1 for 2 images"):
        figures.faces_grid(images, [np.zeros((68, 2))])
    with pytest.raises(ReplicateError, match="images: got none"):
        figures.faces_grid([])
    with pytest.raises(ReplicateError, match="curves: got none"):
        figures.ced_plot({}, 8.0, "inter-ocular")


def test_figures_are_small():
    buffer = io.BytesIO()
    figures.ced_plot({"one": make_errors(), "two": make_errors(0.8)}, 8.0, "inter-ocular").savefig(buffer)
    assert buffer.tell() < 100_000


def test_a_shown_figure_carries_its_label_as_alternative_text(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "get_ipython", lambda: object())
    monkeypatch.setattr(figures, "display", lambda value, **more: shown.append((value, more)))
    figure = plt.figure()
    figure.set_label("A line.")
    figures.show(figure, "Errors <here>")
    assert (
        shown[0][0].data == '<figure class="evidence"><figcaption>Errors &lt;here&gt;</figcaption></figure>'
    )
    assert shown[1] == (figure, {"metadata": {"image/png": {"alt": "A line."}}})
    assert not plt.fignum_exists(figure.number)


def test_outside_of_a_notebook_nothing_is_shown(capsys):
    figures.show(plt.figure(), "caption")
    assert capsys.readouterr().out == ""
