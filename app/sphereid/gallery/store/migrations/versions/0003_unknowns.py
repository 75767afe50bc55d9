"""The inbox of unknown faces, for galleries that allow one."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "inboxes",
        sa.Column(
            "gallery_id", sa.String(64), sa.ForeignKey("galleries.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("most", sa.Integer, nullable=False),
        sa.Column("days", sa.Integer, nullable=False),
    )
    op.create_table(
        "unknowns",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column(
            "gallery_id", sa.String(64), sa.ForeignKey("galleries.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("contract", sa.String(128), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.Column("quality", sa.Double, nullable=False),
        sa.Column("detection_score", sa.Double, nullable=False),
        sa.Column("source", sa.String(300)),
        sa.Column("image", sa.LargeBinary, nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
    )
    op.create_index("ix_unknowns_gallery_id", "unknowns", ["gallery_id"])


def downgrade() -> None:
    op.drop_table("unknowns")
    op.drop_table("inboxes")
