"""Faces without photographs: random unit vectors, and galleries in a temporary folder."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sphereid.gallery.service import GalleryService
from sphereid.gallery.types import NewFace, Vectors
from sqlalchemy import create_engine, make_url, text

CONTRACT = "test-model"


def unit(count: int, dimension: int = 32, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def near(vector: Vectors, similarity: float, seed: int = 0) -> Vectors:
    """(D,) at exactly this cosine from `vector`."""
    other = np.random.default_rng([7, seed]).standard_normal(vector.shape)
    other -= (other @ vector) * vector
    other /= np.linalg.norm(other)
    return (similarity * vector + np.sqrt(1 - similarity**2) * other).astype(np.float32)


def face(vector: Vectors, contract: str = CONTRACT, source: str | None = None) -> NewFace:
    return NewFace(vector, contract, quality=0.8, detection_score=0.99, source=source)


Open = Callable[[], GalleryService]


@pytest.fixture
def database_url(tmp_path: Path) -> Iterator[str]:
    """An empty database: SQLite, or one of its own on the PostgreSQL server that TEST_POSTGRES_URL names
    (postgresql+psycopg://USER:PASSWORD@HOST/postgres)."""
    server = os.environ.get("TEST_POSTGRES_URL")
    if not server:
        yield f"sqlite:///{tmp_path}/gallery.db"
        return
    name = f"sphereid_test_{uuid.uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def sqlite_only(database_url: str) -> None:
    """Skips what is about SQLite's files where the tests run on another database."""
    if not database_url.startswith("sqlite"):
        pytest.skip("about SQLite's files")


@pytest.fixture
def reopen(tmp_path: Path, database_url: str) -> Iterator[Open]:
    """Opens the gallery in the test's folder, after closing it where it was open."""
    services: list[GalleryService] = []

    def opened() -> GalleryService:
        for service in services:
            service.close()
        services.append(GalleryService.open(database_url, tmp_path))
        return services[-1]

    yield opened
    for service in services:
        service.close()


@pytest.fixture
def service(reopen: Open) -> GalleryService:
    return reopen()
