"""The audit log, the check of the encryption key, and how strict a gallery is about the quality of faces."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("number", _BIG, primary_key=True, autoincrement=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(100), nullable=False),
        sa.Column("request_id", sa.String(64)),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("gallery", sa.String(64)),
        sa.Column("identity", sa.String(64)),
        sa.Column("details", sa.JSON, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_index("ix_audit_gallery_identity", "audit", ["gallery", "identity", "number"])
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", _BIG, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_table(
        "vault",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("proof", sa.LargeBinary, nullable=False),
    )
    op.add_column("galleries", sa.Column("quality", sa.String(16), nullable=False, server_default="normal"))


def downgrade() -> None:
    op.drop_column("galleries", "quality")
    for table in ("vault", "audit_head", "audit"):
        op.drop_table(table)
