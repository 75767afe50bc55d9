"""The JSON of work on whole galleries."""

from typing import Literal

from pydantic import Field

from sphereid.api.schemas import FaceChoice, Input
from sphereid.recognition.quality_gate import Strictness


class ReembedRequest(Input):
    """Another model for a gallery."""

    model: str = Field(
        min_length=1, max_length=200, description="Name of the model's folder, as `/v1/models` lists it."
    )
    force: bool = Field(False, description="Change also where the comparison finds the new model worse.")
    compare_only: bool = Field(False, description="Compare, and leave the gallery as it is.")


BODIES: tuple[type[Input], ...] = (ReembedRequest,)


class ImportOptions(Input):
    """Which faces of an import enter the gallery. They concern photographs, not Parquet files."""

    face: FaceChoice = "only"
    quality: Strictness = Field(
        "normal",
        description="`normal` leaves out faces that are too small, `strict` any fault, `off` nothing.",
    )
    duplicates: Literal["report", "refuse"] = Field(
        "report", description="`refuse` leaves out faces that resemble another identity; `report` names it."
    )
    min_face: int | None = Field(
        None, ge=12, le=10_000, description="Shortest side of a face, in pixels (default: by the image)."
    )
    min_detection_score: float | None = Field(
        None, ge=0, lt=1, description="Lowest detection score of a face (default: the service's)."
    )
