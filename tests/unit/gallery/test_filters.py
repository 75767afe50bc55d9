"""Metadata narrows lists and identifications down, and the promise follows the people that are left."""

import numpy as np
import pytest
from sphereid.gallery import matching
from sphereid.gallery.errors import InvalidRequestError
from sphereid.gallery.service import GalleryService
from sphereid.gallery.thresholds.calibration import ImpostorCalibration
from sphereid.gallery.types import FpirPolicy, TemplatePolicy

from tests.unit.gallery.conftest import CONTRACT, face, near, unit

PEOPLE = unit(30)
DEPARTMENTS = ("press", "sales", 3, True, "true", 'o"brien', "é, ü")


def fill(service: GalleryService) -> None:
    for i, center in enumerate(PEOPLE):
        metadata = {"department": DEPARTMENTS[i % len(DEPARTMENTS)], "even": i % 2 == 0, "nested": {"a": 1}}
        service.create_identity("default", f"p{i}", None, metadata if i < 28 else {})
        service.enroll(
            "default", f"p{i}", [face(near(center, 0.9 - 0.05 * j, seed=10 * i + j)) for j in range(3)]
        )


def listed(service: GalleryService, **where: str) -> list[int]:
    page = service.list_identities("default", limit=100, where=where)
    return [int(each.id[1:]) for each in page.items]


def test_lists(service: GalleryService) -> None:
    fill(service)
    assert listed(service, department="press") == [0, 7, 14, 21]
    assert listed(service, department="press", even="true") == [0, 14]
    assert listed(service, department="3") == [2, 9, 16, 23]
    assert listed(service, department="true") == [3, 4, 10, 11, 17, 18, 24, 25]
    assert listed(service, department='o"brien') == [5, 12, 19, 26]
    assert listed(service, department="é, ü") == [6, 13, 20, 27]
    assert listed(service, department="Press") == listed(service, other="x") == []
    paged = service.list_identities("default", limit=3, where={"department": "press"})
    rest = service.list_identities("default", cursor=paged.cursor, where={"department": "press"})
    assert [each.id for each in (*paged.items, *rest.items)] == ["p0", "p7", "p14", "p21"]


@pytest.mark.parametrize(
    "where",
    [{'a"b': "x"}, {"": "x"}, {"a\\b": "x"}, {"a": "x" * 201}, {str(i): "x" for i in range(9)}, {"a": "\0"}],
)
def test_filters_that_are_none(service: GalleryService, where: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError, match="filter"):
        service.list_identities("default", where=where)
    with pytest.raises(InvalidRequestError, match="filter"):
        service.identify("default", PEOPLE[:1], CONTRACT, where=where)


@pytest.mark.parametrize("template", ["best", "mean", "top_k_mean"])
def test_only_those_who_fit_are_candidates(
    service: GalleryService, template: TemplatePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing all that fit, and searching the index until enough fit, give the same."""
    fill(service)
    service.update_gallery("default", template=template)
    probes = np.concatenate([PEOPLE[:8], unit(4, seed=9)])
    everybody, _ = service.identify("default", probes, CONTRACT, k=30)
    answers = []
    for scan in (10_000, 0):
        monkeypatch.setattr(matching, "SCAN", scan)
        decisions, _ = service.identify("default", probes, CONTRACT, k=4, where={"department": "press"})
        answers.append([[(c.identity_id, c.face_id) for c in d.candidates] for d in decisions])
    fitting = {"p0", "p7", "p14", "p21"}
    expected = [
        [(c.identity_id, c.face_id) for c in d.candidates if c.identity_id in fitting] for d in everybody
    ]
    assert answers[0] == answers[1] == expected


def test_the_promise_counts_those_who_fit(service: GalleryService) -> None:
    levels = np.array([0.1, 0.01, 1e-3, 1e-4, 1e-5])
    calibration = ImpostorCalibration(levels, np.array([0.1, 0.3, 0.5, 0.6, 0.7]), 10**7)
    service._calibrations[CONTRACT] = calibration
    service.update_gallery("default", policy=FpirPolicy(0.01))
    fill(service)

    def threshold(**where: str) -> float:
        ((decision,), _) = service.identify("default", PEOPLE[:1], CONTRACT, where=where)
        return decision.threshold.value

    assert threshold(department="press", even="true") < threshold(department="press") < threshold()


def test_nobody_fits(service: GalleryService) -> None:
    fill(service)
    ((decision,), _) = service.identify("default", PEOPLE[:1], CONTRACT, where={"department": "none"})
    assert (decision.outcome, decision.reason, decision.candidates) == ("unknown", "empty_gallery", ())
