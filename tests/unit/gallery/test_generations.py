"""Every kind of index against the oracle, and indexes that are built anew while writes go on."""

import threading
from pathlib import Path

import numpy as np
import pytest
from sphereid.gallery import index_entries
from sphereid.gallery.errors import NotFoundError
from sphereid.gallery.index import kinds
from sphereid.gallery.index.fastscan import FastScanIndex
from sphereid.gallery.index.kinds import (
    KINDS,
    IndexSetting,
    Kind,
    empty_index,
    load_index,
    training_size,
    wanted_kind,
)
from sphereid.gallery.index.oracle import OracleIndex
from sphereid.gallery.service import GalleryService
from sphereid.gallery.types import GalleryRules, Vectors

from tests.unit.gallery.conftest import CONTRACT, Open, face, unit

PEOPLE, FEW = 250, 60


def crowd(each: int, seed: int) -> Vectors:
    """(PEOPLE * each, 32) faces around the same centers, cosine about 0.9."""
    rng = np.random.default_rng(seed)
    faces = np.repeat(unit(PEOPLE, 32, 5), each, axis=0) + rng.standard_normal((PEOPLE * each, 32)) * 0.06
    return (faces / np.linalg.norm(faces, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "ivf-pq"])
def test_every_kind_keeps_up_with_the_oracle(kind: Kind, tmp_path: Path) -> None:
    vectors, keys = crowd(8, 1), np.arange(2000) * 3
    index = empty_index(kind, 32, vectors[: training_size(kind, 2000)], 2000)
    oracle = OracleIndex(32)
    for each in (index, oracle):
        each.add(keys, vectors)
        assert each.remove(keys[5:400]) == 395
        assert each.remove(np.array([1, 4])) == 0
    index.save(tmp_path / "index")
    index = load_index(tmp_path / "index")
    more = crowd(1, 2)
    for each in (index, oracle):
        each.add(np.arange(9000, 9250), more)
        assert each.remove(np.array([9000, 9001, 30])) == 2
    assert index.kind == kind
    assert index.dimension == 32
    assert len(index) == len(oracle)
    assert set(index.keys().tolist()) == set(oracle.keys().tolist())
    probes = crowd(1, 3)[:100]
    similarities, found = index.search(probes, 5)
    expected, nearest = oracle.search(probes, 5)
    assert not set(found.ravel().tolist()) & {9000, 9001, *keys[5:400].tolist()}
    if index.exact and index.lossless:
        assert np.array_equal(found, nearest)
    else:
        assert np.mean(found[:, 0] == nearest[:, 0]) >= 0.93
        assert np.mean((found[:, :, None] == nearest[:, None, :]).any(axis=1)) >= 0.9
    if index.lossless:
        same = found[:, 0] == nearest[:, 0]
        np.testing.assert_allclose(similarities[same, 0], expected[same, 0], atol=1e-5)
    data = (tmp_path / "index").read_bytes()
    assert not index.lossless or (vectors[20].tobytes() not in data and vectors[0].tobytes() in data)
    assert index.remove(index.keys()) == len(oracle)
    assert index.search(probes, 3)[1].shape == (100, 0)


def test_the_choice_follows_the_size_without_swinging() -> None:
    assert wanted_kind("auto", 10_000, "flat") == "flat"
    assert wanted_kind("auto", kinds.IVF_FROM, "flat") == "ivf-fast"
    assert wanted_kind("auto", kinds.IVF_FROM - 1, "ivf-fast") == "ivf-fast"
    assert wanted_kind("auto", kinds.IVF_FROM // 2 - 1, "ivf-fast") == "flat"
    assert wanted_kind("auto", kinds.SQ8_FROM, "ivf-fast") == "ivf-sq8"
    assert wanted_kind("auto", kinds.PQ_FROM, "ivf-sq8") == "ivf-pq"
    assert wanted_kind("hnsw", 10, "flat") == "flat"
    assert wanted_kind("hnsw", 5000, "flat") == "hnsw"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "SMALLEST", {})
    monkeypatch.setattr("sphereid.gallery.maintenance.EVERY_S", 3600.0)  # builds are the test's own
    monkeypatch.setattr(index_entries, "CHUNK", 10)


def filled(service: GalleryService, vectors: Vectors, each: int) -> None:
    for person in range(FEW):
        rows = vectors[person * each : (person + 1) * each]
        service.enroll("default", f"p{person}", [face(v) for v in rows], create=True)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("template", ["best", "mean"])
