"""The JSON of the audit log."""

from pydantic import Field, JsonValue

from sphereid.api.schemas import Output


class AuditEntry(Output):
    """Something that was done. hash: over this entry and the hash of the one before it."""

    number: int
    at: str = Field(description="UTC, ISO 8601.")
    actor: str = Field(
        description="`key:` with the first digits of the API key's SHA-256, `cli:` with the system's user, "
        "`job:` with the job's id, `anonymous` where no key is wanted, or `service`.",
        examples=["key:9f86d081"],
    )
    request_id: str | None
    action: str = Field(examples=["identity.delete", "identify"])
    gallery: str | None
    identity: str | None
    details: dict[str, JsonValue]
    hash: str


class AuditPage(Output):
    """Entries, the newest first, and where the next page begins; null on the last."""

    items: list[AuditEntry]
    next_cursor: str | None


class AuditState(Output):
    """Whether the log is whole. noted: whether there was a head outside of the database to compare with."""

    intact: bool
    fault: str | None
    entries: int
    head: str = Field(description="NUMBER:HASH of the last entry; note it elsewhere.")
    noted: bool
