"""MegaFace challenge 1: rank-1 among up to a million distractors, and TAR at a tiny FAR, in bounded
memory."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.streaming import Highest

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MegaFace:
    """rank1: share of ordered same-identity pairs whose mate beats every distractor.

    tar: share of same-identity pairs at or above `threshold`, the lowest similarity that at most
    far·impostors probe-distractor pairs reach. distractors: how many there were. pairs: ordered
    same-identity pairs.
    """

    rank1: float
    tar: float
    far: float
    threshold: float
    distractors: int
    pairs: int


def megaface(
    probes: FloatArray,
    identity: NDArray[np.int64],
    distractors: Iterable[FloatArray],
    *,
    total: int,
    far: float = 1e-6,
) -> MegaFace:
    """Run the protocol. probes: (P, D) unit rows; identity: (P,). distractors: blocks of (n, D) unit rows,
    `total` rows in all.

    Only the far·total·P + 1 highest scores are kept while blocks pass by. A tie with a distractor is a
    miss. Raises ValueError when far < 1/#impostor pairs, no identity has two probes, or the count is not
    `total`.
    """
    own = identity[:, None] == identity[None, :]
    np.fill_diagonal(own, False)
    if not own.any():
        raise ValueError("no identity has two probes")
    impostors = total * len(probes)
    allowed = int(np.floor(far * impostors + 1e-9))
    if allowed < 1:
        least = int(np.ceil(1 / far))
        raise ValueError(f"FAR {far:g} needs at least {least} impostor pairs, there are {impostors}")
    best = np.full(len(probes), -np.inf, np.float32)
    highest = Highest(allowed)
    for block in distractors:
        scores = probes @ block.T
        np.maximum(best, scores.max(axis=1), out=best)
        highest.add(scores.ravel())
    if highest.count != impostors:
        raise ValueError(f"{total} distractors were announced, {highest.count // len(probes)} came")
    threshold = highest.threshold()
    mates = (probes @ probes.T)[own]
    return MegaFace(
        rank1=float(np.mean(mates > best[np.nonzero(own)[0]])),
        tar=float(np.mean(mates >= threshold)),
        far=far,
        threshold=threshold,
        distractors=total,
        pairs=len(mates),
    )
