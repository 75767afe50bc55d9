"""Contestants: each a process of its own, in its own environment, on the same cores, asked over a pipe."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.images import ROOT, Image

WORKER = ROOT / "benchmarks" / "peers" / "worker.py"
PEERS = ROOT / ".venv-peers"
OURS = Path(sys.executable)


def cores(count: int = 2) -> set[int]:
    """The cores on which everything is measured: the first `count` that this process may use."""
    return set(sorted(os.sched_getaffinity(0))[:count])


class Contestant:
    """A detector or a pipeline in its own process; see `peers/worker.py` for what it understands."""

    def __init__(
        self,
        name: str,
        python: Path,
        images: Path,
        *,
        threads: int,
        min_face: int = 0,
        on: set[int] | None = None,
    ) -> None:
        command = [str(python), str(WORKER), name, str(images), str(threads), str(min_face)]
        # The numeric libraries of whoever is inside read one of these.
        counts = dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"),
            str(threads),
        )
        self._name = name
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=WORKER.parent,
            env={**os.environ, **counts, "PYTHONWARNINGS": "ignore"},
        )
        os.sched_setaffinity(self._process.pid, on or cores())
        self.version: str = self.answer()["ready"]

    def ask(self, image: int) -> None:
        """Start on an image."""
        assert self._process.stdin is not None
        print(image, file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """Wait for the next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self._name} ended; its own message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, image: int) -> dict[str, Any]:
        """Start on an image and wait for it."""
        self.ask(image)
        return self.answer()

    def close(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


@contextmanager
def stored(images: Sequence[Image]) -> Iterator[Path]:
    """The images in a file that contestants can read."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.npz"
        np.savez(file, *images)
        yield file


@contextmanager
def closing_all(contestants: Sequence[Contestant]) -> Iterator[None]:
    """End the processes whatever happens."""
    with ExitStack() as stack:
        for contestant in contestants:
            stack.callback(contestant.close)
        yield
