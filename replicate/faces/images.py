"""Reading photographs safely: whole files only, 8 bits, grey or RGB."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from replicate.errors import ReplicateError

LARGEST_SIDE = 20_000  # pixels; beyond it a header is damaged or hostile
_ENDINGS = {
    b"\xff\xd8": b"\xff\xd9",
    b"\x89PNG": b"IEND",
}  # first bytes -> marker that a whole file holds at its end


def read_image(path: Path) -> np.ndarray:
    """Read one image file.

    Returns
    -------
    array
        uint8, (H, W) for grey files and (H, W, 3) RGB for colour; 16-bit files are scaled to 8, transparency is dropped.

    Raises
    ------
    ReplicateError
        If the file is missing, truncated, not an image, or absurdly large.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ReplicateError(f"image {path}: cannot be read ({error})") from error
    for start, end in _ENDINGS.items():
        if data.startswith(start) and end not in data[-64:]:  # decoders would fill the lost part with grey
            raise ReplicateError(
                f"image {path}: truncated ({len(data)} bytes, end marker absent); restore the file from its source"
            )
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None or 0 in image.shape:
        raise ReplicateError(
            f"image {path}: not a readable image ({len(data)} bytes); expected JPEG, PNG or another OpenCV format"
        )
    if max(image.shape[:2]) > LARGEST_SIDE:
        raise ReplicateError(
            f"image {path}: {image.shape[1]}x{image.shape[0]} pixels, expected at most {LARGEST_SIDE} a side"
        )
    return _to_rgb_or_grey(_to_8_bit(image, path))


def read_images(paths: Sequence[Path], reader: Callable[[Path], np.ndarray] = read_image) -> list[np.ndarray]:
    """Read many images in threads (decoding releases the interpreter), in order."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(reader, paths))


def to_grey(image: np.ndarray) -> np.ndarray:
    """(H, W) uint8 from grey or RGB: the mean of the channels, rounded, as DAN's released preprocessing takes it."""
    if image.ndim == 2:
        return image
    return cv2.transform(image, np.full((1, 3), 1 / 3, np.float32))


def to_rgb(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 from grey or RGB."""
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image


def _to_8_bit(image: np.ndarray, path: Path) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image // 257).astype(np.uint8)  # 65535 -> 255
    raise ReplicateError(
        f"image {path}: pixels of type {image.dtype}, expected 8 or 16 bits; convert it first"
    )


def _to_rgb_or_grey(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        return image
    if image.shape[2] == 1:
        return image[..., 0]
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGB)
