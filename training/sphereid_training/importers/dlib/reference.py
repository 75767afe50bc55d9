"""What was measured of the imported model, kept with the code so that an import needs no faces."""

from importlib.resources import files

from pydantic import BaseModel, ConfigDict
from sphereid.faces.manifest import Calibration, Metric


class Reference(BaseModel):
    """Measurements of the model as `import dlib` makes it by default; they hold, as its weights stay.

    calibration: what `import dlib --store` measured on the training faces. metrics: as their commands gave.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calibration: Calibration
    metrics: tuple[Metric, ...] = ()


def load_reference() -> Reference:
    """Read `reference.json` of this package."""
    text = (files("sphereid_training.importers.dlib") / "reference.json").read_text(encoding="utf-8")
    return Reference.model_validate_json(text)
