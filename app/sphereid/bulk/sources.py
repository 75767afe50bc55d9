"""Where photographs come from: a folder, a table, a tar or zip archive. Nothing is ever unpacked to disk."""

import bz2
import csv
import gzip
import json
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

from sphereid.bulk import names
from sphereid.bulk.errors import BulkError
from sphereid.faces.errors import ImageError
from sphereid.storage.encrypted_files import PLAIN, EncryptedFiles

MOST_MEMBERS: Final = 2_000_000
"""Entries of one archive, and bytes of a zip's directory divided by a hundred: it is read at once."""

EXPANSION: Final = 100
"""Times its own size that an archive may unpack to, beyond `FREE`: photographs hardly shrink."""

FREE: Final = 2**30

ROWS_A_FILE: Final = 4
FREE_ROWS: Final = 1000
"""A table in an archive may have so many rows for each file of the archive, and `FREE_ROWS` beside them."""

LARGEST_TABLE: Final = 64 * 2**20
"""Bytes of a table."""

BYTES_A_ROW: Final = 1 << 14
"""Of such a table, on average."""

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture to enroll, or why it cannot be one.

    key: names it in the report, unique in the source. identity: id of the person; name, metadata: of an
    identity that is made. fault: (code, text); then there is nothing to read.
    """

    key: str
    identity: str
    name: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    fault: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """entries: in the order in which they are best read. read: the bytes of one, at most one more than asked;
    raises ImageError, and needs an entry without fault."""

    entries: Sequence[Entry]
    read: Callable[[Entry, int], bytes]


@contextmanager
def open_source(path: Path, *, archive: bool = False, files: EncryptedFiles = PLAIN) -> Iterator[Source]:
    """What `path` holds: a folder of people's folders, a CSV, or a tar or zip archive of either.

    archive: take nothing but an archive (what was uploaded must not name files of this machine). disk: opens
    the file. Raises BulkError.
    """
    if path.is_dir() and not archive:
        yield _folder(path)
        return
    try:
        with files.read(path) as file:
            start = file.read(512)
    except OSError as error:
        raise BulkError("import_unreadable", f"it cannot be read: {error.strerror}") from error
    if start[:2] == b"PK":
        with _zip(path, files) as source:
            yield source
    elif start[:2] == b"\x1f\x8b" or start[:3] == b"BZh" or start[:6] == b"\xfd7zXZ\0" or b"ustar" in start:
        with _tar(path, files, start) as source:
            yield source
    elif not archive and path.suffix.lower() in (".csv", ".tsv"):
        yield _table(path)
    else:
        raise BulkError(
            "import_unreadable",
            "it is no tar or zip archive, and no Parquet file that an export wrote"
            + ("" if archive else "; nor is it a folder or a CSV table"),
        )


def _folder(root: Path) -> Source:
    paths: list[Parts] = []
    for folder, inner, files in os.walk(root):
        inner.sort()
        relative = Path(folder).relative_to(root).parts
        paths += [(*relative, file) for file in sorted(files)]
    entries = _by_folder(paths, strip=False)

    def read(entry: Entry, limit: int) -> bytes:
        return _read_file(root / entry.key, limit)

    return Source(entries, read)


def _table(path: Path) -> Source:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        text = file.read(LARGEST_TABLE + 1)
    if len(text) > LARGEST_TABLE:
        raise BulkError("import_too_large", f"a table may have at most {LARGEST_TABLE:,} characters")
    entries, files = _rows(text)

    def read(entry: Entry, limit: int) -> bytes:
        return _read_file(path.parent / files[entry.key], limit)

    return Source(entries, read)


def _read_file(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise ImageError("file_missing", f"the file cannot be read: {error.strerror}") from error


def _by_folder(paths: Sequence[Parts], *, strip: bool) -> list[Entry]:
    """Entries of files whose outermost folder names the person. strip: leave out folders around all."""
    known = [parts for parts in paths if not names.is_litter(parts)]
    around = names.common_folders(p for p in known if names.is_image(p[-1])) if strip else 0
    people = {parts: names.person_of(parts[around:]) for parts in known if len(parts) > around}
    ids = names.slugs(people[parts] for parts in people if names.is_image(parts[-1]))
    entries = []
    for parts in known:
        key = "/".join(parts)
        person = people.get(parts, "")
        if not names.is_image(parts[-1]):
            entries.append(Entry(key, "", fault=("not_an_image", "its name is none of a picture")))
        else:
            entries.append(Entry(key, ids[person], person.strip()[:200] or None))
    return entries


def _rows(text: str) -> tuple[list[Entry], dict[str, str]]:
    """Entries of a table's rows, and the file of each by its key."""
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    try:
        reader = csv.DictReader(text.splitlines(), delimiter=delimiter, strict=True)
        columns = {(column or "").strip().lower(): column for column in reader.fieldnames or ()}
        if "identity" not in columns or "file" not in columns:
            raise BulkError(
                "import_unreadable",
                "the table needs the columns `identity` and `file`, and may have `name`, `metadata` and "
                f"others; it has {', '.join(columns) or 'none'}",
            )
        rows = list(reader)
    except csv.Error as error:
        raise BulkError("import_unreadable", f"the table cannot be read: {error}") from error
    own = {"identity", "file", "name", "metadata"}
    more = {name: column for name, column in columns.items() if name and name not in own}
    ids = names.slugs((row[columns["identity"]] or "").strip() for row in rows)
    entries: list[Entry] = []
    files: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        person = (row[columns["identity"]] or "").strip()
        file = (row[columns["file"]] or "").strip().replace("\\", "/")
        key = file if file and file not in files else f"{file} (row {number})"
        files[key] = file
        fault = None
        details: dict[str, Any] = {}
        if not person or not file:
            fault = ("invalid_row", f"row {number} names no identity or no file")
        try:
            written = json.loads(row[columns["metadata"]] or "{}") if "metadata" in columns else {}
            if not isinstance(written, dict):
                raise ValueError("not an object")
            details = written | {name: row[c] for name, c in more.items() if row[c] not in (None, "")}
        except (ValueError, RecursionError):
            fault = ("invalid_row", f"row {number}: metadata is no JSON object")
        name = (row[columns["name"]] or "").strip()[:200] if "name" in columns else ""
        entries.append(Entry(key, ids[person], name or person[:200] or None, details, fault))
    return entries, files


