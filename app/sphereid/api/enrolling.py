"""What the enrollment asks for: choose one good face an image, and store them."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from sphereid.api import schemas as s
from sphereid.api import views
from sphereid.api.body import Upload
from sphereid.api.choice import choose
from sphereid.api.looking import ImageAnalyzer, Timings, add, rounded, timed
from sphereid.api.metrics import Metrics
from sphereid.api.problems import Problem
from sphereid.api.workers import Call, Workers, together
from sphereid.faces.crops import pack
from sphereid.faces.errors import ImageError
from sphereid.gallery.errors import ContractMismatchError
from sphereid.gallery.service import GalleryService
from sphereid.gallery.types import Enrolled, Gallery, NewFace
from sphereid.gallery.writes import Keyed
from sphereid.inference.models import Model
from sphereid.recognition.models import Models
from sphereid.recognition.quality_gate import gate

T = TypeVar("T")


class Enrolling:
    """The models and the gallery behind the enrollment."""

    def __init__(
        self,
        models: Models,
        looker: ImageAnalyzer,
        gallery: GalleryService,
        workers: Workers,
        writers: Workers,
        metrics: Metrics,
    ) -> None:
        """workers: look at images. writers: wait for the database, and would keep workers from looking."""
        self._models = models
        self._looker = looker
        self._gallery = gallery
        self._workers = workers
        self._writers = writers
        self._metrics = metrics

    async def with_model_of(self, gallery_id: str, work: Callable[[Model], Awaitable[T]]) -> T:
        """Do work with the model whose embeddings a gallery holds; once more where another one took over on
        the way. Raises GalleryError."""
        while True:
            model = await self._writers.run(lambda _: self._models.of(gallery_id))
            try:
                return await work(model)
            except ContractMismatchError:
                if not self._models.moved(gallery_id, model):
                    raise

    async def prepare(
        self,
        model: Model,
        images: Sequence[Upload],
        options: s.EnrollOptions,
        timings: Timings,
        gallery: Gallery,
    ) -> tuple[list[NewFace], list[s.Rejected]]:
        """The faces of an enrollment that are good enough for the gallery, and why the others are not.

        Raises Problem or ImageError when none is left.
        """
        if options.box is not None and len(images) > 1:
            raise Problem("invalid_request", "box: it names a face of one image; send a single one")
        results = await together(
            self._workers.run(partial(self._candidate, model, image, options, gallery)) for image in images
        )
        for _, took in results:
            add(timings, took)
        faces = [result for result, _ in results if isinstance(result, NewFace)]
        errors = [(i, result) for i, (result, _) in enumerate(results) if not isinstance(result, NewFace)]
        rejected = [s.Rejected(index=i, reasons=_reasons(error)) for i, error in errors]
        if not faces:
            first = errors[0][1]
            raise Problem(
                first.code,
                str(first) if isinstance(first, ImageError) else first.detail,
                extensions={"rejected": [each.model_dump() for each in rejected]},
            )
        return faces, rejected

    async def enroll(
        self,
        model: Model,
        gallery_id: str,
        identity_id: str,
        prepared: tuple[list[NewFace], list[s.Rejected]],
        options: s.EnrollOptions,
        request_id: str,
        timings: Timings,
        keyed: Keyed[s.EnrollAnswer] | None = None,
    ) -> s.EnrollAnswer:
        """Store prepared faces. keyed: the request's Idempotency-Key. Raises GalleryError."""
        faces, rejected = prepared

        def shown(enrolled: Enrolled) -> s.EnrollAnswer:
            ids = sorted({duplicate.identity_id for duplicate in enrolled.duplicates})
            known = self._gallery.identities(gallery_id, ids)
            return s.EnrollAnswer(
                request_id=request_id,
                timings_ms=rounded(timings),
                model=views.model_ref(model),
                revision=enrolled.revision,
                faces=[views.stored_face(face) for face in enrolled.faces],
                rejected=rejected,
                duplicates=[
                    s.Duplicate(
                        identity=views.identity_ref(duplicate.identity_id, known),
                        face_id=duplicate.face_id,
                        similarity=round(float(duplicate.similarity), 6),
                    )
                    for duplicate in enrolled.duplicates
                ],
            )

        def store(_: Call) -> s.EnrollAnswer:
            with timed("store", timings, self._metrics):
                enrolled = self._gallery.enroll(
                    gallery_id,
                    identity_id,
                    faces,
                    create=options.create,
                    name=options.name,
                    strict=options.duplicates == "refuse",
                    keyed=None if keyed is None else keyed.after(shown),
                )
            self._metrics.enrolled.inc(len(enrolled.faces))
            return shown(enrolled)

        return await self._writers.run(store)

    def _candidate(
        self, model: Model, image: Upload, options: s.EnrollOptions, gallery: Gallery, call: Call
    ) -> tuple[NewFace | Problem | ImageError, Timings]:
        """A face to enroll, or what is wrong with its image; what is wrong with the service is raised."""
        try:
            seen = self._looker.see(model, image, options, call, hold=gallery.keep_crops)
        except ImageError as error:
            return error, {}
        try:
            at = choose(seen.faces, options.face, options.box)
        except Problem as problem:
            return problem, seen.timings
        face = seen.faces[at]
        reasons = gate(face, options.quality or gallery.quality)
        if reasons:
            refused = Problem(
                "low_quality",
                f"the face is not good enough ({', '.join(reasons)}): send a better "
                "picture, or ask for quality=off",
                extensions={"reasons": reasons},
            )
            return refused, seen.timings
        chosen = NewFace(
            vector=seen.vectors[at],
            contract=model.contract,
            quality=face.quality.score if face.quality else 0.0,
            detection_score=face.score,
            source=image.name,
            crop=None if seen.picture is None else pack(seen.picture, face),
        )
        return chosen, seen.timings


def _reasons(error: Problem | ImageError) -> list[str]:
    reasons = error.extensions.get("reasons") if isinstance(error, Problem) else None
    return list(reasons) if reasons else [error.code]
