"""Words that have one meaning everywhere: papers, profiles, kinds of faces."""

from collections.abc import Iterable
from difflib import get_close_matches

from replicate.errors import ReplicateError

PAPERS = ("lddr", "tcnn", "dan", "rnn", "ect")
PROFILES = ("smoke", "cpu", "gpu")  # seconds; two cores; the paper's scale
FACES = ("synthetic", "real")  # generated here; read from $REPLICATE_DATA


def check_one_of(name: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`.

    Raises
    ------
    ReplicateError
        Naming the argument, what came, the nearest valid choice and all valid choices.
    """
    choices = tuple(choices)
    if value in choices:
        return value
    near = get_close_matches(str(value), choices, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ReplicateError(f"{name}: got {value!r}, expected one of {', '.join(choices)}.{hint}")
