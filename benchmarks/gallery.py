"""How fast and how right a gallery of a size is: exact scan, automatic index, start-up, and writes under
load.

    python benchmarks/gallery.py --count 10000 --count 100000 --count 1000000 --json gallery.json

The embeddings are made: identities with several faces each around centers of a falling spectrum, so that the
nearest neighbor means something. Everything goes through the service's own code; the numbers of the largest
count are the ones at the top of the JSON:

exact_vs_sweep      one exact query against reading the same bytes once with every core, medians of the same
run auto_recall_at_1    share of probes for which the automatic index finds the exact scan's nearest face
auto_vs_exact       one query of the automatic index against one of the exact scan, medians
startup_s           opening the service: schema check, snapshot read and verified, first query answered
write_p99_ms        99th percentile of enroll and delete, committed and searchable, while queries run
fsync_p99_ms        99th percentile of the disk alone, before and after the writes: each write waits for it,
                    a delete three times. On a memory disk (--folder /dev/shm) it is none
"""

import argparse
import json
import os
import platform
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sphereid.gallery import store
from sphereid.gallery.index.flat import FlatIndex
from sphereid.gallery.index.oracle import OracleIndex
from sphereid.gallery.service import GalleryService
from sphereid.gallery.store.tables import FACES, IDENTITIES, ORDINAL_BITS
from sphereid.gallery.types import CosinePolicy, GalleryRules, NewFace, Vectors
from sqlalchemy import insert

CONTRACT = "benchmark"
FACES_EACH = 4
SAME_PERSON = 0.6  # cosine of two faces of one identity, about


def people(identities: int, dimension: int, seed: int) -> Vectors:
    """(I, D) centers; the falling spectrum gives them near and far neighbors as real embeddings have."""
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((identities, dimension), dtype=np.float32)
    centers *= (np.arange(1, dimension + 1, dtype=np.float32) ** -0.35)[None]
    return normalized(centers)


def photographs(centers: Vectors, owners: np.ndarray, seed: int) -> Vectors:
    """One face (D,) of each owner: its center and noise at the angle that gives SAME_PERSON."""
    rng = np.random.default_rng(seed)
    dimension = centers.shape[1]
    faces = rng.standard_normal((len(owners), dimension), dtype=np.float32)
    faces *= np.sqrt((1 / SAME_PERSON - 1) / dimension)
    faces += centers[owners]
    return normalized(faces)


