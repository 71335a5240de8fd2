"""The claims and their ledger."""

import json

import pytest
from contract_keys import VERDICT_KEYS

from replicate.errors import ReplicateError
from replicate.evidence import artefacts, claims, published
from replicate.evidence.claims import Quantity, Verdict


def verdict(**changes) -> Verdict:
    about = dict(claim="DAN-C1", faces="synthetic", profile="cpu", verdict="reproduced", left=4.3, right=5.0)
    numbers = dict(difference=-0.7, ci_low=-0.8, ci_high=-0.6, p_value=0.001, images=600, seeds=3)
    return Verdict(**{**about, **numbers, **changes})


def test_there_are_94_claims_74_of_them_transferable():
    every = claims.load()
    assert len(every) == len({claim.id for claim in every}) == 94
    assert sum(claim.transferable for claim in every) == 74
    counts = {
        paper: sum(claim.paper == paper for claim in every) for paper in ("lddr", "tcnn", "dan", "rnn", "ect")
    }
    assert counts == {"lddr": 17, "tcnn": 20, "dan": 18, "rnn": 20, "ect": 19}


def test_every_claim_names_artefacts_that_exist():
    known = {artefact.id for artefact in artefacts.load()}
    assert all(claim.artefacts and set(claim.artefacts) <= known for claim in claims.load())


def test_every_equality_and_bound_states_its_margin_and_why():
    for claim in claims.load():
        for quantity in claim.quantities:
            if claim.direction in ("equal", "not lower"):
                assert ("absolute" in quantity.margin) != ("relative" in quantity.margin), claim.id
            elif claim.direction == "bound":
                assert quantity.margin["low"] < quantity.margin["high"], claim.id
            else:  # "clearly worse" asks for a size where the paper prints none
                assert not quantity.margin or quantity.effect is None, claim.id
            assert not quantity.margin or len(quantity.margin["reason"]) > 20, claim.id


def test_printed_effects_point_the_way_of_the_claim_but_for_the_one_contradiction():
    signs = {"lower": -1, "higher": 1}
    against = [
        claim.id
        for claim in claims.load()
        if claim.direction in signs
        for quantity in claim.quantities
        if quantity.effect is not None and quantity.effect * signs[claim.direction] <= 0
    ]
    assert against == ["LDDR-C17"]  # the paper's table contradicts its text


@pytest.mark.parametrize(
    ("claim", "side", "label"),
    [
        ("DAN-C1", "left", "DAN, 2 stages"),
        ("DAN-C2", "right", "DAN, 1 stage"),
        ("DAN-C3", "left", "DAN, 2 stages"),
    ],
)
def test_effects_of_the_stage_ablation_are_the_published_numbers(claim, side, label):
    quantity = claims.get(claim).quantity()
    metric, normaliser = quantity.metric.split(", ")
    printed = published.value("DAN-T5", label=label, metric=metric, normaliser=normaliser)
    assert getattr(quantity, f"paper_{side}") == printed
    assert getattr(claims.get(claim), side) == label


@pytest.mark.parametrize(
    ("claim", "effect"), [("DAN-C1", -0.1434), ("DAN-C2", -0.5673), ("DAN-C3", 0.2039), ("ECT-C5", -0.16)]
)
def test_relative_effects(claim, effect):
    assert claims.get(claim).quantity().effect == pytest.approx(effect, abs=1e-4)
    assert Quantity(metric="mean error").effect is None


def test_margins_become_absolute_on_the_right_side():
    assert claims.get("DAN-C4").quantity().margin_at(-4.3) == pytest.approx(0.215)
    assert claims.get("DAN-C17").quantity().margin_at(100.0) == 2.6
    assert claims.get("DAN-C1").quantity().margin_at(4.3) is None


def test_a_metric_names_its_normaliser_or_none():
    assert claims.get("DAN-C7").quantity().normaliser == "inter-pupil"
    assert claims.get("DAN-C17").quantity().normaliser == ""


def test_a_remark_is_put_before_the_note():
    assert verdict(note="counts").with_note("on the full set").note == "on the full set; counts"
    assert verdict(note="counts").with_note("").note == "counts"


def test_what_cannot_be_judged_says_why():
    entry = claims.unjudged(claims.get("DAN-C5"), "synthetic", "smoke")
    assert (entry.verdict, entry.profile, entry.ci_low) == ("not testable", "smoke", None)
    assert claims.unjudged(claims.get("DAN-C5"), "real").verdict == "not run"


def test_a_quantity_is_found_by_metric_and_condition():
    third = claims.get("DAN-C4")
    assert third.quantity("AUC 0.08").paper_left == 47.08
    assert third.quantity("AUC 0.08, inter-ocular", "private") == third.quantity("AUC 0.08")
    with pytest.raises(ReplicateError, match="DAN-C4 compares mean error"):
        third.quantity("AUC 0.10")
    with pytest.raises(ReplicateError, match="claim: got 'DAN-C99'"):
        claims.get("DAN-C99")


