"""Whom a model takes for one another: the false match rate within each collection of faces."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.console import Console

from sphereid_training.data.store import FaceStore
from sphereid_training.evaluation.inputs import embed_faces
from sphereid_training.export.calibration import impostor_similarities

FloatArray = NDArray[np.float32]

LEAST_FACES = 50
"""A collection with fewer people is left out: its pairs are too few to say anything."""


@dataclass(frozen=True, slots=True, eq=False)
class Strangers:
    """Faces of different people of one collection.

    similarities: (P,) cosines of all pairs of its `faces`, rising.
    """

    group: str
    faces: int
    similarities: FloatArray

    @classmethod
    def of(cls, group: str, embeddings: FloatArray) -> "Strangers":
        """All pairs of (N, D) unit embeddings, each of another person."""
        similarities, _ = impostor_similarities(embeddings, np.arange(len(embeddings)))
        return cls(group, len(embeddings), np.sort(similarities))

    def fmr(self, threshold: ArrayLike) -> NDArray[np.float64]:
        """The share of pairs at or above each threshold, in its shape."""
        return 1 - np.searchsorted(self.similarities, threshold) / len(self.similarities)

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


def embed_people(
    embed: Callable[[NDArray[np.uint8]], FloatArray],
    view: str,
    store: FaceStore,
    rows: NDArray[np.int64],
    most: int,
    *,
    least: int = LEAST_FACES,
    what: str,
    console: Console,
) -> dict[str, FloatArray]:
    """Unit embeddings, (N, D), of people of each collection, as `pick_faces` picks them among `rows`."""
    picked = pick_faces(store.identity[rows], store.group[rows], most, least=least)
    if not picked:
        return {}
    chosen = rows[np.concatenate(list(picked.values()))]
    features = embed_faces(embed, view, store, chosen, what=what, console=console)
    ends = np.cumsum([len(part) for part in picked.values()])
    return dict(zip(picked, np.split(features, ends[:-1]), strict=True))
