"""Everything worn on the head by its surface: hair, hats, scarves and masks, as colour in the texture and as thickness.

A covering is a curve over azimuth: the surface above it (or below, for what covers the mouth) is covered, and its vertices
move outwards, so that the silhouette changes with it.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from . import noise
from .canvas import canvas
from .template import TEXELS, template

STYLES = (
    "bald",
    "buzz",
    "short",
    "receding",
    "side_fringe",
    "full_fringe",
    "medium",
    "long",
    "long_fringe",
    "afro",
    "tied",
)
_MALE = (0.06, 0.14, 0.40, 0.14, 0.09, 0.02, 0.06, 0.03, 0.01, 0.04, 0.01)
_FEMALE = (0.005, 0.01, 0.06, 0.0, 0.12, 0.03, 0.19, 0.34, 0.08, 0.035, 0.13)
# Hairline's height at these azimuths (degrees): forehead, temples, sideburns, behind the ears, nape.
_AT = np.array([0, 18, 34, 48, 60, 72, 82, 92, 108, 140, 180])
_SHORT = np.array([-1.12, -1.12, -1.05, -0.90, -0.63, -0.38, -0.15, -0.38, 0.16, 0.48, 0.52])


@dataclass(frozen=True)
class Covering:
    """Alpha (rows, columns) over the texture, its colour (rows, columns, 3) and thickness at the grid's vertices."""

    alpha: np.ndarray
    colour: np.ndarray
    thickness: np.ndarray
    curtain: float = 0.0


def _edge(curve: np.ndarray, wobble: np.ndarray | np.float32, softness: float) -> np.ndarray:
    """Alpha of the surface above a curve given per texel column."""
    field = canvas()
    steep = np.float32(1 / softness)
    alpha = (curve / softness + 0.5).astype(np.float32) - (field.height / softness).astype(np.float32)[
        :, None
    ]
    alpha += wobble * steep
    np.clip(alpha, 0, 1, out=alpha)
    alpha[(template().shape[0] - 1) * TEXELS + 1 :] = 0
    return alpha


def _at_vertices(alpha: np.ndarray, thickness: np.ndarray | float) -> np.ndarray:
    rows, columns = template().shape
    coarse = cv2.blur(cv2.blur(alpha, (13, 9)), (13, 5))[::TEXELS, ::TEXELS][:rows, :columns]
    return (np.clip(2 * coarse - 1, 0, 1) * thickness).astype(
        np.float32
    )  # nothing moves outside the covering


