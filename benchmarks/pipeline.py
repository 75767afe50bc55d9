"""The pipeline, from pixels to one embedding, against `face_recognition` at its defaults.

    python -m benchmarks.pipeline

face_recognition: its HOG detector, then one encoding of the largest face. Ours: the default model as the
service loads it; detect, align, assess, embed the largest face. Two comparisons, both on the same two cores:

pipeline_vs_face_recognition            two processes of one thread each on either side, faces per second:
                                        both use both cores. The sides take turns, a few images at a time.
pipeline_vs_face_recognition_one_image  one process each that may use two threads, time of one image: dlib
                                        works on one thread whatever it is given
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rich.progress import track

from benchmarks.images import DATA, portraits, source
from benchmarks.processes import OURS, PEERS, Contestant, closing_all, cores, stored
from benchmarks.stats import median, ratio

SIDES = ("sphereid_pipeline", "face_recognition")


def measure(data: Path, peers: Path, *, images: int = 96, turn: int = 4) -> dict[str, Any]:
    """See the module's text. turn: images of one process before the other side has its turn."""
    pythons = dict(zip(SIDES, (OURS, peers / "bin" / "python"), strict=True))
    result: dict[str, Any] = {"images": source(data), "count": images}
    with stored(portraits(data, images)) as file:
        pairs = {
            side: [Contestant(side, pythons[side], file, threads=1, on={core}) for core in sorted(cores())]
            for side in SIDES
        }
        result["versions"] = {side: pair[0].version for side, pair in pairs.items()}
        with closing_all([each for pair in pairs.values() for each in pair]):
            rates, faces = _throughput(pairs, images, turn)
        alone = {side: Contestant(side, pythons[side], file, threads=2) for side in SIDES}
        with closing_all(list(alone.values())):
            seconds: dict[str, list[float]] = {side: [] for side in SIDES}
            for i in track(range(images // 2), description="pipelines, one image"):
                for side in SIDES if i % 2 else SIDES[::-1]:
                    seconds[side].append(alone[side].run(i)["seconds"])
    ours, theirs = SIDES
    result["faces_found"] = faces
    result["median_faces_per_second"] = {side: median(each, 1) for side, each in rates.items()}
    result["median_ms_one_image"] = {side: median(each, 4) * 1e3 for side, each in seconds.items()}
    result |= ratio("pipeline_vs_face_recognition", rates[ours], rates[theirs])
    return result | ratio("pipeline_vs_face_recognition_one_image", seconds[theirs], seconds[ours])


def _throughput(
    pairs: dict[str, list[Contestant]], images: int, turn: int
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Faces per second of each turn of each side, and how many faces each found in all."""
    rates: dict[str, list[float]] = {side: [] for side in pairs}
    faces = dict.fromkeys(pairs, 0)
    step = turn * len(cores())
    for first in track(range(0, images - step + 1, step), description="pipelines, throughput"):
        for side, pair in pairs.items():
            began = time.perf_counter()
            for k in range(turn):
                for i, contestant in enumerate(pair):
                    contestant.ask(first + i * turn + k)
            answers = [contestant.answer() for contestant in pair for _ in range(turn)]
            found = sum(answer["faces"] for answer in answers)
            rates[side].append(found / (time.perf_counter() - began))
            faces[side] += found
    return rates, faces


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the shared face data")
    parser.add_argument("--peers", type=Path, default=PEERS, help="virtual environment with the peers")
    parser.add_argument("--images", type=int, default=96, help="how many images")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.data, arguments.peers.absolute(), images=arguments.images), indent=2))


if __name__ == "__main__":
    main()
