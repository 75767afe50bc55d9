"""Figures from repeated, interleaved measurements."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def median(values: Sequence[float], digits: int = 3) -> float:
    """The median, rounded."""
    return round(float(np.median(values)), digits)


def ratio(key: str, theirs: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """`key`: median of `theirs` over median of `ours`; `key_p10_p90`: spread of the ratios turn by turn.

    Both hold one figure a turn (seconds, or for throughputs: ours first), taken side by side, so whatever
    else the machine did in that turn met both.
    """
    each = np.asarray(theirs, float) / np.asarray(ours, float)
    low, high = np.percentile(each, [10, 90])
    return {
        key: round(float(np.median(theirs) / np.median(ours)), 2),
        f"{key}_p10_p90": [round(float(low), 2), round(float(high), 2)],
    }


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of values over sizes in logarithms, over the last three: 1 is linear growth."""
    return round(float(np.polyfit(np.log(sizes[-3:]), np.log(values[-3:]), 1)[0]), 2)
