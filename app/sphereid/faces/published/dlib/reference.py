"""What was measured of dlib's network, kept with the code so that making a model of it needs no faces."""

import json
from importlib.resources import files

from pydantic import BaseModel, ConfigDict, TypeAdapter

from sphereid.faces.manifest import Calibration, Metric, Quantized

_HERE = "sphereid.faces.published.dlib"


class Reference(BaseModel):
    """Measurements of the model as it is made by default; they hold, as its weights stay.

    sha256: of the fp32 file that was measured. calibration: what `python -m training import dlib --store`
    measured on the training faces. metrics, int8: as their commands gave.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    calibration: Calibration
    metrics: tuple[Metric, ...] = ()
    int8: Quantized


def load_reference() -> Reference:
    """Read `reference.json` of this package: members of the manifest that the commands left."""
    return Reference.model_validate_json(_read("reference.json"))


def load_ranges() -> dict[str, tuple[float, float]]:
    """Read `ranges.json` of this package: smallest and largest value of each activation over training faces,
    from `python -m training quantize models/dlib --ranges`. int8 is made with them, where there are no faces.
    """
    return TypeAdapter(dict[str, tuple[float, float]]).validate_python(json.loads(_read("ranges.json")))


def _read(name: str) -> str:
    return (files(_HERE) / name).read_text(encoding="utf-8")
