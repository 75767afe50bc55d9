"""Encryption at rest: AES-256 in Galois/counter mode (NIST SP 800-38D), from the package `cryptography`.

A value is sealed as one version byte, a random nonce of 12 bytes, the ciphertext and its tag of 16. A file is
sealed in chunks, each bound to the file, its place and whether it is the last one, so that none can be
exchanged, moved or left out.
"""

import base64
import binascii
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from app.gallery.errors import StorageError

KEY_BYTES: Final = 32
OVERHEAD: Final = 29
"""Bytes that a sealed value is longer."""

_VERSION: Final = b"\x01"
_NONCE: Final = 12
_FILE_MAGIC: Final = b"SPHEREID-SEALED\x01"
_FILE_ID: Final = 16
_CHUNK: Final = 1 << 20
_LENGTH: Final = struct.Struct(">I?")
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


class SealedWriter:
    """A file that is encrypted on its way to the disk. Use it in a `with` block: the end seals the file."""

    def __init__(self, vault: Vault, file: BinaryIO) -> None:
        self._vault = vault
        self._file = file
        self._id = os.urandom(_FILE_ID)
        self._buffer = bytearray()
        self._count = 0
        file.write(_FILE_MAGIC + self._id)

    def write(self, data: bytes) -> int:
        self._buffer += data
        while len(self._buffer) > _CHUNK:
            self._flush(_CHUNK, last=False)
        return len(data)

    def _flush(self, size: int, last: bool) -> None:
        bound = _bound(self._id, self._count, last)
        sealed = self._vault.seal(bytes(self._buffer[:size]), bound)
        del self._buffer[:size]
        self._file.write(_LENGTH.pack(len(sealed), last) + sealed)
        self._count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush(len(self._buffer), last=True)


class SealedReader:
    """Reads what `SealedWriter` wrote. Every read raises StorageError where key or content don't fit."""

    def __init__(self, vault: Vault, file: BinaryIO) -> None:
        self._vault = vault
        self._file = file
        start = file.read(len(_FILE_MAGIC) + _FILE_ID)
        if not start.startswith(_FILE_MAGIC):
            raise StorageError("this file is not encrypted")
        self._id = start[len(_FILE_MAGIC) :]
        self._buffer = bytearray()
        self._count = 0
        self._done = False

    def read(self, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end."""
        while len(self._buffer) < size and not self._done:
            head = self._file.read(_LENGTH.size)
            if len(head) < _LENGTH.size:
                raise StorageError("an encrypted file is cut off")
            length, last = _LENGTH.unpack(head)
            bound = _bound(self._id, self._count, last)
            self._buffer += self._vault.open(self._file.read(length), bound)
            self._count += 1
            self._done = last
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data


def _bound(file_id: bytes, count: int, last: bool) -> bytes:
    return file_id + struct.pack(">Q?", count, last)
