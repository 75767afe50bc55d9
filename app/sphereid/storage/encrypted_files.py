"""Files that may hold faces: as they are, or encrypted where the service has a key."""

import base64
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TextIO, cast

from sphereid.storage.errors import StorageError
from sphereid.storage.vault import SealedFile, Vault, is_sealed

_MARK: Final = b"#"
"""Begins a line that is encrypted; JSON never begins so."""
_ROTATED: Final = ".rotated"
GROWING: Final = frozenset({"journal.jsonl", "analysis.part"})
"""Names of files that grow by lines."""


@dataclass(frozen=True, slots=True)
class EncryptedFiles:
    """Opens files of one folder tree. A file that was written before there was a key is read as it is.

    vault: encrypts what is written, whole files and single lines; None leaves everything plain. Every method
    raises StorageError where the key does not fit.
    """

    vault: Vault | None = None

    def plain(self, path: Path) -> bool:
        """Whether a file lies there as it is, so that others can read it."""
        return not is_sealed(path)

    def read(self, path: Path) -> BinaryIO:
        """Open a file; it can be sought in. Raises OSError."""
        if not is_sealed(path):
            return path.open("rb")
        if self.vault is None:
            raise StorageError(f"{path.name} is encrypted: set SPHEREID_ENCRYPTION_KEY to its key")
        return cast(BinaryIO, io.BufferedReader(SealedFile(self.vault, path.open("rb"))))

    def write(self, path: Path) -> BinaryIO:
        """Begin a file anew; it can be sought in. Raises OSError."""
        if self.vault is None:
            return path.open("wb")
        return cast(BinaryIO, io.BufferedWriter(SealedFile(self.vault, path.open("w+b"), writing=True)))

    def put(self, path: Path, content: bytes) -> None:
        """Write a whole file."""
        with self.write(path) as file:
            file.write(content)

    def read_text(self, path: Path) -> TextIO:
        """Open UTF-8 text, with line ends as they are."""
        return io.TextIOWrapper(self.read(path), encoding="utf-8", newline="")

    def write_text(self, path: Path) -> TextIO:
        """Begin UTF-8 text anew, with line ends as they are written."""
        return io.TextIOWrapper(self.write(path), encoding="utf-8", newline="")

    def line(self, content: bytes) -> bytes:
        """A line for a file that grows by lines, so that each is whole when the process dies.

        content: without a line end. The line has one.
        """
        if self.vault is not None:
            content = _MARK + base64.b64encode(self.vault.seal(content))
        return content + b"\n"

    def content(self, line: bytes) -> bytes:
        """What `line` was made of. Raises ValueError where it is cut off."""
        text = line.rstrip(b"\n")
        if not text.startswith(_MARK):
            return text
        if self.vault is None:
            raise StorageError("a line is encrypted: set SPHEREID_ENCRYPTION_KEY to its key")
        return self.vault.open(base64.b64decode(text[1:], validate=True))


PLAIN: Final = EncryptedFiles()


def rewrite(folder: Path, old: EncryptedFiles, new: EncryptedFiles) -> None:
    """Write every file under `folder` once more, beside itself, as `new` writes it; `settle` lets those take
    over that fit the key in use. Files that grow by lines are rewritten line by line."""
    for path in _files(folder):
        target = path.with_name(path.name + _ROTATED)
        if _grows(path):
            with path.open("rb") as source, target.open("wb") as lines:
                lines.writelines(new.line(old.content(line)) for line in source if line.endswith(b"\n"))
        else:
            with old.read(path) as whole, new.write(target) as copy:
                shutil.copyfileobj(whole, copy, 1 << 20)


def settle(folder: Path, files: EncryptedFiles) -> None:
    """End a `rewrite` that was completed or broken off: files under the key in use stay, others go."""
    if not folder.is_dir():
        return
    for path in sorted(folder.rglob(f"*{_ROTATED}")):
        if _opens(path, files):
            path.replace(path.with_name(path.name.removesuffix(_ROTATED)))
        else:
            path.unlink()


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != _ROTATED and path.name != "job.json":
            yield path


def _grows(path: Path) -> bool:
    return path.name.removesuffix(_ROTATED) in GROWING


def _opens(path: Path, files: EncryptedFiles) -> bool:
    """Whether a file is as `files` would have written it."""
    try:
        if _grows(path):
            with path.open("rb") as lines:
                first = lines.readline()
            if not first:
                return True
            return first.startswith(_MARK) == (files.vault is not None) and bool(files.content(first))
        if is_sealed(path) != (files.vault is not None):
            return False
        files.read(path).close()
    except (StorageError, ValueError):
        return False
    return True
