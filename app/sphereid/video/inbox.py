"""Faces of people whom nobody could name, on their way into a gallery's inbox."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np

from sphereid.faces.crops import pack
from sphereid.faces.types import Face, FloatArray, RGBImage
from sphereid.gallery.service import GalleryService
from sphereid.gallery.types import NewFace
from sphereid.recognition.quality_gate import gate
from sphereid.storage.encrypted_files import PLAIN, EncryptedFiles
from sphereid.storage.errors import StorageError
from sphereid.video.types import Sighting

log = logging.getLogger(__name__)

UNKNOWN: Final = frozenset({"below_threshold", "empty_gallery"})
"""Reasons of verdicts about somebody unknown; of others one cannot be sure."""
SEEN: Final = 3
"""Embedded faces of a track before it counts as somebody unknown."""
_BETTER: Final = 1.05


@dataclass(frozen=True, slots=True, eq=False)
class UnknownFace:
    """vector: (D,) float32 of L2 norm 1. quality, score: in [0, 1]. crop: as `sphereid.faces.crops.pack`
    makes it."""

    vector: FloatArray
    quality: float
    score: float
    crop: bytes

    @classmethod
    def of(cls, image: RGBImage, face: Face, vector: FloatArray) -> Self:
        """A face in a frame, (H, W, 3) uint8."""
        quality = face.quality.score if face.quality else 0.0
        return cls(vector, quality, face.score, pack(image, face))


class Inbox:
    """The inbox of one gallery, for what is seen in one source."""

    def __init__(self, service: GalleryService, gallery_id: str, contract: str, source: str | None) -> None:
        """source: what the inbox says of where faces were seen, at most 300 characters."""
        self._service = service
        self._gallery_id = gallery_id
        self._contract = contract
        self._source = source

    @property
    def open(self) -> bool:
        """Whether the gallery keeps unknown faces at all. Raises NotFoundError."""
        return self._service.unknowns.rules(self._gallery_id).keep

    def put(self, faces: Sequence[UnknownFace]) -> int:
        """Keep faces where the gallery allows it; how many were. A failure is logged, and stops nothing."""
        new = [
            NewFace(
                vector=face.vector,
                contract=self._contract,
                quality=face.quality,
                detection_score=face.score,
                source=self._source,
                crop=face.crop,
            )
            for face in faces
        ]
        try:
            return self._service.unknowns.keep(self._gallery_id, new)
        except StorageError as error:
            log.warning("%d unknown faces could not be kept: %s", len(new), error)
            return 0


class BestFaces:
    """The best embedded face of each part of a video, in a folder, until it is known who was unknown.

    The folder holds faces and embeddings: `clear` it. Faces too small for the inbox are left out.
    """

    def __init__(self, folder: Path, files: EncryptedFiles = PLAIN) -> None:
        """Goes on with what an interrupted analysis left in the folder."""
        self._folder = folder
        self._files = files
        folder.mkdir(exist_ok=True)
        self._quality = {int(path.stem): self._read(path).quality for path in folder.glob("*.npz")}

    def offer(self, image: RGBImage, faces: Sequence[Face], sightings: Sequence[Sighting]) -> None:
        """Look at a frame's faces and their sightings, in the same order."""
        for face, sighting in zip(faces, sightings, strict=True):
            better = sighting.quality > _BETTER * self._quality.get(sighting.part, -1.0)
            if sighting.vector is not None and better and not gate(face, "normal"):
                self._quality[sighting.part] = sighting.quality
                self._write(sighting.part, UnknownFace.of(image, face, sighting.vector))

    def of(self, part: int) -> UnknownFace | None:
        """The best face of a part; None where none was good enough."""
        return self._read(self._path(part)) if part in self._quality else None

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder)

    def _path(self, part: int) -> Path:
        return self._folder / f"{part}.npz"

    def _write(self, part: int, face: UnknownFace) -> None:
        path = self._path(part)
        half = path.with_suffix(".part")
        with self._files.write(half) as file:
            crop = np.frombuffer(face.crop, np.uint8)
            np.savez(file, vector=face.vector, numbers=np.array([face.quality, face.score]), crop=crop)
        half.replace(path)

    def _read(self, path: Path) -> UnknownFace:
        with self._files.read(path) as file, np.load(file) as kept:
            quality, score = (float(number) for number in kept["numbers"])
            return UnknownFace(kept["vector"], quality, score, kept["crop"].tobytes())
