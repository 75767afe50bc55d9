"""What can be wrong with jobs."""

from sphereid.errors import CodedError


class JobError(CodedError):
    """Base of what the runner refuses."""


class JobNotFoundError(JobError):
    """No job has this id."""

    code = "job_not_found"


class JobsFullError(JobError):
    """As many jobs as allowed are waiting."""

    code = "too_many_jobs"
