"""What `replicate data` tells: every data set with its source, every protocol with its counts; and the generated pages of the chapter."""

import numpy as np
import pytest
from toy_faces import toy_faces

from replicate import cli_faces, faces_pages, faces_report
from replicate.evidence import data_card
from replicate.evidence.data_card import Look
from replicate.evidence.rows import Row
from replicate.faces.protocols import PROTOCOLS, official_count
from replicate.faces.real import DATA_SETS


class TestCheck:
    @pytest.fixture
    def absent(self, tmp_path, monkeypatch):
        monkeypatch.setenv("REPLICATE_DATA", str(tmp_path))
        return faces_report.check()

    def test_every_data_set_says_what_is_missing_where_it_is_obtained_and_on_which_terms(self, absent):
        assert {row["data set"] for row in absent} == set(DATA_SETS)
        assert {row["state"] for row in absent} == {"absent"} and {row["found"] for row in absent} == {0}
        for row in absent:
            assert row["url"].startswith("http") and row["terms"] and row["cite"] and row["expected"] > 0

    def test_the_same_for_people_each_source_once_and_nothing_about_what_is_complete(self, absent):
        told = cli_faces._to_obtain(absent)
        assert len(told) == len(DATA_SETS)
        assert cli_faces._to_obtain([row | {"state": "complete"} for row in absent]) == []

    def test_the_short_row_keeps_the_kind_of_damage_only(self):
        row = {
            "data set": "300w",
            "part": "ibug",
            "expected": 135,
            "found": 0,
            "state": "damaged: a.pts lacks its partner",
        }
        assert cli_faces._short_check(row)["state"] == "damaged"


class TestDescribe:
    @pytest.fixture
    def quick(self, monkeypatch):
        """Rendering is tested elsewhere; here a look at a split is a toy."""
        looked = Look(toy_faces(3), {name: np.array([-10.0, 0, 10]) for name in data_card.POSE})
        monkeypatch.setattr(data_card, "look", lambda source, rendered, drawn: looked)

    def test_all_protocols_without_an_argument(self, quick):
        rows = faces_report.describe(None, "synthetic", "gpu")
        listed = {(row["protocol"], row["split"]): row for row in rows}
        assert set(listed) == {(p, s) for p, protocol in PROTOCOLS.items() for s in protocol.splits}
        for (protocol, split), row in listed.items():
            assert row["images"] == official_count(protocol, split)
            generated_alone = {("300w", "wide"), ("janus", "five"), ("casia", "train")}
            assert row["official"] == (None if (protocol, split) in generated_alone else row["images"])
        assert len({tuple(row) for row in rows}) == 1  # the same keys in the same order

    def test_one_protocol_with_all_that_the_contract_names(self, quick):
        train, test = faces_report.describe("mtfl", "synthetic", "smoke")
        assert (train["split"], train["images"], train["official"], train["looked at"]) == (
            "train",
            64,
            10000,
            3,
        )
        assert (test["markup"], test["normalisers"], test["yaw"]) == ("mtfl5", ["inter-pupil"], [-9, 0, 9])
        assert test["box rule"] == "made by the test" and test["state"] == "made" and test["visible"] == 1

    def test_a_split_may_have_a_markup_and_normalisers_of_its_own(self, quick):
        train, test, five = faces_report.describe("afw", "synthetic", "smoke")
        assert [row["markup"] for row in (train, test, five)] == ["ibug68", "afw6", "mtfl5"]
        assert "face" in train["normalisers"] and "box" in test["normalisers"]

    def test_the_short_rows_have_the_same_columns_whether_or_not_faces_are_there(self, quick):
        (row, _) = faces_report.describe("mtfl", "synthetic", "smoke")
        told = cli_faces._short_description(row)
        assert told["split"] == "mtfl train" and told["yaw"] == "-9 +0 +9"
        assert list(told) == list(cli_faces._short_description(row | {"images": 0}))

    def test_absent_faces_say_why(self, tmp_path, monkeypatch):
        monkeypatch.setenv("REPLICATE_DATA", str(tmp_path))
        (row, _) = faces_report.describe("cofw", "real", "smoke")
        assert row["images"] == 0 and "REPLICATE_DATA" in row["state"] and row["yaw"] is None

    def test_generated_faces_are_rendered_and_measured(self):
        (row,) = faces_report.describe("ijb-a", "synthetic", "smoke", sample=2)
        assert (row["points"], row["image size"], row["looked at"]) == (3, "128", 2)
        assert 3 < row["face size"] < 128 and row["yaw"][0] < row["yaw"][1] < row["yaw"][2]


