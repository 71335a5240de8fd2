"""`FaceSet`: images of faces with everything that a protocol knows of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from replicate.errors import ReplicateError
from replicate.files import sha256


class Chosen(Sequence):
    """Images of other sequences, fetched when they are asked for: nothing is copied or read before.

    Parameters
    ----------
    places : sequence of (sequence of arrays, int)
        For each image the sequence that holds it, and where.
    """

    def __init__(self, places: Sequence[tuple[Sequence[np.ndarray], int]]) -> None:
        # places in other choices are followed to where the images lie
        self.places = [held.places[i] if isinstance(held, Chosen) else (held, i) for held, i in places]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> np.ndarray:
        held, place = self.places[index]
        return held[place]


@dataclass(frozen=True, eq=False)
class FaceSet:
    """N faces, one per image, in one markup.

    Coordinates are (x, y) in pixels of each image, 0-based, the centre of the top-left pixel at (0, 0).

    Attributes
    ----------
    images : sequence of uint8 arrays
        (H, W) grey or (H, W, 3) RGB; sizes may differ.
    points : array
        (N, L, 2) float32; NaN where a point is not annotated.
    visible : array
        (N, L) bool.
    boxes : array
        (N, 4) float32, the boxes that start every method: (x_min, y_min, x_max, y_max).
    names : tuple of str
        Unique name of each image within the set.
    markup : str
        Name in `replicate.faces.markups`.
    protocol, split, faces : str
        What the set is: the benchmark, its part, `synthetic` or `real`.
    box_rule : str
        How `boxes` came about, in words for captions.
    attributes : dict of str to array
        (N,) per attribute: pose in degrees, flags, ...
    identity : array or None
        (N,) integers: the person in each image.
    """

    images: Sequence[np.ndarray]
    points: np.ndarray
    visible: np.ndarray
    boxes: np.ndarray
    names: tuple[str, ...]
    markup: str
    protocol: str
    split: str
    faces: str
    box_rule: str
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    identity: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.names)
        if count == 0:
            raise ReplicateError(
                f"{self.faces} {self.protocol}/{self.split}: no faces; a face set needs at least one"
            )
        if len(self.images) != count or len(set(self.names)) != count:
            raise ReplicateError(
                f"FaceSet: {len(self.images)} images and {len(set(self.names))} different names for {count} faces"
            )
        self._check_shapes(count)
        self._check_boxes()

    def _check_shapes(self, count: int) -> None:
        landmarks = self.points.shape[1] if self.points.ndim == 3 else "L"
        checks = [
            ("points", self.points, (count, landmarks, 2)),
            ("visible", self.visible, (count, landmarks)),
            ("boxes", self.boxes, (count, 4)),
        ]
        checks += [(f"attributes[{key!r}]", values, (count,)) for key, values in self.attributes.items()]
        if self.identity is not None:
            checks.append(("identity", self.identity, (count,)))
        for name, array, expected in checks:
            if array.shape != expected:
                raise ReplicateError(
                    f"FaceSet.{name}: got shape {array.shape}, expected {expected} for {count} names"
                )

    def _check_boxes(self) -> None:
        sound = np.isfinite(self.boxes).all(1) & (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)
        if not sound.all():
            first = int(np.argmin(sound))
            raise ReplicateError(
                f"FaceSet.boxes: {self.names[first]}: got {self.boxes[first].tolist()}, expected finite x_min < x_max and y_min < y_max"
            )

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, which: np.ndarray, split: str | None = None) -> "FaceSet":
        """The faces that a boolean mask (N,) or an array of indices selects, in that order."""
        which = np.asarray(which)
        if which.dtype == bool and which.shape != (len(self),):
            raise ReplicateError(f"which: got a mask of shape {which.shape}, expected ({len(self)},)")
        index = np.flatnonzero(which) if which.dtype == bool else which
        return replace(
            self,
            images=Chosen([(self.images, i) for i in index.tolist()]),
            points=self.points[index],
            visible=self.visible[index],
            boxes=self.boxes[index],
            names=tuple(self.names[i] for i in index),
            split=split or self.split,
            attributes={key: value[index] for key, value in self.attributes.items()},
            identity=None if self.identity is None else self.identity[index],
        )

    def without_hidden(self) -> "FaceSet":
        """The same faces with hidden points unknown (NaN), for methods that learn from visible points alone: ECT §III-A."""
        return replace(self, points=np.where(self.visible[..., None], self.points, np.float32(np.nan)))

    @cached_property
    def sha256(self) -> str:
        """Hash of all that a method can see: names, points, boxes and pixels."""
        pixels = (np.asarray(image) for image in self.images)
        return sha256("\n".join(self.names), self.points, self.visible, self.boxes, *pixels)


def concatenate(parts: Sequence[FaceSet], protocol: str, split: str) -> FaceSet:
    """One set from several in the same markup, in order; attributes that all parts share are kept."""
    first = parts[0]
    shared = set.intersection(*(set(part.attributes) for part in parts))
    return replace(
        first,
        images=Chosen([(part.images, i) for part in parts for i in range(len(part))]),
        points=np.concatenate([part.points for part in parts]),
        visible=np.concatenate([part.visible for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        names=tuple(name for part in parts for name in part.names),
        protocol=protocol,
        split=split,
        attributes={key: np.concatenate([part.attributes[key] for part in parts]) for key in sorted(shared)},
        identity=None
        if any(p.identity is None for p in parts)
        else np.concatenate([p.identity for p in parts]),
    )
