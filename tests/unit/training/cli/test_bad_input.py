"""Bad input ends in one clear line, and what was good before stays."""

import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from sphereid_training.cli import main
from sphereid_training.config import Config, to_dict
from sphereid_training.data.prepare import prepare
from sphereid_training.data.store import open_store
from sphereid_training.errors import TrainingError
from sphereid_training.loop import checkpoint
from sphereid_training.loop.engine import train

Make = Callable[..., Config]


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command line that must end in exit code 1 and one line that starts with `error:`."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 1
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        return lines[0]

    return run


def write(path: Path, value: int, size: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((size, size, 3), value, np.uint8))


def recipe(path: Path, config: Config) -> Path:
    path.write_text(yaml.safe_dump(to_dict(config)))
    return path


def test_a_class_that_is_empty_or_lost_all_its_images(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    (faces / "g" / "p00001").mkdir(parents=True)
    write(faces / "g/p00002/0.png", 1, size=40)
    (faces / "g/p00002/1.png").write_bytes(b"")
    write(faces / "g/p00003/0.png", 3)
    assert prepare(faces, tmp_path / "out") == 1
    assert open_store(tmp_path / "out").identity.tolist() == [3]


def test_classes_of_one_image_are_told_what_would_help(
    small_config: Make, tmp_path: Path, fails: Callable[..., str]
) -> None:
    for person in range(6):
        write(tmp_path / f"faces/g/p{person:05d}/0.png", 40 * person)
    prepare(tmp_path / "faces", tmp_path / "store")
    data = {"store": str(tmp_path / "store"), "holdout_percent": 0}
    no_teacher = {"weight": 0.0, "relation": 0.0}
    config = small_config(data=data, distill=no_teacher, optimizer={"batch_size": 4, "samples": 8})
    line = fails("train", recipe(tmp_path / "r.yaml", config), "--runs", tmp_path / "runs")
    assert "0 identities have 2 images or more, a head needs 2; lower data.min_images_per_class" in line
    config = small_config(
        data={**data, "min_images_per_class": 1},
        distill=no_teacher,
        optimizer={"batch_size": 4, "samples": 8},
    )
    state = checkpoint.load(train(config, runs=tmp_path / "runs"))
    assert (state.classes, state.step) == (6, 2)


def test_a_corrupt_shard_keeps_what_can_be_read_and_a_broken_one_stops(
    tmp_path: Path, fails: Callable[..., str]
) -> None:
    for number in range(4):
        write(tmp_path / f"g/p00001/{number}.png", 30 * number)
    shard = tmp_path / "shards" / "a.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        tar.add(tmp_path / "g", "g")
    whole = shard.read_bytes()
    bad = bytearray(whole)
    with tarfile.open(shard) as tar:
        third = tar.getmember("g/p00001/2.png")
    bad[third.offset_data : third.offset_data + third.size] = bytes(third.size)
    shard.write_bytes(bytes(bad))
    assert prepare(shard.parent, tmp_path / "out") == 3
    assert "g/p00001/2.png,not a readable image" in (tmp_path / "out" / "dropped.csv").read_text()
    shard.write_bytes(b"\x01" * 3000)
    before = (tmp_path / "out" / "images.npy").read_bytes()
    line = fails("prepare", "--faces", shard.parent, "--out", tmp_path / "out")
    assert "is not a readable tar" in line
    assert "fetch it again or move it away" in line
    assert (tmp_path / "out" / "images.npy").read_bytes() == before
    assert len(open_store(tmp_path / "out").name) == 3


def test_wrong_label_files(tmp_path: Path, fails: Callable[..., str]) -> None:
    write(tmp_path / "faces/g/p00001/0.png", 9)
    common = ("prepare", "--faces", tmp_path / "faces", "--out", tmp_path / "out")
    assert "absent.txt cannot be read" in fails(*common, "--exclude", tmp_path / "absent.txt")
    (tmp_path / "latin.txt").write_bytes(b"Andr\xe9")
    assert "latin.txt is not UTF-8 text" in fails(*common, "--exclude", tmp_path / "latin.txt")
    teacher = tmp_path / "t.npz"
    np.savez(teacher, labels=np.zeros(3))
    assert "t.npz must hold `name` and `embedding`" in fails(*common, "--teacher", teacher)
    np.savez(teacher, name=np.array(["g/p00001/0.png", "x"]), embedding=np.zeros((1, 4)))
    assert "t.npz has 2 names for 1 descriptors" in fails(*common, "--teacher", teacher)
    teacher.write_bytes(b"no archive")
    assert "t.npz cannot be read" in fails(*common, "--teacher", teacher)
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("this is no list")
    assert "pairs.txt is no LFW pair list" in fails(*common, "--exclude-set", pairs)
    assert "need --exclude-set" in fails(*common, "--exclude-similarity", "0.5")


def test_a_loss_that_turns_nan_leaves_the_last_checkpoint(
    small_config: Make, store_folder: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    store = tmp_path / "store"
    shutil.copytree(store_folder, store)
    config = small_config(data={"store": str(store)})
    path = train(config, runs=tmp_path / "runs", max_steps=3)
    good = path.read_bytes()
    targets = np.load(store / "teacher.npy")
    np.save(store / "teacher.npy", np.full_like(targets, np.nan))
    line = fails("train", recipe(tmp_path / "r.yaml", config), "--resume", "--runs", tmp_path / "runs")
    assert "the loss is not a number at step 3" in line
    assert "the last good checkpoint is in" in line
    assert path.read_bytes() == good
    np.save(store / "teacher.npy", targets)
    assert checkpoint.load(train(config, runs=tmp_path / "runs", max_steps=1, resume=True)).step == 4


def test_a_damaged_checkpoint_is_one_line(
    small_config: Make, tmp_path: Path, fails: Callable[..., str]
) -> None:
    path = train(small_config(), runs=tmp_path, max_steps=1)
    path.write_bytes(path.read_bytes()[:-200])
    line = fails("export", path, tmp_path / "model")
    assert "is not a readable checkpoint" in line
    assert not (tmp_path / "model").exists()
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        train(small_config(), runs=tmp_path, resume=True)
