"""Encryption at rest: no file holds an embedding or a picture in the plain, and only the right key opens."""

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sphereid.gallery import key_rotation, store
from sphereid.gallery.service import GalleryService
from sphereid.gallery.store.backup import restore
from sphereid.gallery.store.database import Database
from sphereid.gallery.types import GalleryRules
from sphereid.storage.encrypted_files import EncryptedFiles, rewrite, settle
from sphereid.storage.errors import StorageError
from sphereid.storage.vault import OVERHEAD, SealedFile, Vault

from tests.unit.gallery.conftest import CONTRACT, face, unit

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))
VECTORS = unit(40, dimension=64)
CROP = bytes(np.random.default_rng(3).integers(0, 256, 600, dtype=np.uint8))


@contextmanager
def gallery(folder: Path, key: bytes | None = KEY) -> Iterator[GalleryService]:
    vault = None if key is None else Vault(key)
    service = GalleryService.open(f"sqlite:///{folder}/gallery.db", folder, vault=vault)
    try:
        yield service
    finally:
        service.close()


def fill(service: GalleryService) -> None:
    service.create_gallery("g", None, {}, GalleryRules(keep_crops=True))
    for i, vector in enumerate(VECTORS):
        service.enroll("g", f"p{i}", [replace(face(vector), crop=CROP)], create=True)
    service.unknowns.set_rules("g", keep=True)
    service.unknowns.keep("g", [replace(face(unit(1, 64, seed=9)[0]), crop=CROP)])


def found(service: GalleryService) -> list[str | None]:
    decisions, _ = service.identify("g", VECTORS, CONTRACT, threshold=0.999)
    return [None if d.identity is None else d.identity.id for d in decisions]


def plain_pieces(folder: Path) -> int:
    """Pieces of 16 bytes, of embeddings and pictures, in any file."""
    everything = b"\n".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    secrets = [vector.tobytes() for vector in (*VECTORS, unit(1, 64, seed=9)[0])] + [CROP]
    return sum(s[i : i + 16] in everything for s in secrets for i in range(0, len(s) - 16, 16))


EVERYBODY = [f"p{i}" for i in range(len(VECTORS))]


def test_no_file_holds_the_plain_bytes(tmp_path: Path) -> None:
    with gallery(tmp_path) as service:
        fill(service)
        service._maintenance.save_all()
        assert list((tmp_path / "index").rglob("*.faiss"))
        service.backup(tmp_path / "saved.snapshot")
        assert plain_pieces(tmp_path) == 0  # while the log is full
        assert found(service) == EVERYBODY
    assert plain_pieces(tmp_path) == 0
    with gallery(tmp_path) as service:
        assert service._live["g"]._saved_revision == service.get_gallery("g").revision  # from the snapshot
        assert found(service) == EVERYBODY
        with service._database.reading() as tx:
            owner = store.get_identity(tx, "g", "p7")
            (number,) = store.faces_of(tx, owner.number)
            np.testing.assert_array_equal(store.vectors(tx, [int(number)])[1][0], VECTORS[7])
        (cluster,) = service.unknowns.clusters("g")
        assert service.unknowns.picture("g", cluster.faces[0].id) == CROP


def test_the_test_finds_plain_bytes(tmp_path: Path) -> None:
    with gallery(tmp_path, None) as service:
        fill(service)
    assert plain_pieces(tmp_path) > 600


@pytest.mark.parametrize(
    ("made", "opened", "fault"),
    [(KEY, OTHER, "another key"), (KEY, None, "is encrypted: set"), (None, KEY, "not encrypted yet")],
)
def test_a_wrong_key_is_said_at_the_start(
    tmp_path: Path, made: bytes | None, opened: bytes | None, fault: str
) -> None:
    with gallery(tmp_path, made) as service:
        fill(service)
    with pytest.raises(StorageError, match=fault), gallery(tmp_path, opened):
        pass
    with gallery(tmp_path, made) as service:
        assert found(service) == EVERYBODY


@pytest.mark.parametrize(("old", "new"), [(KEY, OTHER), (None, KEY), (KEY, None)])
def test_rotation(tmp_path: Path, old: bytes | None, new: bytes | None) -> None:
    with gallery(tmp_path, old) as service:
        fill(service)
    database = Database(f"sqlite:///{tmp_path}/gallery.db")
    before, after = (None if key is None else Vault(key) for key in (old, new))
    done: list[int] = []
    key_rotation.rotate(database, before, after, done.append)
    key_rotation.forget_snapshots(tmp_path)
    assert database.scrub()
    assert sum(done) == key_rotation.count(database) == 82
    database.close()
    assert (plain_pieces(tmp_path) == 0) == (new is not None)
    with pytest.raises(StorageError), gallery(tmp_path, old):
        pass
    with gallery(tmp_path, new) as service:
        assert found(service) == EVERYBODY
        assert service.audit.listed(action="key.rotate").items[0].details == {"encrypted": new is not None}
        assert service.audit.verify().fault is None


def test_a_rotation_that_breaks_changes_nothing(tmp_path: Path) -> None:
    with gallery(tmp_path) as service:
        fill(service)
    database = Database(f"sqlite:///{tmp_path}/gallery.db")

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        key_rotation.rotate(database, Vault(KEY), Vault(OTHER), stop)
    for wrong in (Vault(OTHER), None):
        with pytest.raises(StorageError):
            key_rotation.rotate(database, wrong, Vault(KEY))
    database.close()
    with gallery(tmp_path) as service:
        assert found(service) == EVERYBODY


