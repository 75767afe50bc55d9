"""From settings to the parts that do the work. The server and the command line build theirs here."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.pipeline.errors import ModelError
from app.pipeline.manifest import MANIFEST_FILE, Manifest, load_manifest
from app.settings import Settings

if TYPE_CHECKING:  # these pull in ONNX Runtime, OpenCV and FAISS; `sphereid --help` needs none of them
    from collections.abc import Callable

    from app.disk import Disk
    from app.gallery.service import GalleryService
    from app.gallery.vault import Vault
    from app.jobs.types import JobHandler
    from app.jobs.video import VideoJobs
    from app.looking.processes import InProcesses
    from app.monitors.runner import MonitorRunner
    from app.pipeline.batcher import BatchReport, MicroBatcher
    from app.pipeline.decode import DecodeLimits
    from app.pipeline.embed import OnnxEmbedder
    from app.pipeline.ports import FaceDetector
    from app.serving import Models
    from app.video.live import Live


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
    """The folders in `models_dir` that hold a manifest, by name."""
    if not models_dir.is_dir():
        return []
    return sorted(folder for folder in models_dir.iterdir() if (folder / MANIFEST_FILE).is_file())


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
    from app.pipeline.embed import OnnxEmbedder

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


def images_at_once(settings: Settings) -> int:
    """Images under way. A worker has the next one at hand when it is done with one, and takes turns between
    the faces of several."""
    return max(settings.queues.in_flight, SEATS * worker_count(settings))


def start_processes(settings: Settings, on_batch: "Callable[[BatchReport], None]") -> "InProcesses | None":
    """The processes that look at pictures, on their way; None where threads of this one do."""
    from app.looking.processes import InProcesses

    count = worker_count(settings)
    return InProcesses(settings, count=count, seats=SEATS, on_batch=on_batch) if count else None


def batch_wait(settings: Settings) -> float:
    """Seconds that a face waits for company. On a processor that would only leave a core without work."""
    if settings.queues.batch_wait_ms is not None:
        return settings.queues.batch_wait_ms / 1e3
    return 0.002 if on_gpu(settings) else 0.0


def build_engine(settings: Settings) -> Engine:
    """Load detector and embedder. Raises ModelError saying what is missing."""
    import cv2

    from app.pipeline.decode import DecodeLimits
    from app.pipeline.detect import DetectorConfig, MtcnnDetector

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


def serving(
    engine: Engine,
    gallery: "GalleryService",
    settings: Settings,
    batched: "Callable[[OnnxEmbedder], MicroBatcher]",
) -> "Models":
    """The models of the galleries: the engine's, and others when a gallery asks for them."""
    from app.serving import Models

    return Models(
        engine.detector,
        engine.embedder,
        contract_of=lambda gallery_id: gallery.get_gallery(gallery_id).contract,
        manifests=lambda: load_manifests(settings),
        load=lambda name: load_embedder(settings, name),
        batched=batched,
    )


def disk_of(settings: Settings) -> "Disk":
    """What opens files that may hold faces: encrypted, where a key is set. Raises StorageError."""
    from app.disk import Disk

    return Disk(vault_of(settings))


def video_jobs(models: "Models", gallery: "GalleryService", disk: "Disk") -> "VideoJobs":
    """What does the service's video jobs: beside the requests, on one core fewer than there are."""
    from app.jobs.video import VideoJobs

    return VideoJobs(models, gallery, disk, workers=max(1, (os.cpu_count() or 2) - 1))


def gallery_jobs(
    models: "Models", gallery: "GalleryService", limits: "DecodeLimits", disk: "Disk"
) -> "dict[str, JobHandler]":
    """What does the jobs on whole galleries, on as many cores as video jobs get."""
    from app.jobs import galleries, imports

    others = galleries.GalleryJobs(gallery, models, disk)
    return {
        imports.KIND: imports.ImportJobs(models, gallery, limits, disk, max(1, (os.cpu_count() or 2) - 1)),
        galleries.EXPORT: others,
        galleries.EVALUATION: others,
        galleries.REEMBED: others,
    }


def live_streams(
    models: "Models", gallery: "GalleryService", limits: "DecodeLimits", settings: Settings
) -> "Live":
    """What opens live streams."""
    from app.video.live import Live

    return Live(models, gallery, limits, settings.detection.min_score)


def monitor_runner(live: "Live", settings: Settings) -> "MonitorRunner":
    """What watches sources in the server's own name."""
    from app.monitors.allowed import Allowed, shown
    from app.monitors.runner import MonitorRunner
    from app.monitors.types import Monitor
    from app.video.watching import Session

    def opener(monitor: Monitor) -> Session:
        source = monitor.name or shown(monitor.source)
        return live.open(
            monitor.gallery, min_face=monitor.min_face, min_score=monitor.min_score, source=source[:300]
        )

    allowed = Allowed(settings.monitors.sources, settings.monitors.webhooks)
    return MonitorRunner(settings.data_dir / "monitors", opener, allowed, most=settings.monitors.most)


def vault_of(settings: Settings) -> "Vault | None":
    """What encrypts at rest; None where no key is set. Raises StorageError where the key is none."""
    from app.gallery.errors import StorageError
    from app.gallery.vault import Vault

    if settings.encryption_key is not None and settings.encryption_key_file is not None:
        raise StorageError("set SPHEREID_ENCRYPTION_KEY or SPHEREID_ENCRYPTION_KEY_FILE, not both")
    if settings.encryption_key_file is not None:
        return Vault.from_file(settings.encryption_key_file)
    if settings.encryption_key is not None:
        return Vault.from_text(settings.encryption_key.get_secret_value())
    return None


def open_gallery(settings: Settings) -> "GalleryService":
    """Open the gallery with the calibrations of all models. The caller holds the data folder's lock."""
    from app.gallery.service import GalleryService
    from app.gallery.types import FpirPolicy, GalleryRules
    from app.serving import impostor_calibration

    manifests = load_manifests(settings)
    by_contract: dict[str | None, Manifest] = {each.contract: each for each in manifests.values()}
    served = settings.model or next(iter(manifests), "")
    if served in manifests:
        by_contract[None] = manifests[served]  # it will enroll into galleries that hold nothing yet
    calibrations = {
        contract: calibration
        for contract, manifest in by_contract.items()
        if (calibration := impostor_calibration(manifest)) is not None
    }
    return GalleryService.open(
        settings.database,
        settings.data_dir,
        calibrations=calibrations,
        default_rules=GalleryRules(policy=FpirPolicy(settings.default_fpir)),
        index=settings.index,
        audit_level=settings.audit,
        vault=vault_of(settings),
    )
