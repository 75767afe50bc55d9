"""What a start finds on disk: good snapshots, old ones, broken ones, and databases of other versions."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sphereid.gallery.gallery_index import GalleryIndex
from sphereid.gallery.service import GalleryService
from sphereid.gallery.store.database import REVISIONS, Database
from sphereid.gallery.store.tables import Base
from sphereid.storage.errors import StorageError, StorageFullError

from tests.unit.gallery.conftest import CONTRACT, Open, face, unit

VECTORS = unit(50)


def fill(service: GalleryService) -> None:
    for i, vector in enumerate(VECTORS):
        service.enroll("default", f"p{i}", [face(vector)], create=True)


def assert_whole(service: GalleryService, missing: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    """Every enrolled face is found under its name, and no other."""
    decisions, gallery = service.identify("default", VECTORS, CONTRACT, threshold=0.999)
    named = {i for i, d in enumerate(decisions) if d.identity is not None and d.identity.id == f"p{i}"}
    assert named == set(range(50)) - missing
    assert gallery.faces == len(named) == service._live["default"].size()


def snapshot(tmp_path: Path) -> Path:
    (header,) = (tmp_path / "index").glob("*/snapshot.json")
    return header


@pytest.fixture
def rebuilds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every start that could not take its snapshot as it is."""
    seen: list[str] = []
    catch_up = GalleryIndex.catch_up

    def noted(self: GalleryIndex) -> None:
        seen.append(self.gallery.id)
        catch_up(self)

    monkeypatch.setattr(GalleryIndex, "catch_up", noted)
    return seen


def test_a_fitting_snapshot_is_taken_as_it_is(reopen: Open, tmp_path: Path, rebuilds: list[str]) -> None:
    fill(reopen())
    service = reopen()
    assert rebuilds == []
    assert_whole(service)
    header = json.loads(snapshot(tmp_path).read_text())
    assert (header["revision"], header["count"], header["contract"]) == (50, 50, CONTRACT)


def damage_index(header: Path) -> None:
    file = header.parent / json.loads(header.read_text())["file"]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate_index(header: Path) -> None:
    file = header.parent / json.loads(header.read_text())["file"]
    file.write_bytes(file.read_bytes()[:100])


def lose_index(header: Path) -> None:
    (header.parent / json.loads(header.read_text())["file"]).unlink()


def garble_header(header: Path) -> None:
    header.write_text('{"file": "50.fai')


def change_contract(header: Path) -> None:
    header.write_text(header.read_text().replace(CONTRACT, "other"))


def lose_all(header: Path) -> None:
    shutil.rmtree(header.parent)


@pytest.mark.parametrize(
    "harm", [damage_index, truncate_index, lose_index, garble_header, change_contract, lose_all]
)
def test_an_unusable_snapshot_is_rebuilt_from_the_database(
    reopen: Open, tmp_path: Path, rebuilds: list[str], harm: object
) -> None:
    fill(reopen())
    reopen().close()
    harm(snapshot(tmp_path))  # type: ignore[operator]
    service = reopen()
    assert rebuilds == ["default"]
    assert_whole(service)


def test_an_old_snapshot_is_brought_up_to_date(reopen: Open, tmp_path: Path, rebuilds: list[str]) -> None:
    service = reopen()
    fill(service)
    service = reopen()
    shutil.copytree(tmp_path / "index", tmp_path / "old")
    for i in range(0, 10, 2):
        service.delete_identity("default", f"p{i}")
    service.enroll("default", "p0", [face(VECTORS[0])], create=True)
    service.close()
    shutil.rmtree(tmp_path / "index")
    shutil.move(tmp_path / "old", tmp_path / "index")
    service = reopen()
    assert rebuilds == ["default"]
    assert_whole(service, missing={2, 4, 6, 8})
    data = b"".join(file.read_bytes() for file in (tmp_path / "index").rglob("*") if file.is_file())
    assert VECTORS[4].tobytes() not in data  # the old snapshot held it


def test_a_write_that_failed_half_way_is_made_good(
    service: GalleryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(service)
    live = service._live["default"]

    def broken(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(live._index, "remove", broken)
        with pytest.raises(MemoryError):
            service.delete_identity("default", "p7")
    assert_whole(service, missing={7})


def test_a_refused_commit_changes_nothing(service: GalleryService, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(service)
    with monkeypatch.context() as patched:

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr("sphereid.gallery.store.touch_gallery", full)
        with pytest.raises(StorageFullError, match="no room is left"):
            service.delete_identity("default", "p7")
    assert_whole(service)


def test_migrations_make_exactly_the_models(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/g.db")
    database.upgrade()
    database.upgrade()
    with database.reading() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    database.close()


def test_the_newest_migration_is_the_one_with_the_highest_number(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(REVISIONS.parent))
    chain = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert chain == sorted((file.name[:4] for file in REVISIONS.glob("[0-9]*.py")), reverse=True)
    url = f"sqlite:///{tmp_path}/g.db"
    database = Database(url)
    database.upgrade()
    with database.writing() as tx:
        assert tx.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == chain[0]
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError, match="newer SphereID"):
        database.upgrade()
    database.close()


def test_a_database_that_is_up_to_date_opens_without_alembic(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/g.db")
    database.upgrade()
    database.close()
    code = (
        "import sys\nfrom sphereid.gallery.store.database import Database\n"
        f"Database('sqlite:///{tmp_path}/g.db').upgrade()\nassert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sqlite_is_set_to_lose_nothing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/g.db")
    with database.reading() as tx:

        def pragma(name: str) -> object:
            return tx.exec_driver_sql(f"PRAGMA {name}").scalar()

        assert pragma("journal_mode") == "wal"
        assert pragma("synchronous") == 2
        assert pragma("foreign_keys") == 1
        assert pragma("secure_delete") == 1
        assert pragma("busy_timeout") == 10_000
    database.close()


@pytest.mark.usefixtures("sqlite_only")
def test_a_newer_schema_is_refused_with_advice(reopen: Open, tmp_path: Path) -> None:
    service = reopen()
    with service._database.writing() as tx:
        current = tx.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    service.close()
    with pytest.raises(StorageError, match="newer SphereID"):
        reopen()
    database = Database(f"sqlite:///{tmp_path}/gallery.db")  # and the folder's lock was let go
    with database.writing() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = ?", (current,))
    database.close()
    reopen()


@pytest.mark.parametrize("url", ["sqlite://", "nonsense", "mysql+nodriver://x/y"])
def test_unusable_urls_say_so(tmp_path: Path, url: str) -> None:
    with pytest.raises(StorageError):
        GalleryService.open(url, tmp_path)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "gallery.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StorageError, match="not a database"):
        GalleryService.open(f"sqlite:///{tmp_path}/gallery.db", tmp_path)


def test_vectors_come_back_bit_for_bit(reopen: Open) -> None:
    fill(reopen())
    index = reopen()._live["default"]._index
    assert index is not None
    similarities, _ = index.search(VECTORS, 1)
    expected = np.einsum("ij,ij->i", VECTORS, VECTORS)
    np.testing.assert_allclose(similarities[:, 0], expected, atol=1e-6)