def hairline(style: str, rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """Height of the hairline at the azimuths of the table, for both sides (2, n), thickness and curtain length."""
    line = np.stack([_SHORT, _SHORT]).astype(float)
    line[:, :5] += rng.normal(0, 0.05)
    line[:, 5:8] += rng.normal(0, 0.12)
    thick, curtain = rng.uniform(0.05, 0.15), 0.0
    if style == "bald":
        line[:, :9] = -1.6
        line[:, 9:] -= rng.uniform(0, 1.5)
        thick = 0.015
    elif style == "buzz":
        thick = 0.02
    elif style == "receding":
        line[:, :6] -= np.array([0.05, 0.12, 0.22, 0.20, 0.12, 0.05]) * rng.uniform(0.6, 2.2)
    elif style in ("side_fringe", "full_fringe", "long_fringe"):
        low = rng.uniform(-0.86, -0.50)
        slant = (
            rng.normal(0, 0.10) if style != "side_fringe" else rng.choice([-1, 1]) * rng.uniform(0.12, 0.32)
        )
        for side, sign in ((0, -1), (1, 1)):
            line[side, :5] = np.maximum(line[side, :5], low + sign * slant * np.array([0, 0.4, 0.8, 1, 1.1]))
        line[:, 5:8] += 0.08
        thick = rng.uniform(0.07, 0.15)
    elif style == "afro":
        thick = rng.uniform(0.2, 0.55)
    elif style == "tied":
        thick = rng.uniform(0.03, 0.07)
        line[:, 5:8] -= 0.08
    if style in ("medium", "long", "long_fringe"):
        start = rng.uniform(50, 88, 2)
        curtain = rng.uniform(0.35, 0.9) if style == "medium" else 2.2
        thick = rng.uniform(0.07, 0.17)
        for side in (0, 1):
            line[side] = np.where(start[side] <= _AT, np.maximum(line[side], curtain), line[side])
    return line, thick, curtain


def sample_hair(rng: np.random.Generator, male: bool, colour: np.ndarray) -> Covering:
    """A person's hair of the scalp."""
    field = canvas()
    style = str(rng.choice(STYLES, p=_normalised(_MALE if male else _FEMALE)))
    line, thick, curtain = hairline(style, rng)
    curve = np.where(
        field.azimuth < 0, np.interp(-field.azimuth, _AT, line[0]), np.interp(field.azimuth, _AT, line[1])
    )
    locks = noise.blotches(rng, 1, field.shape[1], 60)[0, :, 0] * rng.uniform(0.01, 0.06)
    strands = noise.window(noise.strand_tile(), rng, *field.shape)
    ragged = strands * np.float32(rng.uniform(0.01, 0.05))
    alpha = _edge(curve + locks, ragged, rng.uniform(0.03, 0.10))
    if style == "buzz":
        alpha *= np.float32(rng.uniform(0.5, 0.9))
    sheen = noise.window(noise.smooth_tile(16), rng, *field.shape)[..., 0]
    shade = 1 + np.float32(rng.uniform(0.12, 0.32)) * strands + np.float32(rng.uniform(0.05, 0.25)) * sheen
    glints = strands * np.float32(0.012)
    painted = cv2.merge([np.maximum(shade * np.float32(c) + glints, 0) for c in colour])
    rows, columns = template().shape
    lumps = 1 + noise.blotches(rng, rows, columns, 14)[..., 0] * rng.uniform(0.1, 0.5)
    lumps *= np.interp(template().height, [-1.4, -1.0, -0.6], [1.6, 1.3, 1.0])[:, None]
    if style == "medium":  # ends lie close to the neck
        lumps *= np.clip((curtain - template().height) / 0.6, 0.2, 1)[:, None]
    thickness = _at_vertices(alpha, thick * lumps)
    return Covering(alpha, painted, thickness, curtain)


def sample_hat(rng: np.random.Generator) -> Covering:
    """A cap with a visor, a beanie, a hood or a head scarf."""
    field = canvas()
    kind = str(rng.choice(["cap", "beanie", "hood", "band"], p=[0.35, 0.3, 0.25, 0.1]))
    far = np.abs(field.azimuth)
    height = rng.uniform(-0.98, -0.70)
    curve = (
        height
        + rng.normal(0, 0.05) * field.azimuth / 40
        + np.interp(far, [0, 60, 100, 180], [0, 0.08, 0.15, 0.25])
    )
    if kind == "hood":
        start = rng.uniform(48, 84)
        curve = np.where(far > start, 2.2, np.interp(far, [0, start], [min(height, -0.8), -0.35]))
    alpha = _edge(curve, np.float32(0), 0.02)
    if kind == "band":
        alpha *= field.height[:, None] > height - rng.uniform(0.1, 0.3)
    thickness = _at_vertices(alpha, rng.uniform(0.04, 0.16))
    if kind == "cap":
        base = template()
        reach = np.exp(-((base.azimuth / 42) ** 2)) * rng.uniform(0.25, 0.75)
        thickness = thickness + np.exp(-(((base.height - height + 0.03) / 0.055) ** 2))[:, None] * reach[None]
    return Covering(
        alpha, cloth(rng, field.shape), thickness.astype(np.float32), 2.2 if kind == "hood" else 0.0
    )


def sample_mask(rng: np.random.Generator) -> Covering:
    """Cloth over mouth and chin: a mask or a scarf, which may reach over the nose."""
    field = canvas()
    far = np.abs(field.azimuth)
    top = rng.uniform(-0.12, 0.62)
    curve = (
        top
        + np.interp(far, [0, 30, 70, 110, 180], [0, 0.06, 0.10, 0.25, 0.4])
        + rng.normal(0, 0.05) * field.azimuth / 40
    )
    bottom = rng.uniform(1.0, 1.15) if rng.random() < 0.4 else 2.2
    alpha = (1 - _edge(curve, np.float32(0), 0.02)) * (field.height[:, None] < bottom)
    alpha[(template().shape[0] - 1) * TEXELS + 1 :] = 0
    return Covering(alpha, cloth(rng, field.shape), _at_vertices(alpha, rng.uniform(0.02, 0.10)))


def collar(rng: np.random.Generator, colour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Alpha and colour of clothes on the neck."""
    field = canvas()
    far = np.abs(field.azimuth)
    line = rng.uniform(1.25, 1.75) + np.interp(far, [0, 60, 180], [rng.uniform(0, 0.35), 0, -0.1])
    alpha = 1 - _edge(line, np.float32(0), 0.02)
    alpha[(template().shape[0] - 1) * TEXELS + 1 :] = 0
    return alpha, colour


def cloth(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Plain, knitted or patterned cloth: float32 (rows, columns, 3)."""
    rows, columns = shape
    base = rng.uniform(0.03, 0.95) * (0.35 + 0.65 * rng.random(3))
    other = rng.random(3)
    pattern = noise.blotches(rng, rows, columns, 12)[..., 0] * np.float32(0.08)
    kind = rng.random()
    if kind < 0.2:
        period, angle = rng.uniform(8, 40), rng.uniform(0, np.pi)
        phase = np.cos(angle) * np.arange(columns)[None] + np.sin(angle) * np.arange(rows)[:, None]
        mix = (np.mod(phase / period, 1) < 0.5).astype(np.float32)
    elif kind < 0.35:
        mix = (
            noise.window(noise.smooth_tile(int(rng.integers(2, 6))), rng, rows, columns)[..., 0] > 0.6
        ).astype(np.float32)
    else:
        mix = np.zeros((rows, columns), np.float32)
    light = 1 + pattern
    return cv2.merge(
        [
            np.clip((np.float32(b) + mix * np.float32(o - b)) * light, 0, 1)
            for b, o in zip(base, other, strict=True)
        ]
    )


def _normalised(weights: tuple[float, ...]) -> np.ndarray:
    array = np.array(weights)
    return array / array.sum()
