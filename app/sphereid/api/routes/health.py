"""Is it alive, is it ready, how is it doing."""

import anyio.to_thread
from fastapi import APIRouter
from starlette.responses import Response

from sphereid import __version__
from sphereid.api.dependencies import PartsDep, problems
from sphereid.api.schemas import Health

router = APIRouter(tags=["operation"])


@router.get("/healthz", summary="Is the process alive")
async def healthz() -> Health:
    """Answers as long as the process serves; says nothing about its storage."""
    return Health(status="ok", version=__version__)


@router.get("/readyz", summary="Can it do its work", responses=problems())
async def readyz(parts: PartsDep) -> Health:
    """Answers 200 when the model is loaded and the gallery's storage can be used, 503 otherwise."""
    await anyio.to_thread.run_sync(parts.gallery.check)
    return Health(status="ready", version=__version__)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
)
async def metrics(parts: PartsDep) -> Response:
    """Counters and histograms in Prometheus' text format."""
    body = await anyio.to_thread.run_sync(parts.metrics.exposition)
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")
