"""Landmarks of any picture: find the faces, run a trained method in each box, draw the result."""

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from replicate.errors import ReplicateError
from replicate.faces import detector
from replicate.faces.images import read_image
from replicate.faces.sources import FaceSource
from replicate.files import atomic_write
from replicate.vocabulary import PAPERS, check_one_of

# Sides of the tight landmark box within the square that OpenCV's frontal-face cascade reports, as fractions of that square (left, top,
# right, bottom): medians over 271 training faces of 300-W.
LANDMARKS_IN_SQUARE = np.array([0.08, 0.23, 0.92, 1.07])
SMALLEST_FACE = 1 / 12  # of the longer side
# Sides of the square box around five points from which TCNN starts, `boxes.SQUARE`, as fractions of the tight landmark box: medians over the
# training faces of 300-W.
SQUARE_IN_TIGHT = np.array([-0.01, -0.09, 1.01, 0.95])

Predictor = Callable[[np.ndarray, np.ndarray], np.ndarray]  # image, boxes (n, 4) -> points (n, L, 2)


def find_faces(image: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) of upright frontal faces, largest first, as a tight landmark box would lie.

    Parameters
    ----------
    image : array
        (H, W) or (H, W, 3) uint8.
    """
    squares = detector.find_squares(image, smallest=SMALLEST_FACE, neighbours=5, padding=0.0)
    return detector.placed(squares, LANDMARKS_IN_SQUARE)


def check_box(box: np.ndarray, image: np.ndarray) -> np.ndarray:
    """One box (4,) as (1, 4).

    Raises
    ------
    ReplicateError
        If it has no area or lies outside the image.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    if not (
        np.isfinite(box).all() and x0 < x1 and y0 < y1 and x1 > 0 and y1 > 0 and x0 < width and y0 < height
    ):
        raise ReplicateError(
            f"box: got {','.join(f'{v:g}' for v in box)}, expected x0,y0,x1,y1 with x0 < x1 and y0 < y1 that overlaps the image "
            f"({width} x {height} pixels)."
        )
    return np.asarray(box, float)[None]


def detect(path: Path, method: str, predict: Predictor, box: np.ndarray | None = None) -> list[dict]:
    """Landmarks of every face in one image file; `seconds` is the time of the whole image, reading aside.

    Raises
    ------
    ReplicateError
        If the file cannot be read, the box is unusable, or no face is found.
    """
    image = read_image(path)
    began = time.perf_counter()
    boxes = find_faces(image) if box is None else check_box(box, image)
    if not len(boxes):
        raise ReplicateError(
            f"{path}: no upright frontal face was found. Give its box with --box x0,y0,x1,y1."
        )
    points = predict(image, boxes)
    seconds = round(time.perf_counter() - began, 4)
    shared = {"image": str(path), "method": method}
    return [
        {**shared, "box": np.round(b, 2).tolist(), "points": np.round(p, 2).tolist(), "seconds": seconds}
        for b, p in zip(boxes, points.astype(float), strict=True)
    ]


def predictor(method: str, profile: str, faces: str) -> Predictor:
    """The trained model of a method from the store."""
    check_one_of("method", method, PAPERS)
    makers = {"lddr": _lddr, "tcnn": _tcnn, "dan": _dan, "rnn": _rnn, "ect": _ect}
    return makers[method](profile, faces)


def _training_faces(profile: str, faces: str) -> FaceSource:
    """What is detected in are photographs: of the generated faces, those of every condition carry over best."""
    return FaceSource("300w", "train" if faces == "real" else "wide", faces, profile)


def _lddr(profile: str, faces: str) -> Predictor:
    from replicate.methods import lddr, lddr_training

    source = FaceSource(
        "300w", "train", faces, profile
    )  # regressions of all faces of every condition would not fit into memory
    model, _ = lddr_training.obtain(lddr.CONFIGS[profile], source, profile, 0)
    return lambda image, boxes: model.predict([image] * len(boxes), boxes)[-1, 0].numpy()


def _tcnn(profile: str, faces: str) -> Predictor:
    from replicate.methods import tcnn, tcnn_training

    source = FaceSource("mtfl", "train", faces, profile)
    model, _ = tcnn_training.obtain(tcnn.CONFIGS[profile], source, profile, 0)
    return lambda image, boxes: tcnn_training.predict_boxes(model, [image] * len(boxes), square_boxes(boxes))


def square_boxes(boxes: np.ndarray) -> np.ndarray:
    """The boxes (n, 4) that TCNN starts from, of tight landmark boxes (n, 4)."""
    return boxes[:, [0, 1, 0, 1]] + (boxes[:, 2:] - boxes[:, :2])[:, [0, 1, 0, 1]] * SQUARE_IN_TIGHT


def _dan(profile: str, faces: str) -> Predictor:
    from replicate.methods import dan, dan_training

    config = dan.CONFIGS[profile, faces] if faces == "real" else dan.WIDE_CONFIGS[profile]
    network, _ = dan_training.obtain(config, 2, _training_faces(profile, faces), profile, 0)

    return lambda image, boxes: dan.predict_boxes(network, [image] * len(boxes), boxes)[-1]


def _rnn(profile: str, faces: str) -> Predictor:
    from replicate.methods import rnn, rnn_training

    source = FaceSource("300w", "train", faces, profile)
    network, _ = rnn_training.obtain(rnn.CONFIGS[profile], source, profile, 0)

    def predict(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        starts = {"shapes": rnn_training.LAST}
        return rnn_training.predict_boxes(network, [image] * len(boxes), boxes, starts)["shapes"][-1]

    return predict


def _ect(profile: str, faces: str) -> Predictor:
    from replicate.methods import ect, ect_fitting, ect_training

    config = ect.CONFIGS[profile, faces]
    network, pdm, _ = ect_training.obtain(config, _training_faces(profile, faces), profile, 0)
    wanted = ect_fitting.fits(pdm, config, ["ECT"])

    def predict(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        found = ect_training.predict_boxes(network, pdm, [image] * len(boxes), boxes, wanted)
        return found["ECT"].shapes[-1].numpy()

    return predict


def draw(path: Path, found: list[dict], output: Path) -> None:
    """Write the image with boxes and landmarks of its faces to `output` (PNG or JPEG)."""
    image = read_image(path)
    canvas = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR)
    for face in found:
        x0, y0, x1, y1 = (round(v) for v in face["box"])
        line = max(1, round((x1 - x0) / 150))
        cv2.rectangle(canvas, (x0, y0), (x1, y1), (180, 180, 180), line, cv2.LINE_AA)
        for x, y in face["points"]:
            cv2.circle(canvas, (round(x), round(y)), 2 * line, (60, 220, 60), -1, cv2.LINE_AA)
    with atomic_write(output) as temporary:
        if not cv2.imwrite(str(temporary), canvas):
            raise ReplicateError(
                f"--draw: {output} could not be written; expected a name that ends in .png or .jpg."
            )
