"""Every setting of the service, read from the environment (`SPHEREID_…`) or a `.env` file.

Groups are nested with two underscores: `SPHEREID_LIMITS__IMAGE_BYTES=10000000`. `HOST` and `PORT` are
understood without the prefix too. `python -m sphereid.settings` prints the table that the README shows.
"""

import ipaddress
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "SPHEREID_"
MIB = 1024 * 1024


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Group):
    """What a request may hold."""

    image_bytes: int = Field(default=20 * MIB, ge=1024, description="Largest image file, in bytes.")
    image_pixels: int = Field(
        default=120_000_000,
        ge=4096,
        description="Most pixels an image may have; checked before it is decompressed.",
    )
    image_side: int = Field(default=20_000, ge=64, description="Longest side of an image, in pixels.")
    decoded_pixels: int = Field(
        default=40_000_000,
        ge=4096,
        description="Most pixels in memory; larger JPEGs are decoded at reduced size, others refused.",
    )
    video_bytes: int = Field(default=2048 * MIB, ge=1024, description="Largest video file, in bytes.")
    import_bytes: int = Field(
        default=8192 * MIB, ge=1024, description="Largest archive or Parquet file of an import, in bytes."
    )
    request_bytes: int = Field(
        default=64 * MIB,
        ge=1024,
        description="Largest request with several images, in bytes; a single image may always come.",
    )
    images_per_request: int = Field(default=16, ge=2, le=1000, description="Most images in one enrollment.")
    faces_per_image: int = Field(
        default=256, ge=1, description="Most faces answered for one image; the largest are kept."
    )
    json_bytes: int = Field(
        default=MIB, ge=1024, description="Largest JSON body of routes that take no image."
    )
    body_timeout: float = Field(
        default=30.0, gt=0, description="Seconds that a client may take to send its request body."
    )


class Detection(_Group):
    """The face detector."""

    min_face: int = Field(default=32, ge=12, description="Shortest side in pixels of a face worth finding.")
    min_face_ratio: float = Field(
        default=1 / 32,
        ge=0,
        lt=1,
        description="The same relative to the image's shorter side; the larger of the two counts.",
    )
    min_score: float = Field(
        default=0.9,
        gt=0,
        lt=1,
        description="Lowest detection score of a face that is used, unless a request says.",
    )
    threads: int = Field(
        default=1,
        ge=1,
        description="Threads of one detection, and of OpenCV; requests run beside each other.",
    )


class Queues(_Group):
    """How much work runs and how much may wait; beyond it the service answers 503 with Retry-After."""

    in_flight: int = Field(
        default_factory=lambda: max(2, os.cpu_count() or 1),
        ge=1,
        description="Images worked on at the same time (default: the number of cores); at least two for "
        "each of the workers.",
    )
    waiting: int = Field(
        default=64, ge=0, description="Requests that may wait for their turn beyond those in flight."
    )
    max_batch: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Most faces that go through the embedder together; "
        "0 takes 4 on the processor and 32 on a GPU.",
    )
    batch_wait_ms: float | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="Longest that a face waits for company, while other requests run "
        "(default: 0 on the processor, 2 on a GPU).",
    )
    jobs_waiting: int = Field(default=16, ge=1, description="Jobs, such as videos, that may wait.")
    faces_waiting: int = Field(default=512, ge=1, description="Faces that may wait for the embedder.")


