"""dlib's face descriptor as a model folder that the service can load."""

import datetime
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.errors import ModelError
from sphereid.faces.manifest import Calibration, Manifest, Metric, Quantized
from sphereid.faces.published.dlib import LICENSE
from sphereid.faces.published.dlib.card import card
from sphereid.faces.published.dlib.graph import build_graph
from sphereid.faces.published.dlib.reference import load_ranges, load_reference
from sphereid.faces.published.dlib.weights import (
    CHIP,
    EMBEDDING,
    SCALE,
    DlibWeights,
    load_weights,
    model_path,
)
from sphereid.faces.published.folder import ModelFiles
from sphereid.faces.quantization.qdq import prepare, quantize

NAME: Final = "dlib"
TEMPLATE: Final = "dlib-150x150"
_WEIGHTS_SHA256: Final = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
_TRAINING_DATA: Final = (
    "About 3 million faces of 7,485 people (FaceScrub, VGG and images from the web), by dlib's author; "
    "nothing of it was seen here."
)


@dataclass(frozen=True, slots=True, eq=False)
class Converted:
    """The network as ONNX. manifest: without calibration, figures and int8."""

    model: bytes
    manifest: Manifest

    def with_int8(self, measured: Quantized) -> tuple[bytes, Quantized]:
        """The int8 file, made with the ranges that come with SphereID, and its record with what was
        `measured` of it before."""
        made = quantize(prepare(self.model, self.manifest), load_ranges(), self.manifest)
        return made, measured.model_copy(update={"sha256": hashlib.sha256(made).hexdigest()})

    def files(
        self,
        calibration: Calibration,
        metrics: tuple[Metric, ...] = (),
        int8: tuple[bytes, Quantized] | None = None,
    ) -> ModelFiles:
        """The folder with what was measured of the network."""
        model, record = int8 or (None, None)
        update = {"calibration": calibration, "metrics": metrics, "int8": record}
        manifest = self.manifest.model_copy(update=update)
        return ModelFiles(manifest, self.model, model, card(manifest))


def make(weights: Path | None = None, *, say: Callable[[str], None]) -> ModelFiles:
    """The network with the calibration, the figures and the int8 ranges that come with SphereID.

    weights: dlib's `.dat` (None: the installed package's). say: hears one line a step.
    Raises ModelError, saying what to install, when there is none, and when it is another than was measured.
    """
    path = weights or model_path()
    network = load_weights(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != _WEIGHTS_SHA256:
        raise ModelError(f"{path.name} is not the file that was measured: calibrate it on faces of yours")
    say(f"read {path.name}: {1 + 2 * len(network.blocks)} convolutions, {network.parameters:,} parameters")
    reference = load_reference()
    made = convert(network)
    OnnxEmbedder(made.model, made.manifest, providers="cpu")
    say(f"built an ONNX graph of {len(made.model) / 1e6:.1f} MB; ONNX Runtime loads and runs it")
    int8, record = made.with_int8(reference.int8)
    OnnxEmbedder(int8, made.manifest, providers="cpu", precision="int8")
    say(f"built its int8 rendering of {len(int8) / 1e6:.1f} MB; ONNX Runtime loads and runs it")
    say(f"calibration: the one that comes with SphereID ({reference.calibration.pairs:,} impostor pairs)")
    return made.files(reference.calibration, reference.metrics, (int8, record))


def convert(network: DlibWeights, center: NDArray[np.float32] | None = None) -> Converted:
    """The network as ONNX. center: (128,) descriptor to subtract (None: dlib's raw descriptor)."""
    model = build_graph(network, center, _metadata(network)).SerializeToString()
    manifest = Manifest(
        name=NAME,
        version="1",
        sha256=hashlib.sha256(model).hexdigest(),
        input=(1, 3, CHIP, CHIP),
        mean=network.mean,
        scale=(SCALE, SCALE, SCALE),
        template=TEMPLATE,
        embedding_size=EMBEDDING,
        flip="sum",
        training_data=_TRAINING_DATA,
        license=LICENSE,
        date=datetime.datetime.now(datetime.UTC).date(),
    )
    return Converted(model, manifest)


def _metadata(network: DlibWeights) -> list[tuple[str, str]]:
    return [
        ("color", "rgb"),
        ("mean", json.dumps(network.mean)),
        ("scale", json.dumps(SCALE)),
        ("template", TEMPLATE),
        ("flip", "sum"),
        ("license", LICENSE),
    ]