def _from_archive(members: Sequence[tuple[str, str | None]], load: Callable[[str, int], bytes]) -> Source:
    """members: name and, where it cannot be used, why, of each file."""
    paths: dict[Parts, str] = {}
    faulty: list[Entry] = []
    for name, trouble in members:
        parts = names.safe_parts(name)
        key = "".join(c if c.isprintable() else "?" for c in name)[:300]
        if parts is None:
            faulty.append(Entry(key, "", fault=("unsafe_name", "the path leads out of the archive")))
        elif trouble is not None:
            faulty.append(Entry(key, "", fault=("not_a_file", trouble)))
        elif parts in paths:
            faulty.append(Entry(key, "", fault=("duplicate_name", "the archive has two files of this name")))
        else:
            paths[parts] = name
    tables = [parts for parts in paths if len(parts) == 1 and parts[0].lower().endswith((".csv", ".tsv"))]
    if len(tables) == 1:
        most = FREE_ROWS + ROWS_A_FILE * len(paths)
        written = load(paths[tables[0]], min(most * BYTES_A_ROW, LARGEST_TABLE))
        if len(written) > min(most * BYTES_A_ROW, LARGEST_TABLE) or written.count(b"\n") > most + 1:
            raise BulkError(
                "import_too_large",
                f"the table {'/'.join(tables[0])} has over {most:,} rows, for {len(paths):,} files: "
                "name each photograph once",
            )
        listed, files = _rows(written.decode("utf-8-sig", "replace"))
        entries = []
        place: dict[str, str] = {}
        for entry in listed:
            parts = names.safe_parts(files[entry.key])
            if entry.fault is None and (parts is None or parts not in paths):
                entry = Entry(
                    entry.key, entry.identity, fault=("file_missing", "the archive has no such file")
                )
            elif entry.fault is None and parts is not None:
                place[entry.key] = paths[parts]
            entries.append(entry)
        order = {name: i for i, name in enumerate(paths.values())}
        entries.sort(key=lambda e: order.get(place.get(e.key, ""), -1))  # as they lie in the archive
        return Source(faulty + entries, lambda entry, limit: load(place[entry.key], limit))
    entries = _by_folder(list(paths), strip=True)
    originals = {"/".join(parts): name for parts, name in paths.items()}
    return Source(faulty + entries, lambda entry, limit: load(originals[entry.key], limit))


