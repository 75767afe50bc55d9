"""The detector measured: how many images have a face found, and how fast against two reference MTCNNs.

    python -m benchmarks.detector found                       every LFW View 1 image at the default settings
    python -m benchmarks.detector speed --peers .venv-peers   against facenet-pytorch and mtcnn (TensorFlow)

The peers live in an environment of their own (`benchmarks/peers/requirements.txt`). In `speed` every detector
is a process with the same number of threads; they take turns image by image, so that whatever else runs here
meets all of them alike. A ratio above 1 means that ours is faster. `like_for_like` is with the
reference's smallest face of 20 pixels, the others with our defaults; `cpu` counts processor time instead of
time on the wall.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
WORKER = ROOT / "benchmarks" / "peers" / "detect_worker.py"
Image = NDArray[np.uint8]


def lfw_images(data: Path, every: int = 1) -> Iterator[tuple[str, Image]]:
    """Name and (250, 250, 3) RGB pixels of every `every`-th LFW View 1 image."""
    with tarfile.open(data / "lfw_view1" / "images.tar") as archive:
        members = [member for member in archive if member.isfile()]
        for member in members[::every]:
            file = archive.extractfile(member)
            assert file is not None
            yield member.name, decode(file.read())


def decode(content: bytes) -> Image:
    """RGB pixels of an encoded photograph."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def synthetic_images(count: int) -> Iterator[tuple[str, Image]]:
    """250×250 views of scikit-image's portrait, for machines without LFW."""
    from skimage import data

    rng = np.random.default_rng(0)
    portrait: Image = data.astronaut()  # type: ignore[no-untyped-call]
    for i in range(count):
        side = int(rng.integers(200, 340))
        x, y = rng.integers(0, 512 - side, 2) if i % 4 == 0 else (rng.integers(60, 120), rng.integers(0, 30))
        cut = cv2.resize(portrait[y : y + side, x : x + side], (250, 250))
        yield f"portrait-{i}", np.asarray(cut, np.uint8)


def found(data: Path, every: int, workers: int) -> dict[str, Any]:
    """The share of LFW images in which the detector finds a face at its default settings."""
    from rich.progress import track

    from app.pipeline.detect import MtcnnDetector

    detector = MtcnnDetector()
    with ThreadPoolExecutor(workers) as pool:
        images = list(lfw_images(data, every))
        began = time.perf_counter()
        counts = list(
            track(
                pool.map(lambda item: len(detector.detect(item[1])), images),
                total=len(images),
                description="detecting",
            )
        )
        seconds = time.perf_counter() - began
    missed = [name for (name, _), count in zip(images, counts, strict=True) if not count]
    return {
        "images": len(counts),
        "with_a_face": len(counts) - len(missed),
        "found_rate": 1 - len(missed) / len(counts),
        "faces": sum(counts),
        "images_per_second": len(counts) / seconds,
        "missed": missed,
    }


class Contestant:
    """A detector in its own process."""

    def __init__(self, name: str, python: Path, images: Path, threads: int, min_face: int | None) -> None:
        command = [str(python), str(WORKER), name, str(images), str(threads), str(min_face or 0)]
        self._name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=WORKER.parent
        )
        self.version: str = self._answer()["ready"]

    def detect(self, image: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(image, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self._name} ended; its own message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def speed(images: list[tuple[str, Image]], peers: dict[str, Path], threads: int) -> dict[str, Any]:
    """Times, ratios and agreement over `images`; see the module's text."""
    from rich.progress import track

    ours = Path(sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.npz"
        np.savez(file, *[image for _, image in images])
        contestants = {
            "sphereid": Contestant("sphereid", ours, file, threads, None),
            "sphereid_min_face_20": Contestant("sphereid", ours, file, threads, 20),
        }
        for name, python in peers.items():
            contestants[name] = Contestant(name, python, file, threads, 20)
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
        names = list(contestants)
        for i in track(range(len(images)), description="detecting"):
            for name in names[i % len(names) :] + names[: i % len(names)]:
                answers[name].append(contestants[name].detect(i))
        for contestant in contestants.values():
            contestant.close()
    result: dict[str, Any] = {
        "images": len(images),
        "threads": threads,
        "versions": {name: contestant.version for name, contestant in contestants.items()},
    }
    for unit, clock in (("seconds", ""), ("cpu_seconds", "_cpu")):
        times = {name: np.array([answer[unit] for answer in given]) for name, given in answers.items()}
        result[f"median_ms{clock}"] = {n: round(float(np.median(t)) * 1e3, 2) for n, t in times.items()}
        for peer in peers:
            for kind, suffix in (("sphereid", ""), ("sphereid_min_face_20", "_like_for_like")):
                key = f"detector_vs_{peer}{suffix}{clock}"
                result[key] = round(float(np.median(times[peer]) / np.median(times[kind])), 2)
                ratio = np.percentile(times[peer] / times[kind], [10, 90])
                result[f"{key}_p10_p90"] = ratio.round(2).tolist()
    if "facenet_pytorch" in peers:
        result.update(agreement(answers["facenet_pytorch"], answers["sphereid_min_face_20"]))
    return result


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
        "detector_faces_of_ours": sum(len(a["boxes"]) for a in ours),
        "detector_match_rate": round(matched / faces, 4) if faces else None,
        "detector_landmark_distance_px_mean": round(float(np.mean(distances)), 4) if distances else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the shared face data")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    commands = parser.add_subparsers(dest="command", required=True)
    rate = commands.add_parser("found", help="share of LFW images with a face found")
    rate.add_argument("--every", type=int, default=1, help="take every n-th image (default: all 4,992)")
    rate.add_argument("--workers", type=int, default=2, help="images detected side by side")
    race = commands.add_parser("speed", help="time per image against the reference detectors")
    race.add_argument("--images", type=int, default=200, help="how many LFW images")
    race.add_argument("--threads", type=int, default=1, help="threads of each detector")
    race.add_argument("--peers", type=Path, required=True, help="virtual environment with the peers")
    race.add_argument(
        "--tensorflow", type=Path, help="environment with mtcnn, when not the same; `no` to skip"
    )
    arguments = parser.parse_args()
    if arguments.command == "found":
        result = found(arguments.data, arguments.every, arguments.workers)
    else:
        python = arguments.peers / "bin" / "python"
        peers = {"facenet_pytorch": python}
        if str(arguments.tensorflow) != "no":
            peers["mtcnn_tf"] = (arguments.tensorflow or arguments.peers) / "bin" / "python"
        if (arguments.data / "lfw_view1").is_dir():
            images = list(lfw_images(arguments.data, max(1, 4992 // arguments.images)))[: arguments.images]
        else:
            images = list(synthetic_images(arguments.images))
        result = speed(images, {name: path.absolute() for name, path in peers.items()}, arguments.threads)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
