"""Imports as operators run them: in the terminal and over HTTP, killed in the midst, and begun again."""

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.e2e.process import environment, service
from tests.photographs import people, write_folder, write_zip
from tests.server import until
from tests.toy import write_toy_model

PERSONS, EACH = 40, 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_toy_model(folder)
    return folder


@pytest.fixture(scope="module")
def files(portrait: NDArray[np.uint8]) -> dict[str, bytes]:
    return people(portrait, PERSONS, EACH)


def faces(data: Path) -> dict[str, int]:
    """Faces of each identity, read past the service."""
    if not (data / "sphereid.db").is_file():
        return {}
    connection = sqlite3.connect(f"file:{data / 'sphereid.db'}?mode=ro", uri=True, timeout=60)
    try:
        rows = connection.execute(
            "SELECT i.id, count(f.number) FROM identities i LEFT JOIN faces f "
            "ON f.identity_number = i.number GROUP BY i.id"
        )
        return dict(rows.fetchall())
    except sqlite3.OperationalError:  # the tables are being made
        return {}
    finally:
        connection.close()


def sphereid(data: Path, models: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "sphereid", *arguments],
        env=environment(data, models),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


WHOLE = {f"p{p}": EACH for p in range(PERSONS)}


def test_a_killed_import_goes_on_in_the_terminal(
    tmp_path: Path, models: Path, files: dict[str, bytes]
) -> None:
    folder, data = write_folder(tmp_path / "portraits", files), tmp_path / "data"
    command = ("gallery", "import", str(folder), "--json", "--gallery", "staff", "--create")
    first = sphereid(data, models, *command)
    until(lambda: bool(faces(data)) or first.poll() is not None)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    killed = sum(faces(data).values())
    assert 0 < killed < PERSONS * EACH, "the kill came too late to prove anything"
    second = sphereid(data, models, *command, "--report", str(tmp_path / "report.json"))
    out, said = second.communicate()
    assert second.returncode == 0, said
    summary = json.loads(out)
    assert (summary["enrolled"], summary["present"]) == (PERSONS * EACH - killed, killed)
    assert faces(data) == WHOLE
    assert len(json.loads((tmp_path / "report.json").read_text())["lines"]) == PERSONS * EACH
    # the way out and back in
    exported = sphereid(data, models, "gallery", "export", str(tmp_path / "g.parquet"), "-g", "staff")
    assert exported.wait() == 0, exported.communicate()
    other = sphereid(
        tmp_path / "other", models, "gallery", "import", str(tmp_path / "g.parquet"), "-g", "x", "--create"
    )
    assert other.wait() == 0, other.communicate()
    assert faces(tmp_path / "other") == WHOLE


def test_a_killed_service_goes_on_with_an_import(
    tmp_path: Path, models: Path, files: dict[str, bytes]
) -> None:
    archive, data = write_zip(tmp_path / "people.zip", files), tmp_path / "data"
    with service(data, models) as running, running.client() as client:
        upload = {"file": ("people.zip", archive.read_bytes())}
        job = client.post("/v1/galleries/default/import", files=upload).json()
        until(lambda: bool(faces(data)))
        running.kill()
    killed = sum(faces(data).values())
    assert 0 < killed < PERSONS * EACH, "the kill came too late to prove anything"
    with service(data, models) as running, running.client() as client:
        path = f"/v1/jobs/{job['id']}"
        until(lambda: client.get(path).json()["state"] in ("succeeded", "failed"))
        done = client.get(path).json()
        assert done["state"] == "succeeded", done
        assert done["attempts"] == 2
        assert done["result"]["files"] == PERSONS * EACH
        assert done["result"]["enrolled"] + done["result"]["present"] == PERSONS * EACH
        assert faces(data) == WHOLE
        report = client.get(f"{path}/result", params={"artifact": "report"}).json()
        assert len({line["face"] for line in report["lines"]}) == PERSONS * EACH
    assert not list(data.rglob("upload"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("gallery", "import", "nowhere"), "no file or folder nowhere"),
        (("gallery", "import", "FOLDER", "-g", "staff"), "--create makes it"),
        (("gallery", "import", "FOLDER", "--report", "x.txt"), "written as .csv or .json"),
        (("gallery", "export", "out.csv"), "ends with .parquet"),
        (("gallery", "import", "EMPTY"), "no picture"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: tuple[str, ...], says: str, tmp_path: Path, models: Path, files: dict[str, bytes]
) -> None:
    one = dict(list(files.items())[:1])
    places = {"FOLDER": str(write_folder(tmp_path / "in", one)), "EMPTY": str(tmp_path / "empty")}
    (tmp_path / "empty").mkdir()
    process = sphereid(tmp_path / "data", models, *(places.get(a, a) for a in arguments))
    _, said = process.communicate()
    assert process.returncode == 2
    assert says in said
    assert "Traceback" not in said
