"""Decisions on hand-made candidates; the assignment against every possible one."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sphereid.gallery.thresholds.decisions import (
    assign_unique,
    decide,
    decide_together,
    template_of,
    top_k_mean,
)
from sphereid.gallery.types import Candidate, Threshold

from tests.unit.gallery.conftest import unit

LIMIT = Threshold(0.5, "cosine")


def row(**similarities: float) -> list[Candidate]:
    return sorted(
        (Candidate(i, f"face-{i}", s) for i, s in similarities.items()), key=lambda c: -c.similarity
    )


@pytest.mark.parametrize(
    ("candidates", "margin", "outcome", "reason"),
    [
        ([], 0.0, "unknown", "empty_gallery"),
        (row(a=0.49), 0.0, "unknown", "below_threshold"),
        (row(a=0.5), 0.0, "match", "above_threshold"),
        (row(a=0.7, b=0.69), 0.0, "match", "above_threshold"),
        (row(a=0.7, b=0.69), 0.05, "ambiguous", "runner_up_too_near"),
        (row(a=0.7, b=0.45), 0.2, "match", "above_threshold"),
        (row(a=0.4, b=0.39), 0.05, "unknown", "below_threshold"),
    ],
)
def test_outcomes(candidates: list[Candidate], margin: float, outcome: str, reason: str) -> None:
    decision = decide(candidates, LIMIT, margin)
    assert (decision.outcome, decision.reason) == (outcome, reason)


def test_margins_and_kept_candidates() -> None:
    decision = decide(row(a=0.7, b=0.4, c=0.1), LIMIT, 0.0, k=1)
    assert decision.margins.to_threshold == pytest.approx(0.2)
    assert decision.margins.to_runner_up == pytest.approx(0.3)
    assert [c.identity_id for c in decision.candidates] == ["a"]
    assert decide(row(a=0.7), LIMIT, 0.0).margins.to_runner_up is None


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from("abcd"), st.floats(-1, 1), max_size=4), min_size=1, max_size=4)
)
def test_the_assignment_is_the_best_of_all(faces: list[dict[str, float]]) -> None:
    threshold = 0.2
    chosen = assign_unique([row(**face) for face in faces], threshold)
    named = [c for c in chosen if c is not None]
    assert len(named) == len(set(named))

    def worth(choice: tuple[str | None, ...]) -> float | None:
        given_out = [c for c in choice if c is not None]
        if len(given_out) != len(set(given_out)):
            return None
        total = 0.0
        for face, identity in zip(faces, choice, strict=True):
            if identity is not None:
                if face.get(identity, -2) < threshold:
                    return None
                total += face[identity] - threshold
        return total

    every = [w for c in product([None, *"abcd"], repeat=len(faces)) if (w := worth(c)) is not None]
    mine = worth(tuple(chosen))
    assert mine is not None
    assert mine == pytest.approx(max(every), abs=1e-6)


def test_two_faces_do_not_get_one_name() -> None:
    probes = [row(a=0.9, b=0.4), row(a=0.8, b=0.3), row(c=0.1)]
    (first, who), (second, other), (third, none) = decide_together(probes, LIMIT, 0.0)
    assert (first.outcome, who) == ("match", "a")
    assert (second.outcome, second.reason, other) == ("unknown", "assigned_elsewhere", None)
    assert (third.outcome, third.reason, none) == ("unknown", "below_threshold", None)
    assert second.similarity == 0.8


def test_a_displaced_face_gets_its_next_best() -> None:
    (first, who), (second, other) = decide_together([row(a=0.9, b=0.85), row(a=0.88, b=0.1)], LIMIT, 0.0)
    assert (who, other) == ("b", "a")
    assert first.similarity == 0.85
    assert second.margins.to_runner_up is None


def test_a_threshold_met_exactly_still_names() -> None:
    assert assign_unique([row(a=0.5)], 0.5) == ["a"]


def test_templates() -> None:
    faces = unit(5)
    mean = template_of(faces)
    assert np.linalg.norm(mean) == pytest.approx(1, abs=1e-6)
    assert np.allclose(mean, faces.sum(axis=0) / np.linalg.norm(faces.sum(axis=0)), atol=1e-6)
    assert np.all(np.isfinite(template_of(np.stack([faces[0], -faces[0]]))))
    assert top_k_mean(np.array([0.1, 0.9, 0.5, 0.7], np.float32)) == pytest.approx(0.7)
    assert top_k_mean(np.array([0.4], np.float32)) == pytest.approx(0.4)
