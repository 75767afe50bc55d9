"""The service under load, on loopback, beside the bare pipeline in the same run.

    python -m benchmarks.service                  everything, 4,000 requests for the memory
    python -m benchmarks.service --memory --requests 20000     the memory alone

Service, load generator (`benchmarks.load`) and bare pipeline (`benchmarks.bare`) are processes of their own
on the same two cores. Images are portraits of 250×250 pixels with one face; the gallery holds 100 identities.

service_vs_pipeline_c16   images per second of identify at 16 clients over those of the bare pipeline; the two
                          take turns of a few seconds. The bare pipeline is one process with a thread a core
                          and gets whichever is faster: the embedder on all cores, or on one core for each of
                          its threads
service_vs_processes_c16  the same over the bare pipeline in a process a core, which share nothing and never
                          wait: the most that the machine can do
p99_over_p50_c16          of the same turns together
overload                  requests start at four times the rate that the service managed, whether or not
                          others were answered: what it still answers over what it answered before, in turns
rss_growth_mb             memory of the service after so many requests of varied sizes and face counts less
                          that after the first tenth
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
from rich.progress import Progress

from benchmarks.images import DATA, ROOT, Image, encode, group, portraits, source
from benchmarks.load import multipart
from benchmarks.memory import peak_of, proportional_mb
from benchmarks.processes import cores
from benchmarks.stats import median, ratio

IDENTIFY, VERIFY = "/v1/galleries/default/identify", "/v1/verify"
CLIENTS = (1, 4, 16, 64)
START_LIMIT = 120.0
PARTS = 20
"""Into which the requests of the memory test are divided; memory is read after each."""

PROCESSES = "a process a core"
"""A way to run the bare pipeline that has no interpreter's lock to wait for."""

THREADS, IN_FLIGHT = "SPHEREID_THREADS", "SPHEREID_QUEUES__IN_FLIGHT"


class Partner:
    """A process that takes one JSON command a line and answers each with one line."""

    def __init__(self, module: str, *arguments: str, env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=env,
        )
        os.sched_setaffinity(self._process.pid, cores())
        self.answer()

    def ask(self, **command: Any) -> dict[str, Any]:
        self.tell(**command)
        return self.answer()

    def tell(self, **command: Any) -> None:
        """Ask without waiting for the answer."""
        assert self._process.stdin is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """Wait for the next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process of the benchmark ended; its own message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


class Bench:
    """Service, generator and bare pipeline, running."""

    def __init__(self, url: str, pid: int, load: Partner, bare: dict[str, list[Partner]]) -> None:
        """bare: the processes of each way to run it, by its name; `PROCESSES` is only for comparison."""
        self.url = url
        self._pid = pid
        self._load = load
        self._bare = bare
        self.bare_way = next(iter(bare))

    def load(self, kind: str, path: str, **command: Any) -> dict[str, Any]:
        return self._load.ask(kind=kind, path=path, **command)

    def identify(self, seconds: float, clients: int = 16) -> dict[str, Any]:
        return self.load("portraits", IDENTIFY, clients=clients, seconds=seconds)

    def bare(self, seconds: float, way: str | None = None) -> float:
        """Images per second of the bare pipeline, in the way that was chosen or in another one."""
        processes = self._bare[way or self.bare_way]
        for each in processes:
            each.tell(kind="portraits", seconds=seconds)
        return sum(done["images"] / done["seconds"] for done in [each.answer() for each in processes])

    def choose_bare(self, seconds: float, rounds: int = 2) -> None:
        """Take the bare pipeline with the threads that it is fastest with. seconds: of one trial."""
        rates = {way: 0.0 for way in self._bare if way != PROCESSES}
        for _ in range(rounds):
            for way in rates:
                rates[way] = max(rates[way], self.bare(seconds, way))
        self.bare_way = max(rates, key=lambda way: rates[way])

    def memory_mb(self) -> float:
        """Memory of the service now, with all its processes."""
        return proportional_mb(self._pid)

    def identify_and_watch(self, seconds: float, clients: int) -> dict[str, Any]:
        """Like `identify`, with the service's memory at its highest."""
        with peak_of(self._pid) as peak:
            return {**self.identify(seconds, clients), "peak_mb": round(peak(), 1)}


