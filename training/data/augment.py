"""Augmentation of aligned faces: one affine warp that also resizes, then cheap photometric changes."""

import cv2
import numpy as np
from numpy.typing import NDArray

from training.config import AugmentConfig
from training.data.store import BORDER, CANVAS

SIZES: dict[str, tuple[int, int]] = {"112x96": (112, 96), "112x112": (112, 112)}
"""(H, W) of the network's view, centred on the 128×128 canvas."""


def view_size(template: str, pool: int) -> tuple[int, int]:
    """(H, W) in pixels of what the network sees."""
    height, width = SIZES[template]
    return height // pool, width // pool


def center_view(canvases: NDArray[np.uint8], template: str, pool: int = 1) -> NDArray[np.uint8]:
    """(N, 128, 128, 3) canvases to (N, H, W, 3) crops without augmentation, 2×2-averaged when pool is 2."""
    height, width = SIZES[template]
    top, left = BORDER, (CANVAS - width) // 2
    view = canvases[:, top : top + height, left : left + width]
    if pool == 1:
        return np.ascontiguousarray(view)
    n = len(view)
    means = view.reshape(n, height // pool, pool, width // pool, pool, 3).astype(np.float32).mean(axis=(2, 4))
    rounded: NDArray[np.uint8] = np.rint(means).astype(np.uint8)
    return rounded


def augment(
    canvases: NDArray[np.uint8], config: AugmentConfig, template: str, pool: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """(N, 128, 128, 3) canvases to (N, H, W, 3) augmented uint8 views. All randomness comes from `rng`."""
    height, width = view_size(template, pool)
    out = np.empty((len(canvases), height, width, 3), np.uint8)
    draws = rng.random((len(canvases), 16))
    for canvas, u, target in zip(canvases, draws, out, strict=True):
        target[:] = _photometric(_warp(canvas, u[:6], config, height, width, pool), u[6:], config)
    return out


def _warp(
    canvas: NDArray[np.uint8],
    u: NDArray[np.float64],
    config: AugmentConfig,
    height: int,
    width: int,
    pool: int,
) -> NDArray[np.uint8]:
    """Flip, scale, rotate and shift about the canvas centre and sample on the output grid in one go."""
    sx, sy, zoom, angle = 2 * u[:4] - 1
    step = pool * (1 + config.scale * zoom)
    radians = np.deg2rad(config.rotation_degrees * angle)
    cos, sin = step * np.cos(radians), step * np.sin(radians)
    mirror = -1.0 if config.flip and u[4] < 0.5 else 1.0
    center = (CANVAS - 1) / 2
    cx, cy = (width - 1) / 2, (height - 1) / 2
    a, b, c, d = mirror * cos, -mirror * sin, sin, cos
    matrix = np.array(
        [
            [a, b, center + config.shift * sx - a * cx - b * cy],
            [c, d, center + config.shift * sy - c * cx - d * cy],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped: NDArray[np.uint8] = cv2.warpAffine(  # type: ignore[assignment]
        canvas, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return warped


def _photometric(face: NDArray[np.uint8], u: NDArray[np.float64], config: AugmentConfig) -> NDArray[np.uint8]:
    height, width = face.shape[:2]
    if u[0] < config.p_downscale:
        factor = config.downscale_min + (1 - config.downscale_min) * u[1]
        small = (max(4, int(width * factor)), max(4, int(height * factor)))
        reduced = cv2.resize(face, small, interpolation=cv2.INTER_AREA)
        face = cv2.resize(reduced, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    elif u[0] < config.p_downscale + config.p_blur:
        face = cv2.GaussianBlur(face, (0, 0), 0.3 + u[1] * height / 75)  # type: ignore[assignment]
    if u[2] < config.p_grey:
        face = cv2.cvtColor(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)  # type: ignore[assignment]
    if config.brightness or config.contrast:
        gain = 1 + config.contrast * (2 * u[3] - 1)
        shift = 128 * (1 - gain) + 128 * config.brightness * (2 * u[4] - 1)
        table = np.clip(np.arange(256) * gain + shift, 0, 255).astype(np.uint8)
        face = cv2.LUT(face, table)  # type: ignore[assignment]
    if u[5] < config.p_erase:
        h, w = int(height * (0.1 + 0.25 * u[6])), int(width * (0.1 + 0.25 * u[7]))
        y, x = int(u[8] * (height - h)), int(u[9] * (width - w))
        face[y : y + h, x : x + w] = face.mean(axis=(0, 1)).astype(np.uint8)
    return face