def normalized(vectors: Vectors) -> Vectors:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def timed(call: Callable[[], Any], repeats: int) -> np.ndarray:
    """Seconds of each call."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return np.array(taken)


def at_once(search: Callable[[Vectors], Any], queries: Vectors, threads: int, each: int) -> np.ndarray:
    """Seconds of each single query, `threads` of them at a time."""

    def run(worker: int) -> np.ndarray:
        mine = iter(queries[(np.arange(each) + worker * each) % len(queries)])
        return timed(lambda: search(next(mine)[None]), each)

    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(run, range(threads))))


def sweep(vectors: Vectors, repeats: int) -> float:
    """Median seconds to read every byte once, a share of the rows for each core."""
    cores = len(os.sched_getaffinity(0))
    parts = [part.view(np.int64) for part in np.array_split(vectors, cores)]
    with ThreadPoolExecutor(cores) as pool:
        return float(np.median(timed(lambda: list(pool.map(np.sum, parts)), repeats)))


def search_next(index: FlatIndex, queries: Iterator[Vectors]) -> None:
    index.search(next(queries)[None], 10)


def milliseconds(seconds: np.ndarray) -> dict[str, float]:
    return {"p50_ms": float(np.median(seconds) * 1e3), "p99_ms": float(np.quantile(seconds, 0.99) * 1e3)}


def memory_gib() -> float:
    """Resident memory now."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def populate(folder: Path, vectors: Vectors, progress: Progress) -> None:
    """A gallery with these faces, four to an identity, written in large transactions."""
    service = GalleryService.open(
        url(folder), folder, default_rules=GalleryRules(CosinePolicy(0.4)), index="flat"
    )
    task = progress.add_task(f"writing {len(vectors):,} faces to the database", total=len(vectors))
    first = NewFace(vectors[0], CONTRACT, 0.9, 0.99)
    service.enroll("default", "first", [first], create=True)  # binds contract and length
    service.delete_identity("default", "first")
    at = store.now()
    live = service._live["default"]
    for start in range(0, len(vectors), 20_000):
        chunk = vectors[start : start + 20_000]
        numbers = 1000 + (start + np.arange(len(chunk))) // FACES_EACH
        ordinals = 1 + (start + np.arange(len(chunk))) % FACES_EACH
        with service._database.writing() as tx:
            tx.execute(
                insert(IDENTITIES),
                [
                    {"number": n, "gallery_id": "default", "id": f"p{n}", "name": f"p{n}", "metadata": {}}
                    | {"faces": FACES_EACH, "ticks": FACES_EACH, "created_at": at, "updated_at": at}
                    for n in np.unique(numbers).tolist()
                ],
            )
            tx.execute(
                insert(FACES),
                [
                    {"number": n << ORDINAL_BITS | o, "id": f"f{n}-{o}", "gallery_id": "default"}
                    | {"identity_number": n, "contract": CONTRACT, "vector": v.tobytes(), "quality": 0.9}
                    | {"detection_score": 0.99, "source": None, "created_at": at}
                    for n, o, v in zip(numbers.tolist(), ordinals.tolist(), chunk, strict=True)
                ],
            )
            store.touch_gallery(tx, "default", identities=len(np.unique(numbers)), faces=len(chunk))
        progress.update(task, advance=len(chunk))
    live.stale = False  # the next start reads the database
    live.discard()
    service.close()
    progress.remove_task(task)


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/gallery.db"


def writes_under_load(
    service: GalleryService, probes: Vectors, new: Vectors, writes: int
) -> dict[str, float]:
    """Enroll and delete while two threads identify; each write is checked with the next query."""
    stop = threading.Event()
    served: list[float] = []

    def identify() -> None:
        while not stop.is_set():
            for probe in probes:
                start = time.perf_counter()
                service.identify("default", probe[None], CONTRACT, k=1)
                served.append(time.perf_counter() - start)
                if stop.is_set():
                    return

    threads = [threading.Thread(target=identify) for _ in range(2)]
    for thread in threads:
        thread.start()
    enrolls, deletes = [], []
    try:
        for i, vector in enumerate(new[:writes]):
            face = [NewFace(vector, CONTRACT, 0.9, 0.99)]
            start = time.perf_counter()
            made = service.enroll("default", f"new{i}", face, create=True).faces[0]
            enrolls.append(time.perf_counter() - start)
            (decision,), _ = service.identify("default", vector[None], CONTRACT, k=1, threshold=0.9999)
            assert decision.identity is not None, "an enrolled face was not found by the next query"
            assert decision.identity.id == f"new{i}", "an enrolled face was not found by the next query"
            start = time.perf_counter()
            service.delete_face("default", f"new{i}", made.id)
            deletes.append(time.perf_counter() - start)
            (decision,), _ = service.identify("default", vector[None], CONTRACT, k=1, threshold=0.9999)
            assert decision.outcome == "unknown", "a deleted face was found by the next query"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return {
        "enroll_p50_ms": float(np.median(enrolls) * 1e3),
        "enroll_p99_ms": float(np.quantile(enrolls, 0.99) * 1e3),
        "delete_p50_ms": float(np.median(deletes) * 1e3),
        "delete_p99_ms": float(np.quantile(deletes, 0.99) * 1e3),
        "write_p99_ms": float(np.quantile(enrolls + deletes, 0.99) * 1e3),
        "identify_meanwhile_p50_ms": float(np.median(served) * 1e3),
    }


def fsyncs(folder: Path, repeats: int) -> np.ndarray:
    """Seconds that the disk takes to keep two pages, as often as a commit asks for it."""
    taken = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(repeats):
            file.write(bytes(8192))
            start = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - start)
            time.sleep(0.005)
    (folder / "fsync").unlink()
    return np.array(taken)


