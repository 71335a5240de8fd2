"""The order of methods by one measure, in words: how the papers put their tables, and how it is here."""

from collections.abc import Mapping
from itertools import pairwise

import pandas as pd

from replicate.errors import ReplicateError
from replicate.evidence.captions import caption_of
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Runs, stacked_errors
from replicate.evidence.tables import Table
from replicate.evidence.verdicts import statistic_of
from replicate.metrics import paired_bootstrap

EXPLAINED = "≈ where the 95 % interval of the paired difference of two neighbours holds zero"


def in_words(results: Runs, metric: str) -> str:
    """The methods from the best to the worst: ``"ECT ≈ SDM < mean shape"`` for errors, with ``>`` for areas.

    Parameters
    ----------
    metric : str
        With the key of the error behind it: ``"mean error, inter-pupil"``, ``"AUC 0.08, inter-ocular, 51 points"``.

    Raises
    ------
    ReplicateError
        Without methods.
    """
    if not results:
        raise ReplicateError("results: got none, expected at least one method with its runs")
    statistic, key = statistic_of(metric), metric.partition(", ")[2]
    falling = metric.startswith("AUC")
    errors = {method: stacked_errors(list(runs), key) for method, runs in results.items()}
    values = {method: statistic(found, axis=-1).mean() for method, found in errors.items()}
    ranked = sorted(values, key=values.get, reverse=falling)
    words = ranked[0]
    for better, worse in pairwise(ranked):
        compared = paired_bootstrap(errors[better], errors[worse], statistic)
        alike = compared.low <= 0 <= compared.high
        words += f" {'≈' if alike else '>' if falling else '<'} {worse}"
    return words


def order_table(
    run: Experiment, orders: Mapping[str, tuple[str, str]], results: Runs, title: str = ""
) -> Table:
    """What the paper says of an order, beside the order here.

    Parameters
    ----------
    orders : dict of str to (str, str)
        By what is measured: the paper's order in words, and ours of `in_words`.
    results : dict of str to sequence of Predictions
        The runs behind them, for the caption.
    """
    one = next(iter(results.values()))[0]
    about = caption_of(
        faces=run.faces,
        profile=run.profile,
        images={" ".join(one.testset.split(f"-{one.faces}")[0].rsplit("-", 1)): len(one.names)},
        seeds=max(map(len, results.values())),
        box_rule=one.provenance["box_rule"],
        notes=(EXPLAINED,),
        title=title,
        intervals=False,
    )
    lines = [(measure, *words) for measure, words in orders.items()]
    return Table(pd.DataFrame(lines, columns=["measure", "the paper", "here"]), about)
