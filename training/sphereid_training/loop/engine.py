"""The training loop. Reads top to bottom: set up, step, log, evaluate, checkpoint, stop."""

import copy
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sphereid_training.config import Config, to_dict
from sphereid_training.data.loader import Batch, Batches
from sphereid_training.data.sampler import EpochSampler
from sphereid_training.data.store import FaceStore, class_labels, held_out, open_store
from sphereid_training.data.teacher import load_live_teacher
from sphereid_training.errors import TrainingError
from sphereid_training.evaluation.validation import Validation, make_validation
from sphereid_training.heads.classifier import MarginHead, SoftmaxHead
from sphereid_training.heads.energy import class_angles
from sphereid_training.loop import checkpoint, distributed, plateau
from sphereid_training.loop.muon import MuonAdamW
from sphereid_training.loop.objective import Losses, Objective
from sphereid_training.loop.progress import Progress
from sphereid_training.loop.schedule import advance, rate


@dataclass(slots=True)
class Run:
    """A run in flight."""

    config: Config
    folder: Path
    objective: Objective
    module: nn.Module
    ema: Objective
    optimizer: torch.optim.Optimizer | MuonAdamW
    batches: Batches
    validation: Validation | None
    classes: int
    teacher_size: int
    step: int = 0
    progress: float = 0.0
    seconds: float = 0.0
    stop: bool = False
    recent_head_loss: list[float] = field(default_factory=list)

    @property
    def strength(self) -> float:
        """Share of the head's margin that `head.warmup` lets act by now, 0 to 1."""
        warmup = self.config.head.warmup
        return 1.0 if warmup <= 0 else min(1.0, self.progress / warmup)

    @property
    def margin_share(self) -> float | None:
        """What λ leaves of it in the step last begun; None without a margin."""
        head = self.objective.head
        return head.margin_share(self.strength) if isinstance(head, MarginHead) else None


def train(
    config: Config, *, resume: bool = False, max_steps: int | None = None, runs: Path = Path("runs")
) -> Path:
    """Train as `config` says and return the last checkpoint's path, `runs/NAME/last.pt`.

    resume: go on from that checkpoint. max_steps: stop after so many steps in this call (for tests and
    trials). Raises TrainingError on anything the user can put right; the last good checkpoint is kept.
    """
    with distributed.processes():
        torch.manual_seed(config.engine.seed)
        if config.engine.threads:
            torch.set_num_threads(config.engine.threads)
        run = _set_up(config, runs / config.name, resume)
        with _stops_gently(run):
            _loop(run, max_steps)
        return run.folder / "last.pt"


def _set_up(config: Config, folder: Path, resume: bool) -> Run:
    store = open_store(Path(config.data.store), config.distill.center)
    out = held_out(store.identity, config.data.holdout_percent)
    labels, classes = class_labels(store.identity, ~out, config.data.min_images_per_class)
    _check_data(config, store, classes)
    teacher_size = 0 if store.teacher is None else store.teacher.shape[1]
    state = None
    if resume:
        state = checkpoint.load(folder / "last.pt")
        checkpoint.check_same_run(state.config, config)
        if state.classes != classes:
            raise TrainingError(
                f"the store has {classes} classes, the checkpoint {state.classes}; use the same store"
            )
    elif (folder / "last.pt").exists() and distributed.rank() == 0:
        raise TrainingError(
            f"{folder} already holds a run; add --resume to go on, or choose another name=NAME"
        )

    objective = Objective(config, classes, teacher_size)
    _check_center(config, objective.backbone)
    if config.engine.channels_last:
        objective = objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.init_from and state is None:
        transfer(objective, checkpoint.load(Path(config.init_from)).ema)
    ema = copy.deepcopy(objective)
    ema.requires_grad_(False)
    optimizer = make_optimizer(config, objective)
    if state is not None:
        objective.load_state_dict(state.objective)
        ema.load_state_dict(state.ema)
        optimizer.load_state_dict(state.optimizer)
        torch.set_rng_state(state.rng)
    run = Run(
        config=config,
        folder=folder,
        objective=objective,
        module=DistributedDataParallel(objective) if distributed.world() > 1 else objective,
        ema=ema,
        optimizer=optimizer,
        batches=_batches(config, store, out, labels),
        validation=make_validation(
            store,
            out,
            template=config.data.template,
            pool=config.data.input_pool,
            pairs=config.engine.evaluation_pairs,
        )
        if distributed.rank() == 0
        else None,
        classes=classes,
        teacher_size=teacher_size,
    )
    if state is not None:
        run.step, run.progress, run.seconds = state.step, state.progress, state.seconds
    if distributed.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(
            yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8"
        )
    return run


