"""True accept rates over more comparisons than fit in memory."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sphereid_training.evaluation.verification import clopper_pearson

FloatArray = NDArray[np.float32]


class Highest:
    """The `keep` + 1 highest of the scores that pass by; nothing else is remembered."""

    def __init__(self, keep: int) -> None:
        self._keep = keep + 1
        self._scores = np.empty(0, np.float32)
        self.count = 0

    def add(self, scores: FloatArray) -> None:
        """(N,) more scores."""
        self.count += len(scores)
        if len(self._scores) == self._keep:
            # Most scores are too low to matter; the sort below then sees few.
            scores = scores[scores > self._scores.min()]
        merged = np.concatenate([self._scores, scores])
        keep = min(len(merged), self._keep)
        self._scores = np.partition(merged, len(merged) - keep)[len(merged) - keep :]

    def threshold(self, keep: int | None = None) -> float:
        """The lowest threshold that at most `keep` (None: as many as were asked for) of all scores reach."""
        allowed = self._keep - 1 if keep is None else keep
        if len(self._scores) <= allowed:
            return float(self._scores.min()) if len(self._scores) else -np.inf
        highest = np.sort(self._scores)[::-1]
        return float(np.nextafter(highest[allowed], np.float32(np.inf)))


@dataclass(frozen=True, slots=True)
class Tpr:
    """TPR at one FAR. interval: 95 %, taking genuine pairs as independent, which those of one identity are
    not: the truth is wider."""

    far: float
    threshold: float
    tpr: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Trillion:
    """rows: one for every FAR that the pairs can show; refused: why not, for the others."""

    rows: tuple[Tpr, ...]
    refused: tuple[str, ...]
    genuine: int
    impostors: int


def trillion(
    faces: FloatArray,
    identity: NDArray[np.int64],
    distractors: Iterable[FloatArray],
    *,
    total: int,
    fars: Sequence[float] = (1e-9, 1e-8, 1e-7, 1e-6),
    block: int = 1024,
) -> Trillion:
    """TPR@FAR as the Trillion Pairs challenge has it, over all pairs, in bounded memory.

    faces: (N, D) unit rows with identities (N,). Every pair of one identity is genuine; every pair of two
    identities and every face with every distractor is an impostor. distractors: blocks of (n, D) unit rows,
    `total` in all. Memory holds a block of scores, all genuine ones, and the far·impostors highest impostor
    scores of the largest FAR. Raises ValueError without a genuine pair, or when other than `total` come.
    """
    _, counts = np.unique(identity, return_counts=True)
    genuine_count = int((counts * (counts - 1) // 2).sum())
    impostors = len(faces) * (len(faces) - 1) // 2 - genuine_count + len(faces) * total
    if not genuine_count:
        raise ValueError("no identity has two faces")
    allowed = {far: int(np.floor(far * impostors + 1e-9)) for far in fars}
    shown = [far for far in fars if allowed[far] >= 1]
    refused = tuple(
        f"FAR {far:g} needs at least {int(np.ceil(1 / far))} impostor pairs, there are {impostors}"
        for far in fars
        if far not in shown
    )
    highest = Highest(max((allowed[far] for far in shown), default=0))
    genuine: list[FloatArray] = []
    for own, others in _pairs_within(faces, identity, block):
        genuine.append(own)
        highest.add(others)
    for part in distractors:
        for start in range(0, len(faces), block):
            highest.add((faces[start : start + block] @ part.T).ravel())
    if highest.count != impostors:
        raise ValueError(f"{total} distractors were announced, another number came")
    scores = np.concatenate(genuine)
    rows = []
    for far in shown:
        threshold = highest.threshold(allowed[far])
        hits = int(np.sum(scores >= threshold))
        rows.append(Tpr(far, threshold, hits / len(scores), clopper_pearson(hits, len(scores))))
    return Trillion(tuple(rows), refused, genuine_count, impostors)


def _pairs_within(
    faces: FloatArray, identity: NDArray[np.int64], block: int
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Genuine and impostor scores of every unordered pair, a block of rows at a time."""
    column = np.arange(len(faces))
    for start in range(0, len(faces), block):
        stop = min(start + block, len(faces))
        scores: NDArray[Any] = faces[start:stop] @ faces[start:].T
        later = column[None, start:] > column[start:stop, None]
        same = identity[start:stop, None] == identity[None, start:]
        yield scores[later & same], scores[later & ~same]
