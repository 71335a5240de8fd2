"""The data card: statistics are those of the faces, and published ones are the papers'."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from toy_faces import toy_faces

from replicate.errors import ReplicateError
from replicate.evidence import data_card, published
from replicate.evidence.data_card import Look
from replicate.evidence.views import faces as views
from replicate.faces.protocols import IN_A_ROW, PROTOCOLS
from replicate.faces.sources import FaceSource


def look(count=10, **attributes) -> Look:
    return Look(toy_faces(count), {name: np.asarray(values) for name, values in attributes.items()})


class TestSummary:
    def test_sizes_visibility_and_quantiles(self):
        looked = look(yaw=np.arange(-50, 51))
        looked.faces.visible[:5, :34] = False
        told = data_card.summary(looked)
        extent = looked.faces.points.max(1) - looked.faces.points.min(1)
        assert (told["points"], told["image size"], told["visible"]) == (68, "140", 0.75)
        assert told["face size"] == pytest.approx(extent.mean(), abs=0.05)
        assert told["yaw"] == [-45, 0, 45] and told["roll"] is None
        assert set(told) == set(data_card.SUMMARY)

    def test_points_that_are_not_annotated_do_not_count(self):
        looked = look()
        before = data_card.summary(looked)["face size"]
        looked.faces.points[0] = np.nan
        looked.faces.visible[0] = False
        assert data_card.summary(looked)["visible"] == 1
        assert data_card.summary(looked)["face size"] == pytest.approx(before, rel=0.05)
        assert data_card.share(looked, "hidden points").tolist() == [0] * 10


class TestShares:
    def test_each_is_the_share_of_faces(self):
        looked = look(
            smiling=[1, 0, 1, 1], wearing_glasses=[0, 1, 1, 0], male=[1, 0, 0, 0], yaw=[-90, 29.9, 30, -61]
        )
        percent = {
            name: data_card.share(looked, name).mean()
            for name in data_card.QUANTITIES
            if name != "hidden points"
        }
        assert percent == {
            "smiling": 75,
            "glasses": 50,
            "women": 75,
            "yaw of 0° to 30°": 25,
            "yaw of 30° to 60°": 25,
            "yaw of 60° to 90°": 50,
        }

    def test_the_codes_of_real_mtfl_are_not_taken_for_ours(self):
        looked = look(glasses=[2, 2, 1, 2], wearing_glasses=[False, False, True, False])
        assert data_card.share(looked, "glasses").mean() == 25

    def test_what_a_set_does_not_tell_is_none(self):
        assert (
            data_card.share(look(), "smiling") is None and data_card.share(look(), "hidden points").max() == 0
        )


def official(protocol, split, **attributes) -> Look:
    made = replace(toy_faces(4), protocol=protocol, split=split)
    return Look(made, {name: np.asarray(values) for name, values in attributes.items()})


def test_the_table_of_statistics_has_a_line_for_each_split():
    looks = [
        official("mtfl", "train", yaw=[-10.0, 0, 10], pitch=[0.0] * 3, roll=[1.0] * 3, smiling=[1, 1, 0]),
        official("cofw", "test"),
    ]
    table = data_card.statistics(looks[:1], "cpu").data
    assert table.loc[0, ["split", "faces", "yaw, °"]].tolist() == ["mtfl train", "10,000", "−9…9"]
    told = data_card.attributes(looks[:1], "cpu").data
    assert told.loc[0].tolist() == ["mtfl train", "67", "–", "–"]
    both = data_card.statistics([looks[0], replace(looks[1], attributes={"yaw": np.zeros(2)})], "smoke")
    assert len(both.data) == 2 and "NUMBERS MEAN NOTHING" in both.caption


def test_real_splits_say_how_much_of_them_is_here():
    real = Look(replace(toy_faces(4), protocol="cofw", split="test", faces="real"), {})
    table = data_card.statistics([real], "cpu")
    assert table.data.loc[0, "faces"] == "4 of 507" and "all faces that this machine has" in table.caption


class TestPublished:
    def test_values_of_the_papers_are_looked_up_and_not_repeated(self):
        facts = {
            (fact["protocol"], fact["split"], fact["quantity"]): fact["value"]
            for fact in data_card.published_facts()
        }
        assert facts["mtfl", "train", "smiling"] == published.value("TCNN-S6", setting="smiling") == 57.2
        assert facts["mtfl", "train", "glasses"] == published.value("TCNN-S6", setting="eyeglasses") == 15.3
        assert facts["aflw-pifa", "test", "yaw of 30° to 60°"] == pytest.approx(100 / 3)
        assert facts["cofw", "test", "hidden points"] == 23

    def test_they_stand_beside_the_faces_with_an_interval(self):
        half = official("mtfl", "train", smiling=[1, 0] * 50)
        table = data_card.beside_published([half], "cpu").data
        (line,) = table[(table["protocol"] == "mtfl") & (table["share of"] == "smiling")].to_dict("records")
        assert line["published, %"] == "57.2" and line["faces looked at"] == "100"
        assert line["here, %"].startswith("50.0 [4") and line["here, %"].endswith("]")
        assert set(table[table["protocol"] == "cofw"]["here, %"]) == {"–"}


class TestDraw:
    def test_it_gives_the_attributes_of_the_faces_that_are_made(self):
        source = FaceSource("mtfl", "test", "synthetic", "smoke")
        made, drawn = source.sample(2).attributes, data_card.draw(source, 2)
        shared = made.keys() & drawn.keys()
        assert {"yaw", "smiling", "glasses", "gender"} <= shared
        for name in shared:
            np.testing.assert_array_equal(made[name], drawn[name])

    def test_people_take_turns(self):
        source = FaceSource("janus", "all", "synthetic", "cpu")
        gender = data_card.draw(source, 2505)["gender"].reshape(-1, IN_A_ROW)
        assert (gender == gender[:, :1]).all() and (gender[0] == gender[500]).all()
        assert len(np.unique(gender)) == 2

    def test_a_union_is_drawn_part_by_part(self):
        union = data_card.draw(FaceSource("300w", "common", "synthetic", "cpu"), 3)
        parts = [
            data_card.draw(FaceSource(name, "test", "synthetic", "cpu"), 3) for name in ("lfpw", "helen")
        ]
        np.testing.assert_array_equal(union["yaw"], np.concatenate([part["yaw"] for part in parts]))


class TestViews:
    @pytest.fixture(autouse=True)
    def closed(self):
        yield
        plt.close("all")

    def test_a_sheet_shows_every_split_of_its_own(self):
        figure = views.sheet("cofw", "smoke")
        assert "2 of train" in figure.get_label() and "2 of test" in figure.get_label()

    def test_each_line_of_people_is_one_person_as_the_split_has_them(self, monkeypatch):
        shown = []
        monkeypatch.setattr(views, "contact_sheet", lambda sets, **_: shown.extend(sets))
        views.people("smoke", pictures=2)
        (person,) = shown
        made = FaceSource("janus", "all", "synthetic", "cpu").sample(1)
        np.testing.assert_array_equal(person.points[0], made.points[0])
        np.testing.assert_array_equal(person.images[0], made.images[0])
        np.testing.assert_allclose(person.boxes[0], made.boxes[0])
        assert person.names == ("janus/all/00000", "janus/all/00001")
        assert (person.images[0] != person.images[1]).any()

    def test_the_own_splits_hold_every_face_once(self):
        own = data_card.own_splits()
        assert ("300w", "train") not in own and ("300w", "challenging") in own and len(set(own)) == len(own)
        assert {protocol for protocol, _ in own} == set(PROTOCOLS)

    def test_ranges_of_pose_are_drawn_for_splits_that_have_it(self):
        posed = official("afw", "test", yaw=np.arange(-50.0, 51), pitch=np.zeros(3), roll=np.zeros(3))
        figure = views.pose_ranges([posed, official("lfpw", "test")])
        np.testing.assert_allclose(figure.axes[0].lines[0].get_xdata(), [-45, 45])
        assert figure.get_label().endswith("afw test -45 to +45.")
        assert views.pose_ranges([official("lfpw", "test")]) is None

    def test_without_any_real_faces_it_says_what_to_do(self, tmp_path, monkeypatch):
        monkeypatch.setenv("REPLICATE_DATA", str(tmp_path))
        with pytest.raises(ReplicateError, match="none are on this machine. `replicate data check`"):
            views.look_at_all("real", "smoke")
