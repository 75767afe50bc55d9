"""The quality gate: which faces are too poor to enroll or to name."""

from typing import Final

from sphereid.faces.types import Face
from sphereid.gallery.types import Strictness

__all__ = ["NORMAL", "Strictness", "gate"]

NORMAL: Final = frozenset({"too_small"})
"""What `normal` refuses: a face too small holds too little to tell people apart. The other reasons make a
match less sure but are better left to whoever enrolls, hence `strict`."""


def gate(face: Face, strictness: Strictness) -> list[str]:
    """The reason codes for which a face is refused; empty when it passes."""
    reasons = list(face.quality.reasons) if face.quality else []
    if strictness == "off":
        return []
    return reasons if strictness == "strict" else [reason for reason in reasons if reason in NORMAL]
