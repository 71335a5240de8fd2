"""Putting a face together: draw a person, a moment and a camera, render them, and read the labels off the same geometry."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from replicate.errors import ReplicateError

from . import appearance, conditions, hair, head, occluders, paint, scene
from .background import FULL, Bust, background, shoulders
from .canvas import EAR_COLUMNS, EAR_ROWS, canvas
from .raster import rasterise
from .sensor import photograph
from .template import TEXELS, surface_at, template

GENERATOR_VERSION: int = 3  # grows with every change that alters images or labels; part of data-set hashes
CONDITIONS = conditions.NAMES
_SPREAD = 0.85  # of identity, so that principal components match the training faces'
_SMALL = 128  # images up to this side are rendered at it, others at FULL, and resized
_IDS = {name: number for number, name in enumerate(CONDITIONS)}
_LIMIT = 2**32
_PEOPLE = 12  # others who may be in the background
_THROUGH, _THROUGH_CONTOUR = 0.10, 0.25  # a point may lie this far behind the surface drawn at its pixel


@dataclass(frozen=True)
class Face:
    """One generated photograph of a face.

    Attributes
    ----------
    image : ndarray of uint8, shape (size, size, 3), RGB
    points : ndarray of float32, shape (68, 2)
        The iBUG points (x, y) in pixels, 0-based, the centre of the top-left pixel at (0, 0).
    visible : ndarray of bool, shape (68,)
        False where the head itself, hair, clothes, dark glasses or another thing hides the point.
    attributes : dict
        ``yaw``, ``pitch``, ``roll`` in degrees (positive: nose to the image's right, to its bottom, clockwise), ``pose`` (1 left
        profile, 2 left, 3 frontal, 4 right, 5 right profile, as MTFL counts), ``smile`` and ``mouth_open`` in [0, 1], ``smiling`` (0 or
        1), ``glasses`` (0 none, 1 clear, 2 dark), ``gender`` (1 male, 2 female), ``beard`` (0 or 1), ``hat`` (0 or 1), ``male`` and
        ``wearing_glasses`` (0 or 1, named as in the real sets), ``age`` in [0, 1], ``occluded`` (share of hidden points) and ``identity`` (an integer; the same for the same person).
    """

    image: np.ndarray
    points: np.ndarray
    visible: np.ndarray
    attributes: dict[str, float | int]


@dataclass(frozen=True)
class _Streams:
    """Independent random streams, so that a change in one room leaves the others as they were."""

    person: np.random.Generator
    skin: np.random.Generator
    moment: np.random.Generator
    clothes: np.random.Generator
    scene: np.random.Generator
    sensor: np.random.Generator


def _streams(seed: int, index: int, condition: str, identity: int) -> _Streams:
    def stream(*key: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))

    persons = [stream(seed, *divmod(identity, _LIMIT), room) for room in (77, 78)]
    return _Streams(*persons, *(stream(seed, _IDS[condition], index, room) for room in range(4)))


def check_request(seed: int, index: int, condition: str, size: int, identity: int | None = None) -> None:
    """Raise ReplicateError unless the arguments of :func:`generate` are usable."""
    if condition not in CONDITIONS:
        raise ReplicateError(
            f"condition is {condition!r}, expected one of {', '.join(CONDITIONS)}; choose one of these names"
        )
    for name, value in (("seed", seed), ("index", index), ("identity", 0 if identity is None else identity)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not 0 <= value < _LIMIT:
            raise ReplicateError(
                f"{name} is {value!r}, expected an integer from 0 to {_LIMIT - 1}; pass such a number"
            )
    if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or not 32 <= size <= 1024:
        raise ReplicateError(
            f"size is {size!r}, expected an integer from 32 to 1024 pixels; 256 is the usual choice"
        )


def generate(
    seed: int, index: int, condition: str = "train", *, size: int = FULL, identity: int | None = None
) -> Face:
    """Generate one face; the same arguments give the same bits in any process and in any order.

    Parameters
    ----------
    seed : int
        Names the collection, 0 to 2**32 - 1.
    index : int
        Names the photograph within it, 0 to 2**32 - 1.
    condition : str
        What kind of photograph, one of ``CONDITIONS``; see :mod:`~.conditions`.
    size : int
        Side of the image in pixels, 32 to 1024; faces are rendered at 128 (up to that size) or 256, then resized. Points do
        not depend on it except for their scale; visibility is tested in the pixels that are rendered.
    identity : int, optional
        Names the person within the collection, 0 to 2**32 - 1: the same bones, skin, hair, ears and gender under any condition and index.
        By default each photograph shows somebody else.

    Returns
    -------
    Face

    Raises
    ------
    ReplicateError
        If an argument is out of range.
    """
    check_request(seed, index, condition, size, identity)
    streams, male, moment, identity = _drawn(int(seed), int(index), condition, identity)
    side = _SMALL if size <= _SMALL else FULL
    person = _person(streams.person, male)
    face = _render(streams, person, moment, side)
    face.attributes["identity"] = identity
    if size == side:
        return face
    scale = size / side
    image = cv2.resize(
        face.image, (size, size), interpolation=cv2.INTER_AREA if size < side else cv2.INTER_CUBIC
    )
    points = ((face.points.astype(float) + 0.5) * scale - 0.5).astype(np.float32)
    return Face(image, points, face.visible, face.attributes)


def draw(
    seed: int, index: int, condition: str = "train", *, identity: int | None = None
) -> dict[str, float | int]:
    """The attributes of :func:`generate`'s face that are known before it is rendered, thousands a second; arguments as there.

    These are ``yaw``, ``pitch``, ``roll``, ``pose``, ``smile``, ``smiling``, ``mouth_open``, ``glasses``, ``gender``, ``hat``, ``male``, ``wearing_glasses`` and
    ``identity``.
    """
    check_request(seed, index, condition, FULL, identity)
    _, male, moment, identity = _drawn(int(seed), int(index), condition, identity)
    return _moment_attributes(male, moment) | {"identity": identity}


def _drawn(
    seed: int, index: int, condition: str, identity: int | None
) -> tuple[_Streams, bool, conditions.Moment, int]:
    """Random streams, whether the person is a man, the moment, and a number for the person that nobody else has."""
    nobody_else = _LIMIT * (1 + _IDS[condition]) + index
    streams = _streams(seed, index, condition, nobody_else if identity is None else int(identity))
    moment = conditions.sample_moment(streams.moment, condition, index)
    share = moment.condition.male if identity is None else 0.5  # a person is the same under all conditions
    male = bool(streams.person.random() < share)
    return streams, male, moment, nobody_else if identity is None else int(identity)


def _moment_attributes(male: bool, moment: conditions.Moment) -> dict[str, float | int]:
    pose, expression = moment.pose, moment.expression
    return {
        "yaw": pose.yaw, "pitch": pose.pitch, "roll": pose.roll, "pose": moment.pose_class, "smile": float(min(expression.smile, 1)),
        "smiling": moment.smiling, "mouth_open": float(min(expression.jaw_open, 1)), "glasses": moment.glasses, "gender": 1 if male else 2,
        "hat": int(moment.hat), "male": int(male), "wearing_glasses": int(moment.glasses > 0),
    }  # fmt: skip


@dataclass(frozen=True)
class _Person:
    male: bool
    cage: np.ndarray
    complexion: appearance.Complexion
    hair: hair.Covering
    ear_size: float
    ear_out: float


def _person(rng: np.random.Generator, male: bool) -> _Person:
    cage = head.identity_cage(rng, male, spread=_SPREAD)
    complexion = appearance.sample_complexion(rng, male)
    covering = hair.sample_hair(rng, male, complexion.hair)
    ear_size, ear_out = rng.normal(1, 0.09), float(np.clip(rng.normal(0.17, 0.05), 0.05, 0.35))
    return _Person(male, cage, complexion, covering, ear_size, ear_out)


def _render(streams: _Streams, person: _Person, moment: conditions.Moment, side: int) -> Face:
    condition = moment.condition
    landmarks = head.apply_expression(person.cage, moment.expression)
    texture, alpha, wear = _dressed(streams, person, landmarks, moment)
    frame = scene.Frame(side, moment.fill, moment.shift)
    placed = scene.place_head(landmarks, moment.pose, frame, wear, condition.contour_follows_silhouette)
    light = conditions.sample_light(streams.scene, condition)
    layer, depth = _draw(streams.scene, condition, placed, texture, alpha, light)
    _put_in_front(streams.scene, layer, placed, landmarks, moment, person, light)
    visible = _visibility(placed, depth, alpha, layer.covered)
    sensor = conditions.scaled_sensor(conditions.sample_sensor(streams.sensor, condition), side / FULL)
    image = photograph(layer.image, sensor, streams.sensor, _metered(layer.image, placed.points))
    attributes = _moment_attributes(person.male, moment) | {
        "beard": int(person.complexion.beard in ("moustache", "goatee", "full")),
        "age": float(person.complexion.age),
        "occluded": float(1 - visible.mean()),
    }
    return Face(image, placed.points.astype(np.float32), visible, attributes)


def _dressed(streams: _Streams, person: _Person, landmarks: np.ndarray, moment: conditions.Moment):
    """Texture with hair and hats, their alpha, and what they and the ears do to the head's outline."""
    texture = appearance.paint_face(person.complexion, landmarks, moment.gaze, streams.skin)
    _paint_ears(texture)
    coverings = [person.hair]
    if moment.hat:
        coverings.append(hair.sample_hat(streams.clothes))
    if moment.mask:
        coverings.append(hair.sample_mask(streams.clothes))
    alpha = np.zeros(texture.shape[:2], np.float32)
    thickness = np.zeros(template().shape, np.float32)
    for covering in coverings:
        paint.mix(texture, covering.alpha, covering.colour)
        np.maximum(alpha, covering.alpha, out=alpha)
        np.maximum(thickness, covering.thickness, out=thickness)
    curtain = max(c.curtain for c in coverings)
    return texture, alpha, scene.Wear(thickness, curtain, person.ear_size, person.ear_out)


