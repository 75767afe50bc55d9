"""What goes wrong with the database and the data folder."""

import errno
from typing import Final

from sphereid.errors import CodedError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class StorageError(CodedError):
    """The database or the data folder cannot be used (locked, full, too new a schema)."""

    code = "storage_error"


class StorageFullError(StorageError):
    """There is no room left where the data lies; nothing was stored."""

    code = "storage_full"

    def __init__(self) -> None:
        super().__init__(
            "no room is left for the data: free some, then send the request again; nothing was stored"
        )


def is_full(error: OSError) -> bool:
    """Whether a write failed because the disk, the quota or the largest size of a file is used up."""
    return error.errno in _FULL
