"""The service as users start it: a process of its own."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class ServiceProcess:
    """`sphereid serve`, running."""

    process: "subprocess.Popen[str]"
    url: str

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120)

    def kill(self) -> None:
        """As the system does when it runs out of memory: no warning, no cleaning up."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def environment(data_dir: Path, models_dir: Path | None = None, **more: str) -> dict[str, str]:
    """The caller's environment without its own SphereID settings, with these."""
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith("SPHEREID_") and k not in ("HOST", "PORT")
    }
    clean |= {
        "PYTHONPATH": str(ROOT),
        "SPHEREID_DATA_DIR": str(data_dir),
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
    }
    clean["SPHEREID_MODELS_DIR"] = str(models_dir or ROOT / "models")
    return clean | more


@contextmanager
def service(
    data_dir: Path, models_dir: Path | None = None, *, module: str = "sphereid", **more: str
) -> Iterator[ServiceProcess]:
    """Start the service on a free port, wait until it is ready, stop it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, "serve"],
        cwd=data_dir.parent,
        env=environment(data_dir, models_dir, PORT="0", **more),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = _address(process)
        # It logs every request: a pipe that nobody reads is full after some hundred, and the service stops.
        threading.Thread(target=_drain, args=(process,), daemon=True).start()
        yield ServiceProcess(process, url)
    finally:
        process.terminate()
        process.wait(60)


def _address(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"running on (http://\S+)", line):
            return found.group(1)
    raise AssertionError(f"the service did not start: {''.join(said)}")


def _drain(process: "subprocess.Popen[str]") -> None:
    assert process.stderr is not None
    with process.stderr as lines:
        for _ in lines:
            pass
