"""Draw what was found on a picture: boxes, landmarks and names, readable at any size."""

import colorsys
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from sphereid.faces.types import FloatArray, RGBImage

Color = tuple[int, int, int]
Boxes = NDArray[np.int_]
UNKNOWN_COLOR: Final[Color] = (150, 150, 150)
_SMALLEST_TEXT: Final = 12
_LONGEST_LABEL: Final = 40
_WEIGHT: Final = 500


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """One face to draw.

    box_xyxy: (4,) pixels. label: text beside the box, in any script; empty for none. similarity: shown after
    it. identity: decides the color, the same in every picture; None draws in grey. landmarks: (5, 2) pixels,
    drawn when given. color: RGB, in place of the identity's own.
    """

    box_xyxy: FloatArray
    label: str = ""
    similarity: float | None = None
    identity: str | None = None
    landmarks: FloatArray | None = None
    color: Color | None = None

    @property
    def text(self) -> str:
        """The label, on one line and not too long, with its similarity."""
        label = " ".join(self.label.split())
        if len(label) > _LONGEST_LABEL:
            label = label[: _LONGEST_LABEL - 1] + "…"
        return label if self.similarity is None else f"{label} {self.similarity:.2f}".strip()


def annotate(image: RGBImage, marks: Sequence[Mark]) -> RGBImage:
    """A copy of the image with every mark drawn on it.

    image: (H, W, 3) uint8 RGB. Lines and text grow with the picture and the face. A label stands above or
    below its box, where it hides least of the other faces and labels, and inside of the picture.
    """
    canvas = image.copy()
    line = max(1, round(min(canvas.shape[:2]) / 300))
    boxes = np.array([mark.box_xyxy for mark in marks], dtype=np.float32).round().reshape(-1, 4).astype(int)
    for mark, (left, top, right, bottom) in zip(marks, boxes.tolist(), strict=True):
        color = mark.color or identity_color(mark.identity)
        cv2.rectangle(canvas, (left, top), (right, bottom), color, line)
        for x, y in mark.landmarks if mark.landmarks is not None else ():
            center = (round(float(x)), round(float(y)))
            cv2.circle(canvas, center, max(1, (right - left) // 50), color, cv2.FILLED, cv2.LINE_AA)
    # Labels come last, so that no box crosses a name.
    taken = boxes
    for mark, box in zip(marks, boxes, strict=True):
        if not mark.text:
            continue
        size = int(
            np.clip((box[2] - box[0]) / 6, _SMALLEST_TEXT, max(_SMALLEST_TEXT, min(canvas.shape[:2]) / 24))
        )
        tile = label_tile(mark.text, size, mark.color or identity_color(mark.identity))
        place = _best_place(box, tile.shape, taken, canvas.shape, line)
        canvas[place[1] : place[3], place[0] : place[2]] = tile[: place[3] - place[1], : place[2] - place[0]]
        taken = np.vstack([taken, place])
    return canvas


def identity_color(identity: str | None) -> Color:
    """A bright RGB color that depends on nothing but the identity; grey for None."""
    if identity is None:
        return UNKNOWN_COLOR
    digest = hashlib.sha256(identity.encode()).digest()
    hue = int.from_bytes(digest[:2]) / 65536
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75 + digest[2] / 1024, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _best_place(box: Boxes, tile: tuple[int, ...], taken: Boxes, canvas: tuple[int, ...], line: int) -> Boxes:
    """(4,) left, top, right, bottom of the label inside of the canvas that covers least of `taken`."""
    high, wide = min(tile[0], canvas[0]), min(tile[1], canvas[1])
    gap = line // 2 + 1
    left, top, right, bottom = box.tolist()
    corners = np.array(
        [
            (x, y)
            for y in (top - high - gap, bottom + gap)
            for x in (left, right - wide, (left + right - wide) // 2)
        ]
    )
    corners = np.clip(corners, 0, (canvas[1] - wide, canvas[0] - high))
    places = np.hstack([corners, corners + np.array([wide, high])])
    shared = np.minimum(places[:, None, 2:], taken[:, 2:]) - np.maximum(places[:, None, :2], taken[:, :2])
    covered = np.prod(np.maximum(shared, 0), axis=2).sum(axis=1)
    return np.asarray(places[covered.argmin()])


@lru_cache(maxsize=256)
def label_tile(text: str, size: int, background: Color) -> RGBImage:
    """Text of any script on a color, (h, w, 3) uint8 RGB, black or white by what stands out more.

    size: of the letters, pixels. Cached, because a video shows the same names in every frame, and read-only.
    """
    face = cv2.FontFace("sans")
    pad = max(2, size // 4)
    _, _, wide, _ = cv2.getTextSize((0, 0), text, (0, 0), face, size, _WEIGHT)
    tile = np.full((round(1.25 * size) + pad, wide + 2 * pad, 3), background, dtype=np.uint8)
    cv2.putText(tile, text, (pad, pad // 2 + size), _ink_on(background), face, size, _WEIGHT)
    tile.flags.writeable = False
    return tile


def _ink_on(background: Color) -> Color:
    """Black or white, whichever has the higher contrast ratio of WCAG 2.2 on the background."""
    linear = (np.array(background) / 255) ** 2.2
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 1.05 * 0.05 else (255, 255, 255)
