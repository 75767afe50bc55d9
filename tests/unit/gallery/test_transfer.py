"""What an export writes, an import reads back bit for bit."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sphereid.gallery import transfer
from sphereid.gallery.bulk_enrollment import NewPerson
from sphereid.gallery.errors import ContractMismatchError, InvalidRequestError
from sphereid.gallery.service import GalleryService
from sphereid.gallery.store.tables import FACES, IDENTITIES
from sphereid.gallery.types import CosinePolicy, GalleryRules, NewFace
from sqlalchemy import select

from tests.unit.gallery.conftest import CONTRACT, Open, face, unit


def export(service: GalleryService, gallery_id: str, path: Path) -> transfer.Written:
    with path.open("wb") as file:
        return transfer.export(service, gallery_id, file)


def restore(service: GalleryService, gallery_id: str, path: Path) -> transfer.Restored:
    with path.open("rb") as file:
        return transfer.restore(service, gallery_id, file)


def header_of(path: Path) -> transfer.Header:
    with path.open("rb") as file:
        return transfer.read_header(file)


def content(service: GalleryService, gallery_id: str) -> list[tuple[Any, ...]]:
    """Everything that a gallery holds, without the numbers that are the database's own."""
    i, f = IDENTITIES.c, FACES.c
    with service.reading() as tx:
        people = tx.execute(
            select(i.number, i.id, i.name, i.metadata, i.created_at, i.updated_at, i.faces)
            .where(i.gallery_id == gallery_id)
            .order_by(i.id)
        ).all()
        return [
            tuple(person)[1:]
            + tuple(
                tuple(row)
                for row in tx.execute(
                    select(f.id, f.contract, f.vector, f.quality, f.detection_score, f.source, f.created_at)
                    .where(f.identity_number == person.number)
                    .order_by(f.id)
                )
            )
            for person in people
        ]


text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(str.strip)
names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf"]), max_size=18).map("A{}".format)
people = st.lists(
    st.tuples(
        names,
        st.dictionaries(text, st.one_of(text, st.integers(-9, 9), st.booleans(), st.none()), max_size=2),
        st.integers(0, 3),
        st.floats(0, 1),
        st.one_of(st.none(), text),
    ),
    max_size=8,
)


@given(people=people, seed=st.integers(0, 1000), dimension=st.sampled_from([2, 7, 32]))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_gallery_comes_back(
    tmp_path_factory: pytest.TempPathFactory, people: list[Any], seed: int, dimension: int
) -> None:
    folder = tmp_path_factory.mktemp("portable")
    first = GalleryService.open(f"sqlite:///{folder}/a.db", folder / "a")
    second = GalleryService.open(f"sqlite:///{folder}/b.db", folder / "b")
    try:
        vectors = iter(unit(40, dimension, seed))
        for n, (name, metadata, faces, quality, source) in enumerate(people):
            new = [NewFace(next(vectors), CONTRACT, quality, 0.5, source) for _ in range(faces)]
            first.create_identity("default", f"p{n}", name, metadata)
            if new:
                first.enroll("default", f"p{n}", new)
        written = export(first, "default", folder / "out.parquet")
        assert (written.identities, written.faces) == (len(people), sum(p[2] for p in people))
        done = restore(second, "default", folder / "out.parquet")
        assert (done.identities, done.enrolled, done.present) == (len(people), written.faces, 0)
        assert content(second, "default") == content(first, "default")
        again = restore(second, "default", folder / "out.parquet")
        assert (again.identities, again.enrolled, again.present) == (0, 0, written.faces)
        assert content(second, "default") == content(first, "default")
    finally:
        first.close()
        second.close()


