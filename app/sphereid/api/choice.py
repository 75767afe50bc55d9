"""Which face of an image is meant."""

from collections.abc import Sequence
from typing import Final

from sphereid.api import schemas as s
from sphereid.api.problems import Problem
from sphereid.faces.types import Face

OVERLAP: Final = 0.25
"""Least intersection over union of the box that a client names and the face that it means."""


def choose(faces: Sequence[Face], which: s.FaceChoice, box: s.FaceBox | None = None) -> int:
    """The place of the face that is meant. faces: largest first. Raises Problem `face_not_found`,
    `multiple_faces`."""
    if not faces:
        raise Problem("face_not_found", "no face was found: send a picture in which one is clearly visible")
    if box is not None:
        overlaps = [_overlap(face, box) for face in faces]
        if max(overlaps) < OVERLAP:
            raise Problem(
                "face_not_found",
                f"none of the {len(faces)} faces found lies in the box; ask /v1/detect for theirs",
            )
        return overlaps.index(max(overlaps))
    if len(faces) > 1 and which == "only":
        raise Problem(
            "multiple_faces",
            f"{len(faces)} faces were found: send a picture of one person, or ask for face=largest; an "
            "enrollment may also say which one with box",
        )
    return 0


def _overlap(face: Face, box: s.FaceBox) -> float:
    """Intersection over union, 0 to 1."""
    left, top, right, bottom = (float(v) for v in face.box_xyxy)
    width = min(right, box.x + box.width) - max(left, box.x)
    height = min(bottom, box.y + box.height) - max(top, box.y)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((right - left) * (bottom - top) + box.width * box.height - shared)
