"""Crops of enrolled faces, kept where the gallery says so, from which another model can embed them anew."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("galleries", sa.Column("keep_crops", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "crops",
        sa.Column("face_id", sa.String(64), sa.ForeignKey("faces.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("image", sa.LargeBinary, nullable=False),
    )
