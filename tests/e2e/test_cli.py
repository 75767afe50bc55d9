"""The command line on real pictures and the toy model."""

import json
import os
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sphereid.cli import main

from tests.e2e.process import environment, service
from tests.server import jpeg
from tests.toy import write_toy_model


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, portrait: NDArray[np.uint8]) -> Path:
    """A folder with the toy model and pictures: pictures/ of one person, odd/ with what is no portrait."""
    folder = tmp_path_factory.mktemp("cli")
    write_toy_model(folder / "models")
    pictures = folder / "pictures"
    pictures.mkdir()
    dim = (portrait.astype(np.float32) * 0.85).astype(np.uint8)
    (pictures / "a.jpg").write_bytes(jpeg(portrait))
    Image.fromarray(dim).save(pictures / "b.png")
    odd = folder / "odd"
    odd.mkdir()
    (odd / "two.jpg").write_bytes(jpeg(np.concatenate([portrait, portrait], axis=1)))
    (odd / "none.jpg").write_bytes(jpeg(np.zeros((200, 200, 3), np.uint8)))
    (odd / "broken.jpg").write_bytes(jpeg(portrait)[:500])
    return folder


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def sphereid(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Runs the entry point in the workplace with a data folder of the test's own."""

    def run(*arguments: str, **more: str) -> Result:
        with monkeypatch.context() as patch:
            for name in set(os.environ) - set(environment(tmp_path / "data")):
                patch.delenv(name)
            for name, value in environment(tmp_path / "data", workplace / "models", **more).items():
                patch.setenv(name, value)
            patch.chdir(workplace)
            patch.setattr(sys, "argv", ["sphereid", *arguments])
            capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
            said = capfd.readouterr()
        code = ended.value.code
        return Result(code if isinstance(code, int) else 0, said.out, said.err)

    return run


def children() -> set[str]:
    """The processes that this one has started and that have not ended."""
    return {
        child for each in Path("/proc/self/task").glob("*/children") for child in each.read_text().split()
    }


def lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_detect_files_folders_and_globs(
    workplace: Path, tmp_path: Path, sphereid: Callable[..., Result]
) -> None:
    result = sphereid("detect", "pictures", "odd/t*.jpg", "pictures/a.jpg", "--json")
    assert result.returncode == 0, result.stderr
    found = {str(line["file"]): len(line["faces"]) for line in lines(result)}  # type: ignore[arg-type]
    assert found == {"pictures/a.jpg": 1, "pictures/b.png": 1, "odd/two.jpg": 2}
    shown = sphereid("detect", "odd")
    assert shown.returncode == 1  # one file could not be used
    assert "no face" in shown.stdout
    assert "odd/two.jpg" in shown.stdout
    assert "broken.jpg" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_enroll_identify_list_and_delete(
    workplace: Path, tmp_path: Path, sphereid: Callable[..., Result]
) -> None:
    result = sphereid("enroll", "eileen", "pictures/a.jpg", "--name", "Eileen Collins")
    assert result.returncode == 0, result.stderr
    named = tmp_path / "named.jpg"
    result = sphereid("identify", "pictures/b.png", "--out", str(named), "--json")
    assert result.returncode == 0, result.stderr
    (line,) = lines(result)
    (face,) = line["faces"]  # type: ignore[misc]
    assert (face["decision"], face["identity"]["name"]) == ("match", "Eileen Collins")
    drawn = np.asarray(Image.open(named).convert("RGB")).astype(int)
    original = np.asarray(Image.open(workplace / "pictures/b.png")).astype(int)
    assert drawn.shape == original.shape
    changed = np.abs(drawn - original).max(axis=2) > 60
    box = face["box"]
    rows, columns = np.nonzero(changed)
    assert 200 < changed.sum() < 40_000
    assert abs(columns.min() - box["x"]) < 40
    assert abs(rows.max() - (box["y"] + box["height"])) < 40
    table = sphereid("identify", "pictures/b.png").stdout
    assert "Eileen Collins" in table
    assert "match" in table

    (person,) = lines(sphereid("identities", "list", "--json"))
    assert (person["id"], person["faces"]) == ("eileen", 1)
    (gallery,) = lines(sphereid("galleries", "list", "--json"))
    assert (gallery["id"], gallery["faces"]) == ("default", 1)
    assert sphereid("identities", "delete", "eileen", "typo", "--yes").returncode == 2
    assert lines(sphereid("identities", "list", "--json")) == [person]
    assert sphereid("identities", "delete", "eileen", "--yes").returncode == 0
    (line,) = lines(sphereid("identify", "pictures/b.png", "--json"))
    assert line["faces"][0]["reason"] == "empty_gallery"  # type: ignore[index]


def test_enroll_a_folder_of_people(workplace: Path, tmp_path: Path, sphereid: Callable[..., Result]) -> None:
    people = tmp_path / "people"
    (people / "Eileen C").mkdir(parents=True)
    for name in ("a.jpg", "b.png"):
        (people / "Eileen C" / name).write_bytes((workplace / "pictures" / name).read_bytes())
    (people / "nobody.jpg").write_bytes((workplace / "odd/none.jpg").read_bytes())
    (people / "notes.txt").write_text("not a person")
    result = sphereid("enroll", "--people", str(people), "--json")
    assert result.returncode == 1
    assert [(line["identity"], len(line["faces"])) for line in lines(result)] == [("Eileen-C", 2)]  # type: ignore[arg-type]
    assert "nobody.jpg: left out: no face was found" in result.stderr


def test_verify_answers_with_its_exit_code(
    workplace: Path, tmp_path: Path, sphereid: Callable[..., Result]
) -> None:
    same = sphereid("verify", "pictures/a.jpg", "pictures/b.png")
    assert (same.returncode, same.stdout[:15]) == (0, "the same person")
    strict = sphereid("verify", "pictures/a.jpg", "pictures/b.png", "--threshold", "1", "--json")
    assert strict.returncode == 1
    assert lines(strict)[0]["decision"] == "unknown"
    failed = sphereid("verify", "pictures/a.jpg", "odd/two.jpg")
    assert failed.returncode == 2
    assert "--largest" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["detect", "nowhere.jpg"], "there is no file nowhere.jpg"),
        (["identify", "pictures/a.jpg", "--gallery", "nowhere"], "gallery"),
        (["identify", "pictures/a.jpg", "--out", "pictures/a.jpg"], "is one of the images"),
        (["identify", "pictures/a.jpg", "--out", "out.gif"], "write .jpg"),
        (["enroll", "eileen"], "--people"),
        (["enroll", "bad id!", "pictures/a.jpg"], "id"),
        (["serve", "--host", "0.0.0.0"], "SPHEREID_API_KEYS"),
        (["identify", "pictures/a.jpg", "--threshold", "2"], "--threshold"),
    ],
)
def test_errors_are_one_clear_line(
    workplace: Path, sphereid: Callable[..., Result], arguments: list[str], says: str
) -> None:
    before = (workplace / "pictures/a.jpg").read_bytes()
    result = sphereid(*arguments)
    assert result.returncode == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert (workplace / "pictures/a.jpg").read_bytes() == before


