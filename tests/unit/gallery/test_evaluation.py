"""Leave-one-out against a plain computation, and galleries too small to say anything."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import binomtest
from sphereid.bulk.chart import evaluation_svg
from sphereid.gallery.errors import InvalidRequestError
from sphereid.gallery.evaluation import Evaluation, evaluate, in_turns, share
from sphereid.gallery.service import GalleryService
from sphereid.gallery.store.tables import ORDINAL_BITS
from sphereid.gallery.thresholds.calibration import ImpostorCalibration
from sphereid.gallery.types import CosinePolicy, FpirPolicy, GalleryRules, Vectors

from tests.unit.gallery.conftest import CONTRACT, face, near, unit


def crowd(people: int, each: int, spread: float = 0.8) -> tuple[Vectors, np.ndarray]:
    centers = unit(people, 16, seed=3)
    owners = np.repeat(np.arange(people), each)
    vectors = np.stack([near(centers[o], spread, seed=i) for i, o in enumerate(owners)])
    return vectors, owners


def fill(service: GalleryService, vectors: Vectors, owners: np.ndarray, template: Any = "best") -> None:
    service.create_gallery("g", None, {}, GalleryRules(CosinePolicy(0.55), template=template))
    for person in np.unique(owners):
        service.enroll("g", f"p{person}", [face(v) for v in vectors[owners == person]], create=True)


def plain(template: str, probe: Vectors, faces: Vectors) -> float:
    """An identity's similarity, by the words of the documentation."""
    if template == "mean":
        mean = faces.astype(np.float64).mean(axis=0)
        return float(mean @ probe / np.linalg.norm(mean))
    similarities = np.sort(faces.astype(np.float64) @ probe)[::-1]
    return float(similarities[0] if template == "best" else similarities[:3].mean())


@pytest.mark.parametrize("template", ["best", "mean", "top_k_mean"])
def test_every_score_is_that_of_a_plain_loop(service: GalleryService, template: str) -> None:
    vectors, owners = crowd(12, 4)
    fill(service, vectors, owners, template)
    found = evaluate(service, "g")
    own, other, first = [], [], 0
    for i, (probe, owner) in enumerate(zip(vectors, owners, strict=True)):
        rest = (owners == owner) & (np.arange(len(owners)) != i)
        own.append(plain(template, probe, vectors[rest]))
        other.append(max(plain(template, probe, vectors[owners == o]) for o in range(12) if o != owner))
        first += own[-1] > other[-1]
    assert np.allclose(np.sort(found.mated), np.sort(own), atol=1e-5)
    assert np.allclose(np.sort(found.non_mated), np.sort(other), atol=1e-5)
    assert found.rank_one is not None
    assert found.rank_one.value == pytest.approx(first / len(owners))
    missed = np.mean([o < 0.55 or o <= n for o, n in zip(own, other, strict=True)])
    assert found.current.fnir is not None
    assert found.current.fpir is not None
    assert found.current.fnir.value == pytest.approx(missed)
    assert found.current.fpir.value == pytest.approx(np.mean(np.array(other) >= 0.55))


def test_a_point_keeps_its_promise_and_none_lower_does(service: GalleryService) -> None:
    vectors, owners = crowd(60, 3, spread=0.7)
    fill(service, vectors, owners)
    found = evaluate(service, "g")
    for point in found.points:
        assert point.fpir is not None
        assert point.target is not None
        assert point.fpir.value <= point.target
        lower = np.mean(found.non_mated >= np.nextafter(point.threshold, -1))
        assert lower > point.target or point.threshold <= -1
        assert point.measured == (len(found.non_mated) * point.target >= 10)
    assert found.suggested is None  # 180 strangers cannot show 1 %
    assert [note.code for note in found.notes] == ["few_non_mated"]


def test_one_face_each_allows_no_fnir(service: GalleryService) -> None:
    vectors, owners = crowd(20, 1)
    fill(service, vectors, owners)
    found = evaluate(service, "g")
    assert (len(found.mated), len(found.non_mated)) == (0, 20)
    assert found.current.fnir is None
    assert found.rank_one is None
    assert [note.code for note in found.notes] == ["no_mated", "few_non_mated"]
    assert "not measurable" in evaluation_svg(found.document())


