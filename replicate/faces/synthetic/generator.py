"""Putting a face together: draw a person, a moment and a camera, render them, and read the labels off the same geometry."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from replicate.errors import ReplicateError

from . import appearance, conditions, hair, head, occluders, paint, scene
from .background import background, shoulders
from .canvas import EAR_COLUMNS, EAR_ROWS, EAR_STRIP, canvas
from .raster import grid_triangles, rasterise
from .sensor import photograph
from .template import TEXELS, surface_at, template

GENERATOR_VERSION: int = 2  # grows with every change that alters images or labels; part of data-set hashes
CONDITIONS = ("common", "challenging", "private", "train")
_SPREAD = 0.85  # of identity, so that principal components match the training faces'
_SIZE = 256  # faces are rendered at this size, then resized
_IDS = {name: number for number, name in enumerate(CONDITIONS)}


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
        ``yaw``, ``pitch``, ``roll`` in degrees (positive: nose to the image's right, to its bottom, clockwise), ``smile``
        and ``mouth_open`` in [0, 1], ``glasses`` (0 none, 1 clear, 2 dark), ``gender`` (1 male, 2 female), ``beard`` (0 or 1), ``hat`` (0 or 1),
        ``age`` in [0, 1], ``occluded`` (share of hidden points) and ``identity`` (an integer).
    """

    image: np.ndarray
    points: np.ndarray
    visible: np.ndarray
    attributes: dict[str, float | int]


@dataclass(frozen=True)
class _Streams:
    """Independent random streams, so that a change in one room leaves the others as they were."""

    person: np.random.Generator
    moment: np.random.Generator
    paint: np.random.Generator
    scene: np.random.Generator
    sensor: np.random.Generator


def _streams(seed: int, index: int, condition: str, identity: int) -> _Streams:
    def stream(*key: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))

    moments = [stream(seed, _IDS[condition], index, room) for room in range(4)]
    return _Streams(stream(seed, identity, 77), *moments)


