"""Benchmarks: how fast something is, against its naive form and against what this machine can do at most.

Each benchmark is a function without arguments that returns a `Measurement`; a method's benchmarks stand in a module of this
package and get a line in `REGISTRY`.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec

from replicate.vocabulary import check_one_of

REGISTRY = {  # name: module of this package, function
    "machine.product": ("machine", "product"),
    "faces.generate": ("faces", "generate"),
    "faces.protocols": ("faces", "protocols"),
    "faces.read": ("faces", "read"),
    "faces.open": ("faces", "open_again"),
    "faces.augment": ("faces", "augment"),
    "dan.inference": ("dan", "inference"),
    "dan.inference32": ("dan", "inference32"),
    "dan.sequential": ("dan", "sequential"),
    "dan.connection": ("dan", "connection"),
    "dan.training": ("dan", "training"),
    "ect.tuning": ("ect", "tuning"),
    "ect.inference": ("ect", "inference"),
    "ect.pipeline": ("ect", "pipeline"),
    "lddr.descriptors": ("lddr", "descriptors"),
    "lddr.ridge": ("lddr", "ridge"),
    "tcnn.heads": ("tcnn", "heads"),
    "tcnn.clusters": ("tcnn", "clusters"),
    "tcnn.inference": ("tcnn", "inference"),
    "rnn.sip": ("rnn", "sip"),
    "rnn.inference": ("rnn", "inference"),
    "rnn.training": ("rnn", "training"),
}


@dataclass(frozen=True)
class Measurement:
    """What a benchmark found; all values are rates, so higher is faster.

    Attributes
    ----------
    measures : str
        What was timed, sizes included.
    value, unit : float or None, str
        Our rate, for example in faces/s.
    peer, peer_value : str, float or None
        The naive form or the package we compare with, and its rate in the same unit.
    limit : float or None
        The rate that this machine allows at most, as `measures` says how it was found.
    device : str
    threads : int
    """

    measures: str
    value: float | None
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    limit: float | None = None
    device: str = "cpu"
    threads: int = 1

    @property
    def ratio(self) -> float | None:
        """The peer's time over ours: above 1, ours is faster."""
        return self.value / self.peer_value if self.value and self.peer_value else None

    @property
    def fraction_of_limit(self) -> float | None:
        """Our rate over the highest possible one."""
        return self.value / self.limit if self.value and self.limit else None


KEYS = (
    "name",
    "measures",
    "value",
    "unit",
    "peer",
    "peer_value",
    "ratio",
    "limit",
    "fraction_of_limit",
    "device",
    "threads",
)


def select(names: Iterable[str]) -> list[str]:
    """The named benchmarks, or all of them for no names.

    Raises
    ------
    ReplicateError
        For an unknown name.
    """
    return [check_one_of("benchmark", name, REGISTRY) for name in names] or list(REGISTRY)


def measure(name: str) -> dict:
    """Run one benchmark; one whose method does not exist yet gives a row without a value."""
    module, function = REGISTRY[name]
    if find_spec(f"{__name__}.{module}") is None:
        found = Measurement(f"absent: there is no {module.upper()} in this library yet", None, "")
    else:
        found = getattr(import_module(f"{__name__}.{module}"), function)()
    row = {"name": name, **asdict(found), "ratio": found.ratio, "fraction_of_limit": found.fraction_of_limit}
    return {key: row[key] for key in KEYS}
