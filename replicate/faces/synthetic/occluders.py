"""What comes between camera and face: glasses, hands, microphones, cups, other things."""

from dataclasses import dataclass, field

import cv2
import numpy as np

from . import noise, paint
from .background import noise_window


@dataclass
class Layer:
    """The image under composition and how much of each pixel of the face is covered.

    Attributes
    ----------
    image : ndarray of float32, shape (size, size, 3)
    covered : ndarray of float32, shape (size, size)
    """

    image: np.ndarray
    covered: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.covered = np.zeros(self.image.shape[:2], np.float32)

    def paste(self, mask: np.ndarray, colour: np.ndarray, opacity: float = 1.0) -> None:
        """Lay a colour, or an image of colours, over the pixels of an 8-bit mask."""
        x, y, width, height = cv2.boundingRect(mask)
        if width == 0:
            return
        box = (slice(y, y + height), slice(x, x + width))
        alpha = mask[box].astype(np.float32) * np.float32(opacity / 255)
        colour = np.asarray(colour, np.float32)
        colour = colour[box] if colour.ndim == 3 else colour
        self.image[box] += alpha[..., None] * (colour - self.image[box])
        np.maximum(self.covered[box], alpha, out=self.covered[box])


def _blank(layer: Layer) -> np.ndarray:
    return np.zeros(layer.image.shape[:2], np.uint8)


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.round(np.clip(points, -4000, 4000) * 16).astype(np.int32)


@dataclass(frozen=True)
class Glasses:
    """Shape in units of length, colours RGB; ``tint`` is the lens's opacity (0 clear, 1 black)."""

    half_width: float
    half_height: float
    squareness: float
    thickness: float
    frame: np.ndarray
    lens: np.ndarray
    tint: float
    drop: float
    glare: float
    rimless: bool


def sample_glasses(rng: np.random.Generator, dark: bool) -> Glasses:
    """Draw glasses; dark ones hide the eyes."""
    frame = rng.uniform(0.02, 0.25) * np.ones(3) if rng.random() < 0.65 else rng.uniform(0.05, 0.8, 3)
    tint = rng.uniform(0.72, 1.0) if dark else rng.choice([0.0, rng.uniform(0, 0.25)])
    scale = 1.15 if dark else 1.0
    return Glasses(
        rng.uniform(0.19, 0.26) * scale, rng.uniform(0.11, 0.20) * scale, rng.uniform(2, 5), rng.choice([0.012, 0.022, 0.04, 0.06]),
        frame, rng.uniform(0.01, 0.15, 3), tint, rng.uniform(-0.02, 0.07), rng.random(), bool(rng.random() < 0.12),
    )  # fmt: skip