def test_broken_models_are_explained(
    workplace: Path, tmp_path: Path, sphereid: Callable[..., Result]
) -> None:
    models = tmp_path / "models"
    folder = write_toy_model(models)
    data = bytearray((folder / "model.onnx").read_bytes())
    data[1000] ^= 1
    (folder / "model.onnx").write_bytes(data)
    for command in (["serve"], ["detect", "pictures/a.jpg"]):
        result = sphereid(*command, SPHEREID_MODELS_DIR=str(models), PORT="0")
        assert result.returncode == 2, result.stderr
        assert "sha256" in result.stderr
        assert "Traceback" not in result.stderr


def test_one_process_at_a_time_owns_the_gallery(
    workplace: Path, tmp_path: Path, sphereid: Callable[..., Result]
) -> None:
    with service(tmp_path / "data", workplace / "models") as running:
        refused = sphereid("identities", "list")
        assert refused.returncode == 2
        assert "another process" in refused.stderr
        before = children()
        assert before  # the service
        second = sphereid("serve", "--port", "0")
        assert second.returncode == 2
        assert "another process" in second.stderr
        assert children() == before
        fine = sphereid("detect", "pictures/a.jpg")  # needs no gallery
        assert fine.returncode == 0
        with running.client() as client:
            assert client.get("/readyz").status_code == 200
    assert sphereid("identities", "list").returncode == 0


