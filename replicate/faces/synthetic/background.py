"""What is behind the head: plain walls, gradients, indoor clutter, foliage, crowds, and the shoulders."""

import cv2
import numpy as np

from . import noise, paint
from .appearance import HAIR


def background(rng: np.random.Generator, size: int, outdoor: float = 0.5) -> np.ndarray:
    """A random background.

    Parameters
    ----------
    rng : Generator
    size : int
        Side in pixels.
    outdoor : float
        Probability of an outdoor scene among the cluttered ones.

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
    if rng.random() < 0.15:
        image = _crowd(rng, image)
    if rng.random() < 0.45:
        sigma = 0.6 + rng.exponential(2.0)
        image = _fast_blur(image, sigma)
    if rng.random() < 0.6:
        texture = noise.window(noise.smooth_tile(int(rng.integers(1, 4))), rng, size, size)[..., 0]
        image *= cv2.merge([1 + texture * np.float32(rng.exponential(0.12))] * 3)
    contrast = np.float32(rng.uniform(0.9, 1.6))
    image = np.clip((0.45 + (image - 0.45) * contrast) * np.float32(rng.uniform(0.35, 1.0)), 0, 1)
    return np.ascontiguousarray(image, np.float32)


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
    leaves = noise.window(noise.smooth_tile(int(rng.integers(1, 5))), rng, size, size)[..., :1]
    patches = noise.blotches(rng, size, size, 6)
    texture = (
        (leaves * 0.7 + patches) * np.where((row < horizon)[..., None], 0.06, 0.45) * rng.uniform(0.3, 1)
    )
    image = image * (1 + texture).astype(np.float32)
    return _clutter(rng, image, int(rng.integers(0, 12)))


def _clutter(rng: np.random.Generator, image: np.ndarray, count: int) -> np.ndarray:
    """Rectangles, ellipses, polygons, stripes and lines of random colours."""
    size = image.shape[0]
    image = np.ascontiguousarray(image, np.float32)
    kinds = rng.integers(0, 5, count)
    for kind in kinds:
        colour = tuple(float(v) for v in _colour(rng))
        x, y, w, h = (
            rng.uniform(-0.1, 1.1) * size,
            rng.uniform(-0.1, 1.1) * size,
            *(rng.exponential(0.18, 2) * size + 4),
        )
        if kind == 0:
            cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), colour, -1)
        elif kind == 1:
            cv2.ellipse(
                image,
                (int(x), int(y)),
                (int(w / 2), int(h / 2)),
                rng.uniform(0, 180),
                0,
                360,
                colour,
                -1,
                cv2.LINE_AA,
            )
        elif kind == 2:
            outline = np.array([x, y]) + rng.normal(0, 1, (int(rng.integers(3, 8)), 2)) * (w, h)
            cv2.fillPoly(image, [outline.astype(np.int32)], colour, cv2.LINE_AA)
        elif kind == 3:
            step, width = rng.uniform(5, 30), int(rng.integers(1, 7))
            direction = np.array([np.cos(angle := rng.uniform(0, np.pi)), np.sin(angle)])
            for k in range(int(rng.integers(2, 9))):
                start = np.array([x, y]) + k * step * direction[::-1] * (1, -1)
                end = start + direction * (w + h)
                cv2.line(
                    image,
                    tuple(start.astype(int).tolist()),
                    tuple(end.astype(int).tolist()),
                    colour,
                    width,
                    cv2.LINE_AA,
                )
        else:
            end = (int(x + rng.normal(0, 0.5) * size), int(y + rng.normal(0, 0.5) * size))
            cv2.line(image, (int(x), int(y)), end, colour, int(rng.integers(1, 12)), cv2.LINE_AA)
    return image


def _crowd(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Other heads, plain and out of focus: skin, hair, eyes and mouth as a few ellipses."""
    size = image.shape[0]
    image = np.ascontiguousarray(image, np.float32)
    for _ in range(int(rng.integers(1, 5))):
        radius = rng.uniform(0.08, 0.24) * size
        x, y = (
            rng.choice([rng.uniform(-0.05, 0.25), rng.uniform(0.75, 1.05)]) * size,
            rng.uniform(0.1, 0.9) * size,
        )
        skin = np.array([0.85, 0.65, 0.52]) * rng.uniform(0.3, 1.1)
        hair = HAIR[rng.integers(0, len(HAIR))]
        centre = (int(x), int(y))
        body = tuple(float(v) for v in _colour(rng))
        cv2.ellipse(
            image,
            (centre[0], int(y + 2.2 * radius)),
            (int(1.6 * radius), int(1.3 * radius)),
            0,
            0,
            360,
            body,
            -1,
            cv2.LINE_AA,
        )
        cv2.ellipse(
            image,
            (centre[0], int(y - 0.25 * radius)),
            (int(0.85 * radius), int(radius)),
            0,
            0,
            360,
            hair.tolist(),
            -1,
            cv2.LINE_AA,
        )
        cv2.ellipse(
            image, centre, (int(0.7 * radius), int(0.95 * radius)), 0, 0, 360, skin.tolist(), -1, cv2.LINE_AA
        )
        for dx in (-0.3, 0.3):
            eye = (int(x + dx * radius), int(y - 0.15 * radius))
            cv2.ellipse(
                image,
                eye,
                (max(int(0.13 * radius), 1), max(int(0.07 * radius), 1)),
                0,
                0,
                360,
                (0.12, 0.08, 0.07),
                -1,
                cv2.LINE_AA,
            )
        mouth = (int(x), int(y + 0.48 * radius))
        cv2.ellipse(
            image,
            mouth,
            (max(int(0.25 * radius), 1), max(int(0.06 * radius), 1)),
            0,
            0,
            360,
            (skin * (0.7, 0.45, 0.45)).tolist(),
            -1,
            cv2.LINE_AA,
        )
    return image


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
        np.array([right[0], size + 200.0]), np.array([left[0], size + 200.0]),
    ]  # fmt: skip
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(np.clip(outline, -2000, 2000) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    alpha = mask.astype(np.float32) / 255
    folds = 1 + np.float32(0.2) * noise.window(noise.smooth_tile(16), rng, size, size)[..., 0]
    top = int(np.argmax(mask.any(1)))
    paint.mix(image[top:], alpha[top:], paint.tinted(folds[top:], colour))
