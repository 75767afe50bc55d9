"""Losses that sit where nothing is learned, and what helped others there."""

import math
from collections.abc import Sequence

import numpy as np

WINDOW = 200
OVERFLOW = 87.3365
"""−ln of the smallest normal float32: what a softmax that underflows costs."""
_ADVICE = "a larger batch, batch_norm=true, a softmax start, a slower λ or a longer head.warmup help"


def stuck(losses: Sequence[float], classes: int) -> str | None:
    """What is wrong with a head whose last `WINDOW` cross-entropies were these, or None.

    A loss that moves through ln N on its way down is no plateau: both halves must lie there.
    """
    if len(losses) < WINDOW:
        return None
    halves = np.asarray(losses[-WINDOW:]).reshape(2, -1).mean(axis=1)
    if np.abs(halves - OVERFLOW).max() < 0.5:
        return f"the head's loss sits at 87.34 = −ln(smallest float): softmax has overflowed; {_ADVICE}"
    chance = math.log(classes)
    if np.abs(halves - chance).max() < 0.02:
        return f"the head's loss still sits at ln N = {chance:.2f}: nothing is learned; {_ADVICE}"
    return None
