"""int8: the graph, what it costs, what is recorded, and which file the service then takes."""

import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from rich.console import Console
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.errors import ModelError
from sphereid.faces.manifest import Manifest, Quantized, load_manifest, save_manifest
from sphereid.faces.quantization.qdq import prepare
from sphereid_training.cli.quantize import calibration_crops, quantize_model
from sphereid_training.errors import TrainingError
from sphereid_training.export.model import fold_batch_norm, to_onnx
from sphereid_training.networks.sphereface import SphereFaceNet
from sphereid_training.quantize.measure import Compared, Cost, _pooled
from sphereid_training.quantize.static import quantize, typical
from torch import nn

from tests.unit.faces.models import linear_onnx, manifest_for

SIZE = (112, 96)


@pytest.fixture(scope="module")
def network() -> bytes:
    """A small SphereFace net with batch norm, statistics of real inputs and slopes of either sign."""
    torch.manual_seed(0)
    net = SphereFaceNet((0, 1, 1, 0), width=8, batch_norm=True, embedding_size=16, input_size=SIZE)
    for module in net.modules():
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.3, 0.6)
    for _ in range(4):
        net(torch.randn(8, 3, *SIZE))
    return to_onnx(fold_batch_norm(net), SIZE, {"flip": "sum"})


@pytest.fixture(scope="module")
def crops(store_folder: Path, network: bytes) -> np.ndarray:
    return calibration_crops(store_folder, manifest_for(network, embedding_size=16), 64, 20)


def test_int8_stays_near_fp32_with_weights_that_cannot_saturate(network: bytes, crops: np.ndarray) -> None:
    manifest = manifest_for(network, embedding_size=16, flip="sum")
    made = quantize(prepare(network, manifest), crops[:32], manifest)
    graph = onnx.load_from_string(made)
    kinds = [node.op_type for node in graph.graph.node]
    convolutions = kinds.count("Conv")
    assert convolutions == sum(n.op_type == "Conv" for n in onnx.load_from_string(network).graph.node)
    assert {p.key: p.value for p in graph.metadata_props} == {
        "flip": "sum",
        "precision": "int8",
        "of": manifest.sha256,
    }
    weights = [
        numpy_helper.to_array(tensor)
        for tensor in graph.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    ]
    assert len(weights) == convolutions
    # Two products of a byte and a weight fit 16 bits.
    assert max(int(np.abs(w.astype(int)).max()) for w in weights) * 255 * 2 <= 32767
    scales = {tensor.name: tensor for tensor in graph.graph.initializer}
    channelwise = [
        node
        for node in graph.graph.node
        if node.op_type == "DequantizeLinear"
        and scales[node.input[1]].dims
        and scales[node.input[1]].dims[0] > 1
    ]
    assert len(channelwise) >= convolutions
    fp32 = OnnxEmbedder(network, manifest).embed(crops[32:])
    int8 = OnnxEmbedder(made, manifest).embed(crops[32:])
    center = fp32.mean(axis=0)
    a, b = fp32 - center, int8 - center
    cosine = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.mean() > 0.98


def folder_of(model: bytes, folder: Path, **changes: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model)
    save_manifest(manifest_for(model, embedding_size=16, flip="sum", **changes), folder)
    return folder


def pair_set(tmp_path: Path) -> tuple[Path, Path]:
    """Aligned crops are what the detector can't find; photographs of the test images hold one face."""
    import skimage.data

    photograph = skimage.data.astronaut()[:, :, ::-1]
    rng = np.random.default_rng(0)
    images = tmp_path / "faces.tar"
    with tarfile.open(images, "w") as archive:
        for person in ("Ann", "Bob"):
            for number in (1, 2):
                path = tmp_path / f"{person}_{number:04d}.png"
                gain = rng.uniform(0.6, 1.0)
                cv2.imwrite(str(path), (photograph * gain).astype(np.uint8)[:256, 100:356])
                archive.add(path, f"{person}/{path.name}")
    pairs = tmp_path / "pairs.txt"
    lines = ["2", "Ann 1 2", "Bob 1 2", "Ann 1 Bob 1", "Ann 2 Bob 2"]
    pairs.write_text("\n".join(lines))
    return images, pairs


def test_faces_that_drive_the_network_up_are_not_calibrated_on() -> None:
    """A linear network, whose embedding of an even face is as long as the face is bright."""
    network = linear_onnx(np.full((3 * 112 * 96, 8), 1e-5, np.float32), 112, 96)
    faces = np.full((6, 112, 96, 3), 20, np.uint8)
    faces[1] = 79
    faces[4] = 81
    kept = typical(onnx.load_from_string(network), faces, manifest_for(network, mean=0.0))
    assert kept.tolist() == [True, True, True, True, False, True]


