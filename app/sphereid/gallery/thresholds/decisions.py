"""From candidates to decisions: match, unknown or ambiguous, and no identity twice in one photograph."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sphereid.gallery.types import Candidate, Decision, Margins, Threshold, Vectors

TOP_K_MEAN = 3
"""Faces of an identity whose similarities `top_k_mean` averages."""


def template_of(vectors: Vectors) -> NDArray[np.float32]:
    """(F, D) faces of one identity -> (D,) their mean at norm 1. A mean of zero (opposite faces) stays
    zero."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32)


def top_k_mean(similarities: NDArray[np.float32], k: int = TOP_K_MEAN) -> float:
    """Mean of the k largest of an identity's similarities (F,), of all where there are fewer."""
    k = min(k, similarities.size)
    return float(np.partition(similarities, similarities.size - k)[-k:].mean())


def decide(
    candidates: Sequence[Candidate], threshold: Threshold, ambiguity_margin: float, *, k: int | None = None
) -> Decision:
    """The decision on one probe. candidates: best first, one per identity; the answer keeps the first k of
    them.

    `match` when the best reaches the threshold and the runner-up stays `ambiguity_margin` or more behind.
    The decision's `similarity` is the best candidate's; `identity` is left for the caller to fill on a match.
    """
    kept = tuple(candidates[:k])
    if not candidates:
        return Decision("unknown", "empty_gallery", threshold, kept, Margins(None, None))
    best = candidates[0].similarity
    behind = best - candidates[1].similarity if len(candidates) > 1 else None
    margins = Margins(best - threshold.value, behind)
    if best < threshold.value:
        return Decision("unknown", "below_threshold", threshold, kept, margins, similarity=best)
    if behind is not None and behind < ambiguity_margin:
        return Decision("ambiguous", "runner_up_too_near", threshold, kept, margins, similarity=best)
    return Decision("match", "above_threshold", threshold, kept, margins, similarity=best)


def assign_unique(probes: Sequence[Sequence[Candidate]], threshold: float) -> list[str | None]:
    """Identities for the faces of one photograph, each at most once: the assignment with the largest sum of
    similarities above the threshold (Kuhn-Munkres; `scipy.optimize.linear_sum_assignment`).

    probes: each face's candidates. Returns one identity id per face, None where none is left for it.
    """
    ids = sorted({c.identity_id for probe in probes for c in probe if c.similarity >= threshold})
    if not ids:
        return [None] * len(probes)
    column = {identity: i for i, identity in enumerate(ids)}
    # A column of its own for each face, worth nothing, lets it stay without a name.
    gain = np.zeros((len(probes), len(ids) + len(probes)))
    gain[:, : len(ids)] = -4.0
    for row, probe in enumerate(probes):
        for c in probe:
            if c.similarity >= threshold:
                # The constant makes a name worth more than none, also exactly at the threshold.
                gain[row, column[c.identity_id]] = c.similarity - threshold + 1e-9
    from scipy.optimize import linear_sum_assignment  # a quarter of the service's start

    rows, columns = linear_sum_assignment(gain, maximize=True)
    chosen: list[str | None] = [None] * len(probes)
    for row, col in zip(rows, columns, strict=True):
        if col < len(ids) and gain[row, col] > 0:
            chosen[row] = ids[col]
    return chosen


def decide_together(
    probes: Sequence[Sequence[Candidate]],
    threshold: Threshold,
    ambiguity_margin: float,
    *,
    k: int | None = None,
) -> list[tuple[Decision, str | None]]:
    """Decisions on the faces of one photograph in which a person occurs once, each with the identity it
    names.

    A face is decided among the identities that no other face was given. One that reached the threshold only
    with identities given to others is `unknown`, reason `assigned_elsewhere`. `candidates` stay unfiltered.
    """
    chosen = assign_unique(probes, threshold.value)
    taken = {identity for identity in chosen if identity is not None}
    decisions: list[tuple[Decision, str | None]] = []
    for probe, own in zip(probes, chosen, strict=True):
        alone = decide(probe, threshold, ambiguity_margin, k=k)
        if own is None:
            if alone.outcome != "unknown":
                alone = replace(alone, outcome="unknown", reason="assigned_elsewhere")
            decisions.append((alone, None))
            continue
        mine = [c for c in probe if c.identity_id == own]
        others = [c for c in probe if c.identity_id not in taken]
        decision = replace(decide(mine + others, threshold, ambiguity_margin), candidates=alone.candidates)
        decisions.append((decision, own if decision.outcome == "match" else None))
    return decisions
