"""Which unknown faces are of one photograph, and so of different people."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("unknowns", sa.Column("picture", sa.String(64)))


def downgrade() -> None:
    op.drop_column("unknowns", "picture")
