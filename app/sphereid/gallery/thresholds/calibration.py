"""From a promise to a threshold: measured impostor similarities and the tail beyond them.

With a per-comparison false match rate m and N independent comparisons, a stranger gets a name with
probability FPIR = 1 - (1 - m)^N (Daugman, How iris recognition works, 2004). A gallery solves that for m and
reads the threshold off the model's impostor quantiles. N counts the enrolled faces, or the identities where
each is searched as one mean. The comparisons of one probe are not independent: a stranger with a common look
resembles many people at once. Where the sizes of such clumps follow a logarithmic series (Fisher, Corbet and
Williams 1943), N comparisons are worth ln(1 + cN) / c independent ones; the model's calibration measures c
(docs/decisions.md). Without it, c is 0 and the true FPIR lies below the promise. Past the last quantile that
enough pairs support, a generalized Pareto tail goes on: exceedances of a high level approach one (Pickands
1975).
"""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sphereid.gallery.errors import InvalidRequestError
from sphereid.gallery.types import CosinePolicy, FpirPolicy, Threshold, ThresholdPolicy

log = logging.getLogger(__name__)

DEFAULT_COSINE = 0.5
"""The threshold of an `fpir` gallery whose model brings no calibration. Strict for the models that we know; a
fixed number can promise nothing, so calibrate the model or set a `cosine` policy."""

UNREACHABLE = 1.01
"""Threshold that no cosine reaches: the promise can't be kept at any similarity."""

MIN_EVENTS = 10
"""Impostor pairs at or above a quantile below which it says too little to count as measured."""

TAIL_DECADES = 2.0
"""How far above the smallest measured rate the tail fit looks, in powers of ten."""

_SHAPE_LIMIT = 0.3


@dataclass(frozen=True, slots=True)
class Tail:
    """Generalized Pareto tail past `similarity`, where the false match rate is `fmr`.

    P(S > s) = fmr * (1 + shape * (s - similarity) / scale)^(-1 / shape); shape 0 is the exponential tail.
    """

    fmr: float
    similarity: float
    shape: float
    scale: float

    def threshold(self, fmr: float) -> float:
        """The similarity exceeded by the share `fmr`, which is at most `self.fmr`."""
        return self.similarity + self.scale * float(_excess(fmr / self.fmr, self.shape))


@dataclass(frozen=True, slots=True, eq=False)
class ImpostorCalibration:
    """Similarities of faces of different people, as quantiles.

    levels: (K,) false match rates in (0, 1], strictly falling. similarities: (K,) cosines; the share
    levels[i] of impostor pairs is at or above similarities[i], which never fall. pairs: impostor pairs behind
    them. clumping: c, at least 0, of the matches of one probe. Quantiles that fewer
    than `MIN_EVENTS` pairs reach are left out; at least two must remain.

    Raises ValueError where the quantiles contradict that.
    """

    levels: NDArray[np.float64]
    similarities: NDArray[np.float64]
    pairs: int
    clumping: float = 0.0

    def __post_init__(self) -> None:
        levels = np.asarray(self.levels, dtype=np.float64)
        similarities = np.asarray(self.similarities, dtype=np.float64)
        if levels.ndim != 1 or levels.shape != similarities.shape:
            raise ValueError("levels and similarities must be two lists of the same length")
        if not (np.all(np.isfinite(levels)) and np.all(np.isfinite(similarities))):
            raise ValueError("levels and similarities must be finite")
        if np.any(levels <= 0) or np.any(levels > 1) or np.any(np.diff(levels) >= 0):
            raise ValueError("levels must lie in (0, 1] and fall from the largest to the smallest")
        if np.any(np.abs(similarities) > 1) or np.any(np.diff(similarities) < 0):
            raise ValueError("similarities must lie in [-1, 1] and never fall as the rate falls")
        if not 0 <= self.clumping < math.inf:
            raise ValueError("clumping must be at least 0")
        supported = levels * self.pairs >= MIN_EVENTS
        if supported.sum() < 2:
            raise ValueError(
                f"a calibration needs two quantiles that at least {MIN_EVENTS} impostor pairs reach; "
                f"{self.pairs} pairs support {int(supported.sum())}"
            )
        levels, similarities = levels[supported], similarities[supported]
        levels.flags.writeable = similarities.flags.writeable = False
        object.__setattr__(self, "levels", levels)
        object.__setattr__(self, "similarities", similarities)

    @property
    def tail(self) -> Tail:
        """What lies beyond the last quantile; fitted when first asked for."""
        return _fit_tail(tuple(self.levels.tolist()), tuple(self.similarities.tolist()))

    @classmethod
    def from_quantiles(
        cls, quantiles: Iterable[tuple[float, float]], pairs: int, clumping: float = 0.0
    ) -> "ImpostorCalibration":
        """From (false match rate, similarity) in any order, as a model's manifest lists them."""
        ordered = np.array(sorted(quantiles, reverse=True), dtype=np.float64).reshape(-1, 2)
        return cls(ordered[:, 0], ordered[:, 1], pairs, clumping)

    @classmethod
    def from_scores(cls, similarities: ArrayLike, per_decade: int = 8) -> "ImpostorCalibration":
        """From the raw impostor similarities, any shape: `per_decade` quantiles for each power of ten of the
        rate, from 0.5 down to the smallest that `MIN_EVENTS` pairs reach."""
        scores = np.asarray(similarities, dtype=np.float64).ravel()
        if scores.size < 4 * MIN_EVENTS:
            raise ValueError(
                f"a calibration needs at least {4 * MIN_EVENTS} impostor pairs, got {scores.size}"
            )
        lowest = math.log10(MIN_EVENTS / scores.size)
        count = max(2, math.ceil((math.log10(0.5) - lowest) * per_decade) + 1)
        events = np.unique(
            np.round(np.logspace(lowest, math.log10(0.5), count) * scores.size).astype(np.int64)
        )
        ranks = scores.size - events
        quantiles = np.partition(scores, ranks)[ranks]
        return cls((events / scores.size)[::-1], quantiles[::-1], scores.size)

    def independent(self, comparisons: int) -> float:
        """How many independent comparisons those of one probe are worth: at most as many as there are."""
        return math.log1p(self.clumping * comparisons) / self.clumping if self.clumping else comparisons

    def threshold(self, fmr: float) -> tuple[float, bool]:
        """The similarity that the share `fmr` of impostor pairs reaches, and whether it is extrapolated.

        Between quantiles: linear in the logarithm of the rate. Rates above the largest measured level get its
        similarity, which is stricter than needed. fmr in (0, 1]; never falls as fmr falls.
        """
        if not 0 < fmr <= 1:
            raise ValueError(f"a false match rate lies in (0, 1], got {fmr}")
        if fmr >= self.levels[-1]:
            at = np.interp(math.log(fmr), np.log(self.levels[::-1]), self.similarities[::-1])
            return float(at), False
        return min(self.tail.threshold(fmr), UNREACHABLE), True


