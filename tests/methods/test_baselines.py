"""Baselines: closed forms, and SDM on simple drawn faces."""

import cv2
import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.faces.faceset import FaceSet
from replicate.methods import baselines
from replicate.methods.baselines import SDM, MeanShape, SDMConfig
from replicate.metrics import nme

TINY = SDMConfig(stages=3, perturbations=3, box_side=48, patch=20.0, ridge=1.0)


def draw_faces(count: int, seed: int, colour: bool = False) -> FaceSet:
    """Five-point cartoons: two eyes, a nose and a mouth that move independently of the box."""
    rng = np.random.default_rng(seed)
    images, points, boxes = [], [], []
    for index in range(count):
        height, width = rng.integers(120, 160, 2)
        scale = rng.uniform(0.8, 1.2)
        shape = np.array([[-18.0, -14], [18, -14], [0, 4], [-12, 22], [12, 22]]) + rng.normal(0, 3, (5, 2))
        shape = shape * scale + (60, 60) + rng.uniform(-4, 4, 2)
        image = np.full((height, width), 190, np.uint8)
        for x, y in shape[:2]:
            cv2.circle(image, (round(x * 16), round(y * 16)), round(5 * scale * 16), 20, -1, cv2.LINE_AA, 4)
        nose, left, right = (tuple(np.round(p * 16).astype(int).tolist()) for p in shape[2:])
        cv2.ellipse(image, nose, (48, 96), 0, 0, 360, 90, -1, cv2.LINE_AA, 4)
        cv2.line(image, left, right, 50, 4, cv2.LINE_AA, 4)
        images.append(np.repeat(image[..., None], 3, axis=2) if colour and index % 2 else image)
        points.append(shape)
        boxes.append([60 - 36 * scale, 60 - 36 * scale, 60 + 36 * scale, 60 + 36 * scale])
    names = tuple(f"face{index}" for index in range(count))
    return FaceSet(
        images, np.array(points, np.float32), np.ones((count, 5), bool), np.array(boxes, np.float32), names,
        markup="mtfl5", protocol="drawn", split="train", faces="synthetic", box_rule="drawn",
    )  # fmt: skip


def error(model, faces: FaceSet) -> float:
    predicted = model.predict(faces.images, faces.boxes)
    return nme(predicted, faces.points, normaliser="inter-pupil", markup="mtfl5").mean()


@pytest.fixture(scope="module")
def fitted() -> SDM:
    return SDM(TINY).fit(draw_faces(60, seed=1, colour=True), seed=0)


def test_the_mean_shape_is_exact_where_all_faces_are_alike():
    faces = draw_faces(1, seed=0)
    boxes = np.concatenate([faces.boxes, faces.boxes * 2 + 5])
    predicted = MeanShape().fit(faces).predict(faces.images * 2, boxes)
    np.testing.assert_allclose(predicted, np.concatenate([faces.points, faces.points * 2 + 5]), atol=1e-4)


def test_the_mean_shape_averages_what_the_boxes_see():
    faces = draw_faces(20, seed=0)
    side = faces.boxes[:, 2] - faces.boxes[:, 0]
    expected = ((faces.points - 60) / side[:, None, None]).mean(axis=0) * 10 + 100
    predicted = MeanShape().fit(faces).predict(faces.images[:1], np.array([[95, 95, 105, 105]]))
    np.testing.assert_allclose(predicted[0], expected, rtol=1e-5)


@pytest.mark.parametrize("mirror", [False, True])
def test_sdm_overfits_a_handful_of_faces(mirror):
    faces = draw_faces(6, seed=2)
    from_mean_shape = {"perturbations": 1, "shift_sd": 0.0, "log_scale_sd": 0.0}
    config = SDMConfig(stages=3, box_side=48, ridge=1e-3, mirror=mirror, **from_mean_shape)
    assert error(SDM(config).fit(faces), faces) < 0.01 < 5.0 < error(MeanShape().fit(faces), faces)


def test_sdm_beats_the_mean_shape_on_new_faces_and_gains_with_each_stage(fitted):
    test = draw_faces(40, seed=3)
    mean = error(MeanShape().fit(draw_faces(60, seed=1)), test)
    by_stage = []
    for stages in range(1, TINY.stages + 1):
        arrays = fitted.arrays()
        arrays |= {name: arrays[name][:stages] for name in ("regressors", "biases")}
        by_stage.append(error(SDM.from_arrays(arrays, TINY), test))
    assert by_stage[-1] < 0.35 * mean
    assert mean > by_stage[0] > by_stage[1] > by_stage[2]


