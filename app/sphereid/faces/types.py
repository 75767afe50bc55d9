"""What travels through the pipeline: images, faces, crops and embeddings."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RGBImage = NDArray[np.uint8]
"""(H, W, 3) uint8, RGB, upright (EXIF orientation already applied)."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Quality:
    """How usable a face is for recognition.

    score: 0 (useless) to 1 (ideal). reasons: codes of what is wrong, empty when nothing is:
    `too_small`, `blurred`, `extreme_pose`, `low_contrast`, `clipped`.
    """

    score: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One detected face.

    box_xyxy: (4,) float32, left, top, right, bottom in pixels of the upright image; may reach outside it.
    score: the detector's face probability in [0, 1].
    landmarks: (5, 2) float32, pixels; image-left eye, image-right eye, nose, image-left and image-right
    mouth corner.
    quality: None until it was assessed.
    """

    box_xyxy: FloatArray
    score: float
    landmarks: FloatArray
    quality: Quality | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A face as a point on the unit hypersphere.

    vector: (D,) float32 with L2 norm 1. contract: names the model digest and preprocessing that made it;
    vectors of different contracts are not comparable.
    """

    vector: FloatArray
    contract: str
