"""The JSON of the inbox of unknown faces."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from sphereid.api.schemas import IdentityRef, Input, Name, Output, Patch, Slug, Threshold
from sphereid.gallery.unknowns import LONGEST, MOST

FaceIds = Annotated[
    list[Slug], Field(min_length=1, max_length=MOST, description="Ids of faces, as the inbox lists them.")
]


class InboxPatch(Patch):
    """What a gallery allows to be kept of unknown faces; members left out stay as they are."""

    keep: bool = Field(
        False,
        description="Keep faces that are decided `unknown`: a small picture and the embedding of each. "
        "When this becomes false, all of them are deleted.",
    )
    most: int = Field(500, ge=1, le=MOST, description="Most faces; the oldest are deleted first.")
    days: int = Field(30, ge=1, le=LONGEST.days, description="Days after which a face is deleted.")


class UnknownsName(Input):
    """Who the faces are."""

    faces: FaceIds
    identity: Slug = Field(description="The identity that gets them; it is made where it is missing.")
    name: Name | None = Field(None, description="Name of an identity that is made.")


class UnknownsDiscard(Input):
    """Faces that nobody will be named for."""

    faces: FaceIds


class UnknownFace(Output):
    """A face that nobody was named for. Its picture is at `…/unknowns/{face}/picture`."""

    id: str
    quality: float
    detection_score: float
    source: str | None = Field(description="The file name that the client sent, or where the camera stands.")
    seen_at: datetime


class Nearest(Output):
    """The enrolled identity that is most similar, though not enough."""

    identity: IdentityRef
    similarity: float


class UnknownCluster(Output):
    """Faces that look like one person, the best first."""

    id: str = Field(description="Of its best face.")
    faces: list[UnknownFace]
    first_seen_at: datetime
    last_seen_at: datetime
    nearest: Nearest | None


class Inbox(Output):
    """A gallery's inbox. threshold: the similarity from which two faces count as one person."""

    keep: bool
    most: int
    days: int
    faces: int
    threshold: Threshold
    clusters: list[UnknownCluster]


class UnknownsNamed(Output):
    """The identity and how many faces it got. revision: of the gallery after it."""

    identity: IdentityRef
    faces: int
    revision: int


class UnknownsReceipt(Output):
    """What a discard removed."""

    faces: int
    scrubbed: bool = Field(
        description="Nothing is left in any file. False while a long read keeps the database from "
        "overwriting its log, and always with PostgreSQL, which keeps deleted rows until its VACUUM."
    )


BODIES: tuple[type[Input], ...] = (InboxPatch, UnknownsName, UnknownsDiscard)
