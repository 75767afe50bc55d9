"""Rewrites for int8: the same numbers in float, each where it fits and nowhere else."""

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from sphereid.faces.manifest import Manifest
from sphereid.faces.quantization.graph import WHOLE, Graph, in_float, rewrite, whole_pixels
from sphereid.faces.quantization.qdq import prepare
from sphereid_training.export.model import to_onnx
from sphereid_training.importers.dlib.network import DlibBlock
from sphereid_training.quantize.static import pixels_of, quantize
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tests.unit.faces.models import manifest_for

SIZE = (112, 96)
MEAN, SCALE = (127.5,) * 3, (1 / 128,) * 3


class Residual(nn.Module):
    """dlib's network in small: pixels scaled and shifted, a stem without padding, a shortcut with a pool."""

    def __init__(self, *, padding: int = 0) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([0.1, -0.2, 0.3]).view(3, 1, 1))
        self.stem = nn.Conv2d(3, 8, 5, stride=2, padding=padding)
        self.blocks = nn.Sequential(DlibBlock(8, 8, down=False), DlibBlock(8, 12, down=True))
        self.projection = nn.Linear(12, 16, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        x = F.relu(self.stem(pixels * 0.5 + self.shift))
        embedding: Tensor = 10 * F.normalize(self.projection(self.blocks(x).mean(dim=(2, 3))), dim=1)
        return embedding


def model_of(*, padding: int = 0) -> bytes:
    torch.manual_seed(0)
    return to_onnx(Residual(padding=padding).eval(), SIZE, {})


def manifest_of(model: bytes) -> Manifest:
    return manifest_for(model, embedding_size=16, mean=MEAN, scale=SCALE)


def outputs(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: pixels})[0])


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def crops(count: int) -> np.ndarray:
    """Smooth patches of color, among which every byte occurs."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 5, 4, 3), dtype=np.uint8)
    made = np.stack([cv2.resize(each, SIZE[::-1], interpolation=cv2.INTER_LINEAR) for each in coarse])
    made[0].reshape(-1)[:256] = np.arange(256)
    return made


def test_the_prepared_graph_gives_the_same_numbers_in_operators_that_int8_runs_fast() -> None:
    model = model_of()
    manifest = manifest_of(model)
    prepared = prepare(model, manifest)
    onnx.checker.check_model(prepared, full_check=True)
    pixels = pixels_of(crops(5), manifest)
    expected = outputs(onnx.load_from_string(model), pixels)
    assert outputs(prepared, pixels) == pytest.approx(expected, abs=2e-5)
    # Two convolutions a block, the stem, and the shortcut's pool with its four new channels.
    assert kinds(prepared).count("Conv") == 6
    assert "AveragePool" not in kinds(prepared)
    first = prepared.graph.node[0]
    assert (first.op_type, first.output[0]) == ("Add", WHOLE)
    read = {name for node in prepared.graph.node for name in node.input}
    assert {tensor.name for tensor in prepared.graph.initializer} <= read


def test_a_padded_first_convolution_keeps_its_pixels() -> None:
    """At its border it sees zeros, which a shift of the bias would not shift."""
    model = model_of(padding=2)
    manifest = manifest_of(model)
    prepared = prepare(model, manifest)
    assert WHOLE not in {node.output[0] for node in prepared.graph.node}
    assert [node.op_type for node in prepared.graph.node[:3]] == ["Mul", "Add", "Conv"]
    pixels = pixels_of(crops(3), manifest)
    expected = outputs(onnx.load_from_string(model), pixels)
    assert outputs(prepared, pixels) == pytest.approx(expected, abs=2e-5)


def test_pixels_reach_the_int8_network_without_loss() -> None:
    model = model_of()
    manifest = manifest_of(model)
    made = onnx.load_from_string(quantize(prepare(model, manifest), crops(32), manifest))
    rounded = next(n for n in made.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == WHOLE)
    del made.graph.output[:]
    made.graph.output.append(
        onnx.helper.make_tensor_value_info(rounded.output[0], onnx.TensorProto.UINT8, None)
    )
    every = np.arange(256, dtype=np.uint8)
    images = np.zeros((1, *SIZE, 3), np.uint8)
    images.reshape(-1)[:256] = every
    seen = outputs(made, pixels_of(images, manifest))
    assert np.array_equal(seen.transpose(0, 2, 3, 1).reshape(-1)[:256], every)


def test_a_mean_that_is_a_byte_needs_no_shift() -> None:
    graph = Graph(onnx.load_from_string(model_of()))
    before = kinds(graph.model)
    whole_pixels(graph, (127.0,) * 3, SCALE)
    assert kinds(graph.model) == before


def test_what_follows_the_convolutions_stays_in_float() -> None:
    model = model_of()
    manifest = manifest_of(model)
    prepared = prepare(model, manifest)
    late = [node for node in prepared.graph.node if node.name in in_float(prepared)]
    assert {"ReduceMean", "MatMul", "Mul", "Div"} <= {node.op_type for node in late}
    assert "Conv" not in {node.op_type for node in late}
    made = onnx.load_from_string(quantize(prepared, crops(32), manifest))
    makers = {name: node.op_type for node in made.graph.node for name in node.output}
    assert makers[made.graph.output[0].name] == "Mul"


def test_a_pool_that_others_read_too_or_that_pads_otherwise_stays() -> None:
    class Shared(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            pooled = F.avg_pool2d(pixels, 2)
            wider = F.pad(pooled, (0, 0, 0, 0, 0, 3))
            bottom = F.pad(F.avg_pool2d(pixels, 2), (0, 0, 0, 1))
            return wider.sum(dim=(1, 2, 3)) + pooled.amax(dim=(1, 2, 3)) + bottom.sum(dim=(1, 2, 3))

    model = to_onnx(Shared().eval(), SIZE, {})
    manifest = manifest_of(model)
    assert kinds(prepare(model, manifest)).count("AveragePool") >= 1
    assert "Conv" not in kinds(rewrite(onnx.load_from_string(model), mean=MEAN, scale=SCALE))
