"""What is asked about images."""

import binascii
import json
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    WithJsonSchema,
)

from sphereid.api.schemas.base import Input, Name
from sphereid.recognition.quality_gate import Strictness


def _from_base64(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except ValueError:
        raise ValueError("this is no base64") from None


Base64Image = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    WithJsonSchema(
        {"type": "string", "contentEncoding": "base64", "examples": ["/9j/4AAQSkZJRgABAQAAAQAB…"]}
    ),
]


class ImageInput(Input):
    """An image inside JSON."""

    base64: Base64Image = Field(description="The image file, base64; a `data:` URL is understood too.")


FaceChoice = Annotated[
    Literal["only", "largest"],
    Field(
        description="`only`: an image with several faces is refused. `largest`: the largest face is taken."
    ),
]


class FindOptions(Input):
    """How faces are searched."""

    min_detection_score: float | None = Field(
        None, ge=0, lt=1, description="Lowest detection score of a face (default: the service's setting)."
    )
    min_face: int | None = Field(
        None,
        ge=12,
        le=10_000,
        description="Shortest side of a face in pixels of the image (default: by its size).",
    )


def _box_from_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        if value.lstrip().startswith("{"):
            return _json(value)
        x, y, width, height = (float(part) for part in value.split(","))
    except ValueError:
        raise ValueError("a box is x,y,width,height") from None
    return {"x": x, "y": y, "width": width, "height": height}


class FaceBox(Input):
    """Where a face is, in pixels of the upright image."""

    x: float
    y: float
    width: float = Field(gt=0)
    height: float = Field(gt=0)


FILTER_PATTERN = r"^[^:,{]+:[^,]*(,[^:,{]+:[^,]*)*$"


def _filter_from_text(value: Any) -> Any:
    if isinstance(value, str):
        if not value.lstrip().startswith("{"):
            return filter_of(value)
        value = _json(value)
    if isinstance(value, dict):
        plain = (str, int, float, bool)
        return {
            k: json.dumps(v) if isinstance(v, plain) and not isinstance(v, str) else v
            for k, v in value.items()
        }
    return value


def filter_of(text: str) -> dict[str, str]:
    """`key:value`, or several with commas between them. Raises ValueError."""
    if not re.fullmatch(FILTER_PATTERN, text):
        raise ValueError("a filter is key:value, or several with commas between them")
    pairs = (part.partition(":") for part in text.split(","))
    return {key.strip(): wanted.strip() for key, _, wanted in pairs}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("this is no JSON") from None


Filter = Annotated[
    dict[str, str],
    BeforeValidator(_filter_from_text),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": FILTER_PATTERN},
                {
                    "type": "object",
                    "additionalProperties": {"type": ["string", "number", "boolean"]},
                    "maxProperties": 8,
                },
            ],
            "examples": ["department:press", {"department": "press"}],
        }
    ),
]


class IdentifyOptions(FindOptions):
    """How faces are named."""

    k: int = Field(5, ge=1, le=100, description="Most candidates listed for a face.")
    threshold: float | None = Field(
        None, ge=-1, le=1, description="Similarity for a match (default: the gallery's policy)."
    )
    quality: Strictness = Field(
        "off",
        description="Faces that fail the gate are `rejected`, not searched. `normal` refuses too small ones, "
        "`strict` any fault.",
    )
    filter: Filter | None = Field(
        None,
        description="Only identities whose metadata has these members: `department:press`, several with "
        "commas, or a JSON object. Values are compared as text.",
    )
    assign: Literal["independent", "unique"] = Field(
        "independent", description="`unique`: no identity is given to two faces of the image."
    )


class VerifyOptions(FindOptions):
    """How two faces are compared."""

    threshold: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Similarity for a match (default: the model's calibration, or the gallery's).",
    )
    face: FaceChoice = "only"


class EnrollOptions(FindOptions):
    """Which faces may enter a gallery."""

    face: FaceChoice = "only"
    box: Annotated[FaceBox | None, BeforeValidator(_box_from_text)] = Field(
        None,
        description="Takes the face that lies there, such as one that `/v1/detect` answered. In a form: "
        "`x,y,width,height`.",
    )
    quality: Strictness | None = Field(
        None,
        description="`normal` refuses faces that are too small, `strict` any fault, `off` nothing (default: "
        "the gallery's).",
    )
    duplicates: Literal["report", "refuse"] = Field(
        "report", description="`refuse`: 409 when a face belongs to another identity or is enrolled already."
    )
    create: bool = Field(False, description="Make the identity if it does not exist.")
    name: Name | None = Field(None, description="Name of an identity that is made.")


class DetectRequest(FindOptions):
    """`POST /v1/detect` as JSON."""

    image: ImageInput


class EmbedRequest(FindOptions):
    """`POST /v1/embed` as JSON."""

    image: ImageInput


class IdentifyRequest(IdentifyOptions):
    """`POST …/identify` as JSON."""

    image: ImageInput


class VerifyRequest(VerifyOptions):
    """`POST /v1/verify` as JSON."""

    images: list[ImageInput] = Field(min_length=2, max_length=2)


class VerifyIdentityRequest(VerifyOptions):
    """`POST …/identities/{identity}/verify` as JSON."""

    image: ImageInput


class EnrollRequest(EnrollOptions):
    """`POST …/faces` as JSON."""

    images: list[ImageInput] = Field(min_length=1)
