"""Painting the texture: skin, eyes, brows, lips, teeth, facial hair, lines of age.

Colours are RGB in [0, 1] without a transfer curve of their own: light multiplies them and the sensor shapes the tone. Everything
is painted at fixed places of the :mod:`.canvas`; iris and teeth use real lengths, so that a narrowed eye covers its
iris and a closed mouth its teeth.
"""

from dataclasses import dataclass

import numpy as np

from . import noise, paint
from .canvas import Canvas, Opening, canvas

IRIS_RADIUS = 0.066  # 11.8 mm across, in units of the outer eye distance
_SKIN = np.array(
    [
        (0.95, 0.76, 0.65),
        (0.90, 0.67, 0.53),
        (0.82, 0.58, 0.43),
        (0.69, 0.45, 0.31),
        (0.51, 0.32, 0.22),
        (0.32, 0.20, 0.14),
    ]
)
_IRIS = np.array(
    [
        (0.20, 0.12, 0.07),
        (0.32, 0.20, 0.10),
        (0.42, 0.38, 0.20),
        (0.35, 0.45, 0.35),
        (0.42, 0.55, 0.66),
        (0.45, 0.50, 0.52),
    ]
)
HAIR = np.array(
    [(0.05, 0.04, 0.04), (0.12, 0.08, 0.06), (0.23, 0.15, 0.10), (0.36, 0.24, 0.14), (0.58, 0.43, 0.26), (0.80, 0.68, 0.45)]
    + [(0.45, 0.20, 0.10), (0.50, 0.48, 0.47), (0.82, 0.81, 0.80)]
)  # fmt: skip


@dataclass(frozen=True)
class Complexion:
    """What a person's face looks like, apart from its shape. Strengths lie in [0, 1]; colours are RGB in [0, 1]."""

    skin: np.ndarray
    iris: np.ndarray
    hair: np.ndarray
    brow_colour: np.ndarray
    lip_colour: np.ndarray
    iris_radius: float
    brow_thickness: float
    brow_density: float
    age: float
    makeup: float
    blush: float
    freckles: float
    beard: str
    beard_density: float
    brow_offset: float
    sockets: float
    chin_crease: float


def sample_complexion(rng: np.random.Generator, male: bool) -> Complexion:
    """Draw a complexion; tone, hair and iris are linked as they are in people."""
    tone = rng.beta(0.9, 1.5) * (len(_SKIN) - 1)
    skin = np.array([np.interp(tone, np.arange(len(_SKIN)), _SKIN[:, c]) for c in range(3)])
    skin = np.clip(skin * rng.normal(1, 0.04) + rng.normal(0, 0.018, 3), 0.05, 1)
    dark = tone > 2.4
    age = rng.beta(1.3, 2.0)
    if rng.random() < 0.75 * max(age - 0.5, 0) * 2:
        hair = HAIR[rng.integers(7, 9)]
    else:
        hair = HAIR[rng.integers(0, 2 if dark else 7)]
    hair = np.clip(hair * rng.normal(1, 0.12) + rng.normal(0, 0.01, 3), 0.02, 1)
    iris = _IRIS[rng.integers(0, 2 if dark else len(_IRIS))] * rng.normal(1, 0.1)
    makeup = 0.0 if male else float(rng.random() < 0.6) * rng.uniform(0.2, 1.0)
    lips = skin * (0.86, 0.62, 0.62) + (0.03, 0.0, 0.01)
    lips = lips * rng.uniform(0.85, 1.05) + rng.normal(0, 0.02, 3)
    if makeup > 0.4:
        lips = lips * 0.45 + 0.55 * np.array(
            [rng.uniform(0.45, 0.85), rng.uniform(0.08, 0.35), rng.uniform(0.12, 0.40)]
        )
    beard = "none"
    if male:
        beard = rng.choice(
            ["none", "stubble", "moustache", "goatee", "full"], p=[0.64, 0.19, 0.05, 0.05, 0.07]
        )
    return Complexion(
        skin, np.clip(iris, 0.02, 1), hair, np.clip(hair * rng.uniform(0.5, 1.0), 0.02, 0.7), np.clip(lips, 0.03, 1),
        IRIS_RADIUS * rng.normal(1, 0.05), rng.uniform(0.028, 0.046) * (1.12 if male else 0.82), rng.uniform(0.35, 0.95), age, makeup,
        rng.uniform(0, 0.4), max(rng.normal(-0.3, 0.5), 0), str(beard), rng.uniform(0.5, 1.0), max(rng.normal(0.044, 0.010), 0.015),
        rng.uniform(0.0, 0.25), rng.uniform(0.0, 0.30),
    )  # fmt: skip


