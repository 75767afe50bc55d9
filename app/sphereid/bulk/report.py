"""What became of every file of an import: a journal while it runs, a report when it is done."""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from sphereid.storage.encrypted_files import PLAIN, EncryptedFiles

Outcome = Literal["enrolled", "present", "left_out"]


@dataclass(frozen=True, slots=True)
class Line:
    """One file. reason, detail: why it was left out. face: its id. resembles: another identity that the face
    is near to."""

    file: str
    identity: str
    outcome: Outcome
    reason: str = ""
    detail: str = ""
    face: str = ""
    resembles: str = ""


class Journal:
    """Lines in the order in which they became true. On disk they survive the death of the process: whoever
    opens the file again goes on behind the last whole line."""

    def __init__(self, path: Path | None = None, files: EncryptedFiles = PLAIN) -> None:
        """path: where the lines go; None keeps them in memory. files: how they lie there."""
        self._files = files
        self._memory: list[Line] = []
        self._file: IO[bytes] | None = None
        self.path = path
        self.seen: set[str] = set()
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.resembling = 0
        if path is None:
            return
        whole = 0
        if path.is_file():
            with path.open("rb") as old:
                for raw in old:
                    line = self._read(raw)
                    if line is None:
                        break
                    whole += len(raw)
                    self._count(line)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def add(self, lines: list[Line]) -> None:
        """Take down what became true."""
        for line in lines:
            self._count(line)
        if self._file is None:
            self._memory += lines
            return
        self._file.write(b"".join(self._files.line(json.dumps(asdict(line)).encode()) for line in lines))
        self._file.flush()

    def lines(self) -> Iterator[Line]:
        """All lines, from the first."""
        if self.path is None:
            yield from self._memory
            return
        with self.path.open("rb") as file:
            for raw in file:
                line = self._read(raw)
                if line is not None:
                    yield line

    def close(self) -> None:
        """Put it on the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def summary(self) -> dict[str, Any]:
        """Counts by outcome and by reason."""
        return {
            "files": self.outcomes.total(),
            "enrolled": self.outcomes["enrolled"],
            "present": self.outcomes["present"],
            "left_out": self.outcomes["left_out"],
            "reasons": dict(self.reasons.most_common()),
            "resembling": self.resembling,
        }

    def write_csv(self, path: Path) -> None:
        """The lines as a table."""
        with self._files.write_text(path) as file:
            table = csv.writer(file)
            table.writerow(Line.__dataclass_fields__)
            table.writerows([_harmless(value) for value in asdict(line).values()] for line in self.lines())

    def write_json(self, path: Path) -> None:
        """The summary and every line."""
        with self._files.write_text(path) as file:
            head = json.dumps(self.summary())
            file.write(head[:-1] + ', "lines": [')
            for i, line in enumerate(self.lines()):
                file.write(("," if i else "") + "\n" + json.dumps(asdict(line)))
            file.write("\n]}\n")

    def _count(self, line: Line) -> None:
        self.seen.add(line.file)
        self.outcomes[line.outcome] += 1
        if line.reason:
            self.reasons[line.reason] += 1
        self.resembling += bool(line.resembles)

    def _read(self, raw: bytes) -> Line | None:
        if not raw.endswith(b"\n"):
            return None
        try:
            return Line(**json.loads(self._files.content(raw)))
        except (ValueError, TypeError):
            return None


def _harmless(text: str) -> str:
    """Spreadsheets run cells that begin like a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
