"""Preparing: tars and folders, what is dropped and why, stops, teachers, photographs."""

import csv
import io
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from sphereid_training.data import prepare as module
from sphereid_training.data.prepare import prepare
from sphereid_training.data.store import open_store
from sphereid_training.errors import TrainingError


def png(image: NDArray[np.uint8]) -> bytes:
    ok, data = cv2.imencode(".png", image[..., ::-1])
    assert ok
    return data.tobytes()


def face(value: int) -> NDArray[np.uint8]:
    return np.full((128, 128, 3), (value, 10, 20), np.uint8)


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


MEMBERS = {
    "a/p00007/0.png": png(face(7)),
    "a/p00007/1.png": png(face(8)),
    "a/p00003/0.png": png(face(3)),
    "a/unlabelled/0.png": png(face(99)),
}
BAD = {
    "a/p00007/2.png": b"not an image",
    "a/p00007/3.png": b"",
    "a/p00009/0.png": png(np.zeros((64, 64, 3), np.uint8)),
}


def test_a_tar_becomes_a_store(tmp_path: Path) -> None:
    source = tmp_path / "faces"
    source.mkdir()
    tar_of(source / "a.tar", {**MEMBERS, **BAD, "a/notes.txt": b"x"})
    assert prepare(source, tmp_path / "out") == 4
    store = open_store(tmp_path / "out")
    assert list(store.name) == sorted(MEMBERS)
    assert store.identity.tolist() == [3, 7, 7, -1]
    assert store.images[:, 0, 0].tolist() == [[3, 10, 20], [7, 10, 20], [8, 10, 20], [99, 10, 20]]
    with (tmp_path / "out" / "dropped.csv").open() as file:
        dropped = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    assert dropped.keys() == BAD.keys()
    assert dropped["a/p00009/0.png"].startswith("neither 128×128")
    assert not list((tmp_path / "out").glob("*partial*"))


def test_webdataset_shards_have_their_identities_in_files_of_their_own(tmp_path: Path) -> None:
    source = tmp_path / "shards"
    source.mkdir()
    labelled = {"000.jpg": png(face(7)), "000.cls": b"12\n", "sub/001.png": png(face(3)), "sub/001.cls": b"5"}
    tar_of(source / "00000.tar", {**labelled, "002.jpg": png(face(9)), "002.json": b"{}"})
    tar_of(source / "00001.tar", {"000.cls": b"5", "000.face.jpg": png(face(4))})
    assert prepare(source, tmp_path / "out") == 4
    store = open_store(tmp_path / "out")
    red = store.images[:, 0, 0, 0].tolist()
    assert dict(zip(red, store.identity.tolist(), strict=True)) == {7: 12, 3: 5, 9: -1, 4: 5}
    assert set(store.group) == {"00000", "00001"}
    tar_of(source / "00001.tar", {"000.cls": b"Ann", "000.jpg": png(face(4))})
    with pytest.raises(TrainingError, match=r"00001\.tar: 000\.cls holds 'Ann', not the number"):
        prepare(source, tmp_path / "other")


def test_folders_exclusions_and_a_teacher(tmp_path: Path) -> None:
    for name, data in MEMBERS.items():
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "exclude.txt").write_text("p00007\n")
    np.savez(
        tmp_path / "t.npz",
        name=np.array(list(MEMBERS)),
        embedding=np.arange(8, dtype=np.float16).reshape(4, 2),
    )
    made = prepare(
        tmp_path / "faces", tmp_path / "out", exclude=tmp_path / "exclude.txt", teacher=tmp_path / "t.npz"
    )
    assert made == 2
    store = open_store(tmp_path / "out")
    assert list(store.name) == ["a/p00003/0.png", "a/unlabelled/0.png"]
    assert np.load(tmp_path / "out" / "teacher.npy").tolist() == [[4, 5], [6, 7]]
    assert "excluded identity" in (tmp_path / "out" / "dropped.csv").read_text()


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "faces"
    source.mkdir()
    tar_of(source / "a.tar", {f"a/p{i:05d}/0.png": png(face(i)) for i in range(40)})
    monkeypatch.setattr(module, "_CHUNK", 8)
    original, seen = module._canvas, 0

    def stops(data: bytes) -> Any:
        nonlocal seen
        seen += 1
        if seen > 20:
            raise KeyboardInterrupt
        return original(data)

    monkeypatch.setattr(module, "_canvas", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "out")
    with pytest.raises(TrainingError, match="prepare"):
        open_store(tmp_path / "out")
    read = 0

    def counts(data: bytes) -> Any:
        nonlocal read
        read += 1
        return original(data)

    monkeypatch.setattr(module, "_canvas", counts)
    assert prepare(source, tmp_path / "out") == 40
    assert read == 24
    assert open_store(tmp_path / "out").images[:, 0, 0, 0].tolist() == list(range(40))