def _budget(path: Path) -> int:
    return FREE + EXPANSION * path.stat().st_size


def _bomb() -> BulkError:
    return BulkError(
        "import_too_large",
        f"it unpacks to over {EXPANSION} times its size, or has over {MOST_MEMBERS:,} files: "
        "import smaller archives of photographs",
    )


@contextmanager
def _zip(path: Path, files: EncryptedFiles) -> Iterator[Source]:
    if _directory_size(path, files) > 100 * MOST_MEMBERS:
        raise _bomb()
    try:
        file = files.read(path)
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise BulkError("import_unreadable", f"it is no whole zip archive: {error}") from error
    with file, archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        if len(infos) > MOST_MEMBERS or sum(info.file_size for info in infos) > _budget(path):
            raise _bomb()
        by_name = {info.filename: info for info in infos}

        def load(name: str, limit: int) -> bytes:
            try:
                with archive.open(by_name[name]) as member:
                    return member.read(limit + 1)
            except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
                raise ImageError("image_broken", f"the archive is damaged here: {error}") from error
            except (NotImplementedError, RuntimeError) as error:
                raise ImageError("image_broken", f"the archive cannot be read here: {error}") from error

        yield _from_archive([(info.filename, _zip_trouble(info)) for info in infos], load)


def _zip_trouble(info: zipfile.ZipInfo) -> str | None:
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "it is a link or another special file"
    return "it is encrypted" if info.flag_bits & 1 else None


def _directory_size(path: Path, files: EncryptedFiles) -> int:
    """What a zip's last record says about the size of its directory, in bytes; 0 where there is none."""
    with files.read(path) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 65_600))
        tail = file.read()
        place = tail.rfind(b"PK\x05\x06")
        if place < 0 or len(tail) < place + 20:
            return 0
        size = int.from_bytes(tail[place + 12 : place + 16], "little")
        record = tail.rfind(b"PK\x06\x06", 0, place)
        if size == 0xFFFFFFFF and record >= 0:
            size = int.from_bytes(tail[record + 40 : record + 48], "little")
        return size


class _Guarded:
    """A file for tarfile that hands out no more at once than a header of reasonable length takes, and no more
    in all than the budget: tarfile believes what headers say about their length."""

    def __init__(self, file: IO[bytes], most: int, error: BulkError) -> None:
        self._file, self._most, self._error = file, most, error

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 2**20 or self._file.tell() > self._most:
            raise self._error
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if offset > self._most:
            raise self._error
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _opened(file: IO[bytes], start: bytes) -> IO[bytes]:
    """The tar in a file that may be compressed."""
    opened: Any
    if start[:2] == b"\x1f\x8b":
        opened = gzip.open(file)  # noqa: SIM115
    elif start[:3] == b"BZh":
        opened = bz2.open(file)  # noqa: SIM115
    elif start[:6] == b"\xfd7zXZ\0":
        opened = lzma.open(file)  # noqa: SIM115
    else:
        opened = file
    return cast("IO[bytes]", opened)


@contextmanager
def _tar(path: Path, files: EncryptedFiles, start: bytes) -> Iterator[Source]:
    broken = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, OverflowError)
    with files.read(path) as file, _opened(file, start) as opened:
        guarded: Any = _Guarded(opened, _budget(path), _bomb())
        members: list[tarfile.TarInfo] = []
        try:
            archive = tarfile.open(fileobj=guarded, mode="r:")  # noqa: SIM115 - closes with `opened`
            for count, member in enumerate(archive):
                if count >= MOST_MEMBERS:
                    raise _bomb()
                if not member.isdir():
                    members.append(member)
        except broken as error:
            raise BulkError("import_unreadable", f"it is no whole tar archive: {error}") from error
        places = {member.name: member for member in members}

        def load(name: str, limit: int) -> bytes:
            member = places[name]
            try:
                opened.seek(member.offset_data)
                return opened.read(min(member.size, limit + 1))
            except broken as error:
                raise ImageError("image_broken", f"the archive is damaged here: {error}") from error

        yield _from_archive([(m.name, _tar_trouble(m)) for m in members], load)


def _tar_trouble(member: tarfile.TarInfo) -> str | None:
    return None if member.isreg() and not member.issparse() else "it is a link or another special file"
