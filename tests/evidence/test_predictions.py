"""Prediction files: small, checked, free of pickles and of real people's landmarks."""

from dataclasses import replace

import numpy as np
import pytest

from replicate.errors import ReplicateError
from replicate.evidence import predictions
from replicate.evidence.predictions import Predictions


def make(count=5, faces="synthetic", points=True, **changes) -> Predictions:
    rng = np.random.default_rng(count)
    about = dict(
        model="dan-0123", testset="300w-common", faces=faces, names=tuple(f"face_{i}" for i in range(count))
    )
    errors = {"inter-ocular": rng.gamma(4, 1.2, count), "diagonal": rng.gamma(4, 0.5, count)}
    shape = rng.uniform(60, 200, (1, 68, 2)) + rng.normal(0, 12, (count, 68, 2))
    return Predictions(**{**about, "errors": errors, "points": shape if points else None, **changes})


def test_predictions_come_back_as_they_went():
    made = make(points=True)
    predictions.save(made, "dan", "cpu")
    read = predictions.load("dan-0123", "300w-common", "dan", "cpu")
    assert (read.model, read.testset, read.faces, read.names) == (
        made.model,
        made.testset,
        made.faces,
        made.names,
    )
    for name, errors in made.errors.items():
        np.testing.assert_allclose(read.errors[name], errors, rtol=1e-6)
    np.testing.assert_allclose(read.points, made.points, atol=0.5 / 100 + 1e-4)


def test_a_face_without_prediction_keeps_its_infinite_error():
    made = make(errors={"inter-ocular": [1.0, np.inf, 2.0, 3.0, 4.0]}, points=False)
    predictions.save(made, "dan", "cpu")
    read = predictions.load("dan-0123", "300w-common", "dan", "cpu")
    assert read.points is None and np.isinf(read.errors["inter-ocular"][1])


def test_points_far_from_a_crop_are_kept_whole():
    far = make().points + np.arange(5)[:, None, None] * 4000
    made = Predictions("far", "300w-common", "synthetic", make().names, make().errors, far)
    predictions.save(made, "dan", "cpu")
    np.testing.assert_allclose(predictions.load("far", "300w-common", "dan", "cpu").points, far, rtol=1e-6)


def test_the_full_set_takes_less_than_150_kilobytes():
    rng = np.random.default_rng(0)
    around = np.linspace(0, 6 * np.pi, 68)  # like a markup, neighbours lie close to each other
    base = 128 + (20 + 3 * around)[:, None] * np.stack([np.cos(around), np.sin(around)], 1)
    turns, sizes = rng.normal(0, 0.3, 689), rng.lognormal(0, 0.15, 689)
    turn = sizes[:, None, None] * np.stack(
        [np.cos(turns), -np.sin(turns), np.sin(turns), np.cos(turns)], 1
    ).reshape(-1, 2, 2)
    shapes = (base - 128) @ turn + 128 + rng.normal(0, 8, (689, 1, 2)) + rng.normal(0, 2, (689, 68, 2))
    path = predictions.save(replace(make(689), points=shapes), "dan", "cpu")
    np.testing.assert_allclose(predictions.read(path).points, shapes, atol=0.5 / 100 + 1e-4)
    assert path.stat().st_size < 150_000


def test_points_of_real_faces_are_kept_out_of_the_results(places):
    made = make(faces="real")
    with pytest.raises(ReplicateError, match="may not be recorded"):
        predictions.save(made, "dan", "cpu")
    assert not (places / "results").exists()
    cached = predictions.save(made, "dan", "cpu", folder=places / "cache" / "predictions")
    assert predictions.read(cached).points is not None
    recorded = predictions.save(predictions.without_points(made), "dan", "cpu")
    assert predictions.read(recorded).points is None


def test_the_same_predictions_leave_the_file_untouched():
    path = predictions.save(make(), "dan", "cpu")
    before = path.stat().st_mtime_ns
    jitter = make().points + 0.001
    predictions.save(
        Predictions("dan-0123", "300w-common", "synthetic", make().names, make().errors, jitter), "dan", "cpu"
    )
    assert path.stat().st_mtime_ns == before
    moved = {name: errors * 1.01 for name, errors in make().errors.items()}
    predictions.save(make(errors=moved), "dan", "cpu")
    np.testing.assert_allclose(predictions.read(path).errors["diagonal"], moved["diagonal"], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(names=("a", "b", "a", "c", "d")), "4 different"),
        (dict(names=()), "names: got 0"),
        (dict(errors={"inter-ocular": np.ones(4)}), r"got shape \(4,\)"),
        (dict(errors={"inter-ocular": np.array([1, 2, 3, 4, np.nan])}), "1 NaN"),
        (dict(errors={"inter-ocular": np.array([1, 2, 3, 4, -1.0])}), "1 negative"),
        (dict(errors={"ipd": np.ones(5)}), "normaliser: got 'ipd'"),
        (dict(faces="photographs"), "faces: got 'photographs'"),
        (dict(model="../../elsewhere"), "model: got"),
        (dict(testset=""), "testset: got ''"),
    ],
)
def test_inconsistent_predictions_are_refused(changes, message):
    with pytest.raises(ReplicateError, match=message):
        make(points=False, **changes)


@pytest.mark.parametrize("shape", [(5, 68), (4, 68, 2), (5, 68, 3)])
def test_points_of_another_size_are_refused(shape):
    with pytest.raises(ReplicateError, match="points: got shape"):
        Predictions("m", "t", "synthetic", make().names, make().errors, np.zeros(shape))


def test_points_that_are_not_finite_are_refused():
    points = make().points.copy()
    points[2, 3, 0] = np.nan
    with pytest.raises(ReplicateError, match="1 coordinates are NaN"):
        Predictions("m", "t", "synthetic", make().names, make().errors, points)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "pickle"])
