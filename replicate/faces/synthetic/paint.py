"""Mixing colours into images, channel by channel: dense arrays are several times faster than broadcasting over three channels."""

import cv2
import numpy as np


def tinted(amount: np.ndarray, colour) -> np.ndarray:
    """An amount (rows, columns) times a colour (3,): float32 (rows, columns, 3)."""
    amount = amount.astype(np.float32, copy=False)
    return cv2.merge([amount * np.float32(c) for c in colour])


def mix(target: np.ndarray, alpha: np.ndarray, colour: np.ndarray) -> None:
    """Move ``target`` towards a colour (3,), or an image of colours, by ``alpha`` (rows, columns), in place."""
    alpha = alpha.astype(np.float32, copy=False)
    colour = np.asarray(colour)
    rest = 1 - alpha
    target *= cv2.merge([rest, rest, rest])
    target += tinted(alpha, colour) if colour.ndim == 1 else cv2.merge([alpha, alpha, alpha]) * colour


def darken(target: np.ndarray, amount: np.ndarray, tint: tuple[float, float, float]) -> None:
    """Multiply ``target`` by 1 - amount * tint, in place."""
    amount = amount.astype(np.float32, copy=False)
    target *= cv2.merge([1 - amount * np.float32(t) for t in tint])
