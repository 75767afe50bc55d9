"""Jobs of a running server, begun and watched from the terminal."""

import json
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from sphereid.errors import CodedError
from sphereid.progress import Progress, Report
from sphereid.settings import Settings

_EVERY_S: Final = 0.5
_PATIENCE_S: Final = 60.0


class RemoteError(CodedError):
    """The server refused or failed; code and text are its own."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Server:
    """A running server by its URL, asked with the first of SPHEREID_API_KEYS."""

    def __init__(self, url: str, settings: Settings) -> None:
        """Raises ValueError where it is no URL of a server."""
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url}: a server is named like http://127.0.0.1:8000")
        self._url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if settings.api_keys:
            self._headers["Authorization"] = f"Bearer {settings.api_keys[0].get_secret_value()}"

    def work(self, path: str, body: Mapping[str, Any], report: Report) -> dict[str, Any]:
        """Begin a job and wait for its result. Raises RemoteError."""
        job = self._ask("POST", path, body)
        while job["state"] in ("queued", "running"):
            told = job["progress"]
            if told is not None:
                report(
                    Progress(told["stage"], told["done"], told["total"], told["rate"], told["eta_seconds"])
                )
            time.sleep(_EVERY_S)
            job = self._ask("GET", f"/v1/jobs/{job['id']}")
        if job["state"] != "succeeded":
            failed = job["error"] or {"code": "job_canceled", "detail": f"the job was {job['state']}"}
            raise RemoteError(failed["code"], failed["detail"])
        result: dict[str, Any] = job["result"]
        return result

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._url + path, data, self._headers, method=method)
        try:
            with urlopen(request, timeout=_PATIENCE_S) as answer:
                document: dict[str, Any] = json.load(answer)
                return document
        except HTTPError as error:
            try:
                problem = json.load(error)
                raise RemoteError(problem["code"], problem["detail"]) from None
            except (ValueError, KeyError, TypeError):
                raise RemoteError("no_sphereid", f"{self._url} answered {error.code}") from None
        except (URLError, TimeoutError, ValueError) as error:
            raise RemoteError("unreachable", f"{self._url} does not answer: {error}") from None