@pytest.mark.parametrize("setting", ["ivf", "ivf-fast", "ivf-sq8", "hnsw", "flat-fp16"])
def test_writes_during_a_build_are_in_the_new_index(
    reopen: Open, setting: IndexSetting, template: str
) -> None:
    service = reopen()
    service.update_gallery("default", template=template)  # type: ignore[arg-type]
    vectors, late = crowd(2, 1), unit(30, 32, 77)
    filled(service, vectors, 2)
    live = service._live["default"]
    turns = iter(range(1000))

    def meanwhile() -> bool:
        """Called between the chunks of the build: deletes what was read and what was not, and adds both."""
        turn = next(turns)
        if turn < 4:
            service.delete_identity("default", f"p{turn}")
            service.delete_identity("default", f"p{FEW - 1 - turn}")
            service.enroll("default", f"late{turn}", [face(late[turn])], create=True)
            service.enroll("default", f"p{30 + turn}", [face(late[10 + turn])])
            gone = service.enroll("default", f"gone{turn}", [face(late[20 + turn])], create=True).faces[0]
            service.delete_face("default", f"gone{turn}", gone.id)
        return False

    assert live.regenerate(setting, meanwhile)
    assert next(turns) >= 4

    def check(service: GalleryService) -> None:
        live = service._live["default"]
        assert live._index is not None
        assert live._index.kind == setting
        with service._database.reading() as tx:
            assert sorted(live._index.keys()) == sorted(index_entries.keys(tx, live.gallery))
        assert service.get_gallery("default").faces == 2 * FEW + 8 - 16
        probes = np.concatenate([late[:4], vectors[20:40:2]])
        decisions, _ = service.identify("default", probes, CONTRACT, threshold=0.9)
        names = [d.identity.id if d.identity else None for d in decisions]
        assert names == [f"late{i}" for i in range(4)] + [f"p{i}" for i in range(10, 20)]
        if template == "best":
            assert all(d.similarity == pytest.approx(1, abs=1e-5) for d in decisions)

    check(service)
    check(reopen())  # the snapshot holds the new kind
    assert not reopen()._live["default"].regenerate(setting)


@pytest.mark.usefixtures("small")
def test_a_build_gives_way(reopen: Open) -> None:
    """To a stop, to a change of the template, and to the end of the gallery."""
    service = reopen()
    service.create_gallery("g", None, {}, GalleryRules())
    vectors = crowd(1, 1)
    service.enroll("g", "p", [face(v) for v in vectors], create=True)
    live = service._live["g"]
    assert not live.regenerate("hnsw", lambda: True)

    def change() -> bool:
        service.update_gallery("g", template="mean")
        return False

    assert not live.regenerate("hnsw", change)
    service.update_gallery("g", template="best")

    def delete() -> bool:
        if "g" in service._live:
            service.delete_gallery("g")
        return False

    assert not live.regenerate("hnsw", delete)
    with pytest.raises(NotFoundError):
        service.get_gallery("g")


@pytest.mark.usefixtures("small")
def test_maintenance_builds_the_wanted_kind_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sphereid.gallery.maintenance.EVERY_S", 0.01)
    service = GalleryService.open(f"sqlite:///{tmp_path}/g.db", tmp_path, index="flat-fp16")
    try:
        service.enroll("default", "p", [face(v) for v in unit(5)], create=True)
        live = service._live["default"]
        for _ in range(2000):
            if live._index is not None and live._index.kind == "flat-fp16":
                break
            service._maintenance._thread.join(0.01)
        assert live._index is not None
        assert live._index.kind == "flat-fp16"
    finally:
        service.close()


def test_a_search_does_not_wait_for_a_long_write(service: GalleryService) -> None:
    service.enroll("default", "a", [face(unit(1, 32, 1)[0])], create=True)
    held, done = threading.Event(), threading.Event()

    def write() -> None:
        with service._live["default"].writer:
            held.set()
            done.wait()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert held.wait(30)
        (decision,), _ = service.identify("default", unit(1, 32, 1), CONTRACT)
        assert decision.outcome == "match"
    finally:
        done.set()
        writer.join()


def test_a_code_that_is_in_another_list_than_expected_goes_too() -> None:
    vectors, keys = crowd(8, 1), np.arange(2000)
    index = FastScanIndex.trained(vectors, 2000)
    index.add(keys, vectors)
    index._base.quantizer.reset()  # as if rounding gave another list: all centroids are elsewhere now
    index._base.quantizer.add(unit(index._base.nlist, 32, 9))
    assert index.remove(keys[:100]) == 100
    assert len(index) == 1900
    left = sum(index._lists.list_size(i) for i in range(index._base.nlist))
    assert left == 1900
    index.add(np.array([5000]), vectors[:1])
    assert index.search(vectors[:1], 1)[1].tolist() == [[5000]]