def measure(
    count: int, dimension: int, queries: int, writes: int, folder: Path, progress: Progress
) -> dict[str, Any]:
    """All numbers of one size."""
    identities = count // FACES_EACH
    centers = people(identities, dimension, seed=1)
    vectors = np.concatenate(
        [
            photographs(centers, np.repeat(np.arange(s, min(s + 25_000, identities)), FACES_EACH), seed=s + 2)
            for s in range(0, identities, 25_000)
        ]
    )
    owners = np.random.default_rng(3).integers(0, identities, queries)
    probes = photographs(centers, owners, seed=4)
    strangers = photographs(people(writes, dimension, seed=5), np.arange(writes), seed=6)
    result: dict[str, Any] = {"count": len(vectors), "dimension": dimension, "identities": identities}
    task = progress.add_task(f"{count:,} x {dimension}", total=6)

    flat = FlatIndex(dimension)
    keys = np.arange(len(vectors), dtype=np.int64)
    flat.add(keys, vectors)
    repeats = max(5, min(50, 20_000_000 // count))
    flat.search(probes[:1], 1)
    exact, swept = [], []
    for turn in range(3):  # taking turns, so that both see the same machine
        swept.append(sweep(vectors, repeats))
        own = iter(probes[(np.arange(repeats) + turn * repeats) % len(probes)])
        exact.append(timed(partial(search_next, flat, own), repeats))
    result["sweep_ms"] = float(np.median(swept) * 1e3)
    result["exact"] = milliseconds(np.concatenate(exact))
    result["exact_vs_sweep"] = result["exact"]["p50_ms"] / result["sweep_ms"]
    result["exact"]["at_32"] = milliseconds(at_once(partial(flat.search, k=10), probes, 32, 2))
    progress.update(task, advance=1)
    _, nearest = flat.search(probes, 10)
    if count <= 20_000:
        oracle = OracleIndex(dimension)
        oracle.add(keys, vectors)
        assert np.array_equal(oracle.search(probes, 10)[1], nearest), "the exact scan differs from the oracle"
    del flat

    populate(folder, vectors, progress)
    del vectors
    progress.update(task, advance=1)
    start = time.perf_counter()
    service = GalleryService.open(url(folder), folder)
    result["start_without_snapshot_s"] = time.perf_counter() - start
    live = service._live["default"]
    before = memory_gib()
    start = time.perf_counter()
    service._maintenance.stop()  # its turn is taken here, where it can be timed
    live.regenerate("auto")
    result["build_s"] = time.perf_counter() - start
    assert live._index is not None
    result["kind"] = live._index.kind
    result["build_memory_gib"] = memory_gib() - before
    progress.update(task, advance=1)
    start = time.perf_counter()
    live.save()
    result["snapshot_s"] = time.perf_counter() - start
    service._maintenance._stopping.clear()
    service.close()
    del service, live
    progress.update(task, advance=1)

    before = memory_gib()
    start = time.perf_counter()
    service = GalleryService.open(url(folder), folder)
    service.identify("default", probes[:1], CONTRACT)
    result["startup_s"] = time.perf_counter() - start
    result["memory_gib"] = memory_gib() - before
    live = service._live["default"]
    assert live._index is not None
    assert live._index.kind == result["kind"], "the snapshot was not taken"
    progress.update(task, advance=1)

    _, found = live.search(probes, 10)
    expected = ((1000 + nearest // FACES_EACH) << ORDINAL_BITS) | (1 + nearest % FACES_EACH)
    result["auto_recall_at_1"] = float(np.mean(found[:, 0] == expected[:, 0]))
    hits = (found[:, :, None] == expected[:, None, :]).any(axis=1)
    result["auto_recall_at_10"] = float(hits.mean())
    singles = iter(probes)
    result["auto"] = milliseconds(timed(lambda: live.search(next(singles)[None], 10), len(probes)))
    result["auto"]["at_32"] = milliseconds(at_once(lambda q: live.search(q, 10), probes, 32, 10))
    result["auto_vs_exact"] = result["auto"]["p50_ms"] / result["exact"]["p50_ms"]
    result["identify"] = milliseconds(
        at_once(lambda q: service.identify("default", q, CONTRACT), probes, 1, 200)
    )
    disk = [fsyncs(folder, writes)]
    result |= writes_under_load(service, probes, strangers, writes)
    disk.append(fsyncs(folder, writes))
    result["fsync_p99_ms"] = milliseconds(np.concatenate(disk))["p99_ms"]
    service.close()
    progress.remove_task(task)
    return result


def show(results: list[dict[str, Any]], console: Console) -> None:
    table = Table(title=f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores")
    for column in ("", *(f"{r['count']:,} x {r['dimension']}" for r in results)):
        table.add_column(column, justify="right" if column else "left")
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("memory sweep, ms", lambda r: f"{r['sweep_ms']:.1f}"),
        ("exact, p50 / p99 ms", lambda r: f"{r['exact']['p50_ms']:.1f} / {r['exact']['p99_ms']:.1f}"),
        ("exact to sweep", lambda r: f"{r['exact_vs_sweep']:.2f}"),
        ("automatic kind", lambda r: str(r["kind"])),
        ("its build, s", lambda r: f"{r['build_s']:.1f}"),
        ("its memory, GiB", lambda r: f"{r['memory_gib']:.2f}"),
        ("p50 / p99 ms", lambda r: f"{r['auto']['p50_ms']:.2f} / {r['auto']['p99_ms']:.2f}"),
        ("32 at once", lambda r: f"{r['auto']['at_32']['p50_ms']:.1f} / {r['auto']['at_32']['p99_ms']:.1f}"),
        ("exact to automatic", lambda r: f"{1 / r['auto_vs_exact']:.1f}x"),
        ("recall@1, @10", lambda r: f"{r['auto_recall_at_1']:.4f}, {r['auto_recall_at_10']:.4f}"),
        ("identify p50 / p99 ms", lambda r: f"{r['identify']['p50_ms']:.1f} / {r['identify']['p99_ms']:.1f}"),
        ("start-up, s", lambda r: f"{r['startup_s']:.2f}"),
        ("  without snapshot, s", lambda r: f"{r['start_without_snapshot_s']:.1f}"),
        ("enroll p50 / p99 ms", lambda r: f"{r['enroll_p50_ms']:.1f} / {r['enroll_p99_ms']:.1f}"),
        ("delete p50 / p99 ms", lambda r: f"{r['delete_p50_ms']:.1f} / {r['delete_p99_ms']:.1f}"),
        ("fsync of the disk, p99 ms", lambda r: f"{r['fsync_p99_ms']:.1f}"),
    ]
    for name, cell in rows:
        table.add_row(name, *(cell(r) for r in results))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, action="append", help="faces; may be given several times")
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--queries", type=int, default=1000, help="probes for latency and recall")
    parser.add_argument(
        "--writes", type=int, default=300, help="enrollments, and as many deletes, under load"
    )
    parser.add_argument("--folder", type=Path, help="where the database goes; a temporary one if left out")
    parser.add_argument("--json", type=Path, help="write all numbers there")
    given = parser.parse_args()
    console = Console(stderr=True)
    results: list[dict[str, Any]] = []
    for count in given.count or [10_000, 100_000, 1_000_000]:
        folder = Path(tempfile.mkdtemp(prefix="gallery-", dir=given.folder))
        try:
            with Progress(console=console) as progress:
                results.append(measure(count, given.dimension, given.queries, given.writes, folder, progress))
        finally:
            shutil.rmtree(folder)
        if given.json:
            top = max(results, key=lambda r: r["count"])
            names = ["exact_vs_sweep", "auto_recall_at_1", "auto_vs_exact", "startup_s"]
            names += ["write_p99_ms", "fsync_p99_ms"]
            given.json.write_text(
                json.dumps({n: top[n] for n in names} | {"sizes": results}, indent=1) + "\n"
            )
    show(results, Console())


if __name__ == "__main__":
    main()
