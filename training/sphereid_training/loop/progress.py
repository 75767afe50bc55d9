"""What a run says: a bar on a terminal, plain lines elsewhere, TensorBoard in the run's folder."""

import math
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from sphereid_training.config import Config
from sphereid_training.loop.objective import Losses


class Progress:
    """Reports steps and evaluations. Only process 0 speaks."""

    def __init__(self, folder: Path, config: Config, *, rank: int, step: int) -> None:
        self._config = config
        self._silent = rank != 0
        self._console = Console()
        self._started = self._marked = time.monotonic()
        self._marked_step = step
        self._start_progress: float | None = None
        self._writer = None
        if config.engine.tensorboard and not self._silent:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:5.1f}%"),
            TextColumn("{task.fields[status]}"),
            console=self._console,
            disable=self._silent or not self._console.is_terminal,
        )
        self._task = self._bar.add_task(config.name, total=1.0, status="")

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    def step(
        self, step: int, progress: float, losses: Losses, lr: float, margin_share: float | None = None
    ) -> None:
        """One optimizer step is done; shown every `engine.log_steps`.

        margin_share: how much of the head's margin acts, 0 to 1; None without one.
        """
        if self._start_progress is None:
            self._start_progress = progress
        if self._silent or step % self._config.engine.log_steps:
            return
        now = time.monotonic()
        speed = (step - self._marked_step) * self._config.optimizer.batch_size / max(now - self._marked, 1e-9)
        self._marked, self._marked_step = now, step
        done = progress - self._start_progress
        left = (now - self._started) * (1 - progress) / done if done > 0 else float("nan")
        values = {
            "loss": losses.total.item(),
            "head": losses.head_mean.item(),
            "distill": losses.distill.item(),
            "relation": losses.relation.item(),
        }
        shown = " ".join(f"{name} {value:.3f}" for name, value in values.items() if value)
        if margin_share is not None:
            shown += f" margin {margin_share:.0%}"
        status = f"{shown} · lr {lr:.4f} · {speed:.0f} img/s · {_clock(left)} left"
        self._bar.update(self._task, completed=progress, status=status)
        if not self._console.is_terminal:
            print(f"step {step} · {100 * progress:.2f} % · {status}", flush=True)
        if self._writer is not None:
            if margin_share is not None:
                values["margin_share"] = margin_share
            for name, value in {**values, "lr": lr, "images_per_second": speed}.items():
                self._writer.add_scalar(f"train/{name}", value, step)

    def evaluation(
        self, step: int, values: dict[str, float], angles: tuple[float, float] | None = None
    ) -> None:
        """Held-out results at a step; angles: mean and smallest between class centers, in radians."""
        told = [f"{k} {100 * v:.2f} %" for k, v in values.items()]
        self._console.print(f"step {step} · held-out identities: " + ", ".join(told))
        if angles is not None:
            mean, least = (math.degrees(angle) for angle in angles)
            self._console.print(f"step {step} · class centers: {mean:.1f}° apart, the nearest {least:.1f}°")
            values = {**values, "class_angle_mean_deg": mean, "class_angle_min_deg": least}
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"validation/{name}", value, step)


def _clock(seconds: float) -> str:
    if seconds != seconds:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
