"""The outbox of a webhook, and who gives up when."""

import http.server
import json
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sphereid.monitors import webhook
from sphereid.monitors.outbox import Outbox
from sphereid.monitors.signing import new_secret
from sphereid.monitors.store import MonitorStore
from sphereid.monitors.types import Webhook
from sphereid.monitors.webhook import Deliverer

from tests.server import until


def ids(outbox: Outbox) -> list[str]:
    """What waits, oldest first; the outbox is empty afterwards."""
    found = []
    while (first := outbox.first()) is not None:
        found.append(first.id)
        assert outbox.remove(first.id)
    return found


@settings(max_examples=20)
@given(st.lists(st.sampled_from(["add", "remove", "reopen"]), max_size=30), st.integers(1, 8))
def test_an_outbox_is_a_queue_that_survives(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], most: int
) -> None:
    path = tmp_path_factory.mktemp("outbox") / "door.outbox"
    outbox, model = Outbox(path), list[str]()
    for number, step in enumerate(steps):
        if step == "add":
            outbox.add(f"msg_{number}", "{}")
            model.append(f"msg_{number}")
        elif step == "remove" and model:
            assert outbox.remove(model.pop(0))
        elif step == "reopen":
            outbox.close()
            outbox = Outbox(path)
        assert len(outbox) == len(model)
    assert outbox.drop(before=0, most=most) == max(len(model) - most, 0)
    assert ids(outbox) == model[-most:]
    outbox.close()


def test_what_was_removed_is_wiped_and_nobody_else_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "door.outbox"
    outbox = Outbox(path)
    outbox.add("msg_1", json.dumps({"identity": "Ada Lovelace"}))
    assert b"Ada Lovelace" in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    outbox.remove("msg_1")
    outbox.close()
    assert b"Ada Lovelace" not in path.read_bytes()


def test_a_damaged_outbox_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "door.outbox").write_bytes(b"no database at all" * 100)
    outbox = MonitorStore(tmp_path).outbox("door")
    outbox.add("msg_1", "{}")
    assert ids(outbox) == ["msg_1"]
    outbox.close()
    assert (tmp_path / "door.outbox-damaged").exists()


def test_the_outbox_of_a_monitor_that_is_gone_goes(tmp_path: Path) -> None:
    store = MonitorStore(tmp_path)
    store.outbox("door").close()
    assert store.load() == []
    assert list(tmp_path.iterdir()) == []


@contextmanager
def answering(*statuses: int) -> Iterator[tuple[str, list[str]]]:
    """A receiver that answers with these in turn, the last for ever; its address, and the ids that came."""
    came: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(statuses[min(len(came), len(statuses) - 1)])
            self.end_headers()
            came.append(self.headers["webhook-id"])

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", came
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def delivering(url: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deliverer]:
    monkeypatch.setattr(webhook, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(webhook, "LONGEST_WAIT", 0.002)
    deliverer = Deliverer(Webhook(url, new_secret()), Outbox(path))
    deliverer.start()
    try:
        yield deliverer
    finally:
        deliverer.stop()


def test_an_event_that_is_refused_for_good_lets_the_next_one_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        answering(*[400] * webhook.REFUSALS, 204) as (url, came),
        delivering(url, tmp_path / "a.outbox", monkeypatch) as deliverer,
    ):
        deliverer.put("msg_bad", {})
        deliverer.put("msg_good", {})
        until(lambda: deliverer.status.delivered == 1)
        assert came == ["msg_bad"] * webhook.REFUSALS + ["msg_good"]
        assert (deliverer.status.dead, deliverer.status.waiting) == (1, 0)


@pytest.mark.parametrize("status", [503, 429])
def test_a_receiver_that_is_in_trouble_is_waited_for(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        answering(*[status] * 3 * webhook.REFUSALS, 204) as (url, came),
        delivering(url, tmp_path / "a.outbox", monkeypatch) as deliverer,
    ):
        deliverer.put("msg_1", {})
        until(lambda: deliverer.status.delivered == 1)
        assert (len(came), deliverer.status.dead) == (3 * webhook.REFUSALS + 1, 0)


def test_an_event_that_nobody_takes_is_given_up_when_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        answering(503) as (url, came),
        delivering(url, tmp_path / "a.outbox", monkeypatch) as deliverer,
    ):
        deliverer.put("msg_1", {})
        until(lambda: len(came) >= 2)
        monkeypatch.setattr(webhook, "OLDEST", 0.0)
        until(lambda: deliverer.status.dead == 1)
        assert deliverer.status.delivered == 0


def test_a_full_disk_is_said_and_does_not_stop_the_monitor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(tmp_path / "a.outbox")
    deliverer = Deliverer(Webhook("http://127.0.0.1:9/", new_secret()), outbox)
    outbox.close()
    deliverer.put("msg_1", {})
    assert deliverer.status.dead == 1
    assert "disk" in (deliverer.status.last_error or "")
