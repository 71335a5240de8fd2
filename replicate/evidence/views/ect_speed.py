"""What ECT costs: parameters, the time of each step, faces per second (T7, S8, C18), beside the times that the paper prints.

Everything is timed one face at a time, from crops to points, on networks with random weights: what they compute takes as long as with trained ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from replicate.bench.ect import network_and_crops, operations_per_face, parts_of, shape_model, step_times
from replicate.bench.machine import matrix_product, synchronised
from replicate.devices import choose_device, describe_device
from replicate.evidence import published, timings
from replicate.evidence.captions import caption
from replicate.evidence.claims import Verdict
from replicate.evidence.experiment import Experiment
from replicate.evidence.rows import Row
from replicate.evidence.tables import Table, number
from replicate.evidence.views.ect_networks import parameter_counts
from replicate.methods import dan, ect
from replicate.methods.ect import CONFIGS, ECTConfig
from replicate.metrics import paired_bootstrap

CLAIM = "ECT-C18"
POINTS = 68
ECT, DAN = "ECT", "DAN"  # at the papers' widths
MAPS, ITERATION, SPEED = "FCN forward time", "one tuning iteration", "speed"  # as the paper's are listed
PEAKS, CORRECTION, WHOLE = "locating the peaks", "correction", "time of the network"
OF_PRODUCT = "speed of the maps, % of the matrix product's"
STEPS = ("maps", "peaks", "correction", "tuning")
REPEATED = 10  # times that a round does each part but the maps: they are so short that a busy machine would drown them


# Parameters --------------------------------------------------------------------------------------------------------------------------


def parameter_rows(run: Experiment) -> list[Row]:
    """Learnt numbers of the networks of this chapter and of DAN, at the papers' widths."""
    counts = parameter_counts(ECTConfig(), POINTS)
    made = run.count_rows("ECT-T7", ECT, {f"FCN parameters ({POINTS} points)": counts.pop("dilated")})
    others = {f"ECT, {name} network": count for name, count in counts.items()}
    others[DAN] = sum(parameter.numel() for parameter in _dan().parameters())
    for method, count in others.items():
        made += run.count_rows("ECT-T7", method, {"parameters": count})
    return made


def _dan() -> dan.DAN:
    """Two stages of DAN at its paper's width, with random weights."""
    config = dan.DANConfig()
    pixels = torch.full((config.input_size, config.input_size), 0.5)
    return dan.DAN(config, 2, config.frame.canonical(torch.rand(POINTS, 2)), pixels, pixels).eval()


# Times -------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Timed:
    """What was timed, in rounds that hold everything once.

    Attributes
    ----------
    steps : dict of str to dict of str to array
        By method of this chapter and by step (`STEPS`): (R,) seconds a face.
    dan : array
        (R,) seconds of DAN's network for a face.
    of_product : array
        (R,) operations per second in the response maps of `ECT`, in per cent of those in a large matrix product.
    device : str
    notes : dict of str to str
        By method.
    """

    steps: Mapping[str, Mapping[str, np.ndarray]]
    dan: np.ndarray
    of_product: np.ndarray
    device: str
    notes: Mapping[str, str]


def configs(run: Experiment) -> dict[str, ECTConfig]:
    """What is timed, by method: the paper's network, and this profile's if it is another. `smoke` has no time for inputs of full size."""
    own = CONFIGS[run.profile, run.faces]
    paper = replace(ECTConfig(), input_size=own.input_size) if run.profile == "smoke" else ECTConfig()
    return {ECT: paper} | (
        {} if own == paper else {f"ECT, width {own.width:g}, {own.input_size} pixels": own}
    )


def speed(run: Experiment, rounds: int = timings.LEAST_ROUNDS) -> tuple[list[Row], Verdict]:
    """Rows of T7 and S8, and the verdict on ECT-C18: from the record, else measured now and recorded.

    Parameters
    ----------
    run : Experiment
        `fresh` measures again.
    rounds : int
        See `timings.alternate`.
    """
    methods = list(configs(run))
    wanted = [("ECT-T7", name, methods) for name in (MAPS, PEAKS, CORRECTION, ITERATION, SPEED)]
    wanted += [("ECT-S8", _share(step), methods) for step in STEPS]
    wanted += [("ECT-T7", OF_PRODUCT, [ECT]), ("ECT-T7", WHOLE, [DAN])]
    if known := timings.known(run, wanted, CLAIM):
        return known
    timed = measure(run, rounds)
    made = time_rows(run, timed)
    run.record(made)
    return made, _judged(run, timed)


@torch.inference_mode()
def measure(run: Experiment, rounds: int) -> Timed:
    """Time the steps of ECT, DAN's network and a matrix product in turn.

    Raises
    ------
    ReplicateError
        For too few rounds.
    """
    device, timed = choose_device(run.device), configs(run)
    product, product_operations = matrix_product(torch.bfloat16, device)
    ways = {(DAN, WHOLE): _dan_forward(device), ("machine", "product"): product}
    for method, config in timed.items():
        ways |= {(method, part): work for part, work in _parts(config, device).items()}
    rates = timings.alternate(list(ways.values()), 1, rounds)
    seconds = dict(zip(ways, 1 / rates, strict=True))
    steps = {
        method: step_times(
            {part: taken / _times(part) for (of, part), taken in seconds.items() if of == method}
        )
        for method in timed
    }
    operations = operations_per_face(*network_and_crops(timed[ECT], 1, device))
    return Timed(
        steps=steps,
        dan=seconds[DAN, WHOLE],
        of_product=100 * operations / steps[ECT]["maps"] * seconds["machine", "product"] / product_operations,
        device=describe_device(device),
        notes={method: _note(config) for method, config in timed.items()} | {DAN: "two stages"},
    )


