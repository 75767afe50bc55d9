"""How cost grows: time and memory against image size, faces per image, and gallery size. Against clients:
`benchmarks.service`, which has them.

    python -m benchmarks.growth

Image size and faces per image: the pipeline (detect, align, assess, embed) on one thread; the median time of
a few runs, and by how much the process grew at its peak. Gallery size: one exact search among so many
embeddings of 128 numbers, and the memory that they take. Every series comes with `exponent`, the slope of
time over size in logarithms: 1 is linear growth.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.progress import track

from benchmarks.images import DATA, ROOT, Image, group, source
from benchmarks.stats import exponent, median

MEGAPIXELS = (0.0625, 0.25, 1, 4, 16)
FACES = (1, 2, 4, 9, 16, 36, 64)
GALLERY = (1_000, 10_000, 100_000, 300_000)


def measure(data: Path) -> dict[str, Any]:
    """See the module's text."""
    from sphereid.faces.pipeline import FacePipeline
    from sphereid.inference.loading import build_engine
    from sphereid.settings import Settings

    engine = build_engine(
        Settings(data_dir=ROOT / "data", models_dir=ROOT / "models", threads=1, provider="cpu")
    )
    pipeline = FacePipeline(engine.detector, engine.embedder)
    pipeline.analyze(group(data, 4))
    crowd = {n: group(data, n, width=2000, height=2000) for n in FACES}
    return {
        "images": source(data),
        "image_size": {
            "what": "megapixels of a picture of 4 people",
            **_series(MEGAPIXELS, lambda size: _on(pipeline.analyze, _scaled(group(data, 4), size))),
        },
        "faces": {
            "what": "faces in a picture of 4 megapixels",
            **_series(FACES, lambda count: _on(pipeline.analyze, crowd[int(count)])),
        },
        "gallery": {"what": "embeddings searched exactly", **_series(GALLERY, _search)},
    }


def _scaled(image: Image, megapixels: float) -> Image:
    side = round((megapixels * 1e6) ** 0.5)
    return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def _on(work: Callable[[Image], object], image: Image) -> Callable[[], object]:
    return lambda: work(image)


def _search(count: float) -> Callable[[], object]:
    from sphereid.gallery.index.flat import FlatIndex

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((int(count), 128), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = FlatIndex(128)
    index.add(np.arange(int(count), dtype=np.int64), vectors)
    return lambda: index.search(vectors[:1], 10)


def _series(
    sizes: Sequence[float], work_of: Callable[[float], Callable[[], object]], repeats: int = 5
) -> dict[str, Any]:
    times, peaks = [], []
    before = _memory("VmRSS")
    for size in track(sizes, description="growth"):
        work = work_of(size)
        work()
        _forget_peak()
        taken = []
        for _ in range(repeats):
            began = time.perf_counter()
            work()
            taken.append(time.perf_counter() - began)
        times.append(median(taken, 6) * 1e3)
        peaks.append(round(max(0.0, _memory("VmHWM") - before), 1))
    return {"sizes": list(sizes), "ms": times, "peak_mb": peaks, "exponent": exponent(sizes, times)}


def _memory(which: str) -> float:
    """Megabytes: VmRSS now, VmHWM at the highest since `_forget_peak`."""
    found = re.search(rf"{which}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the shared face data")
    print(json.dumps(measure(parser.parse_args().data), indent=2))


if __name__ == "__main__":
    main()
