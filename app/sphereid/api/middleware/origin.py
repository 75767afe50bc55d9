"""Who may speak to the service through a browser: the names it answers to, the pages that may write."""

import ipaddress
from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers

from sphereid.api.problems import Problem

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""For every answer that sets none of its own: no browser takes it for anything else than it says, shows it
inside another page, or runs anything in it."""

DOCS_HEADERS: Final = {
    **HEADERS,
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'",
}
"""The interactive documentation starts itself with an inline script."""


class BrowserBoundary:
    """Refuses what a website could make a visitor's browser send.

    A website can send requests to any address, and can give its own name the address of this service (DNS
    rebinding). The first is recognized by `Origin` and `Sec-Fetch-Site`, which pages cannot forge; the second
    by `Host`, which then is the website's name.
    """

    def __init__(self, hosts: Sequence[str], origins: Sequence[str], *, named: bool) -> None:
        """hosts: names the service answers to; `*` stands for all. origins: of pages that may call it.
        named: whether requests carry keys, which a website does not have; then any name goes while `hosts` is
        empty."""
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self._any = "*" in self._hosts or (named and not self._hosts)
        self._origins = frozenset(origins)

    def check(self, method: str, headers: Headers) -> None:
        """Raises Problem 403 for a request that has no business here.

        method: of the request; `WEBSOCKET` for the opening of a WebSocket.
        """
        host = headers.get("host", "")
        if not self._any and not self._answers_to(host):
            raise Problem(
                "host_not_allowed",
                "call the service by an IP address or as localhost, or list this name in "
                "SPHEREID_ALLOWED_HOSTS",
            )
        if method in SAFE_METHODS:
            return
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and origin.lower() in self._origins:
            return
        foreign = site in ("cross-site", "same-site") or (
            origin is not None
            and site != "same-origin"
            and origin.lower().partition("://")[2] != host.lower()
        )
        if foreign:
            raise Problem(
                "cross_site",
                "a page of another website sent this request; use the console or a client, or list the "
                "page's origin in SPHEREID_CORS_ORIGINS",
            )

    def _answers_to(self, host: str) -> bool:
        name = _without_port(host).lower().rstrip(".")
        if name in self._hosts or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
