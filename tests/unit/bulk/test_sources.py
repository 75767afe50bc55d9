"""Whose photograph is whose in folders, archives and tables, and archives that mean harm."""

import contextlib
import gzip
import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sphereid.bulk import sources
from sphereid.bulk.errors import BulkError
from sphereid.bulk.names import slug_of, slugs
from sphereid.bulk.sources import open_source
from sphereid.faces.errors import ImageError
from sphereid.gallery import validation

from tests.photographs import write_folder, write_tar, write_zip

FILES = {"alice/1.jpg": b"a1", "alice/2.png": b"a2", "Bob B/deep/1.jpg": b"b1", "carol.webp": b"c"}
OWNERS = {"alice/1.jpg": "alice", "alice/2.png": "alice", "Bob B/deep/1.jpg": "Bob-B", "carol.webp": "carol"}
LITTER = {"notes.txt": b"x", ".DS_Store": b"", "__MACOSX/alice/._1.jpg": b"", "alice/Thumbs.db": b""}


def make(kind: str, folder: Path, files: dict[str, bytes]) -> Path:
    if kind == "folder":
        return write_folder(folder / "in", files)
    if kind == "zip":
        return write_zip(folder / "in.zip", files)
    return write_tar(folder / "in.tar", files, kind.replace("tar", "w"))


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar:gz", "tar:bz2", "tar:xz"])
def test_the_outermost_folder_is_the_person(kind: str, tmp_path: Path) -> None:
    with open_source(make(kind, tmp_path, FILES | LITTER)) as source:
        usable = [entry for entry in source.entries if entry.fault is None]
        assert {entry.key: entry.identity for entry in usable} == OWNERS
        assert {entry.key: source.read(entry, 100) for entry in usable} == FILES
        assert {e.key: e.fault and e.fault[0] for e in source.entries if e.fault} == {
            "notes.txt": "not_an_image"
        }
        names = {entry.identity: entry.name for entry in usable}
        assert names["Bob-B"] == "Bob B"
        assert all(
            len(source.read(entry, 1)) == 2 for entry in usable if entry.identity != "carol"
        )  # one byte tells that it is more


@pytest.mark.parametrize("kind", ["zip", "tar:gz"])
def test_folders_around_everything_are_nobody(kind: str, tmp_path: Path) -> None:
    wrapped = {f"export/people/{name}": data for name, data in FILES.items() if "/" in name}
    with open_source(make(kind, tmp_path, wrapped | {"README": b""})) as source:
        assert {e.identity for e in source.entries if not e.fault} == {"alice", "Bob-B"}
    with open_source(make(kind, tmp_path, {"alice/1.jpg": b"1", "alice/2.jpg": b"2"})) as source:
        assert {e.identity for e in source.entries} == {"alice"}


@given(st.sets(st.text(min_size=1, max_size=80), max_size=12))
def test_every_name_gets_an_id_of_its_own(names: set[str]) -> None:
    ids = slugs(names)
    assert len(set(ids.values())) == len(names)
    for slug in ids.values():
        validation.slug(slug, "identity")


def test_names_keep_what_they_can() -> None:
    assert slug_of("José Müller") == "Jose-Muller"
    assert slug_of("Aaron_Eckhart") == "Aaron_Eckhart"
    assert slug_of("田中").startswith("id-")
    assert sorted(slugs(["A B", "A-B"]).values())[0] == "A-B"


TABLE = (
    "\ufeffidentity;name;file;metadata;team\r\n"
    'alice;Alice A.;alice/1.jpg;{"badge": 7};blue\r\n'
    "alice;;alice/2.png;;\r\n"
    ";;carol.webp;;\r\n"
    "bob;Bob;nowhere.jpg;;red\r\n"
    "bob;Bob;carol.webp;[1];red\r\n"
)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar:gz"])
def test_a_table_says_who_is_who(kind: str, tmp_path: Path) -> None:
    place = make(kind, tmp_path, FILES | {"people.csv": TABLE.encode()})
    with open_source(place / "people.csv" if kind == "folder" else place) as source:
        by_key = {entry.key: entry for entry in source.entries}
        first = by_key["alice/1.jpg"]
        assert (first.identity, first.name, first.metadata) == (
            "alice",
            "Alice A.",
            {"badge": 7, "team": "blue"},
        )
        assert source.read(by_key["alice/2.png"], 100) == b"a2"
        assert by_key["carol.webp"].fault == ("invalid_row", "row 4 names no identity or no file")
        assert by_key["carol.webp (row 6)"].fault == ("invalid_row", "row 6: metadata is no JSON object")
        nowhere = by_key["nowhere.jpg"]
        if kind == "folder":
            with pytest.raises(ImageError, match="cannot be read"):
                source.read(nowhere, 100)
        else:
            assert nowhere.fault is not None
            assert nowhere.fault[0] == "file_missing"


