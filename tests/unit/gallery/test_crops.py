"""Crops are kept where a gallery says so, follow their face, and leave nothing behind."""

from dataclasses import replace
from pathlib import Path

import pytest
from sphereid.gallery import store
from sphereid.gallery.service import GalleryService
from sphereid.gallery.types import GalleryRules

from tests.unit.gallery.conftest import face, unit

CROP = b"crop " + bytes(range(256)) * 8


def kept(service: GalleryService, *ids: str) -> dict[str, bytes]:
    with service._database.reading() as tx:
        return store.crops(tx, ids)


def enroll(service: GalleryService, identity: str, seed: int) -> str:
    new = replace(face(unit(1, seed=seed)[0]), crop=CROP)
    return service.enroll("g", identity, [new], create=True).faces[0].id


@pytest.fixture
def keeping(service: GalleryService) -> GalleryService:
    service.create_gallery("g", None, {}, GalleryRules(keep_crops=True))
    return service


def test_a_gallery_that_does_not_keep_crops_stores_none(service: GalleryService) -> None:
    service.create_gallery("g", None, {}, GalleryRules())
    assert kept(service, enroll(service, "a", 0)) == {}


def test_a_crop_follows_its_face_through_a_merge(keeping: GalleryService) -> None:
    one, two = enroll(keeping, "a", 0), enroll(keeping, "b", 1)
    keeping.merge_identities("g", "a", "b")
    assert kept(keeping, one, two) == {one: CROP, two: CROP}


@pytest.mark.parametrize("how", ["face", "identity", "gallery", "rule"])
def test_a_deleted_crop_leaves_no_trace(keeping: GalleryService, tmp_path: Path, how: str) -> None:
    made = enroll(keeping, "a", 0)
    assert kept(keeping, made) == {made: CROP}
    if how == "face":
        keeping.delete_face("g", "a", made)
    elif how == "identity":
        keeping.delete_identity("g", "a")
    elif how == "gallery":
        keeping.delete_gallery("g")
    else:
        assert not keeping.update_gallery("g", keep_crops=False).keep_crops
    assert kept(keeping, made) == {}
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or CROP not in file.read_bytes(), file
        assert not file.is_file() or CROP[5:261] not in file.read_bytes(), file
