"""What the gallery refuses. Each error carries a stable code; the API maps codes to status numbers."""

from sphereid.errors import CodedError


class GalleryError(CodedError):
    """Base of the gallery's errors; `code` is stable and machine-readable, the text says what to do."""

    code = "gallery_error"


class NotFoundError(GalleryError):
    """Codes: `gallery_not_found`, `identity_not_found`, `face_not_found_in_gallery`, `picture_not_found`,
    `unknown_not_found`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ConflictError(GalleryError):
    """Codes: `gallery_exists`, `identity_exists`, `gallery_protected`, `idempotency_conflict`,
    `duplicate_face`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ContractMismatchError(GalleryError):
    """The probe's or new face's embedding contract is not the gallery's."""

    code = "contract_mismatch"


class InvalidRequestError(GalleryError):
    """A value is outside what it may be; the text says which and what is allowed."""

    code = "invalid_request"