def test_a_damaged_file_is_named(damage):
    path = predictions.save(make(), "dan", "cpu")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "pickle":
        np.savez(path, format=np.array(1), names=np.array([{"a": 1}], dtype=object))
    else:
        path.write_text("" if damage == "empty" else "not an archive")
    with pytest.raises(ReplicateError, match="dan-0123.300w-common.npz is not a prediction file"):
        predictions.load("dan-0123", "300w-common", "dan", "cpu")
    predictions.save(make(), "dan", "cpu")  # and it can be made again
    assert len(predictions.read(path).names) == 5


def test_no_flipped_byte_goes_unnoticed_or_escapes_as_another_exception():
    path = predictions.save(make(points=False), "dan", "cpu")
    whole = path.read_bytes()
    expected = predictions.read(path)
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            read = predictions.read(path)
        except ReplicateError:
            continue
        assert read.names == expected.names  # a byte of padding or of a date
        assert all(np.array_equal(read.errors[name], errors) for name, errors in expected.errors.items())


def test_confidences_come_back_as_they_were_in_memory():
    sure = np.random.default_rng(0).uniform(0, 1, (5, 29))
    made = make(confidence=sure)
    np.testing.assert_allclose(made.confidence, sure, atol=5e-4)
    path = predictions.save(made, "ect", "cpu")
    np.testing.assert_array_equal(predictions.read(path).confidence, made.confidence)
    written = path.stat().st_mtime_ns
    predictions.save(make(confidence=sure + 4e-4), "ect", "cpu")
    assert path.stat().st_mtime_ns == written
    predictions.save(make(confidence=1 - sure), "ect", "cpu")
    np.testing.assert_allclose(predictions.read(path).confidence, 1 - sure, atol=5e-4)
    predictions.save(make(), "ect", "cpu")
    assert predictions.read(path).confidence is None


@pytest.mark.parametrize("bad", [np.ones(5), np.ones((4, 29)), np.full((5, 29), np.nan)])
def test_confidences_of_another_size_or_none_are_refused(bad):
    with pytest.raises(ReplicateError, match="confidence: got shape"):
        make(confidence=bad)


def test_a_file_without_confidence_and_markup_is_one_of_68_points():
    path = predictions.save(make(), "dan", "cpu")
    assert set(np.load(path).files) == {
        "format", "about", "names", "provenance", "error inter-ocular", "error diagonal", "points mean", "points steps",
    }  # fmt: skip
    assert predictions.read(path).markup == "ibug68"
    assert make(provenance={"markup": "cofw29"}).markup == "cofw29"


def test_joined_runs_have_what_all_of_them_have():
    first, second = make(3, confidence=np.zeros((3, 68))), make(4, confidence=np.ones((4, 68)))
    first, second = (
        replace(
            run, names=tuple(f"{number}{name}" for name in run.names), provenance={"faces_sha256": number}
        )
        for number, run in zip("ab", (first, second), strict=True)
    )
    both = predictions.joined([first, second], "300w-full")
    np.testing.assert_array_equal(both.confidence, np.repeat([0.0, 1.0], (3, 4))[:, None] * np.ones(68))
    assert both.points.shape == (7, 68, 2) and both.provenance == {"faces_sha256": "a b"}
    assert predictions.joined([first, replace(second, confidence=None)], "300w-full").confidence is None


def test_errors_of_a_condition_are_named_after_their_normaliser():
    errors = {
        "inter-pupil": np.ones(5),
        "inter-pupil, 3 iterations": np.full(5, 2.0),
        "pixel": np.full(5, 250.0),
    }
    made = make(errors=errors, points=False)
    assert predictions.read(predictions.save(made, "ect", "cpu")).errors.keys() == errors.keys()
    [at_three] = predictions.under([made], "3 iterations")
    assert at_three.errors.keys() == {"inter-pupil"} and at_three.errors["inter-pupil"].tolist() == [2.0] * 5
    with pytest.raises(ReplicateError, match="condition: got '4 iterations', but dan-0123 has inter-pupil,"):
        predictions.under([made], "4 iterations")


def test_settings_that_were_tried_are_put_in_order():
    errors = {f"inter-pupil, {m} components": np.full(5, float(m)) for m in (20, 5)}
    errors |= {"inter-pupil, all components": np.full(5, 63.0), "inter-pupil, 0 iterations": np.zeros(5)}
    made = make(errors=errors, points=False, provenance={"shape_components": 63})
    settings, found = predictions.swept([made, made], "inter-pupil", "components")
    assert settings == (5, 20, 63) and found.shape == (2, 5, 3)
    np.testing.assert_array_equal(found, np.broadcast_to([5.0, 20.0, 63.0], (2, 5, 3)))
    assert predictions.swept([made], "inter-pupil", "iterations")[0] == (0,)
    with pytest.raises(ReplicateError, match="dan-0123: no errors by number of iterations"):
        predictions.swept([made], "diagonal", "iterations")


def test_a_file_that_is_not_there_says_what_is_missing():
    with pytest.raises(ReplicateError, match="not been tested on 300w-full at profile cpu"):
        predictions.load("dan-0123", "300w-full", "dan", "cpu")


def test_errors_of_several_seeds_are_stacked_only_over_the_same_images():
    runs = [make(model=f"seed-{seed}") for seed in range(3)]
    assert predictions.stacked_errors(runs, "diagonal").shape == (3, 5)
    with pytest.raises(ReplicateError, match="same images"):
        predictions.stacked_errors([*runs, make(names=tuple("abcde"))], "diagonal")
    with pytest.raises(ReplicateError, match="normaliser of seed-0"):
        predictions.stacked_errors(runs, "inter-pupil")
