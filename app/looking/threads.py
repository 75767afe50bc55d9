"""Looking in the thread that asks: on a GPU, where concurrent requests share batches, or on a single core."""

from collections.abc import Callable
from concurrent.futures import CancelledError
from time import perf_counter

import numpy as np

from app.looking.types import Looked, Question
from app.pipeline.decode import DecodeLimits, decode
from app.serving import Model


class InThreads:
    """A `Sight` without processes."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits

    def look(self, model: Model, file: bytes, question: Question, wanted: Callable[[], bool]) -> Looked:
        """See `Sight.look`."""
        times = [perf_counter()]

        def lap() -> None:
            times.append(perf_counter())
            if not wanted():
                raise CancelledError

        picture = decode(file, self._limits)
        lap()
        found = question.find(picture, model.shared)
        lap()
        vectors = np.empty((0, model.batcher.dim), np.float32)
        if question.embed and found:
            vectors = model.batcher.embed(np.stack([each.crop for each in found]), wanted)
        lap()
        return Looked(
            picture.width,
            picture.height,
            tuple(each.face for each in found),
            vectors,
            decode=1e3 * (times[1] - times[0]),
            detect=1e3 * (times[2] - times[1]),
            embed=1e3 * (times[3] - times[2]),
            picture=picture,
        )
