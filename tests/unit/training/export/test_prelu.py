"""PReLU as a maximum: the same numbers, wherever slopes allow it."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sphereid.faces.quantization.prelu import prelu_as_maximum
from sphereid_training.export.model import fold_batch_norm, measure_parity, to_onnx
from sphereid_training.networks.sphereface import SphereFaceNet


def model_with(slope: np.ndarray) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4, 5, 6]) for name in "xy"]
    node = helper.make_node("PRelu", ["x", "slope"], ["y"], name="prelu")
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(slope, "slope")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def outputs(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize(
    ("slopes", "rewritten"),
    [((-0.5, 0.0, 0.25, 1.0), True), ((-0.5, 0.0, 0.25, 1.5), False)],
)
def test_slopes_up_to_one_are_a_maximum(slopes: tuple[float, ...], rewritten: bool) -> None:
    slope = np.array(slopes, np.float32).reshape(4, 1, 1)
    x = np.random.default_rng(0).standard_normal((3, 4, 5, 6)).astype(np.float32)
    changed = prelu_as_maximum(model_with(slope))
    assert ("PRelu" not in {node.op_type for node in changed.graph.node}) is rewritten
    assert outputs(changed, x) == pytest.approx(np.where(x < 0, slope * x, x), abs=1e-6)


def test_a_slope_that_is_computed_stays() -> None:
    model = model_with(np.full((4, 1, 1), 0.25, np.float32))
    model.graph.initializer[0].name = "given"
    model.graph.node.insert(0, helper.make_node("Neg", ["given"], ["slope"]))
    assert [node.op_type for node in prelu_as_maximum(model).graph.node] == ["Neg", "PRelu"]


def test_exported_networks_have_no_prelu_and_agree_with_torch() -> None:
    torch.manual_seed(0)
    net = SphereFaceNet((0, 1, 1, 0), width=8, batch_norm=True, embedding_size=16, input_size=(112, 96))
    for module in net.modules():
        if isinstance(module, torch.nn.PReLU):
            torch.nn.init.uniform_(module.weight, -0.3, 0.9)
    net.eval()
    model = to_onnx(fold_batch_norm(net), (112, 96), {})
    assert "PRelu" not in {node.op_type for node in onnx.load_from_string(model).graph.node}
    assert max(measure_parity(model, net, (112, 96), (1, 5)).values()) < 1e-5
