"""The application: settings in, wired service out. Nothing happens at import time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from sphereid import __version__
from sphereid.api import openapi, problems
from sphereid.api.dependencies import ADMITTED
from sphereid.api.metrics import Metrics
from sphereid.api.middleware.admission import Admission, Turnstile
from sphereid.api.middleware.context import ApiKeys, RequestContext
from sphereid.api.middleware.origin import BrowserBoundary
from sphereid.api.routes import BUSIEST, ROUTERS
from sphereid.bootstrap import images_at_once
from sphereid.errors import CodedError
from sphereid.inference.malloc import keep_trimmed
from sphereid.settings import Settings
from sphereid.web.routes import router as console

if TYPE_CHECKING:
    from sphereid.gallery.service import GalleryService


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application. Models and the gallery are opened when it starts, not before."""
    metrics = Metrics()
    admission = Admission(images_at_once(settings) + settings.queues.waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with _running(settings, metrics, admission) as parts:
                app.state.parts = parts
                yield
        except CodedError as error:
            app.state.failure = error  # `sphereid serve` says it in one line
            raise

    app = FastAPIOffline(  # its page of documentation loads nothing from elsewhere
        title="SphereID",
        version=__version__,
        lifespan=lifespan,
        docs_url="/docs" if settings.docs else None,
        redoc_url=None,
        redirect_slashes=False,
        static_url="/static/docs",
        favicon_url="/static/favicon.svg",
    )
    app.add_middleware(
        RequestContext,
        metrics=metrics,
        keys=ApiKeys(settings.api_keys),
        boundary=BrowserBoundary(
            settings.allowed_hosts, settings.cors_origins, named=bool(settings.api_keys)
        ),
        body_limit=settings.limits.json_bytes,
        turnstile=Turnstile(admission, ROUTERS, ADMITTED),
    )
    if settings.cors_origins:
        app.add_middleware(  # around the other one: preflights carry no key, and refusals are to be readable
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-Match", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After", "Server-Timing", "ETag"],
        )
    for error in (HTTPException, RequestValidationError):
        app.add_exception_handler(error, problems.handle)
    others = (router for router in ROUTERS if router not in BUSIEST)
    for router in (*BUSIEST, *others, console):
        app.include_router(router)

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = openapi.build()
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _running(settings: Settings, metrics: Metrics, admission: Admission) -> AsyncIterator[Any]:
    """The parts of the service. Whatever is open is closed in reverse, where starting fails too."""
    from sphereid.api.dependencies import Parts
    from sphereid.api.enrolling import Enrolling
    from sphereid.api.looking import ImageAnalyzer
    from sphereid.api.recognition import Recognition
    from sphereid.api.workers import Workers
    from sphereid.bootstrap import (
        encrypted_files,
        gallery_jobs,
        live_streams,
        monitor_runner,
        open_gallery,
        serving,
        start_processes,
        video_jobs,
    )
    from sphereid.faces.embed import OnnxEmbedder
    from sphereid.inference.batcher import MicroBatcher
    from sphereid.inference.in_process import InProcessAnalyzer
    from sphereid.inference.loading import (
        batch_lanes,
        batch_size,
        batch_wait,
        build_engine,
        load_manifests,
        model_folder,
    )
    from sphereid.jobs.runner import JobRunner
    from sphereid.jobs.video import KIND

    async with AsyncExitStack() as stack:

        def at_the_end(close: Callable[[], None]) -> None:
            stack.push_async_callback(asyncio.to_thread, close)

        opening = asyncio.create_task(asyncio.to_thread(open_gallery, settings))  # beside all that loads
        stack.push_async_callback(_close_gallery, opening)
        processes = start_processes(settings, metrics.batch)
        if processes is not None:
            at_the_end(processes.close)
        engine = await asyncio.to_thread(build_engine, settings)
        if processes is not None:
            await asyncio.to_thread(processes.wait)
        gallery = await opening
        sight = processes or InProcessAnalyzer(engine.limits)

        def batched(embedder: OnnxEmbedder) -> MicroBatcher:
            return MicroBatcher(
                embedder,
                lanes=batch_lanes(settings),
                max_batch=batch_size(settings),
                max_wait=batch_wait(settings),
                max_queue=settings.queues.faces_waiting,
                more_expected=lambda: admission.active > 1,
                on_batch=metrics.batch,
            )

        models = serving(engine, gallery, settings, batched)
        at_the_end(models.close)

        def sizes() -> dict[str, int]:
            totals, cursor = {"galleries": 0, "identities": 0, "faces": 0}, None
            while True:
                page = gallery.list_galleries(cursor=cursor, limit=500)
                totals["galleries"] += len(page.items)
                totals["identities"] += sum(each.identities for each in page.items)
                totals["faces"] += sum(each.faces for each in page.items)
                if (cursor := page.cursor) is None:
                    return totals

        workers, writers = Workers(images_at_once(settings), "work"), Workers(4, "write")
        at_the_end(writers.close)
        at_the_end(workers.close)
        files = encrypted_files(settings)
        jobs = JobRunner(
            settings.data_dir / "jobs",
            {KIND: video_jobs(models, gallery, files), **gallery_jobs(models, gallery, engine.limits, files)},
            max_waiting=settings.queues.jobs_waiting,
            keep=timedelta(days=settings.job_days),
            files=files,
        )
        await asyncio.to_thread(jobs.start)
        at_the_end(jobs.stop)
        live = live_streams(models, gallery, engine.limits, settings)
        monitors = monitor_runner(live, settings)
        await asyncio.to_thread(monitors.start)
        at_the_end(monitors.stop)
        metrics.watch_queue("monitors_running", lambda: monitors.running)
        metrics.watch_queue("jobs_waiting", lambda: jobs.waiting)
        metrics.watch_queue("requests_active", lambda: admission.active)
        metrics.watch_queue("workers", lambda: len(processes.pids) if processes else 0)
        metrics.watch_queue("embed_queue_faces", lambda: models.waiting)
        metrics.watch_galleries(sizes)
        looker = ImageAnalyzer(sight, engine.limits, metrics, settings)
        stack.callback(asyncio.create_task(keep_trimmed()).cancel)
        yield Parts(
            settings=settings,
            recognition=Recognition(models, looker, gallery, workers, metrics, settings),
            enrolling=Enrolling(models, looker, gallery, workers, writers, metrics),
            gallery=gallery,
            serving=models,
            metrics=metrics,
            admission=admission,
            active_model=model_folder(settings).name,
            models=load_manifests(settings),
            provider=engine.embedder.provider,
            jobs=jobs,
            live=live,
            monitors=monitors,
        )


async def _close_gallery(opening: "asyncio.Task[GalleryService]") -> None:
    """Unless it did not open, which whoever waits for it is told."""
    await asyncio.wait([opening])
    if opening.exception() is None:
        await asyncio.to_thread(opening.result().close)
