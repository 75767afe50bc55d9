"""`sphereid tune`."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from sphereid.cli.terminal import expand, note, progress, table
from sphereid.settings import Settings


def tune(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Pictures like those that you will send: files, folders or globs. Without any, drawn faces.",
            metavar="[PATHS]...",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="File of settings to write; the server reads .env.")] = Path(
        ".env"
    ),
    seconds: Annotated[float, typer.Option(min=0.01, help="Length of one measurement.")] = 2.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print, and write nothing.")] = False,
) -> None:
    """Measure this machine and write the settings that suit it.

    Four settings decide how many images a second go through: whether processes look at them or threads
    (SPHEREID_WORKERS), how many images are looked at side by side (SPHEREID_QUEUES__IN_FLIGHT), the
    embedder's threads (SPHEREID_THREADS), and how many faces are embedded together at most
    (SPHEREID_QUEUES__MAX_BATCH). This measures the model of the current settings, takes the fastest, and
    among equals the one that answers soonest.

    The settings go into .env, which `sphereid serve` reads when it is started in the same folder; other lines
    of that file stay as they are. Run it while the machine has nothing else to do; it takes half a minute.
    """
    from sphereid.inference.tuning import ALIKE, BATCHES, drawn_pictures
    from sphereid.inference.tuning import tune as measure

    settings = Settings()
    files = [path.read_bytes() for path in expand(images)] if images else list(drawn_pictures())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = len({1, max(1, cores // 2), cores})
    steps = counts * len(BATCHES) + counts * len({1, max(1, cores // 2), cores, 2 * cores}) + (cores > 1)
    with progress("measuring", steps) as advance:
        tuned = measure(settings, files, cores=cores, seconds=seconds, tell=lambda _: advance())
    table(
        "Embedder: faces per second",
        ["threads", *(f"batch {batch}" for batch in BATCHES)],
        [
            [count, *(round(each.faces_per_second) for each in tuned.batchings if each.threads == count)]
            for count in dict.fromkeys(each.threads for each in tuned.batchings)
        ],
    )
    table(
        "Pipeline: images per second",
        ["threads", "workers", "are", "batch", "images/s", "median ms", ""],
        [
            [t.threads, t.workers, "processes" if t.processes else "threads", t.batch,
             round(t.images_per_second, 1), round(t.median_ms, 1),
             "chosen" if t is tuned.best else ""]
            for t in tuned.trials
        ],
    )  # fmt: skip
    note(f"Within {1 - ALIKE:.0%} counts as equal.")
    if dry_run:
        typer.echo("\n".join(f"{name}={value}" for name, value in tuned.variables.items()))
        return
    write(out, tuned.variables)
    note(f"written to {out}: {', '.join(f'{name}={value}' for name, value in tuned.variables.items())}")


def write(path: Path, variables: dict[str, str]) -> None:
    """Set `variables` in a file of settings; all other lines stay, and no reader sees half a file."""
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if _variable(line) not in variables]
    text = "\n".join([*kept, *(f"{name}={value}" for name, value in variables.items())]) + "\n"
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600  # the file may hold keys
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tune-")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _variable(line: str) -> str:
    """The name that a line sets, in capitals as ours are."""
    return line.partition("=")[0].strip().removeprefix("export ").strip().upper()
