"""Augmentation of aligned faces: one affine warp that also resizes, then cheap photometric changes."""

import cv2
import numpy as np
from numpy.typing import NDArray
from sphereid.faces.align import TEMPLATES, similarity_transforms

from sphereid_training.config import AugmentConfig
from sphereid_training.data.store import CANVAS

VIEWS: dict[str, str] = {
    "112x96": "sphereface-112x96",
    "112x96-upper": "sphereface-upper-112x96",
    "112x96-wide": "sphereface-wide-112x96",
    "112x112": "arcface-112x112",
    "150x150": "dlib-150x150",
}
"""What a network may see of the canvas, by the template that the service aligns to for it."""


CUT = 0.35
"""The widest black band of a cut face, as a share of its height or width."""


def view_size(template: str, pool: int) -> tuple[int, int]:
    """(H, W) in pixels of what the network sees."""
    full = TEMPLATES[VIEWS[template]]
    return full.height // pool, full.width // pool


def to_canvas(template: str, pool: int = 1) -> NDArray[np.float64]:
    """(2, 3) matrix from the pixels of a view, each `pool` by `pool` of the template's, to the canvas'."""
    canvas, view = TEMPLATES["canvas-128x128"].array, TEMPLATES[VIEWS[template]].array
    onto_view = similarity_transforms(canvas[None], view)[0]
    matrix = np.linalg.inv(np.vstack([onto_view, [0, 0, 1]]))[:2]
    center_of_first = np.array([[pool, 0, (pool - 1) / 2], [0, pool, (pool - 1) / 2], [0, 0, 1]])
    onto_canvas: NDArray[np.float64] = matrix @ center_of_first
    return onto_canvas


def center_view(canvases: NDArray[np.uint8], template: str, pool: int = 1) -> NDArray[np.uint8]:
    """(N, 128, 128, 3) canvases to (N, H, W, 3) crops without augmentation, 2×2-averaged when pool is 2."""
    height, width = view_size(template, pool)
    matrix = to_canvas(template, pool)
    out = np.empty((len(canvases), height, width, 3), np.uint8)
    for canvas, target in zip(canvases, out, strict=True):
        _sample(canvas, matrix, target)
    return out


def augment(
    canvases: NDArray[np.uint8], config: AugmentConfig, template: str, pool: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """(N, 128, 128, 3) canvases to (N, H, W, 3) augmented uint8 views. All randomness comes from `rng`."""
    height, width = view_size(template, pool)
    matrix = to_canvas(template, pool)
    out = np.empty((len(canvases), height, width, 3), np.uint8)
    draws = rng.random((len(canvases), 19))
    for canvas, u, target in zip(canvases, draws, out, strict=True):
        _sample(canvas, _jittered(matrix, u[:6], config), target)
        target[:] = _photometric(target, u[6:], config)
    return out


def blend(
    canvases: NDArray[np.uint8], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """About `share` of (N, 128, 128, 3) canvases mixed with another of them, and (N,) which ones.

    Both have their eyes and mouth at the same places, so the mean of two faces is a face of nobody. Weights
    are uniform in [0, 1], as mixup's (Zhang et al., ICLR 2018) with α = 1.
    """
    chosen = rng.random(len(canvases)) < share
    partner = (np.arange(len(canvases)) + rng.integers(1, max(2, len(canvases)))) % len(canvases)
    weight = rng.random(len(canvases))
    blended = canvases.copy()
    for i in np.flatnonzero(chosen):
        cv2.addWeighted(canvases[i], weight[i], canvases[partner[i]], 1 - weight[i], 0, dst=blended[i])
    return blended, chosen


def _jittered(
    matrix: NDArray[np.float64], u: NDArray[np.float64], config: AugmentConfig
) -> NDArray[np.float64]:
    """`matrix` followed by a flip, a scale, a rotation about the canvas center and a shift."""
    sx, sy, zoom, angle = 2 * u[:4] - 1
    scale = 1 + config.scale * zoom
    radians = np.deg2rad(config.rotation_degrees * angle)
    mirror = -1.0 if config.flip and u[4] < 0.5 else 1.0
    cos, sin = scale * np.cos(radians), scale * np.sin(radians)
    turn = np.array([[mirror * cos, -sin], [mirror * sin, cos]])
    center = (CANVAS - 1) / 2
    moved = turn @ matrix
    moved[:, 2] += center - turn @ (center, center) + (config.shift * sx, config.shift * sy)
    return moved


def _sample(canvas: NDArray[np.uint8], matrix: NDArray[np.float64], target: NDArray[np.uint8]) -> None:
    """Fill `target` (H, W, 3) with the canvas at `matrix` times each of its pixels."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (target.shape[1], target.shape[0])
    cv2.warpAffine(canvas, matrix, size, dst=target, flags=flags, borderMode=cv2.BORDER_REPLICATE)


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
    if u[10] < config.p_cut:
        # Turned so that the edge to cut comes first; a view, so the band lands in `face`.
        turned = np.rot90(face, int(4 * u[11]))
        turned[: int(len(turned) * CUT * u[12])] = 0
    return face