def test_sdm_follows_the_face_through_image_scale_and_shift(fitted):
    faces = draw_faces(1, seed=4)
    before = fitted.predict(faces.images, faces.boxes)[0]
    large = cv2.resize(faces.images[0], None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    large = cv2.copyMakeBorder(large, 7, 0, 3, 0, cv2.BORDER_REPLICATE)

    def enlarge(p):
        return 2 * p + 0.5 + np.array([3, 7])  # pixel centres: 0 goes to 0.5 when a pixel becomes two

    boxes = enlarge(faces.boxes.reshape(2, 2)).reshape(1, 4)
    assert np.abs(fitted.predict([large], boxes)[0] - enlarge(before)).mean() < 0.7


def test_a_mirrored_face_gets_mirrored_points(fitted):
    faces = draw_faces(1, seed=5)
    width = faces.images[0].shape[1]
    x0, y0, x1, y1 = faces.boxes[0]
    mirrored = fitted.predict(
        [faces.images[0][:, ::-1]], np.array([[width - 1 - x1, y0, width - 1 - x0, y1]])
    )[0]
    mirrored[:, 0] = width - 1 - mirrored[:, 0]
    np.testing.assert_allclose(
        mirrored[[1, 0, 2, 4, 3]], fitted.predict(faces.images, faces.boxes)[0], atol=1.5
    )


def test_fitting_is_repeatable_and_depends_on_the_seed(fitted):
    faces = draw_faces(8, seed=6)
    first, again, other = (SDM(TINY).fit(faces, seed=seed).arrays() for seed in (0, 0, 1))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first["regressors"], other["regressors"])


@pytest.mark.parametrize("chunk", [1, 7])
def test_prediction_does_not_depend_on_the_chunks(fitted, monkeypatch, chunk):
    faces = draw_faces(15, seed=7)
    whole = fitted.predict(faces.images, faces.boxes)
    monkeypatch.setattr(baselines, "_CHUNK", chunk)
    np.testing.assert_allclose(fitted.predict(faces.images, faces.boxes), whole, atol=0.05)


def test_arrays_rebuild_the_models(fitted):
    faces = draw_faces(3, seed=8)
    arrays = fitted.arrays()
    assert {name: array.shape for name, array in arrays.items()} == {
        "initial": (5, 2), "regressors": (3, 640, 10), "biases": (3, 10),
    }  # fmt: skip
    rebuilt = SDM.from_arrays(arrays, TINY)
    np.testing.assert_array_equal(
        rebuilt.predict(faces.images, faces.boxes), fitted.predict(faces.images, faces.boxes)
    )
    mean = MeanShape().fit(faces)
    np.testing.assert_array_equal(
        MeanShape.from_arrays(mean.arrays()).predict(faces.images, faces.boxes),
        mean.predict(faces.images, faces.boxes),
    )


def test_missing_points_and_bad_boxes_are_named():
    faces = draw_faces(3, seed=9)
    faces.points[1, 2] = np.nan
    for model in (MeanShape(), SDM(TINY)):
        with pytest.raises(ReplicateError, match="point 2 of face1 is missing"):
            model.fit(faces)
    model = MeanShape().fit(draw_faces(3, seed=9))
    for boxes in (faces.boxes[:2], faces.boxes[:, ::-1], faces.boxes * np.nan):
        with pytest.raises(ReplicateError, match="boxes: got shape"):
            model.predict(faces.images, boxes)


def test_descriptors_are_those_that_the_cascade_sees():
    faces = draw_faces(5, seed=3)
    model = SDM(TINY)
    found = model.descriptors(faces.images, faces.boxes, faces.points)
    assert found.shape == (5, 5, 128) and found.dtype == np.uint8
    shapes = baselines._to_box(faces.points, faces.boxes.astype(float))[:, None]
    expected = model._features(model._crops(faces.images, faces.boxes), shapes)
    assert np.array_equal(found.reshape(5, -1), expected[:, 0]) and found.std() > 10
    moved = model.descriptors(faces.images, faces.boxes, faces.points + 12)
    assert (moved != found).any(-1).mean() > 0.9
