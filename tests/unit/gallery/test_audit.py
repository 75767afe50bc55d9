"""The audit log holds who did what, nothing biometric, and shows when somebody changed it."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sphereid.gallery import audit
from sphereid.gallery.audit import Head, acting
from sphereid.gallery.errors import InvalidRequestError
from sphereid.gallery.service import GalleryService
from sphereid.gallery.store.backup import restore
from sphereid.gallery.store.tables import AUDIT, AUDIT_HEAD
from sphereid.gallery.types import CosinePolicy
from sqlalchemy import delete, select, update

from tests.unit.gallery.conftest import CONTRACT, Open, face, unit

PEOPLE = unit(6)


def act(service: GalleryService) -> None:
    with acting("key:12345678", "request-1"):
        service.update_gallery("default", policy=CosinePolicy(0.9))
        for i, vector in enumerate(PEOPLE):
            service.enroll("default", f"p{i}", [face(vector)], create=True, name=f"Secret Name {i}")
        service.merge_identities("default", "p0", "p1")
        service.delete_identity("default", "p2")
    service.identify("default", PEOPLE[2:4], CONTRACT)
    service.verify("default", "p3", PEOPLE[4], CONTRACT)
    service.audit.flush()


def said(service: GalleryService) -> list[tuple[str, str | None, str]]:
    entries = service.audit.listed(limit=500).items
    return [(entry.action, entry.identity, entry.actor) for entry in reversed(entries)]


def test_every_write_and_identification_is_there(service: GalleryService) -> None:
    act(service)
    key = "key:12345678"
    assert said(service) == [
        ("gallery.create", None, "service"),
        ("gallery.update", None, key),
        *[("face.enroll", f"p{i}", key) for i in range(6)],
        ("identity.merge", "p0", key),
        ("identity.delete", "p2", key),
        ("identify", None, "service"),
        ("identify", "p3", "service"),
        ("verify", "p3", "service"),
    ]
    newest = service.audit.listed(limit=3).items
    assert [dict(entry.details) for entry in newest[1:]] == [
        {"decision": "match", "similarity": 1.0, "threshold": 0.9},
        {
            "decision": "unknown",
            "similarity": pytest.approx(float((PEOPLE[[0, 1, 3, 4, 5]] @ PEOPLE[2]).max()), abs=1e-5),
            "threshold": 0.9,
        },
    ]
    assert newest[0].details["decision"] == "unknown"
    assert {entry.request_id for entry in service.audit.listed(action="face.").items} == {"request-1"}
    assert service.audit.verify().fault is None


def test_lists_come_in_pages_and_by_subject(service: GalleryService) -> None:
    act(service)
    whole = service.audit.listed(limit=500).items
    paged, cursor = [], None
    while True:
        page = service.audit.listed(cursor=cursor, limit=4)
        paged += page.items
        if (cursor := page.cursor) is None:
            break
    assert tuple(paged) == whole
    assert [e.action for e in service.audit.listed(gallery="default", identity="p3").items] == [
        "verify",
        "identify",
        "face.enroll",
    ]
    assert {e.action for e in service.audit.listed(action="identity.").items} == {
        "identity.merge",
        "identity.delete",
    }
    assert service.audit.listed(action="identity").items == ()
    with pytest.raises(InvalidRequestError, match="cursor"):
        service.audit.listed(cursor="x")


def test_hashes_follow_the_documented_rule(service: GalleryService) -> None:
    act(service)
    before = "0" * 64
    for entry in reversed(service.audit.listed(limit=500).items):
        names = ("number", "at", "actor", "request_id", "action", "gallery", "identity", "details")
        text = json.dumps(
            {name: getattr(entry, name) for name in names}, sort_keys=True, separators=(",", ":")
        )
        before = hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()
        assert entry.hash == before


def change(service: GalleryService) -> None:
    with service._database.writing() as tx:
        tx.execute(update(AUDIT).where(AUDIT.c.number == 5).values(actor="somebody else"))


def remove(service: GalleryService) -> None:
    with service._database.writing() as tx:
        tx.execute(delete(AUDIT).where(AUDIT.c.number == 5))


def cut_off(service: GalleryService) -> None:
    with service._database.writing() as tx:
        tx.execute(delete(AUDIT).where(AUDIT.c.number > 5))


def cut_off_with_care(service: GalleryService) -> None:
    cut_off(service)
    with service._database.writing() as tx:
        digest = tx.execute(select(AUDIT.c.hash).where(AUDIT.c.number == 5)).scalar()
        tx.execute(update(AUDIT_HEAD).values(number=5, hash=digest))


def write_anew(service: GalleryService) -> None:
    with service._database.writing() as tx:
        entries = [audit.AuditEntry(*row) for row in tx.execute(select(AUDIT).order_by(AUDIT.c.number))]
        tx.execute(delete(AUDIT))
        tx.execute(delete(AUDIT_HEAD))
        events = [audit.Event(entry.action, "elsewhere", entry.identity) for entry in entries]
        audit.record(tx, events)


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (change, "entry 5 was changed"),
        (remove, "entries 5 to 5 are missing"),
        (cut_off, "ends at entry 5"),
        (cut_off_with_care, "was cut off"),
        (write_anew, "was written anew"),
    ],
)
def test_tampering_shows(
    reopen: Open, tmp_path: Path, harm: Callable[[GalleryService], None], fault: str
) -> None:
    service = reopen()
    act(service)
    noted = (tmp_path / "audit.head").read_text()
    harm(service)
    verdict = service.audit.verify()
    assert verdict.fault is not None
    assert fault in verdict.fault
    service = reopen()  # a restart, and what is written after it, hide nothing
    service.create_identity("default", "later", None, {})
    service.audit.flush()
    assert service.audit.verify().fault is not None
    if harm in (cut_off_with_care, write_anew):
        assert (tmp_path / "audit.head").read_text() == noted


def test_without_a_noted_head_a_careful_cut_is_not_seen(service: GalleryService, tmp_path: Path) -> None:
    act(service)
    elsewhere = service.audit.verify().head
    cut_off_with_care(service)
    (tmp_path / "audit.head").unlink()
    verdict = service.audit.verify()
    assert (verdict.fault, verdict.noted) == (None, False)
    assert service.audit.verify(elsewhere).fault is not None
    assert Head.parse(str(elsewhere)) == elsewhere
    with pytest.raises(InvalidRequestError):
        Head.parse("12")


def test_a_failed_write_is_not_in_it(service: GalleryService, monkeypatch: pytest.MonkeyPatch) -> None:
    before = said(service)
    with monkeypatch.context() as patched:
        patched.setattr("sphereid.gallery.store.answers.remember", lambda *_: 1 / 0)
        patched.setattr("sphereid.gallery.store.touch_gallery", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            service.create_identity("default", "p", None, {})
    assert said(service) == before


@pytest.mark.parametrize(("level", "expected"), [("writes", ["gallery.create", "face.enroll"]), ("off", [])])
def test_it_can_be_narrowed(tmp_path: Path, level: str, expected: list[str]) -> None:
    service = GalleryService.open(
        f"sqlite:///{tmp_path}/g.db",
        tmp_path,
        audit_level=level,  # type: ignore[arg-type]
    )
    service.enroll("default", "p", [face(PEOPLE[0])], create=True)
    service.identify("default", PEOPLE[:1], CONTRACT)
    service.audit.flush()
    assert [action for action, _, _ in said(service)] == expected
    service.close()


def test_a_scene_is_summed_up(service: GalleryService) -> None:
    service.update_gallery("default", policy=CosinePolicy(0.9))
    service.enroll("default", "p0", [face(PEOPLE[0])], create=True)
    service.audit.flush()
    with service.audit._writing:  # no flush in between
        for _ in range(25):
            service.identify("default", PEOPLE[:2], CONTRACT, sustained=True)
    service.audit.flush()
    entries = service.audit.listed(action="identify").items
    assert [(e.identity, e.details["count"]) for e in reversed(entries)] == [("p0", 25), (None, 25)]


def test_concurrent_writes_make_one_chain(service: GalleryService) -> None:
    service.create_gallery("other", None, {}, service._default_rules)

    def write(gallery: str) -> None:
        for i in range(20):
            service.create_identity(gallery, f"p{i}", None, {})
            service.identify(gallery, PEOPLE[:1], CONTRACT)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("default", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    service.audit.flush()
    verdict = service.audit.verify()
    assert (verdict.fault, verdict.head.number) == (None, 82)


@pytest.mark.usefixtures("sqlite_only")
def test_a_restored_snapshot_goes_on(reopen: Open, tmp_path: Path) -> None:
    service = reopen()
    act(service)
    service.backup(tmp_path / "saved")
    entries = service.audit.verify().head.number
    service.create_identity("default", "lost", None, {})
    service.close()
    restore(tmp_path / "saved", f"sqlite:///{tmp_path}/gallery.db", tmp_path, replace=True)
    service = reopen()
    assert service.audit.listed(limit=1).items[0].action == "restore"
    verdict = service.audit.verify()
    assert (verdict.fault, verdict.head.number, verdict.noted) == (None, entries + 1, True)


def test_nothing_biometric_and_no_names(service: GalleryService) -> None:
    act(service)
    with service._database.reading() as tx:
        text = json.dumps([[str(v) for v in row] for row in tx.execute(select(AUDIT))])
    assert "Secret" not in text
    assert max(len(json.dumps(dict(e.details))) for e in service.audit.listed(limit=500).items) < 120
