"""The conditions faces are drawn under, and the draw of everything that is not the person.

One condition per collection of photographs. The spread of pose and expression of ``common`` follows the training faces of 300-W,
summarised: half of them turn by less than 10 degrees and one in ten by more than 27; pitch has a standard deviation of about 10
degrees; half roll by less than 4.4 degrees and one in ten by more than 13.5; eye openings, lip gaps and mouth widths have the
quantiles measured there. The others differ from it as their publications say:

==============  =======================================================================================================
common          LFPW and HELEN test faces (300-W): web photographs
lfpw, helen     the two apart: LFPW small photographs, HELEN large ones of good quality with more expression
afw             Flickr photographs, several people in each, pose up to near profile (Zhu and Ramanan, 2012)
challenging     iBUG: extreme pose, expression, light and occlusion
private         300-W's own test photographs, between common and challenging
menpo           the semi-frontal faces of the Menpo challenge (Zafeiriou et al., 2017): turned further than 300-W's
afw-300w        those of them with 68 points: both eyes are seen
mtfl-train      LFW and web faces; smiling 57.2 %, glasses 15.3 % (TCNN §2.2); shares of the five poses and of men as in the
                10,000 training labels of MTFL (Zhang et al., 2014)
mtfl-aflw       AFLW faces: more women and four times the profiles, as the labels of MTFL's test list count them; here and in
                mtfl-train a profile begins near 37 degrees, since both eyes are annotated in all of MTFL: the distance of the
                eyes in relation to the face has the quantiles measured there
aflw            the pose-balanced subset AFLW-PIFA: |yaw| in [0, 30), [30, 60) and [60, 90] a third each (ECT §IV)
cofw            about 23 % of the points hidden by things (Burgos-Artizzu et al., 2013)
mafl            celebrities; rates of men, smiles, glasses and hats as in CelebA (Liu et al., 2015), of which MAFL is a part
ijb-a           people in the press: wide pose, low resolution, other faces around (Klare et al., 2015; LDDR §4.1)
janus           5,712 stills as in ijb-a, then frames of videos: blurred and small (TCNN §5.2)
train           a mixture that covers the test conditions of 300-W
==============  =======================================================================================================
"""

from dataclasses import dataclass, replace

import numpy as np

from .head import Expression
from .scene import Light, Pose
from .sensor import Sensor


@dataclass(frozen=True)
class Condition:
    """Spreads and probabilities of one condition. Angles in degrees, the rest relative or in [0, 1].

    With ``yaw_bins``, (low, high, share) of absolute yaw, ``yaw`` and ``far_yaw`` do not count; with ``balanced`` the bins take turns
    by index, so that every run of faces holds the same number of each.
    """

    yaw: float  # standard deviation of a turn that is not large
    far_yaw: float  # probability of a large turn
    pitch: float
    roll: float
    expression: float
    occluder: float  # probability of things in front of the face
    mask: float
    hat: float
    glasses: float  # probability of any glasses
    dark_glasses: float  # probability of glasses that are dark, part of `glasses`
    harsh: float  # harshness of light
    poor: float  # blur, noise, low resolution
    outdoor: float
    grey: float
    far: tuple[float, float] = (22.0, 62.0)  # absolute yaw of a large turn
    yaw_bins: tuple[tuple[float, float, float], ...] = ()
    balanced: bool = False
    profile: float = 45.0  # absolute yaw at which MTFL's profile begins, if its labels are to be met
    smile: float = 0.52  # probability; most people who pose for photographs smile
    male: float = 0.5
    occluders: int = 2  # things in front of the face, at most
    crowd: float = 0.15  # probability of other faces in the picture
    small: float = 0.0  # probability that the face is a few dozen pixels wide
    blurred: float = 0.0  # probability of strong motion blur, as in videos
    # Where contour points lie: on the silhouette that is seen (300-W), or at their place on the head, hidden or not (AFLW-PIFA).
    contour_follows_silhouette: bool = True


