"""What this machine does best with: threads, workers and batch size, measured.

The embedder alone first, for the batch size; then everything but HTTP as the service runs it: threads that
take a picture from its bytes to its embeddings, sharing batches by the micro-batcher, and processes that do.
"""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import cv2
import numpy as np

from sphereid.faces.pipeline import FacePipeline
from sphereid.faces.types import RGBImage
from sphereid.inference.batcher import MicroBatcher
from sphereid.inference.in_process import InProcessAnalyzer
from sphereid.inference.loading import SEATS, Engine, batch_lanes, build_engine, on_gpu
from sphereid.inference.models import Model
from sphereid.inference.types import AnalysisRequest, Analyzer
from sphereid.inference.worker_pool import WorkerPool
from sphereid.settings import Settings

BATCHES = (1, 2, 4, 8, 16, 32)
ALIKE = 0.97
"""What comes this near to the best is as good, within what can be measured; the smaller setting is taken."""


@dataclass(frozen=True, slots=True)
class Batching:
    """The embedder alone. threads: of one batch. faces_per_second: at that batch size."""

    threads: int
    batch: int
    faces_per_second: float


@dataclass(frozen=True, slots=True)
class Trial:
    """The whole pipeline.

    threads: of the embedder. workers: images looked at side by side. median_ms: from an image's arrival to
    its embeddings, with twice as many images under way as there are workers. processes: whether the workers
    are processes, not threads.
    """

    threads: int
    workers: int
    batch: int
    images_per_second: float
    median_ms: float
    processes: bool = False


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured, and the trial to follow."""

    batchings: tuple[Batching, ...]
    trials: tuple[Trial, ...]
    best: Trial

    @property
    def variables(self) -> dict[str, str]:
        """The settings to make, by environment variable."""
        return {
            "SPHEREID_WORKERS": str(self.best.workers if self.best.processes else 0),
            "SPHEREID_THREADS": str(self.best.threads),
            "SPHEREID_QUEUES__IN_FLIGHT": str(self.best.workers),
            "SPHEREID_QUEUES__MAX_BATCH": str(self.best.batch),
        }


def tune(
    settings: Settings,
    files: Sequence[bytes],
    *,
    cores: int,
    seconds: float = 2.0,
    tell: Callable[[str], None] = lambda _: None,
) -> Tuned:
    """Measure on encoded pictures `files`, `seconds` a measurement; `tell` hears what is measured now.

    Raises ModelError as `build_engine` does, ImageError when a file is no picture.
    """
    counts = sorted({1, max(1, cores // 2), cores})
    engines: dict[int, Engine] = {}
    batchings: list[Batching] = []
    queues = settings.queues.model_copy(update={"max_batch": BATCHES[-1]})
    for threads in counts:
        engines[threads] = build_engine(settings.model_copy(update={"threads": threads, "queues": queues}))
        for batch in BATCHES:
            tell(f"embedder: {threads} threads, batches of {batch}")
            rate = _faces_per_second(engines[threads], batch, seconds / len(BATCHES))
            batchings.append(Batching(threads, batch, rate))
    trials, score = [], settings.detection.min_score
    for threads, workers in itertools.product(counts, sorted({*counts, 2 * cores})):
        tell(f"pipeline: embedder on {threads} threads, {workers} workers")
        batch = best_batch([each for each in batchings if each.threads == threads])
        lanes = batch_lanes(settings.model_copy(update={"threads": threads}))
        with MicroBatcher(engines[threads].embedder, lanes=lanes, max_batch=batch) as batcher:
            sight = InProcessAnalyzer(engines[threads].limits)
            rate, median = _run(sight, _model(engines[threads], batcher), files, workers, score, seconds)
        trials.append(Trial(threads, workers, batch, rate, median))
    if cores > 1 and not on_gpu(settings):
        tell(f"pipeline: {cores} processes")
        batch = best_batch([each for each in batchings if each.threads == 1])
        queues = settings.queues.model_copy(update={"max_batch": batch})
        single = settings.model_copy(update={"threads": 1, "queues": queues})
        processes = WorkerPool(single, count=cores, seats=SEATS)
        try:
            processes.wait()
            model = _model(engines[1], MicroBatcher(engines[1].embedder))
            rate, median = _run(processes, model, files, cores, score, seconds)
        finally:
            processes.close()
        trials.append(Trial(1, cores, batch, rate, median, processes=True))
    return Tuned(tuple(batchings), tuple(trials), best_trial(trials))


def best_batch(batchings: Sequence[Batching]) -> int:
    """The smallest batch that is as good as the best: a larger one would only make everybody wait."""
    top = max(each.faces_per_second for each in batchings)
    return min(each.batch for each in batchings if each.faces_per_second >= ALIKE * top)


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The quickest answer among the trials with as good a throughput as the best."""
    top = max(trial.images_per_second for trial in trials)
    good = [trial for trial in trials if trial.images_per_second >= ALIKE * top]
    return min(good, key=lambda trial: (trial.median_ms, trial.threads, trial.workers))


