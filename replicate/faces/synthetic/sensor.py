"""From radiance to a photograph: exposure, tone, blur, resolution, noise, compression."""

from dataclasses import dataclass

import cv2
import numpy as np

from . import noise


@dataclass(frozen=True)
class Sensor:
    """How the photograph is taken. ``brightness`` is the face's wanted mean in [0, 1]; blurs are in pixels of a 256-pixel image."""

    brightness: float
    gamma: float
    contrast: float
    balance: np.ndarray
    saturation: float
    vignette: float
    defocus: float
    motion: float
    motion_angle: float
    shrink: float
    grain: float
    grain_scale: int
    quality: int
    haze: float
    sharpen: float


def photograph(radiance: np.ndarray, sensor: Sensor, rng: np.random.Generator, metered: float) -> np.ndarray:
    """Turn linear RGB into an 8-bit photograph.

    Parameters
    ----------
    radiance : ndarray of float32, shape (size, size, 3)
        Is overwritten.
    sensor : Sensor
    rng : Generator
    metered : float
        Mean luminance that the exposure is set by.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
    """
    size = radiance.shape[0]
    if sensor.motion > 1:
        radiance = cv2.filter2D(
            radiance, -1, _motion_kernel(sensor.motion, sensor.motion_angle), borderType=cv2.BORDER_REFLECT
        )
    if sensor.defocus > 0.25:
        radiance = cv2.GaussianBlur(radiance, (0, 0), sensor.defocus)
    small = radiance
    if sensor.shrink < 0.95:
        side = max(int(size * sensor.shrink), 24)
        small = cv2.resize(radiance, (side, side), interpolation=cv2.INTER_AREA)
    image = _tone(small, sensor, metered)
    if sensor.sharpen > 0.05:
        image += np.float32(sensor.sharpen) * (image - cv2.GaussianBlur(image, (0, 0), 1.0))
    if sensor.grain > 0.001:
        tile = noise.smooth_tile(sensor.grain_scale) if sensor.grain_scale else noise.white_tile()
        grain = noise.window(tile, rng, image.shape[0], image.shape[1]) * np.float32(sensor.grain * 255)
        if sensor.saturation == 0:
            grain = grain[..., :1]
        image = image + grain
    pixels = cv2.convertScaleAbs(np.maximum(image, 0))
    if sensor.quality < 100:
        _, code = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, sensor.quality])
        pixels = np.ascontiguousarray(cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1])
    if pixels.shape[0] != size:
        pixels = cv2.resize(
            pixels, (size, size), interpolation=cv2.INTER_CUBIC if sensor.shrink > 0.4 else cv2.INTER_LINEAR
        )
    return pixels


def _tone(image: np.ndarray, sensor: Sensor, metered: float) -> np.ndarray:
    """Exposure, colour, vignette, tone curve: float32 in about [0, 255]."""
    side = image.shape[0]
    exposure = np.clip(sensor.brightness ** (1 / sensor.gamma) / max(metered, 1e-3), 0.4, 6.0)
    gain = (sensor.balance * exposure).astype(np.float32)
    if sensor.saturation < 0.99 or sensor.saturation > 1.01:
        grey = np.array([0.299, 0.587, 0.114])
        mix = (sensor.saturation * np.eye(3) + (1 - sensor.saturation) * grey[None]) * gain[None]
        image = cv2.transform(image, mix.astype(np.float32))
    else:
        image = image * gain
    if sensor.vignette > 0.02:
        place = np.linspace(-1, 1, side, dtype=np.float32) ** 2
        image = image * cv2.merge(
            [1 - np.float32(sensor.vignette * 0.5) * (place[:, None] + place[None])] * 3
        )
    image = np.maximum(image, 0)
    levels = np.linspace(0, 2, 1025)
    curve = levels**sensor.gamma
    curve = 0.5 + (curve - 0.5) * sensor.contrast
    curve = np.where(curve > 0.7, 0.7 + 0.28 * np.tanh((curve - 0.7) / 0.3), curve)  # highlights roll off
    curve = sensor.haze + (1 - sensor.haze) * curve
    table = (np.clip(curve, 0, 1) * 255).astype(np.float32)
    return table[np.minimum((image * np.float32(512)).astype(np.int32), 1024)]


def _motion_kernel(length: float, angle: float) -> np.ndarray:
    """Line kernel of a length in pixels and an angle in radians."""
    side = int(np.ceil(length)) | 1
    drawn = np.zeros((side, side), np.uint8)
    middle = (side - 1) / 2
    reach = (length - 1) / 2
    offset = np.array([np.cos(angle), np.sin(angle)]) * reach
    ends = [tuple(np.round((middle + s * offset) * 16).astype(int).tolist()) for s in (-1, 1)]
    cv2.line(drawn, ends[0], ends[1], 255, 1, cv2.LINE_AA, 4)
    kernel = drawn.astype(np.float32)
    return kernel / max(float(kernel.sum()), 1e-6)
