"""A real face detector, OpenCV's frontal-face cascade (Viola and Jones), and how its squares are made into boxes.

It comes with OpenCV, needs no download and finds upright faces that look more or less ahead. Its squares lie around eyes, nose and mouth, not
around landmarks; a relation, learnt from training faces, says where a box of landmarks lies in a square.

Convention: squares and boxes are ``(n, 4)`` arrays ``(x_min, y_min, x_max, y_max)`` in pixels of the image, the centre of the top-left pixel
at (0, 0). A relation is ``(4,)``: the sides of a box (left, top, right, bottom) in sides of the square from its top-left corner.

References
----------
P. Viola and M. Jones, Rapid Object Detection using a Boosted Cascade of Simple Features, CVPR 2001.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np

from replicate.errors import ReplicateError
from replicate.faces.images import to_grey
from replicate.faces.patches import iou
from replicate.progress import progress_bar

NAME = "OpenCV's frontal-face cascade"
VERSION = 1  # raise when a change here finds other squares
LARGEST_SIDE = 1024  # the cascade runs on a copy no larger than this
FOUND = 0.5  # least overlap of a box with the true one that counts as a detection
_STEP = 1.1  # from one size of a square to the next
_THREADS = 2
_NEAR = 0.25  # in sides of the box: a square whose middle is nearer belongs to the face
_local = threading.local()


class Detections(NamedTuple):
    """What the detector says of N faces whose true boxes are known.

    Attributes
    ----------
    squares : array
        (N, 4): of each face, the square whose box overlaps the true one most; NaN where the detector finds no square at all.
    overlap : array
        (N,): intersection over union of that box and the true one; 0 without a square.
    """

    squares: np.ndarray
    overlap: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """(N,) bool: the faces with a box that overlaps the true one by `FOUND` or more."""
        return self.overlap >= FOUND


def find_squares(
    image: np.ndarray, *, smallest: float = 0.3, neighbours: int = 3, padding: float = 0.25
) -> np.ndarray:
    """Squares (n, 4) around upright frontal faces, largest first.

    Parameters
    ----------
    image : array
        (H, W) or (H, W, 3) uint8.
    smallest : float
        Side of the smallest square, in longer sides of the image; our choice for pictures of one face.
    neighbours : int
        Windows that have to agree on a square; OpenCV's default.
    padding : float
        How far the image is continued on each side, in its longer sides, by its last pixels: a face may fill a picture that was cut around it.
    """
    grey = to_grey(image)
    scale = min(1.0, LARGEST_SIDE / max(grey.shape))
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey
    side = max(24, int(max(small.shape) * smallest))
    border = round(padding * max(small.shape))
    if border:
        small = cv2.copyMakeBorder(small, border, border, border, border, cv2.BORDER_REPLICATE)
    found = _cascade().detectMultiScale(small, _STEP, neighbours, minSize=(side, side))
    corner_and_size = np.asarray(found, float).reshape(-1, 4)
    corner, size = corner_and_size[:, :2] - border, corner_and_size[:, 2:]
    squares = np.concatenate([corner, corner + size], 1) / scale
    return squares[np.argsort(-size[:, 0], kind="stable")]


def find_all(images: Sequence[np.ndarray], title: str = "") -> list[np.ndarray]:
    """`find_squares` of many pictures of one face each, in threads; `title` is for the progress bar."""
    found = []
    with progress_bar() as progress, ThreadPoolExecutor(_THREADS) as pool:
        bar = progress.add_task(f"detecting faces {title}".strip(), total=len(images), remark="")
        for squares in pool.map(lambda index: find_squares(np.asarray(images[index])), range(len(images))):
            found.append(squares)
            progress.advance(bar)
    return found


def relation(squares: Sequence[np.ndarray], boxes: np.ndarray) -> np.ndarray:
    """Where boxes lie in the squares on average: (4,).

    Parameters
    ----------
    squares : sequence of arrays
        Of N training faces, (n, 4) each.
    boxes : array
        (N, 4) true boxes.

    Raises
    ------
    ReplicateError
        If no face has a square near its box.
    """
    shares = []
    for found, box in zip(squares, np.asarray(boxes, float), strict=True):
        distance = np.linalg.norm(_middle(found) - _middle(box), axis=-1) / _side(box)
        if len(found) and distance.min() < _NEAR:
            near = found[distance.argmin()]
            shares.append((box - near[[0, 1, 0, 1]]) / _side(near))
    if not shares:
        raise ReplicateError(
            f"squares: none of {len(boxes)} training faces has one near its box; check that the boxes belong to the images"
        )
    return np.mean(shares, 0)


def placed(squares: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Boxes (..., 4) in squares (..., 4) by a relation (4,)."""
    return squares[..., [0, 1, 0, 1]] + _side(squares)[..., None] * where


def match(squares: Sequence[np.ndarray], where: np.ndarray, boxes: np.ndarray) -> Detections:
    """For each of N faces, the square whose box by the relation `where` overlaps its true box (N, 4) most."""
    chosen, overlaps = np.full((len(boxes), 4), np.nan), np.zeros(len(boxes))
    for index, (found, box) in enumerate(zip(squares, np.asarray(boxes, float), strict=True)):
        if len(found):
            shared = iou(placed(found, where), box)
            chosen[index], overlaps[index] = found[shared.argmax()], shared.max()
    return Detections(chosen, overlaps)


def _cascade() -> cv2.CascadeClassifier:
    """One cascade for each thread: it keeps the image that it works on."""
    if not hasattr(_local, "cascade"):
        _local.cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    return _local.cascade


def _middle(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _side(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).mean(-1)