class Monitors(_Group):
    """What monitors may do; nothing unless it is named here."""

    sources: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Comma-separated sources that monitors may open: addresses "
        "(`rtsp://camera.example/`, with all below), numbers of cameras (`0`), folders (`/srv/videos`).",
    )
    webhooks: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Comma-separated addresses that monitors may call, with all below "
        "(`https://example.org/hooks/`).",
    )
    most: int = Field(default=8, ge=0, description="Most monitors; 0 allows none.")

    @field_validator("sources", "webhooks", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(each for part in value.split(",") if (each := part.strip()))
        return value


class Settings(BaseSettings):
    """All settings; see each field's description."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    host: str = Field(
        default="127.0.0.1",
        validation_alias=AliasChoices(f"{PREFIX}HOST", "HOST"),
        description="Address to listen on. Anything but loopback wants api_keys.",
    )
    port: int = Field(
        default=8000,
        ge=0,
        le=65535,
        validation_alias=AliasChoices(f"{PREFIX}PORT", "PORT"),
        description="Port to listen on; 0 takes a free one.",
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="Comma-separated keys; clients send one as `Authorization: Bearer KEY`. Empty: no key.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Comma-separated host names under which the service may be called; `*` allows all. "
        "Empty: with a key any name, without one only IP addresses and localhost, so that no website reaches "
        "it under a name of its own (DNS rebinding).",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Comma-separated origins (`https://app.example.org`) whose pages may call the API.",
    )
    allow_insecure_bind: bool = Field(
        default=False, description="Listen on other addresses than loopback although no key is set."
    )
    data_dir: Path = Field(
        default=Path("data"), description="Folder of the database, index snapshots and caches."
    )
    database_url: SecretStr | None = Field(
        default=None, description="SQLAlchemy URL of the gallery's database (default: SQLite in data_dir)."
    )
    models_dir: Path = Field(default=Path("models"), description="Folder with one folder a model.")
    model: str | None = Field(
        default=None,
        description="Folder name of the model to serve (default: the only one, else the first by name, "
        "installed ones last).",
    )
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        default="auto",
        description="Where the embedder runs; cuda and tensorrt refuse to start where they are not there.",
    )
    precision: Literal["auto", "fp32", "int8"] = Field(
        default="auto",
        description="Model file of the embedder; auto takes int8 on the CPU where it is measured as good.",
    )
    threads: int = Field(
        default=1,
        ge=0,
        description="Threads of one batch of the embedder on the CPU; batches run beside each other on the "
        "other cores. 0 takes one a physical core and runs one batch at a time.",
    )
    workers: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="Processes that look at pictures (default: one a core on a processor with several, at "
        "most 16; none on a GPU). 0 looks in threads of the service.",
    )
    default_fpir: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="Share of strangers who may get a name, in galleries that set no policy.",
    )
    verification_fmr: float = Field(
        default=0.001, gt=0, lt=1, description="False match rate that a 1:1 verification promises."
    )
    job_days: int = Field(
        default=30, ge=1, description="Days after which finished jobs and their files are deleted."
    )
    encryption_key: SecretStr | None = Field(
        default=None,
        description="Encrypts embeddings and kept pictures at rest: 32 bytes as 64 hexadecimal digits or "
        "base64. `sphereid rotate-key` changes it.",
    )
    encryption_key_file: Path | None = Field(
        default=None, description="The same, read from a file; set one of the two."
    )
    audit: Literal["all", "writes", "off"] = Field(
        default="all",
        description="What the audit log takes in: all, the writes alone (no identifications), or nothing.",
    )
    index: Literal[
        "auto", "flat", "flat-fp16", "flat-sq8", "hnsw", "ivf", "ivf-fast", "ivf-sq8", "ivf-pq"
    ] = Field(
        default="auto",
        description="How galleries are searched: auto goes by their size; flat compares every face.",
    )
    limits: Limits = Field(default_factory=lambda: Limits(), description="What a request may hold.")
    detection: Detection = Field(default_factory=lambda: Detection(), description="The face detector.")
    queues: Queues = Field(
        default_factory=lambda: Queues(), description="How much runs and how much may wait."
    )
    monitors: Monitors = Field(
        default_factory=lambda: Monitors(), description="What monitors may open and call."
    )
    docs: bool = Field(default=True, description="Serve the interactive documentation at /docs.")
    log_format: Literal["console", "json"] = Field(default="console", description="How log lines look.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least important line that is logged."
    )
    shutdown_grace: int = Field(
        default=20,
        ge=0,
        description="Seconds that running requests get to finish when the server is told to stop.",
    )

    @field_validator("api_keys", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(key for part in value.split(",") if (key := part.strip()))
        return value

    @field_validator("api_keys")
    @classmethod
    def _usable_keys(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in keys:
            text = key.get_secret_value()
            if not (len(text) >= 8 and text.isascii() and text.isprintable() and " " not in text):
                raise ValueError("every key needs at least 8 printable ASCII characters without spaces")
        return keys

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://[^/\\s?#@*]+", origin):
                raise ValueError(
                    f"{origin!r} is no origin: give scheme and host, such as https://app.example.org"
                )
        return tuple(origin.lower() for origin in origins)

    @property
    def database(self) -> str:
        """The SQLAlchemy URL to use."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{(self.data_dir / 'sphereid.db').absolute()}"

    def refuse_open_port(self) -> None:
        """Raises ValueError when the service would listen beyond this machine without asking for a key."""
        if self.api_keys or self.allow_insecure_bind or is_loopback(self.host):
            return
        raise ValueError(
            f"refusing to listen on {self.host} without a key: anybody who reaches this port could read and "
            f"change the galleries. Set {PREFIX}API_KEYS to one or more keys, listen on 127.0.0.1, or, where "
            f"something else guards the port, set {PREFIX}ALLOW_INSECURE_BIND=true"
        )


def is_loopback(host: str) -> bool:
    """True when `host` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def rows() -> Iterator[tuple[str, str, str]]:
    """(variable, default, description) of every setting, in the order of the classes."""
    for name, field in Settings.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            for inner, inner_field in annotation.model_fields.items():
                yield _row(f"{name}__{inner}", inner_field)
        else:
            yield _row(name, field)


def _row(name: str, field: FieldInfo) -> tuple[str, str, str]:
    if field.default_factory is not None:
        default = ""  # depends on the machine; the description says how
    elif isinstance(field.default, bool):
        default = str(field.default).lower()
    elif isinstance(field.default, float):
        default = f"{field.default:g}"
    else:
        default = "" if field.default in (None, ()) else str(field.default)
    return f"{PREFIX}{name.upper()}", default, field.description or ""


def markdown_table() -> str:
    """The settings as a Markdown table."""
    lines = ["| variable | default | what it does |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {f'`{default}`' if default else ''} | {text} |" for name, default, text in rows()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown_table())
