"""The JSON of the API. Inputs refuse members that they do not know."""

import binascii
import json
import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)

from app.gate import Strictness
from app.pipeline.manifest import Calibration

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


# --- what goes in -------------------------------------------------------------------------------------------


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


class CosinePolicyModel(Input):
    """A fixed threshold."""

    type: Literal["cosine"]
    value: float = Field(ge=-1, le=1, description="Similarity from which a face is a match.")


class FpirPolicyModel(Input):
    """A promise from which the threshold follows."""

    type: Literal["fpir"]
    target: float = Field(gt=0, lt=1, description="Share of strangers who may get a name.")


Policy = Annotated[CosinePolicyModel | FpirPolicyModel, Field(discriminator="type")]
Template = Annotated[
    Literal["best", "mean", "top_k_mean"],
    Field(
        description="How the faces of an identity are compared: its best one, their mean, or the best three."
    ),
]


GalleryQuality = Annotated[
    Strictness,
    Field(
        description="How good a face must be to be enrolled, unless the request says: `normal` refuses faces "
        "that are too small, `strict` any fault, `off` nothing."
    ),
]
KeepCrops = Annotated[
    bool,
    Field(
        description="Keep the faces of enrolled photographs, so that a change of the model needs no new ones."
        " They are deleted with their face, and all of them when this becomes false."
    ),
]


class GalleryCreate(Input):
    """A new gallery."""

    id: Slug | None = Field(None, description="Made by the service when left out.")
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict)
    policy: Policy | None = Field(None, description="Default: the service's fpir target.")
    ambiguity_margin: float = Field(
        0.0, ge=0, le=2, description="A match whose runner-up is nearer than this is `ambiguous`."
    )
    template: Template = "best"
    keep_crops: KeepCrops = False
    quality: GalleryQuality = "normal"


class Patch(Input):
    """Members left out stay as they are; null is refused, for it would be unclear what it means."""

    @model_validator(mode="before")
    @classmethod
    def _no_null(cls, value: Any) -> Any:
        if isinstance(value, dict) and any(v is None for v in value.values()):
            raise ValueError("null is not allowed: leave a member out to keep it")
        return value


class GalleryPatch(Patch):
    """Changes to a gallery; members left out stay. `metadata` is replaced as a whole."""

    name: Name = ""
    metadata: Metadata = Field(default_factory=dict)
    policy: Policy | None = None
    ambiguity_margin: float = Field(0.0, ge=0, le=2)
    template: Template = "best"
    keep_crops: KeepCrops = False
    quality: GalleryQuality = "normal"


class IdentityCreate(Input):
    """A new identity."""

    id: Slug | None = Field(None, description="Made by the service when left out.")
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict)


class IdentityPatch(Patch):
    """Changes to an identity; members left out stay. `metadata` is replaced as a whole."""

    name: Name = ""
    metadata: Metadata = Field(default_factory=dict)


class IdentityMerge(Input):
    """Two identities turn out to be one person."""

    source: Slug = Field(description="The identity whose faces move here; it is gone afterwards.")


BODIES: tuple[type[Input], ...] = (
    DetectRequest,
    EmbedRequest,
    VerifyRequest,
    VerifyIdentityRequest,
    IdentifyRequest,
    EnrollRequest,
    GalleryCreate,
    GalleryPatch,
    IdentityCreate,
    IdentityPatch,
    IdentityMerge,
)
"""Every request body; the OpenAPI document lists their schemas."""


# --- what comes out -----------------------------------------------------------------------------------------


class Box(Output):
    """A rectangle in pixels of the image as it was sent, upright; it may reach outside."""

    x: float
    y: float
    width: float
    height: float


class Quality(Output):
    """How usable a face is: 0 to 1, and what is wrong with it."""

    score: float
    reasons: list[str]


class FoundFace(Output):
    """A face. landmarks: five (x, y): image-left eye, image-right eye, nose, left and right mouth corner."""

    box: Box
    detection_score: float
    landmarks: list[tuple[float, float]]
    quality: Quality


class EmbeddedFace(FoundFace):
    """A face with its embedding of L2 norm 1."""

    embedding: list[float]


class ModelRef(Output):
    """Which model made the embeddings; those of different contracts are not comparable."""

    name: str
    contract: str


class ImageSize(Output):
    """Of the upright image, in pixels."""

    width: int
    height: int


