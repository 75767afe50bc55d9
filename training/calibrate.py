"""How alike strangers look to a model: quantiles of impostor similarities on held-out identities."""

import numpy as np
from numpy.typing import NDArray

from app.pipeline.manifest import Calibration, Quantile

MIN_EVENTS = 5
_LEVELS = tuple(m * 10.0**-e for e in range(1, 9) for m in (5, 2, 1))


def impostor_similarities(
    embeddings: NDArray[np.float32], identity: NDArray[np.int64], *, block: int = 1024
) -> NDArray[np.float32]:
    """Cosines of all pairs of different identities. embeddings: (N, D) unit rows; identity: (N,)."""
    parts = []
    for start in range(0, len(embeddings), block):
        scores = embeddings[start : start + block] @ embeddings.T
        rows = np.arange(start, start + len(scores))[:, None]
        other = (identity[start : start + block, None] != identity[None, :]) & (
            np.arange(len(embeddings)) > rows
        )
        parts.append(scores[other])
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def calibrate(similarities: NDArray[np.float32], protocol: str) -> Calibration:
    """Quantiles at FMR 0.5, 0.2, 0.1, … as far as at least five impostor pairs lie at or above them.

    Raises ValueError with fewer than 50 pairs.
    """
    pairs = len(similarities)
    if pairs < 50:
        raise ValueError(f"{pairs} impostor pairs are too few to calibrate on, 50 are the least")
    descending = np.sort(similarities)[::-1]
    quantiles = []
    for level in _LEVELS:
        count = int(np.floor(level * pairs))
        if count < MIN_EVENTS:
            break
        quantiles.append(Quantile(fmr=count / pairs, similarity=float(np.clip(descending[count - 1], -1, 1))))
    return Calibration(quantiles=tuple(quantiles), pairs=pairs, protocol=protocol)
