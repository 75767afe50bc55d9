"""What can be wrong with an image or a model. Each error carries a stable code for callers and people."""

from sphereid.errors import CodedError


class PipelineError(CodedError):
    """Base of the pipeline's errors; `code` is stable and machine-readable."""

    code = "pipeline_error"


class ImageError(PipelineError):
    """The bytes are no image that we can use. `code` says why; `str(error)` says what to do.

    Codes: `image_empty`, `image_unsupported`, `image_broken`, `image_too_large` (bytes, pixels or side).
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        return type(self), (self.code, str(self))  # it may travel between processes


class ModelError(PipelineError):
    """A model cannot be loaded or its files are not what the manifest promises."""

    code = "model_error"
