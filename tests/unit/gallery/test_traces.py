"""Deleted means gone: every file under the data folder is searched for the embedding's bytes."""

from pathlib import Path

import numpy as np
import pytest
from sphereid.gallery.service import GalleryService
from sphereid.gallery.types import GalleryRules, Vectors

from tests.unit.gallery.conftest import Open, face, unit


def pieces_left(folder: Path, vectors: Vectors) -> int:
    """How many of the vectors' pairs of numbers (8 bytes) occur anywhere, at any offset, in the folder's
    files."""
    data = b"".join(file.read_bytes() + b"\x00" * 16 for file in folder.rglob("*") if file.is_file())
    assert len(data) > 64
    windows = [np.frombuffer(data[offset:], "<u8", count=len(data) // 8 - 1) for offset in range(8)]
    return int(np.isin(vectors.reshape(-1, 2).view("<u8"), np.concatenate(windows)).sum())


def enrolled(service: GalleryService, dimension: int) -> Vectors:
    """120 faces of 40 people, written in an order that splits the pages of the table."""
    vectors = unit(120, dimension)
    for turn in range(3):
        for person in np.random.default_rng(turn).permutation(40).tolist():
            service.enroll("default", f"p{person}", [face(vectors[person * 3 + turn])], create=True)
    return vectors


@pytest.mark.usefixtures("sqlite_only")
@pytest.mark.parametrize("dimension", [16, 128, 256])
def test_deleted_identities_leave_nothing(reopen: Open, tmp_path: Path, dimension: int) -> None:
    service = reopen()
    vectors = enrolled(service, dimension)
    service = reopen()  # now there is a snapshot too
    assert pieces_left(tmp_path, vectors) == vectors.size // 2
    for person in range(0, 40, 2):
        receipt = service.delete_identity("default", f"p{person}")
        assert (receipt.identities, receipt.faces, receipt.scrubbed) == (1, 3, True)
    gone = vectors.reshape(40, 3, -1)[::2].reshape(60, -1)
    kept = vectors.reshape(40, 3, -1)[1::2].reshape(60, -1)
    assert pieces_left(tmp_path, gone) == 0
    assert pieces_left(tmp_path, kept) == kept.size // 2
    service = reopen()
    assert pieces_left(tmp_path, gone) == 0
    assert service.get_gallery("default").faces == 60


@pytest.mark.parametrize("template", ["best", "mean"])
def test_a_deleted_face_and_a_deleted_gallery_leave_nothing(
    reopen: Open, tmp_path: Path, template: str
) -> None:
    service = reopen()
    service.create_gallery("visitors", None, {}, GalleryRules(template=template))  # type: ignore[arg-type]
    vectors = unit(9)
    made = [service.enroll("visitors", "v", [face(v)], create=True).faces[0] for v in vectors]
    service = reopen()
    receipt = service.delete_face("visitors", "v", made[4].id)
    assert (receipt.identities, receipt.faces, receipt.scrubbed) == (0, 1, True)
    assert pieces_left(tmp_path, vectors[4:5]) == 0
    service = reopen()
    assert service.delete_gallery("visitors").faces == 8
    assert pieces_left(tmp_path, vectors) == 0
    assert not [file for file in (tmp_path / "index").rglob("*") if file.is_file()]


@pytest.mark.usefixtures("sqlite_only")
def test_a_reader_that_holds_the_log_is_admitted_in_the_receipt(
    service: GalleryService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sphereid.gallery.store.database.SCRUB_WAIT_S", 0.05)
    vectors = unit(1)
    service.enroll("default", "p", [face(vectors[0])], create=True)
    with service._database.reading() as tx:
        tx.exec_driver_sql("SELECT count(*) FROM faces").all()
        assert not service.delete_identity("default", "p").scrubbed
    assert service._maintenance.scrub()
    assert pieces_left(tmp_path, vectors) == 0