class Answer(Output):
    """What every answer about images carries."""

    request_id: str
    timings_ms: dict[str, float] = Field(
        examples=[{"queue": 0.1, "decode": 4.1, "detect": 12.0, "embed": 9.2}]
    )


class DetectAnswer(Answer):
    """The faces of an image, largest first."""

    image: ImageSize
    faces: list[FoundFace]


class EmbedAnswer(Answer):
    """The faces of an image with their embeddings."""

    model: ModelRef
    image: ImageSize
    faces: list[EmbeddedFace]


class Threshold(Output):
    """The limit that was used. extrapolated: it lies beyond the measured impostor scores."""

    value: float
    policy: Literal["cosine", "fpir"]
    target: float | None = None
    extrapolated: bool = False


class Margins(Output):
    """Similarity above the threshold, and above the runner-up; null where there is none."""

    to_threshold: float | None
    to_runner_up: float | None


class IdentityRef(Output):
    """Who."""

    id: str
    name: str
    metadata: dict[str, JsonValue]


class Candidate(Output):
    """An identity near the face."""

    identity: IdentityRef
    face_id: str
    similarity: float


class Decided(Output):
    """A decision: `match`, `unknown`, `ambiguous` (the runner-up is too near) or `rejected` (quality)."""

    decision: Literal["match", "unknown", "ambiguous", "rejected"]
    reason: str
    identity: IdentityRef | None
    similarity: float | None
    threshold: Threshold
    candidates: list[Candidate]
    margins: Margins


class IdentifiedFace(Decided, FoundFace):
    """A face and who it is."""


class GalleryRef(Output):
    """The gallery as it was when it was searched."""

    id: str
    revision: int
    faces: int


class IdentifyAnswer(Answer):
    """Every face of the image, largest first, and who each is."""

    model: ModelRef
    gallery: GalleryRef
    image: ImageSize
    faces: list[IdentifiedFace]


class VerifyAnswer(Answer):
    """Whether two images show the same person: `match`, or `unknown` where that was not shown."""

    model: ModelRef
    decision: Literal["match", "unknown"]
    reason: str
    similarity: float
    threshold: Threshold
    margins: Margins
    faces: list[FoundFace]


class VerifyIdentityAnswer(Decided, Answer):
    """Whether an image shows a certain identity."""

    model: ModelRef
    face: FoundFace


class StoredFace(Output):
    """An enrolled face; its embedding stays inside the service."""

    id: str
    identity_id: str
    gallery_id: str
    quality: float
    detection_score: float
    source: str | None = Field(description="The file name that the client sent.")
    created_at: datetime


class Rejected(Output):
    """An image that was not enrolled. index: its place in the request, from 0."""

    index: int
    reasons: list[str]


class Duplicate(Output):
    """An enrolled face that resembles one of the new ones."""

    identity: IdentityRef
    face_id: str
    similarity: float


class EnrollAnswer(Answer):
    """What was enrolled, what was not, and whom it resembles."""

    model: ModelRef
    revision: int
    faces: list[StoredFace]
    rejected: list[Rejected]
    duplicates: list[Duplicate]


class Gallery(Output):
    """A set of identities with its rules. threshold: what the policy gives now."""

    id: str
    name: str
    metadata: dict[str, JsonValue]
    policy: CosinePolicyModel | FpirPolicyModel
    threshold: Threshold
    ambiguity_margin: float
    template: str
    keep_crops: bool
    quality: Strictness
    contract: str | None
    revision: int
    identities: int
    faces: int
    created_at: datetime
    updated_at: datetime


class Identity(Output):
    """A person in a gallery."""

    id: str
    gallery_id: str
    name: str
    metadata: dict[str, JsonValue]
    faces: int
    created_at: datetime
    updated_at: datetime


class GalleryPage(Output):
    """galleries, and where the next page begins; null on the last."""

    items: list[Gallery]
    next_cursor: str | None


class IdentityPage(Output):
    """Identities, and where the next page begins; null on the last."""

    items: list[Identity]
    next_cursor: str | None


class FacePage(Output):
    """Faces, and where the next page begins; null on the last."""

    items: list[StoredFace]
    next_cursor: str | None


class Receipt(Output):
    """What a delete removed. revision: of the gallery after it, null when the gallery itself is gone."""

    identities: int
    faces: int
    revision: int | None
    scrubbed: bool = Field(description="False while a long read keeps the database from overwriting its log.")


class ModelInfo(Output):
    """A model in the models folder. active: the one that this service uses."""

    name: str
    version: str
    active: bool
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