def paint_face(
    complexion: Complexion, landmarks: np.ndarray, gaze: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The texture of the head's skin with all facial features, hair of the scalp excluded.

    Parameters
    ----------
    complexion : Complexion
    landmarks : ndarray, shape (68, 3)
        The expressive face in its own coordinates, for the true size of eye and mouth openings.
    gaze : ndarray, shape (2,)
        Displacement of the irises (x, y), units of length.
    rng : Generator

    Returns
    -------
    ndarray of float32, shape (rows, columns, 3)
    """
    field = canvas()
    texture = _skin(complexion, field, rng)
    _creases(texture, complexion, field, landmarks)
    _facial_hair(texture, complexion, field, rng)
    _lips(texture, complexion, field, landmarks)
    _mouth(texture, field, landmarks, rng)
    _brow_hair(texture, complexion, field, rng)
    for eye, (left, right, tops, bottoms) in zip(
        field.eyes, ((36, 39, (37, 38), (41, 40)), (42, 45, (43, 44), (47, 46))), strict=True
    ):
        width = float(np.linalg.norm(landmarks[left] - landmarks[right]))
        height = float(
            np.mean([np.linalg.norm(landmarks[a] - landmarks[b]) for a, b in zip(tops, bottoms, strict=True)])
        )
        _eye(texture, complexion, eye, width, height * 1.08, gaze, inner_right=left == 36)
    lashes = field.masks["lashes"] * (0.70 + 0.30 * complexion.makeup) + 0.40 * field.masks["lower_lashes"]
    _blend(texture, np.array([0.06, 0.045, 0.04]), np.minimum(lashes, 1), rows=_rows(field, -0.48, -0.2))
    return texture


def _rows(field: Canvas, low: float, high: float) -> slice:
    """Rows of the texture between two heights."""
    start, stop = np.searchsorted(field.height[: -len(field.height) // 8], (low, high))
    return slice(int(start), int(stop))


def _blend(texture: np.ndarray, colour: np.ndarray, alpha: np.ndarray, rows: slice) -> None:
    """Mix a colour into some rows of the texture."""
    paint.mix(texture[rows], alpha[rows], colour)


def _darken(texture: np.ndarray, amount: np.ndarray, tint: tuple[float, float, float], rows: slice) -> None:
    """Multiply some rows by 1 - amount, less so in red where the tint says so."""
    paint.darken(texture[rows], amount[rows], tint)


def _skin(c: Complexion, field: Canvas, rng: np.random.Generator) -> np.ndarray:
    rows, columns = field.shape
    tone = noise.window(noise.skin_tile(), rng, rows, columns) * np.float32(
        0.028 + 0.025 * c.age
    ) + np.float32(1)
    texture = paint.tinted(tone, c.skin)
    red = 0.10 + 0.5 * c.blush
    face = _rows(field, -0.4, 0.6)
    warm = (field.masks["cheeks"][face] + np.float32(0.7) * field.masks["nose"][face]) * np.float32(
        0.22 * red
    )
    paint.darken(texture[face], warm, (0, 1, 1))
    # light that skin scatters where it is stretched, and lacks in the sockets; necks are lighter or darker than faces
    lit = (
        field.masks["apples"][face]
        + np.float32(0.8) * field.masks["mouth_side"][face]
        + np.float32(0.4) * field.masks["nose"][face]
    )
    texture[face] *= 1 + np.float32(rng.uniform(0.08, 0.32)) * lit[..., None]
    _darken(
        texture,
        field.masks["jaw_edge"] * np.float32(rng.uniform(0.0, 0.40)),
        (1, 1, 1),
        _rows(field, 0.1, 1.3),
    )
    _darken(texture, field.masks["sockets"] * np.float32(c.sockets), (0.8, 1, 1), _rows(field, -0.7, -0.15))
    texture *= 1 + field.masks["neck"][..., None] * np.float32(rng.uniform(-0.15, 0.35))
    if c.freckles > 0.3:
        spots = noise.window(noise.smooth_tile(2), rng, rows, columns)[..., 1]
        _darken(
            texture,
            np.clip(spots - 1.6, 0, 0.5) * np.float32(c.freckles) * 0.8,
            (0.6, 0.9, 1),
            _rows(field, -0.5, 0.4),
        )
    return texture


def _creases(texture: np.ndarray, c: Complexion, field: Canvas, landmarks: np.ndarray) -> None:
    """Lines of age and of expression, and the dark places that the sky does not reach."""
    rows = _rows(field, -1.0, 0.75)
    m = {name: mask[rows] for name, mask in field.masks.items()}
    smile = np.clip((np.linalg.norm(landmarks[48] - landmarks[54]) - 0.64) * 4, 0, 0.8)
    raised = np.clip((-landmarks[[19, 24], 1].mean() - 0.62) * 8, 0, 1)
    amount = m["nasolabial"] * (0.05 + 0.22 * c.age + 0.22 * smile) + m["eye_bag"] * (0.03 + 0.12 * c.age)
    amount += (
        m["forehead_lines"] * (0.16 * max(c.age - 0.3, 0) + 0.16 * raised)
        + m["alar_crease"] * 0.18
        + m["chin_crease"] * c.chin_crease
    )
    amount += m["crow_feet"] * (0.14 * max(c.age - 0.3, 0) + 0.12 * smile) + m["frown_lines"] * 0.18 * max(
        c.age - 0.3, 0
    )
    amount += m["lid_crease"] * 0.24 + m["lid"] * 0.06
    paint.darken(texture[rows], np.minimum(amount, 0.7), (0.8, 1, 1))
    _blend(texture, c.skin * 0.22, field.masks["nostrils"] * 0.6, _rows(field, 0.05, 0.3))
    if c.makeup > 0.3:
        shadow = np.array([0.25, 0.18, 0.22]) * (0.5 + c.skin)
        _blend(texture, shadow, field.masks["lids"] * np.float32(0.55 * c.makeup), _rows(field, -0.6, -0.25))


def _facial_hair(texture: np.ndarray, c: Complexion, field: Canvas, rng: np.random.Generator) -> None:
    """Beard and moustache as stippled or solid areas."""
    if c.beard == "none":
        return
    rows = _rows(field, -0.35, 1.25)
    m = field.masks
    area = {
        "stubble": 0.55 * np.maximum(m["beard"], m["moustache"]),
        "moustache": m["moustache"],
        "goatee": np.maximum(m["goatee"], m["moustache"]),
        "full": np.maximum(m["beard"], m["moustache"]),
    }[c.beard][rows]  # fmt: skip
    hairs = noise.window(noise.strand_tile(), rng, area.shape[0], area.shape[1])
    edge = noise.blotches(rng, area.shape[0], area.shape[1], 30)[..., 0] * 0.35
    alpha = (
        np.clip(area * (1.25 + 0.35 * edge) - 0.12, 0, 1)
        * np.clip(0.72 + 0.22 * hairs, 0.1, 1)
        * np.float32(c.beard_density)
    )
    paint.mix(
        texture[rows], alpha, paint.tinted(1 + np.float32(0.25) * hairs, c.hair * 0.8 + 0.2 * c.brow_colour)
    )


def _lips(texture: np.ndarray, c: Complexion, field: Canvas, landmarks: np.ndarray) -> None:
    rows = _rows(field, 0.2, 0.9)
    gap = float(np.linalg.norm(landmarks[62] - landmarks[66]))
    _blend(texture, c.lip_colour, field.lips * np.float32(0.62), rows)
    depth = 0.62 * np.exp(-gap / 0.05) + 0.15
    _darken(texture, field.seam * np.float32(depth), (0.8, 1, 1), rows)


def _mouth(texture: np.ndarray, field: Canvas, landmarks: np.ndarray, rng: np.random.Generator) -> None:
    """The inside of the mouth: dark, with teeth that hang from the skull and stand on the jaw, and a tongue."""
    mouth = field.mouth
    height = float(np.linalg.norm(landmarks[62] - landmarks[66])) * mouth.gap
    width = float(np.linalg.norm(landmarks[60] - landmarks[64]))
    across = mouth.across * width
    from_top, from_bottom = mouth.down * height, (1 - mouth.down) * height
    hidden, tooth = rng.uniform(-0.02, 0.045), rng.uniform(0.085, 0.115)
    below = rng.uniform(-0.05, 0.035)
    colour = np.tile(np.array([0.16, 0.05, 0.05], np.float32), (len(across), 1))
    tongue = np.clip(1 - from_bottom / 0.10, 0, 1) * (np.abs(mouth.across) < 0.36) * (rng.random() < 0.6)
    colour += tongue[:, None] * (np.array([0.62, 0.28, 0.28], np.float32) - colour)
    enamel = (
        np.array([0.86, 0.82, 0.75], np.float32)
        * rng.uniform(0.75, 1.02)
        * (1 - np.exp(-(height[:, None] + 0.01) / 0.05))
    )
    bend = tooth * (1 - 1.6 * mouth.across**2) - hidden
    for distance, reach in ((from_top, bend), (from_bottom, below * (1 - 2 * mouth.across**2))):
        mask = np.clip((reach - distance) / 0.012 + 0.5, 0, 1) * np.clip(
            (0.46 - np.abs(mouth.across)) / 0.05, 0, 1
        )
        gaps = 0.75 + 0.25 * np.clip(np.abs(np.sin(np.pi * across / 0.062)) * 4, 0, 1)
        shade = (gaps * (1 - 0.9 * np.abs(mouth.across)))[:, None]
        colour += mask[:, None] * (enamel * shade - colour)
    flat = texture.reshape(-1, 3)
    flat[mouth.index] += mouth.alpha[:, None] * (colour - flat[mouth.index])


def _brow_hair(texture: np.ndarray, c: Complexion, field: Canvas, rng: np.random.Generator) -> None:
    rows = _rows(field, -0.82, -0.28)
    along, below = field.brow_along[rows], field.brow_below[rows]
    taper = np.interp(along, [-0.06, 0.0, 0.25, 0.7, 0.97, 1.06], [0, 0.22, 0.65, 1, 0.9, 0]).astype(
        np.float32
    )
    half = np.float32(c.brow_thickness) * taper
    hairs = noise.window(noise.strand_tile(), rng, along.shape[0], along.shape[1])
    alpha = np.clip((half - np.abs(below - np.float32(c.brow_offset))) / 0.024 + 0.5 + 0.10 * hairs, 0, 1)
    alpha *= (taper > 0.02) * np.clip(0.85 + 0.18 * hairs, 0.3, 1) * np.float32(c.brow_density)
    paint.mix(texture[rows], alpha, c.brow_colour)


def _eye(
    texture: np.ndarray,
    c: Complexion,
    eye: Opening,
    width: float,
    height: float,
    gaze: np.ndarray,
    inner_right: bool,
) -> None:
    """Sclera, iris, pupil, the wet highlight and the shade of the upper lid, at their true sizes."""
    x = eye.across * width
    y = (eye.down - 0.5) * height * eye.gap
    colour = np.tile(
        (np.array([0.66, 0.63, 0.61], np.float32) * np.float32(0.70 + 0.35 * c.skin.mean())), (len(x), 1)
    )
    nose_side = (eye.across if inner_right else -eye.across) - 0.36
    colour += np.clip(nose_side * 10, 0, 0.7)[:, None] * (np.array([0.80, 0.52, 0.47], np.float32) - colour)
    distance = np.hypot(x - gaze[0], y - gaze[1] + 0.006)
    radius = c.iris_radius
    inside = np.clip((radius - distance) / 0.010 + 0.5, 0, 1)
    ring = np.interp(distance / radius, [0, 0.36, 0.44, 0.75, 1.0], [0.05, 0.05, 1.15, 1.0, 0.35]).astype(
        np.float32
    )
    colour += inside[:, None] * (c.iris.astype(np.float32) * ring[:, None] - colour)
    from_lid = eye.down * height * eye.gap
    colour *= (1 - 0.52 * np.exp(-from_lid / 0.020))[:, None] * (
        1 - 0.75 * np.abs(eye.across * 2)[:, None] ** 3
    )
    glint = np.hypot(x - gaze[0] + 0.018, y - gaze[1] + 0.026)
    colour += np.clip((0.013 - glint) / 0.008 + 0.5, 0, 1)[:, None] * (1 - colour) * 0.9
    flat = texture.reshape(-1, 3)
    flat[eye.index] += eye.alpha[:, None] * (colour - flat[eye.index])
