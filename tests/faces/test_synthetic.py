"""The synthetic generator: determinism, labels that fit the paint, order and visibility of points, difficulty of the conditions."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.faces import synthetic
from replicate.faces.synthetic import batch, conditions, hair, head, raster, scene, template
from replicate.faces.synthetic.canvas import canvas

SEED = 20


def _hash_code(indices: list[int]) -> str:
    return (
        "import hashlib; from replicate.faces.synthetic import generate; h = hashlib.sha256()\n"
        f"for i in {indices}:\n"
        f"    f = generate({SEED}, i, 'challenging'); h.update(f.image.tobytes() + f.points.tobytes() + f.visible.tobytes())\n"
        "print(h.hexdigest())"
    )


@pytest.fixture(scope="module")
def batches() -> dict[str, synthetic.FaceBatch]:
    return {
        name: synthetic.generate_many(SEED, range(36), name, workers=1)
        for name in ("common", "private", "challenging")
    }


def _place(
    cage: np.ndarray, pose: scene.Pose, frame: scene.Frame | None = None, follow: bool = True
) -> scene.Placed:
    """A bare head."""
    bare = scene.Wear(np.zeros(template.template().shape, np.float32))
    return scene.place_head(cage, pose, frame or scene.Frame(256), bare, follow)


def _geometry(condition: str, count: int) -> tuple[np.ndarray, list[scene.Pose]]:
    """Points of many faces without rendering, and their poses."""
    points, poses = [], []
    for index in range(count):
        rng = np.random.default_rng([SEED, index])
        moment = conditions.sample_moment(rng, condition, index)
        cage = head.apply_expression(head.identity_cage(rng, index % 2 == 0), moment.expression)
        points.append(_place(cage, moment.pose, scene.Frame(256, moment.fill, moment.shift)).points)
        poses.append(moment.pose)
    return np.array(points), poses


def _mean_shape_error(points: np.ndarray) -> float:
    """Mean distance to the mean shape placed in each face's box, per cent of the outer eye distance."""
    low, size = points.min(1, keepdims=True), np.ptp(points, axis=1, keepdims=True)
    placed = ((points - low) / size).mean(0) * size + low
    outer = np.linalg.norm(points[:, 36] - points[:, 45], axis=-1)
    return float(100 * (np.linalg.norm(points - placed, axis=-1).mean(1) / outer).mean())


def _posed_points(
    yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0, expression: head.Expression | None = None
) -> np.ndarray:
    cage = template.template().controls
    cage = cage if expression is None else head.apply_expression(cage, expression)
    return _place(cage, scene.Pose(yaw, pitch, roll, 12.0, 0.0)).points


def test_face_has_the_promised_types_and_ranges():
    face = synthetic.generate(SEED, 3, "common")
    assert face.image.shape == (256, 256, 3) and face.image.dtype == np.uint8
    assert face.points.shape == (68, 2) and face.points.dtype == np.float32
    assert face.visible.shape == (68,) and face.visible.dtype == bool
    assert face.attributes["gender"] in (1, 2) and face.attributes["glasses"] in (0, 1, 2)
    assert face.attributes["occluded"] == pytest.approx(1 - face.visible.mean())
    assert face.image.std() > 5


