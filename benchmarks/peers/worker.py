"""One contestant in a process of its own, asked over standard input; so each runs in its own environment.

Started as `python worker.py CONTESTANT IMAGES.npz THREADS MIN_FACE`, MIN_FACE 0 for the contestant's default.
Says `{"ready": …}`, then for every line with the number of an image answers one line of JSON: seconds,
cpu_seconds, and of a detector boxes (x1, y1, x2, y2), landmarks, scores; of a pipeline faces, how many it
found. A pipeline finds all faces and embeds the largest.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Work = Callable[[np.ndarray], dict[str, Any]]


def sphereid(threads: int, min_face: int | None) -> tuple[Work, str]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import onnxruntime
    from sphereid.faces.detect import DetectorConfig, MtcnnDetector

    # Like for like: no second look at images without a face, which the others don't take either.
    detector = MtcnnDetector(DetectorConfig(threads=threads, close_ups=min_face is None))

    def detect(image: np.ndarray) -> dict[str, Any]:
        faces = detector.detect(image, min_face=min_face)
        return {
            "boxes": [face.box_xyxy.tolist() for face in faces],
            "landmarks": [face.landmarks.tolist() for face in faces],
            "scores": [face.score for face in faces],
        }

    return detect, f"onnxruntime {onnxruntime.__version__}"


def facenet_pytorch(threads: int, min_face: int | None) -> tuple[Work, str]:
    import torch
    import torchvision_shim

    vision = torchvision_shim.install()
    from facenet_pytorch.models.mtcnn import MTCNN

    torch.set_num_threads(threads)
    detector = MTCNN(keep_all=True, min_face_size=min_face or 20)

    def detect(image: np.ndarray) -> dict[str, Any]:
        boxes, scores, landmarks = detector.detect(image, landmarks=True)
        if boxes is None:
            return {"boxes": [], "landmarks": [], "scores": []}
        return {"boxes": boxes.tolist(), "landmarks": landmarks.tolist(), "scores": scores.tolist()}

    return detect, f"facenet-pytorch {version('facenet-pytorch')}, torch {torch.__version__}, {vision}"


def mtcnn_tf(threads: int, min_face: int | None) -> tuple[Work, str]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from mtcnn import MTCNN

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    detector = MTCNN(device="CPU:0")
    corners = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")

    def detect(image: np.ndarray) -> dict[str, Any]:
        found = detector.detect_faces(image, box_format="xyxy", min_face_size=min_face or 20) or []
        return {
            "boxes": [[float(v) for v in face["box"]] for face in found],
            "landmarks": [[[float(v) for v in face["keypoints"][c]] for c in corners] for face in found],
            "scores": [float(face["confidence"]) for face in found],
        }

    return detect, f"mtcnn {version('mtcnn')}, tensorflow {tf.__version__}"


def sphereid_pipeline(threads: int, min_face: int | None) -> tuple[Work, str]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from sphereid.faces.pipeline import FacePipeline
    from sphereid.inference.loading import build_engine
    from sphereid.settings import Detection, Settings

    root = Path(__file__).resolve().parents[2]
    settings = Settings(
        data_dir=root / "data",
        models_dir=root / "models",
        threads=threads,
        detection=Detection(threads=threads),
        provider="cpu",
    )
    engine = build_engine(settings)
    pipeline = FacePipeline(engine.detector, engine.embedder)

    def embed(image: np.ndarray) -> dict[str, Any]:
        found = pipeline.analyze(image, min_face=min_face, max_faces=1)
        return {"faces": len(found.faces)}

    return embed, f"model {engine.manifest.name}"


def face_recognition(threads: int, min_face: int | None) -> tuple[Work, str]:
    import dlib
    import face_recognition as library

    def embed(image: np.ndarray) -> dict[str, Any]:
        found = library.face_locations(image)
        largest = sorted(found, key=lambda box: box[2] - box[0])[-1:]
        if largest:
            library.face_encodings(image, largest)
        return {"faces": len(largest)}

    return embed, f"face_recognition {version('face_recognition')}, dlib {dlib.__version__}"


CONTESTANTS = {
    each.__name__: each for each in (sphereid, facenet_pytorch, mtcnn_tf, sphereid_pipeline, face_recognition)
}


def main() -> None:
    name, images, threads, min_face = sys.argv[1:5]
    with np.load(images) as archive:
        pictures = [archive[key] for key in archive.files]
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print; the pipe is for answers
    work, versions = CONTESTANTS[name](int(threads), int(min_face) or None)
    for picture in pictures[:5]:
        work(picture)
    print(json.dumps({"ready": versions}), file=answers, flush=True)
    for line in sys.stdin:
        image = pictures[int(line)]
        began, began_cpu = time.perf_counter(), time.process_time()
        found = work(image)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
        answer = {"seconds": seconds, "cpu_seconds": cpu_seconds, **found}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