def glasses_points(glasses: Glasses, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lens outlines (2, 28, 3), the bridge (5, 3) and the arms (2, 6, 3), fixed to the head; the arms start at the lenses."""
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    power = 2 / glasses.squareness
    x = glasses.half_width * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    y = glasses.half_height * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
    y = y * (1 - 0.12 * x / glasses.half_width * np.sign(y))
    centre = landmarks[36:48, :2].mean(0) + (0, glasses.drop)
    gap = max(0.10 + glasses.half_width, 0.345)
    bridge_depth = landmarks[27, 2] + 0.05
    lenses = []
    for sign in (-1, 1):
        px = centre[0] + sign * (gap + x)
        lenses.append(np.stack([px, centre[1] + y, bridge_depth - 0.28 * (px - centre[0]) ** 2], axis=1))
    inner = gap - glasses.half_width
    bx = np.linspace(-inner, inner, 5)
    bridge = np.stack(
        [centre[0] + bx, centre[1] - 0.05 - 0.03 * np.cos(bx / inner * 1.5), bridge_depth + 0.02 + 0 * bx],
        axis=1,
    )
    arms = []
    for sign in (-1, 1):
        start = np.array(
            [
                centre[0] + sign * (gap + glasses.half_width),
                centre[1] - 0.04,
                bridge_depth - 0.28 * (gap + glasses.half_width) ** 2,
            ]
        )
        end = np.array([sign * 0.86, centre[1] - 0.02, -1.02])
        arms.append(start + np.linspace(0, 1, 6)[:, None] * (end - start))
    return np.stack(lenses), bridge, np.stack(arms)


def draw_glasses(
    layer: Layer, glasses: Glasses, lenses, bridge, arms, scale: float, arm_seen: tuple[bool, bool]
) -> np.ndarray:
    """Draw projected glasses (the parts of :func:`glasses_points`, in pixels); returns the lens area as an 8-bit mask."""
    area, rims = _blank(layer), _blank(layer)
    thickness = max(round(glasses.thickness * scale), 1)
    for lens in lenses:
        cv2.fillPoly(area, [_fixed(lens)], 255, cv2.LINE_AA, 4)
    covered = layer.covered.copy()
    if glasses.tint > 0:
        layer.paste(area, glasses.lens, glasses.tint)
    if glasses.tint < 0.5:
        layer.covered[:] = covered  # what is behind a clear lens stays visible
    if glasses.glare > 0.6:
        _glare(layer, glasses, lenses, area)
    if not glasses.rimless:
        for lens in lenses:
            cv2.polylines(rims, [_fixed(lens)], True, 255, thickness, cv2.LINE_AA, 4)
    cv2.polylines(rims, [_fixed(bridge)], False, 255, thickness, cv2.LINE_AA, 4)
    for arm, seen in zip(arms, arm_seen, strict=True):
        if seen:
            cv2.polylines(rims, [_fixed(arm)], False, 255, thickness, cv2.LINE_AA, 4)
    covered = layer.covered.copy()
    layer.paste(rims, glasses.frame)
    layer.covered[:] = covered  # a thin rim hides no landmark
    return area


def _glare(layer: Layer, glasses: Glasses, lenses: np.ndarray, area: np.ndarray) -> None:
    """A bright band across each lens."""
    band = _blank(layer)
    for lens in lenses:
        low, high = lens.min(0), lens.max(0)
        width = (high - low)[0] * (0.15 + 0.4 * (glasses.glare - 0.6))
        x = low[0] + (high - low)[0] * 0.3
        quad = np.array(
            [
                (x, high[1]),
                (x + width, high[1]),
                (x + width + 0.4 * (high - low)[1], low[1]),
                (x + 0.4 * (high - low)[1], low[1]),
            ]
        )
        cv2.fillPoly(band, [_fixed(quad)], 255, cv2.LINE_AA, 4)
    covered = layer.covered.copy()
    layer.paste(cv2.min(band, area), np.ones(3) * 0.95, 0.15 + 0.9 * (glasses.glare - 0.6))
    layer.covered[:] = covered


def occlude(
    layer: Layer,
    rng: np.random.Generator,
    centre: np.ndarray,
    extent: float,
    skin: np.ndarray,
    light: np.ndarray,
) -> None:
    """Put one random thing in front of the face.

    Parameters
    ----------
    layer : Layer
    rng : Generator
    centre : ndarray, shape (2,)
        Middle of the face, pixels.
    extent : float
        Side of the face's box, pixels.
    skin : ndarray, shape (3,)
        The person's skin, for their own hand.
    light : ndarray, shape (3,)
        Mean light of the scene.
    """
    kind = str(
        rng.choice(
            ["hand", "microphone", "ball", "polygon", "bar", "patch"], p=[0.34, 0.16, 0.12, 0.14, 0.12, 0.12]
        )
    )
    angle = rng.uniform(0, 2 * np.pi)
    place = centre + extent * rng.uniform(0.22, 0.62) * np.array([np.cos(angle), np.sin(angle)])
    {
        "hand": _hand,
        "microphone": _microphone,
        "ball": _ball,
        "polygon": _polygon,
        "bar": _bar,
        "patch": _patch,
    }[kind](layer, rng, place, centre, extent, skin, light)


def _relief(mask: np.ndarray, colour: np.ndarray, depth: float, light: np.ndarray) -> np.ndarray:
    """Colours that darken towards a mask's edges, as on a rounded thing."""
    inside = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 3)
    shade = np.float32(0.45) + np.float32(0.55) * np.sqrt(np.minimum(inside * np.float32(1 / depth), 1))
    return paint.tinted(shade, np.asarray(colour) * light)


def _hand(layer: Layer, rng, place, centre, extent, skin, light) -> None:
    """A palm with four fingers and a thumb, reaching in from outside."""
    mask = _blank(layer)
    reach = centre - place + rng.normal(0, 0.25, 2) * extent
    forward = reach / (np.linalg.norm(reach) + 1e-6)
    side = np.array([-forward[1], forward[0]]) * rng.choice([-1, 1])
    palm = extent * rng.uniform(0.16, 0.24)
    width = max(int(palm * 0.42), 2)
    curl = rng.uniform(-0.3, 0.3)
    shade = mask.copy()
    for k, length in enumerate((1.25, 1.5, 1.4, 1.1)):
        root = place + side * palm * (k - 1.5) * 0.48 + forward * palm * 0.5
        spread = forward + side * ((k - 1.5) * rng.uniform(0.02, 0.22) + curl)
        joint = root + spread * palm * length * 0.6
        tip = joint + (spread + side * curl) * palm * length * 0.55
        finger = _blank(layer)
        cv2.polylines(finger, [_fixed(np.array([root, joint, tip]))], False, 255, width, cv2.LINE_AA, 4)
        shade = np.maximum(shade, finger)
        layer.paste(finger, _relief(finger, skin, width * 0.45, light))
    thumb = np.array(
        [
            place + side * palm * 0.8,
            place + side * palm * 1.35 + forward * palm * 0.55,
            place + side * palm * 1.3 + forward * palm * 1.1,
        ]
    )
    cv2.polylines(mask, [_fixed(thumb)], False, 255, width, cv2.LINE_AA, 4)
    cv2.ellipse(
        mask, tuple(int(v) for v in place), (int(palm), int(palm * 1.1)), 0, 0, 360, 255, -1, cv2.LINE_AA
    )
    arm = np.array([place, place - forward * extent * 2])
    cv2.polylines(mask, [_fixed(arm)], False, 255, max(int(palm * 1.4), 2), cv2.LINE_AA, 4)
    layer.paste(mask, _relief(mask, skin, palm * 0.5, light))


