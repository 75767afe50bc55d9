"""`import dlib` from start to end: the folder it writes, what it refuses, how the service loads it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sphereid.faces.detect import MtcnnDetector
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.errors import ModelError
from sphereid.faces.manifest import load_manifest
from sphereid.faces.pipeline import FacePipeline
from sphereid.faces.published.dlib.reference import load_reference
from sphereid_training.cli.import_dlib import command
from sphereid_training.errors import TrainingError
from sphereid_training.importers.dlib.convert import import_dlib
from typer import Typer
from typer.testing import CliRunner

from tests.unit.training.importers.dlib.inputs import golden_chips


@pytest.fixture(scope="module")
def folder(weights_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "dlib"
    said: list[str] = []
    import_dlib(out, say=said.append)
    assert "29 convolutions, 5,607,488 parameters" in said[0]
    assert said[-1].startswith("wrote")
    return out


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of 60 images of 50 identities, and two of nobody."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (62, 8, 8, 3), dtype=np.uint8)
    identity = np.concatenate([np.arange(50), np.arange(10), [-1, -1]])
    np.save(tmp_path / "images.npy", coarse.repeat(16, axis=1).repeat(16, axis=2))
    np.savez(tmp_path / "meta.npz", name=np.array([f"g/{i}" for i in range(62)]), identity=identity)
    return tmp_path


def test_the_service_loads_it_and_gives_dlibs_descriptor(folder: Path, golden: NDArray[np.float32]) -> None:
    embedder = OnnxEmbedder.load(folder, providers="cpu", precision="fp32")
    chips = golden_chips()
    found = embedder.embed(chips)
    mirrored = embedder.embed(np.ascontiguousarray(chips[:, :, ::-1]))
    assert found.shape == (6, 128)
    np.testing.assert_allclose(found, mirrored, atol=1e-5)  # the flip sum
    # Black and white are their own mirror images: there dlib's descriptor must come out exactly.
    expected = golden / np.linalg.norm(golden, axis=1, keepdims=True)
    np.testing.assert_allclose(found[3:5], expected[3:5], atol=3e-6)


def test_manifest_and_card_say_what_it_is(folder: Path) -> None:
    manifest = load_manifest(folder)
    assert manifest.template == "dlib-150x150"
    assert manifest.flip == "sum"
    assert manifest.scale == (1 / 256,) * 3
    assert manifest.license.startswith("CC0")
    assert manifest.calibration == load_reference().calibration
    card = (folder / "CARD.md").read_text(encoding="utf-8")
    assert manifest.sha256 in card
    assert "| 0.01 | 0.9" in card


def test_a_photograph_and_its_mirror_image_are_the_same_person(
    folder: Path, portrait: NDArray[np.uint8]
) -> None:
    pipeline = FacePipeline(MtcnnDetector(), OnnxEmbedder.load(folder, providers="cpu"))
    dark = (portrait * 0.6).astype(np.uint8)
    mirrored = np.ascontiguousarray(portrait[:, ::-1])
    first, *others = (
        pipeline.analyze(image, min_face=60, max_faces=1).faces[0].embedding
        for image in (portrait, dark, mirrored)
    )
    assert first is not None
    limit = {round(q.fmr, 6): q.similarity for q in load_reference().calibration.quantiles}[0.001]
    for other in others:
        assert other is not None
        assert float(first.vector @ other.vector) > limit


def test_an_older_import_is_replaced_and_anything_else_is_left_alone(
    weights_file: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    out.mkdir()
    (out / "manifest.json").write_text("{}")
    (out / "left-over.bin").write_bytes(b"1")
    import_dlib(out, say=lambda line: None)
    assert {path.name for path in out.iterdir()} == {
        "model.onnx",
        "model.int8.onnx",
        "manifest.json",
        "CARD.md",
    }
    assert (out / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()

    other = tmp_path / "photos"
    other.mkdir()
    (other / "a.jpg").write_bytes(b"1")
    with pytest.raises(ModelError, match="holds other things than a model"):
        import_dlib(other)
    with pytest.raises(ModelError, match="is a file"):
        import_dlib(other / "a.jpg")
    assert (other / "a.jpg").read_bytes() == b"1"
    assert {path.name for path in tmp_path.iterdir()} == {"model", "photos"}


def test_calibrates_on_a_store(weights_file: Path, folder: Path, store: Path, tmp_path: Path) -> None:
    centered = import_dlib(tmp_path / "own", store=store, center=True, say=lambda line: None)
    assert centered.contract != load_manifest(folder).contract
    assert centered.metrics == ()
    assert centered.calibration is not None
    assert centered.calibration.pairs == 50 * 49 // 2
    assert "50 identities" in centered.calibration.protocol
    # Around their own mean, cosines of strangers lie around 0; raw descriptors all point the same way.
    assert centered.calibration.quantiles[0].similarity < 0.1


def test_missing_faces_are_explained(weights_file: Path, store: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="name a store"):
        import_dlib(tmp_path / "x", center=True)
    with pytest.raises(TrainingError, match="no prepared faces"):
        import_dlib(tmp_path / "x", store=tmp_path / "nowhere", say=lambda line: None)
    meta = dict(np.load(store / "meta.npz"))
    np.savez(store / "meta.npz", name=meta["name"], identity=np.minimum(meta["identity"], 5))
    with pytest.raises(TrainingError, match="50 identities or more, the store has 6"):
        import_dlib(tmp_path / "x", store=store, say=lambda line: None)
    assert not (tmp_path / "x").exists()


def test_the_command_line(weights_file: Path, tmp_path: Path) -> None:
    app = Typer()
    app.command("dlib")(command)
    result = CliRunner().invoke(app, ["--out", str(tmp_path / "m")])
    assert result.exit_code == 0, result.output
    assert "29 convolutions" in result.output
    assert json.loads((tmp_path / "m" / "manifest.json").read_text())["name"] == "dlib"
    assert "Convert dlib" in CliRunner().invoke(app, ["--help"]).output


def test_converting_needs_no_torch() -> None:
    script = "import sys, sphereid_training.importers.dlib.convert; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
