"""The pipeline without a service around it: decode, detect, align, assess and embed in as many threads as
`SPHEREID_QUEUES__IN_FLIGHT` says, with the settings that the service would have.

    python -m benchmarks.bare FOLDER     then one JSON command a line: {"kind": …, "seconds": 5}

FOLDER holds JPEG files in folders named like the kinds. The answer is {"images": n, "seconds": s} a line.
"""

import itertools
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sphereid.faces.decode import decode
from sphereid.faces.pipeline import FacePipeline
from sphereid.inference.loading import build_engine
from sphereid.settings import Settings


def main() -> None:
    settings = Settings()
    engine = build_engine(settings)
    pipeline = FacePipeline(engine.detector, engine.embedder)
    workers = settings.queues.in_flight

    def look(file: bytes) -> None:
        pipeline.analyze(decode(file, engine.limits), min_score=settings.detection.min_score)

    def work(files: Iterator[bytes], end: float) -> int:
        done = 0
        while time.perf_counter() < end:
            look(next(files))
            done += 1
        return done

    kinds = {
        kind.name: [file.read_bytes() for file in sorted(kind.iterdir())]
        for kind in Path(sys.argv[1]).iterdir()
    }
    for file in kinds["portraits"][:5]:
        look(file)
    print(json.dumps({"ready": True}), flush=True)
    with ThreadPoolExecutor(workers) as pool:
        for line in sys.stdin:
            command = json.loads(line)
            files = itertools.cycle(kinds[command["kind"]])  # `next` of it is atomic in CPython
            began = time.perf_counter()
            jobs = [pool.submit(work, files, began + command["seconds"]) for _ in range(workers)]
            images = sum(job.result() for job in jobs)
            print(json.dumps({"images": images, "seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main()
