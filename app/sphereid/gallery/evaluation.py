"""How well a gallery tells its own people apart: leave-one-out over the faces that are enrolled.

Each probe is an enrolled face. As a mated probe it is compared with the other faces of its identity: FNIR is
the share that its identity misses, by the threshold or because another identity is nearer. As a non-mated
probe it is a stranger to a gallery without its identity: FPIR is the share for which some identity reaches
the threshold (the terms of ISO/IEC 19795-1 and of NIST's FRVT 1:N, NIST IR 8271).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sphereid.gallery import store
from sphereid.gallery.errors import InvalidRequestError
from sphereid.gallery.index.ports import Keys
from sphereid.gallery.matching import similarity_to
from sphereid.gallery.service import GalleryService
from sphereid.gallery.store.tables import ORDINAL_BITS
from sphereid.gallery.types import FpirPolicy, Threshold

TARGETS: Final = (0.1, 0.03, 0.01, 0.003, 0.001)
MOST: Final = 3000
"""Probes. Identities take turns, so that one with hundreds of faces does not decide."""

MIN_EVENTS: Final = 10
"""Strangers that must reach a threshold before a rate there counts as measured."""

_BATCH: Final = 64
_BIN: Final = 0.02
_LOOK_ALIKES: Final = 20

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of probes with the Wilson 95 % interval. Probes of one identity hang together: the truth is
    less sure than the interval says."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """What a threshold would do. target: the FPIR that it was chosen for, None for the one in force.

    measured: whether enough strangers reached it; without, it is the best guess that the probes allow.
    """

    target: float | None
    threshold: float
    fpir: Rate | None
    fnir: Rate | None
    measured: bool


@dataclass(frozen=True, slots=True)
class Note:
    """What limits the figures (code `no_mated`, `few_mated`, `no_non_mated`, `few_non_mated`), or what they
    warn of: `above_promise`, where more strangers get a name than an `fpir` policy promises."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class LookAlike:
    """A face that is nearer to another identity than strangers should be: perhaps the same person twice, or a
    face in the wrong place."""

    identity: str
    face: str
    other: str
    similarity: float


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """mated, non_mated: similarities of each probe with its own identity, and with the nearest other one.
    rank_one: share of mated probes to which no other identity is nearer. points: for `TARGETS`.
    suggested: the threshold for the gallery's target, None where too few probes say something about it."""

    gallery: str
    revision: int
    contract: str | None
    template: str
    identities: int
    faces: int
    mated: Scores
    non_mated: Scores
    rank_one: Rate | None
    current: Point
    policy: Threshold
    points: Sequence[Point]
    suggested: Point | None
    look_alikes: Sequence[LookAlike]
    notes: Sequence[Note]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "gallery": self.gallery,
            "revision": self.revision,
            "contract": self.contract,
            "template": self.template,
            "identities": self.identities,
            "faces": self.faces,
            "mated_probes": len(self.mated),
            "non_mated_probes": len(self.non_mated),
            "rank_one": _plain(self.rank_one),
            "threshold": _plain(self.policy),
            "current": _plain(self.current),
            "points": [_plain(point) for point in self.points],
            "suggested": _plain(self.suggested),
            "histograms": {"mated": histogram(self.mated), "non_mated": histogram(self.non_mated)},
            "look_alikes": [_plain(each) for each in self.look_alikes],
            "notes": [_plain(note) for note in self.notes],
        }


