"""What is kept of a photograph so that another model can embed the face: its surroundings and landmarks."""

import cv2
import numpy as np

from sphereid.faces.align import TEMPLATES, similarity_transforms
from sphereid.faces.decode import DecodedImage
from sphereid.faces.errors import ImageError
from sphereid.faces.types import Face, FloatArray, RGBImage

SIDE = 384
"""Longest side of what is kept, in pixels: over twice what any template shows."""

_REACH = TEMPLATES["canvas-128x128"]  # the widest of the templates that share its points
_BEYOND = 0.08
"""Share of that template added on every side: room for templates that look a little further."""

_QUALITY = 95
_LANDMARKS = 5 * 2 * 4


def pack(image: DecodedImage | RGBImage, face: Face) -> bytes:
    """A face's surroundings as one opaque value: the landmarks, (5, 2) little-endian float32 in pixels of the
    picture that follows, then that picture as a JPEG of at most `SIDE` pixels a side.

    image: what the face was found in; with a DecodedImage the face counts in pixels of the original.
    """
    pixels, scale = (image.pixels, image.scale) if isinstance(image, DecodedImage) else (image, 1.0)
    landmarks = face.landmarks.astype(np.float64) * scale
    (matrix,) = similarity_transforms(landmarks[None], _REACH.array)
    more = _BEYOND * _REACH.width
    xs, ys = (-more, _REACH.width + more), (-more, _REACH.height + more)
    corners = np.array([(x, y) for x in xs for y in ys])
    reach = (corners - matrix[:, 2]) @ np.linalg.pinv(matrix[:, :2]).T
    size = np.array([pixels.shape[1], pixels.shape[0]])
    first = np.clip(np.floor(reach.min(axis=0)), 0, size - 1).astype(int)
    last = np.clip(np.ceil(reach.max(axis=0)) + 1, first + 1, size).astype(int)
    part = pixels[first[1] : last[1], first[0] : last[0]]
    landmarks -= first
    shrink = SIDE / max(part.shape[:2])
    if shrink < 1:
        width, height = (max(1, round(side * shrink)) for side in (part.shape[1], part.shape[0]))
        ratio = np.array([width / part.shape[1], height / part.shape[0]])
        part = np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        landmarks = (landmarks + 0.5) * ratio - 0.5
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        _QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(part, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ImageError("image_broken", "the crop could not be written as JPEG")
    return landmarks.astype("<f4").tobytes() + encoded.tobytes()


def picture(kept: bytes) -> bytes:
    """The JPEG file in what `pack` made."""
    return kept[_LANDMARKS:]


def unpack(kept: bytes) -> tuple[RGBImage, FloatArray]:
    """The picture (H, W, 3) uint8 RGB and the landmarks (5, 2) in it, from what `pack` made.

    Raises ImageError where it is something else.
    """
    picture = np.frombuffer(kept[_LANDMARKS:], np.uint8)
    pixels = cv2.imdecode(picture, cv2.IMREAD_COLOR_RGB) if picture.size else None
    if pixels is None:
        raise ImageError("image_broken", "a stored crop is damaged: enroll the photograph again")
    landmarks = np.frombuffer(kept[:_LANDMARKS], "<f4").reshape(5, 2).astype(np.float32)
    return np.asarray(pixels, np.uint8), landmarks
