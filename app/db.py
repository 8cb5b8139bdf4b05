"""The engine, its sessions, and the migrations.

SQLite: WAL so that readers never wait; every writer begins with BEGIN IMMEDIATE, so that two writers queue instead of
deadlocking; synchronous=FULL, because NORMAL can lose an acknowledged row when the power goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from model.errors import ConfigError

MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_TIMEOUT_MS = 10_000


class Database:
    """Short transactions: `read()` never blocks a writer, `write()` commits on leaving and rolls back on an error."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError `bad_database`, for a URL that names nothing that can be opened."""
        try:
            self.engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
        except (SQLAlchemyError, ImportError) as error:
            raise _bad_database(error) from error
        if self.engine.dialect.name == "sqlite":
            if self.engine.url.database:
                Path(self.engine.url.database).parent.mkdir(parents=True, exist_ok=True)
            _configure_sqlite(self.engine)
        self._reading = self.engine.execution_options(read_only=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads."""
        with Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose transaction is committed at the end of the block."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self, revision: str = "head") -> None:
        """Brings the schema to the newest version, or forward to that revision. Raises ConfigError `bad_database`."""
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        try:
            with self._unbound() as connection, connection.begin():
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
                if (
                    self.engine.dialect.name == "sqlite"
                    and connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                ):
                    raise CommandError("a migration would leave rows that point nowhere")
        except (SQLAlchemyError, CommandError) as error:
            raise _bad_database(error) from error

    @contextmanager
    def _unbound(self) -> Iterator[Connection]:
        """A connection on which SQLite lets a table be replaced that others point to (sqlite.org/lang_altertable, 7).

        The pragma does nothing inside a transaction, so it comes before the first statement, to the driver itself.
        """
        with self.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            if self.engine.dialect.name != "sqlite":
                yield connection
                return
            driver.execute("PRAGMA foreign_keys=OFF")
            try:
                yield connection
            finally:
                driver.execute("PRAGMA foreign_keys=ON")

    def close(self) -> None:
        """Gives the connections back."""
        self.engine.dispose()


def _bad_database(error: Exception) -> ConfigError:
    reason = str(getattr(error, "orig", None) or error).splitlines()[0]
    return ConfigError(
        "bad_database", f"The database cannot be used ({reason}): see OVERREAD_DATABASE_URL and OVERREAD_DATA_DIR."
    )


def _configure_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver's own transactions would begin deferred
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
