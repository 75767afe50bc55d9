"""Whom a model takes for one another: the false match rate within each collection of faces."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_FACES = 50
"""A collection with fewer people is left out: its pairs are too few to say anything."""


@dataclass(frozen=True, slots=True, eq=False)
class Strangers:
    """Faces of different people of one collection.

    similarities: (P,) cosines of all pairs of its `faces`.
    """

    group: str
    faces: int
    similarities: NDArray[np.float32]

    def fmr(self, threshold: float) -> float:
        """The share of pairs at or above `threshold`."""
        return float(np.mean(self.similarities >= threshold))

    def threshold(self, fmr: float) -> float:
        """The similarity that the share `fmr` of pairs reaches, as nearly as their number allows."""
        return float(np.quantile(self.similarities, 1 - fmr))


def pick_faces(
    identity: NDArray[np.int64],
    group: NDArray[np.str_],
    most: int,
    *,
    least: int = LEAST_FACES,
    seed: int = 0,
) -> dict[str, NDArray[np.int64]]:
    """Rows of up to `most` faces of each collection: one of each identity, and those without a label.

    identity: (N,), −1 where unlabeled; group: (N,). A face without a label counts as a person of its own.
    Collections with fewer than `least` are left out.
    """
    order = np.random.default_rng(seed).permutation(len(identity))
    alone = np.where(identity < 0, -1 - np.arange(len(identity)), identity)
    picked = {}
    for name in np.unique(group):
        rows = order[group[order] == name]
        rows = rows[np.unique(alone[rows], return_index=True)[1]]
        if len(rows) >= least:
            # By identity now, so that the first `most` would be those with the lowest numbers.
            picked[str(name)] = np.sort(np.random.default_rng(seed).permutation(rows)[:most])
    return picked


def strangers(group: str, embeddings: NDArray[np.float32]) -> Strangers:
    """All pairs of (N, D) unit embeddings of different people."""
    similarities = embeddings @ embeddings.T
    return Strangers(group, len(embeddings), similarities[np.triu_indices(len(embeddings), 1)])


def curve(scores: Strangers, thresholds: ArrayLike) -> NDArray[np.float64]:
    """The false match rate at each threshold."""
    ordered = np.sort(scores.similarities)
    below: NDArray[np.float64] = np.searchsorted(ordered, thresholds, side="left") / len(ordered)
    return 1 - below
