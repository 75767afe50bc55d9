"""Which image comes when: a pure function of the seed and the number of steps done, so resuming is exact."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class EpochSampler:
    """Shuffled epochs over weighted indices.

    indices: (N,) usable images. weights: (N,) how often each is seen per epoch; a fraction is a chance, drawn
    anew every epoch. Every epoch has the same number of batches; the incomplete last one is dropped.
    """

    indices: NDArray[np.int64]
    weights: NDArray[np.float64]
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one epoch."""
        return int(self.weights.sum()) // self.batch_size

    def epoch(self, number: int) -> NDArray[np.int64]:
        """(steps_per_epoch · batch_size,) image indices of one epoch, in order."""
        rng = np.random.default_rng((self.seed, number))
        whole = np.floor(self.weights)
        sure = np.repeat(self.indices, whole.astype(np.int64))
        missing = int(self.weights.sum()) - len(sure)
        fraction = self.weights - whole
        if missing > 0:
            extra = rng.choice(self.indices, missing, replace=False, p=fraction / fraction.sum())
            sure = np.concatenate([sure, extra])
        shuffled: NDArray[np.int64] = rng.permutation(sure)[: self.steps_per_epoch * self.batch_size]
        return shuffled

    def batch(self, step: int, cache: dict[int, NDArray[np.int64]] | None = None) -> NDArray[np.int64]:
        """(batch_size,) image indices of global step number `step`, counted from 0."""
        number, offset = divmod(step, self.steps_per_epoch)
        store = {} if cache is None else cache
        if number not in store:
            store.clear()
            store[number] = self.epoch(number)
        return store[number][offset * self.batch_size : (offset + 1) * self.batch_size]
