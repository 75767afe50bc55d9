"""The routes, one file a subject."""

from fastapi import APIRouter

from sphereid.api.routes import (
    audit,
    bulk,
    detect,
    embed,
    faces,
    galleries,
    health,
    identify,
    identities,
    jobs,
    models,
    monitors,
    pictures,
    snapshot,
    stream,
    system,
    unknowns,
    verify,
    videos,
)

BUSIEST: tuple[APIRouter, ...] = (identify.router, verify.router, detect.router, embed.router)
"""Where most requests go: the application looks among them first."""

ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    models.router,
    system.router,
    snapshot.router,
    audit.router,
    detect.router,
    embed.router,
    verify.router,
    galleries.router,
    identities.router,
    faces.router,
    pictures.router,
    identify.router,
    bulk.router,
    unknowns.router,
    videos.router,
    jobs.router,
    monitors.router,
    stream.router,
)
"""All, in the order of the documentation."""
