"""One stable color an identity."""

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from sphereid.gallery.types import Identity

OUTLIER: Final = "#9e9e9e"
"""The grey of faces that nobody was named for."""

_HEX: Final = re.compile(r"#[0-9a-fA-F]{6}")
_BASE: Final = (
    "#e6382e",  # red
    "#2e7de6",  # blue
    "#2fb34a",  # green
    "#f2b01e",  # amber
    "#9b4de0",  # violet
    "#14b8c4",  # cyan
    "#f06fb4",  # pink
    "#a8642a",  # brown
    "#c3d92b",  # lime
    "#ff7f2a",  # orange
    "#5a5fd6",  # indigo
    "#0e8a6b",  # teal
)


def rgb(color: str) -> tuple[int, int, int]:
    """`#rrggbb` as numbers from 0 to 255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _mixed(color: str, gray: int) -> str:
    """Halfway to white (255) or black (0)."""
    return "#" + "".join(f"{(channel + gray) // 2:02x}" for channel in rgb(color))


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
        turned = [_BASE[(start + offset) % len(_BASE)] for offset in range(len(_BASE))]
        order = [*turned, *(_mixed(c, 255) for c in turned), *(_mixed(c, 0) for c in turned)]
        color = next((c for c in order if c not in used), order[0])
        colors[name] = color
        used.add(color)
    return colors
