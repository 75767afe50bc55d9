"""From settings to detector and models: what an analyzer of pictures, in whatever process, is made of."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sphereid.faces.errors import ModelError
from sphereid.faces.manifest import MANIFEST_FILE, Manifest, load_manifest
from sphereid.faces.published.catalog import PUBLISHED
from sphereid.settings import Settings

if TYPE_CHECKING:
    from sphereid.faces.decode import DecodeLimits
    from sphereid.faces.embed import OnnxEmbedder
    from sphereid.faces.ports import FaceDetector


SEATS = 3
"""Images that one worker has at a time."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What turns pixels into embeddings."""

    detector: "FaceDetector"
    embedder: "OnnxEmbedder"
    limits: "DecodeLimits"

    @property
    def manifest(self) -> Manifest:
        """The model's manifest."""
        return self.embedder.manifest


def model_folders(models_dir: Path) -> list[Path]:
    """The folders in `models_dir` that hold a manifest, by name, those that were installed last: whoever
    installs a model has chosen none yet."""
    if not models_dir.is_dir():
        return []
    found = (folder for folder in models_dir.iterdir() if (folder / MANIFEST_FILE).is_file())
    return sorted(found, key=lambda folder: (folder.name in PUBLISHED, folder.name))


def model_folder(settings: Settings) -> Path:
    """The folder of the model to serve. Raises ModelError where there is none, or not the one asked for."""
    folders = model_folders(settings.models_dir)
    known = ", ".join(folder.name for folder in folders) or "none"
    if settings.model is not None:
        for folder in folders:
            if folder.name == settings.model:
                return folder
        raise ModelError(f"no model {settings.model!r} in {settings.models_dir} (there: {known})")
    if not folders:
        raise ModelError(
            f"no model in {settings.models_dir}: put a folder with model.onnx and manifest.json there, "
            "or name another place with SPHEREID_MODELS_DIR"
        )
    return folders[0]


def load_manifests(settings: Settings) -> dict[str, Manifest]:
    """The manifests of all models by folder name; a folder with a broken manifest is left out."""
    found: dict[str, Manifest] = {}
    for folder in model_folders(settings.models_dir):
        try:
            found[folder.name] = load_manifest(folder)
        except ModelError:
            continue
    return found


def load_embedder(settings: Settings, name: str) -> "OnnxEmbedder":
    """The model in a folder of this name, set up as the service runs it. Raises ModelError."""
    from sphereid.faces.embed import OnnxEmbedder

    return OnnxEmbedder.load(
        settings.models_dir / name,
        providers=settings.provider,
        threads=settings.threads,
        max_batch=batch_size(settings),
        precision=settings.precision,
    )


def on_gpu(settings: Settings) -> bool:
    """Whether the embedder runs on a GPU, as far as can be told before it is loaded."""
    if settings.provider != "auto":
        return settings.provider != "cpu"
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def batch_size(settings: Settings) -> int:
    """Most faces that go through the embedder together.

    A processor gains nothing from more than a few, as soon as they don't fit its cache; they only need more
    memory and make everybody wait. A GPU wants many.
    """
    return settings.queues.max_batch or (32 if on_gpu(settings) else 4)


def batch_lanes(settings: Settings) -> int:
    """Batches that run beside each other: one on a GPU, on a processor as many as have cores."""
    if on_gpu(settings) or not settings.threads:
        return 1
    return max(1, (os.cpu_count() or 1) // settings.threads)


def worker_count(settings: Settings) -> int:
    """Processes that look at pictures; 0 where threads of the service do. A GPU wants batches of many
    requests, and on one core there is nobody to wait for."""
    if settings.workers is not None:
        return settings.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores < 2 or on_gpu(settings) else min(cores, 16)


def batch_wait(settings: Settings) -> float:
    """Seconds that a face waits for company. On a processor that would only leave a core without work."""
    if settings.queues.batch_wait_ms is not None:
        return settings.queues.batch_wait_ms / 1e3
    return 0.002 if on_gpu(settings) else 0.0


def build_engine(settings: Settings) -> Engine:
    """Load detector and embedder. Raises ModelError saying what is missing."""
    import cv2

    from sphereid.faces.decode import DecodeLimits
    from sphereid.faces.detect import DetectorConfig, MtcnnDetector

    # OpenCV's own threads would take the cores from the requests beside this one, most of it with waiting.
    cv2.setNumThreads(settings.detection.threads)
    embedder = load_embedder(settings, model_folder(settings).name)
    detector = MtcnnDetector(
        DetectorConfig(
            min_face=settings.detection.min_face,
            min_face_ratio=settings.detection.min_face_ratio,
            thresholds=(0.6, 0.7, settings.detection.min_score),
            threads=settings.detection.threads,
            cache_dir=settings.data_dir / "cache",
        )
    )
    limits = DecodeLimits(
        max_bytes=settings.limits.image_bytes,
        max_side=settings.limits.image_side,
        max_pixels=settings.limits.image_pixels,
        max_decoded_pixels=settings.limits.decoded_pixels,
    )
    return Engine(detector, embedder, limits)
