"""An index on disk, with the database revision that it belongs to.

A snapshot is one index file and, written after it, `snapshot.json` that names it: whichever moment the
process dies, `snapshot.json` names a whole file or there is no snapshot. The database stays the truth; a
snapshot only saves time.
"""

import hashlib
import io
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss

from sphereid.gallery.index.kinds import load_index
from sphereid.gallery.index.ports import VectorIndex
from sphereid.storage.errors import StorageError
from sphereid.storage.vault import SealedFile, Vault

_faiss: Any = faiss

log = logging.getLogger(__name__)

_HEADER = "snapshot.json"


@dataclass(frozen=True, slots=True)
class Header:
    """What `snapshot.json` says. entries: what the keys stand for, `faces` or `means`. sha256: of the index
    file."""

    file: str
    revision: int
    contract: str
    entries: str
    kind: str
    count: int
    sha256: str
    format: int = 1


class SnapshotFolder:
    """The snapshot of one gallery. The folder's name is a digest, because ids may differ in case alone."""

    def __init__(self, root: Path, gallery_id: str, vault: Vault | None = None) -> None:
        """vault: encrypts the index; the header stays readable."""
        self._vault = vault
        self.path = root / hashlib.sha256(gallery_id.encode()).hexdigest()[:24]

    def save(self, index: VectorIndex, *, revision: int, contract: str, entries: str) -> None:
        """Write the index and then the header, each whole before it gets its name. Raises OSError."""
        self.path.mkdir(parents=True, exist_ok=True)
        name = f"{revision}.faiss"
        part = self.path / (name + ".part")
        _write(index, part, self._vault)
        _sync(part)
        digest = _sha256(part)
        part.replace(self.path / name)
        header = Header(name, revision, contract, entries, index.kind, len(index), digest)
        part = self.path / (_HEADER + ".part")
        part.write_text(json.dumps(asdict(header), indent=1))
        _sync(part)
        part.replace(self.path / _HEADER)
        _sync(self.path)
        self._sweep(keep={name, _HEADER})

    def load(self, *, contract: str, entries: str) -> tuple[VectorIndex, int] | None:
        """The index and its revision; None where there is none, or none that fits or is intact."""
        try:
            header = Header(**json.loads((self.path / _HEADER).read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            log.warning("index snapshot header is unreadable, rebuilding from the database: %s", error)
            return None
        if header.format != 1 or header.contract != contract or header.entries != entries:
            return None
        file = self.path / Path(header.file).name
        try:
            if _sha256(file) != header.sha256:
                log.warning("index snapshot %s is damaged, rebuilding from the database", header.file)
                return None
            index = _read(file, self._vault)
        except (OSError, RuntimeError, StorageError) as error:
            log.warning("index snapshot cannot be read, rebuilding from the database: %s", error)
            return None
        return (index, header.revision) if len(index) == header.count else None

    def drop(self) -> None:
        """Remove it from the disk; nothing happens where there is none."""
        self._sweep(keep=set())

    def _sweep(self, keep: set[str]) -> None:
        if not self.path.is_dir():
            return
        # The header first: a header without its file costs a warning, the other way round nothing is left
        # behind.
        for file in sorted(self.path.iterdir(), key=lambda f: f.name != _HEADER):
            if file.name not in keep:
                file.unlink(missing_ok=True)
        if not keep:
            self.path.rmdir()


def _write(index: VectorIndex, path: Path, vault: Vault | None) -> None:
    if vault is None:
        index.save(path)
        return
    with io.BufferedWriter(SealedFile(vault, path.open("w+b"), writing=True), 1 << 20) as sealed:
        index.save(_faiss.PyCallbackIOWriter(sealed.write))


def _read(path: Path, vault: Vault | None) -> VectorIndex:
    if vault is None:
        return load_index(path)
    with io.BufferedReader(SealedFile(vault, path.open("rb")), 1 << 20) as sealed:
        return load_index(_faiss.PyCallbackIOReader(sealed.read))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
