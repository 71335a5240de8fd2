"""What LDDR costs: hours of training (S7), seconds of a face at test in the slow and in the fast form of §4.3 (S8, C9)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from replicate.bench.machine import synchronised
from replicate.devices import choose_device, describe_device
from replicate.evidence import claims, published, rows, timings
from replicate.evidence.captions import caption, set_names
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.measured import exact_rows
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table, number
from replicate.faces import protocols
from replicate.faces.faceset import FaceSet
from replicate.faces.sources import FaceSource
from replicate.methods import lddr_training
from replicate.methods.lddr import CONFIGS, LDDR, Descriptor, Features, Form, LDDRConfig, centred, cut_patches
from replicate.metrics import paired_bootstrap
from replicate.store import StoredModel

CLAIM = "LDDR-C9"
POINTS = 68
TIME, CUT = "time per face", "test-time reduction"  # as the paper's are listed
MERGED = "LDDR, test, four CNNs merged and 68 patches batched"
SLOW = "LDDR, test, one CNN initialised per stage"
WAYS = {  # (network read from its file for each stage, patches that enter it at a time)
    SLOW: (True, 1),
    "LDDR, test, four CNNs merged": (False, 1),
    "LDDR, test, one CNN initialised per stage and 68 patches batched": (True, POINTS),
    MERGED: (False, POINTS),
}
_CHANGES = (
    "merging alone",
    "batching alone",
    "merged vs unmerged",
)  # of the last three ways, against the first


# At test (S8) -----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageFeatures:
    """Phi as §4.3 describes it: from a network that is asked for at each stage, with some patches at a time.

    Attributes
    ----------
    network : callable
        Gives the network: one that is kept, or one that is built and read from its file.
    at_a_time : int
        Patches.
    """

    network: Callable[[], Descriptor]
    at_a_time: int

    @torch.inference_mode()
    def __call__(self, crops: Tensor, points: Tensor, form: Form) -> Tensor:
        network = self.network()
        patches = cut_patches(centred(crops, network.conv1.weight.dtype), points, form.input)
        found = [network(part, form) for part in patches.split(self.at_a_time)]
        return torch.cat(found).view(len(crops), -1)


def read_network(path: Path, width: float, device: torch.device | str) -> Descriptor:
    """A descriptor network as `lddr.DeepFeatures` has it, from its file."""
    with torch.device("meta"):  # no weights are drawn that are replaced at once
        network = Descriptor(width)
    network.load_state_dict(load_file(path), assign=True)
    return network.eval().to(device, torch.bfloat16, memory_format=torch.channels_last)


def cascade(config: LDDRConfig, features: Features, device: torch.device | str) -> LDDR:
    """A cascade that computes as a trained one does and stays at its initial shape: a square grid of points."""
    weights = {
        f"weights.{number}": torch.zeros(POINTS * 256, POINTS * 2) for number in range(len(config.stages))
    }
    grid = torch.linspace(-0.3, 0.3, 9)
    initial = torch.cartesian_prod(grid, grid)[:POINTS]
    tensors = {
        "initial": initial,
        "examples": initial[None],
        "penalties": torch.ones(len(config.stages)),
        **weights,
    }
    return LDDR(config, features).restore({name: value.to(device) for name, value in tensors.items()})


def configs(run: Experiment) -> dict[str, LDDRConfig]:
    """What is timed: the paper's cascade, and this profile's if its network is narrower; by what is added to the method's name.

    `smoke` has no time for the paper's.
    """
    own, paper = CONFIGS[run.profile], LDDRConfig()
    if run.profile == "smoke":
        return {"": own}
    return {"": paper} | (
        {} if own.network.width == paper.network.width else {f", width {own.network.width:g}": own}
    )


def prediction_speed(
    run: Experiment, face: Callable[[], FaceSet], rounds: int = timings.LEAST_ROUNDS
) -> tuple[list[Row], Verdict]:
    """Rows of S8 and the verdict on LDDR-C9: from the record, else measured now and recorded.

    Parameters
    ----------
    run : Experiment
        `fresh` measures again.
    face : callable
        Gives one face; called only for a measurement.
    rounds : int
        See `timings.alternate`.
    """
    timed = configs(run)
    wanted = [("LDDR-S8", TIME, [way + width for width in timed for way in WAYS])]
    wanted.append(("LDDR-S8", CUT, [f"LDDR, {change}{width}" for width in timed for change in _CHANGES]))
    if known := timings.known(run, wanted, CLAIM):
        return known
    one, device = face(), choose_device(run.device)
    seconds = {width: measure(config, one, device, rounds) for width, config in timed.items()}
    made = [
        row for width, found in seconds.items() for row in _time_rows(run, width, timed[width], found, device)
    ]
    run.record(made)
    return made, _judged(run, seconds[""])


def measure(
    config: LDDRConfig, face: FaceSet, device: torch.device, rounds: int = timings.LEAST_ROUNDS
) -> dict[str, np.ndarray]:
    """Seconds (R,) from a photograph and a box to landmarks, by `WAYS`; all with random weights, which take as long as trained ones.

    Raises
    ------
    ReplicateError
        For too few rounds.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        save_file(Descriptor(config.network.width).state_dict(), path)
        read = partial(read_network, path, config.network.width, device)
        kept = read()
        models = [
            cascade(config, StageFeatures(read if anew else lambda: kept, at_a_time), device)
            for anew, at_a_time in WAYS.values()
        ]
        images = [np.asarray(image) for image in face.images]
        ways = [synchronised(partial(model.predict, images, face.boxes), device) for model in models]
        return dict(zip(WAYS, 1 / timings.alternate(ways, 1, rounds), strict=True))


