"""Tables and captions: rendered from rows, honest about what they were measured on."""

import pytest

from replicate.errors import ReplicateError
from replicate.evidence import tables
from replicate.evidence.claims import Verdict


def judged(**changes) -> Verdict:
    about = dict(claim="DAN-C1", faces="real", profile="cpu", verdict="reproduced", ci_low=-0.8, ci_high=-0.6)
    return Verdict(**{**about, **changes})


def test_a_real_row_stands_beside_the_papers_number(make_row):
    [line] = tables.compare([make_row(faces="real", value=4.45)], [judged()]).to_dict("records")
    assert line == {
        "method": "DAN, 2 stages",
        "subset": "private",
        "metric": "mean error, inter-ocular",
        "images": "600",
        "paper": "4.30",
        "ours": "4.45 [4.10, 4.50]",
        "difference": "+0.15",
        "verdict": "DAN-C1: reproduced",
    }


def test_a_synthetic_row_is_not_subtracted_from_the_papers_benchmark(make_row):
    [line] = tables.compare([make_row()], [judged()]).to_dict("records")
    assert (line["paper"], line["difference"], line["verdict"]) == ("4.30", "–", "–")


@pytest.mark.parametrize(
    "changes", [dict(subset="full"), dict(method="SDM"), dict(normaliser="inter-pupil"), dict(points=49)]
)
def test_another_test_set_method_or_normaliser_has_no_published_number(make_row, changes):
    [line] = tables.compare([make_row(faces="real", **changes)]).to_dict("records")
    assert (line["paper"], line["difference"]) == ("–", "–")


def test_failure_rates_show_counts_and_fractions_become_per_cent(make_row):
    failing = make_row(
        faces="real", metric="failure rate 0.08", value=3, ci_low=2, ci_high=4, count=54, seeds=3
    )
    released = make_row(
        artefact="DAN-T3",
        method="DAN (released weights), 2 stages",
        subset="full",
        metric="failure rate 0.08",
        normaliser="inter-pupil",
        faces="real",
        value=8,
        ci_low=7,
        ci_high=9,
    )
    first, second = tables.compare([failing, released]).to_dict("records")
    assert first["ours"] == "3.00 [2.00, 4.00] (54 of 1800)"
    assert (second["paper"], second["difference"]) == ("8.13", "-0.13")


def test_verdicts_stand_only_by_the_left_side_of_their_claim_and_its_metric(make_row):
    shown = [
        make_row(faces="real"),
        make_row(faces="real", method="DAN, 1 stage"),
        make_row(faces="real", normaliser="diagonal"),
        make_row(faces="real", metric="AUC 0.08"),
    ]
    verdicts = tables.compare(shown, [judged(), judged(claim="DAN-C3", verdict="inconclusive")])["verdict"]
    assert list(verdicts) == ["DAN-C1: reproduced", "–", "–", "DAN-C3: inconclusive"]


def test_a_caption_names_faces_profile_images_seeds_and_box_rule(make_row):
    made = [
        make_row(faces="real", subset="common", images=554),
        make_row(faces="real", subset="challenging", images=135),
    ]
    assert tables.caption(made, "Stages") == (
        "Stages. Real faces; profile cpu; 554 common, 135 challenging images; 1 seed; boxes: tight boxes; "
        "95 % intervals by bootstrap."
    )
    assert tables.SYNTHETIC_REMARK in tables.caption([make_row(seeds=3)])
    assert "3 seeds" in tables.caption([make_row(seeds=3)])


def test_a_smoke_table_warns_before_anything_else(make_row):
    table = tables.table([make_row(profile="smoke")], title="Stages")
    assert table.caption.startswith("SMOKE PROFILE: NUMBERS MEAN NOTHING.")
    assert '<figcaption class="warning">SMOKE PROFILE' in table._repr_html_()
    assert "warning" not in tables.table([make_row()])._repr_html_()


def test_rows_of_several_editions_are_not_mixed(make_row):
    for mixed in ([make_row(), make_row(faces="real")], [make_row(), make_row(profile="gpu")], []):
        with pytest.raises(ReplicateError, match="one kind of faces and one profile"):
            tables.compare(mixed)


def test_text_is_escaped(make_row):
    table = tables.table([make_row(method="a|b <i>*c*</i>")])
    assert "a&#124;b" not in table._repr_html_() and "a|b &lt;i&gt;*c*&lt;/i&gt;" in table._repr_html_()
    assert r"a\|b \<i\>\*c\*\</i\>" in tables.to_markdown(table.data)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4.296, "%", "4.30"),
        (2012, "count", "2,012"),
        (73.24, "fps", "73.2"),
        (9968968, "", "9,968,968"),
        (0.0041, "s", "0.0041"),
    ],
)
def test_digits(value, unit, text):
    assert tables.number(value, unit) == text
