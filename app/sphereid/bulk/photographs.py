"""Photographs into a gallery: a few at a time through the pipeline, in batches into the database."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from sphereid.bulk.report import Journal, Line
from sphereid.bulk.sources import Entry, Source
from sphereid.faces.crops import pack
from sphereid.faces.decode import DecodedImage, DecodeLimits, decode
from sphereid.faces.errors import ImageError
from sphereid.faces.pipeline import AnalyzedFace, FacePipeline
from sphereid.faces.types import RGBImage
from sphereid.gallery.bulk_enrollment import NewPerson, check_person
from sphereid.gallery.errors import GalleryError, InvalidRequestError
from sphereid.gallery.service import GalleryService
from sphereid.gallery.types import NewFace
from sphereid.progress import Canceled, Meter, Report
from sphereid.recognition.quality_gate import Strictness, gate

BATCH: Final = 64
"""Faces that are embedded and committed together."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Which faces enter the gallery, as for a single enrollment.

    face: `only` leaves out photographs with several faces, `largest` takes the largest. quality: the gate.
    duplicates: `refuse` leaves out faces that resemble another identity, `report` names that identity.
    min_face: pixels. min_score: in [0, 1).
    """

    face: Literal["only", "largest"] = "only"
    quality: Strictness = "normal"
    duplicates: Literal["report", "refuse"] = "report"
    min_face: int | None = None
    min_score: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    entry: Entry
    face_id: str
    face: AnalyzedFace
    crop: bytes | None


def face_id(gallery_id: str, identity: str, data: bytes) -> str:
    """The id of the face of a photograph (`data`, the file) of somebody in a gallery: the same file gives the
    same id, so that an import that is repeated or goes on enrolls nothing twice."""
    digest = hashlib.sha256(f"{gallery_id}\0{identity}\0".encode())
    digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()[:24]


def import_photographs(
    source: Source,
    pipeline: FacePipeline,
    gallery: GalleryService,
    gallery_id: str,
    options: ImportOptions,
    *,
    journal: Journal,
    limits: DecodeLimits,
    workers: int = 1,
    report: Report | None = None,
    canceled: Canceled | None = None,
) -> Mapping[str, Any]:
    """Enroll every photograph of `source`; the journal gets a line for each, and its summary is the answer.

    What the journal has already is passed over, and so is a photograph whose face is enrolled. workers:
    photographs that are decoded and searched at the same time. Raises CanceledError, GalleryError.
    """
    work = _Import(source, pipeline, gallery, gallery_id, options, journal, limits)
    todo = [entry for entry in source.entries if entry.key not in journal.seen]
    total = len(source.entries)
    meter = Meter("import", total, report, canceled, skipped=total - len(todo))
    meter.update(journal.outcomes.total())
    batch: list[_Candidate] = []
    for found in work.look(todo, workers):
        if isinstance(found, Line):
            journal.add([found])
        else:
            batch.append(found)
        if len(batch) >= BATCH:
            work.enroll(batch)
            batch = []
        meter.update(journal.outcomes.total())
    if batch:
        work.enroll(batch)
        meter.update(total)
    return journal.summary()


@dataclass(frozen=True, slots=True, eq=False)
class _Import:
    source: Source
    pipeline: FacePipeline
    gallery: GalleryService
    gallery_id: str
    options: ImportOptions
    journal: Journal
    limits: DecodeLimits

    def look(self, entries: Iterable[Entry], workers: int) -> Iterator[Line | _Candidate]:
        """What each photograph has for the gallery, in their order. Reading is sequential: archives like
        it."""
        keep = self.gallery.get_gallery(self.gallery_id).keep_crops
        ahead: deque[Future[Line | _Candidate]] = deque()
        with ThreadPoolExecutor(workers, thread_name_prefix="import") as pool:
            try:
                for entry in entries:
                    ahead.append(self._begin(entry, pool, keep))
                    if len(ahead) > 2 * workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def _begin(self, entry: Entry, pool: ThreadPoolExecutor, keep: bool) -> "Future[Line | _Candidate]":
        settled: Future[Line | _Candidate] = Future()
        try:
            if entry.fault is not None:
                raise ImageError(*entry.fault)
            data = self.source.read(entry, self.limits.max_bytes)
            made = face_id(self.gallery_id, entry.identity, data)
            if self.gallery.known_faces(self.gallery_id, [made]):
                settled.set_result(Line(entry.key, entry.identity, "present", face=made))
                return settled
        except ImageError as error:
            settled.set_result(_left_out(entry, error.code, str(error)))
            return settled
        return pool.submit(self._see, entry, made, data, keep)

    def _see(self, entry: Entry, made: str, data: bytes, keep: bool) -> Line | _Candidate:
        try:
            image: DecodedImage | RGBImage = decode(data, self.limits)
        except ImageError as error:
            return _left_out(entry, error.code, str(error))
        options = self.options
        analysis = self.pipeline.analyze(
            image, embed=False, min_face=options.min_face, min_score=options.min_score
        )
        faces = analysis.faces
        if not faces:
            return _left_out(entry, "face_not_found", "no face was found")
        if len(faces) > 1 and options.face == "only":
            text = f"{len(faces)} faces were found; face=largest takes the largest"
            return _left_out(entry, "multiple_faces", text)
        reasons = gate(faces[0].face, options.quality)
        if reasons:
            text = f"the face is not good enough ({', '.join(reasons)}); quality=off takes it"
            return _left_out(entry, "low_quality", text)
        return _Candidate(entry, made, faces[0], pack(image, faces[0].face) if keep else None)

    def enroll(self, batch: list[_Candidate]) -> None:
        """Embed and store, then say so in the journal: what a kill comes between is found in the gallery."""
        vectors = self.pipeline.embedder.embed(np.stack([each.face.crop for each in batch]))
        people: dict[str, NewPerson] = {}
        lines: list[Line] = []
        for each, vector in zip(batch, vectors, strict=True):
            quality = each.face.face.quality
            face = NewFace(
                vector=vector,
                contract=self.pipeline.embedder.contract,
                quality=quality.score if quality else 0.0,
                detection_score=each.face.face.score,
                source=each.entry.key.rpartition("/")[2][:200],
                id=each.face_id,
                crop=each.crop,
            )
            entry = each.entry
            before = people.get(entry.identity)
            faces = (face,) if before is None else (*before.faces, face)
            people[entry.identity] = NewPerson(
                entry.identity,
                faces,
                before.name if before else entry.name,
                before.metadata if before else entry.metadata,
            )
        refused: dict[str, GalleryError] = {}
        accepted = []
        for person in people.values():
            try:
                check_person(person)
                accepted.append(person)
            except InvalidRequestError as error:  # an odd name, too much metadata: the others get in
                refused[person.id] = error
        result, resembled = self.gallery.enroll_many(
            self.gallery_id, accepted, duplicates=self.options.duplicates
        )
        enrolled = set(result.enrolled)
        for each in batch:
            key, identity = each.entry.key, each.entry.identity
            other = resembled.get(each.face_id, "")
            if identity in refused:
                lines.append(_left_out(each.entry, refused[identity].code, str(refused[identity])))
            elif each.face_id in enrolled:
                enrolled.discard(each.face_id)  # the same file twice: the second time it is there
                lines.append(Line(key, identity, "enrolled", face=each.face_id, resembles=other))
            elif other and each.face_id not in result.present and self.options.duplicates == "refuse":
                text = f"the face resembles identity {other!r}"
                lines.append(_left_out(each.entry, "duplicate_face", text, other))
            else:
                lines.append(Line(key, identity, "present", face=each.face_id))
        self.journal.add(lines)


def _left_out(entry: Entry, reason: str, detail: str, resembles: str = "") -> Line:
    return Line(entry.key, entry.identity, "left_out", reason, detail, resembles=resembles)
