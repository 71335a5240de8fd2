"""Conditions of the synthetic generator: what each protocol asks of its faces, and persons that stay the same."""

import numpy as np
import pytest

from replicate.faces import synthetic
from replicate.faces.markups import MARKUPS
from replicate.faces.synthetic import appearance, conditions, head, scene, template

SEED = 31
MANY = 2000


def _draws(condition: str, count: int = MANY, **options) -> dict[str, np.ndarray]:
    drawn = [synthetic.draw(SEED, index, condition, **options) for index in range(count)]
    return {name: np.array([d[name] for d in drawn]) for name in drawn[0]}


def _assert_rate(flags: np.ndarray, expected: float) -> None:
    """Within four standard deviations of a binomial."""
    assert abs(flags.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / len(flags))


@pytest.fixture(scope="module")
def faces() -> dict[str, synthetic.FaceBatch]:
    return {
        name: synthetic.generate_many(SEED, range(12), name, size=128, workers=1)
        for name in synthetic.CONDITIONS
    }


def test_every_condition_keeps_the_invariants_of_labels(faces):
    for name, batch in faces.items():
        points = batch.points
        assert np.isfinite(points).all(), name
        assert ((points > 0) & (points < 127)).all(), name
        extent = np.ptp(points, axis=1).max(1) / 128
        assert ((extent > 0.4) & (extent < 0.6)).all(), name
        np.testing.assert_allclose(batch.attributes["occluded"], 1 - batch.visible.mean(1))
        assert (batch.images.reshape(12, -1).std(1) > 5).all(), name
        assert len(set(batch.attributes["identity"].tolist())) == 12


def test_a_draw_foretells_the_face(faces):
    for name, batch in faces.items():
        for index in (0, 7):
            drawn = synthetic.draw(SEED, index, name)
            assert drawn == {key: batch.attributes[key][index] for key in drawn}


@pytest.mark.parametrize("condition", synthetic.CONDITIONS)
def test_attributes_agree_with_each_other(condition):
    drawn = _draws(condition, 300)
    smiling = drawn["smiling"] == 1
    assert (drawn["smile"][smiling] >= conditions.FAINTEST_SMILE).all() and (
        drawn["smile"][~smiling] == 0
    ).all()
    stated = conditions.CONDITIONS.get(condition)
    far = stated.profile if stated else 45
    expected = np.digitize(drawn["yaw"], (-far, -15, 15, far)) + 1
    np.testing.assert_array_equal(drawn["pose"], expected)
    assert set(drawn["gender"]) == {1, 2} and set(drawn["glasses"]) <= {0, 1, 2}


@pytest.mark.parametrize(
    "condition", sorted(set(synthetic.CONDITIONS) - set(conditions.MIXTURES) - set(conditions.SEQUENCES))
)
def test_rates_are_those_of_the_condition(condition):
    drawn, stated = _draws(condition), conditions.CONDITIONS[condition]
    _assert_rate(drawn["smiling"], stated.smile)
    _assert_rate(drawn["glasses"] > 0, stated.glasses)
    _assert_rate(drawn["glasses"] == 2, stated.dark_glasses)
    _assert_rate(drawn["gender"] == 1, stated.male)
    _assert_rate(drawn["hat"], stated.hat)


def test_mtfl_has_the_published_rates_and_poses():
    drawn = _draws("mtfl-train")
    _assert_rate(drawn["smiling"], 0.572)
    _assert_rate(drawn["glasses"] > 0, 0.153)
    for pose, share in zip(range(1, 6), (0.0165, 0.111, 0.745, 0.111, 0.0165), strict=True):
        _assert_rate(drawn["pose"] == pose, share)


def test_poses_are_named_by_the_side_of_the_image_the_nose_points_to():
    face = next(
        f
        for f in (synthetic.generate(SEED, i, "aflw", size=64) for i in range(2, 60, 3))
        if f.attributes["pose"] == 1
    )
    assert face.points[30, 0] < face.points[36:48, 0].mean()


