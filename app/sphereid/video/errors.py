"""What can be wrong with a video. Each error carries a stable code; the text says what to do."""

from sphereid.errors import CodedError


class VideoError(CodedError):
    """The file cannot be used.

    Codes: `video_empty`, `video_unreadable` (broken, cut off before its index, or no video at all),
    `video_without_picture` (sound only), `video_too_large` (more pixels a frame than allowed),
    `video_changed` (not the file that an interrupted analysis began with), `video_unwritable`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