def test_snapshot_and_restore(workplace: Path, tmp_path: Path, sphereid: Callable[..., Result]) -> None:
    file = tmp_path / "all.snapshot"
    missing = sphereid("snapshot", str(file))
    assert (missing.returncode, "there is no gallery" in missing.stderr) == (2, True), missing.stderr
    assert sphereid("enroll", "ada", "pictures/a.jpg").returncode == 0
    with service(tmp_path / "data", workplace / "models") as running, running.client() as client:
        saved = sphereid("snapshot", str(file))
        assert (saved.returncode, "wrote" in saved.stderr) == (0, True), saved.stderr
        client.delete("/v1/galleries/default/identities/ada").raise_for_status()
        busy = sphereid("restore", str(file), "--replace")
        assert (busy.returncode, "another process" in busy.stderr) == (2, True), busy.stderr
    assert lines(sphereid("identities", "list", "--json")) == []
    careful = sphereid("restore", str(file))
    assert (careful.returncode, "exists" in careful.stderr) == (2, True), careful.stderr
    broken = sphereid("restore", "pictures/a.jpg", "--replace")
    assert (broken.returncode, "no snapshot" in broken.stderr) == (2, True), broken.stderr
    restored = sphereid("restore", str(file), "--replace")
    assert "restored 1 gallery with 1 face from" in restored.stderr
    assert [line["id"] for line in lines(sphereid("identities", "list", "--json"))] == ["ada"]


def test_merge(workplace: Path, tmp_path: Path, sphereid: Callable[..., Result]) -> None:
    for who, picture in (("ada", "a.jpg"), ("ada-2", "b.png")):
        assert sphereid("enroll", who, f"pictures/{picture}").returncode == 0
    assert sphereid("identities", "merge", "ada", "ada", "--yes").returncode == 2
    merged = sphereid("identities", "merge", "ada", "ada-2", "--yes")
    assert (merged.returncode, "ada has 2 faces now" in merged.stderr) == (0, True), merged.stderr
    assert [line["id"] for line in lines(sphereid("identities", "list", "--json"))] == ["ada"]


def test_audit(tmp_path: Path, sphereid: Callable[..., Result]) -> None:
    assert sphereid("enroll", "ada", "pictures/a.jpg").returncode == 0
    assert sphereid("identify", "pictures/b.png").returncode == 0
    entries = lines(sphereid("audit", "list", "--json"))
    assert [entry["action"] for entry in entries] == ["identify", "face.enroll", "gallery.create"]
    assert str(entries[0]["actor"]).startswith("cli:")
    shown = sphereid("audit", "list", "--identity", "ada", "-n", "1")
    assert "identify" in shown.stdout
    whole = sphereid("audit", "verify")
    assert (whole.returncode, "3 entries, all in their places" in whole.stdout) == (0, True), whole.stderr
    with sqlite3.connect(tmp_path / "data" / "sphereid.db") as database:
        database.execute("UPDATE audit SET identity = 'eve' WHERE identity = 'ada'")
    database.close()
    broken = sphereid("audit", "verify")
    assert (broken.returncode, "entry 2 was changed" in broken.stderr) == (1, True), broken.stderr


def test_keys_for_encryption(workplace: Path, tmp_path: Path, sphereid: Callable[..., Result]) -> None:
    key, new = tmp_path / "one.key", tmp_path / "two.key"
    key.write_text("ab" * 32 + "\n")
    new.write_text("cd" * 32 + "\n")
    first, second = ({"SPHEREID_ENCRYPTION_KEY_FILE": str(path)} for path in (key, new))
    assert sphereid("enroll", "ada", "pictures/a.jpg").returncode == 0
    plain = sphereid("identities", "list", **first)
    assert (plain.returncode, "not encrypted yet" in plain.stderr) == (2, True), plain.stderr
    assert sphereid("rotate-key", "--encrypt").returncode == 2
    encrypted = sphereid("rotate-key", "--encrypt", **first)
    assert (encrypted.returncode, "encrypted 1 values" in encrypted.stderr) == (0, True), encrypted.stderr
    without = sphereid("serve", PORT="0")
    assert (without.returncode, "the gallery is encrypted: set" in without.stderr) == (2, True), (
        without.stderr
    )
    rotated = sphereid("rotate-key", "--new-key-file", str(new), **first)
    assert rotated.returncode == 0, rotated.stderr
    wrong = sphereid("serve", PORT="0", **first)
    assert (wrong.returncode, "encrypted with another key" in wrong.stderr) == (2, True), wrong.stderr
    assert "ab" * 32 not in wrong.stderr
    found = sphereid("identify", "pictures/b.png", "--json", "--threshold", "0.9", **second)
    assert "ada" in found.stdout, found.stderr
    assert sphereid("rotate-key", "--decrypt", **second).returncode == 0
    assert [line["id"] for line in lines(sphereid("identities", "list", "--json"))] == ["ada"]
