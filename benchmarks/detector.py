"""The detector: how fast against two reference MTCNNs, how alike, and how many images have a face found.

    python -m benchmarks.detector            time and agreement against facenet-pytorch and mtcnn (TensorFlow)
    python -m benchmarks.detector found      share of all LFW View 1 images with a face, at the defaults

The peers live in an environment of their own (`make bench` builds it). Every detector is a process with the
same number of threads on the same cores; they take turns image by image, so that whatever else runs here
meets all of them alike. A ratio above 1 means that ours is faster.

`_equal_settings`: all look for faces from 20 pixels, which is the references' default, and nobody looks
twice. `_our_defaults`: ours looks for faces from 32 pixels and takes a second look at close-ups, the others
as they come. `_one_thread`: equal settings, one thread each. `_cpu` counts processor time instead of time on
the wall.
"""

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks.images import DATA, Image, decode, group, lfw_files, portraits, source
from benchmarks.processes import OURS, PEERS, Contestant, closing_all, stored
from benchmarks.stats import median, ratio

PEER_MIN_FACE = 20
PEER_NAMES = ("facenet_pytorch", "mtcnn_tf")
EQUAL, DEFAULTS = "sphereid_equal_settings", "sphereid_our_defaults"


def measure(
    data: Path, peers: Path, *, threads: int = 2, images: int = 150, groups: int = 4
) -> dict[str, Any]:
    """Times, ratios and agreement; see the module's text. groups: pictures of 9 people for the agreement."""
    crowd = [group(data, 9, seed) for seed in range(groups)]
    answers, versions = _race([*portraits(data, images), *crowd], peers, threads)
    single = {name: given[:images] for name, given in answers.items()}
    many = {name: given[images:] for name, given in answers.items()}
    result: dict[str, Any] = {
        "images": source(data),
        "count": images,
        "threads": threads,
        "versions": versions,
    }
    for unit, clock in (("seconds", ""), ("cpu_seconds", "_cpu")):
        times = {name: [each[unit] for each in given] for name, given in single.items()}
        result[f"median_ms{clock}"] = {name: median(np.array(t) * 1e3, 2) for name, t in times.items()}
        for peer in PEER_NAMES:
            for ours in (EQUAL, DEFAULTS):
                key = f"detector_vs_{peer}_{ours.removeprefix('sphereid_')}{clock}"
                result |= ratio(key, times[peer], times[ours])
    result["median_ms_of_9_people"] = {
        name: median([each["seconds"] * 1e3 for each in given], 2) for name, given in many.items() if given
    }
    alone, _ = _race(portraits(data, images)[: images // 3], peers, 1)
    for peer in PEER_NAMES:
        times = [[each["seconds"] for each in alone[name]] for name in (peer, EQUAL)]
        result |= ratio(f"detector_vs_{peer}_one_thread", *times)
    return result | agreement(answers["facenet_pytorch"], answers[EQUAL])


def _race(
    images: Sequence[Image], peers: Path, threads: int
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, str]]:
    python = peers / "bin" / "python"
    with stored(images) as file:
        contestants = {
            EQUAL: Contestant("sphereid", OURS, file, threads=threads, min_face=PEER_MIN_FACE),
            DEFAULTS: Contestant("sphereid", OURS, file, threads=threads),
            **{
                name: Contestant(name, python, file, threads=threads, min_face=PEER_MIN_FACE)
                for name in PEER_NAMES
            },
        }
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
        names = list(contestants)
        with closing_all(list(contestants.values())):
            for i in track(range(len(images)), description="detectors in turns"):
                for name in names[i % len(names) :] + names[: i % len(names)]:
                    answers[name].append(contestants[name].run(i))
    return answers, {name: contestant.version for name, contestant in contestants.items()}


def agreement(reference: list[dict[str, Any]], ours: list[dict[str, Any]]) -> dict[str, Any]:
    """How many of the reference's faces ours has at IoU ≥ 0.9, and how far the landmarks of those are off."""
    faces, matched, distances = 0, 0, []
    for expected, got in zip(reference, ours, strict=True):
        boxes = np.array(got["boxes"]).reshape(-1, 4)
        for box, landmarks in zip(np.array(expected["boxes"]), np.array(expected["landmarks"]), strict=True):
            faces += 1
            if not len(boxes):
                continue
            sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
            inter = np.prod(np.maximum(sides, 0), axis=1)
            area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
            iou = inter / (np.prod(box[2:] - box[:2]) + area - inter)
            best = int(iou.argmax())
            if iou[best] >= 0.9:
                matched += 1
                distances.append(np.linalg.norm(np.array(got["landmarks"][best]) - landmarks, axis=1).mean())
    return {
        "detector_faces_of_the_reference": faces,
        "detector_faces_of_ours": sum(len(each["boxes"]) for each in ours),
        "detector_match_rate": round(matched / faces, 4) if faces else None,
        "detector_landmark_distance_px_mean": round(float(np.mean(distances)), 4) if distances else None,
    }


def found(data: Path, every: int, workers: int) -> dict[str, Any]:
    """The share of LFW images in which the detector finds a face at its default settings."""
    from sphereid.faces.detect import MtcnnDetector

    detector = MtcnnDetector()
    with ThreadPoolExecutor(workers) as pool:
        files = list(lfw_files(data, every))
        began = time.perf_counter()
        faces = pool.map(lambda file: len(detector.detect(decode(file[1]))), files)
        counts = list(track(faces, total=len(files), description="detecting"))
        seconds = time.perf_counter() - began
    missed = [name for (name, _), count in zip(files, counts, strict=True) if not count]
    return {
        "images": len(counts),
        "with_a_face": len(counts) - len(missed),
        "found_rate": 1 - len(missed) / len(counts),
        "faces": sum(counts),
        "images_per_second": len(counts) / seconds,
        "missed": missed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("speed", "found"), nargs="?", default="speed")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the shared face data")
    parser.add_argument("--peers", type=Path, default=PEERS, help="virtual environment with the peers")
    parser.add_argument("--images", type=int, default=150, help="speed: how many images")
    parser.add_argument("--threads", type=int, default=2, help="threads of each detector")
    parser.add_argument("--every", type=int, default=1, help="found: take every n-th image (all are 4,992)")
    arguments = parser.parse_args()
    if arguments.what == "found":
        result = found(arguments.data, arguments.every, arguments.threads)
    else:
        result = measure(
            arguments.data, arguments.peers.absolute(), threads=arguments.threads, images=arguments.images
        )
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