def _check_data(config: Config, store: FaceStore, classes: int) -> None:
    if config.head.weight > 0 and classes < 2:
        raise TrainingError(
            f"{classes} identities have {config.data.min_images_per_class} images or more, a head needs 2; "
            "lower data.min_images_per_class or set head.weight=0"
        )
    if store.teacher is None and (config.distill.weight > 0 or config.distill.relation > 0):
        raise TrainingError(
            f"{config.data.store} has no teacher.npy; prepare it with --teacher, or set distill.weight=0 "
            "and distill.relation=0"
        )
    share = distributed.world() * config.optimizer.accumulate
    if config.optimizer.batch_size % share:
        raise TrainingError(
            f"optimizer.batch_size={config.optimizer.batch_size} "
            f"must be a multiple of {share} (processes × accumulate)"
        )


def _check_center(config: Config, backbone: nn.Module) -> None:
    """Refuse targets with a part in common for embeddings that a batch norm rids of theirs at every step."""
    centering = any(isinstance(part, nn.BatchNorm1d) and not part.affine for part in backbone.modules())
    common = config.distill.relation > 0 and config.distill.center < 1
    if centering and common and config.engine.freeze_norm > 0:
        raise TrainingError(
            "backbone.batch_norm centers each batch of embeddings, so their cosines cannot follow a "
            f"teacher's with distill.center={config.distill.center}: set engine.freeze_norm=0 and "
            "init_from=CHECKPOINT, or distill.center=1"
        )


def _batches(
    config: Config, store: FaceStore, out: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]
) -> Batches:
    distils = config.distill.weight > 0 or config.distill.relation > 0
    use = ~out if distils else ~out & (labels >= 0)
    group_weight = np.array([config.data.group_weights.get(group, 1.0) for group in store.group[use]])
    sampler = EpochSampler(np.flatnonzero(use), group_weight, config.optimizer.batch_size, config.engine.seed)
    if sampler.steps_per_epoch < 1:
        raise TrainingError(
            f"{int(use.sum())} usable images are less than one batch of {config.optimizer.batch_size}"
        )
    teacher = load_live_teacher(config) if config.augment.p_blend > 0 else None
    return Batches(store, labels, sampler, config, distributed.rank(), distributed.world(), teacher)


def make_optimizer(config: Config, objective: Objective) -> torch.optim.Optimizer | MuonAdamW:
    """As `optimizer.name` says. Biases and normalization layers are not decayed, PReLU slopes are (Caffe's
    defaults)."""
    free: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    for module in objective.modules():
        for name, parameter in module.named_parameters(recurse=False):
            normal = isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) or name == "bias"
            (free if normal else decayed).append(parameter)
    settings = config.optimizer
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr)
    if settings.name == "muon":
        return MuonAdamW(objective.backbone, groups, settings.lr)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)


def transfer(objective: Objective, weights: dict[str, Tensor]) -> list[str]:
    """Take over weights of another run where names agree; returns what stayed fresh.

    A fully connected layer made for another map size is resampled bilinearly in space, so that a network
    trained at half resolution starts well at full resolution. A head over other identities starts anew.
    """
    own = objective.state_dict()
    fresh = []
    for name, value in own.items():
        old = weights.get(name)
        if old is None or (name.startswith("head.") and old.shape != value.shape):
            fresh.append(name)
        elif old.shape == value.shape:
            value.copy_(old)
        elif name == "backbone.fc.weight":
            value.copy_(resample_fc(old, value.shape[1], objective.backbone.map_size))  # type: ignore[arg-type]
        else:
            raise TrainingError(f"{name} has shape {tuple(old.shape)} there and {tuple(value.shape)} here")
    return fresh


