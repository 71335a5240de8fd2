"""The LDDR chapter's picture of a crowd (Fig. 1): every face that a detector finds in one image, with its landmarks."""

from dataclasses import dataclass

import cv2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from replicate import detection, paths
from replicate.errors import AbsentError, ReplicateError
from replicate.evidence.experiment import Experiment
from replicate.evidence.figures import FITTED, draw_box, draw_landmarks
from replicate.evidence.views.fitted import Predict
from replicate.faces import real
from replicate.faces.faceset import FaceSet
from replicate.faces.images import to_rgb
from replicate.faces.sources import FaceSource

SIDE = 720  # pixels: width of a wall of pictures
ROWS = (6, 5, 4)  # pictures in each row of it: the lower, the larger
FOUND = "found by OpenCV's frontal-face cascade"


@dataclass(frozen=True, eq=False)
class Crowd:
    """One image with several faces.

    Attributes
    ----------
    image : array
        (H, W, 3) uint8.
    people : int
        Who are known to be there.
    source : str
        ``"ijb-a/test"``: where they come from.
    faces : str
        `synthetic` or `real`.
    """

    image: np.ndarray
    people: int
    source: str
    faces: str


def wall(source: FaceSource) -> Crowd:
    """The first generated faces of a source as pictures on a wall, larger from row to row."""
    images = source.sample(sum(ROWS)).images
    if len(images) < sum(ROWS):
        raise ReplicateError(f"source: got {len(images)} faces, expected {sum(ROWS)} or more")
    pictures, rows = iter(images), []
    for count in ROWS:
        side = SIDE // count
        rows.append(np.concatenate([_resized(next(pictures), side) for _ in range(count)], axis=1))
    return Crowd(np.concatenate(rows), sum(ROWS), f"{source.protocol}/{source.split}", "synthetic")


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    method = cv2.INTER_AREA if side < image.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(to_rgb(np.asarray(image)), (side, side), interpolation=method)


def most_crowded() -> Crowd:
    """The photograph of AFW with the most annotated faces.

    Raises
    ------
    AbsentError
        If there is none.
    """
    data_set = real.DATA_SETS["300w"]
    folder = paths.data_dir() / data_set.folder
    if not (folder / "afw").is_dir():
        raise AbsentError(
            f"real faces: {folder / 'afw'} is not there; use generated ones (--faces synthetic)"
        )
    found = data_set.read(folder, "afw")
    photographs: dict[str, list[int]] = {}
    for index, name in enumerate(found.names):  # <photograph>_<which>
        photographs.setdefault(name.rpartition("_")[0], []).append(index)
    most = max(photographs.values(), key=len)
    return Crowd(to_rgb(found.pixels(most[0])), len(most), "afw/train", "real")


def crowd_panel(run: Experiment, artefact: str, crowd: Crowd, predict: Predict, method: str) -> Figure:
    """Landmarks on all faces that the detector finds, recorded for an artefact.

    Raises
    ------
    ReplicateError
        If it finds none.
    """
    boxes = detection.find_faces(crowd.image)
    if not len(boxes):
        raise ReplicateError(f"{crowd.source}: no upright frontal face was found in the image")
    points = predict(_in_one_image(crowd, boxes))
    height, width = crowd.image.shape[:2]
    figure, ax = plt.subplots(figsize=(9, 9 * height / width + 0.3), layout="constrained")
    ax.imshow(crowd.image, interpolation="bilinear")
    for box, shape in zip(boxes, points, strict=True):
        draw_box(ax, box)
        draw_landmarks(ax, shape, "ibug68", FITTED)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    ax.set_axis_off()
    what = f"{len(boxes)} faces {FOUND}, {crowd.people} {crowd.faces} people of {crowd.source}, profile {run.profile}, seed {run.seed}"
    ax.set_title(what, fontsize="small")
    figure.set_label(f"{what}. Landmarks by {method} in yellow, the detector's boxes in orange.")
    shown = dict(subset=crowd.source, images=1, seeds=1, box_rule=FOUND)
    return run.record_figure(artefact, "all faces of one image", figure, **shown)


def _in_one_image(crowd: Crowd, boxes: np.ndarray) -> FaceSet:
    """A face set whose faces are all in the same image, with boxes and without true points."""
    count, (protocol, split) = len(boxes), crowd.source.split("/")
    return FaceSet(
        images=[crowd.image] * count,
        points=np.full((count, 68, 2), np.nan, np.float32),
        visible=np.zeros((count, 68), bool),
        boxes=boxes.astype(np.float32),
        names=tuple(f"face {number}" for number in range(count)),
        markup="ibug68",
        protocol=protocol,
        split=split,
        faces=crowd.faces,
        box_rule=FOUND,
    )
