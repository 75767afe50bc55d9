"""What the image routes ask for: see an image, then name or compare its faces."""

import logging
from collections.abc import Sequence
from functools import partial

import numpy as np

from sphereid.api import schemas as s
from sphereid.api import views
from sphereid.api.body import Parsed, Upload
from sphereid.api.choice import choose
from sphereid.api.looking import AnalyzedImage, ImageAnalyzer, Timings, add, rounded, timed
from sphereid.api.metrics import Metrics
from sphereid.api.workers import Call, Workers, together
from sphereid.faces.crops import pack
from sphereid.faces.types import Face, FloatArray
from sphereid.gallery.errors import GalleryError
from sphereid.gallery.service import GalleryService
from sphereid.gallery.thresholds.calibration import verification_threshold
from sphereid.gallery.types import Decision, Margins, NewFace, Threshold
from sphereid.inference.models import Model
from sphereid.recognition.models import Models, impostor_calibration
from sphereid.recognition.quality_gate import gate
from sphereid.settings import Settings
from sphereid.storage.errors import StorageError

log = logging.getLogger(__name__)


class Recognition:
    """The models and the gallery behind the image routes. One per process, for one event loop.

    A picture goes all the way to its answer in one of the workers.
    """

    def __init__(
        self,
        models: Models,
        looker: ImageAnalyzer,
        gallery: GalleryService,
        workers: Workers,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._models = models
        self._looker = looker
        self._gallery = gallery
        self._workers = workers
        self._metrics = metrics
        self._verification_fmr = settings.verification_fmr
        self._calibration = impostor_calibration(models.default.manifest)

    async def detect(self, body: Parsed[s.FindOptions], request_id: str, timings: Timings) -> s.DetectAnswer:
        """The faces of an image."""

        def work(call: Call) -> s.DetectAnswer:
            seen = self._looker.see(self._models.default, body.images[0], body.options, call, embed=False)
            timings.update(seen.timings)
            return s.DetectAnswer(
                request_id=request_id,
                timings_ms=rounded(timings),
                image=seen.size,
                faces=[views.face_members(face) for face in seen.faces],
            )

        return await self._workers.run(work)

    async def embed(self, body: Parsed[s.FindOptions], request_id: str, timings: Timings) -> s.EmbedAnswer:
        """The faces of an image with their embeddings."""

        model = self._models.default

        def work(call: Call) -> s.EmbedAnswer:
            seen = self._looker.see(model, body.images[0], body.options, call)
            timings.update(seen.timings)
            return s.EmbedAnswer(
                request_id=request_id,
                timings_ms=rounded(timings),
                model=views.model_ref(model),
                image=seen.size,
                faces=[
                    s.EmbeddedFace(**dict(views.face_members(face)), embedding=vector.tolist())
                    for face, vector in zip(seen.faces, seen.vectors, strict=True)
                ],
            )

        return await self._workers.run(work)

    async def identify(
        self, gallery_id: str, body: Parsed[s.IdentifyOptions], request_id: str, timings: Timings
    ) -> s.IdentifyAnswer:
        """Who is on the image. Raises GalleryError."""

        def work(call: Call, model: Model) -> s.IdentifyAnswer:
            keep = self._gallery.unknowns.rules(gallery_id).keep  # which finds out whether there is a gallery
            seen = self._looker.see(model, body.images[0], body.options, call, hold=keep)
            timings.update(seen.timings)
            with timed("search", timings, self._metrics):
                decisions, reference = self._named(model, gallery_id, seen, body.options)
            if seen.picture is not None:
                self._keep_unknown(model, gallery_id, seen, decisions, body.images[0].name)
            known = {c.identity_id: c.identity for d in decisions for c in d.candidates if c.identity}
            return s.IdentifyAnswer(
                request_id=request_id,
                timings_ms=rounded(timings),
                model=views.model_ref(model),
                gallery=reference,
                image=seen.size,
                faces=[
                    views.identified(face, decision, known)
                    for face, decision in zip(seen.faces, decisions, strict=True)
                ],
            )

        return await self._workers.run(lambda call: self._models.follow(gallery_id, partial(work, call)))

    def _named(
        self, model: Model, gallery_id: str, seen: AnalyzedImage, options: s.IdentifyOptions
    ) -> tuple[list[Decision], s.GalleryRef]:
        """A decision for every face, those that fail the quality gate included, and the gallery that was
        searched."""
        gated = [gate(face, options.quality) for face in seen.faces]
        found, gallery = self._gallery.identify(
            gallery_id,
            seen.vectors[[i for i, reasons in enumerate(gated) if not reasons]],
            model.contract,
            k=options.k,
            threshold=options.threshold,
            assign_unique=options.assign == "unique",
            where=options.filter,
        )
        named = iter(found)
        if options.threshold is not None:
            limit = Threshold(options.threshold, "cosine")
        else:
            limit = found[0].threshold if found else self._gallery.threshold(gallery_id)
        decisions = [
            Decision("rejected", reasons[0], limit, (), Margins(None, None)) if reasons else next(named)
            for reasons in gated
        ]
        for decision in decisions:
            self._metrics.decisions.labels(decision.outcome).inc()
        return decisions, s.GalleryRef(id=gallery.id, revision=gallery.revision, faces=gallery.faces)

    def _keep_unknown(
        self,
        model: Model,
        gallery_id: str,
        seen: AnalyzedImage,
        decisions: Sequence[Decision],
        source: str | None,
    ) -> None:
        """Put faces that nobody was named for into the gallery's inbox. Whoever asked gets the answer even
        where that fails."""
        assert seen.picture is not None
        faces = [
            NewFace(
                vector=vector,
                contract=model.contract,
                quality=face.quality.score if face.quality else 0.0,
                detection_score=face.score,
                source=source,
                crop=pack(seen.picture, face),
            )
            for face, vector, decision in zip(seen.faces, seen.vectors, decisions, strict=True)
            if decision.outcome == "unknown" and not gate(face, "normal")
        ]
        try:
            self._gallery.unknowns.keep(gallery_id, faces, one_picture=True)
        except (GalleryError, StorageError) as error:
            log.warning("an unknown face could not be kept: %s", error)

    async def verify(
        self, body: Parsed[s.VerifyOptions], request_id: str, timings: Timings
    ) -> s.VerifyAnswer:
        """Whether two images show the same person."""
        options, model = body.options, self._models.default
        one, two = await together(
            self._workers.run(partial(self._one_face, model, image, options)) for image in body.images
        )
        for _, _, took in (one, two):
            add(timings, took)
        similarity = float(np.clip(one[1] @ two[1], -1, 1))
        limit = (
            verification_threshold(self._calibration, self._verification_fmr)
            if options.threshold is None
            else Threshold(options.threshold, "cosine")
        )
        match = similarity >= limit.value
        self._metrics.decisions.labels("match" if match else "unknown").inc()
        return s.VerifyAnswer(
            request_id=request_id,
            timings_ms=rounded(timings),
            model=views.model_ref(model),
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

        def work(call: Call, model: Model) -> s.VerifyIdentityAnswer:
            self._gallery.get_identity(gallery_id, identity_id)
            face, vector, took = self._one_face(model, body.images[0], body.options, call)
            timings.update(took)
            with timed("search", timings, self._metrics):
                decision = self._gallery.verify(
                    gallery_id, identity_id, vector, model.contract, threshold=body.options.threshold
                )
                known = self._gallery.identities(gallery_id, [identity_id])
            self._metrics.decisions.labels(decision.outcome).inc()
            return s.VerifyIdentityAnswer(
                request_id=request_id,
                timings_ms=rounded(timings),
                model=views.model_ref(model),
                face=views.face_members(face),
                **dict(views.decided(decision, known)),
            )

        return await self._workers.run(lambda call: self._models.follow(gallery_id, partial(work, call)))

    def _one_face(
        self, model: Model, image: Upload, options: s.VerifyOptions, call: Call
    ) -> tuple[Face, FloatArray, Timings]:
        seen = self._looker.see(model, image, options, call)
        at = choose(seen.faces, options.face)
        return seen.faces[at], seen.vectors[at], seen.timings