def _microphone(layer: Layer, rng, place, centre, extent, skin, light) -> None:
    head, handle = _blank(layer), _blank(layer)
    radius = extent * rng.uniform(0.10, 0.17)
    place = centre + extent * np.array([rng.uniform(-0.35, 0.35), rng.uniform(0.22, 0.55)])
    away = np.array([rng.normal(0, 0.6), 1.0])
    colour = rng.uniform(0.02, 0.5) * np.ones(3)
    cv2.line(
        handle,
        *(tuple(int(v) for v in p) for p in (place, place + away * extent * 1.5)),
        255,
        max(int(radius * 0.9), 1),
        cv2.LINE_AA,
    )
    layer.paste(handle, _relief(handle, colour * 0.6, radius * 0.45, light))
    cv2.circle(head, tuple(int(v) for v in place), int(radius), 255, -1, cv2.LINE_AA)
    grid = noise_window(noise.smooth_tile(1), rng, head.shape[0])[..., None] * 0.12
    layer.paste(head, np.clip(_relief(head, colour, radius, light) * (1 + 2 * grid), 0, 1))


def _ball(layer: Layer, rng, place, centre, extent, skin, light) -> None:
    mask = _blank(layer)
    axes = extent * rng.uniform(0.10, 0.30, 2)
    cv2.ellipse(
        mask,
        tuple(int(v) for v in place),
        (int(axes[0]), int(axes[1])),
        rng.uniform(0, 180),
        0,
        360,
        255,
        -1,
        cv2.LINE_AA,
    )
    layer.paste(mask, _relief(mask, rng.random(3), float(axes.min()), light))


def _polygon(layer: Layer, rng, place, centre, extent, skin, light) -> None:
    mask = _blank(layer)
    outline = place + rng.normal(0, 0.22, (int(rng.integers(3, 8)), 2)) * extent
    cv2.fillPoly(mask, [_fixed(outline)], 255, cv2.LINE_AA, 4)
    texture = rng.random(3) * (1 + 0.25 * noise.blotches(rng, *mask.shape, int(rng.integers(3, 40))))
    layer.paste(mask, np.clip(texture * light, 0, 1.2))


def _bar(layer: Layer, rng, place, centre, extent, skin, light) -> None:
    """Strands of hair, straps, ropes, poles: a bent line of some width."""
    mask = _blank(layer)
    direction = rng.normal(0, 1, 2)
    path = (
        place
        + np.linspace(-1.6, 1.6, 9)[:, None] * direction * extent * 0.5
        + np.cumsum(rng.normal(0, 0.05, (9, 2)), 0) * extent
    )
    width = max(round((rng.choice([1, 2, 4, 10, 18]) + 1) * extent / 128), 1)
    cv2.polylines(mask, [_fixed(path)], False, 255, width, cv2.LINE_AA, 4)
    covered = layer.covered.copy()
    layer.paste(mask, _relief(mask, rng.random(3), width * 0.5, light))
    if width < extent / 25:
        layer.covered[:] = covered  # too thin to hide a landmark


def _patch(layer: Layer, rng, place, centre, extent, skin, light) -> None:
    """A phone, a cup, a book, a card: a rotated rectangle with a picture on it."""
    mask = _blank(layer)
    half = extent * rng.uniform(0.10, 0.32, 2)
    turn = rng.normal(0, 0.5)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = place + (np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half) @ axes
    cv2.fillPoly(mask, [_fixed(corners)], 255, cv2.LINE_AA, 4)
    picture = rng.random(3) + 0.35 * noise.blotches(rng, *mask.shape, int(rng.integers(4, 60)), 3)
    layer.paste(mask, np.clip(picture * light, 0, 1.2))
