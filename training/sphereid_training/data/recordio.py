"""MXNet RecordIO (`train.rec` with `train.idx`), as CASIA-WebFace, MS1MV3 and Glint360K are handed around,
without MXNet."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from sphereid_training.errors import TrainingError

_MAGIC: Final = 0xCED7230A
_HEADER: Final = struct.Struct("<IfQQ")


@dataclass(frozen=True, slots=True)
class Record:
    """One image. key: its number in the index. labels: as stored, the identity first. data: encoded image."""

    key: int
    labels: tuple[float, ...]
    data: bytes


class RecordFile:
    """Random access to the images of a .rec file by their number."""

    def __init__(self, rec: Path) -> None:
        """Raises TrainingError when the file or the .idx beside it can't be read."""
        self._rec = rec
        self._offset = dict(_read_index(rec.with_suffix(".idx")))
        try:
            self._file = rec.open("rb")
        except OSError as error:
            raise TrainingError(f"{rec} cannot be read: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, key: int) -> Record:
        """One record. Raises TrainingError when it is damaged."""
        return _read(self._file, self._rec, key, self._offset[key])

    def __iter__(self) -> Iterator[Record]:
        """Every image in the order of the index.

        InsightFace's sets open with a record without image that says where images end and identities begin;
        it and the identities' own records are left out.
        """
        last = None
        for key in self._offset:
            record = self.read(key)
            if key == 0 and not record.data:
                last = int(record.labels[0])
            elif last is not None and key >= last:
                return
            elif record.data:
                yield record


def _read_index(path: Path) -> list[tuple[int, int]]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return sorted((int(line.split()[0]), int(line.split()[1])) for line in lines if line.strip())
    except OSError as error:
        raise TrainingError(f"{path} must lie beside the .rec file: {error.strerror}") from None
    except (ValueError, IndexError):
        raise TrainingError(f"{path} is not a RecordIO index (lines of NUMBER and OFFSET)") from None


def _read(file: BinaryIO, rec: Path, key: int, offset: int) -> Record:
    """One record. Its parts, split where the payload held the magic number, are joined by that number
    again."""
    file.seek(offset)
    parts: list[bytes] = []
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise TrainingError(f"{rec} ends inside record {key}: the file did not arrive whole")
        magic, word = struct.unpack("<II", head)
        if magic != _MAGIC:
            raise TrainingError(f"{rec} has no record {key} at byte {offset}: wrong file or index")
        kind, length = word >> 29, word & (1 << 29) - 1
        part = file.read(length)
        if len(part) < length:
            raise TrainingError(f"{rec} ends inside record {key}: the file did not arrive whole")
        file.seek(-length % 4, 1)
        parts.append(part)
        if kind in (0, 3):
            break
    payload = struct.pack("<I", _MAGIC).join(parts)
    if len(payload) < _HEADER.size:
        raise TrainingError(f"{rec}: record {key} is too short for an image header")
    flag, label, _, _ = _HEADER.unpack_from(payload)
    if flag == 0:
        return Record(key, (label,), payload[_HEADER.size :])
    end = _HEADER.size + 4 * flag
    if len(payload) < end:
        raise TrainingError(f"{rec}: record {key} announces {flag} labels and is too short for them")
    return Record(key, struct.unpack_from(f"<{flag}f", payload, _HEADER.size), payload[end:])
