"""`sphereid rotate-key`: encrypt the galleries, or change the key."""

from pathlib import Path
from typing import Annotated

import typer

from sphereid.cli.session import actor
from sphereid.cli.terminal import err, note
from sphereid.settings import Settings


def rotate_key(
    new_key_file: Annotated[
        Path | None, typer.Option(help="The new key, in a file. Make one: openssl rand -hex 32 > key")
    ] = None,
    encrypt: Annotated[
        bool,
        typer.Option("--encrypt", help="The galleries are plain: encrypt them with the key that is set."),
    ] = False,
    decrypt: Annotated[bool, typer.Option("--decrypt", help="Store everything plain again.")] = False,
) -> None:
    """Encrypt embeddings, kept pictures and files of jobs with another key. No server may be running.

    The old key comes from SPHEREID_ENCRYPTION_KEY or SPHEREID_ENCRYPTION_KEY_FILE; set the new one there when
    this is done. It is all or nothing: broken off, the old key is the right one. Index snapshots are made
    anew at the next start. Snapshots that were taken before stay under their old key.

    sphereid rotate-key --new-key-file new.key
    """
    from rich.progress import Progress

    from sphereid.bootstrap import vault_of
    from sphereid.gallery import key_rotation
    from sphereid.gallery.audit import acting
    from sphereid.gallery.key_rotation import forget_snapshots
    from sphereid.gallery.store.database import Database
    from sphereid.storage.encrypted_files import EncryptedFiles, rewrite, settle
    from sphereid.storage.folder_lock import FolderLock
    from sphereid.storage.vault import Vault

    if (new_key_file is not None) + encrypt + decrypt != 1:
        raise typer.BadParameter("give --new-key-file, --encrypt or --decrypt")
    settings = Settings()
    key = vault_of(settings)
    if encrypt and key is None:
        raise typer.BadParameter(
            "set SPHEREID_ENCRYPTION_KEY or SPHEREID_ENCRYPTION_KEY_FILE to the key to use"
        )
    old, new = (None, key) if encrypt else (key, Vault.from_file(new_key_file) if new_key_file else None)
    database = Database.existing(settings.database)
    lock, jobs = FolderLock(settings.data_dir), settings.data_dir / "jobs"
    try:
        database.upgrade()
        settle(jobs, EncryptedFiles(old))  # of a change that was broken off
        total = key_rotation.count(database)
        with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
            task = progress.add_task("Encrypting" if new else "Decrypting", total=total)
            rewrite(jobs, EncryptedFiles(old), EncryptedFiles(new))
            with acting(actor()):
                key_rotation.rotate(database, old, new, lambda done: progress.advance(task, done))
        settle(jobs, EncryptedFiles(new))
        forget_snapshots(settings.data_dir)
        scrubbed = database.scrub()
    finally:
        lock.release()
        database.close()
    note(f"{'encrypted' if new else 'decrypted'} {total:,} values")
    if new_key_file is not None:
        note(f"start the service with SPHEREID_ENCRYPTION_KEY_FILE={new_key_file} from now on")
    if not scrubbed:
        note("another process reads the database: what was there before stays in its log until that ends")
