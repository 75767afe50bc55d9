"""How alike strangers look to a model: quantiles of impostor similarities on held-out identities.

Every pair of people counts the same, however many photographs there are of them: otherwise the few people
with hundreds would decide the threshold, and a promise made for strangers would be kept for those few only.
"""

import numpy as np
from numpy.typing import NDArray
from sphereid.faces.manifest import Calibration, Quantile

MIN_EVENTS = 5
_LEVELS = tuple(m * 10.0**-e for e in range(1, 9) for m in (5, 2, 1))


def impostor_similarities(
    embeddings: NDArray[np.float32], identity: NDArray[np.int64], *, block: int = 1024
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines of all pairs of different identities, and their weights.

    embeddings: (N, D) unit rows; identity: (N,). Returns (P,) cosines and (P,) weights 1/(nᵢ·nⱼ), with n the
    images of an identity, so that the weights of each two identities sum to 1.
    """
    _, member, count = np.unique(identity, return_inverse=True, return_counts=True)
    share = (1 / count[member]).astype(np.float32)
    similarities, weights = [np.empty(0, np.float32)], [np.empty(0, np.float32)]
    for start in range(0, len(embeddings), block):
        stop = min(start + block, len(embeddings))
        scores = embeddings[start:stop] @ embeddings.T
        rows = np.arange(start, stop)[:, None]
        other = (identity[start:stop, None] != identity[None, :]) & (np.arange(len(embeddings)) > rows)
        similarities.append(scores[other])
        weights.append((share[start:stop, None] * share[None, :])[other])
    return np.concatenate(similarities), np.concatenate(weights)


def clumping(embeddings: NDArray[np.float32], identity: NDArray[np.int64]) -> float:
    """How much the matches of one stranger come together: c of `thresholds.calibration` in the gallery,
    at least 0.

    embeddings: (N, D) unit rows; identity: (N,). One face of each person is searched among all others. Where
    the share p of them has a match and the share m of all pairs matches, c solves
    -ln(1 - p) / m = ln(1 + cn) / c for n comparisons a search. The median over p of 30, 10 and 3 %; 0 with
    fewer than 100 people, who say too little.
    """
    order = np.random.default_rng(0).permutation(len(identity))
    faces = embeddings[order[np.unique(identity[order], return_index=True)[1]]]
    if len(faces) < 100:
        return 0.0
    scores = faces @ faces.T
    np.fill_diagonal(scores, -np.inf)
    nearest, others = scores.max(axis=1), len(faces) - 1
    found = []
    for share in (0.3, 0.1, 0.03):
        limit = np.quantile(nearest, 1 - share)
        matching = float(np.mean(nearest >= limit))
        worth = -np.log1p(-matching) / (np.sum(scores >= limit) / (len(faces) * others))
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if np.log1p(middle * others) / middle > worth else (low, middle)
        found.append(low)
    return float(np.median(found))


def calibrate(
    similarities: NDArray[np.float32],
    weights: NDArray[np.float32],
    protocol: str,
    clumping: float = 0.0,
) -> Calibration:
    """Quantiles at FMR 0.5, 0.2, 0.1, … of weighted impostor similarities, (P,) each.

    A level is left out where fewer than five of the effective pairs, (Σw)²/Σw², lie at or above it.
    Raises ValueError with fewer than 50 pairs.
    """
    pairs = len(similarities)
    if pairs < 50:
        raise ValueError(f"{pairs} impostor pairs are too few to calibrate on, 50 are the least")
    order = np.argsort(-similarities, kind="stable")
    descending = similarities[order]
    above = np.cumsum(weights[order], dtype=np.float64)
    effective = above[-1] ** 2 / np.sum(np.square(weights, dtype=np.float64))
    above /= above[-1]
    quantiles = []
    for level in _LEVELS:
        last = int(np.searchsorted(above, level * (1 + 1e-9), side="right")) - 1
        if last < MIN_EVENTS - 1 or above[last] * effective < MIN_EVENTS:
            break
        value = float(np.clip(descending[last], -1, 1))
        quantiles.append(Quantile(fmr=float(above[last]), similarity=value))
    return Calibration(quantiles=tuple(quantiles), pairs=pairs, protocol=protocol, clumping=clumping)
