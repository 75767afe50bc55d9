"""What surrounds every request: its id, its key, the limit of its body, its line in the log."""

import base64
import hashlib
import hmac
import logging
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import Final

from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sphereid.api.metrics import Metrics
from sphereid.api.middleware.admission import TOO_MANY, Turnstile
from sphereid.api.middleware.origin import DOCS_HEADERS, HEADERS, BrowserBoundary
from sphereid.api.problems import MEDIA_TYPE, RETRY_SECONDS, Problem, problem_of, response_of
from sphereid.gallery.audit import acting

OPEN_PATHS: Final = frozenset({"/", "/healthz", "/readyz", "/docs", "/openapi.json"})
"""What anybody may read: nothing of it depends on what is stored."""

OPEN_PREFIX: Final = "/static/"
"""The console's files. It asks for the key itself, so a browser must be able to load it without one."""

_DROPPED: Final = 64 * 1024 * 1024
"""Bytes beyond the limit that a client may go on sending before it gets its 413."""

SUBPROTOCOL: Final = "sphereid"
KEY_SUBPROTOCOL: Final = "sphereid.key."
"""Browsers cannot set headers on a WebSocket. They may offer the key among the subprotocols instead:
`sphereid` and `sphereid.key.` with the key in unpadded base64url. The answer chooses `sphereid`."""

_ID: Final = "REQUEST-ID"
_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
log = logging.getLogger("sphereid.access")
crash_log = logging.getLogger("sphereid.error")


class ApiKeys:
    """The keys that open the service. Comparison takes the same time wherever a key differs."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._digests = [hashlib.sha256(key.get_secret_value().encode()).digest() for key in keys]

    def accept(self, authorization: str | None) -> bool:
        """True when the `Authorization` header carries one of the keys, or when there are none."""
        if not self._digests:
            return True
        scheme, _, key = (authorization or "").partition(" ")
        offered = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        matches = [hmac.compare_digest(offered, digest) for digest in self._digests]  # no early exit
        return scheme.lower() == "bearer" and any(matches)

    def actor(self, authorization: str | None) -> str:
        """Who offers this accepted `Authorization`, for the audit log: never the key itself."""
        if not self._digests:
            return "anonymous"
        key = (authorization or "").partition(" ")[2].strip()
        return f"key:{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


class Refusals:
    """Answers the requests for which there is no place. That must cost next to nothing, or it takes the time
    of those that have one: the document is there beforehand, and the log gets a line a second."""

    def __init__(self) -> None:
        document = bytes(response_of(Problem("overloaded", TOO_MANY), _ID).body)
        self._before, _, self._after = document.partition(_ID.encode())
        self._since = perf_counter()
        self._count = 0

    async def answer(self, send: Send, request_id: str) -> None:
        """Refuse a request."""
        name = request_id.encode()
        body = self._before + name + self._after
        headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", MEDIA_TYPE.encode()),
            (b"retry-after", b"%d" % RETRY_SECONDS),
            (b"x-request-id", name),
        ]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._count += 1
        if (now := perf_counter()) > self._since + 1:
            log.warning("more image requests than fit: %d refused", self._count)
            self._since, self._count = now, 0


class RequestContext:
    """ASGI middleware around the application; the only one."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        keys: ApiKeys,
        boundary: BrowserBoundary,
        body_limit: int,
        turnstile: Turnstile,
    ) -> None:
        self._app = app
        self._turnstile = turnstile
        self._metrics = metrics
        self._keys = keys
        self._boundary = boundary
        self._body_limit = body_limit
        self._refusals = Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        offered = headers.get("x-request-id", "")
        request_id = offered if _SANE_ID.fullmatch(offered) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state |= {"request_id": request_id, "body_limit": self._body_limit, "timings": {}}
        path = scope["path"]
        is_open = path in OPEN_PATHS or path.startswith(OPEN_PREFIX)
        allowed = is_open or self._keys.accept(headers.get("authorization"))
        if scope["type"] == "websocket":
            offered_protocols = scope.get("subprotocols", ())
            authorization = headers.get("authorization") if allowed else _offered_key(offered_protocols)
            if self._welcome(headers) and (allowed or self._keys.accept(authorization)):
                with acting(self._keys.actor(authorization), request_id):
                    await self._app(scope, receive, _choosing(send, offered_protocols))
            else:
                await receive()
                await send({"type": "websocket.close", "code": 1008})
            return

        start = perf_counter()
        if allowed and self._turnstile.refuses(scope):
            await self._refusals.answer(send, request_id)
            self._metrics.request(scope["method"], scope["route"].path, 503, perf_counter() - start)
            return
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = MutableHeaders(raw=message.setdefault("headers", []))
                extra["X-Request-ID"] = request_id
                for name, value in (DOCS_HEADERS if path == "/docs" else HEADERS).items():
                    extra.setdefault(name, value)
                if state["timings"]:
                    extra["Server-Timing"] = ", ".join(
                        f"{stage};dur={ms:.1f}" for stage, ms in state["timings"].items()
                    )
            await send(message)

        try:
            self._boundary.check(scope["method"], headers)
            if not allowed:
                raise Problem("unauthorized", "send one of the service's keys as `Authorization: Bearer KEY`")
            with acting(self._keys.actor(headers.get("authorization")), request_id):
                await self._app(scope, _counted(receive, headers, state), answer)
        except ClientDisconnect:
            pass  # nobody is left to answer; it counts as 499 below
        except Exception as error:  # the last resort: nobody gets a stack trace or a dead connection
            problem = problem_of(error)
            if problem.status_code >= 500 and problem is not error:
                crash_log.exception("request %s failed", request_id)
            if status:
                raise  # the answer has begun; the connection must break
            await response_of(problem, request_id)(scope, receive, answer)
        finally:
            seconds = perf_counter() - start
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.request(scope["method"], route, status or 499, seconds)
            log.info(
                "%s %s %s %.1f ms",
                scope["method"],
                route,
                status or 499,
                seconds * 1e3,
                extra={
                    "request_id": request_id,
                    "method": scope["method"],
                    "route": route,
                    "status": status or 499,
                    "duration_ms": round(seconds * 1e3, 1),
                    "stages_ms": {stage: round(ms, 1) for stage, ms in state["timings"].items()},
                },
            )

    def _welcome(self, headers: Headers) -> bool:
        """Whether a WebSocket may be opened from where it comes."""
        try:
            self._boundary.check("WEBSOCKET", headers)
        except Problem:
            return False
        return True


