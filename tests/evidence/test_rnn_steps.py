"""RNN by where it starts and after how many steps: each row and claim takes the errors that its name says."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from replicate.evidence import claims, published, tested
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.views import rnn_steps as views
from replicate.methods.rnn import CONFIGS

FACES = 40
NAMES = tuple(f"face {number}" for number in range(FACES))
OFFSETS = np.linspace(-1, 1, FACES)
ABOUT = {"device": "test", "training_seconds": 1.0, "faces_sha256": "0", "box_rule": "b", "training_faces": 5}
CONFIG = CONFIGS["smoke"]  # 50 candidates


@pytest.fixture
def run(drawing):
    yield Experiment("rnn", device="cpu")
    plt.close("all")


def one_run(error, offsets=OFFSETS, **more):
    errors = {"inter-pupil": error + offsets}
    errors |= {f"inter-pupil, {key}": np.asarray(value) + offsets for key, value in more.items()}
    return Predictions("m", "toy", "synthetic", NAMES, errors, None, ABOUT)


def started(mean=6.0, ends=(5.5, 5.2, 5.0), begun=20.0):
    """A run that starts from the mean shape, and from 10, 20 and 50 candidates."""
    more = {"from the mean shape": mean, "from the mean shape, start": begun, "peaks of conv8": 7.0}
    for count, end in zip((10, 20, 50), ends, strict=True):
        more |= {f"{count} candidates": end, f"{count} candidates, start": 10.0 + count / 100}
    return one_run(ends[-1], **more)


def stepped(*errors, offsets=OFFSETS):
    """A run with these errors of the initial shape and after each step."""
    return one_run(errors[-1], offsets, **{f"{step} steps": error for step, error in enumerate(errors)})


# Starts -----------------------------------------------------------------------------------------------------------------------------------


def test_starts_have_the_papers_names_where_it_has_them():
    values = published.load("rnn")
    labels = set(values[values["artefact"] == "RNN-T10"]["label"])
    counts = (CONFIGS["cpu"].candidates, *tested.CANDIDATES["cpu"])
    assert labels == {views.MEAN, *(views.searched(count) for count in counts)}


def test_runs_by_start_have_the_errors_of_their_start(run):
    found = views.by_start(run, CONFIG, [started()])
    assert list(found) == [views.MEAN, *(views.searched(count) for count in (10, 20, 50))]
    means = [runs[0].errors["inter-pupil"].mean() for runs in found.values()]
    np.testing.assert_allclose(means, [6.0, 5.5, 5.2, 5.0])


def test_changes_name_what_is_exchanged(run):
    first, *others = views.search_changes(run, CONFIG)
    assert (first.after, first.before) == (views.searched(50), views.MEAN)
    assert [(one.after, one.before) for one in others] == [
        (views.searched(10), views.searched(50)), (views.searched(20), views.searched(50))
    ]  # fmt: skip
    assert others[1].words == "20 instead of 50 candidates"


def test_claims_on_starts_have_the_right_sides(run):
    search, enough = views.judge_starts(run, CONFIG, views.by_start(run, CONFIG, [started()]))
    assert (search.claim, search.left, search.right, search.verdict) == ("RNN-C7", 5.0, 6.0, "reproduced")
    assert (enough.claim, enough.left, enough.right) == ("RNN-C8", 5.0, 5.5)
    assert enough.verdict == "not reproduced"  # half a point and a fifth of one are beyond 2 %
    assert "500 (margin ±0.11): -0.5" in enough.note and "5,000 (margin ±0.104): -0.2" in enough.note
    near = views.by_start(run, CONFIG, [started(ends=(5.05, 4.95, 5.0))])
    assert views.judge_starts(run, CONFIG, near)[1].verdict == "reproduced"


def test_each_start_begins_and_ends_at_its_own_errors(run):
    table = views.beginnings_table(run, CONFIG, {"full": [started()]}, "Beginnings").data
    cells = [(line.iloc[1], *(cell.split()[0] for cell in line.iloc[2:])) for _, line in table.iterrows()]
    assert cells == [
        ("peaks of conv8, which no step follows", "7.00", "–"),
        ("mean shape", "20.00", "6.00"),
        ("nearest of 10 candidates", "10.10", "5.50"),
        ("nearest of 20 candidates", "10.20", "5.20"),
        ("nearest of 50 candidates", "10.50", "5.00"),
    ]


def test_quarters_are_by_the_distance_of_the_mean_shape(run):
    distance = np.arange(FACES, dtype=float)[::-1]  # the first face is the farthest
    one = started(begun=distance - OFFSETS)
    table = views.sensitivity_table(run, CONFIG, run.source("300w", "full"), [one], "By quarter").data
    assert table["faces"].tolist() == ["nearest quarter", "second quarter", "third quarter", "farthest quarter"]  # fmt: skip
    at_first = [float(cell) for cell in table["at first, from the mean shape, %"]]
    assert at_first == [4.5, 14.5, 24.5, 34.5]
    farthest = OFFSETS[:10].mean()
    assert float(table["at last, from 50 candidates, %"].iloc[-1]) == pytest.approx(5 + farthest, abs=0.006)
    assert all(cell.startswith("-1.00 [-1.00") for cell in table["difference at last"])


# Steps ------------------------------------------------------------------------------------------------------------------------------------


def test_steps_have_the_papers_names_and_their_own_errors():
    values = published.load("rnn")
    labels = list(dict.fromkeys(values[values["artefact"] == "RNN-T12"]["label"]))
    found = views.by_step([stepped(9, 8, 7, 6, 5, 4, 3, 2, 1.5)])
    assert list(found) == labels
    np.testing.assert_allclose(
        [runs[0].errors["inter-pupil"].mean() for runs in found.values()], [8, 7, 6, 5, 4, 3, 2, 1.5]
    )


def test_changes_are_from_step_to_step(run):
    runs = [stepped(9.0, 5.0, 4.5, 4.75)]
    table = views.changes_table(run, run.source("300w", "full"), runs, "Changes").data
    assert table["step"].tolist() == [0, 1, 2, 3]
    assert [cell.split()[0] for cell in table["change by this step"]] == ["–", "-4.000", "-0.500", "+0.250"]


def test_stable_is_the_first_step_after_which_the_error_stays(run):
    sources = {name: run.source("300w", name) for name in ("common", "full")}
    results = {"common": [stepped(9.0, 5.0, 5.0, 5.0)], "full": [stepped(9.0, 5.0, 6.0, 5.0)]}
    rows = views.stable_rows(run, sources, results)
    assert [(row.protocol, row.subset, row.value) for row in rows] == [
        ("300w", "common", 1.0), ("300w", "full", 3.0), ("", "", 3.0)
    ]  # fmt: skip
    values = published.load("rnn")
    [metric] = values[values["artefact"] == "RNN-S16"]["metric"]
    assert {row.metric for row in rows} == {metric}


def test_the_papers_own_table_is_stable_by_the_same_rule(run):
    np.testing.assert_allclose(views.printed_means("common"), [4.77, 4.21, 4.1, 4.08, 4.08, 4.07, 4.07, 4.07])
    results = {"challenging": [stepped(*8 * [5.0], 5.0)]}
    table = views.tolerance_table(run, results, "Stable").data
    here, paper = (table[table["errors"] == who].iloc[0] for who in ("here", "the paper"))
    assert here["within 1 %"].startswith("0 [0, 0]")
    # 9.72, 8.69, 8.40, 8.33, 8.31, 8.30, 8.29, 8.29: 1 % of the last is 0.083, 0.5 % half of it, 2 % twice as much
    assert paper[["within 0.5 %", "within 1 %", "within 2 %"]].tolist() == [4, 4, 3]


def test_convergence_is_judged_at_the_fourth_step(run):
    runs = [stepped(9.0, 5.0, 4.5, 4.2, 4.02, 4.0, 4.0, 4.0, 4.0)]
    converged, _ = views.judge_steps(run, runs)
    assert (converged.claim, converged.left, converged.right) == ("RNN-C11", 4.02, 4.0)
    assert converged.verdict == "reproduced"
    late = [stepped(9.0, 5.0, 4.5, 4.4, 4.3, 4.0, 4.0, 4.0, 4.0)]
    assert views.judge_steps(run, late)[0].verdict == "not reproduced"


@pytest.mark.parametrize(
    ("errors", "verdict", "decisive"),
    [
        ((9.0, 8.0, 7.0, 6.0, 5.5, 5.0), "reproduced", "step 4"),
        ((9.0, 8.0, 7.0, 7.5, 6.0, 5.0), "not reproduced", "step 3"),
        ((9.0, 9.5, 7.0, 6.0, 5.0, 4.0), "reproduced", "step 3"),  # the initial shape is no step
    ],
)
def test_the_worst_step_decides(run, errors, verdict, decisive):
    _, falling = views.judge_steps(run, [stepped(*errors)])
    assert (falling.claim, falling.verdict) == ("RNN-C12", verdict)
    assert (
        falling.note.startswith(f"before minus after each step; {decisive}: ")
        and falling.note.count("step ") == 4
    )
    assert claims.recorded("rnn", ["smoke"])[-1] == falling


@pytest.mark.parametrize(
    ("noise", "verdict"),
    [(0.1, "reproduced"), (0.6, "inconclusive")],  # the margin is 0.07
)
def test_a_step_that_changes_nothing_raises_nothing_if_that_is_sure_enough(run, noise, verdict):
    noise = np.where(np.arange(FACES) % 2, noise, -noise)
    errors = {"0 steps": 9.0, "1 steps": 8.0, "2 steps": 7.0, "3 steps": 7.0 + noise, "4 steps": 6.5}
    _, falling = views.judge_steps(run, [one_run(6.5, **errors)])
    assert falling.verdict == verdict
    assert falling.note.startswith("before minus after each step; step 3: ")


def test_a_step_that_raises_the_error_by_less_than_a_hundredth_counts_as_none(run):
    _, falling = views.judge_steps(run, [stepped(9.0, 8.0, 7.0, 7.05, 7.0, 7.0)])
    assert falling.verdict == "reproduced"
