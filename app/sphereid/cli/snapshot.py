"""`sphereid snapshot` and `restore`: for those who run the service."""

from pathlib import Path
from typing import Annotated

import typer

from sphereid.cli.session import actor
from sphereid.cli.terminal import err, note, plural
from sphereid.settings import Settings


def snapshot(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; it must not exist.")],
) -> None:
    """Save all galleries to one file, also while a server is working on them.

    The file holds one moment: every write that was answered before, none that comes after. `sphereid restore`
    brings it back. Models, jobs and settings are not in it.
    """
    from sphereid.gallery import audit
    from sphereid.gallery.store.backup import backup
    from sphereid.gallery.store.database import Database

    database = Database.existing(Settings().database)
    try:
        with err.status(f"Writing {file.name}"), audit.acting(actor()):
            database.upgrade()
            with database.writing() as tx:
                audit.record(tx, [audit.Event("snapshot")])
            backup(database, file)
    finally:
        database.close()
    note(f"wrote {file}: {file.stat().st_size:,} bytes")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `sphereid snapshot` wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Give up the galleries that are there now.")
    ] = False,
) -> None:
    """Bring back the galleries of a snapshot. No server may be running on the data folder.

    The file is checked first; where it is damaged, nothing changes.
    """
    from sphereid.bootstrap import open_gallery
    from sphereid.gallery.audit import acting
    from sphereid.gallery.store.backup import restore as put_back

    settings = Settings()
    with err.status(f"Restoring {file.name}"), acting(actor()):
        put_back(file, settings.database, settings.data_dir, replace=replace)
        service = open_gallery(settings)
        galleries = service.list_galleries(limit=500).items
        service.close()
    faces = sum(each.faces for each in galleries)
    restored = plural(len(galleries), "gallery", "galleries")
    note(f"restored {restored} with {plural(faces, 'face')} from {file}")
