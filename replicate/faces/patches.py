"""Patches with and without a face, for tuning a descriptor network: LDDR §3.1, by the procedure of R-CNN.

R-CNN (Girshick et al., CVPR 2014, §2.3) classifies region proposals, warped to the network's input whatever their shape, in batches
with one positive to three negatives. A region is positive if its overlap with a face is at least 0.5 of their union. R-CNN tunes its
network on all others as negatives, and its classifiers on those below 0.3; here the stricter bound holds, and what lies between is
left out. Its context, 16 pixels of the photograph around each region in the network's input, is not added (R-CNN, appendix A): a patch
is the region itself. Random boxes stand in for region proposals: positives are faces whose box was disturbed, negatives are boxes anywhere in a
photograph and boxes that miss a face or are of quite another size.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import cv2
import numpy as np

from replicate.errors import ReplicateError
from replicate.faces.faceset import FaceSet
from replicate.faces.images import to_rgb
from replicate.faces.real.reading import Annotations, photographs

POSITIVE, NEGATIVE = 0.5, 0.3  # R-CNN §2.3: least overlap of a positive, overlap that no negative reaches
PERIOD = 4  # R-CNN §2.3: 32 positives in a batch of 128
_CANDIDATES, _ROUNDS = 32, 100


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes: (..., 4) and (..., 4), broadcast, to (...); 0 where both are empty."""
    boxes, others = np.asarray(boxes, float), np.asarray(others, float)
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., 2:], others[..., 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    union = _area(boxes) + _area(others) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


class Photographs(Sequence):
    """Photographs that are decoded when they are asked for; the last one is kept.

    Parameters
    ----------
    pixels : callable
        `pixels(face)` decodes the photograph of a face.
    faces : sequence of int
        One face of each photograph.
    """

    def __init__(self, pixels: Callable[[int], np.ndarray], faces: Sequence[int]) -> None:
        self.pixels, self.faces = lru_cache(maxsize=1)(pixels), faces

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.pixels(self.faces[index])


class FacePatches:
    """An endless sequence of labelled patches; number `index` depends on the seed and the index alone.

    Every fourth patch, from number 0 on, shows a face.

    Parameters
    ----------
    images : sequence of uint8 arrays
        Photographs, grey or RGB; read when a patch is cut.
    boxes : sequence of (n, 4) arrays
        All faces of each photograph; there may be none in some, but not in all.
    size : int
        Side of the patches in pixels; LDDR's network takes 224.
    seed : int

    Raises
    ------
    ReplicateError
        If there is no face, or not one array of boxes per photograph.
    """

    def __init__(
        self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray], size: int = 224, seed: int = 0
    ) -> None:
        if len(boxes) != len(images):
            raise ReplicateError(
                f"boxes: got those of {len(boxes)} photographs for {len(images)}; expected as many"
            )
        self.images, self.size, self.seed = images, size, seed
        self.boxes = [np.asarray(found, float).reshape(-1, 4) for found in boxes]
        self.with_faces = np.flatnonzero([len(found) > 0 for found in self.boxes])
        if not len(self.with_faces):
            raise ReplicateError(f"boxes: none in {len(images)} photographs; expected at least one face")

    @classmethod
    def of(cls, faces: FaceSet, size: int = 224, seed: int = 0) -> "FacePatches":
        """Patches from a face set with one face in each image: its boxes are the faces, what surrounds them the background.

        Where photographs hold several faces, a neighbour would count as background; `of_photographs` knows them all.
        """
        return cls(faces.images, faces.boxes[:, None], size, seed)

    @classmethod
    def of_photographs(cls, faces: Annotations, size: int = 224, seed: int = 0) -> "FacePatches":
        """Patches from the photographs of a real data set, each with the boxes of all its faces, so that none becomes background.

        Photographs are decoded when a patch is cut from them; LDDR's are those of FDDB (§3.1), ``fddb.DATA_SET.read(folder, "all")``.

        Raises
        ------
        ReplicateError
            If the data set has no boxes.
        """
        if faces.boxes is None:
            raise ReplicateError(
                "boxes: the data set publishes none; use a face set, which has simulated ones (`FacePatches.of`)"
            )
        groups = photographs(faces.names)
        images = Photographs(faces.pixels, [group[0] for group in groups])
        return cls(images, [faces.boxes[group] for group in groups], size, seed)

    def take(self, indices: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Patches (n, size, size, 3) uint8 RGB and labels (n,) bool, true for a face, number `indices` of the sequence.

        Raises
        ------
        ReplicateError
            If a photograph has no face inside it, or no place for a patch without one.
        """
        cut = [self._cut(index) for index in indices]
        return np.stack([patch for patch, _ in cut]), np.array([label for _, label in cut])

    def region(self, index: int) -> tuple[int, np.ndarray]:
        """Where patch number `index` lies: the photograph, and the box (4,) of whole pixels, edge to edge."""
        rng = np.random.default_rng((self.seed, index))
        is_face = index % PERIOD == 0
        number = int(rng.choice(self.with_faces) if is_face else rng.integers(len(self.images)))
        height, width = self.images[number].shape[:2]
        faces = _clipped(self.boxes[number], width, height)
        faces = faces[_area(faces) > 0]
        draw = _disturbed if is_face else _anywhere
        for _ in range(_ROUNDS if len(faces) or not is_face else 0):
            candidates = draw(rng, faces, width, height)
            overlap = iou(candidates[:, None], faces).max(1, initial=0)
            good = (overlap >= POSITIVE if is_face else overlap < NEGATIVE) & (_area(candidates) > 0)
            if good.any():
                return number, candidates[np.argmax(good)]
        raise ReplicateError(
            f"photograph {number} ({width}x{height} pixels): found no box {'of' if is_face else 'free of'} a face in it; "
            "check its boxes, or leave it out"
        )

    def _cut(self, index: int) -> tuple[np.ndarray, bool]:
        number, box = self.region(index)
        left, top, right, bottom = (box + 0.5).astype(int)
        patch = to_rgb(np.ascontiguousarray(self.images[number][top:bottom, left:right]))
        shrinks = min(patch.shape[:2]) > self.size
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(patch, (self.size, self.size), interpolation=method), index % PERIOD == 0


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def _clipped(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """The parts of boxes (n, 4) inside the photograph, whose edges lie half a pixel beyond its outer pixels' centres."""
    return (np.clip(boxes.reshape(-1, 2, 2) + 0.5, 0, [width, height]) - 0.5).reshape(-1, 4)


def _whole_pixels(centre: np.ndarray, half: np.ndarray, width: int, height: int) -> np.ndarray:
    """Boxes (n, 4) from centres and half sides (n, 2), clipped, with edges between pixels."""
    boxes = np.concatenate([centre - half, centre + half], 1)
    return np.round(_clipped(boxes, width, height) + 0.5) - 0.5


def _disturbed(rng: np.random.Generator, faces: np.ndarray, width: int, height: int) -> np.ndarray:
    """Candidates (n, 4) around one of the faces (m, 4), less and less disturbed: the last is the face itself."""
    face = faces[rng.integers(len(faces))]
    amount = np.linspace(1, 0, _CANDIDATES)[:, None]
    sides = face[2:] - face[:2]
    centre = (face[:2] + face[2:]) / 2 + amount * rng.uniform(-0.35, 0.35, (_CANDIDATES, 2)) * sides
    half = sides / 2 * np.exp(amount * rng.uniform(-0.4, 0.4, (_CANDIDATES, 2)))
    return _whole_pixels(centre, half, width, height)


def _anywhere(rng: np.random.Generator, faces: np.ndarray, width: int, height: int) -> np.ndarray:
    """Candidates (n, 4), by turns near one of the faces (m, 4), of any size, and anywhere in the photograph."""
    whole = np.array([width, height])
    half = whole * np.exp(rng.uniform(np.log(0.1), 0, (_CANDIDATES, 1)))
    half *= np.exp(rng.uniform(-0.3, 0.3, (_CANDIDATES, 2))) / 2
    centre = rng.uniform(0, 1, (_CANDIDATES, 2)) * whole - 0.5
    if len(faces):
        chosen = faces[rng.integers(len(faces), size=_CANDIDATES // 2)]
        sides = chosen[:, 2:] - chosen[:, :2]
        centre[::2] = (chosen[:, :2] + chosen[:, 2:]) / 2 + rng.uniform(-0.8, 0.8, sides.shape) * sides
        half[::2] = sides / 2 * np.exp(rng.uniform(np.log(0.25), np.log(2.5), (len(sides), 1)))
    return _whole_pixels(centre, half, width, height)
