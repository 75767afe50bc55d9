"""Looking in the thread that asks: on a GPU, where concurrent requests share batches, or on a single core."""

from collections.abc import Callable
from concurrent.futures import CancelledError
from time import perf_counter

import numpy as np

from sphereid.faces.decode import DecodeLimits, decode
from sphereid.inference.models import Model
from sphereid.inference.types import AnalysisRequest, WorkerResult


class InProcessAnalyzer:
    """A `Analyzer` without processes."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits

    def look(
        self, model: Model, file: bytes, question: AnalysisRequest, wanted: Callable[[], bool]
    ) -> WorkerResult:
        """See `Analyzer.look`."""
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
        return WorkerResult(
            picture.width,
            picture.height,
            tuple(each.face for each in found),
            vectors,
            decode=1e3 * (times[1] - times[0]),
            detect=1e3 * (times[2] - times[1]),
            embed=1e3 * (times[3] - times[2]),
            picture=picture,
        )
