"""The OpenAPI document: what FastAPI derives from the routes, and the bodies that we read ourselves."""

from typing import Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from sphereid import __version__
from sphereid.api.middleware.context import OPEN_PATHS
from sphereid.api.routes import ROUTERS
from sphereid.api.schemas import BODIES, ProblemDocument, bulk, monitors, unknowns

DESCRIPTION = """
Send a photograph, get names. Enroll people into a **gallery** with one image each, then **identify** the
faces of other images, or **verify** that two images show the same person.

Images are sent as multipart files (`image`, or `images` where several are taken) or as JSON
(`{"image": {"base64": "…"}}`). Similarity is the raw cosine of two embeddings, from -1 to 1; it is no
probability. Every error is an RFC 9457 problem document with a stable `code`. Writes take an
`Idempotency-Key`.
"""

TAGS = [
    {"name": "faces", "description": "Find and embed the faces of an image; nothing is stored."},
    {"name": "verification", "description": "One to one: is it the same person?"},
    {"name": "identification", "description": "One to many: who is it?"},
    {"name": "galleries", "description": "Sets of identities with a rule for the threshold."},
    {"name": "identities", "description": "The people of a gallery."},
    {"name": "faces of identities", "description": "Enrollment."},
    {"name": "unknowns", "description": "Faces that nobody was named for, where a gallery keeps them."},
    {
        "name": "whole galleries",
        "description": "Import, export, evaluation, another model: jobs that may take minutes.",
    },
    {"name": "videos and jobs", "description": "Who is on screen when."},
    {"name": "monitors", "description": "Cameras that the service watches by itself."},
    {"name": "models", "description": "What makes the embeddings."},
    {"name": "operation", "description": "For those who run the service."},
]

_BOX = {"x": 180.4, "y": 66.1, "width": 90.2, "height": 122.7}
_ALICE = {"id": "alice", "name": "Alice", "metadata": {"team": "blue"}}
_FACE = {
    "box": _BOX,
    "detection_score": 0.9998,
    "landmarks": [[206.1, 113.9], [247.3, 112.2], [230.5, 137.8], [212.0, 157.4], [247.9, 155.6]],
    "quality": {"score": 0.81, "reasons": []},
}
_THRESHOLD = {"value": 0.46, "policy": "fpir", "target": 0.01, "extrapolated": False}
EXAMPLES: dict[str, Any] = {
    "IdentifyAnswer": {
        "request_id": "0f3a5d0c9b1e4c7f8f6f3f1b2a9d7c55",
        "timings_ms": {"queue": 0.1, "decode": 4.1, "detect": 12.0, "embed": 9.2, "search": 0.4},
        "model": {"name": "sphereface20", "contract": "9c1185a5c5e9fc54"},
        "gallery": {"id": "default", "revision": 812, "faces": 12044},
        "image": {"width": 512, "height": 512},
        "faces": [
            {
                **_FACE,
                "decision": "match",
                "reason": "above_threshold",
                "identity": _ALICE,
                "similarity": 0.63,
                "threshold": _THRESHOLD,
                "candidates": [{"identity": _ALICE, "face_id": "0190a7f2c1d83f", "similarity": 0.63}],
                "margins": {"to_threshold": 0.17, "to_runner_up": 0.21},
            }
        ],
    },
    "GalleryCreate": {"id": "staff", "name": "Staff", "policy": {"type": "fpir", "target": 0.01}},
    "GalleryPatch": {"policy": {"type": "cosine", "value": 0.42}},
    "IdentityCreate": {"id": "alice", "name": "Alice", "metadata": {"team": "blue"}},
    "IdentityMerge": {"source": "alice-2"},
    "IdentityPatch": {"name": "Alice B."},
    "ProblemDocument": {
        "type": "urn:sphereid:problem:face_not_found",
        "title": "No face was found",
        "status": 422,
        "detail": "no face was found: send a picture in which one is clearly visible",
        "code": "face_not_found",
        "request_id": "0f3a5d0c9b1e4c7f8f6f3f1b2a9d7c55",
    },
}
"""By schema. A test holds them against the schemas."""


def build() -> dict[str, Any]:
    """The document of the whole API."""
    ordered = APIRouter()
    for router in ROUTERS:
        ordered.include_router(router)
    document = get_openapi(
        title="SphereID", version=__version__, description=DESCRIPTION, tags=TAGS, routes=ordered.routes
    )
    components: dict[str, Any] = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    bodies = (*BODIES, *unknowns.BODIES, *monitors.BODIES, *bulk.BODIES)
    modes = [(model, "validation") for model in bodies] + [(ProblemDocument, "serialization")]
    _, definitions = models_json_schema(modes, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    for name, schema in definitions["$defs"].items():
        schemas.setdefault(name, schema)
    for name, example in EXAMPLES.items():
        schemas[name]["examples"] = [example]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "Wanted when SPHEREID_API_KEYS is set."}
    }
    document["security"] = [{"key": []}, {}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in OPEN_PATHS:
                operation["security"] = []
            validation = operation["responses"].get("422", {}).get("content", {})
            if "application/json" in validation:  # FastAPI's own idea of a validation error
                del operation["responses"]["422"]
    return document
