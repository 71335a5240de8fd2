"""Who the head belongs to and what it does: identity and expression as displacements of the control cage.

Lengths are in units of the distance between the outer corners of the eyes; see :mod:`.template` for the axes. The spread of each
trait is set so that the principal components of similarity-aligned, near-frontal landmarks have the spread measured on the
training faces of 300-W.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .template import MIRROR, template

_UPPER_LIDS, _LOWER_LIDS = ((37, 38), (43, 44)), ((41, 40), (47, 46))
_CORNERS = ((36, 39), (45, 42))


@dataclass(frozen=True)
class Expression:
    """Activations; 0 is neutral and 1 is strong. ``lid_left`` and ``lid_right`` scale the height of the eye openings of the image's sides."""

    jaw_open: float = 0.0
    smile: float = 0.0
    sad: float = 0.0
    pucker: float = 0.0
    press: float = 0.0
    upper_lip: float = 0.0
    brow_left: float = 0.0
    brow_right: float = 0.0
    furrow: float = 0.0
    lid_left: float = 1.0
    lid_right: float = 1.0
    jaw_aside: float = 0.0
    skew: float = 0.0
    puff: float = 0.0


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Smooth step from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _bump(points: np.ndarray, centre: tuple[float, float, float], radius: float) -> np.ndarray:
    """Gaussian weight about a place and its mirror image, by control point."""
    x, y, z = centre
    right = ((points - (x, y, z)) ** 2).sum(1)
    left = ((points - (-x, y, z)) ** 2).sum(1)
    return np.exp(-np.minimum(left, right) / (2 * radius**2))


