"""Names on frames, and the timeline picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from sphereid.faces.annotate import Mark, annotate, label_tile
from sphereid.faces.types import RGBImage
from sphereid.gallery.types import Identity
from sphereid.storage.encrypted_files import PLAIN, EncryptedFiles
from sphereid.video.colors import OUTLIER, rgb
from sphereid.video.segments import Segment
from sphereid.video.types import Shown

_WHITE: Final = (255, 255, 255)
_TEXT: Final = 14
_ROW: Final = 34
_FOOT: Final = 34


class Painter:
    """Draws the faces of frames in the colors of their identities; outliers in grey, without a name."""

    def __init__(self, names: Mapping[str, str], colors: Mapping[str, str]) -> None:
        self._names = names
        self._colors = {identity: rgb(color) for identity, color in colors.items()}

    def paint(self, image: RGBImage, faces: Sequence[Shown]) -> RGBImage:
        """A copy of `image`, (H, W, 3) uint8 RGB, with the faces drawn; named ones on top."""
        ordered = sorted(faces, key=lambda face: face.identity is not None)
        return annotate(image, [self._mark(face) for face in ordered])

    def _mark(self, face: Shown) -> Mark:
        box = np.array(face.box, dtype=np.float32)
        if face.identity is None:
            return Mark(box, color=rgb(OUTLIER))
        name = self._names.get(face.identity, face.identity)
        return Mark(box, name, identity=face.identity, color=self._colors.get(face.identity))


def write_timeline(
    path: Path,
    segments: Sequence[Segment],
    duration: float,
    identities: Mapping[str, Identity],
    colors: Mapping[str, str],
    *,
    width: int = 1200,
    files: EncryptedFiles = PLAIN,
) -> None:
    """Write a PNG with a row of bars for each person over the video's seconds; outliers share the last."""
    present: dict[str | None, float] = {}
    for segment in segments:
        present[segment.identity] = present.get(segment.identity, 0.0) + segment.end - segment.start
    rows = sorted(present, key=lambda who: (who is None, -present[who], str(who)))
    labels = [label_tile(_name(who, identities), _TEXT, _WHITE) for who in rows] or [
        label_tile("no faces", _TEXT, _WHITE)
    ]
    left = max(label.shape[1] for label in labels) + 20
    span = max(duration, 1e-3)
    scale = (width - left - 24) / span
    height = 12 + _ROW * len(labels) + _FOOT
    picture = np.full((height, width, 3), 255, dtype=np.uint8)

    step = _tick(span)
    for second in np.arange(0.0, span + 1e-9, step):
        x = round(left + float(second) * scale)
        cv2.line(picture, (x, 8), (x, height - _FOOT), (225, 225, 225))
        mark = label_tile(_clock(float(second), step), 12, _WHITE)
        _put(picture, mark, x - mark.shape[1] // 2, height - _FOOT + 6)
    for row, label in enumerate(labels):
        _put(picture, label, left - 10 - label.shape[1], 12 + row * _ROW + (_ROW - label.shape[0]) // 2)
    row_of = {who: row for row, who in enumerate(rows)}
    for segment in segments:
        y = 12 + row_of[segment.identity] * _ROW
        x0 = round(left + segment.start * scale)
        x1 = max(round(left + min(segment.end, span) * scale), x0 + 1)
        color = OUTLIER if segment.identity is None else colors[segment.identity]
        picture[y + 6 : y + _ROW - 6, x0:x1] = rgb(color)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    files.put(path, encoded.tobytes())


def _name(who: str | None, identities: Mapping[str, Identity]) -> str:
    name = "outliers" if who is None else identities[who].name if who in identities else who
    name = " ".join(name.split())
    return name if len(name) <= 28 else name[:27] + "…"


def _put(picture: RGBImage, tile: RGBImage, x: int, y: int) -> None:
    x = max(0, min(x, picture.shape[1] - tile.shape[1]))
    target = picture[y : y + tile.shape[0], x : x + tile.shape[1]]
    target[:] = tile[: target.shape[0], : target.shape[1]]


def _tick(span: float) -> float:
    """Seconds between marks: the first round number that gives at most twelve of them."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
    return float(next((step for step in steps if span / step <= 12), span / 12))


def _clock(seconds: float, step: float) -> str:
    if step < 1:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
