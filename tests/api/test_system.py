"""What the service says of itself: its settings without secrets, and its models' cards."""

from collections.abc import Callable
from pathlib import Path

import httpx
from sphereid.settings import Settings, rows

from tests.server import serving


def test_settings_are_told_without_secrets(toy_settings: Callable[..., Settings], tmp_path: Path) -> None:
    settings = toy_settings(
        tmp_path,
        api_keys="correct-horse,battery-staple",
        database_url=f"sqlite:///{tmp_path}/other.db",
        monitors={"sources": "rtsp://me:hidden@cam.lan/", "most": 3},
    )
    with serving(settings, Authorization="Bearer correct-horse") as running:
        answer = running.client.get("/v1/settings")
        told = {item["variable"]: item["value"] for item in answer.json()["items"]}
    assert list(told) == [variable for variable, _, _ in rows()]
    assert (told["SPHEREID_API_KEYS"], told["SPHEREID_DATABASE_URL"]) == ("set", "set")
    assert (told["SPHEREID_MONITORS__MOST"], told["SPHEREID_DOCS"]) == ("3", "true")
    assert told["SPHEREID_MONITORS__SOURCES"] == "rtsp://…@cam.lan/"
    for secret in ("correct-horse", "battery-staple", "other.db", "hidden"):
        assert secret not in answer.text


def test_a_model_has_a_card_or_none(toy_settings: Callable[..., Settings], tmp_path: Path) -> None:
    settings = toy_settings(tmp_path)
    card = settings.models_dir / "toy" / "CARD.md"
    card.write_text("# Toy\n\nIt knows nothing about people.\n", encoding="utf-8")
    try:
        with serving(settings) as running:
            client: httpx.Client = running.client
            assert client.get("/v1/models/toy/card").json()["text"].startswith("# Toy")
            for missing in ("nobody", "..", "%2e%2e"):
                assert client.get(f"/v1/models/{missing}/card").status_code == 404
    finally:
        card.unlink()
