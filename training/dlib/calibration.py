"""Similarities of different people under dlib's descriptor, for the thresholds of galleries."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.pipeline.manifest import Calibration, Quantile

_PER_DECADE: Final = 4
_MIN_EVENTS: Final = 10


def impostor_calibration(embeddings: NDArray[np.float32], protocol: str) -> Calibration:
    """Quantiles of the cosine over all pairs. embeddings: (N, D) unit rows, each of another identity.

    Four quantiles for each power of ten of the false match rate, from 1 down to what ten pairs reach.
    """
    similarity = (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)]
    pairs = len(similarity)
    decades = np.log10(pairs / _MIN_EVENTS)
    rates = 10.0 ** -np.arange(0, decades + 1e-9, 1 / _PER_DECADE)
    events = np.unique(np.rint(rates * pairs).astype(np.int64))[::-1]
    ascending = np.sort(similarity)
    return Calibration(
        quantiles=tuple(
            Quantile(fmr=count / pairs, similarity=float(np.clip(ascending[pairs - count], -1, 1)))
            for count in events.tolist()
        ),
        pairs=pairs,
        protocol=protocol,
    )
