"""One stable color an identity."""

import colorsys
import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from app.gallery.types import Identity

OUTLIER: Final = "#9e9e9e"
"""The grey of faces that nobody was named for."""

_HEX: Final = re.compile(r"#[0-9a-fA-F]{6}")
_HUES: Final = 12


def _palette() -> tuple[str, ...]:
    """Hues 30 degrees apart, then the same hues lighter, then darker."""
    colors = []
    for value, saturation in ((0.90, 0.85), (0.98, 0.50), (0.60, 0.90)):
        for hue in range(_HUES):
            channels = colorsys.hsv_to_rgb(hue / _HUES, saturation, value)
            colors.append("#" + "".join(f"{round(255 * channel):02x}" for channel in channels))
    return tuple(colors)


PALETTE: Final = _palette()


def rgb(color: str) -> tuple[int, int, int]:
    """`#rrggbb` as numbers from 0 to 255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def ink_on(color: str) -> str:
    """Black or white, whichever stands out more on `color` (WCAG 2 relative luminance)."""
    linear = [
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in (value / 255 for value in rgb(color))
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "#ffffff"


def assign_colors(identities: Iterable[Identity]) -> dict[str, str]:
    """`#rrggbb` for each identity id: the `color` of its metadata, else a place in the palette.

    The place follows from the id, so that an identity keeps its color from video to video; where two of one
    video fall on the same place, the later by id moves on to the next free one.
    """
    colors: dict[str, str] = {}
    wanting = []
    for identity in sorted(identities, key=lambda identity: identity.id):
        color = identity.metadata.get("color")
        if isinstance(color, str) and _HEX.fullmatch(color):
            colors[identity.id] = color.lower()
        else:
            wanting.append(identity.id)
    used = set(colors.values())
    for name in wanting:
        start = int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "big")
        # The first hues are the most different: prefer them, then their lighter and darker sisters.
        order = [
            PALETTE[shade * _HUES + (start + offset) % _HUES]
            for shade in range(len(PALETTE) // _HUES)
            for offset in range(_HUES)
        ]
        color = next((c for c in order if c not in used), order[0])
        colors[name] = color
        used.add(color)
    return colors