@lru_cache(maxsize=1)
def identity_modes() -> dict[str, np.ndarray]:
    """Displacement of every control point for one standard deviation of each symmetric trait: name to (C, 3)."""
    cage = template().controls
    x, y, z = cage.T
    side = np.sign(x) * np.minimum(1, np.abs(x) / 0.05)
    front = _ramp(z, -1.5, -0.2)
    lower, jaw = _ramp(y, 0.25, 0.9) * (y < 1.15), _ramp(y, 0.1, 0.6) * _ramp(np.abs(x), 0.2, 0.6) * (y < 1.0)
    zero = np.zeros_like(x)
    nose = _bump(cage, (0.0, 0.08, 0.25), 0.16)
    eyes = _bump(cage, (0.36, -0.33, -0.11), 0.16)
    eye_points, lip_points = np.zeros(len(x)), np.zeros(len(x))
    eye_points[36:48], lip_points[48:68] = 1, 1
    brow_points = np.zeros(len(x))
    brow_points[17:27] = 1
    eye_x, eye_y = x - np.sign(x) * 0.357, y + 0.325
    brow_x = np.abs(x) - 0.41
    mouth_y = y - 0.44
    cheeks = _bump(cage, (0.52, 0.25, -0.28), 0.24)
    face_low = _ramp(y, -0.1, 0.95) * (y < 1.15)

    def move(dx=zero, dy=zero, dz=zero) -> np.ndarray:
        return np.stack([dx, dy, dz], axis=1)

    return {
        "width": move(x * 0.052),
        "jaw_width": move(side * jaw * 0.052 + x * lower * 0.03),
        "jaw_corner": move(
            side * _bump(cage, (0.66, 0.50, -0.76), 0.22) * 0.040,
            _bump(cage, (0.66, 0.50, -0.76), 0.22) * 0.02,
        ),
        "lower_length": move(dy=_ramp(y, 0.15, 0.95) * 0.072),
        "middle_length": move(dy=_ramp(y, -0.35, 0.25) * 0.036),
        "forehead": move(dy=-_ramp(-y, 0.6, 1.2) * 0.06),
        "forehead_slope": move(dz=-_ramp(-y, 0.55, 1.2) * front * 0.06),
        "depth": move(dz=z * 0.06),
        "profile": move(dz=face_low * _ramp(z, -0.5, 0.0) * 0.05),
        "chin": move(
            dz=_bump(cage, (0.0, 0.88, -0.05), 0.20) * 0.055, dy=_bump(cage, (0.0, 0.92, -0.08), 0.18) * 0.02
        ),
        "chin_width": move(side * _bump(cage, (0.28, 0.85, -0.25), 0.16) * 0.032),
        "cheeks": move(side * cheeks * 0.048, dz=cheeks * 0.02),
        "cheekbones": move(
            side * _bump(cage, (0.62, -0.08, -0.35), 0.20) * 0.03,
            dz=_bump(cage, (0.47, -0.05, -0.13), 0.16) * 0.025,
        ),
        "nose_width": move(side * _bump(cage, (0.15, 0.13, 0.13), 0.10) * 0.027),
        "nose_length": move(dy=nose * 0.036),
        "nose_depth": move(dz=nose * 0.050),
        "nose_bridge": move(dz=_bump(cage, (0.0, -0.2, 0.17), 0.12) * 0.030),
        "nose_tip_up": move(dy=-_bump(cage, (0.0, 0.07, 0.32), 0.09) * 0.034),
        "eye_distance": move(side * eyes * 0.020),
        "eye_width": move(eye_points * eye_x * 0.075),
        "eye_height": move(dy=eye_points * eye_y * 0.15),
        "eye_tilt": move(dy=-eye_points * np.abs(x) * 0.045 + eye_points * 0.016),
        "eye_depth": move(dz=eyes * 0.025),
        "brow_height": move(dy=-_bump(cage, (0.41, -0.56, -0.05), 0.16) * 0.034 - brow_points * 0.012),
        "brow_tilt": move(dy=-brow_points * brow_x * 0.075),
        "brow_arch": move(dy=brow_points * (brow_x**2 - 0.035) * 0.40),
        "brow_length": move(side * brow_points * brow_x * 0.10, brow_points * np.maximum(brow_x, 0) * 0.10),
        "brow_gap": move(side * brow_points * 0.014),
        "mouth_width": move(lip_points * x * 0.075, dz=-lip_points * np.abs(x) * 0.03),
        "mouth_aside": move(lip_points * 0.008),
        "mouth_height": move(dy=_bump(cage, (0.1, 0.45, 0.06), 0.22) * 0.020),
        "mouth_depth": move(dz=_bump(cage, (0.08, 0.45, 0.08), 0.2) * 0.030),
        "upper_lip": move(dy=_lip_profile(upper=True) * 0.022),
        "lower_lip": move(dy=_lip_profile(upper=False) * 0.024),
        "mouth_arch": move(dy=lip_points * (np.abs(x) - 0.17) * 0.06),
        "lip_shape": move(dy=lip_points * mouth_y * 0.05),
        "neck": move(x * _ramp(y, 1.0, 1.2) * 0.10, dz=(z + 1.1) * _ramp(y, 1.0, 1.2) * 0.10),
    }


def _lip_profile(upper: bool) -> np.ndarray:
    """Which way each control point moves when a lip grows thicker (y per unit)."""
    profile = np.zeros(len(template().controls))
    if upper:
        profile[[49, 50, 51, 52, 53]] = (-0.7, -1, -1, -1, -0.7)
    else:
        profile[[55, 56, 57, 58, 59]] = (0.7, 1, 1, 1, 0.7)
    return profile


SEX_TRAITS = {
    "jaw_width": 0.5, "jaw_corner": 0.6, "lower_length": 0.45, "chin": 0.3, "chin_width": 0.4, "nose_width": 0.35, "nose_depth": 0.3,
    "nose_length": 0.25, "eye_height": -0.4, "brow_height": -0.65, "brow_arch": -0.5, "upper_lip": -0.35, "lower_lip": -0.3,
    "forehead_slope": 0.4, "cheekbones": -0.2, "neck": 0.7, "width": 0.15,
}  # fmt: skip


