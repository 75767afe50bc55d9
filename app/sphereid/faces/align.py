"""From landmarks to aligned crops: one similarity transform a face, onto a model's template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sphereid.faces.types import FloatArray, RGBImage


@dataclass(frozen=True, slots=True)
class Template:
    """Where the five landmarks of an aligned face lie.

    points: five (x, y) in pixels, 0-based, in the landmark order of `Face`. height, width: of the crop.
    """

    points: tuple[tuple[float, float], ...]
    height: int
    width: int

    @property
    def array(self) -> FloatArray:
        """(5, 2) float32."""
        return np.asarray(self.points, dtype=np.float32)

    def shifted(self, dx: float, dy: float, height: int, width: int) -> "Template":
        """The same face on another canvas, moved by (dx, dy) pixels."""
        return Template(tuple((x + dx, y + dy) for x, y in self.points), height, width)

    def scaled(self, factor: float) -> "Template":
        """The same crop with `factor` times as many pixels a side; pixel centers count, not corners."""
        points = tuple(((x + 0.5) * factor - 0.5, (y + 0.5) * factor - 0.5) for x, y in self.points)
        return Template(points, round(factor * self.height), round(factor * self.width))


# Liu et al., SphereFace (CVPR 2017), the released face alignment script. Its points are MATLAB's, which
# count from 1; ours count from 0.
_SPHEREFACE: Final = Template(
    ((30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655), (62.7299, 92.2041)),
    height=112,
    width=96,
).shifted(-1, -1, 112, 96)
_ARCFACE: Final = _SPHEREFACE.shifted(8, 0, 112, 112)
_CANVAS: Final = _ARCFACE.shifted(8, 8, 128, 128)

TEMPLATES: Final[Mapping[str, Template]] = MappingProxyType(
    {
        "sphereface-112x96": _SPHEREFACE,
        "arcface-112x112": _ARCFACE,
        # The training canvas: the 112x112 face at [8:120, 8:120], the 112x96 face at [8:120, 16:112], with
        # eight pixels around for shift, scale and rotation.
        "canvas-128x128": _CANVAS,
        # Two more patches for an ensemble, as large as the first: brows to upper lip at one and a half times
        # the size, and the middle of the whole canvas with hair, chin and ears.
        "sphereface-upper-112x96": _SPHEREFACE.scaled(1.5).shifted(-24, -15, 112, 96),
        "sphereface-wide-112x96": _CANVAS.scaled(0.875).shifted(-8, 0, 112, 96),
        # The same points read as 0-based, which is how InsightFace aligned the faces of its models.
        "insightface-112x112": _SPHEREFACE.shifted(9, 1, 112, 112),
        # For the face descriptor of dlib, which wants the chip that dlib cuts by its own points: where those
        # of MTCNN lie in these chips on average (LFW View 1, development training set), made symmetric.
        "dlib-150x150": Template(
            ((47.44, 45.96), (102.56, 45.96), (75.0, 78.31), (50.57, 106.42), (99.43, 106.42)), 150, 150
        ),
    }
)


def similarity_transforms(landmarks: ArrayLike, template: ArrayLike) -> NDArray[np.float64]:
    """The similarity transforms that bring landmarks nearest to a template in the least-squares sense.

    The closed form of Umeyama (PAMI 1991) in two dimensions: with points as complex numbers and both sets
    centered, rotation and scale are the single complex number a = Σ conj(p) q / Σ |p|², and the shift is
    mean(q) - a mean(p). It never mirrors.

    landmarks: (N, K, 2) pixels of the image, K >= 2. template: (K, 2) pixels of the crop.
    Returns (N, 2, 3) float64 matrices from image to crop. Landmarks that all coincide have no scale: their
    matrix sends the whole image to the template's center. Raises ValueError on values that are not finite.
    """
    source = np.asarray(landmarks, dtype=np.float64)
    target = np.asarray(template, dtype=np.float64)
    if source.ndim != 3 or source.shape[1:] != target.shape or target.shape[1:] != (2,):
        raise ValueError(
            f"landmarks {source.shape} do not fit a template {target.shape}: want (N, K, 2), (K, 2)"
        )
    if not np.isfinite(source).all():
        raise ValueError("landmarks must be finite")
    p = source[..., 0] + 1j * source[..., 1]
    q = target[:, 0] + 1j * target[:, 1]
    p_mean = p.mean(axis=1)
    p = p - p_mean[:, None]
    spread = (p.real**2 + p.imag**2).sum(axis=1)
    a = (p.conj() * (q - q.mean())).sum(axis=1) / np.where(spread > 1e-12, spread, np.inf)
    t = q.mean() - a * p_mean
    matrices = np.empty((len(source), 2, 3))
    matrices[:, 0] = np.stack([a.real, -a.imag, t.real], axis=1)
    matrices[:, 1] = np.stack([a.imag, a.real, t.imag], axis=1)
    return matrices


def align(image: RGBImage, landmarks: FloatArray | Sequence[FloatArray], template: Template) -> RGBImage:
    """Aligned crops of one image's faces.

    image: (H, W, 3) uint8. landmarks: (N, 5, 2) pixels. Returns (N, height, width, 3) uint8, black where the
    crop reaches outside the image; N may be 0. A face at least twice as large as its crop is averaged down
    first, so that the fine texture of a large photograph does not turn into noise.
    """
    crops = np.empty((len(landmarks), template.height, template.width, 3), dtype=np.uint8)
    if len(landmarks) == 0:
        return crops
    size = template.width, template.height
    for crop, matrix in zip(crops, similarity_transforms(landmarks, template.array), strict=True):
        source, from_source = _shrunk(image, matrix, size)
        cv2.warpAffine(source, from_source, size, dst=crop, flags=cv2.INTER_LINEAR)
    return crops


def _shrunk(
    image: RGBImage, matrix: NDArray[np.float64], size: tuple[int, int]
) -> tuple[RGBImage, NDArray[np.float64]]:
    """The part of the image that a crop of `size` (width, height) shows, averaged over k by k pixels.

    k is the largest whole number that still leaves the part no smaller than the crop. Returns the part and
    the (2, 3) matrix from it to the crop; image and matrix as they are where k is 1.
    """
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale > 0.5 or scale < 1e-6:  # no smaller than half its size, or no transform at all
        return image, matrix
    k = int(min(1 / scale, *image.shape[:2]))
    turn, shift = matrix[:, :2], matrix[:, 2]
    corners = np.array([(x, y) for x in (-1, size[0]) for y in (-1, size[1])])
    reach = (corners - shift) @ np.linalg.inv(turn).T
    limits = np.array([image.shape[1], image.shape[0]])
    first = np.clip(np.floor(reach.min(axis=0)), 0, limits - k).astype(int)
    count = (np.clip(np.ceil(reach.max(axis=0)), first + k, limits).astype(int) - first) // k
    x, y = first
    part = image[y : y + count[1] * k, x : x + count[0] * k]
    small = cv2.resize(part, (int(count[0]), int(count[1])), interpolation=cv2.INTER_AREA)
    # Pixel i of the small part stands for the image's pixels first + k i ... first + k i + k - 1.
    center = turn @ (first + (k - 1) / 2) + shift
    return np.asarray(small, dtype=np.uint8), np.column_stack([turn * k, center])
