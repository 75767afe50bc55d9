"""Looking in processes of their own, one a core.

Threads of one interpreter wait for each other's lock at every step of a picture; processes don't. This one is
left with HTTP, the queue and the gallery. A picture that brings a decoder down takes its process along, which
is started anew, and not the service.
"""

import logging
import os
import pickle
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any, Final, cast

import sphereid
from sphereid.inference.batcher import BatcherClosedError, BatchReport
from sphereid.inference.models import Model
from sphereid.inference.types import AnalysisRequest, ProcessLostError, WorkerResult
from sphereid.settings import Settings

log = logging.getLogger(__name__)

WATCH: Final = 0.05
"""Seconds between looks whether anybody still waits for an answer."""

LONGEST_PAUSE: Final = 30.0
"""Seconds before a process that ends again and again is started once more."""

LONGEST_WAIT: Final = 10.0
"""Seconds that a request waits for a process to be there."""

SINGLE: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class WorkerConnection:
    """A connection to a process, on which one question at a time is asked."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self.connection = connection
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def ask(
        self, contract: str, question: AnalysisRequest, file: bytes, wanted: Callable[[], bool]
    ) -> WorkerResult | Exception:
        """The answer, or what was raised there. Raises EOFError or OSError where the process ended."""
        self.connection.send_bytes(pickle.dumps((contract, question), pickle.HIGHEST_PROTOCOL))
        self.connection.send_bytes(file)
        canceled = False
        while not self._poll.poll(1e3 * WATCH):
            if not canceled and not wanted():
                self.connection.send_bytes(b"")
                canceled = True
        return cast("WorkerResult | Exception", pickle.loads(self.connection.recv_bytes()))


@dataclass(slots=True, eq=False)
class Process:
    """One of the processes. free: the seats that nobody has taken. over: takes no more questions."""

    popen: "subprocess.Popen[bytes]"
    free: list[WorkerConnection]
    over: bool = False

    def put_back(self, seat: WorkerConnection) -> None:
        """Let others have a seat."""
        if self.over:
            seat.connection.close()
        else:
            self.free.append(seat)

    def hang_up(self) -> None:
        """Close the connections that nobody uses, which ends the process."""
        self.over = True
        while self.free:
            self.free.pop().connection.close()


class WorkerPool:
    """A `Analyzer` over processes, which are started anew when they end."""

    def __init__(
        self,
        settings: Settings,
        *,
        count: int,
        seats: int,
        on_batch: Callable[[BatchReport], None] = lambda _: None,
    ) -> None:
        """Starts the processes; `wait` waits until they are there.

        seats: questions that one process has at a time. One works, the others have what comes next at hand,
        and let portraits past a photograph with many faces. on_batch: hears of each batch of the embedder.
        """
        kept = {"api_keys": (), "database_url": None, "encryption_key": None}
        self._settings = settings.model_copy(update=kept)
        self._seats = seats
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._there: list[Process] = []
        self._starting: set[subprocess.Popen[bytes]] = set()
        self._failed: str | None = None
        self._closing = threading.Event()
        self._count = count
        self._keepers = [
            threading.Thread(target=self._keep, name="look-keeper", daemon=True) for _ in range(count)
        ]
        for keeper in self._keepers:
            keeper.start()

    def wait(self) -> None:
        """Until all processes are there. Raises ProcessLostError where one cannot start."""
        with self._changed:
            self._changed.wait_for(lambda: self._failed or len(self._there) == self._count)
            if self._failed:
                raise ProcessLostError(self._failed)

    @property
    def pids(self) -> list[int]:
        """The processes that are there now."""
        with self._changed:
            return [process.popen.pid for process in self._there]

    def look(
        self, model: Model, file: bytes, question: AnalysisRequest, wanted: Callable[[], bool]
    ) -> WorkerResult:
        """See `Analyzer.look`."""
        process, seat = self._take(wanted)
        try:
            answer = seat.ask(model.contract, question, file, wanted)
        except (EOFError, OSError):
            raise ProcessLostError(
                "the process that looked at the picture ended; another one takes its place in a moment"
            ) from None
        finally:
            with self._changed:
                process.put_back(seat)
                self._changed.notify()
        if isinstance(answer, Exception):
            raise answer
        for report in answer.batches:
            self._on_batch(report)
        return answer

    def close(self) -> None:
        """End the processes. Idempotent."""
        with self._changed:
            self._closing.set()
            for process in self._there:
                process.hang_up()
            for popen in self._starting:
                popen.kill()
            self._changed.notify_all()
        for keeper in self._keepers:
            keeper.join()

    def _take(self, wanted: Callable[[], bool]) -> tuple[Process, WorkerConnection]:
        """A seat at the process that has the most to spare."""
        end = monotonic() + LONGEST_WAIT
        with self._changed:
            while True:
                if self._closing.is_set():
                    raise BatcherClosedError("the service is shutting down")
                process = max(self._there, key=lambda each: len(each.free), default=None)
                if process is not None and process.free:
                    return process, process.free.pop()
                if not wanted():
                    raise CancelledError
                if not self._there and monotonic() > end:
                    raise ProcessLostError(
                        "no process is there to look at the picture; try again in a moment"
                    )
                self._changed.wait(WATCH)

    def _keep(self) -> None:
        """Have one process, until it is closed."""
        pause = 0.0
        while not self._closing.wait(pause):
            began = monotonic()
            try:
                process = self._start()
            except (EOFError, OSError) as error:
                with self._changed:
                    self._failed = "a process that looks at pictures did not start; its message is in the log"
                    self._changed.notify_all()
                log.error("a process that looks at pictures did not start: %s", error or type(error).__name__)
            else:
                code = process.popen.wait()
                with self._changed:
                    self._there.remove(process)
                    process.hang_up()
                    if not self._closing.is_set():
                        log.error("a process that looks at pictures ended (%d) and is started anew", code)
            pause = 0.0 if monotonic() > began + 5 else min(LONGEST_PAUSE, max(0.5, 2 * pause))

    def _start(self) -> Process:
        """Raises EOFError or OSError where the process ends before it is ready."""
        pairs = [Pipe() for _ in range(self._seats)]
        theirs = [str(other.fileno()) for _, other in pairs]
        path = os.pathsep.join(
            filter(None, [str(Path(sphereid.__file__).parents[1]), os.environ.get("PYTHONPATH")])
        )
        with self._changed:
            if self._closing.is_set():
                raise EOFError
            popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "sphereid.inference.worker", *theirs],
                pass_fds=[other.fileno() for _, other in pairs],
                stdin=subprocess.DEVNULL,
                env={**SINGLE, **os.environ, "PYTHONPATH": path},
            )
            self._starting.add(popen)
        for _, other in pairs:
            other.close()
        try:
            pairs[0][0].send(self._settings)
            pairs[0][0].recv()
        except (EOFError, OSError):
            popen.wait()
            raise
        finally:
            with self._changed:
                self._starting.discard(popen)
        process = Process(popen, [WorkerConnection(mine) for mine, _ in pairs])
        with self._changed:
            self._there.append(process)
            self._failed = None
            self._changed.notify_all()
            if self._closing.is_set():
                process.hang_up()
        return process
