"""Who has said anything of a study, and an index of a reader's own list: for lists that ask for unaided readings."""

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "study_readers",
        sa.Column("study_id", sa.String(32), nullable=False),
        sa.Column("reader_id", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("study_id", "reader_id", name="pk_study_readers"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_study_readers_study_id_studies"),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO study_readers (study_id, reader_id) SELECT DISTINCT instances.study_id, reviews.reader_id "
        "FROM reviews JOIN instances ON instances.id = reviews.instance_id WHERE instances.study_id IS NOT NULL"
    )
    op.create_index("ix_studies_claimed_by_priority", "studies", ["claimed_by", "priority", "received_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_studies_claimed_by_priority", "studies")
    op.drop_table("study_readers")
