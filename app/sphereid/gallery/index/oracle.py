"""The plainest index: a dictionary and a full sort. Slow, obviously right, and what tests compare others
with."""

from pathlib import Path

import numpy as np

from sphereid.gallery.index.ports import Keys, Similarities
from sphereid.gallery.types import Vectors


class OracleIndex:
    """`VectorIndex` in NumPy alone."""

    kind = "oracle"
    exact = True
    lossless = True
    worn = False

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._vectors: dict[int, Vectors] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    def keys(self) -> Keys:
        return np.fromiter(self._vectors, dtype=np.int64, count=len(self._vectors))

    def add(self, keys: Keys, vectors: Vectors) -> None:
        for key, vector in zip(keys.tolist(), vectors, strict=True):
            self._vectors[key] = vector.copy()

    def remove(self, keys: Keys) -> int:
        return sum(self._vectors.pop(key, None) is not None for key in keys.tolist())

    def search(self, queries: Vectors, k: int) -> tuple[Similarities, Keys]:
        keys = self.keys()
        if not len(keys):
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        every = np.stack([self._vectors[key] for key in keys.tolist()]).astype(np.float64)
        similarities = queries.astype(np.float64) @ every.T
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(similarities, order, axis=1).astype(np.float32), keys[order]

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, keys=self.keys(), vectors=np.stack(list(self._vectors.values())))
