"""Which key a database is encrypted with, and the change from one to another."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy import (
    Column,
    Connection,
    LargeBinary,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    type_coerce,
    update,
)

import sphereid.gallery.unknowns  # noqa: F401  # brings its tables
from sphereid.gallery import audit
from sphereid.gallery.store.database import Database
from sphereid.gallery.store.tables import VAULT, Base, Sealed
from sphereid.storage.errors import StorageError
from sphereid.storage.vault import Vault

CHUNK: Final = 1000

WRONG_KEY: Final = (
    "the gallery is encrypted with another key: set SPHEREID_ENCRYPTION_KEY or SPHEREID_ENCRYPTION_KEY_FILE "
    "to the one it was encrypted with"
)


def sealed_columns() -> list[tuple[Table, Column[bytes]]]:
    """Every column that is encrypted, with its table."""
    return [
        (table, column)
        for table in Base.metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, Sealed)
    ]


def check(database: Database) -> None:
    """Raises StorageError where the database's key is not the one that this process has. A key for a database
    that holds nothing to encrypt yet becomes its key."""
    vault = database.vault
    with database.reading() as tx:
        proof = tx.execute(select(VAULT.c.proof)).scalar()
        if proof is None and vault is None:
            return
        used = proof is None and any(
            tx.execute(select(func.count()).select_from(select(c).limit(1).subquery())).scalar()
            for _, c in sealed_columns()
        )
    if proof is not None and vault is None:
        raise StorageError(
            "the gallery is encrypted: set SPHEREID_ENCRYPTION_KEY or SPHEREID_ENCRYPTION_KEY_FILE to its key"
        )
    if used:
        raise StorageError(
            "a key is set, but the gallery is not encrypted yet: run `sphereid rotate-key --encrypt` once, "
            "or unset the key"
        )
    assert vault is not None
    if proof is None:
        with database.writing() as tx:
            tx.execute(insert(VAULT).values(id=1, proof=vault.proof()))
    elif not vault.fits(proof):
        raise StorageError(WRONG_KEY)


def count(database: Database) -> int:
    """How many values `rotate` will change."""
    with database.reading() as tx:
        return sum(
            tx.execute(select(func.count()).select_from(table)).scalar() or 0 for table, _ in sealed_columns()
        )


def rotate(
    database: Database, old: Vault | None, new: Vault | None, advance: Callable[[int], None] = lambda _: None
) -> None:
    """Encrypt everything with another key, in one transaction: all of it or nothing. None: not encrypted.

    No process may use the gallery. Raises StorageError where `old` does not fit. advance: is told how many
    values are done. The index snapshots stay under the old key: delete them, they are made anew.
    """
    with database.writing() as tx:
        proof = tx.execute(select(VAULT.c.proof)).scalar()
        if (proof is None) != (old is None):
            raise StorageError(
                "the gallery is not encrypted: there is no key to give up"
                if proof is None
                else "the gallery is encrypted: give its key"
            )
        if proof is not None and old is not None and not old.fits(proof):
            raise StorageError(WRONG_KEY)
        for table, column in sealed_columns():
            _rotate_column(tx, table, column, old, new, advance)
        tx.execute(delete(VAULT))
        if new is not None:
            tx.execute(insert(VAULT).values(id=1, proof=new.proof()))
        audit.record(tx, [audit.Event("key.rotate", details={"encrypted": new is not None})])


def _rotate_column(
    tx: Connection,
    table: Table,
    column: Column[bytes],
    old: Vault | None,
    new: Vault | None,
    advance: Callable[[int], None],
) -> None:
    (key,) = table.primary_key.columns
    raw = type_coerce(column, LargeBinary)
    change = (
        update(table)
        .where(key == bindparam("at"))
        .values({column: type_coerce(bindparam("value", type_=LargeBinary), LargeBinary)})
    )
    last = None
    while True:
        query = select(key, raw).order_by(key).limit(CHUNK)
        rows = tx.execute(query if last is None else query.where(key > last)).all()
        if not rows:
            return
        changed = []
        for at, value in rows:
            plain = value if old is None else old.open(value)
            changed.append({"at": at, "value": plain if new is None else new.seal(plain)})
        tx.execute(change, changed)
        last = rows[-1][0]
        advance(len(rows))


def forget_snapshots(data_dir: Path) -> None:
    """Delete the index snapshots."""
    shutil.rmtree(data_dir / "index", ignore_errors=True)