_COMMON = Condition(
    yaw=13, far_yaw=0.05, pitch=8.5, roll=5.5, expression=0.8, occluder=0.08, mask=0.01, hat=0.08, glasses=0.15, dark_glasses=0.02,
    harsh=0.35, poor=0.30, outdoor=0.4, grey=0.04,
)  # fmt: skip
_CHALLENGING = Condition(
    yaw=20, far_yaw=0.45, pitch=15, roll=14, expression=1.4, occluder=0.35, mask=0.05, hat=0.18, glasses=0.20, dark_glasses=0.07,
    harsh=0.80, poor=0.75, outdoor=0.5, grey=0.08,
)  # fmt: skip
_PRIVATE = Condition(
    yaw=15, far_yaw=0.16, pitch=10, roll=8, expression=1.15, occluder=0.16, mask=0.02, hat=0.12, glasses=0.17, dark_glasses=0.03,
    harsh=0.60, poor=0.50, outdoor=0.5, grey=0.05,
)  # fmt: skip
_IJB_A = replace(
    _PRIVATE,
    yaw=20,
    far_yaw=0.30,
    far=(22, 85),
    expression=0.8,
    poor=0.8,
    crowd=0.6,
    small=0.5,
    smile=0.35,
    male=0.6,
)
_AFW = replace(_COMMON, yaw=20, far_yaw=0.30, far=(22, 75), roll=7, poor=0.25, crowd=0.45, outdoor=0.6)
CONDITIONS = {
    "common": _COMMON,
    "challenging": _CHALLENGING,
    "private": _PRIVATE,
    "wide": replace(
        _PRIVATE, yaw=18, far_yaw=0.30, pitch=13, roll=11, occluder=0.24, mask=0.03, hat=0.14, glasses=0.18, dark_glasses=0.05,
        poor=0.55, grey=0.10,
    ),
    "lfpw": replace(_COMMON, expression=0.7, poor=0.45),
    "helen": replace(_COMMON, expression=1.0, poor=0.12, outdoor=0.5),
    "afw": _AFW,
    "afw-300w": replace(_AFW, far=(22, 50)),
    "menpo": replace(_PRIVATE, yaw=19, far_yaw=0.22, far=(22, 65), pitch=11, roll=9, expression=1.0),
    "mtfl-train": replace(
        _COMMON, yaw_bins=((0, 7.5, 0.45), (7.5, 15, 0.295), (15, 25, 0.16), (25, 38, 0.062), (38, 52, 0.033)), profile=38, smile=0.572,
        glasses=0.153, male=0.58, poor=0.45,
    ),
    "mtfl-aflw": replace(
        _COMMON, yaw_bins=((0, 7.5, 0.34), (7.5, 15, 0.27), (15, 25, 0.17), (25, 36, 0.114), (36, 52, 0.106)), profile=36, smile=0.545,
        glasses=0.081, male=0.39, poor=0.45,
    ),
    "aflw": replace(
        _PRIVATE, yaw_bins=((0, 30, 1 / 3), (30, 60, 1 / 3), (60, 90, 1 / 3)), balanced=True, expression=1.0, poor=0.4,
        contour_follows_silhouette=False,
    ),
    "cofw": replace(
        _PRIVATE, far_yaw=0.04, expression=1.0, occluder=0.75, mask=0.08, hat=0.22, glasses=0.22, dark_glasses=0.12, poor=0.4,
    ),
    "mafl": replace(_COMMON, yaw=14, expression=0.7, smile=0.48, glasses=0.065, hat=0.05, male=0.42, occluder=0.05, poor=0.15),
    "ijb-a": _IJB_A,
    "video": replace(_IJB_A, poor=1.0, small=0.8, blurred=0.6, smile=0.2, expression=0.7),
}  # fmt: skip
# Mixtures: condition names and their shares.
MIXTURES = {
    "train": {"common": 0.45, "private": 0.20, "wide": 0.20, "challenging": 0.15},
}
# Conditions by index: each up to, and without, the index beside it.
CS2_STILLS = 5712  # of Janus CS2, before the frames of its videos: TCNN §5.2
SEQUENCES = {"janus": (("ijb-a", CS2_STILLS), ("video", 2**32))}
# What may be asked for; a face's random streams depend on the place of its condition here, so new names go to the end.
NAMES = (
    "common", "challenging", "private", "train", "lfpw", "helen", "afw", "menpo", "mtfl-train", "aflw", "cofw", "mafl", "ijb-a", "janus", "mtfl-aflw",
    "afw-300w",
)  # fmt: skip
_TURNED = 15.0  # degrees of yaw at which MTFL's frontal pose ends
FAINTEST_SMILE = 0.25  # what an annotator would still call smiling


@dataclass(frozen=True)
class Moment:
    """Everything about one photograph but the person, the light, the surroundings and the camera's settings.

    Attributes
    ----------
    condition : Condition
        The one that was drawn from a mixture.
    gaze : ndarray, shape (2,)
        Displacement of the irises, units of length.
    glasses : int
        0 none, 1 clear, 2 dark.
    hat, mask : bool
    things : int
        Number of things in front of the face.
    fill : float
        Longer side of the landmarks' box, relative to the image's side.
    shift : ndarray, shape (2,)
        Of the middle of that box from the image's middle, relative to the image's side.
    """

    condition: Condition
    pose: Pose
    expression: Expression
    gaze: np.ndarray
    glasses: int
    hat: bool
    mask: bool
    things: int
    fill: float
    shift: np.ndarray

    @property
    def smiling(self) -> int:
        """Whether an annotator would call the person smiling: 0 or 1."""
        return int(self.expression.smile > 0)

    @property
    def pose_class(self) -> int:
        """Pose as MTFL counts it: 1 left profile, 2 left, 3 frontal, 4 right, 5 right profile; left is the image's left."""
        far = self.condition.profile
        return 1 + int(np.searchsorted((-far, -_TURNED, _TURNED, far), self.pose.yaw))


