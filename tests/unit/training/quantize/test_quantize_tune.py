"""Fine-tuning of int8 weights: torch sees the graph that ONNX Runtime runs; the result is nearer to fp32."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sphereid.faces.manifest import Manifest
from sphereid.faces.quantization.qdq import prepare
from sphereid_training.errors import TrainingError
from sphereid_training.quantize.static import pixels_of, quantize
from sphereid_training.quantize.tune import FakeQuantized, Tuning, distance, fine_tune

from tests.unit.training.quantize.test_quantize_graph import crops, manifest_of, model_of


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return manifest_of(model_of())


@pytest.fixture(scope="module")
def plain(manifest: Manifest) -> onnx.ModelProto:
    return prepare(model_of(), manifest)


@pytest.fixture(scope="module")
def int8(plain: onnx.ModelProto, manifest: Manifest) -> bytes:
    return quantize(plain, crops(64), manifest)


def reference(model: onnx.ModelProto | bytes, pixels: np.ndarray) -> np.ndarray:
    """The graph as it is written: every pair of quantizing and dequantizing by itself, none fused."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"pixels": pixels})[0])


def test_torch_runs_the_quantized_graph_as_onnx_runtime_does(int8: bytes, manifest: Manifest) -> None:
    pixels = pixels_of(crops(8), manifest)
    student = FakeQuantized(onnx.load_from_string(int8))
    with torch.no_grad():
        found = student(torch.from_numpy(pixels))
    expected = torch.from_numpy(reference(int8, pixels))
    fp32 = torch.from_numpy(reference(model_of(), pixels))
    # A value on the edge of a rounding may fall to either side; the roundings as a whole cost far more.
    assert float(distance(found, expected)) < 0.1 * float(distance(expected, fp32))


def test_weights_come_from_the_float_graph_and_are_rounded_when_written(
    int8: bytes, plain: onnx.ModelProto
) -> None:
    before = onnx.load_from_string(int8)
    student = FakeQuantized(before, plain)
    floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in plain.graph.initializer}
    assert any(
        np.array_equal(p.detach().numpy(), floats["blocks.0.first.weight"]) for p in student.parameters()
    )
    after = student.written_to(before)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    for tensor in before.graph.initializer:
        # Untrained, they are what the quantizer itself made of them, but for ties.
        assert np.abs(tensors[tensor.name].astype(float) - numpy_helper.to_array(tensor)).max() <= 1
    with torch.no_grad():
        for parameter in student.weights.values():
            parameter.mul_(3)
    steep = student.written_to(before)
    weights = [numpy_helper.to_array(t) for t in steep.graph.initializer if t.data_type == TensorProto.INT8]
    assert max(int(np.abs(w.astype(int)).max()) for w in weights) == 64


def test_gradients_pass_a_rounding_and_stop_at_its_limits() -> None:
    """One number through q = clip(round(x / 0.5) + 10, 0, 255), which stands for -5 to 122.5."""
    nodes = [
        helper.make_node("QuantizeLinear", ["pixels", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["embedding"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(0.5), "scale"),
        numpy_helper.from_array(np.uint8(10), "zero"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("pixels", "embedding")
    ]
    graph = FakeQuantized(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)))
    x = torch.tensor([-6.0, -4.9, 0.3, 122.4, 130.0], requires_grad=True)
    found = graph(x)
    assert found.tolist() == [-5.0, -5.0, 0.5, 122.5, 122.5]
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_distance_is_the_share_of_the_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(64, 8, generator=generator)
    assert float(distance(3 * target, target)) == pytest.approx(0, abs=1e-6)
    unit = target / target.norm(dim=1, keepdim=True)
    # On the sphere two independent draws lie twice their variance apart.
    assert float(distance(torch.randn(64, 8, generator=generator), target)) == pytest.approx(2, abs=0.4)
    assert float(distance(unit + 1e-3, unit)) < 1e-4


def test_fine_tuning_brings_unseen_faces_nearer_to_fp32(
    int8: bytes, plain: onnx.ModelProto, manifest: Manifest
) -> None:
    seen, unseen = crops(192)[64:], crops(224)[192:]
    losses: list[float] = []
    tuned = fine_tune(
        int8, plain, seen, manifest, Tuning(steps=30, lr=1e-4, batch=16), lambda _, loss: losses.append(loss)
    )
    assert len(losses) == 30
    pixels = pixels_of(unseen, manifest)
    fp32 = torch.from_numpy(reference(model_of(), pixels))

    def cost(model: bytes) -> float:
        return float(distance(torch.from_numpy(reference(model, pixels)), fp32))

    assert cost(tuned) < 0.8 * cost(int8)
    before, after = (onnx.load_from_string(each) for each in (int8, tuned))
    assert [n.op_type for n in before.graph.node] == [n.op_type for n in after.graph.node]
    assert before.metadata_props == after.metadata_props


def test_what_cannot_be_fine_tuned_is_said(int8: bytes, plain: onnx.ModelProto, manifest: Manifest) -> None:
    with pytest.raises(TrainingError, match="31 faces to fine-tune on are fewer than a batch of 32"):
        fine_tune(int8, plain, crops(31), manifest, Tuning(steps=1))
    with pytest.raises(TrainingError, match="diverged: choose a smaller rate"):
        fine_tune(int8, plain, crops(32), manifest, Tuning(steps=2, lr=float("inf")))
    strange = onnx.load_from_string(int8)
    strange.graph.node[-1].op_type = "Softplus"
    with pytest.raises(TrainingError, match="cannot fine-tune through the operator Softplus"):
        FakeQuantized(strange)
