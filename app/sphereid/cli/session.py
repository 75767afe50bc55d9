"""The parts of the service on this side of the network: one command, one process, one data folder."""

import getpass
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sphereid.faces.errors import ImageError
from sphereid.settings import Settings

if TYPE_CHECKING:  # loaded when a session opens; `--help` must not wait for them
    from sphereid.faces.decode import DecodedImage
    from sphereid.faces.embed import OnnxEmbedder
    from sphereid.faces.manifest import Manifest
    from sphereid.faces.pipeline import AnalyzedFace, FacePipeline
    from sphereid.gallery.service import GalleryService
    from sphereid.inference.loading import Engine
    from sphereid.recognition.models import Models


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A file after the pipeline. error: why it could not be used; then there is no picture and no face."""

    path: Path
    image: "DecodedImage | None"
    faces: "tuple[AnalyzedFace, ...]"
    error: ImageError | None = None


class Session:
    """Models, and the gallery where it is wanted, loaded once for a command."""

    def __init__(
        self, settings: Settings, engine: "Engine", pipeline: "FacePipeline", stack: ExitStack
    ) -> None:
        self.settings = settings
        self.models: Models | None = None
        self._engine = engine
        self._pipeline = pipeline
        self._stack = stack

    @property
    def manifest(self) -> "Manifest":
        """Of the model in use."""
        return self._engine.manifest

    @property
    def engine(self) -> "Engine":
        """Detector, model and limits."""
        return self._engine

    @property
    def pipeline(self) -> "FacePipeline":
        """Detector and embedder."""
        return self._pipeline

    def galleries(self) -> "GalleryService":
        """All galleries, closed with the session. Raises StorageError when a server is using them."""
        return self._stack.enter_context(gallery(self.settings))

    def gallery(self, gallery_id: str, galleries: "GalleryService | None" = None) -> "GalleryService":
        """The galleries, with the model that one of them was enrolled with from here on. Raises StorageError,
        NotFoundError, and ContractMismatchError where the models folder lacks that model."""
        from sphereid.bootstrap import serving
        from sphereid.inference.batcher import MicroBatcher
        from sphereid.inference.loading import batch_lanes

        def batched(embedder: "OnnxEmbedder") -> MicroBatcher:
            return MicroBatcher(embedder, lanes=batch_lanes(self.settings))

        service = galleries or self.galleries()
        self.models = models = serving(self._engine, service, self.settings, batched)
        self._stack.callback(models.close)
        model = models.of(gallery_id)
        self._engine, self._pipeline = replace(self._engine, embedder=model.embedder), model.shared
        return service

    def read(
        self,
        paths: Iterable[Path],
        *,
        embed: bool = True,
        min_score: float | None = None,
        min_face: int | None = None,
    ) -> Iterator[Read]:
        """Every file through the pipeline, in the order of `paths`, a few at a time."""
        from sphereid.faces.decode import decode

        score = self.settings.detection.min_score if min_score is None else min_score

        def work(path: Path) -> Read:
            try:
                image = decode(_bytes(path, self.settings.limits.image_bytes), self._engine.limits)
            except ImageError as error:
                return Read(path, None, (), error)
            analysis = self._pipeline.analyze(
                image,
                embed=embed,
                min_face=min_face,
                min_score=score,
                max_faces=self.settings.limits.faces_per_image,
            )
            return Read(path, image, analysis.faces)

        workers = self.settings.queues.in_flight
        with ThreadPoolExecutor(workers) as pool:
            ahead: deque[Future[Read]] = deque()
            for path in paths:
                ahead.append(pool.submit(work, path))
                if len(ahead) > 2 * workers:  # a folder of photographs must not fill the memory
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()


def _bytes(path: Path, limit: int) -> bytes:
    """A file's bytes; one byte too many is enough to have it refused."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise ImageError("image_broken", f"the file cannot be read: {error.strerror}") from error


@contextmanager
def session(settings: Settings | None = None) -> Iterator[Session]:
    """Load the detector and the model. Raises ModelError."""
    from sphereid.faces.pipeline import FacePipeline
    from sphereid.inference.batcher import MicroBatcher
    from sphereid.inference.loading import batch_lanes, build_engine

    settings = settings or Settings()
    with ExitStack() as stack:
        engine = build_engine(settings)
        batcher = stack.enter_context(MicroBatcher(engine.embedder, lanes=batch_lanes(settings)))
        yield Session(settings, engine, FacePipeline(engine.detector, batcher), stack)


def actor() -> str:
    """Who is at the terminal, for the audit log; a container may run under a number that has no name."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError, ImportError):
        return f"cli:{os.getuid()}"


@contextmanager
def gallery(settings: Settings | None = None) -> Iterator["GalleryService"]:
    """The gallery alone. Raises StorageError when a server is using it."""
    from sphereid.bootstrap import open_gallery
    from sphereid.gallery.audit import acting

    service = open_gallery(settings or Settings())
    try:
        with acting(actor()):
            yield service
    finally:
        service.close()
