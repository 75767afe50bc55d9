"""Jobs survive what happens to services, one at a time, and leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sphereid.errors import CanceledError, CodedError
from sphereid.jobs.errors import JobNotFoundError, JobsFullError
from sphereid.jobs.runner import MAX_ATTEMPTS, JobRunner
from sphereid.jobs.store import JobStore
from sphereid.jobs.types import Job
from sphereid.progress import Progress

LIMIT = 30.0


class NoGoodError(CodedError):
    code = "no_good"


class Steps:
    """A handler that counts in a file and waits where it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.cleaned: list[str] = []

    def __call__(
        self,
        job: Job,
        folder: Path,
        report: Callable[[Progress], None],
        canceled: Callable[[], bool],
    ) -> Mapping[str, Any]:
        trail = folder / "trail"
        trail.write_text((trail.read_text() if trail.exists() else "") + "x")
        report(Progress("count", 1, 2, 1.0, 1.0))
        self.begun.set()
        if job.params.get("hold"):
            while not self.go.wait(0.001):
                if canceled():
                    raise CanceledError("stopped")
        if "fail" in job.params:
            raise NoGoodError(job.params["fail"])
        if job.params.get("crash"):
            raise RuntimeError("secret path /etc/passwd")
        return {"trail": trail.read_text()}

    def clean(self, job: Job, folder: Path) -> None:
        self.cleaned.append(job.id)
        (folder / "trail").unlink(missing_ok=True)


@contextmanager
def running(root: Path, handler: Steps, **settings: Any) -> Iterator[JobRunner]:
    runner = JobRunner(root, {"steps": handler}, **settings)
    runner.start()
    try:
        yield runner
    finally:
        runner.stop()


def submit(runner: JobRunner, **params: Any) -> str:
    job_id, _ = runner.reserve()
    return runner.submit(job_id, "steps", "some work", params).id


def ended(runner: JobRunner, job_id: str) -> Job:
    waiter = threading.Event()
    for _ in range(int(LIMIT / 0.002)):
        job = runner.get(job_id)
        if job.final:
            return job
        waiter.wait(0.002)
    raise AssertionError("the job did not end")


def test_jobs_run_in_order_and_are_remembered(tmp_path: Path) -> None:
    handler = Steps()
    with running(tmp_path, handler) as runner:
        ids = [submit(runner, number=i) for i in range(3)]
        jobs = [ended(runner, job_id) for job_id in ids]
        assert [job.state for job in jobs] == ["succeeded"] * 3
        assert jobs[0].result == {"trail": "x"}
        assert jobs[0].finished_at is not None
        assert handler.cleaned == ids
        assert [job.id for job in runner.list()] == ids[::-1]
    with running(tmp_path, Steps()) as again:
        assert [again.get(job_id) for job_id in ids] == jobs


def test_failures_tell_the_user_what_to_do_and_nothing_else(tmp_path: Path) -> None:
    with running(tmp_path, Steps()) as runner:
        known = ended(runner, submit(runner, fail="send a better one"))
        foreseen_by_nobody = ended(runner, submit(runner, crash=True))
    assert known.failure is not None
    assert (known.state, known.failure.code, known.failure.detail) == (
        "failed",
        "no_good",
        "send a better one",
    )
    assert foreseen_by_nobody.failure is not None
    assert foreseen_by_nobody.failure.code == "internal_error"
    assert "passwd" not in foreseen_by_nobody.failure.detail


def test_cancel_waiting_and_running(tmp_path: Path) -> None:
    handler = Steps()
    with running(tmp_path, handler) as runner:
        first, second = submit(runner, hold=True), submit(runner)
        assert handler.begun.wait(LIMIT)
        assert runner.cancel(second).state == "canceled"
        assert runner.cancel(first).state == "running"
        assert ended(runner, first).state == "canceled"
        assert runner.cancel(first).state == "canceled"  # once more changes nothing
        assert ended(runner, submit(runner)).state == "succeeded"


def test_delete_removes_everything_even_while_it_runs(tmp_path: Path) -> None:
    handler = Steps()
    with running(tmp_path, handler) as runner:
        done = submit(runner)
        ended(runner, done)
        runner.delete(done)
        handler.begun.clear()
        busy = submit(runner, hold=True)
        assert handler.begun.wait(LIMIT)
        runner.delete(busy)
        with pytest.raises(JobNotFoundError):
            runner.get(busy)
        assert runner.list() == []
        ended(runner, submit(runner))  # the worker is free again: the deleted job is gone
        assert not (tmp_path / busy).exists()
        assert not (tmp_path / done).exists()
        for unknown in ("0" * 16, "../../etc", ""):
            with pytest.raises(JobNotFoundError):
                runner.delete(unknown)


