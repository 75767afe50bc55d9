"""Jobs on disk: a folder each, with `job.json` and whatever the handler puts beside it."""

import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sphereid.jobs.types import Failure, Job
from sphereid.progress import Progress

_RECORD: Final = "job.json"
_ID: Final = re.compile(r"[a-z0-9]{16}")
_DELETED: Final = ".deleted"
log = logging.getLogger(__name__)


class JobStore:
    """Reads and writes jobs. A write is whole or not there, whenever the process dies."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def new_folder(self) -> tuple[str, Path]:
        """An unused id and its empty folder. Until the job is saved, `load` takes the folder for litter."""
        job_id = secrets.token_hex(8)
        folder = self.root / job_id
        folder.mkdir(mode=0o700)
        return job_id, folder

    def folder(self, job_id: str) -> Path:
        """The job's folder."""
        if not _ID.fullmatch(job_id):
            raise ValueError("not a job's id")
        return self.root / job_id

    def save(self, job: Job) -> None:
        """Write the job's record; on return it survives a power cut."""
        path = self.folder(job.id) / _RECORD
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(asdict(job), file, default=_plain)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def load(self) -> list[Job]:
        """Every job, oldest first. Removes folders without a job: broken uploads, unfinished deletes."""
        jobs = []
        for folder in sorted(self.root.iterdir()):
            if not folder.is_dir() or not (_ID.fullmatch(folder.name) or folder.name.endswith(_DELETED)):
                continue
            record = folder / _RECORD
            if folder.name.endswith(_DELETED) or not record.is_file():
                shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                jobs.append(_job(json.loads(record.read_text(encoding="utf-8"))))
            except (ValueError, TypeError, KeyError):
                log.warning("job %s has an unreadable record and is left alone", folder.name)
        return sorted(jobs, key=lambda job: (job.created_at, job.id))

    def delete(self, job_id: str) -> None:
        """Remove the job and all its files."""
        folder = self.folder(job_id)
        doomed = folder.with_name(job_id + _DELETED)
        folder.rename(doomed)  # from here on a restart finishes the work
        shutil.rmtree(doomed)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be stored")


def _job(record: Mapping[str, Any]) -> Job:
    times = {
        key: datetime.fromisoformat(record[key]) if record[key] is not None else None
        for key in ("created_at", "started_at", "finished_at")
    }
    progress = record["progress"]
    failure = record["failure"]
    parts: dict[str, Any] = {
        **record,
        **times,
        "progress": None if progress is None else Progress(**progress),
        "failure": None if failure is None else Failure(**failure),
    }
    return Job(**parts)
