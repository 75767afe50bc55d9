"""One process at a time in a data folder."""

import logging
import os
import stat
from pathlib import Path

from sphereid.storage.errors import StorageError

try:
    import fcntl
except ImportError:  # Windows has no such lock; there the operator sees to it
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)


class FolderLock:
    """Held from construction to `release`; the system lets go of it when the process dies, however it does.

    Raises StorageError where another process holds it or the folder can't be made.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor: int | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _close_to_others(folder)
            self._descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
            if fcntl is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise StorageError(
                f"another process uses the gallery in {folder}: stop it, or talk to it over HTTP"
            ) from error
        except OSError as error:
            self.release()
            raise StorageError(f"cannot use the data folder {folder}: {error.strerror}") from error

    def release(self) -> None:
        """Let go; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _close_to_others(folder: Path) -> None:
    """Take the folder's permissions from everybody but its owner: all that lies in it may hold faces."""
    mode = folder.stat().st_mode
    if os.name == "posix" and mode & 0o077:
        try:
            folder.chmod(stat.S_IMODE(mode) & ~0o077)
        except PermissionError:
            log.warning(
                "others may read the data folder %s, and its owner is another user: chmod 700 it", folder
            )
