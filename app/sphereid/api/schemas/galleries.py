"""Galleries and identities: what is asked, and what is answered."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    Field,
    JsonValue,
)

from sphereid.api.schemas.answers import Answer, IdentityRef, ModelRef, Threshold
from sphereid.api.schemas.base import Input, Metadata, Name, Output, Patch, Slug
from sphereid.recognition.quality_gate import Strictness


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
    scrubbed: bool = Field(
        description="Nothing is left in any file. False while a long read keeps the database from "
        "overwriting its log, and always with PostgreSQL, which keeps deleted rows until its VACUUM."
    )