def _time_rows(
    run: Experiment, width: str, config: LDDRConfig, seconds: Mapping[str, np.ndarray], device: torch.device
) -> list[Row]:
    """Seconds of each way, and by how much the changes of §4.3 cut them, apart and together."""
    about = dict(
        device=describe_device(device), note=f"width {config.network.width:g}, {len(config.stages)} stages"
    )
    named = [(way + width, TIME, "s", taken) for way, taken in seconds.items()]
    cuts = zip(_CHANGES, _cuts(seconds), strict=True)
    named += [(f"LDDR, {change}{width}", CUT, "%", cut) for change, cut in cuts]
    return [timings.round_row(run, "LDDR-S8", *one, **about) for one in named]


def _cuts(seconds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What the last three ways save of the first one's time in each round, in per cent."""
    slow, *others = (seconds[way] for way in WAYS)
    return [100 * (1 - other / slow) for other in others]


def _judged(run: Experiment, seconds: Mapping[str, np.ndarray]) -> Verdict:
    compared = paired_bootstrap(seconds[MERGED], seconds[SLOW])
    merging, batching, both = (cut.mean() for cut in _cuts(seconds))
    printed = -100 * claims.get(CLAIM).quantity().effect
    note = f"{both:.0f} % less here, {printed:.0f} % in the paper; merging alone {merging:.0f} %, batching alone {batching:.0f} %"
    return run.judge_comparison(CLAIM, compared, note=f"{note}; {len(seconds[SLOW])} rounds")


# In training (S7) ---------------------------------------------------------------------------------------------------------------------------

CASCADE, DESCRIPTOR = "LDDR, training", "LDDR, training of the descriptor"
SETS = {
    ("lfpw", "train"): "",
    ("helen", "train"): "",
    ("300w", "train"): "train",
}  # with subsets as the paper's are listed


def training_rows(run: Experiment, config: LDDRConfig) -> list[Row]:
    """Hours that the cascades on the paper's training sets took, and the descriptor that they share, of the run's seed: from the record, else of the
    stored models, which are trained now if absent.

    On real faces, sets that are not at hand have no row.
    """
    sources = [source for names in SETS if (source := run.source(*names)).available]
    steps = lddr_training.steps(config, sources[0])
    wanted = [(CASCADE, *_listed(source)) for source in sources]
    wanted += [(f"{DESCRIPTOR}, {step.name}", "", "") for step in steps]
    found = {} if run.fresh else {_named(row): row for row in rows.load(run.paper, run.faces, run.profile)}
    if not set(wanted) <= found.keys():
        made = _trained(run, config, sources)
        run.record(made)
        found = {_named(row): row for row in made}
    return [found[one] for one in wanted]


def _named(row: Row) -> tuple[str, str, str]:
    return row.method, row.protocol, row.subset


def _listed(source: FaceSource) -> tuple[str, str]:
    return source.protocol, SETS[source.protocol, source.split]


def _trained(run: Experiment, config: LDDRConfig, sources: Sequence[FaceSource]) -> list[Row]:
    """Rows of the stored models."""

    def row(method: str, model: StoredModel) -> Row:
        edition = dict(faces=run.faces, profile=run.profile, device=model.trained_on)
        [made] = exact_rows("LDDR-S7", method, {"time": model.report.seconds / 3600}, "hours", **edition)
        return replace(made, seconds=model.report.seconds, note=model.trained_on)

    made = []
    for source in sources:
        _, (*before, last) = lddr_training.obtain(config, source, run.profile, run.seed, device=run.device)
        protocol, subset = _listed(source)
        made.append(
            replace(row(CASCADE, last), protocol=protocol, subset=subset, images=source.count, seeds=1)
        )
    steps = lddr_training.steps(config, sources[0])
    of_steps = zip(steps, before[-len(steps) :], strict=True) if steps else ()
    return made + [row(f"{DESCRIPTOR}, {step.name}", model) for step, model in of_steps]


def training_table(made: Sequence[Row]) -> Table:
    """Time of each cascade beside the paper's, in all and for a training face.

    Parameters
    ----------
    made : sequence of Row
        Of `training_rows`.
    """
    cascades = [row for row in made if row.method == CASCADE]
    names, lines = set_names(cascades), []
    for row in cascades:
        printed = published.value("LDDR-S7", protocol=row.protocol)
        official = protocols.synthetic_count(row.protocol, "train", "gpu")
        sides = (printed, 3600 * printed / official, 60 * row.value, 3600 * row.value / row.images)
        lines.append(
            (names[row.protocol, row.subset], f"{row.images:,}", *(number(side, "") for side in sides))
        )
    columns = ["training set", "faces", "paper, hours", "paper, s a face", "here, minutes", "here, s a face"]
    about = caption(made, "Training of the cascades, without that of their descriptor")
    return Table(pd.DataFrame(lines, columns=columns), about)
