"""The OpenAPI document holds together, and what it promises is what the server does."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from sphereid.api import schemas
from sphereid.api.openapi import EXAMPLES
from sphereid.api.routes import ROUTERS

from tests.server import Running


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert len(found) > 20
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_the_routes_of_the_design_are_there(document: dict[str, Any]) -> None:
    base, person = "/v1/galleries/{gallery}", "/v1/galleries/{gallery}/identities/{identity}"
    wanted = {
        "/healthz": "get",
        "/readyz": "get",
        "/metrics": "get",
        "/v1/models": "get",
        "/v1/detect": "post",
        "/v1/embed": "post",
        "/v1/verify": "post",
        "/v1/galleries": "get post",
        base: "get patch delete",
        f"{base}/identities": "get post",
        person: "get patch delete",
        f"{person}/faces": "get post",
        f"{person}/faces/{{face}}": "get delete",
        f"{person}/verify": "post",
        f"{base}/identify": "post",
        "/v1/videos": "post",
        "/v1/jobs": "get",
        "/v1/jobs/{job}": "get delete",
        "/v1/jobs/{job}/events": "get",
        "/v1/jobs/{job}/result": "get",
    }
    for path, methods in wanted.items():
        assert set(methods.split()) <= set(document["paths"][path]), path
    assert len(ROUTERS) >= 9


def test_every_operation_says_how_it_can_fail(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        assert operation["summary"], path
        assert operation["tags"], path
        if not path.startswith("/v1"):
            continue
        assert operation["description"], path
        assert {"401", "500", "503"} <= set(operation["responses"]), (path, method)
        for status, response in operation["responses"].items():
            if status.startswith("2") and path.endswith(("/events", "/result", "/picture", "/snapshot")):
                continue  # a stream of events, a file
            kind = "application/json" if status.startswith("2") else "application/problem+json"
            assert set(response["content"]) == {kind}, (path, method, status)
        takes_body = {"400", "408", "413", "415", "422"} & set(operation["responses"])
        assert ("requestBody" in operation) == ("415" in takes_body), path
        writes = method in ("patch", "delete") or (
            method == "post"
            and ({"201", "202"} & set(operation["responses"]) or path.endswith(("/merge", "/discard")))
        )
        headers = {p["name"] for p in operation.get("parameters", []) if p["in"] == "header"}
        assert ("idempotency-key" in headers) == bool(writes), (path, method)


def test_security_is_declared(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert document["paths"]["/healthz"]["get"]["security"] == []
    assert "security" not in document["paths"]["/v1/galleries"]["get"]  # the document's own counts


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_fit_their_schemas(document: dict[str, Any], name: str) -> None:
    model = getattr(schemas, name)
    parsed = model.model_validate_json(json.dumps(EXAMPLES[name]))
    assert parsed.model_dump(mode="json", exclude_unset=True) == EXAMPLES[name]
    assert document["components"]["schemas"][name]["examples"] == [EXAMPLES[name]]


def test_no_schema_speaks_of_confidence(document: dict[str, Any]) -> None:
    assert "confidence" not in json.dumps(document).lower()


CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


def test_generated_requests_find_no_server_error(server: Running, document: dict[str, Any]) -> None:
    """Every operation gets generated requests, valid and broken ones; none is answered 5xx, and every answer
    is one that the document lists, in the type and shape that it says."""
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=server.url)
    tried, session = 0, requests.Session()
    for result in schema.get_all_operations():
        operation = result.ok()

        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @settings(
                max_examples=8,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(mode))
            def run(case: schemathesis.Case) -> None:
                nonlocal tried
                tried += 1
                case.call_and_validate(checks=CHECKS, session=session)

            with contextlib.suppress(Unsatisfiable):  # nothing can be wrong with a request without parameters
                run()
    assert tried > 100
