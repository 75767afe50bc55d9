"""What can be wrong with work on whole galleries."""

from sphereid.errors import CodedError


class BulkError(CodedError):
    """The user can mend it; `code` is stable and machine-readable, the text says what to do.

    Codes: `import_unreadable` (no such file, archive or table), `import_too_large` (an archive that unpacks
    to too much), `crops_missing`, `model_unknown`, `reembed_needless`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
