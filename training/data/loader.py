"""Batches for one process, made by a background thread while the network computes."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.config import Config
from training.data.augment import augment
from training.data.sampler import EpochSampler
from training.data.store import FaceStore


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
    """Every batch is a function of (seed, step, rank), so a resumed run sees what an unbroken one would."""

    store: FaceStore
    labels: NDArray[np.int64]
    sampler: EpochSampler
    config: Config
    rank: int = 0
    world: int = 1

    def make(self, step: int, cache: dict[int, NDArray[np.int64]]) -> Batch:
        """This process's share of global step `step`."""
        indices = self.sampler.batch(step, cache)
        share = len(indices) // self.world
        indices = indices[self.rank * share : (self.rank + 1) * share]
        rng = np.random.default_rng((self.config.engine.seed, step, self.rank))
        data = self.config.data
        faces = augment(self.store.images[indices], self.config.augment, data.template, data.input_pool, rng)
        teacher = None if self.store.teacher is None else torch.from_numpy(self.store.teacher[indices])
        return Batch(to_pixels(faces), torch.from_numpy(self.labels[indices]), teacher)

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
