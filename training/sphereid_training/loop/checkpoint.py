"""Checkpoints: everything a run needs to go on exactly where it stood, written so that a stop can't spoil
them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sphereid_training.config import Config, from_dict, to_dict
from sphereid_training.errors import TrainingError

FORMAT = 1
_MAY_CHANGE = {
    "optimizer": ("samples", "deadline_minutes"),
    "engine": (
        "threads",
        "checkpoint_seconds",
        "evaluate_seconds",
        "log_steps",
        "tensorboard",
        "plateau_steps",
    ),
}


@dataclass(slots=True)
class State:
    """A run between two steps. step counts optimizer steps; progress ∈ [0, 1] drives the learning rate."""

    config: Config
    classes: int
    teacher_size: int
    step: int
    samples: int
    progress: float
    seconds: float
    objective: dict[str, Any]
    ema: dict[str, Any]
    optimizer: dict[str, Any]
    rng: torch.Tensor


def save(path: Path, state: State) -> None:
    """Write beside `path`, flush to disk, then rename over it: `path` is always a whole checkpoint.

    Raises TrainingError when it can't be written (full disk, no permission); the previous one stays.
    """
    temporary = path.with_suffix(".tmp")
    payload = {
        "format": FORMAT,
        "config": to_dict(state.config),
        **{name: getattr(state, name) for name in State.__slots__ if name != "config"},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(payload, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        kept = f"the last good checkpoint is still at {path}" if path.exists() else "there is none yet"
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise TrainingError(
            f"could not write the checkpoint: {reason}; free some space and resume ({kept})"
        ) from None


def load(path: Path) -> State:
    """Read a checkpoint. Raises TrainingError when it is absent or not one of ours; runs no code from it."""
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(f"no checkpoint at {path}") from None
    except Exception as error:
        raise TrainingError(f"{path} is not a readable checkpoint: {str(error).splitlines()[0]}") from None
    if not isinstance(payload, dict) or payload.pop("format", None) != FORMAT:
        raise TrainingError(f"{path} is not a checkpoint of this version")
    return State(config=from_dict(payload.pop("config")), **payload)


def check_same_run(old: Config, new: Config) -> None:
    """Refuse to resume under settings that would make it another run.

    The sample budget, the deadline and how often things are written may change.
    """
    before, after = to_dict(old), to_dict(new)
    for section, keys in _MAY_CHANGE.items():
        for key in keys:
            before[section].pop(key), after[section].pop(key)
    for values in (before, after):
        values.pop("init_from")
        values.pop("name")
        values["data"].pop("store")
    changed = [
        f"{section}.{key}" if isinstance(value, dict) else section
        for section, value in before.items()
        for key in (value if isinstance(value, dict) else [section])
        if (value[key] if isinstance(value, dict) else value)
        != (after[section][key] if isinstance(value, dict) else after[section])
    ]
    if changed:
        raise TrainingError(
            f"{', '.join(changed)} differ from the checkpoint's; resume with the same recipe, or start a "
            "new run with init_from=CHECKPOINT"
        )
