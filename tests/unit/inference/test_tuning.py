"""`sphereid tune`: what it takes for the best, and that it harms no file of settings."""

from pathlib import Path

import pytest
from sphereid.cli import app
from sphereid.cli.tune import write
from sphereid.faces.decode import decode
from sphereid.faces.detect import MtcnnDetector
from sphereid.inference.tuning import Batching, Trial, best_batch, best_trial, drawn_pictures
from sphereid.settings import Settings
from typer.testing import CliRunner

from tests.toy import write_toy_model


def test_a_larger_batch_must_pay() -> None:
    rates = {1: 50.0, 2: 80.0, 4: 98.5, 8: 100.0, 16: 99.0}
    assert best_batch([Batching(1, batch, rate) for batch, rate in rates.items()]) == 4


def test_among_equals_the_soonest_answer_is_taken() -> None:
    slow, fast, late = Trial(1, 1, 4, 60, 20.0), Trial(2, 2, 4, 98, 41.0), Trial(1, 4, 4, 100, 80.0)
    assert best_trial([slow, late, fast]) is fast
    assert best_trial([slow, late]) is late


def test_the_detector_takes_drawn_faces_for_faces() -> None:
    detector = MtcnnDetector()
    counts = [len(detector.detect(decode(file).pixels)) for file in drawn_pictures()]
    assert counts == [1, 1, 1, 4]


def test_a_file_of_settings_keeps_its_other_lines(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# mine\nSPHEREID_API_KEYS=secret-key\nsphereid_threads=9\n\nPORT=1234\n")
    file.chmod(0o640)
    write(file, {"SPHEREID_THREADS": "2", "SPHEREID_QUEUES__MAX_BATCH": "8"})
    assert file.read_text().splitlines() == [
        "# mine",
        "SPHEREID_API_KEYS=secret-key",
        "",
        "PORT=1234",
        "SPHEREID_THREADS=2",
        "SPHEREID_QUEUES__MAX_BATCH=8",
    ]
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_written_is_what_the_service_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy_model(tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPHEREID_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("SPHEREID_DATA_DIR", str(tmp_path / "data"))
    dry = CliRunner().invoke(app, ["tune", "--seconds", "0.01", "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "SPHEREID_THREADS=" in dry.output
    assert not (tmp_path / ".env").exists()
    done = CliRunner().invoke(app, ["tune", "--seconds", "0.01"])
    assert done.exit_code == 0, done.output
    assert "chosen" in done.output
    settings = Settings()
    written = dict(line.split("=") for line in (tmp_path / ".env").read_text().splitlines())
    assert settings.workers == int(written["SPHEREID_WORKERS"]) >= 0
    assert settings.threads == int(written["SPHEREID_THREADS"]) >= 1
    assert settings.queues.in_flight == int(written["SPHEREID_QUEUES__IN_FLIGHT"]) >= 1
    assert settings.queues.max_batch == int(written["SPHEREID_QUEUES__MAX_BATCH"]) >= 1
