"""Another model takes over a gallery: compared, complete, at once, and without losing a write."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sphereid.bulk.errors import BulkError
from sphereid.bulk.reembedding import reembed
from sphereid.faces.crops import pack
from sphereid.faces.decode import decode
from sphereid.faces.embed import OnnxEmbedder
from sphereid.faces.types import Face, RGBImage
from sphereid.gallery.errors import ContractMismatchError, GalleryError
from sphereid.gallery.service import GalleryService
from sphereid.gallery.types import CosinePolicy, GalleryRules, NewFace, Vectors
from sphereid.progress import Progress

from tests.photographs import photograph
from tests.toy import write_toy_model
from tests.unit.gallery.conftest import Open

LANDMARKS = np.array([[86, 74], [127, 72], [110, 98], [92, 117], [128, 116]], np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[OnnxEmbedder, OnnxEmbedder]:
    root = tmp_path_factory.mktemp("models")
    return tuple(  # type: ignore[return-value]
        OnnxEmbedder.load(write_toy_model(root, name, seed=seed)) for seed, name in enumerate(("old", "new"))
    )


Enroll = Callable[..., None]


@pytest.fixture
def faces(
    portrait: NDArray[np.uint8], models: tuple[OnnxEmbedder, OnnxEmbedder]
) -> Callable[[int, int], tuple[Vectors, Vectors, NewFace]]:
    """A face of a person: embedded by the old and by the new model, and ready to enroll."""
    old, new = models

    def make(person: int, number: int) -> tuple[Vectors, Vectors, NewFace]:
        image: RGBImage = decode(photograph(portrait, person, number)).pixels
        found = Face(np.array([60, 40, 150, 150], np.float32), 0.99, LANDMARKS)
        vectors = [model.embed(model.align(image, [found]))[0] for model in (old, new)]
        ready = NewFace(vectors[0], old.contract, 0.9, 0.99, f"{person}-{number}", crop=pack(image, found))
        return vectors[0], vectors[1], ready

    return make


@pytest.fixture
def filled(service: GalleryService, faces: Any) -> GalleryService:
    service.create_gallery("g", None, {}, GalleryRules(CosinePolicy(0.3), keep_crops=True))
    for person in range(8):
        service.enroll("g", f"p{person}", [faces(person, n)[2] for n in range(3)], create=True)
    return service


def named(service: GalleryService, vectors: Vectors, contract: str) -> list[str | None]:
    decisions, _ = service.identify("g", vectors, contract)
    return [None if d.identity is None else d.identity.id for d in decisions]


@pytest.mark.parametrize("template", ["best", "mean", "top_k_mean"])
def test_the_new_model_takes_over(
    filled: GalleryService,
    reopen: Open,
    faces: Any,
    models: Any,
    template: Any,
    tmp_path: Path,
) -> None:
    old, new = models
    filled.update_gallery("g", template=template)
    before = filled.get_gallery("g")
    probes = [faces(person, 5) for person in range(8)]
    stages: list[str] = []
    done = reembed(filled, "g", new, report=lambda progress: stages.append(progress.stage))
    assert stages[0] == "embed"
    assert stages[-1] == "exchange"
    assert (done["exchanged"], done["faces"], done["old"]["contract"]) == (True, 24, old.contract)
    assert done["new"]["rank_one"]["value"] == 1
    service = filled
    for _ in range(2):  # now, and after a restart
        gallery = service.get_gallery("g")
        assert (gallery.contract, gallery.faces) == (new.contract, 24)
        assert gallery.revision == before.revision + 1
        assert named(service, np.stack([v for _, v, _ in probes]), new.contract) == [
            f"p{p}" for p in range(8)
        ]
        with pytest.raises(ContractMismatchError):
            named(service, probes[0][0][None], old.contract)
        service = reopen()
    similarity = service.verify("g", "p0", faces(0, 1)[1], new.contract).similarity
    assert similarity is not None
    assert similarity > 0.9
    service.close()
    old_bytes = faces(0, 0)[0].astype("<f4").tobytes()
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or old_bytes not in file.read_bytes(), file


def test_without_crops_it_says_what_to_do(filled: GalleryService, faces: Any, models: Any) -> None:
    filled.update_gallery("g", keep_crops=False)
    filled.update_gallery("g", keep_crops=True)
    filled.enroll("g", "late", [faces(9, 0)[2]], create=True)
    with pytest.raises(BulkError, match=r"24 of 25 faces .* sphereid gallery import .*keep_crops") as caught:
        reembed(filled, "g", models[1])
    assert caught.value.code == "crops_missing"
    assert filled.get_gallery("g").contract == models[0].contract


def test_the_same_model_or_an_unused_gallery_needs_none(filled: GalleryService, models: Any) -> None:
    for gallery, model in (("g", models[0]), ("default", models[1])):
        with pytest.raises(BulkError) as caught:
            reembed(filled, gallery, model)
        assert caught.value.code == "reembed_needless"


def test_a_comparison_changes_nothing(filled: GalleryService, models: Any) -> None:
    before = filled.get_gallery("g")
    done = reembed(filled, "g", models[1], compare_only=True)
    assert not done["exchanged"]
    assert filled.get_gallery("g") == before


class Blind:
    """The new model, when it takes everybody for nearly the same."""

    def __init__(self, model: OnnxEmbedder) -> None:
        self.name, self.contract, self.dim, self.align = "blind", "blind", model.dim, model.align

    def embed(self, crops: RGBImage) -> Vectors:
        noise = np.random.default_rng(len(crops)).standard_normal((len(crops), self.dim)) * 0.01 + 1
        return (noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float32)


def test_a_worse_model_is_refused_unless_forced(filled: GalleryService, faces: Any, models: Any) -> None:
    for person in range(8, 60):
        new = [replace(faces(person % 8, 10 + person)[2], crop=faces(person, n)[2].crop) for n in range(2)]
        base = np.random.default_rng(person).standard_normal(models[0].dim)
        vectors = [base + np.random.default_rng([person, n]).standard_normal(len(base)) * 0.2 for n in (0, 1)]
        ready = [
            replace(face, vector=(v / np.linalg.norm(v)).astype(np.float32))
            for face, v in zip(new, vectors, strict=True)
        ]
        filled.enroll("g", f"p{person}", ready, create=True)
    blind: Any = Blind(models[1])
    with pytest.raises(BulkError, match="force") as caught:
        reembed(filled, "g", blind)
    assert caught.value.code == "reembed_worse"
    assert filled.get_gallery("g").contract == models[0].contract
    assert reembed(filled, "g", blind, force=True)["verdict"] == "worse"
    assert filled.get_gallery("g").contract == "blind"


def test_what_is_written_meanwhile_is_taken_along(filled: GalleryService, faces: Any, models: Any) -> None:
    _, new = models
    late: list[str] = []

    def meddle(progress: Progress) -> None:
        stage = progress.stage
        if stage == "embed" and not late:
            late.append("before the comparison")
            filled.enroll("g", "late0", [faces(20, 0)[2]], create=True)
            filled.delete_identity("g", "p1")
            filled.merge_identities("g", "p2", "p3")
        elif stage == "exchange" and len(late) == 1:
            late.append("just before the exchange")
            filled.enroll("g", "late1", [faces(21, 0)[2]], create=True)

    reembed(filled, "g", new, report=meddle)
    assert len(late) == 2
    probes = np.stack([faces(person, 5)[1] for person in (0, 2, 3, 20, 21)])
    assert named(filled, probes, new.contract) == ["p0", "p2", "p2", "late0", "late1"]
    assert filled.get_gallery("g").faces == 24 - 3 + 2
    with pytest.raises(GalleryError):
        filled.get_identity("g", "p1")


def test_searches_on_the_way_are_right_or_refused(filled: GalleryService, faces: Any, models: Any) -> None:
    old, new = models
    probes = {model.contract: np.stack([faces(p, 5)[i] for p in range(8)]) for i, model in enumerate(models)}
    wanted = [f"p{p}" for p in range(8)]
    wrong: list[Sequence[str | None]] = []
    served = dict.fromkeys(probes, 0)
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            for contract, vectors in probes.items():
                try:
                    found = named(filled, vectors, contract)
                except ContractMismatchError:
                    continue
                served[contract] += 1
                if found != wanted:
                    wrong.append(found)

    threads = [threading.Thread(target=search) for _ in range(3)]
    filled.update_gallery("g", template="mean")  # reads embeddings from the database too
    for thread in threads:
        thread.start()
    try:
        for model in (new, old, new):
            before = served[model.contract]
            reembed(filled, "g", model, force=True)
            while served[model.contract] == before:
                pass
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
