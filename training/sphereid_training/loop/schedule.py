"""The learning rate as a function of progress, a number from 0 to 1."""

import math

from sphereid_training.config import OptimizerConfig


def rate(config: OptimizerConfig, progress: float, step: int) -> float:
    """Learning rate at `progress` ∈ [0, 1] and step ≥ 0; the first `warmup` steps ramp it up linearly."""
    progress = min(max(progress, 0.0), 1.0)
    if config.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * progress))
    elif config.schedule == "poly":
        factor = 1 - progress
    else:
        factor = 0.1 ** sum(progress >= milestone for milestone in config.milestones)
    ramp = min(1.0, (step + 1) / config.warmup) if config.warmup > 0 else 1.0
    return config.lr * factor * ramp


def advance(progress: float, config: OptimizerConfig, *, seconds: float, seconds_left: float) -> float:
    """Progress after one more step.

    Without a deadline a step counts batch_size/samples. With one, a step that took `seconds` counts its
    share of the time that was left when it began, so progress reaches 1 at the deadline whatever the
    machine's load.
    """
    if config.deadline_minutes > 0:
        before = seconds_left + seconds
        share = 1.0 if before <= 0 else min(1.0, seconds / before)
        return progress + (1 - progress) * share
    return min(1.0, progress + config.batch_size / config.samples)
