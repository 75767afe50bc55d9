"""Another model for a gallery: its crops are embedded anew while the old embeddings go on serving; both are
compared on the gallery's own pairs; then they change places at once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sphereid.bulk.errors import BulkError
from sphereid.faces.crops import unpack
from sphereid.faces.ports import FaceEmbedder
from sphereid.faces.types import Face
from sphereid.gallery import store
from sphereid.gallery.evaluation import TARGETS, Point, Rate, in_turns, point, share
from sphereid.gallery.model_change import CropsOf, face_ids, without_crops
from sphereid.gallery.service import GalleryService
from sphereid.gallery.store.tables import ORDINAL_BITS
from sphereid.gallery.types import Vectors
from sphereid.progress import Canceled, Meter, Report

BATCH: Final = 64
COMPARED: Final = 20_000
"""Faces that the comparison looks at, those of whole identities drawn at random, and a thousand probes."""

_PROBES: Final = 1000


_Measured = tuple[dict[str, Any], list[Point], Rate | None]
"""As JSON, at each target, and rank one."""


class Shadow:
    """Embeddings of a gallery's faces by another model, in memory until they take over."""

    def __init__(self, embedder: FaceEmbedder) -> None:
        self._embedder = embedder
        self._rows: dict[str, int] = {}
        self._vectors = np.empty((0, embedder.dim), np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those of the faces that are not embedded yet."""
        return [face_id for face_id in ids if face_id not in self._rows]

    def add(self, crops: Mapping[str, bytes]) -> None:
        """Embed what is kept of some faces. Raises ImageError."""
        if not crops:
            return
        aligned = []
        for kept in crops.values():
            picture, landmarks = unpack(kept)
            box = np.concatenate([landmarks.min(axis=0), landmarks.max(axis=0)])
            aligned.append(self._embedder.align(picture, [Face(box, 1.0, landmarks)])[0])
        vectors = self._embedder.embed(np.stack(aligned))
        end = len(self._rows) + len(vectors)
        if end > len(self._vectors):
            grown = np.empty((max(end, 2 * len(self._vectors), 1024), self._embedder.dim), np.float32)
            grown[: len(self._rows)] = self._vectors[: len(self._rows)]
            self._vectors = grown
        self._vectors[len(self._rows) : end] = vectors
        self._rows |= {face_id: len(self._rows) + i for i, face_id in enumerate(crops)}

    def of(self, ids: Sequence[str]) -> Vectors:
        """(N, D) embeddings of faces that were added."""
        return self._vectors[[self._rows[face_id] for face_id in ids]]


def reembed(
    service: GalleryService,
    gallery_id: str,
    embedder: FaceEmbedder,
    *,
    force: bool = False,
    compare_only: bool = False,
    report: Report | None = None,
    canceled: Canceled | None = None,
) -> dict[str, Any]:
    """Give a gallery the embeddings of another model; what is written meanwhile is taken along.

    force: also where the comparison finds the new model worse. compare_only: leave the gallery as it is.
    report: gets the stages `embed`, in faces, `compare` and `exchange`. Returns the comparison as JSON.
    Raises BulkError `reembed_needless`, `crops_missing`, `reembed_worse`; CanceledError; GalleryError.
    """
    gallery = service.get_gallery(gallery_id)
    if gallery.contract in (None, embedder.contract):
        raise BulkError(
            "reembed_needless",
            f"gallery {gallery_id!r} holds no embeddings yet: enroll with the model that you want"
            if gallery.contract is None
            else f"gallery {gallery_id!r} holds embeddings of {embedder.name} already",
        )
    check_crops(service, gallery_id)
    shadow = Shadow(embedder)
    meter = Meter("embed", None, report, canceled)
    while True:
        with service.reading() as tx:
            ids = [face_id for _, face_id in face_ids(tx, gallery_id)]
        todo = shadow.missing(ids)
        if len(todo) <= BATCH and len(shadow):
            break  # so few are embedded while writes wait
        for start in range(0, len(todo), BATCH):
            with service.reading() as tx:
                crops = store.crops(tx, todo[start : start + BATCH])
            shadow.add(crops)
            meter.update(len(shadow), len(ids))
        check_crops(service, gallery_id)
        if not ids:
            break
    Meter("compare", 1, report, canceled).update(0)
    comparison: dict[str, Any] = (
        compare(service, gallery_id, shadow) if ids else {"old": {}, "new": {}, "verdict": "too_small"}
    )
    document = {
        "gallery": gallery_id,
        "faces": len(ids),
        "old": {"contract": gallery.contract, **comparison["old"]},
        "new": {"contract": embedder.contract, "model": embedder.name, **comparison["new"]},
        "verdict": comparison["verdict"],
        "exchanged": not compare_only,
    }
    if compare_only:
        return document
    if comparison["verdict"] == "worse" and not force:
        raise BulkError(
            "reembed_worse",
            f"{embedder.name} tells the people of this gallery apart less well ({_spoken(comparison)}): "
            "it stays with the old model; ask with force to change nevertheless",
        )
    Meter("exchange", 1, report, canceled).update(0)

    def embed(every: Sequence[str], crops_of: CropsOf) -> Vectors:
        late = shadow.missing(every)
        found = crops_of(late)
        if len(found) < len(late):
            raise _crops_missing(gallery_id, len(late) - len(found), len(every))
        shadow.add(found)
        return shadow.of(every)

    changed = service.exchange_embeddings(gallery_id, embedder.contract, embed)
    return document | {"faces": changed.faces, "revision": changed.revision}


def check_crops(service: GalleryService, gallery_id: str) -> None:
    """Raises BulkError `crops_missing` where a face has none, and says what to do."""
    gallery = service.get_gallery(gallery_id)
    with service.reading() as tx:
        missing = without_crops(tx, gallery_id)
    if missing:
        raise _crops_missing(gallery_id, missing, gallery.faces)


def _crops_missing(gallery_id: str, missing: int, faces: int) -> BulkError:
    return BulkError(
        "crops_missing",
        f"{missing} of {faces} faces of gallery {gallery_id!r} have no crop to embed anew. Import the "
        "photographs into a new gallery with the new model (SPHEREID_MODEL=NEW sphereid gallery import "
        f"PHOTOGRAPHS --gallery {gallery_id}-new --create), or let the gallery keep crops (keep_crops), "
        "delete these faces and enroll their photographs again with the old model",
    )


def compare(service: GalleryService, gallery_id: str, shadow: Shadow) -> dict[str, Any]:
    """Leave-one-out of the old and the new embeddings on the same probes of the same identities."""
    with service.reading() as tx:
        faces = face_ids(tx, gallery_id)
        numbers = np.array([number for number, _ in faces], np.int64)
        people = np.random.default_rng(0).permutation(np.unique(numbers >> ORDINAL_BITS))
        sizes = dict(zip(*np.unique(numbers >> ORDINAL_BITS, return_counts=True), strict=True))
        wanted = people[: max(2, int(np.searchsorted(np.cumsum([sizes[p] for p in people]), COMPARED)))]
        numbers, old = store.vectors_of_identities(tx, wanted.tolist())
    ids = dict(faces)
    known = np.array([n in ids and not shadow.missing([ids[n]]) for n in numbers.tolist()], dtype=bool)
    numbers, old = numbers[known], old[known]
    new = shadow.of([ids[n] for n in numbers.tolist()])
    probes = np.searchsorted(numbers, in_turns(numbers, _PROBES, 0))
    measured = {
        name: _measure(v, numbers >> ORDINAL_BITS, probes) for name, v in (("old", old), ("new", new))
    }
    return {
        "old": measured["old"][0],
        "new": measured["new"][0],
        "verdict": _verdict(*(measured[name] for name in ("old", "new"))),
    }


def _measure(vectors: Vectors, owners: NDArray[np.int64], probes: NDArray[np.intp]) -> _Measured:
    own, other = [], []
    better = []
    for start in range(0, len(probes), BATCH):
        some = probes[start : start + BATCH]
        for place, row in zip(some.tolist(), vectors[some] @ vectors.T, strict=True):
            same = owners == owners[place]
            rest = same.copy()
            rest[place] = False
            nearest = float(row[~same].max()) if not same.all() else None
            if nearest is not None:
                other.append(nearest)
            if rest.any():
                own.append(float(row[rest].max()))
                better.append(nearest is None or own[-1] > nearest)
    mated, first, non_mated = np.array(own), np.array(better, bool), np.array(other)
    points = [point(target, mated, first, non_mated) for target in TARGETS] if other else []
    rank_one = share(int(first.sum()), len(first))
    document = {
        "mated_probes": len(own),
        "non_mated_probes": len(other),
        "rank_one": None if rank_one is None else asdict(rank_one),
        "points": [asdict(each) for each in points],
    }
    return document, points, rank_one


def _verdict(old: _Measured, new: _Measured) -> str:
    """`better`, `worse` or `alike` by FNIR at the smallest FPIR that both measured. Where too few strangers
    are there for that, rank one can still say `better` or `worse`; otherwise it is `too_small`."""
    both = [
        (a.fnir, b.fnir)
        for a, b in zip(old[1], new[1], strict=True)
        if a.measured and b.measured and a.fnir and b.fnir
    ]
    if not both:
        return _compared(new[2], old[2]) or "too_small"
    before, after = both[-1]
    return _compared(before, after) or "alike"


def _compared(high: Rate | None, low: Rate | None) -> str | None:
    """Of two rates of which the second should be the lower one; None where their intervals overlap."""
    if high is None or low is None or (high.low <= low.high and low.low <= high.high):
        return None
    return "better" if low.high < high.low else "worse"


def _spoken(comparison: Mapping[str, Any]) -> str:
    pairs = zip(comparison["old"]["points"], comparison["new"]["points"], strict=True)
    measured = [(a, b) for a, b in pairs if a["measured"] and b["measured"]]
    if not measured:
        old, new = (comparison[name]["rank_one"]["value"] for name in ("old", "new"))
        return f"rank one {new:.1%} instead of {old:.1%}"
    before, after = measured[-1]
    new, old = after["fnir"]["value"], before["fnir"]["value"]
    return f"FNIR {new:.1%} instead of {old:.1%} at FPIR {before['target']:g}"
