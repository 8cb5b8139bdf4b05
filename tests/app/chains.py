"""What somebody with the database's password could do behind the server's back."""

from __future__ import annotations

from sqlalchemy import text

from app.db import Database


def tamper(db: Database, table: str, *statements: str) -> None:
    """Runs the statements with the table's triggers out of the way."""
    with db.engine.begin() as connection:
        if db.engine.dialect.name == "postgresql":
            connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
        else:
            for verb in ("no_update", "no_delete", "continue"):
                connection.execute(text(f"DROP TRIGGER {table}_{verb}"))
        for statement in statements:
            connection.exec_driver_sql(statement)
