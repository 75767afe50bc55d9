"""A process that looks at pictures: one thread, no HTTP, no gallery.

    python -m sphereid.inference.worker FD…

Each FD is a connection, a seat, on which one question at a time comes and is answered. The process ends as
soon as one of them is closed, so it never outlives the service, however that ended.
"""

import gc
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError
from multiprocessing.connection import Connection
from selectors import EVENT_READ, DefaultSelector
from time import monotonic, perf_counter
from typing import Any, Final

import numpy as np

from sphereid.faces.decode import decode
from sphereid.faces.errors import ModelError
from sphereid.faces.pipeline import FacePipeline
from sphereid.inference.batcher import BatchReport
from sphereid.inference.loading import batch_size, build_engine, load_embedder, load_manifests
from sphereid.inference.malloc import settle_heaps, trim
from sphereid.inference.types import AnalysisRequest, WorkerResult
from sphereid.settings import Settings

READY: Final = "ready"
CANCEL: Final = b""
TRIM_EVERY: Final = 10.0
"""Seconds."""

Work = Generator[None, None, WorkerResult]


class WorkerAnalyzer:
    """The detector and the models that were asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine = build_engine(settings)
        self._batch = batch_size(settings)
        self._pipelines = {
            self._engine.embedder.contract: FacePipeline(self._engine.detector, self._engine.embedder)
        }

    def look(self, contract: str, question: AnalysisRequest, file: bytes) -> Work:
        """Look at a picture; rests after each batch of faces but the last, so that others get their turn."""
        pipeline = self._pipelines.get(contract) or self._load(contract)
        times = [perf_counter()]
        picture = decode(file, self._engine.limits)
        times.append(perf_counter())
        found = question.find(picture, pipeline)
        size = picture.width, picture.height
        del picture  # a large one must not wait in memory while its faces have their turns
        times.append(perf_counter())
        crops = [each.crop for each in found] if question.embed else []
        vectors = np.empty((len(crops), pipeline.embedder.dim), np.float32)
        batches, embedding = [], 0.0
        for start in range(0, len(crops), self._batch):
            if start:
                yield
            began = perf_counter()
            part = crops[start : start + self._batch]
            vectors[start : start + len(part)] = pipeline.embedder.embed(np.stack(part))
            batches.append(BatchReport(len(part), 1, began - times[2]))
            embedding += perf_counter() - began
        decoding, detecting = times[1] - times[0], times[2] - times[1]
        return WorkerResult(
            *size,
            tuple(each.face for each in found),
            vectors,
            1e3 * decoding,
            1e3 * detecting,
            1e3 * embedding,
            tuple(batches),
        )

    def _load(self, contract: str) -> FacePipeline:
        for name, manifest in load_manifests(self._settings).items():
            if manifest.contract == contract:
                pipeline = FacePipeline(self._engine.detector, load_embedder(self._settings, name))
                self._pipelines[contract] = pipeline
                return pipeline
        raise ModelError(f"no model of contract {contract} in the models folder any more")


def serve(
    connections: Sequence["Connection[Any, Any]"], look: Callable[[str, AnalysisRequest, bytes], Work]
) -> None:
    """Answer what comes, each with a `WorkerResult` or an exception. Raises EOFError or OSError when a
    connection is closed.

    Questions have their turns in the order in which they came; one that rests goes to the end.
    """
    under_way: dict[Connection[Any, Any], Work] = {}
    trimmed = monotonic()
    with DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, EVENT_READ, connection)
        while True:
            patience = 0.0 if under_way else TRIM_EVERY
            while ready := selector.select(patience):  # all that came, for some of it may be taken back
                patience = 0.0
                for key, _ in ready:
                    connection = key.data
                    asked = connection.recv_bytes()
                    if asked != CANCEL:
                        contract, question = pickle.loads(asked)
                        under_way[connection] = look(contract, question, connection.recv_bytes())
                    elif connection in under_way:  # else the answer and this crossed
                        del under_way[connection]
                        connection.send_bytes(pickle.dumps(CancelledError()))
            if under_way:
                connection = next(iter(under_way))
                work = under_way.pop(connection)
                if (answer := _step(work)) is None:
                    under_way[connection] = work
                else:
                    connection.send_bytes(answer)
            if monotonic() > trimmed + TRIM_EVERY:
                trim()
                trimmed = monotonic()


def _step(work: Work) -> bytes | None:
    """The answer as it is sent, None where work goes on."""
    try:
        next(work)
        return None
    except StopIteration as end:
        return pickle.dumps(end.value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # whatever it is belongs to who asked
        return _pickled(error)


def _pickled(error: Exception) -> bytes:
    try:
        data = pickle.dumps(error)
        pickle.loads(data)  # some can be written but not read
        return data
    except Exception:
        return pickle.dumps(RuntimeError("".join(traceback.format_exception(error))))


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the service, which lets us finish
        signal.signal(number, signal.SIG_IGN)
    connections: list[Connection[Any, Any]] = [Connection(int(number)) for number in sys.argv[1:]]
    settle_heaps()
    try:
        eyes = WorkerAnalyzer(connections[0].recv())
        connections[0].send(READY)
        gc.freeze()
        serve(connections, eyes.look)
    except (EOFError, ConnectionError):
        pass  # the service has ended


if __name__ == "__main__":
    main()
