"""What all of the API's JSON is made of. Inputs refuse members that they do not know."""

import json
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

METADATA_BYTES = 16_384

Slug = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Letters, digits, `.`, `_` and `-`, at most 64; begins with a letter or digit.",
    ),
]
Name = Annotated[
    str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$", description="For people to read.")
]
Similarity = Annotated[float, Field(ge=-1, le=1)]


def _small_metadata(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        size = len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, RecursionError):
        raise ValueError("metadata must be plain JSON: finite numbers, valid text") from None
    if size > METADATA_BYTES:
        raise ValueError(f"metadata may have at most {METADATA_BYTES} bytes as JSON")
    if "\\u0000" in json.dumps(value):
        raise ValueError("metadata must not hold NUL characters")
    return value


Metadata = Annotated[
    dict[str, JsonValue],
    AfterValidator(_small_metadata),
    Field(description="Any JSON object of yours, at most 16 KiB."),
]


class Input(BaseModel):
    """Something that a client sends."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Output(BaseModel):
    """Something that the service answers."""

    model_config = ConfigDict(frozen=True)


class Patch(Input):
    """Members left out stay as they are; null is refused, for it would be unclear what it means."""

    @model_validator(mode="before")
    @classmethod
    def _no_null(cls, value: Any) -> Any:
        if isinstance(value, dict) and any(v is None for v in value.values()):
            raise ValueError("null is not allowed: leave a member out to keep it")
        return value
