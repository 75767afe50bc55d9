"""How embeddings lie on the sphere: angular Fisher score, alignment, uniformity."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def _unit(x: FloatArray) -> FloatArray:
    lengths: FloatArray = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.maximum(lengths, 1e-12)


def angular_fisher_score(features: FloatArray, identity: NDArray[np.int64]) -> float:
    """S_w / S_b of Liu et al. (SphereFace, CVPR 2017), lower is better.

    S_w = Σ_i Σ_{x∈X_i} (1 − cos⟨x, m_i⟩), S_b = Σ_i n_i (1 − cos⟨m_i, m⟩), m_i the mean of class i, m that
    of all. features: (N, D), not normalized first: a class mean weighs long features more. Raises
    ValueError for fewer than two classes.
    """
    classes = np.unique(identity)
    if len(classes) < 2:
        raise ValueError("the angular Fisher score compares classes; there is only one")
    overall = _unit(features.mean(axis=0))
    within = between = 0.0
    for value in classes:
        members = features[identity == value]
        mean = _unit(members.mean(axis=0))
        within += float((1 - _unit(members) @ mean).sum())
        between += len(members) * float(1 - mean @ overall)
    return within / between


def alignment(features: FloatArray, identity: NDArray[np.int64], power: float = 2.0) -> float:
    """Mean of ‖x − y‖^power over all pairs of one identity, of unit features (Wang and Isola, ICML 2020)."""
    x = _unit(features)
    total, count = 0.0, 0
    for value in np.unique(identity):
        members = x[identity == value]
        upper = np.triu_indices(len(members), 1)
        square = np.clip(2 - 2 * (members @ members.T)[upper], 0, None)
        total += float((square ** (power / 2)).sum())
        count += len(square)
    if count == 0:
        raise ValueError("alignment needs an identity with two images")
    return total / count


def uniformity(features: FloatArray, t: float = 2.0, block: int = 1024) -> float:
    """log of the mean of exp(−t ‖x − y‖²) over all pairs of unit features; lower is more uniform."""
    x = _unit(features)
    if len(x) < 2:
        raise ValueError("uniformity needs two features")
    total = 0.0
    for start in range(0, len(x), block):
        part = x[start : start + block]
        kernel = np.exp(-t * np.clip(2 - 2 * part @ x.T, 0, None))
        later = np.arange(len(x))[None, :] > np.arange(start, start + len(part))[:, None]
        total += float(kernel[later].sum())
    return float(np.log(total / (len(x) * (len(x) - 1) / 2)))
