"""Boxes and names on frames, and the timeline picture."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from app.gallery.types import Identity
from app.pipeline.types import RGBImage
from app.video.colors import OUTLIER, ink_on, rgb
from app.video.segments import Segment
from app.video.types import Shown

_NAME_LENGTH: Final = 40


class Painter:
    """Draws the faces of frames in the colors of their identities."""

    def __init__(self, names: Mapping[str, str], colors: Mapping[str, str]) -> None:
        self._names = names
        self._colors = colors
        self._label = lru_cache(maxsize=512)(_label)

    def paint(self, image: RGBImage, faces: Sequence[Shown]) -> None:
        """Draw onto `image`, (H, W, 3) uint8 RGB, in place: outliers first, so that names stay on top."""
        side = min(image.shape[:2])
        thickness = max(1, round(side / 240))
        size = max(11, round(side / 26))
        for face in sorted(faces, key=lambda face: face.identity is not None):
            known = face.identity
            color = OUTLIER if known is None else self._colors.get(known, OUTLIER)
            left, top, right, bottom = (round(edge) for edge in face.box)
            cv2.rectangle(image, (left, top), (right, bottom), rgb(color), thickness, cv2.LINE_AA)
            if known is not None:
                tile = self._label(self._names.get(known, known), color, size)
                _paste(image, tile, left - thickness // 2, top, bottom)


def _label(text: str, color: str, size: int) -> RGBImage:
    """A name on its color, (h, w, 3) uint8."""
    font = ImageFont.load_default(size)
    shown = text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "…"
    left, _, right, _ = font.getbbox(shown)
    pad = max(2, size // 5)
    tile = Image.new("RGB", (int(right - left) + 2 * pad, int(size * 1.15) + pad), color)
    ImageDraw.Draw(tile).text((pad - left, pad // 2), shown, fill=ink_on(color), font=font)
    return np.asarray(tile, dtype=np.uint8)


def _paste(image: RGBImage, tile: RGBImage, left: int, top: int, bottom: int) -> None:
    """Put a label above its box, or below where there is no room, wholly inside the picture if it fits."""
    height, width = image.shape[:2]
    h, w = tile.shape[:2]
    y = top - h if top - h >= 0 else min(bottom, height - h)
    x, y = max(0, min(left, width - w)), max(0, y)
    target = image[y : y + h, x : x + w]
    target[:] = tile[: target.shape[0], : target.shape[1]]


def write_timeline(
    path: Path,
    segments: Sequence[Segment],
    duration: float,
    identities: Mapping[str, Identity],
    colors: Mapping[str, str],
    *,
    width: int = 1200,
) -> None:
    """Write a PNG with a row of bars for each person over the video's seconds; outliers share the last."""
    order: dict[str | None, float] = {}
    for segment in segments:
        order[segment.identity] = order.get(segment.identity, 0.0) + segment.end - segment.start
    rows = sorted(order, key=lambda who: (who is None, -order[who]))
    font = ImageFont.load_default(15)
    names = [
        "outliers" if who is None else identities[who].name if who in identities else who for who in rows
    ]
    names = [n if len(n) <= 28 else n[:27] + "…" for n in names]
    gutter = max([int(font.getlength(name)) for name in names], default=60) + 24
    row_height, top = 34, 16
    height = top + row_height * max(len(rows), 1) + 40
    picture = Image.new("RGB", (width, height), "#ffffff")
    pen = ImageDraw.Draw(picture)
    span = max(duration, 1e-3)
    scale = (width - gutter - 24) / span

    step = _tick(span)
    ticks = np.arange(0.0, span + 1e-9, step)
    for second in ticks:
        x = gutter + second * scale
        pen.line([(x, top), (x, height - 34)], fill="#e3e3e3")
        pen.text((x, height - 26), _time(float(second), step), fill="#444444", font=font, anchor="ma")
    for row, (who, name) in enumerate(zip(rows, names, strict=True)):
        y = top + row * row_height
        pen.text((gutter - 12, y + row_height // 2), name, fill="#111111", font=font, anchor="rm")
        color = OUTLIER if who is None else colors[who]
        for segment in segments:
            if segment.identity == who:
                x0, x1 = gutter + segment.start * scale, gutter + min(segment.end, span) * scale
                pen.rectangle([x0, y + 6, max(x1, x0 + 1), y + row_height - 6], fill=color)
    if not rows:
        pen.text((gutter, top + row_height // 2), "no faces", fill="#444444", font=font, anchor="lm")
    picture.save(path, "PNG", optimize=True)


def _tick(span: float) -> float:
    """Seconds between marks: the first round number that gives at most twelve of them."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
    return float(next((step for step in steps if span / step <= 12), span / 12))


def _time(seconds: float, step: float) -> str:
    if step < 1:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
