"""What is answered about the service itself."""

from typing import Literal

from pydantic import (
    Field,
    JsonValue,
)

from sphereid.api.schemas.base import Output
from sphereid.faces.manifest import Calibration


class ModelInfo(Output):
    """A model in the models folder. active: the one of galleries that hold nothing yet, of `/v1/embed` and of
    `/v1/verify`. loaded: in memory, because it is active or a gallery holds its embeddings."""

    name: str
    version: str
    active: bool
    loaded: bool
    contract: str
    embedding_size: int
    template: str
    training_data: str
    license: str
    calibrated: bool
    calibration: Calibration | None
    metrics: list[dict[str, JsonValue]]


class ModelList(Output):
    """All models, and how the active one runs."""

    provider: str
    models: list[ModelInfo]


class Health(Output):
    """The service's state."""

    status: Literal["ok", "ready"]
    version: str


class Fault(Output):
    """One thing that is wrong with a request."""

    where: str
    what: str


class ProblemDocument(Output):
    """RFC 9457. code: stable, for programs; detail: for people. errors: with `invalid_request`."""

    type: str = Field(examples=["urn:sphereid:problem:face_not_found"])
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[Fault] | None = None
