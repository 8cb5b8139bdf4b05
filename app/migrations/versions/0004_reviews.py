"""Reviews and audit events, both chains that can only grow; users and their sessions."""

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None

CHAINS = ("reviews", "audit_events")
FIRST = "0" * 64


def upgrade() -> None:
    op.create_table(
        "reviews",
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("instance_id", sa.String(32), nullable=False),
        sa.Column("analysis_id", sa.String(32), nullable=True),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("reader_id", sa.String(32), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=True),
        sa.Column("token", sa.String(64), nullable=True),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_reviews"),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name="fk_reviews_instance_id_instances"),
        sa.ForeignKeyConstraint(["analysis_id"], ["analyses.id"], name="fk_reviews_analysis_id_analyses"),
        sa.UniqueConstraint("id", name="uq_reviews_id"),
        sa.UniqueConstraint("previous_hash", name="uq_reviews_previous_hash"),
        sa.UniqueConstraint("hash", name="uq_reviews_hash"),
        sa.UniqueConstraint("reader_id", "token", name="uq_reviews_token"),
    )
    op.create_index("ix_reviews_instance", "reviews", ["instance_id", "sequence"])
    op.create_index("ix_reviews_subject", "reviews", ["subject", "sequence"])
    op.create_table(
        "read_first",
        sa.Column("instance_id", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", name="pk_read_first"),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name="fk_read_first_instance_id_instances"),
    )
    op.create_table(
        "audit_events",
        sa.Column("sequence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit_events"),
        sa.UniqueConstraint("previous_hash", name="uq_audit_events_previous_hash"),
        sa.UniqueConstraint("hash", name="uq_audit_events_hash"),
    )
    op.create_index("ix_audit_events_at", "audit_events", ["at"])
    op.create_index("ix_audit_events_actor", "audit_events", ["actor", "sequence"])
    op.create_index("ix_audit_events_action", "audit_events", ["action", "sequence"])
    op.create_table(
        "users",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("password_hash", sa.String(255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("key", name="uq_users_key"),
    )
    op.create_table(
        "sessions",
        sa.Column("id_hash", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id_hash", name="pk_sessions"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_sessions_user_id_users", ondelete="CASCADE"),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    guard = _guard_postgresql if op.get_bind().dialect.name == "postgresql" else _guard_sqlite
    for table in CHAINS:
        guard(table)


def downgrade() -> None:
    for table in ("sessions", "users", "audit_events", "read_first", "reviews"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        for table in CHAINS:
            op.execute(f"DROP FUNCTION {table}_refuse()")
            op.execute(f"DROP FUNCTION {table}_continue()")


def _guard_sqlite(table: str) -> None:
    """INSERT OR REPLACE deletes without a delete trigger: a row that is there already is refused before that."""
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} can only be added to'); END"
        )
    op.execute(
        f"CREATE TRIGGER {table}_continue BEFORE INSERT ON {table} WHEN {_breaks_chain(table)} "
        f"BEGIN SELECT RAISE(ABORT, '{table}: the new row does not continue the chain'); END"
    )


def _guard_postgresql(table: str) -> None:
    op.execute(
        f"CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{table} can only be added to'; END $$"
    )
    for verb, each in (("UPDATE", "ROW"), ("DELETE", "ROW"), ("TRUNCATE", "STATEMENT")):
        op.execute(
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"FOR EACH {each} EXECUTE FUNCTION {table}_refuse()"
        )
    op.execute(
        f"CREATE FUNCTION {table}_continue() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF {_breaks_chain(table)} THEN RAISE EXCEPTION '{table}: the new row does not continue the chain'; END IF; "
        "RETURN NEW; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_continue BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_continue()"
    )


def _breaks_chain(table: str) -> str:
    last = f"FROM {table} ORDER BY sequence DESC LIMIT 1"
    breaks = (
        f"NEW.sequence <> coalesce((SELECT sequence {last}), 0) + 1 "
        f"OR NEW.previous_hash <> coalesce((SELECT hash {last}), '{FIRST}') "
        f"OR EXISTS (SELECT 1 FROM {table} WHERE hash = NEW.hash)"
    )
    if table == "reviews":
        breaks += (
            " OR EXISTS (SELECT 1 FROM reviews WHERE id = NEW.id OR (reader_id = NEW.reader_id AND token = NEW.token))"
        )
    return breaks
