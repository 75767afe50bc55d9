"""Faces without photographs: random unit vectors, and galleries in a temporary folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from app.gallery.service import GalleryService
from app.gallery.types import NewFace, Vectors

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
def reopen(tmp_path: Path) -> Iterator[Open]:
    """Opens the gallery in the test's folder, after closing it where it was open."""
    services: list[GalleryService] = []

    def opened() -> GalleryService:
        for service in services:
            service.close()
        services.append(GalleryService.open(f"sqlite:///{tmp_path}/gallery.db", tmp_path))
        return services[-1]

    yield opened
    for service in services:
        service.close()


@pytest.fixture
def service(reopen: Open) -> GalleryService:
    return reopen()
