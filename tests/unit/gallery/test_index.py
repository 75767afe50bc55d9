"""Every kind against the NumPy oracle, through adds, deletes, searches and a trip to disk."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sphereid.gallery.index import flat
from sphereid.gallery.index.flat import FlatIndex, largest
from sphereid.gallery.index.kinds import Kind, empty_index, load_index
from sphereid.gallery.index.oracle import OracleIndex
from sphereid.gallery.index.ports import VectorIndex

from tests.unit.gallery.conftest import unit

STEP = st.tuples(st.sampled_from(["add", "remove", "save"]), st.integers(0, 40), st.integers(0, 2**31))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=12), k=st.integers(1, 30))
def test_flat_equals_the_oracle(steps: list[tuple[str, int, int]], k: int, tmp_path: Path) -> None:
    index: VectorIndex = FlatIndex(16)
    oracle: VectorIndex = OracleIndex(16)
    used = 0
    for what, count, seed in steps:
        rng = np.random.default_rng(seed)
        if what == "add":
            keys, vectors = np.arange(used, used + count), unit(count, 16, 1000 + used)
            used += count
            index.add(keys, vectors)
            oracle.add(keys, vectors)
        elif what == "remove":
            keys = rng.choice(max(used, 1), size=min(count, used), replace=False).astype(np.int64)
            assert index.remove(keys) == oracle.remove(keys)
        elif len(index):
            index.save(tmp_path / "index")
            index = load_index(tmp_path / "index")
        assert len(index) == len(oracle)
        assert sorted(index.keys()) == sorted(oracle.keys())
    queries = unit(3, 16, 99)
    similarities, keys = index.search(queries, k)
    expected, expected_keys = oracle.search(queries, k)
    assert similarities.shape == keys.shape == expected.shape
    np.testing.assert_allclose(similarities, expected, atol=1e-5)
    assert np.array_equal(keys, expected_keys)


@pytest.mark.parametrize("n", [5, 1024, 5000, 70_001])
@pytest.mark.parametrize("k", [1, 7, 1024])
def test_largest_are_the_largest(n: int, k: int) -> None:
    values = np.random.default_rng(n).standard_normal((3, n)).astype(np.float32)
    places = largest(values, k)
    expected = np.sort(values, axis=1)[:, ::-1][:, : min(k, n)]
    np.testing.assert_array_equal(np.sort(np.take_along_axis(values, places, 1), axis=1)[:, ::-1], expected)


def test_largest_with_ties_gives_distinct_places() -> None:
    places = largest(np.zeros((2, 9000), np.float32), 20)
    assert all(len(set(row)) == 20 for row in places.tolist())


def test_removed_vectors_leave_the_memory_of_the_index(tmp_path: Path) -> None:
    index, vectors = FlatIndex(16), unit(10, 16)
    index.add(np.arange(10), vectors)
    index.remove(np.array([3]))
    index.save(tmp_path / "index")
    data = (tmp_path / "index").read_bytes()
    assert vectors[3].tobytes() not in data
    assert vectors[4].tobytes() in data


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index").write_bytes(b"IxFI" + b"\x00" * 40)
    with pytest.raises(RuntimeError):
        load_index(tmp_path / "index")


@pytest.mark.parametrize("queries", [1, 2, 4, 5, 33])
@pytest.mark.parametrize("n", [1, 7, 20_000])
@pytest.mark.parametrize("cores", [1, 2, 5])
def test_inner_products_are_the_same_however_they_are_shared_out(
    queries: int, n: int, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat, "_cores", lambda: cores)
    monkeypatch.setattr(flat, "_SHARE", 1 << 16)
    a, b = unit(queries, 64, 1), unit(n, 64, 2)
    np.testing.assert_allclose(flat.inner_products(a, b), a.astype(np.float64) @ b.T, atol=1e-6)


@pytest.mark.parametrize("kind", ["flat", "flat-sq8", "hnsw"])
def test_saving_leaves_an_index_the_owner_of_its_memory(kind: Kind, tmp_path: Path) -> None:
    # FAISS's wrapper gives the memory away with `named.index = ...`; nobody would free it then.
    index = empty_index(kind, 32, unit(2000, 32), 2000)
    index.add(np.arange(2000), unit(2000, 32))
    for _ in range(3):
        index.save(tmp_path / "index")
        assert index._index.this.own()  # type: ignore[attr-defined]
        assert index.search(unit(1, 32, 9), 1)[1].shape == (1, 1)
    assert len(load_index(tmp_path / "index")) == 2000
