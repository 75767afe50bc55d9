"""What can be wrong with monitors."""

from sphereid.errors import CodedError


class MonitorError(CodedError):
    """The text says what to do. Codes: `monitor_not_found`, `monitor_exists`, `too_many_monitors`,
    `source_not_allowed`, `webhook_not_allowed`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
