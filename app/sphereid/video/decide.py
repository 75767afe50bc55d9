"""The second step: who each part of a track is, and what every frame shows."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from sphereid.faces.types import FloatArray
from sphereid.gallery.thresholds.decisions import assign_unique
from sphereid.gallery.types import Candidate, Decision
from sphereid.video.spool import AnalyzedFrame
from sphereid.video.tracks import Part
from sphereid.video.types import Matcher, Shown, ShownFrame, Sighting, Verdict

_BATCH: Final = 256
MAX_GAP: Final = 0.6
"""Seconds for which a track that the detector lost and found again is drawn through the gap."""
UNSEEN: Final = Verdict(None, None, None, None, "not_embedded")


def decide_parts(
    parts: Mapping[int, Part], others: Mapping[int, set[int]], matcher: Matcher
) -> dict[int, Verdict]:
    """One verdict a part, from its pooled evidence; people seen together never get the same identity.

    The pooled embedding's cosine is scaled by the square root of the part's coherence: unscaled, strangers
    reach a threshold that was calibrated on single faces too often. `benchmarks/pooling.py` measures it.

    Of parts that want the same identity and were on screen together, the most similar gets it and the others
    their next candidate that reaches the threshold, or none. others: part -> parts seen beside it.
    """
    verdicts = dict.fromkeys(parts, UNSEEN)
    numbers = [number for number, part in parts.items() if part.pooled is not None]
    decisions: dict[int, Decision] = {}
    for start in range(0, len(numbers), _BATCH):
        chunk = numbers[start : start + _BATCH]
        vectors = np.stack([_pooled(parts[number]) for number in chunk])
        decisions.update(zip(chunk, matcher.identify(vectors), strict=True))

    taken: dict[int, str] = {}
    wishes = sorted(
        (
            (_scaled(c, parts[number]), number, c)
            for number, d in decisions.items()
            for c in _acceptable(d, parts[number])
        ),
        key=lambda wish: (-wish[0], wish[1]),
    )
    for _, number, candidate in wishes:
        rivals = {taken.get(other) for other in others.get(number, ())}
        if number not in taken and candidate.identity_id not in rivals:
            taken[number] = candidate.identity_id
            verdicts[number] = _verdict(parts[number], decisions[number], candidate, "above_threshold")
    for number, decision in decisions.items():
        if number not in taken:
            best = decision.candidates[0] if decision.candidates else None
            fits = bool(_acceptable(decision, parts[number]))
            reason = "assigned_elsewhere" if fits else decision.reason
            reason = "below_threshold" if reason == "above_threshold" else reason
            verdicts[number] = replace(_verdict(parts[number], decision, best, reason), identity=None)
    return verdicts


def _pooled(part: Part) -> FloatArray:
    assert part.pooled is not None
    return part.pooled


def _acceptable(decision: Decision, part: Part) -> Sequence[Candidate]:
    if decision.outcome != "match":
        return ()
    return [c for c in decision.candidates if _scaled(c, part) >= decision.threshold.value]


def _scaled(candidate: Candidate, part: Part) -> float:
    return candidate.similarity * math.sqrt(part.coherence)


def _verdict(part: Part, decision: Decision, candidate: Candidate | None, reason: str) -> Verdict:
    if candidate is None:
        return Verdict(None, None, None, decision.threshold, reason)
    mean = candidate.similarity * part.coherence
    return Verdict(candidate.identity_id, _scaled(candidate, part), mean, decision.threshold, reason)


def show_tracks(
    frames: Iterable[AnalyzedFrame], target: Mapping[int, int], verdicts: Mapping[int, Verdict]
) -> Iterator[ShownFrame]:
    """Frames with the verdicts of their tracks, and nobody in a frame twice: a track that was lost may be
    carried through frames in which another one has its person. target: part -> part after merging."""
    labeled = (
        (
            frame,
            None if frame.sightings is None else [_of_track(s, target, verdicts) for s in frame.sightings],
        )
        for frame in frames
    )
    return (replace(frame, faces=_once(frame.faces)) for frame in _filled(labeled, MAX_GAP))


def _once(faces: Sequence[Shown]) -> tuple[Shown, ...]:
    """Of several boxes with one name a detected one keeps it, and among those the most similar. The others
    are left out where they were carried over, and lose the name where they were detected."""
    named = [face for face in faces if face.identity is not None]
    keepers: dict[str | None, Shown] = {}
    for face in sorted(named, key=lambda face: (face.interpolated, -(face.similarity or 0.0))):
        keepers.setdefault(face.identity, face)
    if len(keepers) == len(named):
        return tuple(faces)
    kept = [(face, keepers.get(face.identity, face) is face) for face in faces]
    return tuple(
        face if keeps else replace(face, identity=None)
        for face, keeps in kept
        if keeps or not face.interpolated
    )


def show_faces(
    frames: Iterable[AnalyzedFrame], target: Mapping[int, int], matcher: Matcher
) -> Iterator[ShownFrame]:
    """Frames with each face decided by itself: the cosine to the gallery, below the threshold an outlier. A
    frame is a photograph: of two faces in it that would get the same name, one does."""

    def labeled() -> Iterator[tuple[AnalyzedFrame, list[Shown] | None]]:
        batch: list[AnalyzedFrame] = []
        for frame in frames:
            batch.append(frame)
            if len(batch) >= _BATCH:
                yield from _decided(batch, target, matcher)
                batch = []
        yield from _decided(batch, target, matcher)

    return _filled(labeled(), 0.0)


def _decided(
    frames: Sequence[AnalyzedFrame], target: Mapping[int, int], matcher: Matcher
) -> Iterator[tuple[AnalyzedFrame, list[Shown] | None]]:
    vectors = [s.vector for f in frames for s in f.sightings or () if s.vector is not None]
    decisions = iter(matcher.identify(np.stack(vectors)) if vectors else ())
    for frame in frames:
        if frame.sightings is None:
            yield frame, None
            continue
        found = [None if s.vector is None else next(decisions) for s in frame.sightings]
        shown = [
            _of_face(sighting, target[sighting.part], decision, identity)
            for sighting, decision, identity in zip(frame.sightings, found, _names(found), strict=True)
        ]
        yield frame, shown


def _names(decisions: Sequence[Decision | None]) -> Sequence[str | None]:
    """The identity of each face of a frame, none of them twice."""
    matches = [d if d is not None and d.outcome == "match" else None for d in decisions]
    names = [None if match is None else match.candidates[0].identity_id for match in matches]
    given = [name for name in names if name is not None]
    if len(set(given)) == len(given):
        return names
    limit = next(match.threshold.value for match in matches if match is not None)
    return assign_unique([() if match is None else match.candidates for match in matches], limit)


def _of_track(sighting: Sighting, target: Mapping[int, int], verdicts: Mapping[int, Verdict]) -> Shown:
    part = target[sighting.part]
    verdict = verdicts[part]
    return Shown(sighting.box, sighting.chain, part, verdict.identity, verdict.similarity)


def _of_face(sighting: Sighting, part: int, decision: Decision | None, identity: str | None) -> Shown:
    """similarity: to the identity, or to the best candidate of an outlier."""
    candidates = () if decision is None else decision.candidates
    named = [c.similarity for c in candidates if identity in (None, c.identity_id)]
    return Shown(sighting.box, sighting.chain, part, identity, named[0] if named else None)


def _filled(
    frames: Iterable[tuple[AnalyzedFrame, list[Shown] | None]], max_gap: float
) -> Iterator[ShownFrame]:
    """Carry boxes over to frames between two sightings of the same face: those that were not analyzed, and,
    for up to `max_gap` seconds, those in which the detector missed it. Frames after the last analyzed one
    show what that one did. Holds few frames at a time."""
    held: deque[ShownFrame] = deque()
    last: dict[tuple[int, str | None], tuple[ShownFrame, Shown]] = {}
    newest: ShownFrame | None = None
    for frame, faces in frames:
        now = ShownFrame(frame.index, frame.time, tuple(faces or ()))
        if faces is not None:
            for face in faces:
                key = (face.part, face.identity)
                if key in last:
                    _carry(held, *last[key], now, face)
                last[key] = (now, face)
            newest = now
            horizon = now.time - max_gap
            last = {key: seen for key, seen in last.items() if seen[0] is now or seen[0].time >= horizon}
            while held and held[0].time < horizon:
                yield held.popleft()
        held.append(now)
    for rest in held:
        if newest is not None and rest.index > newest.index:
            yield replace(rest, faces=tuple(replace(face, interpolated=True) for face in newest.faces))
        else:
            yield rest


def _carry(held: deque[ShownFrame], before: ShownFrame, start: Shown, after: ShownFrame, end: Shown) -> None:
    """Put a face into the held frames strictly between two frames, its box moving evenly."""
    span = max(after.time - before.time, 1e-9)
    for position in range(len(held) - 1, -1, -1):
        frame = held[position]
        if frame.index <= before.index:
            break
        share = (frame.time - before.time) / span
        left, top, right, bottom = (
            round(a + share * (b - a), 1) for a, b in zip(start.box, end.box, strict=True)
        )
        face = replace(end, box=(left, top, right, bottom), interpolated=True)
        held[position] = replace(frame, faces=(*frame.faces, face))