def test_the_queue_is_bounded(tmp_path: Path) -> None:
    handler = Steps()
    with running(tmp_path, handler, max_waiting=2) as runner:
        submit(runner, hold=True)
        assert handler.begun.wait(LIMIT)
        late, folder = runner.reserve()
        for _ in range(2):
            submit(runner)
        with pytest.raises(JobsFullError):
            runner.reserve()
        with pytest.raises(JobsFullError):
            runner.submit(late, "steps", "too late", {})
        assert not folder.exists()
        handler.go.set()


def test_stop_interrupts_and_start_goes_on(tmp_path: Path) -> None:
    handler = Steps()
    with running(tmp_path, handler) as runner:
        job_id = submit(runner, hold=True)
        waiting = submit(runner)
        assert handler.begun.wait(LIMIT)
    assert handler.cleaned == []
    fresh = Steps()
    fresh.go.set()
    with running(tmp_path, fresh) as runner:
        job = ended(runner, job_id)
        assert job.result == {"trail": "xx"}  # it found what the first attempt left
        assert job.attempts == 1  # a stop is no crash
        assert ended(runner, waiting).state == "succeeded"


CHILD = """
import sys, threading
from pathlib import Path
from tests.unit.jobs.test_runner import Steps, running, submit
handler = Steps()
with running(Path(sys.argv[1]), handler) as runner:
    job = submit(runner, hold=True)
    print(job, submit(runner), flush=True)
    handler.begun.wait(30)
    print("begun", flush=True)
    threading.Event().wait(60)
"""


def test_a_killed_process_loses_no_job(tmp_path: Path, repo_root: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=repo_root,
        env={**os.environ, "PYTHONPATH": str(repo_root)},
    )
    assert child.stdout is not None
    first, second = child.stdout.readline().split()
    assert child.stdout.readline() == "begun\n"
    child.send_signal(signal.SIGKILL)
    child.wait(LIMIT)
    handler = Steps()
    handler.go.set()
    with running(tmp_path, handler) as runner:
        job = ended(runner, first)
        assert (job.state, job.attempts, job.result) == ("succeeded", 2, {"trail": "xx"})
        assert ended(runner, second).state == "succeeded"


def test_a_job_that_takes_the_process_with_it_is_given_up(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job_id, _ = store.new_folder()
    store.save(Job(job_id, "steps", "bomb", {}, "running", datetime.now(UTC), attempts=MAX_ATTEMPTS))
    with running(tmp_path, Steps()) as runner:
        job = runner.get(job_id)
        assert job.state == "failed"
        assert job.failure is not None
        assert job.failure.code == "job_crashed"


def test_litter_goes_and_what_is_strange_stays(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    upload, folder = store.new_folder()
    (folder / "upload").write_bytes(b"half")
    half = tmp_path / f"{'a' * 16}.deleted"
    half.mkdir()
    (tmp_path / "notes").mkdir()
    broken, broken_folder = store.new_folder()
    (broken_folder / "job.json").write_text("{")
    assert store.load() == []
    assert not folder.exists()
    assert not half.exists()
    assert (tmp_path / "notes").exists()
    assert broken_folder.exists()
    assert {upload, broken}


def test_old_jobs_go(tmp_path: Path) -> None:
    with running(tmp_path, Steps()) as runner:
        old, new = submit(runner), submit(runner)
        ended(runner, new)
        past = replace(runner.get(old), finished_at=datetime.now(UTC) - timedelta(days=9))
    JobStore(tmp_path).save(past)
    with running(tmp_path, Steps(), keep=timedelta(days=7)) as runner:
        assert [job.id for job in runner.list()] == [new]
        assert not (tmp_path / old).exists()


def test_the_record_is_plain_json_without_paths(tmp_path: Path) -> None:
    with running(tmp_path, Steps()) as runner:
        job_id = submit(runner, text="ü")
        ended(runner, job_id)
    record = json.loads((tmp_path / job_id / "job.json").read_text(encoding="utf-8"))
    assert record["params"] == {"text": "ü"}
    assert str(tmp_path) not in json.dumps(record)