def test_aflw_bins_hold_a_third_each_of_any_run():
    for start, count in ((0, 1299), (7, 3900)):
        yaw = np.abs([synthetic.draw(SEED, i, "aflw")["yaw"] for i in range(start, start + count)])
        assert np.histogram(yaw, (0, 30, 60, 90))[0].tolist() == [count // 3] * 3
    assert yaw.max() > 88


def _profile(yaw: float, follow: bool) -> scene.Placed:
    base = template.template()
    wear = scene.Wear(np.zeros(base.shape, np.float32))
    pose = scene.Pose(yaw, 0.0, 0.0, 20.0, 0.0)
    return scene.place_head(base.controls, pose, scene.Frame(256), wear, follow)


@pytest.mark.parametrize("yaw", [-90.0, -65.0, 65.0, 90.0])
def test_profiles_have_their_points_on_the_head(yaw):
    """The near jaw runs down and forward to the chin; the midline is the face's outline at 90 degrees."""
    placed = _profile(yaw, follow=False)
    x, y = (placed.points * (np.sign(yaw), 1)).T  # the nose points to the right
    near = slice(0, 8) if yaw > 0 else slice(16, 8, -1)
    assert (np.diff(x[near])[2:] > 0).all() and (np.diff(y[near]) > 0).all()
    assert x.argmax() == 30
    if abs(yaw) == 90:
        outline = placed.screen[: template.template().shape[0]]
        middle = len(template.template().azimuth) // 2
        assert abs(template.template().azimuth[middle]) < 1e-9
        for point in (27, 28, 29, 30, 51, 57, 8):
            level = np.abs(outline[..., 1] - placed.points[point, 1]) < 1.5
            assert x[point] > (outline[..., 0][level] * np.sign(yaw)).max() - 3


def test_only_aflw_leaves_contour_points_on_the_far_side_of_the_head():
    followed, fixed = _profile(60, follow=True).points, _profile(60, follow=False).points
    np.testing.assert_allclose(followed[:6], fixed[:6], atol=6)  # the near jaw is the same
    assert (followed[12:16, 0] > fixed[12:16, 0] + 5).all()
    assert not conditions.CONDITIONS["aflw"].contour_follows_silhouette
    assert conditions.CONDITIONS["menpo"].contour_follows_silhouette


def test_far_points_of_profiles_are_hidden_and_near_ones_seen():
    seen = {"near": [], "far": [], "far jaw": []}
    for index in range(2, 74, 3):
        face = synthetic.generate(SEED, index, "aflw", size=128)
        left, right = face.visible[36:42], face.visible[42:48]
        near_jaw_left = face.attributes["yaw"] > 0
        seen["near" if near_jaw_left else "far"].append(left.mean())
        seen["far" if near_jaw_left else "near"].append(right.mean())
        seen["far jaw"].append(face.visible[11:16].mean() if near_jaw_left else face.visible[1:6].mean())
    assert np.mean(seen["near"]) > 0.6 > 0.15 > np.mean(seen["far"])
    assert np.mean(seen["far jaw"]) < 0.1


def test_cofw_hides_about_as_many_points_as_published():
    hidden, definition = [], MARKUPS["cofw29"].definition
    for index in range(90):
        visible = synthetic.generate(SEED, index, "cofw", size=64).visible
        hidden.append([visible[list(built)].mean() < 0.5 for built in definition])
    assert 0.17 < np.mean(hidden) < 0.29  # 23 % in the test set


def test_low_resolution_is_low(faces):
    def sharpness(batch: synthetic.FaceBatch) -> float:
        grey = batch.images.astype(float).mean(-1)
        return float(np.median(np.abs(np.diff(grey, axis=2)).mean((1, 2)) / grey.std((1, 2))))

    frames = synthetic.generate_many(SEED, range(5712, 5712 + 12), "janus")
    assert sharpness(frames) < sharpness(faces["ijb-a"]) < sharpness(faces["helen"])


def test_janus_has_its_stills_first():
    names = [
        conditions.sample_moment(np.random.default_rng(0), "janus", i).condition
        for i in (0, 5711, 5712, 26123)
    ]
    stills, frames = conditions.CONDITIONS["ijb-a"], conditions.CONDITIONS["video"]
    assert names == [stills, stills, frames, frames]


def test_a_person_stays_the_same_in_other_photographs(monkeypatch):
    cages, complexions = [], []
    expression, complexion = head.apply_expression, appearance.paint_face
    monkeypatch.setattr(head, "apply_expression", lambda cage, e: cages.append(cage) or expression(cage, e))
    monkeypatch.setattr(
        appearance, "paint_face", lambda c, *rest: complexions.append(c) or complexion(c, *rest)
    )
    requests = [(0, "janus", 4), (1, "janus", 4), (9, "common", 4), (0, "janus", 5), (0, "janus", None)]
    drawn = [synthetic.generate(SEED, i, c, size=64, identity=who).attributes for i, c, who in requests]
    for again in (1, 2):
        np.testing.assert_array_equal(cages[0], cages[again])
        np.testing.assert_array_equal(complexions[0].skin, complexions[again].skin)
        assert drawn[0]["gender"] == drawn[again]["gender"] and drawn[0]["age"] == drawn[again]["age"]
        assert drawn[0]["yaw"] != drawn[again]["yaw"]
    for other in (3, 4):
        assert np.abs(cages[0] - cages[other]).max() > 0.02
    assert [d["identity"] for d in drawn[:4]] == [4, 4, 4, 5] and drawn[4]["identity"] >= 2**32


def test_people_who_are_not_named_are_never_the_same():
    identities = [
        synthetic.draw(SEED, index, condition)["identity"]
        for condition in ("train", "common", "janus") for index in (0, 1, 2**31, 2**32 - 1)
    ]  # fmt: skip
    assert len(set(identities)) == 12 and min(identities) >= 2**32