def measure(
    data: Path,
    *,
    requests: int = 4000,
    seconds: float = 6.0,
    turns: int = 4,
    env: dict[str, str] | None = None,
    memory_only: bool = False,
) -> dict[str, Any]:
    """See the module's text. seconds: of one turn. env: settings of the service and the bare pipeline."""
    with Progress() as progress, _running(data, env or {}) as bench:
        steps = PARTS + (0 if memory_only else 3 * turns + 2 * len(CLIENTS) + 4)
        bar = progress.add_task("service: warming up", total=steps)

        def step(text: str) -> None:
            progress.update(bar, advance=1, description=f"service: {text}")

        bench.identify(seconds / 2)
        result: dict[str, Any] = {"images": source(data), "settings": env or {}}
        if memory_only:
            return result | _memory(bench, requests, step)
        bench.choose_bare(seconds / 2)
        result |= _against_bare(bench, seconds, turns, step)
        result["identify"], result["verify"] = {}, {}
        for clients in CLIENTS:
            step(f"{clients} clients")
            result["identify"][str(clients)] = bench.identify_and_watch(seconds, clients)
            step(f"{clients} clients")
            result["verify"][str(clients)] = bench.load("pairs", VERIFY, clients=clients, seconds=seconds)
        result["overload"] = _overload(bench, seconds, step)
        return result | _memory(bench, requests, step)


def _against_bare(bench: Bench, seconds: float, turns: int, step: Any) -> dict[str, Any]:
    bare: list[float] = []
    processes: list[float] = []
    served: list[dict[str, Any]] = []
    sides = (
        lambda: bare.append(bench.bare(seconds)),
        lambda: served.append(bench.identify(seconds)),
        lambda: processes.append(bench.bare(seconds, PROCESSES)),
    )
    for turn in range(turns):
        for side in sides if turn % 2 else sides[::-1]:
            step("beside the bare pipeline")
            side()
    rates = [each["per_second"] for each in served]
    return {
        "bare": bench.bare_way,
        "bare_images_per_second": median(bare, 1),
        "served_images_per_second": median(rates, 1),
        "bare_processes_images_per_second": median(processes, 1),
        **ratio("service_vs_pipeline_c16", rates, bare),
        **ratio("service_vs_processes_c16", rates, processes),
        "p99_over_p50_c16": median([each["p99_ms"] / each["p50_ms"] for each in served], 2),
        "errors_c16": sum(each["errors"] + each["refused"] for each in served),
    }


def _overload(bench: Bench, seconds: float, step: Any, turns: int = 2) -> dict[str, Any]:
    before, during = [], []
    for _ in range(turns):
        step("overload")
        before.append(bench.identify(seconds)["per_second"])
        step("overload")
        during.append(bench.load("portraits", IDENTIFY, rate=4 * before[-1], seconds=seconds))
    return {
        "offered_over_capacity": 4,
        "goodput_over_capacity": round(median([d["per_second"] for d in during]) / median(before), 3),
        "goodput_over_capacity_by_turn": [
            round(d["per_second"] / b, 3) for d, b in zip(during, before, strict=True)
        ],
        **{key: sum(d[key] for d in during) for key in ("refused", "refused_without_retry_after", "errors")},
        "p50_ms": median([d["p50_ms"] for d in during], 1),
        "p99_ms": median([d["p99_ms"] for d in during], 1),
    }


