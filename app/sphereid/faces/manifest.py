"""The manifest of a model: what it is, how it wants its pixels, and how far its scores can be trusted."""

import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from sphereid.faces.align import TEMPLATES, Template
from sphereid.faces.errors import ModelError

MANIFEST_FILE: Final = "manifest.json"
FlipRule = Literal["none", "sum", "concat"]
Precision = Literal["fp32", "int8"]

MAX_INT8_LOSS: Final = 0.002
"""Most accuracy, as a share of pairs, that an int8 model may lose to be taken without being asked for."""

MIN_INT8_SPEEDUP: Final = 1.1
"""Least measured gain that makes such a loss worth it."""


def _per_channel(value: Any) -> Any:
    return (value,) * 3 if isinstance(value, int | float) else value


PerChannel = Annotated[tuple[float, float, float], BeforeValidator(_per_channel)]
"""Three floats in the model's channel order; one number stands for all three."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Metric(_Record):
    """A measured figure and the command that gives it again."""

    name: str
    value: float
    command: str


class Quantile(_Record):
    """At `similarity` and above lies the share `fmr` of all impostor comparisons."""

    fmr: float = Field(gt=0, le=1)
    similarity: float = Field(ge=-1, le=1)


class Calibration(_Record):
    """Impostor scores of the model, from which a gallery's policy finds its threshold.

    quantiles: from the largest false match rate to the smallest, so similarity never falls along the list.
    pairs: impostor comparisons behind it. protocol: which images were compared, and how. clumping: how much
    the matches of one stranger come together (`sphereid_training.export.calibration.clumping`); 0 where it
    wasn't measured.
    """

    quantiles: tuple[Quantile, ...] = Field(min_length=2)
    pairs: int = Field(gt=0)
    protocol: str = Field(min_length=1)
    clumping: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ordered(self) -> "Calibration":
        for before, after in zip(self.quantiles, self.quantiles[1:], strict=False):
            if not (before.fmr > after.fmr and before.similarity <= after.similarity):
                raise ValueError(
                    "quantiles must go from the largest fmr to the smallest, similarity not falling"
                )
        return self


class Quantized(_Record):
    """The int8 rendering of a model, beside its fp32 file, with what was measured of it.

    It stands for the same embedding space, so its embeddings may be compared with those of the fp32 file:
    accuracy_loss is the larger of what pairs lose when both sides are int8 and when one side is fp32, as a
    share of pairs (0.002 is 0.2 percentage points; negative is a gain). speedup: how many times as fast on
    one thread, at batch 8. protocol, command: on what, and what measures it again.
    """

    file: str = Field(default="model.int8.onnx", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    accuracy_loss: float = Field(ge=-1, le=1)
    speedup: float = Field(gt=0)
    protocol: str = Field(min_length=1)
    command: str

    @property
    def worthwhile(self) -> bool:
        """It loses at most 0.2 percentage points and is at least 1.1 times as fast."""
        return self.accuracy_loss <= MAX_INT8_LOSS + 1e-9 and self.speedup >= MIN_INT8_SPEEDUP


class Manifest(_Record):
    """What `manifest.json` beside a `model.onnx` says.

    input: the network's input, (1, 3, H, W). color: order of its channels.
    mean, scale: a pixel p in 0..255 enters as (p - mean) * scale, by channel in the order of `color`.
    template: id of the alignment (`sphereid.faces.align.TEMPLATES`); its size must be that of the input.
    embedding_size: length of the embedding that callers get, after the flip rule.
    flip: `none`: the network's output. `sum`: output of the crop plus output of its mirror image. `concat`:
    the two side by side, so that embedding_size is twice the network's output.
    sha256: of the model file, 64 hexadecimal digits. file: its name, beside the manifest. int8: a faster
    rendering of the same file, if there is one.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    version: str = Field(min_length=1)
    file: str = Field(default="model.onnx", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    input: tuple[Literal[1], Literal[3], int, int]
    color: Literal["rgb", "bgr"] = "rgb"
    mean: PerChannel = (127.5, 127.5, 127.5)
    scale: PerChannel = (1 / 128, 1 / 128, 1 / 128)
    template: str = "sphereface-112x96"
    embedding_size: int = Field(gt=0)
    flip: FlipRule = "none"
    training_data: str = Field(min_length=1)
    license: str = Field(min_length=1)
    metrics: tuple[Metric, ...] = ()
    calibration: Calibration | None = None
    int8: Quantized | None = None
    date: date

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        template = TEMPLATES.get(self.template)
        if template is None:
            raise ValueError(f"unknown template {self.template!r}; known: {', '.join(sorted(TEMPLATES))}")
        if self.input[2:] != (template.height, template.width):
            raise ValueError(
                f"template {self.template} makes crops of {template.height}x{template.width} "
                f"(height x width), the input is {self.input[2]}x{self.input[3]}"
            )
        if self.flip == "concat" and self.embedding_size % 2:
            raise ValueError("flip 'concat' doubles the network's output: embedding_size must be even")
        return self

    @property
    def alignment(self) -> Template:
        """The template that `template` names."""
        return TEMPLATES[self.template]

    @property
    def contract(self) -> str:
        """Names the embedding space: 16 hexadecimal digits of a hash over the digest and the preprocessing.

        Two embeddings may be compared only when their contracts are equal. Name, version and metrics do not
        enter it: they change nothing about a vector.
        """
        terms = {
            "sha256": self.sha256,
            "input": self.input,
            "color": self.color,
            "mean": self.mean,
            "scale": self.scale,
            "template": self.alignment.points,
            "flip": self.flip,
        }
        return hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json` of a model folder. Raises ModelError saying what is wrong and where."""
    path = folder / MANIFEST_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ModelError(f"{folder.name} is no model folder: it has no {MANIFEST_FILE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder.name}/{MANIFEST_FILE} cannot be read: {error}") from error
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'manifest'}: {fault['msg']}" for fault in error.errors()
        )
        raise ModelError(f"{folder.name}/{MANIFEST_FILE} is not valid: {faults}") from None


def save_manifest(manifest: Manifest, folder: Path) -> Path:
    """Write `manifest.json` into a model folder, atomically; returns its path."""
    path = folder / MANIFEST_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def read_model(folder: Path, manifest: Manifest, precision: Precision = "fp32") -> bytes:
    """The model file's bytes. Raises ModelError when it is absent or not the file that the manifest names."""
    if precision == "int8" and manifest.int8 is None:
        raise ModelError(
            f"model {manifest.name} has no int8 file: make one with `python -m training quantize {folder}`, "
            "or choose precision fp32"
        )
    named = manifest.int8 if precision == "int8" and manifest.int8 is not None else manifest
    path = folder / named.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"model {manifest.name}: {named.file} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != named.sha256:
        raise ModelError(
            f"model {manifest.name}: {named.file} has sha256 {digest[:12]}…, its manifest says "
            f"{named.sha256[:12]}…: the file was changed or did not arrive whole; fetch or export it again"
        )
    return data
