"""Small ONNX models with their manifests: the real loading path, without a trained network."""

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sphereid.faces.align import TEMPLATES
from sphereid.faces.manifest import Manifest, save_manifest


def linear_onnx(weight: NDArray[np.float32], height: int, width: int, batch: int | str = "batch") -> bytes:
    """A network that multiplies the flattened (3, H, W) input with `weight`, (3 H W, D)."""
    size = weight.shape[1]
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["input"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weight"], ["embedding"]),
        ],
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, height, width])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, size])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def manifest_for(model: bytes, **changes: Any) -> Manifest:
    """A valid manifest of `model` at 112x96 with 8 outputs; `changes` override its fields."""
    template = TEMPLATES[changes.get("template", "sphereface-112x96")]
    fields: dict[str, Any] = {
        "name": "linear",
        "version": "1",
        "sha256": hashlib.sha256(model).hexdigest(),
        "input": (1, 3, template.height, template.width),
        "template": "sphereface-112x96",
        "embedding_size": 8,
        "training_data": "none: random weights",
        "license": "MIT",
        "date": date(2026, 1, 1),
    }
    return Manifest(**{**fields, **changes})


def write_model(folder: Path, *, size: int = 8, seed: int = 0, **changes: Any) -> Path:
    """A loadable model folder: a random linear network with `size` outputs; returns the folder."""
    template = TEMPLATES[changes.get("template", "sphereface-112x96")]
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((3 * template.height * template.width, size)).astype(np.float32)
    model = linear_onnx(weight, template.height, template.width)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    doubled = 2 if changes.get("flip") == "concat" else 1
    save_manifest(manifest_for(model, embedding_size=size * doubled, **changes), folder)
    return folder
