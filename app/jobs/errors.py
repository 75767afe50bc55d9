"""What can be wrong with jobs."""


class JobError(Exception):
    """Base; `code` is stable and machine-readable."""

    code = "job_error"


class JobNotFoundError(JobError):
    """No job has this id."""

    code = "job_not_found"


class JobsFullError(JobError):
    """As many jobs as allowed are waiting."""

    code = "too_many_jobs"


class JobFailedError(JobError):
    """A handler gives up; the text goes to the user."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class InterruptedJobError(JobError):
    """A handler stopped because it was asked to."""

    code = "job_interrupted"