@pytest.mark.parametrize("text", ["", "name,file\na,b\n", 'identity,file\n"open,1.jpg\n'])
def test_tables_that_cannot_be_read_say_so(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(BulkError, match="table"), open_source(tmp_path / "t.csv"):
        pass


@pytest.mark.parametrize(
    "data", [b"", b"nonsense" * 100, b"PK\x03\x04 broken", b"\x1f\x8b\x08 broken", b"BZh9"]
)
def test_what_is_no_archive_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(BulkError) as caught, open_source(tmp_path / "x", archive=True):
        pass
    assert caught.value.code == "import_unreadable"


def test_an_upload_names_no_file_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "upload.csv").write_text("identity,file\na,/etc/passwd\n")
    with pytest.raises(BulkError), open_source(tmp_path / "upload.csv", archive=True):
        pass
    with pytest.raises(BulkError), open_source(tmp_path, archive=True):
        pass


EVIL = ["../../x/1.jpg", "/etc/x/1.jpg", "a/../../1.jpg", "C:\\x\\1.jpg", "..\\1.jpg", "//server/x/1.jpg"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_lead_out_are_left_out(kind: str, tmp_path: Path) -> None:
    before = set(tmp_path.parent.rglob("*"))
    with open_source(make(kind, tmp_path, dict.fromkeys(EVIL, b"x") | {"ok/1.jpg": b"y"})) as source:
        faults = {entry.key: entry.fault for entry in source.entries}
        assert [key for key, fault in faults.items() if fault is None] == ["ok/1.jpg"]
        assert {fault[0] for fault in faults.values() if fault} == {"unsafe_name"}
        assert len(faults) == len(EVIL) + 1
    assert {p.name for p in set(tmp_path.parent.rglob("*")) - before} <= {"in.zip", "in.tar"}


def test_links_and_devices_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (
            ("l/1.jpg", tarfile.SYMTYPE),
            ("h/1.jpg", tarfile.LNKTYPE),
            ("d/1.jpg", tarfile.CHRTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive2:
        info = zipfile.ZipInfo("l/1.jpg")
        info.external_attr = 0o120777 << 16
        archive2.writestr(info, "/etc/passwd")
    for name, count in (("a.tar", 3), ("a.zip", 1)):
        with open_source(tmp_path / name, archive=True) as source:
            assert [entry.fault and entry.fault[0] for entry in source.entries] == ["not_a_file"] * count


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FREE", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(5):
            archive.writestr(f"a/{n}.jpg", bytes(2_000_000))
    with pytest.raises(BulkError) as caught, open_source(tmp_path / "bomb.zip"):
        pass
    assert caught.value.code == "import_too_large"


def test_a_zip_that_lies_about_its_sizes_gives_no_more_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.jpg", bytes(3_000_000))
    raw = path.read_bytes().replace(struct.pack("<L", 3_000_000), struct.pack("<L", 10))
    path.write_bytes(raw)
    with open_source(path) as source, contextlib.suppress(ImageError):
        assert len(source.read(source.entries[0], 100)) <= 101


def test_a_zip_whose_directory_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    end = b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, 65535, 65535, 0xFFFFFFF0, 0, 0)
    (tmp_path / "huge.zip").write_bytes(b"PK" + bytes(100) + end)
    with pytest.raises(BulkError) as caught, open_source(tmp_path / "huge.zip"):
        pass
    assert caught.value.code == "import_too_large"


@pytest.mark.parametrize("header", ["member", "pax", "longname"])
def test_a_tar_bomb_is_refused_without_being_read(
    header: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "FREE", 1000)
    monkeypatch.setattr(sources, "EXPANSION", 2)
    member = tarfile.TarInfo("a/1.jpg")
    member.size = 8_000_000
    member.type = {"member": tarfile.REGTYPE, "pax": tarfile.XHDTYPE, "longname": tarfile.GNUTYPE_LONGNAME}[
        header
    ]
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as file:
        file.write(member.tobuf() + bytes(member.size) + tarfile.TarInfo("b/1.jpg").tobuf() + bytes(1024))
    with pytest.raises(BulkError) as caught, open_source(tmp_path / "bomb.tar.gz"):
        pass
    assert caught.value.code == "import_too_large"


def test_damage_in_the_midst_concerns_one_file(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a/1.jpg": b"x" * 500, "b/1.jpg": b"y" * 500})
    path.write_bytes(path.read_bytes().replace(b"xxxx", b"xzzx", 1))
    with open_source(path) as source:
        with pytest.raises(ImageError, match="damaged"):
            source.read(source.entries[0], 1000)
        assert source.read(source.entries[1], 1000) == b"y" * 500


def test_two_files_of_one_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/1.jpg", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/1.jpg", b"2")
    with open_source(tmp_path / "a.zip") as source:
        assert sorted(e.fault[0] if e.fault else "" for e in source.entries) == ["", "duplicate_name"]


def test_encrypted_members_are_left_out(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a/1.jpg": b"1"})
    raw = bytearray(path.read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with open_source(path) as source:
        assert source.entries[0].fault == ("not_a_file", "it is encrypted")


def test_json_of_a_table_may_be_deep(tmp_path: Path) -> None:
    deep = "[" * 100_000
    buffer = io.StringIO()
    buffer.write('identity,file,metadata\na,1.jpg,"' + json.dumps(deep)[1:-1] + '"\n')
    (tmp_path / "t.csv").write_text(buffer.getvalue())
    with open_source(tmp_path / "t.csv") as source:
        assert source.entries[0].fault is not None
