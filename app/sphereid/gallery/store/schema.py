"""The schema's versions: Alembic brings a database to the newest. Loaded where there is something to do."""

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from sphereid.gallery.store.database import REVISIONS
from sphereid.storage.errors import StorageError


def migrate(connection: Connection, current: str | None) -> None:
    """Run what is missing since revision `current` (None: all of it) in the connection's transaction.

    Raises StorageError where a newer version wrote the database.
    """
    config = Config()
    config.set_main_option("script_location", str(REVISIONS.parent))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise StorageError(
            f"the database was written by a newer SphereID (schema {current}); upgrade SphereID or "
            "restore an older snapshot"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
