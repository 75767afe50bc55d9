"""The network read from a TensorFlow Lite file is LiteRT's, and so is the model folder made of it."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from rich.console import Console
from sphereid.faces.embed import OnnxEmbedder
from sphereid_training.cli import main
from sphereid_training.data.augment import center_view
from sphereid_training.data.store import open_store
from sphereid_training.errors import TrainingError
from sphereid_training.importers.mobilefacenet.convert import (
    import_mobilefacenet,
    read_network,
    served_onnx,
)
from sphereid_training.importers.mobilefacenet.network import FoldedMobileFaceNet
from sphereid_training.importers.mobilefacenet.reader import Layer, read_layers

FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@pytest.fixture
def tflite_file(shared_data: Path) -> Path:
    pytest.importorskip("tflite")
    return shared_data / "teachers" / "mobilefacenet.tflite"


def pixels(count: int) -> FloatArray:
    """(N, 112, 112, 3), as the network wants them, of smooth random pictures."""
    rng = np.random.default_rng(3)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 9, 9)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(112, 112), mode="bicubic").clamp(0, 255)
    values: FloatArray = ((smooth.permute(0, 2, 3, 1).numpy() - 127.5) / 128).astype(np.float32)
    return values


def litert(file: Path, faces: FloatArray) -> FloatArray:
    """(N, 192) by the reference implementation, two faces at a time as the file wants them."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(file))
    interpreter.allocate_tensors()
    into, out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    found = []
    for start in range(0, len(faces), 2):
        interpreter.set_tensor(into, np.ascontiguousarray(faces[start : start + 2]))
        interpreter.invoke()
        found.append(interpreter.get_tensor(out).copy())
    return np.concatenate(found)


@pytest.mark.data
def test_torch_and_the_served_graph_compute_what_litert_does(tflite_file: Path) -> None:
    network, faces = read_network(tflite_file), pixels(6)
    expected = litert(tflite_file, faces)
    planar = np.ascontiguousarray(faces.transpose(0, 3, 1, 2))
    with torch.inference_mode():
        rebuilt = network(torch.from_numpy(planar)).numpy()
    served = ort.InferenceSession(served_onnx(network), providers=["CPUExecutionProvider"])
    assert np.abs(expected).max() > 1
    assert np.abs(rebuilt - expected).max() <= 1e-4
    assert np.abs(served.run(None, {"pixels": planar})[0] - expected).max() <= 1e-4


@pytest.mark.data
def test_the_file_has_the_layers_its_authors_describe(tflite_file: Path) -> None:
    layers = read_layers(tflite_file.read_bytes())
    assert sum(layer.groups == 1 for layer in layers) == 35
    assert sum(layer.groups > 1 for layer in layers) == 17
    assert sum(layer.slope is not None for layer in layers) == 33
    assert [layer.weight.shape[2:] for layer in layers if layer.groups > 1 and not layer.same] == [(7, 7)]


@pytest.mark.data
def test_the_command_makes_a_calibrated_model(
    tflite_file: Path, store_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "mobilefacenet"
    words = ["sphereid", "import", "mobilefacenet", str(tflite_file), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*words, "--store", str(store_folder)])
    main()
    embedder = OnnxEmbedder.load(out)
    crops = center_view(np.asarray(open_store(store_folder).images[:2]), "112x112")
    expected = litert(tflite_file, ((crops.astype(np.float32) - 127.5) / 128).astype(np.float32))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert embedder.embed(crops) == pytest.approx(expected, abs=1e-4)
    assert embedder.manifest.flip == "none"
    assert embedder.manifest.calibration is not None
    assert "research use only" in (out / "CARD.md").read_text()


def test_uneven_padding_and_sums_survive_the_export() -> None:
    rng = np.random.default_rng(0)

    def layer(outputs: int, inputs: int, stride: int, groups: int = 1, adds: int | None = None) -> Layer:
        weight = rng.normal(0, 0.3, (outputs, inputs // groups, 3, 3)).astype(np.float32)
        slope = rng.uniform(-0.5, 1.5, outputs).astype(np.float32)
        return Layer(weight, np.ones(outputs, np.float32), stride, True, groups, slope, adds)

    network = FoldedMobileFaceNet([layer(8, 3, 2), layer(8, 8, 1, groups=8, adds=0), layer(4, 8, 2)]).eval()
    session = ort.InferenceSession(served_onnx(network), providers=["CPUExecutionProvider"])
    faces = torch.from_numpy(pixels(3).transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        expected = network(faces).numpy()
    assert session.run(None, {"pixels": faces.numpy()})[0] == pytest.approx(expected, abs=1e-4)


def test_another_file_is_refused(tmp_path: Path, store_folder: Path) -> None:
    pytest.importorskip("tflite")
    file = tmp_path / "other.tflite"
    file.write_bytes(b"no FlatBuffer at all")
    with pytest.raises(TrainingError, match="not a TensorFlow Lite file"):
        import_mobilefacenet(file, tmp_path / "out", store=store_folder, console=Console(quiet=True))
    with pytest.raises(TrainingError, match="cannot be read"):
        read_network(tmp_path / "absent.tflite")
    assert not (tmp_path / "out").exists()