def _excess(survival: ArrayLike, shape: float) -> NDArray[np.float64]:
    """What a generalized Pareto variable of scale 1 exceeds with probability `survival`, in (0, 1].

    (survival^-shape - 1) / shape, and -ln(survival) at shape 0. scipy.stats has it too, for half a second of
    every start.
    """
    logs = np.log(survival)
    return np.asarray(-logs if shape == 0 else np.expm1(-shape * logs) / shape)


@lru_cache(maxsize=64)
def _fit_tail(known_levels: tuple[float, ...], known_similarities: tuple[float, ...]) -> Tail:
    """Least squares of a generalized Pareto quantile function on the last `TAIL_DECADES` of the quantiles.

    The tail starts at the last quantile, so that the curve is continuous; the scale there follows from the
    fit's own start u by threshold stability, scale(s) = scale(u) + shape * (s - u).
    """
    from scipy.optimize import least_squares  # a quarter of the service's start, and seldom needed

    levels, similarities = np.array(known_levels), np.array(known_similarities)
    start = int(np.argmax(levels <= levels[-1] * 10**TAIL_DECADES * (1 + 1e-9)))
    start = min(start, len(levels) - 2)
    p, s = levels[start:] / levels[start], similarities[start:] - similarities[start]
    rise = max(float(s[-1]), 1e-6)
    first = rise / math.log(1 / float(p[-1]))

    def residual(at: NDArray[np.float64]) -> NDArray[np.float64]:
        shape = 0.0 if len(p) < 4 else float(at[1])  # two or three points don't carry a curvature
        return np.asarray(math.exp(at[0]) * _excess(p[1:], shape) - s[1:]) / rise

    fit = least_squares(
        residual,
        x0=[math.log(first), 0.0],
        bounds=([math.log(first) - 7, -_SHAPE_LIMIT], [math.log(first) + 7, _SHAPE_LIMIT]),
    )
    scale, shape = math.exp(fit.x[0]), 0.0 if len(p) < 4 else float(fit.x[1])
    at_end = max(scale + shape * float(s[-1]), 1e-6)
    return Tail(float(levels[-1]), float(similarities[-1]), shape, at_end)


def comparison_rate(target: float, comparisons: float) -> float:
    """m with 1 - (1 - m)^N = target: the false match rate of one comparison that keeps the promise over N.

    target in (0, 1), comparisons >= 1; exact for tiny targets too.
    """
    return -math.expm1(math.log1p(-target) / max(comparisons, 1))


def verification_threshold(calibration: ImpostorCalibration | None, fmr: float) -> Threshold:
    """The limit of a 1:1 comparison at the false match rate `fmr`; `DEFAULT_COSINE` without a calibration."""
    if not 0 < fmr < 1:
        raise InvalidRequestError(f"a false match rate lies between 0 and 1, got {fmr}")
    return gallery_threshold(FpirPolicy(fmr), calibration, 1)


def gallery_threshold(
    policy: ThresholdPolicy, calibration: ImpostorCalibration | None, comparisons: int
) -> Threshold:
    """The limit of a gallery that compares each probe `comparisons` times.

    Without a calibration an `fpir` policy can't be kept: the answer is `DEFAULT_COSINE` and says policy
    "cosine".
    """
    if isinstance(policy, CosinePolicy):
        return Threshold(policy.value, "cosine")
    if calibration is None:
        return Threshold(DEFAULT_COSINE, "cosine")
    value, extrapolated = calibration.threshold(
        comparison_rate(policy.target, calibration.independent(max(comparisons, 1)))
    )
    return Threshold(value, "fpir", policy.target, extrapolated)


def check_policy(policy: ThresholdPolicy) -> None:
    """Raises InvalidRequestError where the policy's number is outside its range."""
    if isinstance(policy, CosinePolicy):
        if not -1 <= policy.value <= 1:
            raise InvalidRequestError(f"a cosine threshold lies in [-1, 1], got {policy.value}")
    elif not 0 < policy.target < 1:
        raise InvalidRequestError(f"an FPIR target lies between 0 and 1 (0.01 is 1 %), got {policy.target}")


def measured_fpir(best_impostor: Sequence[float] | NDArray[np.float64], threshold: float) -> float:
    """Share of non-mated probes whose best similarity reaches `threshold`."""
    return float(np.mean(np.asarray(best_impostor) >= threshold))
