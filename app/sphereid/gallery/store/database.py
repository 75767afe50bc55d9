"""One database by URL: connections, transactions, schema upgrades. All that is SQLite's own stands here."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from sphereid.storage.errors import StorageError, StorageFullError, is_full
from sphereid.storage.read_write_lock import ReadWriteLock
from sphereid.storage.vault import Vault

_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE})
"""SQLite's codes for a write that found no room; a file at its largest allowed size gives an I/O error."""

REVISIONS = Path(__file__).parent / "migrations" / "versions"
"""One file a version of the schema, `NNNN_subject.py`; Alembic's revision is the number."""

BUSY_TIMEOUT_MS = 10_000

SCRUB_WAIT_S = 1.0

_WRITE = {"sphereid_write": True}


class Database:
    """Connections to one database. `reading` and `writing` give a transaction; errors come out as
    StorageError.

    SQLite runs in WAL mode, so that readers and the writer don't wait for each other, with synchronous=FULL:
    the log is synced at every commit, so that what was answered survives `kill -9` and, as far as the disk
    keeps what it says it has, a power cut. secure_delete overwrites what is deleted with zeros.
    """

    def __init__(self, url: str, vault: Vault | None = None) -> None:
        """vault: encrypts embeddings and pictures on their way to the disk."""
        self.vault = vault
        try:
            self.url = make_url(url)
        except ArgumentError as error:
            raise StorageError(f"not a database URL: {error}; try sqlite:///data/gallery.db") from error
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._one_writer = threading.Lock() if self.is_sqlite else nullcontext()
        self._gate = ReadWriteLock()
        self._inside = threading.local()
        if self.is_sqlite and self.url.database in (None, "", ":memory:"):
            raise StorageError("the gallery needs a database on disk: sqlite:///data/gallery.db")
        try:
            if self.is_sqlite:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                self.engine = create_engine(
                    self.url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000}, pool_size=8, max_overflow=-1
                )
                _speak_sqlite(self.engine)
            else:
                self.engine = create_engine(self.url, pool_pre_ping=True)
        except (OSError, ImportError, SQLAlchemyError) as error:
            raise StorageError(f"cannot open the database: {error}") from error
        self.engine.dialect.sphereid_vault = vault  # type: ignore[attr-defined]  # column types see this alone

    @classmethod
    def existing(cls, url: str) -> "Database":
        """One that is there already. Raises StorageError otherwise, where opening would make it."""
        database = cls(url)
        if database.is_sqlite and not database.file.is_file():
            database.close()
            raise StorageError(f"there is no gallery at {database.file}; is SPHEREID_DATA_DIR right?")
        return database

    @property
    def file(self) -> Path:
        """SQLite's main file."""
        return Path(str(self.url.database))

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one moment of the database. Keep it short: `scrub` waits for it."""
        depth = getattr(self._inside, "depth", 0)
        self._inside.depth = depth + 1
        try:
            with (
                nullcontext() if depth else self._gate.reading(),
                _as_storage_error(),
                self.engine.connect() as connection,
                connection.begin(),
            ):
                yield connection
        finally:
            self._inside.depth = depth

    @contextmanager
    def writing(self, *, synced: bool = True) -> Iterator[Connection]:
        """A transaction that is durable when the block ends without an error, and undone otherwise.

        synced: False leaves out waiting for the disk with SQLite: `kill -9` takes nothing back, a power cut
        may, until `sync` or the next synced write. Nobody else's write waits for the disk then.
        """
        with _as_storage_error(), self._one_writer, self.engine.connect() as connection:
            connection = connection.execution_options(**_WRITE)
            haste = self._unsynced(connection) if self.is_sqlite and not synced else nullcontext()
            with haste, connection.begin():
                yield connection

    @contextmanager
    def _unsynced(self, connection: Connection) -> Iterator[None]:
        cursor = connection.connection.cursor()
        cursor.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.close()

    def sync(self) -> None:
        """Wait until all that was written is on the disk, while others go on writing."""
        if not self.is_sqlite:
            return
        with _as_storage_error(), suppress(FileNotFoundError):
            # SQLite holds no locks on its log, so that closing it here takes none away.
            log = os.open(self.file.with_name(self.file.name + "-wal"), os.O_RDONLY)
            try:
                os.fsync(log)
            finally:
                os.close(log)

    def upgrade(self) -> None:
        """Bring the schema to this version's; StorageError where a newer version wrote the database."""
        newest = max(file.name[:4] for file in REVISIONS.glob("[0-9]*.py"))
        with _as_storage_error():
            with self.reading() as connection:
                current = _revision(connection)
            if current != newest:
                from sphereid.gallery.store.schema import (
                    migrate,  # Alembic takes a tenth of a start that seldom needs it
                )

                with self.writing() as connection:
                    migrate(connection, _revision(connection))

    def scrub(self) -> bool:
        """Empty SQLite's write-ahead log, which may still hold what was deleted. It needs a moment without
        readers: new ones wait for it, and it gives up, with False, on one that takes `SCRUB_WAIT_S`. False
        with other databases too, which keep deleted rows until they clean up by themselves."""
        if not self.is_sqlite:
            return False
        with _as_storage_error(), self._one_writer, self._gate.writing(SCRUB_WAIT_S) as alone:
            if not alone:
                return False
            raw = self.engine.raw_connection()
            try:
                blocked, _, _ = raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                raw.close()
        return not blocked

    def copy_to(self, file: Path) -> None:
        """SQLite only: write one moment of the database to a new file, packed, while writes go on."""
        with _as_storage_error(), self._gate.reading():
            raw = self.engine.raw_connection()
            try:
                raw.cursor().execute("VACUUM INTO ?", (str(file),))
            except sqlite3.Error as error:
                raise StorageError(f"cannot write {file.name}: {error}") from error
            finally:
                raw.close()

    def check(self) -> None:
        """Raises StorageError where the database doesn't answer."""
        with self.reading() as connection:
            connection.execute(text("SELECT 1 FROM galleries LIMIT 1"))

    def close(self) -> None:
        self.engine.dispose()


def _speak_sqlite(engine: Engine) -> None:
    """Settings of every connection, and transactions that begin as readers or as the one writer."""

    def connected(raw: Any, _record: object) -> None:
        raw.isolation_level = None  # the driver would begin late and always as a reader
        cursor = raw.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA secure_delete = ON")
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.close()

    def begun(connection: Connection) -> None:
        write = connection.get_execution_options().get("sphereid_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)


def _revision(connection: Connection) -> str | None:
    """The schema's version, where Alembic keeps it; None in a database without tables."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


@contextmanager
def _as_storage_error() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        if getattr(cause, "sqlite_errorcode", None) in _FULL or getattr(cause, "sqlstate", None) == "53100":
            raise StorageFullError from error
        raise StorageError(f"the database refused: {type(cause).__name__}: {cause}") from error
    except OSError as error:
        if is_full(error):
            raise StorageFullError from error
        raise StorageError(f"the data folder refused: {error.strerror or error}") from error
