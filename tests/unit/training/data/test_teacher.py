"""Targets from any ONNX model: computed once, resumed, and what a file without a manifest is taken for."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.console import Console
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.manifest import save_manifest
from sphereid_training.data import teacher as module
from sphereid_training.data.augment import center_view
from sphereid_training.data.store import Centering, open_store
from sphereid_training.data.teacher import cache_targets, load_teacher
from sphereid_training.errors import TrainingError

from tests.toy import toy_graph, write_toy_model
from tests.unit.faces.models import linear_onnx, manifest_for

QUIET = Console(quiet=True)


@pytest.fixture
def store(store_folder: Path, tmp_path: Path) -> Path:
    """A copy without targets."""
    copy = tmp_path / "store"
    shutil.copytree(store_folder, copy)
    (copy / "teacher.npy").unlink()
    return copy


def test_targets_are_the_teachers_embeddings_and_computed_once(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_toy_model(tmp_path / "models")
    assert cache_targets(store, folder, QUIET)
    faces = open_store(store)
    assert faces.teacher is not None
    expected = OnnxEmbedder.load(folder).embed(center_view(np.asarray(faces.images), "112x96"))
    assert np.load(store / "teacher.npy") == pytest.approx(expected, abs=1e-6)
    assert faces.teacher == pytest.approx(Centering.fit(expected).apply(expected), abs=1e-4)
    teacher = load_teacher(folder)
    monkeypatch.setattr(OnnxEmbedder, "embed", lambda *_: pytest.fail("embedded again"))
    monkeypatch.setattr(module, "load_teacher", lambda _: teacher)
    assert not cache_targets(store, folder, QUIET)


def test_a_stopped_teacher_goes_on_and_another_starts_anew(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 50)
    folder, other = (write_toy_model(tmp_path / "models", name, seed=i) for i, name in enumerate("ab"))
    real, seen = OnnxEmbedder.embed, []

    def embed(self: OnnxEmbedder, crops: np.ndarray) -> np.ndarray:
        if len(crops) > 1:
            seen.append(len(crops))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return real(self, crops)

    monkeypatch.setattr(OnnxEmbedder, "embed", embed)
    with pytest.raises(KeyboardInterrupt):
        cache_targets(store, folder, QUIET)
    assert not (store / "teacher.npy").exists()
    seen[:] = [0] * 10
    cache_targets(store, folder, QUIET)
    assert seen[10:] == [50, 50, 8]
    first = np.load(store / "teacher.npy")
    seen[:] = [0] * 10
    assert cache_targets(store, other, QUIET)
    assert seen[10:] == [50, 50, 50, 50, 8]
    assert np.abs(np.load(store / "teacher.npy") - first).max() > 0.1
    assert not list(store.glob("*partial*"))


def test_a_bare_file_is_taken_at_its_metadata(tmp_path: Path) -> None:
    graph = onnx.load_from_string(toy_graph())
    path = tmp_path / "net.onnx"
    onnx.save(graph, path)
    plain = load_teacher(path).manifest
    assert (plain.template, plain.flip, plain.mean, plain.scale, plain.embedding_size) == (
        "sphereface-112x96",
        "none",
        (127.5,) * 3,
        (1 / 128,) * 3,
        64,
    )
    told = {"mean": "[1, 2, 3]", "scale": "1/255", "color": "bgr", "flip": "concat"}
    onnx.helper.set_model_props(graph, told)
    onnx.save(graph, path)
    made = load_teacher(path).manifest
    assert (made.mean, made.scale, made.color, made.flip, made.embedding_size) == (
        (1, 2, 3),
        (1 / 255,) * 3,
        "bgr",
        "concat",
        128,
    )
    save_manifest(manifest_for(path.read_bytes(), embedding_size=64, file="net.onnx"), tmp_path)
    assert load_teacher(path).manifest.name == "linear"


def test_teachers_that_fit_nothing_are_explained(tmp_path: Path, store: Path) -> None:
    for content, message in (
        (
            linear_onnx(np.ones((3 * 64 * 64, 4), np.float32), 64, 64),
            r"crops of 64×64; there is no alignment",
        ),
        (b"no graph", "onnxruntime cannot load"),
    ):
        path = tmp_path / "x.onnx"
        path.write_bytes(content)
        with pytest.raises(Exception, match=message):
            cache_targets(store, path, QUIET)
    with pytest.raises(TrainingError, match="neither descriptors"):
        cache_targets(store, tmp_path / "x.pt", QUIET)
    (store / "teacher.partial.npy").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"could not write .* free some space and run again"):
        cache_targets(store, write_toy_model(tmp_path / "models"), QUIET)
    assert not (store / "teacher.json").exists()


def test_prepare_takes_a_model_as_teacher(tmp_path: Path) -> None:
    from sphereid_training.data.prepare import prepare

    from tests.unit.training.data.test_prepare import MEMBERS, tar_of

    (tmp_path / "faces").mkdir()
    tar_of(tmp_path / "faces" / "a.tar", MEMBERS)
    prepare(tmp_path / "faces", tmp_path / "out", teacher=write_toy_model(tmp_path / "models"), console=QUIET)
    assert np.load(tmp_path / "out" / "teacher.npy").shape == (4, 64)
    assert json.loads((tmp_path / "out" / "teacher.json").read_text())["faces"] == 4