@pytest.fixture
def exported(service: GalleryService, tmp_path: Path) -> Path:
    rules = GalleryRules(CosinePolicy(0.4), 0.1, "best")
    service.create_gallery("a", "The first", {"x": 1}, rules)
    for n, vector in enumerate(unit(30)):
        service.enroll("a", f"p{n // 3}", [face(vector, source=f"{n}.jpg")], create=True)
    export(service, "a", tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


def test_the_file_is_plain_parquet(exported: Path) -> None:
    table = pq.read_table(exported)
    assert table.num_rows == 30
    assert np.array_equal(np.stack(table["embedding"].to_numpy()), unit(30))
    header = json.loads(table.schema.metadata[b"sphereid"])
    assert (header["contract"], header["dimension"], header["gallery"]) == (CONTRACT, 32, "a")
    assert header_of(exported).rules == GalleryRules(CosinePolicy(0.4), 0.1, "best")


def test_two_galleries_of_one_database_can_hold_the_same_faces(
    service: GalleryService, exported: Path
) -> None:
    service.create_gallery("b", None, {}, GalleryRules(CosinePolicy(0.4)))
    assert restore(service, "b", exported).enrolled == 30
    assert restore(service, "b", exported).enrolled == 0
    (decision,), _ = service.identify("b", unit(30)[4:5], CONTRACT)
    assert decision.identity is not None
    assert decision.identity.id == "p1"
    assert [row[:3] for row in content(service, "a")] == [row[:3] for row in content(service, "b")]


@pytest.mark.parametrize("template", ["best", "mean", "top_k_mean"])
def test_what_was_imported_is_found_and_survives_a_restart(
    reopen: Open, exported: Path, template: Any
) -> None:
    service = reopen()
    service.create_gallery("b", None, {}, GalleryRules(CosinePolicy(0.4), template=template))
    restore(service, "b", exported)
    for _ in range(2):
        decisions, gallery = service.identify("b", unit(30), CONTRACT, threshold=-1)
        assert [d.identity.id for d in decisions if d.identity] == [f"p{n // 3}" for n in range(30)]
        assert (gallery.identities, gallery.faces) == (10, 30)
        service = reopen()


def test_another_contract_is_refused_with_advice(service: GalleryService, exported: Path) -> None:
    service.create_gallery("b", None, {}, GalleryRules())
    service.enroll("b", "x", [face(unit(1, 16)[0], contract="another")], create=True)
    with pytest.raises(ContractMismatchError, match=r"test-model.*another.*new gallery"):
        restore(service, "b", exported)
    assert service.get_gallery("b").faces == 1


def rewritten(source: Path, change: Any) -> Path:
    table = change(pq.read_table(source))
    pq.write_table(table, source)
    return source


def broken_bytes(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 400] = bytes(400)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PAR1 something else PAR1"),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        broken_bytes,
        lambda path: rewritten(path, lambda t: t.replace_schema_metadata({})),
        lambda path: rewritten(path, lambda t: t.drop_columns(["embedding"])),
        lambda path: rewritten(
            path, lambda t: t.set_column(7, "embedding", pa.array([[1.0]] * 30, pa.list_(pa.float32())))
        ),
        lambda path: rewritten(
            path, lambda t: t.set_column(7, "embedding", pa.array([[9.0] * 32] * 30, pa.list_(pa.float32())))
        ),
        lambda path: rewritten(path, lambda t: t.set_column(0, "identity_id", pa.array(["../x"] * 30))),
        lambda path: rewritten(path, lambda t: t.set_column(2, "identity_metadata", pa.array(["[1"] * 30))),
    ],
)
def test_files_that_are_not_ours_are_refused_and_change_nothing(
    service: GalleryService, exported: Path, spoil: Any
) -> None:
    spoil(exported)
    with pytest.raises(InvalidRequestError):
        restore(service, "default", exported)
    assert service.get_gallery("default").faces == 0


def test_an_identity_keeps_its_times_over_several_writes(service: GalleryService, tmp_path: Path) -> None:
    at = datetime(2020, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    later = datetime(2021, 1, 2, tzinfo=UTC)
    for n, vector in enumerate(unit(2)):
        new = NewFace(vector, CONTRACT, 0.5, 0.5, id=f"f{n}", created_at=at)
        service.enroll_many("default", [NewPerson("p", [new], "P", {}, at, later)])
    person = service.get_identity("default", "p")
    assert (person.created_at, person.updated_at, person.faces) == (at, later, 2)
    assert service.get_face("default", "p", "f0").created_at == at
