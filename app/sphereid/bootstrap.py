"""From settings to the parts that do the work. The server and the command line build theirs here."""

import os
from typing import TYPE_CHECKING

from sphereid.faces.manifest import Manifest
from sphereid.inference.loading import SEATS, Engine, load_embedder, load_manifests, worker_count
from sphereid.settings import Settings

if TYPE_CHECKING:  # these pull in ONNX Runtime, OpenCV and FAISS; `sphereid --help` needs none of them
    from collections.abc import Callable

    from sphereid.faces.decode import DecodeLimits
    from sphereid.faces.embed import OnnxEmbedder
    from sphereid.gallery.service import GalleryService
    from sphereid.inference.batcher import BatchReport, MicroBatcher
    from sphereid.inference.worker_pool import WorkerPool
    from sphereid.jobs.types import JobHandler
    from sphereid.jobs.video import VideoJobs
    from sphereid.monitors.runner import MonitorRunner
    from sphereid.recognition.models import Models
    from sphereid.storage.encrypted_files import EncryptedFiles
    from sphereid.storage.vault import Vault
    from sphereid.video.live import Live


def images_at_once(settings: Settings) -> int:
    """Images under way. A worker has the next one at hand when it is done with one, and takes turns between
    the faces of several."""
    return max(settings.queues.in_flight, SEATS * worker_count(settings))


def start_processes(settings: Settings, on_batch: "Callable[[BatchReport], None]") -> "WorkerPool | None":
    """The processes that look at pictures, on their way; None where threads of this one do."""
    from sphereid.inference.worker_pool import WorkerPool

    count = worker_count(settings)
    return WorkerPool(settings, count=count, seats=SEATS, on_batch=on_batch) if count else None


def serving(
    engine: Engine,
    gallery: "GalleryService",
    settings: Settings,
    batched: "Callable[[OnnxEmbedder], MicroBatcher]",
) -> "Models":
    """The models of the galleries: the engine's, and others when a gallery asks for them."""
    from sphereid.recognition.models import Models

    return Models(
        engine.detector,
        engine.embedder,
        contract_of=lambda gallery_id: gallery.get_gallery(gallery_id).contract,
        manifests=lambda: load_manifests(settings),
        load=lambda name: load_embedder(settings, name),
        batched=batched,
    )


def encrypted_files(settings: Settings) -> "EncryptedFiles":
    """What opens files that may hold faces: encrypted, where a key is set. Raises StorageError."""
    from sphereid.storage.encrypted_files import EncryptedFiles

    return EncryptedFiles(vault_of(settings))


def video_jobs(models: "Models", gallery: "GalleryService", files: "EncryptedFiles") -> "VideoJobs":
    """What does the service's video jobs: beside the requests, on one core fewer than there are."""
    from sphereid.jobs.video import VideoJobs

    return VideoJobs(models, gallery, files, workers=max(1, (os.cpu_count() or 2) - 1))


def gallery_jobs(
    models: "Models", gallery: "GalleryService", limits: "DecodeLimits", files: "EncryptedFiles"
) -> "dict[str, JobHandler]":
    """What does the jobs on whole galleries, on as many cores as video jobs get."""
    from sphereid.jobs import galleries, imports

    others = galleries.GalleryJobs(gallery, models, files)
    return {
        imports.KIND: imports.ImportJobs(models, gallery, limits, files, max(1, (os.cpu_count() or 2) - 1)),
        galleries.EXPORT: others,
        galleries.EVALUATION: others,
        galleries.REEMBED: others,
    }


def live_streams(
    models: "Models", gallery: "GalleryService", limits: "DecodeLimits", settings: Settings
) -> "Live":
    """What opens live streams."""
    from sphereid.video.live import Live

    return Live(models, gallery, limits, settings.detection.min_score)


def monitor_runner(live: "Live", settings: Settings) -> "MonitorRunner":
    """What watches sources in the server's own name."""
    from sphereid.monitors.allowed import Allowed, shown
    from sphereid.monitors.runner import MonitorRunner
    from sphereid.monitors.types import Monitor
    from sphereid.video.watch import Session

    def opener(monitor: Monitor) -> Session:
        source = monitor.name or shown(monitor.source)
        return live.open(
            monitor.gallery, min_face=monitor.min_face, min_score=monitor.min_score, source=source[:300]
        )

    allowed = Allowed(settings.monitors.sources, settings.monitors.webhooks)
    return MonitorRunner(settings.data_dir / "monitors", opener, allowed, most=settings.monitors.most)


def vault_of(settings: Settings) -> "Vault | None":
    """What encrypts at rest; None where no key is set. Raises StorageError where the key is none."""
    from sphereid.storage.errors import StorageError
    from sphereid.storage.vault import Vault

    if settings.encryption_key is not None and settings.encryption_key_file is not None:
        raise StorageError("set SPHEREID_ENCRYPTION_KEY or SPHEREID_ENCRYPTION_KEY_FILE, not both")
    if settings.encryption_key_file is not None:
        return Vault.from_file(settings.encryption_key_file)
    if settings.encryption_key is not None:
        return Vault.from_text(settings.encryption_key.get_secret_value())
    return None


def open_gallery(settings: Settings) -> "GalleryService":
    """Open the gallery with the calibrations of all models. The caller holds the data folder's lock."""
    from sphereid.gallery.service import GalleryService
    from sphereid.gallery.types import FpirPolicy, GalleryRules
    from sphereid.recognition.models import impostor_calibration

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