def transfer(**changes) -> Row:
    usual = {
        "artefact": "FACES-TRANSFER",
        "method": "DAN, trained on generated faces",
        "protocol": "300w",
        "subset": "common",
    }
    usual |= {
        "points": 68,
        "metric": "mean error",
        "normaliser": "inter-ocular",
        "value": 6.0,
        "ci_low": 5.9,
        "ci_high": 6.1,
    }
    usual |= {
        "unit": "%",
        "images": 554,
        "seeds": 1,
        "faces": "real",
        "profile": "cpu",
        "device": "cpu",
        "faces_sha256": "a",
    }
    return Row(**usual | changes, box_rule="a stated rule")


class TestTransferPage:
    def test_without_rows_it_says_so(self):
        assert "Not recorded here yet" in faces_pages.transfer_page([], [])
        assert "Not recorded here yet" in faces_pages.transfer_page([transfer(profile="smoke")], [])

    def test_recorded_rows_stand_by_subset_with_intervals_and_caption(self):
        page = faces_pages.transfer_page(
            [transfer(), transfer(subset="challenging", value=9.5, ci_low=9.0, ci_high=10.0)], []
        )
        (line,) = [line for line in page.splitlines() if line.startswith("| DAN, trained on generated")]
        assert line.index("6.00") < line.index("5.90") < line.index("9.50") < line.index("10.00")
        assert (
            "| method | common | challenging |" in page
            and "full" not in page.split("## On photographs")[1].split("## What")[0]
        )
        assert "a stated rule" in page and "554 common" in page and "Not recorded" not in page

    def test_the_same_models_on_generated_faces_stand_apart_and_never_for_photographs(self):
        generated = transfer(faces="synthetic", value=4.5, ci_low=4.4, ci_high=4.6)
        page = faces_pages.transfer_page([generated], [])
        assert (
            "Not recorded here yet" in page
            and "4.50" in page.split("## The same models on generated faces")[1]
        )
        both = faces_pages.transfer_page([generated, transfer()], [])
        photographs, same = both.split("## The same models on generated faces")
        assert "6.00" in photographs and "4.50" not in photographs and "4.50" in same and "6.00" not in same

    def test_models_trained_on_real_faces_stand_beside_them_only_if_tested_on_the_same_faces(self):
        beside = [
            transfer(artefact="DAN-T2", method="DAN", value=3.5, ci_low=3.4, ci_high=3.6),
            transfer(
                artefact="DAN-T2", method="mean shape", value=16.9, ci_low=16, ci_high=17, faces_sha256="b"
            ),
            transfer(artefact="DAN-T2", method="SDM", value=5.5, ci_low=5.4, ci_high=5.6),
        ]
        page = faces_pages.transfer_page([transfer()], beside)
        assert "DAN, trained on real faces" in page and "3.50" in page
        assert "16.90" not in page and "5.50" not in page

    def test_a_method_that_was_recorded_with_the_transfer_is_not_repeated(self):
        recorded = [transfer(), transfer(method="mean shape", value=17.0, ci_low=16.5, ci_high=17.5)]
        other = transfer(artefact="DAN-T2", method="mean shape", value=16.9, ci_low=16, ci_high=17)
        assert "16.90" not in faces_pages.transfer_page(recorded, [other])


class TestLicencesPage:
    def test_every_data_set_with_source_terms_citation_folder_and_protocols(self):
        page = faces_pages.licences_page(DATA_SETS)
        assert page.count("\n## ") == len(DATA_SETS)
        for data_set in DATA_SETS.values():
            for words in (data_set.title, data_set.terms, data_set.cite):
                assert faces_pages.text(words) in page
            assert f"<{data_set.url.split()[0].rstrip(',')}>" in page
            assert f"`$REPLICATE_DATA/{data_set.folder}`" in page

    def test_addresses_are_links_and_all_else_is_plain(self):
        words = "https://a.b/c_d (images), http://e.f/x*y"
        assert faces_pages._linked(words) == "<https://a.b/c_d> (images), <http://e.f/x*y>"

    def test_300w_is_used_by_its_parts_too(self):
        assert faces_pages._users("300w") == ["300w", "lfpw", "helen", "afw"]


def test_the_chapter_has_its_generated_pages():
    assert set(faces_pages.generate()) == {"faces/carry_over", "faces/licences"}
