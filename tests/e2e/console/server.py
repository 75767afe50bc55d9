"""A server process of our own, on a free port, with folders that the test gives it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.toy import write_toy_model

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 120  # a loaded machine takes its time


@contextmanager
def serving(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start `sphereid serve` with an empty gallery below `folder`; yields its URL and stops it in the end."""
    models = folder / "models"
    if "SPHEREID_MODELS_DIR" not in (environment or {}):
        write_toy_model(models)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SPHEREID_")}
    settings = {
        "SPHEREID_HOST": "127.0.0.1",
        "SPHEREID_PORT": str(port),
        "SPHEREID_DATA_DIR": str(folder / "data"),
        "SPHEREID_MODELS_DIR": str(models),
        "SPHEREID_LOG_LEVEL": "warning",
    }
    log = folder / "server.log"
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "sphereid", "serve"],
            cwd=ROOT,
            env={**inherited, **settings, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(url, process, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < end:
            if process.poll() is not None:
                raise RuntimeError(f"the server stopped: {log.read_text()[-2000:]}")
            try:
                if client.get(f"{url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
    raise RuntimeError(f"the server was not ready after {START_SECONDS} s: {log.read_text()[-2000:]}")
