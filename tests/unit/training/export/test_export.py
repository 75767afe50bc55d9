"""Export: folding, parity, manifest, card, the released checkpoint, and the command line over all of it."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.manifest import Metric, file_sha256, load_manifest
from sphereid_training.config import Config
from sphereid_training.data.augment import center_view
from sphereid_training.data.loader import to_pixels
from sphereid_training.data.store import open_store
from sphereid_training.errors import TrainingError
from sphereid_training.export import card
from sphereid_training.export.model import (
    Deployed,
    export,
    fold_batch_norm,
    measure_parity,
    network_of,
    to_onnx,
)
from sphereid_training.loop import checkpoint
from sphereid_training.loop.engine import train
from sphereid_training.networks.sphereface import SphereFaceNet

Make = Callable[..., Config]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("pool", [1, 2])
def test_folded_networks_agree_with_torch_at_any_batch(batch_norm: bool, pool: int) -> None:
    torch.manual_seed(0)
    size = (112 // pool, 96 // pool)
    net = SphereFaceNet((0, 1, 1, 0), width=8, batch_norm=batch_norm, embedding_size=16, input_size=size)
    for _ in range(3):
        net(torch.randn(8, 3, *size))
    network = Deployed(net, pool).eval()
    folded = fold_batch_norm(network)
    assert not any(isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d) for m in folded.modules())
    model = to_onnx(folded, (112, 96), {"flip": "sum"})
    assert max(measure_parity(model, network, (112, 96), (1, 7, 3)).values()) < 1e-4
    graph = onnx.load_from_string(model)
    assert graph.opset_import[0].version >= 17
    assert {p.key: p.value for p in graph.metadata_props} == {"flip": "sum"}
    assert not [node for node in graph.graph.node if node.op_type == "BatchNormalization"]


def test_the_served_model_is_the_trained_one(small_config: Make, tmp_path: Path) -> None:
    config = small_config()
    path = train(config, runs=tmp_path, max_steps=4)
    state = checkpoint.load(path)
    made = export(state, tmp_path / "toy", name="toy", training_data="toys", calibration=None, command="x")
    assert made.parity.keys() == {1, 7}
    manifest = load_manifest(tmp_path / "toy")
    assert manifest.sha256 == file_sha256(tmp_path / "toy" / "model.onnx")
    assert manifest.license == "research use only"
    store = open_store(Path(config.data.store))
    canvases = np.asarray(store.images[:5])
    served = OnnxEmbedder.load(tmp_path / "toy").embed(center_view(canvases, "112x96"))
    network, _ = network_of(state)
    with torch.no_grad():
        pixels = to_pixels(center_view(canvases, "112x96"))
        expected = torch.nn.functional.normalize(network(pixels) + network(pixels.flip(3)), dim=1)
    assert served == pytest.approx(expected.numpy(), abs=1e-4)


def test_a_difference_between_onnx_and_torch_writes_nothing(
    small_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = checkpoint.load(train(small_config(), runs=tmp_path, max_steps=1))
    monkeypatch.setattr("sphereid_training.export.model.measure_parity", lambda *_: {1: 0.5})
    with pytest.raises(TrainingError, match=r"differ by 5\.0e-01"):
        export(state, tmp_path / "m", name="m", training_data="toys", calibration=None, command="x")
    assert not (tmp_path / "m").exists()


def test_recorded_figures_replace_older_ones(small_config: Make, tmp_path: Path) -> None:
    state = checkpoint.load(train(small_config(), runs=tmp_path, max_steps=1))
    folder = tmp_path / "toy"
    export(state, folder, name="toy", training_data="toys", calibration=None, command="x")
    card.write_card(folder, "A toy.")
    card.record(folder, [Metric(name="LFW accuracy", value=0.5, command="first")])
    card.record(folder, [Metric(name="LFW accuracy", value=0.75, command="second")])
    text = (folder / "CARD.md").read_text(encoding="utf-8")
    assert "A toy." in text
    assert "| LFW accuracy | 0.75 | `second` |" in text
    assert "first" not in text
    assert [m.value for m in load_manifest(folder).metrics if m.name == "LFW accuracy"] == [0.75]


def test_the_command_line_from_checkpoint_to_open_set(small_config: Make, tmp_path: Path) -> None:
    config = small_config(data={"holdout_percent": 45})
    path = train(config, runs=tmp_path)
    folder = tmp_path / "models" / "toy"

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "training", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    told = command("export", str(path), str(folder), "--with-checkpoint")
    assert "largest difference" in told
    manifest = load_manifest(folder)
    assert manifest.calibration is not None
    assert manifest.calibration.quantiles[0].fmr == pytest.approx(0.5, abs=0.01)
    rng = np.random.default_rng(0)
    people = rng.integers(0, 256, (20, 112, 112, 3), dtype=np.uint8)
    crops = [
        cv2.imencode(".png", people[p])[1].tobytes() for n in range(20) for p in (n, n if n % 2 else n - 1)
    ]
    (tmp_path / "toy.bin").write_bytes(pickle.dumps((crops, [bool(n % 2) for n in range(20)])))
    command(
        "evaluate",
        "bin",
        str(tmp_path / "toy.bin"),
        "--model",
        str(folder),
        "--json",
        str(tmp_path / "b.json"),
    )
    assert json.loads((tmp_path / "b.json").read_text())["accuracy"] == 1
    released = checkpoint.load(folder / "checkpoint.pt")
    assert (folder / "checkpoint.pt").stat().st_size < path.stat().st_size / 3
    again = train(
        small_config(name="next", init_from=str(folder / "checkpoint.pt")), runs=tmp_path, max_steps=1
    )
    assert again.exists()
    assert released.samples == 320


def test_mistakes_on_the_command_line_end_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "training", "train", "optimizer.lr=fast"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[4],
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: configuration: optimizer.lr: Input should be a valid number")
