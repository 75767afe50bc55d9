"""Open-set identification: strangers among the probes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

FPIRS: Final = (0.1, 0.01, 0.001)


@dataclass(frozen=True, slots=True)
class OpenSet:
    """Scores of one gallery.

    mated: (M,) similarity of each mated probe's mate where it stood at rank 1, −inf where it did not.
    non_mated: (K,) highest similarity of each probe whose identity is not enrolled.
    """

    mated: FloatArray
    non_mated: FloatArray

    def fpir(self, threshold: float) -> float:
        """Share of non-mated probes that get a name: highest similarity ≥ threshold."""
        return float(np.mean(self.non_mated >= threshold))

    def tpir(self, threshold: float) -> float:
        """Share of mated probes that get the right name: mate at rank 1 and ≥ threshold."""
        return float(np.mean(self.mated >= threshold))

    def fnir_at(self, fpir: float) -> tuple[float, float]:
        """Lowest FNIR = 1 − TPIR whose FPIR is at most `fpir`, and its threshold.

        Raises ValueError when fpir < 1/#non-mated: that few probes can't show it.
        """
        descending = np.sort(self.non_mated)[::-1]
        allowed = int(np.floor(fpir * len(descending) + 1e-9))
        if allowed < 1:
            raise ValueError(
                f"FPIR {fpir:g} needs at least {int(np.ceil(1 / fpir))} non-mated probes, "
                f"there are {len(descending)}"
            )
        if allowed >= len(descending):
            threshold = -np.inf
        else:
            threshold = float(np.nextafter(descending[allowed], np.inf))
        return 1 - self.tpir(threshold), threshold


def search(
    gallery: FloatArray,
    gallery_identity: NDArray[np.int64],
    probes: FloatArray,
    probe_identity: NDArray[np.int64],
) -> OpenSet:
    """Compare unit-length probes (P, D) with a gallery (G, D). A tie for rank 1 with a stranger is a miss."""
    scores = probes @ gallery.T
    own = probe_identity[:, None] == gallery_identity[None, :]
    mated = own.any(axis=1)
    best_own = np.where(own, scores, -np.inf).max(axis=1)
    best_other = np.where(own, -np.inf, scores).max(axis=1)
    hit = np.where(best_own > best_other, best_own, -np.inf)
    return OpenSet(hit[mated], scores.max(axis=1)[~mated])


def open_set_searches(
    embeddings: NDArray[np.float32],
    identity: NDArray[np.int64],
    *,
    enrolled: int,
    trials: int,
    seed: int = 0,
    gallery: NDArray[np.float32] | None = None,
) -> list[OpenSet]:
    """Searches in random galleries of one image of each of `enrolled` people.

    Their other images are mated probes, all images of other people non-mated ones. gallery: embeddings of the
    same images that are enrolled instead of `embeddings`. Raises ValueError when there are too few people.
    """
    rng = np.random.default_rng(seed)
    values, counts = np.unique(identity, return_counts=True)
    several = values[counts >= 2]
    if len(several) < enrolled or len(values) <= enrolled:
        raise ValueError(f"{enrolled} identities can't be enrolled: {len(several)} have two images or more")
    found = []
    for _ in range(trials):
        chosen = rng.choice(several, enrolled, replace=False)
        rows = np.array([rng.choice(np.flatnonzero(identity == person)) for person in chosen])
        probe = np.ones(len(identity), bool)
        probe[rows] = False
        found.append(
            search(
                (embeddings if gallery is None else gallery)[rows].astype(np.float64),
                identity[rows],
                embeddings[probe].astype(np.float64),
                identity[probe],
            )
        )
    return found


def summarize(searches: list[OpenSet], fpirs: tuple[float, ...]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Mean and standard deviation over galleries of FNIR at each FPIR and of rank-1 identification.

    An FPIR that the probes of any gallery are too few for is left out; the second value says which and why.
    """
    fnir: dict[str, dict[str, float]] = {}
    refused = []
    for level in fpirs:
        try:
            rates, thresholds = zip(*(each.fnir_at(level) for each in searches), strict=True)
        except ValueError as error:
            refused.append(str(error))
            continue
        fnir[f"{level:g}"] = {**_spread(rates), "threshold": float(np.mean(thresholds))}
    rank1 = _spread([float(np.mean(np.isfinite(each.mated))) for each in searches])
    return {"fnir_at_fpir": fnir, "rank1": rank1, "refused": refused}, tuple(refused)


def _spread(values: Sequence[float]) -> dict[str, float]:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "std": std}
