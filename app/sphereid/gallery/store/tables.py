"""The tables. Any SQL database that SQLAlchemy knows can hold them; the migrations under `migrations/` make
them."""

from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    false,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from sphereid.storage.vault import Vault

ORDINAL_BITS = 20
"""Low bits of a face's number: its ordinal within the identity, whose own number is in the bits above."""

BigInt = BigInteger().with_variant(Integer, "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in UTC; SQLite keeps no zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Sealed(TypeDecorator[bytes]):
    """Bytes that are encrypted where the database has a key; see `sphereid.storage.vault`. Statements see
    them as they are."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        vault: Vault | None = getattr(dialect, "sphereid_vault", None)
        return value if value is None or vault is None else vault.seal(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        vault: Vault | None = getattr(dialect, "sphereid_vault", None)
        return value if value is None or vault is None else vault.open(value)


class Base(DeclarativeBase):
    pass


class GalleryRow(Base):
    """`identities` and `faces` are counts and `revision` the number of writes, kept in each write's
    transaction."""

    __tablename__ = "galleries"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    details: Mapped[dict[str, Any]] = mapped_column("metadata", JSON)
    policy: Mapped[str] = mapped_column(String(16))
    policy_value: Mapped[float] = mapped_column(Double)
    ambiguity_margin: Mapped[float] = mapped_column(Double)
    template: Mapped[str] = mapped_column(String(16))
    keep_crops: Mapped[bool] = mapped_column(default=False, server_default=false())
    quality: Mapped[str] = mapped_column(String(16), default="normal", server_default="normal")
    contract: Mapped[str | None] = mapped_column(String(128))
    dimension: Mapped[int | None]
    revision: Mapped[int] = mapped_column(BigInt)
    identities: Mapped[int] = mapped_column(BigInt)
    faces: Mapped[int] = mapped_column(BigInt)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class IdentityRow(Base):
    """`number` is never given twice. `ticks` counts the changes to its faces and numbers them."""

    __tablename__ = "identities"
    __table_args__ = (
        UniqueConstraint("gallery_id", "id", name="uq_identities_gallery_id"),
        {"sqlite_autoincrement": True},
    )

    number: Mapped[int] = mapped_column(BigInt, primary_key=True, autoincrement=True)
    gallery_id: Mapped[str] = mapped_column(ForeignKey("galleries.id", ondelete="CASCADE"))
    id: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(200))
    details: Mapped[dict[str, Any]] = mapped_column("metadata", JSON)
    faces: Mapped[int] = mapped_column(BigInt)
    ticks: Mapped[int] = mapped_column(BigInt)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class FaceRow(Base):
    """An embedding. `number` = identity's number << ORDINAL_BITS | ordinal: the index needs no map to
    identities, and a number that was deleted never comes back."""

    __tablename__ = "faces"
    __table_args__ = (Index("ix_faces_gallery_number", "gallery_id", "number"),)

    number: Mapped[int] = mapped_column(BigInt, primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(String(64), unique=True)
    gallery_id: Mapped[str] = mapped_column(ForeignKey("galleries.id", ondelete="CASCADE"))
    identity_number: Mapped[int] = mapped_column(
        ForeignKey("identities.number", ondelete="CASCADE"), index=True
    )
    contract: Mapped[str] = mapped_column(String(128))
    vector: Mapped[bytes] = mapped_column(Sealed)
    quality: Mapped[float] = mapped_column(Double)
    detection_score: Mapped[float] = mapped_column(Double)
    source: Mapped[str | None] = mapped_column(String(300))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class CropRow(Base):
    """What is kept of an enrolled photograph where the gallery says so; see `sphereid.faces.crops`."""

    __tablename__ = "crops"

    face_id: Mapped[str] = mapped_column(
        String(64), ForeignKey("faces.id", ondelete="CASCADE"), primary_key=True
    )
    image: Mapped[bytes] = mapped_column(Sealed)


class AnswerRow(Base):
    """What was answered to a write with an Idempotency-Key."""

    __tablename__ = "answers"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(128))
    status: Mapped[int]
    body: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class AuditRow(Base):
    """An entry of the audit log; see `sphereid.gallery.audit`, whose `AuditEntry` has the same members."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_gallery_identity", "gallery", "identity", "number"),)

    number: Mapped[int] = mapped_column(BigInt, primary_key=True, autoincrement=False)
    at: Mapped[str] = mapped_column(String(32))
    actor: Mapped[str] = mapped_column(String(100))
    request_id: Mapped[str | None] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(40))
    gallery: Mapped[str | None] = mapped_column(String(64))
    identity: Mapped[str | None] = mapped_column(String(64))
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    hash: Mapped[str] = mapped_column(String(64))


class AuditHeadRow(Base):
    """One row: the audit log's last entry. Who appends locks it."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInt)
    hash: Mapped[str] = mapped_column(String(64))


class VaultRow(Base):
    """One row where embeddings are encrypted: something known, encrypted with the key in use."""

    __tablename__ = "vault"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    proof: Mapped[bytes] = mapped_column(LargeBinary)


GALLERIES = cast(Table, GalleryRow.__table__)
IDENTITIES = cast(Table, IdentityRow.__table__)
FACES = cast(Table, FaceRow.__table__)
CROPS = cast(Table, CropRow.__table__)
ANSWERS = cast(Table, AnswerRow.__table__)
AUDIT = cast(Table, AuditRow.__table__)
AUDIT_HEAD = cast(Table, AuditHeadRow.__table__)
VAULT = cast(Table, VaultRow.__table__)
