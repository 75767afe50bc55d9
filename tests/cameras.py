"""A camera and a receiver of webhooks on loopback, for tests: real HTTP servers."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.server import until


class Camera:
    """Shows `picture` again and again, until it is told to break the connection."""

    def __init__(self, picture: bytes) -> None:
        self.picture = picture
        self.connections = 0
        self.broken = threading.Event()
        self.over = threading.Event()


@contextmanager
def filming(camera: Camera) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            camera.connections += 1
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            while not (camera.broken.is_set() or camera.over.wait(0.02)):  # as cameras do: so many a second
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(camera.picture)}\r\n\r\n"
                try:
                    self.wfile.write(head.encode() + camera.picture + b"\r\n")
                except OSError:
                    return
            camera.broken.clear()

        def log_message(self, *_: object) -> None:
            pass

    with served(Handler) as url:
        try:
            yield f"{url}/camera"
        finally:
            camera.over.set()


class Receiver:
    """Takes webhooks, after it has refused as many as `refuse`; while `silent` it answers none."""

    def __init__(self, refuse: int = 0) -> None:
        self.refuse = refuse
        self.silent = threading.Event()
        self.tries: list[tuple[dict[str, str], bytes]] = []
        self.taken: list[tuple[dict[str, str], bytes]] = []

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.taken]


@contextmanager
def receiving(receiver: Receiver) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got = {name.lower(): value for name, value in self.headers.items()}, body
            refused = len(receiver.tries) < receiver.refuse
            if receiver.silent.is_set():
                receiver.tries.append(got)
                until(lambda: not receiver.silent.is_set())
                return
            self.send_response(503 if refused else 204)
            self.end_headers()
            receiver.tries.append(got)
            if not refused:
                receiver.taken.append(got)

        def log_message(self, *_: object) -> None:
            pass

    with served(Handler) as url:
        yield f"{url}/hook"


@contextmanager
def served(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server that answers so, on a free port of loopback."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
