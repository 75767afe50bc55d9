"""Batches for one process, made by a background thread while the network computes."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sphereid.faces.embed import OnnxEmbedder
from torch import Tensor

from sphereid_training.config import Config
from sphereid_training.data.augment import augment, blend, center_view
from sphereid_training.data.sampler import EpochSampler
from sphereid_training.data.store import FaceStore
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation.inputs import view_of


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """pixels: (B, 3, H, W) float32, (p − 127.5)/128. labels: (B,) int64, −1 for no class. teacher: (B, D)
    or None."""

    pixels: Tensor
    labels: Tensor
    teacher: Tensor | None


def to_pixels(faces: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) uint8 RGB to (B, 3, H, W) float32 (p − 127.5)/128, in channels-last memory."""
    return torch.from_numpy(faces).permute(0, 3, 1, 2).to(torch.float32).sub_(127.5).div_(128.0)


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """Every batch is a function of (seed, step, rank), so a resumed run sees what an unbroken one would.

    teacher: describes faces that are not in the store; only blended ones need it.
    """

    store: FaceStore
    labels: NDArray[np.int64]
    sampler: EpochSampler
    config: Config
    rank: int = 0
    world: int = 1
    teacher: OnnxEmbedder | None = None

    def make(self, step: int, cache: dict[int, NDArray[np.int64]]) -> Batch:
        """This process's share of global step `step`."""
        indices = self.sampler.batch(step, cache)
        share = len(indices) // self.world
        indices = indices[self.rank * share : (self.rank + 1) * share]
        rng = np.random.default_rng((self.config.engine.seed, step, self.rank))
        data = self.config.data
        canvases, labels = self.store.images[indices], self.labels[indices]
        targets = None if self.store.teacher is None else self.store.teacher[indices]
        if self.config.augment.p_blend > 0:
            canvases, blended = blend(canvases, self.config.augment.p_blend, rng)
            labels = np.where(blended, -1, labels)
            if targets is not None and blended.any():
                targets[blended] = self._describe(canvases[blended])
        faces = augment(canvases, self.config.augment, data.template, data.input_pool, rng)
        teacher = None if targets is None else torch.from_numpy(targets)
        return Batch(to_pixels(faces), torch.from_numpy(labels), teacher)

    def _describe(self, canvases: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the live teacher sees in canvases that are not in the store, as targets."""
        if self.teacher is None or self.store.centering is None:
            raise TrainingError("augment.p_blend: there is no live teacher to describe blended faces")
        view = center_view(canvases, view_of(self.teacher.manifest))
        return self.store.centering.apply(self.teacher.embed(view))

    def stream(self, first_step: int) -> Iterator[Batch]:
        """Endless batches from `first_step` on. Close the generator to stop the thread behind it."""
        ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=3)
        stop = threading.Event()

        def put(item: Batch | BaseException) -> None:
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.2)
                except queue.Full:
                    continue
                return

        def work() -> None:
            cv2.setNumThreads(1)
            cache: dict[int, NDArray[np.int64]] = {}
            step = first_step
            try:
                while not stop.is_set():
                    put(self.make(step, cache))
                    step += 1
            except Exception as error:
                put(error)

        thread = threading.Thread(target=work, name="batches", daemon=True)
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()
