"""The faces that TCNN learns from and is tested on (§2.1, §5.1): how many there are and how they are divided, beside the paper's counts."""

from collections.abc import Mapping
from dataclasses import replace

from replicate.evidence.experiment import Experiment
from replicate.evidence.rows import Row
from replicate.faces.sources import FaceSource
from replicate.methods import tcnn_training

COLLECTIONS = {"LFW part": "lfw_5590/", "web part": "net_7876/"}  # folders of MTFL's images
ALL = "train and validation"
_METHOD, _PROTOCOL = "TCNN", "sun2013"  # as the paper's values are listed


def _rows(run: Experiment, artefact: str, counts: Mapping[str, int], protocol: str, metric: str) -> list[Row]:
    """Exact counts by subset."""
    made = []
    for subset, count in counts.items():
        [row] = run.count_rows(artefact, _METHOD, {metric: count})
        made.append(replace(row, protocol=protocol, subset=subset))
    return made


def collection_rows(run: Experiment, train: FaceSource) -> list[Row]:
    """S1: training images by where they were collected, which generated ones do not have; and all of them."""
    counts = {}
    if run.faces == "real":
        names = train.load().names
        counts = {
            part: sum(name.startswith(folder) for name in names) for part, folder in COLLECTIONS.items()
        }
    return _rows(run, "TCNN-S1", counts | {ALL: train.count}, _PROTOCOL, "images")


def split_rows(run: Experiment, train: FaceSource) -> list[Row]:
    """S3: faces that are learnt from and that validate, and the share of the former."""
    out = tcnn_training.held_out(train.count)
    counts = {"train": int((~out).sum()), "validation": int(out.sum())}
    [share] = run.count_rows("TCNN-S3", _METHOD, {"share": 100 * counts["train"] / train.count}, "%")
    rows = _rows(run, "TCNN-S3", counts, _PROTOCOL, "images")
    return [*rows, replace(share, protocol=_PROTOCOL, subset="train")]


def test_rows(run: Experiment, tests: Mapping[str, FaceSource]) -> list[Row]:
    """S17: faces of the test sets that are used here, by the paper's name of the set."""
    return [
        row
        for name, source in tests.items()
        for row in _rows(run, "TCNN-S17", {source.split: source.count}, name, "faces tested")
    ]