def test_two_processes_and_thread_counts_give_the_same_bits():
    outputs = set()
    for threads in ("1", "2"):
        environment = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PATH": ""}
        run = subprocess.run(
            [sys.executable, "-c", _hash_code([0, 1, 2, 3])],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        outputs.add(run.stdout.strip())
    assert len(outputs) == 1 and len(outputs.pop()) == 64


def test_a_face_does_not_depend_on_its_neighbours():
    together = synthetic.generate_many(SEED, [9, 4, 5], "train", workers=1)
    alone = synthetic.generate(SEED, 4, "train")
    np.testing.assert_array_equal(together.images[1], alone.image)
    np.testing.assert_array_equal(together.points[1], alone.points)
    assert together.attributes["identity"][1] == alone.attributes["identity"]


def test_workers_and_chunks_do_not_change_faces_or_order(monkeypatch):
    calls, persons = [], [i // 3 for i in range(20)]
    options = {"size": 64, "identities": persons}
    one = synthetic.generate_many(SEED, range(20), "janus", workers=1, **options)
    two = synthetic.generate_many(SEED, range(20), "janus", workers=2, progress=calls.append, **options)
    monkeypatch.setattr(batch, "_CHUNK", 7)
    chunks = list(synthetic.generate_chunks(SEED, range(20), "janus", workers=0, **options))
    assert [len(chunk) for chunk in chunks] == [7, 7, 6] and sum(calls) == len(two) == 20
    for name in ("images", "points", "visible"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        np.testing.assert_array_equal(
            getattr(one, name), np.concatenate([getattr(chunk, name) for chunk in chunks])
        )
    for name, values in one.attributes.items():
        np.testing.assert_array_equal(values, two.attributes[name])
        np.testing.assert_array_equal(values, np.concatenate([chunk.attributes[name] for chunk in chunks]))
        assert values.dtype == (np.int64 if isinstance(values.tolist()[0], int) else np.float64)


def test_chunks_are_made_one_after_the_other(monkeypatch):
    """A consumer that stops early does not wait for the rest, and one that is slow does not make them pile up."""
    made = []
    generate = batch.generate
    monkeypatch.setattr(
        batch, "generate", lambda seed, index, *a, **k: made.append(index) or generate(seed, index, *a, **k)
    )
    chunks = synthetic.generate_chunks(SEED, range(64), size=32, workers=1)
    assert made == []
    assert len(next(chunks)) == len(made) < 64
    chunks.close()


def test_seeds_indices_and_conditions_differ():
    images = [
        synthetic.generate(*key).image
        for key in ((0, 0, "common"), (1, 0, "common"), (0, 1, "common"), (0, 0, "private"))
    ]
    for i, left in enumerate(images):
        for right in images[i + 1 :]:
            assert np.abs(left.astype(int) - right).mean() > 5


@pytest.mark.parametrize("size", [64, 128, 200, 384])
def test_other_sizes_show_the_same_face(size):
    full, other = synthetic.generate(SEED, 5, "common"), synthetic.generate(SEED, 5, "common", size=size)
    np.testing.assert_allclose(other.points, (full.points + 0.5) * (size / 256) - 0.5, atol=1e-3)
    assert (full.visible == other.visible).mean() > 0.95
    small = (min(size, 128),) * 2
    shrunk = [cv2.resize(image, small, interpolation=cv2.INTER_AREA) for image in (full.image, other.image)]
    assert other.image.shape == (size, size, 3)
    assert np.corrcoef(*(image.ravel() for image in shrunk))[0, 1] > 0.95  # grain is another
    assert np.abs(shrunk[0].mean() - shrunk[1].mean()) < 4
    kept = {name: value for name, value in full.attributes.items() if name != "occluded"}
    assert kept == {name: other.attributes[name] for name in kept}


def test_no_faces_is_an_empty_batch():
    assert len(synthetic.generate_many(SEED, [], "train")) == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, 0, "easy"), "condition"), ((-1, 0, "common"), "seed"), ((0, 2**32, "common"), "index"), ((0, 1.5, "common"), "index"),
        ((True, 0, "common"), "seed"), ((0, 0, "wide"), "condition"), ((0, 0, "janus "), "condition"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ReplicateError, match=named):
        synthetic.generate(*arguments)


def test_bad_size_and_workers_are_named():
    with pytest.raises(ReplicateError, match="size"):
        synthetic.generate(0, 0, size=8)
    with pytest.raises(ReplicateError, match="workers"):
        synthetic.generate_many(0, [0], workers=-1)
    with pytest.raises(ReplicateError, match="index"):
        synthetic.generate_many(0, [0, "1"])
    with pytest.raises(ReplicateError, match="identity is -2"):
        synthetic.generate(0, 0, identity=-2)
    with pytest.raises(ReplicateError, match="identities has 1 entries, expected one for each of 2"):
        synthetic.generate_chunks(0, [0, 1], identities=[3])
    with pytest.raises(ReplicateError, match="identity is 0.5"):
        synthetic.generate_chunks(0, [0, 1], identities=[3, 0.5])
    with pytest.raises(ReplicateError, match="condition"):
        synthetic.generate_chunks(0, [], "easy")


def test_landmarks_lie_in_the_image_and_fill_about_half_of_it(batches):
    for faces in batches.values():
        inside = ((faces.points >= 0) & (faces.points <= 255)).all(-1)
        assert inside.mean() > 0.999
        extent = np.ptp(faces.points, axis=1).max(1)
        assert (extent > 0.40 * 256).all() and (extent < 0.60 * 256).all()


def test_points_have_the_order_of_the_markup():
    points = _posed_points()
    x, y = points.T
    assert (np.diff(x[:17]) > 0).all(), "jaw from left to right"
    assert (np.diff(x[17:27]) > 0).all() and (np.diff(x[31:36]) > 0).all()
    assert (np.diff(y[27:31]) > 0).all() and (np.diff(x[48:55]) > 0).all() and (np.diff(x[54:60]) < 0).all()
    assert x[36] < x[37] < x[38] < x[39] < x[42] < x[43] < x[44] < x[45]
    assert y[[37, 38, 43, 44]].max() < y[[40, 41, 46, 47]].min()
    assert y[19] < y[37] < y[30] < y[33] < y[51] < y[57] < y[8]
    assert x[39] < x[30] < x[42]


def test_template_is_symmetric_and_a_mirrored_pose_gives_mirrored_points():
    np.testing.assert_allclose(
        head.mirrored(template.neutral_landmarks()), template.neutral_landmarks(), atol=1e-12
    )
    left, right = _posed_points(yaw=-30), _posed_points(yaw=30)
    flipped = right[template.MIRROR] * (-1, 1)
    np.testing.assert_allclose(
        left - left.mean(0), flipped - flipped.mean(0), atol=0.3
    )  # the mesh is split one way


def test_signs_of_the_angles():
    def nose(points):
        eyes = points[36:48].mean(0)
        return (points[30] - eyes) / np.linalg.norm(points[36] - points[45])

    assert nose(_posed_points(yaw=30))[0] > 0.15 and nose(_posed_points(yaw=-30))[0] < -0.15
    assert nose(_posed_points(pitch=25))[1] > nose(_posed_points())[1] > nose(_posed_points(pitch=-25))[1]
    tilted = _posed_points(roll=20)
    angle = np.degrees(np.arctan2(*(tilted[45] - tilted[36])[::-1]))
    assert angle == pytest.approx(20, abs=0.5)


def test_expressions_move_what_they_name():
    neutral = template.template().controls
    openness = np.linalg.norm(neutral[62] - neutral[66])
    opened = head.apply_expression(neutral, head.Expression(jaw_open=1))
    closed = head.apply_expression(neutral, head.Expression(lid_left=0, lid_right=0))
    smiling = head.apply_expression(neutral, head.Expression(smile=1))
    assert openness < 1e-9 and np.linalg.norm(opened[62] - opened[66]) > 0.2
    assert np.linalg.norm(closed[37] - closed[41]) < 0.02 < np.linalg.norm(neutral[37] - neutral[41])
    assert np.linalg.norm(smiling[48] - smiling[54]) > 1.1 * np.linalg.norm(neutral[48] - neutral[54])
    np.testing.assert_allclose(head.apply_expression(neutral, head.Expression()), neutral, atol=1e-12)


@pytest.mark.parametrize("yaw", [-45.0, 0.0, 30.0])
def test_labels_lie_on_the_paint(yaw):
    """A spot painted at a landmark's place of the texture is found at the landmark's pixel."""
    base = template.template()
    cage = head.identity_cage(np.random.default_rng(4), male=True)
    geometry = _place(cage, scene.Pose(yaw, 5.0, 8.0, 10.0, 0.2))
    depth = geometry.grid[..., 2].astype(np.float32).ravel()
    mapped, _ = raster.rasterise(geometry.screen.reshape(-1, 2), depth, *scene.mesh(), 256)
    near_side = (
        [17, 19, 37, 41, 30, 31, 33, 48, 57, 51, 39]
        if yaw >= 0
        else [26, 24, 44, 46, 30, 35, 33, 54, 57, 51, 42]
    )
    for index in near_side:
        spot = np.zeros(canvas().shape, np.float32)
        texel = base.landmark_cells[index] * template.TEXELS
        gy, gx = np.mgrid[: spot.shape[0], : spot.shape[1]]
        spot[:] = np.exp(-((gx - texel[0]) ** 2 + (gy - texel[1]) ** 2) / (2 * 2.0**2))
        drawn = cv2.remap(
            spot, mapped[..., 0] * template.TEXELS, mapped[..., 1] * template.TEXELS, cv2.INTER_LINEAR
        )
        row, column = np.nonzero(drawn > 0.3)
        found = np.average(np.stack([column, row], 1), axis=0, weights=drawn[row, column])
        assert np.linalg.norm(found - geometry.points[index]) < 1.0, index


@pytest.mark.parametrize("yaw", [-40.0, 40.0])
def test_the_far_contour_lies_on_the_silhouette(yaw):
    base = template.template()
    geometry = _place(base.controls, scene.Pose(yaw, 0.0, 0.0, 14.0, 0.0))
    head_only = geometry.screen[: base.shape[0]]
    far = range(13, 16) if yaw > 0 else range(1, 4)
    for index in far:
        level = np.abs(head_only[..., 1] - geometry.points[index, 1]) < 1.5
        front = level & (np.abs(base.azimuth)[None] < 75)
        edge = head_only[..., 0][front].max() if yaw > 0 else head_only[..., 0][front].min()
        assert abs(edge - geometry.points[index, 0]) < 2.0


def test_visibility_follows_the_turn_and_the_covers(batches):
    rng = np.random.default_rng(0)
    covered = hair.sample_mask(rng)
    assert covered.alpha.max() == 1 and covered.thickness.max() > 0
    hidden = {"near": [], "far": []}
    for faces in batches.values():
        for visible, yaw in zip(faces.visible, faces.attributes["yaw"], strict=True):
            if abs(yaw) > 35:
                far, near = (visible[36:42], visible[42:48]) if yaw < 0 else (visible[42:48], visible[36:42])
                hidden["far"].append(1 - far.mean())
                hidden["near"].append(1 - near.mean())
    assert len(hidden["far"]) > 5
    assert np.mean(hidden["far"]) > np.mean(hidden["near"])


def test_dark_glasses_hide_the_eyes_and_clear_ones_do_not():
    eyes = {0: [], 1: [], 2: []}
    for index in range(400):
        if len(eyes[1]) >= 3 and len(eyes[2]) >= 3:
            break
        face = synthetic.generate(SEED, index, "challenging")
        if abs(face.attributes["yaw"]) < 20:
            eyes[int(face.attributes["glasses"])].append(face.visible[36:48].mean())
    assert np.median(eyes[2]) < 0.2 < 0.8 < np.median(eyes[1])


def test_conditions_grow_harder(batches):
    spread, error = {}, {}
    for name in ("common", "private", "challenging"):
        points, poses = _geometry(name, 150)
        spread[name] = np.mean([abs(p.yaw) + abs(p.pitch) + abs(p.roll) for p in poses])
        error[name] = _mean_shape_error(points)
    assert spread["common"] < spread["private"] < spread["challenging"]
    assert error["common"] < error["private"] < error["challenging"]
    hidden = {name: 1 - faces.visible.mean() for name, faces in batches.items()}
    assert hidden["common"] < hidden["challenging"]


def test_rasteriser_interpolates_and_keeps_the_nearer_surface():
    square = np.array([(2, 2), (12, 2), (2, 12), (12, 12)], np.float32)
    screen = np.concatenate([square, square + (4, 0)])
    depth = np.array([0] * 4 + [1] * 4, np.float32)
    values = np.concatenate([square, square + 100])
    one = raster.grid_triangles(2, 2)
    mapped, nearest = raster.rasterise(screen, depth, values, np.concatenate([one, one + 4]), 20)
    np.testing.assert_allclose(mapped[5, 3], (3, 5), atol=1e-3)
    np.testing.assert_allclose(mapped[5, 8], (104, 105), atol=1e-3)
    assert nearest[5, 8] == 1 and nearest[5, 3] == 0 and mapped[0, 0, 0] == -1
    flipped, _ = raster.rasterise(screen[:, ::-1].copy(), depth, values, one, 20)
    assert (flipped == -1).all(), "back faces are not drawn"


def test_rotation_is_a_rotation():
    matrix = scene.rotation(33, -21, 14)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(scene.rotation(0, 0, 0), np.eye(3), atol=0)
