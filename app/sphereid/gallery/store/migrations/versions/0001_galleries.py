"""Galleries, identities, faces, and the answers to idempotent writes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "galleries",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("policy", sa.String(16), nullable=False),
        sa.Column("policy_value", sa.Double, nullable=False),
        sa.Column("ambiguity_margin", sa.Double, nullable=False),
        sa.Column("template", sa.String(16), nullable=False),
        sa.Column("contract", sa.String(128)),
        sa.Column("dimension", sa.Integer),
        sa.Column("revision", _BIG, nullable=False),
        sa.Column("identities", _BIG, nullable=False),
        sa.Column("faces", _BIG, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
    )
    op.create_table(
        "identities",
        sa.Column("number", _BIG, primary_key=True, autoincrement=True),
        sa.Column(
            "gallery_id", sa.String(64), sa.ForeignKey("galleries.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("faces", _BIG, nullable=False),
        sa.Column("ticks", _BIG, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.UniqueConstraint("gallery_id", "id", name="uq_identities_gallery_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "faces",
        sa.Column("number", _BIG, primary_key=True, autoincrement=False),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column(
            "gallery_id", sa.String(64), sa.ForeignKey("galleries.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column(
            "identity_number", _BIG, sa.ForeignKey("identities.number", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("contract", sa.String(128), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.Column("quality", sa.Double, nullable=False),
        sa.Column("detection_score", sa.Double, nullable=False),
        sa.Column("source", sa.String(300)),
        sa.Column("created_at", _TIME, nullable=False),
    )
    op.create_index("ix_faces_gallery_number", "faces", ["gallery_id", "number"])
    op.create_index("ix_faces_identity_number", "faces", ["identity_number"])
    op.create_table(
        "answers",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("fingerprint", sa.String(128), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
    )
    op.create_index("ix_answers_created_at", "answers", ["created_at"])


def downgrade() -> None:
    for table in ("answers", "faces", "identities", "galleries"):
        op.drop_table(table)
