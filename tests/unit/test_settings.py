"""Settings: from the environment, documented, and safe by default."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from sphereid.settings import Settings, is_loopback, markdown_table, rows


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("SPHEREID_") or name in {"HOST", "PORT"}:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)  # no .env of the developer's


def test_defaults_listen_on_loopback_and_start() -> None:
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    settings.refuse_open_port()
    assert settings.database.startswith("sqlite:////")
    assert settings.database.endswith("/data/sphereid.db")


@pytest.mark.parametrize("prefix", ["", "SPHEREID_"])
def test_host_and_port_with_and_without_prefix(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.setenv(f"{prefix}HOST", "::1")
    monkeypatch.setenv(f"{prefix}PORT", "9001")
    assert (Settings().host, Settings().port) == ("::1", 9001)


def test_the_prefixed_name_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("SPHEREID_PORT", "2")
    assert Settings().port == 2


def test_groups_are_nested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPHEREID_LIMITS__IMAGE_BYTES", "4096")
    monkeypatch.setenv("SPHEREID_QUEUES__WAITING", "3")
    settings = Settings()
    assert settings.limits.image_bytes == 4096
    assert settings.limits.images_per_request == 16
    assert settings.queues.waiting == 3


def test_keys_are_split_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPHEREID_API_KEYS", " first-secret, second-secret ,")
    settings = Settings()
    assert [key.get_secret_value() for key in settings.api_keys] == ["first-secret", "second-secret"]
    assert "secret" not in repr(settings).replace("SecretStr", "")


@pytest.mark.parametrize("keys", ["short", "has a space in it", "schlüssel-schlüssel"])
def test_weak_keys_are_refused_without_repeating_them(monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
    monkeypatch.setenv("SPHEREID_API_KEYS", keys)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert keys not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_an_open_port_without_a_key_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="SPHEREID_API_KEYS"):
        Settings(host=host).refuse_open_port()
    Settings(host=host, allow_insecure_bind=True).refuse_open_port()
    Settings(host=host, api_keys=("a-long-enough-key",)).refuse_open_port()  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "localhost", "::1", "[::1]"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


def test_every_setting_is_documented() -> None:
    table = markdown_table()
    for name, _, description in rows():
        assert name.startswith("SPHEREID_")
        assert description.endswith("."), name
        assert f"`{name}`" in table


def test_every_documented_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row of the table names a variable that really changes the setting."""
    numbers = {name: default for name, default, _ in rows() if default.isdigit()}
    assert len(numbers) > 10
    for name, default in numbers.items():
        monkeypatch.setenv(name, str(int(default) + 1 if int(default) < 60000 else int(default) - 1))
    settings = Settings()
    for name, default in numbers.items():
        value: object = settings
        for part in name.removeprefix("SPHEREID_").lower().split("__"):
            value = getattr(value, part)
        assert str(value) != default, name


def test_bad_values_name_their_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPHEREID_PORT", "seventy")
    with pytest.raises(ValidationError, match="SPHEREID_PORT"):
        Settings()
