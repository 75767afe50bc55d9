"""What goes wrong with the database and the data folder."""

from sphereid.errors import CodedError


class StorageError(CodedError):
    """The database or the data folder cannot be used (locked, full, too new a schema)."""

    code = "storage_error"
