"""A snapshot holds one moment, and restoring it brings that moment back."""

import threading
from pathlib import Path

import pytest
from sphereid.gallery.store.backup import restore
from sphereid.storage.errors import StorageError

from tests.unit.gallery.conftest import CONTRACT, Open, face, unit

VECTORS = unit(60)


@pytest.mark.usefixtures("sqlite_only")
def test_there_and_back(reopen: Open, tmp_path: Path) -> None:
    service, url = reopen(), f"sqlite:///{tmp_path}/gallery.db"
    for i in range(20):
        service.enroll("default", f"p{i}", [face(VECTORS[i])], create=True)
    service.delete_identity("default", "p3")
    file = tmp_path / "saved.sphereid"
    service.backup(file)
    assert VECTORS[3].tobytes() not in file.read_bytes()
    assert VECTORS[4].tobytes() in file.read_bytes()
    service.delete_identity("default", "p4")
    service.enroll("default", "late", [face(VECTORS[30])], create=True)
    with pytest.raises(StorageError, match="exists already"):
        service.backup(file)
    with pytest.raises(StorageError, match="another process"):
        restore(file, url, tmp_path, replace=True)
    service.close()
    with pytest.raises(StorageError, match="replace"):
        restore(file, url, tmp_path)
    restore(file, url, tmp_path, replace=True)
    service = reopen()
    decisions, gallery = service.identify("default", VECTORS[[3, 4, 30]], CONTRACT, threshold=0.999)
    assert [d.identity.id if d.identity else None for d in decisions] == [None, "p4", None]
    assert (gallery.faces, gallery.revision) == (19, 21)


@pytest.mark.usefixtures("sqlite_only")
def test_it_is_consistent_while_writes_go_on(reopen: Open, tmp_path: Path) -> None:
    service = reopen()
    stop = threading.Event()

    def write() -> None:
        for i, vector in enumerate(VECTORS):
            if stop.is_set():
                return
            service.enroll("default", f"p{i}", [face(vector)], create=True)

    writer = threading.Thread(target=write)
    writer.start()
    for turn in range(5):
        service.backup(tmp_path / f"{turn}.sphereid")
    stop.set()
    writer.join()
    service.close()
    for turn in range(5):
        restore(tmp_path / f"{turn}.sphereid", f"sqlite:///{tmp_path}/gallery.db", tmp_path, replace=True)
        service = reopen()
        gallery = service.get_gallery("default")
        people = service.list_identities("default", limit=1000).items
        assert gallery.faces == gallery.identities == gallery.revision == len(people)
        assert service._live["default"].size() == gallery.faces
        service.close()


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\x00" + b"\x00" * 4000])
def test_a_bad_file_is_refused_and_nothing_is_touched(reopen: Open, tmp_path: Path, content: bytes) -> None:
    service = reopen()
    service.enroll("default", "p0", [face(VECTORS[0])], create=True)
    service.close()
    bad = tmp_path / "bad"
    bad.write_bytes(content)
    with pytest.raises(StorageError):
        restore(bad, f"sqlite:///{tmp_path}/gallery.db", tmp_path, replace=True)
    with pytest.raises(StorageError, match="no file"):
        restore(tmp_path / "none", f"sqlite:///{tmp_path}/gallery.db", tmp_path, replace=True)
    assert reopen().get_gallery("default").faces == 1
