"""What the image routes ask for: see an image, then name, compare or enroll its faces."""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from app.api import schemas as s
from app.api import views
from app.api.body import Parsed, Upload
from app.api.chain import then
from app.api.choice import choose
from app.api.metrics import Metrics
from app.api.problems import Problem
from app.gallery.calibration import verification_threshold
from app.gallery.errors import ContractMismatchError, GalleryError
from app.gallery.service import GalleryService
from app.gallery.types import Decision, Enrolled, Gallery, Identity, Margins, NewFace, Threshold
from app.gallery.writes import Keyed
from app.gate import gate
from app.pipeline.decode import DecodedImage, DecodeLimits, decode
from app.pipeline.errors import ImageError
from app.pipeline.keep import pack
from app.pipeline.types import Face, FloatArray, RGBImage
from app.serving import Model, Models
from app.settings import Settings

T = TypeVar("T")
Timings = dict[str, float]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """An image after the pipeline.

    width, height: upright, in pixels. faces: largest first, in the same pixels. vectors: (N, D) float32, or
    None where no embedding was asked for. image: the picture itself, where it was asked for.
    """

    width: int
    height: int
    faces: tuple[Face, ...]
    vectors: FloatArray | None
    image: DecodedImage | None = None

    @property
    def size(self) -> s.ImageSize:
        """For the answer."""
        return s.ImageSize(width=self.width, height=self.height)


