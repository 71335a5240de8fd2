"""The data card in numbers: what the faces of each split are like, beside what is published.

Sizes and visibility of generated faces are taken of a small sample, pose and attributes of a larger one, which need not be rendered; those
of real faces, of all that this machine has.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import yaml

from replicate.errors import ReplicateError
from replicate.evidence import published
from replicate.evidence.tables import SMOKE_WARNING, Table
from replicate.faces import synthetic
from replicate.faces.faceset import FaceSet
from replicate.faces.protocols import PROTOCOLS, leaves, official_count, person_of
from replicate.faces.sources import DATA_SEED, FaceSource
from replicate.metrics import bootstrap_mean
from replicate.paths import published_dir

RENDERED = {
    "smoke": 2,
    "cpu": 48,
    "gpu": 500,
}  # generated faces of each split whose sizes and visibility are looked at
DRAWN = {"smoke": 24, "cpu": 2000, "gpu": 20000}  # and those whose pose and attributes are
POSE = ("yaw", "pitch", "roll")
QUANTILES = (0.05, 0.5, 0.95)
YAW_BINS = ((0, 30), (30, 60), (60, 90))  # degrees; ECT §IV


# What a set of faces is like


@dataclass(frozen=True, eq=False)
class Look:
    """What statistics of a split are taken of.

    Attributes
    ----------
    faces : FaceSet
        For sizes and visibility.
    attributes : dict of str to array
        (N,) pose in degrees, flags and codes; of generated faces, N exceeds the number of faces that were rendered.
    """

    faces: FaceSet
    attributes: Mapping[str, np.ndarray]


def own_splits(protocols: Iterable[str] = tuple(PROTOCOLS)) -> list[tuple[str, str]]:
    """Protocol and split of every set of faces that is no union of others, in the order of the table."""
    return [(p, s) for p in protocols for s in PROTOCOLS[p].splits if leaves(p, s) == ((p, s),)]


def official(protocol: str, split: str) -> int | None:
    """Faces of the official split; None for one that exists in generated faces alone."""
    real_names = [PROTOCOLS[p].splits[s].real for p, s in leaves(protocol, split)]
    return official_count(protocol, split) if all(real_names) else None


def look(source: FaceSource, rendered: int, drawn: int) -> Look:
    """Look at the first faces of each part of a split: `rendered` images and the attributes of `drawn`; at all, if the faces are real.

    Raises
    ------
    ReplicateError
        If real faces are absent or damaged.
    """
    if source.faces == "real":
        faces = source.load()
        return Look(faces, faces.attributes)
    return Look(source.sample(rendered), draw(source, drawn))


def draw(source: FaceSource, count: int) -> dict[str, np.ndarray]:
    """Attributes (N,) of the first `count` generated faces of each part of a split, without rendering them."""
    found = [face for leaf in source.leaves for face in _draw_leaf(leaf, min(count, leaf.count))]
    return {name: np.array([face[name] for face in found]) for name in found[0]}


@cache
def _draw_leaf(leaf: FaceSource, count: int) -> list[dict[str, float | int]]:
    split = PROTOCOLS[leaf.protocol].splits[leaf.split]
    indices = range(split.first, split.first + count)
    people = [person_of(split, index) for index in indices]
    return [
        synthetic.draw(DATA_SEED, index, split.condition, identity=person)
        for index, person in zip(indices, people, strict=True)
    ]


def summary(looked: Look) -> dict[str, object]:
    """Numbers of a split: points, sizes in pixels, share of visible points, quantiles of pose in degrees.

    Returns
    -------
    dict
        `points`; `image size` and `face size` (means; a face's is the mean side of the box around its points), `visible` among annotated points,
        and for yaw, pitch and roll the `QUANTILES`, or None where the set has no such attribute.
    """
    faces = looked.faces
    sides = np.array([np.shape(image)[:2] for image in faces.images], float)
    known = np.isfinite(faces.points).all(-1)
    spanned = known.sum(1) > 1
    extent = np.nanmax(faces.points[spanned], 1) - np.nanmin(faces.points[spanned], 1)
    return {
        "points": faces.points.shape[1],
        "image size": "×".join(
            dict.fromkeys(f"{side:.0f}" for side in sides.mean(0)[::-1])
        ),  # one side of squares
        "face size": round(float(extent.mean()), 1) if spanned.any() else None,
        "visible": round(float(faces.visible[known].mean()), 3) if known.any() else None,
        **{name: _pose(looked.attributes.get(name)) for name in POSE},
    }


def _pose(angles: np.ndarray | None) -> list[float] | None:
    if angles is None or not np.isfinite(angles).any():
        return None
    return [round(float(quantile), 1) for quantile in np.nanquantile(angles, QUANTILES)]


SUMMARY = ("points", "image size", "face size", "visible", *POSE)  # keys of `summary`


def _hidden(looked: Look) -> np.ndarray:
    known = np.isfinite(looked.faces.points).all(-1)
    return (known & ~looked.faces.visible).sum(1) / np.maximum(known.sum(1), 1)


def _turned(low: float, high: float) -> Callable[[Look], np.ndarray]:
    return lambda looked: yaw_within(looked.attributes["yaw"], low, high)


def yaw_within(yaw: np.ndarray, low: float, high: float) -> np.ndarray:
    """(N,) bool: whether the head is turned by `low` to `high` degrees to either side; profiles belong to the last bin."""
    turned = np.abs(yaw)
    return (turned >= low) & ((turned < high) | (high == YAW_BINS[-1][1]))


QUANTITIES: dict[str, Callable[[Look], np.ndarray]] = {  # (N,) fractions, or bool
    "hidden points": _hidden,
    "smiling": lambda looked: looked.attributes["smiling"],
    "glasses": lambda looked: looked.attributes["wearing_glasses"],
    "women": lambda looked: 1 - looked.attributes["male"],
    **{f"yaw of {low}° to {high}°": _turned(low, high) for low, high in YAW_BINS},
}


def share(looked: Look, quantity: str) -> np.ndarray | None:
    """(N,) values of a quantity in per cent, or None where the set lacks the attribute."""
    try:
        return 100 * np.asarray(QUANTITIES[quantity](looked), float)
    except KeyError:
        return None


def statistics(looks: Sequence[Look], profile: str) -> Table:
    """One line per split: faces, sizes, hidden points and pose."""
    lines = []
    for looked in looks:
        told = summary(looked)
        lines.append(
            {
                "split": _split_of(looked),
                "faces": _size(looked.faces),
                "points": told["points"],
                "image / face, px": f"{told['image size']} / {_text(told['face size'])}",
                "hidden, %": _percentage(looked, "hidden points"),
                **{f"{name}, °": _range(told[name]) for name in POSE},
            }
        )
    low, _, high = (f"{100 * q:g}" for q in QUANTILES)
    about = (
        f"faces: of the official split; angles: from the {low} % to the {high} % quantile; {_sampled(looks)}"
    )
    return Table(pd.DataFrame(lines), caption(looks[0].faces.faces, profile, about))


def attributes(looks: Sequence[Look], profile: str) -> Table:
    """One line per split: the share of smiling people, of glasses and of women."""
    shares = ("smiling", "glasses", "women")
    lines = [
        {"split": _split_of(looked), **{f"{name}, %": _percentage(looked, name) for name in shares}}
        for looked in looks
    ]
    return Table(pd.DataFrame(lines), caption(looks[0].faces.faces, profile, _sampled(looks)))


def _split_of(looked: Look) -> str:
    return f"{looked.faces.protocol} {looked.faces.split}"


def _percentage(looked: Look, quantity: str) -> str:
    values = share(looked, quantity)
    return "–" if values is None else _text(values.mean())


def _size(faces: FaceSet) -> str:
    """Faces of the official split; of real ones, how many of them are here."""
    count = official(faces.protocol, faces.split)
    if count is None:
        return "–"
    return f"{len(faces):,} of {count:,}" if faces.faces == "real" else f"{count:,}"


def _sampled(looks: Sequence[Look]) -> str:
    """How many faces statistics are taken of, in words for captions."""
    if looks[0].faces.faces == "real":
        return "taken of all faces that this machine has"
    rendered = max(len(looked.faces) for looked in looks)
    drawn = max(len(looked.attributes["yaw"]) for looked in looks)
    return f"sizes and hidden points of the first {rendered:,} faces of each split at most, pose and attributes of the first {drawn:,}"


def beside_published(looks: Sequence[Look], profile: str) -> Table:
    """Shares that a publication states of a data set beside those of these faces, with 95 % intervals over faces."""
    have = {(looked.faces.protocol, looked.faces.split): looked for looked in looks}
    lines = []
    for fact in published_facts():
        looked = have.get((fact["protocol"], fact["split"]))
        values = None if looked is None else share(looked, fact["quantity"])
        lines.append(
            {
                "protocol": fact["protocol"],
                "split": fact["split"],
                "share of": fact["quantity"],
                "published, %": f"{fact['value']:.1f}",
                "here, %": "–" if values is None else _interval(values),
                "faces looked at": "–" if values is None else f"{len(values):,}",
                "published in": fact["source"],
            }
        )
    about = "95 % intervals by bootstrap over faces"
    return Table(pd.DataFrame(lines), caption(looks[0].faces.faces, profile, about))


@cache
def published_facts() -> tuple[Mapping[str, object], ...]:
    """The entries of ``data/published/faces.yaml``, each with its `value` in per cent.

    Raises
    ------
    ReplicateError
        If an entry names an unknown split or quantity, or not exactly one published number.
    """
    path = published_dir() / "faces.yaml"
    facts = yaml.safe_load(path.read_text(encoding="utf-8"))
    for fact in facts:
        if fact["protocol"] not in PROTOCOLS or fact["split"] not in PROTOCOLS[fact["protocol"]].splits:
            raise ReplicateError(f"{path}: there is no split {fact['protocol']}/{fact['split']}")
        if fact["quantity"] not in QUANTITIES:
            raise ReplicateError(
                f"{path}: got quantity {fact['quantity']!r}, expected one of {', '.join(QUANTITIES)}"
            )
    return tuple(fact | {"value": _published_share(fact)} for fact in facts)


def _published_share(fact: Mapping) -> float:
    if "artefact" not in fact:
        return float(fact["value"])
    printed = published.value(fact["artefact"], **fact["where"])
    return 100 * printed / fact["of"] if "of" in fact else printed


def caption(faces: str, profile: str, about: str) -> str:
    """Caption of a table of the data card."""
    text = f"{faces} faces; profile {profile}; {about}"
    text = f"{text[0].upper()}{text[1:]}."
    return f"{SMOKE_WARNING.upper()}. {text}" if profile == "smoke" and faces == "synthetic" else text


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _range(quantiles: Sequence[float] | None) -> str:
    return (
        "–" if quantiles is None else f"{quantiles[0]:.0f}…{quantiles[-1]:.0f}".replace("-", "−")
    )  # no break within


def _interval(values: np.ndarray) -> str:
    if len(values) < 2:
        return f"{values.mean():.1f}"
    around = bootstrap_mean(values)
    return f"{around.value:.1f} [{around.low:.1f}, {around.high:.1f}]"
