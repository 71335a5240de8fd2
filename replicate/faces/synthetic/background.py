"""What is behind the head: plain walls, gradients, indoor clutter, foliage, crowds, and the shoulders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from . import noise, paint

FULL = 256  # lengths in pixels are meant in an image of this side


@dataclass(frozen=True)
class Bust:
    """A drawn head and the shoulders it stands on, to be put into other pictures.

    Attributes
    ----------
    image : ndarray of float32, shape (side, side, 3)
    alpha : ndarray of float32, shape (side, side)
    middle : ndarray, shape (2,)
        Of the face, pixels.
    neck : ndarray, shape (2, 2)
        Left and right side of the base of the neck, pixels.
    scale : float
        Pixels per unit of length.
    clothes : ndarray, shape (3,)
        Colour of the shoulders, lit.
    """

    image: np.ndarray
    alpha: np.ndarray
    middle: np.ndarray
    neck: np.ndarray
    scale: float
    clothes: np.ndarray


def background(
    rng: np.random.Generator, size: int, outdoor: float, crowd: float, people: Callable[[], Sequence[Bust]]
) -> np.ndarray:
    """A random background.

    Parameters
    ----------
    rng : Generator
    size : int
        Side in pixels.
    outdoor : float
        Probability of an outdoor scene among the cluttered ones.
    crowd : float
        Probability of other people.
    people : callable
        Gives those who may be there; called when there are any.

    Returns
    -------
    ndarray of float32, shape (size, size, 3), RGB in [0, 1]
    """
    kind = rng.random()
    if kind < 0.12:
        image = _gradient(rng, size, rng.uniform(0.0, 0.5))
    elif kind < 0.24:
        image = _clouds(rng, size)
    elif rng.random() < outdoor:
        image = _outdoor(rng, size)
    else:
        image = _clutter(rng, _gradient(rng, size, 0.4), int(rng.integers(8, 50)))
    if rng.random() < crowd:
        image = _crowd(rng, image, people())
    if rng.random() < 0.45:
        image = _fast_blur(image, (0.6 + rng.exponential(2.0)) * size / FULL)
    if rng.random() < 0.6:
        texture = noise_window(noise.smooth_tile(int(rng.integers(1, 4))), rng, size)
        image *= cv2.merge([1 + texture * np.float32(rng.exponential(0.12))] * 3)
    contrast = np.float32(rng.uniform(0.9, 1.6))
    image = np.clip((0.45 + (image - 0.45) * contrast) * np.float32(rng.uniform(0.35, 1.0)), 0, 1)
    return np.ascontiguousarray(image, np.float32)


def noise_window(tile: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """A square view of a tile's first channel, as it looks when an image of ``FULL`` pixels is shrunk to ``size``."""
    view = noise.window(tile, rng, FULL, FULL)[..., 0]
    return view if size == FULL else cv2.resize(view, (size, size), interpolation=cv2.INTER_AREA)


