"""What a job is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from sphereid.progress import Canceled, Progress, Report

State = Literal["queued", "running", "succeeded", "failed", "canceled"]
FINAL: frozenset[State] = frozenset({"succeeded", "failed", "canceled"})


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed. code: stable, for programs. detail: what to do, for people."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work. kind: which handler does it. name: for people. params: the handler's. result: what the
    handler answered. attempts: how often it was begun; more than one after a restart of the service."""

    id: str
    kind: str
    name: str
    params: Mapping[str, Any]
    state: State
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 0
    progress: Progress | None = None
    failure: Failure | None = None
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        """True when nothing will happen to the job any more."""
        return self.state in FINAL


class JobHandler(Protocol):
    """Does the jobs of one kind."""

    def __call__(
        self,
        job: Job,
        folder: Path,
        report: Report,
        canceled: Canceled,
    ) -> Mapping[str, Any]:
        """Do the work in `folder`, which is the job's own; answer plain JSON for `Job.result`.

        Called again for the same job after an interruption: go on with what is there. A `Meter` over `report`
        and `canceled` tells how far it is and raises CanceledError soon after `canceled` is true. Raises
        CodedError for what the user can mend.
        """
        ...

    def clean(self, job: Job, folder: Path) -> None:
        """The job is over: remove from `folder` what nobody needs now. Must not fail when called twice."""
        ...
