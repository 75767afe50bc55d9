"""The gallery service on a real database: who is found, who is not, and what is refused."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sphereid.gallery.bulk_enrollment import NewPerson
from sphereid.gallery.errors import (
    ConflictError,
    ContractMismatchError,
    GalleryError,
    InvalidRequestError,
    NotFoundError,
)
from sphereid.gallery.service import GalleryService
from sphereid.gallery.thresholds.calibration import DEFAULT_COSINE, ImpostorCalibration
from sphereid.gallery.types import CosinePolicy, FpirPolicy, GalleryRules, Identity, StoredAnswer, Threshold
from sphereid.gallery.writes import Keyed
from sphereid.storage.errors import StorageError

from tests.unit.gallery.conftest import CONTRACT, Open, face, near, unit

PEOPLE = unit(20)


def fill(service: GalleryService, gallery: str = "default", faces: int = 3) -> None:
    for i, center in enumerate(PEOPLE):
        vectors = [near(center, 0.9, seed=i * 100 + j) for j in range(faces)]
        service.enroll(gallery, f"p{i}", [face(v) for v in vectors], create=True, name=f"Person {i}")


def test_known_people_are_named_and_strangers_are_not(service: GalleryService) -> None:
    fill(service)
    probes = np.stack([near(PEOPLE[4], 0.8, seed=9), unit(1, seed=77)[0]])
    (known, stranger), gallery = service.identify("default", probes, CONTRACT, k=3)
    assert known.outcome == "match"
    assert known.identity is not None
    assert (known.identity.id, known.identity.name, known.identity.faces) == ("p4", "Person 4", 3)
    assert len(known.candidates) == 3
    assert len({c.identity_id for c in known.candidates}) == 3
    assert known.margins.to_runner_up == pytest.approx(
        known.candidates[0].similarity - known.candidates[1].similarity
    )
    assert stranger.outcome == "unknown"
    assert stranger.identity is None
    assert (gallery.faces, gallery.identities, gallery.revision) == (60, 20, 20)


@pytest.mark.parametrize("template", ["best", "mean", "top_k_mean"])
def test_candidates_equal_a_plain_computation(service: GalleryService, template: str) -> None:
    rng = np.random.default_rng(5)
    people = {f"p{i}": unit(int(rng.integers(1, 9)), seed=i) for i in range(30)}
    for name, vectors in people.items():
        service.enroll("default", name, [face(v) for v in vectors], create=True)
    service.update_gallery("default", template=template)  # type: ignore[arg-type]

    def score(vectors: np.ndarray, probe: np.ndarray) -> float:
        cosines = sorted((float(v @ probe) for v in vectors), reverse=True)
        if template == "best":
            return cosines[0]
        if template == "top_k_mean":
            return float(np.mean(cosines[:3]))
        mean = vectors.sum(axis=0)
        return float(mean @ probe / np.linalg.norm(mean))

    for probe in unit(6, seed=1234):
        expected = sorted(((score(v, probe), n) for n, v in people.items()), reverse=True)[:4]
        (decision,), _ = service.identify("default", probe[None], CONTRACT, k=4)
        assert [c.identity_id for c in decision.candidates] == [n for _, n in expected]
        assert [c.similarity for c in decision.candidates] == pytest.approx(
            [s for s, _ in expected], abs=1e-5
        )
        best = expected[0][1]
        verified = service.verify("default", best, probe, CONTRACT)
        assert verified.similarity == pytest.approx(expected[0][0], abs=1e-5)
        faces = service.list_faces("default", best).items
        nearest = faces[int(np.argmax(people[best] @ probe))].id
        assert decision.candidates[0].face_id == verified.candidates[0].face_id == nearest


@pytest.mark.parametrize("template", ["best", "mean", "top_k_mean"])
def test_changes_are_seen_by_the_next_query_and_after_a_restart(reopen: Open, template: str) -> None:
    service = reopen()
    service.update_gallery("default", template=template)  # type: ignore[arg-type]
    fill(service)
    gone = service.list_faces("default", "p1").items[0].id
    service.delete_face("default", "p1", gone)
    service.enroll("default", "p2", [face(near(PEOPLE[2], 0.95, seed=5))])
    service.delete_identity("default", "p3")

    def seen(service: GalleryService) -> list[tuple[str, float]]:
        decisions, _ = service.identify("default", PEOPLE[:4], CONTRACT, k=1)
        return [(d.candidates[0].identity_id, round(d.candidates[0].similarity, 4)) for d in decisions]

    before = seen(service)
    assert [name for name, _ in before[:3]] == ["p0", "p1", "p2"]
    assert before[3][0] != "p3"
    assert seen(reopen()) == before


def test_one_crowded_identity_does_not_hide_the_others(service: GalleryService) -> None:
    crowd = [face(near(PEOPLE[0], 0.95, seed=i)) for i in range(120)]
    service.enroll("default", "crowd", crowd, create=True)
    service.enroll("default", "other", [face(PEOPLE[1])], create=True)
    (decision,), _ = service.identify("default", PEOPLE[:1], CONTRACT, k=5)
    assert [c.identity_id for c in decision.candidates] == ["crowd", "other"]
    assert decision.margins.to_runner_up is not None


def test_empty_gallery_and_no_probes(service: GalleryService) -> None:
    (decision,), gallery = service.identify("default", PEOPLE[:1], CONTRACT)
    assert (decision.outcome, decision.reason, decision.candidates) == ("unknown", "empty_gallery", ())
    assert gallery.contract is None
    assert service.identify("default", np.empty((0, 32), np.float32), CONTRACT)[0] == []


def test_ambiguity_and_unique_assignment(service: GalleryService) -> None:
    service.update_gallery("default", ambiguity_margin=0.2, policy=CosinePolicy(0.3))
    service.enroll("default", "a", [face(near(PEOPLE[0], 0.9, seed=1))], create=True)
    service.enroll("default", "b", [face(near(PEOPLE[0], 0.85, seed=2))], create=True)
    (decision,), _ = service.identify("default", PEOPLE[:1], CONTRACT)
    assert (decision.outcome, decision.identity) == ("ambiguous", None)
    service.update_gallery("default", ambiguity_margin=0.0)
    twice = np.stack([PEOPLE[0], near(PEOPLE[0], 0.99, seed=3)])
    decisions, _ = service.identify("default", twice, CONTRACT, assign_unique=True)
    assert sorted(d.identity.id for d in decisions if d.identity) == ["a", "b"]


def test_the_threshold_follows_the_gallery(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(0, 0.15, 200_000)
    calibrations = dict.fromkeys((None, CONTRACT), ImpostorCalibration.from_scores(scores))
    service = GalleryService.open(f"sqlite:///{tmp_path}/g.db", tmp_path, calibrations=calibrations)
    try:
        small = service.threshold("default")
        assert (small.policy, small.target) == ("fpir", 0.01)
        fill(service, faces=1)
        grown = service.threshold("default")
        assert grown.value > small.value
        (decision,), _ = service.identify("default", PEOPLE[:1], CONTRACT)
        assert decision.threshold == grown
        (fixed,), _ = service.identify("default", PEOPLE[:1], CONTRACT, threshold=0.123)
        assert fixed.threshold == Threshold(0.123, "cosine")
        service.update_gallery("default", policy=FpirPolicy(0.1))
        assert service.threshold("default").value < grown.value
        service.update_gallery("default", template="mean")
        assert service.verify("default", "p1", PEOPLE[1], CONTRACT).threshold.value == pytest.approx(
            calibrations[CONTRACT].threshold(0.1)[0]
        )
    finally:
        service.close()


def test_without_calibration_the_threshold_says_that_it_is_fixed(service: GalleryService) -> None:
    assert service.threshold("default") == Threshold(DEFAULT_COSINE, "cosine", None, False)


def test_a_gallery_never_mixes_contracts(service: GalleryService) -> None:
    fill(service)
    for call in (
        lambda: service.enroll("default", "p0", [face(PEOPLE[0], "other-model")]),
        lambda: service.identify("default", PEOPLE[:1], "other-model"),
        lambda: service.verify("default", "p0", PEOPLE[0], "other-model"),
    ):
        with pytest.raises(ContractMismatchError, match="enroll the photographs into a new gallery"):
            call()
    with pytest.raises(ContractMismatchError):
        service.enroll("default", "p0", [face(PEOPLE[0]), face(PEOPLE[1], "other-model")])
    assert service.get_gallery("default").faces == 60


def test_duplicates_are_reported_and_refused_in_strict_mode(service: GalleryService) -> None:
    service.update_gallery("default", policy=CosinePolicy(0.6))
    first = service.enroll("default", "a", [face(PEOPLE[0])], create=True).faces[0]
    said = service.enroll("default", "b", [face(near(PEOPLE[0], 0.8)), face(PEOPLE[1])], create=True)
    assert [(d.identity_id, d.face_id) for d in said.duplicates] == [("a", first.id)]
    assert said.duplicates[0].similarity == pytest.approx(0.8, abs=1e-5)
    revision = service.get_gallery("default").revision
    with pytest.raises(ConflictError) as refused:
        service.enroll(
            "default", "c", [face(PEOPLE[2]), face(near(PEOPLE[0], 0.7))], create=True, strict=True
        )
    assert refused.value.code == "duplicate_face"
    assert service.get_gallery("default").revision == revision
    with pytest.raises(NotFoundError):
        service.get_identity("default", "c")
    again = service.enroll("default", "a", [face(PEOPLE[0])])
    assert [d.face_id for d in again.duplicates] == [first.id]
    assert service.enroll("default", "a", [face(near(PEOPLE[3], 0.9))]).duplicates == ()


@pytest.mark.parametrize("template", ["best", "mean"])
def test_merged_identities_answer_as_one(reopen: Open, template: str) -> None:
    service = reopen()
    service.update_gallery("default", template=template)  # type: ignore[arg-type]
    fill(service)
    service.create_identity("default", "bare", None, {})
    ids = {f.id for name in ("p1", "p2") for f in service.list_faces("default", name).items}
    merged = service.merge_identities("default", "p1", "p2")
    assert (merged.id, merged.faces) == ("p1", 6)
    assert service.merge_identities("default", "p1", "bare").faces == 6
    for again in range(2):
        assert {f.id for f in service.list_faces("default", "p1").items} == ids
        gallery = service.get_gallery("default")
        assert (gallery.identities, gallery.faces) == (19, 60)
        assert service._live["default"].size() == (60 if template == "best" else 19)
        decisions, _ = service.identify("default", PEOPLE[:4], CONTRACT, threshold=0.3)
        assert [d.identity.id if d.identity else None for d in decisions] == ["p0", "p1", "p1", "p3"]
        service = service if again else reopen()
    with pytest.raises(NotFoundError):
        service.merge_identities("default", "p1", "p2")
    with pytest.raises(InvalidRequestError):
        service.merge_identities("default", "p1", "p1")
    service.delete_identity("default", "p1")
    assert service.get_gallery("default").faces == 54


def test_galleries_and_identities_live_their_lives(reopen: Open) -> None:
    service = reopen()
    rules = GalleryRules(CosinePolicy(0.4), 0.05, "mean")
    made = service.create_gallery("Staff", "The staff", {"site": "north"}, rules)
    assert (made.policy, made.ambiguity_margin, made.template) == (CosinePolicy(0.4), 0.05, "mean")
    unnamed = service.create_gallery(None, None, {}, GalleryRules())
    service.create_gallery("staff", None, {}, GalleryRules())  # ids that differ in case alone are two
    assert unnamed.name == unnamed.id
    service.create_identity("Staff", "ada", "Ada", {"room": 4})
    service.update_identity("Staff", "ada", name="Ada L.")
    service = reopen()
    ada = service.get_identity("Staff", "ada")
    assert (ada.name, ada.metadata, ada.faces) == ("Ada L.", {"room": 4}, 0)
    assert ada.created_at.tzinfo is not None
    assert service.get_gallery("Staff").metadata == {"site": "north"}
    assert service.delete_gallery("Staff").identities == 1
    with pytest.raises(NotFoundError):
        service.get_gallery("Staff")
    assert [g.id for g in service.list_galleries().items] == sorted([unnamed.id, "default", "staff"])


def test_lists_page_through_everything_once(service: GalleryService) -> None:
    for i in range(23):
        service.create_identity("default", f"p{i}", f"Person 100%_{i}" if i % 2 else "x", {})
    seen: list[str] = []
    cursor = None
    while True:
        page = service.list_identities("default", cursor=cursor, limit=5)
        seen += [identity.id for identity in page.items]
        if (cursor := page.cursor) is None:
            break
    assert seen == [f"p{i}" for i in range(23)]
    assert len(service.list_identities("default", name="00%_1").items) == 6
    assert service.list_identities("default", name="00%x").items == ()
    service.enroll("default", "p0", [face(v) for v in PEOPLE[:5]])
    page = service.list_faces("default", "p0", limit=3)
    rest = service.list_faces("default", "p0", limit=3, cursor=page.cursor)
    assert len({f.id for f in page.items + rest.items}) == 5
    assert rest.cursor is None
    assert service.get_face("default", "p0", page.items[0].id) == page.items[0]
    for wrong in ("!!", "bm90IGEgbnVtYmVy", "é"):
        with pytest.raises(InvalidRequestError):
            service.list_identities("default", cursor=wrong)


def test_what_is_refused(service: GalleryService) -> None:
    fill(service)
    bad = [
        lambda: service.enroll("default", "p0", []),
        lambda: service.enroll("default", "p0", [face(PEOPLE[0] * 2)]),
        lambda: service.enroll("default", "p0", [face(np.full(32, np.nan, np.float32))]),
        lambda: service.enroll("default", "p0", [face(PEOPLE[0]), face(unit(1, 8)[0])]),
        lambda: service.enroll("default", "p0", [face(unit(1, 8)[0])]),
        lambda: service.identify("default", unit(1, 8), CONTRACT),
        lambda: service.verify("default", "p0", unit(1, 8)[0], CONTRACT),
        lambda: service.identify("default", PEOPLE[:1], CONTRACT, k=0),
        lambda: service.identify("default", PEOPLE[:1], CONTRACT, threshold=1.5),
        lambda: service.create_identity("default", "../up", None, {}),
        lambda: service.create_identity("default", "", None, {}),
        lambda: service.create_identity("default", "ok", "n" * 300, {}),
        lambda: service.create_identity("default", "ok", None, {"a": object()}),
        lambda: service.create_identity("default", "ok", None, {"a": "x" * 20_000}),
        lambda: service.create_gallery("g", None, {}, GalleryRules(FpirPolicy(0.0))),
        lambda: service.create_gallery("g", None, {}, GalleryRules(CosinePolicy(2.0))),
        lambda: service.create_gallery("g", None, {}, GalleryRules(ambiguity_margin=-1)),
        lambda: service.update_gallery("default", template="median"),  # type: ignore[arg-type]
        lambda: service.list_identities("default", limit=0),
    ]
    for call in bad:
        with pytest.raises(InvalidRequestError):
            call()
    conflicts = {
        "gallery_protected": lambda: service.delete_gallery("default"),
        "gallery_exists": lambda: service.create_gallery("default", None, {}, GalleryRules()),
        "identity_exists": lambda: service.create_identity("default", "p0", None, {}),
    }
    for code, call in conflicts.items():
        with pytest.raises(ConflictError) as conflict:
            call()
        assert conflict.value.code == code
    missing = {
        "gallery_not_found": lambda: service.enroll("none", "p0", [face(PEOPLE[0])]),
        "identity_not_found": lambda: service.enroll("default", "none", [face(PEOPLE[0])]),
        "face_not_found_in_gallery": lambda: service.delete_face("default", "p0", "none"),
    }
    for code, call in missing.items():
        with pytest.raises(NotFoundError) as absent:
            call()
        assert absent.value.code == code
    assert service.get_gallery("default").revision == 20
    assert not any(live.stale for live in service._live.values())


def test_idempotency_keys(service: GalleryService) -> None:
    assert service.recall("k1", "f1") is None
    service.remember("k1", "f1", StoredAnswer(201, b"{}"))
    service.remember("k1", "f1", StoredAnswer(201, b"later"))
    assert service.recall("k1", "f1") == StoredAnswer(201, b"later")
    for other in (
        lambda: service.recall("k1", "other"),
        lambda: service.remember("k1", "other", StoredAnswer(201, b"")),
    ):
        with pytest.raises(ConflictError) as conflict:
            other()
        assert conflict.value.code == "idempotency_conflict"
    assert service.recall("k1", "f1") == StoredAnswer(201, b"later")


def test_an_answer_is_stored_with_its_write_or_not_at_all(
    service: GalleryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def render(identity: Identity) -> StoredAnswer:
        return StoredAnswer(201, identity.id.encode())

    with monkeypatch.context() as patched:
        patched.setattr("sphereid.gallery.store.touch_gallery", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            service.create_identity("default", "ann", None, {}, keyed=Keyed("k", "f", render))
    assert service.recall("k", "f") is None
    with monkeypatch.context() as patched:  # committed, but the process gets no further
        patched.setattr("sphereid.gallery.gallery_index.GalleryIndex.apply", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            service.create_identity("default", "ann", None, {}, keyed=Keyed("k", "f", render))
    assert service.recall("k", "f") == StoredAnswer(201, b"ann")
    with pytest.raises(ConflictError, match="came with another request"):  # and the write is undone
        service.create_identity("default", "bob", None, {}, keyed=Keyed("k", "g", render))
    assert service.identities("default", ["ann", "bob"]).keys() == {"ann"}


def test_one_process_at_a_time(service: GalleryService, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="another process"):
        GalleryService.open(f"sqlite:///{tmp_path}/gallery.db", tmp_path)
    service.close()
    service.close()
    GalleryService.open(f"sqlite:///{tmp_path}/gallery.db", tmp_path).close()


def test_threads_write_and_search_together(service: GalleryService) -> None:
    """Writers on two galleries while searches run: nothing is lost and no search sees a ghost."""
    service.create_gallery("other", None, {}, GalleryRules())
    failures: list[BaseException] = []
    stop = threading.Event()

    def write(gallery: str, who: str, seed: int) -> None:
        try:
            for i, vector in enumerate(unit(25, seed=seed)):
                made = service.enroll(gallery, f"{who}-{i}", [face(vector)], create=True).faces[0]
                (d,), _ = service.identify(gallery, vector[None], CONTRACT, threshold=0.99)
                assert d.identity is not None
                assert d.identity.id == f"{who}-{i}"
                if i % 3 == 0:
                    service.delete_face(gallery, f"{who}-{i}", made.id)
                    (d,), _ = service.identify(gallery, vector[None], CONTRACT, threshold=0.99)
                    assert d.outcome == "unknown"
        except (AssertionError, GalleryError, StorageError) as error:
            failures.append(error)

    def search() -> None:
        try:
            while not stop.is_set():
                service.identify("default", PEOPLE[:3], CONTRACT)
        except (AssertionError, GalleryError, StorageError) as error:
            failures.append(error)

    writers = [
        threading.Thread(target=write, args=(g, f"{g}{n}", hash((g, n)) % 10_000))
        for n, g in enumerate(["default", "default", "other"])
    ]
    searcher = threading.Thread(target=search)
    for thread in (*writers, searcher):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    searcher.join()
    assert failures == []
    assert service.get_gallery("default").faces == 2 * 16


def test_the_first_batch_is_compared_at_its_own_model_s_threshold(tmp_path: Path) -> None:
    """With several models in the folder an empty gallery belongs to none of them yet."""
    quantiles = [(10.0**-n, 0.5 + 0.08 * n) for n in range(6)]
    calibrations = {
        name: ImpostorCalibration.from_quantiles(quantiles, 1_000_000) for name in (CONTRACT, "another")
    }
    one = unit(1)[0]
    people = [
        NewPerson(f"p{n}", [replace(face(vector), id=f"f{n}")])
        for n, vector in enumerate((one, near(one, 0.6)))
    ]
    service = GalleryService.open(f"sqlite:///{tmp_path}/g.db", tmp_path, calibrations=calibrations)
    try:
        done, resembled = service.enroll_many("default", people, duplicates="refuse")
        assert (len(done.enrolled), resembled) == (2, {})
        assert service.threshold("default").value > 0.6
    finally:
        service.close()