def identity_cage(rng: np.random.Generator, male: bool, spread: float = 1.0) -> np.ndarray:
    """A person's neutral control points.

    Parameters
    ----------
    rng : Generator
    male : bool
        Shifts sex-linked traits (jaw, brows, nose, lips, neck) by up to 0.7 standard deviations.
    spread : float
        Scale of the whole variation; 0 gives the template.

    Returns
    -------
    ndarray of float64, shape (C, 3)
    """
    modes = identity_modes()
    amounts = np.clip(rng.standard_normal(len(modes)), -2.4, 2.4)
    cage = template().controls.copy()
    for amount, (name, mode) in zip(amounts, modes.items(), strict=True):
        shift = SEX_TRAITS.get(name, 0.0) * (1 if male else -1)
        cage += (amount * spread + shift) * mode
    cage += spread * _asymmetry(rng)
    cage[:68, :2] += spread * rng.normal(0, 0.007, (68, 2))
    return _keep_lips_closed(cage)


def _asymmetry(rng: np.random.Generator) -> np.ndarray:
    """Low-order asymmetry of a face: bent midline, one side wider or higher."""
    cage = template().controls
    x, y, _ = cage.T
    face = _ramp(-np.abs(y), -1.4, -0.9)
    bend, wider, higher, low_bend = rng.normal(0, (0.016, 0.018, 0.016, 0.030))
    dx = (bend * y + wider * x**2 + low_bend * np.maximum(y - 0.2, 0)) * face
    dy = higher * x * face
    return np.stack([dx, dy, np.zeros_like(x)], axis=1)


def _keep_lips_closed(cage: np.ndarray) -> np.ndarray:
    """Join the inner lips of a neutral face again after point-wise variation, and keep lips from crossing."""
    for upper, lower in ((61, 67), (62, 66), (63, 65)):
        cage[upper] = cage[lower] = (cage[upper] + cage[lower]) / 2
    for outer, inner in ((49, 61), (50, 61), (51, 62), (52, 63), (53, 63)):
        cage[outer, 1] = min(cage[outer, 1], cage[inner, 1] - 0.012)
    for outer, inner in ((55, 65), (56, 65), (57, 66), (58, 67), (59, 67)):
        cage[outer, 1] = max(cage[outer, 1], cage[inner, 1] + 0.022)
    return cage


def apply_expression(cage: np.ndarray, expression: Expression) -> np.ndarray:
    """Control points (C, 3) of a person's neutral cage (C, 3) with an expression."""
    posed = cage.copy()
    _lips_and_cheeks(posed, cage, expression)
    _brows(posed, expression)
    _open_jaw(posed, expression)
    _lids(posed, expression)
    return posed


@lru_cache(maxsize=1)
def _weights() -> dict[str, np.ndarray]:
    """Fixed weights (C,) of the muscles, from the template."""
    cage = template().controls
    x, y, z = cage.T
    jaw = _ramp(y, 0.35, 0.62) * _ramp(z, -1.0, -0.45) * _ramp(-y, -1.25, -1.02)
    jaw[:17] = [0, 0, 0.1, 0.28, 0.55, 0.85, 1, 1, 1, 1, 1, 0.85, 0.55, 0.28, 0.1, 0, 0]
    jaw[17:68] = 0
    jaw[[55, 56, 57, 58, 59, 65, 66, 67]] = (0.85, 1, 1, 1, 0.85, 1, 1, 1)
    jaw[[48, 54, 60, 64]] = 0.42
    jaw[[49, 53]] = 0.05
    return {
        "jaw": jaw,
        "corner": _bump(cage, (0.30, 0.43, -0.10), 0.14),
        "cheek": _bump(cage, (0.40, 0.05, -0.06), 0.20) * (np.arange(len(x)) >= 68),
        "lips": np.where(
            (np.arange(len(x)) >= 48) & (np.arange(len(x)) < 68),
            1.0,
            0.35 * _bump(cage, (0.1, 0.45, 0.06), 0.2),
        ),
        "puff": _bump(cage, (0.48, 0.38, -0.22), 0.2) * (np.arange(len(x)) >= 68),
    }


