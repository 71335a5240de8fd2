"""Test faces whose boxes come from a real detector or a simulated one, and how many faces the detector finds; on record by face.

The detector's squares are made into boxes by relations that are learnt from training faces. Where it finds no face, the true box takes the place of
its box, as TCNN §5.3 says.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from replicate.devices import describe_device
from replicate.errors import ReplicateError
from replicate.evidence import predictions
from replicate.evidence.experiment import Experiment
from replicate.evidence.predictions import Predictions
from replicate.evidence.sensitivity import NoisyBoxes
from replicate.faces import detector
from replicate.faces.boxes import SQUARE
from replicate.faces.faceset import FaceSet
from replicate.faces.markups import convert
from replicate.faces.protocols import box_rule_of, leaves
from replicate.faces.sources import FaceSource
from replicate.files import sha256

FIVE = "mtfl5"
SAMPLE = 200  # first faces of each training split by which the relations are learnt
BOX, POSITION, SIZE = "box", "box, position", "box, size"  # keys of a detection's errors, see `detections`
RULE = (
    f"{detector.NAME}, its squares made into boxes as these lie in the squares of training faces on average; where it finds no face, "
    "the true box"
)


class Located(NamedTuple):
    """Boxes (N, 4) of N faces by the detector, the true ones where `found` (N,) is false; and true boxes.

    Attributes
    ----------
    own, five : array
        For all points of the faces, and for the five points of TCNN.
    true_five : array
        By the rule without error.
    """

    found: np.ndarray
    own: np.ndarray
    five: np.ndarray
    true_five: np.ndarray


@dataclass(frozen=True)
class DetectedBoxes:
    """Test faces in the boxes of the detector, for `Experiment.test`.

    Attributes
    ----------
    source : FaceSource
        The faces, with true points.
    train : FaceSource
        Faces in the same markup, by the first of which the detector's squares are made into boxes.
    count : int, optional
        Only so many first faces of each split that holds the faces.
    """

    source: FaceSource
    train: FaceSource
    count: int | None = None

    @property
    def protocol(self) -> str:
        return self.source.protocol

    @property
    def split(self) -> str:
        """The split's name, with the boxes."""
        first = "" if self.count is None else f"-first{self.count}"
        return f"{self.source.split}{first}@detector"

    @property
    def parts(self) -> tuple["DetectedBoxes", ...]:
        return (self,)

    @cached_property
    def fingerprint(self) -> str:
        """What determines the faces and their boxes."""
        how = (detector.VERSION, SAMPLE, self.count)
        return sha256(self.source.fingerprint, self.train.fingerprint, *map(str, how))

    def load(self) -> FaceSet:
        """The faces in the detector's boxes."""
        faces, located = _located(self)
        return replace(faces, boxes=located.own.astype(np.float32), box_rule=RULE)

    def five_boxes(self, faces: FaceSet) -> np.ndarray:
        """Boxes (N, 4) for the five points of some of the faces."""
        known, located = _located(self)
        return located.five[_places(faces.names, known.names)]

    def locate(self) -> tuple[FaceSet, Located]:
        """The faces with the boxes of their protocol, and where the detector finds them."""
        return _located(self)


class SimulatedBoxes(NoisyBoxes):
    """Test faces of 68 points in boxes of a simulated detector; see `NoisyBoxes`. Its error of a face is the same for both kinds of boxes."""

    def five_boxes(self, faces: FaceSet) -> np.ndarray:
        """Boxes (N, 4) for the five points of some of the faces."""
        return SQUARE.with_noise(self.level, self.level).boxes(_five_points(faces), faces.names)


def detections(run: Experiment, boxes: DetectedBoxes) -> Predictions:
    """What the detector says of each face, from the record, else computed now and stored.

    The errors are those of the box for five points: the mean distance of its corners from those of the true box, that of its middle (`POSITION`), both
    in per cent of the true box's side, and the absolute logarithm of the ratio of both sides, times 100 (`SIZE`). They are infinite for a face
    that is not found.
    """
    model = sha256("detector", str(detector.VERSION), boxes.train.fingerprint, str(SAMPLE))[:12]
    testset = f"{boxes.protocol}-{boxes.split}-{run.faces}-{boxes.fingerprint[:8]}"
    file = predictions.path_of(model, testset, run.paper, run.profile)
    if file.exists() and not run.fresh:
        return predictions.read(file)
    faces, located = boxes.locate()
    about = {
        "device": describe_device("cpu"),
        "faces_sha256": faces.sha256,
        "box_rule": RULE,
        "markup": faces.markup,
    }
    made = Predictions(model, testset, run.faces, faces.names, _errors(located), None, about)
    predictions.save(made, run.paper, run.profile)
    return made


def found(detected: Predictions) -> np.ndarray:
    """(N,) bool: the faces that the detector has found."""
    return np.isfinite(detected.errors[BOX])


def _errors(located: Located) -> dict[str, np.ndarray]:
    true, given = (one.reshape(-1, 2, 2).astype(float) for one in (located.true_five, located.five))
    side = (true[:, 1] - true[:, 0]).mean(-1)
    errors = {
        BOX: np.linalg.norm(given - true, axis=-1).mean(-1) / side,
        POSITION: np.linalg.norm((given - true).mean(1), axis=-1) / side,
        SIZE: np.abs(np.log((given[:, 1] - given[:, 0]).mean(-1) / side)),
    }
    return {key: np.where(located.found, 100 * error, np.inf) for key, error in errors.items()}


@cache
def _located(boxes: DetectedBoxes) -> tuple[FaceSet, Located]:
    faces = boxes.source.load() if boxes.count is None else boxes.source.sample(boxes.count)
    own_rule, five_rule = _relations(boxes.train)
    true = _true_boxes(faces)
    squares = detector.find_all(faces.images, f"of {boxes.protocol} {boxes.source.split}")
    matched = detector.match(squares, five_rule, true[1])
    given = (detector.placed(matched.squares, rule) for rule in (own_rule, five_rule))
    own, five = (np.where(matched.found[:, None], box, exact) for box, exact in zip(given, true, strict=True))
    return faces, Located(matched.found, own, five, true[1])


@cache
def _relations(train: FaceSource) -> tuple[np.ndarray, np.ndarray]:
    """How boxes of all points of the faces, and of five, lie in the detector's squares."""
    faces = train.sample(SAMPLE)
    squares = detector.find_all(faces.images, f"of {train.protocol} {train.split}")
    own, five = (detector.relation(squares, boxes) for boxes in _true_boxes(faces))
    return own, five


def _true_boxes(faces: FaceSet) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) without error: by the rule of the faces' protocol, and for five points."""
    own = box_rule_of(*leaves(faces.protocol, faces.split)[0])
    exact = (own, faces.points), (SQUARE, _five_points(faces))
    boxes = [rule.with_noise(0.0, 0.0).boxes(points, faces.names) for rule, points in exact]
    return boxes[0], boxes[1]


def _five_points(faces: FaceSet) -> np.ndarray:
    """(N, 5, 2) in pixels."""
    return faces.points if faces.markup == FIVE else convert(faces.points, faces.markup, FIVE)


def _places(names: Sequence[str], known: Sequence[str]) -> list[int]:
    where = {name: place for place, name in enumerate(known)}
    absent = [name for name in names if name not in where]
    if absent:
        raise ReplicateError(f"faces: {absent[0]} was not looked for by the detector ({len(absent)} such)")
    return [where[name] for name in names]
