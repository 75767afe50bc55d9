"""The inbox: kept where allowed, within bounds, by person, named or discarded, and gone without a trace."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sphereid.gallery import store
from sphereid.gallery.errors import ContractMismatchError, InvalidRequestError, NotFoundError
from sphereid.gallery.service import GalleryService
from sphereid.gallery.thresholds.calibration import ImpostorCalibration
from sphereid.gallery.types import CosinePolicy, GalleryRules, NewFace, Vectors
from sphereid.gallery.unknowns import MOST, cluster

from tests.unit.gallery.conftest import CONTRACT, Open, face, near, unit

PICTURE = b"picture " + bytes(range(256)) * 8


def stranger(vector: Vectors, number: int = 0, **more: object) -> NewFace:
    return replace(face(vector, source="door"), crop=PICTURE + bytes([number]), **more)  # type: ignore[arg-type]


@pytest.fixture
def keeping(service: GalleryService) -> GalleryService:
    service.create_gallery("g", None, {}, GalleryRules(CosinePolicy(0.5)))
    service.unknowns.set_rules("g", keep=True)
    return service


def ids(service: GalleryService) -> list[list[str]]:
    return [[each.id for each in found.faces] for found in service.unknowns.clusters("g")]


def test_nothing_is_kept_unless_the_gallery_allows_it(service: GalleryService) -> None:
    assert not service.unknowns.rules("default").keep
    assert service.unknowns.keep("default", [stranger(unit(1)[0])]) == 0
    assert service.unknowns.clusters("default") == []
    with pytest.raises(NotFoundError, match="no gallery"):
        service.unknowns.rules("nowhere")


def test_faces_are_grouped_by_person_the_largest_group_first(keeping: GalleryService) -> None:
    one, two = unit(2, 64)
    faces = [
        stranger(one),
        stranger(near(two, 0.9, 1)),
        stranger(near(two, 0.9, 2)),
        stranger(near(two, 0.9, 3)),
    ]
    assert keeping.unknowns.keep("g", faces) == 4
    found = keeping.unknowns.clusters("g")
    assert [len(each.faces) for each in found] == [3, 1]
    assert float(found[0].center @ two) > 0.9
    assert np.linalg.norm(found[0].center) == pytest.approx(1, abs=1e-6)


def test_nobody_is_twice_in_a_photograph(keeping: GalleryService) -> None:
    (one,) = unit(1, 64)
    twins = [stranger(near(one, 0.95, seed)) for seed in (1, 2)]
    assert keeping.unknowns.keep("g", twins, one_picture=True) == 2
    assert [len(each) for each in ids(keeping)] == [1, 1]
    assert keeping.unknowns.keep("g", [stranger(near(one, 0.95, seed)) for seed in (3, 4, 5)]) == 3
    groups = ids(keeping)
    assert sum(len(each) for each in groups) == 5
    assert len(groups) == 2, "faces of other pictures join either of the two, and never both"


def test_an_inbox_of_an_empty_gallery_is_grouped_by_its_models_calibration(tmp_path: Path) -> None:
    def calibration(scale: float) -> ImpostorCalibration:
        return ImpostorCalibration.from_quantiles(
            [(0.1, 0.2 * scale), (0.01, 0.4 * scale), (0.001, 0.5 * scale)], 100_000
        )

    calibrations = {CONTRACT: calibration(1.9), "another model": calibration(1)}
    service = GalleryService.open(f"sqlite:///{tmp_path}/g.db", tmp_path, calibrations=calibrations)
    try:
        service.unknowns.set_rules("default", keep=True)
        (one,) = unit(1, 64)
        alike = [one, near(one, 0.7, 1)]  # above the 0.5 of galleries without calibration
        assert service.unknowns.keep("default", [stranger(each) for each in alike]) == 2
        found = service.unknowns.clusters("default")
        assert [len(each.faces) for each in found] == [1, 1]
        assert found[0].threshold.policy == "fpir"
        assert found[0].threshold.value > 0.7
    finally:
        service.close()


def test_the_same_photograph_is_kept_once(keeping: GalleryService) -> None:
    vector = unit(1)[0]
    assert keeping.unknowns.keep("g", [stranger(vector), stranger(near(vector, 0.999))]) == 1
    assert keeping.unknowns.keep("g", [stranger(vector)]) == 0
    assert keeping.unknowns.keep("g", [stranger(near(vector, 0.95))]) == 1


def test_the_oldest_go_when_there_are_too_many_or_they_are_too_old(
    keeping: GalleryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = unit(8)
    keeping.unknowns.set_rules("g", most=5, days=2)
    for vector in vectors:
        keeping.unknowns.keep("g", [stranger(vector)])
    kept = keeping.unknowns.clusters("g")
    assert len(kept) == 5
    centers = np.stack([each.center for each in kept])
    assert sorted(np.argmax(centers @ vectors.T, axis=1).tolist()) == [3, 4, 5, 6, 7]
    keeping.unknowns.set_rules("g", most=3)
    assert len(ids(keeping)) == 3
    now = store.now() + timedelta(days=3)
    monkeypatch.setattr(store, "now", lambda: now)
    assert ids(keeping) == []


def test_a_group_is_named_and_found_again(keeping: GalleryService) -> None:
    vector = unit(1, 64)[0]
    keeping.unknowns.keep("g", [stranger(near(vector, 0.9, n), n) for n in range(3)])
    (group,) = ids(keeping)
    enrolled = keeping.unknowns.name("g", group, "ada", "Ada")
    assert {each.id for each in enrolled.faces} == set(group)
    assert ids(keeping) == []
    (decision,), gallery = keeping.identify("g", vector[None], face(vector).contract)
    assert decision.identity is not None
    assert (decision.identity.name, gallery.faces) == ("Ada", 3)
    keeping.unknowns.keep("g", [stranger(unit(1, 64, seed=9)[0])])
    keeping.unknowns.name("g", ids(keeping)[0], "ada")  # joins
    assert keeping.get_identity("g", "ada").faces == 4


def test_a_crash_between_enrollment_and_removal_leaves_nobody_twice(
    keeping: GalleryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping.unknowns.keep("g", [stranger(unit(1)[0])])
    (group,) = ids(keeping)

    def die(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("sphereid.gallery.unknowns._delete", die)
        with pytest.raises(KeyboardInterrupt):
            keeping.unknowns.name("g", group, "ada")
    assert keeping.get_identity("g", "ada").faces == 1
    with pytest.raises(NotFoundError, match="look again"):
        keeping.unknowns.name("g", group, "ada")
    assert ids(keeping) == []
    assert keeping.get_identity("g", "ada").faces == 1


def test_what_is_gone_is_said_and_nothing_is_done(keeping: GalleryService) -> None:
    keeping.unknowns.keep("g", [stranger(unit(1)[0])])
    (group,) = ids(keeping)
    for act in (keeping.unknowns.discard, lambda g, f: keeping.unknowns.name(g, f, "ada")):
        with pytest.raises(NotFoundError) as caught:
            act("g", [*group, "gone"])
        assert caught.value.code == "unknown_not_found"
    assert ids(keeping) == [group]
    assert keeping.get_gallery("g").faces == 0


def test_faces_of_another_model_are_not_compared_and_not_enrolled(keeping: GalleryService) -> None:
    keeping.enroll("g", "a", [face(unit(1)[0])], create=True)
    keeping.unknowns.keep("g", [stranger(unit(1)[0], contract="other")])
    keeping.unknowns.keep("g", [stranger(unit(1)[0])])
    assert len(ids(keeping)) == 2
    other = next(each for each in keeping.unknowns.clusters("g") if each.contract == "other")
    with pytest.raises(ContractMismatchError):
        keeping.unknowns.name("g", [other.faces[0].id], "b")
    assert len(ids(keeping)) == 2


@pytest.mark.parametrize("how", ["discard", "empty", "forbid", "gallery", "old", "name"])
def test_what_is_gone_leaves_no_trace(
    keeping: GalleryService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    keeping.unknowns.keep("g", [stranger(unit(1)[0])])
    (group,) = ids(keeping)
    assert keeping.unknowns.picture("g", group[0]).startswith(PICTURE)
    if how == "discard":
        assert keeping.unknowns.discard("g", group) == (1, True)
    elif how == "empty":
        assert keeping.unknowns.discard("g") == (1, True)
    elif how == "forbid":
        assert not keeping.unknowns.set_rules("g", keep=False).keep
    elif how == "gallery":
        keeping.delete_gallery("g")
    elif how == "old":
        later = store.now() + timedelta(days=365)
        monkeypatch.setattr(store, "now", lambda: later)
        assert ids(keeping) == []
    else:  # the picture goes; this gallery keeps no crops of those who are enrolled
        keeping.unknowns.name("g", group, "ada")
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or PICTURE[8:264] not in file.read_bytes(), file


def test_a_gallery_of_the_same_name_begins_without_an_inbox(keeping: GalleryService) -> None:
    keeping.delete_gallery("g")
    keeping.create_gallery("g", None, {}, GalleryRules())
    assert not keeping.unknowns.rules("g").keep


def test_rules_and_faces_outlive_a_restart(reopen: Open) -> None:
    first = reopen()
    first.unknowns.set_rules("default", keep=True, most=7, days=3)
    first.unknowns.keep("default", [stranger(unit(1)[0])])
    second = reopen()
    rules = second.unknowns.rules("default")
    assert (rules.keep, rules.most, rules.days) == (True, 7, 3)
    assert len(second.unknowns.clusters("default")) == 1


@pytest.mark.parametrize("change", [{"most": 0}, {"most": MOST + 1}, {"days": 0}, {"days": 366}])
def test_bounds_have_bounds(keeping: GalleryService, change: dict[str, int]) -> None:
    with pytest.raises(InvalidRequestError):
        keeping.unknowns.set_rules("g", **change)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 12), st.floats(-1, 1), st.integers(0, 1000), st.integers(1, 12))
def test_clusters_keep_the_average_linkage_promise(
    count: int, threshold: float, seed: int, pictures: int
) -> None:
    """Against the definition: no two clusters that are left have a mean similarity above the threshold, but
    where both have faces of one picture; a cluster of two reaches it; no cluster has two of one picture."""
    vectors = unit(count, 3, seed)
    drawn = np.random.default_rng(seed).integers(0, pictures, count)
    of = [None if each == 0 else str(each) for each in drawn]
    labels = cluster(vectors, threshold, of)
    assert labels.shape == (count,)
    similarities = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    for i, one in enumerate(groups):
        named = [of[member] for member in one if of[member]]
        assert len(named) == len(set(named))
        for other in groups[:i]:
            if set(named) & {of[member] for member in other}:
                continue
            assert similarities[np.ix_(one, other)].mean() < threshold + 1e-5
        if len(one) == 2:
            assert similarities[one[0], one[1]] >= threshold - 1e-5
