"""Whose flag the worklist shows, and on which finding. Summaries are made anew to know it."""

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("studies", sa.Column("flag_by", sa.String(16), nullable=True))
    op.add_column("studies", sa.Column("flag_finding", sa.String(32), nullable=True))
    op.execute("UPDATE studies SET summary_pair = NULL")


def downgrade() -> None:
    op.drop_column("studies", "flag_finding")
    op.drop_column("studies", "flag_by")
