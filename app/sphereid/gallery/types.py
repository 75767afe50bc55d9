"""What travels through the gallery: who is enrolled, what was asked, what was decided."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""(N, D) float32, rows of L2 norm 1."""

T = TypeVar("T")

MetadataFilter = Mapping[str, str]
"""Members of an identity's metadata and what they must be, as text: 3 and "3" are both `3`."""

Outcome = Literal["match", "unknown", "ambiguous", "rejected"]
TemplatePolicy = Literal["best", "mean", "top_k_mean"]
Strictness = Literal["off", "normal", "strict"]
"""How good a face must be to be enrolled; `sphereid.recognition.quality_gate` says what each refuses."""


@dataclass(frozen=True, slots=True)
class CosinePolicy:
    """A fixed threshold: similarity >= value is a match. value in [-1, 1]."""

    value: float
    type: Literal["cosine"] = "cosine"


@dataclass(frozen=True, slots=True)
class FpirPolicy:
    """A promise: at most this share of strangers gets a name. target in (0, 1).

    The threshold follows from the model's impostor calibration and the number of enrolled faces.
    """

    target: float
    type: Literal["fpir"] = "fpir"


ThresholdPolicy = CosinePolicy | FpirPolicy


@dataclass(frozen=True, slots=True)
class Threshold:
    """The limit that a decision used.

    value: cosine in [-1, 1] (above 1 when no similarity could keep the promise). policy: "cosine" or "fpir".
    target: the promised FPIR, None for a fixed threshold. extrapolated: True where the value lies beyond the
    measured impostor quantiles.
    """

    value: float
    policy: Literal["cosine", "fpir"]
    target: float | None = None
    extrapolated: bool = False


@dataclass(frozen=True, slots=True)
class Gallery:
    """One set of identities with its rules. `contract` is None until the first face was enrolled."""

    id: str
    name: str
    metadata: Mapping[str, Any]
    policy: ThresholdPolicy
    ambiguity_margin: float
    template: TemplatePolicy
    keep_crops: bool
    quality: Strictness
    contract: str | None
    revision: int
    identities: int
    faces: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Identity:
    """A person in a gallery."""

    id: str
    gallery_id: str
    name: str
    metadata: Mapping[str, Any]
    faces: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class StoredFace:
    """An enrolled face; its vector stays inside the gallery. quality in [0, 1]."""

    id: str
    identity_id: str
    gallery_id: str
    quality: float
    detection_score: float
    source: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, eq=False)
class NewFace:
    """A face to enroll. vector: (D,) float32 of L2 norm 1; source: the client's file name, if any.

    id, created_at: made when it is enrolled where None. crop: what `sphereid.faces.crops.pack` made; stored
    only in galleries that keep crops.
    """

    vector: NDArray[np.float32]
    contract: str
    quality: float
    detection_score: float
    source: str | None = None
    id: str | None = None
    created_at: datetime | None = None
    crop: bytes | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One identity near a probe. similarity: cosine in [-1, 1] of its template (best face by default).
    identity: as it was read together with the face, where a search found it."""

    identity_id: str
    face_id: str
    similarity: float
    identity: Identity | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Margins:
    """Distances in similarity; None where there is nothing to compare with."""

    to_threshold: float | None
    to_runner_up: float | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one probe.

    reason: `above_threshold`, `below_threshold`, `empty_gallery`, `runner_up_too_near`, `assigned_elsewhere`,
    or a quality code for `rejected`. candidates: best first, one per identity.
    """

    outcome: Outcome
    reason: str
    threshold: Threshold
    candidates: tuple[Candidate, ...]
    margins: Margins
    identity: Identity | None = None
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A new face that resembles somebody who is enrolled already."""

    identity_id: str
    face_id: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The answer to an enrolment. revision: of the gallery after it."""

    faces: tuple[StoredFace, ...]
    duplicates: tuple[Duplicate, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class DeleteReceipt:
    """What a delete removed. revision: of the gallery after it (None: the gallery itself is gone).

    scrubbed: nothing of it is left in any file; False while a long read holds up the database's log, which is
    emptied as soon as that ends, and always with PostgreSQL, which cleans up in its own time.
    """

    identities: int
    faces: int
    revision: int | None
    scrubbed: bool = True


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What was answered to a write before: the HTTP status and the body."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A slice of a list; `cursor` is opaque and None on the last page."""

    items: tuple[T, ...]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class GalleryRules:
    """Settable rules of a gallery."""

    policy: ThresholdPolicy = field(default_factory=lambda: FpirPolicy(target=0.01))
    ambiguity_margin: float = 0.0
    template: TemplatePolicy = "best"
    keep_crops: bool = False
    quality: Strictness = "normal"
