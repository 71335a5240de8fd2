"""Counts: those of the generated splits equal the printed ones, except where the suite follows the release."""

import pytest

from replicate.errors import ReplicateError
from replicate.evidence import counts, published

DIFFERS = {  # the suite follows the release, or makes fewer; see the page on counts
    ("LDDR-S17", "lfpw", "test", "images"): 224,
    ("LDDR-S17", "helen", "all", "images"): 2330,
    ("LDDR-S17", "afw", "all", "faces"): 337,
    ("ECT-S17", "afw", "", "images"): 468,
}


class TestCounts:
    @pytest.mark.parametrize("artefact", counts.COUNT_ARTEFACTS)
    def test_official_counts_equal_the_printed_ones(self, artefact):
        rows = {
            (row.protocol, row.subset, row.metric): row
            for row in counts.manifest_rows(artefact, "synthetic", "gpu")
        }
        printed = published.load(artefact.split("-")[0].lower())
        printed = printed[(printed["artefact"] == artefact) & (printed["unit"] == "count")]
        compared = 0
        for line in printed.itertuples():
            row = rows.get((line.protocol, line.subset, line.metric))
            if row is not None:
                expected = DIFFERS.get((artefact, line.protocol, line.subset, line.metric), line.number)
                assert row.value == expected and row.unit == "count"
                compared += 1
        assert compared >= 1 and {row.artefact for row in rows.values()} == {artefact}

    def test_every_count_of_dan_is_there_and_exact(self):
        rows = counts.manifest_rows("DAN-S18", "synthetic", "gpu")
        assert [row.value for row in rows] == [3148, 554, 135, 689, 600, 6679, 5335]

    def test_the_table_shows_all_printed_counts_and_says_what_nobody_uses(self):
        table = counts.manifest(
            {"TCNN-S17": counts.manifest_rows("TCNN-S17", "synthetic", "cpu")}, "synthetic", "cpu"
        ).data
        assert table[["protocol", "published", "here"]].values.tolist() == [
            ["afw", "468", "468"],
            ["aflw", "24,386", "used by no experiment"],
        ]

    def test_absent_real_faces_give_no_rows(self, tmp_path, monkeypatch):
        monkeypatch.setenv("REPLICATE_DATA", str(tmp_path))
        assert [counts.manifest_rows(artefact, "real", "cpu") for artefact in counts.COUNT_ARTEFACTS] == [
            []
        ] * 6

    def test_an_artefact_without_counts_is_an_error(self):
        with pytest.raises(ReplicateError, match="DAN-T5 has no published counts; expected one of LDDR-S17"):
            counts.manifest_rows("DAN-T5", "synthetic", "cpu")