def test_a_stopped_run_over_other_images_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "faces"
    source.mkdir()
    tar_of(source / "a.tar", {f"a/p{i:05d}/0.png": png(face(i)) for i in range(40)})
    monkeypatch.setattr(module, "_CHUNK", 8)
    original = module._trim
    monkeypatch.setattr(module, "_trim", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "out")
    monkeypatch.setattr(module, "_trim", original)
    tar_of(source / "a.tar", {f"a/p{i:05d}/0.png": png(face(i)) for i in range(100, 140)})
    prepare(source, tmp_path / "out")
    assert open_store(tmp_path / "out").images[:, 0, 0, 0].tolist() == list(range(100, 140))


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    source = tmp_path / "faces"
    source.mkdir()
    tar_of(source / "a.tar", {f"a/p{i:05d}/0.png": png(face(i)) for i in range(60)})
    script = f"""
import os, pathlib, signal
from sphereid_training.data import prepare as module
module._CHUNK, original, seen = 8, module._canvas, []
def canvas(data):
    seen.append(0)
    if len(seen) > 30:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(data)
module._canvas = canvas
module.prepare(pathlib.Path({str(source)!r}), pathlib.Path({str(tmp_path / "out")!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(TrainingError, match="prepare"):
        open_store(tmp_path / "out")
    console = Console(file=io.StringIO())
    assert prepare(source, tmp_path / "out", console=console) == 60
    assert "going on after 24 of 60 images" in console.file.getvalue()  # type: ignore[attr-defined]
    assert open_store(tmp_path / "out").images[:, 0, 0, 0].tolist() == list(range(60))


def test_corrupt_and_empty_sources_are_explained(tmp_path: Path) -> None:
    source = tmp_path / "faces"
    source.mkdir()
    with pytest.raises(TrainingError, match="no images under"):
        prepare(source, tmp_path / "out")
    (source / "broken.tar").write_bytes(b"x" * 2000)
    with pytest.raises(TrainingError, match=r"broken\.tar is not a readable tar"):
        prepare(source, tmp_path / "out")


def test_a_teacher_must_know_every_image(tmp_path: Path) -> None:
    source = tmp_path / "faces"
    source.mkdir()
    tar_of(source / "a.tar", MEMBERS)
    np.savez(tmp_path / "t.npz", name=np.array(["a/p00003/0.png"]), embedding=np.zeros((1, 2)))
    with pytest.raises(TrainingError, match=r"no descriptor of 3 images, the first is a/p00007/0\.png"):
        prepare(source, tmp_path / "out", teacher=tmp_path / "t.npz")


def test_photographs_are_detected_and_aligned(tmp_path: Path, portrait: NDArray[np.uint8]) -> None:
    path = tmp_path / "faces" / "nasa" / "collins"
    path.mkdir(parents=True)
    (path / "0.png").write_bytes(png(portrait))
    (path / "1.png").write_bytes(png(np.zeros((80, 80, 3), np.uint8)))
    assert prepare(tmp_path / "faces", tmp_path / "out", raw=True) == 1
    canvas = open_store(tmp_path / "out").images[0]
    # Skin on the cheeks is red before blue; the corners of her portrait's canvas are not skin.
    cheeks = canvas[70:80, 40:88].reshape(-1, 3).mean(axis=0)
    assert cheeks[0] > cheeks[2] + 20
    assert "no face found" in (tmp_path / "out" / "dropped.csv").read_text()
