"""From the names in folders and archives to identities."""

import hashlib
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


def safe_parts(name: str) -> tuple[str, ...] | None:
    """A member's path in parts; None where it is absolute, leads upwards, or cannot be a name."""
    plain = name.replace("\\", "/")
    if plain.startswith("/") or "\0" in plain or plain[1:3] == ":/":
        return None
    parts = tuple(part for part in plain.split("/") if part not in ("", "."))
    return None if ".." in parts or not parts else parts


def is_litter(parts: tuple[str, ...]) -> bool:
    """What systems leave in folders: nobody wants to read about it."""
    return parts[0] == "__MACOSX" or parts[-1].startswith(".") or parts[-1] in ("Thumbs.db", "desktop.ini")


def is_image(name: str) -> bool:
    """Whether a file's name says that it is a picture."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def common_folders(paths: Iterable[tuple[str, ...]]) -> int:
    """How many folders all images lie in that can be no person's, because folders follow in all of them."""
    shared: tuple[str, ...] | None = None
    for path in paths:
        folders = path[:-1]
        room = folders[:-1]  # the last folder is somebody's
        shared = room if shared is None else shared[: _equal(shared, room)]
        if not shared:
            return 0
    return len(shared or ())


def person_of(parts: tuple[str, ...]) -> str:
    """Whose picture it is by its path: the outermost folder's, or its own name where it lies loose."""
    return parts[0] if len(parts) > 1 else PurePosixPath(parts[0]).stem


def slugs(names: Iterable[str]) -> dict[str, str]:
    """An identity's id for each name; different names get different ids."""
    wanted: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in sorted(set(names)):
        slug = slug_of(name)
        if taken.setdefault(slug, name) != name:
            slug = f"{slug[:53]}-{_digest(name)}"
            taken[slug] = name
        wanted[name] = slug
    return wanted


def slug_of(name: str) -> str:
    """A name as an id: letters without accents, digits, `.`, `_` and `-`."""
    letters = unicodedata.normalize("NFKD", name)
    letters = "".join(c for c in letters if not unicodedata.combining(c))
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in letters)
    plain = plain.strip("._-")[:64].rstrip("-")
    return plain if any(c.isalnum() for c in plain) else f"id-{_digest(name)}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]


def _equal(one: tuple[str, ...], two: tuple[str, ...]) -> int:
    for i, (a, b) in enumerate(zip(one, two, strict=False)):
        if a != b:
            return i
    return min(len(one), len(two))
