"""How far long work has come: measured in one way for jobs and for the terminal."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from sphereid.errors import CanceledError

EVERY_S: Final = 0.25
"""Between two reports."""


@dataclass(frozen=True, slots=True)
class Progress:
    """stage: what is being done, a word. done, total: units of work (total None where unknown). rate: units a
    second. eta: seconds to the end of the stage, None where unknown."""

    stage: str
    done: int
    total: int | None
    rate: float
    eta: float | None


Report = Callable[[Progress], None]
Canceled = Callable[[], bool]


class Meter:
    """Measures one stage and reports it a few times a second."""

    def __init__(
        self,
        stage: str,
        total: int | None = None,
        report: Report | None = None,
        canceled: Canceled | None = None,
        *,
        skipped: int = 0,
    ) -> None:
        """skipped: units that an earlier run did; they say nothing about the rate."""
        self._stage = stage
        self._total = total
        self._report = report
        self._canceled = canceled
        self._skipped = skipped
        self._start = monotonic()
        self._last = -EVERY_S

    def update(self, done: int, total: int | None = None, *, force: bool = False) -> None:
        """`done` units are through, of `total` or as many as were announced. force: report it in any case, as
        the end always is. Raises CanceledError when the caller wants to stop."""
        if self._canceled is not None and self._canceled():
            raise CanceledError("canceled")
        now = monotonic()
        total = self._total if total is None else total
        total = None if total is None else max(total, done)
        if self._report is None or not (force or done == total or now - self._last >= EVERY_S):
            return
        self._last = now
        rate = (done - self._skipped) / max(now - self._start, 1e-6)
        eta = None if total is None or rate <= 0 else (total - done) / rate
        self._report(Progress(self._stage, done, total, rate, eta))