def test_one_person_allows_no_fpir(service: GalleryService) -> None:
    vectors, owners = crowd(1, 5)
    fill(service, vectors, owners)
    found = evaluate(service, "g")
    assert (len(found.mated), len(found.non_mated)) == (5, 0)
    assert found.current.fpir is None
    assert found.points == ()
    assert [note.code for note in found.notes] == ["few_mated", "no_non_mated"]
    ElementTree.fromstring(evaluation_svg(found.document()))


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_people_who_are_more_alike_than_the_calibrations_break_the_promise_and_it_says_so(
    tmp_path: Path, alike: float
) -> None:
    scores = np.random.default_rng(0).normal(0, 0.25, 100_000).clip(-1, 1)
    calibrations = dict.fromkeys((None, CONTRACT), ImpostorCalibration.from_scores(scores))
    service = GalleryService.open(f"sqlite:///{tmp_path}/g.db", tmp_path, calibrations=calibrations)
    part = unit(1, 16, seed=1)[0]
    people = np.stack([near(part, alike, seed=i) if alike else v for i, v in enumerate(unit(40, 16, seed=2))])
    service.create_gallery("g", None, {}, GalleryRules(FpirPolicy(0.01)))
    for i, vector in enumerate(people):
        service.enroll("g", f"p{i}", [face(vector)], create=True)
    found = evaluate(service, "g")
    codes = [note.code for note in found.notes]
    assert ("above_promise" in codes) == (alike > 0)
    if alike:
        (advised,) = re.findall(r"policy of ([0-9.]+)", found.notes[0].text)
        service.update_gallery("g", policy=CosinePolicy(float(advised)))
        after = evaluate(service, "g")
        assert after.current.fpir is not None
        assert after.current.fpir.value == 0
        assert [note.code for note in after.notes] == codes[1:]
    service.close()


def test_an_empty_gallery_is_refused(service: GalleryService) -> None:
    with pytest.raises(InvalidRequestError, match="no faces"):
        evaluate(service, "default")


def test_the_same_person_twice_is_pointed_out(service: GalleryService) -> None:
    vectors, owners = crowd(20, 2)
    owners[5] = 99  # the second face of person 2 under another name
    fill(service, vectors, owners)
    found = evaluate(service, "g")
    pairs = {(each.identity, each.other) for each in found.look_alikes[:2]}
    assert pairs == {("p2", "p99"), ("p99", "p2")}


def test_people_take_turns() -> None:
    numbers = np.concatenate([np.arange(n) + (p << ORDINAL_BITS) for p, n in enumerate((1, 2, 200))])
    chosen = in_turns(numbers, 5, seed=0) >> ORDINAL_BITS
    assert sorted(chosen[:3].tolist()) == [0, 1, 2]
    assert sorted(chosen[3:].tolist()) == [1, 2]
    assert len(in_turns(numbers, 999, seed=0)) == len(set(in_turns(numbers, 999, seed=1).tolist())) == 203


def test_the_interval_is_wilsons() -> None:
    for events, count in ((10, 100), (1, 7), (49, 50)):
        rate = share(events, count)
        wanted = binomtest(events, count).proportion_ci(0.95, method="wilson")
        assert rate is not None
        assert (rate.low, rate.high) == pytest.approx((wanted.low, wanted.high), abs=1e-4)
    zero = share(0, 50)
    assert zero is not None
    assert zero.low == 0 < zero.high < 0.1


def test_the_picture_is_drawn_from_the_document(service: GalleryService) -> None:
    vectors, owners = crowd(30, 3)
    fill(service, vectors, owners)
    found: Evaluation = evaluate(service, "g")
    document = found.document()
    root = ElementTree.fromstring(evaluation_svg(document))
    bars = [e for e in root.iter("{http://www.w3.org/2000/svg}rect") if e.get("fill-opacity")]
    drawn = sum(count > 0 for h in document["histograms"].values() for count in h["counts"])
    assert len(bars) == drawn
    assert sum(document["histograms"]["mated"]["counts"]) == 90
