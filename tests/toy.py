"""A small but real recognition model, for tests of everything around the network.

Crops are averaged to 14x12 cells, freed of their mean and projected by a fixed random matrix: near-copies of
a photograph come out near each other, other pictures do not. It knows nothing about people.
"""

import hashlib
from datetime import date
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sphereid.faces.manifest import Calibration, Manifest, Quantile, save_manifest

SIZE = 64


def toy_graph(seed: int = 0) -> bytes:
    """The ONNX file: (N, 3, 112, 96) float32 -> (N, 64) float32, any N."""
    projection = np.random.default_rng(seed).standard_normal((3 * 14 * 12, SIZE)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["pixels"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["cells"], ["flat"], axis=1),
        helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["flat", "mean"], ["centered"]),
        helper.make_node("MatMul", ["centered", "projection"], ["projected"]),
        helper.make_node("Add", ["projected", "floor"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 112, 96])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", SIZE])],
        [
            numpy_helper.from_array(projection, "projection"),
            # a uniform crop would have no direction at all
            numpy_helper.from_array(np.full(SIZE, 1e-3, np.float32), "floor"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_toy_model(
    models_dir: Path,
    name: str = "toy",
    *,
    seed: int = 0,
    calibrated: bool = True,
    license_name: str = "MIT",
) -> Path:
    """A model folder as the service loads it; returns the folder."""
    folder = models_dir / name
    folder.mkdir(parents=True)
    data = toy_graph(seed)
    (folder / "model.onnx").write_bytes(data)
    levels = ((0.5, 0.05), (0.1, 0.3), (0.01, 0.5), (0.001, 0.65), (0.0001, 0.75))
    calibration = Calibration(
        quantiles=tuple(Quantile(fmr=fmr, similarity=similarity) for fmr, similarity in levels),
        pairs=1_000_000,
        protocol="invented for tests",
    )
    manifest = Manifest(
        name=name,
        version="1",
        sha256=hashlib.sha256(data).hexdigest(),
        input=(1, 3, 112, 96),
        embedding_size=SIZE,
        flip="sum",
        training_data="none: a random projection",
        license=license_name,
        calibration=calibration if calibrated else None,
        date=date(2026, 1, 1),
    )
    save_manifest(manifest, folder)
    return folder
