"""A real server for tests: uvicorn in a thread on a free port, spoken to over HTTP."""

import asyncio
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image
from sphereid.api.application import create_app
from sphereid.api.dependencies import Parts
from sphereid.settings import Settings

START_LIMIT = 120.0  # a loaded machine takes its time; a hanging start must not hang the tests


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.decided = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.decided.set()


@dataclass(frozen=True)
class Running:
    """A server under test."""

    url: str
    app: FastAPI
    client: httpx.Client

    @property
    def parts(self) -> Parts:
        parts: Parts = self.app.state.parts
        return parts


@contextmanager
def serving(settings: Settings, **headers: str) -> Iterator[Running]:
    """Run the service with `settings`; `headers` go with every request of the client."""
    app = create_app(settings)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = _Server(
        uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="on")
    )
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    assert server.decided.wait(START_LIMIT), "the server did not start"
    assert server.started, f"the server refused to start: {getattr(app.state, 'failure', 'see the log')}"
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=120) as client:
            yield Running(url, app, client)
    finally:
        server.should_exit = True
        thread.join(START_LIMIT)
        listener.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread is about to bring about."""
    end = time.monotonic() + START_LIMIT
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        threading.Event().wait(0.001)


def settings_for(folder: Path, **changes: Any) -> Settings:
    """Settings that touch nothing outside of `folder`, with the toy model's folder in it; pictures are looked
    at in threads, which start at once and can be watched."""
    values: dict[str, Any] = {"data_dir": folder / "data", "models_dir": folder / "models", "workers": 0}
    return Settings(_env_file=None, **(values | changes))


def jpeg(pixels: NDArray[np.uint8], quality: int = 92) -> bytes:
    """(H, W, 3) uint8 RGB as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
