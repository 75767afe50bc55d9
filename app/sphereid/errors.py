"""What all errors have in common that users can mend."""


class CodedError(Exception):
    """Base of every room's errors; `code` is stable and machine-readable, the text says what to do."""

    code = "error"


class CanceledError(Exception):
    """The caller asked to stop; what was done so far stays as it is."""