def _lips_and_cheeks(posed: np.ndarray, cage: np.ndarray, e: Expression) -> None:
    w = _weights()
    side = np.sign(cage[:, 0])
    uneven = 1 + e.skew * side  # one corner pulls more than the other
    pull = w["corner"] * uneven
    posed[:, 0] += side * pull * (0.080 * e.smile + 0.02 * e.sad) - side * w["corner"] * 0.02 * e.press
    posed[:, 1] += pull * (-0.055 * e.smile + 0.075 * e.sad)
    posed[:, 2] += pull * (-0.065 * e.smile)
    posed[:, 1] -= w["cheek"] * 0.055 * e.smile * uneven
    posed[:, 2] += w["cheek"] * 0.045 * e.smile
    posed[[31, 35], 0] += np.array([-1, 1]) * 0.016 * e.smile
    posed[[50, 51, 52, 61, 62, 63], 1] -= 0.022 * e.smile + 0.05 * e.upper_lip
    posed[[49, 53], 1] -= 0.035 * e.upper_lip
    posed[31:36, 1] -= 0.016 * e.upper_lip
    posed[:, 0] -= w["lips"] * cage[:, 0] * 0.42 * e.pucker
    posed[:, 2] += w["lips"] * 0.07 * e.pucker
    thinner = 1 - 0.55 * e.press
    middle = posed[[61, 62, 63, 65, 66, 67], 1].mean()
    outer = np.arange(48, 60)
    posed[outer, 1] = middle + (posed[outer, 1] - middle) * thinner
    posed[:, 0] += side * w["puff"] * 0.09 * e.puff
    posed[:, 2] += w["puff"] * 0.06 * e.puff


def _brows(posed: np.ndarray, e: Expression) -> None:
    for brow, aux_sign, lift in ((range(17, 22), -1, e.brow_left), (range(22, 27), 1, e.brow_right)):
        posed[list(brow), 1] -= np.array([0.06, 0.085, 0.09, 0.08, 0.07][::-aux_sign]) * lift
    posed[[21, 22], 0] += np.array([1, -1]) * 0.028 * e.furrow
    posed[[20, 23], 0] += np.array([1, -1]) * 0.015 * e.furrow
    posed[[21, 22], 1] += 0.045 * e.furrow
    posed[[20, 23], 1] += 0.025 * e.furrow


def _open_jaw(posed: np.ndarray, e: Expression) -> None:
    """Turn the lower jaw about the axis of its joints (up to 24 degrees) and slide it aside."""
    weight = _weights()["jaw"]
    angle = np.radians(24 * e.jaw_open) * weight
    y, z = posed[:, 1] + 0.05, posed[:, 2] + 0.80
    posed[:, 1] = y * np.cos(angle) + z * np.sin(angle) - 0.05
    posed[:, 2] = z * np.cos(angle) - y * np.sin(angle) - 0.80
    narrower = 1 - 0.16 * e.jaw_open * np.isin(np.arange(len(posed)), (48, 54, 60, 64))
    posed[:, 0] = posed[:, 0] * narrower + 0.09 * e.jaw_aside * weight


def _lids(posed: np.ndarray, e: Expression) -> None:
    """Scale eye openings about a line near the lower lid, so that the upper lid does most of the work."""
    for upper, lower, corners, lid in zip(
        _UPPER_LIDS, _LOWER_LIDS, _CORNERS, (e.lid_left, e.lid_right), strict=True
    ):
        squint = 0.25 * max(e.smile, 0.0)
        opening = max(lid * (1 - squint), 0.0)
        for top, bottom in zip(upper, lower, strict=True):
            rest = 0.22 * posed[top, 1] + 0.78 * posed[bottom, 1]
            posed[top, 1] = rest + (posed[top, 1] - rest) * opening
            posed[bottom, 1] = rest + (posed[bottom, 1] - rest) * opening
        if opening < 0.5:
            fall = (0.5 - opening) * 0.03
            posed[list(corners), 1] += fall


def mirrored(cage: np.ndarray) -> np.ndarray:
    """Landmarks (68, 3) seen in a mirror: x negated and points renumbered."""
    return cage[MIRROR] * (-1, 1, 1)