def _paint_ears(texture: np.ndarray) -> None:
    """Skin for the ears, with a darker bowl; blended into the strip below the head."""
    start = (template().shape[0]) * TEXELS
    rows, columns = (EAR_ROWS - 1) * TEXELS + 1, (EAR_COLUMNS - 1) * TEXELS + 1
    y, x = np.mgrid[-1 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    bowl = 0.45 * np.exp(-(((x - 0.42) / 0.16) ** 2 + ((y + 0.05) / 0.40) ** 2)) + 0.25 * np.exp(
        -(((x - 0.68) / 0.07) ** 2)
    ) * (y < 0.3)
    shade = (1 - bowl)[..., None].astype(np.float32) * np.array([1, 0.93, 0.92], np.float32)
    for left, flip in ((1, True), (2 + EAR_COLUMNS, False)):
        part = texture[start : start + rows, left * TEXELS : left * TEXELS + columns]
        part *= shade[:, ::-1] if flip else shade


def _draw(
    rng: np.random.Generator,
    condition: conditions.Condition,
    placed: scene.Placed,
    texture: np.ndarray,
    covered: np.ndarray,
    light: scene.Light,
) -> tuple[occluders.Layer, np.ndarray]:
    """Background, shoulders and head: the composed layer and the head's depth buffer."""
    image = background(rng, placed.side, condition.outdoor, condition.crowd, _people)
    clothes, neck = _clothes(rng, texture, covered), _neck(placed)
    shoulders(image, neck[0], neck[1], placed.scale, clothes * _fill(light), rng)
    mapped, depth = _mapped(placed)
    drawn = mapped[..., 0] >= 0
    return occluders.Layer(_soft_edge(image, _lit_head(placed, texture, mapped, light), drawn)), depth


def _clothes(rng: np.random.Generator, texture: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Draw the clothes' colour (3,), and add a collar to the texture, below hair and scarves, where ``covered``."""
    clothes = rng.uniform(0.03, 0.95) * (0.3 + 0.7 * rng.random(3))
    alpha, colour = hair.collar(rng, clothes)
    lower = slice(template().shape[0] * TEXELS // 2, None)
    paint.mix(texture[lower], (alpha * (1 - covered))[lower], colour)
    return clothes


def _fill(light: scene.Light) -> np.ndarray:
    """Mean light on clothes, RGB."""
    return light.sky + 0.5 * light.key * max(light.direction[2], 0)


def _neck(placed: scene.Placed) -> np.ndarray:
    """Left and right side of the base of the neck (2, 2), pixels."""
    return surface_at(placed.screen, template().cells(np.array([(-90.0, 1.62), (90.0, 1.62)])))


def _mapped(placed: scene.Placed) -> tuple[np.ndarray, np.ndarray]:
    """Which place of the grid each pixel shows (side, side, 2), and its depth (side, side)."""
    places, triangles = scene.mesh()
    depth = placed.grid[..., 2].astype(np.float32).ravel()
    return rasterise(placed.screen.reshape(-1, 2), depth, places, triangles, placed.side)


@lru_cache(maxsize=1)
def _people() -> tuple[Bust, ...]:
    """People for the background, the same for all collections; drawn once a process (about 0.2 s)."""
    return tuple(_bust(number) for number in range(_PEOPLE))


def _bust(number: int) -> Bust:
    streams, male, moment, _ = _drawn(_PEOPLE, number, "common", None)
    person = _person(streams.person, male)
    landmarks = head.apply_expression(person.cage, moment.expression)
    texture, alpha, wear = _dressed(streams, person, landmarks, moment)
    placed = scene.place_head(landmarks, moment.pose, scene.Frame(_SMALL, 0.38), wear)
    light = conditions.sample_light(streams.scene, moment.condition)
    clothes = _clothes(streams.scene, texture, alpha)
    mapped, _ = _mapped(placed)
    image = _lit_head(placed, texture, mapped, light)
    drawn = cv2.blur((mapped[..., 0] >= 0).astype(np.float32), (3, 3))
    return Bust(
        image,
        np.clip(2 * drawn - 1, 0, 1),
        placed.points.mean(0),
        _neck(placed),
        placed.scale,
        clothes * _fill(light),
    )


def _lit_head(
    placed: scene.Placed, texture: np.ndarray, mapped: np.ndarray, light: scene.Light
) -> np.ndarray:
    """The head's pixels: what ``mapped`` (side, side, 2) looks up in the texture and in the light of the vertices."""
    rows, columns, _ = placed.grid.shape
    dark = canvas().masks["dark"][::TEXELS, ::TEXELS].ravel()
    normal = scene.normals(placed.grid)
    shade = scene.shade(normal.reshape(-1, 3), placed.grid.reshape(-1, 3), dark, light, columns)
    shade = shade.reshape(rows, columns, 4)
    places = mapped * np.float32(TEXELS)
    if placed.side < FULL:  # several texels to a pixel
        height, width = (n // 2 for n in texture.shape[:2])
        texture = cv2.resize(
            texture[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA
        )
        places = places * np.float32(0.5) - np.float32(0.25)
    image = cv2.remap(texture, places, None, cv2.INTER_LINEAR)
    image *= cv2.remap(np.ascontiguousarray(shade[..., :3]), mapped, None, cv2.INTER_LINEAR)
    gloss = cv2.remap(np.ascontiguousarray(shade[..., 3]), mapped, None, cv2.INTER_LINEAR)
    image += paint.tinted(gloss, light.key)
    return image


def _soft_edge(behind: np.ndarray, front: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Composite with an edge about two pixels wide."""
    mask = drawn.astype(np.uint8)
    cv2.copyTo(front, mask, behind)
    rim = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    sigma = 0.8 * behind.shape[0] / FULL
    return cv2.copyTo(cv2.GaussianBlur(behind, (3, 3), sigma), rim, behind)


def _put_in_front(
    rng, layer: occluders.Layer, placed: scene.Placed, landmarks: np.ndarray, moment, person: _Person, light
) -> None:
    """Glasses, and things between camera and face."""
    if moment.glasses:
        _put_on_glasses(rng, layer, placed, landmarks, dark=moment.glasses == 2)
    level = np.clip(light.key * max(light.direction[2], 0.2) + 0.5 * (light.sky + light.ground), 0.2, 1.2)
    middle, extent = placed.points.mean(0), float(np.ptp(placed.points, axis=0).max())
    for _ in range(moment.things):
        occluders.occlude(layer, rng, middle, extent, person.complexion.skin, level)


def _put_on_glasses(
    rng, layer: occluders.Layer, placed: scene.Placed, landmarks: np.ndarray, dark: bool
) -> None:
    glasses = occluders.sample_glasses(rng, dark)
    parts = [placed.project(part) for part in occluders.glasses_points(glasses, landmarks[:68])]
    turn = scene.rotation(placed.pose.yaw, placed.pose.pitch, placed.pose.roll)
    seen = tuple(bool((turn @ (sign, 0, 0.12))[2] > 0.05) for sign in (-1, 1))
    occluders.draw_glasses(layer, glasses, *parts, placed.scale, seen)


def _metered(image: np.ndarray, points: np.ndarray) -> float:
    """Mean luminance of the face's box, as an automatic exposure sees it."""
    side = image.shape[0]
    low, high = np.clip([points.min(0), points.max(0) + 1], 0, side).astype(int)
    step = max(4 * side // FULL, 1)
    box = image[low[1] : high[1] : step, low[0] : high[0] : step]
    return float(box.reshape(-1, 3).mean(0) @ (0.299, 0.587, 0.114))


def _visibility(
    placed: scene.Placed, depth: np.ndarray, alpha: np.ndarray, covered: np.ndarray
) -> np.ndarray:
    """Which landmarks can be seen: in the picture, before hair and clothes, and behind nothing."""
    side = placed.side
    pixel = np.clip(np.round(placed.points), 0, side - 1).astype(int)
    visible = ((placed.points >= -0.5) & (placed.points <= side - 0.5)).all(1)
    visible &= covered[pixel[:, 1], pixel[:, 0]] < 0.5
    texel = np.round(placed.cells * TEXELS).astype(int)
    visible &= alpha[texel[:, 1], texel[:, 0]] < 0.5
    behind = depth[pixel[:, 1], pixel[:, 0]] - placed.depth
    return visible & (behind < np.where(np.arange(68) < 17, _THROUGH_CONTOUR, _THROUGH))