def _parts(config: ECTConfig, device: torch.device) -> dict[str, Callable[[], None]]:
    network, crops = network_and_crops(config, 1, device)
    pdm = shape_model(config)[0].to(device)
    parts = parts_of(ect.for_inference(network), pdm, crops)
    return {name: synchronised(partial(_repeat, part, _times(name)), device) for name, part in parts.items()}


def _times(part: str) -> int:
    """How many times a round does a part."""
    return 1 if part == "maps" else REPEATED


def _repeat(work: Callable[[], object], times: int) -> None:
    for _ in range(times):
        work()


def _dan_forward(device: torch.device) -> Callable[[], None]:
    fast = dan.for_inference(_dan().to(device))
    crops = torch.rand(1, 1, fast.config.input_size, fast.config.input_size, device=device)
    return synchronised(lambda: fast(crops), device)


def _note(config: ECTConfig) -> str:
    size = config.input_size
    return f"width {config.width:g}, {size} x {size} pixels, {config.components} components, {len(config.patches)} iterations"


def time_rows(run: Experiment, timed: Timed) -> list[Row]:
    """Rows of T7 and S8: milliseconds of each step, faces per second, and the share of each step."""
    values = []
    for method, steps in timed.steps.items():
        whole = sum(steps.values())
        times = {
            MAPS: steps["maps"],
            PEAKS: steps["peaks"],
            CORRECTION: steps["correction"],
            ITERATION: _iteration(steps),
        }
        values += [("ECT-T7", method, name, "ms", 1000 * taken) for name, taken in times.items()]
        values.append(("ECT-T7", method, SPEED, "fps", 1 / whole))
        values += [("ECT-S8", method, _share(step), "%", 100 * steps[step] / whole) for step in STEPS]
    values.append(("ECT-T7", ECT, OF_PRODUCT, "%", timed.of_product))
    values.append(("ECT-T7", DAN, WHOLE, "ms", 1000 * timed.dan))
    return [timings.round_row(run, *one, device=timed.device, note=timed.notes[one[1]]) for one in values]


def _share(step: str) -> str:
    return f"{step}, % of the time"


def _iteration(steps: Mapping[str, np.ndarray]) -> np.ndarray:
    """Seconds (R,) of one iteration of the tuning."""
    return steps["tuning"] / len(ECTConfig().patches)


def _judged(run: Experiment, timed: Timed) -> Verdict:
    """Whether the maps take longer than one iteration, at the paper's width; the note says what they take of the whole."""
    steps = timed.steps[ECT]
    share = (steps["maps"] / sum(steps.values())).mean()
    compared = paired_bootstrap(1000 * steps["maps"], 1000 * _iteration(steps))
    note = f"the maps take {100 * share:.0f} % of the time of a face; {len(timed.dan)} rounds"
    return run.judge_comparison(CLAIM, compared, note=note)


# The paper's own numbers ---------------------------------------------------------------------------------------------------------------


def printed_budget() -> pd.DataFrame:
    """What the printed times allow, and how many iterations fit into the printed speed."""
    maps, iteration, rate = (published.value("ECT-T7", metric=metric) for metric in (MAPS, ITERATION, SPEED))
    whole = maps + _enough() * iteration
    numbers = {
        f"milliseconds of a face, {_enough()} iterations": whole,
        "faces per second that this allows": 1000 / whole,
        "faces per second, as printed": rate,
        "milliseconds of a face at that speed": 1000 / rate,
        "iterations for which they leave time": (1000 / rate - maps) / iteration,
    }
    lines = [(name, number(value, "")) for name, value in numbers.items()]
    return pd.DataFrame(lines, columns=["by the printed numbers", "value"])


def _enough() -> int:
    """Iterations that the paper calls typically enough; it does not say how many its speed is for."""
    return int(published.value("ECT-S15", metric="tuning iterations typically enough"))


def budget_table(rows: Sequence[Row]) -> Table:
    """Milliseconds and faces per second by the number of iterations: by the times that the paper prints, and by those measured here at its width.

    Parameters
    ----------
    rows : sequence of Row
        Of `speed`.
    """
    ours = {row.metric: row.value for row in rows if row.method == ECT}
    maps, iteration = (published.value("ECT-T7", metric=metric) for metric in (MAPS, ITERATION))
    lines = []
    for k in range(_enough() + 1):
        printed = maps + k * iteration
        here = ours[MAPS] + ours[PEAKS] + ours[CORRECTION] + k * ours[ITERATION]
        cells = (number(value, "") for value in (printed, 1000 / printed, here, 1000 / here))
        lines.append(
            (k, *cells, f"{100 * k * iteration / printed:.0f}", f"{100 * k * ours[ITERATION] / here:.0f}")
        )
    columns = [
        "iterations", "paper, ms", "paper, faces/s", "here, ms", "here, faces/s", "paper, % tuning", "here, % tuning",
    ]  # fmt: skip
    about = caption([row for row in rows if row.method == ECT], "Time of a face by the number of iterations")
    return Table(pd.DataFrame(lines, columns=columns), about)
