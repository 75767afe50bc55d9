"""Which addresses monitors may open and which webhooks they may call: those that the settings name.

Whoever may create monitors makes the service connect to addresses of its own network (server-side request
forgery). So nothing is allowed unless whoever runs the service said so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from sphereid.monitors.errors import MonitorError

STREAMS = frozenset({"rtsp", "rtsps", "http", "https"})
HOOKS = frozenset({"http", "https"})
_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Allowed:
    """sources: addresses (`rtsp://camera.example/`), numbers of cameras (`0`) and folders (`/srv/videos`).
    webhooks: addresses (`https://example.org/hooks/`). An address stands for all below it."""

    sources: Sequence[str] = ()
    webhooks: Sequence[str] = ()

    def check_source(self, source: str) -> None:
        """Raises MonitorError `source_not_allowed`."""
        if source.isascii() and source.isdigit():
            fits = source in self.sources
        elif "://" in source:
            fits = any(_below(source, each, STREAMS) for each in self.sources if "://" in each)
        else:
            folders = [each for each in self.sources if "://" not in each and not each.isdigit()]
            fits = any(_within(source, each) for each in folders)
        if not fits:
            raise MonitorError(
                "source_not_allowed",
                "monitors may not open this source: whoever runs the service names what they may in "
                "SPHEREID_MONITORS__SOURCES",
            )

    def check_webhook(self, url: str) -> None:
        """Raises MonitorError `webhook_not_allowed`."""
        if not any(_below(url, each, HOOKS) for each in self.webhooks):
            raise MonitorError(
                "webhook_not_allowed",
                "monitors may not call this address: whoever runs the service names what they may in "
                "SPHEREID_MONITORS__WEBHOOKS",
            )


def _below(url: str, prefix: str, schemes: frozenset[str]) -> bool:
    """Whether an address lies below another: the same scheme, host and port, and a path that goes on from a
    whole segment of the other's, without a way back up."""
    try:
        asked, allowed = urlsplit(url), urlsplit(prefix)
        same = _place(asked) == _place(allowed)
    except ValueError:
        return False
    if not same or asked.scheme not in schemes or not asked.hostname:
        return False
    if any(not (" " < letter < "\x7f") or letter == "\\" for letter in url):
        return False  # what parsers understand in different ways
    path, base = unquote(asked.path) or "/", unquote(allowed.path) or "/"
    if ".." in path.split("/") or "\\" in path:
        return False
    return path == base or path.startswith(base if base.endswith("/") else base + "/")


def _place(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port or _PORTS.get(url.scheme)


def _within(file: str, folder: str) -> bool:
    try:
        return Path(file).resolve(strict=True).is_relative_to(Path(folder).resolve(strict=True))
    except (OSError, ValueError):
        return False


def shown(source: str) -> str:
    """A source as it may be shown: without its password and without its query, which may hold a token."""
    if "://" not in source:
        return source
    try:
        parts = urlsplit(source)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "…"
    secret = "…@" if "@" in parts.netloc else ""
    return f"{parts.scheme}://{secret}{host}{parts.path}{'?…' if parts.query else ''}"
