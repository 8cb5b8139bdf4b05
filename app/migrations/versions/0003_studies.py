"""Studies over the instances, the worklist's summary in them, and settings that a page can change.

Every instance that was on the worklist becomes a study of its own, with the same id, so that its address stays. What
its DICOM header says was not kept until now and stays unknown; the summaries are made at the next start.
"""

import re

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

_STUDY_INDEXES = {
    "ix_studies_received": ["received_at", "id"],
    "ix_studies_priority": ["priority", "received_at", "id"],
    "ix_studies_status": ["status", "received_at", "id"],
    "ix_studies_status_priority": ["status", "priority", "received_at", "id"],
    "ix_studies_flag": ["flag", "received_at", "id"],
    "ix_studies_disagreement": ["disagreement", "received_at", "id"],
    "ix_studies_claimed_by": ["claimed_by", "received_at", "id"],
    "ix_studies_summary_pair": ["summary_pair"],
}


def _words(text: str) -> set[str]:
    return {part[:64] for word in text.lower().split() for part in (word, *re.split(r"[\W_]+", word)) if part}


def upgrade() -> None:
    op.create_table(
        "settings",
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_settings"),
    )
    op.create_table(
        "studies",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=True),
        sa.Column("patient_id", sa.String(64), nullable=False),
        sa.Column("patient_name", sa.String(64), nullable=False),
        sa.Column("study_date", sa.Date(), nullable=True),
        sa.Column("description", sa.String(64), nullable=False),
        sa.Column("title", sa.String(255), nullable=False),
        sa.Column("format", sa.String(16), nullable=False),
        sa.Column("thumbnail_sha256", sa.String(64), nullable=False),
        sa.Column("instance_count", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("claimed_by", sa.String(64), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("summary_pair", sa.String(32), nullable=True),
        sa.Column("reference_finding", sa.String(32), nullable=True),
        sa.Column("reference_probability", sa.Double(), nullable=True),
        sa.Column("reference_positives", sa.Integer(), nullable=True),
        sa.Column("candidate_finding", sa.String(32), nullable=True),
        sa.Column("candidate_probability", sa.Double(), nullable=True),
        sa.Column("candidate_positives", sa.Integer(), nullable=True),
        sa.Column("disagreement", sa.Boolean(), nullable=True),
        sa.Column("flag", sa.String(16), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_studies"),
        sa.UniqueConstraint("study_instance_uid", name="uq_studies_study_instance_uid"),
    )
    op.execute(
        """
        INSERT INTO studies (id, patient_id, patient_name, description, title, format, thumbnail_sha256,
                             instance_count, source, received_at, status, priority)
        SELECT id, '', '', '', name, format, thumbnail_sha256,
               1, CASE WHEN name LIKE 'synthetic sample %' THEN 'sample' ELSE 'upload' END,
               received_at, 'unread', 0
        FROM instances WHERE on_worklist
        """
    )
    bytewise = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
    words = op.create_table(
        "study_words",
        sa.Column("word", bytewise, nullable=False),
        sa.Column("study_id", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("word", "study_id", name="pk_study_words"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_study_words_study_id_studies"),
    )
    op.create_index("ix_study_words_study", "study_words", ["study_id", "word"])
    known = op.get_bind().execute(sa.text("SELECT id, title FROM studies")).all()
    found = [{"word": word, "study_id": key} for key, title in known for word in _words(f"{title} {key}")]
    if found:
        op.bulk_insert(words, found)
    op.drop_index("ix_instances_worklist", "instances")
    op.add_column("instances", sa.Column("study_id", sa.String(32), nullable=True))
    op.execute("UPDATE instances SET study_id = id WHERE on_worklist")
    with op.batch_alter_table("instances") as instances:
        instances.drop_column("on_worklist")
        instances.add_column(sa.Column("series_instance_uid", sa.String(64), nullable=True))
        instances.add_column(sa.Column("sop_instance_uid", sa.String(64), nullable=True))
        instances.add_column(sa.Column("view", sa.String(64), nullable=False, server_default=""))
        instances.add_column(sa.Column("predicted", sa.Boolean(), nullable=False, server_default=sa.true()))
        instances.create_foreign_key("fk_instances_study_id_studies", "studies", ["study_id"], ["id"])
        instances.create_unique_constraint("uq_instances_sop_instance_uid", ["sop_instance_uid"])
        instances.create_index("ix_instances_study", ["study_id", "received_at", "id"])
    for name, columns in _STUDY_INDEXES.items():
        op.create_index(name, "studies", columns)


def downgrade() -> None:
    op.add_column("instances", sa.Column("on_worklist", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute("UPDATE instances SET on_worklist = (study_id IS NOT NULL)")
    with op.batch_alter_table("instances") as instances:
        instances.drop_index("ix_instances_study")
        instances.drop_constraint("fk_instances_study_id_studies", type_="foreignkey")
        instances.drop_constraint("uq_instances_sop_instance_uid", type_="unique")
        for column in ("study_id", "series_instance_uid", "sop_instance_uid", "view", "predicted"):
            instances.drop_column(column)
        instances.create_index("ix_instances_worklist", ["on_worklist", "received_at", "id"])
    op.drop_table("study_words")
    op.drop_table("studies")
    op.drop_table("settings")
