"""Encryption at rest: AES-256 in Galois/counter mode (NIST SP 800-38D), from the package `cryptography`.

A value is sealed as one version byte, a random nonce of 12 bytes, the ciphertext and its tag of 16. A file is
sealed in chunks, each bound to the file, its place and whether it is the last one, so that none can be
exchanged, moved or left out.
"""

import base64
import binascii
import io
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO, Final

from sphereid.storage.errors import StorageError

KEY_BYTES: Final = 32
OVERHEAD: Final = 29
"""Bytes that a sealed value is longer."""

_VERSION: Final = b"\x01"
_NONCE: Final = 12
_FILE_MAGIC: Final = b"SPHEREID-SEALED\x02"
_FILE_ID: Final = 16
_START: Final = len(_FILE_MAGIC) + _FILE_ID
_CHUNK: Final = 1 << 18
_PROOF: Final = b"sphereid"


class Vault:
    """Seals and opens with one key. Thread-safe."""

    def __init__(self, key: bytes) -> None:
        """key: 32 bytes."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._cipher = AESGCM(key)

    @classmethod
    def from_text(cls, text: str) -> "Vault":
        """The key as 64 hexadecimal digits or as base64 of 32 bytes. Raises StorageError."""
        plain = text.strip()
        for decode in (bytes.fromhex, lambda value: base64.b64decode(value, validate=True)):
            try:
                key = decode(plain)
            except (ValueError, binascii.Error):
                continue
            if len(key) == KEY_BYTES:
                return cls(key)
        raise StorageError(
            "an encryption key is 32 bytes as 64 hexadecimal digits or base64: make one with "
            "`openssl rand -hex 32`"
        )

    @classmethod
    def from_file(cls, path: Path) -> "Vault":
        """The key as text in a file. Raises StorageError."""
        try:
            return cls.from_text(path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"cannot read the encryption key from {path}: {error}") from error

    def seal(self, plain: bytes, bound: bytes | None = None) -> bytes:
        """bound: what the value belongs to; it opens with the same only."""
        nonce = os.urandom(_NONCE)
        return _VERSION + nonce + self._cipher.encrypt(nonce, plain, bound)

    def open(self, sealed: bytes, bound: bytes | None = None) -> bytes:
        """Raises StorageError where it was sealed with another key, or changed."""
        from cryptography.exceptions import InvalidTag

        nonce, body = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        if sealed[:1] != _VERSION or len(sealed) < OVERHEAD:
            raise StorageError("this is not encrypted, or by a newer SphereID")
        try:
            return self._cipher.decrypt(nonce, body, bound)
        except InvalidTag as error:
            raise StorageError("the encryption key does not fit, or the data was changed") from error

    def proof(self) -> bytes:
        """By which `fits` recognizes the key."""
        return self.seal(_PROOF)

    def fits(self, proof: bytes) -> bool:
        try:
            return self.open(proof) == _PROOF
        except StorageError:
            return False


class SealedFile(io.RawIOBase):
    """A file that is encrypted on its way to the disk, or decrypted on its way back; it can be sought in.

    Each chunk lies at a place that follows from its number, so that a video, an archive or a table is read
    where it is needed, and an index that comes last can be written first. What is written is whole once the
    file is closed; until then, and where the end is missing, it does not open.
    """

    def __init__(self, vault: Vault, file: BinaryIO, *, writing: bool = False) -> None:
        """file: opened for reading, or empty and opened for writing and reading; it is closed with this one.
        Raises StorageError where it is none that was sealed, and so does every read where key or content
        do not fit."""
        super().__init__()
        self._vault = vault
        self._file = file
        self._writing = writing
        self._place = self._size = 0
        self._chunk = bytearray()
        self._number = 0
        self._dirty = writing
        if writing:
            self._id = os.urandom(_FILE_ID)
            file.write(_FILE_MAGIC + self._id)
            return
        start = file.read(_START)
        if len(start) < _START or not start.startswith(_FILE_MAGIC):
            raise StorageError("this file is not encrypted")
        self._id = start[len(_FILE_MAGIC) :]
        self._size = self._plain_size()
        self._load(0)

    def _plain_size(self) -> int:
        sealed = self._file.seek(0, os.SEEK_END) - _START
        chunks, rest = divmod(sealed, _CHUNK + OVERHEAD)
        if 0 < rest < OVERHEAD or not sealed:
            raise StorageError("an encrypted file is cut off")
        return chunks * _CHUNK + max(0, rest - OVERHEAD)

    @property
    def _last(self) -> int:
        """Number of the last chunk."""
        return max(0, self._size - 1) // _CHUNK

    def _load(self, number: int) -> None:
        """Make a chunk the current one."""
        self._store()
        self._number, self._chunk = number, bytearray()
        if number * _CHUNK >= self._size and (self._writing or number):
            return
        self._file.seek(_START + number * (_CHUNK + OVERHEAD))
        sealed = self._file.read(_CHUNK + OVERHEAD)
        last = not self._writing and number == self._last
        self._chunk += self._vault.open(sealed, _bound(self._id, number, last))

    def _store(self, *, last: bool = False) -> None:
        if self._dirty:
            sealed = self._vault.seal(bytes(self._chunk), _bound(self._id, self._number, last))
            self._file.seek(_START + self._number * (_CHUNK + OVERHEAD))
            self._file.write(sealed)
            self._dirty = False

    def readable(self) -> bool:
        return not self._writing

    def writable(self) -> bool:
        return self._writing

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._place >= self._size:
            return 0
        number, start = divmod(self._place, _CHUNK)
        if number != self._number:
            self._load(number)
        piece = self._chunk[start : start + len(buffer)]
        buffer[: len(piece)] = piece
        self._place += len(piece)
        return len(piece)

    def write(self, data: Any) -> int:
        number, start = divmod(self._place, _CHUNK)
        if self._place > self._size:
            raise io.UnsupportedOperation("a sealed file has no holes")
        if number != self._number:
            self._load(number)
        piece = bytes(memoryview(data).cast("B")[: _CHUNK - start])
        self._chunk[start : start + len(piece)] = piece
        self._dirty = True
        self._place += len(piece)
        self._size = max(self._size, self._place)
        return len(piece)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._writing:
                if self._number != self._last:
                    self._load(self._last)
                self._dirty = True
                self._store(last=True)
        finally:
            self._file.close()
            super().close()


def is_sealed(path: Path) -> bool:
    """Whether a file was written by `SealedFile`."""
    with path.open("rb") as file:
        return file.read(len(_FILE_MAGIC)) == _FILE_MAGIC


def _bound(file_id: bytes, count: int, last: bool) -> bytes:
    return file_id + struct.pack(">Q?", count, last)