def resample_fc(weight: Tensor, inputs: int, map_size: tuple[int, int]) -> Tensor:
    """(D, C·h·w) to (D, C·H·W) for a larger map of the same aspect, keeping the layer's sum on smooth
    maps."""
    height, width = map_size
    channels = inputs // (height * width)
    area = weight.shape[1] // channels
    w = round(math.sqrt(area * width / height))
    old = weight.reshape(len(weight), channels, area // w, w)
    new = nn.functional.interpolate(old, size=map_size, mode="bilinear", align_corners=False)
    return (new * (area / (height * width))).reshape(len(weight), inputs)


def _loop(run: Run, max_steps: int | None) -> None:
    # One clock for all: with one each, a process waits in an evaluation for others that are a step ahead.
    config, started = run.config, distributed.agreed(time.monotonic())
    deadline = started + 60 * config.optimizer.deadline_minutes
    last_save = last_evaluation = last_step = started
    first_step = run.step
    stream = run.batches.stream(run.step)
    with Progress(run.folder, config, rank=distributed.rank(), step=run.step) as progress:
        try:
            while (
                run.progress < 1.0
                and not run.stop
                and (max_steps is None or run.step - first_step < max_steps)
            ):
                losses = _step(run, next(stream))
                share = run.margin_share
                now = distributed.agreed(time.monotonic())
                run.progress = advance(
                    run.progress, config.optimizer, seconds=now - last_step, seconds_left=deadline - now
                )
                run.seconds += now - last_step
                last_step = now
                run.stop = distributed.agreed(float(run.stop)) > 0
                rate_now = run.optimizer.param_groups[0]["lr"]
                progress.step(run.step, run.progress, losses, rate_now, share)
                _watch_plateau(run, losses)
                if now - last_evaluation > config.engine.evaluate_seconds:
                    _evaluate(run, progress)
                    last_evaluation = now
                if now - last_save > config.engine.checkpoint_seconds:
                    save(run)
                    last_save = now
        finally:
            stream.close()  # type: ignore[attr-defined]
        save(run)
        if run.progress >= 1.0:
            _evaluate(run, progress)


def _step(run: Run, batch: Batch) -> Losses:
    config = run.config
    lr = rate(config.optimizer, run.progress, run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    if run.progress >= config.engine.freeze_norm:
        freeze_norm(run.objective)
    strength = run.strength
    if isinstance(run.objective.head, MarginHead):
        run.objective.head.begin_step()
    run.objective.zero_grad(set_to_none=True)
    parts: list[Losses] = []
    count = config.optimizer.accumulate
    for micro in range(count):
        pixels, labels, teacher = (
            None if x is None else x[len(x) * micro // count : len(x) * (micro + 1) // count]
            for x in (batch.pixels, batch.labels, batch.teacher)
        )
        with _precision(config):
            losses = Losses(*run.module(pixels, labels, teacher, strength))
        (losses.total / count).backward()  # type: ignore[no-untyped-call]
        parts.append(losses)
    _check_finite(run, parts)
    if config.optimizer.clip > 0:
        nn.utils.clip_grad_norm_(run.objective.parameters(), config.optimizer.clip)
    run.optimizer.step()
    run.step += 1
    _update_ema(run)
    return parts[-1]


def _precision(config: Config) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=config.engine.precision == "bf16")


def freeze_norm(module: nn.Module) -> None:
    """Let every batch norm of `module` use its running statistics from now on, weights learning still."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.eval()


def _check_finite(run: Run, parts: list[Losses]) -> None:
    if not all(math.isfinite(p.total.item()) for p in parts):
        raise TrainingError(
            f"the loss is not a number at step {run.step}: lower optimizer.lr, lengthen optimizer.warmup, "
            "set optimizer.clip, or use backbone.batch_norm=true; the last good checkpoint is in "
            + str(run.folder)
        )


@torch.no_grad()
def _update_ema(run: Run) -> None:
    # The average forgets its start quickly: at step t it spans about the last t/10 steps until the set decay.
    decay = min(run.config.optimizer.ema, (1 + run.step) / (10 + run.step))
    for mean, value in zip(run.ema.state_dict().values(), run.objective.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _watch_plateau(run: Run, losses: Losses) -> None:
    """Stop a run whose head has learned nothing by `engine.plateau_steps`."""
    head, last = run.objective.head, max(plateau.WINDOW, run.config.engine.plateau_steps) + plateau.WINDOW
    if not isinstance(head, SoftmaxHead | MarginHead) or run.step > last:
        return
    loss = losses.head_mean.item() / head.loss_weight
    run.recent_head_loss = [*run.recent_head_loss[1 - plateau.WINDOW :], loss]
    if run.step > last - plateau.WINDOW and (wrong := plateau.stuck(run.recent_head_loss, run.classes)):
        raise TrainingError(wrong)


def _evaluate(run: Run, progress: Progress) -> None:
    if run.validation is not None:
        head = run.ema.head
        angles = class_angles(head.weight) if isinstance(head, MarginHead) else None
        with _precision(run.config):
            figures = run.validation.measure(run.ema.backbone)
        progress.evaluation(run.step, figures, angles)
    distributed.barrier()


def save(run: Run) -> None:
    """Write `last.pt`, from process 0 alone."""
    if distributed.rank() != 0:
        return
    state = checkpoint.State(
        config=run.config,
        classes=run.classes,
        teacher_size=run.teacher_size,
        step=run.step,
        samples=run.step * run.config.optimizer.batch_size,
        progress=run.progress,
        seconds=run.seconds,
        objective=run.objective.state_dict(),
        ema=run.ema.state_dict(),
        optimizer=run.optimizer.state_dict(),
        rng=torch.get_rng_state(),
    )
    checkpoint.save(run.folder / "last.pt", state)


@contextmanager
def _stops_gently(run: Run) -> Iterator[None]:
    """The first SIGINT or SIGTERM finishes the step and saves; a second one ends at once."""

    def ask(number: int, _: Any) -> None:
        run.stop = True
        signal.signal(number, signal.SIG_DFL)

    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {s: signal.signal(s, ask) for s in signals}
    except ValueError:  # not the main thread
        before = {}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