def test_a_snapshot_of_an_encrypted_gallery_wants_its_key(tmp_path: Path) -> None:
    with gallery(tmp_path / "a") as service:
        fill(service)
        service.backup(tmp_path / "saved")
    restore(tmp_path / "saved", f"sqlite:///{tmp_path}/b/gallery.db", tmp_path / "b")
    with pytest.raises(StorageError, match="is encrypted"), gallery(tmp_path / "b", None):
        pass
    with gallery(tmp_path / "b") as service:
        assert found(service) == EVERYBODY


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=20))
def test_values(plain: bytes, bound: bytes) -> None:
    vault = Vault(KEY)
    sealed = vault.seal(plain, bound)
    assert len(sealed) == len(plain) + OVERHEAD
    assert vault.open(sealed, bound) == plain
    assert sealed != vault.seal(plain, bound)
    changed = bytearray(sealed)
    changed[len(sealed) // 2] ^= 1
    for other, belongs, opener in (
        (bytes(changed), bound, vault),
        (sealed, b"", vault),
        (sealed, bound, Vault(OTHER)),
        (sealed[:10], bound, vault),
    ):
        with pytest.raises(StorageError):
            opener.open(other, belongs)


CHUNK = 1 << 18


def sealed(path: Path, plain: bytes, step: int = 70_001) -> bytes:
    """What a file holds on the disk."""
    with io.BufferedWriter(SealedFile(Vault(KEY), path.open("w+b"), writing=True)) as file:
        for start in range(0, len(plain), step):
            file.write(plain[start : start + step])
    return path.read_bytes()


def opened(path: Path, key: bytes = KEY) -> io.BufferedReader:
    return io.BufferedReader(SealedFile(Vault(key), path.open("rb")))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_files(tmp_path: Path, size: int) -> None:
    plain, path = os.urandom(size), tmp_path / "file"
    on_disk = sealed(path, plain)
    assert size < 16 or plain[:16] not in on_disk  # a single byte may stand there by chance
    with opened(path) as file:
        assert file.read(size // 2) + file.read() == plain
        assert file.read(1) == b""
        assert file.seek(-min(size, 9), os.SEEK_END) == size - min(size, 9)
        assert file.read() == plain[-9:]
    whole = [on_disk[: 32 + n * (CHUNK + OVERHEAD)] for n in range(size // CHUNK)]
    for broken in (on_disk[:-1], on_disk[:20], on_disk[:-40] + bytes(40), *whole):
        if broken == on_disk:
            continue
        path.write_bytes(broken)
        with pytest.raises(StorageError), opened(path) as file:
            file.read()
    path.write_bytes(on_disk)
    with pytest.raises(StorageError):
        opened(path, OTHER)


@given(st.lists(st.tuples(st.integers(0, 3 * CHUNK), st.integers(1, 2 * CHUNK)), max_size=6))
@settings(max_examples=15, deadline=None)
def test_a_sealed_file_is_written_like_any_other(writes: list[tuple[int, int]]) -> None:
    """FFmpeg goes back to the front of a video when it knows how long it is."""
    plain = bytearray(os.urandom(CHUNK + 5))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        with io.BufferedWriter(SealedFile(Vault(KEY), path.open("w+b"), writing=True)) as file:
            file.write(plain)
            for place, length in writes:
                start, piece = min(place, len(plain)), os.urandom(length)
                file.seek(start)
                file.write(piece)
                plain[start : start + length] = piece
        with opened(path) as file:
            assert file.read() == plain


def test_chunks_cannot_be_exchanged(tmp_path: Path) -> None:
    path = tmp_path / "file"
    on_disk = sealed(path, os.urandom(2 * CHUNK))
    start, chunk = 32, CHUNK + OVERHEAD
    path.write_bytes(on_disk[:start] + on_disk[start + chunk :] + on_disk[start : start + chunk])
    with pytest.raises(StorageError), opened(path) as file:
        file.read()


def test_a_file_that_was_never_finished_does_not_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    file = SealedFile(Vault(KEY), path.open("w+b"), writing=True)
    file.write(os.urandom(CHUNK))
    file.write(b"more")  # the first chunk goes to the disk with it
    file._file.flush()
    with pytest.raises(StorageError):
        opened(path)


@pytest.mark.parametrize(("before", "after"), [(None, KEY), (KEY, OTHER), (KEY, None)])
@pytest.mark.parametrize("committed", [False, True])
def test_files_of_jobs_change_their_key(
    tmp_path: Path, before: bytes | None, after: bytes | None, committed: bool
) -> None:
    """A change that is broken off leaves what fits the key that the database has."""
    old, new = (EncryptedFiles(None if key is None else Vault(key)) for key in (before, after))
    folder = tmp_path / "job"
    (folder / "results").mkdir(parents=True)
    old.put(folder / "upload", b"a video")
    (folder / "results" / "journal.jsonl").write_bytes(old.line(b'{"a": 1}') + old.line(b'{"b": 2}') + b"ha")
    rewrite(tmp_path, old, new)
    files = new if committed else old
    settle(tmp_path, files)
    with files.read(folder / "upload") as file:
        assert file.read() == b"a video"
    lines = (folder / "results" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    assert [files.content(line) for line in lines[:2]] == [b'{"a": 1}', b'{"b": 2}']
    assert (b"a video" in (folder / "upload").read_bytes()) == (files.vault is None)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["journal.jsonl", "upload"]


@pytest.mark.parametrize("text", ["00" * 32, "A" * 43 + "=", f" {'ab' * 32}\n"])
def test_keys(text: str) -> None:
    Vault.from_text(text)


@pytest.mark.parametrize("text", ["", "secret", "00" * 31, "00" * 33, "A" * 43])
def test_keys_that_are_none(text: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="openssl rand"):
        Vault.from_text(text)
    with pytest.raises(StorageError, match="cannot read"):
        Vault.from_file(tmp_path / "missing")