def sample_moment(rng: np.random.Generator, name: str, index: int) -> Moment:
    """Draw a moment under a condition or a mixture; thousands a second.

    Parameters
    ----------
    rng : Generator
    name : str
        One of ``NAMES``.
    index : int
        Of the face in its collection; decides the bin of yaw where bins take turns.
    """
    if name in SEQUENCES:
        name = next(part for part, end in SEQUENCES[name] if index < end)
    if name in MIXTURES:
        name = str(rng.choice(list(MIXTURES[name]), p=list(MIXTURES[name].values())))
    c = CONDITIONS[name]
    pose, expression = sample_pose(rng, c, index), sample_expression(rng, c)
    gaze = np.clip(rng.normal(0, (0.022, 0.010)), -0.06, 0.06)
    hat, mask, glasses, things = rng.random(4)
    count = int(rng.integers(1, c.occluders + 1))
    return Moment(
        c, pose, expression, gaze, int(glasses < c.glasses) + int(glasses < c.dark_glasses), bool(hat < c.hat), bool(mask < c.mask),
        count if things < c.occluder else 0, float(np.clip(rng.normal(0.50, 0.025), 0.43, 0.57)), rng.normal(0, 0.02, 2),
    )  # fmt: skip


def sample_pose(rng: np.random.Generator, c: Condition, index: int = 0) -> Pose:
    """Draw a pose and a camera distance (0.4 to 4 m)."""
    if c.yaw_bins:
        shares = [share for _, _, share in c.yaw_bins]
        number = index % len(shares) if c.balanced else rng.choice(len(shares), p=shares)
        low, high, _ = c.yaw_bins[number]
        yaw = rng.choice([-1, 1]) * rng.uniform(low, high)
    elif rng.random() < c.far_yaw:
        yaw = rng.choice([-1, 1]) * rng.uniform(*c.far)
    else:
        yaw = np.clip(rng.normal(0, c.yaw), -75, 75)
    pitch = np.clip(rng.normal(3.0, c.pitch), -40, 40)
    roll = np.clip(rng.laplace(0, c.roll / 1.25), -55, 55)
    distance = float(np.exp(rng.uniform(np.log(4.5), np.log(40))))
    return Pose(float(yaw), float(pitch), float(roll), distance, rng.uniform(0, 0.6))


def sample_expression(rng: np.random.Generator, c: Condition) -> Expression:
    """Draw an expression."""
    s = c.expression
    kind = rng.random()
    smile = float(np.clip(rng.normal(0.75, 0.35), FAINTEST_SMILE, 1.4)) if kind < c.smile else 0.0
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
        strength * tint(0.12), rng.uniform(0.0, 0.24), hard,
    )  # fmt: skip


def sample_sensor(rng: np.random.Generator, c: Condition) -> Sensor:
    """Draw the camera's settings and the file's quality."""
    poor = c.poor
    bad = rng.random() < poor * 0.6
    shrink = 1.0 if rng.random() > 0.15 + 0.4 * poor else rng.uniform(0.25 if bad else 0.5, 0.95)
    if rng.random() < c.small:
        shrink = float(np.exp(rng.uniform(np.log(0.11), np.log(0.4))))  # a face of 14 to 50 pixels
    grey = rng.random() < c.grey
    motion = float(rng.uniform(2, 5 + 8 * poor)) if rng.random() < max(0.22 * poor, c.blurred) else 0.0
    return Sensor(
        brightness=float(np.clip(rng.normal(0.50, 0.10 + 0.06 * poor), 0.12, 0.85)), gamma=float(np.exp(rng.normal(-0.12, 0.20))),
        contrast=float(np.exp(rng.normal(0.05, 0.16))), balance=np.clip(rng.normal(1, 0.06 + 0.03 * poor, 3), 0.6, 1.5),
        saturation=0.0 if grey else float(np.clip(rng.normal(1.05, 0.25), 0.1, 1.7)), vignette=max(rng.normal(0, 0.3), 0),
        defocus=float(rng.exponential(0.3 + (1.1 if bad else 0.0))), motion=motion,
        motion_angle=float(rng.uniform(0, np.pi)), shrink=float(shrink), grain=float(min(rng.exponential(0.010 + (0.016 if bad else 0.0)), 0.07)),
        grain_scale=int(rng.integers(0, 2)), quality=int(rng.integers(25 if bad else 50, 98)), haze=float(max(rng.normal(0, 0.05), 0)),
        sharpen=0.0 if bad else float(np.clip(rng.normal(1.0, 0.8), 0, 3.0)),
    )  # fmt: skip


def scaled_sensor(sensor: Sensor, ratio: float) -> Sensor:
    """The same photograph taken ``ratio`` (at most 1) times as large: what is measured in pixels shrinks, finest detail fades."""
    return replace(
        sensor, defocus=sensor.defocus * ratio, motion=sensor.motion * ratio, shrink=min(sensor.shrink / ratio, 1.0),
        grain=sensor.grain * (1.0 if sensor.shrink < ratio else ratio), sharpen=sensor.sharpen * ratio,
        quality=round(100 - (100 - sensor.quality) * (1.0 if sensor.shrink < ratio else ratio)),
    )  # fmt: skip
