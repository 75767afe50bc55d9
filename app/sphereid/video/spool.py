"""The working file of an analysis: one JSON line a frame, so that an interrupted one can go on."""

import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import IO, Any, Self

import numpy as np

from sphereid.storage.encrypted_files import PLAIN, EncryptedFiles
from sphereid.storage.errors import StorageError
from sphereid.video.types import Sighting


@dataclass(frozen=True, slots=True, eq=False)
class AnalyzedFrame:
    """sightings: None for a frame in which no faces were searched."""

    index: int
    time: float
    sightings: tuple[Sighting, ...] | None


class Spool:
    """Appends frames to a file whose first line says what they belong to. It holds embeddings: delete it."""

    def __init__(self, path: Path, header: Mapping[str, Any], files: EncryptedFiles = PLAIN) -> None:
        """Goes on with the file at `path` when its header is the same, begins it anew otherwise; `resumed`
        says which."""
        self.path = path
        self._files = files
        self._flushed = monotonic()
        expected = json.dumps(header, sort_keys=True).encode()
        self.resumed = _resumable(path, expected, files)
        if self.resumed:
            os.truncate(path, _last_line_end(path))
            self._file: IO[bytes] = path.open("ab")
        else:
            self._file = path.open("wb")
            self._file.write(files.line(expected))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, frame: AnalyzedFrame) -> None:
        """Write a frame; within about a second it is safe from the end of this process."""
        row: dict[str, Any] = {"i": frame.index, "t": frame.time}
        if frame.sightings is not None:
            row["faces"] = [_row(sighting) for sighting in frame.sightings]
        self._file.write(self._files.line(json.dumps(row, separators=(",", ":")).encode()))
        if monotonic() - self._flushed > 1.0:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._file.flush()
        self._flushed = monotonic()

    def frames(self) -> Iterator[AnalyzedFrame]:
        """The frames so far, in order."""
        self.flush()
        with self.path.open("rb") as file:
            next(file)
            for line in file:
                row = json.loads(self._files.content(line))
                faces = row.get("faces")
                sightings = None if faces is None else tuple(_sighting(face) for face in faces)
                yield AnalyzedFrame(row["i"], row["t"], sightings)


def _row(sighting: Sighting) -> list[Any]:
    vector = None
    if sighting.vector is not None:
        vector = base64.b64encode(sighting.vector.astype("<f2").tobytes()).decode()
    box = [round(edge, 1) for edge in sighting.box]
    return [box, round(sighting.score, 4), round(sighting.quality, 4), sighting.chain, sighting.part, vector]


def _sighting(row: list[Any]) -> Sighting:
    box, score, quality, chain, part, text = row
    vector = None
    if text is not None:
        vector = np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float32)
        vector /= max(float(np.linalg.norm(vector)), 1e-12)
    left, top, right, bottom = box
    return Sighting((left, top, right, bottom), score, quality, chain, part, vector)


def _resumable(path: Path, header: bytes, files: EncryptedFiles) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline()
    try:
        return first.endswith(b"\n") and files.content(first) == header
    except (ValueError, StorageError):
        return False


def _last_line_end(path: Path) -> int:
    """Where the last complete line ends: a process that was killed may have left half a one behind it."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0
