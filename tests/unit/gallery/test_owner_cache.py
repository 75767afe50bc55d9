"""Who is found is remembered between writes, and never longer."""

import pytest
from sphereid.gallery.owner_cache import FaceOwnerCache
from sphereid.gallery.service import GalleryService
from sphereid.gallery.store.faces import Found
from sphereid.gallery.types import Decision, GalleryRules, Identity, Vectors

from tests.unit.gallery.conftest import CONTRACT, face, unit


def named(service: GalleryService, probe: Vectors) -> Decision:
    (decision,), _ = service.identify("default", probe[None], CONTRACT, threshold=0.5)
    return decision


def test_every_write_shows_in_the_next_answer(service: GalleryService) -> None:
    ada, other = unit(2)
    service.enroll("default", "ada", [face(ada)], create=True, name="Ada")
    enrolled = service.enroll("default", "ada", [face(other)])
    for probe in (ada, other, ada):
        assert (found := named(service, probe).identity) is not None
        assert found.name == "Ada"
    service.update_identity("default", "ada", name="Countess", metadata={"born": 1815})
    assert (found := named(service, ada).identity) is not None
    assert (found.name, found.metadata) == ("Countess", {"born": 1815})
    service.delete_face("default", "ada", enrolled.faces[0].id)
    assert named(service, other).outcome == "unknown"
    service.create_identity("default", "lovelace", None, {})
    service.merge_identities("default", "lovelace", "ada")
    assert (found := named(service, ada).identity) is not None
    assert found.id == "lovelace"
    service.delete_identity("default", "lovelace")
    assert named(service, ada).candidates == ()


def test_a_gallery_that_takes_the_place_of_another_knows_nothing_of_it(service: GalleryService) -> None:
    (ada,) = unit(1)
    for name in ("Ada", "Augusta"):
        service.create_gallery("short", "Short", {}, GalleryRules())
        service.enroll("short", "ada", [face(ada)], create=True, name=name)
        (decision,), _ = service.identify("short", ada[None], CONTRACT, threshold=0.5)
        assert decision.identity is not None
        assert decision.identity.name == name
        service.delete_gallery("short")


def test_the_database_is_asked_once(service: GalleryService, monkeypatch: pytest.MonkeyPatch) -> None:
    ada, other = unit(2)
    for i, vector in enumerate((ada, other)):
        service.enroll("default", f"person-{i}", [face(vector)], create=True)
    asked: list[list[int]] = []
    real = service._owners

    def owners(gallery_id: str, numbers: list[int]) -> dict[int, Found]:
        asked.append(numbers)
        return real(gallery_id, numbers)

    monkeypatch.setattr(service, "_owners", owners)
    first = [named(service, probe) for probe in (ada, other)]
    assert [named(service, probe) for probe in (ada, other)] == first
    assert [len(numbers) for numbers in asked] == [2]


def test_memory_is_bounded(service: GalleryService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sphereid.gallery.owner_cache.MOST", 10)
    gallery, remembered = service.get_gallery("default"), FaceOwnerCache()

    person = Identity("ada", "default", "Ada", {}, 60, gallery.created_at, gallery.created_at)

    def read(numbers: list[int]) -> dict[int, Found]:
        return {n: Found(f"face-{n}", person) for n in numbers}

    for start in range(0, 60, 4):
        ranked = [[(n, n, 0.9) for n in range(start, start + 4)]]
        (candidates,) = remembered.candidates(gallery, ranked, read)
        assert [c.face_id for c in candidates] == [f"face-{n}" for n in range(start, start + 4)]
        assert len(remembered._of(gallery)) <= 10
