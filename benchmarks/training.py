"""How near the training loop comes to its network alone, in one process and in two.

    python -m benchmarks.training [RECIPE]

training_loader_share           what loading and augmentation cost beside the network, both in processor time
                                on one thread: made-up images through the recipe's augmentation to a batch of
                                input, over forward, backward and update of the backbone
training_loop_over_bare         images per second of `python -m training train` over those of forward,
                                backward and update of its backbone on one batch that is there already. What
                                the loop does besides: loading, augmentation, head and teacher losses, mean
                                weights, log.
training_loop_over_bare_two     the same with two processes (`torchrun`) against two backbones side by side:
                                the loop also exchanges gradients
training_two_over_one           images per second of the loop in two processes over those in one

Every process computes on one thread; the faces are made up. The loop's log and the network alone are taken in
turns, and a rate is one of medians over steps.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from benchmarks.images import ROOT
from benchmarks.processes import cores
from benchmarks.stats import median, ratio

RECIPE = ROOT / "training" / "recipes" / "sphereface20-w32.yaml"
BATCH = 128
PROCESSES = (1, 2)
_WARM_UP = 3


def measure(recipe: Path = RECIPE, *, steps: int = 10, turns: int = 3) -> dict[str, Any]:
    """See the module's text. steps: of the loop and of the network alone, in each of `turns`."""
    rates: dict[str, list[float]] = {f"{who}_{n}": [] for n in PROCESSES for who in ("loop", "bare")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_store(folder / "store")
        for turn in track(range(turns), description="training"):
            for n in PROCESSES:
                rates[f"bare_{n}"].append(_bare(recipe, n, steps))
                rates[f"loop_{n}"].append(_loop(recipe, folder, f"turn-{turn}-{n}", n, steps))
    return {
        **loader_share(recipe),
        "images_per_second": {name: median(each, 1) for name, each in rates.items()},
        **ratio("training_loop_over_bare", rates["loop_1"], rates["bare_1"]),
        **ratio("training_loop_over_bare_two", rates["loop_2"], rates["bare_2"]),
        **ratio("training_two_over_one", rates["loop_2"], rates["loop_1"]),
    }


def loader_share(recipe: Path, *, batch: int = 64, repeats: int = 5) -> dict[str, Any]:
    """What one image costs to load and augment, and in the network."""
    from sphereid_training.config import load
    from sphereid_training.data.augment import augment
    from sphereid_training.data.loader import to_pixels
    from sphereid_training.loop.speed import measure_speed

    config = load(recipe, [])
    rng = np.random.default_rng(0)
    canvases = rng.integers(0, 256, (batch, 128, 128, 3), np.uint8)
    taken = []
    for _ in range(repeats + 1):
        began = time.thread_time()
        to_pixels(augment(canvases, config.augment, config.data.template, config.data.input_pool, rng))
        taken.append((time.thread_time() - began) / batch * 1e3)
    step = 1e3 / measure_speed(config, batch=batch).images_per_cpu_second
    loader = median(taken[1:], 4)
    return {
        "recipe": recipe.stem,
        "loader_ms_an_image": loader,
        "step_ms_an_image": round(step, 3),
        "training_loader_share": round(loader / step, 4),
    }


def make_store(folder: Path, identities: int = 128, images: int = 8) -> None:
    """A prepared store of made-up faces with made-up teacher descriptors."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    identity = np.repeat(np.arange(identities), images)
    np.save(folder / "images.npy", rng.integers(0, 256, (len(identity), 128, 128, 3), np.uint8))
    names = [f"made/{person:04d}/{i}.png" for i, person in enumerate(identity)]
    np.savez(folder / "meta.npz", name=np.array(names), identity=identity)
    np.save(folder / "teacher.npy", rng.standard_normal((len(identity), 128), np.float32))


def _loop(recipe: Path, folder: Path, name: str, processes: int, steps: int) -> float:
    """Images per second of the real command, as its log says."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [
        sys.executable,
        *(launcher if processes > 1 else []),
        *("-m", "training", "train", str(recipe), f"--max-steps={_WARM_UP + steps}"),
        f"--runs={folder / 'runs'}",
        *(f"name={name}", f"data.store={folder / 'store'}", f"optimizer.batch_size={BATCH}"),
        *("engine.log_steps=1", "engine.threads=1", "engine.evaluation_pairs=20"),
    ]
    process = _start(command, cores())
    process.communicate()
    if process.returncode:
        raise SystemExit(f"training ended with {process.returncode}; its own message is above")
    log = EventAccumulator(str(folder / "runs" / name / "tensorboard"))
    log.Reload()
    return median([each.value for each in log.Scalars("train/images_per_second")[_WARM_UP:]])


def _start(command: list[str], on: set[int]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    os.sched_setaffinity(process.pid, on)
    return process


def _bare(recipe: Path, processes: int, steps: int) -> float:
    """Images per second of the backbone alone in processes side by side, each with its share of a batch."""
    share = BATCH // processes
    command = [
        sys.executable,
        "-m",
        "benchmarks.training",
        str(recipe),
        f"--bare={share}",
        f"--steps={steps}",
    ]
    together = [_start(command, {core}) for core in sorted(cores())[:processes]]
    for process in together:
        assert process.stdout is not None
        process.stdout.readline()
    for process in together:
        assert process.stdin is not None
        print("go", file=process.stdin, flush=True)
    answers = [process.communicate()[0] for process in together]
    return sum(share / median(json.loads(answer), 6) for answer in answers)


def _answer_bare(recipe: Path, batch: int, steps: int) -> None:
    """The process that `_bare` asks: ready, wait, measure."""
    from sphereid_training.config import load
    from sphereid_training.loop.speed import seconds_a_step

    config = load(recipe, [])
    seconds_a_step(config, batch=batch, repeats=1)
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(seconds_a_step(config, batch=batch, repeats=steps)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path, nargs="?", default=RECIPE, help="YAML recipe")
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn")
    parser.add_argument("--turns", type=int, default=3, help="how often each is measured")
    parser.add_argument("--bare", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        _answer_bare(given.recipe, given.bare, given.steps)
    else:
        print(json.dumps(measure(given.recipe, steps=given.steps, turns=given.turns), indent=2))


if __name__ == "__main__":
    main()
