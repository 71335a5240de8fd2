"""Tables and captions: rendered from rows, honest about what they were measured on."""

import pytest

from replicate.errors import ReplicateError
from replicate.evidence import captions, tables
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
    copied = make_row(
        artefact="TCNN-F10c",
        method="Tree-based",
        subset="all",
        points=49,
        faces="real",
        value=6,
        ci_low=5,
        ci_high=7,
    )
    first, second = tables.compare([failing, copied]).to_dict("records")
    assert first["ours"] == "3.00 [2.00, 4.00] (54 of 1800)"
    assert (second["paper"], second["difference"]) == ("6.26", "-0.26")


def test_numbers_of_other_publications_are_not_the_papers(make_row):
    row = make_row(artefact="ECT-T2", method="DAN", subset="full", normaliser="inter-pupil", faces="real")
    assert tables.compare([row])["paper"].item() == "–"
    shown = tables.published_table("ECT-T2", exclude=["ECT"]).data.set_index("method")
    assert shown.loc["DAN", ["full", "as published in"]].to_list() == ["5.03", "DAN, Table 2"]


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
    assert captions.caption(made, "Stages") == (
        "Stages. Real faces; profile cpu; 554 common, 135 challenging images; 1 seed; boxes: tight boxes; "
        "95 % intervals by bootstrap."
    )
    assert captions.SYNTHETIC_REMARK in captions.caption([make_row(seeds=3)])
    assert "3 seeds" in captions.caption([make_row(seeds=3)])


def test_a_caption_says_nothing_twice(make_row):
    notes = ["trained on 5 faces", "trained on 5 faces; DAN-S1 on the full set"]
    made = [make_row(note=notes[0]), make_row(note=notes[1], subset="", images=601)]
    assert (
        "600 private images; 1 seed; trained on 5 faces; DAN-S1 on the full set; boxes"
        in captions.caption(made)
    )
    assert "601 images" in captions.caption(made[1:])


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
        (-0.0, "% relative", "0"),
    ],
)
def test_digits(value, unit, text):
    assert tables.number(value, unit) == text


def changed(make_row, **changes):
    about = dict(artefact="DAN-S3", method="DAN", subset="full", points=None, normaliser="none")
    value = dict(metric="failure-rate reduction vs SDM", value=80, ci_low=70, ci_high=90, unit="% relative")
    return make_row(**{**about, **value, **changes})


@pytest.mark.parametrize(
    ("changes", "paper", "difference"),
    [
        (dict(), "72 (vs MDM)", "–"),
        (dict(faces="real"), "72 (vs MDM)", "–"),
        (dict(faces="real", metric="failure-rate reduction vs MDM"), "72", "+8.00"),
        (dict(metric="AUC increase vs SDM"), "–", "–"),
        (dict(artefact="ECT-S2"), "–", "–"),  # nothing is printed
        (dict(artefact="DAN-S1", protocol="", subset=""), "70", "–"),  # printed twice, the same
    ],
)
def test_a_change_from_another_method_shows_which_one_the_papers_is_from(
    make_row, changes, paper, difference
):
    [line] = tables.compare([changed(make_row, **changes)]).to_dict("records")
    assert (line["paper"], line["difference"]) == (paper, difference)


def test_published_methods_that_are_not_run_are_listed_with_their_source():
    shown = tables.published_table("DAN-T2", exclude=["SDM", "DAN", "DAN-Menpo"])
    assert list(shown.data.columns) == [
        "method",
        "metric",
        "common",
        "challenging",
        "full",
        "as published in",
    ]
    assert not {"SDM", "DAN", "DAN-Menpo"} & set(shown.data["method"]) and len(shown.data) == 13
    by_method = {(line[0], line[1]): tuple(line[2:]) for line in shown.data.to_numpy().tolist()}
    assert by_method["RAR", "mean error, inter-pupil"] == ("4.12", "8.35", "4.94", "the paper, Table 2")
    assert by_method["MDM", "mean error, inter-ocular"][:3] == ("–", "–", "4.05")
    released = by_method["DAN (released weights), 2 stages", "mean error, inter-pupil"]
    assert released[:3] == ("4.41", "7.55", "5.03") and "Lamply/DAN-caffe" in released[3]
    elsewhere = ["github.com" in place for place in shown.data["as published in"]]
    assert elsewhere == sorted(elsewhere) and "not run here" in shown.caption
    with pytest.raises(ReplicateError, match="DAN-T5: nothing is published"):
        tables.published_table("DAN-T5", ["DAN, 1 stage", "DAN, 2 stages", "DAN, 3 stages"])


def test_published_numbers_of_several_sets_of_points_stand_apart():
    shown = tables.published_table("LDDR-T2", exclude=["LDDR", "SDM"]).data
    found = {(line[0], line[1]): line[2] for line in shown.to_numpy().tolist()}
    assert found["CFSS", "mean error, inter-pupil, 68 points"] == "4.87"
    assert found["CFSS", "mean error, inter-pupil, 49 points"] == "3.78"
    assert found["DRMF", "mean error, inter-pupil, 49 points"] == "–" and len(found) == 12
    assert set(tables.published_table("LDDR-T4").data["metric"]) == {"mean error, inter-pupil"}


