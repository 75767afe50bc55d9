"""MegaFace challenge 1: rank-1 among up to a million distractors, and TAR at a tiny FAR, in bounded
memory."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from sphereid_training.errors import TrainingError
from sphereid_training.evaluation.streaming import Highest

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


@dataclass(frozen=True, slots=True)
class PublishedList:
    """Photographs that a list of MegaFace's kit names, such as `facescrub_features_list.json` (probes) and
    `megaface_features_list.json_1000000_1` (distractors): paths without their suffix, as aligned copies often
    have another one."""

    path: Path
    wanted: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> "PublishedList":
        """Read `{"path": [...], ...}`. Raises TrainingError for anything else."""
        try:
            listed = json.loads(path.read_text(encoding="utf-8"))["path"]
            wanted = frozenset(str(PurePosixPath(name).with_suffix("")) for name in listed)
        except OSError as error:
            raise TrainingError(f"the list {path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{path} is not a list of MegaFace's kit ({{path: [...]}}): {error}"
            ) from None
        return cls(path, wanted)

    def choose(self, names: list[str]) -> list[str]:
        """Those of the names that end in a listed path. Raises TrainingError when there are none."""
        depths = {len(PurePosixPath(name).parts) for name in self.wanted}
        chosen = []
        for name in names:
            parts = PurePosixPath(name).with_suffix("").parts
            if any("/".join(parts[-depth:]) in self.wanted for depth in depths):
                chosen.append(name)
        if not chosen:
            raise TrainingError(f"none of the {len(self.wanted):,} photographs of {self.path.name} is there")
        return chosen


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