def _offered_key(subprotocols: Sequence[str]) -> str | None:
    """The `Authorization` that the subprotocols stand for, if any."""
    for protocol in subprotocols:
        if protocol.startswith(KEY_SUBPROTOCOL):
            encoded = protocol.removeprefix(KEY_SUBPROTOCOL)
            with suppress(ValueError):
                key = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
                return f"Bearer {key.decode('ascii')}"
    return None


def _choosing(send: Send, offered: Sequence[str]) -> Send:
    """`send` that chooses the subprotocol `sphereid` where it was offered: browsers want an answer."""

    async def choose(message: Message) -> None:
        if message["type"] == "websocket.accept" and SUBPROTOCOL in offered:
            message["subprotocol"] = message.get("subprotocol") or SUBPROTOCOL
        await send(message)

    return choose


def _counted(receive: Receive, headers: Headers, state: dict[str, object]) -> Receive:
    """`receive` that raises once the body is larger than `state["body_limit"]`.

    A route may change that before it reads. A Content-Length beyond it is refused before the first byte.
    """
    total = 0
    declared = headers.get("content-length", "")
    announced = int(declared) if declared.isascii() and declared.isdigit() else 0

    async def counted() -> Message:
        nonlocal total
        limit = state["body_limit"]
        assert isinstance(limit, int)
        if announced > limit or total > limit:
            raise _too_large(limit, announced)
        message = await receive()
        if message["type"] == "http.request":
            total += len(message.get("body", b""))
            if total > limit:
                raise _too_large(limit, announced)
        return message

    return counted


def _too_large(limit: int, announced: int) -> Problem:
    """The rest of a body of reasonable length is read and dropped by the server, for most clients look at the
    answer only after they have sent everything; on an endless one the connection is closed."""
    bearable = 0 < announced <= limit + _DROPPED
    return Problem(
        "body_too_large",
        f"the body may have at most {limit:,} bytes",
        headers={} if bearable else {"Connection": "close"},
    )
