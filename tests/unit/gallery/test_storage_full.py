"""No room left: said as such, nothing half written, and all is well once there is room again."""

import subprocess
import sys
from pathlib import Path

import pytest
from sphereid.gallery.errors import InvalidRequestError
from sphereid.gallery.service import GalleryService
from sphereid.gallery.store.backup import restore
from sphereid.storage.errors import StorageError
from sqlalchemy import text

from tests.unit.gallery.conftest import Open, face, unit

FILL = """
import resource, signal, sys
from pathlib import Path
from sphereid.gallery.service import GalleryService
from sphereid.storage.errors import StorageFullError
from tests.unit.gallery.conftest import CONTRACT, face, unit

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
service = GalleryService.open(f"sqlite:///{folder}/gallery.db", folder)
vectors = unit(3000, 512)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
stored = 0
try:
    for i, vector in enumerate(vectors):
        service.enroll("default", f"p{i}", [face(vector)], create=True)
        stored += 1
except StorageFullError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    found, gallery = service.identify("default", vectors[: stored + 1], CONTRACT, threshold=0.999)
    assert gallery.faces == stored, (gallery.faces, stored)
    assert [each.outcome for each in found] == ["match"] * stored + ["unknown"]
    service.enroll("default", "after", [face(vectors[-1])], create=True)
    service.close()
    service = GalleryService.open(f"sqlite:///{folder}/gallery.db", folder)
    assert service.get_gallery("default").faces == stored + 1
    service.close()
    print("full at", stored)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size there")
@pytest.mark.usefixtures("sqlite_only")
def test_a_full_disk_loses_nothing_and_says_what_it_is(tmp_path: Path, repo_root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path)],
        cwd=repo_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("full at ")


@pytest.mark.usefixtures("sqlite_only")
def test_a_snapshot_that_would_act_by_itself_is_refused(reopen: Open, tmp_path: Path) -> None:
    service = reopen()
    service.enroll("default", "p0", [face(unit(1)[0])], create=True)
    with service._database.writing() as tx:
        tx.execute(
            text("CREATE TRIGGER spy AFTER INSERT ON faces BEGIN UPDATE identities SET name = 'x'; END")
        )
    service.backup(tmp_path / "with-trigger")
    with service._database.writing() as tx:
        tx.execute(text("DROP TRIGGER spy"))
    service.close()
    with pytest.raises(StorageError, match="trigger"):
        restore(tmp_path / "with-trigger", f"sqlite:///{tmp_path}/gallery.db", tmp_path, replace=True)
    assert reopen().get_gallery("default").faces == 1


@pytest.mark.parametrize("name", ["\u202e", "\u200b\u200d", "Eve\u202egnp", "\u3164", "\u2066x", "\u0301"])
def test_names_that_cannot_be_seen_or_turn_the_text_around(service: GalleryService, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="name"):
        service.create_identity("default", "p", name, {})


@pytest.mark.parametrize("name", ["Zoë Müller", "مریم", "李小龍", "O'Neil-Ng", "👩", "Nguyễn\u200dA", "7"])
def test_names_of_any_script(service: GalleryService, name: str) -> None:
    assert service.create_identity("default", "p", name, {}).name == name


@pytest.mark.skipif(sys.platform == "win32", reason="other permissions there")
def test_nobody_else_reads_the_data_folder(reopen: Open, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    reopen()
    assert tmp_path.stat().st_mode & 0o077 == 0
