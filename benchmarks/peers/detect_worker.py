"""One detector in a process of its own, asked over standard input; so each runs in its own environment.

Started as `python detect_worker.py DETECTOR IMAGES.npz THREADS MIN_FACE`. Says `{"ready": …}`, then for every
line with the number of an image answers one line of JSON: seconds, cpu_seconds, boxes (x1, y1, x2, y2),
landmarks, scores.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Answer = tuple[list[list[float]], list[list[list[float]]], list[float]]
Detect = Callable[[np.ndarray], Answer]


def sphereid(threads: int, min_face: int | None) -> tuple[Detect, str]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import onnxruntime

    from app.pipeline.detect import DetectorConfig, MtcnnDetector

    # Like for like: no second look at images without a face, which the others don't take either.
    detector = MtcnnDetector(DetectorConfig(threads=threads, close_ups=min_face is None))

    def detect(image: np.ndarray) -> Answer:
        faces = detector.detect(image, min_face=min_face)
        return (
            [face.box_xyxy.tolist() for face in faces],
            [face.landmarks.tolist() for face in faces],
            [face.score for face in faces],
        )

    return detect, f"onnxruntime {onnxruntime.__version__}"


def facenet_pytorch(threads: int, min_face: int | None) -> tuple[Detect, str]:
    import torch
    import torchvision_shim

    vision = torchvision_shim.install()
    from facenet_pytorch.models.mtcnn import MTCNN

    torch.set_num_threads(threads)
    detector = MTCNN(keep_all=True, min_face_size=min_face or 20)

    def detect(image: np.ndarray) -> Answer:
        boxes, scores, landmarks = detector.detect(image, landmarks=True)
        return ([], [], []) if boxes is None else (boxes.tolist(), landmarks.tolist(), scores.tolist())

    return detect, f"torch {torch.__version__}, {vision}"


def mtcnn_tf(threads: int, min_face: int | None) -> tuple[Detect, str]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from mtcnn import MTCNN

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    detector = MTCNN(device="CPU:0")
    corners = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")

    def detect(image: np.ndarray) -> Answer:
        found = detector.detect_faces(image, box_format="xyxy", min_face_size=min_face or 20) or []
        return (
            [[float(v) for v in face["box"]] for face in found],
            [[[float(v) for v in face["keypoints"][c]] for c in corners] for face in found],
            [float(face["confidence"]) for face in found],
        )

    return detect, f"tensorflow {tf.__version__}"


DETECTORS = {"sphereid": sphereid, "facenet_pytorch": facenet_pytorch, "mtcnn_tf": mtcnn_tf}


def main() -> None:
    name, images, threads, min_face = sys.argv[1:5]
    with np.load(images) as archive:
        pictures = [archive[key] for key in archive.files]
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print; the pipe is for answers
    detect, versions = DETECTORS[name](int(threads), int(min_face) or None)
    for picture in pictures[:5]:
        detect(picture)
    print(json.dumps({"ready": versions}), file=answers, flush=True)
    for line in sys.stdin:
        image = pictures[int(line)]
        began, began_cpu = time.perf_counter(), time.process_time()
        boxes, landmarks, scores = detect(image)
        answer = {
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - began_cpu,
            "boxes": boxes,
            "landmarks": landmarks,
            "scores": scores,
        }
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
