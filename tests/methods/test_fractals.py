"""Fractals: a known one, kinds that are the same for every seed, and pictures that depend on seed and number alone."""

import numpy as np
import pytest

from replicate import fractals
from replicate.errors import ReplicateError
from replicate.fractals import Fractals

SIERPINSKI = np.array([[[0.5, 0, x], [0, 0.5, y]] for x, y in ((0, 0), (0.5, 0), (0, 0.5))])
SIZE = 32


def test_the_walk_draws_the_sierpinski_triangle():
    """A point of it has no binary place where both of its coordinates are one."""
    points = fractals._walk(SIERPINSKI, np.random.default_rng(0))
    assert points.min() >= 0 and points.max() <= 1
    x, y = np.floor(points * 2**fractals._SETTLING).astype(int).T
    assert (x & y == 0).all()
    cells = np.unique(np.stack([x >> 3, y >> 3]), axis=1)  # of a grid of 32 x 32, which has 3 ** 5 of them
    assert cells.shape[1] == 3**5


def test_maps_are_taken_as_often_as_their_areas_are_large():
    maps = np.array([[[0.8, 0, 0], [0, 0.5, 0]], [[0.4, 0, 0.5], [0, 0.25, 0.75]]])
    points = fractals._walk(maps, np.random.default_rng(0))
    share = (points[:, 1] >= 0.75).mean()  # the first map leads below 1/2
    assert share == pytest.approx(0.2, abs=0.01)  # areas 0.4 and 0.1


def test_the_density_holds_all_points():
    points = np.array([[2.0, 1], [2, 1], [4, 1], [2, 2], [3, 1]])
    density = fractals._density(points, 3)
    expected = np.array([[2, 1, 1], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(density, np.log1p(expected) / np.log(3), rtol=1e-6)


@pytest.mark.parametrize("kind", range(12))
def test_every_kind_contracts_and_is_no_speck(kind):
    maps = fractals._system(kind)
    assert fractals.MAPS[0] <= len(maps) <= fractals.MAPS[1]
    values = np.linalg.svd(maps[:, :, :2])[1]
    assert fractals.SINGULAR_VALUES[0] <= values.min() and values.max() <= fractals.SINGULAR_VALUES[1]
    filled = fractals._density(fractals._walk(maps, np.random.default_rng(1)), 16) > 0
    assert filled.mean() > 0.9 * fractals.LEAST_FILLED


def test_a_number_decides_its_picture():
    several, labels = Fractals(4, SIZE, seed=3).take(range(6))
    alone, label = Fractals(4, SIZE, seed=3).take([4])
    np.testing.assert_array_equal(alone[0], several[4])
    assert label[0] == labels[4]
    assert several.shape == (6, SIZE, SIZE, 3) and several.dtype == np.uint8
    assert len({picture.tobytes() for picture in several}) == 6


def test_seeds_share_the_kinds_but_no_picture():
    first, second = Fractals(4, SIZE, seed=0), Fractals(4, SIZE, seed=1)
    for one, other in zip(first.systems, second.systems, strict=True):
        np.testing.assert_array_equal(one, other)
    pictures = [made.take(range(8))[0] for made in (first, second)]
    assert not {picture.tobytes() for picture in pictures[0]} & {picture.tobytes() for picture in pictures[1]}
    more = Fractals(6, SIZE).systems[:4]
    assert all(np.array_equal(one, other) for one, other in zip(first.systems, more, strict=True))


def test_all_kinds_come_about_equally_often(monkeypatch):
    made = Fractals(4, SIZE)
    monkeypatch.setattr(fractals, "_walk", lambda maps, rng: np.eye(2))
    _, labels = made.take(range(400))
    assert np.bincount(labels, minlength=4).min() > 70


def test_a_picture_is_a_fractal_on_a_plain_background():
    picture = Fractals(4, SIZE).take([0])[0][0]
    colours, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    assert len(colours) > 20 and counts.max() > 0.2 * SIZE**2


def test_pictures_of_a_kind_differ_by_the_jitter_alone(monkeypatch):
    monkeypatch.setattr(fractals, "JITTER", 0.0)
    made, seen = Fractals(2, SIZE), []
    monkeypatch.setattr(fractals, "_walk", lambda maps, rng: seen.append(maps) or np.eye(2))
    _, labels = made.take(range(6))
    for maps, label in zip(seen, labels, strict=True):
        np.testing.assert_array_equal(maps, made.systems[label])


def test_one_kind_is_nothing_to_tell_apart():
    with pytest.raises(ReplicateError, match="kinds: got 1, expected at least two"):
        Fractals(1, SIZE)
