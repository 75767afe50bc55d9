"""What the benchmarks conclude from what they measured, and that the page says what the JSON says."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import report
from benchmarks.__main__ import headline
from benchmarks.detector import agreement
from benchmarks.images import group, portraits
from benchmarks.load import Generator, multipart
from benchmarks.memory import peak_of, proportional_mb
from benchmarks.service import PROCESSES, Bench, varied
from benchmarks.stats import ratio
from tests.server import Running, jpeg, serving, settings_for
from tests.toy import write_toy_model

ASKED = {
    "detector_vs_facenet_pytorch",
    "detector_vs_mtcnn_tf",
    "detector_match_rate",
    "pipeline_vs_face_recognition",
    "service_vs_pipeline_c16",
    "p99_over_p50_c16",
    "rss_growth_mb",
}


def test_a_ratio_above_one_means_that_ours_is_faster() -> None:
    found = ratio("x", theirs=[4.0, 8.0, 6.0], ours=[2.0, 2.0, 2.0])
    assert found == {"x": 3.0, "x_p10_p90": [2.2, 3.8]}


def test_agreement_counts_faces_and_measures_landmarks() -> None:
    square = [0.0, 0.0, 100.0, 100.0]
    points = [[10.0, 10.0]] * 5
    reference = [
        {"boxes": [square, [200.0, 0.0, 300.0, 100.0]], "landmarks": [points, points]},
        {"boxes": [square], "landmarks": [points]},
        {"boxes": [], "landmarks": []},
    ]
    moved = {"boxes": [[0.0, 0.0, 100.0, 96.0]], "landmarks": [[[13.0, 14.0]] * 5]}  # IoU 0.96, 5 pixels off
    worse = {"boxes": [[0.0, 0.0, 100.0, 80.0]], "landmarks": [points]}  # IoU 0.8
    found = agreement(reference, [moved, worse, {"boxes": [square], "landmarks": [points]}])
    assert found["detector_faces_of_the_reference"] == found["detector_faces_of_ours"] == 3
    assert found["detector_match_rate"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["detector_landmark_distance_px_mean"] == 5.0


def test_the_asked_figures_have_their_names() -> None:
    assert set(report.HEADLINE) >= ASKED
    parts: dict[str, dict[str, float]] = {}
    for part, name in report.HEADLINE.values():
        parts.setdefault(part, {})[name] = 1.0
    assert set(headline(parts)) == set(report.HEADLINE)


def test_the_page_says_what_the_json_says(repo_root: Path, tmp_path: Path) -> None:
    result = json.loads((repo_root / "benchmarks" / "results" / "latest.json").read_text())
    (tmp_path / "img").mkdir()
    report.write(result, tmp_path)
    assert (tmp_path / "benchmarks.md").read_text() == (repo_root / "docs" / "benchmarks.md").read_text()
    parts = {part: result[part] for part, _ in report.HEADLINE.values() if part in result}
    assert {key: result[key] for key in headline(parts)} == headline(parts)


def test_time_and_memory_against_clients_are_told_where_they_were_measured(
    repo_root: Path, tmp_path: Path
) -> None:
    result = json.loads((repo_root / "benchmarks" / "results" / "latest.json").read_text())
    result["service"]["identify"] = {
        str(clients): {
            "per_second": 100.0,
            "p50_ms": 10.0 * clients,
            "p95_ms": 1,
            "p99_ms": 1,
            "peak_mb": 400,
        }
        for clients in (1, 4, 16, 64)
    }
    (tmp_path / "img").mkdir()
    report.write(result, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| clients that ask at once | 1 | 64 | 10 → 640 | 400 → 400 | 1.00 |" in page
    assert "clients that ask at once" in (tmp_path / "img" / "bench-growth.svg").read_text()


def test_memory_is_that_of_all_processes_at_their_highest() -> None:
    """A process that holds 40 MB and starts another that holds as much, for a moment."""
    hold = "held = b'1' * (40 << 20); print(flush=True); sys.stdin.read()"
    other = f"subprocess.run([sys.executable, '-c', {('import sys; ' + hold)!r}])"
    code = f"import subprocess, sys; kept = b'1' * (40 << 20); {other}; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        one.stdout.readline()
        with peak_of(one.pid, every=0.01) as peak:
            one.stdin.close()
            one.wait(20)
        assert peak() > 80
    assert proportional_mb(one.pid) == 0


def test_pictures_are_made_without_the_shared_data(tmp_path: Path) -> None:
    assert [picture.shape for picture in portraits(tmp_path, 8)] == [(250, 250, 3)] * 8
    assert group(tmp_path, 5).shape == (500, 750, 3)
    assert group(tmp_path, 2, width=1000, height=800).shape == (800, 1000, 3)
    shapes = {picture.shape for picture in varied(tmp_path, 20)}
    assert len(shapes) > 10
    assert min(side for shape in shapes for side in shape[:2]) >= 90


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("load")
    write_toy_model(folder / "models")
    with serving(settings_for(folder)) as running:
        yield running


@pytest.fixture
def generator(server: Running, tmp_path: Path) -> Generator:
    (tmp_path / "empty").mkdir()
    blank = jpeg(np.full((60, 60, 3), 127, np.uint8))
    (tmp_path / "empty" / "0000").write_bytes(multipart("image", blank, min_face="20"))
    host, _, port = server.url.removeprefix("http://").partition(":")
    return Generator(host, int(port), tmp_path)


def test_the_generator_counts_answers(generator: Generator) -> None:
    command = {"kind": "empty", "path": "/v1/detect", "clients": 3, "count": 7}
    found = asyncio.run(generator.run(command))
    assert found["answered"] == 7
    assert found["errors"] == found["refused"] == 0
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    wrong = asyncio.run(generator.run({**command, "path": "/v1/nowhere"}))
    assert wrong["answered"] == 0
    assert wrong["errors"] == 7


def test_the_generator_tells_refusals_from_errors(server: Running, generator: Generator) -> None:
    admission = server.parts.admission
    admission.active += 1000
    try:
        command = {"kind": "empty", "path": "/v1/detect", "rate": 100.0, "seconds": 0.1}
        found = asyncio.run(generator.run(command))
    finally:
        admission.active -= 1000
    assert found["refused"] == 10
    assert found["answered"] == found["errors"] == found["refused_without_retry_after"] == 0


def test_the_service_is_measured_against_the_faster_bare_pipeline() -> None:
    class Rate:
        def __init__(self, images: int) -> None:
            self.images = images

        def tell(self, **_: object) -> None: ...

        def answer(self) -> dict[str, int]:
            return {"images": self.images, "seconds": 2}

    for rates, best in (({"0": 40, "1": 50}, "1"), ({"0": 50, "1": 40}, "0")):
        bare = {threads: [Rate(rate)] for threads, rate in rates.items()} | {PROCESSES: [Rate(30), Rate(40)]}
        bench = Bench("", 0, Rate(0), bare)  # type: ignore[arg-type]
        bench.choose_bare(1.0)
        assert bench.bare_way == best
        assert bench.bare(1.0) == 25.0
        assert bench.bare(1.0, PROCESSES) == 35.0