def _memory(bench: Bench, requests: int, step: Any, parts: int = PARTS) -> dict[str, Any]:
    part = max(1, requests // parts)
    resident, errors = [], 0
    for _ in range(parts):
        step(f"memory over {requests} requests")
        done = bench.load("varied", IDENTIFY, clients=16, count=part)
        errors += done["errors"] + done["refused"]
        resident.append(round(bench.memory_mb(), 1))
    warm = max(1, parts // 10) - 1
    return {
        "rss_growth_mb": round(resident[-1] - resident[warm], 1),
        "rss_requests": part * parts,
        "rss_errors": errors,
        "rss_mb_by_part": resident,
    }


@contextmanager
def _running(data: Path, env: dict[str, str]) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = _write_requests(data, folder)
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SPHEREID_")}
        clean |= {
            "PYTHONPATH": str(ROOT),
            "SPHEREID_DATA_DIR": str(folder / "data"),
            "SPHEREID_MODELS_DIR": str(ROOT / "models"),
        }
        clean |= env
        with _service(folder, clean) as (url, pid):
            _enroll(url, files[:100])
            host, _, port = url.removeprefix("http://").partition(":")
            load = Partner("benchmarks.load", host, port, str(folder / "requests"), env=clean)
            ways = {
                "threads, the embedder on all cores": [{THREADS: "0"}],
                "threads, the embedder on one core each": [{THREADS: "1"}],
                PROCESSES: [{THREADS: "1", IN_FLIGHT: "1"}] * len(cores()),
            }
            bare = {
                way: [Partner("benchmarks.bare", str(folder / "files"), env=clean | each) for each in own]
                for way, own in ways.items()
            }
            try:
                yield Bench(url, pid, load, bare)
            finally:
                for partner in (load, *(each for own in bare.values() for each in own)):
                    partner.close()


def _write_requests(data: Path, folder: Path) -> list[bytes]:
    """Bodies for the generator and files for the bare pipeline; returns the portraits' files."""
    files = [encode(image) for image in portraits(data, 200)]
    kinds = {
        "portraits": [multipart("image", file) for file in files],
        "pairs": [
            multipart("images", *pair, face="largest") for pair in zip(files[::2], files[1::2], strict=True)
        ],
        "varied": [multipart("image", encode(image)) for image in varied(data)],
    }
    for kind, bodies in kinds.items():
        _write(folder / "requests" / kind, bodies)
    _write(folder / "files" / "portraits", files)
    return files


def varied(data: Path, count: int = 100) -> list[Image]:
    """Pictures of sides from 90 to 2,000 pixels with up to 16 faces, most of them small."""
    rng = np.random.default_rng(5)
    pictures = []
    for i in range(count):
        picture = group(data, int(rng.choice([1, 2, 4, 9, 16])) if i % 10 == 0 else 1, seed=i)
        side = float(np.exp(rng.uniform(np.log(90), np.log(700))) if i % 20 else rng.uniform(1200, 2000))
        shape = (max(90, round(side * rng.uniform(0.7, 1.4))), round(side))
        pictures.append(np.asarray(cv2.resize(picture, shape, interpolation=cv2.INTER_AREA), np.uint8))
    return pictures


def _write(folder: Path, contents: list[bytes]) -> None:
    folder.mkdir(parents=True)
    for i, content in enumerate(contents):
        (folder / f"{i:04}").write_bytes(content)


@contextmanager
def _service(folder: Path, env: dict[str, str]) -> Iterator[tuple[str, int]]:
    # Whoever ends the benchmark ends the service with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    log = folder / "service.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "sphereid", "serve"],
            cwd=folder,
            env={**env, "HOST": "127.0.0.1", "PORT": "0"},
            stderr=file,
        )
    os.sched_setaffinity(process.pid, cores())
    try:
        yield _address(process, log), process.pid
    finally:
        process.terminate()
        process.wait(60)


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"running on (http://\S+)", log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise SystemExit(f"the service did not start:\n{log.read_text()}")


def _enroll(url: str, files: list[bytes]) -> None:
    with httpx.Client(base_url=url, timeout=60) as client:
        for i, file in enumerate(files):
            path = f"/v1/galleries/default/identities/person-{i}/faces"
            client.post(path, files={"images": file}, data={"create": "true", "face": "largest"})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the shared face data")
    parser.add_argument("--requests", type=int, default=4000, help="requests of the memory test")
    parser.add_argument("--memory", action="store_true", help="the memory test alone")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of one turn")
    parser.add_argument("--turns", type=int, default=4, help="turns of service and bare pipeline")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a SPHEREID_… setting, repeatable"
    )
    given = parser.parse_args()
    env = dict(item.split("=", 1) for item in given.set)
    result = measure(
        given.data,
        requests=given.requests,
        seconds=given.seconds,
        turns=given.turns,
        env=env,
        memory_only=given.memory,
    )
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
