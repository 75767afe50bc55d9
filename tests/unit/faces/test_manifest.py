"""The manifest: what it accepts, what it refuses and how it says so."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sphereid.faces.errors import ModelError
from sphereid.faces.manifest import (
    Calibration,
    Manifest,
    file_sha256,
    load_manifest,
    read_model,
    save_manifest,
)

from tests.unit.faces.models import manifest_for, write_model

CALIBRATION = {
    "quantiles": [{"fmr": 0.1, "similarity": 0.2}, {"fmr": 0.001, "similarity": 0.41}],
    "pairs": 12000,
    "protocol": "all impostor pairs of a held-out set",
}


def test_survives_the_way_to_disk_and_back(tmp_path: Path) -> None:
    manifest = manifest_for(
        b"model",
        calibration=CALIBRATION,
        metrics=[{"name": "lfw_view1", "value": 0.97, "command": "python -m training evaluate lfw"}],
    )
    save_manifest(manifest, tmp_path)
    assert load_manifest(tmp_path) == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_one_number_stands_for_three_channels() -> None:
    manifest = manifest_for(b"model", mean=127.5, scale=0.5)
    assert manifest.mean == (127.5, 127.5, 127.5)
    assert manifest.scale == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"template": "circle"}, "unknown template"),
        ({"input": (1, 3, 112, 112)}, "makes crops of 112x96"),
        ({"input": (2, 3, 112, 96)}, "input"),
        ({"sha256": "abc"}, "sha256"),
        ({"color": "grey"}, "color"),
        ({"flip": "concat", "embedding_size": 7}, "even"),
        ({"file": "../model.onnx"}, "file"),
        ({"file": "/etc/passwd"}, "file"),
        ({"name": "A Name"}, "name"),
        ({"scale": float("nan")}, "scale"),
        ({"surprise": 1}, "surprise"),
        ({"training_data": ""}, "training_data"),
    ],
)
def test_refuses(changes: dict[str, Any], says: str) -> None:
    base = manifest_for(b"model").model_dump()
    with pytest.raises(ValidationError, match=says):
        Manifest.model_validate({**base, **changes})


@pytest.mark.parametrize(
    "quantiles",
    [
        [(0.1, 0.2), (0.2, 0.3)],
        [(0.1, 0.2), (0.1, 0.3)],
        [(0.1, 0.5), (0.01, 0.3)],
        [(0.1, 0.5)],
        [(1.5, 0.1), (0.1, 0.2)],
        [(0.1, 0.1), (0.0, 0.2)],
        [(0.1, 0.1), (0.01, 1.2)],
    ],
)
def test_calibration_refuses_disorder(quantiles: list[tuple[float, float]]) -> None:
    with pytest.raises(ValidationError):
        Calibration.model_validate(
            {**CALIBRATION, "quantiles": [{"fmr": f, "similarity": s} for f, s in quantiles]}
        )


def test_contract_names_the_embedding_space_and_nothing_else() -> None:
    base = manifest_for(b"model")
    same = manifest_for(b"model", name="other", version="9", calibration=CALIBRATION)
    assert base.contract == same.contract
    assert len(base.contract) == 16
    others = [
        manifest_for(b"other model"),
        manifest_for(b"model", color="bgr"),
        manifest_for(b"model", mean=128),
        manifest_for(b"model", scale=1 / 127.5),
        manifest_for(b"model", flip="sum"),
        manifest_for(b"model", template="arcface-112x112", input=(1, 3, 112, 112)),
        manifest_for(b"model", template="insightface-112x112", input=(1, 3, 112, 112)),
    ]
    assert len({base.contract, *(other.contract for other in others)}) == len(others) + 1


def test_a_missing_manifest_says_which_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"{tmp_path.name} is no model folder"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b'{"name": "x"}'])
def test_a_broken_manifest_is_a_model_error(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(text)
    with pytest.raises(ModelError, match=r"manifest\.json"):
        load_manifest(tmp_path)


def test_a_fault_is_named_by_its_field(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    fields = json.loads((folder / "manifest.json").read_text())
    fields["embedding_size"] = -1
    (folder / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError, match="embedding_size"):
        load_manifest(folder)


def test_reads_the_model_only_with_its_digest(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    manifest = load_manifest(folder)
    path = folder / manifest.file
    data = read_model(folder, manifest)
    assert data == path.read_bytes()
    assert file_sha256(path) == manifest.sha256
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ModelError, match="sha256"):
        read_model(folder, manifest)
    path.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        read_model(folder, manifest)
