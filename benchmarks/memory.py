"""The memory of a program of several processes, read from outside (Linux)."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROC = Path("/proc")


def proportional_mb(pid: int) -> float:
    """Memory that a process and all below it take, in MB.

    Each page that several of them hold counts once (proportional set size): their plain sum would count the
    code and the models that they share as often as there are processes.
    """
    return sum(map(_proportional_kb, _family(pid))) / 1024


@contextmanager
def peak_of(pid: int, every: float = 0.5) -> Iterator[Callable[[], float]]:
    """Watches `proportional_mb` meanwhile; what it gives says the highest so far.

    every: seconds. A look costs milliseconds for each process that it walks through.
    """
    highest = [proportional_mb(pid)]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(every):
            highest[0] = max(highest[0], proportional_mb(pid))

    watcher = threading.Thread(target=watch, name="memory")
    watcher.start()
    try:
        yield lambda: highest[0]
    finally:
        done.set()
        watcher.join()


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in PROC.glob(f"{pid}/task/*/children"):
        with suppress(OSError):  # ended meanwhile
            for child in children.read_text().split():
                yield from _family(int(child))


def _proportional_kb(pid: int) -> int:
    with suppress(OSError):
        if found := re.search(r"^Pss:\s+(\d+)", (PROC / str(pid) / "smaps_rollup").read_text(), re.MULTILINE):
            return int(found[1])
    return 0
