"""Who did what: the audit log."""

from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Query

from sphereid.api.dependencies import Cursor, PageSize, PartsDep, problems
from sphereid.api.schemas import Slug
from sphereid.api.schemas.audit import AuditEntry, AuditPage, AuditState
from sphereid.gallery.audit import Head

router = APIRouter(prefix="/v1/audit", tags=["operation"])


@router.get("", summary="Read the audit log", responses=problems(422))
async def list_audit(
    parts: PartsDep,
    cursor: Cursor = None,
    limit: PageSize = 50,
    gallery: Annotated[Slug | None, Query(description="Only what concerns this gallery.")] = None,
    identity: Annotated[Slug | None, Query(description="Only what concerns this identity.")] = None,
    action: Annotated[
        str | None,
        Query(
            max_length=40,
            pattern=r"^[a-z_.]+$",
            description="Only this action; with a dot at the end all that begin so, such as `identity.`.",
        ),
    ] = None,
) -> AuditPage:
    """Writes and identifications, the newest first. Identifications appear after about a second."""

    def read() -> AuditPage:
        page = parts.gallery.audit.listed(
            cursor=cursor, limit=limit, gallery=gallery, identity=identity, action=action
        )
        return AuditPage(
            items=[AuditEntry.model_validate(each, from_attributes=True) for each in page.items],
            next_cursor=page.cursor,
        )

    return await anyio.to_thread.run_sync(read)


@router.get("/state", summary="Verify the audit log", responses=problems(422))
async def verify_audit(
    parts: PartsDep,
    head: Annotated[
        str | None,
        Query(
            pattern=r"^[0-9]{1,18}:[0-9a-f]{64}$", description="A head that you noted; the log must hold it."
        ),
    ] = None,
) -> AuditState:
    """Computes the chain of hashes again. Changed, removed and inserted entries show, and entries cut off the
    end where a head was noted."""

    def check() -> AuditState:
        verdict = parts.gallery.audit.verify(None if head is None else Head.parse(head))
        return AuditState(
            intact=verdict.fault is None,
            fault=verdict.fault,
            entries=verdict.head.number,
            head=str(verdict.head),
            noted=verdict.noted,
        )

    return await anyio.to_thread.run_sync(check)
