"""Does jobs one after another in a thread, and remembers them across restarts."""

import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any, Final

from sphereid.errors import CanceledError, CodedError
from sphereid.gallery.audit import acting
from sphereid.jobs.errors import JobNotFoundError, JobsFullError
from sphereid.jobs.store import JobStore
from sphereid.jobs.types import Failure, Job, JobHandler
from sphereid.progress import Progress
from sphereid.storage.encrypted_files import PLAIN, EncryptedFiles, settle

MAX_ATTEMPTS: Final = 3
"""A job that took the whole process with it so often is not begun again."""
_SAVE_EVERY: Final = 2.0
log = logging.getLogger(__name__)


class JobRunner:
    """The jobs of a service. Thread-safe; one a folder.

    A job that was waiting or running when the process ended, in whatever way, runs again after `start`.
    """

    def __init__(
        self,
        root: Path,
        handlers: Mapping[str, JobHandler],
        *,
        max_waiting: int = 16,
        keep: timedelta | None = None,
        files: EncryptedFiles = PLAIN,
    ) -> None:
        """root: the folder of all jobs. handlers: by kind. max_waiting: jobs that may wait beyond the running
        one. keep: how long finished jobs stay (None: until they are deleted). files: opens their files."""
        self.files = files
        self._store = JobStore(root)
        self._handlers = dict(handlers)
        self._max_waiting = max_waiting
        self._keep = keep
        self._jobs: dict[str, Job] = {}
        self._queue: deque[str] = deque()
        self._cancel: set[str] = set()
        self._delete: set[str] = set()
        self._lock = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Load the jobs of earlier and begin to work."""
        settle(self._store.root, self.files)  # a change of the key
        with self._lock:
            for job in self._store.load():
                if not job.final:
                    job = replace(job, state="queued", progress=None)
                    if job.attempts >= MAX_ATTEMPTS:
                        failure = Failure(
                            "job_crashed",
                            f"the service ended {job.attempts} times while it ran; not tried again",
                        )
                        job = replace(job, state="failed", finished_at=_now(), failure=failure)
                        self._clean(job)
                    else:
                        self._queue.append(job.id)
                    self._store.save(job)
                self._jobs[job.id] = job
            self._drop_old()
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    def stop(self, timeout: float | None = 30.0) -> None:
        """Interrupt the running job, which goes on after the next `start`, and end the thread."""
        with self._lock:
            self._stopping = True
            self._lock.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)

    @property
    def stopping(self) -> bool:
        """True once `stop` was called."""
        return self._stopping

    @property
    def waiting(self) -> int:
        """Jobs that wait for their turn."""
        return len(self._queue)

    def reserve(self) -> tuple[str, Path]:
        """An id and an empty folder for a job's input. Follow with `submit` or `discard`. JobsFullError."""
        with self._lock:
            self._check_room()
        return self._store.new_folder()

    def discard(self, job_id: str) -> None:
        """Give back what `reserve` gave."""
        self._store.delete(job_id)

    def submit(self, job_id: str, kind: str, name: str, params: Mapping[str, Any]) -> Job:
        """Queue a reserved job. Raises JobsFullError; then the folder is gone too."""
        if kind not in self._handlers:
            raise ValueError(f"no handler for jobs of the kind {kind!r}")
        job = Job(job_id, kind, name, dict(params), "queued", _now())
        with self._lock:
            try:
                self._check_room()
            except JobsFullError:
                self._store.delete(job_id)
                raise
            self._store.save(job)
            self._jobs[job.id] = job
            self._queue.append(job.id)
            self._lock.notify_all()
        return job

    def get(self, job_id: str) -> Job:
        """The job as it is now. Raises JobNotFoundError."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job_id in self._delete:
                raise JobNotFoundError(f"there is no job {job_id!r}: it was deleted, or never made")
            return job

    def list(self) -> Sequence[Job]:
        """All jobs, newest first."""
        with self._lock:
            jobs = [job for job in self._jobs.values() if job.id not in self._delete]
        return sorted(jobs, key=lambda job: (job.created_at, job.id), reverse=True)

    def folder(self, job_id: str) -> Path:
        """Where the job's files lie. Raises JobNotFoundError."""
        return self._store.folder(self.get(job_id).id)

    def cancel(self, job_id: str) -> Job:
        """Stop a job that waits or runs; one that is over stays as it is. Raises JobNotFoundError.

        A running job stops within a moment: its state is `running` until it has.
        """
        with self._lock:
            job = self.get(job_id)
            if job.state == "queued":
                self._queue.remove(job_id)
                job = self._finish(replace(job, state="canceled"))
            elif job.state == "running":
                self._cancel.add(job_id)
            return job

    def delete(self, job_id: str) -> None:
        """Stop the job if need be and remove it with all its files. Raises JobNotFoundError.

        Files of a running job go as soon as it has stopped; it is not seen any more from now on.
        """
        with self._lock:
            job = self.cancel(job_id)
            if job.state == "running":
                self._delete.add(job_id)
            else:
                self._remove(job_id)

    def _check_room(self) -> None:
        if len(self._queue) >= self._max_waiting:
            raise JobsFullError(f"{len(self._queue)} jobs are waiting: try again when some are done")

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._queue and not self._stopping:
                    self._lock.wait()
                if self._stopping:
                    return
                job = self._jobs[self._queue.popleft()]
                job = replace(job, state="running", started_at=_now(), attempts=job.attempts + 1)
                self._store.save(job)
                self._jobs[job.id] = job
            self._run(job)

    def _run(self, job: Job) -> None:
        saved = monotonic()

        def report(progress: Progress) -> None:
            nonlocal saved
            with self._lock:
                current = replace(self._jobs[job.id], progress=progress)
                self._jobs[job.id] = current
            if monotonic() - saved > _SAVE_EVERY:
                saved = monotonic()
                self._store.save(current)

        def canceled() -> bool:
            return self._stopping or job.id in self._cancel or job.id in self._delete

        outcome: dict[str, Any]
        try:
            handler = self._handlers[job.kind]
            with acting(f"job:{job.id}"):
                result = handler(job, self._store.folder(job.id), report, canceled)
            outcome = {"state": "succeeded", "result": dict(result)}
        except CanceledError:
            if job.id not in self._cancel | self._delete:
                self._requeue(job.id)
                return
            outcome = {"state": "canceled"}
        except CodedError as error:
            outcome = {"state": "failed", "failure": Failure(error.code, str(error))}
        except Exception:
            log.exception("job %s (%s) failed", job.id, job.kind)
            detail = f"something went wrong here; the log has it under job {job.id}"
            outcome = {"state": "failed", "failure": Failure("internal_error", detail)}
        with self._lock:
            self._finish(replace(self._jobs[job.id], **outcome))
            self._cancel.discard(job.id)
            if job.id in self._delete:
                self._remove(job.id)
            self._drop_old()

    def _requeue(self, job_id: str) -> None:
        """The service is about to end: the job was interrupted through no fault of its own."""
        with self._lock:
            job = self._jobs[job_id]
            job = replace(job, state="queued", attempts=job.attempts - 1, progress=None)
            self._jobs[job_id] = job
            self._store.save(job)

    def _finish(self, job: Job) -> Job:
        job = replace(job, finished_at=_now())
        self._clean(job)
        self._jobs[job.id] = job
        self._store.save(job)
        return job

    def _clean(self, job: Job) -> None:
        handler = self._handlers.get(job.kind)
        if handler is None:
            return
        try:
            handler.clean(job, self._store.folder(job.id))
        except OSError:
            log.exception("job %s: its working files could not be removed", job.id)

    def _remove(self, job_id: str) -> None:
        self._store.delete(job_id)
        self._jobs.pop(job_id, None)
        self._delete.discard(job_id)

    def _drop_old(self) -> None:
        if self._keep is None:
            return
        limit = _now() - self._keep
        for job in list(self._jobs.values()):
            if job.finished_at is not None and job.finished_at < limit:
                self._remove(job.id)


def _now() -> datetime:
    return datetime.now(UTC)
