"""Flags: which analyses the detector has screened, which of them wait for a full test, and what full tests found.

What was read before has no word of the detector, another fingerprint, and is read again.
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "examinations",
        sa.Column("analysis_id", sa.String(32), nullable=False),
        sa.Column("examined_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("flags", sa.JSON(), nullable=False),
        sa.Column("proofs", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("analysis_id", name="pk_examinations"),
        sa.ForeignKeyConstraint(["analysis_id"], ["analyses.id"], name="fk_examinations_analysis_id_analyses"),
    )
    flag = sa.Boolean()
    op.add_column("analyses", sa.Column("screened", flag, nullable=False, server_default=sa.false()))
    op.add_column("analyses", sa.Column("owes_test", flag, nullable=False, server_default=sa.false()))
    op.add_column("analyses", sa.Column("test_job", sa.String(32), nullable=True))
    op.add_column("analyses", sa.Column("p_value", sa.Double(), nullable=True))
    op.create_index("ix_analyses_newest", "analyses", ["fingerprint", "created_at", "p_value"])
    op.create_index("ix_analyses_owes_test", "analyses", ["owes_test", "fingerprint"])


def downgrade() -> None:
    op.drop_index("ix_analyses_owes_test", "analyses")
    op.drop_index("ix_analyses_newest", "analyses")
    for column in ("p_value", "test_job", "owes_test", "screened"):
        op.drop_column("analyses", column)
    op.drop_table("examinations")
