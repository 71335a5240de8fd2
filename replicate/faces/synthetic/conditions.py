"""The conditions faces are drawn under, and the draw of everything that is not the person.

Spread of pose and expression follows the training faces of 300-W, summarised: half of them turn by less than 10 degrees and one in
ten by more than 27; pitch has a standard deviation of about 10 degrees; half roll by less than 4.4 degrees and one in ten by more
than 13.5; eye openings, lip gaps and mouth widths have the quantiles measured there. The challenging condition goes
well beyond that in every respect; the private one lies between.
"""

from dataclasses import dataclass

import numpy as np

from .head import Expression
from .scene import Light
from .sensor import Sensor


@dataclass(frozen=True)
class Condition:
    """Spreads and probabilities of one condition. Angles in degrees, the rest relative or in [0, 1]."""

    yaw: float
    far_yaw: float  # probability of a large turn
    pitch: float
    roll: float
    expression: float
    occluder: float
    mask: float
    hat: float
    glasses: float
    dark_glasses: float
    harsh: float  # harshness of light
    poor: float  # blur, noise, low resolution
    outdoor: float
    grey: float


CONDITIONS = {
    "common": Condition(13, 0.05, 8.5, 5.5, 0.8, 0.08, 0.01, 0.08, 0.13, 0.02, 0.35, 0.30, 0.4, 0.04),
    "challenging": Condition(20, 0.45, 15, 14, 1.4, 0.35, 0.05, 0.18, 0.14, 0.07, 0.80, 0.75, 0.5, 0.08),
    "private": Condition(15, 0.16, 10, 8, 1.15, 0.16, 0.02, 0.12, 0.14, 0.03, 0.60, 0.50, 0.5, 0.05),
    "wide": Condition(18, 0.30, 13, 11, 1.15, 0.24, 0.03, 0.14, 0.14, 0.05, 0.60, 0.55, 0.5, 0.10),
}
# The training mixture: condition names and their shares.
TRAIN = {"common": 0.45, "private": 0.20, "wide": 0.20, "challenging": 0.15}


@dataclass(frozen=True)
class Pose:
    """Angles in degrees (signs as in :mod:`.scene`), camera distance in units of length, how much the body turns along."""

    yaw: float
    pitch: float
    roll: float
    distance: float
    body: float


def sample_pose(rng: np.random.Generator, c: Condition) -> Pose:
    """Draw a pose and a camera distance (0.4 to 4 m)."""
    if rng.random() < c.far_yaw:
        yaw = rng.choice([-1, 1]) * rng.uniform(22, 62)
    else:
        yaw = rng.normal(0, c.yaw)
    pitch = np.clip(rng.normal(3.0, c.pitch), -40, 40)
    roll = np.clip(rng.laplace(0, c.roll / 1.25), -55, 55)
    return Pose(
        float(np.clip(yaw, -75, 75)),
        float(pitch),
        float(roll),
        float(np.exp(rng.uniform(np.log(4.5), np.log(40)))),
        rng.uniform(0, 0.6),
    )


def sample_expression(rng: np.random.Generator, c: Condition) -> Expression:
    """Draw an expression; most people who pose for photographs smile."""
    s = c.expression
    kind = rng.random()
    smile = float(np.clip(rng.normal(0.75, 0.35), 0, 1.4)) if kind < 0.52 else 0.0
    jaw = 0.0
    if rng.random() < 0.42:
        jaw = float(min(rng.exponential(0.22) * s, 1.3))
    if kind > 0.94 - 0.08 * s:
        jaw = rng.uniform(0.3, 1.0) * min(s, 1.15)
    raised = rng.normal(0, 0.30) * s
    lid = float(np.clip(rng.normal(1.0, 0.24), 0.25, 1.75))
    if rng.random() < 0.035:
        lid = 0.0
    wink = rng.normal(0, 0.05) if rng.random() > 0.02 else -lid * 0.8

    def sometimes(probability: float, strength: float) -> float:
        return float(rng.uniform(0, strength) * s) if rng.random() < probability else 0.0

    return Expression(
        jaw_open=jaw, smile=smile, sad=0.0 if smile else sometimes(0.35, 0.7), pucker=0.0 if smile else sometimes(0.16, 0.7),
        press=sometimes(0.2, 0.7), upper_lip=sometimes(0.2, 0.7), brow_left=raised + rng.normal(0, 0.10) * s,
        brow_right=raised + rng.normal(0, 0.10) * s, furrow=sometimes(0.25, 0.9), lid_left=max(lid + wink, 0.0), lid_right=max(lid, 0.0),
        jaw_aside=rng.normal(0, 0.22) * s, skew=float(np.clip(rng.normal(0, 0.22) * s, -0.8, 0.8)), puff=sometimes(0.08, 0.8),
    )  # fmt: skip