def test_the_record_holds_what_was_measured(network: bytes, store_folder: Path, tmp_path: Path) -> None:
    folder = folder_of(network, tmp_path / "toy")
    images, pairs = pair_set(tmp_path)
    command = [sys.executable, "-m", "training", "quantize", str(folder), "--images", str(images)]
    command += ["--pairs", str(pairs), "--threshold-pairs", str(pairs), "--store", str(store_folder)]
    command += ["--faces", "32", "--tune", "2", "--tune-faces", "48", "--cache", str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest = load_manifest(folder)
    assert manifest.int8 is not None
    assert (folder / "model.int8.onnx").stat().st_size < (folder / "model.onnx").stat().st_size
    assert manifest.int8.protocol == "4 pairs of pairs.txt, threshold of pairs.txt"
    assert manifest.int8.speedup > 0
    assert "training quantize" in manifest.int8.command
    embedder = OnnxEmbedder.load(folder, precision="int8")
    assert embedder.precision == "int8"
    assert embedder.contract == OnnxEmbedder.load(folder, precision="fp32").contract
    measured = {metric.name: metric.value for metric in manifest.metrics}
    at = "4 pairs of pairs.txt, threshold of pairs.txt"
    lost = measured["fp32, accuracy on the same"] - min(
        measured[f"int8, accuracy on {at}"],
        measured["int8 against fp32 embeddings, accuracy on the same"],
    )
    assert manifest.int8.accuracy_loss == pytest.approx(lost)
    assert 0.9 < measured["int8, mean cosine to the fp32 embedding of the same face"] <= 1 + 1e-6
    # Both lists are the same here, so that exchanging them changes nothing.
    exchanged = "accuracy on pairs.txt at the test pairs' threshold"
    assert measured[f"int8, {exchanged}"] == measured[f"int8, accuracy on {at}"]
    assert f"fp32, {exchanged}" in measured
    assert not any("open set" in name for name in measured), "too few identities are held out"
    assert "int8, times as fast as fp32 at batch 8, threads: 1" in (folder / "CARD.md").read_text()

    subprocess.run([*command[: command.index("--tune")], "--remeasure"], check=True, capture_output=True)
    again = load_manifest(folder).int8
    assert again is not None
    assert (again.sha256, again.command) == (manifest.int8.sha256, manifest.int8.command)
    assert again.accuracy_loss == pytest.approx(manifest.int8.accuracy_loss)
    assert OnnxEmbedder.load(folder, precision="int8").precision == "int8"


def test_the_loss_is_that_of_all_pairs_together() -> None:
    # 1,000 pairs with 987, 987 and 984 right; 2,200 with 2,177, 2,175 and 2,178.
    test, train = Compared(0.987, 0.987, 0.984), Compared(2177 / 2200, 2175 / 2200, 2178 / 2200)
    pooled = _pooled(test, 1000, train, 2200)
    assert pooled.fp32 == pytest.approx(3164 / 3200)
    assert pooled.int8 == pytest.approx(3162 / 3200)
    assert pooled.mixed == pytest.approx(3162 / 3200)
    assert Cost(1.0, test, train, pooled, None, "p").loss == pytest.approx(2 / 3200)


def test_too_few_faces_and_graphs_that_cannot_be_read_change_nothing(
    network: bytes, store_folder: Path, tmp_path: Path
) -> None:
    folder = folder_of(network, tmp_path / "toy")
    images, pairs = pair_set(tmp_path)

    def run(model: Path, percent: int) -> Quantized:
        return quantize_model(
            model,
            store=store_folder,
            images=images,
            pairs=pairs,
            threshold_pairs=None,
            faces=128,
            tuning=None,
            tune_faces=128,
            ranges_file=None,
            remeasure=False,
            percent=percent,
            cache=None,
            command="x",
            console=Console(quiet=True),
        )

    with pytest.raises(TrainingError, match="16 faces to calibrate on, 32 are the least"):
        run(folder, 100)
    broken = folder_of(b"no graph", tmp_path / "broken")
    with pytest.raises(ModelError, match="model linear cannot be quantized"):
        run(broken, 8)
    assert not (folder / "model.int8.onnx").exists()
    assert load_manifest(folder).int8 is None


@pytest.fixture
def both(network: bytes, tmp_path: Path) -> Path:
    """A folder with an int8 file that loses nothing: the same network."""
    folder = folder_of(network, tmp_path / "both")
    (folder / "model.int8.onnx").write_bytes(network)
    return folder


def recorded(folder: Path, **changes: object) -> Manifest:
    manifest = load_manifest(folder)
    fields = {
        "sha256": manifest.sha256,
        "accuracy_loss": 0.001,
        "speedup": 1.8,
        "protocol": "p",
        "command": "c",
    }
    int8 = Quantized.model_validate({**fields, **changes})
    save_manifest(manifest.model_copy(update={"int8": int8}), folder)
    return load_manifest(folder)


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, "int8"),
        ({"accuracy_loss": 0.002}, "int8"),
        ({"accuracy_loss": 0.0021}, "fp32"),
        ({"speedup": 1.05}, "fp32"),
        ({"file": "absent.onnx"}, "fp32"),
    ],
)
def test_the_service_takes_int8_where_it_is_as_good_and_faster(
    both: Path, changes: dict[str, object], taken: str
) -> None:
    recorded(both, **changes)
    assert OnnxEmbedder.load(both, providers="cpu").precision == taken
    assert OnnxEmbedder.load(both, providers="cpu", precision="fp32").precision == "fp32"


def test_a_setting_forces_either_and_a_damaged_file_is_refused(both: Path) -> None:
    with pytest.raises(ModelError, match="has no int8 file: make one with `python -m training quantize"):
        OnnxEmbedder.load(both, precision="int8")
    recorded(both, accuracy_loss=0.5, speedup=0.5)
    embedder = OnnxEmbedder.load(both, precision="int8")
    assert embedder.precision == "int8"
    recorded(both, sha256="0" * 64)
    with pytest.raises(ModelError, match=r"model\.int8\.onnx has sha256 .* the file was changed"):
        OnnxEmbedder.load(both)
    recorded(both, file="absent.onnx")
    with pytest.raises(ModelError, match=r"absent\.onnx cannot be read"):
        OnnxEmbedder.load(both, precision="int8")