def test_the_ledger_lists_both_kinds_of_faces_for_every_claim():
    every = claims.as_json()
    assert json.loads(json.dumps(every)) == every
    by_id = {entry["id"]: {v["faces"]: v["verdict"] for v in entry["verdicts"]} for entry in every}
    assert all(set(verdicts) == {"synthetic", "real"} for verdicts in by_id.values())
    assert by_id["DAN-C1"] == {"synthetic": "not run", "real": "not run"}
    assert by_id["DAN-C6"] == {"synthetic": "not testable", "real": "not testable"}
    assert by_id["DAN-C7"] == {"synthetic": "not testable", "real": "not run"}
    assert all(v.keys() >= set(VERDICT_KEYS) for entry in every for v in entry["verdicts"])


def test_a_recorded_verdict_takes_the_place_of_the_default():
    claims.record([verdict(), verdict(faces="real", profile="gpu"), verdict(profile="smoke")])
    listed = claims.ledger(claims.get("DAN-C1"))
    assert [(v.faces, v.profile, v.verdict) for v in listed] == [
        ("synthetic", "cpu", "reproduced"),
        ("real", "gpu", "reproduced"),
    ]
    assert {v.verdict for v in claims.ledger(claims.get("DAN-C2"))} == {"not run"}


def test_the_same_verdict_leaves_the_file_untouched_and_a_new_one_replaces_it():
    [path] = claims.record([verdict(), verdict(claim="DAN-C2")])
    assert claims.record([verdict(recorded_at="later", commit="other")]) == []
    assert claims.record([verdict(verdict="direction holds")]) == [path]
    assert {v.claim: v.verdict for v in claims.recorded("dan")} == {
        "DAN-C1": "direction holds",
        "DAN-C2": "reproduced",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(ci_low=None), "needs ci_low and ci_high"),
        (dict(verdict="proved"), "verdict: got 'proved'"),
        (dict(faces="fake"), "faces: got 'fake'"),
    ],
)
def test_a_bad_verdict_is_refused(changes, message):
    with pytest.raises(ReplicateError, match=message):
        verdict(**changes)


def test_verdicts_on_unknown_claims_and_damaged_files_are_named():
    with pytest.raises(ReplicateError, match="claim: got 'DAN-C99'"):
        claims.record([verdict(claim="DAN-C99")])
    [path] = claims.record([verdict()])
    path.write_text('[{"claim": "DAN-C1"}]')
    with pytest.raises(ReplicateError, match=r"claims\.synthetic\.cpu\.json"):
        claims.as_json()


def test_only_an_equality_has_a_margin_and_it_is_that_of_its_right_side():
    assert claims.get("DAN-C4").equality_margin(7.0) == pytest.approx(0.35)
    assert claims.get("DAN-C17").equality_margin(7.0) == 2.6
    assert claims.get("DAN-C17").equality_margin(None) is None
    assert claims.get("DAN-C13").equality_margin(7.0) is None


def test_units_of_what_claims_compare():
    found = {
        identity: claims.get(identity).quantity().unit
        for identity in ("DAN-C1", "DAN-C2", "DAN-C3", "DAN-C16")
    }
    assert set(found.values()) == {"%"}
    assert claims.get("DAN-C17").quantity().unit == claims.get("DAN-C18").quantity().unit == ""
    assert claims.get("ECT-C15").quantity().unit == "%" and claims.get("ECT-C6").quantity().unit == ""


def test_claims_of_errors_are_those_that_name_a_normaliser():
    others = {claim.id for claim in claims.load() if claim.paper == "ect" and not claim.quantity().of_errors}
    assert others == {f"ECT-C{number}" for number in (6, 8, 9, 15, 16, 18)}


def test_claims_of_ect_are_judged_where_its_text_makes_them():
    named = {
        claim.id.removeprefix("ECT-"): [quantity.at for quantity in claim.quantities]
        for claim in claims.load()
        if claim.paper == "ect"
    }
    hard, whole = ["challenging"], ["full"]
    assert named == {
        "C1": ["common", "challenging"], "C2": hard, "C3": whole, "C4": ["common"], "C5": hard,  # Table VIII
        "C6": hard, "C7": hard, "C8": hard, "C9": hard, "C10": hard, "C11": hard, "C12": whole,  # Fig. 10
        "C13": ["private"], "C14": whole, "C15": ["cofw"], "C16": [""], "C18": [""], "C19": hard,
        "C17": ["|yaw| 0-30", "|yaw| 30-60", "|yaw| 60-90"],
    }  # fmt: skip
    clear = claims.get("ECT-C7").quantity()
    assert clear.effect is None and clear.margin_at(15.0) == pytest.approx(0.45)


def test_yaw_ranges_are_those_of_the_published_table():
    table = published.load("ect")
    subsets = set(table[table["artefact"] == "ECT-T4"]["subset"])
    claim = claims.get("ECT-C17")
    assert {quantity.at for quantity in claim.quantities} == subsets - {"|yaw| mean"}
    assert {quantity.normaliser for quantity in claim.quantities} == {"box, 21 points"}