def sample_light(rng: np.random.Generator, c: Condition) -> Light:
    """Draw the light, normalised so that a frontal white surface receives about one."""
    hard = rng.beta(1.2, 1.2)
    azimuth = rng.normal(0, 30 + 45 * c.harsh)
    elevation = rng.uniform(-15 * c.harsh, 70)
    a, e = np.radians([np.clip(azimuth, -115, 115), elevation])
    direction = np.array([np.sin(a) * np.cos(e), -np.sin(e), np.cos(a) * np.cos(e)])
    contrast = np.clip(rng.beta(1.5, 1.9) + 0.25 * (c.harsh - 0.4), 0.05, 0.92)

    def tint(spread: float) -> np.ndarray:
        warm = rng.normal(0, spread)
        return np.clip(1 + np.array([warm, 0.2 * warm, -warm]) + rng.normal(0, spread * 0.25, 3), 0.4, 1.8)

    sky, ground = tint(0.10) * rng.uniform(0.7, 1.3), tint(0.12) * rng.uniform(0.35, 1.0)
    rim = np.array(
        [rng.choice([-1, 1]) * rng.uniform(0.6, 1), rng.uniform(-0.6, 0.2), rng.uniform(-0.6, 0.25)]
    )
    strength = rng.uniform(0.1, 0.9) if rng.random() < 0.3 else 0.0
    return Light(
        direction, 1.05 * contrast * tint(0.09), (1.1 - contrast) * sky, (1.1 - contrast) * ground, rim / np.linalg.norm(rim),
        strength * tint(0.12), rng.uniform(0.0, 0.14), hard,
    )  # fmt: skip


def sample_sensor(rng: np.random.Generator, c: Condition) -> Sensor:
    """Draw the camera's settings and the file's quality."""
    poor = c.poor
    bad = rng.random() < poor * 0.6
    shrink = 1.0 if rng.random() > 0.15 + 0.4 * poor else rng.uniform(0.25 if bad else 0.5, 0.95)
    grey = rng.random() < c.grey
    return Sensor(
        brightness=float(np.clip(rng.normal(0.50, 0.10 + 0.06 * poor), 0.12, 0.85)), gamma=float(np.exp(rng.normal(-0.12, 0.20))),
        contrast=float(np.exp(rng.normal(0.05, 0.16))), balance=np.clip(rng.normal(1, 0.06 + 0.03 * poor, 3), 0.6, 1.5),
        saturation=0.0 if grey else float(np.clip(rng.normal(1.05, 0.25), 0.1, 1.7)), vignette=max(rng.normal(0, 0.3), 0),
        defocus=float(rng.exponential(0.3 + (1.1 if bad else 0.0))), motion=float(rng.uniform(2, 5 + 8 * poor)) if rng.random() < 0.22 * poor else 0.0,
        motion_angle=float(rng.uniform(0, np.pi)), shrink=float(shrink), grain=float(min(rng.exponential(0.010 + (0.016 if bad else 0.0)), 0.07)),
        grain_scale=int(rng.integers(0, 2)), quality=int(rng.integers(25 if bad else 50, 98)), haze=float(max(rng.normal(0, 0.05), 0)),
        sharpen=0.0 if bad else float(np.clip(rng.normal(0.7, 0.7), 0, 2.5)),
    )  # fmt: skip