def _faces_per_second(engine: Engine, batch: int, seconds: float) -> float:
    height, width = engine.manifest.input[2:]
    crops = np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)
    engine.embedder.embed(crops)
    began, done = perf_counter(), 0
    while not done or perf_counter() < began + seconds:
        engine.embedder.embed(crops)
        done += batch
    return done / (perf_counter() - began)


def _model(engine: Engine, batcher: MicroBatcher) -> Model:
    shared, alone = (FacePipeline(engine.detector, each) for each in (batcher, engine.embedder))
    return Model(engine.embedder, batcher, shared, alone)


def _run(
    sight: Analyzer, model: Model, files: Sequence[bytes], workers: int, min_score: float, seconds: float
) -> tuple[float, float]:
    """Images per second and the median of their times, in milliseconds."""
    question = AnalysisRequest(embed=True, min_face=None, min_score=min_score, max_faces=256)
    places = threading.Semaphore(2 * workers)
    taken: list[float] = []  # appended to from several threads; that is atomic

    def look(file: bytes, arrived: float) -> None:
        try:
            sight.look(model, file, question, lambda: True)
            taken.append(perf_counter() - arrived)
        finally:
            places.release()

    def run(until: float) -> None:
        pictures = itertools.cycle(files)
        answers = []
        with ThreadPoolExecutor(2 * workers if isinstance(sight, WorkerPool) else workers) as pool:
            while perf_counter() < until:
                places.acquire()
                answers.append(pool.submit(look, next(pictures), perf_counter()))
        for answer in answers:
            answer.result()

    run(perf_counter() + seconds / 4)
    taken.clear()
    began = perf_counter()
    run(began + seconds)
    elapsed = perf_counter() - began
    return len(taken) / elapsed, 1e3 * float(np.median(taken))


def drawn_pictures() -> Iterator[bytes]:
    """JPEG files of drawn faces, one to four a picture, which the detector takes for faces; of nobody."""
    rng = np.random.default_rng(0)
    for across, side in ((1, 250), (1, 320), (1, 400), (2, 500)):
        canvas = np.full((side, side, 3), (150, 160, 170), np.uint8)
        cell = side / across
        for i in range(across * across):
            _draw_face(canvas, (i % across + 0.5) * cell, (i // across + 0.5) * cell, 0.55 * cell)
        noisy = cv2.GaussianBlur(canvas, (0, 0), 1.2) + rng.normal(0, 4, canvas.shape)
        done, file = cv2.imencode(".jpg", noisy.clip(0, 255).astype(np.uint8)[:, :, ::-1])
        assert done
        yield file.tobytes()


def _draw_face(canvas: RGBImage, x: float, y: float, size: float) -> None:
    def ellipse(dx: float, dy: float, a: float, b: float, color: tuple[int, int, int]) -> None:
        center = round(x + dx * size), round(y + dy * size)
        axes = max(1, round(a * size)), max(1, round(b * size))
        cv2.ellipse(canvas, center, axes, 0, 0, 360, color, -1, cv2.LINE_AA)

    ellipse(0, -0.12, 0.47, 0.55, (60, 40, 30))  # hair, neck, face
    ellipse(0, 0.62, 0.2, 0.3, (190, 150, 125))
    ellipse(0, 0, 0.38, 0.5, (205, 165, 140))
    for side in (-1, 1):
        ellipse(side * 0.17, -0.1, 0.09, 0.045, (250, 250, 250))
        ellipse(side * 0.17, -0.1, 0.04, 0.045, (50, 35, 30))
        ellipse(side * 0.17, -0.2, 0.11, 0.02, (70, 45, 35))
        ellipse(side * 0.05, 0.13, 0.03, 0.02, (150, 105, 90))
    ellipse(0, 0.05, 0.035, 0.1, (190, 148, 122))
    ellipse(0, 0.27, 0.14, 0.045, (165, 80, 80))
    ellipse(0, 0.262, 0.14, 0.012, (110, 50, 50))