def _fast_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur, on a smaller image where the blur is wide."""
    if sigma < 2.5:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    size = image.shape[0]
    small = cv2.resize(image, (size // 2, size // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(
        cv2.GaussianBlur(small, (0, 0), sigma / 2), (size, size), interpolation=cv2.INTER_LINEAR
    )


def _colour(rng: np.random.Generator) -> np.ndarray:
    value, grey = rng.uniform(0.02, 1.1), rng.beta(2.2, 1.2)
    return (value * (grey + (1 - grey) * rng.random(3))).astype(np.float32)


def _gradient(rng: np.random.Generator, size: int, contrast: float) -> np.ndarray:
    corners = _colour(rng)[None, None] + rng.uniform(-contrast, contrast, (2, 2, 3))
    return cv2.resize(corners.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)


def _clouds(rng: np.random.Generator, size: int) -> np.ndarray:
    image = np.broadcast_to(_colour(rng), (size, size, 3)).astype(np.float32)
    for cells, weight in ((4, 0.35), (11, 0.25), (35, 0.18)):
        image = image + noise.blotches(rng, size, size, cells, 3 if rng.random() < 0.25 else 1) * np.float32(
            weight * rng.uniform(0.2, 1)
        )
    return image


def _outdoor(rng: np.random.Generator, size: int) -> np.ndarray:
    """Sky, foliage or buildings, ground."""
    sky = np.array([0.55, 0.68, 0.85]) * rng.uniform(0.6, 1.15) + rng.normal(0, 0.05, 3)
    green = np.array([0.25, 0.36, 0.15]) * rng.uniform(0.4, 1.5) + rng.normal(0, 0.04, 3)
    ground = np.array([0.45, 0.40, 0.33]) * rng.uniform(0.5, 1.5) + rng.normal(0, 0.05, 3)
    horizon = rng.uniform(0.1, 1.1) + noise.blotches(rng, 1, size, int(rng.integers(3, 12)))[
        0, :, 0
    ] * rng.uniform(0, 0.3)
    row = np.linspace(0, 1, size)[:, None]
    image = np.where((row < horizon)[..., None], sky, green).astype(np.float32)
    image[row[:, 0] > horizon.mean() + rng.uniform(0.1, 0.8)] = ground
    leaves = noise_window(noise.smooth_tile(int(rng.integers(1, 5))), rng, size)
    patches = noise.blotches(rng, size, size, 6)[..., 0]
    depth = np.where(row < horizon, 0.06, 0.45) * rng.uniform(0.3, 1)
    image *= cv2.merge([1 + (leaves * np.float32(0.7) + patches) * depth.astype(np.float32)] * 3)
    return _clutter(rng, image, int(rng.integers(0, 12)))


def _clutter(rng: np.random.Generator, image: np.ndarray, count: int) -> np.ndarray:
    """Rectangles, ellipses, polygons, stripes and lines of random colours."""
    image = np.ascontiguousarray(image, np.float32)
    for kind in rng.integers(0, len(_SHAPES), count):
        colour = tuple(float(v) for v in _colour(rng))
        centre = rng.uniform(-0.1, 1.1, 2) * image.shape[0]
        extent = (rng.exponential(0.18, 2) + 4 / FULL) * image.shape[0]
        _SHAPES[kind](rng, image, centre, extent, colour)
    return image


def _whole(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def _rectangle(rng, image: np.ndarray, centre: np.ndarray, extent: np.ndarray, colour) -> None:
    cv2.rectangle(image, _whole(centre), _whole(centre + extent), colour, -1)


def _ellipse(rng, image: np.ndarray, centre: np.ndarray, extent: np.ndarray, colour) -> None:
    cv2.ellipse(
        image, _whole(centre), _whole(extent / 2), rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA
    )


def _polygon(rng, image: np.ndarray, centre: np.ndarray, extent: np.ndarray, colour) -> None:
    outline = centre + rng.normal(0, 1, (int(rng.integers(3, 8)), 2)) * extent
    cv2.fillPoly(image, [outline.astype(np.int32)], colour, cv2.LINE_AA)


def _stripes(rng, image: np.ndarray, centre: np.ndarray, extent: np.ndarray, colour) -> None:
    unit = image.shape[0] / FULL
    step, width = rng.uniform(5, 30) * unit, max(round(int(rng.integers(1, 7)) * unit), 1)
    angle = rng.uniform(0, np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    for k in range(int(rng.integers(2, 9))):
        start = centre + k * step * direction[::-1] * (1, -1)
        cv2.line(image, _whole(start), _whole(start + direction * extent.sum()), colour, width, cv2.LINE_AA)


def _line(rng, image: np.ndarray, centre: np.ndarray, extent: np.ndarray, colour) -> None:
    end = centre + rng.normal(0, 0.5, 2) * image.shape[0]
    width = max(round(int(rng.integers(1, 12)) * image.shape[0] / FULL), 1)
    cv2.line(image, _whole(centre), _whole(end), colour, width, cv2.LINE_AA)


_SHAPES = (_rectangle, _ellipse, _polygon, _stripes, _line)


def _crowd(rng: np.random.Generator, image: np.ndarray, people: Sequence[Bust]) -> np.ndarray:
    """Other people beside the head, the far ones first."""
    size = image.shape[0]
    image = np.ascontiguousarray(image, np.float32)
    for unit in np.sort(rng.uniform(0.055, 0.17, int(rng.integers(1, 5)))):
        place = rng.choice([rng.uniform(-0.05, 0.25), rng.uniform(0.75, 1.05)]), rng.uniform(0.1, 0.9)
        bust = people[rng.integers(len(people))]
        _put_in(rng, image, bust, np.array(place) * size, unit * size / bust.scale)
    return image


def _put_in(rng: np.random.Generator, image: np.ndarray, bust: Bust, place: np.ndarray, zoom: float) -> None:
    """Draw a bust with the middle of its face at a place (x, y), ``zoom`` times as large, perhaps in a mirror, in place."""
    side = image.shape[0]
    flip = rng.choice([-1.0, 1.0])
    turn = np.radians(rng.normal(0, 5))
    across = zoom * np.array([[np.cos(turn) * flip, -np.sin(turn)], [np.sin(turn) * flip, np.cos(turn)]])
    warp = np.concatenate([across, (place - across @ bust.middle)[:, None]], axis=1)
    gain = np.float32(rng.uniform(0.6, 1.2))
    neck = bust.neck @ across.T + warp[:, 2]
    left, right = neck[np.argsort(neck[:, 0])]
    shoulders(image, left, right, bust.scale * zoom, bust.clothes * gain, rng)
    way = cv2.INTER_AREA if zoom < 0.7 else cv2.INTER_LINEAR
    head, alpha = (cv2.warpAffine(layer, warp, (side, side), flags=way) for layer in (bust.image, bust.alpha))
    paint.mix(image, alpha, head * gain)


def shoulders(
    image: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    scale: float,
    colour: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Draw clothed shoulders into the image, in place.

    Parameters
    ----------
    image : ndarray of float32, shape (size, size, 3)
    left, right : ndarray, shape (2,)
        Sides of the base of the neck, pixels.
    scale : float
        Pixels per unit of length.
    colour : ndarray, shape (3,)
    """
    size = image.shape[0]
    slope, reach = rng.uniform(0.25, 0.7), rng.uniform(1.2, 1.8)
    lift = rng.uniform(0.0, 0.25)
    outline = [
        left + scale * np.array([-reach - 0.3, slope + 1.5]), left + scale * np.array([-reach, slope]),
        left + scale * np.array([-reach * 0.45, slope * 0.28]), left + scale * np.array([0.05, -lift]),
        right + scale * np.array([-0.05, -lift]), right + scale * np.array([reach * 0.45, slope * 0.28]),
        right + scale * np.array([reach, slope]), right + scale * np.array([reach + 0.3, slope + 1.5]),
        np.array([right[0], 2.0 * size]), np.array([left[0], 2.0 * size]),
    ]  # fmt: skip
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(np.clip(outline, -2000, 2000) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    alpha = mask.astype(np.float32) / 255
    folds = 1 + np.float32(0.2) * noise_window(noise.smooth_tile(16), rng, size)
    top = int(np.argmax(mask.any(1)))
    paint.mix(image[top:], alpha[top:], paint.tinted(folds[top:], colour))