class Recognition:
    """The models and the gallery behind the image routes. One per process, for one event loop."""

    def __init__(
        self,
        models: Models,
        limits: DecodeLimits,
        gallery: GalleryService,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._models = models
        self._limits = limits
        self._gallery = gallery
        self._metrics = metrics
        self._settings = settings
        # Workers of a pool go on with the next request by themselves; the event loop, which waits its turn
        # among threads that compute, need not hand it to them.
        self._lookers = ThreadPoolExecutor(settings.queues.in_flight, "look")
        self._searchers = ThreadPoolExecutor(max(4, 2 * settings.queues.in_flight), "search")
        self._calibration = models.default.calibration

    def close(self) -> None:
        """Finish what runs. A second call does nothing."""
        self._lookers.shutdown()
        self._searchers.shutdown()

    async def with_model_of(self, gallery_id: str, work: Callable[[Model], Awaitable[T]]) -> T:
        """Do work with the model whose embeddings a gallery holds; once more where another one took over on
        the way. Raises GalleryError."""
        while True:
            model = await self._in_thread(lambda: self._models.of(gallery_id))
            try:
                return await work(model)
            except ContractMismatchError:
                if not self._models.moved(gallery_id, model):
                    raise

    async def see(
        self,
        model: Model,
        image: Upload,
        options: s.FindOptions,
        timings: Timings,
        *,
        embed: bool = True,
        hold: bool = False,
    ) -> Seen:
        """Decode, detect and judge in a worker thread; embed with whatever other requests bring.

        hold: answer the picture too. timings: milliseconds are added to `queue`, `decode`, `detect`, `embed`.
        Raises ImageError.
        """
        asked = perf_counter()

        def look() -> tuple[Seen, RGBImage, Timings]:
            begun = perf_counter()
            decoded = decode(image.data, self._limits)
            done = perf_counter()
            analysis = model.shared.analyze(
                decoded,
                embed=False,
                min_face=options.min_face,
                min_score=_first(options.min_detection_score, self._settings.detection.min_score),
                max_faces=self._settings.limits.faces_per_image,
            )
            crops = [each.crop for each in analysis.faces]
            took = {
                "queue": 1e3 * (begun - asked),
                "decode": 1e3 * (done - begun),
                "detect": 1e3 * (perf_counter() - done),
            }
            faces = tuple(each.face for each in analysis.faces)
            seen = Seen(decoded.width, decoded.height, faces, None, decoded if hold else None)
            return seen, np.stack(crops) if crops else np.empty((0, 1, 1, 3), np.uint8), took

        looking = self._lookers.submit(look)
        if embed:
            vectors = await asyncio.wrap_future(then(looking, lambda found: model.batcher.submit(found[1])))
            (seen, _, took), done = looking.result(), perf_counter()
            took["embed"] = 1e3 * (done - asked) - sum(took.values())
            seen = replace(seen, vectors=vectors)
        else:
            seen, _, took = await asyncio.wrap_future(looking)
        for stage, milliseconds in took.items():
            timings[stage] = timings.get(stage, 0.0) + milliseconds
            self._metrics.stage(stage, milliseconds)
        self._metrics.faces.inc(len(seen.faces))
        return seen

    async def detect(self, body: Parsed[s.FindOptions], request_id: str, timings: Timings) -> s.DetectAnswer:
        """The faces of an image."""
        seen = await self.see(self._models.default, body.images[0], body.options, timings, embed=False)
        return s.DetectAnswer(
            request_id=request_id,
            timings_ms=_rounded(timings),
            image=seen.size,
            faces=[views.face_members(face) for face in seen.faces],
        )

    async def embed(self, body: Parsed[s.FindOptions], request_id: str, timings: Timings) -> s.EmbedAnswer:
        """The faces of an image with their embeddings."""
        model = self._models.default
        seen = await self.see(model, body.images[0], body.options, timings)
        return s.EmbedAnswer(
            request_id=request_id,
            timings_ms=_rounded(timings),
            model=_ref(model),
            image=seen.size,
            faces=[
                s.EmbeddedFace(**dict(views.face_members(face)), embedding=vector.tolist())
                for face, vector in zip(seen.faces, _vectors(seen), strict=True)
            ],
        )

    async def identify(
        self, gallery_id: str, body: Parsed[s.IdentifyOptions], request_id: str, timings: Timings
    ) -> s.IdentifyAnswer:
        """Who is on the image. Raises GalleryError."""
        return await self.with_model_of(
            gallery_id, lambda model: self._identify(model, gallery_id, body, request_id, timings)
        )

    async def _identify(
        self,
        model: Model,
        gallery_id: str,
        body: Parsed[s.IdentifyOptions],
        request_id: str,
        timings: Timings,
    ) -> s.IdentifyAnswer:
        options = body.options
        unknowns = self._gallery.unknowns  # the next line finds out whether there is such a gallery
        inbox = unknowns.known_rules(gallery_id)
        if inbox is None:
            inbox = await self._in_thread(lambda: unknowns.rules(gallery_id))
        seen = await self.see(model, body.images[0], options, timings, hold=inbox.keep)
        vectors = _vectors(seen)
        gated = [gate(face, options.quality) for face in seen.faces]
        kept = [i for i, reasons in enumerate(gated) if not reasons]

        def search() -> tuple[list[Decision], s.GalleryRef, dict[str, Identity], Threshold]:
            decisions, gallery = self._gallery.identify(
                gallery_id,
                vectors[kept],
                model.contract,
                k=options.k,
                threshold=options.threshold,
                assign_unique=options.assign == "unique",
                where=options.filter,
            )
            known = {c.identity_id: c.identity for d in decisions for c in d.candidates if c.identity}
            limit = decisions[0].threshold if decisions else self._gallery.threshold(gallery_id)
            if options.threshold is not None:
                limit = Threshold(options.threshold, "cosine")
            reference = s.GalleryRef(id=gallery.id, revision=gallery.revision, faces=gallery.faces)
            return decisions, reference, known, limit

        found, reference, known, limit = await self._timed(search, timings)
        decisions = [
            Decision("rejected", reasons[0], limit, (), Margins(None, None)) if reasons else None
            for reasons in gated
        ]
        for i, decision in zip(kept, found, strict=True):
            decisions[i] = decision
        answered = [decision for decision in decisions if decision is not None]
        for decision in answered:
            self._metrics.decisions.labels(decision.outcome).inc()
        if seen.image is not None:
            await self._in_thread(
                lambda: self._keep_unknown(model, gallery_id, seen, answered, body.images[0].name)
            )
        return s.IdentifyAnswer(
            request_id=request_id,
            timings_ms=_rounded(timings),
            model=_ref(model),
            gallery=reference,
            image=seen.size,
            faces=[
                views.identified(face, decision, known)
                for face, decision in zip(seen.faces, answered, strict=True)
            ],
        )

    def _keep_unknown(
        self, model: Model, gallery_id: str, seen: Seen, decisions: Sequence[Decision], source: str | None
    ) -> None:
        """Put faces that nobody was named for into the gallery's inbox. Whoever asked gets the answer even
        where that fails."""
        assert seen.image is not None
        faces = [
            NewFace(
                vector=vector,
                contract=model.contract,
                quality=face.quality.score if face.quality else 0.0,
                detection_score=face.score,
                source=source,
                crop=pack(seen.image, face),
            )
            for face, vector, decision in zip(seen.faces, _vectors(seen), decisions, strict=True)
            if decision.outcome == "unknown" and not gate(face, "normal")
        ]
        try:
            self._gallery.unknowns.keep(gallery_id, faces)
        except GalleryError as error:
            log.warning("an unknown face could not be kept: %s", error)

    async def verify(
        self, body: Parsed[s.VerifyOptions], request_id: str, timings: Timings
    ) -> s.VerifyAnswer:
        """Whether two images show the same person."""
        options = body.options
        model = self._models.default
        one, two = await _all(self._one_face(model, image, options, timings) for image in body.images)
        similarity = float(np.clip(one[1] @ two[1], -1, 1))
        limit = (
            verification_threshold(self._calibration, self._settings.verification_fmr)
            if options.threshold is None
            else Threshold(options.threshold, "cosine")
        )
        match = similarity >= limit.value
        self._metrics.decisions.labels("match" if match else "unknown").inc()
        return s.VerifyAnswer(
            request_id=request_id,
            timings_ms=_rounded(timings),
            model=_ref(model),
            decision="match" if match else "unknown",
            reason="above_threshold" if match else "below_threshold",
            similarity=round(similarity, 6),
            threshold=views.threshold(limit),
            margins=s.Margins(to_threshold=round(similarity - limit.value, 6), to_runner_up=None),
            faces=[views.face_members(one[0]), views.face_members(two[0])],
        )

    async def verify_identity(
        self,
        gallery_id: str,
        identity_id: str,
        body: Parsed[s.VerifyOptions],
        request_id: str,
        timings: Timings,
    ) -> s.VerifyIdentityAnswer:
        """Whether an image shows a certain identity. Raises GalleryError."""
        await self._in_thread(lambda: self._gallery.get_identity(gallery_id, identity_id))
        return await self.with_model_of(
            gallery_id,
            lambda model: self._verify_identity(model, gallery_id, identity_id, body, request_id, timings),
        )

    async def _verify_identity(
        self,
        model: Model,
        gallery_id: str,
        identity_id: str,
        body: Parsed[s.VerifyOptions],
        request_id: str,
        timings: Timings,
    ) -> s.VerifyIdentityAnswer:
        face, vector, _ = await self._one_face(model, body.images[0], body.options, timings)

        def compare() -> tuple[Decision, dict[str, Identity]]:
            decision = self._gallery.verify(
                gallery_id, identity_id, vector, model.contract, threshold=body.options.threshold
            )
            return decision, self._gallery.identities(gallery_id, [identity_id])

        decision, known = await self._timed(compare, timings)
        self._metrics.decisions.labels(decision.outcome).inc()
        return s.VerifyIdentityAnswer(
            request_id=request_id,
            timings_ms=_rounded(timings),
            model=_ref(model),
            face=views.face_members(face),
            **dict(views.decided(decision, known)),
        )

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
        results = await _all(self._candidate(model, image, options, timings, gallery) for image in images)
        faces = [result for result in results if isinstance(result, NewFace)]
        errors = [(i, result) for i, result in enumerate(results) if not isinstance(result, NewFace)]
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
                timings_ms=_rounded(timings),
                model=_ref(model),
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

        def store() -> Enrolled:
            return self._gallery.enroll(
                gallery_id,
                identity_id,
                faces,
                create=options.create,
                name=options.name,
                strict=options.duplicates == "refuse",
                keyed=None if keyed is None else keyed.after(shown),
            )

        enrolled = await self._timed(store, timings, stage="store")
        self._metrics.enrolled.inc(len(enrolled.faces))
        return await self._in_thread(lambda: shown(enrolled))

    async def _one_face(
        self,
        model: Model,
        image: Upload,
        options: s.VerifyOptions | s.EnrollOptions,
        timings: Timings,
        hold: bool = False,
    ) -> tuple[Face, FloatArray, DecodedImage | None]:
        seen = await self.see(model, image, options, timings, hold=hold)
        at = choose(seen.faces, options.face, options.box if isinstance(options, s.EnrollOptions) else None)
        return seen.faces[at], _vectors(seen)[at], seen.image

    async def _candidate(
        self, model: Model, image: Upload, options: s.EnrollOptions, timings: Timings, gallery: Gallery
    ) -> NewFace | Problem | ImageError:
        """A face to enroll, or what is wrong with its image; what is wrong with the service is raised."""
        try:
            face, vector, held = await self._one_face(model, image, options, timings, gallery.keep_crops)
        except ImageError as error:
            return error
        except Problem as problem:
            return problem
        reasons = gate(face, options.quality or gallery.quality)
        if reasons:
            return Problem(
                "low_quality",
                f"the face is not good enough ({', '.join(reasons)}): send a better "
                "picture, or ask for quality=off",
                extensions={"reasons": reasons},
            )
        return NewFace(
            vector=vector,
            contract=model.contract,
            quality=face.quality.score if face.quality else 0.0,
            detection_score=face.score,
            source=image.name,
            crop=None if held is None else await self._in_thread(lambda: pack(held, face)),
        )

    async def _in_thread(self, work: Callable[[], T]) -> T:
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()  # which says who is acting
        return await loop.run_in_executor(self._searchers, context.run, work)

    async def _timed(self, work: Callable[[], T], timings: Timings, stage: str = "search") -> T:
        start = perf_counter()
        result = await self._in_thread(work)
        timings[stage] = 1e3 * (perf_counter() - start)
        self._metrics.stage(stage, timings[stage])
        return result


async def _all(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of works that run beside each other; the first error ends the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reasons(error: Problem | ImageError) -> list[str]:
    reasons = error.extensions.get("reasons") if isinstance(error, Problem) else None
    return list(reasons) if reasons else [error.code]


def _ref(model: Model) -> s.ModelRef:
    return s.ModelRef(name=model.name, contract=model.contract)


def _vectors(seen: Seen) -> FloatArray:
    assert seen.vectors is not None
    return seen.vectors


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _rounded(timings: Timings) -> Timings:
    return {stage: round(milliseconds, 2) for stage, milliseconds in timings.items()}
