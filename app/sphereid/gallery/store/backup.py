"""One consistent file of everything that the galleries hold, written while they serve, and the way back."""

import os
import shutil
import sqlite3
from pathlib import Path

from sphereid.gallery import audit
from sphereid.gallery.store.database import Database
from sphereid.storage.errors import StorageError
from sphereid.storage.folder_lock import FolderLock


def backup(database: Database, target: Path) -> None:
    """Write the database as it is at one moment to a new file; writes go on meanwhile. What was deleted is
    not in it. Raises StorageError where the file exists, can't be written, or the database isn't SQLite."""
    if not database.is_sqlite:
        raise StorageError("snapshots are for SQLite; use pg_dump for PostgreSQL")
    if target.exists():
        raise StorageError(f"{target.name} exists already; choose another file")
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        database.copy_to(part)
        _sync(part)
        part.replace(target)
        _sync(target.parent)
    except OSError as error:
        raise StorageError(f"cannot write {target.name}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def restore(source: Path, database_url: str, data_dir: Path, *, replace: bool = False) -> None:
    """Put a file that `backup` wrote in the place of the database; no process may use the folder. The indexes
    are built from it at the next start. Raises StorageError; then what was there is untouched.

    replace: allow it where a database is there, which is lost.
    """
    database = Database(database_url)
    if not database.is_sqlite:
        raise StorageError("snapshots are for SQLite; use pg_restore for PostgreSQL")
    database.close()
    _check(source)
    lock = FolderLock(data_dir)
    part = database.file.with_name(database.file.name + ".part")
    try:
        if database.file.exists() and not replace:
            raise StorageError(f"{database.file.name} exists: it is given up only with --replace")
        shutil.copyfile(source, part)
        _sync(part)
        # The old log must not meet the new file, and the old indexes hold faces that it may not have.
        for leftover in ("-wal", "-shm"):
            database.file.with_name(database.file.name + leftover).unlink(missing_ok=True)
        shutil.rmtree(data_dir / "index", ignore_errors=True)
        part.replace(database.file)
        _sync(database.file.parent)
        _note(database_url, data_dir)
    except OSError as error:
        raise StorageError(f"cannot restore: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
        lock.release()


def _note(database_url: str, data_dir: Path) -> None:
    """The audit log goes on where the snapshot's ends; its head of before does not fit it any more."""
    database = Database(database_url)
    try:
        database.upgrade()
        with database.writing() as tx:
            audit.record(tx, [audit.Event("restore")])
        audit.note_head(data_dir, audit.head_of(database))
    finally:
        database.close()


def _check(source: Path) -> None:
    if not source.is_file():
        raise StorageError(f"there is no file {source.name}")
    try:
        connection = sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)
        try:
            state = connection.execute("PRAGMA integrity_check").fetchone()[0]
            connection.execute("SELECT count(*) FROM galleries").fetchone()
            other = connection.execute(
                "SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index') "
                "OR sql LIKE 'CREATE VIRTUAL%' LIMIT 1"
            ).fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StorageError(f"{source.name} is no snapshot of a gallery: {error}") from error
    if other is not None:
        raise StorageError(
            f"{source.name} holds a {other[0]} of the name {other[1]!r}, which no snapshot of ours has: "
            "it would act by itself on what is stored; take a snapshot that `sphereid snapshot` wrote"
        )
    if state != "ok":
        raise StorageError(f"{source.name} is damaged: {state}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
