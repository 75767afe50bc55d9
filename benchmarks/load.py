"""A load generator in a process of its own: ready-made HTTP/1.1 requests over kept-alive connections.

    python -m benchmarks.load HOST PORT FOLDER     then one JSON command a line on standard input

FOLDER holds request bodies, one file each, in folders named like the kinds of request. A command is
{"kind": …, "path": …, "clients": 16, "seconds": 5} or with "count" instead of "seconds": so many clients,
each with one request at a time; or {"kind": …, "path": …, "rate": 200, "seconds": 5}: requests start by the
clock whether or not earlier ones were answered, and count from when they were due. The answer is one line of
JSON.

On two cores the generator takes its time from the service that it measures, so it must cost next to nothing:
the bodies are made beforehand and bytes go straight through asyncio. Locust builds every multipart body anew
and spends about as long on a request as the service's own HTTP layer does.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

BOUNDARY = "sphereid-benchmark"


@dataclass(slots=True)
class Tally:
    """What came back. seconds: of the requests that were answered with 200."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    without_retry_after: int = 0
    broken: int = 0


class Connection:
    """One client."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes, due: float, tally: Tally) -> None:
        """Send one request, read its answer, write down what it was."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._address, limit=1 << 20)
            reader, writer = self._streams
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            tally.broken += 1
            self.close()
            return
        status = int(head[9:12])
        tally.statuses[status] += 1
        if status == 200:
            tally.seconds.append(time.perf_counter() - due)
        elif status == 503 and b"\r\nretry-after:" not in head:
            tally.without_retry_after += 1
        if b"\r\nconnection: close" in head:
            self.close()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Generator:
    """Runs the commands."""

    def __init__(self, host: str, port: int, folder: Path) -> None:
        self._address = host, port
        self._bodies = {
            kind.name: [file.read_bytes() for file in sorted(kind.iterdir())]
            for kind in folder.iterdir()
            if kind.is_dir()
        }

    async def run(self, command: dict[str, Any]) -> dict[str, Any]:
        requests = [self._request(command["path"], body) for body in self._bodies[command["kind"]]]
        tally = Tally()
        began = time.perf_counter()
        if "rate" in command:
            await self._by_the_clock(requests, command["rate"], command["seconds"], tally)
        else:
            limit = command.get("count", sys.maxsize)
            end = began + command.get("seconds", 1e9)
            await self._in_turns(requests, command["clients"], limit, end, tally)
        return summary(tally, time.perf_counter() - began)

    async def _in_turns(
        self, requests: list[bytes], clients: int, limit: int, end: float, tally: Tally
    ) -> None:
        numbers = iter(range(limit))

        async def client() -> None:
            connection = Connection(*self._address)
            for number in numbers:
                await connection.send(requests[number % len(requests)], time.perf_counter(), tally)
                if time.perf_counter() >= end:
                    break
            connection.close()

        await asyncio.gather(*(client() for _ in range(clients)))

    async def _by_the_clock(self, requests: list[bytes], rate: float, seconds: float, tally: Tally) -> None:
        idle: list[Connection] = []

        async def one(request: bytes, due: float) -> None:
            connection = idle.pop() if idle else Connection(*self._address)
            await connection.send(request, due, tally)
            idle.append(connection)

        began = time.perf_counter()
        tasks = set()
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            task = asyncio.create_task(one(requests[number % len(requests)], due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        for connection in idle:
            connection.close()

    def _request(self, path: str, body: bytes) -> bytes:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._address[0]}\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
        )
        return head.encode() + body


def multipart(name: str, *files: bytes, **fields: str) -> bytes:
    """A multipart body: JPEG files in the field `name`, and text fields."""
    parts = [_part(f'name="{field}"', text.encode()) for field, text in fields.items()]
    parts += [_part(f'name="{name}"; filename="a.jpg"', file) for file in files]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def _part(disposition: str, content: bytes) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
    return head.encode() + content + b"\r\n"


def summary(tally: Tally, seconds: float) -> dict[str, Any]:
    """The figures of a run; latencies in milliseconds."""
    answered = len(tally.seconds)
    p50, p95, p99 = np.percentile(tally.seconds, [50, 95, 99]) * 1e3 if answered else [float("nan")] * 3
    return {
        "seconds": round(seconds, 2),
        "answered": answered,
        "per_second": round(answered / seconds, 2),
        "p50_ms": round(p50, 1),
        "p95_ms": round(p95, 1),
        "p99_ms": round(p99, 1),
        "refused": tally.statuses[503],
        "refused_without_retry_after": tally.without_retry_after,
        "errors": sum(tally.statuses.values()) - answered - tally.statuses[503] + tally.broken,
    }


def main() -> None:
    host, port, folder = sys.argv[1:4]
    generator = Generator(host, int(port), Path(folder))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            print(json.dumps(runner.run(generator.run(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