def equal(**changes) -> Verdict:
    numbers = dict(left=4.4, right=4.3, difference=0.1, ci_low=0.05, ci_high=0.15, images=600, seeds=3)
    return judged(claim="DAN-C4", **{**numbers, **changes})


def test_a_verdict_table_shows_the_margin_of_an_equality():
    first, second = tables.verdict_table([judged(difference=-0.7), equal()], "tight").data["difference"]
    assert (first, second) == ("-0.70 [-0.80, -0.60]", "0.10 [0.05, 0.15], margin ±0.21")


def test_a_verdict_table_names_the_images_of_each_claim_if_they_differ():
    same = tables.verdict_table([judged(difference=-0.7, images=600), equal()], "tight")
    assert "600 test images; 3 seeds; boxes: tight" in same.caption
    apart = tables.verdict_table([judged(difference=-0.7, images=135), equal()], "tight")
    assert "135 (DAN-C1), 600 (DAN-C4) images" in apart.caption


def test_what_was_not_judged_or_measured_leaves_no_gap():
    unjudged = judged(claim="DAN-C5", faces="synthetic", verdict="not testable", ci_low=None, ci_high=None)
    [line] = tables.verdict_table([unjudged], "tight").data.to_dict("records")
    assert (line["measured"], line["difference"]) == ("–", "–")
    for empty in (tables.verdict_table([]), tables.table([], title="Table 4")):
        assert "these faces are not on this machine" in empty._repr_html_()
        assert "<table" not in empty._repr_html_() and str(empty) == empty.caption


def test_figure_caption_says_what_the_figure_was_made_from():
    found = captions.figure_caption(
        "worst faces", faces="synthetic", profile="cpu", subset="full", images=1689, seeds=3, box_rule="tight"
    )
    assert found == "Worst faces: synthetic faces; profile cpu; 1,689 full images; 3 seeds; boxes: tight."
    assert captions.figure_caption("a", faces="real", profile="smoke", images=1).endswith("smoke; 1 image.")
    assert "NUMBERS MEAN NOTHING" in captions.figure_caption("a", faces="real", profile="smoke")


def test_verdicts_name_both_sides_with_what_is_compared():
    [line] = tables.verdict_table([judged(left=4.3, right=5.02, difference=-0.72)]).data.to_dict("records")
    assert line["measured"] == "mean error, inter-ocular: DAN, 2 stages 4.30 % against DAN, 1 stage 5.02 %"
    speed = judged(claim="DAN-C18", left=450.0, right=197.0, difference=253.0, ci_low=240, ci_high=260)
    [line] = tables.verdict_table([speed]).data.to_dict("records")
    assert line["measured"] == "faces per second: DAN, batches 450 against DAN, one by one 197"


def test_a_table_leaves_out_columns_that_hold_nothing(make_row):
    full = tables.table([make_row(faces="real")], [judged()]).data
    assert list(full.columns)[-2:] == ["difference", "verdict"]
    bare = tables.table([make_row()]).data
    assert list(bare.columns) == ["method", "subset", "metric", "images", "paper", "ours"]


def test_captions_say_which_method_a_note_is_about(make_row):
    rows = [
        make_row(method="SDM", seeds=1, note="trained on 5 faces"),
        make_row(method="DAN", seeds=3, note="trained on 7 faces; slow"),
    ]
    found = captions.caption(rows)
    assert "1 to 3 seeds; SDM: trained on 5 faces; DAN: trained on 7 faces; DAN: slow;" in found
    alike = captions.caption([make_row(note="trained on 5 faces"), make_row(note="trained on 5 faces")])
    assert "; trained on 5 faces;" in alike
    exact = captions.caption([make_row(ci_low=None, ci_high=None)])
    assert "intervals" not in exact


def test_the_metric_names_the_points_where_rows_have_several(make_row):
    rows = [make_row(points=21), make_row(points=34), make_row(points=None, normaliser="none")]
    expected = ["mean error, inter-ocular, 21 points", "mean error, inter-ocular, 34 points", "mean error"]
    assert tables.compare(rows)["metric"].tolist() == expected
    assert tables.compare(rows[1:])["metric"].tolist()[0] == "mean error, inter-ocular"


def test_test_sets_are_named_with_their_protocol_where_several_meet(make_row):
    two = [
        make_row(protocol="lfpw", subset="test", images=224),
        make_row(protocol="helen", subset="test", images=330),
    ]
    assert tables.compare(two)["subset"].tolist() == ["lfpw test", "helen test"]
    assert "224 lfpw test, 330 helen test images" in captions.caption(two)
    whole = [make_row(protocol="lfpw", subset="", images=811), make_row(subset="train", images=3148)]
    assert tables.compare(whole)["subset"].tolist() == ["lfpw", "300w train"]
    assert "811 lfpw, 3,148 300w train images" in captions.caption(whole)