def check_request(seed: int, index: int, condition: str, size: int) -> None:
    """Raise ReplicateError unless the arguments of :func:`generate` are usable."""
    if condition not in CONDITIONS:
        raise ReplicateError(
            f"condition is {condition!r}, expected one of {', '.join(CONDITIONS)}; choose one of these names"
        )
    for name, value in (("seed", seed), ("index", index)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not 0 <= value < 2**32:
            raise ReplicateError(
                f"{name} is {value!r}, expected an integer from 0 to 4294967295; pass such a number"
            )
    if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or not 32 <= size <= 1024:
        raise ReplicateError(
            f"size is {size!r}, expected an integer from 32 to 1024 pixels; 256 is the usual choice"
        )


def generate(seed: int, index: int, condition: str = "train", *, size: int = _SIZE) -> Face:
    """Generate one face; the same arguments give the same bits in any process and in any order.

    Parameters
    ----------
    seed : int
        Names the collection, 0 to 2**32 - 1.
    index : int
        Names the face within it, 0 to 2**32 - 1.
    condition : str
        ``"common"``, ``"challenging"``, ``"private"`` or ``"train"`` (a mixture that covers all three).
    size : int
        Side of the image in pixels, 32 to 1024; faces are rendered at 256 and resized.

    Returns
    -------
    Face

    Raises
    ------
    ReplicateError
        If an argument is out of range.
    """
    check_request(seed, index, condition, size)
    seed, index = int(seed), int(index)
    identity = int(np.random.SeedSequence([seed, _IDS[condition], index, 99]).generate_state(1)[0] >> 1)
    streams = _streams(seed, index, condition, identity)
    face = _render(streams, _drawn_condition(streams.moment, condition), identity)
    if size != _SIZE:
        scale = size / _SIZE
        way = cv2.INTER_AREA if size < _SIZE else cv2.INTER_CUBIC
        points = ((face.points + 0.5) * scale - 0.5).astype(np.float32)
        face = Face(
            cv2.resize(face.image, (size, size), interpolation=way), points, face.visible, face.attributes
        )
    return face


def _drawn_condition(rng: np.random.Generator, condition: str) -> conditions.Condition:
    if condition == "train":
        condition = str(rng.choice(list(conditions.TRAIN), p=list(conditions.TRAIN.values())))
    return conditions.CONDITIONS[condition]


@dataclass(frozen=True)
class _Person:
    male: bool
    cage: np.ndarray
    complexion: appearance.Complexion
    hair: hair.Covering
    ear_size: float
    ear_out: float


def _person(rng: np.random.Generator) -> _Person:
    male = bool(rng.random() < 0.5)
    cage = head.identity_cage(rng, male, spread=_SPREAD)
    complexion = appearance.sample_complexion(rng, male)
    covering = hair.sample_hair(rng, male, complexion.hair)
    return _Person(
        male,
        cage,
        complexion,
        covering,
        rng.normal(1, 0.09),
        float(np.clip(rng.normal(0.17, 0.05), 0.05, 0.35)),
    )


def _render(streams: _Streams, condition: conditions.Condition, identity: int) -> Face:
    person = _person(streams.person)
    rng = streams.moment
    pose, expression = conditions.sample_pose(rng, condition), conditions.sample_expression(rng, condition)
    landmarks = head.apply_expression(person.cage, expression)
    gaze = np.clip(rng.normal(0, (0.022, 0.010)), -0.06, 0.06)
    wears = {
        name: bool(rng.random() < getattr(condition, name))
        for name in ("hat", "mask", "dark_glasses", "glasses", "occluder")
    }
    texture, alpha, thickness, curtain = _dressed(streams, person, landmarks, gaze, wears)
    geometry = _geometry(landmarks, pose, person, thickness, curtain, rng)
    light = conditions.sample_light(streams.scene, condition)
    layer, depth = _draw(streams, condition, geometry, texture, alpha, light)
    level = np.clip(light.key * max(light.direction[2], 0.2) + 0.5 * (light.sky + light.ground), 0.2, 1.2)
    glasses = 2 if wears["dark_glasses"] else int(wears["glasses"])
    if glasses:
        _put_on_glasses(streams.scene, layer, geometry, landmarks, pose, dark=glasses == 2)
    if wears["occluder"]:
        middle, extent = geometry.points.mean(0), float(np.ptp(geometry.points, axis=0).max())
        for _ in range(int(streams.scene.integers(1, 3))):
            occluders.occlude(layer, streams.scene, middle, extent, person.complexion.skin, level)
    visible = _visibility(geometry, depth, alpha, layer.covered)
    image = photograph(
        layer.image,
        conditions.sample_sensor(streams.sensor, condition),
        streams.sensor,
        _metered(layer.image, geometry.points),
    )
    attributes = {
        "yaw": pose.yaw, "pitch": pose.pitch, "roll": pose.roll, "smile": float(min(expression.smile, 1)),
        "mouth_open": float(min(expression.jaw_open, 1)), "glasses": glasses, "gender": 1 if person.male else 2,
        "beard": int(person.complexion.beard in ("moustache", "goatee", "full")), "hat": int(wears["hat"]), "age": float(person.complexion.age),
        "occluded": float(1 - visible.mean()), "identity": identity,
    }  # fmt: skip
    return Face(image, geometry.points.astype(np.float32), visible, attributes)


def _dressed(
    streams: _Streams, person: _Person, landmarks: np.ndarray, gaze: np.ndarray, wears: Mapping[str, bool]
):
    """Texture with hair and clothes, their alpha, and what they do to the vertices (thickness, curtain)."""
    texture = appearance.paint_face(person.complexion, landmarks, gaze, streams.paint)
    _paint_ears(texture)
    rng = streams.paint
    coverings = [person.hair]
    if wears["hat"]:
        coverings.append(hair.sample_hat(rng))
    if wears["mask"]:
        coverings.append(hair.sample_mask(rng))
    alpha = np.zeros(texture.shape[:2], np.float32)
    thickness = np.zeros(template().shape, np.float32)
    for covering in coverings:
        paint.mix(texture, covering.alpha, covering.colour)
        np.maximum(alpha, covering.alpha, out=alpha)
        np.maximum(thickness, covering.thickness, out=thickness)
    return texture, alpha, thickness, max(c.curtain for c in coverings)


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


@dataclass(frozen=True)
class _Geometry:
    """Posed grid with ears (rows + strip, columns, 3), its image, and the labels; scale in pixels per unit of length."""

    grid: np.ndarray
    screen: np.ndarray
    points: np.ndarray
    landmarks: np.ndarray
    scale: float
    offset: np.ndarray
    distance: float


def _geometry(
    controls: np.ndarray, pose: conditions.Pose, person: _Person, thickness, curtain, rng: np.random.Generator
) -> _Geometry:
    base = template()
    posed = scene.pose_controls(controls, pose.yaw, pose.pitch, pose.roll, pose.body)
    bare = base.vertices(posed)
    turn = scene.rotation(pose.yaw, pose.pitch, pose.roll)
    grown = _grow(bare, thickness, curtain, turn)
    grid = scene.with_ears(grown, scene.ears(bare, turn, person.ear_size, person.ear_out))
    flat = scene.project(bare, pose.distance)
    inner = surface_at(bare, base.landmark_cells)
    points = np.concatenate([scene.seen_contour(flat, pose.roll), surface_at(flat, base.landmark_cells[17:])])
    low, high = points.min(0), points.max(0)
    scale = _SIZE * np.clip(rng.normal(0.50, 0.025), 0.43, 0.57) / max(high - low)
    offset = (_SIZE - 1) / 2 + rng.normal(0, 0.02, 2) * _SIZE - scale * (low + high) / 2
    screen = scene.project(grid, pose.distance) * scale + offset
    return _Geometry(
        grid, screen.astype(np.float32), points * scale + offset, inner, float(scale), offset, pose.distance
    )


def _grow(bare: np.ndarray, thickness: np.ndarray, curtain: float, turn: np.ndarray) -> np.ndarray:
    """Move covered vertices outwards, and let long hair hang beside the neck."""
    middle = (np.array([0.0, -0.45, -0.9]) - scene.PIVOT) @ turn.T
    outward = bare - middle
    up = turn[:, 1]
    level = np.clip(scene.along(outward, up), 0, None)[..., None]
    radial = outward - level * up  # below the middle of the skull hair hangs: only sideways
    radius = np.sqrt((radial**2).sum(-1, keepdims=True)) + 1e-6
    amount = thickness[..., None]
    if curtain > 0:
        covered = np.clip(thickness / max(float(thickness.max()), 1e-6) * 3, 0, 1)[..., None]
        hanging = np.clip(0.93 - 0.06 * level - radius, 0, 0.6) * (level > 0.4)
        amount = amount + covered * hanging
    return bare + radial / radius * amount


@lru_cache(maxsize=1)
def _mesh() -> tuple[np.ndarray, np.ndarray]:
    """Grid coordinates of all vertices (V, 2), and triangles (T, 3) of the head and of both ears in the strip below it."""
    rows, columns = template().shape
    y, x = np.mgrid[: rows + EAR_STRIP, :columns].astype(np.float32)
    heads = grid_triangles(rows, columns)
    ear = grid_triangles(EAR_ROWS, EAR_COLUMNS)
    row, column = np.divmod(ear, EAR_COLUMNS)
    ears = ((rows + row) * columns + column + start for start in (1, 2 + EAR_COLUMNS))
    return np.stack([x, y], axis=-1).reshape(-1, 2), np.concatenate([heads, *ears]).astype(np.int32)


def _draw(
    streams: _Streams,
    condition: conditions.Condition,
    g: _Geometry,
    texture: np.ndarray,
    covered: np.ndarray,
    light: scene.Light,
) -> tuple[occluders.Layer, np.ndarray]:
    """Background, shoulders and head: the composed layer and the head's depth buffer.

    Hair and scarves, where ``covered``, lie over the clothes that are added to the texture here.
    """
    rng = streams.scene
    image = background(rng, _SIZE, condition.outdoor)
    rows, columns, _ = g.grid.shape
    base = template()
    clothes = rng.uniform(0.03, 0.95) * (0.3 + 0.7 * rng.random(3))
    fill = light.sky + 0.5 * light.key * max(light.direction[2], 0)
    sides = surface_at(g.screen, base.cells(np.array([(-90.0, 1.62), (90.0, 1.62)])))
    shoulders(image, sides[0], sides[1], g.scale, clothes * fill, rng)
    alpha, colour = hair.collar(rng, clothes)
    lower = slice(base.shape[0] * TEXELS // 2, None)
    paint.mix(texture[lower], (alpha * (1 - covered))[lower], colour)
    places, triangles = _mesh()
    mapped, depth = rasterise(
        g.screen.reshape(-1, 2), g.grid[..., 2].astype(np.float32).ravel(), places, triangles, _SIZE
    )
    dark = canvas().masks["dark"][::TEXELS, ::TEXELS].ravel()
    normal = scene.normals(g.grid)
    shade = scene.shade(normal.reshape(-1, 3), g.grid.reshape(-1, 3), dark, light, columns).reshape(
        rows, columns, 4
    )
    head_image = cv2.remap(texture, mapped * np.float32(TEXELS), None, cv2.INTER_LINEAR)
    head_image *= cv2.remap(np.ascontiguousarray(shade[..., :3]), mapped, None, cv2.INTER_LINEAR)
    head_image += paint.tinted(
        cv2.remap(np.ascontiguousarray(shade[..., 3]), mapped, None, cv2.INTER_LINEAR), light.key
    )
    drawn = mapped[..., 0] >= 0
    return occluders.Layer(_soft_edge(image, head_image, drawn)), depth


def _soft_edge(behind: np.ndarray, front: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Composite with an edge about two pixels wide."""
    mask = drawn.astype(np.uint8)
    cv2.copyTo(front, mask, behind)
    rim = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return cv2.copyTo(cv2.GaussianBlur(behind, (3, 3), 0.8), rim, behind)


def _put_on_glasses(
    rng, layer: occluders.Layer, g: _Geometry, landmarks: np.ndarray, pose: conditions.Pose, dark: bool
) -> None:
    glasses = occluders.sample_glasses(rng, dark)
    parts = occluders.glasses_points(glasses, landmarks[:68])
    turn = scene.rotation(pose.yaw, pose.pitch, pose.roll)
    seen = tuple(bool((turn @ (sign, 0, 0.12))[2] > 0.05) for sign in (-1, 1))
    flat = [
        scene.project(scene.pose_points(p.reshape(-1, 3), pose.yaw, pose.pitch, pose.roll), g.distance)
        * g.scale
        + g.offset
        for p in parts
    ]
    occluders.draw_glasses(
        layer, glasses, flat[0].reshape(2, -1, 2), flat[1], flat[2].reshape(2, -1, 2), g.scale, seen
    )


def _metered(image: np.ndarray, points: np.ndarray) -> float:
    """Mean luminance of the face's box, as an automatic exposure sees it."""
    low, high = np.clip([points.min(0), points.max(0) + 1], 0, _SIZE).astype(int)
    box = image[low[1] : high[1] : 4, low[0] : high[0] : 4]
    return float(box.reshape(-1, 3).mean(0) @ (0.299, 0.587, 0.114))


def _visibility(g: _Geometry, depth: np.ndarray, alpha: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Which landmarks can be seen."""
    pixel = np.clip(np.round(g.points), 0, _SIZE - 1).astype(int)
    inside = ((g.points >= -0.5) & (g.points <= _SIZE - 0.5)).all(1)
    visible = inside & (covered[pixel[:, 1], pixel[:, 0]] < 0.5)
    texel = np.round(template().landmark_cells * TEXELS).astype(int)
    visible &= alpha[texel[:, 1], texel[:, 0]] < 0.5
    in_front = depth[pixel[17:, 1], pixel[17:, 0]] - g.landmarks[17:, 2]
    visible[17:] &= in_front < 0.10
    return visible
