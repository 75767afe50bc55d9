"""Pair verification: accuracy by k folds, and the true accept rate at a false accept rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
_Float = TypeVar("_Float", bound=np.floating[Any])


@dataclass(frozen=True, slots=True)
class FoldResult:
    """Accuracy per fold in [0, 1] and the thresholds (cosines) that were used."""

    accuracies: tuple[float, ...]
    thresholds: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Mean over folds."""
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float:
        """Sample standard deviation over folds; 0 for a single fold."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else 0.0

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over folds, as LFW results are reported."""
        return self.std / float(np.sqrt(len(self.accuracies)))


def best_threshold(similarity: FloatArray, same: BoolArray, grid: FloatArray | None = None) -> float:
    """The mean of all thresholds on the grid −1…1 (step 1e-4) with the highest accuracy.

    Pairs strictly above count as same, strictly below as different (the reference LFW evaluation).
    """
    grid = np.arange(-10000, 10001) / 10000 if grid is None else grid
    genuine, impostor = np.sort(similarity[same]), np.sort(similarity[~same])
    right = len(genuine) - np.searchsorted(genuine, grid, side="right")
    right = right + np.searchsorted(impostor, grid, side="left")
    return float(grid[right == right.max()].mean())


def accuracy_at(similarity: FloatArray, same: BoolArray, threshold: float) -> float:
    """Share of pairs on their right side of the threshold; a tie with it is an error."""
    right = np.sum(similarity[same] > threshold) + np.sum(similarity[~same] < threshold)
    return float(right / len(same))


def k_fold(similarity: FloatArray, same: BoolArray, fold: NDArray[np.int64]) -> FoldResult:
    """Accuracy of every fold at the threshold that is best on the others. fold: (N,) fold numbers."""
    accuracies, thresholds = [], []
    for number in np.unique(fold):
        test = fold == number
        threshold = best_threshold(similarity[~test], same[~test])
        thresholds.append(threshold)
        accuracies.append(accuracy_at(similarity[test], same[test], threshold))
    return FoldResult(tuple(accuracies), tuple(thresholds))


def tar_at_far(similarity: NDArray[np.floating[Any]], same: BoolArray, far: float) -> tuple[float, float]:
    """True accept rate and threshold at a false accept rate of at most `far`; accept means similarity ≥
    threshold.

    The threshold is the lowest similarity at which no more than far·#impostors impostors are accepted.
    Raises ValueError when far < 1/#impostors, which this many pairs can't measure.
    """
    impostor = np.sort(similarity[~same])[::-1]
    allowed = int(np.floor(far * len(impostor) + 1e-9))
    if allowed < 1:
        raise ValueError(
            f"FAR {far:g} needs at least {int(np.ceil(1 / far))} impostor pairs, there are {len(impostor)}"
        )
    if allowed >= len(impostor):
        return 1.0, float(similarity.min())
    limit = impostor[allowed]
    above = similarity[similarity > limit]
    threshold = float(above.min()) if len(above) else float(np.nextafter(limit, np.inf))
    return float(np.mean(similarity[same] >= threshold)), threshold


def clopper_pearson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Exact confidence interval of a rate, such as a TAR over so many genuine pairs (Clopper and Pearson,
    1934)."""
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(beta.ppf(1 - tail, successes + 1, trials - successes))
    return low, high


def intervals(
    successes: NDArray[np.int64], trials: int, level: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """`clopper_pearson` for many counts of successes at once."""
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = np.nan_to_num(beta.ppf(tail, successes, trials - successes + 1), nan=0.0)
    high = np.nan_to_num(beta.ppf(1 - tail, successes + 1, trials - successes), nan=1.0)
    return low, high


@dataclass(frozen=True, slots=True)
class TarAtFar:
    """One row of a threshold table.

    far: as asked. measured_far: share of impostors at or above the threshold. interval: 95 %, of the TAR.
    """

    far: float
    threshold: float
    measured_far: float
    tar: float
    interval: tuple[float, float]


def tar_table(
    similarity: NDArray[np.floating[Any]], same: BoolArray, fars: Sequence[float]
) -> tuple[tuple[TarAtFar, ...], tuple[str, ...]]:
    """TAR at every FAR that the pairs can show, and for the others why they can't."""
    entries, refused = [], []
    genuine, impostor = similarity[same], similarity[~same]
    for far in fars:
        try:
            tar, threshold = tar_at_far(similarity, same, far)
        except ValueError as error:
            refused.append(str(error))
            continue
        accepted = int(np.sum(genuine >= threshold))
        measured = float(np.mean(impostor >= threshold))
        entries.append(TarAtFar(far, threshold, measured, tar, clopper_pearson(accepted, len(genuine))))
    return tuple(entries), tuple(refused)


def template_features(frames: FloatArray, template: NDArray[np.int64]) -> FloatArray:
    """(T, D) unit templates from (N, D) frame features: the mean per template number 0…T−1, as for YTF
    videos.

    Raises ValueError when a number in between has no frame.
    """
    counts = np.bincount(template)
    if (counts == 0).any():
        raise ValueError(f"template {int(np.flatnonzero(counts == 0)[0])} has no frames")
    sums = np.zeros((len(counts), frames.shape[1]))
    np.add.at(sums, template, frames)
    means: FloatArray = sums / counts[:, None]
    lengths: FloatArray = np.linalg.norm(means, axis=1, keepdims=True)
    return means / np.maximum(lengths, 1e-12)


def concatenated(parts: Sequence[NDArray[_Float]]) -> NDArray[_Float]:
    """(N, ΣD) features of several models side by side, the paper's multi-patch ensemble: plain, without
    PCA. With unit features, the cosine of two such rows is the mean of the models' cosines."""
    if len({len(part) for part in parts}) != 1:
        raise ValueError(f"models gave different numbers of features: {[len(part) for part in parts]}")
    return np.concatenate(parts, axis=1)