def evaluate(
    service: GalleryService,
    gallery_id: str,
    *,
    most: int = MOST,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Measure a gallery on itself, through the search that identify uses, while it goes on serving.

    tell: gets (probes done, probes in all). Raises InvalidRequestError where nobody is enrolled.
    """
    gallery = service.get_gallery(gallery_id)
    with service.reading() as tx:
        numbers = np.sort(store.face_numbers(tx, gallery_id))
    if not len(numbers):
        raise InvalidRequestError(f"gallery {gallery_id!r} has no faces to evaluate; enroll people first")
    probes = in_turns(numbers, most, seed)
    own: list[float] = []
    other: list[float] = []
    better: list[bool] = []
    alike: list[LookAlike] = []
    tell(0, len(probes))
    for start in range(0, len(probes), _BATCH):
        found = _compare(service, gallery_id, gallery.template, probes[start : start + _BATCH])
        for mine, nearest, face, identity in found:
            if mine is not None:
                own.append(mine)
                better.append(nearest is None or mine > nearest.similarity)
            if nearest is not None:
                other.append(nearest.similarity)
                alike.append(LookAlike(identity, face, nearest.identity_id, nearest.similarity))
        tell(min(start + _BATCH, len(probes)), len(probes))
    mated, non_mated, first = np.array(own), np.array(other), np.array(better, dtype=bool)
    policy = service.threshold(gallery_id)
    target = gallery.policy.target if isinstance(gallery.policy, FpirPolicy) else 0.01
    points = tuple(point(t, mated, first, non_mated) for t in TARGETS) if len(non_mated) else ()
    wanted = point(target, mated, first, non_mated) if len(non_mated) else None
    alike.sort(key=lambda each: -each.similarity)
    limit = min(policy.value, wanted.threshold) if wanted else policy.value
    current = _at(policy.value, None, mated, first, non_mated)
    warnings = []
    if policy.policy == "fpir" and wanted and current.fpir and current.fpir.low > target:
        warnings = [_above_promise(current.threshold, current.fpir, target, wanted.threshold)]
    return Evaluation(
        gallery=gallery_id,
        revision=gallery.revision,
        contract=gallery.contract,
        template=gallery.template,
        identities=len(np.unique(numbers >> ORDINAL_BITS)),
        faces=len(numbers),
        mated=mated,
        non_mated=non_mated,
        rank_one=share(int(first.sum()), len(first)),
        current=current,
        policy=policy,
        points=points,
        suggested=wanted if wanted is not None and wanted.measured else None,
        look_alikes=tuple(each for each in alike[:_LOOK_ALIKES] if each.similarity >= limit),
        notes=(*warnings, *_notes(mated, non_mated, target, trusted=not warnings)),
    )


def histogram(scores: Scores) -> dict[str, Any]:
    """Counts of similarities in bins of `_BIN` from -1 to 1: edges has one more entry than counts."""
    edges = np.round(np.arange(-1, 1 + _BIN / 2, _BIN), 4)
    counts, _ = np.histogram(np.clip(scores, -1, 1), edges)
    used = np.flatnonzero(counts)
    first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
    return {"edges": edges[first : last + 1].tolist(), "counts": counts[first:last].tolist()}


def in_turns(numbers: Keys, most: int, seed: int) -> Keys:
    """Up to `most` faces: a random one of each identity, then a second one of each, and on."""
    mixed = np.random.default_rng(seed).permutation(numbers)
    mixed = mixed[np.argsort(mixed >> ORDINAL_BITS, kind="stable")]
    owners = mixed >> ORDINAL_BITS
    starts = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
    turn = np.arange(len(mixed)) - np.repeat(starts, np.diff(np.r_[starts, len(mixed)]))
    order = np.lexsort((np.random.default_rng(seed + 1).random(len(mixed)), turn))
    return mixed[order[:most]]


def _compare(
    service: GalleryService, gallery_id: str, template: Any, numbers: Keys
) -> list[tuple[float | None, Any, str, str]]:
    """For each face: its similarity with the rest of its identity, the nearest other identity, its id and
    that of its identity. Faces that are gone meanwhile are left out."""
    with service.reading() as tx:
        known, vectors = store.vectors(tx, np.sort(numbers).tolist())
        every, faces = store.vectors_of_identities(tx, (known >> ORDINAL_BITS).tolist())
        named = store.found_faces(tx, gallery_id, known.tolist())
    if not len(known):
        return []
    nearest = service.nearest(gallery_id, vectors, 2)
    owners = every >> ORDINAL_BITS
    found = []
    for number, probe, row in zip(known.tolist(), vectors, nearest, strict=True):
        if number not in named:
            continue
        own = named[number].identity.id
        rest = faces[(owners == number >> ORDINAL_BITS) & (every != number)]
        mine = similarity_to(template, probe, rest) if len(rest) else None
        others = [c for c in row if c.identity_id != own]
        found.append((mine, others[0] if others else None, named[number].face_id, own))
    return found


def point(target: float, mated: Scores, first: NDArray[np.bool_], non_mated: Scores) -> Point:
    """The lowest threshold that at most the share `target` of strangers reaches."""
    ranked = np.sort(non_mated)[::-1]
    allowed = math.floor(target * len(ranked))
    above = ranked[allowed] if allowed < len(ranked) else -1.0  # this one must stay out already
    return _at(float(np.nextafter(above, 2.0)), target, mated, first, non_mated)


def _at(
    threshold: float, target: float | None, mated: Scores, first: NDArray[np.bool_], non_mated: Scores
) -> Point:
    hits = int((non_mated >= threshold).sum())
    missed = int((~(first & (mated >= threshold))).sum())
    enough = len(non_mated) * target >= MIN_EVENTS if target is not None else hits >= MIN_EVENTS
    return Point(target, threshold, share(hits, len(non_mated)), share(missed, len(mated)), bool(enough))


def share(events: int, count: int) -> Rate | None:
    """With the interval of Wilson (JASA 1927) at z = 1.96."""
    if not count:
        return None
    z2, p = 1.96**2, events / count
    center = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = 1.96 / (1 + z2 / count) * math.sqrt(p * (1 - p) / count + z2 / (4 * count * count))
    return Rate(p, max(0.0, center - half), min(1.0, center + half))


def _above_promise(in_force: float, fpir: Rate, target: float, wanted: float) -> Note:
    enough = math.ceil(1000 * wanted) / 1000  # rounded down it would let the nearest one in
    text = (
        f"with the threshold in force, {in_force:.3f}, {fpir.value:.1%} of these people as strangers would "
        f"get another's name, more than the {target:.1%} that the policy promises: to the model they look "
        "more alike than the people it was calibrated on, or somebody is enrolled twice (see the "
        f"look-alikes). If they are different people, set a `cosine` policy of {enough:.3f} or more"
    )
    return Note("above_promise", text)


def _notes(mated: Scores, non_mated: Scores, target: float, *, trusted: bool) -> list[Note]:
    """trusted: nothing speaks against the model's calibration."""
    notes = []
    if not len(mated):
        text = (
            "every identity has one face, so nothing is left to compare it with: FNIR cannot be measured, "
            "only FPIR; enroll a second photograph of some people"
        )
        notes.append(Note("no_mated", text))
    elif len(mated) < 30:
        text = f"{len(mated)} mated probes say little about FNIR; enroll more people with several photographs"
        notes.append(Note("few_mated", text))
    wanted = math.ceil(MIN_EVENTS / target)
    if not len(non_mated):
        notes.append(
            Note("no_non_mated", "there is one identity, so nobody is a stranger: FPIR cannot be measured")
        )
    elif len(non_mated) < wanted:
        text = (
            f"an FPIR of {target:g} shows with {wanted} strangers or more, there are {len(non_mated)}: no "
            "threshold is suggested"
        )
        text += "; the model's calibration knows more about it" if trusted else ""
        notes.append(Note("few_non_mated", text))
    return notes


def _plain(value: Any) -> Mapping[str, Any] | None:
    """A dataclass as JSON, similarities and rates to six digits."""
    return None if value is None else _rounded(asdict(value))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return round(value, 6) if isinstance(value, float) else value
